#include "actors/guest_data.hpp"

#include "actors/guest_labels.hpp"
#include "xml/domain_passes.hpp"
#include "xml/qemu_argv.hpp"

#include <algorithm>
#include <csignal>
#include <ctime>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;

// Where the actors take turns with slow things, the answer must come within this; the work may go on.
constexpr auto driver_answer = 5s;
constexpr auto security_answer = 40s;
constexpr auto prober_answer = 40s;

/// A destroy that may not use SIGKILL is told to have failed after this.
constexpr auto graceful_limit = 15s;

// Descriptors inside QEMU.
constexpr int monitor_number = 10;
constexpr int first_tap_number = 11;

constexpr std::uint32_t create_paused = 1;
constexpr std::uint32_t create_autodestroy = 2;
constexpr std::uint32_t destroy_graceful = 1;

// virDomainState and the reasons of each. Source: libvirt's public enumerations.
namespace shown {
enum state : int { running = 1, paused = 3, shutting_down = 4, shutoff = 5, crashed = 6, pm_suspended = 7 };
}

/// What clients are told about an end: event detail of STOPPED, and the reason of the state shutoff.
struct end_row {
  int stopped_detail;
  int shutoff_reason;
};
constexpr end_row end_rows[] = {
  /* none      */ {5, 0},
  /* shut_down */ {0, 1},
  /* destroyed */ {1, 2},
  /* crashed   */ {2, 3},
  /* failed    */ {5, 6},
  /* lost      */ {5, 3},
};

/// "2030-12-31T23:59:59", in UTC, as seconds since 1970.
std::optional<std::int64_t> seconds_of(const std::string& time) {
  std::tm parts{};
  const auto* end = ::strptime(time.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr || *end != '\0')
    return std::nullopt;
  return ::timegm(&parts);
}

/// What a definition needs, in the words of sec/.
resource as_resource(needed_resource need) {
  resource file;
  file.path = std::move(need.path);
  file.what = static_cast<resource::kind>(need.what);
  file.readonly = need.readonly;
  file.shared = need.shared;
  file.relabel = need.relabel;
  file.create = need.create;
  file.like = std::move(need.like);
  file.optional = need.optional;
  for (auto& each : need.labels)
    file.labels.push_back({std::move(each.model), each.relabel, std::move(each.label)});
  return file;
}
static_assert(static_cast<int>(resource::kind::usb) == static_cast<int>(needed_resource::kind::usb));

caf::error gone() {
  return to_caf({errc::aborted, "the guest's actor ended before the operation did"});
}

} // namespace

std::vector<resource> needs_of(const domain& guest) {
  std::vector<resource> needs;
  for (auto& need : resources_of(guest))
    needs.push_back(as_resource(std::move(need)));
  return needs;
}

std::vector<resource> chains_of(const domain& guest) {
  std::vector<resource> images;
  for (auto& each : open_chains(guest))
    images.push_back(as_resource(std::move(each)));
  return images;
}

// ---- beginning

void guest_data::begin(pointer self, guest_setup setup) {
  self_ = self;
  around_ = std::move(setup.around);
  name_ = std::move(setup.name);
  uuid_ = std::move(setup.uuid);
  config_ = std::move(setup.config);
  transient_ = std::move(setup.transient);
  autostart_ = setup.autostart;
  if (setup.found) {
    row_ = std::move(setup.found);
    take(guest_input::adopt);
    return;
  }
  if (config_)
    publish(); // one without a definition is forgotten when it is shut off, and this one is about to start
}

guest_data::~guest_data() {
  // A promise that is dropped never answers.
  for (auto& promise : starting_)
    promise.deliver(gone());
  for (auto& promise : stopping_)
    promise.deliver(gone());
  for (auto& [number, answer] : unanswered_)
    answer(from_caf(gone()));
}

template <class T>
std::function<void(result<T>)> guest_data::here(std::function<void(result<T>)> then) {
  return inside_as<guest_actor, result<T>>(self_, std::move(then));
}

/// For an order whose client waits: `then` is also called, with an error, when the monitor goes before it answers.
template <class T>
std::function<void(result<T>)> guest_data::or_gone(std::function<void(result<T>)> then) {
  const auto number = ++asked_;
  unanswered_[number] = [then](error why) { then(tl::make_unexpected(std::move(why))); };
  return [this, number, then](result<T> answer) {
    if (unanswered_.erase(number) != 0)
      then(std::move(answer));
  };
}

void guest_data::drop_monitor() {
  monitor_.reset();
  const error gone{errc::qemu_gone, called() + ": QEMU ended before it answered"};
  for (auto& [number, answer] : std::exchange(unanswered_, {}))
    answer(gone);
  for (auto& promise : std::exchange(suspending_, {}))
    promise.deliver(to_caf(gone));
}

template <class Reply>
void guest_data::ask(command<Reply> what, std::type_identity_t<std::function<void(result<Reply>)>> then) {
  if (!monitor_)
    return then(fail(errc::qemu_gone, called() + " has no monitor connection now"));
  monitor_->execute(what.execute, std::move(what.arguments), around_->qmp_answer,
                    here<nlohmann::json>([this, what = what.execute, read = what.read,
                                          then = std::move(then)](result<nlohmann::json> answer) {
                      if (!answer) {
                        answer.error().detail = called() + ": '" + what + "': " + answer.error().detail;
                        return then(tl::make_unexpected(std::move(answer.error())));
                      }
                      then(read(std::move(*answer)));
                    }));
}

// ---- the life

result<guest_state> guest_data::take(guest_input in) {
  const auto step = find_step(life_, in);
  if (!step)
    return fail(errc::wrong_state, fmt::format("{} is {}, where '{}' has no meaning", called(), to_string(life_),
                                               to_string(in)));
  life_ = step->to;
  perform(step->then);
  return life_;
}

