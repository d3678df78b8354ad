#include "actors/company.hpp"

#include "actors/connection.hpp"
#include "actors/driver.hpp"
#include "actors/event_hub.hpp"
#include "actors/guest_labels.hpp"
#include "actors/loop_scheduler.hpp"
#include "actors/prober.hpp"
#include "actors/real_host.hpp"
#include "actors/security_manager.hpp"
#include "actors/varlink_connection.hpp"
#include "runtime/host_info.hpp"
#include "runtime/read_file.hpp"
#include "runtime/stable_hash.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <future>
#include <mutex>
#include <set>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

/// Clients at the same time; more are turned away. As libvirtd's max_clients.
constexpr std::size_t most_clients = 5000;
constexpr int backlog = 128;

/// The version clients are told, in libvirt's encoding: they gate what they use of the wire on it.
constexpr std::uint64_t wire_version = 9'000'000;

/// More events than can have been written without the disk knowing.
constexpr std::uint64_t numbers_skipped_by_boot = 100'000;

/// Whom QEMU runs as in a system instance when qemu.conf does not say: the first of these that the system has.
constexpr std::string_view usual_users[] = {"libvirt-qemu", "qemu"};

caf::actor_system_config& configured(caf::actor_system_config& config) {
  config.set("scheduler.max-threads", 1u);
  config.load<loop_scheduler>();
  return config;
}

std::string identity_text(const host_info& host) {
  std::string flags;
  for (const auto& each : host.cpu_flags)
    flags += each + ",";
  return fmt::format("{} {} {}/{}/{}/{} {:x} {:x}", host.kernel, host.cpu_vendor, host.cpu_family, host.cpu_model,
                     host.cpu_stepping, host.cpu_model_name, host.microcode, stable_hash(flags));
}

host_facts facts_for_clients(const host_info& host) {
  host_facts out;
  out.uuid = host.uuid;
  out.arch = host.arch;
  out.cpu.vendor = host.cpu_vendor;
  out.cpu.family = host.cpu_family;
  out.cpu.model = host.cpu_model;
  out.cpu.stepping = host.cpu_stepping;
  out.cpu_flags = host.cpu_flags;
  out.microcode = host.microcode;
  out.physical_bits = host.physical_bits;
  out.sockets = host.sockets;
  out.dies = host.dies;
  out.cores = host.cores;
  out.threads = host.threads;
  out.page_kib = host.page_kib;
  for (const auto& cell : host.cells) {
    host_facts::numa_cell to;
    to.id = cell.id;
    to.memory_kib = cell.memory_kib;
    to.distances = cell.distances;
    for (const auto& cpu : cell.cpus)
      to.cpus.push_back({cpu.id, cpu.socket, cpu.die, cpu.core, cpu.siblings});
    out.cells.push_back(std::move(to));
  }
  return out;
}

result<dac_identity> identity_of_guests(const qemu_settings& settings) {
  if (!settings.user.empty() || !settings.group.empty())
    return resolve_identity(settings.user.empty() ? "root" : settings.user, settings.group);
  for (const auto user : usual_users)
    if (auto found = resolve_identity(user, ""))
      return found;
  spdlog::warn("there is no user '{}': guests without a label of their own run as root, without capabilities; "
               "`user` in qemu.conf names another", fmt::join(usual_users, "' or '"));
  return resolve_identity("root", "");
}

