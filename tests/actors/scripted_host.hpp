#pragma once

#include "actors/host.hpp"
#include "actors/label_desk.hpp"

#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <random>
#include <set>

// A machine in memory: files with owners, processes, a disk with definitions and a ledger, and a QEMU that behaves as a
// script says. The machine outlives the daemons that use it, so a test can kill one and start the next.

namespace troupe::sim {

using namespace std::chrono_literals;
using moment = std::chrono::nanoseconds; ///< Since the machine was made.
using nlohmann::json;

/// How one fake QEMU behaves.
struct qemu_script {
  enum class greeting { prompt, never, garbage };

  std::string exec_error;    ///< Not empty: the launcher says this and ends.
  bool dies_at_once = false; ///< Before it listens to its monitor.
  int exit_code = 1;
  int exit_signal = 0;
  std::string last_words; ///< In its log, when it dies by itself.
  greeting greets = greeting::prompt;
  moment greets_after = 5ms;
  moment answers_after = 1ms;
  bool out_of_order = false;         ///< Every second answer comes late.
  std::set<std::string> refuses;     ///< Commands it answers with an error.
  std::set<std::string> ignores;     ///< Commands it never answers.
  std::set<std::string> dies_of;     ///< Commands that end it.
  std::set<std::string> hangs_up_at; ///< Commands at which it closes the connection, once.
  std::map<std::string, json> says;  ///< Answers beyond those it knows.
  bool ignores_sigterm = false;
  bool ignores_powerdown = false;
};

class scripted_host;
class machine;

/// What is done to files of the real machine, in place of made-up ones.
struct file_work {
  std::function<result<file_record>(const std::string& path, const std::vector<std::string>& models)> observe;
  std::function<result<void>(const file_taking&)> take, give_back;
};

/// A connection to a fake QEMU's monitor.
struct monitor_line {
  qmp_monitor::callbacks calls;
  bool held = true; ///< Our end.
  bool closed = false;
  bool greeted = false;
  struct command {
    std::string name;
    json arguments;
    std::function<void(result<json>)> then;
  };
  std::vector<command> waiting; ///< For the greeting.
  std::map<std::uint64_t, command> unanswered;
  std::uint64_t next = 0;
  moment last{}; ///< What was said is heard in order.
};

/// A process: the launcher, and the QEMU it becomes.
struct fake_qemu {
  enum class stage { waiting, going, running, dead };

  process_id id;
  std::string guest, run_dir;
  launch_plan plan;
  qemu_script script;
  stage is = stage::waiting;
  std::string status = "prelaunch";
  std::shared_ptr<monitor_line> line;
  std::function<void(result<done>)> executed;
  std::function<void(exit_status)> exited; ///< Whoever watches it now.
  bool ours = true;                        ///< The daemon that runs is its parent.

  bool alive() const { return is != stage::dead; }
};

/// A kernel that confines by this model, with the policy of Debian 12.
inline confinement_model model_of(confinement_model::kind what) {
  confinement_model model;
  model.what = what;
  model.selinux.contexts =
    selinux_contexts_from("system_u:system_r:svirt_t:s0\n",
                          "system_u:object_r:svirt_image_t:s0\nsystem_u:object_r:virt_content_t:s0\n").value();
  return model;
}

struct fake_file {
  std::map<std::string, std::string> labels; ///< by security model
  std::uint64_t inode = 0;
  bool operator==(const fake_file&) const = default;
};

/// The machine. Its events happen one at a time, each at its moment.
class machine {
public:
  explicit machine(std::uint64_t wanted_seed = 0) : seed{wanted_seed}, draw{wanted_seed} {}

  std::uint64_t seed; ///< 0: everything takes the same time, in order.
  std::mt19937_64 draw;
  moment now{};

  std::string boot = "b007";
  std::optional<file_work> real_files; ///< Then `files` are not used.

  // What survives a daemon.
  std::map<std::string, fake_file> files;
  std::map<std::string, fake_file> first_owners; ///< As `add_file` made them.
  std::map<std::string, std::uint64_t> held_by_others; ///< Files that another supervisor's guests use, as it notes there.
  std::map<std::string, std::string> backing; ///< What an image's header names.
  std::map<std::string, std::string> run_dirs;   ///< path to guest
  std::set<std::string> control_groups;
  confinement_model model{}; ///< The kernel's.
  std::map<std::string, std::vector<profile_rule>> profiles; ///< AppArmor's, as they are loaded
  std::map<int, std::shared_ptr<fake_qemu>> processes;
  std::map<std::string, std::string> logs;
  std::map<std::string, std::string> definitions;
  std::set<std::string> autostarts;
  std::map<std::string, guest_row> rows;
  std::vector<file_row> file_rows;
  std::map<std::string, std::string> values;
  std::vector<event_row> events;
  host_firmware firmware;
  std::map<std::string, std::string> facts; ///< Of each emulator; empty: not known.
  std::map<std::string, std::string> builds; ///< What tells an emulator that was replaced from the one before.
  std::map<std::string, std::string> cached; ///< Of emulators that were replaced, by name and build.
  bool kvm_opens = false; ///< /dev/kvm, for the daemon.

