#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace troupe {
namespace {

/// Puts each into a new list with `insert`, one after the other.
template <class Device, class Insert>
void insert_each(std::vector<Device>& list, Insert&& where) {
  std::vector<Device> sorted;
  sorted.reserve(list.size());
  for (auto& each : list)
    sorted.insert(sorted.begin() + static_cast<std::ptrdiff_t>(where(sorted, each)), std::move(each));
  list = std::move(sorted);
}

/// Among the disks of its bus by name, or at the end.
std::size_t place_of(const std::vector<disk>& sorted, const disk& added) {
  std::optional<std::size_t> place;
  for (auto at = sorted.size(); at-- > 0;) {
    if (sorted[at].bus != added.bus)
      continue;
    if (disk_index(sorted[at].target) > disk_index(added.target))
      place = at;
    else if (!place)
      place = at + 1;
  }
  return place.value_or(sorted.size());
}

std::size_t place_of(const std::vector<controller>& sorted, const controller& added) {
  std::optional<std::size_t> place;
  for (auto at = sorted.size(); at-- > 0;) {
    const auto& there = sorted[at];
    if (there.type != added.type)
      continue;
    if (!added.index)
      return at + 1;
    if (there.index > added.index)
      place = at;
    else if (there.index == added.index && !added.master_startport && there.master_startport)
      place = at;
    else if (!place)
      place = at + 1;
  }
  return place.value_or(sorted.size());
}

std::string default_video_model(const definition_work& work) {
  return has_device(work.facts, "cirrus-vga") ? "cirrus" : "vga";
}

void need_input(domain& guest, std::string_view type) {
  auto& inputs = guest.devices.inputs;
  if (std::ranges::any_of(inputs, [&](const auto& each) { return each.type == type && each.bus == "ps2"; }))
    return;
  input_device added;
  added.type = type;
  added.bus = "ps2";
  inputs.push_back(std::move(added));
}

/// The sound of a guest that says nothing about it goes where its display goes; a window on the host brings its own.
std::string default_audio(const domain& guest) {
  std::string type = "none";
  for (const auto& display : guest.devices.graphics) {
    if (display.type == graphics_type::spice)
      return "spice";
    if (display.type == graphics_type::sdl || display.type == graphics_type::dbus)
      type.clear();
  }
  return type;
}

bool is_usb_of(const controller& each, std::optional<int> index) {
  return each.type == controller_type::usb && each.index == index;
}

} // namespace

result<void> order_devices(definition_work& work) {
  auto& devices = work.guest.devices;
  insert_each(devices.disks, [](const auto& sorted, const auto& added) { return place_of(sorted, added); });
  insert_each(devices.controllers, [](const auto& sorted, const auto& added) { return place_of(sorted, added); });
  const auto primaries = std::ranges::count(devices.videos, yes_no::yes, &video::primary);
  if (primaries > 1)
    return fail(errc::unsupported_config, "Only one primary video device is supported");
  auto& videos = devices.videos;
  std::stable_partition(videos.begin(), videos.end(), [](const auto& each) { return each.primary == yes_no::yes; });
  return {};
}

result<void> number_controllers(definition_work& work) {
  auto& all = work.guest.devices.controllers;
  const auto is_usb2 = [](const controller& each) {
    return each.type == controller_type::usb && is_usb_companion_family(each.model);
  };
  std::optional<int> last_usb2;
  for (auto& each : all) {
    // The parts of a USB 2 controller follow each other: one of a kind that the last one lacks belongs to it.
    if (!each.index && is_usb2(each) && last_usb2 && std::ranges::none_of(all, [&](const auto& other) {
          return is_usb_of(other, last_usb2) && other.model == each.model;
        }))
      each.index = last_usb2;
    if (!each.index) {
      int free = 0;
      while (
        std::ranges::any_of(all, [&](const auto& other) { return other.type == each.type && other.index == free; }))
        ++free;
      each.index = free;
    }
    if (is_usb2(each))
      last_usb2 = each.index;
  }
  return {};
}

