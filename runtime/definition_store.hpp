#pragma once

#include "runtime/error.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// A definition as it was found.
struct stored_definition {
  std::string name;
  std::string text;
  bool autostart = false;
  std::string error; ///< Why there is no text: "cannot read '/etc/troupe/qemu/web1.xml': ...". Empty: there is.
};

/// Definitions as files NAME.xml (mode 0600) that people may read, and links to them in the autostart directory. A file
/// is replaced as a whole or not at all, and a change is on the disk for good when its call returns. Everything blocks:
/// workers only. Any thread, but calls for one name one after another. Names are those that pass `check_file_name`.
class definition_store {
public:
  /// Both directories exist. `autostart_dir` is a child of `definitions_dir`.
  definition_store(std::string definitions_dir, std::string autostart_dir)
    : dir_{std::move(definitions_dir)}, autostart_dir_{std::move(autostart_dir)} {}

  static constexpr std::size_t most_bytes = 8 << 20; ///< Of one definition.

  /// Errors: bad_name, bad_argument (above `most_bytes`), system.
  result<void> save(std::string_view name, std::string_view text) const;

  /// Removes the definition and its autostart link; there being none is success. Errors: bad_name, system.
  result<void> remove(std::string_view name) const;

  /// Whether the guest starts with the host; as it is already is success. Errors: bad_name, system.
  result<void> set_autostart(std::string_view name, bool on) const;

  /// All definitions, by name; one that cannot be read has its error. Removes what an interrupted `save` left, so only
  /// before the first one. Errors: system when the directory itself cannot be read.
  result<std::vector<stored_definition>> load_all() const;

private:
  std::string dir_;
  std::string autostart_dir_;
};

} // namespace troupe
