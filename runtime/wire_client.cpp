#include "runtime/wire_client.hpp"

#include "runtime/unix_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <sys/socket.h>
#include <utility>

#include <fmt/format.h>

namespace troupe {
namespace {

// Numbers of libvirt's remote program.
constexpr std::int32_t connect_open = 1;
constexpr std::int32_t auth_list = 66;
constexpr std::uint32_t open_read_only = 1;

/// Messages kept while an answer is waited for; older ones go.
constexpr std::size_t most_messages = 1024;

/// The error an answer carries, as one of ours.
error error_in(const std::string& payload) {
  xdr_reader in{payload};
  const auto code = in.i32();
  in.i32(); // domain
  auto message = in.optional_string(rpc_max_string).value_or("");
  // Of rows that share a number the one whose words the message begins with.
  auto row = std::ranges::find_if(error_rows, [&](const auto& each) {
    return each.libvirt_code == code && (each.bare || message.starts_with(each.text));
  });
  if (row == std::end(error_rows))
    row = std::ranges::find(error_rows, code, &error_row::libvirt_code);
  const auto which = row == std::end(error_rows) ? errc::operation_failed : static_cast<errc>(row - std::begin(error_rows));
  // The message repeats what the code says.
  const auto prefix = std::string{row_of(which).text} + ": ";
  if (message.starts_with(prefix))
    message.erase(0, prefix.size());
  return {which, std::move(message)};
}

} // namespace

result<std::unique_ptr<wire_client>> wire_client::open(const std::string& socket_path, std::string_view uri, bool read_only) {
  auto socket = reach_daemon(socket_path);
  if (!socket)
    return tl::make_unexpected(std::move(socket.error()));
  std::unique_ptr<wire_client> client{new wire_client{std::move(*socket)}};
  if (auto listed = client->call(auth_list, {}); !listed)
    return tl::make_unexpected(std::move(listed.error()));
  xdr_writer out;
  out.optional_string(uri.empty() ? std::nullopt : std::optional<std::string>{uri});
  out.u32(read_only ? open_read_only : 0);
  if (auto opened = client->call(connect_open, out.bytes()); !opened)
    return tl::make_unexpected(std::move(opened.error()));
  return client;
}

result<std::string> wire_client::call(std::int32_t procedure, std::string_view payload, std::uint32_t program) {
  return send(procedure, payload, program).and_then([this](std::uint32_t serial) { return answer(serial); });
}

result<std::uint32_t> wire_client::send(std::int32_t procedure, std::string_view payload, std::uint32_t program) {
  rpc_header header;
  header.program = program;
  header.procedure = procedure;
  header.serial = ++serial_;
  const auto bytes = encode_rpc(header, payload);
  for (std::string_view rest{bytes}; !rest.empty();) {
    const auto sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent < 0)
      return fail(errc::no_connect, fmt::format("the daemon went away: {}", std::strerror(errno)));
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return header.serial;
}

result<std::string> wire_client::answer(std::uint32_t serial) {
  for (;;) {
    auto packet = next_packet();
    if (!packet)
      return tl::make_unexpected(std::move(packet.error()));
    if (packet->header.type == rpc_type::message) {
      if (messages_.size() == most_messages)
        messages_.erase(messages_.begin());
      messages_.push_back(std::move(*packet));
      continue;
    }
    if (packet->header.serial != serial)
      continue;
    if (packet->header.status == rpc_status::error)
      return tl::make_unexpected(error_in(packet->payload));
    return std::move(packet->payload);
  }
}

result<rpc_packet> wire_client::next_message() {
  if (!messages_.empty()) {
    auto first = std::move(messages_.front());
    messages_.erase(messages_.begin());
    return first;
  }
  for (;;) {
    auto packet = next_packet();
    if (!packet || packet->header.type == rpc_type::message)
      return packet;
  }
}

result<rpc_packet> wire_client::next_packet() {
  for (;;) {
    auto whole = framer_.next();
    if (!whole)
      return tl::make_unexpected(std::move(whole.error()));
    if (*whole)
      return std::move(**whole);
    char buffer[65'536];
    const auto got = ::recv(socket_.get(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return fail(errc::no_connect, "the daemon closed the connection");
    framer_.feed({buffer, static_cast<std::size_t>(got)});
  }
}

} // namespace troupe
