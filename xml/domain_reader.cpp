#include "xml/domain_description.hpp"
#include "xml/domain_values.hpp"

#include <map>

namespace troupe {

namespace {

/// Fills a definition from a tree. After the first error nothing more is read.
class reading_visitor {
public:
  static constexpr bool reads = true;
  template <class T>
  using ref = T&;

  const std::optional<error>& failure() const { return failure_; }

  void fail_with(std::string detail, errc code = errc::bad_xml) {
    if (!failure_)
      failure_ = error{code, std::move(detail)};
  }

  /// Reads `root` into `guest`.
  template <class T>
  void read(xml_element& root, T& guest) {
    within(root, guest.rest, [&] { describe(*this, guest); });
  }

  template <class T, class How = plain>
  void attr(std::string_view name, T& field, How how = {}) {
    if (failure_)
      return;
    auto* found = attribute(name);
    if (found != nullptr && !parse_value(found->value, field, how))
      refuse(name, found->value, accepted(field, how));
  }

  /// Written with `default_word` when the guest is not running, if `generated`.
  template <class T>
  void generated(std::string_view name, T& field, bool, std::string_view) {
    attr(name, field);
  }

  /// An attribute that is written even when empty, when `given` says so.
  void secret(std::string_view name, std::string& field, bool& given) {
    given = given || (!failure_ && peek(name) != nullptr);
    attr(name, field);
  }

  template <class T, class How = plain>
  void text(T& field, How how = {}) {
    if (failure_)
      return;
    auto& top = frames_.back();
    top.text_taken = true;
    if (!parse_value(top.element->text, field, how))
      refuse({}, top.element->text, accepted(field, how));
  }

  /// The content as an amount in the unit the element names, kept as a number of `scale` bytes.
  void amount(std::optional<std::uint64_t>& field, std::uint64_t scale, std::uint64_t default_unit,
              [[maybe_unused]] std::string_view written_unit = {}) {
    if (failure_)
      return;
    auto& top = frames_.back();
    top.text_taken = true;
    field = read_amount(top.element->text, attribute("unit"), {}, scale, default_unit);
  }

  /// The same for an attribute with a unit beside it.
  void amount_attr(std::string_view name, std::uint64_t& field, std::uint64_t scale, std::uint64_t default_unit) {
    if (failure_)
      return;
    auto* unit = attribute("unit");
    if (const auto* found = attribute(name))
      field = read_amount(found->value, unit, name, scale, default_unit).value_or(0);
  }

  template <class Body>
  void child(std::string_view name, Body&& body) {
    if (auto* found = take(name))
      within_part(name, *found, body);
  }

  /// An element that counts even when it is empty.
  template <class Body>
  void marked(std::string_view name, bool& present, Body&& body) {
    if (auto* found = take(name)) {
      present = true;
      within_part(name, *found, body);
    }
  }

  void flag(std::string_view name, bool& present) {
    marked(name, present, [] {});
  }

  template <class T, class How = plain>
  void leaf(std::string_view name, T& field, How how = {}) {
    child(name, [&] { text(field, how); });
  }

  template <class T>
  void part(std::string_view name, T& item) {
    if (auto* found = take(name))
      within(*found, item.rest, [&] { describe(*this, item); });
  }

  template <class T>
  void part(std::string_view name, std::optional<T>& item) {
    part(name, item, [](T&) {});
  }
  template <class T, class Prepare>
  void part(std::string_view name, std::optional<T>& item, Prepare&& prepare) {
    auto* found = take(name);
    if (found == nullptr)
      return;
    prepare(item.emplace());
    within(*found, item->rest, [&] { describe(*this, *item); });
  }

  template <class T>
  void parts(std::string_view name, std::vector<T>& items) {
    parts(name, items, [](T&) {});
  }
  template <class T>
  void filled_parts(std::string_view name, std::vector<T>& items) {
    parts(name, items);
  }
  template <class T, class Prepare>
  void parts(std::string_view name, std::vector<T>& items, Prepare&& prepare) {
    if (failure_)
      return;
    for (auto& candidate : frames_.back().element->children) {
      if (candidate.taken || !is_named(candidate, name))
        continue;
      candidate.taken = true;
      auto& item = items.emplace_back();
      if constexpr (std::derived_from<T, device>)
        item.line = candidate.line;
      prepare(item);
      within(candidate, item.rest, [&] { describe(*this, item); });
    }
  }

