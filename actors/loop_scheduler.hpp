#pragma once

#include "runtime/loop.hpp"

#include <caf/all.hpp>
#include <caf/detail/simple_actor_clock.hpp>
#include <caf/scheduler/abstract_coordinator.hpp>

#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace troupe {

/// One thread that turns one event loop and runs the actors that live on it. What an actor owns on its shard's loop
/// (sockets, timers, children) is touched by nobody else, so a frame reaches its actor without a lock or a wake-up.
class shard final : public caf::execution_unit {
public:
  explicit shard(caf::actor_system* system);

  /// It may belong to another shard.
  void exec_later(caf::resumable* job) override;

  /// Makes `job` run on this shard. Any thread.
  void push(caf::resumable* job);

  loop& events() noexcept { return loop_; }

  /// The shard of the calling thread, or null.
  static shard* here() noexcept;

private:
  friend class loop_scheduler;

  void run();
  void finish();
  bool run_ready();
  void arm();

  loop loop_;
  caf::detail::simple_actor_clock wheel_;
  std::unique_ptr<timer> alarm_;
  bool armed_ = false;
  caf::actor_clock::time_point armed_for_;
  std::deque<caf::resumable*> ready_;
  std::mutex mutex_;
  std::vector<caf::resumable*> inbox_;
  std::thread thread_;
};

/// CAF's scheduler, made of shards. An actor belongs to shard `id % shards` for life.
/// Loaded by `config.load<loop_scheduler>()`.
class loop_scheduler final : public caf::scheduler::abstract_coordinator {
public:
  explicit loop_scheduler(caf::actor_system& system);
  ~loop_scheduler() override;

  static caf::actor_system::module* make(caf::actor_system& system, caf::detail::type_list<>);

  /// The scheduler of a system that was configured with this one.
  static loop_scheduler& of(caf::actor_system& system);

  shard& shard_of(caf::actor_id id) { return *shards_[id % shards_.size()]; }

  /// The loop of the actor with this id: what it may own handles on.
  loop& loop_of(caf::actor_id id) { return shard_of(id).events(); }

  void init(caf::actor_system_config& config) override;
  caf::actor_clock& clock() noexcept override;
  void enqueue(caf::resumable* job) override;

protected:
  void start() override;
  void stop() override;

private:
  class clocks;
  std::unique_ptr<clocks> clock_;
  std::vector<std::unique_ptr<shard>> shards_;
};

} // namespace troupe
