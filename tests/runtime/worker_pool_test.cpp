#include "runtime/worker_pool.hpp"

#include "tests/catch.hpp"
#include "tests/runtime/run_until.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <optional>
#include <stdexcept>
#include <vector>

namespace troupe {
namespace {

using namespace std::chrono_literals;
using Catch::Matchers::Contains;

/// Longer than any test: work that is not to time out.
constexpr auto patient = std::chrono::milliseconds{10min};

/// A door that work waits at. Opened at the latest with its end, so that no thread stays.
class door {
public:
  ~door() { open(); }
  void open() {
    if (!std::exchange(is_open_, true))
      opened_.set_value();
  }
  /// For `work`; does not touch the door itself, which may be gone by then.
  std::function<void()> wait() const {
    return [future = future_] { future.wait(); };
  }

private:
  std::promise<void> opened_;
  std::shared_future<void> future_ = opened_.get_future().share();
  bool is_open_ = false;
};

struct fixture {
  loop on;
  std::vector<result<int>> answers;

  std::function<void(result<int>)> note() {
    return [this](result<int> answer) { answers.push_back(std::move(answer)); };
  }
  void wait_for(std::size_t count) {
    run_until(on, [&] { return answers.size() >= count; });
  }

  /// Has work that waits at `at` begun and then miss its deadline, however slow this machine is now.
  error get_stuck(worker_pool& pool, const std::string& what, const door& at) {
    const auto begun = std::make_shared<std::atomic<bool>>(false);
    for (auto deadline = 10ms;; deadline *= 2) {
      std::optional<result<int>> answer;
      pool.run<int>(
        what, deadline,
        [begun, wait = at.wait()]() -> result<int> {
          *begun = true;
          wait();
          return 0;
        },
        [&answer](result<int> said) { answer = std::move(said); });
      run_until(on, [&] { return answer.has_value(); });
      REQUIRE_FALSE(answer->has_value());
      if (*begun)
        return answer->error();
    }
  }
};

} // namespace

TEST_CASE("worker pool: work runs on other threads and its result comes back on the loop", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 2};
  std::atomic<std::size_t> elsewhere = 0;
  std::size_t here = 0;
  constexpr int jobs = 200;
  const auto loop_thread = std::this_thread::get_id();
  for (int i = 0; i < jobs; ++i)
    pool.run<int>(
      "count", patient,
      [i, loop_thread, &elsewhere]() -> result<int> {
        elsewhere += std::this_thread::get_id() != loop_thread;
        if (i % 3 == 0)
          return fail(errc::system, "no " + std::to_string(i));
        return i;
      },
      [&f, &here, i](result<int> answer) {
        here += f.on.on_thread();
        CHECK(answer.has_value() == (i % 3 != 0));
        CHECK((answer ? std::to_string(*answer) : answer.error().detail) == (i % 3 ? "" : "no ") + std::to_string(i));
        f.answers.push_back(std::move(answer));
      });
  CHECK(f.answers.empty()); // never from within `run`
  f.wait_for(jobs);
  CHECK(elsewhere == jobs);
  CHECK(here == jobs);
  CHECK(pool.threads() <= 2);
  CHECK(pool.abandoned() == 0);
}

TEST_CASE("worker pool: as much work at a time as there may be threads, and no more", "[runtime]") {
  fixture f;
  constexpr int most = 3;
  worker_pool pool{f.on, most};
  std::atomic<int> at_a_time = 0, most_seen = 0;
  door together;
  for (int i = 0; i < 30; ++i)
    pool.run<int>(
      "overlap", patient,
      [&, wait = together.wait()]() -> result<int> {
        const int now = ++at_a_time;
        for (int seen = most_seen; seen < now && !most_seen.compare_exchange_weak(seen, now);) {
        }
        wait();
        --at_a_time;
        return 0;
      },
      f.note());
  run_until(f.on, [&] { return at_a_time == most; });
  together.open();
  f.wait_for(30);
  CHECK(most_seen == most);
}

