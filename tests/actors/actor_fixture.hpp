#pragma once

#include "actors/driver.hpp"
#include "actors/event_hub.hpp"
#include "actors/guest_labels.hpp"
#include "actors/prober.hpp"
#include "actors/security_manager.hpp"
#include "tests/actors/scripted_host.hpp"
#include "tests/catch.hpp"
#include "xml/domain.hpp"
#include "xml/domain_passes.hpp"
#include "xml/emulator_facts.hpp"

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <spdlog/spdlog.h>

#include <deque>
#include <memory>

// A company of actors on CAF's test scheduler, on a machine in memory: one thread, and time that only the test moves.

namespace troupe::sim {

/// What an actor answered, once it has.
template <class T>
using outcome = std::shared_ptr<std::optional<result<T>>>;

inline constexpr auto emulator = "/usr/bin/qemu-system-x86_64";
inline constexpr auto boot_id = "b007";
inline constexpr uid_t qemu_uid = 64055;
inline constexpr gid_t qemu_gid = 108;

/// What the cache holds of the emulator.
inline const std::string& known_facts() {
  static const auto text = [] {
    domain any;
    any.os.arch = "x86_64";
    auto facts = assumed_facts(any, "x86_64");
    facts.binary = emulator;
    facts.tcg_usable = true;
    return to_json_text(facts);
  }();
  return text;
}

struct guest_text {
  std::string name;
  std::vector<std::string> disks{};
  bool shareable = false;
  std::string more{}; ///< Elements beside `devices`.
  int number = 1;     ///< Makes its UUID.
};

inline std::string uuid_for(int number) {
  return fmt::format("11111111-2222-4333-8444-{:012}", number);
}

inline std::string xml_of(const guest_text& guest) {
  std::string disks;
  char letter = 'a';
  for (const auto& path : guest.disks)
    disks += fmt::format("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>"
                         "<target dev='vd{}' bus='virtio'/>{}</disk>",
                         path, letter++, guest.shareable ? "<shareable/>" : "");
  return fmt::format("<domain type='qemu'><name>{}</name><uuid>{}</uuid><memory unit='KiB'>65536</memory><vcpu>1</vcpu>"
                     "<os><type arch='x86_64' machine='pc'>hvm</type></os>{}<devices><emulator>{}</emulator>{}"
                     "<memballoon model='none'/></devices></domain>",
                     guest.name, uuid_for(guest.number), guest.more, emulator, disks);
}

/// The clock does not tell when its next timeout is due, but lets heirs see.
struct clock_view : caf::detail::test_actor_clock {
  static const schedule_map& of(const caf::detail::test_actor_clock& clock) { return clock.*(&clock_view::schedule_); }
};

/// One daemon's actors, as company.cpp puts them together. It ends as by kill -9.
class daemon {
public:
  explicit daemon(std::shared_ptr<machine> on) : machine_{std::move(on)} {
    config_.set("scheduler.policy", caf::atom("testing"));
    config_.set("scheduler.max-threads", 1u);
    system_.emplace(config_);
    sched_ = dynamic_cast<caf::scheduler::test_coordinator*>(&system_->scheduler());
    about_ = std::make_shared<scripted_host>(machine_);

    const auto last = machine_->events.empty() ? 0 : machine_->events.back().sequence;
    events = keep(spawn_event_hub(*system_, {about_, last}));
    watch_events();

    security_setup confinement;
    confinement.machine = about_;
    confinement.privileged = true;
    confinement.fallback = {qemu_uid, qemu_gid, {qemu_gid}};
    confinement.model = machine_->model;
    security = keep(spawn_security_manager(*system_, confinement));
    std::set<std::string> forgotten;
    for (const auto& file : machine_->file_rows)
      if (!machine_->rows.contains(file.guest_uuid))
        forgotten.insert(file.guest_uuid);
    recall_labels earlier{machine_->file_rows};
    for (const auto& [uuid, row] : machine_->rows)
      if (auto labels = labels_of(row); !labels.empty())
        earlier.guests.emplace_back(uuid, std::move(labels.front()));
    caf::anon_send(security, std::move(earlier));
    for (const auto& uuid : forgotten)
      caf::anon_send(security, release_guest{uuid, {}});

    prober = keep(spawn_prober(*system_, {about_, "/run", "/log/probes.log", std::nullopt}));

    around = std::make_shared<guest_surroundings>();
    around->machine = about_;
    around->security = security;
    around->prober = prober;
    around->events = events;
    around->paths.guest_runs = "/run";
    around->paths.log = "/log";
    around->paths.state = "/state";
    around->boot_id = machine_->boot;
    around->control_groups = "/groups";
    driver_setup begins;
    begins.around = around;
    for (const auto& [name, xml] : machine_->definitions)
      begins.stored.push_back({name, xml, machine_->autostarts.contains(name)});
    for (const auto& [uuid, row] : machine_->rows)
      begins.kept.guests.push_back(row);
    begins.kept.files = machine_->file_rows;
    begins.kept.values = machine_->values;
    begins.kept.last_sequence = last;
    driver = keep(spawn_driver(*system_, std::move(begins)));
  }