/// The kernel's model that guests are confined by: the first that the settings name and that is in force, or, where they
/// name none, the one that is. Errors: unsupported_config, when one is named that is not in force.
result<confinement_model> model_of_guests(const qemu_settings& settings) {
  using kind = confinement_model::kind;
  confinement_model model;
  model.default_confined = settings.security_default_confined;
  model.require_confined = settings.security_require_confined;
  model.libvirt_names = settings.apparmor_libvirt_names;
  const auto& drivers = settings.security_driver;
  const bool has_apparmor = apparmor_is_on();
  auto selinux = read_selinux_host();
  if (!selinux)
    return tl::make_unexpected(std::move(selinux.error()));
  const auto in_force = [&](std::string_view driver) { return driver == "selinux" ? selinux->has_value() : has_apparmor; };
  for (const std::string_view driver : {"selinux", "apparmor"})
    if (std::ranges::find(drivers, driver) != drivers.end() && !in_force(driver))
      return fail(errc::unsupported_config, fmt::format("security_driver '{}' is not in force on this host: leave the setting "
                                                        "empty to take what is", driver));
  const auto wanted = [&](std::string_view driver) {
    return in_force(driver) && (drivers.empty() || std::ranges::find(drivers, driver) != drivers.end());
  };
  // The first that is named goes before: the kernel may have both.
  const auto named_first = std::ranges::find_first_of(drivers, std::array{"selinux", "apparmor"});
  if (wanted("apparmor") && (!wanted("selinux") || (named_first != drivers.end() && *named_first == "apparmor"))) {
    model.what = kind::apparmor;
  } else if (wanted("selinux")) {
    model.what = kind::selinux;
    model.selinux = std::move(**selinux);
    model.enforced = selinux_is_enforcing();
  }
  return model;
}

/// Where guests get their control groups, tried out: in a container the kernel may refuse what it shows.
device_groups groups_for_guests(const qemu_settings& settings, const instance_paths& paths) {
  const auto& wanted = settings.cgroup_controllers;
  if (wanted && std::ranges::find(*wanted, "devices") == wanted->end())
    return {};
  constexpr std::size_t most_bytes = 8 << 20;
  auto found = find_device_groups(read_file("/proc/self/mountinfo", most_bytes).value_or(""),
                                  read_file("/proc/self/cgroup", most_bytes).value_or(""));
  if (found.how == device_groups::kind::none) {
    spdlog::warn("there are no control groups here: guests' device nodes are not limited");
    return {};
  }
  // Instances with roots of their own run side by side.
  found.dir += paths.root.empty() ? "/troupe" : fmt::format("/troupe-{:016x}", stable_hash(paths.root));
  const auto trial = found.dir + "/trial";
  auto tried = make_device_group(found.how, trial, {});
  if (tried)
    tried = remove_device_group(trial);
  if (tried)
    return found;
  spdlog::warn("guests' device nodes are not limited: {}; to do without and without this warning: "
               "cgroup_controllers = [ ] in qemu.conf", tried.error().message());
  return {};
}

/// Whom the QEMUs of a daemon that changes nobody's user run as.
dac_identity own_identity() {
  std::vector<gid_t> groups(NGROUPS_MAX);
  groups.resize(static_cast<std::size_t>(std::max(0, ::getgroups(NGROUPS_MAX, groups.data()))));
  return {::geteuid(), ::getegid(), std::move(groups)};
}

/// Whether the process is in the group of a guest of ours, or has ended: a guest that broke out of its QEMU, perhaps as
/// root, may try to have the daemon do what it cannot. `groups` is the directory of the groups.
bool may_be_guest(pid_t pid, const std::string& groups) {
  if (groups.empty() || pid == 0)
    return false;
  const auto its = read_file(fmt::format("/proc/{}/cgroup", pid), 1 << 16);
  return !its || its->find(groups.substr(groups.rfind('/')) + "/") != std::string::npos;
}

/// Ends what probes of an earlier daemon left behind. Their directories go first: a launcher that is still on its way
/// fails without one.
void clear_probes(const std::string& probe_runs) {
  std::error_code failed;
  for (const auto& each : fs::directory_iterator{probe_runs, failed}) {
    const auto id = read_pid_file(each.path() / "pid");
    fs::remove_all(each.path(), failed);
    if (id && is_alive(*id))
      ::kill(id->pid, SIGKILL);
  }
}

} // namespace

struct company::members {
  company_setup setup;
  caf::actor_system_config config;
  std::optional<caf::actor_system> system;
  std::mutex failure_mutex;
  std::function<void(std::string)> failure;
  std::atomic<std::size_t> clients = 0;
  std::atomic<bool> ending = false;

  // All below live on the loop's thread.
  loop* on = nullptr;
  std::shared_ptr<real_host> machine;
  event_hub_actor events;
  security_actor security;
  prober_actor prober;
  driver_actor driver;
  std::shared_ptr<const control_surroundings> control;
  std::vector<std::unique_ptr<unix_listener>> listeners;

