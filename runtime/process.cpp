#include "runtime/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <optional>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <utility>

#include <fmt/format.h>

extern "C" { // glibc 2.36 forgets to say so itself
#include <sys/pidfd.h>
}

namespace troupe {
namespace {

constexpr int max_passed_fd = 255;

std::string reason(int number) {
  return std::strerror(number);
}

auto gone(pid_t pid) {
  return fail(errc::qemu_gone, fmt::format("there is no process {} any more", pid));
}

/// Opens for reading, never waiting for a writer. -1 with errno.
unique_fd open_to_read(const char* path) {
  return unique_fd{::open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
}

/// Up to `size` bytes from `offset` on; nothing with errno set on error.
std::optional<std::string> read_at(int fd, std::size_t size, std::uint64_t offset) {
  std::string text(size, '\0');
  std::size_t got = 0;
  while (got < size) {
    const auto n = ::pread(fd, text.data() + got, size - got, static_cast<off_t>(offset + got));
    if (n == 0)
      break;
    if (n < 0 && errno != EINTR)
      return std::nullopt;
    if (n > 0)
      got += static_cast<std::size_t>(n);
  }
  text.resize(got);
  return text;
}

template <class Number>
bool read_number(std::string_view text, Number& number) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  return ec == std::errc{} && end == text.data() + text.size();
}

struct stat_line {
  char state = '?';
  std::uint64_t start_time = 0;
};

result<stat_line> read_stat(pid_t pid) {
  const auto fd = open_to_read(fmt::format("/proc/{}/stat", pid).c_str());
  const auto text = fd ? read_at(fd.get(), 1024, 0) : std::nullopt;
  if (!text) {
    if (errno == ENOENT || errno == ESRCH)
      return gone(pid);
    return fail(errc::system, fmt::format("cannot read /proc/{}/stat: {}", pid, reason(errno)));
  }
  // The name, in parentheses, may hold anything; what follows its last one is plain.
  std::string_view rest = *text;
  const auto name_end = rest.rfind(") ");
  rest.remove_prefix(name_end == rest.npos ? rest.size() : name_end + 2);
  stat_line line;
  for (int field = 3; !rest.empty(); ++field) {
    const auto word = rest.substr(0, rest.find(' '));
    if (field == 3)
      line.state = word.front();
    if (field == 22 && read_number(word, line.start_time))
      return line;
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
  }
  return fail(errc::system, fmt::format("/proc/{}/stat has no start time", pid));
}

exit_status status_from(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED)
    return {.known = true, .code = info.si_status, .signal = 0};
  return {.known = true, .code = 0, .signal = info.si_status};
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const auto& text : texts)
    pointers.push_back(const_cast<char*>(text.c_str())); // posix_spawn does not write to them
  pointers.push_back(nullptr);
  return pointers;
}

/// posix_spawn's two option objects, and the descriptors that its file actions name.
class spawn_options {
public:
  spawn_options() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
    sigset_t all;
    sigset_t none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  ~spawn_options() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  spawn_options(const spawn_options&) = delete;
  spawn_options& operator=(const spawn_options&) = delete;

  result<void> pass(const std::vector<fd_pass>& fds) {
    std::array<bool, max_passed_fd + 1> named{};
    int highest = STDERR_FILENO;
    for (const auto& [fd, as] : fds) {
      if (as < 0 || as > max_passed_fd)
        return fail(errc::bad_argument,
                    fmt::format("a descriptor can be passed as 0 to {}, not {}", max_passed_fd, as));
      if (std::exchange(named[static_cast<std::size_t>(as)], true))
        return fail(errc::bad_argument, fmt::format("two descriptors are passed as {}", as));
      highest = std::max(highest, as);
    }
    // Copies above all targets: no target can be the source of a later one.
    for (const auto& [fd, as] : fds) {
      unique_fd copy{::fcntl(fd, F_DUPFD_CLOEXEC, highest + 1)};
      if (!copy)
        return fail(errno == EBADF ? errc::bad_argument : errc::system,
                    fmt::format("cannot pass descriptor {}: {}", fd, reason(errno)));
      posix_spawn_file_actions_adddup2(&actions_, copy.get(), as);
      copies_.push_back(std::move(copy));
    }
    for (int fd = 0; fd <= highest; ++fd) {
      if (named[static_cast<std::size_t>(fd)])
        continue;
      if (fd <= STDERR_FILENO)
        posix_spawn_file_actions_addopen(&actions_, fd, "/dev/null", O_RDWR, 0);
      else
        posix_spawn_file_actions_addclose(&actions_, fd);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions_, highest + 1);
    return {};
  }

  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  std::vector<unique_fd> copies_;
};

} // namespace

result<process_id> identify(pid_t pid) {
  const auto line = read_stat(pid);
  if (!line)
    return tl::make_unexpected(line.error());
  return process_id{pid, line->start_time};
}

bool is_alive(const process_id& id) {
  const auto line = read_stat(id.pid);
  return line && line->start_time == id.start_time && line->state != 'Z' && line->state != 'X';
}