  ~daemon() {
    about_->cut_off();
    machine_->daemon_died();
    for (const auto& each : kept_)
      caf::anon_send_exit(each, caf::exit_reason::kill);
    kept_.clear();
    events = event_hub_actor();
    security = security_actor();
    prober = prober_actor();
    driver = driver_actor();
    around.reset();
    while (sched_->has_job())
      sched_->run_once();
    system_.reset();
  }
  daemon(const daemon&) = delete;
  daemon& operator=(const daemon&) = delete;

  /// The answer to `what`, once it is there. A request that nobody answers within an hour has failed.
  template <class Reply, class Handle, class Message>
  outcome<Reply> ask(Handle whom, Message what) {
    auto out = std::make_shared<std::optional<result<Reply>>>();
    auto client = system_->spawn([out, whom, what](caf::event_based_actor* self) {
      self->request(whom, std::chrono::seconds{3600}, what)
        .then([out](const Reply& reply) { *out = reply; },
              [out](const caf::error& why) { *out = tl::make_unexpected(from_caf(why)); });
    });
    kept_.push_back(caf::actor_cast<caf::actor>(client));
    return out;
  }

  /// An actor that does nothing until it is ended: a connection that owns guests.
  caf::actor bystander() {
    return keep(system_->spawn([](caf::event_based_actor*) -> caf::behavior { return {[](int) {}}; }));
  }

  caf::actor_system& system() { return *system_; }
  caf::scheduler::test_coordinator& sched() { return *sched_; }
  scripted_host& about() { return *about_; }
  std::shared_ptr<scripted_host> shared_host() { return about_; }

  /// Keeps an actor until the daemon ends.
  template <class Handle>
  Handle keep(Handle actor) {
    kept_.push_back(caf::actor_cast<caf::actor>(actor));
    return actor;
  }

  event_hub_actor events;
  security_actor security;
  prober_actor prober;
  driver_actor driver;
  std::shared_ptr<guest_surroundings> around;
  std::vector<guest_event> heard; ///< What a subscriber of all events was told.

private:
  void watch_events() {
    auto all = &heard;
    const subscriber_actor ear = system_->spawn([all](subscriber_actor::pointer) -> subscriber_actor::behavior_type {
      return {[all](const event_happened& x) { all->push_back(*x.event); }};
    });
    keep(ear);
    caf::anon_send(events, subscribe{caf::actor_cast<caf::strong_actor_ptr>(ear)});
  }

  std::shared_ptr<machine> machine_;
  caf::actor_system_config config_;
  std::optional<caf::actor_system> system_;
  caf::scheduler::test_coordinator* sched_ = nullptr;
  std::shared_ptr<scripted_host> about_;
  std::vector<caf::actor> kept_;
};

/// The machine, and the daemon that runs on it now. Nothing moves but by `step`. With a seed other than 0 messages and
/// events come in an order drawn from it: the same seed is the same run.
class company_fixture {
public:
  explicit company_fixture(std::uint64_t seed = 0, confinement_model::kind model = confinement_model::kind::none)
    : world{std::make_shared<machine>(seed)} {
    world->model = model_of(model);
    spdlog::set_level(std::getenv("TROUPE_TEST_LOG") != nullptr ? spdlog::level::debug : spdlog::level::off);
    world->facts[emulator] = known_facts();
    begin();
  }

  void begin() { now = std::make_unique<daemon>(world); }
  /// The daemon dies as by kill -9, and the next one starts.
  void crash() {
    now.reset();
    begin();
  }

  /// One message or one event; when there is none, time passes until there is. False: nothing will ever happen.
  bool step() {
    auto& sched = now->sched();
    const auto jobs = sched.jobs.size();
    const auto due = world->due_events();
    if (jobs + due == 0) {
      const auto& timeouts = clock_view::of(static_cast<const caf::detail::test_actor_clock&>(sched.clock()));
      const auto event = world->next_event();
      if (timeouts.empty() && !event)
        return false;
      auto wait = event ? *event - world->now : moment::max();
      if (!timeouts.empty())
        wait = std::min<moment>(wait, timeouts.begin()->first - sched.clock().now());
      pass(std::max<moment>(wait, 0ns));
      return true;
    }
    const auto drawn = world->seed == 0 ? 0 : world->draw() % (jobs + std::min<std::size_t>(due, 1));
    if (drawn < jobs) {
      std::swap(sched.jobs.front(), sched.jobs[drawn]);
      sched.run_once();
    } else {
      world->run_event();
    }
    return true;
  }