  // What tests look at and script.
  std::function<qemu_script(const std::string& guest)> script = [](const std::string&) { return qemu_script{}; };
  /// An error that a host call answers instead of doing anything. `about`: a guest, a path or a kind of row.
  std::function<std::optional<error>(std::string_view call, const std::string& about)> fault;
  /// Whether a host call hangs for ever.
  std::function<bool(std::string_view call, const std::string& about)> stuck;
  std::vector<std::string> violations; ///< Changes of the world that the ledger did not know of.
  std::vector<std::string> trace;      ///< What was done, in order.

  void add_file(const std::string& path, uid_t uid, gid_t gid) {
    files[path] = first_owners[path] = {
      {{"dac", owner_label(uid, gid)}, {"selinux", "system_u:object_r:before_t:s0"}}, files.size() + 100};
  }

  /// How long something takes.
  moment some_time(moment usual) {
    return seed == 0 ? usual
                     : moment{static_cast<moment::rep>(draw() % static_cast<std::uint64_t>(2 * usual.count() + 1))};
  }

  void at(moment when, std::function<void()> what) { queue_.emplace(when, std::move(what)); }
  void after(moment delay, std::function<void()> what) { at(now + delay, std::move(what)); }

  std::optional<moment> next_event() const {
    return queue_.empty() ? std::nullopt : std::optional{queue_.begin()->first};
  }
  std::size_t due_events() const {
    return static_cast<std::size_t>(std::distance(queue_.begin(), queue_.upper_bound(now)));
  }
  /// Lets the first event that is due happen. Those of one moment happen in the order they were planned.
  void run_event() {
    auto first = queue_.extract(queue_.begin());
    first.mapped()();
  }

  std::shared_ptr<fake_qemu> process_at(pid_t pid) const {
    const auto it = processes.find(pid);
    return it == processes.end() ? nullptr : it->second;
  }
  std::vector<std::shared_ptr<fake_qemu>> alive() const {
    std::vector<std::shared_ptr<fake_qemu>> out;
    for (const auto& [pid, each] : processes)
      if (each->alive())
        out.push_back(each);
    return out;
  }
  std::shared_ptr<fake_qemu> qemu_of(const std::string& guest) const {
    for (const auto& each : alive())
      if (each->guest == guest)
        return each;
    return nullptr;
  }

  /// The daemon is gone: what its processes had of it closes, and a launcher that was not let go ends.
  void daemon_died() {
    for (const auto& [pid, each] : processes) {
      each->executed = nullptr;
      each->exited = nullptr;
      each->ours = false;
      if (each->line)
        each->line->held = false;
      each->line.reset();
      if (each->is == fake_qemu::stage::waiting)
        each->is = fake_qemu::stage::dead;
    }
  }

  // ---- what a fake QEMU does

  void hang_up(const std::shared_ptr<fake_qemu>& who, std::string why) {
    if (!who->line)
      return;
    auto line = std::exchange(who->line, nullptr);
    line->closed = true;
    say(line, [line, why] {
      for (auto& each : line->waiting)
        line->unanswered.emplace(line->next++, std::move(each));
      for (auto& [number, each] : std::exchange(line->unanswered, {}))
        if (line->held)
          each.then(fail(errc::qemu_gone, fmt::format("'{}' is unanswered: {}", each.name, why)));
      if (line->held && line->calls.closed)
        line->calls.closed({errc::qemu_gone, why});
    });
  }

  void die(const std::shared_ptr<fake_qemu>& who, int code, int signal) {
    if (!who->alive())
      return;
    who->is = fake_qemu::stage::dead;
    hang_up(who, "QEMU closed its monitor");
    const exit_status how{who->ours, who->ours ? code : 0, who->ours ? signal : 0};
    after(some_time(1ms), [who, how] {
      if (who->exited)
        std::exchange(who->exited, nullptr)(how);
    });
  }

  /// It ends by itself and says why in its log.
  void die_of_itself(const std::shared_ptr<fake_qemu>& who) {
    if (!who->alive())
      return;
    logs[who->guest] += who->script.last_words;
    die(who, who->script.exit_code, who->script.exit_signal);
  }

  void tell(const std::shared_ptr<fake_qemu>& who, std::string name, json data = nullptr) {
    if (const auto line = who->line)
      say(line, [line, name = std::move(name), data = std::move(data)] {
        if (line->held && line->greeted)
          line->calls.event({name, data, 0, 0});
      });
  }