void guest_data::perform(guest_action action) {
  switch (action) {
  case guest_action::prepare:
    return admit();
  case guest_action::cancel:
    cancelled_ = true;
    return;
  case guest_action::launch_qemu:
    return launch();
  case guest_action::set_up:
    return set_up();
  case guest_action::reach_monitor:
    return adopt();
  case guest_action::tell_started:
    return record_started();
  case guest_action::tell:
    return publish();
  case guest_action::quit_qemu:
    return quit_qemu();
  case guest_action::release:
    return release();
  case guest_action::finish:
    return finish();
  case guest_action::none:
    return;
  }
}

// ---- start

/// An error with the guest's name in it.
error guest_data::named(error why) const {
  if (why.detail.find("'" + name_ + "'") == std::string::npos)
    why.detail = called() + ": " + why.detail;
  return why;
}

caf::result<guest_ref> guest_data::start(const start_guest& order) {
  if (life_ != guest_state::shutoff)
    return to_caf({errc::wrong_state, is_live(life_) ? "domain is already running"
                                                     : fmt::format("{} is {}", called(), to_string(life_))});
  const auto& source = order.instead ? order.instead : config_ ? config_ : transient_;
  if (!source)
    return to_caf({errc::wrong_state, called() + " has no definition"});
  stay_paused_ = (order.flags & create_paused) != 0;
  autodestroy_ = (order.flags & create_autodestroy) != 0;
  if (autodestroy_ && order.owner) {
    owner_ = caf::actor_cast<caf::actor_addr>(order.owner);
    self_->monitor(owner_);
  }
  cancelled_ = graceful_ = boot_again_ = false;
  end_ = guest_end::none;
  failure_.reset();
  hold_reason_ = 1;
  live_ = source;
  auto promise = self_->make_response_promise<guest_ref>();
  starting_.push_back(promise);
  take(guest_input::start);
  return promise;
}

void guest_data::refuse(error why) {
  if (!failure_)
    failure_ = named(std::move(why));
  end_ = guest_end::failed;
  take(guest_input::refused);
}

void guest_data::admit() {
  show(shown::paused, 11);
  auto asked = static_cast<unsigned>(display_ports_wanted(*live_));
  self_->request(around_->driver, driver_answer, admit_start{uuid_, asked})
    .then(
      [this](start_permit& permit) {
        id_ = permit.id;
        display_ports_ = std::move(permit.display_ports);
        run_dir_ = around_->paths.guest_run_dir(name_);
        if (!around_->control_groups.empty())
          control_group_ = around_->control_groups + "/" + uuid_;
        publish();
        self_->request(around_->prober, prober_answer, emulator_wanted{live_->devices.emulator})
          .then(
            [this](emulator_facts_ptr& facts) {
              facts_ = std::move(facts);
              find_firmware();
            },
            [this](caf::error& why) { refuse(from_caf(why)); });
      },
      [this](caf::error& why) { refuse(from_caf(why)); });
}

void guest_data::find_firmware() {
  firmware_ = {};
  if (!wants_firmware(*live_))
    return write_intent();
  around_->machine->find_firmware(here<host_firmware>([this](result<host_firmware> found) {
    if (!found)
      return refuse(std::move(found.error()));
    firmware_ = std::move(*found);
    write_intent();
  }));
}

void guest_data::write_intent() {
  auto next = std::make_shared<domain>(*live_);
  // A definition may have been written by hand, or for an emulator of another version.
  auto whole = complete_definition(*next, *facts_, [this] { return around_->machine->random_bytes(); });
  if (!whole) {
    whole.error().detail = called() + ": " + whole.error().detail;
    return refuse(std::move(whole.error()));
  }
  if (wants_firmware(*next))
    if (auto chosen = choose_firmware(*next, std::exchange(firmware_, {}), facts_->arch); !chosen)
      return refuse(std::move(chosen.error()));
  choose_variables(*next, around_->paths.state);
  next->id = id_;
  assign_aliases(*next);
  assign_display_ports(*next, display_ports_, around_->vnc_listen, around_->spice_listen);
  for (auto& each : next->devices.graphics) {
    const auto& usual = each.type == graphics_type::vnc ? around_->vnc_password : around_->spice_password;
    if ((each.type == graphics_type::vnc || each.type == graphics_type::spice) && !each.has_password && !usual.empty()) {
      each.password = usual;
      each.has_password = true;
    }
  }
  live_ = std::move(next);
  commit_row(make_row("starting"), [this](result<done> written) {
    if (!written)
      return refuse(std::move(written.error()));
    find_parts();
  });
}

/// What QEMU opens: what the definition names, and what the headers of its images do.
void guest_data::find_parts() {
  needs_ = needs_of(*live_);
  auto images = chains_of(*live_);
  if (images.empty())
    return secure();
  around_->machine->find_image_parts(std::move(images), here<std::vector<resource>>([this](result<std::vector<resource>> parts) {
                                       if (!parts)
                                         return refuse(std::move(parts.error()));
                                       for (auto& part : *parts)
                                         if (std::ranges::find(needs_, part.path, &resource::path) == needs_.end())
                                           needs_.push_back(std::move(part));
                                       secure();
                                     }));
}

void guest_data::secure() {
  if (cancelled_)
    return refuse({errc::aborted, called() + " was destroyed while it was being started"});
  secure_guest wish{uuid_, name_, {}, true, {}, control_group_};
  wish.labels = labels_wanted(*live_);
  wish.emulated = live_->type == virt_type::qemu;
  if (const auto* label = static_dac_label(*live_)) {
    wish.user = label->label;
    wish.relabel = label->relabel;
  }
  wish.paths = needs_;
  self_->request(around_->security, security_answer, std::move(wish))
    .then(
      [this](guest_identity& who) {
        identity_ = std::move(who);
        make_place();
      },
      [this](caf::error& why) { refuse(from_caf(why)); });
}

