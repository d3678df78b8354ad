#include "runtime/rpc.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <utility>

namespace troupe {
namespace {

/// A buffer that grew beyond this is given back once it is empty.
constexpr std::size_t kept_capacity = 1'048'576;
constexpr std::size_t longest_error_text = 65'536;
constexpr std::size_t fd_count_size = 4;

/// The text cut to what an error may hold, between two UTF-8 characters.
std::string_view cut(std::string_view text) {
  if (text.size() <= longest_error_text)
    return text;
  auto end = longest_error_text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;
  return text.substr(0, end);
}

typed_param::value_type read_value(xdr_reader& in) {
  switch (in.i32()) {
  case 1:
    return in.i32();
  case 2:
    return in.u32();
  case 3:
    return in.i64();
  case 4:
    return in.u64();
  case 5:
    return in.f64();
  case 6:
    return in.boolean();
  case 7:
    return std::string{in.string(rpc_max_string)};
  }
  in.refuse("a typed parameter has a type other than 1 to 7");
  return {};
}

struct value_writer {
  xdr_writer& out;

  void operator()(std::int32_t value) const { out.i32(value); }
  void operator()(std::uint32_t value) const { out.u32(value); }
  void operator()(std::int64_t value) const { out.i64(value); }
  void operator()(std::uint64_t value) const { out.u64(value); }
  void operator()(double value) const { out.f64(value); }
  void operator()(bool value) const { out.boolean(value); }
  void operator()(const std::string& value) const { out.string(value); }
};

/// The value of a hexadecimal digit; none for other characters.
std::optional<std::uint8_t> hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f')
    return static_cast<std::uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F')
    return static_cast<std::uint8_t>(c - 'A' + 10);
  return std::nullopt;
}

} // namespace

std::string encode_rpc_head(const rpc_header& header, std::size_t payload_bytes, std::size_t fds) {
  const auto counts_fds = carries_fds(header.type);
  xdr_writer out{rpc_header_size + fd_count_size};
  out.count(rpc_header_size + (counts_fds ? fd_count_size : 0) + payload_bytes);
  out.u32(header.program);
  out.u32(header.version);
  out.i32(header.procedure);
  out.u32(static_cast<std::uint32_t>(header.type));
  out.u32(header.serial);
  out.u32(static_cast<std::uint32_t>(header.status));
  if (counts_fds)
    out.count(fds);
  return out.take();
}

std::string encode_rpc(const rpc_header& header, std::string_view payload, std::size_t fds) {
  auto packet = encode_rpc_head(header, payload.size(), fds);
  packet.append(payload);
  return packet;
}

void rpc_framer::feed(std::string_view bytes, std::vector<unique_fd> fds) {
  in_.erase(0, std::exchange(at_, 0));
  in_.append(bytes);
  std::move(fds.begin(), fds.end(), std::back_inserter(fds_));
}

result<std::optional<rpc_packet>> rpc_framer::next() {
  const auto held = std::string_view{in_}.substr(at_);
  // Descriptors come with the markers behind their packet, so more of them than markers have no packet.
  const auto wait = [this](std::size_t markers) -> result<std::optional<rpc_packet>> {
    if (fds_.size() > markers)
      return fail(errc::bad_packet, "file descriptors came that no packet announced");
    return std::nullopt;
  };
  xdr_reader in{held};
  const std::size_t length = in.u32();
  if (in.failed())
    return wait(0);
  if (length < rpc_header_size || length > most_bytes_)
    return fail(errc::bad_packet,
                fmt::format("a packet of {} bytes: {} to {} are allowed", length, rpc_header_size, most_bytes_));

  rpc_packet packet;
  packet.header.program = in.u32();
  packet.header.version = in.u32();
  packet.header.procedure = in.i32();
  packet.header.type = static_cast<rpc_type>(in.u32());
  packet.header.serial = in.u32();
  packet.header.status = static_cast<rpc_status>(in.u32());
  std::size_t fds = 0;
  std::size_t payload_at = rpc_header_size;
  if (carries_fds(packet.header.type)) {
    payload_at += fd_count_size;
    if (length < payload_at)
      return fail(errc::bad_packet, "a packet with file descriptors does not say how many");
    fds = in.u32();
    if (fds > rpc_max_fds)
      return fail(errc::bad_packet,
                  fmt::format("a packet with {} file descriptors: at most {} are allowed", fds, rpc_max_fds));
  }
  if (in.failed() || held.size() < length)
    return wait(0);
  const auto markers = std::min(held.size() - length, fds);
  if (fds_.size() < markers)
    return fail(errc::bad_packet, fmt::format("a packet with {} file descriptors came with {}", fds, fds_.size()));
  if (markers < fds)
    return wait(markers);

  packet.payload = held.substr(payload_at, length - payload_at);
  const auto last_fd = fds_.begin() + static_cast<std::ptrdiff_t>(fds);
  packet.fds.assign(std::make_move_iterator(fds_.begin()), std::make_move_iterator(last_fd));
  fds_.erase(fds_.begin(), last_fd);
  at_ += length + fds;
  drop_used();
  return packet;
}