  void power_off(const std::shared_ptr<fake_qemu>& who) {
    if (who->is != fake_qemu::stage::running || who->status != "running")
      return;
    who->status = "shutdown";
    tell(who, "SHUTDOWN", {{"guest", true}, {"reason", "guest-shutdown"}});
    tell(who, "STOP");
  }

  void signalled(const std::shared_ptr<fake_qemu>& who, int number) {
    after(some_time(2ms), [this, who, number] {
      if (!who->alive() || (number != SIGKILL && who->script.ignores_sigterm && who->is == fake_qemu::stage::running))
        return;
      const bool polite = number != SIGKILL && who->is == fake_qemu::stage::running;
      if (polite)
        tell(who, "SHUTDOWN", {{"guest", false}, {"reason", "host-signal"}});
      die(who, 0, polite ? 0 : number);
    });
  }

  /// The launcher has its plan: nothing of this needs the daemon any more.
  void go(const std::shared_ptr<fake_qemu>& who) {
    if (who->is != fake_qemu::stage::waiting)
      return;
    who->is = fake_qemu::stage::going;
    after(some_time(3ms), [this, who] {
      if (!who->alive())
        return;
      if (!who->script.exec_error.empty()) {
        if (who->executed)
          who->executed(fail(errc::operation_failed, who->script.exec_error));
        who->script.exit_code = 1;
        who->script.last_words.clear();
        return die_of_itself(who);
      }
      who->is = fake_qemu::stage::running;
      logs[who->guest] += who->plan.banner;
      if (who->executed)
        who->executed(done{});
      if (who->script.dies_at_once)
        return die_of_itself(who);
      if (who->line)
        greet(who);
    });
  }

  void greet(const std::shared_ptr<fake_qemu>& who) {
    if (who->is != fake_qemu::stage::running)
      return; // it does when it is QEMU
    const auto line = who->line;
    if (who->script.greets == qemu_script::greeting::never)
      return;
    after(some_time(who->script.greets_after), [this, who, line] {
      if (who->line != line || !who->alive())
        return;
      if (who->script.greets == qemu_script::greeting::garbage)
        return hang_up(who, "QEMU sent what is no QMP: 'qemu: hello'");
      say(line, [this, who, line] {
        if (line->closed)
          return;
        line->greeted = true;
        if (line->held)
          line->calls.greeted(json::object());
        for (auto& each : std::exchange(line->waiting, {}))
          take(who, line, std::move(each));
      });
    });
  }

  void take(const std::shared_ptr<fake_qemu>& who, const std::shared_ptr<monitor_line>& line,
            monitor_line::command what) {
    const auto number = line->next++;
    const auto name = what.name;
    line->unanswered.emplace(number, std::move(what));
    auto delay = some_time(who->script.answers_after);
    if (who->script.out_of_order && number % 2 == 0)
      delay += 20ms;
    after(delay, [this, who, line, number, name] {
      if (who->line != line || !who->alive())
        return;
      trace.push_back(fmt::format("qemu {} {}", who->guest, name));
      if (who->script.dies_of.contains(name))
        return die_of_itself(who);
      if (who->script.hangs_up_at.erase(name) != 0)
        return hang_up(who, "QEMU closed its monitor");
      if (who->script.ignores.contains(name))
        return;
      auto answer = obey(who, name);
      say(line, [line, number, answer = std::move(answer)]() mutable {
        auto command = line->unanswered.extract(number);
        if (command && line->held)
          command.mapped().then(std::move(answer));
      });
    });
  }

private:
  /// What a line carries is heard in the order it was said.
  void say(const std::shared_ptr<monitor_line>& line, std::function<void()> heard) {
    line->last = std::max(line->last, now + some_time(500us));
    at(line->last, std::move(heard));
  }

  result<json> obey(const std::shared_ptr<fake_qemu>& who, const std::string& name) {
    if (who->script.refuses.contains(name))
      return fail(errc::operation_failed, fmt::format("QEMU command '{}': no (GenericError)", name));
    if (const auto it = who->script.says.find(name); it != who->script.says.end())
      return it->second;
    if (name == "query-chardev")
      return json::array();
    if (name == "query-status")
      return json{{"running", who->status == "running"}, {"status", who->status}};
    if (name == "query-balloon")
      return fail(errc::operation_failed, "QEMU command 'query-balloon': no balloon (DeviceNotActive)");
    if (name == "cont") {
      if (who->status == "shutdown")
        return fail(errc::operation_failed,
                    "QEMU command 'cont': Resetting the Virtual Machine is required (GenericError)");
      if (std::exchange(who->status, "running") != "running")
        tell(who, "RESUME");
      return json::object();
    }
    if (name == "stop") {
      if (who->status == "running") {
        who->status = "paused";
        tell(who, "STOP");
      }
      return json::object();
    }
    if (name == "system_reset") {
      if (who->status == "shutdown")
        who->status = "paused";
      tell(who, "RESET", {{"guest", false}, {"reason", "host-qmp-system-reset"}});
      return json::object();
    }
    if (name == "system_powerdown") {
      tell(who, "POWERDOWN");
      if (!who->script.ignores_powerdown)
        after(some_time(30ms), [this, who] { power_off(who); });
      return json::object();
    }
    return fail(errc::operation_failed,
                fmt::format("QEMU command '{0}': The command {0} has not been found (CommandNotFound)", name));
  }

