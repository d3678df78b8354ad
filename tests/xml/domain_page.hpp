#pragma once

#include "xml/domain_description.hpp"

#include <algorithm>
#include <concepts>
#include <deque>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

// What the descriptions of xml/ say, as a tree of elements: for docs/domain-xml.md, and for tests that want to know every
// attribute there is.

namespace troupe {

struct described_attribute {
  std::string name, takes;
};

struct described_element {
  std::string name;
  std::string takes;           ///< Of the content; empty: there is none.
  bool several = false;
  bool kept = false;           ///< Nothing in it is looked at.
  bool live = false;           ///< Only a running guest has it.
  std::vector<described_attribute> attributes;
  std::deque<described_element> children; ///< A deque, as a child is held while others are added.

  described_element& child(std::string_view wanted) {
    const auto found = std::ranges::find(children, wanted, &described_element::name);
    return found != children.end() ? *found : children.emplace_back(described_element{std::string{wanted}, {}, false, false, false, {}, {}});
  }
  void attribute(std::string_view wanted, std::string what) {
    if (std::ranges::find(attributes, wanted, &described_attribute::name) == attributes.end())
      attributes.push_back({std::string{wanted}, std::move(what)});
  }
};

/// Walks the descriptions as a reader of a document that holds everything.
class describing_visitor {
public:
  static constexpr bool reads = true;
  template <class T>
  using ref = T&;

  /// Everything below `name`.
  template <class T>
  described_element walk(std::string_view name) {
    described_element root;
    root.name = name;
    at_ = &root;
    describe_all<T>();
    return root;
  }

  template <class T, class How = plain>
  void attr(std::string_view name, T& field, How how = {}) {
    at_->attribute(name, takes(field, how));
  }
  template <class T>
  void generated(std::string_view name, T& field, bool, std::string_view) {
    attr(name, field);
  }
  void secret(std::string_view name, std::string& field, bool&) { attr(name, field); }
  template <class T, class How = plain>
  void text(T& field, How how = {}) {
    at_->takes = takes(field, how);
  }
  void amount(std::optional<std::uint64_t>&, std::uint64_t, std::uint64_t default_unit, std::string_view = {}) {
    at_->attribute("unit", unit_words(default_unit));
    at_->takes = "an amount";
  }
  void amount_attr(std::string_view name, std::uint64_t&, std::uint64_t, std::uint64_t default_unit) {
    at_->attribute(name, "an amount");
    at_->attribute("unit", unit_words(default_unit));
  }

  template <class Body>
  void child(std::string_view name, Body&& body) {
    inside(name, body);
  }
  template <class Body>
  void marked(std::string_view name, bool&, Body&& body) {
    inside(name, body);
  }
  void flag(std::string_view name, bool&) {
    inside(name, [] {});
  }
  template <class T, class How = plain>
  void leaf(std::string_view name, T& field, How how = {}) {
    inside(name, [&] { text(field, how); });
  }
  template <class T>
  void part(std::string_view name, T&) {
    struct_inside<T>(name);
  }
  template <class T>
  void part(std::string_view name, std::optional<T>&) {
    struct_inside<T>(name);
  }
  template <class T, class Prepare>
  void part(std::string_view name, std::optional<T>&, Prepare&&) {
    struct_inside<T>(name);
  }
  template <class T>
  void parts(std::string_view name, std::vector<T>&) {
    struct_inside<T>(name).several = true;
  }
  template <class T, class Prepare>
  void parts(std::string_view name, std::vector<T>&, Prepare&&) {
    struct_inside<T>(name).several = true;
  }
  template <class T>
  void filled_parts(std::string_view name, std::vector<T>&) {
    struct_inside<T>(name).several = true;
  }
  void values(std::string_view name, std::string_view attribute_name, std::vector<std::string>&) {
    auto& one = at_->child(name);
    one.several = true;
    attribute_name.empty() ? (void)(one.takes = "text") : one.attribute(attribute_name, "");
  }
  void raw(std::string_view name, std::vector<xml_element>&) { at_->child(name).kept = true; }
  void metadata(bool&, std::vector<xml_element>&) { at_->child("metadata").kept = true; }
  template <class Body>
  void live(Body&& body) {
    body();
  }
  void opened() {}
  bool is_inactive() const { return false; }
  bool shows_secrets() const { return true; }
  void alias(std::string& name) {
    child("alias", [&] { attr("name", name); });
  }
  void qemu_prefix(bool) {}

private:
  static std::string unit_words(std::uint64_t default_unit) {
    return std::string{"a unit; without one "} + (default_unit == 1           ? "bytes"
                                                  : default_unit == kib_bytes ? "KiB"
                                                                              : "MiB");
  }

  template <class T>
  static std::string takes(const std::optional<T>&, auto how) {
    return takes(T{}, how);
  }
  template <class T>
  static std::string takes(const T& field, auto how) {
    if constexpr (std::same_as<T, std::string>)
      return "text";
    else if constexpr (std::integral<T>)
      return std::same_as<decltype(how), hex> ? "a number, written 0x…" : "a number";
    else
      return accepted(field, how);
  }

  template <class Body>
  described_element& inside(std::string_view name, Body&& body) {
    auto* outer = at_;
    auto& mine = outer->child(name);
    at_ = &mine;
    body();
    at_ = outer;
    return mine;
  }

  template <class T>
  described_element& struct_inside(std::string_view name) {
    return inside(name, [&] {
      const std::type_index me = typeid(T);
      if (std::ranges::find(open_, me) != open_.end())
        return; // an image below an image
      open_.push_back(me);
      describe_all<T>();
      open_.pop_back();
    });
  }

  /// Once for each kind that has attributes of its own.
  template <class T>
  void describe_all() {
    const auto with = [&](auto prepare) {
      T item;
      prepare(item);
      describe(*this, item);
    };
    if constexpr (std::same_as<T, device_address>) {
      for (std::size_t i = 0; i < names_of(address_type{}).size(); ++i)
        with([&](T& item) { item.type = static_cast<address_type>(i); });
    } else if constexpr (std::same_as<T, storage_source>) {
      for (std::size_t i = 0; i < names_of(storage_type{}).size(); ++i)
        with([&](T& item) { item.type = static_cast<storage_type>(i); });
    } else if constexpr (std::same_as<T, hostdev>) {
      for (const char* type : {"pci", "usb", "scsi"})
        with([&](T& item) { item.type = type; });
    } else if constexpr (std::same_as<T, rng_device>) {
      for (const char* backend : {"random", "egd"})
        with([&](T& item) { item.backend = backend; });
    } else {
      with([](T&) {});
    }
  }

  described_element* at_ = nullptr;
  std::vector<std::type_index> open_;
};

} // namespace troupe