void rpc_framer::drop_used() {
  if (at_ < in_.size())
    return;
  at_ = 0;
  if (in_.capacity() > kept_capacity)
    in_ = {};
  else
    in_.clear();
}

void write(xdr_writer& out, const rpc_domain& domain) {
  out.string(domain.name);
  out.uuid(domain.uuid);
  out.i32(domain.id);
}

rpc_domain read_domain(xdr_reader& in) {
  rpc_domain domain;
  domain.name = in.string(rpc_max_string);
  domain.uuid = in.uuid();
  domain.id = in.i32();
  return domain;
}

void write(xdr_writer& out, const typed_param& param) {
  out.string(param.field);
  out.i32(static_cast<std::int32_t>(param.value.index()) + 1);
  std::visit(value_writer{out}, param.value);
}

void write(xdr_writer& out, std::span<const typed_param> params) {
  out.count(params.size());
  for (const auto& param : params)
    write(out, param);
}

std::vector<typed_param> read_typed_params(xdr_reader& in, std::uint32_t most) {
  // The smallest is an empty name, a type and a word. In memory it is some five times as large.
  std::vector<typed_param> params(in.count(most, 12));
  for (auto& param : params) {
    param.field = in.string(rpc_max_param_name);
    param.value = read_value(in);
  }
  return params;
}

std::string encode_error(const error& why) {
  // An error without a code is a bug on our side, but code 0 would tell the client that all went well.
  const auto code = why.code == errc::none ? errc::internal : why.code;
  const auto& row = row_of(code);
  const auto detail = cut(why.detail);
  const auto bare = code == errc::bad_packet && !detail.empty();
  const auto format = bare || detail.empty() ? std::string{bare ? "%s" : row.text} : std::string{row.text} + ": %s";
  const auto message = error{code, std::string{detail}}.message();

  xdr_writer out{128 + message.size() + format.size() + detail.size()};
  out.i32(row.libvirt_code);
  out.i32(row.libvirt_domain);
  out.present(true);
  out.string(bare ? detail : std::string_view{message});
  out.i32(2);         // an error, not a warning
  out.present(false); // no domain
  out.present(true);
  out.string(format);
  out.present(!detail.empty());
  if (!detail.empty())
    out.string(detail);
  out.present(false); // no str3
  out.i32(-1);
  out.i32(-1);
  out.present(false); // no network
  return out.take();
}

error unknown_procedure(const rpc_header& call) {
  return {errc::bad_packet, fmt::format("unknown procedure: {} of program {:#x} is not supported here", call.procedure, call.program)};
}

std::string format_uuid(const uuid_bytes& uuid) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      text.push_back('-');
    text.push_back(digits[uuid[i] >> 4]);
    text.push_back(digits[uuid[i] & 15]);
  }
  return text;
}

result<uuid_bytes> parse_uuid(std::string_view text) {
  const auto refuse = [text] {
    return fail(errc::bad_argument, fmt::format("'{}' is not a UUID: 32 hexadecimal digits are needed, as in '{}'",
                                                text.substr(0, 64), "c7a5fdbd-edaf-9455-926a-d65c16db1809"));
  };
  uuid_bytes uuid{};
  std::size_t at = 0;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i > 0 && at < text.size() && text[at] == '-')
      ++at;
    if (at + 2 > text.size())
      return refuse();
    const auto high = hex_digit(text[at]);
    const auto low = hex_digit(text[at + 1]);
    if (!high || !low)
      return refuse();
    uuid[i] = static_cast<std::uint8_t>(*high << 4 | *low);
    at += 2;
  }
  if (at != text.size())
    return refuse();
  return uuid;
}

} // namespace troupe