  std::multimap<moment, std::function<void()>> queue_;
};

/// What one daemon has of the machine.
class scripted_host : public host {
public:
  explicit scripted_host(std::shared_ptr<machine> on) : machine_{std::move(on)} {}

  /// From now on nothing this daemon asks for happens, and nothing reaches it.
  void cut_off() { *connected_ = false; }

  void make_place(place_request wish, answer<std::shared_ptr<place>> then) override {
    if (!begins("make_place", wish.guest, then))
      return;
    work(std::move(then), [this, wish]() -> result<std::shared_ptr<place>> {
      const bool known =
        std::ranges::any_of(machine_->rows, [&](const auto& each) { return each.second.run_dir == wish.run_dir; });
      if (!known && !wish.guest.starts_with("probe of "))
        machine_->violations.push_back("made " + wish.run_dir + ", which the ledger does not know");
      machine_->run_dirs[wish.run_dir] = wish.guest;
      auto made = std::make_shared<place>();
      made->monitor_socket = wish.run_dir + "/monitor.sock";
      made->listening = unique_fd{::open("/dev/null", O_RDWR | O_CLOEXEC)};
      made->log = unique_fd{::open("/dev/null", O_RDWR | O_CLOEXEC)};
      listening_.erase(made->log.get()); // the number may have been a listener's that is closed
      made->log_start = machine_->logs[wish.guest].size();
      logs_[wish.log_file] = wish.guest;
      listening_[made->listening.get()] = wish.run_dir;
      for (std::size_t i = 0; i < wish.bridges.size(); ++i) {
        made->taps.push_back(unique_fd{::open("/dev/null", O_RDWR | O_CLOEXEC)});
        made->tap_names.push_back(fmt::format("vnet{}", i));
      }
      return made;
    });
  }

  void remove_place(std::string run_dir, answer<done> then) override {
    if (!begins("remove_place", guest_at(run_dir), then))
      return;
    work(std::move(then), [this, run_dir]() -> result<done> {
      const auto there = machine_->run_dirs.find(run_dir);
      if (there == machine_->run_dirs.end())
        return done{};
      if (!there->second.starts_with("probe of ") &&
          std::ranges::none_of(machine_->rows, [&](const auto& each) { return each.second.run_dir == run_dir; }))
        machine_->violations.push_back("removed " + run_dir + " after the ledger had forgotten it");
      for (const auto& each : machine_->alive())
        if (each->run_dir == run_dir && !there->second.starts_with("probe of "))
          machine_->violations.push_back("removed " + run_dir + " under a QEMU that runs");
      machine_->run_dirs.erase(there);
      return done{};
    });
  }

  result<std::unique_ptr<process>> launch(launch_plan plan, std::vector<fd_pass> fds, process_events events) override {
    if (!*connected_)
      return fail(errc::aborted, "the daemon is gone");
    std::string run_dir;
    for (const auto& each : fds)
      if (const auto it = listening_.find(each.fd); it != listening_.end())
        run_dir = it->second;
    const auto guest = guest_at(run_dir);
    note("launch", guest);
    if (machine_->fault)
      if (auto why = machine_->fault("launch", guest))
        return tl::make_unexpected(std::move(*why));
    auto born = std::make_shared<fake_qemu>();
    const auto pid = static_cast<pid_t>(1000 + machine_->processes.size());
    born->id = {pid, static_cast<std::uint64_t>(machine_->now.count()) + 1};
    born->guest = guest;
    born->run_dir = run_dir;
    born->plan = std::move(plan);
    born->script = machine_->script(guest);
    born->executed = std::move(events.executed);
    born->exited = std::move(events.exited);
    machine_->processes[pid] = born;
    return std::make_unique<handle>(*this, born);
  }

  result<std::unique_ptr<process>> adopt(process_id id, std::function<void(exit_status)> exited) override {
    if (!*connected_)
      return fail(errc::aborted, "the daemon is gone");
    note("adopt", std::to_string(id.pid));
    const auto found = machine_->process_at(id.pid);
    if (!found || !found->alive() || !(found->id == id))
      return fail(errc::qemu_gone, fmt::format("process {} is gone", id.pid));
    found->exited = std::move(exited);
    return std::make_unique<handle>(*this, found);
  }

