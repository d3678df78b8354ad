#include "actors/control_serve.hpp"

#include <algorithm>
#include <optional>

namespace troupe {
namespace {

// ---- what follows the callback id in each message. Source: libvirt's remote_protocol.x.

using body = xdr_writer&;
using dom = const rpc_domain&;

void put_lifecycle(body out, dom guest, const event::lifecycle& x) {
  write(out, guest);
  out.i32(x.event);
  out.i32(x.detail);
}

template <class Event>
void put_guest(body out, dom guest, const Event&) {
  write(out, guest);
}

void put_rtc_change(body out, dom guest, const event::rtc_change& x) {
  write(out, guest);
  out.i64(x.offset);
}

void put_watchdog(body out, dom guest, const event::watchdog& x) {
  write(out, guest);
  out.i32(x.action);
}

void put_io_error(body out, dom guest, const event::io_error& x) {
  write(out, guest);
  out.string(x.path);
  out.string(x.device);
  out.i32(x.action);
}

void put_io_error_reason(body out, dom guest, const event::io_error& x) {
  put_io_error(out, guest, x);
  out.string(x.reason);
}

void put_graphics(body out, dom guest, const event::graphics& x) {
  constexpr std::size_t most_subjects = 20;
  write(out, guest);
  out.i32(x.phase);
  for (const auto* end : {&x.local, &x.remote}) {
    out.i32(end->family);
    out.string(end->node);
    out.string(end->service);
  }
  out.string(x.auth_scheme);
  const auto subjects = std::min(x.subject.size(), most_subjects);
  out.count(subjects);
  for (std::size_t i = 0; i < subjects; ++i) {
    out.string(x.subject[i].first);
    out.string(x.subject[i].second);
  }
}

void put_block_job(body out, dom guest, const event::block_job& x) {
  write(out, guest);
  out.string(x.path);
  out.i32(x.type);
  out.i32(x.status);
}

void put_tray_change(body out, dom guest, const event::tray_change& x) {
  write(out, guest);
  out.string(x.device);
  out.i32(x.reason);
}

/// Power management: a reason, of which there is only the unknown one, comes before the guest.
template <class Event>
void put_reason_guest(body out, dom guest, const Event&) {
  out.i32(0);
  write(out, guest);
}

void put_balloon_change(body out, dom guest, const event::balloon_change& x) {
  write(out, guest);
  out.u64(x.actual_kib);
}

template <class Event>
void put_device(body out, dom guest, const Event& x) {
  write(out, guest);
  out.string(x.device);
}

void put_agent_lifecycle(body out, dom guest, const event::agent_lifecycle& x) {
  write(out, guest);
  out.i32(x.state);
  out.i32(x.reason);
}

void put_metadata_change(body out, dom guest, const event::metadata_change& x) {
  write(out, guest);
  out.i32(x.type);
  out.optional_string(x.uri.empty() ? std::nullopt : std::optional{x.uri});
}

void put_memory_failure(body out, dom guest, const event::memory_failure& x) {
  write(out, guest);
  out.i32(x.recipient);
  out.i32(x.action);
  out.u32(x.flags);
}

void put_memory_device_size(body out, dom guest, const event::memory_device_size& x) {
  write(out, guest);
  out.string(x.device);
  out.u64(x.size);
}

/// One row's `write`: `Put`, for the one kind of event it knows.
template <class Event, void (*Put)(body, dom, const Event&)>
bool as(body out, dom guest, const event_body& what) {
  const auto* mine = std::get_if<Event>(&what);
  if (mine != nullptr)
    Put(out, guest, *mine);
  return mine != nullptr;
}

namespace ev = event;

constexpr control_event events[] = {
  {0, 318, "DOMAIN_EVENT_CALLBACK_LIFECYCLE", as<ev::lifecycle, put_lifecycle>},
  {1, 319, "DOMAIN_EVENT_CALLBACK_REBOOT", as<ev::reboot, put_guest>},
  {2, 320, "DOMAIN_EVENT_CALLBACK_RTC_CHANGE", as<ev::rtc_change, put_rtc_change>},
  {3, 321, "DOMAIN_EVENT_CALLBACK_WATCHDOG", as<ev::watchdog, put_watchdog>},
  {4, 322, "DOMAIN_EVENT_CALLBACK_IO_ERROR", as<ev::io_error, put_io_error>},
  {5, 323, "DOMAIN_EVENT_CALLBACK_GRAPHICS", as<ev::graphics, put_graphics>},
  {6, 324, "DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON", as<ev::io_error, put_io_error_reason>},
  {7, 325, "DOMAIN_EVENT_CALLBACK_CONTROL_ERROR", as<ev::control_error, put_guest>},
  {8, 326, "DOMAIN_EVENT_CALLBACK_BLOCK_JOB", as<ev::block_job, put_block_job>},
  {9, 327, "DOMAIN_EVENT_CALLBACK_DISK_CHANGE", nullptr},
  {10, 328, "DOMAIN_EVENT_CALLBACK_TRAY_CHANGE", as<ev::tray_change, put_tray_change>},
  {11, 329, "DOMAIN_EVENT_CALLBACK_PMWAKEUP", as<ev::pm_wakeup, put_reason_guest>},
  {12, 330, "DOMAIN_EVENT_CALLBACK_PMSUSPEND", as<ev::pm_suspend, put_reason_guest>},
  {13, 331, "DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE", as<ev::balloon_change, put_balloon_change>},
  {14, 332, "DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK", as<ev::pm_suspend_disk, put_reason_guest>},
  {15, 333, "DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED", as<ev::device_removed, put_device>},
  {16, 339, "DOMAIN_EVENT_BLOCK_JOB_2", as<ev::block_job, put_block_job>},
  {17, 346, "DOMAIN_EVENT_CALLBACK_TUNABLE", nullptr},
  {18, 348, "DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE", as<ev::agent_lifecycle, put_agent_lifecycle>},
  {19, 354, "DOMAIN_EVENT_CALLBACK_DEVICE_ADDED", as<ev::device_added, put_device>},
  {20, 359, "DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION", nullptr},
  {21, 363, "DOMAIN_EVENT_CALLBACK_JOB_COMPLETED", nullptr},
  {22, 367, "DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED", as<ev::device_removal_failed, put_device>},
  {23, 379, "DOMAIN_EVENT_CALLBACK_METADATA_CHANGE", as<ev::metadata_change, put_metadata_change>},
  {24, 385, "DOMAIN_EVENT_BLOCK_THRESHOLD", nullptr},
  {25, 423, "DOMAIN_EVENT_MEMORY_FAILURE", as<ev::memory_failure, put_memory_failure>},
  {26, 438, "DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE", as<ev::memory_device_size, put_memory_device_size>},
};

// A callback's event id is the index of its row.
constexpr bool ids_are_indexes() {
  for (std::size_t i = 0; i < std::size(events); ++i)
    if (events[i].id != static_cast<int>(i))
      return false;
  return true;
}
static_assert(ids_are_indexes());

} // namespace

std::span<const control_event> control_events() {
  return events;
}

void serve_register_event(control_call call, xdr_reader& args) {
  const auto event_id = args.i32();
  std::optional<std::string> only;
  if (args.present())
    only = format_uuid(read_domain(args).uuid);
  if (!complete(call, args))
    return;
  if (event_id < 0 || static_cast<std::size_t>(event_id) >= std::size(events))
    return call.client->refuse_rpc(call.header, {errc::internal, fmt::format("unsupported event ID {}", event_id)});
  const auto callback_id = call.client->add_callback(event_id, std::move(only));
  if (!callback_id)
    return call.refuse(callback_id.error());
  xdr_writer out;
  out.i32(*callback_id);
  call.answer(out.take());
}

void serve_deregister_event(control_call call, xdr_reader& args) {
  const auto callback_id = args.i32();
  if (!complete(call, args))
    return;
  if (auto dropped = call.client->drop_callback(callback_id); !dropped)
    return call.client->refuse_rpc(call.header, dropped.error());
  call.answer();
}

} // namespace troupe
