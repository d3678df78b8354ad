#pragma once

#include "xml/domain.hpp"
#include "xml/xml_text.hpp"

#include <charconv>
#include <concepts>
#include <limits>

// Single values of a definition and how they look in XML. For each kind: `parse_value` (false: not acceptable),
// `print_value`, `is_given` (false: not written at all) and `accepted` (what an error message offers).

namespace troupe {

inline constexpr std::string_view qemu_uri = "http://libvirt.org/schemas/domain/qemu/1.0";

/// What a visitor takes a struct by: a reader by reference, a writer by const reference.
template <class V, class T>
using ref = typename V::template ref<T>;

// How a number looks where its type does not say it.
struct plain {};
struct hex { ///< "0x0010", padded to so many digits; read in any base.
  unsigned digits = 1;
};
struct nonzero {};  ///< Zero is "not given".
struct any_base {}; ///< Read in any base, written in ten.

template <class Enum>
concept worded = std::is_enum_v<Enum> && requires(Enum e) {
  names_of(e);
};

// ---- words

inline bool parse_value(std::string_view text, std::string& out, plain) {
  out = text;
  return true;
}
inline void print_value(std::string& out, const std::string& value, plain) {
  out += value;
}
inline bool is_given(const std::string& value, plain) {
  return !value.empty();
}
inline std::string accepted(const std::string&, plain) {
  return "any text";
}

template <worded Enum>
bool parse_value(std::string_view text, Enum& out, plain) {
  constexpr auto names = names_of(Enum{});
  const auto found = std::find(names.begin() + 1, names.end(), trimmed(text));
  if (found == names.end())
    return false;
  out = static_cast<Enum>(found - names.begin());
  return true;
}
template <worded Enum>
void print_value(std::string& out, Enum value, plain) {
  out += word_of(value);
}
template <worded Enum>
bool is_given(Enum value, plain) {
  return value != Enum{};
}
template <worded Enum>
std::string accepted(Enum, plain) {
  std::string all;
  for (const auto word : names_of(Enum{}))
    if (!word.empty())
      all.append(all.empty() ? "" : ", ").append(word);
  return all;
}

// ---- numbers

template <std::integral Number>
bool parse_number(std::string_view text, Number& out, int base) {
  text = trimmed(text);
  if (text.starts_with('+'))
    text.remove_prefix(1);
  if (base == 0) {
    base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
      base = 16;
      text.remove_prefix(2);
    } else if (text.size() > 1 && text.front() == '0') {
      base = 8;
    }
  }
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return ec == std::errc{} && end == text.data() + text.size();
}

template <std::integral Number>
bool parse_value(std::string_view text, Number& out, plain) {
  return parse_number(text, out, 10);
}
template <std::integral Number>
bool parse_value(std::string_view text, Number& out, nonzero) {
  return parse_number(text, out, 10);
}
template <std::integral Number>
bool parse_value(std::string_view text, Number& out, hex) {
  return parse_number(text, out, 0);
}
template <std::integral Number>
bool parse_value(std::string_view text, Number& out, any_base) {
  return parse_number(text, out, 0);
}

template <std::integral Number>
void print_number(std::string& out, Number value, int base, unsigned digits = 1) {
  char bytes[24];
  const auto end = std::to_chars(bytes, bytes + sizeof bytes, value, base).ptr;
  const auto count = static_cast<std::size_t>(end - bytes);
  if (count < digits)
    out.append(digits - count, '0');
  out.append(bytes, count);
}
template <std::integral Number>
void print_value(std::string& out, Number value, plain) {
  print_number(out, value, 10);
}
template <std::integral Number>
void print_value(std::string& out, Number value, nonzero) {
  print_number(out, value, 10);
}
template <std::integral Number>
void print_value(std::string& out, Number value, any_base) {
  print_number(out, value, 10);
}
template <std::integral Number>
void print_value(std::string& out, Number value, hex how) {
  out += "0x";
  print_number(out, value, 16, how.digits);
}

template <std::integral Number, class How>
bool is_given(Number, How) {
  return true;
}
template <std::integral Number>
bool is_given(Number value, nonzero) {
  return value != 0;
}
template <std::integral Number, class How>
std::string accepted(Number, How) {
  using limits = std::numeric_limits<Number>;
  return "a whole number from " + std::to_string(limits::min()) + " to " + std::to_string(limits::max());
}

// ---- what may be absent

template <class T, class How>
bool parse_value(std::string_view text, std::optional<T>& out, How how) {
  return parse_value(text, out.emplace(), how);
}
template <class T, class How>
void print_value(std::string& out, const std::optional<T>& value, How how) {
  print_value(out, *value, how);
}
template <class T, class How>
bool is_given(const std::optional<T>& value, How) {
  return value.has_value();
}
template <class T, class How>
std::string accepted(const std::optional<T>&, How how) {
  return accepted(T{}, how);
}

// ---- amounts of bytes

inline constexpr std::uint64_t kib_bytes = 1024, mib_bytes = 1024 * kib_bytes;

inline constexpr std::string_view accepted_units = "b, bytes, KB, k or KiB, MB, M or MiB, and so on with G, T, P and E";

/// How many bytes a unit is; 0: it is none.
inline std::uint64_t unit_bytes(std::string_view unit) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::string name;
  for (const char c : unit)
    name += lower(c);
  if (name == "b" || name == "byte" || name == "bytes")
    return 1;
  const auto power = name.empty() ? std::string_view::npos : std::string_view{"kmgtpe"}.find(name[0]);
  if (power == std::string_view::npos)
    return 0;
  const auto tail = std::string_view{name}.substr(1);
  if (!tail.empty() && tail != "b" && tail != "ib")
    return 0;
  std::uint64_t bytes = 1;
  for (std::size_t i = 0; i <= power; ++i)
    bytes *= tail == "b" ? 1000 : 1024;
  return bytes;
}

/// `amount` units as a number of `scale` bytes, rounded up; none when it does not fit.
inline std::optional<std::uint64_t> scaled(std::uint64_t amount, std::uint64_t unit, std::uint64_t scale) {
  if (amount > std::numeric_limits<std::uint64_t>::max() / unit)
    return std::nullopt;
  const auto bytes = amount * unit;
  return bytes / scale + (bytes % scale != 0 ? 1 : 0);
}

} // namespace troupe
