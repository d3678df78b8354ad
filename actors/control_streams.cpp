#include "actors/control_serve.hpp"

#include "runtime/unix_socket.hpp"

#include <optional>

namespace troupe {
namespace {

// virDomainConsoleFlags: force, safe
constexpr std::uint32_t console_flags = 1 | 2;
constexpr std::uint32_t longest_alias = 4096;

} // namespace

void serve_open_console(control_call call, xdr_reader& args) {
  const auto which = read_domain(args);
  const auto device = args.optional_string(longest_alias);
  const auto flags = args.u32();
  if (!complete(call, args) || !accept_flags(call, flags, console_flags))
    return;
  if (const auto may = call.client->may_open_stream(); !may)
    return call.refuse(may.error());
  open_console order{device.value_or(""), flags, call.client->address()};
  with_guest(call, which, [call, order](guest_entry& found) {
    ask(call, found.actor, work_within, order, [call, guest = found.actor](const console_place& at) {
      auto fd = at.socket ? connect_unix(at.path) : open_pty(at.path);
      auto went =
        fd ? call.client->open_stream(call.header, std::move(*fd), at.path, guest) : tl::make_unexpected(fd.error());
      if (went)
        return call.answer();
      call.client->self()->send(guest, close_console{at.path});
      call.refuse(went.error());
    });
  });
}

} // namespace troupe
