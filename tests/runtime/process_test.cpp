#include "runtime/process.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <csignal>
#include <fcntl.h>
#include <limits>
#include <poll.h>
#include <random>
#include <sstream>
#include <sys/wait.h>

namespace troupe {
namespace {

struct pipe_ends {
  unique_fd read, write;
  pipe_ends() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    read = unique_fd{ends[0]};
    write = unique_fd{ends[1]};
  }
};

std::string read_to_end(const unique_fd& fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  return text;
}

struct outcome {
  exit_status status;
  std::string output;
};

/// Runs a program to its end on a loop of its own; the output must fit a pipe.
outcome run_request(spawn_request request) {
  loop on;
  pipe_ends out;
  request.fds.push_back({out.write.get(), 1});
  outcome seen;
  auto started = spawn(on, request, [&](exit_status status) {
    seen.status = status;
    on.stop();
  });
  REQUIRE(started);
  out.write.reset();
  on.run();
  seen.output = read_to_end(out.read);
  return seen;
}

outcome run(std::vector<std::string> argv) {
  return run_request({.argv = std::move(argv)});
}

std::string word(const std::string& text, int number) {
  std::istringstream words{text};
  std::string word;
  for (int i = 0; i < number; ++i)
    words >> word;
  return word;
}

/// A child of ours that has exited and that nobody has reaped.
process_id make_zombie(int code) {
  const pid_t pid = ::fork();
  if (pid == 0)
    ::_exit(code);
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
  return identify(pid).value();
}

} // namespace

TEST_CASE("process: a process is told from a later one with its pid", "[runtime]") {
  const auto self = identify(::getpid());
  REQUIRE(self);
  CHECK(self->start_time > 0);
  CHECK(is_alive(*self));
  CHECK_FALSE(is_alive({self->pid, self->start_time + 1}));
  loop on;
  const auto other = child::watch(on, {self->pid, self->start_time + 1}, [](exit_status) {});
  REQUIRE_FALSE(other);
  CHECK(other.error().code == errc::qemu_gone);
}

TEST_CASE("process: a zombie is identified but not alive, and gone once it is reaped", "[runtime]") {
  const auto id = make_zombie(0);
  CHECK(identify(id.pid) == id);
  CHECK_FALSE(is_alive(id));
  REQUIRE(::waitpid(id.pid, nullptr, 0) == id.pid);
  const auto gone = identify(id.pid);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == errc::qemu_gone);
  loop on;
  CHECK_FALSE(child::watch(on, id, [](exit_status) {}));
}

TEST_CASE("process: exit codes and signals come back", "[runtime]") {
  const auto code = run({"/bin/sh", "-c", "exit 7"}).status;
  CHECK(code.known);
  CHECK(code.code == 7);
  CHECK(code.signal == 0);
  const auto killed = run({"/bin/sh", "-c", "kill -9 $$"}).status;
  CHECK(killed.known);
  CHECK(killed.signal == SIGKILL);
}

TEST_CASE("process: a child's end is told once, and may destroy the watch", "[runtime]") {
  loop on;
  std::unique_ptr<child> watched;
  int told = 0;
  auto started = spawn(on, {.argv = {"/bin/sh", "-c", "exit 3"}}, [&](exit_status status) {
    ++told;
    CHECK(status.code == 3);
    watched.reset();
    on.post([&] { on.stop(); });
  });
  REQUIRE(started);
  watched = std::move(*started);
  on.run();
  CHECK(told == 1);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1); // no zombie
}

TEST_CASE("process: a signal reaches the child, and none is an error after its end", "[runtime]") {
  loop on;
  std::unique_ptr<child> watched;
  exit_status seen;
  auto started = spawn(on, {.argv = {"/bin/sleep", "1000"}}, [&](exit_status status) {
    seen = status;
    on.stop();
  });
  REQUIRE(started);
  CHECK((*started)->signal(SIGTERM));
  on.run();
  CHECK(seen.signal == SIGTERM);
  CHECK((*started)->signal(SIGTERM));
}

