#pragma once

#include "runtime/error.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace troupe {

/// A UUID as the wire has it: 16 raw bytes, in the order of its text.
using uuid_bytes = std::array<std::uint8_t, 16>;

/// Appends XDR values (RFC 4506: big-endian, padded to 4 bytes) to one string. It cannot fail.
class xdr_writer {
public:
  xdr_writer() = default;
  explicit xdr_writer(std::size_t expected_bytes) { out_.reserve(expected_bytes); }

  void u32(std::uint32_t value) { put(value); }
  void i32(std::int32_t value) { put(static_cast<std::uint32_t>(value)); }
  void u64(std::uint64_t value) { put(value); }
  void i64(std::int64_t value) { put(static_cast<std::uint64_t>(value)); }
  void f64(double value) { put(std::bit_cast<std::uint64_t>(value)); }
  void boolean(bool value) { u32(value ? 1 : 0); }

  /// A count or length: what precedes an array's elements.
  void count(std::size_t elements) { u32(static_cast<std::uint32_t>(elements)); }

  /// The flag before an optional value, which follows only if it is there.
  void present(bool is_there) { boolean(is_there); }

  void string(std::string_view text) { opaque(text); }
  void optional_string(const std::optional<std::string>& text);
  void opaque(std::string_view bytes);

  /// Raw bytes without their length; the reader knows it.
  void fixed_opaque(std::string_view bytes);

  /// libvirt's arrays of `char`, which spend 4 bytes on each: a count, then the bytes.
  void char4(std::string_view bytes);

  /// The same with a size known to both sides: no count; cut or filled with zeros, its last element always zero.
  void fixed_char4(std::string_view text, std::size_t size);

  void uuid(const uuid_bytes& uuid);

  std::size_t size() const noexcept { return out_.size(); }
  const std::string& bytes() const noexcept { return out_; }
  std::string take() { return std::move(out_); }

private:
  template <class Unsigned>
  void put(Unsigned value);

  std::string out_;
};

/// Reads XDR values from bytes it does not own. The first value that does not fit makes it fail for good: that read
/// and all later ones give zeros and empty strings, and `done` says what was wrong. Views live as long as the bytes.
class xdr_reader {
public:
  explicit xdr_reader(std::string_view bytes) : rest_{bytes}, size_{bytes.size()} {}

  std::uint32_t u32();
  std::int32_t i32() { return static_cast<std::int32_t>(u32()); }
  std::uint64_t u64();
  std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
  double f64() { return std::bit_cast<double>(u64()); }
  bool boolean() { return u32() != 0; }

  /// The flag before an optional value. Any non-zero flag counts: go-libvirt sends it in the wrong byte order.
  bool present() { return boolean(); }

  /// The number of elements that follow, at most `most`. It fails unless the bytes left could hold them at
  /// `element_bytes` (the smallest encoding of one) each, so its answer is safe to reserve for.
  std::uint32_t count(std::uint32_t most, std::size_t element_bytes = 4);

  /// At most `most` bytes and no NUL among them, as clients and QEMU would see the text end there.
  std::string_view string(std::uint32_t most);
  std::optional<std::string> optional_string(std::uint32_t most);
  std::string_view opaque(std::uint32_t most);
  std::string_view fixed_opaque(std::size_t size);
  std::string char4(std::uint32_t most);
  /// `size` elements without a count; the text ends before the first zero.
  std::string fixed_char4(std::size_t size);
  uuid_bytes uuid();

  /// What a caller found wrong in a value it read, told by `done`. `what` is a literal.
  void refuse(const char* what);

  bool failed() const noexcept { return failed_ != nullptr; }
  std::size_t offset() const noexcept { return size_ - rest_.size(); }
  /// The bytes not yet read.
  std::string_view rest() const noexcept { return rest_; }

  /// Whether everything read was there. Bytes left over are fine, as they are to libvirtd.
  /// Errors: bad_packet, with the offset and what was wrong there.
  result<void> done() const;

private:
  std::string_view take(std::size_t bytes);
  std::string char4_elements(std::size_t elements);

  std::string_view rest_;
  std::size_t size_;
  const char* failed_ = nullptr;
  std::size_t failed_at_ = 0;
};

} // namespace troupe
