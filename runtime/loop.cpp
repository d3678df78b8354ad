#include "runtime/loop.hpp"

#include <stdexcept>
#include <type_traits>
#include <utility>

namespace troupe {
namespace {

template <class Handle>
uv_handle_t* base(Handle* handle) {
  return reinterpret_cast<uv_handle_t*>(handle);
}

template <class Handle>
Handle* make_handle(void* owner) {
  auto* handle = new Handle{};
  handle->data = owner;
  return handle;
}

} // namespace

loop::loop() {
  if (uv_loop_init(&loop_) != 0)
    throw std::runtime_error{"no event loop: out of memory or descriptors"};
  loop_.data = this;
  async_ = make_handle<uv_async_t>(this);
  uv_async_init(&loop_, async_, [](uv_async_t* handle) { static_cast<loop*>(handle->data)->take_posted(); });
  prepare_ = make_handle<uv_prepare_t>(this);
  uv_prepare_init(&loop_, prepare_);
  uv_prepare_start(prepare_, [](uv_prepare_t* handle) { static_cast<loop*>(handle->data)->turn(); });
  check_ = make_handle<uv_check_t>(this);
  uv_check_init(&loop_, check_);
  uv_check_start(check_, [](uv_check_t* handle) { static_cast<loop*>(handle->data)->turn(); });
  idle_ = make_handle<uv_idle_t>(this);
  uv_idle_init(&loop_, idle_);
}

loop::~loop() {
  close();
}

void loop::run() {
  owner_ = std::this_thread::get_id();
  uv_run(&loop_, UV_RUN_DEFAULT);
}

void loop::stop() {
  post([this] { uv_stop(&loop_); });
}

void loop::post(std::function<void()> work) {
  {
    const std::lock_guard lock{mutex_};
    if (stopping_)
      return;
    posted_.push_back(std::move(work));
  }
  wake();
}

void loop::wake() {
  uv_async_send(async_);
}

void loop::on_turn(std::function<bool()> more_left) {
  more_left_ = std::move(more_left);
}

void loop::close() {
  if (closed_)
    return;
  closed_ = true;
  owner_ = std::this_thread::get_id();
  {
    const std::lock_guard lock{mutex_};
    stopping_ = true;
    posted_.clear();
  }
  more_left_ = nullptr;
  const auto close_own = [](auto* handle) {
    uv_close(base(handle), [](uv_handle_t* closed) {
      delete reinterpret_cast<std::remove_pointer_t<decltype(handle)>*>(closed);
    });
  };
  close_own(async_);
  close_own(prepare_);
  close_own(check_);
  close_own(idle_);
  uv_run(&loop_, UV_RUN_DEFAULT); // lets the close callbacks run
  uv_loop_close(&loop_);
}

void loop::take_posted() {
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock{mutex_};
    work.swap(posted_);
  }
  for (auto& call : work)
    call();
}

void loop::turn() {
  if (more_left_ && more_left_())
    uv_idle_start(idle_, [](uv_idle_t*) {}); // an active idle handle makes the poll return at once
  else
    uv_idle_stop(idle_);
}

timer::timer(loop& on) {
  auto* handle = make_handle<uv_timer_t>(this);
  uv_timer_init(on.raw(), handle);
  handle_.reset(handle);
}

timer::~timer() = default;

void timer::start(std::chrono::milliseconds after, std::function<void()> call) {
  call_ = std::move(call);
  uv_update_time(handle_->loop);
  uv_timer_start(
    handle_.get(),
    [](uv_timer_t* handle) {
      if (auto* self = static_cast<timer*>(handle->data)) {
        const auto wish = std::exchange(self->call_, nullptr); // the callee may start or destroy this timer
        if (wish)
          wish();
      }
    },
    after.count() > 0 ? static_cast<std::uint64_t>(after.count()) : 0, 0);
}

void timer::stop() {
  uv_timer_stop(handle_.get());
  call_ = nullptr;
}

fd_watch::fd_watch(loop& on, int fd, callback ready) : ready_{std::move(ready)} {
  auto* handle = make_handle<uv_poll_t>(this);
  if (uv_poll_init(on.raw(), handle, fd) != 0) {
    delete handle;
    throw std::runtime_error{"cannot watch descriptor"};
  }
  handle_.reset(handle);
}

fd_watch::~fd_watch() = default;

void fd_watch::want(int events) {
  if (events == wanted_)
    return;
  wanted_ = events;
  if (events == 0)
    uv_poll_stop(handle_.get());
  else
    start();
}

void fd_watch::start() {
  uv_poll_start(handle_.get(), wanted_, [](uv_poll_t* handle, int status, int got) {
    auto* self = static_cast<fd_watch*>(handle->data);
    if (self == nullptr)
      return;
    if (status < 0)
      self->start(); // libuv stops at an error, behind which there may be more to read than the callee takes at once
    const auto ready = self->ready_; // the callee may destroy this watch
    ready(status < 0 ? UV_READABLE : got);
  });
}

} // namespace troupe
