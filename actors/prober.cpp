#include "actors/prober.hpp"

#include "actors/inside.hpp"
#include "runtime/qmp_probe.hpp"
#include "xml/emulator_facts.hpp"

#include <csignal>
#include <deque>
#include <fmt/format.h>
#include <malloc.h>
#include <map>
#include <set>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;

/// A probe that takes longer is killed.
constexpr auto probe_limit = 30s;
/// That a busy host was too slow for a probe says nothing of the emulator: it is asked again, but not by every caller.
constexpr auto retry_after = 60s;
/// A host may have an emulator for each of thirty architectures.
constexpr std::size_t most_probes = 4;
constexpr int monitor_number = 10;

} // namespace

class prober_data {
public:
  void begin(prober_actor::pointer self, prober_setup setup) {
    self_ = self;
    setup_ = std::move(setup);
    find_all();
  }

  /// A probe under way holds what holds it.
  ~prober_data() {
    for (const auto& one : under_way_) {
      if (one->process)
        one->process->signal(SIGKILL);
      one->process.reset();
      one->monitor.reset();
    }
  }

  caf::result<emulator_facts_ptr> facts(const std::string& binary);
  caf::result<std::vector<emulator_facts_ptr>> all();

private:
  using whole_answer = caf::typed_response_promise<std::vector<emulator_facts_ptr>>;

  /// One start of one binary under one accelerator.
  struct attempt {
    std::string binary, accel, run_dir;
    std::shared_ptr<host::place> place;
    std::unique_ptr<host::process> process;
    std::unique_ptr<host::monitor> monitor;
    std::function<void(result<probe_answers>)> then;
    std::string why; ///< The launcher's complaint, if any.
  };
  struct entry {
    emulator_facts_ptr facts;
    std::optional<error> failure;
    bool under_way = false;
    std::vector<std::function<void(result<emulator_facts_ptr>)>> waiting;
    std::string key;
    std::optional<caf::actor_clock::time_point> retry_at; ///< A probe took too long: what is known is not all.
  };

  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then) {
    return inside_as<prober_actor, result<T>>(self_, std::move(then));
  }
  void find_all();
  void want(const std::string& binary, std::function<void(result<emulator_facts_ptr>)> then);
  void ask_kvm(const std::string& binary, const probe_answers& tcg, const std::string& why_no_tcg);
  void note_delay(const std::string& binary, const result<probe_answers>& answers);
  void settle(const std::string& binary, result<emulator_facts_ptr> outcome);
  void start(std::string binary, std::string accel, std::function<void(result<probe_answers>)> then);
  void start_next();
  void launch(const std::shared_ptr<attempt>& one);
  void over(const std::shared_ptr<attempt>& one);
  void finish(const std::shared_ptr<attempt>& one, result<probe_answers> outcome);

  prober_actor::pointer self_ = nullptr;
  prober_setup setup_;
  std::map<std::string, entry> entries_; ///< by binary, as asked for
  std::vector<std::string> found_;
  bool searched_ = false;
  std::vector<std::function<void()>> when_searched_;
  unsigned attempts_ = 0;
  std::set<std::shared_ptr<attempt>> under_way_;
  std::deque<std::shared_ptr<attempt>> queued_; ///< Those that wait until fewer are under way.
};

void prober_data::find_all() {
  setup_.machine->find_emulators(here<std::vector<std::string>>([this](result<std::vector<std::string>> found) {
    if (found)
      found_ = std::move(*found);
    else
      spdlog::warn("no emulator could be looked for: {}", found.error().message());
    searched_ = true;
    for (const auto& binary : found_)
      want(binary, [](result<emulator_facts_ptr>) {}); // in the background, so that the first definition need not wait
    for (auto& call : std::exchange(when_searched_, {}))
      call();
  }));
}

caf::result<emulator_facts_ptr> prober_data::facts(const std::string& binary) {
  auto promise = self_->make_response_promise<emulator_facts_ptr>();
  want(binary, [promise](result<emulator_facts_ptr> outcome) mutable {
    if (outcome)
      promise.deliver(std::move(*outcome));
    else
      promise.deliver(to_caf(std::move(outcome.error())));
  });
  return promise;
}

