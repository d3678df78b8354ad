#pragma once

#include "runtime/error.hpp"
#include "sec/dac.hpp"
#include "sec/device_acl.hpp"
#include "sec/landlock.hpp"

#include <optional>
#include <string>
#include <vector>

// What will be refused to a QEMU, told before it runs, from what is on this host now. Blocks on the file system: workers
// only, one for each path, as any may hang.

namespace troupe {

/// Who asks, and behind which layers.
struct foreseen_guest {
  dac_identity who{};                               ///< Without capabilities.
  std::optional<std::vector<device_rule>> devices{}; ///< Of its control group. Absent: none limits it.
  std::vector<landlock_rule> landlock{};             ///< Empty: Landlock is not used.
};

/// What is done with a path.
struct foreseen_use {
  std::string path{}; ///< Absolute.
  bool read = true;
  bool write = false;
  bool execute = false;
  bool make = false;  ///< It is made there, and need not be there before.
  bool given = false; ///< The start makes it the guest's own.

  bool operator==(const foreseen_use&) const = default;
};

struct denial {
  std::string path{};   ///< What is refused: the path that is used, or a directory or link on the way to it.
  std::string layer{};  ///< "file", "dac", "acl", "mount", "cgroup", "landlock"
  std::string denied{}; ///< "search", "read", "write", "execute", "make", "follow", "take", "find"
  std::string why{};    ///< A sentence.
  std::string remedy{}; ///< What the administrator can do.

  bool operator==(const denial&) const = default;
};

/// Every refusal on the way to the path, from the root on, and at its end. Errors: bad_argument.
result<std::vector<denial>> foresee_denials(const foreseen_guest& guest, const foreseen_use& use);

} // namespace troupe