  result<std::unique_ptr<monitor>> reach_monitor(const std::string& socket, qmp_monitor::callbacks calls) override {
    if (!*connected_)
      return fail(errc::aborted, "the daemon is gone");
    for (const auto& each : machine_->alive()) {
      if (each->run_dir + "/monitor.sock" != socket)
        continue;
      note("reach_monitor", each->guest);
      if (machine_->fault)
        if (auto why = machine_->fault("reach_monitor", each->guest))
          return tl::make_unexpected(std::move(*why));
      auto line = std::make_shared<monitor_line>();
      line->calls = std::move(calls);
      each->line = line;
      machine_->greet(each);
      return std::make_unique<scripted_monitor>(*this, each, line);
    }
    return fail(errc::system, fmt::format("cannot connect to '{}': nobody listens", socket));
  }

  void read_log(std::string path, std::uint64_t from, answer<std::string> then) override {
    const auto guest = logs_[path];
    if (!begins("read_log", guest, then))
      return;
    work(std::move(then), [this, guest, from]() -> result<std::string> {
      const auto& text = machine_->logs[guest];
      return from < text.size() ? text.substr(from) : std::string{};
    });
  }

  void commit(ledger_batch batch, answer<done> then) override {
    if (!*connected_)
      return;
    const auto about = subject_of(batch);
    note("commit", about);
    const bool hangs = machine_->stuck && machine_->stuck("commit", about);
    if (hangs)
      return;
    auto why = machine_->fault ? machine_->fault("commit", about) : std::nullopt;
    committed_ = std::max(committed_, machine_->now + machine_->some_time(2ms));
    machine_->at(committed_, [this, batch = std::move(batch), then = std::move(then), why, connected = connected_] {
      if (!*connected)
        return;
      if (!why)
        write_down(batch);
      answered_ = std::max(answered_, machine_->now + machine_->some_time(1ms));
      machine_->at(answered_, [then, why, connected] {
        if (!*connected)
          return;
        if (why)
          then(tl::make_unexpected(*why));
        else
          then(done{});
      });
    });
  }

  void save_definition(std::string name, std::string xml, answer<done> then) override {
    if (!begins("save_definition", name, then))
      return;
    work(std::move(then), [this, name, xml]() -> result<done> {
      machine_->definitions[name] = xml;
      return done{};
    });
  }
  void remove_definition(std::string name, answer<done> then) override {
    if (!begins("remove_definition", name, then))
      return;
    work(std::move(then), [this, name]() -> result<done> {
      machine_->definitions.erase(name);
      machine_->autostarts.erase(name);
      return done{};
    });
  }
  void save_autostart(std::string name, bool on, answer<done> then) override {
    if (!begins("save_autostart", name, then))
      return;
    work(std::move(then), [this, name, on]() -> result<done> {
      if (on)
        machine_->autostarts.insert(name);
      else
        machine_->autostarts.erase(name);
      return done{};
    });
  }

  void resolve(std::string user, std::string group, answer<dac_identity> then) override {
    if (!begins("resolve", user, then))
      return;
    work(std::move(then), [user, group]() -> result<dac_identity> {
      if (user.empty())
        return fail(errc::bad_argument, "no user is named");
      if (user == "nobody-knows")
        return fail(errc::bad_argument, "there is no user 'nobody-knows'");
      const auto number = [](const std::string& text) {
        return static_cast<unsigned>(std::stoul(text.substr(text.starts_with('+'))));
      };
      const auto uid = number(user);
      const auto gid = group.empty() ? uid : number(group);
      return dac_identity{uid, gid, {gid}};
    });
  }

  void observe_files(std::vector<resource> files, std::vector<std::string> models, dac_identity,
                     answer<std::vector<seen_file>> then) override {
    if (!begins("observe_files", files.empty() ? "" : files.front().path, then))
      return;
    work(std::move(then), [this, files, models]() -> result<std::vector<seen_file>> {
      std::vector<seen_file> out;
      for (const auto& each : files) {
        if (machine_->real_files) {
          auto one = machine_->real_files->observe(each.path, models);
          if (!one)
            return tl::make_unexpected(std::move(one.error()));
          out.push_back({each, std::move(*one)});
          continue;
        }
        if (each.create && !machine_->files.contains(each.path))
          machine_->add_file(each.path, 0, 0);
        const auto it = machine_->files.find(each.path);
        if (it == machine_->files.end())
          return fail(errc::operation_failed, fmt::format("'{}' is not there", each.path));
        file_record one;
        one.path = each.path;
        one.device = 1;
        one.inode = it->second.inode;
        one.mode = 0100600;
        for (const auto& model : models) {
          one.labels[model].value = one.labels[model].now = it->second.labels[model];
          if (const auto held = machine_->held_by_others.find(each.path); held != machine_->held_by_others.end())
            one.labels[model].holders = held->second;
        }
        out.push_back({each, std::move(one)});
      }
      return out;
    });
  }