caf::result<std::vector<emulator_facts_ptr>> prober_data::all() {
  auto promise = self_->make_response_promise<std::vector<emulator_facts_ptr>>();
  auto gather = [this, promise]() mutable {
    struct gathering {
      std::map<std::string, emulator_facts_ptr> got;
      std::size_t left = 0;
    };
    auto shared = std::make_shared<gathering>();
    shared->left = found_.size();
    auto deliver = [promise, shared]() mutable {
      std::vector<emulator_facts_ptr> out;
      for (auto& [binary, facts] : shared->got)
        out.push_back(std::move(facts));
      promise.deliver(std::move(out));
    };
    if (shared->left == 0)
      return deliver();
    for (const auto& binary : found_)
      want(binary, [shared, binary, deliver](result<emulator_facts_ptr> outcome) mutable {
        if (outcome)
          shared->got[binary] = std::move(*outcome);
        if (--shared->left == 0)
          deliver();
      });
  };
  if (searched_)
    gather();
  else
    when_searched_.push_back(gather);
  return promise;
}

void prober_data::want(const std::string& binary, std::function<void(result<emulator_facts_ptr>)> then) {
  auto& known = entries_[binary];
  if (known.under_way) {
    known.waiting.push_back(std::move(then));
    return;
  }
  known.under_way = true;
  known.waiting.push_back(std::move(then));
  // Also when it is known: the binary, the kernel or the microcode may have changed since.
  setup_.machine->recall_facts(binary, known.key, here<host::remembered>([this, binary](result<host::remembered> kept) {
    auto& one = entries_[binary];
    if (!kept) {
      one.key.clear(); // that the look failed says nothing of the binary
      return settle(binary, tl::make_unexpected(std::move(kept.error())));
    }
    const bool is_final = one.key == kept->key && !(one.retry_at && self_->clock().now() >= *one.retry_at);
    if (one.facts && is_final)
      return settle(binary, one.facts);
    if (one.failure && is_final)
      return settle(binary, tl::make_unexpected(*one.failure));
    one.key = kept->key;
    one.retry_at.reset();
    if (!kept->text.empty())
      if (auto facts = emulator_facts_from(kept->text)) {
        facts->binary = binary; // two links to one program share what is known of it
        return settle(binary, std::make_shared<const emulator_facts>(std::move(*facts)));
      }
    start(binary, "tcg", [this, binary](result<probe_answers> tcg) {
      note_delay(binary, tcg);
      ask_kvm(binary, tcg ? *tcg : probe_answers{}, tcg ? std::string{} : tcg.error().detail);
    });
  }));
}

void prober_data::ask_kvm(const std::string& binary, const probe_answers& tcg, const std::string& why_no_tcg) {
  const auto conclude = [this, binary, tcg, why_no_tcg](const probe_answers& kvm, const std::string& why_no_kvm) {
    if (tcg.is_null() && kvm.is_null())
      return settle(binary, fail(errc::operation_failed,
                                 fmt::format("'{}' is no emulator that answers: {}", binary, why_no_tcg)));
    auto facts = facts_from_answers(binary, tcg, kvm, why_no_kvm);
    if (!facts)
      return settle(binary, tl::make_unexpected(std::move(facts.error())));
    if (!entries_[binary].retry_at)
      setup_.machine->remember_facts(entries_[binary].key, to_json_text(*facts), [](result<done> kept) {
        if (!kept)
          spdlog::warn("what an emulator can do was not put in the cache: {}", kept.error().message());
      });
    settle(binary, std::make_shared<const emulator_facts>(std::move(*facts)));
  };
  if (auto usable = setup_.machine->kvm_usable(); !usable)
    return conclude({}, usable.error().detail);
  start(binary, "kvm", [this, binary, conclude](result<probe_answers> kvm) {
    note_delay(binary, kvm);
    conclude(kvm ? *kvm : probe_answers{}, kvm ? std::string{} : kvm.error().detail);
  });
}

void prober_data::note_delay(const std::string& binary, const result<probe_answers>& answers) {
  if (!answers && answers.error().code == errc::timed_out)
    entries_[binary].retry_at = self_->clock().now() + retry_after;
}

void prober_data::settle(const std::string& binary, result<emulator_facts_ptr> outcome) {
  auto& one = entries_[binary];
  one.under_way = false;
  one.facts = outcome ? *outcome : nullptr;
  one.failure = outcome ? std::optional<error>{} : outcome.error();
  for (auto& call : std::exchange(one.waiting, {}))
    call(outcome);
}

void prober_data::start(std::string binary, std::string accel, std::function<void(result<probe_answers>)> then) {
  auto one = std::make_shared<attempt>();
  one->binary = std::move(binary);
  one->accel = std::move(accel);
  one->run_dir = fmt::format("{}/probe-{}", setup_.run_root, ++attempts_);
  one->then = std::move(then);
  queued_.push_back(std::move(one));
  start_next();
}

