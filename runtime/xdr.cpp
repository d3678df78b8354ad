#include "runtime/xdr.hpp"

#include <cstring>
#include <fmt/format.h>
#include <type_traits>

namespace troupe {
namespace {

static_assert(std::endian::native == std::endian::little);

std::uint32_t swapped(std::uint32_t value) {
  return __builtin_bswap32(value);
}

std::uint64_t swapped(std::uint64_t value) {
  return __builtin_bswap64(value);
}

constexpr std::size_t padding(std::size_t bytes) {
  return (4 - bytes % 4) % 4;
}

/// What XDR calls a char: a whole signed word.
std::int32_t widened(char c) {
  return static_cast<signed char>(c);
}

} // namespace

template <class Unsigned>
void xdr_writer::put(Unsigned value) {
  const Unsigned wire = swapped(value);
  out_.append(reinterpret_cast<const char*>(&wire), sizeof wire);
}

template void xdr_writer::put(std::uint32_t);
template void xdr_writer::put(std::uint64_t);

void xdr_writer::optional_string(const std::optional<std::string>& text) {
  present(text.has_value());
  if (text)
    string(*text);
}

void xdr_writer::opaque(std::string_view bytes) {
  count(bytes.size());
  fixed_opaque(bytes);
}

void xdr_writer::fixed_opaque(std::string_view bytes) {
  out_.append(bytes);
  out_.append(padding(bytes.size()), '\0');
}

void xdr_writer::char4(std::string_view bytes) {
  count(bytes.size());
  for (const char c : bytes)
    i32(widened(c));
}

void xdr_writer::fixed_char4(std::string_view text, std::size_t size) {
  if (size == 0)
    return;
  const auto cut = text.substr(0, size - 1);
  for (const char c : cut)
    i32(widened(c));
  out_.append(4 * (size - cut.size()), '\0');
}

void xdr_writer::uuid(const uuid_bytes& uuid) {
  out_.append(reinterpret_cast<const char*>(uuid.data()), uuid.size());
}

void xdr_reader::refuse(const char* what) {
  if (failed_ != nullptr)
    return;
  failed_ = what;
  failed_at_ = offset();
}

std::string_view xdr_reader::take(std::size_t bytes) {
  if (failed_ == nullptr && bytes > rest_.size())
    refuse("the data ends too early");
  if (failed_ != nullptr)
    return {};
  const auto taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return taken;
}

std::uint32_t xdr_reader::u32() {
  std::uint32_t wire = 0;
  if (const auto bytes = take(sizeof wire); !bytes.empty())
    std::memcpy(&wire, bytes.data(), sizeof wire);
  return swapped(wire);
}

std::uint64_t xdr_reader::u64() {
  std::uint64_t wire = 0;
  if (const auto bytes = take(sizeof wire); !bytes.empty())
    std::memcpy(&wire, bytes.data(), sizeof wire);
  return swapped(wire);
}

std::uint32_t xdr_reader::count(std::uint32_t most, std::size_t element_bytes) {
  const auto elements = u32();
  if (elements > most)
    refuse("a list or string is longer than allowed");
  else if (elements > rest_.size() / element_bytes)
    refuse("a list or string is longer than the data");
  return failed_ == nullptr ? elements : 0;
}

std::string_view xdr_reader::string(std::uint32_t most) {
  const auto text = opaque(most);
  if (text.find('\0') == text.npos)
    return text;
  refuse("a string has a NUL in it");
  return {};
}

std::optional<std::string> xdr_reader::optional_string(std::uint32_t most) {
  if (!present())
    return std::nullopt;
  return std::string{string(most)};
}

std::string_view xdr_reader::opaque(std::uint32_t most) {
  return fixed_opaque(count(most, 1));
}

std::string_view xdr_reader::fixed_opaque(std::size_t size) {
  const auto bytes = take(size);
  take(padding(size));
  return failed_ == nullptr ? bytes : std::string_view{};
}

std::string xdr_reader::char4(std::uint32_t most) {
  return char4_elements(count(most));
}

std::string xdr_reader::fixed_char4(std::size_t size) {
  auto text = char4_elements(size);
  if (const auto end = text.find('\0'); end != text.npos)
    text.resize(end);
  return text;
}

std::string xdr_reader::char4_elements(std::size_t elements) {
  const auto bytes = take(4 * elements);
  std::string text;
  text.reserve(bytes.size() / 4);
  for (std::size_t at = 3; at < bytes.size(); at += 4)
    text.push_back(bytes[at]);
  return text;
}

uuid_bytes xdr_reader::uuid() {
  uuid_bytes uuid{};
  if (const auto bytes = take(uuid.size()); !bytes.empty())
    std::memcpy(uuid.data(), bytes.data(), uuid.size());
  return uuid;
}

result<void> xdr_reader::done() const {
  if (failed_ == nullptr)
    return {};
  return fail(errc::bad_packet, fmt::format("cannot decode {} bytes: at byte {} {}", size_, failed_at_, failed_));
}

} // namespace troupe
