#pragma once

#include "runtime/error.hpp"
#include "runtime/loop.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace troupe {

/// Threads for work that blocks and may never return: a file on a mount that hangs, a user database that is remote.
/// A thread that misses its deadline is abandoned and another takes its place, so that stuck work delays nobody else's.
/// Threads start when there is work and end after a few idle seconds. Loop thread only; the loop outlives the pool.
class worker_pool {
public:
  /// At most `most_threads` work at a time, and `abandoned_per_thread` times as many may be abandoned beside them. From
  /// then on a stuck thread keeps its place; when stuck ones keep all places, `run` answers busy.
  worker_pool(loop& answers_on, std::size_t most_threads);

  /// Waits for nobody. Work that has begun goes on by itself, work that has not is dropped, no `done` is called any
  /// more.
  ~worker_pool();
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;

  /// Runs `work` on a thread of the pool, then `done` on the loop with its result, from a later turn.
  /// Errors beside those of `work`: timed_out, `deadline` after this call: the detail names `what` and says whether it
  /// was begun, for then it may still take effect; busy; internal when `work` throws.
  template <class T>
  void run(std::string what, std::chrono::milliseconds deadline, std::function<result<T>()> work,
           std::function<void(result<T>)> done) {
    const auto slot = std::make_shared<std::optional<result<T>>>();
    submit(
      std::move(what), deadline, [slot, work = std::move(work)] { slot->emplace(work()); },
      [slot, done = std::move(done)](std::optional<error> failed) {
        if (failed)
          done(tl::make_unexpected(std::move(*failed)));
        else
          done(std::move(**slot));
      });
  }

  static constexpr std::size_t abandoned_per_thread = 4;
  static constexpr std::size_t most_waiting = 4096; ///< Jobs that have not begun; more are answered busy.

  std::size_t abandoned() const;
  /// Threads that work or wait for work, without the abandoned ones.
  std::size_t threads() const;

private:
  using clock = std::chrono::steady_clock;
  using answer = std::function<void(std::optional<error>)>;
  struct job;
  struct shared_state;
  struct pending {
    std::shared_ptr<job> asked;
    clock::time_point until;
    answer done;
  };

  void submit(std::string what, std::chrono::milliseconds deadline, std::function<void()> work, answer done);
  void refuse(errc code, std::string detail, answer done);
  void finished(std::uint64_t id, std::optional<error> failed);
  void look_at_deadlines();
  void set_timer();

  loop& loop_;
  std::shared_ptr<shared_state> state_;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, pending> pending_;
  std::set<std::pair<clock::time_point, std::uint64_t>> deadlines_;
  timer timer_;
  std::shared_ptr<int> alive_ =
    std::make_shared<int>(); ///< Answers posted to the loop find out by it that we are gone.
};

} // namespace troupe