void guest_data::make_place() {
  if (cancelled_)
    return refuse({errc::aborted, called() + " was destroyed while it was being started"});
  auto bridges = bridges_wanted(*live_, around_->networks, around_->paths.session);
  if (!bridges)
    return refuse(std::move(bridges.error()));
  host::place_request wish;
  wish.guest = name_;
  wish.run_dir = run_dir_;
  wish.log_file = around_->paths.guest_log(name_);
  wish.change_owner = identity_.change;
  wish.uid = identity_.uid;
  wish.gid = identity_.gid;
  wish.bridges = std::move(*bridges);
  if (const auto* label = identity_.under("selinux")) {
    wish.file_label = label->image;
    wish.socket_label = label->process;
  }
  around_->machine->make_place(std::move(wish),
                               here<std::shared_ptr<host::place>>([this](result<std::shared_ptr<host::place>> made) {
                                 if (!made)
                                   return refuse(std::move(made.error()));
                                 place_ = std::move(*made);
                                 compose();
                               }));
}

void guest_data::compose() {
  if (cancelled_)
    return refuse({errc::aborted, called() + " was destroyed while it was being started"});
  run_settings settings;
  settings.id = id_;
  settings.run_dir = run_dir_;
  settings.state_dir = around_->paths.state;
  settings.monitor_fd = monitor_number;
  settings.networks = around_->networks;
  settings.session = around_->paths.session;
  settings.home = run_dir_;
  settings.sandbox = around_->sandbox;
  settings.name_process = around_->name_process;
  settings.dump_core = around_->dump_core;
  for (std::size_t i = 0; i < place_->taps.size(); ++i)
    settings.tap_fds.push_back(first_tap_number + static_cast<int>(i));
  auto line = qemu_command_line(*live_, *facts_, settings);
  if (!line)
    return refuse(std::move(line.error()));
  auto next = std::make_shared<domain>(*live_);
  name_host_ends(*next, settings, place_->tap_names);
  if (identity_.change)
    show_labels(*next, identity_.labels);
  live_ = std::move(next);

  plan_ = {};
  plan_.argv = std::move(line->argv);
  plan_.env = std::move(line->env);
  if (identity_.change)
    plan_.identity = launch_identity{identity_.uid, identity_.gid, identity_.groups};
  if (const auto* label = identity_.under("selinux")) {
    plan_.selinux_context = label->process;
    plan_.no_new_privs = false;
  }
  if (const auto* label = identity_.under("apparmor"))
    plan_.apparmor_profile = label->process;
  if (!control_group_.empty())
    plan_.control_groups.push_back(control_group_);
  if (around_->keep_capabilities && identity_.change && identity_.uid == 0)
    plan_.capabilities = {launch_plan::all_capabilities};
  plan_.limits = around_->limits;
  if (const auto bytes = locked_memory_of(*live_); bytes && identity_.change)
    plan_.limits.push_back({"memlock", *bytes, *bytes});
  plan_.keep_fds.push_back(monitor_number);
  passed_ = {{place_->listening.get(), monitor_number}, {place_->log.get(), 1}, {place_->log.get(), 2}};
  for (std::size_t i = 0; i < place_->taps.size(); ++i) {
    plan_.keep_fds.push_back(settings.tap_fds[i]);
    passed_.push_back({place_->taps[i].get(), settings.tap_fds[i]});
  }
  auto makes = made_by_qemu(*live_, plan_.argv);
  auto rules = rules_for(makes);
  plan_.filter_calls = around_->filter_calls;
  if (around_->landlock)
    plan_.landlock = landlock_rules({.emulator = plan_.argv.front(),
                                     .run_dir = run_dir_,
                                     .resources = identity_.files.empty() ? needs_ : identity_.files,
                                     .makes = std::move(makes),
                                     .words = live_->qemu.args});
  plan_.banner = shell_line({plan_.env, plan_.argv}) + "\n";
  if (plan_.apparmor_profile.empty())
    return void(take(guest_input::prepared));
  self_->request(around_->security, security_answer, load_guest_profile{uuid_, name_, std::move(rules)})
    .then(
      [this](bool enforced) {
        identity_.enforced = enforced;
        if (cancelled_)
          return refuse({errc::aborted, called() + " was destroyed while it was being started"});
        take(guest_input::prepared);
      },
      [this](caf::error& why) { refuse(from_caf(why)); });
}

/// What the guest's AppArmor profile lets it do.
std::vector<profile_rule> guest_data::rules_for(const std::vector<std::string>& makes) const {
  using access = profile_rule::access;
  std::vector<profile_rule> rules{{access::program, plan_.argv.front()},
                                  {access::tree, run_dir_},
                                  {access::write, around_->paths.guest_log(name_)}};
  for (const auto& file : identity_.files)
    rules.push_back(profile_rule_for(file));
  for (const auto& path : makes) // sockets, files, and directories of huge pages
    rules.push_back({access::tree, path});
  return rules;
}

