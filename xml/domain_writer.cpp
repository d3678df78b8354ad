#include "xml/domain_description.hpp"
#include "xml/domain_values.hpp"

namespace troupe {

namespace {

/// Writes a definition. An element that turns out to say nothing is taken back.
class writing_visitor {
public:
  static constexpr bool reads = false;
  template <class T>
  using ref = const T&;

  explicit writing_visitor(xml_options options) : options_{options} { out_.reserve(16 * 1024); }

  template <class T>
  std::string write(std::string_view name, const T& guest) {
    element(name, &guest.rest, true, [&] { describe(*this, guest); });
    return std::move(out_);
  }

  template <class T, class How = plain>
  void attr(std::string_view name, const T& field, How how = {}) {
    if (!is_given(field, how))
      return;
    scratch_.clear();
    print_value(scratch_, field, how);
    append_attribute(out_, name, scratch_);
  }

  template <class T>
  void generated(std::string_view name, const T& field, bool is_generated, std::string_view default_word) {
    if (!is_generated || !options_.inactive)
      attr(name, field);
    else if (!default_word.empty())
      append_attribute(out_, name, default_word);
  }

  void secret(std::string_view name, const std::string& field, bool given) {
    if (given && options_.secure)
      append_attribute(out_, name, field);
  }

  template <class T, class How = plain>
  void text(const T& field, How how = {}) {
    if (!is_given(field, how))
      return;
    scratch_.clear();
    print_value(scratch_, field, how);
    content(scratch_);
  }

  void amount(const std::optional<std::uint64_t>& field, std::uint64_t scale,
              [[maybe_unused]] std::uint64_t default_unit, std::string_view written_unit = {}) {
    if (!field)
      return;
    if (written_unit.empty())
      written_unit = scale == 1 ? "bytes" : "KiB";
    append_attribute(out_, "unit", written_unit);
    scratch_.clear();
    print_number(scratch_, *field * scale / unit_bytes(written_unit), 10);
    content(scratch_);
  }

  void amount_attr(std::string_view name, std::uint64_t field, std::uint64_t scale, std::uint64_t) {
    attr(name, field);
    append_attribute(out_, "unit", scale == 1 ? "bytes" : "KiB");
  }

  template <class Body>
  void child(std::string_view name, Body&& body) {
    element(name, inner(name), false, body);
  }

  template <class Body>
  void marked(std::string_view name, bool present, Body&& body) {
    if (present)
      element(name, inner(name), true, body);
  }

  void flag(std::string_view name, bool present) {
    marked(name, present, [] {});
  }

  template <class T, class How = plain>
  void leaf(std::string_view name, const T& field, How how = {}) {
    child(name, [&] { text(field, how); });
  }

  template <class T>
  void part(std::string_view name, const T& item) {
    element(name, &item.rest, false, [&] { describe(*this, item); });
  }
  template <class T>
  void part(std::string_view name, const std::optional<T>& item) {
    if (item)
      part(name, *item);
  }
  template <class T, class Prepare>
  void part(std::string_view name, const std::optional<T>& item, Prepare&&) {
    part(name, item);
  }

  template <class T>
  void parts(std::string_view name, const std::vector<T>& items) {
    for (const auto& item : items)
      element(name, &item.rest, true, [&] { describe(*this, item); });
  }
  template <class T, class Prepare>
  void parts(std::string_view name, const std::vector<T>& items, Prepare&&) {
    parts(name, items);
  }
  template <class T>
  void filled_parts(std::string_view name, const std::vector<T>& items) {
    for (const auto& item : items)
      part(name, item);
  }

  void values(std::string_view name, std::string_view attribute_name, const std::vector<std::string>& items) {
    for (const auto& item : items)
      element(name, nullptr, true, [&] {
        if (attribute_name.empty())
          content(item);
        else
          append_attribute(out_, attribute_name, item);
      });
  }

  void raw(std::string_view name, const std::vector<xml_element>& items) {
    for (const auto& item : items) {
      if (item.name != name)
        continue;
      enter_content();
      append_element(out_, item, depth_, quoting::single);
    }
  }

  void metadata(bool present, const std::vector<xml_element>& items) {
    if (!present)
      return;
    xml_element whole;
    whole.name = "metadata";
    if (const auto* mine = inner("metadata"))
      whole.attributes = mine->attributes;
    whole.children = items;
    enter_content();
    append_element(out_, whole, depth_, quoting::double_);
  }