TEST_CASE("worker pool: a stuck thread is abandoned at its deadline and another does the rest", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 1};
  door mount;
  const auto late = f.get_stuck(pool, "read '/mnt/nfs/a.img'", mount);
  CHECK(late.code == errc::timed_out);
  CHECK(late.detail == "read '/mnt/nfs/a.img': it was begun and may still take effect");
  pool.run<int>(
    "read '/b.img'", patient, [] { return result<int>{2}; }, f.note());
  f.wait_for(1);
  CHECK(f.answers[0] == 2);
  CHECK(pool.abandoned() == 1);
  CHECK(pool.threads() == 1);
  mount.open();
  run_until(f.on, [&] { return pool.abandoned() == 0; });
  CHECK(f.answers.size() == 1); // what it brought in the end is nobody's any more
  CHECK(pool.threads() == 1);
}

TEST_CASE("worker pool: what waits behind a stuck thread is done once that is abandoned", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 1};
  door mount;
  pool.run<int>(
    "stuck", 100ms,
    [wait = mount.wait()]() -> result<int> {
      wait();
      return 1;
    },
    f.note());
  for (int i = 0; i < 3; ++i)
    pool.run<int>(
      "behind", patient, [i] { return result<int>{i}; }, f.note());
  f.wait_for(4);
  REQUIRE_FALSE(f.answers[0]);
  CHECK(f.answers[0].error().code == errc::timed_out);
  for (int i = 0; i < 3; ++i)
    CHECK(f.answers[static_cast<std::size_t>(i) + 1] == i);
}

TEST_CASE("worker pool: work that no thread came for in time never begins", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 1};
  door busy;
  pool.run<int>(
    "first", patient,
    [wait = busy.wait()]() -> result<int> {
      wait();
      return 1;
    },
    f.note());
  const auto begun = std::make_shared<std::atomic<bool>>(false);
  pool.run<int>(
    "second", 5ms,
    [begun]() -> result<int> {
      *begun = true;
      return 2;
    },
    f.note());
  f.wait_for(1);
  REQUIRE_FALSE(f.answers[0]);
  CHECK(f.answers[0].error().code == errc::timed_out);
  CHECK(f.answers[0].error().detail == "second: no worker was free in time, it was not begun");
  busy.open();
  pool.run<int>(
    "third", patient, [] { return result<int>{3}; }, f.note());
  f.wait_for(3);
  CHECK(f.answers[1] == 1);
  CHECK(f.answers[2] == 3);
  CHECK_FALSE(*begun);
}

TEST_CASE("worker pool: when stuck work keeps all places it says so, until one comes back", "[runtime]") {
  fixture f;
  constexpr std::size_t threads = 2, most_stuck = threads + threads * worker_pool::abandoned_per_thread;
  worker_pool pool{f.on, threads};
  std::vector<door> mounts(most_stuck);
  for (std::size_t i = 0; i < most_stuck; ++i)
    CHECK(f.get_stuck(pool, "mount " + std::to_string(i), mounts[i]).code == errc::timed_out);
  CHECK(pool.abandoned() == threads * worker_pool::abandoned_per_thread);
  CHECK(pool.threads() == threads);
  pool.run<int>(
    "one more", patient, [] { return result<int>{1}; }, f.note());
  CHECK(f.answers.empty());
  f.wait_for(1);
  REQUIRE_FALSE(f.answers.back());
  CHECK(f.answers.back().error().code == errc::busy);
  CHECK_THAT(f.answers.back().error().detail,
             Contains("one more") && Contains("stuck") && Contains("mount " + std::to_string(most_stuck - 1)));

  const std::size_t back = GENERATE(0, 7, 9); // an abandoned one or one that keeps its place
  mounts[back].open();
  result<int> answer = fail(errc::busy, "");
  while (!answer) {
    pool.run<int>(
      "again", patient, [] { return result<int>{2}; }, f.note());
    f.wait_for(f.answers.size() + 1);
    answer = f.answers.back();
    if (!answer)
      REQUIRE(answer.error().code == errc::busy);
  }
  CHECK(answer == 2);
  for (auto& mount : mounts)
    mount.open();
  run_until(f.on, [&] { return pool.abandoned() == 0; });
  CHECK(pool.threads() <= threads);
}

