#include "actors/loop_scheduler.hpp"

#include <utility>

namespace troupe {
namespace {

thread_local shard* current_shard = nullptr;

/// Jobs run between two polls for I/O: enough to be cheap, few enough that sockets are served.
constexpr std::size_t jobs_per_turn = 512;

} // namespace

shard::shard(caf::actor_system* system) : execution_unit(system), alarm_{std::make_unique<timer>(loop_)} {
  loop_.on_turn([this] { return run_ready(); });
}

void shard::exec_later(caf::resumable* job) {
  loop_scheduler::of(system()).enqueue(job);
}

shard* shard::here() noexcept {
  return current_shard;
}

void shard::push(caf::resumable* job) {
  if (current_shard == this) {
    ready_.push_back(job);
    return;
  }
  bool first = false;
  {
    const std::lock_guard lock{mutex_};
    first = inbox_.empty();
    inbox_.push_back(job);
  }
  if (first)
    loop_.wake();
}

bool shard::run_ready() {
  {
    const std::lock_guard lock{mutex_};
    ready_.insert(ready_.end(), inbox_.begin(), inbox_.end());
    inbox_.clear();
  }
  auto& scheduler = loop_scheduler::of(system());
  for (auto left = jobs_per_turn; left > 0 && !ready_.empty(); --left) {
    auto* job = ready_.front();
    ready_.pop_front();
    switch (job->resume(this, scheduler.max_throughput())) {
    case caf::resumable::resume_later:
      ready_.push_back(job);
      break;
    case caf::resumable::done:
    case caf::resumable::awaiting_message:
      caf::intrusive_ptr_release(job);
      break;
    case caf::resumable::shutdown_execution_unit:
      break;
    }
  }
  return !ready_.empty();
}

void shard::arm() {
  const auto& schedule = wheel_.schedule();
  if (schedule.empty()) {
    if (std::exchange(armed_, false))
      alarm_->stop();
    return;
  }
  const auto due = schedule.begin()->first;
  if (armed_ && armed_for_ <= due)
    return; // rings early at worst, and is set anew then
  armed_ = true;
  armed_for_ = due;
  alarm_->start(std::chrono::ceil<std::chrono::milliseconds>(due - wheel_.now()), [this] {
    armed_ = false;
    wheel_.trigger_expired_timeouts();
    arm();
  });
}

void shard::run() {
  current_shard = this;
  loop_.run();
  current_shard = nullptr;
}

void shard::finish() {
  current_shard = this;
  wheel_.cancel_all();
  {
    const std::lock_guard lock{mutex_};
    ready_.insert(ready_.end(), inbox_.begin(), inbox_.end());
    inbox_.clear();
  }
  while (!ready_.empty()) {
    auto* job = ready_.front();
    ready_.pop_front();
    loop_scheduler::cleanup_and_release(job);
  }
  alarm_.reset();
  loop_.close();
  current_shard = nullptr;
}

/// One clock for CAF; each wish lands on the wheel of the shard that owns the actor.
class loop_scheduler::clocks final : public caf::actor_clock {
public:
  explicit clocks(loop_scheduler& owner) : owner_{owner} {}

  void set_ordinary_timeout(time_point at, caf::abstract_actor* who, caf::atom_value type, std::uint64_t id) override {
    on_wheel(who, [=](auto& wheel, auto* actor) { wheel.set_ordinary_timeout(at, actor, type, id); });
  }
  void set_multi_timeout(time_point at, caf::abstract_actor* who, caf::atom_value type, std::uint64_t id) override {
    on_wheel(who, [=](auto& wheel, auto* actor) { wheel.set_multi_timeout(at, actor, type, id); });
  }
  void set_request_timeout(time_point at, caf::abstract_actor* who, caf::message_id id) override {
    on_wheel(who, [=](auto& wheel, auto* actor) { wheel.set_request_timeout(at, actor, id); });
  }
  void cancel_ordinary_timeout(caf::abstract_actor* who, caf::atom_value type) override {
    on_wheel(who, [=](auto& wheel, auto* actor) { wheel.cancel_ordinary_timeout(actor, type); });
  }
  void cancel_request_timeout(caf::abstract_actor* who, caf::message_id id) override {
    on_wheel(who, [=](auto& wheel, auto* actor) { wheel.cancel_request_timeout(actor, id); });
  }
  void cancel_timeouts(caf::abstract_actor* who) override {
    on_wheel(who, [](auto& wheel, auto* actor) { wheel.cancel_timeouts(actor); });
  }
  void schedule_message(time_point at, caf::strong_actor_ptr to, caf::mailbox_element_ptr content) override {
    auto& home = owner_.shard_of(to->id());
    if (shard::here() == &home) {
      home.wheel_.schedule_message(at, std::move(to), std::move(content));
      home.arm();
      return;
    }
    // std::function copies; the element only moves.
    auto boxed = std::make_shared<caf::mailbox_element_ptr>(std::move(content));
    home.events().post([&home, at, to = std::move(to), boxed] {
      home.wheel_.schedule_message(at, to, std::move(*boxed));
      home.arm();
    });
  }
  void schedule_message(time_point at, caf::group to, caf::strong_actor_ptr from, caf::message content) override {
    auto& home = *owner_.shards_.front();
    home.events().post([&home, at, to = std::move(to), from = std::move(from), content = std::move(content)] {
      home.wheel_.schedule_message(at, to, from, content);
      home.arm();
    });
  }
  void cancel_all() override {
    for (auto& each : owner_.shards_)
      each->events().post([&home = *each] { home.wheel_.cancel_all(); });
  }

private:
  template <class Wish>
  void on_wheel(caf::abstract_actor* who, Wish wish) {
    auto& home = owner_.shard_of(who->id());
    if (shard::here() == &home) {
      wish(home.wheel_, who);
      home.arm();
      return;
    }
    caf::strong_actor_ptr alive{who->ctrl()}; // it must not die on the way
    home.events().post([&home, alive = std::move(alive), wish = std::move(wish)] {
      wish(home.wheel_, alive->get());
      home.arm();
    });
  }

  loop_scheduler& owner_;
};

loop_scheduler::loop_scheduler(caf::actor_system& system)
  : abstract_coordinator(system), clock_{std::make_unique<clocks>(*this)} {}

loop_scheduler::~loop_scheduler() = default;

caf::actor_system::module* loop_scheduler::make(caf::actor_system& system, caf::detail::type_list<>) {
  return new loop_scheduler(system);
}

loop_scheduler& loop_scheduler::of(caf::actor_system& system) {
  return static_cast<loop_scheduler&>(system.scheduler());
}

void loop_scheduler::init(caf::actor_system_config& config) {
  abstract_coordinator::init(config);
  for (std::size_t i = 0; i < num_workers(); ++i)
    shards_.push_back(std::make_unique<shard>(&system()));
}

caf::actor_clock& loop_scheduler::clock() noexcept {
  return *clock_;
}

void loop_scheduler::enqueue(caf::resumable* job) {
  if (job->subtype() == caf::resumable::scheduled_actor)
    shard_of(static_cast<caf::scheduled_actor*>(job)->id()).push(job);
  else
    shards_.front()->push(job);
}

void loop_scheduler::start() {
  for (auto& each : shards_)
    each->thread_ = std::thread{[&home = *each] { home.run(); }};
  abstract_coordinator::start();
}

void loop_scheduler::stop() {
  stop_actors();
  for (auto& each : shards_)
    each->loop_.stop();
  for (auto& each : shards_)
    each->thread_.join();
  for (auto& each : shards_)
    each->finish();
}

} // namespace troupe
