#pragma once

#include "actors/guest_states.hpp"
#include "runtime/error.hpp"
#include "sec/apparmor.hpp"
#include "sec/resource.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

// Every message that actors exchange. They stay in this process, so none is ever serialised: each is marked at the end
// of the file instead of having an `inspect`.

namespace troupe {

struct domain;
struct emulator_facts;
struct guest_row;
struct file_row;

/// "Done", where a request has no other answer.
struct done {};

/// How a guest is named to clients; `id` is -1 while it is inactive. `uuid` in libvirt's text form, lower case.
struct guest_ref {
  std::string name;
  std::string uuid;
  int id = -1;
};

/// A label of a guest under one model: as its definition asks for it, or as it has it while it runs.
struct guest_label {
  enum class origin : std::uint8_t {
    dynamic, ///< Ours to choose, from `base` where that is given.
    chosen,  ///< As the definition says.
    none,    ///< The guest is not confined by the model.
  };

  std::string model; ///< "selinux", "apparmor", "dac"
  origin how = origin::dynamic;
  bool relabel = true; ///< Its files get labels that fit.
  std::string process, image, base;

  bool operator==(const guest_label&) const = default;
};

/// What is known of a guest without asking it. Immutable: a change publishes a new one.
struct guest_view {
  guest_ref ref;
  guest_state life = guest_state::shutoff;
  int state = 5;  ///< virDomainState
  int reason = 0; ///< of that state
  bool persistent = true;
  bool autostart = false;
  bool managed_save = false;
  std::shared_ptr<const domain> config; ///< What the next start will use; null for a transient guest.
  std::shared_ptr<const domain> live;   ///< What runs; null when inactive.
  std::uint64_t max_memory_kib = 0;
  std::uint64_t memory_kib = 0;
  unsigned vcpus = 0;
  pid_t pid = 0;
  std::vector<guest_label> labels; ///< Of the process, the kernel's model first; none when inactive or unconfined.
  bool enforced = false;           ///< The kernel refuses what the first of them does not allow.
  std::shared_ptr<const guest_row> row; ///< As the ledger holds it: what another actor needs to go on.
  std::vector<std::string> messages; ///< Taints and deprecations, for DOMAIN_GET_MESSAGES.
  std::chrono::steady_clock::time_point as_of{};
};
using guest_view_ptr = std::shared_ptr<const guest_view>;

// ---- to the driver

struct find_guest {
  enum class key : std::uint8_t { uuid, name, id } by{};
  std::string text;
  int id = -1;
};

/// `flags`: virConnectListAllDomainsFlags; 0 lists all.
struct list_guests {
  std::uint32_t flags = 0;
};

/// `flags`: virDomainDefineFlags (1 validate).
struct define_guest {
  std::string xml;
  std::uint32_t flags = 0;
};

/// Starts a guest that has no definition. `flags`: virDomainCreateFlags (1 paused, 2 autodestroy, …).
struct create_guest {
  std::string xml;
  std::uint32_t flags = 0;
  caf::strong_actor_ptr owner; ///< With autodestroy: the guest ends with this connection.
};

struct undefine_guest {
  std::string uuid;
  std::uint32_t flags = 0;
};

struct set_autostart {
  std::string uuid;
  bool on = false;
};

/// From a guest: what it is now.
struct view_changed {
  guest_view_ptr view;
};

/// From a guest that is about to start: an id, and TCP ports nobody else was given. Ports stay taken until the guest is shut off.
struct admit_start {
  std::string uuid;
  unsigned display_ports = 0;
};
struct start_permit {
  int id = -1;
  std::vector<int> display_ports;
};

/// From a guest whose definition changed under its own hand (metadata): write it to disk.
struct save_config {
  std::string uuid;
  std::shared_ptr<const domain> config;
};

// ---- to a guest

/// `flags`: virDomainCreateFlags; 1 leaves it paused.
struct start_guest {
  std::uint32_t flags = 0;
  caf::strong_actor_ptr owner; ///< With flag 2 (autodestroy): the guest ends when this connection does.
  std::shared_ptr<const domain> instead; ///< What to run; null: the guest's definition.
};
/// `flags`: virDomainDestroyFlags; 1 graceful: never SIGKILL.
struct destroy_guest {
  std::uint32_t flags = 0;
};
/// `flags`: virDomainShutdownFlagValues; 0 lets us choose ACPI.
struct shutdown_guest {
  std::uint32_t flags = 0;
};
struct reboot_guest {
  std::uint32_t flags = 0;
};
struct reset_guest {};
struct suspend_guest {};
struct resume_guest {};
/// QMP as JSON, or HMP; answers QEMU's reply line, or HMP's text.
struct monitor_command {
  std::string text;
  bool human = false;
};
/// From the driver: a new definition for the next start.
struct set_config {
  std::shared_ptr<const domain> config;
};
/// From the driver: the definition is gone; an active guest goes on as a transient one.
struct drop_config {};
struct mark_autostart {
  bool on = false;
};
/// `type`: virDomainMetadataType (0 description, 1 title, 2 element); `flags`: virDomainModificationImpact.
struct set_metadata {
  int type = 0;
  std::string text;
  bool remove = false; ///< No text was given.
  std::string key;
  std::string uri;
  std::uint32_t flags = 0;
};
/// The console called `device` (an alias; empty: the first). `flags`: 1 force, 2 safe.
struct open_console {
  std::string device;
  std::uint32_t flags = 0;
  caf::strong_actor_ptr user;
};
/// The user let go of the console.
struct close_console {
  std::string path;
};
/// Where the console's bytes are: a PTY or a unix socket.
struct console_place {
  std::string path;
  bool socket = false;
};

/// A closure that runs inside the actor that made it: the way back from libuv's callbacks and from workers.
/// It is only sent by that actor's own helpers, so it may hold its `this`: it never runs in another, or after it.
struct completion {
  std::function<void()> run;
};

// ---- to the security manager

/// Who the guest's QEMU will be, and its files made reachable for it. On failure nothing stays changed.
struct secure_guest {
  std::string uuid;
  std::string name;
  std::string user;  ///< From a static DAC seclabel, "+uid:+gid" or "user:group"; empty takes the settings' user and group.
  bool relabel = true;
  std::vector<resource> paths;
  std::string control_group; ///< Made, and limited to these paths' device nodes and the settings' own. Empty: none.
  std::vector<guest_label> labels{}; ///< Of models other than DAC, as the definition has them.
  bool emulated = false;             ///< QEMU makes code at run time: no KVM.
};
struct guest_identity {
  bool change = false; ///< Unprivileged instances run QEMU as themselves.
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string label; ///< "+uid:+gid"
  std::vector<resource> files; ///< What it opens, at its resolved paths; devices of the host as their nodes.
  std::vector<guest_label> labels{}; ///< What it has, as its definition shows it while it runs; the kernel's model first.
  bool enforced = false;             ///< The kernel refuses what the first of them does not allow.

