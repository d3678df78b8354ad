#include "runtime/byte_pump.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <system_error>
#include <termios.h>
#include <utility>

namespace troupe {
namespace {

constexpr std::size_t read_bytes = 65'536;
/// Reads before the rest of the loop gets its turn.
constexpr int reads_a_turn = 4;

std::string text_of(int error_number) {
  return std::generic_category().message(error_number);
}

/// As write(2), but a socket whose reader is gone raises no signal.
ssize_t write_some(int fd, const char* bytes, std::size_t size) {
  const auto sent = ::send(fd, bytes, size, MSG_NOSIGNAL);
  return sent < 0 && errno == ENOTSOCK ? ::write(fd, bytes, size) : sent;
}

} // namespace

result<unique_fd> open_pty(const std::string& path) {
  constexpr std::string_view folder = "/dev/pts/";
  const auto number = std::string_view{path}.substr(std::min(folder.size(), path.size()));
  if (!path.starts_with(folder) || number.empty() || number.find_first_not_of("0123456789") != number.npos)
    return fail(errc::operation_failed, fmt::format("console '{}' is no PTY below '{}'", path, folder));
  unique_fd fd{::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  termios modes{};
  if (!fd || ::tcgetattr(fd.get(), &modes) != 0)
    return fail(errc::operation_failed, fmt::format("cannot open console '{}': {}", path, text_of(errno)));
  ::cfmakeraw(&modes);
  if (::tcsetattr(fd.get(), TCSANOW, &modes) != 0)
    return fail(errc::operation_failed, fmt::format("cannot set up console '{}': {}", path, text_of(errno)));
  return fd;
}

byte_pump::byte_pump(loop& on, unique_fd fd, callbacks calls)
  : loop_{on}, fd_{std::move(fd)}, watch_{std::make_unique<fd_watch>(on, fd_.get(),
                                                                     [this](int got) { on_ready(got); })},
    shared_{new shared{std::move(calls)}} {
  update_watch();
}

byte_pump::~byte_pump() {
  shared_->alive = false;
}

void byte_pump::write(std::string_view bytes) {
  if (!fd_)
    return;
  queue_.erase(0, std::exchange(written_, 0));
  queue_.append(bytes);
  flush();
  update_watch();
}

void byte_pump::pause() {
  paused_ = true;
  update_watch();
}

void byte_pump::resume() {
  paused_ = false;
  update_watch();
}

void byte_pump::on_ready(int events) {
  const auto keep = shared_;
  if ((events & UV_WRITABLE) != 0 && queued_bytes() > 0 && flush() && queued_bytes() == 0)
    keep->calls.on_drained();
  if (keep->alive && fd_ && !paused_ && (events & ~UV_WRITABLE) != 0)
    read_some();
  if (keep->alive)
    update_watch();
}

void byte_pump::read_some() {
  const auto keep = shared_;
  char bytes[read_bytes];
  for (int i = 0; i < reads_a_turn && keep->alive && fd_ && !paused_; ++i) {
    const auto got = ::read(fd_.get(), bytes, sizeof bytes);
    if (got > 0) {
      keep->calls.on_bytes({bytes, static_cast<std::size_t>(got)});
      continue;
    }
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0 && errno == EAGAIN)
      return;
    return end(got == 0 ? "it was closed" : text_of(errno)); // a PTY whose master is gone says EIO
  }
}

/// False: the descriptor failed.
bool byte_pump::flush() {
  while (queued_bytes() > 0) {
    const auto wrote = write_some(fd_.get(), queue_.data() + written_, queued_bytes());
    if (wrote >= 0) {
      written_ += static_cast<std::size_t>(wrote);
      continue;
    }
    if (errno == EINTR)
      continue;
    if (errno == EAGAIN)
      return true;
    end(text_of(errno));
    return false;
  }
  queue_.clear();
  written_ = 0;
  return true;
}

void byte_pump::update_watch() {
  if (fd_)
    watch_->want((paused_ ? 0 : UV_READABLE) | (queued_bytes() > 0 ? UV_WRITABLE : 0));
}

/// Tells later, when none of the pump's functions is running.
void byte_pump::end(std::string why) {
  watch_.reset();
  fd_.reset();
  queue_.clear();
  written_ = 0;
  loop_.post([keep = shared_, why = std::move(why)] {
    if (keep->alive)
      keep->calls.on_ended(why);
  });
}

} // namespace troupe
