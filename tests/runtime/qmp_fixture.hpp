#pragma once

#include "runtime/loop.hpp"
#include "runtime/qmp_monitor.hpp"
#include "tests/catch.hpp"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <signal.h>
#include <spawn.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <vector>

namespace troupe {

/// Turns the loop until `done`; a test that hangs fails instead.
inline void turn_until(loop& on, const std::function<bool()>& done) {
  const auto too_late = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  timer tick{on}; // what a timer made true would otherwise be seen only after the next I/O
  while (!done()) {
    REQUIRE(std::chrono::steady_clock::now() < too_late);
    tick.start(std::chrono::milliseconds{5}, nullptr);
    uv_run(on.raw(), UV_RUN_ONCE);
  }
}

/// Gives everything that is ready its turn.
inline void settle(loop& on) {
  for (int i = 0; i < 20; ++i)
    uv_run(on.raw(), UV_RUN_NOWAIT);
}

/// The QEMU side of a socketpair, on the monitor's own loop. It does nothing that the test does not say.
class scripted_qemu {
public:
  static constexpr const char* greeting =
    R"({"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}})";

  explicit scripted_qemu(loop& on) : lines_{64u << 20} {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    ours_ = unique_fd{ends[0]};
    theirs = unique_fd{ends[1]};
    watch_.emplace(on, ours_.get(), [this](int events) { ready(events); });
    watch_->want(UV_READABLE);
  }

  void say_bytes(std::string_view bytes) {
    out_ += bytes;
    watch_->want(UV_READABLE | UV_WRITABLE);
  }
  void say(std::string_view line) { say_bytes(std::string{line} + "\r\n"); }
  void answer(const nlohmann::json& to, const nlohmann::json& value) {
    say(nlohmann::json{{"return", value}, {"id", to.at("id")}}.dump());
  }
  void hang_up() {
    watch_.reset();
    ours_.reset();
  }
  /// Says a line and is gone with what the monitor sent still unread: the other end is reset behind the line.
  void last_words(std::string_view line) {
    const auto bytes = std::string{line} + "\r\n";
    REQUIRE(::send(ours_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
    hang_up();
  }
  bool said_all() const { return out_.empty(); }

  unique_fd theirs;                         ///< For the monitor.
  std::vector<nlohmann::json> asked;        ///< Commands that came, but for qmp_capabilities.
  bool negotiates = true;                   ///< Answers qmp_capabilities.
  std::function<void(const nlohmann::json&)> on_command;

private:
  void ready(int events) {
    if (events & UV_WRITABLE) {
      const auto sent = ::send(ours_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0)
        out_.erase(0, static_cast<std::size_t>(sent));
      if (out_.empty() || sent < 0)
        watch_->want(UV_READABLE);
    }
    if (events & UV_READABLE) {
      char bytes[65536];
      const auto got = ::recv(ours_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
      if (got <= 0)
        return watch_->want(0);
      const auto fed = lines_.feed({bytes, static_cast<std::size_t>(got)}, [this](std::string_view line) {
        const auto command = nlohmann::json::parse(line);
        if (command.at("execute") == "qmp_capabilities") {
          if (negotiates)
            answer(command, nlohmann::json::object());
          return true;
        }
        asked.push_back(command);
        if (on_command)
          on_command(command);
        return ours_.get() >= 0;
      });
      REQUIRE(fed);
    }
  }

  unique_fd ours_;
  std::optional<fd_watch> watch_;
  qmp_lines lines_;
  std::string out_;
};

/// A QEMU with a listening QMP socket, if this machine has one. It ends with the test.
class real_qemu {
public:
  static bool installed() { return std::system("command -v qemu-system-x86_64 >/dev/null 2>&1") == 0; }

  /// `argv` for the number of the listening socket that QEMU inherits.
  explicit real_qemu(const std::function<std::vector<std::string>(int)>& argv) {
    char name[] = "/tmp/troupe-qmp-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    folder_ = name;
    path = folder_ + "/monitor";
    const unique_fd listening{::socket(AF_UNIX, SOCK_STREAM, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listening.get(), 1) == 0);
    auto words = argv(listening.get());
    std::vector<char*> pointers;
    for (auto& word : words)
      pointers.push_back(word.data());
    pointers.push_back(nullptr);
    REQUIRE(::posix_spawnp(&pid_, pointers[0], nullptr, nullptr, pointers.data(), environ) == 0);
  }
  ~real_qemu() {
    ::kill(pid_, SIGKILL);
    wait_for_end();
    std::filesystem::remove_all(folder_);
  }
  void wait_for_end() {
    if (std::exchange(waited_, true) == false)
      ::waitpid(pid_, nullptr, 0);
  }

  std::string path;

private:
  std::string folder_;
  pid_t pid_ = -1;
  bool waited_ = false;
};

} // namespace troupe