  void find_image_parts(std::vector<resource> images, answer<std::vector<resource>> then) override {
    if (!begins("find_image_parts", images.empty() ? "" : images.front().path, then))
      return;
    work(std::move(then), [this, images]() -> result<std::vector<resource>> {
      std::vector<resource> parts;
      for (const auto& image : images)
        for (auto at = machine_->backing.find(image.path); at != machine_->backing.end(); at = machine_->backing.find(at->second))
          parts.push_back({.path = at->second, .readonly = true, .shared = true});
      return parts;
    });
  }

  void take_files(std::vector<file_taking> all, answer<done> then) override {
    if (!begins("take_files", all.empty() ? "" : all.front().before.path, then))
      return;
    // One after another, so that a daemon may die between two.
    auto step = std::make_shared<std::function<void(std::size_t)>>();
    *step = [this, all, then, weak = std::weak_ptr(step)](std::size_t i) {
      if (i == all.size())
        return then(done{});
      const auto& was = all[i].before;
      if (machine_->fault)
        if (auto why = machine_->fault("take_file", was.path))
          return then(tl::make_unexpected(std::move(*why)));
      const auto row = std::ranges::find(machine_->file_rows, was.path, &file_row::path);
      if (machine_->real_files) {
        if (row == machine_->file_rows.end())
          machine_->violations.push_back("took " + was.path + " before the ledger knew what it was");
        if (auto took = machine_->real_files->take(all[i]); !took)
          return then(tl::make_unexpected(std::move(took.error())));
        return later(1ms, [i, keep = weak.lock()] { (*keep)(i + 1); });
      }
      auto& file = machine_->files[was.path];
      for (const auto& [model, label] : all[i].labels) {
        if (row == machine_->file_rows.end() ||
            json::parse(row->before).at(model).at("value") != machine_->first_owners[was.path].labels[model])
          machine_->violations.push_back("took " + was.path + " before the ledger knew what it was");
        if (file.inode == was.inode)
          file.labels[model] = label;
      }
      later(1ms, [i, keep = weak.lock()] { (*keep)(i + 1); });
    };
    later(2ms, [step] { (*step)(0); });
  }

  void give_back_files(std::vector<file_taking> all, answer<std::vector<std::string>> then) override {
    if (!begins("give_back_files", all.empty() ? "" : all.front().before.path, then))
      return;
    auto step = std::make_shared<std::function<void(std::size_t)>>();
    *step = [this, all, then, weak = std::weak_ptr(step)](std::size_t i) {
      if (i == all.size())
        return then(std::vector<std::string>{});
      const auto& was = all[i].before;
      if (machine_->real_files) {
        if (auto gave = machine_->real_files->give_back(all[i]); !gave)
          machine_->violations.push_back(gave.error().message());
        return later(1ms, [i, keep = weak.lock()] { (*keep)(i + 1); });
      }
      auto& file = machine_->files[was.path];
      for (const auto& [model, label] : all[i].labels) {
        if (file.inode != was.inode || file.labels[model] != label)
          continue;
        if (std::ranges::find(machine_->file_rows, was.path, &file_row::path) == machine_->file_rows.end())
          machine_->violations.push_back("gave " + was.path + " back after the ledger had forgotten it");
        file.labels[model] = was.labels.at(model).value;
      }
      later(1ms, [i, keep = weak.lock()] { (*keep)(i + 1); });
    };
    later(2ms, [step] { (*step)(0); });
  }

  void load_profile(std::string name, std::vector<profile_rule> rules, answer<bool> then) override {
    if (!begins("load_profile", name, then))
      return;
    work(std::move(then), [this, name, rules]() -> result<bool> {
      if (!machine_->rows.contains(name.substr(name.find('-') + 1)))
        machine_->violations.push_back("loaded " + name + ", whose guest the ledger does not know");
      machine_->profiles[name] = rules;
      return true;
    });
  }
  void drop_profile(std::string name, answer<done> then) override {
    if (!begins("drop_profile", name, then))
      return;
    work(std::move(then), [this, name]() -> result<done> {
      for (const auto& each : machine_->alive())
        if (each->plan.apparmor_profile == name)
          machine_->violations.push_back("dropped " + name + " under a QEMU that runs");
      machine_->profiles.erase(name);
      return done{};
    });
  }

  void make_control_group(std::string group, std::vector<resource>, answer<done> then) override {
    if (!begins("make_control_group", group, then))
      return;
    work(std::move(then), [this, group]() -> result<done> {
      const auto known = [&](const auto& each) { return each.second.extra.find(group) != std::string::npos; };
      if (std::ranges::none_of(machine_->rows, known))
        machine_->violations.push_back("made " + group + ", which the ledger does not know");
      machine_->control_groups.insert(group);
      return done{};
    });
  }
  void remove_control_group(std::string group, answer<done> then) override {
    if (!begins("remove_control_group", group, then))
      return;
    work(std::move(then), [this, group]() -> result<done> {
      for (const auto& each : machine_->alive())
        if (std::ranges::count(each->plan.control_groups, group) != 0)
          machine_->violations.push_back("removed " + group + " under a QEMU that runs");
      machine_->control_groups.erase(group);
      return done{};
    });
  }