TEST_CASE("worker pool: what waits has a bound, and every job has its answer", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 1};
  door busy;
  std::atomic<bool> begun = false;
  pool.run<int>(
    "first", patient,
    [&begun, wait = busy.wait()]() -> result<int> {
      begun = true;
      wait();
      return 0;
    },
    f.note());
  run_until(f.on, [&] { return begun.load(); });
  for (std::size_t i = 0; i < worker_pool::most_waiting + 5; ++i)
    pool.run<int>(
      "job", patient, [] { return result<int>{1}; }, f.note());
  f.wait_for(5);
  for (const auto& refused : f.answers) {
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::busy);
  }
  busy.open();
  f.wait_for(worker_pool::most_waiting + 6);
  CHECK(std::count_if(f.answers.begin(), f.answers.end(), [](const auto& a) { return !a; }) == 5);
}

TEST_CASE("worker pool: an exception is an internal error that names the work", "[runtime]") {
  fixture f;
  worker_pool pool{f.on, 1};
  pool.run<int>(
    "parse", patient, []() -> result<int> { throw std::runtime_error{"a bug"}; }, f.note());
  pool.run<int>(
    "parse", patient, []() -> result<int> { throw 7; }, f.note());
  pool.run<int>(
    "go on", patient, [] { return result<int>{1}; }, f.note());
  f.wait_for(3);
  REQUIRE_FALSE(f.answers[0]);
  CHECK(f.answers[0].error().code == errc::internal);
  CHECK(f.answers[0].error().detail == "parse: a bug");
  REQUIRE_FALSE(f.answers[1]);
  CHECK(f.answers[1].error().code == errc::internal);
  CHECK(f.answers[2] == 1);
}

TEST_CASE("worker pool: its end waits for nobody, drops what has not begun and calls nobody back", "[runtime]") {
  const auto deadline = GENERATE(1ms, patient);
  fixture f;
  door mount;
  const auto held = std::make_shared<int>();
  const auto ran = std::make_shared<std::atomic<int>>(0);
  {
    worker_pool pool{f.on, 1};
    for (int i = 0; i < 3; ++i)
      pool.run<int>(
        "job", deadline,
        [held, ran, wait = mount.wait()]() -> result<int> {
          ++*ran;
          wait();
          return 0;
        },
        f.note());
    run_until(f.on, [&] { return ran->load() >= 1 || f.answers.size() == 3; }); // none begins when all are late
    f.answers.clear();
  }
  mount.open();
  run_until(f.on, [&] { return held.use_count() == 1; });
  CHECK(f.answers.empty());
  CHECK(*ran <= 3);
}

TEST_CASE("worker pool: an answer may destroy the pool", "[runtime]") {
  const bool timed_out = GENERATE(false, true);
  loop on;
  door mount;
  auto pool = std::make_unique<worker_pool>(on, 2);
  int answers = 0;
  const auto destroy = [&](result<int> answer) {
    ++answers;
    CHECK(answer.has_value() == !timed_out);
    pool.reset();
  };
  for (int i = 0; i < 3; ++i)
    pool->run<int>(
      "job", timed_out ? 1ms : patient,
      [timed_out, wait = mount.wait()]() -> result<int> {
        if (timed_out)
          wait();
        return 0;
      },
      destroy);
  run_until(on, [&] { return !pool; });
  mount.open();
  bool later = false;
  timer soon{on};
  soon.start(5ms, [&] { later = true; });
  run_until(on, [&] { return later; });
  CHECK(answers == 1);
}

} // namespace troupe
