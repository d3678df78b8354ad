#include "xml/argv_parts.hpp"

#include "xml/domain_values.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

/// Devices that libvirt's command lines call by a name that is not in QEMU's list of types.
struct renamed_row {
  std::string_view libvirt, qemu;
  bool understood; ///< QEMU takes libvirt's name, too.
};
constexpr renamed_row renamed[] = {{"lsi", "lsi53c895a", true},
                                   {"ahci", "ich9-ahci", true},
                                   {"virtio-iommu", "virtio-iommu-pci", true},
                                   {"dc-390", "dc390", false}};

} // namespace

void argv_builder::option(const char* name, std::string value) {
  word(name);
  word(std::move(value));
}

void argv_builder::json_option(const char* name, const ordered_json& properties) {
  option(name, to_text(properties));
}

/// `properties` as `<qemu:override>` wants those of the device of that id.
ordered_json argv_builder::overridden(const ordered_json& properties) const {
  auto out = properties;
  const auto id = properties.find("id");
  for (const auto& each : guest.qemu.overrides) {
    if (id == properties.end() || each.alias != id->get_ref<const std::string&>())
      continue;
    for (const auto& change : each.frontend) {
      const auto text = change.value.value_or("");
      std::int64_t number = 0;
      std::uint64_t natural = 0;
      switch (change.type) {
      case property_kind::unset:
      case property_kind::string:
        out[change.name] = text;
        break;
      case property_kind::signed_:
        if (!parse_number(text, number, 0))
          refuse_override(each.alias, change, "a whole number");
        out[change.name] = number;
        break;
      case property_kind::unsigned_:
        if (!parse_number(text, natural, 0))
          refuse_override(each.alias, change, "a whole number from 0");
        out[change.name] = natural;
        break;
      case property_kind::bool_:
        if (text != "true" && text != "false")
          refuse_override(each.alias, change, "true or false");
        out[change.name] = text == "true";
        break;
      case property_kind::remove:
        out.erase(change.name);
      }
    }
  }
  return out;
}

void argv_builder::refuse_override(const std::string& alias, const qemu_override_property& change,
                                   std::string_view wanted) const {
  refuse(fmt::format("<qemu:property name='{}' type='{}' value='{}'> of device '{}': the value is no such thing; it "
                     "is {}",
                     change.name, word_of(change.type), change.value.value_or(""), alias, wanted));
}

void argv_builder::device(const ordered_json& given) {
  const auto properties = guest.qemu.overrides.empty() ? given : overridden(given);
  const auto& type = properties.at("driver").get_ref<const std::string&>();
  if (run.generic_taps) // libvirt translates what this QEMU lacks, too
    return json_option("-device", properties);
  const auto row = std::ranges::find(renamed, type, &renamed_row::libvirt);
  const bool other = row != std::end(renamed);
  if (!has(other ? row->qemu : type))
    refuse_device(properties);
  if (other && !row->understood) {
    auto real = properties;
    real["driver"] = row->qemu;
    return json_option("-device", real);
  }
  json_option("-device", properties);
}

void argv_builder::refuse_device(const ordered_json& properties) const {
  const auto id = properties.find("id");
  refuse(fmt::format("device '{}'{}: {} has no such device; choose another model or install the QEMU module with it",
                     properties.at("driver").get_ref<const std::string&>(),
                     id == properties.end() ? "" : fmt::format(" ('{}')", id->get_ref<const std::string&>()),
                     facts.binary.empty() ? guest.devices.emulator : facts.binary));
}

void argv_builder::refuse(std::string_view what) const {
  throw argv_refusal{{errc::unsupported_config, fmt::format("guest '{}': {}", guest.name, what)}};
}

bool argv_builder::machine_is(std::string_view family) const {
  return guest.os.machine == family || machine_name().starts_with(fmt::format("pc-{}-", family));
}

std::string argv_builder::machine_name() const {
  const auto* machine = find_machine(facts, guest.os.machine);
  return machine ? machine->name : guest.os.machine;
}

std::string argv_builder::short_name() const {
  // Twenty characters, not twenty bytes: a cut inside one would not be UTF-8.
  std::size_t end = 0;
  for (int characters = 0; end < guest.name.size(); ++end)
    if ((static_cast<unsigned char>(guest.name[end]) & 0xc0) != 0x80 && ++characters > 20)
      break;
  return fmt::format("{}-{}", run.id, guest.name.substr(0, end));
}