void guest_data::launch() {
  host::process_events events;
  events.executed = here<done>([this](result<done> went) {
    if (!went)
      failure_ = error{went.error().code, called() + " could not be started: " + went.error().detail};
  });
  events.exited = inside_as<guest_actor, exit_status>(self_, [this](exit_status how) { ended(how); });
  words_from_ = place_->log_start + plan_.banner.size();
  auto started = around_->machine->launch(std::move(plan_), std::move(passed_), std::move(events));
  if (!started) {
    failure_ = named(std::move(started.error()));
    end_ = guest_end::failed;
    take(guest_input::child_exited); // there never was one
    return;
  }
  process_ = std::move(*started);
  qemu_ = process_->id();
  commit_row(make_row("starting"), [this](result<done> written) {
    if (!written)
      return refuse(std::move(written.error()));
    if (process_ && life_ == guest_state::launching)
      process_->go();
  });
  auto connected = connect_monitor();
  place_->listening.reset(); // QEMU's copy is the one that counts
  place_->taps.clear();
  place_->log.reset();
  if (!connected)
    return refuse(std::move(connected.error()));
  const auto which = ++launch_;
  self_->delayed_send(self_, around_->greet_within, completion{[this, which] {
                        if (launch_ == which && life_ == guest_state::launching)
                          refuse({errc::timed_out, fmt::format("{}: QEMU did not greet on its monitor within {} ms",
                                                               called(), around_->greet_within.count())});
                      }});
}

result<void> guest_data::connect_monitor() {
  auto connected = around_->machine->reach_monitor(
    run_dir_ + "/monitor.sock",
    {
      inside_as<guest_actor, const nlohmann::json&>(self_, [this](const nlohmann::json&) { greeted(); }),
      inside_as<guest_actor, qmp_event>(self_, [this](const qmp_event& said) { on_qmp(said); }),
      inside_as<guest_actor, error>(self_, [this](const error& why) { monitor_closed(why); }),
    });
  if (!connected)
    return tl::make_unexpected(std::move(connected.error()));
  monitor_ = std::move(*connected);
  return {};
}

/// Tries to connect to the monitor of a QEMU that runs for as long as it does, less and less often.
void guest_data::keep_connecting(std::chrono::milliseconds after) {
  self_->delayed_send(self_, after, completion{[this, which = launch_, after] {
                        if (launch_ != which || monitor_ || !(is_live(life_) || life_ == guest_state::adopting))
                          return;
                        if (const auto connected = connect_monitor(); !connected) {
                          spdlog::warn("{}: {}", called(), connected.error().message());
                          tell(event::control_error{});
                          keep_connecting(std::min<std::chrono::milliseconds>(2 * after, 30s));
                        }
                      }});
}

void guest_data::greeted() {
  if (life_ == guest_state::launching)
    take(guest_input::greeted);
  else if (life_ == guest_state::adopting || is_live(life_))
    learn_state();
}

/// What the command line cannot say. QEMU answers in order, so the last answer finds the others given.
void guest_data::set_up() {
  const auto must = [this](result<void> went) {
    if (!went && life_ == guest_state::setting_up)
      refuse(std::move(went.error()));
  };
  if (live_->on_reboot == lifecycle_action::destroy)
    ask(shut_down_at_reset(), must);
  for (const auto& each : live_->devices.graphics) {
    if (!each.has_password)
      continue;
    const auto protocol = std::string{word_of(each.type)};
    ask(set_password(protocol, each.password), must);
    if (!each.password_valid_to.empty())
      if (const auto at = seconds_of(each.password_valid_to))
        ask(expire_password(protocol, *at), must);
  }
  ask(query_chardev(), [this](result<std::vector<qemu_chardev>> answer) {
    if (life_ != guest_state::setting_up)
      return;
    if (!answer)
      return refuse(std::move(answer.error()));
    auto next = std::make_shared<domain>(*live_);
    for (const auto& each : *answer)
      if (each.filename.starts_with("pty:"))
        name_pty(*next, each.label, each.filename.substr(4));
    live_ = std::move(next);
    take(guest_input::ready);
  });
}

void guest_data::record_started() {
  show(shown::paused, 11);
  to_boot_ = !stay_paused_;
  commit_row(make_row("running"), [this](result<done> written) {
    if (!is_live(life_))
      return; // ended meanwhile
    if (!written) {
      failure_ = named(std::move(written.error()));
      end_ = guest_end::failed;
      take(guest_input::stop);
      return;
    }
    boot();
  });
}

void guest_data::boot() {
  const auto answer = [this] {
    for (auto& promise : std::exchange(starting_, {}))
      promise.deliver(guest_ref{name_, uuid_, id_});
  };
  if (stay_paused_) {
    tell(event::lifecycle{2, 0});
    if (life_ == guest_state::paused) { // nobody has resumed it yet
      show(shown::paused, 1);
      publish();
      tell(event::lifecycle{3, 0});
    }
    return answer();
  }
  resume_reason_ = 1;
  ask(cont(), [this, answer](result<void> went) {
    if (!went && is_live(life_)) {
      failure_ = std::move(went.error());
      end_ = guest_end::failed;
      take(guest_input::stop);
      return;
    }
    if (!went)
      return; // its end, which is under way, answers
    tell(event::lifecycle{2, 0}); // after QEMU's own 'resumed', as libvirt's clients know it
    answer();
  });
}

// ---- adoption

