#include "sec/category_pool.hpp"

#include <algorithm>
#include <charconv>
#include <vector>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::uint16_t most_categories = 1024; // policies say fewer or as many

std::optional<std::uint16_t> category_from(std::string_view text) {
  std::uint16_t number = 0;
  if (!text.starts_with('c'))
    return std::nullopt;
  const auto [end, ec] = std::from_chars(text.data() + 1, text.data() + text.size(), number);
  if (ec != std::errc{} || end != text.data() + text.size() || number >= most_categories)
    return std::nullopt;
  return number;
}

/// "c0.c3,c7" as the runs it names; none when it is not that.
std::optional<std::vector<category_range>> runs_from(std::string_view text) {
  std::vector<category_range> runs;
  while (!text.empty()) {
    const auto end = std::min(text.find(','), text.size());
    const auto run = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    const auto dot = std::min(run.find('.'), run.size());
    const auto first = category_from(run.substr(0, dot));
    const auto last = dot == run.size() ? first : category_from(run.substr(dot + 1));
    if (!first || !last || *last < *first)
      return std::nullopt;
    runs.push_back({*first, *last});
  }
  return runs;
}

/// The pair with this number, counted as (0,1) (0,2) (1,2) (0,3) (1,3) … from the range's first category.
category_pair pair_number(category_range range, std::size_t number) {
  std::uint16_t high = 1;
  std::size_t below = 0; // pairs whose higher category is lower
  while (below + high <= number)
    below += high++;
  return {static_cast<std::uint16_t>(range.first + (number - below)), static_cast<std::uint16_t>(range.first + high)};
}

category_pair pair_after(category_range range, category_pair pair) {
  if (++pair.low == pair.high)
    pair = {range.first, static_cast<std::uint16_t>(pair.high + 1)};
  return pair.high <= range.last ? pair : pair_number(range, 0);
}

} // namespace

std::string to_text(category_pair pair) {
  return fmt::format("c{},c{}", pair.low, pair.high);
}

result<category_range> categories_of(std::string_view range) {
  const auto level = range.substr(range.find('-') + 1);
  const auto colon = level.find(':');
  if (colon == level.npos)
    return category_range{};
  const auto runs = runs_from(level.substr(colon + 1));
  if (!runs || runs->empty())
    return fail(errc::bad_argument, fmt::format("'{}' is no range of security levels such as 's0-s0:c0.c1023'", range));
  const auto longest = *std::ranges::max_element(*runs, {}, [](const auto& run) { return run.pairs(); });
  if (longest.pairs() == 0)
    return fail(errc::bad_argument, fmt::format("the security levels '{}' have no two categories for a guest", range));
  return longest;
}

std::optional<category_pair> pair_of(std::string_view range) {
  const auto level = range.substr(range.find('-') + 1);
  const auto colon = level.find(':');
  const auto runs = colon == level.npos ? std::nullopt : runs_from(level.substr(colon + 1));
  if (!runs)
    return std::nullopt;
  if (runs->size() == 1 && runs->front().last == runs->front().first + 1) // c3.c4 is c3,c4
    return category_pair{runs->front().first, runs->front().last};
  if (runs->size() != 2 || runs->front().first != runs->front().last || runs->back().first != runs->back().last ||
      runs->front().first == runs->back().first)
    return std::nullopt;
  const auto [low, high] = std::minmax(runs->front().first, runs->back().first);
  return category_pair{low, high};
}

result<category_pair> category_pool::lease(std::uint64_t draw) {
  const auto all = range_.pairs();
  auto pair = pair_number(range_, all == 0 ? 0 : draw % all);
  for (std::size_t tried = 0; tried < all && tried <= used_.size(); ++tried, pair = pair_after(range_, pair))
    if (used_.try_emplace(pair, 1).second)
      return pair;
  return fail(errc::operation_failed, fmt::format("all {} pairs of the categories c{} to c{} are in use by guests", all,
                                                  range_.first, range_.last));
}

void category_pool::reserve(category_pair pair) {
  ++used_[pair];
}

void category_pool::give_back(category_pair pair) {
  const auto it = used_.find(pair);
  if (it != used_.end() && --it->second == 0)
    used_.erase(it);
}

} // namespace troupe
