#include "actors/connection_data.hpp"

#include "actors/loop_scheduler.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;

// Bounds on what one client may have us hold. Beyond the first ones it is not read, and so has to wait.
constexpr std::size_t most_calls = 256;
constexpr std::size_t most_inbox_bytes = 4u << 20;
constexpr std::size_t most_unread_bytes = 4u << 20;
constexpr std::size_t most_console_backlog = 256u << 10;
/// Output of a console waits in its PTY while this much has not been taken by the client.
constexpr std::size_t most_stream_bytes = 1u << 20;
constexpr std::size_t most_callbacks = 1024;
constexpr std::size_t most_streams = 64;
/// A stranger's packets: whom we do not know yet sends nothing large.
constexpr std::size_t most_bytes_before_open = 64u << 10;

/// How often a client that does not read is looked at again.
constexpr auto breath = 20ms;
/// As libvirtd: a ping after so long a silence, and the end after so many without an answer.
constexpr auto ping_after = 5s;
constexpr int most_unanswered_pings = 5;
/// A client that closes gets its last answer within this, or never.
constexpr auto flush_within = 5s;

/// An error of libvirt's RPC layer, whatever its code: domain 7 is what clients look at.
std::string encode_rpc_error(const error& why) {
  xdr_writer domain;
  domain.i32(row_of(errc::bad_packet).libvirt_domain);
  return encode_error(why).replace(4, 4, domain.bytes());
}

bool is_call(rpc_type type) {
  return type == rpc_type::call || type == rpc_type::call_with_fds;
}

bool is_known_program(std::uint32_t program) {
  return program == rpc_program_remote || program == rpc_program_qemu || program == rpc_program_keepalive;
}

} // namespace

void control_call::answer(std::string payload) const {
  client->answer(header, std::move(payload));
}

void control_call::refuse(const error& why) const {
  client->refuse(header, why);
}

// ---- life

void connection_data::begin(pointer self, connection_setup setup) {
  self_ = self;
  keep_ = caf::actor_cast<caf::strong_actor_ptr>(self);
  around_ = std::move(setup.around);
  read_only_ = setup.read_only;
  peer_ = setup.peer;
  uri_ = around_->uri;
  heard_ = std::chrono::steady_clock::now();
  loop_ = &loop_scheduler::of(self->system()).loop_of(self->id());
  self_->monitor(around_->driver); // without it there is nothing to serve
  heart_ = std::make_unique<timer>(*loop_);
  breath_ = std::make_unique<timer>(*loop_);
  packet_limits limits;
  limits.packet_bytes = most_bytes_before_open;
  stream_ = std::make_unique<packet_stream>(
    *loop_, std::move(*setup.socket),
    packet_stream::callbacks{[this](rpc_packet packet) { on_packet(std::move(packet)); },
                             [this](const std::string& why) { close(why); }},
    limits);
}

connection_data::~connection_data() {
  for (const auto& [key, each] : streams_)
    caf::anon_send(each.guest, close_console{each.console});
}

/// Runs `work` inside the actor. Called from callbacks, where CAF must not be used otherwise.
void connection_data::later(std::function<void()> work) {
  caf::anon_send(connection_actor{self_}, completion{std::move(work)});
}

void connection_data::close(const std::string& why) {
  spdlog::debug("client {} (pid {}): {}", self_->id(), peer_.pid, why);
  stream_->close_after_flush();
  closing_ = true;
  later([this] { self_->quit(); });
}

void connection_data::opened(std::string uri, bool read_only) {
  open_ = true;
  read_only_ = read_only_ || read_only;
  if (!uri.empty())
    uri_ = std::move(uri);
  stream_->limit_packets(rpc_max_packet);
}

void connection_data::close_after_answer() {
  closing_ = true;
  callbacks_.clear();
  stream_->close_after_flush();
  heart_->start(flush_within, [this] { close("it does not read its last answers"); });
}

// ---- packets

void connection_data::on_packet(rpc_packet packet) {
  heard_ = std::chrono::steady_clock::now();
  unanswered_pings_ = 0;
  if (packet.header.program == rpc_program_keepalive && packet.header.version == rpc_version &&
      packet.header.type == rpc_type::message) {
    // Answered here, so that it waits for no handler.
    if (packet.header.procedure == rpc_keepalive_ping) {
      auto pong = packet.header;
      pong.procedure = rpc_keepalive_pong;
      static_cast<void>(stream_->send(pong, {}));
    }
    return;
  }
  const bool first = inbox_.empty();
  inbox_bytes_ += packet.payload.size();
  inbox_.push_back(std::move(packet));
  update_reading();
  if (first)
    later([this] { take_packets(); });
}

