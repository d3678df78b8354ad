#include "actors/control_serve.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

namespace troupe {
namespace {

/// What clients ask by SUPPORTS_FEATURE. What is not listed is answered with no.
constexpr int feature_fd_passing = 8, feature_string_params = 9, feature_keepalive = 10, feature_callback_ids = 14,
              feature_close_callback = 15;

constexpr std::uint32_t open_read_only = 1;

constexpr std::size_t model_size = 32; // of NODE_GET_INFO

/// Whether a client that asks for `name` means this daemon. Errors: no_connect (another driver), internal (another
/// path).
result<void> check_name(std::string_view name) {
  if (name.empty())
    return {};
  const auto scheme = name.substr(0, name.find(':'));
  const auto driver = scheme.substr(0, scheme.find('+'));
  if (scheme.size() == name.size() || driver != "qemu")
    return fail(
      errc::no_connect,
      fmt::format("'{}' is not for this daemon: it serves qemu:///system and qemu:///session", name.substr(0, 256)));
  auto rest = name.substr(scheme.size() + 1);
  rest = rest.substr(0, rest.find('?'));
  if (rest == "///system" || rest == "///session")
    return {};
  return fail(errc::internal, fmt::format("unexpected QEMU URI path in '{}', try qemu:///system", name.substr(0, 256)));
}

const host_facts::security_model* main_security(const host_facts& host) {
  const auto it = std::ranges::find_if(host.security, [](const auto& each) { return each.model != "none"; });
  return it == host.security.end() ? nullptr : &*it;
}

/// A C string as arrays of `char` carry it: with its end.
void write_c_text(xdr_writer& out, const std::string& text) {
  out.char4({text.c_str(), text.size() + 1});
}

template <class Write>
void answer_with(const control_call& call, const xdr_reader& args, Write write) {
  if (!complete(call, args))
    return;
  xdr_writer out;
  write(out);
  call.answer(out.take());
}

} // namespace

// ---- the connection

void serve_open(control_call call, xdr_reader& args) {
  const auto name = args.optional_string(rpc_max_string);
  const auto flags = args.u32(); // others than bit 0 are clients' own
  if (!complete(call, args))
    return;
  if (call.client->is_open())
    return call.client->refuse_rpc(call.header, {errc::internal, "the connection is already open"});
  auto checked = check_name(name.value_or(""));
  if (!checked)
    return call.refuse(checked.error());
  call.client->opened(name.value_or(""), (flags & open_read_only) != 0);
  call.answer();
}

void serve_close(control_call call, xdr_reader& args) {
  if (!complete(call, args))
    return;
  call.answer();
  call.client->close_after_answer();
}

void serve_type(control_call call, xdr_reader& args) {
  answer_with(call, args, [](xdr_writer& out) { out.string("QEMU"); });
}

void serve_library_version(control_call call, xdr_reader& args) {
  answer_with(call, args, [&](xdr_writer& out) { out.u64(call.client->around().version); });
}

void serve_hostname(control_call call, xdr_reader& args) {
  answer_with(call, args, [&](xdr_writer& out) { out.string(call.client->around().about_host.hostname); });
}

void serve_uri(control_call call, xdr_reader& args) {
  answer_with(call, args, [&](xdr_writer& out) { out.string(call.client->uri()); });
}

void serve_feature(control_call call, xdr_reader& args) {
  const auto feature = args.i32();
  if (!complete(call, args))
    return;
  bool yes = false;
  switch (feature) {
  case feature_keepalive:
    call.client->start_keepalive(); // only who asked can be pinged
    [[fallthrough]];
  case feature_fd_passing:
  case feature_string_params:
  case feature_callback_ids:
  case feature_close_callback:
    yes = true;
    break;
  default:
    break;
  }
  xdr_writer out;
  out.boolean(yes);
  call.answer(out.take());
}

void serve_auth_list(control_call call, xdr_reader& args) {
  // Who may connect is what the socket's permissions say.
  answer_with(call, args, [](xdr_writer& out) {
    out.count(1);
    out.i32(0);
  });
}

void serve_auth_polkit(control_call call, xdr_reader& args) {
  // Some clients do not look at the list. There is nothing more to prove.
  answer_with(call, args, [](xdr_writer& out) { out.i32(1); });
}

void serve_is_secure(control_call call, xdr_reader& args) {
  answer_with(call, args, [](xdr_writer& out) { out.i32(1); });
}

void serve_close_callback(control_call call, xdr_reader& args) {
  // Nothing behind this daemon can go away before the daemon: the socket's end says it all.
  answer_with(call, args, [](xdr_writer&) {});
}

// ---- the host

void serve_node_info(control_call call, xdr_reader& args) {
  answer_with(call, args, [&](xdr_writer& out) {
    const auto& host = call.client->around().about_host;
    out.fixed_char4(host.arch, model_size);
    out.u64(host.memory_kib);
    out.i32(static_cast<std::int32_t>(host.online.size()));
    out.i32(static_cast<std::int32_t>(host.mhz));
    out.i32(static_cast<std::int32_t>(host.nodes));
    out.i32(static_cast<std::int32_t>(host.sockets));
    out.i32(static_cast<std::int32_t>(host.cores));
    out.i32(static_cast<std::int32_t>(host.threads));
  });
}

void serve_free_memory(control_call call, xdr_reader& args) {
  if (!complete(call, args))
    return;
  const auto bytes = free_memory_bytes();
  if (!bytes)
    return call.refuse(bytes.error());
  xdr_writer out;
  out.u64(*bytes);
  call.answer(out.take());
}

void serve_cpu_map(control_call call, xdr_reader& args) {
  const auto need_map = args.boolean();
  const auto need_online = args.boolean();
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0))
    return;
  const auto& host = call.client->around().about_host;
  xdr_writer out;
  out.opaque(need_map ? host.cpu_map() : std::string{});
  out.u32(need_online ? static_cast<std::uint32_t>(host.online.size()) : 0);
  out.i32(static_cast<std::int32_t>(host.cpus_present));
  call.answer(out.take());
}