  void foresee(foreseen_wish wish, answer<std::vector<denial>> then) override {
    if (!begins("foresee", wish.use.path, then))
      return;
    work(std::move(then), [this, wish]() -> result<std::vector<denial>> {
      std::vector<denial> all;
      const auto file = machine_->files.find(wish.use.path);
      if (file == machine_->files.end())
        all.push_back({wish.use.path, "file", "find", fmt::format("'{}' is not there", wish.use.path), "make it"});
      else if (file->second.labels["dac"] != owner_label(wish.who.uid, wish.who.gid) && !wish.use.given)
        all.push_back({wish.use.path, "dac", "read", "it is not the guest's", "chown it"});
      return all;
    });
  }

  void find_emulators(answer<std::vector<std::string>> then) override {
    if (!begins("find_emulators", "", then))
      return;
    work(std::move(then), [this]() -> result<std::vector<std::string>> {
      std::vector<std::string> out;
      for (const auto& [binary, text] : machine_->facts)
        out.push_back(binary);
      return out;
    });
  }
  void recall_facts(std::string binary, std::string known_key, answer<remembered> then) override {
    if (!begins("recall_facts", binary, then))
      return;
    work(std::move(then), [this, binary, known_key]() -> result<remembered> {
      const auto it = machine_->facts.find(binary);
      if (it == machine_->facts.end())
        return fail(errc::operation_failed, fmt::format("the emulator '{}' cannot be used: no such file", binary));
      const auto key = binary + machine_->builds[binary];
      return remembered{key, key == known_key ? std::string{} : key == binary ? it->second : machine_->cached[key]};
    });
  }
  void remember_facts(std::string key, std::string text, answer<done> then) override {
    if (!begins("remember_facts", key, then))
      return;
    work(std::move(then), [this, key, text]() -> result<done> {
      (machine_->facts.contains(key) ? machine_->facts : machine_->cached)[key] = text;
      return done{};
    });
  }

  void find_firmware(answer<host_firmware> then) override {
    if (!begins("find_firmware", "", then))
      return;
    work(std::move(then), [this]() -> result<host_firmware> { return machine_->firmware; });
  }

  result<void> kvm_usable() override {
    note("kvm_usable", "");
    if (machine_->kvm_opens)
      return {};
    return fail(errc::operation_failed, "/dev/kvm is not there");
  }
  bool port_is_free(int port) override { return !busy_ports.contains(port); }
  std::array<std::uint8_t, 16> random_bytes() override {
    std::array<std::uint8_t, 16> out{};
    for (auto& each : out)
      each = static_cast<std::uint8_t>(machine_->draw());
    return out;
  }

  std::set<int> busy_ports;

private:
  class handle final : public process {
  public:
    handle(scripted_host& of, std::shared_ptr<fake_qemu> who)
      : machine_{of.machine_}, connected_{of.connected_}, who_{std::move(who)} {}
    ~handle() override {
      if (!*connected_)
        return;
      who_->executed = nullptr;
      who_->exited = nullptr;
      if (who_->is == fake_qemu::stage::waiting)
        machine_->die(who_, 1, 0); // its plan will never come
    }
    void go() override {
      if (!*connected_)
        return;
      const auto row = std::ranges::find_if(machine_->rows, [&](const auto& each) {
        return each.second.pid == who_->id.pid && each.second.start_time == who_->id.start_time;
      });
      if (row == machine_->rows.end() && !who_->guest.starts_with("probe of "))
        machine_->violations.push_back("let QEMU of " + who_->guest + " go before the ledger knew its pid");
      machine_->trace.push_back("go " + who_->guest);
      machine_->go(who_);
    }
    void signal(int number) override {
      if (*connected_) {
        machine_->trace.push_back(fmt::format("signal {} {}", who_->guest, number));
        machine_->signalled(who_, number);
      }
    }
    process_id id() const override { return who_->id; }

  private:
    std::shared_ptr<machine> machine_;
    std::shared_ptr<bool> connected_;
    std::shared_ptr<fake_qemu> who_;
  };

