#include "actors/control_serve.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

namespace troupe {
namespace {

// virConnectListAllDomainsFlags
constexpr std::uint32_t list_active = 1, list_inactive = 2;

// virDomainCreateFlags. There are no managed saves, so the two about them change nothing.
constexpr std::uint32_t create_paused = 1, create_autodestroy = 2, create_bypass_cache = 4, create_force_boot = 8;

// virDomainMessageType: deprecation, tainting
constexpr std::uint32_t message_types = 1 | 2;
constexpr std::size_t most_messages = 2048;

constexpr std::uint32_t monitor_hmp = 1;

/// A list of guests, as far as clients accept one.
template <class Then>
void with_list(const control_call& call, std::uint32_t flags, Then then) {
  ask(call, call.client->around().driver, look_up_within, list_guests{flags},
      [call, then](std::vector<guest_view_ptr>& found) {
        if (found.size() > rpc_max_list)
          return call.refuse({errc::internal, fmt::format("there are {} domains, and clients accept {} in one list",
                                                          found.size(), rpc_max_list)});
        then(found);
      });
}

void look_up(const control_call& call, find_guest wish) {
  ask(call, call.client->around().driver, look_up_within, std::move(wish),
      [call](const guest_entry& found) { call.answer(encode(found.view->ref)); });
}

void count(const control_call& call, const xdr_reader& args, std::uint32_t flags) {
  if (!complete(call, args))
    return;
  with_list(call, flags, [call](const std::vector<guest_view_ptr>& found) {
    xdr_writer out;
    out.i32(static_cast<std::int32_t>(found.size()));
    call.answer(out.take());
  });
}

/// The largest list a client asks for, as libvirtd bounds it.
bool accept_maximum(const control_call& call, std::int32_t most) {
  if (most >= 0 && static_cast<std::uint32_t>(most) <= rpc_max_list)
    return true;
  call.refuse(
    {errc::bad_argument, fmt::format("a list of {} domains was asked for: 0 to {} can be", most, rpc_max_list)});
  return false;
}

std::uint64_t cpu_time_of(const guest_view& view) {
  const auto usage = view.pid > 0 ? usage_of(view.pid) : fail(errc::qemu_gone, {});
  return usage ? usage->user_ns + usage->system_ns : 0; // it may have ended since the view was made
}

} // namespace

rpc_domain wire_form(const guest_ref& guest) {
  return {guest.name, parse_uuid(guest.uuid).value_or(uuid_bytes{}), guest.id};
}

std::string encode(const guest_ref& guest) {
  xdr_writer out;
  write(out, wire_form(guest));
  return out.take();
}

// ---- lists and look-ups

void serve_list_all(control_call call, xdr_reader& args) {
  const auto need_results = args.boolean();
  const auto flags = args.u32();
  if (!complete(call, args))
    return;
  with_list(call, flags, [call, need_results](const std::vector<guest_view_ptr>& found) {
    xdr_writer out;
    out.count(need_results ? found.size() : 0);
    if (need_results)
      for (const auto& each : found)
        write(out, wire_form(each->ref));
    out.u32(static_cast<std::uint32_t>(found.size()));
    call.answer(out.take());
  });
}

void serve_list_ids(control_call call, xdr_reader& args) {
  const auto most = args.i32();
  if (!complete(call, args) || !accept_maximum(call, most))
    return;
  with_list(call, list_active, [call, most](const std::vector<guest_view_ptr>& found) {
    const auto shown = std::min(found.size(), static_cast<std::size_t>(most));
    xdr_writer out;
    out.count(shown);
    for (std::size_t i = 0; i < shown; ++i)
      out.i32(found[i]->ref.id);
    call.answer(out.take());
  });
}

void serve_list_inactive(control_call call, xdr_reader& args) {
  const auto most = args.i32();
  if (!complete(call, args) || !accept_maximum(call, most))
    return;
  with_list(call, list_inactive, [call, most](const std::vector<guest_view_ptr>& found) {
    const auto shown = std::min(found.size(), static_cast<std::size_t>(most));
    xdr_writer out;
    out.count(shown);
    for (std::size_t i = 0; i < shown; ++i)
      out.string(found[i]->ref.name);
    call.answer(out.take());
  });
}

void serve_count_active(control_call call, xdr_reader& args) {
  count(call, args, list_active);
}

void serve_count_inactive(control_call call, xdr_reader& args) {
  count(call, args, list_inactive);
}

void serve_lookup_id(control_call call, xdr_reader& args) {
  const auto id = args.i32();
  if (complete(call, args))
    look_up(call, {find_guest::key::id, {}, id});
}

void serve_lookup_name(control_call call, xdr_reader& args) {
  const auto name = args.string(rpc_max_string);
  if (complete(call, args))
    look_up(call, {find_guest::key::name, std::string{name}, -1});
}

void serve_lookup_uuid(control_call call, xdr_reader& args) {
  const auto uuid = args.uuid();
  if (complete(call, args))
    look_up(call, {find_guest::key::uuid, format_uuid(uuid), -1});
}

// ---- looking at one

void write_info(xdr_writer& out, const guest_view& view) {
  out.u32(static_cast<std::uint32_t>(view.state));
  out.u64(view.max_memory_kib);
  out.u64(view.memory_kib);
  out.u32(std::min<std::uint32_t>(view.vcpus, std::numeric_limits<std::uint16_t>::max()));
  out.u64(cpu_time_of(view));
}

void write_state(xdr_writer& out, const guest_view& view) {
  out.i32(view.state);
  out.i32(view.reason);
}

void write_autostart(xdr_writer& out, const guest_view& view) {
  out.boolean(view.autostart);
}

void write_max_memory(xdr_writer& out, const guest_view& view) {
  out.u64(view.max_memory_kib);
}

void write_os_type(xdr_writer& out, const guest_view& view) {
  const auto* shown = shown_definition(view);
  out.string(shown != nullptr && !shown->os.type.empty() ? shown->os.type : "hvm");
}

void write_active(xdr_writer& out, const guest_view& view) {
  out.boolean(view.ref.id >= 0);
}

void write_persistent(xdr_writer& out, const guest_view& view) {
  out.boolean(view.persistent);
}

void write_updated(xdr_writer& out, const guest_view&) {
  out.boolean(false); // a new definition waits for the next start: the running one is never another than shown
}

void write_managed_save(xdr_writer& out, const guest_view& view) {
  out.boolean(view.managed_save);
}

void write_snapshots(xdr_writer& out, const guest_view&) {
  out.i32(0);
}

namespace {

void write_label(xdr_writer& out, const guest_label& label, bool enforced) {
  out.char4({label.process.c_str(), label.process.size() + 1});
  out.boolean(enforced);
}

} // namespace

void write_security_label(xdr_writer& out, const guest_view& view) {
  const auto label = view.labels.empty() ? guest_label{} : view.labels.front();
  write_label(out, label, !label.process.empty() && view.enforced);
}

void write_security_labels(xdr_writer& out, const guest_view& view) {
  out.u32(static_cast<std::uint32_t>(view.labels.size()));
  for (const auto& each : view.labels)
    write_label(out, each, !each.process.empty() && (view.enforced || each.model == "dac"));
  out.i32(static_cast<std::int32_t>(view.labels.size()));
}

void serve_messages(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, message_types))
    return;
  with_guest(call, which, [call](guest_entry& found) {
    const auto& messages = found.view->messages;
    xdr_writer out;
    out.count(std::min(messages.size(), most_messages));
    for (std::size_t i = 0; i < std::min(messages.size(), most_messages); ++i)
      out.string(messages[i]);
    call.answer(out.take());
  });
}