  void pass(moment span) {
    world->now += span;
    now->sched().advance_time(span);
  }

  template <class Condition>
  bool run_until(Condition met) {
    for (int i = 0; i < most_steps; ++i) {
      if (met())
        return true;
      if (!step())
        return met();
    }
    FAIL("no end after " << most_steps << " steps");
    return false;
  }

  /// Until nothing is left to happen within `span`.
  void run_for(moment span) {
    const auto end = world->now + span;
    const auto marker = std::make_shared<bool>(false);
    world->at(end, [marker] { *marker = true; });
    run_until([&] { return *marker; });
  }
  /// Long enough for every deadline.
  void settle() { run_for(180s); }

  /// The answer, when there is one.
  template <class T>
  result<T> answer(const outcome<T>& wanted) {
    if (!run_until([&] { return wanted->has_value(); }))
      FAIL("nobody answered");
    return **wanted;
  }

  result<guest_ref> define(const guest_text& guest) {
    return answer(now->ask<guest_ref>(now->driver, define_guest{xml_of(guest), 0}));
  }

  std::optional<guest_entry> find(const std::string& name) {
    auto found = answer(now->ask<guest_entry>(now->driver, find_guest{find_guest::key::name, name, -1}));
    return found ? std::optional{*found} : std::nullopt;
  }
  guest_view_ptr view(const std::string& name) {
    auto found = find(name);
    return found ? found->view : nullptr;
  }
  guest_actor actor(const std::string& name) {
    auto found = find(name);
    REQUIRE(found);
    return found->actor;
  }
  template <class Reply, class Order>
  outcome<Reply> order(const std::string& name, Order what) {
    return now->ask<Reply>(actor(name), std::move(what));
  }
  result<guest_ref> start(const std::string& name, std::uint32_t flags = 0) {
    return answer(order<guest_ref>(name, start_guest{flags, nullptr, nullptr}));
  }
  result<done> destroy(const std::string& name) { return answer(order<done>(name, destroy_guest{})); }

  std::vector<guest_view_ptr> views() {
    auto all = answer(now->ask<std::vector<guest_view_ptr>>(now->driver, list_guests{}));
    REQUIRE(all);
    return *all;
  }

  /// What is wrong now that nothing moves: the views, the ledger, the processes and the files tell of one another.
  std::vector<std::string> contradictions();
  /// Of a guest that is shut off: what is left of it.
  std::vector<std::string> left_of(const std::string& name);