void guest_data::adopt() {
  id_ = row_->domain_id;
  run_dir_ = row_->run_dir;
  qemu_ = {row_->pid, row_->start_time};
  const auto kept = nlohmann::json::parse(row_->extra, nullptr, false);
  shown_state_ = kept.is_object() ? kept.value("state", int{shown::running}) : int{shown::running};
  shown_reason_ = kept.is_object() ? kept.value("reason", 0) : 0;
  if (kept.is_object()) {
    identity_.label = kept.value("label", "");
    identity_.labels = labels_of(*row_);
    identity_.enforced = kept.value("enforced", false);
    control_group_ = kept.value("control_group", "");
    display_ports_ = kept.value("ports", std::vector<int>{});
    boot_again_ = kept.value("boot_again", false);
    to_boot_ = kept.value("to_boot", false);
  }
  if (auto parsed = read_domain(row_->live_xml))
    live_ = std::make_shared<domain>(std::move(*parsed));
  else
    spdlog::error("{}: what the ledger holds of it cannot be read: {}", called(), parsed.error().message());
  if (!row_->persistent && !transient_)
    transient_ = live_;
  const auto not_there = [this] {
    end_ = row_->phase == "starting" ? guest_end::failed : guest_end::lost;
    take(guest_input::child_exited);
  };
  publish();
  if (row_->pid == 0 || row_->boot_id != around_->boot_id)
    return not_there();
  auto watched = around_->machine->adopt(
    qemu_, inside_as<guest_actor, exit_status>(self_, [this](exit_status how) { ended(how); }));
  if (!watched)
    return not_there();
  process_ = std::move(*watched);
  if (row_->phase != "running" || !live_) {
    // Its start, or its stop, was cut short: nobody was told that it runs.
    end_ = row_->phase == "stopping" ? guest_end::destroyed : guest_end::failed;
    show(shown::shutting_down, 0);
    publish();
    take(guest_input::refused);
    return;
  }
  if (const auto connected = connect_monitor(); !connected) {
    spdlog::error("{}: its QEMU (pid {}) runs, but its monitor cannot be reached: {}", called(), qemu_.pid,
                  connected.error().message());
    tell(event::control_error{});
    keep_connecting(250ms);
  }
}

void guest_data::learn_state() {
  ask(query_status(), [this](result<qemu_status> answer) {
    const bool adopting = life_ == guest_state::adopting;
    if (!answer && adopting && monitor_) // it hangs for now
      self_->delayed_send(self_, 1s, completion{[this, which = launch_] {
                            if (launch_ == which && life_ == guest_state::adopting && monitor_)
                              learn_state();
                          }});
    if (!answer || !live_)
      return;
    if (answer->running) {
      if (shown_state_ != shown::running)
        show(shown::running, 5);
      take(adopting ? guest_input::adopted_running : guest_input::resumed);
      publish();
      booted();
    } else {
      const bool was_running = shown_state_ == shown::running;
      if (answer->status == "shutdown") {
        take(adopting ? guest_input::adopted_paused : guest_input::held);
        return on_powered_off(true);
      }
      if (was_running || shown_state_ != shown::paused)
        show(answer->status == "guest-panicked" ? shown::crashed : shown::paused,
             answer->status == "io-error" ? 5 : answer->status == "watchdog" ? 6 : 0);
      take(adopting ? guest_input::adopted_paused : guest_input::held);
      if (was_running)
        tell(event::lifecycle{3, answer->status == "io-error" ? 2 : 0});
      publish();
      if (to_boot_) // its start was cut short before the last step
        boot();
    }
  });
  ask(query_balloon(), [this](result<std::uint64_t> answer) {
    if (answer)
      on_balloon(*answer);
  });
}

void guest_data::monitor_closed(const error& why) {
  monitor_.reset();
  if (life_ == guest_state::launching || life_ == guest_state::setting_up) {
    // Its death, if that is the cause, says more: give it a moment to show.
    const auto which = launch_;
    self_->delayed_send(self_, 500ms, completion{[this, which, why] {
                          if (launch_ == which
                              && (life_ == guest_state::launching || life_ == guest_state::setting_up))
                            refuse({errc::qemu_gone, called() + ": its monitor failed: " + why.detail});
                        }});
    return;
  }
  if (!is_live(life_) && life_ != guest_state::adopting)
    return;
  spdlog::warn("{}: its monitor connection ended ({}); connecting anew", called(), why.detail);
  keep_connecting(250ms);
}

// ---- the end

caf::result<done> guest_data::destroy(const destroy_guest& order) {
  if (life_ == guest_state::shutoff)
    return to_caf({errc::wrong_state, "domain is not running"});
  auto promise = self_->make_response_promise<done>();
  stopping_.push_back(promise);
  graceful_ = (order.flags & destroy_graceful) != 0;
  if (life_ == guest_state::releasing)
    return promise;
  if (end_ == guest_end::none || life_ == guest_state::preparing)
    end_ = guest_end::destroyed;
  if (!failure_)
    failure_ = error{errc::aborted, called() + " was destroyed while it was being started"};
  if (life_ == guest_state::stopping)
    limit_stop(); // an earlier one may have been of another mind
  take(guest_input::stop);
  return promise;
}

void guest_data::quit_qemu() {
  if (!process_) {
    take(guest_input::child_exited);
    return;
  }
  // A daemon that finds the row knows that the guest was meant to end. Even a disk that hangs only delays the end.
  commit_row(make_row("stopping"), [this, which = launch_](result<done>) {
    if (launch_ == which && life_ == guest_state::stopping && process_)
      process_->signal(SIGTERM);
  });
  limit_stop();
}

/// What follows when SIGTERM does not help: SIGKILL, or bad news for who wants none.
void guest_data::limit_stop() {
  const auto kill = [this, which = launch_] {
    if (launch_ == which && life_ == guest_state::stopping && process_)
      process_->signal(SIGKILL);
  };
  const auto complain = [this, which = launch_] {
    if (launch_ != which || life_ != guest_state::stopping)
      return;
    for (auto& promise : std::exchange(stopping_, {}))
      promise.deliver(to_caf({errc::busy, fmt::format("{}: QEMU (pid {}) has not ended within {} s of SIGTERM", called(),
                                                      qemu_.pid, graceful_limit.count())}));
  };
  if (graceful_)
    self_->delayed_send(self_, graceful_limit, completion{complain});
  else
    self_->delayed_send(self_, around_->kill_after, completion{kill});
}