void connection_data::take_packets() {
  auto packets = std::exchange(inbox_, {});
  inbox_bytes_ = 0;
  for (auto& packet : packets) {
    if (closing_)
      break;
    dispatch(packet);
  }
  if (inbox_.empty()) {
    packets.clear();
    inbox_ = std::move(packets); // the room is used again
  }
  update_reading();
}

void connection_data::dispatch(rpc_packet& packet) {
  const auto& header = packet.header;
  if (header.type == rpc_type::stream || header.type == rpc_type::stream_hole)
    return take_stream_packet(packet);
  if (!is_call(header.type))
    return;
  ++in_flight_;
  if (!is_known_program(header.program) || header.version != rpc_version)
    return refuse(header, {errc::bad_packet,
                           fmt::format("program {:#x} version {} is not served here", header.program, header.version)});
  if (header.status != rpc_status::ok)
    return refuse(header, {errc::bad_packet,
                           fmt::format("a call with status {} is none", static_cast<std::uint32_t>(header.status))});
  const auto* method = find_method(header.program, header.procedure);
  if (method == nullptr)
    return refuse(header, unknown_procedure(header));
  if (method->from == stage::open && !open_)
    return refuse_rpc(header, {errc::internal, fmt::format("{} came before the connection was opened", method->name)});
  if (method->needs == access::change && read_only_)
    return refuse(header, {errc::read_only, "read only access prevents " + api_name(*method)});
  xdr_reader args{packet.payload};
  method->serve({this, method, header}, args);
}

void connection_data::answer(const rpc_header& call, std::string payload) {
  if (auto sent = stream_->send(reply_to(call), std::move(payload)); !sent)
    static_cast<void>(stream_->send(reply_to(call, rpc_status::error), encode_error(sent.error())));
  end_call();
}

void connection_data::refuse(const rpc_header& call, const error& why) {
  static_cast<void>(stream_->send(reply_to(call, rpc_status::error), encode_error(why)));
  end_call();
}

void connection_data::refuse_rpc(const rpc_header& call, const error& why) {
  static_cast<void>(stream_->send(reply_to(call, rpc_status::error), encode_rpc_error(why)));
  end_call();
}

void connection_data::end_call() {
  --in_flight_;
  update_reading();
}

/// Whether more of the client's wishes fit in.
bool connection_data::has_room() const {
  return in_flight_ + inbox_.size() < most_calls && inbox_bytes_ < most_inbox_bytes &&
         stream_->queued_bytes() < most_unread_bytes && std::ranges::none_of(streams_, [](const auto& each) {
           return each.second.pump->queued_bytes() > most_console_backlog;
         });
}

void connection_data::update_reading() {
  if (has_room() == reading_)
    return;
  reading_ = !reading_;
  if (reading_) {
    heard_ = std::chrono::steady_clock::now();
    return stream_->resume();
  }
  stream_->pause();
  breathe();
}

/// Answers and drained consoles make room at once; that a client has begun to read again is only found by looking.
void connection_data::breathe() {
  breath_->start(breath, [this] {
    update_reading();
    bool waits = !reading_;
    for (auto& [key, each] : streams_) {
      if (stream_->queued_bytes() <= most_stream_bytes)
        each.pump->resume();
      waits = waits || each.pump->is_paused();
    }
    if (waits)
      breathe();
  });
}

// ---- keepalive

void connection_data::start_keepalive() {
  if (std::exchange(pinging_, true))
    return;
  heart_->start(ping_after, [this] { beat(); });
}

void connection_data::beat() {
  if (closing_)
    return;
  // While it is not read it cannot be heard.
  const auto silence = reading_ ? std::chrono::steady_clock::now() - heard_ : 0s;
  if (silence >= ping_after) {
    if (unanswered_pings_ == most_unanswered_pings)
      return close(fmt::format("it has not answered {} keepalive pings", most_unanswered_pings));
    ++unanswered_pings_;
    rpc_header ping;
    ping.program = rpc_program_keepalive;
    ping.procedure = rpc_keepalive_ping;
    ping.type = rpc_type::message;
    static_cast<void>(stream_->send(ping, {}));
  }
  heart_->start(ping_after, [this] { beat(); });
}

// ---- events

result<int> connection_data::add_callback(int event_id, std::optional<std::string> uuid) {
  if (callbacks_.size() >= most_callbacks)
    return fail(errc::busy,
                fmt::format("{} event callbacks are registered, the most one client may have", callbacks_.size()));
  if (!std::exchange(subscribed_, true))
    self_->send(around_->events, subscribe{address()});
  callbacks_.emplace(next_callback_, event_callback{event_id, std::move(uuid)});
  return next_callback_++;
}