// ---- its life

void serve_create(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  if (!complete(call, args))
    return;
  with_guest(call, which, [call](guest_entry& found) {
    ask(call, found.actor, work_within, start_guest{}, [call](const guest_ref&) { call.answer(); });
  });
}

void serve_create_flags(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (!complete(call, args) ||
      !accept_flags(call, flags, create_paused | create_autodestroy | create_bypass_cache | create_force_boot))
    return;
  start_guest order;
  order.flags = flags;
  if ((flags & create_autodestroy) != 0)
    order.owner = call.client->address();
  with_guest(call, which, [call, order](guest_entry& found) {
    ask(call, found.actor, work_within, order, [call](const guest_ref& started) { call.answer(encode(started)); });
  });
}

void serve_monitor_command(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto text = args.string(rpc_max_string);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, monitor_hmp))
    return;
  monitor_command order{std::string{text}, (flags & monitor_hmp) != 0};
  with_guest(call, which, [call, order](guest_entry& found) {
    ask(call, found.actor, work_within, order, [call](const std::string& said) {
      if (said.size() > rpc_max_string)
        return call.refuse({errc::operation_failed, fmt::format("QEMU answered with {} bytes, and clients accept {}",
                                                                said.size(), rpc_max_string)});
      answer_text(call, said);
    });
  });
}

