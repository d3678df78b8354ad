#pragma once

#include "runtime/error.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct xml_attribute {
  std::string name;  ///< As written, with its prefix.
  std::string value;
  bool taken = false; ///< A reader has understood it.
};

/// A node of a document. An element has a name; in mixed content the text between elements is a child without one, and
/// below `<metadata>` a comment is a child named "!". Elsewhere comments and processing instructions are dropped.
struct xml_element {
  std::string name;  ///< As written, with its prefix: "qemu:arg".
  std::string uri;   ///< The namespace its prefix, or the default namespace, stands for; empty for none.
  std::string text;  ///< All of the content when there are no elements in it.
  std::vector<xml_attribute> attributes;
  std::vector<xml_element> children;
  unsigned line = 0;
  bool taken = false; ///< A reader has understood it, or at least looked inside.

  bool is_element() const { return !name.empty() && name != "!"; }
  std::string_view local_name() const;
  const std::string* attribute(std::string_view wanted) const;
  const xml_element* child(std::string_view wanted) const;
  void set(std::string_view attribute_name, std::string value);
};

/// Bounds on a document that comes from outside.
inline constexpr std::size_t most_xml_bytes = 8u << 20;
inline constexpr std::size_t most_xml_depth = 64;
inline constexpr std::size_t most_xml_nodes = 200'000; ///< Elements and attributes together.

/// Reads a document in UTF-8. No DOCTYPE, so no entities but the five of XML.
/// Errors: malformed_xml; bad_xml when it is well-formed but beyond a bound. Both name the line and the element.
result<xml_element> parse_xml(std::string_view text);

/// The same for a fragment that may use prefixes declared elsewhere.
result<xml_element> parse_xml_fragment(std::string_view text);

/// The document as libvirt formats it: two spaces a level, single quotes; `indent` levels to the right. Below metadata, attributes
/// are in double quotes. Ends with a newline.
std::string write_xml(const xml_element& root, unsigned indent = 0);

} // namespace troupe
