#pragma once

#include "runtime/error.hpp"
#include "sec/landlock.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace troupe {

/// A limit of setrlimit(2), by the name it has in /etc/security/limits.conf: "core", "nofile", "memlock", "nproc", ...
struct resource_limit {
  static constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

  std::string name{};
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;

  bool operator==(const resource_limit&) const = default;
};

/// Who a launched program runs as.
struct launch_identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups{}; ///< All supplementary groups; those of the daemon are given up.

  bool operator==(const launch_identity&) const = default;
};

/// What troupe-launch is to become. It travels as JSON text.
struct launch_plan {
  std::vector<std::string> argv{}; ///< argv[0] is the absolute path of the program.
  std::vector<std::string> env{};  ///< The whole environment, as NAME=value.
  std::string working_dir = "/";
  std::vector<std::string> control_groups{}; ///< Absolute directories of the groups to join.
  std::optional<launch_identity> identity{}; ///< Absent: stay who we are, as a session daemon must.
  std::vector<std::string> capabilities{};   ///< Kept, as "net_bind_service"; every other one is dropped for good.
  static constexpr const char* all_capabilities = "all"; ///< Among them: every one that the launcher has.
  mode_t umask = 077;
  std::string selinux_context{};  ///< The program's. Empty: what the policy makes of ours.
  std::string apparmor_profile{}; ///< The program's, which is loaded. Empty: what goes with ours and its path.
  bool no_new_privs = true; ///< Not with `selinux_context`, as exec would not change the domain then.
  std::vector<landlock_rule> landlock{}; ///< All that it may open. Empty: Landlock is not used.
  bool filter_calls = true; ///< Calls that no QEMU makes are refused: sec/call_filter.hpp.
  std::string pid_file{};      ///< Absolute; gets "PID START_TIME\n". Empty: none.
  std::vector<int> keep_fds{}; ///< Beside 0, 1 and 2, the only descriptors the program gets.
  std::vector<resource_limit> limits{};
  std::string banner{}; ///< Written to stderr, the guest's log, before the program starts.

  bool operator==(const launch_plan&) const = default;
};

/// The most a plan's text may be, in bytes. Linux gives arguments and environment 2 MiB by default.
inline constexpr std::size_t max_launch_plan = 8 << 20;

std::string to_text(const launch_plan& plan);

/// Errors: bad_argument, naming the member that is missing, unknown or wrong.
result<launch_plan> launch_plan_from(std::string_view text);

/// The one line troupe-launch writes to its status descriptor when it cannot start the program. End of file without a
/// line means that the program runs.
struct launch_failure {
  std::string step{};    ///< "identity", "verify", "exec", ...
  int number = 0;        ///< errno, or 0.
  std::string message{}; ///< A sentence for people.

  bool operator==(const launch_failure&) const = default;
};

std::string to_text(const launch_failure& failure);

/// Errors: bad_argument.
result<launch_failure> launch_failure_from(std::string_view text);

} // namespace troupe
