#include "actors/guest_data.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

// What QEMU tells without being asked, and what each means for the guest. Source of the names: QEMU's qapi/*.json.

namespace troupe {
namespace {

using json = nlohmann::json;

std::string text_of(const json& data, const char* member) {
  return data.is_object() && data.contains(member) && data[member].is_string() ? data[member].get<std::string>() : std::string{};
}

bool flag_of(const json& data, const char* member) {
  return data.is_object() && data.contains(member) && data[member].is_boolean() && data[member].get<bool>();
}

template <class Number>
Number number_of(const json& data, const char* member) {
  return data.is_object() && data.contains(member) && data[member].is_number_integer() ? data[member].get<Number>() : Number{};
}

/// The place of `word` in `words`, which are in the order of one of libvirt's enumerations; 0 when it is none of them.
template <std::size_t Size>
int place_of(const std::array<std::string_view, Size>& words, std::string_view word) {
  const auto found = std::ranges::find(words, word);
  return found == words.end() ? 0 : static_cast<int>(found - words.begin());
}

// virDomainEventWatchdogAction, virDomainEventIOErrorAction, virDomainEventGraphicsAddressType, virDomainBlockJobType,
// virDomainMemoryFailureActionType. The words are QEMU's.
constexpr auto watchdog_actions =
  std::to_array<std::string_view>({"none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"});
constexpr auto io_error_actions = std::to_array<std::string_view>({"ignore", "stop", "report"});
constexpr auto address_families = std::to_array<std::string_view>({"ipv4", "ipv6", "unix"});
constexpr auto block_job_types = std::to_array<std::string_view>({"", "stream", "mirror", "commit", "", "backup"});
constexpr auto memory_failure_actions = std::to_array<std::string_view>({"ignore", "inject", "fatal", "reset"});

constexpr int paused_by_io_error = 5, paused_by_watchdog = 6; // virDomainPausedReason

/// The disk whose image has this node name: "libvirt-2-format" is the image with index 2.
const disk* disk_of_node(const domain* live, std::string_view node) {
  constexpr std::string_view prefix = "libvirt-";
  if (live == nullptr || !node.starts_with(prefix))
    return nullptr;
  unsigned index = 0;
  if (std::from_chars(node.data() + prefix.size(), node.data() + node.size(), index).ec != std::errc{})
    return nullptr;
  const auto found = std::ranges::find_if(live->devices.disks, [&](const disk& each) { return each.source.index == index; });
  return found == live->devices.disks.end() ? nullptr : &*found;
}

event::graphics_end end_of(const json& data, const char* member) {
  const auto end = data.is_object() && data.contains(member) ? data[member] : json{};
  return {place_of(address_families, text_of(end, "family")), text_of(end, "host"), text_of(end, "service")};
}

void tell_graphics(guest_data& guest, const json& data, int phase) {
  event::graphics out{phase, end_of(data, "server"), end_of(data, "client"), {}, {}};
  const auto server = data.is_object() && data.contains("server") ? data["server"] : json{};
  out.auth_scheme = text_of(server, "auth");
  const auto client = data.is_object() && data.contains("client") ? data["client"] : json{};
  for (const auto* name : {"x509_dname", "sasl_username"})
    if (auto value = text_of(client, name); !value.empty())
      out.subject.emplace_back(std::string_view{name} == "x509_dname" ? "x509dname" : "saslUsername", std::move(value));
  guest.tell(std::move(out));
}

void tell_block_job(guest_data& guest, const json& data, int status) {
  const auto* of = disk_of_node(guest.live(), text_of(data, "device"));
  guest.tell(event::block_job{of != nullptr ? of->source.path : text_of(data, "device"),
                              place_of(block_job_types, text_of(data, "type")), status});
}

void io_error(guest_data& guest, const json& data) {
  event::io_error out;
  const auto* of = disk_of_node(guest.live(), text_of(data, "node-name"));
  out.path = of != nullptr ? of->source.path : std::string{};
  out.device = of != nullptr ? of->alias : text_of(data, "device");
  out.reason = flag_of(data, "nospace") ? "enospc" : std::string{};
  out.action = place_of(io_error_actions, text_of(data, "action"));
  if (out.action == 1)
    guest.expect_hold(paused_by_io_error);
  guest.tell(std::move(out));
}

void watchdog(guest_data& guest, const json& data) {
  const auto action = place_of(watchdog_actions, text_of(data, "action"));
  if (action == 1)
    guest.expect_hold(paused_by_watchdog);
  guest.tell(event::watchdog{action});
}

void memory_failure(guest_data& guest, const json& data) {
  const auto flags = data.is_object() && data.contains("flags") ? data["flags"] : json{};
  guest.tell(event::memory_failure{text_of(data, "recipient") == "guest" ? 1 : 0,
                                   place_of(memory_failure_actions, text_of(data, "action")),
                                   (flag_of(flags, "action-required") ? 1u : 0u) | (flag_of(flags, "recursive") ? 2u : 0u)});
}

/// The guest's agent opened or closed its port.
void port_changed(guest_data& guest, const json& data) {
  if (guest.live() == nullptr)
    return;
  for (const auto& channel : guest.live()->devices.channels)
    if (channel.alias == text_of(data, "id") && channel.target_name == "org.qemu.guest_agent.0")
      guest.tell(event::agent_lifecycle{flag_of(data, "open") ? 1 : 2, 2});
}

struct meaning {
  std::string_view name;
  void (*act)(guest_data&, const json& data);
};

constexpr meaning meanings[] = {
  {"BALLOON_CHANGE",
   [](guest_data& guest, const json& data) {
     guest.on_balloon(number_of<std::uint64_t>(data, "actual"));
     guest.tell(event::balloon_change{number_of<std::uint64_t>(data, "actual") / 1024});
   }},
  {"BLOCK_IO_ERROR", io_error},
  {"BLOCK_JOB_CANCELLED", [](guest_data& guest, const json& data) { tell_block_job(guest, data, 2); }},
  {"BLOCK_JOB_COMPLETED",
   [](guest_data& guest, const json& data) { tell_block_job(guest, data, text_of(data, "error").empty() ? 0 : 1); }},
  {"BLOCK_JOB_READY", [](guest_data& guest, const json& data) { tell_block_job(guest, data, 3); }},
  {"DEVICE_DELETED",
   [](guest_data& guest, const json& data) {
     if (auto device = text_of(data, "device"); !device.empty())
       guest.tell(event::device_removed{std::move(device)});
   }},
  {"DEVICE_TRAY_MOVED",
   [](guest_data& guest, const json& data) {
     guest.tell(event::tray_change{text_of(data, "id"), flag_of(data, "tray-open") ? 0 : 1});
   }},
  {"DEVICE_UNPLUG_GUEST_ERROR",
   [](guest_data& guest, const json& data) { guest.tell(event::device_removal_failed{text_of(data, "device")}); }},
  {"GUEST_CRASHLOADED", [](guest_data&, const json&) {}}, // its kdump kernel runs: it will reset by itself
  {"GUEST_PANICKED", [](guest_data& guest, const json&) { guest.on_panicked(); }},
  {"MEMORY_DEVICE_SIZE_CHANGE",
   [](guest_data& guest, const json& data) {
     guest.tell(event::memory_device_size{text_of(data, "id"), number_of<std::uint64_t>(data, "size")});
   }},
  {"MEMORY_FAILURE", memory_failure},
  {"RESET", [](guest_data& guest, const json&) { guest.on_reset(); }},
  {"RESUME", [](guest_data& guest, const json&) { guest.on_resumed(); }},
  {"RTC_CHANGE",
   [](guest_data& guest, const json& data) { guest.tell(event::rtc_change{number_of<std::int64_t>(data, "offset")}); }},
  {"SHUTDOWN", [](guest_data& guest, const json& data) { guest.on_powered_off(flag_of(data, "guest")); }},
  {"SPICE_CONNECTED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 0); }},
  {"SPICE_DISCONNECTED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 2); }},
  {"SPICE_INITIALIZED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 1); }},
  {"STOP", [](guest_data& guest, const json&) { guest.on_held(); }},
  {"SUSPEND", [](guest_data& guest, const json&) { guest.on_suspended_to_ram(); }},
  {"SUSPEND_DISK", [](guest_data& guest, const json&) { guest.tell(event::pm_suspend_disk{}); }},
  {"VNC_CONNECTED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 0); }},
  {"VNC_DISCONNECTED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 2); }},
  {"VNC_INITIALIZED", [](guest_data& guest, const json& data) { tell_graphics(guest, data, 1); }},
  {"VSERPORT_CHANGE", port_changed},
  {"WAKEUP", [](guest_data& guest, const json&) { guest.on_woken(); }},
  {"WATCHDOG", watchdog},
};
static_assert(std::ranges::is_sorted(meanings, {}, &meaning::name));

} // namespace

void guest_data::on_qmp(const qmp_event& said) {
  const auto row = std::ranges::lower_bound(meanings, said.name, {}, &meaning::name);
  if (row != std::end(meanings) && row->name == said.name)
    row->act(*this, said.data); // others, such as POWERDOWN and JOB_STATUS_CHANGE, tell clients nothing
}

} // namespace troupe