  const guest_label* under(std::string_view model) const {
    for (const auto& each : labels)
      if (each.model == model && each.how != guest_label::origin::none)
        return &each;
    return nullptr;
  }
};
/// Loads the guest's AppArmor profile: what its QEMU may use beside what every QEMU may. Answers whether it is enforced.
struct load_guest_profile {
  std::string uuid;
  std::string name;
  std::vector<profile_rule> rules;
};
/// Gives back what `secure_guest` took, as far as nobody else uses it. Answers `done` also when some path could not be restored.
struct release_guest {
  std::string uuid;
  std::string control_group; ///< Removed, with what is left in it. Empty: none.
};
/// At the start of the daemon: what an earlier one had taken and for whom.
struct recall_labels {
  std::vector<file_row> files;
  std::vector<std::pair<std::string, guest_label>> guests{}; ///< By uuid: the label of the kernel's model.
};

// ---- to the prober

/// Facts about an emulator binary; probes it when they are not known.
struct emulator_wanted {
  std::string binary;
};
/// The emulators found on this host that answered.
struct list_emulators {};
using emulator_facts_ptr = std::shared_ptr<const emulator_facts>;

// ---- events

namespace event {
struct lifecycle {
  int event = 0;  ///< virDomainEventType
  int detail = 0; ///< of that type
};
struct reboot {};
struct rtc_change {
  std::int64_t offset = 0;
};
struct watchdog {
  int action = 0;
};
struct io_error {
  std::string path, device, reason;
  int action = 0;
};
struct graphics_end {
  int family = 0;
  std::string node, service;
};
struct graphics {
  int phase = 0;
  graphics_end local, remote;
  std::string auth_scheme;
  std::vector<std::pair<std::string, std::string>> subject;
};
struct control_error {};
struct block_job {
  std::string path;
  int type = 0, status = 0;
};
struct tray_change {
  std::string device;
  int reason = 0;
};
struct pm_wakeup {};
struct pm_suspend {};
struct pm_suspend_disk {};
struct balloon_change {
  std::uint64_t actual_kib = 0;
};
struct device_removed {
  std::string device;
};
struct device_added {
  std::string device;
};
struct device_removal_failed {
  std::string device;
};
struct agent_lifecycle {
  int state = 0, reason = 0;
};
struct metadata_change {
  int type = 0;
  std::string uri;
};
struct memory_failure {
  int recipient = 0, action = 0;
  std::uint32_t flags = 0;
};
struct memory_device_size {
  std::string device;
  std::uint64_t size = 0;
};
} // namespace event

using event_body =
  std::variant<event::lifecycle, event::reboot, event::rtc_change, event::watchdog, event::io_error, event::graphics,
               event::control_error, event::block_job, event::tray_change, event::pm_wakeup, event::pm_suspend,
               event::pm_suspend_disk, event::balloon_change, event::device_removed, event::device_added,
               event::device_removal_failed, event::agent_lifecycle, event::metadata_change, event::memory_failure,
               event::memory_device_size>;

/// Something happened to a guest. `sequence` is given by the event hub: one more for each event of the daemon's life.
struct guest_event {
  std::uint64_t sequence = 0;
  guest_ref guest;
  event_body what;
  std::string cause; ///< "qemu", "client", "daemon"; for the log.
};
using guest_event_ptr = std::shared_ptr<const guest_event>;

/// To the hub: number it, write it down, pass it on.
struct publish_event {
  guest_event_ptr event;
};
/// From the hub to a subscriber.
struct event_happened {
  guest_event_ptr event;
};
struct subscribe {
  caf::strong_actor_ptr who;
};
struct unsubscribe {
  caf::strong_actor_ptr who;
};

} // namespace troupe