  result<void> open();
  result<void> listen();
  enum class door : std::uint8_t { libvirt, libvirt_read_only, control };
  result<void> listen_at(const std::string& path, mode_t mode, door by);
  void accept(unique_fd socket, door by);
  void close();
  template <class Actor>
  void guard(const Actor& actor, const char* what);

  /// Runs `work` on the loop and waits for it.
  template <class T>
  T on_loop(std::function<T()> work) {
    std::promise<T> answer;
    on->post([&] { answer.set_value(work()); });
    return answer.get_future().get();
  }
};

template <class Actor>
void company::members::guard(const Actor& actor, const char* what) {
  caf::actor_cast<caf::actor>(actor)->attach_functor([this, what](const caf::error& why) {
    if (ending)
      return;
    auto text = fmt::format("the {} failed ({})", what, caf::to_string(why));
    spdlog::critical("{}", text);
    const std::lock_guard lock{failure_mutex};
    if (!failure)
      std::abort();
    failure(std::move(text));
  });
}

result<void> company::members::open() {
  const auto& paths = setup.paths;
  auto kept = ledger::open(paths.ledger, *on);
  if (!kept)
    return tl::make_unexpected(std::move(kept.error()));
  auto contents = (*kept)->load();
  if (!contents)
    return tl::make_unexpected(std::move(contents.error()));
  auto about_host = read_host_info();
  if (!about_host)
    return tl::make_unexpected(std::move(about_host.error()));
  auto stored = definition_store{paths.definitions, paths.autostart}.load_all();
  if (!stored)
    return tl::make_unexpected(std::move(stored.error()));
  clear_probes(paths.probe_runs);

  const bool privileged = !paths.session && ::geteuid() == 0;
  security_setup confinement;
  confinement.privileged = privileged;
  confinement.dynamic_ownership = setup.settings.dynamic_ownership;
  auto clients_see = facts_for_clients(*about_host);
  if (privileged) {
    auto who = identity_of_guests(setup.settings);
    if (!who)
      return tl::make_unexpected(std::move(who.error()));
    confinement.fallback = *who;
    auto model = model_of_guests(setup.settings);
    if (!model)
      return tl::make_unexpected(std::move(model.error()));
    const auto& contexts = model->selinux.contexts;
    if (model->what == confinement_model::kind::selinux)
      clients_see.security.push_back({"selinux", "0", to_text(contexts.domain), to_text(contexts.emulated_domain)});
    if (model->what == confinement_model::kind::apparmor)
      clients_see.security.push_back({"apparmor", "0", {}, {}});
    confinement.model = std::move(*model);
    const auto label = fmt::format("+{}:+{}", who->uid, who->gid);
    clients_see.security.push_back({"dac", "0", label, label});
  }

  const auto groups = privileged ? groups_for_guests(setup.settings, paths) : device_groups{};

  real_host_setup stands_on;
  stands_on.groups = groups.how;
  stands_on.devices = setup.settings.cgroup_device_acl;
  stands_on.notes = {setup.settings.remember_owner, fmt::format("{:016x}", stable_hash(paths.state))};
  stands_on.paths = paths;
  stands_on.launcher = setup.launcher;
  stands_on.apparmor_helper = fs::path{setup.launcher}.parent_path() / "troupe-apparmor";
  stands_on.profiles = paths.root + "/etc/apparmor.d";
  stands_on.host_identity = identity_text(*about_host);
  stands_on.module_folders = {fmt::format("/usr/lib/{}-linux-gnu/qemu", about_host->arch), "/usr/lib64/qemu-kvm", "/usr/lib64/qemu",
                              "/usr/lib/qemu"};
  stands_on.firmware_folders = {"/usr/share/qemu/firmware", "/etc/qemu/firmware"};
  if (paths.session)
    stands_on.firmware_folders.push_back(fs::path{paths.config}.parent_path() / "qemu/firmware");
  stands_on.kept = std::move(*kept);
  machine = std::make_shared<real_host>(*on, std::move(stands_on));

  // A power failure may have taken the newest events: their numbers are not given again.
  const auto boot = contents->values.find("boot_id");
  const bool rebooted = boot != contents->values.end() && boot->second != about_host->boot_id;
  events = spawn_event_hub(*system, {machine, contents->last_sequence + (rebooted ? numbers_skipped_by_boot : 0)});
  confinement.machine = machine;
  security = spawn_security_manager(*system, confinement);
  std::set<std::string> known;
  for (const auto& row : contents->guests)
    known.insert(row.uuid);
  std::set<std::string> forgotten; // guests that left files behind and nothing else
  for (const auto& file : contents->files)
    if (!known.contains(file.guest_uuid))
      forgotten.insert(file.guest_uuid);
  recall_labels earlier{contents->files};
  for (const auto& row : contents->guests)
    if (auto labels = labels_of(row); !labels.empty())
      earlier.guests.emplace_back(row.uuid, std::move(labels.front()));
  caf::anon_send(security, std::move(earlier));
  for (const auto& uuid : forgotten)
    caf::anon_send(security, release_guest{uuid, {}});

  prober_setup probing;
  probing.machine = machine;
  probing.run_root = paths.probe_runs;
  probing.log_file = paths.log + "/probes.log";
  if (privileged)
    probing.identity = launch_identity{confinement.fallback.uid, confinement.fallback.gid, confinement.fallback.groups};
  // Without categories: it may open no guest's files.
  if (const auto& model = confinement.model; model.what == confinement_model::kind::selinux)
    probing.label = {to_text(model.selinux.contexts.emulated_domain), to_text(model.selinux.contexts.image)};
  prober = spawn_prober(*system, std::move(probing));

  auto around = std::make_shared<guest_surroundings>();
  around->machine = machine;
  around->security = security;
  around->prober = prober;
  around->events = events;
  around->paths = paths;
  around->boot_id = about_host->boot_id;
  around->vnc_listen = setup.settings.vnc_listen;
  around->spice_listen = setup.settings.spice_listen;
  around->vnc_password = setup.settings.vnc_password;
  around->spice_password = setup.settings.spice_password;
  if (const auto most = setup.settings.max_processes; most != 0)
    around->limits.push_back({"nproc", most, most});
  if (const auto most = setup.settings.max_files; most != 0)
    around->limits.push_back({"nofile", most, most});
  around->limits.push_back({"core", setup.settings.max_core, setup.settings.max_core});
  around->keep_capabilities = !setup.settings.clear_emulator_capabilities;
  around->sandbox = setup.settings.seccomp_sandbox.value_or(true);
  around->name_process = setup.settings.set_process_name;
  around->dump_core = setup.settings.dump_guest_core;
  around->control_groups = groups.dir;
  around->filter_calls = setup.settings.seccomp_sandbox.value_or(true);
  around->landlock = setup.settings.landlock && landlock_abi() > 0;
  around->model = confinement.model.name();
  around->networks = setup.settings.networks;
  around->kill_after = setup.settings.grace_ms;
  around->qmp_answer = setup.settings.qmp_timeout_ms;

  driver_setup begins;
  begins.around = around;
  for (auto& each : *stored)
    if (each.error.empty())
      begins.stored.push_back({std::move(each.name), std::move(each.text), each.autostart});
    else
      spdlog::error("definition '{}' is left out: {}", each.name, each.error);
  begins.kept = std::move(*contents);
  begins.first_display_port = static_cast<int>(setup.settings.remote_display_port_min);
  begins.last_display_port = static_cast<int>(setup.settings.remote_display_port_max);
  begins.host_arch = about_host->arch;
  driver = spawn_driver(*system, std::move(begins));

  guard(events, "event hub");
  guard(security, "security manager");
  guard(prober, "prober");
  guard(driver, "driver");

  auto shown = std::make_shared<control_surroundings>();
  shown->driver = driver;
  shown->events = events;
  shown->prober = prober;
  shown->machine = machine;
  shown->about_host = std::move(*about_host);
  shown->capabilities = std::move(clients_see);
  shown->session = paths.session;
  shown->changes_user = privileged;
  shown->gives_owners = privileged && setup.settings.dynamic_ownership;
  shown->guest_user = privileged ? confinement.fallback : own_identity();
  shown->uri = paths.session ? "qemu:///session" : "qemu:///system";
  shown->version = wire_version;
  shown->around = around;
  control = std::move(shown);
  return listen();
}