result<void> add_machine_devices(definition_work& work) {
  auto& guest = work.guest;
  auto& devices = guest.devices;
  // What the definition's SCSI host devices sit on comes first.
  for (const auto& each : devices.hostdevs)
    if (each.type == "scsi" && each.mode == "subsystem")
      for (int index = 0; index <= static_cast<int>(std::min(each.address.controller, 255u)); ++index)
        need_controller(guest, controller_type::scsi, index);
  if (!is_x86(guest))
    return {};
  const bool q35 = is_q35(guest);
  const bool pc = is_i440fx(guest);
  if (!q35 && !pc)
    return {};
  const auto xhci = has_device(work.facts, "qemu-xhci") ? "qemu-xhci" : "nec-xhci";
  need_controller(guest, controller_type::usb, 0, q35 ? xhci : "");
  if (q35)
    need_controller(guest, controller_type::sata, 0);
  const std::string_view root = q35 ? "pcie-root" : "pci-root";
  const auto& bus = need_controller(guest, controller_type::pci, 0, root);
  if (bus.model != root)
    return fail(errc::bad_xml,
                fmt::format("The PCI controller with index='0' must be model='{}' for this machine type, but "
                            "model='{}' was found instead",
                            root, bus.model.empty() ? "(null)" : bus.model));
  if (devices.balloons.empty()) {
    memballoon added;
    added.model = "virtio";
    devices.balloons.push_back(std::move(added));
  }
  need_input(guest, "mouse");
  need_input(guest, "keyboard");
  if (auto type = default_audio(guest); devices.audios.empty() && !type.empty()) {
    audio added;
    added.id = 1;
    added.type = std::move(type);
    devices.audios.push_back(std::move(added));
  }
  if (devices.videos.empty() && !devices.graphics.empty()) {
    video added;
    added.model = default_video_model(work);
    devices.videos.push_back(std::move(added));
  }
  return {};
}

result<void> mirror_console(definition_work& work) {
  auto& devices = work.guest.devices;
  auto& consoles = devices.consoles;
  const bool first_is_serial = !consoles.empty() && consoles.front().target_type == "serial";
  if (devices.serials.empty()) {
    if (!first_is_serial)
      return {};
    // Of old, a guest's only serial port was written as its console.
    auto port = consoles.front();
    port.kind = chardev_kind::serial;
    port.target_type.clear();
    port.target_port = 0;
    devices.serials.push_back(std::move(port));
  }
  const auto& port = devices.serials.front();
  if (!first_is_serial) {
    if (port.target_type == "pci-serial" || port.target_type == "usb-serial" || port.target_type == "isa-debug")
      return {};
    consoles.insert(consoles.begin(), chardev{});
  }
  auto& shown = consoles.front();
  chardev mirror;
  mirror.kind = chardev_kind::console;
  mirror.source = port.source;
  mirror.target_type = "serial";
  mirror.target_port = 0;
  mirror.address = port.address;
  mirror.line = shown.line;
  mirror.tty = port.tty;
  shown = std::move(mirror);
  return {};
}

result<void> add_wanted_devices(definition_work& work) {
  auto& guest = work.guest;
  const auto& devices = guest.devices;
  constexpr std::pair<disk_bus, controller_type> buses[] = {{disk_bus::scsi, controller_type::scsi},
                                                            {disk_bus::fdc, controller_type::fdc},
                                                            {disk_bus::ide, controller_type::ide},
                                                            {disk_bus::sata, controller_type::sata}};
  for (const auto& [bus, type] : buses) {
    std::optional<unsigned> last;
    for (const auto& each : devices.disks)
      if (each.bus == bus && each.address.is(address_type::drive))
        last = std::max(last.value_or(0), each.address.controller);
    if (last && *last > 255)
      return fail(errc::unsupported_config,
                  fmt::format("there is no {} controller with index {}: 255 is the highest", word_of(type), *last));
    std::string model;
    for (const auto& each : devices.controllers)
      if (each.type == type && type == controller_type::scsi)
        model = each.model;
    for (unsigned index = 0; last && index <= *last; ++index)
      need_controller(guest, type, static_cast<int>(index), model);
  }
  std::optional<unsigned> last_serial;
  const auto on_virtio = [&](const std::vector<chardev>& ports) {
    for (const auto& each : ports)
      if (each.target_type == "virtio")
        last_serial =
          std::max(last_serial.value_or(0),
                   each.address.is(address_type::virtio_serial) ? std::min(each.address.controller, 255u) : 0);
  };
  on_virtio(devices.channels);
  on_virtio(devices.consoles);
  for (unsigned index = 0; last_serial && index <= *last_serial; ++index)
    need_controller(guest, controller_type::virtio_serial, static_cast<int>(index));
  for (const auto& each : devices.smartcards)
    if (each.address.is(address_type::ccid))
      for (unsigned index = 0; index <= std::min(each.address.controller, 255u); ++index)
        need_controller(guest, controller_type::ccid, static_cast<int>(index));
  return {};
}

} // namespace troupe