#define TROUPE_LOCAL_MESSAGE(name) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(name)
TROUPE_LOCAL_MESSAGE(troupe::done)
TROUPE_LOCAL_MESSAGE(troupe::guest_ref)
TROUPE_LOCAL_MESSAGE(troupe::guest_view_ptr)
TROUPE_LOCAL_MESSAGE(std::vector<troupe::guest_view_ptr>)
TROUPE_LOCAL_MESSAGE(troupe::find_guest)
TROUPE_LOCAL_MESSAGE(troupe::list_guests)
TROUPE_LOCAL_MESSAGE(troupe::define_guest)
TROUPE_LOCAL_MESSAGE(troupe::create_guest)
TROUPE_LOCAL_MESSAGE(troupe::undefine_guest)
TROUPE_LOCAL_MESSAGE(troupe::set_autostart)
TROUPE_LOCAL_MESSAGE(troupe::view_changed)
TROUPE_LOCAL_MESSAGE(troupe::admit_start)
TROUPE_LOCAL_MESSAGE(troupe::start_permit)
TROUPE_LOCAL_MESSAGE(troupe::save_config)
TROUPE_LOCAL_MESSAGE(troupe::start_guest)
TROUPE_LOCAL_MESSAGE(troupe::destroy_guest)
TROUPE_LOCAL_MESSAGE(troupe::shutdown_guest)
TROUPE_LOCAL_MESSAGE(troupe::reboot_guest)
TROUPE_LOCAL_MESSAGE(troupe::reset_guest)
TROUPE_LOCAL_MESSAGE(troupe::suspend_guest)
TROUPE_LOCAL_MESSAGE(troupe::resume_guest)
TROUPE_LOCAL_MESSAGE(troupe::monitor_command)
TROUPE_LOCAL_MESSAGE(troupe::set_config)
TROUPE_LOCAL_MESSAGE(troupe::drop_config)
TROUPE_LOCAL_MESSAGE(troupe::mark_autostart)
TROUPE_LOCAL_MESSAGE(troupe::set_metadata)
TROUPE_LOCAL_MESSAGE(troupe::open_console)
TROUPE_LOCAL_MESSAGE(troupe::close_console)
TROUPE_LOCAL_MESSAGE(troupe::console_place)
TROUPE_LOCAL_MESSAGE(troupe::completion)
TROUPE_LOCAL_MESSAGE(troupe::secure_guest)
TROUPE_LOCAL_MESSAGE(troupe::guest_identity)
TROUPE_LOCAL_MESSAGE(troupe::release_guest)
TROUPE_LOCAL_MESSAGE(troupe::recall_labels)
TROUPE_LOCAL_MESSAGE(troupe::load_guest_profile)
TROUPE_LOCAL_MESSAGE(troupe::emulator_wanted)
TROUPE_LOCAL_MESSAGE(troupe::list_emulators)
TROUPE_LOCAL_MESSAGE(troupe::emulator_facts_ptr)
TROUPE_LOCAL_MESSAGE(std::vector<troupe::emulator_facts_ptr>)
TROUPE_LOCAL_MESSAGE(troupe::publish_event)
TROUPE_LOCAL_MESSAGE(troupe::event_happened)
TROUPE_LOCAL_MESSAGE(troupe::subscribe)
TROUPE_LOCAL_MESSAGE(troupe::unsubscribe)
#undef TROUPE_LOCAL_MESSAGE

namespace troupe {

std::string to_string(errc code);

/// The way from the library's errors into an actor's reply.
caf::error to_caf(error why);

/// And back: any of CAF's own errors (a timeout, a receiver that died) becomes one of ours.
error from_caf(const caf::error& why);

template <class T>
caf::result<T> reply(result<T> r) {
  if (!r)
    return to_caf(std::move(r.error()));
  return std::move(*r);
}

} // namespace troupe

CAF_ERROR_CODE_ENUM(troupe::errc, "troupe")