  class scripted_monitor final : public monitor {
  public:
    scripted_monitor(scripted_host& of, std::shared_ptr<fake_qemu> who, std::shared_ptr<monitor_line> line)
      : machine_{of.machine_}, connected_{of.connected_}, who_{std::move(who)}, line_{std::move(line)} {}
    ~scripted_monitor() override {
      line_->held = false;
      if (who_->line == line_)
        who_->line.reset();
    }
    void execute(std::string_view command, json arguments, std::chrono::milliseconds within,
                 std::function<void(result<json>)> then) override {
      if (!*connected_)
        return;
      // Either the answer or the deadline, whichever is first.
      auto once = std::make_shared<std::function<void(result<json>)>>(std::move(then));
      const auto answer = [once](result<json> value) {
        if (*once)
          std::exchange(*once, nullptr)(std::move(value));
      };
      machine_->after(within, [line = line_, answer, name = std::string{command}] {
        if (line->held)
          answer(fail(errc::timed_out, fmt::format("QEMU has not answered '{}' in time", name)));
      });
      if (line_->closed)
        return machine_->after(0ms, [line = line_, answer] {
          if (line->held)
            answer(fail(errc::qemu_gone, "QEMU's monitor is closed"));
        });
      monitor_line::command what{std::string{command}, std::move(arguments), answer};
      if (line_->greeted)
        machine_->take(who_, line_, std::move(what));
      else
        line_->waiting.push_back(std::move(what));
    }
    void execute_raw(std::string_view text, std::chrono::milliseconds within,
                     std::function<void(result<std::string>)> then) override {
      const auto order = json::parse(text, nullptr, false);
      execute(order.is_object() ? order.value("execute", "") : "", nullptr, within, [then](result<json> answer) {
        if (answer)
          then(json{{"return", *answer}}.dump());
        else if (answer.error().code == errc::operation_failed)
          then(json{{"error", {{"desc", answer.error().detail}}}}.dump());
        else
          then(tl::make_unexpected(answer.error()));
      });
    }

  private:
    std::shared_ptr<machine> machine_;
    std::shared_ptr<bool> connected_;
    std::shared_ptr<fake_qemu> who_;
    std::shared_ptr<monitor_line> line_;
  };

  void note(std::string_view call, const std::string& about) {
    machine_->trace.push_back(fmt::format("{} {}", call, about));
  }

  std::string guest_at(const std::string& run_dir) const {
    const auto it = machine_->run_dirs.find(run_dir);
    return it == machine_->run_dirs.end() ? std::string{} : it->second;
  }

  template <class Answer>
  bool begins(std::string_view call, const std::string& about, const Answer& then) {
    if (!*connected_)
      return false;
    note(call, about);
    if (machine_->stuck && machine_->stuck(call, about))
      return false;
    if (machine_->fault)
      if (auto why = machine_->fault(call, about)) {
        later(1ms, [then, why = std::move(*why)] { then(tl::make_unexpected(why)); });
        return false;
      }
    return true;
  }

  /// Happens unless the daemon is gone by then.
  void later(moment usual, std::function<void()> what) {
    machine_->after(machine_->some_time(usual), [what = std::move(what), connected = connected_] {
      if (*connected)
        what();
    });
  }

  /// On a worker: done at one moment, answered at a later one.
  template <class T, class Work>
  void work(answer<T> then, Work what) {
    later(2ms, [this, then = std::move(then), what = std::move(what)] {
      auto outcome = std::make_shared<result<T>>(what());
      later(1ms, [then, outcome] { then(std::move(*outcome)); });
    });
  }

  static std::string subject_of(const ledger_batch& batch) {
    if (!batch.put_guests.empty())
      return fmt::format("guest {} {}", batch.put_guests.front().name, batch.put_guests.front().phase);
    if (!batch.drop_guests.empty())
      return "drop guest " + batch.drop_guests.front();
    if (!batch.put_files.empty())
      return "files of " + batch.put_files.front().guest_uuid;
    if (!batch.drop_files.empty())
      return "drop files of " + batch.drop_files.front().second;
    return batch.events.empty() ? "values" : "event";
  }

  void write_down(const ledger_batch& batch) {
    auto& to = *machine_;
    for (const auto& uuid : batch.drop_guests)
      to.rows.erase(uuid);
    for (const auto& gone : batch.drop_files)
      std::erase_if(to.file_rows,
                    [&](const file_row& row) { return row.path == gone.first && row.guest_uuid == gone.second; });
    for (const auto& row : batch.put_guests)
      to.rows[row.uuid] = row;
    for (const auto& row : batch.put_files) {
      const auto there = std::ranges::find_if(
        to.file_rows, [&](const file_row& each) { return each.path == row.path && each.guest_uuid == row.guest_uuid; });
      if (there == to.file_rows.end())
        to.file_rows.push_back(row);
      else
        *there = row;
    }
    for (const auto& row : batch.events)
      to.events.push_back(row);
    for (const auto& [name, value] : batch.set)
      to.values[name] = value;
  }

  std::shared_ptr<machine> machine_;
  std::shared_ptr<bool> connected_ = std::make_shared<bool>(true);
  std::map<int, std::string> listening_; ///< descriptor to run directory
  std::map<std::string, std::string> logs_;
  moment committed_{}, answered_{};
};

} // namespace troupe::sim
