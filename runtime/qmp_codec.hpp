#pragma once

#include "runtime/error.hpp"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace troupe {

/// Something QEMU told without being asked.
struct qmp_event {
  std::string name;              ///< As QEMU spells it: "SHUTDOWN".
  nlohmann::json data;           ///< null when the event carries nothing.
  std::int64_t seconds = 0;      ///< QEMU's wall clock, since 1970.
  std::int64_t microseconds = 0;
};

/// The first line on a connection.
struct qmp_greeting {
  nlohmann::json about;  ///< The value of "QMP": version and capabilities.
};

/// A command that went well.
struct qmp_return {
  std::optional<std::uint64_t> id;  ///< None: the id is missing or not one a monitor here gave out.
  nlohmann::json value;
};

/// A command that QEMU refused, or a line of ours that it could not read (no id then).
struct qmp_failure {
  std::optional<std::uint64_t> id;
  std::string error_class;  ///< "GenericError", "CommandNotFound", "DeviceNotActive", …
  std::string description;
};

using qmp_message = std::variant<qmp_greeting, qmp_return, qmp_failure, qmp_event>;

/// Reads JSON from outside that nests at most `depth` objects and arrays. Errors: bad_argument, saying where.
result<nlohmann::json> parse_bounded(std::string_view text, std::size_t depth);

/// Reads one line from QEMU, without its line end. Errors: internal, with the start of what came.
/// Source: QEMU's docs/interop/qmp-spec.
result<qmp_message> read_qmp(std::string_view line, std::size_t depth);

/// One command as a line, ready to send. Null `arguments` are left out. Errors: bad_argument (text that is not UTF-8).
result<std::string> write_qmp(std::string_view command, nlohmann::json arguments, std::uint64_t id);

/// A client's own JSON command with our id put in, as a line. Errors: bad_argument.
result<std::string> rewrite_qmp(std::string_view json_text, std::size_t depth, std::uint64_t id);

/// The first bytes of something unexpected, made printable: other bytes as \xNN, an ellipsis for the rest.
std::string printable_start(std::string_view bytes, std::size_t most = 64);

/// Cuts a byte stream into lines and holds what is not a whole line yet: nothing, while idle.
class qmp_lines {
public:
  /// `most`: bytes in a line; a longer one is an error, whether its end has come or not.
  explicit qmp_lines(std::size_t most) : most_{most} {}

  /// Calls `on_line` with each line that `bytes` completes, without line end, empty ones left out, until it answers false.
  /// Errors: internal (a line is too long; the splitter is of no use afterwards).
  template <class OnLine>
  result<void> feed(std::string_view bytes, OnLine&& on_line) {
    for (;;) {
      const auto end = bytes.find('\n');
      if (partial_.size() + (end == bytes.npos ? bytes.size() : end) > most_)
        return overlong(bytes);
      if (end == bytes.npos) {
        partial_ += bytes;
        return {};
      }
      // The line moves out first: its reader may end whoever owns this.
      std::string joined;
      auto line = bytes.substr(0, end);
      if (!partial_.empty()) {
        joined = std::exchange(partial_, {});
        joined += line;
        line = joined;
      }
      bytes.remove_prefix(end + 1);
      if (line.ends_with('\r'))
        line.remove_suffix(1);
      if (!line.empty() && !on_line(line))
        return {};
    }
  }

private:
  result<void> overlong(std::string_view rest) const;

  std::size_t most_;
  std::string partial_;
};

} // namespace troupe
