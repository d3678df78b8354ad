#pragma once

#include "actors/connection_data.hpp"
#include "xml/domain.hpp"

#include <fmt/format.h>
#include <functional>

// What serves the rows of control_methods.cpp, by theme, and what these have in common.

namespace troupe {

/// How long a call waits for an actor that only looks things up.
inline constexpr std::chrono::seconds look_up_within{30};
/// For one that does something: emulators are probed, guests stop and start. Past it the client is told that the work
/// goes on.
inline constexpr std::chrono::seconds work_within{300};

/// Whether all arguments were there; if not, the call is refused.
inline bool complete(const control_call& call, const xdr_reader& args) {
  auto read = args.done();
  if (!read)
    call.refuse(read.error());
  return read.has_value();
}

/// Whether `flags` has none but `known`; if not, the call is refused in the way that makes clients try with fewer.
inline bool accept_flags(const control_call& call, std::uint32_t flags, std::uint32_t known) {
  if ((flags & ~known) == 0)
    return true;
  call.refuse({errc::bad_argument,
               fmt::format("unsupported flags ({:#x}) in function {}", flags & ~known, api_name(*call.method))});
  return false;
}

/// Asks an actor and hands its reply to `then`; an error ends the call.
template <class Handle, class Order, class Then>
void ask(const control_call& call, const Handle& whom, std::chrono::seconds limit, Order order, Then then) {
  call.client->self()->request(whom, limit, std::move(order)).then(std::move(then), [call, limit](caf::error& why) {
    if (why == caf::sec::request_timeout)
      return call.refuse({errc::timed_out, fmt::format("{} has no result after {} s and is still under way",
                                                       api_name(*call.method), limit.count())});
    call.refuse(from_caf(why));
  });
}

/// The guest a client means: only the UUID counts, as it does to libvirtd.
template <class Then>
void with_guest(const control_call& call, const rpc_domain& which, Then then) {
  find_guest wish{find_guest::key::uuid, format_uuid(which.uuid), -1};
  call.client->self()
    ->request(call.client->around().driver, look_up_within, std::move(wish))
    .then(std::move(then), [call, name = which.name](caf::error& failed) {
      auto why = from_caf(failed);
      if (why.code == errc::no_such_guest)
        why.detail += " (" + name + ")";
      call.refuse(why);
    });
}

rpc_domain wire_form(const guest_ref& guest);

/// The payload of an answer that is one guest.
std::string encode(const guest_ref& guest);

/// Answers with one string, or refuses.
inline void answer_text(const control_call& call, const result<std::string>& text) {
  if (!text)
    return call.refuse(text.error());
  xdr_writer out;
  out.string(*text);
  call.answer(out.take());
}

/// What a client that does not say "live" or "config" looks at. Null: there is none.
inline const domain* shown_definition(const guest_view& view) {
  return view.live ? view.live.get() : view.config.get();
}

// ---- rows that differ in one line

/// dom -> what `Write` finds in its view.
template <void (*Write)(xdr_writer&, const guest_view&)>
void serve_view(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  if (!complete(call, args))
    return;
  with_guest(call, which, [call](guest_entry& found) {
    xdr_writer out;
    Write(out, *found.view);
    call.answer(out.take());
  });
}

/// dom, flags -> what `Write` finds in its view.
template <void (*Write)(xdr_writer&, const guest_view&), std::uint32_t KnownFlags = 0>
void serve_view_flags(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, KnownFlags))
    return;
  with_guest(call, which, [call](guest_entry& found) {
    xdr_writer out;
    Write(out, *found.view);
    call.answer(out.take());
  });
}

/// dom -> nothing, once the guest has done `Order`.
template <class Order>
void serve_order(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  if (!complete(call, args))
    return;
  with_guest(call, which, [call](guest_entry& found) {
    ask(call, found.actor, work_within, Order{}, [call](const done&) { call.answer(); });
  });
}

/// dom, flags -> nothing, once the guest has done `Order`.
template <class Order, std::uint32_t KnownFlags>
void serve_order_flags(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, KnownFlags))
    return;
  with_guest(call, which, [call, flags](guest_entry& found) {
    Order order;
    if constexpr (requires { order.flags; })
      order.flags = flags;
    else
      static_cast<void>(flags);
    ask(call, found.actor, work_within, std::move(order), [call](const done&) { call.answer(); });
  });
}

