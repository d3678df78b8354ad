#pragma once

#include "runtime/error.hpp"
#include "runtime/loop.hpp"
#include "runtime/unique_fd.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace troupe {

/// Opens the terminal that QEMU made for a character device, without echo or line editing.
/// Only what is named like a PTY is opened: the path comes from QEMU. Errors: operation_failed.
result<unique_fd> open_pty(const std::string& path);

/// Carries bytes between a non-blocking descriptor and its owner. Loop thread only.
class byte_pump {
public:
  /// All may destroy the pump. Only `on_bytes` and `on_drained` may come more than once.
  struct callbacks {
    std::function<void(std::string_view)> on_bytes;
    std::function<void()> on_drained;              ///< What had to wait is written.
    std::function<void(std::string why)> on_ended; ///< The other side is gone; the descriptor is closed.
  };

  byte_pump(loop& on, unique_fd fd, callbacks calls);
  ~byte_pump();
  byte_pump(const byte_pump&) = delete;
  byte_pump& operator=(const byte_pump&) = delete;

  /// Writes what the descriptor takes now and keeps the rest. The owner bounds it: it stops writing when `queued_bytes`
  /// is too much, until `on_drained`. After the end nothing happens.
  void write(std::string_view bytes);

  /// Stops reading, until `resume`.
  void pause();
  void resume();
  bool is_paused() const noexcept { return paused_; }

  std::size_t queued_bytes() const noexcept { return queue_.size() - written_; }

private:
  /// Outlives the pump while one of its calls runs.
  struct shared {
    callbacks calls;
    bool alive = true;
  };

  void on_ready(int events);
  void read_some();
  bool flush();
  void update_watch();
  void end(std::string why);

  loop& loop_;
  unique_fd fd_;
  std::unique_ptr<fd_watch> watch_;
  std::string queue_;
  std::size_t written_ = 0;
  bool paused_ = false;
  std::shared_ptr<shared> shared_;
};

} // namespace troupe