void guest_data::ended(exit_status how) {
  process_.reset();
  drop_monitor();
  if (end_ == guest_end::none)
    end_ = how.known && how.signal == 0 && how.code == 0 ? guest_end::shut_down : guest_end::crashed;
  if (!starting_.empty() && place_) {
    // It died while it was being started: its own last words are the reason.
    around_->machine->read_log(around_->paths.guest_log(name_), words_from_,
                               here<std::string>([this, how](result<std::string> words) {
                                 auto how_text = how.signal ? fmt::format("was killed by signal {}", how.signal)
                                                            : fmt::format("exited with status {}", how.code);
                                 auto said = words ? *words : std::string{};
                                 if (!failure_ || failure_->code == errc::qemu_gone || !said.empty())
                                   failure_ = error{failure_ ? failure_->code : errc::qemu_gone,
                                                    fmt::format("{}{}{}", failure_ ? failure_->detail + ": " : std::string{},
                                                                failure_ ? "" : called() + ": ",
                                                                fmt::format("QEMU {} during its start: {}", how_text,
                                                                            said.empty() ? "it wrote nothing to its log" : said))};
                                 end_ = end_ == guest_end::destroyed ? end_ : guest_end::failed;
                                 take(guest_input::child_exited);
                               }));
    return;
  }
  take(guest_input::child_exited);
}

void guest_data::release() {
  process_.reset();
  drop_monitor();
  const auto settle = [this] {
    around_->machine->remove_place(run_dir_, here<done>([this](result<done> removed) {
      if (!removed)
        spdlog::warn("{}: {}", called(), removed.error().message());
      ledger_batch forget;
      forget.drop_guests.push_back(uuid_);
      around_->machine->commit(std::move(forget), here<done>([this](result<done> written) {
        if (!written)
          spdlog::error("{}: the ledger still holds it as running: {}", called(), written.error().message());
        take(guest_input::released);
      }));
    }));
  };
  self_->request(around_->security, security_answer, release_guest{uuid_, control_group_})
    .then([settle](done) { settle(); },
          [this, settle](caf::error& why) {
            spdlog::error("{}: its files were not all given back: {}", called(), from_caf(why).message());
            settle();
          });
}

void guest_data::finish() {
  const auto row = end_rows[static_cast<std::size_t>(end_)];
  const bool was_seen = starting_.empty() && end_ != guest_end::failed; // clients saw it run
  id_ = -1;
  ++launch_;
  live_.reset();
  written_.reset();
  row_.reset();
  place_.reset();
  passed_.clear();
  qemu_ = {};
  balloon_kib_ = 0;
  display_ports_.clear();
  identity_ = {};
  run_dir_.clear();
  control_group_.clear();
  consoles_.clear();
  show(shown::shutoff, row.shutoff_reason);
  if (was_seen)
    tell(event::lifecycle{5, row.stopped_detail});
  publish();
  auto why = failure_.value_or(error{errc::operation_failed, called() + " could not be started"});
  for (auto& promise : std::exchange(starting_, {}))
    promise.deliver(to_caf(why));
  for (auto& promise : std::exchange(stopping_, {}))
    promise.deliver(done{});
}

// ---- orders to a live guest

result<void> guest_data::must_be_live() const {
  if (is_live(life_))
    return {};
  if (life_ == guest_state::shutoff)
    return fail(errc::wrong_state, "domain is not running");
  return fail(errc::wrong_state, fmt::format("{} is {}", called(), to_string(life_)));
}

void guest_data::order(command<void> what, caf::typed_response_promise<done> then) {
  ask(std::move(what), or_gone<void>([then](result<void> went) mutable {
        if (went)
          then.deliver(done{});
        else
          then.deliver(to_caf(std::move(went.error())));
      }));
}

caf::result<done> guest_data::shutdown(std::uint32_t flags, bool then_boot_again) {
  constexpr std::uint32_t acpi = 1, agent = 2, initctl = 4, signal = 8;
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  if ((flags & ~(acpi | agent | initctl | signal | 16u)) != 0)
    return to_caf({errc::bad_argument, fmt::format("unsupported flags ({:#x}) for {}", flags, called())});
  if (flags != 0 && (flags & acpi) == 0)
    return to_caf({errc::unsupported_argument, called() + " can be asked by ACPI only: use --mode acpi"});
  boot_again_ = then_boot_again;
  commit_row(make_row("running"), [](result<done>) {});
  auto promise = self_->make_response_promise<done>();
  order(system_powerdown(), promise);
  return promise;
}

caf::result<done> guest_data::reset() {
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  auto promise = self_->make_response_promise<done>();
  order(system_reset(), promise);
  return promise;
}

caf::result<done> guest_data::suspend() {
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  if (shown_state_ == shown::pm_suspended)
    return to_caf({errc::wrong_state, "domain is pmsuspended"});
  if (life_ == guest_state::paused && !to_boot_)
    return done{};
  hold_reason_ = 1;
  auto promise = self_->make_response_promise<done>();
  if (to_boot_)
    suspending_.push_back(promise);
  else
    order(stop(), promise);
  return promise;
}

caf::result<done> guest_data::resume() {
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  if (shown_state_ == shown::pm_suspended)
    return to_caf({errc::wrong_state, "domain is pmsuspended"});
  if (shown_state_ == shown::crashed)
    return to_caf({errc::wrong_state, called() + " has crashed: reset or destroy it"});
  if (life_ == guest_state::running)
    return to_caf({errc::wrong_state, "domain is already running"});
  resume_reason_ = 5;
  auto promise = self_->make_response_promise<done>();
  order(cont(), promise);
  return promise;
}

caf::result<std::string> guest_data::command_monitor(const monitor_command& order) {
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  if (!monitor_)
    return to_caf({errc::qemu_gone, called() + " has no monitor connection now"});
  auto promise = self_->make_response_promise<std::string>();
  auto answer = or_gone<std::string>([promise](result<std::string> text) mutable {
    if (text)
      promise.deliver(std::move(*text));
    else
      promise.deliver(to_caf(std::move(text.error())));
  });
  if (order.human)
    ask(human_monitor_command(order.text), answer);
  else
    monitor_->execute_raw(order.text, around_->qmp_answer, here<std::string>(answer));
  return promise;
}