// ---- control_connect.cpp: the connection and the host

void serve_open(control_call call, xdr_reader& args);
void serve_close(control_call call, xdr_reader& args);
void serve_type(control_call call, xdr_reader& args);
void serve_library_version(control_call call, xdr_reader& args);
void serve_hostname(control_call call, xdr_reader& args);
void serve_uri(control_call call, xdr_reader& args);
void serve_feature(control_call call, xdr_reader& args);
void serve_auth_list(control_call call, xdr_reader& args);
void serve_auth_polkit(control_call call, xdr_reader& args);
void serve_is_secure(control_call call, xdr_reader& args);
void serve_close_callback(control_call call, xdr_reader& args);
void serve_node_info(control_call call, xdr_reader& args);
void serve_free_memory(control_call call, xdr_reader& args);
void serve_cpu_map(control_call call, xdr_reader& args);
void serve_security_model(control_call call, xdr_reader& args);
void serve_cells_free_memory(control_call call, xdr_reader& args);
void serve_free_pages(control_call call, xdr_reader& args);

// ---- control_capabilities.cpp: what host and emulators can do

void serve_version(control_call call, xdr_reader& args);
void serve_capabilities(control_call call, xdr_reader& args);
void serve_domain_capabilities(control_call call, xdr_reader& args);
void serve_max_vcpus(control_call call, xdr_reader& args);
void serve_cpu_models(control_call call, xdr_reader& args);
void serve_compare_cpu(control_call call, xdr_reader& args);
void serve_baseline_cpu(control_call call, xdr_reader& args);
void serve_compare_hypervisor_cpu(control_call call, xdr_reader& args);
void serve_baseline_hypervisor_cpu(control_call call, xdr_reader& args);

// ---- control_definitions.cpp: domain XML in and out

void serve_define(control_call call, xdr_reader& args);
void serve_define_flags(control_call call, xdr_reader& args);
void serve_create_xml(control_call call, xdr_reader& args);
void serve_undefine(control_call call, xdr_reader& args);
void serve_undefine_flags(control_call call, xdr_reader& args);
void serve_xml(control_call call, xdr_reader& args);
void serve_set_autostart(control_call call, xdr_reader& args);
void serve_set_metadata(control_call call, xdr_reader& args);
void serve_get_metadata(control_call call, xdr_reader& args);
void serve_xml_to_native(control_call call, xdr_reader& args);
void serve_xml_from_native(control_call call, xdr_reader& args);

// ---- control_domains.cpp: finding guests, looking at them, and their lives

void serve_list_all(control_call call, xdr_reader& args);
void serve_list_ids(control_call call, xdr_reader& args);
void serve_count_active(control_call call, xdr_reader& args);
void serve_list_inactive(control_call call, xdr_reader& args);
void serve_count_inactive(control_call call, xdr_reader& args);
void serve_lookup_id(control_call call, xdr_reader& args);
void serve_lookup_name(control_call call, xdr_reader& args);
void serve_lookup_uuid(control_call call, xdr_reader& args);
void serve_create(control_call call, xdr_reader& args);
void serve_create_flags(control_call call, xdr_reader& args);
void serve_messages(control_call call, xdr_reader& args);
void serve_monitor_command(control_call call, xdr_reader& args);
void serve_all_stats(control_call call, xdr_reader& args);

void write_info(xdr_writer& out, const guest_view& view);
void write_state(xdr_writer& out, const guest_view& view);
void write_autostart(xdr_writer& out, const guest_view& view);
void write_max_memory(xdr_writer& out, const guest_view& view);
void write_os_type(xdr_writer& out, const guest_view& view);
void write_active(xdr_writer& out, const guest_view& view);
void write_persistent(xdr_writer& out, const guest_view& view);
void write_updated(xdr_writer& out, const guest_view& view);
void write_managed_save(xdr_writer& out, const guest_view& view);
void write_snapshots(xdr_writer& out, const guest_view& view);
void write_security_label(xdr_writer& out, const guest_view& view);
void write_security_labels(xdr_writer& out, const guest_view& view);

// ---- control_events.cpp, control_streams.cpp

void serve_register_event(control_call call, xdr_reader& args);
void serve_deregister_event(control_call call, xdr_reader& args);
void serve_open_console(control_call call, xdr_reader& args);

} // namespace troupe