  /// Elements that say one word each, in an attribute, or as content when `attribute_name` is empty.
  void values(std::string_view name, std::string_view attribute_name, std::vector<std::string>& items) {
    if (failure_)
      return;
    for (auto& candidate : frames_.back().element->children) {
      if (candidate.taken || !is_named(candidate, name))
        continue;
      const auto* said = attribute_name.empty() ? &candidate.text : candidate.attribute(attribute_name);
      if (said == nullptr)
        return refuse_missing(candidate, attribute_name);
      candidate.taken = true;
      items.push_back(*said);
    }
  }

  /// Elements that are kept as they are.
  void raw(std::string_view name, std::vector<xml_element>& items) {
    if (failure_)
      return;
    for (auto& candidate : frames_.back().element->children) {
      if (candidate.taken || !is_named(candidate, name))
        continue;
      candidate.taken = true;
      items.push_back(self_contained(candidate));
    }
  }

  /// What users keep in a definition; its own attributes are kept too.
  void metadata(bool& present, std::vector<xml_element>& items) {
    auto* found = take("metadata");
    if (found == nullptr)
      return;
    present = true;
    auto kept = self_contained(*found);
    items = std::move(kept.children);
    if (!kept.text.empty() && !is_space(kept.text))
      items.emplace_back().text = std::move(kept.text);
    if (!kept.attributes.empty()) {
      leftover mine;
      mine.within = "metadata";
      mine.attributes = std::move(kept.attributes);
      frames_.back().rest->inner.push_back(std::move(mine));
    }
  }

  void opened() {}

  template <class Body>
  void live(Body&& body) {
    body();
  }
  bool is_inactive() const { return false; }
  bool shows_secrets() const { return true; }

  void alias(std::string& name) {
    child("alias", [&] { attr("name", name); });
  }

  void qemu_prefix(bool) {}

private:
  struct frame {
    xml_element* element;
    leftover* rest;
    bool text_taken = false;
  };

  xml_attribute* peek(std::string_view name) {
    auto& all = frames_.back().element->attributes;
    const auto found = std::ranges::find(all, name, &xml_attribute::name);
    return found == all.end() ? nullptr : &*found;
  }

  xml_attribute* attribute(std::string_view name) {
    auto* found = peek(name);
    if (found != nullptr)
      found->taken = true;
    return found;
  }

  static bool is_named(const xml_element& x, std::string_view name) {
    if (name.starts_with("qemu:"))
      return x.uri == qemu_uri && x.local_name() == name.substr(5);
    return x.name == name;
  }

  /// The element of that name. Where only one may stand the first counts, as in libvirt; others are not kept.
  xml_element* take(std::string_view name) {
    if (failure_)
      return nullptr;
    xml_element* first = nullptr;
    for (auto& candidate : frames_.back().element->children)
      if (!candidate.taken && is_named(candidate, name)) {
        candidate.taken = true;
        if (first == nullptr)
          first = &candidate;
      }
    return first;
  }

  template <class Body>
  void within(xml_element& element, leftover& rest, Body&& body) {
    frames_.push_back({&element, &rest});
    body();
    if (!failure_)
      keep_the_rest();
    frames_.pop_back();
  }

  template <class Body>
  void within_part(std::string_view name, xml_element& element, Body&& body) {
    leftover mine;
    mine.within = name;
    within(element, mine, body);
    if (!mine.empty())
      frames_.back().rest->inner.push_back(std::move(mine));
  }

  void keep_the_rest() {
    auto& [element, rest, text_taken] = frames_.back();
    for (auto& each : element->attributes) {
      if (each.taken || each.name == "xmlns" || each.name.starts_with("xmlns:"))
        continue;
      declare(each.name, rest->attributes);
      rest->attributes.push_back(each);
    }
    for (auto& each : element->children)
      if (!each.taken && each.is_element())
        rest->children.push_back(self_contained(each));
    if (!text_taken && !is_space(element->text))
      rest->text = element->text;
  }

