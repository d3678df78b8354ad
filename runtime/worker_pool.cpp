#include "runtime/worker_pool.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/format.h>

namespace troupe {

struct worker_pool::job {
  /// Past its deadline a job is `abandoned`, its thread no longer counts, or `stuck`, it keeps its thread's place.
  enum class stage { waiting, begun, abandoned, stuck, over };

  std::uint64_t id = 0;
  std::string what;
  std::function<void()> work;
  stage now = stage::waiting; // guarded by shared_state::mutex
};

/// Outlives the pool for as long as one of its threads does.
struct worker_pool::shared_state : std::enable_shared_from_this<shared_state> {
  static constexpr std::chrono::seconds idle_time{5}; // until a thread without work ends

  std::mutex mutex;
  std::condition_variable more;
  std::deque<std::shared_ptr<job>> waiting;
  std::function<void(std::uint64_t, std::optional<error>)> report; // empty: the pool is gone
  std::size_t most_threads = 1;
  std::size_t threads = 0; // without the abandoned ones
  std::size_t idle = 0;
  std::size_t abandoned = 0;
  std::vector<std::shared_ptr<job>> stuck; // oldest first

  /// Sees to it that somebody comes for what waits. False: nobody ever will. With the mutex held.
  bool call_thread() {
    if (idle >= waiting.size()) {
      more.notify_one();
      return true;
    }
    if (threads == most_threads)
      return true;
    try {
      std::thread{[self = shared_from_this()] { self->serve(); }}.detach();
      ++threads;
    } catch (const std::system_error&) { // the system has no more threads for us
    }
    return threads > 0;
  }

  void serve() {
    std::unique_lock lock{mutex};
    while (take_one(lock)) {
    }
  }

  /// Does one job, or waits for one. False: this thread's time is over.
  bool take_one(std::unique_lock<std::mutex>& lock) {
    if (waiting.empty()) {
      ++idle;
      more.wait_for(lock, idle_time, [this] { return !waiting.empty() || !report; });
      --idle;
    }
    if (waiting.empty()) {
      --threads;
      return false;
    }
    const auto mine = std::move(waiting.front());
    waiting.pop_front();
    mine->now = job::stage::begun;
    lock.unlock();
    std::optional<error> failed;
    try {
      mine->work();
    } catch (const std::exception& bug) {
      failed = error{errc::internal, mine->what + ": " + bug.what()};
    } catch (...) {
      failed = error{errc::internal, mine->what + ": threw what is no std::exception"};
    }
    mine->work = nullptr; // what it holds is let go without the mutex
    lock.lock();
    const auto was = std::exchange(mine->now, job::stage::over);
    if (was == job::stage::begun && report)
      report(mine->id, std::move(failed));
    if (was == job::stage::stuck)
      std::erase(stuck, mine);
    if (was != job::stage::abandoned)
      return true;
    if (!stuck.empty()) { // that one is abandoned instead of us, and we take its place
      stuck.front()->now = job::stage::abandoned;
      stuck.erase(stuck.begin());
      return true;
    }
    --abandoned;
    return false;
  }

  /// Does without a job that is past its deadline. Returns the stage it was in.
  job::stage give_up(const std::shared_ptr<job>& late) {
    const std::lock_guard lock{mutex};
    const auto was = late->now;
    if (was == job::stage::waiting) {
      std::erase(waiting, late);
      late->now = job::stage::over;
    } else if (was == job::stage::begun && abandoned < most_threads * abandoned_per_thread) {
      late->now = job::stage::abandoned;
      ++abandoned;
      --threads;
      if (!waiting.empty())
        call_thread();
    } else if (was == job::stage::begun) {
      late->now = job::stage::stuck;
      stuck.push_back(late);
    }
    return was;
  }
};

worker_pool::worker_pool(loop& answers_on, std::size_t most_threads)
  : loop_{answers_on}, state_{std::make_shared<shared_state>()}, timer_{answers_on} {
  state_->most_threads = std::max<std::size_t>(most_threads, 1);
  state_->report = [this, alive = std::weak_ptr{alive_}](std::uint64_t id, std::optional<error> failed) {
    loop_.post([this, alive, id, failed = std::move(failed)]() mutable {
      if (!alive.expired())
        finished(id, std::move(failed));
    });
  };
}

worker_pool::~worker_pool() {
  std::deque<std::shared_ptr<job>> dropped;
  const std::lock_guard lock{state_->mutex};
  state_->report = nullptr;
  dropped.swap(state_->waiting);
  state_->more.notify_all();
}

std::size_t worker_pool::abandoned() const {
  const std::lock_guard lock{state_->mutex};
  return state_->abandoned;
}

std::size_t worker_pool::threads() const {
  const std::lock_guard lock{state_->mutex};
  return state_->threads;
}

void worker_pool::submit(std::string what, std::chrono::milliseconds deadline, std::function<void()> work,
                         answer done) {
  auto asked = std::make_shared<job>();
  asked->id = ++last_id_;
  asked->what = std::move(what);
  asked->work = std::move(work);
  std::string refused;
  {
    const std::lock_guard lock{state_->mutex};
    if (state_->waiting.size() >= most_waiting) {
      refused = fmt::format("{} jobs wait for a worker already", most_waiting);
    } else if (state_->stuck.size() == state_->most_threads) {
      refused = "all workers are stuck, the latest in: " + state_->stuck.back()->what;
    } else {
      state_->waiting.push_back(asked);
      if (!state_->call_thread()) {
        state_->waiting.pop_back();
        refused = "the system gives us no thread for it";
      }
    }
  }
  if (!refused.empty())
    return refuse(errc::busy, asked->what + ": " + refused, std::move(done));
  const auto id = asked->id;
  const auto until = clock::now() + deadline;
  pending_.emplace(id, pending{std::move(asked), until, std::move(done)});
  deadlines_.emplace(until, id);
  if (deadlines_.begin()->second == id)
    set_timer();
}

void worker_pool::refuse(errc code, std::string detail, answer done) {
  loop_.post([alive = std::weak_ptr{alive_}, why = error{code, std::move(detail)}, done = std::move(done)] {
    if (!alive.expired())
      done(why);
  });
}

void worker_pool::finished(std::uint64_t id, std::optional<error> failed) {
  const auto answered = pending_.extract(id);
  deadlines_.erase({answered.mapped().until, id}); // the timer may be early, which is harmless
  answered.mapped().done(std::move(failed));
}

void worker_pool::look_at_deadlines() {
  const auto now = clock::now();
  const std::weak_ptr alive = alive_;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const auto id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    const auto late = pending_.find(id);
    const auto was = state_->give_up(late->second.asked);
    if (was == job::stage::over)
      continue; // its answer is on its way
    const auto answered = pending_.extract(late);
    answered.mapped().done(
      error{errc::timed_out, answered.mapped().asked->what + (was == job::stage::waiting
                                                                ? ": no worker was free in time, it was not begun"
                                                                : ": it was begun and may still take effect")});
    if (alive.expired())
      return;
  }
  set_timer();
}

void worker_pool::set_timer() {
  if (deadlines_.empty())
    return timer_.stop();
  timer_.start(std::chrono::ceil<std::chrono::milliseconds>(deadlines_.begin()->first - clock::now()),
               [this] { look_at_deadlines(); });
}

} // namespace troupe
