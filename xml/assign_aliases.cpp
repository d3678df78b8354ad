#include "xml/passes.hpp"

#include <fmt/format.h>
#include <set>

// The names are QEMU's ids: a client that asks QEMU for "virtio-disk0" must find what libvirt calls so.

namespace troupe {
namespace {

/// Gives "PREFIX0", "PREFIX1", ... to what has no name, leaving out what is taken.
class numbered {
public:
  explicit numbered(std::set<std::string>& taken) : taken_(taken) {}

  template <class Device>
  void name(std::vector<Device>& list, std::string_view prefix) {
    for (auto& each : list)
      name(each, prefix);
  }

  void name(device& each, std::string_view prefix) {
    if (!each.alias.empty())
      return;
    auto& next = next_[std::string{prefix}];
    do
      each.alias = fmt::format("{}{}", prefix, next++);
    while (!taken_.insert(each.alias).second);
  }

private:
  std::set<std::string>& taken_;
  std::map<std::string, unsigned> next_;
};

std::string disk_alias(const domain& guest, const disk& each) {
  const auto& at = each.address;
  if (each.bus == disk_bus::virtio || each.bus == disk_bus::usb || each.bus == disk_bus::sd ||
      !at.is(address_type::drive))
    return fmt::format("{}-disk{}", word_of(each.bus), disk_index(each.target).value_or(0));
  if (each.bus == disk_bus::scsi) {
    const auto* on = find_controller(guest, controller_type::scsi, static_cast<int>(at.controller));
    if (on == nullptr || on->model != "lsilogic")
      return fmt::format("scsi{}-{}-{}-{}", at.controller, at.bus, at.target, at.unit);
  }
  return fmt::format("{}{}-{}-{}", word_of(each.bus), at.controller, at.bus, at.unit);
}

std::string controller_alias(const domain& guest, const controller& each) {
  const auto index = each.index.value_or(0);
  switch (each.type) {
  case controller_type::pci:
    return fmt::format("{}.{}", each.model == "pcie-root" ? "pcie" : "pci", index);
  case controller_type::ide:
    // On a pc it is part of the chipset.
    return is_i440fx(guest) && index == 0 ? "ide" : fmt::format("ide{}", index);
  case controller_type::sata:
    return is_q35(guest) && index == 0 ? "ide" : fmt::format("sata{}", index);
  case controller_type::usb:
    return index == 0 ? "usb" : fmt::format("usb{}", index);
  default:
    return fmt::format("{}{}", word_of(each.type), index);
  }
}

std::string_view memory_prefix(const memory_device& each) {
  return each.model == "nvdimm"        ? "nvdimm"
         : each.model == "virtio-pmem" ? "virtiopmem"
         : each.model == "virtio-mem"  ? "virtiomem"
         : each.model == "sgx-epc"     ? "epc"
                                       : "dimm";
}

} // namespace

void assign_aliases(domain& guest) {
  auto& devices = guest.devices;
  std::set<std::string> taken;
  each_device(guest, [&](const auto& each) {
    if (!each.alias.empty())
      taken.insert(each.alias);
  });
  numbered names{taken};
  for (auto& each : devices.disks)
    if (each.alias.empty())
      each.alias = disk_alias(guest, each);
  names.name(devices.hostdevs, "hostdev");
  for (auto& each : devices.interfaces)
    names.name(each, each.type == net_type::hostdev ? "hostdev" : "net");
  names.name(devices.filesystems, "fs");
  names.name(devices.sounds, "sound");
  names.name(devices.videos, "video");
  for (auto& each : devices.controllers)
    if (each.alias.empty())
      each.alias = controller_alias(guest, each);
  names.name(devices.inputs, "input");
  names.name(devices.parallels, "parallel");
  names.name(devices.serials, "serial");
  names.name(devices.channels, "channel");
  // A console that only shows the serial port has its name, and its number is not given to another.
  unsigned number = 0;
  for (auto& each : devices.consoles) {
    if (each.alias.empty())
      each.alias =
        number == 0 && console_mirrors_serial(guest) ? devices.serials.front().alias : fmt::format("console{}", number);
    ++number;
  }
  names.name(devices.hubs, "hub");
  names.name(devices.shmems, "shmem");
  names.name(devices.smartcards, "smartcard");
  names.name(devices.redirdevs, "redir");
  names.name(devices.watchdogs, "watchdog");
  names.name(devices.balloons, "balloon");
  names.name(devices.rngs, "rng");
  names.name(devices.tpms, "tpm");
  for (auto& each : devices.memories)
    if (each.address.is(address_type::dimm) && each.alias.empty())
      each.alias = fmt::format("{}{}", memory_prefix(each), each.address.slot); // QEMU's slots are numbered for all kinds
    else
      names.name(each, memory_prefix(each));
  names.name(devices.iommus, "iommu");
  names.name(devices.vsocks, "vsock");
  names.name(devices.cryptos, "crypto");
  names.name(devices.panics, "panic");
}

} // namespace troupe