  void opened() { enter_content(); }

  template <class Body>
  void live(Body&& body) {
    if (!options_.inactive)
      body();
  }
  bool is_inactive() const { return options_.inactive; }
  bool shows_secrets() const { return options_.secure; }

  void alias(const std::string& name) {
    if (!options_.inactive || name.starts_with("ua-"))
      child("alias", [&] { attr("name", name); });
  }

  void qemu_prefix(bool used) {
    const bool kept = rest_ != nullptr && std::ranges::any_of(rest_->inner, [](const auto& each) { return each.within.starts_with("qemu:"); });
    if (used || kept)
      append_attribute(out_, "xmlns:qemu", qemu_uri);
  }

private:
  /// The leftover of an element without a struct, which lies in that of the struct it belongs to.
  const leftover* inner(std::string_view name) const {
    if (rest_ == nullptr)
      return nullptr;
    const auto found = std::ranges::find(rest_->inner, name, &leftover::within);
    return found == rest_->inner.end() ? nullptr : &*found;
  }

  /// Closes the start tag of the element that gets its first child.
  void enter_content() {
    if (in_start_tag_)
      out_ += ">\n";
    in_start_tag_ = false;
  }

  void content(std::string_view text) {
    if (text.empty())
      return;
    out_ += '>';
    append_text(out_, text);
    in_start_tag_ = false;
    has_text_ = true;
  }

  template <class Body>
  void element(std::string_view name, const leftover* rest, bool even_empty, Body&& body) {
    const auto before = out_.size();
    const bool outer_start = in_start_tag_;
    enter_content();
    out_.append(2 * static_cast<std::size_t>(depth_), ' ').append("<").append(name);
    const auto named = out_.size();
    const auto* outer_rest = std::exchange(rest_, rest);
    in_start_tag_ = true;
    has_text_ = false;
    ++depth_;
    body();
    if (rest != nullptr)
      write_rest(*rest, named);
    --depth_;
    rest_ = outer_rest;
    if (in_start_tag_) {
      if (out_.size() == named && !even_empty) {
        out_.resize(before);
        in_start_tag_ = outer_start;
        has_text_ = false;
        return;
      }
      out_ += "/>\n";
    } else {
      if (!has_text_)
        out_.append(2 * static_cast<std::size_t>(depth_), ' ');
      out_.append("</").append(name).append(">\n");
    }
    in_start_tag_ = false;
    has_text_ = false;
  }

  void write_rest(const leftover& rest, std::size_t named) {
    if (!rest.attributes.empty()) {
      // Attributes that are not known go behind those that are, ahead of the content already written; not those that have
      // become known since, as an address's when a pass gave it its type. No value holds a quote as it is.
      const auto at = in_start_tag_ ? out_.size() : end_of_start_tag(named);
      const auto known = std::string_view{out_}.substr(named, at - named);
      std::string late;
      for (const auto& each : rest.attributes)
        if (known.find(' ' + each.name + "='") == known.npos)
          append_attribute(late, each.name, each.value);
      out_.insert(at, late);
    }
    if (!rest.text.empty() && in_start_tag_)
      content(rest.text);
    if (has_text_)
      return;
    for (const auto& each : rest.children) {
      enter_content();
      append_element(out_, each, depth_, quoting::single);
    }
  }

  /// Where the `>` of the start tag is that begins ahead of `from`; values have none, as it is escaped in them.
  std::size_t end_of_start_tag(std::size_t from) const { return out_.find('>', from); }

  xml_options options_;
  std::string out_, scratch_;
  const leftover* rest_ = nullptr;
  unsigned depth_ = 0;
  bool in_start_tag_ = false;
  bool has_text_ = false;
};

/// What every peer adds on its own: to old ones the elements themselves are news.
bool goes_without_saying(const controller& c) {
  return c.index == 0 && ((c.type == controller_type::pci && c.model == "pci-root") ||
                          (c.type == controller_type::usb && c.model == "piix3-uhci"));
}

} // namespace

std::string write_domain(const domain& guest, xml_options options) {
  if (options.migratable) {
    auto plainer = guest;
    std::erase_if(plainer.devices.controllers, goes_without_saying);
    return writing_visitor{options}.write("domain", plainer);
  }
  return writing_visitor{options}.write("domain", guest);
}

} // namespace troupe
