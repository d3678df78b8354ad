#pragma once

#include "runtime/error.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace troupe {

/// Two different categories, in order: what tells a guest's processes and files from those of all others under MCS. One
/// alone would not do, as a file with it could be read by every guest whose pair has it.
struct category_pair {
  std::uint16_t low = 0;
  std::uint16_t high = 1;

  auto operator<=>(const category_pair&) const = default;
};

/// As in a context: "c34,c44".
std::string to_text(category_pair pair);

/// Where pairs come from: consecutive categories.
struct category_range {
  std::uint16_t first = 0;
  std::uint16_t last = 1023;

  bool operator==(const category_range&) const = default;

  std::size_t pairs() const {
    const std::size_t count = last < first ? 0 : std::size_t{last} - first + 1;
    return count * (count - (count != 0)) / 2;
  }
};

/// The categories of the higher level of a range such as "s0-s0:c0.c1023", as far as they are consecutive; all there are
/// when it has none, as a daemon's own context has unless somebody confined it.
/// Errors: bad_argument, for what is no range or leaves no pair.
result<category_range> categories_of(std::string_view range);

/// The only two categories of a range such as "s0:c34,c44". None: it has other ones, more or fewer.
std::optional<category_pair> pair_of(std::string_view range);

/// Which pairs are in use. A pair is leased to one guest at a time, and no pair is leased that a label names which
/// somebody wrote into a definition.
class category_pool {
public:
  explicit category_pool(category_range range = {}) : range_{range} {}

  /// A pair that no live guest has. `draw` is random over all its values: the same one finds the same pair while the
  /// same ones are free. Errors: operation_failed when none is left.
  result<category_pair> lease(std::uint64_t draw);

  /// One more guest has `pair`, whether it was leased by an earlier daemon or is in a label of somebody's choice.
  void reserve(category_pair pair);

  /// One guest less has `pair`.
  void give_back(category_pair pair);

  std::size_t in_use() const { return used_.size(); }

private:
  category_range range_;
  std::map<category_pair, std::size_t> used_; ///< And by how many guests.
};

} // namespace troupe
