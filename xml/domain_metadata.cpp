#include "xml/domain_passes.hpp"
#include "xml/xml_text.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

// virDomainMetadataType
constexpr int description_type = 0;
constexpr int title_type = 1;
constexpr int element_type = 2;

error unknown_type(int type) {
  return {errc::bad_argument,
          fmt::format("unknown metadata type {}: 0 is the description, 1 the title, 2 an element", type)};
}

/// Names without a namespace of their own go into `uri`, which `key` stands for.
void put_into(xml_element& element, const std::string& key, const std::string& uri) {
  if (element.is_element() && element.uri.empty()) {
    element.name = key + ":" + element.name;
    element.uri = uri;
  }
  for (auto& each : element.children)
    put_into(each, key, uri);
}

/// The opposite.
void take_out_of(xml_element& element, const std::string& uri) {
  if (element.uri == uri) {
    element.name = element.local_name();
    element.uri.clear();
  }
  std::erase_if(element.attributes, [&](const auto& each) {
    return (each.name == "xmlns" || each.name.starts_with("xmlns:")) && each.value == uri;
  });
  for (auto& each : element.children)
    take_out_of(each, uri);
}

bool is_name(std::string_view key) {
  const auto starts = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !key.empty() && starts(key.front()) &&
         std::ranges::all_of(key, [&](char c) { return starts(c) || (c >= '0' && c <= '9') || c == '-' || c == '.'; });
}

result<void> set_element(domain& guest, const std::string* text, const std::string& key, const std::string& uri) {
  if (uri.empty())
    return fail(errc::bad_argument, "a metadata element needs the URI of its namespace");
  auto& all = guest.metadata;
  const auto has_uri = [&](const xml_element& each) { return each.uri == uri; };
  if (text == nullptr) {
    std::erase_if(all, has_uri);
    return {};
  }
  if (!is_name(key))
    return fail(errc::bad_argument,
                fmt::format("'{}' is no prefix for an XML namespace: letters, digits, '_', '-' and '.'", key));
  auto parsed = parse_xml_fragment(*text);
  if (!parsed)
    return tl::make_unexpected(error{errc::bad_xml, "(metadata_xml): " + parsed.error().detail});
  std::erase_if(all, has_uri);
  put_into(*parsed, key, uri);
  parsed->attributes.insert(parsed->attributes.begin(), {"xmlns:" + key, uri});
  all.push_back(std::move(*parsed));
  guest.has_metadata = true;
  return {};
}

} // namespace

result<void> set_metadata_of(domain& guest, int type, const std::string* text, const std::string& key,
                             const std::string& uri) {
  switch (type) {
  case description_type:
    guest.description = text != nullptr ? *text : "";
    return {};
  case title_type:
    if (text != nullptr && text->find('\n') != text->npos)
      return fail(errc::bad_argument, "Domain title can't contain newlines");
    guest.title = text != nullptr ? *text : "";
    return {};
  case element_type:
    return set_element(guest, text, key, uri);
  default:
    return tl::make_unexpected(unknown_type(type));
  }
}

result<std::string> metadata_of(const domain& guest, int type, const std::string& uri) {
  const auto given = [](const std::string& text, std::string_view what) -> result<std::string> {
    if (text.empty())
      return fail(errc::no_such_metadata,
                  fmt::format("Requested metadata element is not present: there is no {}", what));
    return text;
  };
  switch (type) {
  case description_type:
    return given(guest.description, "description");
  case title_type:
    return given(guest.title, "title");
  case element_type: {
    const auto found = std::ranges::find(guest.metadata, uri, &xml_element::uri);
    if (found == guest.metadata.end())
      return fail(errc::no_such_metadata,
                  fmt::format("Requested metadata element is not present: nothing of namespace '{}'", uri));
    auto element = *found;
    take_out_of(element, uri);
    std::string text;
    append_element(text, element, 0, quoting::double_);
    while (text.ends_with('\n'))
      text.pop_back();
    return text;
  }
  default:
    return tl::make_unexpected(unknown_type(type));
  }
}

} // namespace troupe
