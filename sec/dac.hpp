#pragma once

#include "runtime/error.hpp"
#include "sec/resource.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

// Owners of files. Everything here blocks on the file system or the user database: workers only.

namespace troupe {

/// The user a guest runs as.
struct dac_identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups{}; ///< Sorted: `gid`, and the groups the user database puts the user in.

  bool operator==(const dac_identity&) const = default;
};

/// Reads `user` and `group` as qemu.conf and a DAC label have them: a name, else a number; "+64055" is always a number.
/// An empty group is the user's own. Errors: bad_argument, system.
result<dac_identity> resolve_identity(std::string_view user, std::string_view group);

/// Whose a file was before a guest took it: enough to give it back, and to see that it is no longer that file.
struct owner_record {
  std::string path{}; ///< With every symbolic link resolved.
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0; ///< As in stat(2). Never changed here.
  /// A symbolic link on the way belongs neither to root nor to the file's owner, who may be led to give away what is
  /// not theirs: `take` refuses. Not worth keeping.
  bool foreign_link = false;

  bool operator==(const owner_record&) const = default;
};

/// What is at `path` (absolute) now. Symbolic links are followed one by one and never twice.
/// Errors: operation_failed (it is not there, cannot be reached), bad_argument.
result<owner_record> observe(const std::string& path);

/// Makes uid:gid the owner, when the record's path still leads to the same inode without a symbolic link.
/// A file system that will not have it (read-only, root squashed, no owners) leaves the file as it is: whether the
/// guest may open it is then up to its mode. Errors: operation_failed.
result<void> take(const owner_record& was, uid_t uid, gid_t gid);

/// Makes the recorded owner the owner again, when it is the same inode and still belongs to taken_uid:taken_gid. A file
/// that is gone, replaced, or given to somebody else meanwhile is left alone, which is success. Errors:
/// operation_failed.
result<void> give_back(const owner_record& was, uid_t taken_uid, gid_t taken_gid);

/// Whether `who`, without capabilities, may search every directory on the way to `path` (absolute), which need not
/// exist. Reads modes and POSIX ACLs. Errors: operation_failed, naming the first directory that bars the way and the
/// remedy; bad_argument.
result<void> check_search(const std::string& path, const dac_identity& who);

} // namespace troupe
