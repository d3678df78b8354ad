#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

// What files are to the security models: found out, changed for a guest, and made again what it was. Everything here
// blocks on the file system: workers only.

namespace troupe {

/// What a file is to one model before guests change it: to "dac" its owner, as "+UID:+GID".
struct file_label {
  std::string value{};       ///< Empty: it has none.
  std::string now{};         ///< The same, unless others hold the file: they changed it. Not worth keeping.
  std::uint64_t holders = 0; ///< So many uses of the file libvirt and its like have noted at it.
  std::map<std::string, std::string> notes{}; ///< Extended attributes of earlier, void notes, which ours replace.

  bool operator==(const file_label&) const = default;
};

/// A file before guests change it: enough to give it back, and to see that it is no longer that file.
struct file_record {
  std::string path{}; ///< With every symbolic link resolved.
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  mode_t mode = 0;                            ///< As in stat(2).
  std::map<std::string, file_label> labels{}; ///< By model.
  /// A symbolic link on the way belongs neither to root nor to the file's owner, who may be led to give away what is
  /// not theirs: `take` refuses. Not worth keeping.
  bool foreign_link = false;

  bool operator==(const file_record&) const = default;
};

/// A file, and the labels that it gets for guests, by model.
struct file_taking {
  file_record before{};
  std::map<std::string, std::string> labels{};

  bool operator==(const file_taking&) const = default;
};

/// Notes at the files themselves about what they were, as libvirt keeps them: so that of two supervisors on one host
/// the last to let a file go makes it what it was. Source: the attributes trusted.libvirt.security.* as seen with
/// libvirt 9.0.
struct file_notes {
  bool kept = false;
  std::string holder{}; ///< Tells our notes from those of other instances of ours: letters and digits.
};

/// What is at `path` (absolute) now, to each of `models`. Symbolic links are followed one by one and never twice.
/// Errors: operation_failed (it is not there, cannot be reached), bad_argument.
result<file_record> observe(const std::string& path, std::span<const std::string> models, const file_notes& notes);

/// Labels the file, when the record's path still leads to the same inode without a symbolic link; doing it again does
/// nothing. A file system that will not have it (read-only, root squashed, no owners, no attributes) leaves the file as
/// it is: whether the guest may open it is then up to what it is; where something can be done about that, it is told.
/// Errors: operation_failed.
result<std::vector<std::string>> take(const file_taking& wanted, const file_notes& notes);

/// Makes the file what it was, when it is the same inode and still has the labels that were taken, and nobody else notes
/// that it is in use; doing it again does nothing. A file that is gone, replaced, or changed by somebody else meanwhile
/// is left alone, which is success. Errors: operation_failed.
result<void> give_back(const file_taking& taken, const file_notes& notes);

/// An owner as a label: "+UID:+GID".
std::string owner_label(uid_t uid, gid_t gid);

} // namespace troupe
