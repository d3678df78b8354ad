#pragma once

#include "xml/xml_tree.hpp"

#include <algorithm>
#include <string>
#include <string_view>

// How names, values and text become XML: shared by the writer of trees and the writer of definitions.

namespace troupe {

/// Libvirt quotes with ' and escapes both quotes; what it copies from <metadata> is quoted as libxml2 does it.
enum class quoting : std::uint8_t { single, double_ };

constexpr bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

inline bool is_space(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return is_space(c); });
}

/// `text` without the white space around it.
inline std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_space(text.back()))
    text.remove_suffix(1);
  return text;
}

/// What stands for `c` in XML; empty when it stands for itself. A carriage return, and a line break in an attribute,
/// would be another character when read again.
constexpr std::string_view escape_of(char c, quoting how, bool in_attribute) {
  switch (c) {
  case '&':
    return "&amp;";
  case '<':
    return "&lt;";
  case '>':
    return "&gt;";
  case '\r':
    return "&#13;";
  case '\n':
    return in_attribute ? "&#10;" : "";
  case '\t':
    return in_attribute ? "&#9;" : "";
  case '"':
    return how == quoting::single || in_attribute ? "&quot;" : "";
  case '\'':
    return how == quoting::single ? "&apos;" : "";
  default:
    return "";
  }
}

inline void append_escaped(std::string& out, std::string_view value, quoting how, bool in_attribute) {
  for (std::size_t at = 0; at < value.size();) {
    const auto next = std::min(value.find_first_of("&<>\r\n\t\"'", at), value.size());
    out.append(value, at, next - at);
    if (next == value.size())
      return;
    const auto escape = escape_of(value[next], how, in_attribute);
    escape.empty() ? out.push_back(value[next]) : void(out.append(escape));
    at = next + 1;
  }
}

inline void append_text(std::string& out, std::string_view text, quoting how = quoting::single) {
  append_escaped(out, text, how, false);
}

inline void append_attribute(std::string& out, std::string_view name, std::string_view value,
                             quoting how = quoting::single) {
  const char quote = how == quoting::single ? '\'' : '"';
  out.append(" ").append(name).append("=");
  out += quote;
  append_escaped(out, value, how, true);
  out += quote;
}

/// Appends `x` as lines, `indent` levels to the right.
void append_element(std::string& out, const xml_element& x, unsigned indent, quoting how);

} // namespace troupe