result<void> connection_data::drop_callback(int callback_id) {
  if (callbacks_.erase(callback_id) == 0)
    return fail(errc::internal, fmt::format("no event callback {} is registered", callback_id));
  if (callbacks_.empty() && std::exchange(subscribed_, false))
    self_->send(around_->events, unsubscribe{address()});
  return {};
}

void connection_data::on_event(const guest_event& happened) {
  if (closing_ || callbacks_.empty())
    return;
  const rpc_domain guest{happened.guest.name, parse_uuid(happened.guest.uuid).value_or(uuid_bytes{}),
                         happened.guest.id};
  const auto kinds = control_events();
  for (const auto& [callback_id, wish] : callbacks_) {
    const auto& kind = kinds[static_cast<std::size_t>(wish.event_id)];
    if (kind.write == nullptr || (wish.uuid && *wish.uuid != happened.guest.uuid))
      continue;
    xdr_writer out;
    out.i32(callback_id);
    if (!kind.write(out, guest, happened.what))
      continue;
    rpc_header header;
    header.procedure = kind.number;
    header.type = rpc_type::message;
    header.serial = 1; // as libvirtd
    static_cast<void>(stream_->send(header, out.take()));
  }
}

// ---- streams

result<void> connection_data::may_open_stream() const {
  if (streams_.size() >= most_streams)
    return fail(errc::busy, fmt::format("{} streams are open, the most one client may have", streams_.size()));
  return {};
}

result<void> connection_data::open_stream(const rpc_header& opened_by, unique_fd fd, std::string console,
                                          guest_actor guest) {
  const auto key = key_of(opened_by);
  if (streams_.contains(key))
    return fail(errc::bad_packet, fmt::format("a stream with serial {} is open already", key.serial));
  byte_pump::callbacks calls;
  calls.on_bytes = [this, key](std::string_view bytes) {
    send_stream(key, rpc_status::more, std::string{bytes});
    if (const auto it = streams_.find(key); it != streams_.end() && stream_->queued_bytes() > most_stream_bytes) {
      it->second.pump->pause();
      breathe();
    }
  };
  calls.on_drained = [this] { update_reading(); };
  calls.on_ended = [this, key](const std::string&) {
    if (const auto it = streams_.find(key); it != streams_.end() && !std::exchange(it->second.ended, true))
      send_stream(key, rpc_status::more, {}); // no more comes; the client finishes
  };
  auto& slot = streams_[key];
  slot.console = std::move(console);
  slot.guest = std::move(guest);
  slot.pump = std::make_unique<byte_pump>(*loop_, std::move(fd), std::move(calls));
  return {};
}

void connection_data::send_stream(const stream_key& key, rpc_status status, std::string payload) {
  static_cast<void>(
    stream_->send({key.program, rpc_version, key.procedure, rpc_type::stream, key.serial, status}, std::move(payload)));
}

void connection_data::drop_stream(const stream_key& key, bool tell_guest) {
  const auto it = streams_.find(key);
  if (it == streams_.end())
    return;
  if (tell_guest)
    self_->send(it->second.guest, close_console{it->second.console});
  streams_.erase(it);
  update_reading();
}

void connection_data::take_stream_packet(const rpc_packet& packet) {
  const auto key = key_of(packet.header);
  const auto it = streams_.find(key);
  if (it == streams_.end())
    return; // of a stream that ended meanwhile
  if (packet.header.type == rpc_type::stream && packet.header.status == rpc_status::more)
    return it->second.pump->write(packet.payload);
  if (packet.header.type == rpc_type::stream &&
      (packet.header.status == rpc_status::ok || packet.header.status == rpc_status::error)) {
    drop_stream(key, true);
    return send_stream(key, rpc_status::ok, {});
  }
  drop_stream(key, true);
  send_stream(key, rpc_status::error, encode_error({errc::bad_packet, "this stream has no holes, and no such status"}));
}

void connection_data::on_console_taken(const std::string& path) {
  for (const auto& [key, each] : streams_)
    if (each.console == path) {
      send_stream(key, rpc_status::error,
                  encode_error({errc::aborted, "another user took over console '" + path + "'"}));
      return drop_stream(key, false); // the guest has it down as the other's
    }
}

connection_actor::behavior_type connection(connection_actor::stateful_pointer<connection_data> self,
                                           connection_setup setup) {
  self->set_down_handler([self](const caf::down_msg&) { self->quit(); });
  self->state.begin(self, std::move(setup));
  return {
    [self](const event_happened& x) { self->state.on_event(*x.event); },
    [self](const close_console& x) { self->state.on_console_taken(x.path); },
    [](const completion& x) { x.run(); },
  };
}

connection_actor spawn_connection(caf::actor_system& system, connection_setup setup) {
  return system.spawn(connection, std::move(setup));
}

} // namespace troupe