void serve_security_model(control_call call, xdr_reader& args) {
  answer_with(call, args, [&](xdr_writer& out) {
    const auto* model = main_security(call.client->around().capabilities);
    write_c_text(out, model != nullptr ? model->model : "");
    write_c_text(out, model != nullptr ? model->doi : "");
  });
}

namespace {

constexpr std::uint32_t most_cells = 1024; // of both answers below

/// Whether the host has the first of the cells a client asks about; if not, the call is refused.
bool accept_first_cell(const control_call& call, int first) {
  const auto& cells = call.client->around().about_host.cells;
  const auto last = cells.empty() ? 0 : cells.back().id;
  if (first >= -1 && first <= static_cast<int>(last))
    return true;
  call.refuse({errc::internal, fmt::format("start cell {} out of range (0-{})", first, last)});
  return false;
}

} // namespace

void serve_cells_free_memory(control_call call, xdr_reader& args) {
  const auto first = args.i32();
  const auto most = args.i32();
  if (!complete(call, args) || !accept_first_cell(call, std::max(first, 0)))
    return;
  const auto& host = call.client->around().about_host;
  std::vector<std::uint64_t> all;
  for (const auto& cell : host.cells)
    if (static_cast<int>(cell.id) >= first && static_cast<int>(all.size()) < std::min(most, static_cast<int>(most_cells)))
      all.push_back(free_memory_bytes_of(host, cell.id).value_or(0));
  xdr_writer out;
  out.count(all.size());
  for (const auto bytes : all)
    out.u64(bytes);
  call.answer(out.take());
}

void serve_free_pages(control_call call, xdr_reader& args) {
  std::vector<std::uint32_t> sizes;
  for (auto left = args.count(most_cells); left > 0 && !args.failed(); --left)
    sizes.push_back(args.u32());
  const auto first = args.i32(); // -1: all cells together, which then count as the one before the first
  const auto most = args.u32();
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, 0) || !accept_first_cell(call, first))
    return;
  if (std::uint64_t{most} * sizes.size() > most_cells)
    return call.refuse({errc::bad_argument, fmt::format("{} counts asked for: at most {}", std::uint64_t{most} * sizes.size(),
                                                        most_cells)});
  const auto& host = call.client->around().about_host;
  std::vector<int> cells;
  if (first < 0)
    cells.push_back(-1);
  for (const auto& cell : host.cells)
    if (static_cast<int>(cell.id) >= first)
      cells.push_back(static_cast<int>(cell.id));
  cells.resize(std::min<std::size_t>(cells.size(), most));
  std::vector<std::uint64_t> counts;
  for (const auto cell : cells)
    for (const auto size : sizes) {
      const auto free = free_pages_of(host, size, cell);
      if (!free)
        return call.refuse(free.error());
      counts.push_back(*free);
    }
  xdr_writer out;
  out.count(counts.size());
  for (const auto free : counts)
    out.u64(free);
  call.answer(out.take());
}

} // namespace troupe
