#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

// Users and what they may reach. Everything here blocks on the file system or the user database: workers only.

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

/// Whether `who`, without capabilities, may search every directory on the way to `path` (absolute), which need not
/// exist. Reads modes and POSIX ACLs. Errors: operation_failed, naming the first directory that bars the way and the
/// remedy; bad_argument.
result<void> check_search(const std::string& path, const dac_identity& who);

} // namespace troupe