const controller* argv_builder::find_controller(controller_type type, int index) const {
  const auto& all = guest.devices.controllers;
  const auto found =
    std::ranges::find_if(all, [&](const auto& c) { return c.type == type && c.index.value_or(0) == index; });
  return found == all.end() ? nullptr : &*found;
}

std::string argv_builder::controller_id(controller_type type, int index) const {
  const auto* found = find_controller(type, index);
  if (found && !found->alias.empty())
    return found->alias;
  const auto word = word_of(type);
  if (type == controller_type::pci)
    return index == 0 && (found ? found->model == "pcie-root" : is_q35()) ? "pcie.0" : fmt::format("pci.{}", index);
  if (index == 0 && (type == controller_type::usb || type == controller_type::ide))
    return std::string{word};
  return fmt::format("{}{}", word, index);
}

unsigned argv_builder::boot_place(boot_device dev) const {
  const auto& boots = guest.os.boots;
  const auto found = std::ranges::find(boots, dev, &os_boot::dev);
  return found == boots.end() ? 0 : static_cast<unsigned>(found - boots.begin()) + 1;
}

std::string to_text(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == ',')
      out += c;
  }
  return out;
}

void put(ordered_json& into, const char* key, std::string_view text) {
  if (!text.empty())
    into[key] = text;
}

void put(ordered_json& into, const char* key, on_off value) {
  if (value != on_off::unset)
    into[key] = value == on_off::on;
}

void put(ordered_json& into, const char* key, yes_no value) {
  if (value != yes_no::unset)
    into[key] = value == yes_no::yes;
}

void put_word(ordered_json& into, const char* key, on_off value) {
  put(into, key, word_of(value));
}

void put_virtio(ordered_json& into, const virtio_options& options) {
  put(into, "iommu_platform", options.iommu);
  put(into, "ats", options.ats);
  put(into, "packed", options.packed);
  put(into, "page-per-vq", options.page_per_vq);
}

void put_rom(ordered_json& into, const device& of) {
  if (!of.rom)
    return;
  if (of.rom->enabled == yes_no::no) {
    into["romfile"] = "";
    return;
  }
  if (of.rom->bar != on_off::unset)
    into["rombar"] = of.rom->bar == on_off::on ? 1 : 0;
  put(into, "romfile", of.rom->file);
}

void put_address(ordered_json& into, const argv_builder& b, const device_address& at) {
  switch (at.type) {
  case address_type::pci:
    into["bus"] = b.controller_id(controller_type::pci, static_cast<int>(at.pci.bus));
    put(into, "multifunction", at.pci.multifunction);
    into["addr"] =
      at.pci.function ? fmt::format("{:#x}.{:#x}", at.pci.slot, at.pci.function) : fmt::format("{:#x}", at.pci.slot);
    return;
  case address_type::usb:
    into["bus"] = b.controller_id(controller_type::usb, static_cast<int>(at.bus)) + ".0";
    put(into, "port", at.port);
    return;
  case address_type::ccid:
    into["bus"] = b.controller_id(controller_type::ccid, static_cast<int>(at.controller)) + ".0";
    return;
  case address_type::spapr_vio:
    put(into, "reg", at.reg);
    return;
  case address_type::isa:
    put(into, "iobase", at.iobase);
    put(into, "irq", at.irq);
    return;
  case address_type::dimm:
    into["slot"] = at.slot;
    put(into, "addr", at.base);
    return;
  default:
    return;
  }
}

void put_address(ordered_json& into, const argv_builder& b, const device& of) {
  put_address(into, b, of.address);
  if (of.acpi_index && of.address.is(address_type::pci)) {
    const auto addr = into["addr"];
    into.erase("addr");
    into["acpi-index"] = *of.acpi_index;
    into["addr"] = addr;
  }
}

void put_bootindex(ordered_json& into, unsigned place) {
  if (place)
    into["bootindex"] = place;
}

std::string virtio_type(std::string_view base, const device_address& address, std::string_view model) {
  std::string type{base};
  if (address.is(address_type::ccw))
    return type + "-ccw";
  if (address.is(address_type::virtio_mmio))
    return type + "-device";
  type += "-pci";
  for (const std::string_view kind : {"-non-transitional", "-transitional"})
    if (model.ends_with(kind))
      return type + std::string{kind};
  return type;
}

ordered_json tls_credentials(const std::string& id, bool server, bool verify_peer) {
  return {{"qom-type", "tls-creds-x509"},
          {"id", id},
          {"dir", "/etc/pki/qemu"},
          {"endpoint", server ? "server" : "client"},
          {"verify-peer", verify_peer}};
}

} // namespace troupe
