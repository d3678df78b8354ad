#pragma once

#include "actors/connection.hpp"
#include "actors/control_methods.hpp"
#include "actors/inside.hpp"
#include "runtime/byte_pump.hpp"
#include "runtime/loop.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

/// A client's own memory. It lives on the actor's shard. The socket's and the consoles' callbacks run on that shard's
/// thread too, so never beside a handler, but outside the actor: they may send packets and set flags, while whatever
/// needs CAF goes through a `completion`.
class connection_data {
public:
  using pointer = connection_actor::pointer;

  void begin(pointer self, connection_setup setup);
  ~connection_data();

  // For the handlers of calls.
  pointer self() const { return self_; }
  const control_surroundings& around() const { return *around_; }
  const peer_credentials& peer() const { return peer_; }
  bool is_open() const { return open_; }
  bool is_read_only() const { return read_only_; }
  const std::string& uri() const { return uri_; }
  caf::strong_actor_ptr address() const { return caf::actor_cast<caf::strong_actor_ptr>(self_); }

  void opened(std::string uri, bool read_only);
  void close_after_answer();
  void start_keepalive();

  void answer(const rpc_header& call, std::string payload);
  void refuse(const rpc_header& call, const error& why);
  /// The same for what libvirt counts as an error of its RPC layer.
  void refuse_rpc(const rpc_header& call, const error& why);

  // Events.
  result<int> add_callback(int event_id, std::optional<std::string> uuid);
  result<void> drop_callback(int callback_id);
  void on_event(const guest_event& happened);

  // Consoles.
  /// Carries bytes between the client's stream, which the call at `opened_by` made, and `fd`.
  result<void> open_stream(const rpc_header& opened_by, unique_fd fd, std::string console, guest_actor guest);
  result<void> may_open_stream() const;
  void on_console_taken(const std::string& path);

private:
  struct stream_key {
    std::uint32_t program;
    std::int32_t procedure;
    std::uint32_t serial;
    auto operator<=>(const stream_key&) const = default;
  };
  struct stream_slot {
    std::unique_ptr<byte_pump> pump;
    std::string console;
    guest_actor guest;
    bool ended = false; ///< The client was told that no more comes.
  };
  struct event_callback {
    int event_id;
    std::optional<std::string> uuid; ///< Of the only guest it wants to hear of.
  };

  static stream_key key_of(const rpc_header& header) { return {header.program, header.procedure, header.serial}; }

  void on_packet(rpc_packet packet);
  void later(std::function<void()> work);
  void take_packets();
  void dispatch(rpc_packet& packet);
  void take_stream_packet(const rpc_packet& packet);
  void send_stream(const stream_key& key, rpc_status status, std::string payload);
  void drop_stream(const stream_key& key, bool tell_guest);
  void end_call();
  bool has_room() const;
  void update_reading();
  void breathe();
  void beat();
  void close(const std::string& why);

  pointer self_ = nullptr;
  caf::strong_actor_ptr keep_; ///< Nobody else may hold the actor; it ends by itself.
  std::shared_ptr<const control_surroundings> around_;
  peer_credentials peer_;
  loop* loop_ = nullptr;

  bool open_ = false;
  bool read_only_ = false;
  bool closing_ = false;
  std::string uri_; ///< As the client named it.

  std::vector<rpc_packet> inbox_; ///< Received, and not yet seen by the actor.
  std::size_t inbox_bytes_ = 0;
  std::size_t in_flight_ = 0; ///< Calls not yet answered.
  bool reading_ = true;

  std::chrono::steady_clock::time_point heard_{};
  int unanswered_pings_ = 0;
  bool pinging_ = false;

  int next_callback_ = 0;
  std::map<int, event_callback> callbacks_;
  bool subscribed_ = false;
  std::map<stream_key, stream_slot> streams_;

  // Last, so that their callbacks find the rest alive.
  std::unique_ptr<packet_stream> stream_;
  std::unique_ptr<timer> heart_, breath_;
};

} // namespace troupe