result<void> company::members::listen() {
  // The system's sockets are root's, but anybody may look; a session's are its user's.
  return listen_at(setup.paths.libvirt_sock, 0700, door::libvirt)
    .and_then([&] { return listen_at(setup.paths.control, 0700, door::control); })
    .and_then([&] {
      return listen_at(setup.paths.libvirt_sock_ro, setup.paths.session ? 0700 : 0777, door::libvirt_read_only);
    });
}

result<void> company::members::listen_at(const std::string& path, mode_t mode, door by) {
  auto opened = unix_listener::open(*on, path, mode, backlog, [this, by](unique_fd socket) { accept(std::move(socket), by); });
  if (!opened)
    return tl::make_unexpected(std::move(opened.error()));
  listeners.push_back(std::move(*opened));
  return {};
}

void company::members::accept(unique_fd socket, door by) {
  const bool read_only = by == door::libvirt_read_only;
  const auto peer = peer_of(socket.get());
  if (!peer) {
    spdlog::warn("a client is turned away: {}", peer.error().message());
    return;
  }
  if (!read_only && peer->uid != 0 && peer->uid != ::geteuid()) {
    spdlog::warn("a client (uid {}, pid {}) is turned away: it may use the read-only socket only", peer->uid, peer->pid);
    return;
  }
  if (may_be_guest(peer->pid, control->around->control_groups)) {
    spdlog::warn("a client (uid {}, pid {}) is turned away: it is a guest's, or has ended", peer->uid, peer->pid);
    return;
  }
  if (clients >= most_clients) {
    spdlog::warn("a client (uid {}, pid {}) is turned away: {} are connected", peer->uid, peer->pid, most_clients);
    return;
  }
  connection_setup wish{control, std::make_shared<unique_fd>(std::move(socket)), read_only, *peer};
  const auto client = by == door::control ? caf::actor_cast<caf::actor>(spawn_varlink_connection(*system, std::move(wish)))
                                          : caf::actor_cast<caf::actor>(spawn_connection(*system, std::move(wish)));
  ++clients;
  client->attach_functor([this] { --clients; });
}