TEST_CASE("process: somebody else's child is watched too, without its status", "[runtime]") {
  const auto parent = run({"/bin/sh", "-c", "/bin/sleep 1000 >&- & echo $!"});
  const auto id = identify(std::stoi(parent.output));
  REQUIRE(id);
  loop on;
  exit_status seen{.known = true, .code = 1, .signal = 1};
  const auto watched = child::watch(on, *id, [&](exit_status status) {
    seen = status;
    on.stop();
  });
  REQUIRE(watched);
  REQUIRE((*watched)->signal(SIGKILL));
  on.run();
  CHECK_FALSE(seen.known);
  CHECK_FALSE(is_alive(*id));
}

TEST_CASE("process: a child watched again after its end still tells its status", "[runtime]") {
  const auto id = make_zombie(9);
  loop on;
  exit_status seen;
  const auto watched = child::watch(on, id, [&](exit_status status) {
    seen = status;
    on.stop();
  });
  REQUIRE(watched);
  on.run();
  CHECK(seen.known);
  CHECK(seen.code == 9);
}

TEST_CASE("process: dropping a watch leaves the child running, and sweeps reap it later", "[runtime]") {
  forgotten_children forgotten;
  CHECK_FALSE(forgotten.sweep());
  loop on;
  process_id id;
  {
    const auto dropped = spawn(on, {.argv = {"/bin/sleep", "1000"}}, [](exit_status) { FAIL(); });
    REQUIRE(dropped);
    id = (*dropped)->id();
  }
  CHECK(is_alive(id));
  CHECK_FALSE(forgotten.sweep());
  REQUIRE(::kill(id.pid, SIGKILL) == 0);
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(id.pid), &info, WEXITED | WNOWAIT) == 0);
  CHECK_FALSE(forgotten.sweep()); // a watch may be about to reap it
  CHECK(forgotten.sweep());
  CHECK_FALSE(identify(id.pid));
}

