#pragma once

#include "runtime/error.hpp"
#include "xml/domain.hpp"
#include "xml/domain_passes.hpp"
#include "xml/emulator_facts.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The passes that make a definition whole, in the order of complete_definition.cpp, and what they share. Inside xml/
// only.

namespace troupe {

/// What a pass works on.
struct definition_work {
  domain& guest;
  const emulator_facts& facts;
  const random_source& random;
};

// validate_domain.cpp
result<void> check_identity(definition_work& work);
/// What libvirt refuses while it reads, ahead of all that depends on the emulator.
result<void> check_as_given(definition_work& work);
result<void> check_definition(definition_work& work);
/// Addresses that two devices would share; after the last one was given out.
result<void> check_addresses(definition_work& work);

// domain_defaults.cpp
result<void> drop_live_parts(definition_work& work);
result<void> settle_machine(definition_work& work);
result<void> settle_identity(definition_work& work);
result<void> settle_memory(definition_work& work);
result<void> settle_processors(definition_work& work);
result<void> settle_life(definition_work& work);

// usual_forms.cpp
result<void> settle_forms(definition_work& work);

// implicit_devices.cpp
result<void> order_devices(definition_work& work);
result<void> number_controllers(definition_work& work);
result<void> add_machine_devices(definition_work& work);
result<void> add_wanted_devices(definition_work& work);
/// Mirrors the first serial port as the first console, as libvirt shows it.
result<void> mirror_console(definition_work& work);

// device_defaults.cpp
result<void> settle_devices(definition_work& work);
result<void> settle_wanted_devices(definition_work& work);

// drive_addresses.cpp, usb_addresses.cpp, pci_addresses.cpp
result<void> assign_virtio_serial_addresses(definition_work& work);
result<void> assign_pci_addresses(definition_work& work);
result<void> assign_usb_addresses(definition_work& work);
result<void> assign_spapr_addresses(definition_work& work);
result<void> assign_memory_slots(definition_work& work);

// ---- shared

bool is_q35(const domain& guest);
bool is_i440fx(const domain& guest);
/// Whether the machine's first PCI bus is PCI Express.
bool has_pcie_root(const domain& guest);
bool has_pci(const domain& guest);
bool is_x86(const domain& guest);

/// 28 for "vdac", 0 for "sda"; none for what is no disk name. A partition's number is not one.
std::optional<unsigned> disk_index(std::string_view target);

/// Where a disk of that index sits on a bus whose addresses are of the drive kind. `wide`: the SCSI controller takes 16
/// units.
device_address drive_place(disk_bus bus, unsigned index, bool wide = true);

controller* find_controller(domain& guest, controller_type type, int index);
const controller* find_controller(const domain& guest, controller_type type, int index);

/// Adds the controller unless one of that type and index is there.
controller& need_controller(domain& guest, controller_type type, int index, std::string_view model = {});

/// The ports of a USB controller of that model; 0 for a companion, none for an unknown model.
std::optional<unsigned> usb_ports(const controller& usb);
bool is_usb_companion_family(std::string_view model);

/// "0000:00:05.0"
std::string pci_text(const pci_address& at);

/// "0-3,8,^2" as ranges, first and last; what is no number is left out.
std::vector<std::pair<unsigned, unsigned>> cpu_ranges(std::string_view text);
/// The same as libvirt writes it, "1-2,4"; empty for what has no number in it.
std::string cpu_set_text(std::string_view text);

/// Calls `f(device)` for all that sits in the guest, in the order in which libvirt looks at them.
template <class Guest, class F>
void each_device(Guest& guest, F&& f) {
  auto& d = guest.devices;
  const auto all = [&](auto& list) {
    for (auto& each : list)
      f(each);
  };
  all(d.disks), all(d.interfaces), all(d.sounds), all(d.hostdevs), all(d.filesystems), all(d.controllers),
    all(d.smartcards);
  all(d.serials), all(d.parallels), all(d.channels), all(d.consoles), all(d.inputs), all(d.graphics), all(d.videos);
  all(d.balloons), all(d.watchdogs), all(d.rngs), all(d.tpms), all(d.panics), all(d.hubs), all(d.shmems),
    all(d.redirdevs);
  all(d.memories), all(d.iommus), all(d.vsocks), all(d.cryptos);
}

/// Whether the first console only shows the first serial port.
bool console_mirrors_serial(const domain& guest);

} // namespace troupe