// ---- definition

caf::result<done> guest_data::change_config(std::shared_ptr<const domain> config) {
  config_ = std::move(config);
  publish();
  return done{};
}

caf::result<done> guest_data::forget_config() {
  config_.reset();
  transient_ = live_;
  autostart_ = false;
  if (row_ && life_ != guest_state::releasing) // else the row is on its way out
    commit_row(make_row(row_->phase), [](result<done>) {});
  publish();
  return done{};
}

void guest_data::set_autostart_mark(bool on) {
  autostart_ = on;
  publish();
}

caf::result<done> guest_data::change_metadata(const set_metadata& order) {
  constexpr std::uint32_t affect_live = 1, affect_config = 2;
  const bool active = is_active(life_);
  const bool on_live = (order.flags & affect_live) != 0 || (order.flags == 0 && active);
  const bool on_config = (order.flags & affect_config) != 0 || (order.flags == 0 && !active);
  if (on_live && !active)
    return to_caf({errc::wrong_state, "domain is not running"});
  if (on_config && !config_)
    return to_caf({errc::wrong_state, called() + " is transient and has no persistent definition"});
  const auto changed = [&](const std::shared_ptr<const domain>& old) -> result<std::shared_ptr<const domain>> {
    auto next = std::make_shared<domain>(*old);
    auto went = troupe::set_metadata_of(*next, order.type, order.remove ? nullptr : &order.text, order.key, order.uri);
    if (!went)
      return tl::make_unexpected(went.error());
    return next;
  };
  if (on_live) {
    auto next = changed(live_);
    if (!next)
      return to_caf(next.error());
    live_ = std::move(*next);
    if (row_ && life_ != guest_state::releasing)
      commit_row(make_row(row_->phase), [](result<done>) {});
  }
  const event::metadata_change what{order.type, order.uri};
  if (!on_config) {
    publish();
    tell(what);
    return done{};
  }
  auto next = changed(config_);
  if (!next)
    return to_caf(next.error());
  auto promise = self_->make_response_promise<done>();
  self_->request(around_->driver, 2 * driver_answer, save_config{uuid_, *next})
    .then(
      [this, promise, next = *next, what](done) mutable {
        config_ = next;
        publish();
        tell(what);
        promise.deliver(done{});
      },
      [promise](caf::error& why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

// ---- consoles

caf::result<console_place> guest_data::console(const open_console& order) {
  constexpr std::uint32_t force = 1;
  if (auto live = must_be_live(); !live)
    return to_caf(live.error());
  auto found = console_of(*live_, order.device);
  if (!found)
    return to_caf(found.error());
  const auto taken = consoles_.find(found->path);
  if (taken != consoles_.end() && (order.flags & force) == 0)
    return to_caf({errc::operation_failed, "Active console session exists for this domain"});
  if (taken != consoles_.end())
    caf::anon_send(caf::actor_cast<caf::actor>(taken->second), close_console{found->path});
  consoles_[found->path] = order.user;
  if (order.user)
    self_->monitor(caf::actor_cast<caf::actor_addr>(order.user)); // one that dies has let go
  return console_place{found->path, found->socket};
}

void guest_data::console_closed(const std::string& path) {
  consoles_.erase(path);
}

void guest_data::client_gone(const caf::actor_addr& who) {
  std::erase_if(consoles_, [&](const auto& each) { return each.second && each.second->address() == who; });
  if (!autodestroy_ || who != owner_ || life_ == guest_state::shutoff)
    return;
  end_ = guest_end::destroyed;
  take(guest_input::stop);
}

// ---- what QEMU says

void guest_data::on_held() {
  if (!take(guest_input::held))
    return;
  // QEMU stops a guest that powered off or panicked too; those say themselves what clients see.
  if (shown_state_ == shown::shutting_down || shown_state_ == shown::crashed)
    return;
  const auto reason = std::exchange(hold_reason_, 1);
  show(shown::paused, reason);
  publish();
  tell(event::lifecycle{3, reason == 5 ? 2 : reason == 6 ? 3 : 0});
}

void guest_data::on_resumed() {
  if (life_ != guest_state::paused)
    return;
  show(shown::running, std::exchange(resume_reason_, 5));
  take(guest_input::resumed);
  tell(event::lifecycle{4, 0});
  booted();
}

/// Its first instruction has run: those who asked before that for it to be held are heeded now.
void guest_data::booted() {
  to_boot_ = false;
  for (auto& promise : std::exchange(suspending_, {}))
    order(stop(), std::move(promise));
}

void guest_data::on_powered_off(bool by_guest) {
  if (!is_live(life_))
    return; // it was told to end
  const bool again = std::exchange(boot_again_, false) || (by_guest && live_ && restarts_on_poweroff(*live_));
  if (again) {
    ask(system_reset(), [this](result<void> went) {
      if (!went) {
        spdlog::error("{}: it powered off to be booted again, but {}", called(), went.error().message());
        return;
      }
      resume_reason_ = 1;
      ask(cont(), [](result<void>) {});
    });
    return;
  }
  show(shown::shutting_down, by_guest ? 1 : 0);
  publish();
  tell(event::lifecycle{6, by_guest ? 1 : 2});
  end_ = by_guest ? guest_end::shut_down : guest_end::destroyed;
  take(guest_input::stop);
}

void guest_data::on_panicked() {
  show(shown::crashed, 1);
  publish();
  tell(event::lifecycle{8, 0});
  switch (live_ ? on_crash_of(*live_) : crash_action::destroy) {
  case crash_action::preserve:
    return;
  case crash_action::restart:
    ask(system_reset(), [this](result<void>) {
      resume_reason_ = 9;
      ask(cont(), [](result<void>) {});
    });
    return;
  case crash_action::destroy:
    end_ = guest_end::crashed;
    take(guest_input::stop);
    return;
  }
}

void guest_data::on_reset() {
  if (!is_live(life_))
    return;
  if (shown_state_ == shown::crashed || shown_state_ == shown::pm_suspended) {
    show(life_ == guest_state::running ? shown::running : shown::paused, life_ == guest_state::running ? 1 : 0);
    publish();
  }
  tell(event::reboot{});
}

void guest_data::on_suspended_to_ram() {
  show(shown::pm_suspended, 0);
  publish();
  tell(event::pm_suspend{});
  tell(event::lifecycle{7, 0});
}

void guest_data::on_woken() {
  show(life_ == guest_state::running ? shown::running : shown::paused, life_ == guest_state::running ? 8 : 0);
  publish();
  tell(event::pm_wakeup{});
  tell(event::lifecycle{2, 4});
}

void guest_data::on_balloon(std::uint64_t bytes) {
  balloon_kib_ = bytes / 1024;
  publish();
}

// ---- showing

void guest_data::tell(event_body what) {
  auto happened = std::make_shared<guest_event>();
  happened->guest = {name_, uuid_, id_};
  happened->what = std::move(what);
  self_->send(around_->events, publish_event{std::move(happened)});
}

void guest_data::show(int state, int reason) {
  shown_state_ = state;
  shown_reason_ = reason;
}

void guest_data::publish() {
  keep_shown();
  send_view();
}

void guest_data::send_view() {
  auto view = std::make_shared<guest_view>();
  view->ref = {name_, uuid_, id_};
  view->life = life_;
  view->state = shown_state_;
  view->reason = shown_reason_;
  view->persistent = config_ != nullptr;
  view->autostart = autostart_;
  view->config = config_;
  view->live = is_active(life_) ? live_ : nullptr;
  if (const auto& shape = view->live ? view->live : config_ ? config_ : transient_) {
    view->max_memory_kib = max_memory_kib_of(*shape);
    view->memory_kib = balloon_kib_ != 0 ? balloon_kib_ : current_memory_kib_of(*shape);
    view->vcpus = vcpus_of(*shape);
  }
  view->pid = qemu_.pid;
  view->labels = identity_.labels;
  view->enforced = identity_.enforced;
  view->row = row_;
  view->as_of = std::chrono::steady_clock::now();
  self_->send(around_->driver, view_changed{std::move(view)});
}

/// Writes down what clients see now: the next daemon shows the same.
void guest_data::keep_shown() {
  if (!row_ || row_->phase != "running" || !is_live(life_))
    return;
  auto now = make_row("running");
  if (*now == *row_)
    return;
  commit_row(std::move(now), [this](result<done> written) {
    if (!written)
      spdlog::error("{}: the ledger does not know its state: {}", called(), written.error().message());
  });
}

std::shared_ptr<guest_row> guest_data::make_row(std::string phase) const {
  auto row = std::make_shared<guest_row>();
  row->uuid = uuid_;
  row->name = name_;
  row->domain_id = id_;
  row->phase = std::move(phase);
  row->pid = qemu_.pid;
  row->start_time = qemu_.start_time;
  row->boot_id = around_->boot_id;
  row->run_dir = run_dir_;
  if (live_ && live_ == written_ && row_)
    row->live_xml = row_->live_xml;
  else if (live_)
    row->live_xml = write_domain(*live_, {.secure = true});
  row->persistent = config_ != nullptr;
  row->extra = nlohmann::json{{"state", shown_state_},
                              {"reason", shown_reason_},
                              {"label", identity_.label},
                              {"labels", to_text(identity_.labels)},
                              {"enforced", identity_.enforced},
                              {"control_group", control_group_},
                              {"ports", display_ports_},
                              {"boot_again", boot_again_},
                              {"to_boot", to_boot_}}
                 .dump();
  return row;
}

void guest_data::commit_row(std::shared_ptr<const guest_row> row, std::function<void(result<done>)> then) {
  row_ = row;
  written_ = live_;
  send_view(); // a new actor would go on from this row
  ledger_batch batch;
  batch.put_guests.push_back(*row);
  around_->machine->commit(std::move(batch), here<done>(std::move(then)));
}

// ---- the actor

namespace {

guest_actor::behavior_type guest(guest_actor::stateful_pointer<guest_data> self, guest_setup setup) {
  self->set_down_handler([self](const caf::down_msg& gone) { self->state.client_gone(gone.source); });
  self->state.begin(self, std::move(setup));
  return {
    [self](const start_guest& x) { return self->state.start(x); },
    [self](const destroy_guest& x) { return self->state.destroy(x); },
    [self](const shutdown_guest& x) { return self->state.shutdown(x.flags, false); },
    [self](const reboot_guest& x) { return self->state.shutdown(x.flags, true); },
    [self](const reset_guest&) { return self->state.reset(); },
    [self](const suspend_guest&) { return self->state.suspend(); },
    [self](const resume_guest&) { return self->state.resume(); },
    [self](const monitor_command& x) { return self->state.command_monitor(x); },
    [self](const set_config& x) { return self->state.change_config(x.config); },
    [self](const drop_config&) { return self->state.forget_config(); },
    [self](const mark_autostart& x) {
      self->state.set_autostart_mark(x.on);
      return done{};
    },
    [self](const set_metadata& x) { return self->state.change_metadata(x); },
    [self](const open_console& x) { return self->state.console(x); },
    [self](const close_console& x) { self->state.console_closed(x.path); },
    [](const completion& x) { x.run(); },
  };
}

} // namespace

guest_actor spawn_guest(caf::actor_system& system, guest_setup setup) {
  return system.spawn(guest, std::move(setup));
}

} // namespace troupe