  /// Declares the prefix of `name` in `attributes`, if it has one that they lack.
  void declare(std::string_view name, std::vector<xml_attribute>& attributes) {
    const auto colon = name.find(':');
    if (colon == name.npos || name.starts_with("xmlns:") || name.starts_with("xml:"))
      return;
    const auto wanted = "xmlns:" + std::string{name.substr(0, colon)};
    if (std::ranges::find(attributes, wanted, &xml_attribute::name) != attributes.end())
      return;
    for (auto at = frames_.rbegin(); at != frames_.rend(); ++at)
      if (const auto* uri = at->element->attribute(wanted)) {
        attributes.push_back({wanted, *uri});
        return;
      }
  }

  void declare_below(const xml_element& x, std::vector<const xml_element*>& ancestors, xml_element& root) {
    ancestors.push_back(&x);
    const auto need = [&](std::string_view name) {
      const auto colon = name.find(':');
      if (colon == name.npos)
        return;
      const auto wanted = "xmlns:" + std::string{name.substr(0, colon)};
      for (const auto* ancestor : ancestors)
        if (ancestor->attribute(wanted) != nullptr)
          return;
      declare(name, root.attributes);
    };
    need(x.name);
    const auto given = x.attributes.size();
    for (std::size_t i = 0; i < given; ++i)
      need(std::string{x.attributes[i].name});
    for (const auto& each : x.children)
      if (each.is_element())
        declare_below(each, ancestors, root);
    ancestors.pop_back();
  }

  /// An element with all declarations its prefixes need, so that it can be written elsewhere.
  xml_element self_contained(xml_element& x) {
    auto moved = std::move(x);
    x.taken = true;
    std::vector<const xml_element*> ancestors;
    declare_below(moved, ancestors, moved);
    return moved;
  }

  std::optional<std::uint64_t> read_amount(std::string_view text, const xml_attribute* unit, std::string_view name,
                                           std::uint64_t scale, std::uint64_t default_unit) {
    std::uint64_t number = 0;
    if (!parse_number(text, number, 10)) {
      refuse(name, text, accepted(number, plain{}));
      return std::nullopt;
    }
    const auto bytes = unit != nullptr ? unit_bytes(trimmed(unit->value)) : default_unit;
    if (bytes == 0) {
      refuse("unit", unit->value, std::string{accepted_units}, errc::bad_argument);
      return std::nullopt;
    }
    const auto value = scaled(number, bytes, scale);
    if (!value)
      refuse(name, std::string{trimmed(text)} + (unit != nullptr ? unit->value : ""), "less than 16 EiB", errc::overflow);
    return value;
  }

  void refuse(std::string_view attribute_name, std::string_view value, const std::string& wanted,
              errc code = errc::bad_xml) {
    constexpr std::size_t most = 80; // bytes of a value that a message shows
    const auto& x = *frames_.back().element;
    auto shown = std::string{value.substr(0, most)};
    if (value.size() > most)
      shown += "...";
    const auto what = attribute_name.empty() ? "Invalid content of element '" + x.name + "'"
                                             : "Invalid value for attribute '" + std::string{attribute_name} +
                                                 "' in element '" + x.name + "'";
    fail_with(what + ": '" + shown + "' in line " + std::to_string(x.line) + ". Accepted: " + wanted, code);
  }

  void refuse_missing(const xml_element& x, std::string_view attribute_name) {
    fail_with("Missing required attribute '" + std::string{attribute_name} + "' in element '" + x.name + "' in line " +
              std::to_string(x.line));
  }

  std::vector<frame> frames_;
  std::optional<error> failure_;
};

} // namespace

result<domain> read_domain(std::string_view text) {
  auto tree = parse_xml(text);
  if (!tree)
    return tl::make_unexpected(std::move(tree.error()));
  if (tree->name != "domain")
    return fail(errc::bad_xml, "expecting root element of 'domain', not '" + tree->name + "' (line " +
                                 std::to_string(tree->line) + ")");
  domain guest;
  reading_visitor visitor;
  visitor.read(*tree, guest);
  if (visitor.failure())
    return tl::make_unexpected(*visitor.failure());
  return guest;
}

} // namespace troupe
