#pragma once

#include "runtime/uv_owned.hpp"

#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace troupe {

/// One libuv loop and the thread that runs it. Only that thread touches what belongs to the loop; others `post`.
class loop {
public:
  loop();
  ~loop();
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  /// Turns until `stop`. The calling thread becomes the loop's own.
  void run();

  /// Ends `run` after the current turn. Any thread.
  void stop();

  /// Runs `work` on the loop's thread, in the order posted. Any thread.
  void post(std::function<void()> work);

  /// Called before and after each poll for I/O; the loop does not sleep while it answers that more is left to do.
  void on_turn(std::function<bool()> more_left);

  /// Makes the loop take one turn soon. Any thread.
  void wake();

  /// Closes what is left on the loop; `run` must have returned. Pending posted work is dropped.
  void close();

  bool on_thread() const noexcept { return std::this_thread::get_id() == owner_; }
  uv_loop_t* raw() noexcept { return &loop_; }

private:
  void take_posted();
  void turn();

  uv_loop_t loop_{};
  uv_async_t* async_ = nullptr;
  uv_prepare_t* prepare_ = nullptr;
  uv_check_t* check_ = nullptr;
  uv_idle_t* idle_ = nullptr;
  std::thread::id owner_;
  std::function<bool()> more_left_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;
  bool stopping_ = false;
  bool closed_ = false;
};

/// Calls back once after a while. Destroying it, or starting it again, forgets the earlier wish. Loop thread only.
class timer {
public:
  explicit timer(loop& on);
  ~timer();
  timer(const timer&) = delete;
  timer& operator=(const timer&) = delete;

  void start(std::chrono::milliseconds after, std::function<void()> call);
  void stop();

private:
  uv_owned<uv_timer_t> handle_;
  std::function<void()> call_;
};

/// Says when a descriptor can be read or written. It does not own the descriptor, which must outlive it. Loop thread only.
class fd_watch {
public:
  /// `ready` gets the poll events that hold; an error arrives as readable, again and again until it is read (SO_ERROR)
  /// or the watch rests.
  using callback = std::function<void(int events)>;

  fd_watch(loop& on, int fd, callback ready);
  ~fd_watch();
  fd_watch(const fd_watch&) = delete;
  fd_watch& operator=(const fd_watch&) = delete;

  /// `events`: UV_READABLE | UV_WRITABLE, or 0 to rest.
  void want(int events);

private:
  void start();

  uv_owned<uv_poll_t> handle_;
  callback ready_;
  int wanted_ = 0;
};

} // namespace troupe