result<process_id> read_pid_file(const std::string& path) {
  const auto fd = open_to_read(path.c_str());
  const auto text = fd ? read_at(fd.get(), 64, 0) : std::nullopt;
  if (!text)
    return fail(errno == ENOENT ? errc::qemu_gone : errc::system,
                fmt::format("cannot read pid file '{}': {}", path, reason(errno)));
  if (text->empty())
    return fail(errc::qemu_gone, fmt::format("pid file '{}' is empty: the launch it was made for failed", path));
  const std::string_view line{*text};
  const auto space = line.find(' ');
  process_id id;
  if (space == line.npos || !line.ends_with('\n') || !read_number(line.substr(0, space), id.pid) || id.pid <= 0 ||
      !read_number(line.substr(space + 1, line.size() - space - 2), id.start_time))
    return fail(errc::bad_argument, fmt::format("pid file '{}' does not hold a pid and a start time", path));
  return id;
}

child::child(loop& on, process_id id, unique_fd pidfd, std::function<void(exit_status)> exited)
  : id_{id}, pidfd_{std::move(pidfd)}, exited_{std::move(exited)}, watch_{on, pidfd_.get(), [this](int) { ended(); }} {
  watch_.want(UV_READABLE);
}

result<std::unique_ptr<child>> child::watch(loop& on, process_id id, std::function<void(exit_status)> exited) {
  unique_fd pidfd{::pidfd_open(id.pid, 0)};
  if (!pidfd) {
    if (errno == ESRCH || errno == EINVAL) // EINVAL: now the number of a thread, or never a pid
      return gone(id.pid);
    return fail(errc::system, fmt::format("cannot watch process {}: {}", id.pid, reason(errno)));
  }
  // The pidfd holds on to whatever has the pid now, so this comparison stays true.
  const auto now = identify(id.pid);
  if (!now)
    return tl::make_unexpected(now.error());
  if (*now != id)
    return fail(errc::qemu_gone, fmt::format("pid {} belongs to another process now", id.pid));
  try {
    return std::unique_ptr<child>{new child{on, id, std::move(pidfd), std::move(exited)}};
  } catch (const std::exception& e) {
    return fail(errc::system, fmt::format("cannot watch process {}: {}", id.pid, e.what()));
  }
}

void child::ended() {
  siginfo_t info{};
  exit_status status;
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) == 0) {
    if (info.si_pid == 0)
      return; // ours, and not ended yet
    status = status_from(info);
  }
  watch_.want(0);
  const auto exited = std::exchange(exited_, nullptr);
  if (exited)
    exited(status); // may destroy us
}

result<void> child::signal(int number) {
  if (::pidfd_send_signal(pidfd_.get(), number, nullptr, 0) == 0 || errno == ESRCH)
    return {};
  return fail(errc::system, fmt::format("cannot send signal {} to process {}: {}", number, id_.pid, reason(errno)));
}

result<std::unique_ptr<child>> spawn(loop& on, const spawn_request& request, std::function<void(exit_status)> exited) {
  if (request.argv.empty())
    return fail(errc::bad_argument, "no program to start");
  const auto& program = request.argv.front();
  spawn_options options;
  if (auto passed = options.pass(request.fds); !passed)
    return tl::make_unexpected(std::move(passed.error()));
  const auto argv = pointers_to(request.argv);
  const auto env = pointers_to(request.env);
  pid_t pid = 0;
  if (const int number =
        ::posix_spawn(&pid, program.c_str(), options.actions(), options.attributes(), argv.data(), env.data()))
    return fail(number == EAGAIN || number == ENOMEM ? errc::system : errc::operation_failed,
                fmt::format("cannot start '{}': {}", program, reason(number)));
  auto started = identify(pid).and_then([&](process_id id) { return child::watch(on, id, std::move(exited)); });
  if (!started) { // out of descriptors: nobody would ever see it end
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  return started;
}

bool forgotten_children::sweep() {
  siginfo_t info{};
  if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
    last_seen_ = {};
    return false;
  }
  const auto seen = identify(info.si_pid).value_or(process_id{});
  if (seen == last_seen_ && seen.pid != 0) {
    last_seen_ = {};
    return ::waitpid(seen.pid, nullptr, WNOHANG) == seen.pid;
  }
  last_seen_ = seen;
  return false;
}

std::string tail_of_file(const std::string& path, std::size_t max_bytes, std::uint64_t from_offset) {
  const auto fd = open_to_read(path.c_str());
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return {};
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size <= from_offset)
    return {};
  if (size - from_offset <= max_bytes)
    return read_at(fd.get(), size - from_offset, from_offset).value_or(std::string{});
  // One byte more tells whether the cut is between two lines.
  auto text = read_at(fd.get(), max_bytes + 1, size - max_bytes - 1).value_or(std::string{});
  const auto line_end = text.find('\n');
  const bool holds_a_line = line_end != text.npos && line_end + 1 < text.size();
  text.erase(0, holds_a_line ? line_end + 1 : 1);
  return text;
}

result<unique_fd> memory_file(const std::string& name, std::string_view contents) {
  unique_fd fd{::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (!fd)
    return fail(errc::system, fmt::format("cannot make the memory file '{}': {}", name, reason(errno)));
  while (!contents.empty()) {
    const auto n = ::write(fd.get(), contents.data(), contents.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return fail(errc::system, fmt::format("cannot fill the memory file '{}': {}", name, reason(errno)));
    contents.remove_prefix(static_cast<std::size_t>(n));
  }
  ::lseek(fd.get(), 0, SEEK_SET);
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
  return fd;
}

} // namespace troupe
