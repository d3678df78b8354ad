#include "xml/domain_values.hpp"
#include "xml/passes.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace troupe {

bool is_q35(const domain& guest) {
  return guest.os.machine == "q35" || guest.os.machine.starts_with("pc-q35-");
}

bool is_i440fx(const domain& guest) {
  const std::string_view machine = guest.os.machine;
  return machine == "pc" || machine.starts_with("pc-i440fx-") ||
         (machine.starts_with("pc-") && machine.size() > 3 && machine[3] >= '0' && machine[3] <= '9');
}

bool is_x86(const domain& guest) {
  return guest.os.arch == "x86_64" || guest.os.arch == "i686";
}

bool has_pcie_root(const domain& guest) {
  const auto* root = find_controller(guest, controller_type::pci, 0);
  return root != nullptr && root->model == "pcie-root";
}

bool has_pci(const domain& guest) {
  return find_controller(guest, controller_type::pci, 0) != nullptr;
}

std::optional<unsigned> disk_index(std::string_view target) {
  constexpr std::string_view prefixes[] = {"fd", "hd", "vd", "sd", "xvd", "ubd"};
  const auto prefix = std::ranges::find_if(prefixes, [&](auto each) { return target.starts_with(each); });
  if (prefix == std::end(prefixes))
    return std::nullopt;
  target.remove_prefix(prefix->size());
  unsigned index = 0;
  std::size_t at = 0;
  for (; at < target.size() && target[at] >= 'a' && target[at] <= 'z'; ++at) {
    if (at == 5) // beyond any bus, and still far from an overflow
      return std::nullopt;
    index = (index + (at > 0 ? 1 : 0)) * 26 + static_cast<unsigned>(target[at] - 'a');
  }
  const auto partition = target.substr(at);
  const bool digits = std::ranges::all_of(partition, [](char c) { return c >= '0' && c <= '9'; });
  if (at == 0 || !digits || (partition.size() > 1 && partition.front() == '0'))
    return std::nullopt;
  return index;
}

device_address drive_place(disk_bus bus, unsigned index, bool wide) {
  device_address at;
  at.type = address_type::drive;
  switch (bus) {
  case disk_bus::scsi: {
    // The controller itself is unit 7.
    const unsigned units = wide ? 15 : 7;
    at.controller = index / units;
    at.unit = index % units;
    if (at.unit >= 7)
      ++at.unit;
    break;
  }
  case disk_bus::ide:
    at.controller = index / 4;
    at.bus = index % 4 / 2;
    at.unit = index % 2;
    break;
  case disk_bus::sata:
    at.controller = index / 6;
    at.unit = index % 6;
    break;
  case disk_bus::fdc:
    at.controller = index / 2;
    at.unit = index % 2;
    break;
  default:
    at.type = address_type::unset;
  }
  return at;
}

const controller* find_controller(const domain& guest, controller_type type, int index) {
  const auto& all = guest.devices.controllers;
  const auto found =
    std::ranges::find_if(all, [&](const auto& each) { return each.type == type && each.index == index; });
  return found == all.end() ? nullptr : &*found;
}

controller* find_controller(domain& guest, controller_type type, int index) {
  auto& all = guest.devices.controllers;
  const auto found =
    std::ranges::find_if(all, [&](const auto& each) { return each.type == type && each.index == index; });
  return found == all.end() ? nullptr : &*found;
}

controller& need_controller(domain& guest, controller_type type, int index, std::string_view model) {
  if (auto* there = find_controller(guest, type, index))
    return *there;
  controller added;
  added.type = type;
  added.index = index;
  added.model = model;
  return guest.devices.controllers.emplace_back(std::move(added));
}

std::optional<unsigned> usb_ports(const controller& usb) {
  constexpr std::pair<std::string_view, unsigned> models[] = {
    {"", 2},          {"piix3-uhci", 2}, {"piix4-uhci", 2}, {"vt82c686b-uhci", 2},
    {"pci-ohci", 3},  {"ehci", 6},       {"ich9-ehci1", 6}, {"nec-xhci", 4},
    {"qemu-xhci", 4}, {"ich9-uhci1", 2}, {"ich9-uhci2", 2}, {"ich9-uhci3", 2},
  };
  const auto found =
    std::ranges::find(models, std::string_view{usb.model}, &std::pair<std::string_view, unsigned>::first);
  if (found == std::end(models))
    return std::nullopt;
  if (usb.master_startport)
    return 0;
  return usb.model.ends_with("-xhci") ? usb.ports.value_or(found->second) : found->second;
}

bool is_usb_companion_family(std::string_view model) {
  return model.starts_with("ich9-");
}

std::string pci_text(const pci_address& at) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", at.domain, at.bus, at.slot, at.function);
}

std::vector<std::pair<unsigned, unsigned>> cpu_ranges(std::string_view text) {
  constexpr unsigned most = 1u << 14; // CPUs of a guest, and then some
  std::vector<bool> present;
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    auto part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const bool out = part.starts_with('^');
    if (out)
      part.remove_prefix(1);
    const auto dash = std::min(part.find('-'), part.size());
    unsigned first = 0;
    if (!parse_value(part.substr(0, dash), first, plain{}))
      continue;
    auto last = first;
    if (dash < part.size() && !parse_value(part.substr(dash + 1), last, plain{}))
      continue;
    if (last < first || last >= most)
      continue;
    present.resize(std::max<std::size_t>(present.size(), last + 1));
    for (auto each = first; each <= last; ++each)
      present[each] = !out;
  }
  std::vector<std::pair<unsigned, unsigned>> ranges;
  for (unsigned each = 0; each < present.size(); ++each) {
    if (!present[each])
      continue;
    if (!ranges.empty() && ranges.back().second + 1 == each)
      ranges.back().second = each;
    else
      ranges.emplace_back(each, each);
  }
  return ranges;
}

bool console_mirrors_serial(const domain& guest) {
  const auto& devices = guest.devices;
  return !devices.serials.empty() && !devices.consoles.empty() && devices.consoles.front().target_type == "serial";
}

std::string cpu_set_text(std::string_view text) {
  std::string usual;
  for (const auto& [first, last] : cpu_ranges(text)) {
    usual += usual.empty() ? "" : ",";
    usual += first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
  }
  return usual;
}

} // namespace troupe
