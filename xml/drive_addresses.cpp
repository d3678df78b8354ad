#include "xml/domain_values.hpp"
#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>

namespace troupe {
namespace {

constexpr unsigned default_serial_ports = 31;

/// The ports of the virtio-serial controllers, by controller.
class serial_ports {
public:
  explicit serial_ports(domain& guest) : guest_(guest) {}

  /// Errors: bad_xml, when that port is not there or is taken.
  result<void> take(unsigned controller, unsigned port) {
    const auto* there = find_controller(guest_, controller_type::virtio_serial, static_cast<int>(controller));
    if (there == nullptr)
      return fail(errc::bad_xml, fmt::format("virtio serial controller {} not available", controller));
    const auto count = there->ports.value_or(default_serial_ports);
    if (port >= count)
      return fail(errc::bad_xml, fmt::format("virtio serial controller {} does not have port {}", controller, port));
    if (!taken_.insert({controller, port}).second)
      return fail(errc::bad_xml,
                  fmt::format("virtio serial port {} on controller {} is already occupied", port, controller));
    return {};
  }

  /// A new controller when all ports are taken.
  void give(device_address& at) {
    const bool fixed = at.is(address_type::virtio_serial);
    for (unsigned controller = fixed ? at.controller : 0;; ++controller) {
      const auto& there = need_controller(guest_, controller_type::virtio_serial, static_cast<int>(controller));
      const auto count = there.ports.value_or(default_serial_ports);
      for (unsigned port = 1; port < count; ++port)
        if (taken_.insert({controller, port}).second) {
          at.type = address_type::virtio_serial;
          at.controller = controller;
          at.bus = 0;
          at.port = std::to_string(port);
          return;
        }
    }
  }

private:
  domain& guest_;
  std::set<std::pair<unsigned, unsigned>> taken_;
};

bool has_port(const chardev& each) {
  unsigned port = 0;
  return each.address.is(address_type::virtio_serial) && parse_value(each.address.port, port, plain{}) &&
         (port > 0 || each.kind == chardev_kind::console);
}

} // namespace

result<void> assign_virtio_serial_addresses(definition_work& work) {
  auto& guest = work.guest;
  serial_ports ports{guest};
  auto& devices = guest.devices;
  for (const auto* list : {&devices.channels, &devices.consoles})
    for (const auto& each : *list)
      if (each.target_type == "virtio" && has_port(each)) {
        unsigned port = 0;
        if (!parse_value(each.address.port, port, plain{}))
          return fail(errc::bad_xml,
                      fmt::format("'{}' is not a port of a virtio-serial controller", each.address.port));
        if (auto took = ports.take(each.address.controller, port); !took)
          return took;
      }
  // A console finds the controller's port 0 by itself.
  for (auto& each : devices.channels)
    if (each.target_type == "virtio" && !has_port(each))
      ports.give(each.address);
  return {};
}

result<void> assign_spapr_addresses(definition_work& work) {
  auto& devices = work.guest.devices;
  std::set<std::uint64_t> taken;
  each_device(work.guest, [&](const auto& each) {
    if (each.address.is(address_type::spapr_vio) && each.address.reg)
      taken.insert(*each.address.reg);
  });
  // Where libvirt begins for each kind; the next is 0x1000 further.
  constexpr std::uint64_t first_card = 0x1000, first_scsi = 0x2000, first_nvram = 0x3000, first_serial = 0x30000000;
  const auto give = [&](device& each, std::uint64_t reg) {
    if (!each.address.is(address_type::spapr_vio) || each.address.reg)
      return;
    while (!taken.insert(reg).second)
      reg += 0x1000;
    each.address.reg = reg;
  };
  const auto wants_one = [](device& each) {
    if (each.address.is(address_type::unset))
      each.address.type = address_type::spapr_vio;
  };
  for (auto& each : devices.interfaces) {
    if (each.model == "spapr-vlan")
      wants_one(each);
    give(each, first_card);
  }
  for (auto& each : devices.controllers) {
    if (each.type == controller_type::scsi && each.model == "ibmvscsi")
      wants_one(each);
    give(each, first_scsi);
  }
  for (auto& each : devices.serials) {
    if (each.target_model == "spapr-vty")
      wants_one(each);
    give(each, first_serial);
  }
  for (auto& each : devices.nvram)
    give(each, first_nvram);
  return {};
}

result<void> assign_memory_slots(definition_work& work) {
  auto& modules = work.guest.devices.memories;
  const auto in_slot = [](const memory_device& each) { return each.model == "dimm" || each.model == "nvdimm"; };
  std::set<unsigned> taken;
  for (const auto& each : modules)
    if (in_slot(each) && each.address.is(address_type::dimm) && !taken.insert(each.address.slot).second)
      return fail(
        errc::unsupported_config,
        fmt::format("memory device slot '{}' is already being used by another memory device", each.address.slot));
  unsigned next = 0;
  for (auto& each : modules) {
    if (!in_slot(each) || each.address.is(address_type::dimm))
      continue;
    while (taken.contains(next))
      ++next;
    taken.insert(next);
    each.address.type = address_type::dimm;
    each.address.slot = next;
  }
  return {};
}

} // namespace troupe
