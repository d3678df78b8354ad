#pragma once

#include "runtime/error.hpp"
#include "runtime/loop.hpp"
#include "runtime/unique_fd.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace troupe {

/// One process for good: a pid is used again, the pair is not (until the next boot).
struct process_id {
  pid_t pid = 0;
  std::uint64_t start_time = 0; ///< Ticks since boot. Source: proc(5), field 22 of /proc/PID/stat.

  bool operator==(const process_id&) const = default;
};

/// Which process has this pid now; a zombie counts. Any thread. Errors: qemu_gone (no such process), system.
result<process_id> identify(pid_t pid);

/// Whether exactly this process still runs; a zombie does not. Any thread.
bool is_alive(const process_id& id);

/// The process a pid file of troupe-launch names, as "PID START_TIME". Blocks on the file.
/// Errors: qemu_gone when there is no such file or it is empty (a launch that failed), system, bad_argument when it
/// holds anything else.
result<process_id> read_pid_file(const std::string& path);

/// How a process ended. Only its parent is told, so `known` is false for a process this daemon adopted.
struct exit_status {
  bool known = false;
  int code = 0;   ///< Meaningful when `signal` is 0.
  int signal = 0; ///< The signal that ended it, or 0.
};

/// Watches one process through a pidfd, whoever its parent is. Loop thread only.
///
/// Destroying it ends the interest and nothing else: the process runs on. When one of our own children exits while
/// nobody watches it, it stays a zombie until somebody watches it again (and then learns its status) or
/// `forgotten_children` sweeps.
class child {
public:
  /// `exited` is called once, from a later turn of the loop; it may destroy the watch. A process that has exited but is
  /// still a zombie is reported the same way.
  /// Errors: qemu_gone when it is gone or its pid belongs to another process now; system.
  static result<std::unique_ptr<child>> watch(loop& on, process_id id, std::function<void(exit_status)> exited);

  child(const child&) = delete;
  child& operator=(const child&) = delete;

  /// Sends a signal to this process and no other. That it has exited already is no error. Errors: system.
  result<void> signal(int number);

  const process_id& id() const noexcept { return id_; }

private:
  child(loop& on, process_id id, unique_fd pidfd, std::function<void(exit_status)> exited);
  void ended();

  process_id id_;
  unique_fd pidfd_; // outlives watch_
  std::function<void(exit_status)> exited_;
  fd_watch watch_;
};

/// Gives the new process our descriptor `fd` under the number `as`.
struct fd_pass {
  int fd = -1;
  int as = -1; ///< 0 to 255.
};

struct spawn_request {
  std::vector<std::string> argv{}; ///< argv[0] is the path of the program; PATH is not searched.
  std::vector<std::string> env{};  ///< The whole environment, as NAME=value.
  std::vector<fd_pass> fds{};      ///< In any order: passing 5 as 3 and 3 as 5 works.
};

/// Starts a process in its own session, with no signal blocked or ignored and only the named descriptors open; of 0, 1
/// and 2 those not named are /dev/null. Returns when the program is executing. Loop thread. Errors: bad_argument;
/// operation_failed when the program cannot be executed; system.
result<std::unique_ptr<child>> spawn(loop& on, const spawn_request& request, std::function<void(exit_status)> exited);

/// Reaps our children that exited after their watch was dropped. A program that spawns calls `sweep` now and then (once
/// a minute will do). A watch reaps at once, so a zombie met by two sweeps in a row is nobody's; each sweep reaps at
/// most one.
class forgotten_children {
public:
  /// Whether a zombie was reaped. Never blocks; one thread at a time.
  bool sweep();

private:
  process_id last_seen_;
};

/// The end of a file: at most `max_bytes` of what follows `from_offset`, whole lines when it holds any, for error
/// messages. Empty when it cannot be read. Blocks on the file.
std::string tail_of_file(const std::string& path, std::size_t max_bytes, std::uint64_t from_offset = 0);

/// A sealed file without a path that holds `contents`, rewound, to hand to a new process. `name` shows in /proc/PID/fd.
/// Errors: system.
result<unique_fd> memory_file(const std::string& name, std::string_view contents);

} // namespace troupe
