#pragma once

#include "runtime/error.hpp"
#include "runtime/unique_fd.hpp"
#include "sec/resource.hpp"

#include <string>
#include <vector>

// Landlock: a process shuts itself, and all it starts, off from every path that is not listed. Source:
// Documentation/userspace-api/landlock.rst. What a process may do can never grow again.

namespace troupe {

/// What may be done with a path and, when it is a directory, with all that is below it.
struct landlock_rule {
  std::string path{};   ///< Absolute. Symbolic links are followed. What is not there is passed over.
  std::string access{}; ///< Of "r" (read, list), "w" (write), "x" (execute), "m" (make and remove what is in a directory).

  bool operator==(const landlock_rule&) const = default;
};

/// The version of the kernel's Landlock; 0: it has none, or none that is switched on.
int landlock_abi();

/// Opens the paths and ties the rules to what is there now. Blocks on the file system.
/// Errors: bad_argument (a path, a letter), unsupported_operation (no Landlock here), operation_failed.
result<unique_fd> make_landlock(const std::vector<landlock_rule>& rules);

/// Confines the calling thread for good: to the rules and, where the kernel can, to signals and abstract sockets of those
/// that it confines along. Needs no_new_privs, or CAP_SYS_ADMIN. Errors: operation_failed.
result<void> enter_landlock(const unique_fd& rules);

/// What a QEMU needs beside what every QEMU does.
struct landlock_needs {
  std::string emulator{};
  std::string run_dir{};              ///< The guest's own.
  std::vector<resource> resources{};
  std::vector<std::string> makes{};   ///< Sockets and files that QEMU makes itself.
  std::vector<std::string> words{};   ///< Of a command line that nobody understands: every absolute path in them.
};

/// All that a guest's QEMU may do, with what is the same for every QEMU.
std::vector<landlock_rule> landlock_rules(const landlock_needs& needs);

} // namespace troupe
