#pragma once

#include "runtime/error.hpp"
#include "runtime/rpc.hpp"
#include "runtime/unique_fd.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// A client of libvirt's protocol over a UNIX socket, for programs that do one thing at a time: every call blocks.
class wire_client {
public:
  /// Connects and opens `uri`; an empty one is the daemon's own. Errors: no_connect, naming the socket; what `call` reports.
  static result<std::unique_ptr<wire_client>> open(const std::string& socket_path, std::string_view uri = {},
                                                   bool read_only = false);

  /// Calls a procedure and waits for its answer. Errors: the daemon's own, by its number; no_connect when it went away;
  /// bad_packet.
  result<std::string> call(std::int32_t procedure, std::string_view payload, std::uint32_t program = rpc_program_remote);

  /// The halves of `call`, for who has something to do in between. `send` gives what `answer` wants.
  result<std::uint32_t> send(std::int32_t procedure, std::string_view payload, std::uint32_t program = rpc_program_remote);
  result<std::string> answer(std::uint32_t serial);

  /// Waits for the next message that is no answer: an event. Errors: as `call`.
  result<rpc_packet> next_message();

private:
  explicit wire_client(unique_fd socket) : socket_{std::move(socket)} {}
  result<rpc_packet> next_packet();

  unique_fd socket_;
  std::uint32_t serial_ = 0;
  rpc_framer framer_;
  std::vector<rpc_packet> messages_;
};

} // namespace troupe
