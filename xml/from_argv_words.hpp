#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The text of a command line as words, and the value of an option as properties. Bounded: what comes in is anybody's.

namespace troupe {

inline constexpr std::size_t most_argv_bytes = 1u << 20;
inline constexpr std::size_t most_argv_words = 16'384;

/// The words a POSIX shell makes of `text`: quotes, backslashes, continued lines (in single quotes, too) and comments.
/// What a shell would work out or do (variables, commands, pipes, redirections) is refused. Errors: bad_argument,
/// naming the place.
result<std::vector<std::string>> shell_words(std::string_view text);

/// One key of an option's value.
struct arg_property {
  enum class kind : std::uint8_t { text, number, boolean, null };

  std::string key, value;
  kind is = kind::text; ///< What it is in JSON; text in a list of words.
  bool used = false; ///< The import has understood it.
};

/// The value of an option, from "key=value,..." or JSON, whose inner objects become dotted keys ("cache.direct",
/// "server.0.host").
class arg_properties {
public:
  std::vector<arg_property> all;

  /// The value of that key, or null; the last one counts, as for QEMU, and it is understood from now on.
  const std::string* take(std::string_view key);
  /// The values of a key that may stand more than once.
  std::vector<std::string> take_all(std::string_view key);
  /// As `take`, without understanding it.
  const std::string* peek(std::string_view key) const;
  /// Whether the key is there as JSON's null.
  bool take_null(std::string_view key);
  /// Understands the key when it has that value, and is then as good as absent.
  void drop(std::string_view key, std::string_view value);
  /// Understands and forgets the key.
  void drop(std::string_view key) { static_cast<void>(take(key)); }
  bool has(std::string_view key) const { return peek(key) != nullptr; }
  /// Whether a key begins so: "file." of an inner object.
  bool has_below(std::string_view prefix) const;
  /// The first that is not understood, or null.
  const arg_property* unused() const;
  void forget_use();
};

/// Reads an option's value. `first_key`: what a first word without "=" is the value of; empty: nothing. A later word
/// alone is "on". Errors: bad_argument for broken JSON.
result<arg_properties> option_properties(std::string_view value, std::string_view first_key);

/// "on", "yes", "true", "y" or "off", "no", "false", "n"; none for anything else.
std::optional<bool> switch_of(std::string_view text);

/// A whole number, decimal or with 0x; none for anything else.
std::optional<std::uint64_t> number_of(std::string_view text);

/// "8G", "512k", "1.5G": an amount in bytes; a number alone counts in `unit` bytes. None for what is no amount or too
/// large.
std::optional<std::uint64_t> amount_of(std::string_view text, std::uint64_t unit);

} // namespace troupe