TEST_CASE("process: a child has its own session and no inherited signal settings", "[runtime]") {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto ignored = std::signal(SIGPIPE, SIG_IGN);
  const auto status = run({"/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}).output;
  const auto stat = run({"/bin/cat", "/proc/self/stat"}).output;
  std::signal(SIGPIPE, ignored);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  CHECK(std::stoull(word(status, 2), nullptr, 16) == 0);
  // 32 and 33 are glibc's own: posix_spawn leaves them ignored, and threads set them up when they need them.
  CHECK((std::stoull(word(status, 4), nullptr, 16) & ~0x180000000ULL) == 0);
  CHECK(word(stat, 6) == word(stat, 1));
}

TEST_CASE("process: a child has the environment named and no other", "[runtime]") {
  CHECK(run_request({.argv = {"/usr/bin/env"}, .env = {"A=1", "B=two words"}}).output == "A=1\nB=two words\n");
}

TEST_CASE("process: only the named descriptors are passed, and the others of 0 to 2 are /dev/null", "[runtime]") {
  const unique_fd leaky{::open("/dev/zero", O_RDONLY)};
  const unique_fd leaky_high{::fcntl(leaky.get(), F_DUPFD, 200)};
  const auto file = memory_file("passed", "");
  REQUIRE(file);
  const auto listed =
    run_request({.argv = {"/bin/sh", "-c", "echo /proc/self/fd/*; readlink /proc/self/fd/0 /proc/self/fd/2"},
                 .fds = {{file->get(), 9}}});
  // 3 is the shell's own, to list the directory
  CHECK(listed.output == "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3 /proc/self/fd/9\n"
                         "/dev/null\n/dev/null\n");
}

TEST_CASE("process: descriptors may change places in any way", "[runtime]") {
  std::vector<unique_fd> files;
  for (int i = 0; i < 6; ++i)
    files.push_back(memory_file("file", std::to_string(i)).value());
  std::vector<int> targets;
  for (const auto& file : files)
    targets.push_back(file.get());
  std::mt19937 draw{7};
  for (int round = 0; round < 20; ++round) {
    std::shuffle(targets.begin(), targets.end(), draw);
    spawn_request request{.argv = {"/bin/cat"}};
    for (std::size_t i = 0; i < files.size(); ++i) {
      request.fds.push_back({files[i].get(), targets[i]});
      request.argv.push_back("/proc/self/fd/" + std::to_string(targets[i]));
    }
    std::shuffle(request.fds.begin(), request.fds.end(), draw);
    CHECK(run_request(request).output == "012345");
  }
}

TEST_CASE("process: what cannot be started says why", "[runtime]") {
  loop on;
  const auto why = [&](spawn_request request) {
    const auto started = spawn(on, request, [](exit_status) {});
    REQUIRE_FALSE(started);
    return started.error();
  };
  const auto missing = why({.argv = {"/nowhere/qemu"}});
  CHECK(missing.code == errc::operation_failed);
  CHECK(missing.detail == "cannot start '/nowhere/qemu': No such file or directory");
  CHECK(why({.argv = {}}).code == errc::bad_argument);
  CHECK(why({.argv = {"/bin/true"}, .fds = {{0, 256}}}).code == errc::bad_argument);
  CHECK(why({.argv = {"/bin/true"}, .fds = {{0, 5}, {1, 5}}}).code == errc::bad_argument);
  CHECK(why({.argv = {"/bin/true"}, .fds = {{9999, 5}}}).code == errc::bad_argument);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1); // nothing is left behind
}

TEST_CASE("process: a pid file is a pid and a start time", "[runtime]") {
  const temp_dir dir;
  CHECK(read_pid_file(dir / "none").error().code == errc::qemu_gone);
  CHECK(read_pid_file(write_file(dir / "empty", "")).error().code == errc::qemu_gone);
  CHECK(read_pid_file(write_file(dir / "good", "12 345\n")) == process_id{12, 345});
  for (const auto* bad : {"12\n", "12 345", "-1 5\n", "a b\n", "12 345 6\n", "12 345\n\n", " 1 2\n", "0 1\n"})
    CHECK(read_pid_file(write_file(dir / "bad", bad)).error().code == errc::bad_argument);
  CHECK(read_pid_file(write_file(dir / "long", std::string(100, '1') + " 1\n")).error().code == errc::bad_argument);
}

TEST_CASE("process: a file's tail is whole lines of what was added", "[runtime]") {
  const temp_dir dir;
  const auto log = write_file(dir / "log", "old line\nfirst\nsecond\nthird\n");
  CHECK(tail_of_file(log, 100) == "old line\nfirst\nsecond\nthird\n");
  CHECK(tail_of_file(log, 100, 9) == "first\nsecond\nthird\n");
  CHECK(tail_of_file(log, 13, 9) == "second\nthird\n");
  CHECK(tail_of_file(log, 12, 9) == "third\n");
  CHECK(tail_of_file(log, 3, 9) == "rd\n");
  CHECK(tail_of_file(log, 0, 9).empty());
  CHECK(tail_of_file(log, 100, 1000).empty());
  CHECK(tail_of_file(log, std::numeric_limits<std::size_t>::max()) == "old line\nfirst\nsecond\nthird\n");
  CHECK(tail_of_file(dir / "none", 100).empty());
  CHECK(tail_of_file(dir.path(), 100).empty());
}

TEST_CASE("process: a memory file is rewound and cannot be changed", "[runtime]") {
  const auto file = memory_file("plan", "contents");
  REQUIRE(file);
  CHECK(read_to_end(*file) == "contents");
  CHECK(::write(file->get(), "x", 1) == -1);
  CHECK((::fcntl(file->get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(memory_file(std::string(1000, 'x'), "").error().code == errc::system);
}

} // namespace troupe