// ---- statistics

namespace {

// virDomainStatsTypes
namespace stats {
constexpr std::uint32_t state = 1, cpu = 2, balloon = 4, vcpu = 8;
constexpr std::uint32_t known = state | cpu | balloon | vcpu;
} // namespace stats

// virConnectGetAllDomainStatsFlags: the filters are those of a list; the views are always there without waiting.
constexpr std::uint32_t stats_filters = 0xff, stats_nowait = 1u << 29, stats_backing = 1u << 30,
                        stats_enforce = 1u << 31;

std::vector<typed_param> stats_of(const guest_view& view, std::uint32_t groups) {
  std::vector<typed_param> out;
  if ((groups & stats::state) != 0) {
    out.push_back({"state.state", std::int32_t{view.state}});
    out.push_back({"state.reason", std::int32_t{view.reason}});
  }
  const bool wants_usage = (groups & (stats::cpu | stats::balloon)) != 0;
  const auto usage = wants_usage && view.pid > 0 ? usage_of(view.pid) : fail(errc::qemu_gone, {});
  if ((groups & stats::cpu) != 0 && usage) {
    out.push_back({"cpu.time", std::uint64_t{usage->user_ns + usage->system_ns}});
    out.push_back({"cpu.user", std::uint64_t{usage->user_ns}});
    out.push_back({"cpu.system", std::uint64_t{usage->system_ns}});
  }
  if ((groups & stats::balloon) != 0) {
    out.push_back({"balloon.current", std::uint64_t{view.memory_kib}});
    out.push_back({"balloon.maximum", std::uint64_t{view.max_memory_kib}});
    if (usage)
      out.push_back({"balloon.rss", std::uint64_t{usage->rss_kib}});
  }
  if ((groups & stats::vcpu) != 0) {
    const auto* shown = shown_definition(view);
    out.push_back({"vcpu.current", std::uint32_t{view.vcpus}});
    out.push_back({"vcpu.maximum", std::uint32_t{shown != nullptr && shown->vcpu_max ? *shown->vcpu_max : view.vcpus}});
  }
  return out;
}

} // namespace

void serve_all_stats(control_call call, xdr_reader& args) {
  std::set<std::string> wanted;
  for (auto left = args.count(rpc_max_list, 24); left > 0 && !args.failed(); --left)
    wanted.insert(format_uuid(read_domain(args).uuid));
  const auto groups = args.u32();
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, stats_filters | stats_nowait | stats_backing | stats_enforce))
    return;
  if ((flags & stats_enforce) != 0 && (groups & ~stats::known) != 0)
    return call.refuse(
      {errc::unsupported_argument,
       fmt::format("Stats types bits {:#x} are not supported by this daemon", groups & ~stats::known)});
  with_list(call, flags & stats_filters,
            [call, wanted = std::move(wanted), groups](std::vector<guest_view_ptr>& found) {
              if (!wanted.empty())
                std::erase_if(found, [&](const auto& each) { return !wanted.contains(each->ref.uuid); });
              xdr_writer out;
              out.count(found.size());
              for (const auto& each : found) {
                write(out, wire_form(each->ref));
                write(out, std::span<const typed_param>{stats_of(*each, groups == 0 ? stats::known : groups)});
              }
              call.answer(out.take());
            });
}

} // namespace troupe