void prober_data::start_next() {
  if (queued_.empty() || under_way_.size() >= most_probes)
    return;
  const auto one = std::move(queued_.front());
  queued_.pop_front();
  under_way_.insert(one);
  host::place_request wish;
  wish.guest = "probe of " + one->binary;
  wish.run_dir = one->run_dir;
  wish.log_file = setup_.log_file;
  wish.file_label = setup_.label.image;
  wish.socket_label = setup_.label.process;
  setup_.machine->make_place(std::move(wish),
                             here<std::shared_ptr<host::place>>([this, one](result<std::shared_ptr<host::place>> made) {
                               if (!made)
                                 return finish(one, tl::make_unexpected(std::move(made.error())));
                               one->place = std::move(*made);
                               launch(one);
                             }));
}

void prober_data::launch(const std::shared_ptr<attempt>& one) {
  launch_plan plan;
  plan.argv = probe_argv(one->binary, one->accel, monitor_number);
  plan.env = {"LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"};
  plan.identity = setup_.identity;
  plan.selinux_context = setup_.label.process;
  plan.no_new_privs = plan.selinux_context.empty();
  plan.pid_file = one->run_dir + "/pid"; // the next daemon ends what a killed one left
  plan.keep_fds = {monitor_number};
  host::process_events events;
  events.executed = here<done>([one](result<done> went) {
    if (!went)
      one->why = went.error().detail;
  });
  events.exited = inside_as<prober_actor, exit_status>(self_, [this, one](exit_status how) {
    one->process.reset();
    one->monitor.reset();
    over(one);
    setup_.machine->read_log(setup_.log_file, one->place->log_start,
                             here<std::string>([this, one, how](result<std::string> said) {
                               auto words = !one->why.empty() ? one->why : said && !said->empty() ? *said : "it said nothing";
                               finish(one, fail(errc::operation_failed,
                                                fmt::format("'{}' (accel {}) ended before it answered, {}: {}", one->binary,
                                                            one->accel,
                                                            how.signal ? fmt::format("signal {}", how.signal)
                                                                       : fmt::format("status {}", how.code),
                                                            words)));
                             }));
  });
  auto started = setup_.machine->launch(std::move(plan),
                                        {{one->place->listening.get(), monitor_number},
                                         {one->place->log.get(), 1},
                                         {one->place->log.get(), 2}},
                                        std::move(events));
  if (!started)
    return finish(one, tl::make_unexpected(std::move(started.error())));
  one->process = std::move(*started);
  one->process->go(); // it touches nothing of a guest's: no ledger needs to know
  qmp_monitor::callbacks calls;
  calls.greeted = inside_as<prober_actor, const nlohmann::json&>(self_, [this, one](const nlohmann::json&) {
    if (one->monitor)
      probe(
        [one](const char* command, nlohmann::json arguments, qmp_monitor::reply then) {
          one->monitor->execute(command, std::move(arguments), probe_limit, std::move(then));
        },
        here<probe_answers>([this, one](result<probe_answers> answers) {
          if (!answers && answers.error().code == errc::qemu_gone && one->process)
            return; // its end follows, and says why
          finish(one, std::move(answers));
        }));
  });
  calls.event = [](qmp_event) {};
  calls.closed = [](error) {}; // its end follows
  auto connected = setup_.machine->reach_monitor(one->place->monitor_socket, std::move(calls));
  one->place->listening.reset();
  if (!connected)
    return finish(one, tl::make_unexpected(std::move(connected.error())));
  one->monitor = std::move(*connected);
  self_->delayed_send(self_, probe_limit, completion{[this, one] {
                        finish(one, fail(errc::timed_out, fmt::format("'{}' (accel {}) did not answer within {} s",
                                                                      one->binary, one->accel, probe_limit.count())));
                      }});
}

/// No process of it is left.
void prober_data::over(const std::shared_ptr<attempt>& one) {
  under_way_.erase(one);
  start_next();
}

void prober_data::finish(const std::shared_ptr<attempt>& one, result<probe_answers> outcome) {
  if (!one->then)
    return; // over already
  if (one->process)
    one->process->signal(SIGKILL);
  one->monitor.reset();
  if (!one->process)
    over(one);
  setup_.machine->remove_place(one->run_dir, [](result<done>) {});
  std::exchange(one->then, nullptr)(std::move(outcome));
  ::malloc_trim(0); // all that QEMU told was far more than what is kept of it
}

namespace {

prober_actor::behavior_type prober(prober_actor::stateful_pointer<prober_data> self, prober_setup setup) {
  self->state.begin(self, std::move(setup));
  return {
    [self](const emulator_wanted& x) { return self->state.facts(x.binary); },
    [self](const list_emulators&) { return self->state.all(); },
    [](const completion& x) { x.run(); },
  };
}

} // namespace

prober_actor spawn_prober(caf::actor_system& system, prober_setup setup) {
  return system.spawn(prober, std::move(setup));
}

} // namespace troupe