void company::members::close() {
  listeners.clear();
  // Connections end with the driver, and so do its guests: their QEMUs run on.
  if (driver)
    caf::anon_send_exit(driver, caf::exit_reason::user_shutdown);
  if (prober)
    caf::anon_send_exit(prober, caf::exit_reason::user_shutdown);
  if (security)
    caf::anon_send_exit(security, caf::exit_reason::user_shutdown);
  if (events)
    caf::anon_send_exit(events, caf::exit_reason::user_shutdown);
  control.reset();
  driver = driver_actor();
  prober = prober_actor();
  security = security_actor();
  events = event_hub_actor();
  machine.reset();
}

company::company(std::unique_ptr<members> m) : m_{std::move(m)} {}

result<std::unique_ptr<company>> company::start(company_setup setup) {
  if (auto made = setup.paths.make_directories(); !made)
    return tl::make_unexpected(std::move(made.error()));
  auto m = std::make_unique<members>();
  m->setup = std::move(setup);
  m->system.emplace(configured(m->config));
  m->on = &loop_scheduler::of(*m->system).loop_of(0);
  std::unique_ptr<company> it{new company{std::move(m)}};
  auto opened = it->m_->on_loop<result<void>>([raw = it->m_.get()] { return raw->open(); });
  if (!opened)
    return tl::make_unexpected(std::move(opened.error()));
  return it;
}

company::~company() {
  m_->ending = true;
  m_->on_loop<bool>([this] {
    m_->close();
    return true;
  });
  m_->system.reset(); // waits for the actors
}

bool company::is_idle() const {
  if (m_->clients > 0)
    return false;
  caf::scoped_actor self{*m_->system};
  constexpr std::uint32_t active = 1; // virConnectListAllDomainsFlags
  bool idle = false;
  self->request(m_->driver, 10s, list_guests{active})
    .receive([&](const std::vector<guest_view_ptr>& running) { idle = running.empty(); }, [](const caf::error&) {});
  return idle;
}

void company::on_failure(std::function<void(std::string)> call) {
  const std::lock_guard lock{m_->failure_mutex};
  m_->failure = std::move(call);
}

} // namespace troupe