  std::shared_ptr<machine> world;
  std::unique_ptr<daemon> now;

private:
  static constexpr int most_steps = 400'000;
};

inline std::vector<std::string> company_fixture::left_of(const std::string& name) {
  std::vector<std::string> out;
  for (const auto& each : world->alive())
    if (each->guest == name)
      out.push_back(fmt::format("QEMU {} of {} runs", each->id.pid, name));
  for (const auto& [path, guest] : world->run_dirs)
    if (guest == name)
      out.push_back(path + " is there");
  for (const auto& [uuid, row] : world->rows)
    if (row.name == name)
      out.push_back(fmt::format("the ledger holds {} as {}", name, row.phase));
  return out;
}

inline std::vector<std::string> company_fixture::contradictions() {
  auto out = world->violations;
  std::set<std::string> active; // uuids
  std::set<int> ids;
  std::map<std::string, std::set<std::string>> users; // of files
  std::set<std::string> labels;
  const auto model = world->model.what;
  const auto all = views();
  for (const auto& view : all) {
    const auto& name = view->ref.name;
    if (view->persistent != world->definitions.contains(name))
      out.push_back(fmt::format("{} is shown as {} and the disk says otherwise", name,
                                view->persistent ? "persistent" : "transient"));
    if (view->autostart != world->autostarts.contains(name))
      out.push_back(name + " is shown with another autostart mark than the disk has");
    if (view->life == guest_state::shutoff) {
      if (view->ref.id != -1 || view->state != 5 || view->pid != 0 || view->live)
        out.push_back(fmt::format("{} is shut off and shown with id {}, state {}, pid {}", name, view->ref.id,
                                  view->state, view->pid));
      if (!view->persistent)
        out.push_back(name + " is transient, shut off and still there");
      for (auto& each : left_of(name))
        out.push_back(name + " is shut off: " + each);
      continue;
    }
    active.insert(view->ref.uuid);
    if (!ids.insert(view->ref.id).second || view->ref.id < 0)
      out.push_back(fmt::format("{} has id {}, which is no id of its own", name, view->ref.id));
    const auto qemu = world->process_at(view->pid);
    if (!qemu || !qemu->alive() || qemu->guest != name) {
      out.push_back(fmt::format("{} is {} with pid {}, which is not its QEMU", name, to_string(view->life), view->pid));
      continue;
    }
    const auto row = world->rows.find(view->ref.uuid);
    if (row == world->rows.end() || row->second.pid != view->pid || row->second.domain_id != view->ref.id ||
        row->second.run_dir != qemu->run_dir || row->second.start_time != qemu->id.start_time)
      out.push_back(name + " runs and the ledger does not say so");
    else if (is_live(view->life) && row->second.phase != "running")
      out.push_back(fmt::format("{} runs and the ledger says '{}'", name, row->second.phase));
    if (!is_live(view->life))
      out.push_back(fmt::format("{} is still {}", name, to_string(view->life)));
    else if ((view->life == guest_state::running) != (qemu->status == "running") ||
             (view->state == 1) != (qemu->status == "running"))
      out.push_back(
        fmt::format("{} is {} (state {}) and its QEMU {}", name, to_string(view->life), view->state, qemu->status));
    if (!world->run_dirs.contains(qemu->run_dir))
      out.push_back(name + " runs without its directory");
    if (qemu->plan.control_groups != std::vector{"/groups/" + view->ref.uuid} ||
        !world->control_groups.contains("/groups/" + view->ref.uuid))
      out.push_back(name + " runs without its control group");
    const auto& context = qemu->plan.selinux_context;
    const auto& profile = qemu->plan.apparmor_profile;
    if (context.empty() != (model != confinement_model::kind::selinux) || (!context.empty() && !labels.insert(context).second))
      out.push_back(fmt::format("{} runs with the context '{}', which is not its own", name, context));
    if (profile != (model == confinement_model::kind::apparmor ? "troupe-" + view->ref.uuid : "") ||
        world->profiles.contains(profile) == profile.empty())
      out.push_back(fmt::format("{} runs with the profile '{}', which is not its own", name, profile));
    if (const auto& front = view->labels.front().process; !context.empty() && front != context)
      out.push_back(fmt::format("{} is shown with the label '{}' and has '{}'", name, front, context));
    if (view->live)
      for (const auto& need : resources_of(*view->live))
        users[need.path].insert(view->ref.uuid);
  }
  for (const auto& each : world->alive()) {
    const auto known = std::ranges::any_of(all, [&](const auto& view) { return view->pid == each->id.pid; });
    if (!known)
      out.push_back(fmt::format("QEMU {} of {} runs and no guest knows it", each->id.pid, each->guest));
  }
  for (const auto& dir : world->run_dirs)
    if (std::ranges::none_of(world->alive(), [&](const auto& each) { return each->run_dir == dir.first; }))
      out.push_back(dir.first + " was left behind");
  for (const auto& group : world->control_groups)
    if (!active.contains(group.substr(group.rfind('/') + 1)))
      out.push_back(group + " was left behind");
  for (const auto& [profile, rules] : world->profiles)
    if (!active.contains(profile.substr(profile.find('-') + 1)))
      out.push_back(profile + " was left behind");
  for (const auto& [uuid, row] : world->rows)
    if (!active.contains(uuid))
      out.push_back(row.name + " is in the ledger and not active");
  for (const auto& row : world->file_rows)
    if (!users[row.path].contains(row.guest_uuid))
      out.push_back(row.path + " is in the ledger and nobody uses it");
  for (const auto& [path, file] : world->files) {
    const auto& before = world->first_owners.at(path);
    if (users[path].empty() ? file != before : file.labels.at("dac") != owner_label(qemu_uid, qemu_gid))
      out.push_back(fmt::format("{} belongs to {} with {} users", path, file.labels.at("dac"), users[path].size()));
  }
  for (const auto& defined : world->definitions)
    if (std::ranges::none_of(all, [&](const auto& view) { return view->ref.name == defined.first; }))
      out.push_back(defined.first + " is defined on disk and unknown");
  for (std::size_t i = 0; i < world->events.size(); ++i)
    if (world->events[i].sequence != i + 1)
      out.push_back(fmt::format("event {} of the log has number {}", i + 1, world->events[i].sequence));
  for (std::size_t i = 1; i < now->heard.size(); ++i)
    if (now->heard[i].sequence != now->heard[i - 1].sequence + 1)
      out.push_back(fmt::format("event {} was heard after {}", now->heard[i].sequence, now->heard[i - 1].sequence));
  return out;
}

} // namespace troupe::sim
