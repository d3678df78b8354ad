#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <span>

namespace troupe {
namespace {

using pass = result<void> (*)(definition_work&);

// In libvirt 9.0.0's order: addresses depend on it.
constexpr pass passes[] = {
  drop_live_parts,
  check_identity,
  check_as_given,
  settle_machine,
  settle_forms,
  settle_identity,
  settle_memory,
  order_devices,
  number_controllers,
  add_machine_devices,
  settle_processors,
  settle_devices,
  settle_life,
  mirror_console,
  add_wanted_devices,
  settle_wanted_devices,
  check_definition,
};

constexpr pass places[] = {
  assign_spapr_addresses, assign_virtio_serial_addresses, assign_pci_addresses,
  assign_usb_addresses,   assign_memory_slots,            check_addresses,
};

result<void> run(std::span<const pass> all, definition_work& work) {
  for (const auto& each : all)
    if (auto went = each(work); !went)
      return went;
  return {};
}

/// A pc or q35 machine of every QEMU release that has it, newest first and under the short name.
void add_machines(emulator_facts& facts, std::string_view family, std::string_view alias, int oldest,
                  std::uint32_t most_cpus) {
  // 1.4 is 104. A major version has as many minor ones as it had.
  constexpr std::pair<int, int> releases[] = {{7, 2}, {6, 2}, {5, 2}, {4, 2}, {3, 1}, {2, 12}, {1, 7}};
  for (const auto& [major, last] : releases)
    for (int minor = last; minor >= 0; --minor) {
      if (major * 100 + minor < oldest)
        return;
      machine_facts machine;
      machine.name = fmt::format("{}-{}.{}", family, major, minor);
      machine.max_cpus = most_cpus;
      machine.hotpluggable_cpus = true;
      machine.default_ram_id = "pc.ram";
      machine.default_cpu_type = facts.arch == "i386" ? "qemu32-i386-cpu" : "qemu64-x86_64-cpu";
      if (major == 7 && minor == 2)
        machine.alias = alias;
      facts.machines.push_back(std::move(machine));
    }
}

} // namespace

void choose_emulator(domain& guest, std::string_view host_arch) {
  if (guest.os.arch.empty())
    guest.os.arch = host_arch;
  if (!guest.devices.emulator.empty())
    return;
  // QEMU's names for what Linux calls otherwise.
  constexpr std::pair<std::string_view, std::string_view> names[] = {
    {"i686", "i386"}, {"armv7l", "arm"}, {"ppc64le", "ppc64"}};
  std::string_view arch = guest.os.arch;
  for (const auto& [linux, qemu] : names)
    if (linux == arch)
      arch = qemu;
  guest.devices.emulator = fmt::format("/usr/bin/qemu-system-{}", arch);
}

void choose_variables(domain& guest, std::string_view state_dir) {
  auto& os = guest.os;
  if (!os.loader || os.loader->type != "pflash" || os.loader->readonly != yes_no::yes || os.loader->stateless == yes_no::yes)
    return;
  auto& nvram = os.nvram ? *os.nvram : os.nvram.emplace();
  if (!nvram.source && nvram.path.empty())
    nvram.path = fmt::format("{}/nvram/{}_VARS.fd", state_dir, guest.name);
}

emulator_facts assumed_facts(const domain& guest, std::string_view host_arch) {
  emulator_facts facts;
  auto named = guest;
  choose_emulator(named, host_arch);
  facts.binary = named.devices.emulator;
  facts.arch = named.os.arch == "i686" && named.devices.emulator.ends_with("i386") ? "i386" : named.os.arch;
  if (facts.arch == "i686")
    facts.arch = "x86_64";
  facts.version = {7, 2, 0, {}};
  facts.tcg_usable = true;
  facts.kvm_usable = true;
  if (facts.arch == "x86_64" || facts.arch == "i386") {
    add_machines(facts, "pc-i440fx", "pc", 104, 255);
    facts.machines.front().is_default = true;
    add_machines(facts, "pc-q35", "q35", 204, 288);
  }
  facts.device_types = {"AC97",
                        "VGA",
                        "cirrus-vga",
                        "e1000",
                        "ich9-ahci",
                        "isa-serial",
                        "ivshmem-doorbell",
                        "ivshmem-plain",
                        "lsi53c895a",
                        "pci-bridge",
                        "pcie-pci-bridge",
                        "pcie-root-port",
                        "piix3-usb-uhci",
                        "qemu-xhci",
                        "qxl",
                        "rtl8139",
                        "usb-hub",
                        "virtio-balloon-pci",
                        "virtio-blk-pci",
                        "virtio-net-pci",
                        "virtio-rng-pci",
                        "virtio-scsi-pci"};
  std::ranges::sort(facts.device_types);
  return facts;
}

result<void> complete_definition(domain& guest, const emulator_facts& facts, const random_source& random) {
  definition_work work{guest, facts, random};
  if (auto went = run(passes, work); !went)
    return went;
  return run(places, work);
}

result<void> give_places(domain& guest, const emulator_facts& facts, const random_source& random) {
  definition_work work{guest, facts, random};
  return run(places, work);
}

} // namespace troupe
