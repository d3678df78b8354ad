#pragma once

#include "runtime/error.hpp"
#include "runtime/unique_fd.hpp"
#include "runtime/xdr.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace troupe {

/// libvirt's RPC programs. Version 1 of each is the only one.
inline constexpr std::uint32_t rpc_program_remote = 0x20008086;
inline constexpr std::uint32_t rpc_program_qemu = 0x20008087;
inline constexpr std::uint32_t rpc_program_keepalive = 0x6b656570;
inline constexpr std::uint32_t rpc_version = 1;

inline constexpr std::int32_t rpc_keepalive_ping = 1;
inline constexpr std::int32_t rpc_keepalive_pong = 2;

/// Bytes of a packet before its payload: length word and header.
inline constexpr std::size_t rpc_header_size = 28;
/// The largest packet with its length word, and the largest payload; stock clients drop who exceeds them.
inline constexpr std::size_t rpc_max_packet = 33'554'432 + 4;
inline constexpr std::size_t rpc_max_payload = rpc_max_packet - rpc_header_size;
/// The data of one stream packet, as libvirtd cuts it.
inline constexpr std::size_t rpc_stream_chunk = 262'120;
inline constexpr std::uint32_t rpc_max_string = 4'194'304;
inline constexpr std::uint32_t rpc_max_fds = 32;
/// Domains and most other objects in one list.
inline constexpr std::uint32_t rpc_max_list = 16'384;
/// A typed parameter's name, without its NUL.
inline constexpr std::uint32_t rpc_max_param_name = 79;

enum class rpc_type : std::uint32_t { call, reply, message, stream, call_with_fds, reply_with_fds, stream_hole };
enum class rpc_status : std::uint32_t { ok, error, more };

/// Whether descriptors follow a packet of this type.
constexpr bool carries_fds(rpc_type type) {
  return type == rpc_type::call_with_fds || type == rpc_type::reply_with_fds;
}

/// Who a packet is for and what it answers. From outside, `type` and `status` may have values that are not enumerated.
struct rpc_header {
  std::uint32_t program = rpc_program_remote;
  std::uint32_t version = rpc_version;
  std::int32_t procedure = 0;
  rpc_type type = rpc_type::call;
  std::uint32_t serial = 0;
  rpc_status status = rpc_status::ok;

  bool operator==(const rpc_header&) const = default;
};

/// The header of an answer to `call`: all of it is echoed but type and status.
constexpr rpc_header reply_to(rpc_header call, rpc_status status = rpc_status::ok, rpc_type type = rpc_type::reply) {
  call.type = type;
  call.status = status;
  return call;
}

/// One packet. `payload` starts behind the descriptor count, if there is one.
struct rpc_packet {
  rpc_header header;
  std::string payload;
  std::vector<unique_fd> fds;
};

/// What precedes a payload of `payload_bytes`: length word, header, and the descriptor count where the type has one.
/// It is for who sends head and payload from two buffers.
std::string encode_rpc_head(const rpc_header& header, std::size_t payload_bytes, std::size_t fds = 0);

/// A whole packet in one buffer. Its descriptors, if any, are sent after it, one byte each.
std::string encode_rpc(const rpc_header& header, std::string_view payload, std::size_t fds = 0);

/// Cuts what a peer sends into packets. It holds at most one packet of `most_bytes` and what was fed with its end,
/// and grows with the bytes that came, not with those announced. An error is final: the stream has no known boundary
/// any more.
class rpc_framer {
public:
  explicit rpc_framer(std::size_t most_bytes = rpc_max_packet) : most_bytes_{most_bytes} {}

  /// A lower bound for peers not yet trusted, raised afterwards. Holds at once, also for a packet half received.
  void limit(std::size_t most_bytes) { most_bytes_ = most_bytes; }

  /// Takes what one recvmsg gave: bytes, and the descriptors that came with them.
  void feed(std::string_view bytes, std::vector<unique_fd> fds = {});

  /// The next whole packet, with its descriptors; none: feed more first.
  /// Errors: bad_packet for a length out of bounds, descriptors missing, too many, or announced by no packet.
  result<std::optional<rpc_packet>> next();

  /// Bytes held that belong to no packet given out yet.
  std::size_t pending_bytes() const noexcept { return in_.size() - at_; }

private:
  void drop_used();

  std::size_t most_bytes_;
  std::string in_;
  std::size_t at_ = 0;
  std::vector<unique_fd> fds_;
};

/// How the wire names a guest. Only the UUID is a key; name and id may be stale.
struct rpc_domain {
  std::string name;
  uuid_bytes uuid{};
  std::int32_t id = -1; ///< -1: not running.

  bool operator==(const rpc_domain&) const = default;
};

void write(xdr_writer& out, const rpc_domain& domain);
rpc_domain read_domain(xdr_reader& in);

/// A named value of one of seven types; the wire's type number is the variant's index plus 1.
struct typed_param {
  using value_type = std::variant<std::int32_t, std::uint32_t, std::int64_t, std::uint64_t, double, bool, std::string>;

  std::string field; ///< At most `rpc_max_param_name` bytes.
  value_type value;

  bool operator==(const typed_param&) const = default;
};

void write(xdr_writer& out, const typed_param& param);
/// A count and the parameters.
void write(xdr_writer& out, std::span<const typed_param> params);
std::vector<typed_param> read_typed_params(xdr_reader& in, std::uint32_t most);

/// The payload of an answer with status `error`. Its message is `why.message()`, or the bare detail for bad_packet,
/// as clients look at how that begins. Cut at 64 KiB.
/// Source: libvirt's remote_error as its daemon fills it: level 2, no objects, str1 the format and str2 the detail.
std::string encode_error(const error& why);

/// The error for a procedure that has no row. Stock clients read it as "not supported" and fall back.
error unknown_procedure(const rpc_header& call);

/// "c7a5fdbd-edaf-9455-926a-d65c16db1809".
std::string format_uuid(const uuid_bytes& uuid);

/// Reads 32 hexadecimal digits in either case, hyphens between bytes being optional. Errors: bad_argument.
result<uuid_bytes> parse_uuid(std::string_view text);

} // namespace troupe
