#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>
#include <tuple>

// What a definition must not be. Wording that clients know is libvirt's own; the rest says what to do as well.

namespace troupe {
namespace {

result<void> refuse(std::string detail) {
  return fail(errc::unsupported_config, std::move(detail));
}

bool known_arch(std::string_view arch) {
  constexpr std::string_view all[] = {
    "x86_64", "i686",    "aarch64", "armv7l",    "armv6l",  "ppc64",    "ppc64le",    "ppc",          "s390x",
    "s390",   "riscv32", "riscv64", "sparc",     "sparc64", "mips",     "mipsel",     "mips64",       "mips64el",
    "alpha",  "m68k",    "sh4",     "sh4eb",     "xtensa",  "xtensaeb", "microblaze", "microblazeel", "hppa",
    "or1k",   "cris",    "lm32",    "unicore32", "itanium", "armv7b",   "ppcemb",     "parisc"};
  return std::ranges::find(all, arch) != std::end(all);
}

bool known_os(std::string_view type) {
  constexpr std::string_view all[] = {"hvm", "xen", "linux", "exe", "uml", "xenpvh"};
  return std::ranges::find(all, type) != std::end(all);
}

// ---- the machine

result<void> check_machine(const domain& guest, const emulator_facts& facts) {
  if (const auto* machine = find_machine(facts, guest.os.machine); machine != nullptr && machine->max_cpus > 0)
    if (guest.vcpu_max.value_or(1) > machine->max_cpus)
      return refuse(fmt::format("Maximum CPUs greater than specified machine type limit {}", machine->max_cpus));
  if (guest.vcpu_max.value_or(1) == 0)
    return fail(errc::internal, fmt::format("guest '{}' has no vCPU: <vcpu> must be at least 1", guest.name));
  if (guest.os.firmware == "efi" && is_x86(guest) && !(guest.features && guest.features->acpi))
    return refuse("UEFI requires ACPI on this architecture");
  if (guest.os.nvram && guest.os.firmware.empty() && (!guest.os.loader || guest.os.loader->path.empty()))
    return fail(errc::xml_detail, "no loader path specified and firmware auto selection disabled");
  if (guest.os.loader) {
    const auto& loader = *guest.os.loader;
    if (guest.os.firmware.empty() && loader.path.empty())
      return fail(errc::xml_detail, "no loader path specified and firmware auto selection disabled");
    if (!guest.os.firmware.empty() && loader.readonly != yes_no::unset)
      return fail(errc::xml_detail, "loader attribute 'readonly' cannot be specified when firmware autoselection is enabled");
    if (loader.type == "pflash" && is_x86(guest) && !(guest.features && guest.features->acpi))
      return refuse("UEFI requires ACPI on this architecture");
  }
  if (guest.os.bios_useserial == yes_no::yes && guest.devices.serials.empty())
    return fail(errc::bad_xml, "need at least one serial port to use BIOS serial output");
  if (guest.on_reboot == lifecycle_action::preserve || guest.on_poweroff == lifecycle_action::preserve)
    return refuse("qemu driver doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'");
  const auto reboots = [](lifecycle_action each) {
    return each == lifecycle_action::restart || each == lifecycle_action::rename_restart;
  };
  if (reboots(guest.on_poweroff) && !reboots(guest.on_reboot))
    return refuse("qemu driver doesn't support 'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'");
  for (const auto& state : guest.vcpus) {
    if (state.id == 0 && state.enabled == yes_no::no)
      return refuse("vcpu 0 can't be offline");
    if (state.enabled == yes_no::no && state.hotpluggable == yes_no::no)
      return refuse(fmt::format("vcpu '{}' is both offline and not hotpluggable", state.id));
  }
  if (guest.memtune && guest.memtune->min_guarantee_kib)
    return refuse("Parameter 'min_guarantee' not supported by QEMU.");
  if (guest.type != virt_type::kvm && guest.cputune && !guest.cputune->caches.empty())
    return refuse("cachetune is only supported for KVM domains");
  if (guest.launch_security) {
    const auto type = guest.launch_security->type;
    if (type == launch_kind::unset)
      return fail(errc::bad_xml, "Missing required attribute 'type' in element 'launchSecurity': it is 'sev'");
    if (type == launch_kind::sev && (!facts.sev || guest.type != virt_type::kvm))
      return refuse("SEV launch security is not supported with this QEMU binary");
    if (type == launch_kind::s390_pv && is_x86(guest))
      return refuse("S390 PV launch security is not supported with this QEMU binary");
  }
  return {};
}

result<void> check_processors(const domain& guest) {
  if (!guest.cpu)
    return {};
  const auto& cpu = *guest.cpu;
  if (cpu.topology) {
    const auto& t = *cpu.topology;
    const auto threads = std::uint64_t{t.sockets} * t.dies * t.cores * t.threads;
    if (threads != guest.vcpu_max.value_or(1))
      return refuse("CPU topology doesn't match maximum vcpu count");
  }
  if (cpu.cache && cpu.cache->mode == "passthrough") {
    if (cpu.mode != "host-passthrough" && cpu.mode != "maximum")
      return refuse("CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs");
    if (cpu.cache->level)
      return refuse("unsupported CPU cache level for mode 'passthrough'");
  }
  std::vector<int> owner;
  for (const auto& cell : cpu.cells) {
    for (const auto& [first, last] : cpu_ranges(cell.cpus))
      for (auto each = first; each <= last; ++each) {
        if (each >= guest.vcpu_max.value_or(1))
          return fail(errc::internal, "CPU IDs in <numa> exceed the <vcpu> count");
        owner.resize(std::max<std::size_t>(owner.size(), each + 1), -1);
        if (owner[each] >= 0)
          return refuse(fmt::format("NUMA cells {} and {} have overlapping vCPU ids", *cell.id, owner[each]));
        owner[each] = static_cast<int>(*cell.id);
      }
  }
  unsigned number = 0;
  for (const auto& cell : cpu.cells)
    if (*cell.id != number++)
      return fail(errc::bad_xml,
                  "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not "
                  "starting from 0 are not allowed");
  return {};
}

/// The numbers that rows name, each once.
class numbers_once {
public:
  numbers_once(std::string_view element, std::string_view attribute) : element_{element}, attribute_{attribute} {}

  result<void> add(unsigned number) {
    if (!seen_.insert(number).second)
      return fail(errc::xml_detail, fmt::format("'{}' attributes '{}' must not overlap", element_, attribute_));
    return {};
  }

private:
  std::string_view element_, attribute_;
  std::set<unsigned> seen_;
};

/// A list that has to name a CPU or node at least.
result<void> check_set(std::string_view attribute, const std::string& text) {
  if (cpu_ranges(text).empty())
    return refuse(fmt::format("Invalid value of '{}': {}", attribute, text));
  return {};
}

/// The numbers of a row that was split: one each, or what is no number.
result<void> check_schedules(const auto& rows, auto field, std::string_view element, std::string_view attribute,
                             const auto& known) {
  numbers_once numbers{element, attribute};
  for (const auto& row : rows) {
    const auto ranges = cpu_ranges(row.*field);
    if (ranges.empty())
      return fail(errc::bad_xml, fmt::format("<{}> of this guest wants {}='…': a list of numbers such as '0-3,5'; it is '{}'",
                                             element, attribute, row.*field));
    if (row.scheduler == scheduler::unset)
      return fail(errc::bad_xml,
                  fmt::format("<{} {}='{}'> names no scheduler; it is one of batch, idle, fifo and rr", element,
                              attribute, row.*field));
    const bool real_time = row.scheduler == scheduler::fifo || row.scheduler == scheduler::rr;
    if (real_time && !row.priority)
      return fail(errc::bad_xml, fmt::format("<{} {}='{}'> has no priority; scheduler '{}' needs one, from 1 to 99",
                                             element, attribute, row.*field, word_of(row.scheduler)));
    for (const auto& [first, last] : ranges)
      for (auto each = first; each <= last; ++each) {
        if (auto went = known(each); !went)
          return went;
        if (auto went = numbers.add(each); !went)
          return went;
      }
  }
  return {};
}

/// microseconds in which a quota is counted
result<void> check_period(std::string_view name, const maybe_size& period) {
  if (period && (*period < 1000 || *period > 1'000'000))
    return fail(errc::bad_xml, fmt::format("Value of cputune '{}' must be in range [1000, 1000000]", name));
  return {};
}

/// microseconds that may be used of a period; negative: all
result<void> check_quota(std::string_view name, const std::optional<std::int64_t>& quota) {
  if (quota && *quota != -1 && (*quota < 1000 || *quota > 17'592'186'044'415))
    return fail(errc::bad_xml, fmt::format("Value of cputune '{}' must be in range [1000, 17592186044415]", name));
  return {};
}

result<void> check_cpu_tuning(const domain& guest, const cpu_tuning& tuning) {
  for (const auto& each : {check_period("period", tuning.period), check_period("global_period", tuning.global_period),
                           check_period("emulator_period", tuning.emulator_period),
                           check_period("iothread_period", tuning.iothread_period), check_quota("quota", tuning.quota),
                           check_quota("global_quota", tuning.global_quota),
                           check_quota("emulator_quota", tuning.emulator_quota),
                           check_quota("iothread_quota", tuning.iothread_quota)})
    if (!each)
      return each;
  numbers_once pinned{"vcpupin", "vcpu"};
  for (const auto& each : tuning.vcpu_pins) {
    if (!each.vcpu)
      return fail(errc::bad_xml, "Missing required attribute 'vcpu' in element 'vcpupin': the number of a vCPU");
    if (auto went = check_set("cpuset", each.cpuset); !went)
      return went;
    if (auto went = pinned.add(*each.vcpu); !went)
      return refuse("duplicate vcpupin for same vcpu");
  }
  if (!tuning.emulator_cpuset.empty())
    if (auto went = check_set("cpuset", tuning.emulator_cpuset); !went)
      return went;
  const auto any = [](unsigned) { return result<void>{}; };
  const auto known_thread = [&](unsigned id) -> result<void> {
    const bool there = guest.iothread_ids.empty()
                         ? id >= 1 && id <= guest.iothreads.value_or(0)
                         : std::ranges::find(guest.iothread_ids, id, &iothread_id::id) != guest.iothread_ids.end();
    return there ? result<void>{} : refuse(fmt::format("Cannot find 'iothread' : {}", id));
  };
  if (auto went = check_schedules(tuning.vcpu_schedules, &vcpu_schedule::vcpus, "vcpusched", "vcpus", any); !went)
    return went;
  if (auto went = check_schedules(tuning.iothread_schedules, &iothread_schedule::iothreads, "iothreadsched",
                                  "iothreads", known_thread);
      !went)
    return went;
  numbers_once threads{"iothreadpin", "iothread"};
  for (const auto& each : tuning.iothread_pins) {
    if (!each.iothread)
      return fail(errc::bad_xml, "Missing required attribute 'iothread' in element 'iothreadpin': the number of one");
    if (auto went = check_set("cpuset", each.cpuset); !went)
      return went;
    if (auto went = known_thread(*each.iothread); !went)
      return went;
    if (auto went = threads.add(*each.iothread); !went)
      return refuse("duplicate iothreadpin for same iothread");
  }
  return {};
}

result<void> check_numa_tuning(const domain& guest, const numa_tuning& tuning) {
  if (tuning.memory && tuning.memory->placement != placement::auto_)
    if (auto went = check_set("nodeset", tuning.memory->nodeset); !went)
      return went;
  numbers_once cells{"memnode", "cellid"};
  for (const auto& each : tuning.cells) {
    if (!each.cell)
      return fail(errc::bad_xml, "Missing required cellid attribute in memnode element");
    if (auto went = check_set("nodeset", each.nodeset); !went)
      return went;
    if (auto went = cells.add(*each.cell); !went)
      return fail(errc::bad_xml, fmt::format("Multiple memnode elements with cellid {}", *each.cell));
    if (guest.cpu && !guest.cpu->cells.empty() && *each.cell >= guest.cpu->cells.size())
      return fail(errc::bad_xml, "Argument of memnode element is out of range");
  }
  return {};
}

result<void> check_tuning(const domain& guest) {
  if (guest.cputune)
    if (auto went = check_cpu_tuning(guest, *guest.cputune); !went)
      return went;
  if (guest.numatune)
    if (auto went = check_numa_tuning(guest, *guest.numatune); !went)
      return went;
  if (guest.blkiotune)
    for (const auto& each : guest.blkiotune->devices)
      if (each.path.empty())
        return fail(errc::bad_xml, "missing per-device path");
  return {};
}

/// A BIOS date is month/day/year, the year of two or four digits.
bool is_bios_date(std::string_view text) {
  std::vector<unsigned> parts;
  while (true) {
    const auto slash = std::min(text.find('/'), text.size());
    const auto ranges = cpu_ranges(text.substr(0, slash));
    if (ranges.size() != 1 || ranges.front().first != ranges.front().second)
      return false;
    parts.push_back(ranges.front().first);
    if (slash == text.size())
      break;
    text.remove_prefix(slash + 1);
  }
  return parts.size() == 3 && parts[0] >= 1 && parts[0] <= 12 && parts[1] >= 1 && parts[1] <= 31 &&
         (parts[2] < 100 || parts[2] >= 1900);
}

result<void> check_memory(const domain& guest) {
  const auto& modules = guest.devices.memories;
  const bool cells = guest.cpu && !guest.cpu->cells.empty();
  if (guest.max_memory_kib && !cells)
    return refuse("At least one numa node has to be configured when enabling memory hotplug");
  if (!cells && guest.numatune && !guest.numatune->cells.empty())
    return fail(errc::bad_xml, "Element 'memnode' is invalid without any guest NUMA cells");
  const auto hotpluggable =
    std::ranges::count_if(modules, [](const auto& each) { return each.model != "virtio-pmem"; });
  if (hotpluggable > 0 && !guest.max_memory_kib)
    return refuse("cannot use/hotplug a memory device when domain 'maxMemory' is not defined");
  if (guest.max_memory_kib && modules.size() > guest.memory_slots.value_or(0))
    return refuse(
      fmt::format("memory device count '{}' exceeds slots count '{}'", modules.size(), guest.memory_slots.value_or(0)));
  for (const auto& each : modules)
    if (each.model == "nvdimm" && !each.uuid.empty())
      return refuse("UUID is not supported for NVDIMM device");
  return {};
}

result<void> check_features(const domain& guest) {
  if (!guest.features)
    return {};
  const auto& features = *guest.features;
  if (features.kvm && features.kvm->dirty_ring == on_off::on) {
    const auto size = features.kvm->dirty_ring_size.value_or(0);
    if (size < 1024 || size > 65536 || (size & (size - 1)) != 0)
      return fail(errc::bad_xml, "dirty ring must be power of 2 and ranges [1024, 65536]");
  }
  if (features.hyperv && !features.hyperv->rest.children.empty())
    return refuse(
      fmt::format("unsupported HyperV Enlightenment feature: {}", features.hyperv->rest.children.front().name));
  const std::pair<on_off, std::string_view> foreign[] = {
    {features.htm, "htm"}, {features.nested_hv, "nested-hv"}, {features.ccf_assist, "ccf-assist"}};
  for (const auto& [state, name] : foreign)
    if (state != on_off::unset && is_x86(guest))
      return refuse(fmt::format("The '{}' feature is not supported for architecture '{}' or machine type '{}'", name,
                                guest.os.arch, guest.os.machine));
  if (features.smm_state == on_off::on && !is_q35(guest))
    return refuse(fmt::format("smm is only supported with q35 machine types, not '{}'", guest.os.machine));
  return {};
}

result<void> check_clock(const domain& guest) {
  if (!guest.clock)
    return {};
  for (const auto& timer : guest.clock->timers)
    if (timer.name == "rtc" && (timer.tickpolicy == "merge" || timer.tickpolicy == "discard"))
      return refuse(fmt::format("unsupported rtc timer tickpolicy '{}'", timer.tickpolicy));
  return {};
}

result<void> check_labels(const domain& guest) {
  std::set<std::string> models;
  for (const auto& label : guest.seclabels) {
    if (label.model.empty() && guest.seclabels.size() == 1 && label.type != label_kind::none)
      return fail(errc::bad_xml, "missing security model in domain seclabel");
    if (label.type == label_kind::dynamic && label.relabel_given == yes_no::no)
      return refuse("dynamic label type must use resource relabeling");
    if (!label.model.empty() && !models.insert(label.model).second)
      return fail(errc::xml_detail, fmt::format("seclabel for model {} is already provided", label.model));
  }
  if (guest.seclabels.size() > 1 &&
      std::ranges::any_of(guest.seclabels, [](const auto& each) { return each.model.empty(); }))
    return fail(errc::bad_xml, "missing security model when using multiple labels");
  for (const auto& each : guest.devices.disks) {
    std::set<std::string> of_disk;
    for (const auto& label : each.source.labels) {
      if (label.model.empty() && each.source.labels.size() > 1)
        return fail(errc::bad_xml, "missing security model when using multiple labels");
      if (!of_disk.insert(label.model).second)
        return fail(errc::xml_detail, fmt::format("seclabel for model {} is already provided", label.model));
    }
  }
  return {};
}

// ---- devices

std::string source_words(const disk& each) {
  return each.source.path.empty() ? each.source.name : each.source.path;
}

bool shares_memory(const domain& guest) {
  if (guest.backing && (guest.backing->access == "shared" || guest.backing->source == "memfd"))
    return guest.backing->access == "shared";
  return guest.cpu &&
         std::ranges::any_of(guest.cpu->cells, [](const auto& cell) { return cell.mem_access == "shared"; });
}

result<void> check_disk(const domain& guest, const disk& each) {
  if (each.target.empty())
    return fail(errc::bad_xml,
                fmt::format("a disk of guest '{}' (line {}) has no <target dev='...'/>", guest.name, each.line));
  if (each.driver && !each.driver->name.empty() && each.driver->name != "qemu")
    return refuse(fmt::format("unsupported driver name '{}' for disk '{}'", each.driver->name, each.target));
  if (each.source.type == storage_type::vhostuser && !shares_memory(guest))
    return refuse("'vhostuser' requires shared memory");
  if (each.device_type == disk_device::lun && each.source.type != storage_type::block &&
      each.source.type != storage_type::network && each.source.type != storage_type::volume)
    return refuse("disk device='lun' is only valid for block type disk source");
  if (each.bus == disk_bus::virtio && each.address.is(address_type::unassigned))
    return refuse("virtio disk cannot have an address of type 'unassigned'");
  const bool drive_bus =
    each.bus == disk_bus::ide || each.bus == disk_bus::scsi || each.bus == disk_bus::sata || each.bus == disk_bus::fdc;
  if (drive_bus && !each.address.is(address_type::drive) && !each.address.is(address_type::unset))
    return refuse(fmt::format("Invalid address type '{}' for the disk '{}' with the bus type '{}'",
                              word_of(each.address.type), each.target, word_of(each.bus)));
  if (each.bus == disk_bus::usb && !each.address.is(address_type::usb) && !each.address.is(address_type::unset))
    return fail(errc::internal, "unexpected address type for usb disk");
  const auto kind = each.device_type;
  if ((each.source.type == storage_type::file || each.source.type == storage_type::block) && each.source.path.empty() &&
      kind != disk_device::cdrom && kind != disk_device::floppy)
    return fail(errc::no_source, fmt::format("missing source information for device {}", each.target));
  const auto& image = each.driver->type;
  const auto& encryption = each.encryption ? each.encryption : each.source.encryption;
  if (!encryption)
    return {};
  if ((image == image_format::qcow || image == image_format::qcow2) && encryption->format != encryption_format::luks &&
      encryption->format != encryption_format::luks2 && encryption->format != encryption_format::luks_any)
    return refuse("old qcow/qcow2 encryption is not supported");
  if (each.encryption && each.source.encryption)
    return refuse("an <encryption> definition already found for disk source");
  if (encryption->cipher)
    return refuse("supplying <cipher> for domain disk definition is unnecessary");
  return {};
}

result<void> check_disks(const domain& guest) {
  std::map<std::string, const disk*> targets;
  for (const auto& each : guest.devices.disks) {
    if (auto went = check_disk(guest, each); !went)
      return went;
    const auto [there, added] = targets.emplace(each.target, &each);
    if (!added)
      return fail(errc::bad_xml, fmt::format("target '{}' duplicated for disk sources '{}' and '{}'", each.target,
                                             source_words(*there->second), source_words(each)));
  }
  std::map<std::tuple<disk_bus, unsigned, unsigned, unsigned, unsigned>, const disk*> places;
  for (const auto& each : guest.devices.disks) {
    const auto& at = each.address;
    if (!at.is(address_type::drive))
      continue;
    const auto [there, added] = places.emplace(std::tuple{each.bus, at.controller, at.bus, at.target, at.unit}, &each);
    if (!added)
      return refuse(
        fmt::format("Found duplicate drive address for disk with target name '{}' controller='{}' bus='{}' target='{}' "
                    "unit='{}'",
                    there->second->target, at.controller, at.bus, at.target, at.unit));
    if (each.bus != disk_bus::scsi)
      continue;
    const auto* on = find_controller(guest, controller_type::scsi, static_cast<int>(at.controller));
    if (on != nullptr && on->model == "lsilogic" && at.target != 0)
      return refuse("target must be 0 for controller model 'lsilogic'");
  }
  std::set<std::tuple<unsigned, unsigned, unsigned, unsigned>> hosts;
  for (const auto& each : guest.devices.hostdevs) {
    const auto& at = each.address;
    if (each.type != "scsi" || !at.is(address_type::drive))
      continue;
    const auto place =
      fmt::format("controller='{}' bus='{}' target='{}' unit='{}'", at.controller, at.bus, at.target, at.unit);
    if (!hosts.emplace(at.controller, at.bus, at.target, at.unit).second)
      return refuse(fmt::format("SCSI host address {} in use by another SCSI host device", place));
    if (const auto there = places.find(std::tuple{disk_bus::scsi, at.controller, at.bus, at.target, at.unit});
        there != places.end())
      return refuse(fmt::format("using disk target name '{}' conflicts with SCSI host device address {}",
                                there->second->target, place));
  }
  return {};
}

bool is_scsi_model(std::string_view model) {
  constexpr std::string_view all[] = {"lsilogic",
                                      "virtio-scsi",
                                      "lsisas1068",
                                      "vmpvscsi",
                                      "lsisas1078",
                                      "am53c974",
                                      "dc390",
                                      "virtio-transitional",
                                      "virtio-non-transitional",
                                      "ncr53c90",
                                      "ibmvscsi"};
  return std::ranges::find(all, model) != std::end(all);
}

result<void> check_pci_controller(const domain& guest, const controller& each) {
  const bool root = each.model == "pci-root" || each.model == "pcie-root";
  if (root && *each.index != 0)
    return fail(errc::bad_xml, "pci-root and pcie-root controllers should have index 0");
  if (root && !each.address.is(address_type::unset))
    return refuse("pci-root and pcie-root controllers should not have an address");
  if (each.model == "pcie-expander-bus" && !is_q35(guest))
    return refuse("pcie-expander-bus controllers are not supported with this machine type");
  if (each.numa_node && (each.model == "pci-expander-bus" || each.model == "pcie-expander-bus")) {
    const auto cells = guest.cpu ? guest.cpu->cells.size() : 0;
    if (*each.numa_node < 0 || static_cast<std::size_t>(*each.numa_node) >= cells)
      return fail(errc::bad_xml,
                  fmt::format("{} with index {} is configured for a NUMA node ({}) not present in the domain's "
                              "<cpu><numa> array ({})",
                              each.model, *each.index, *each.numa_node, cells));
  }
  return {};
}

result<void> check_controllers(const domain& guest) {
  std::set<std::pair<controller_type, int>> seen;
  bool usb_none = false;
  for (const auto& each : guest.devices.controllers) {
    if (*each.index < 0)
      return fail(errc::bad_xml,
                  fmt::format("Invalid value for attribute 'index' in element 'controller': '{}'. Expected "
                              "non-negative value",
                              *each.index));
    const bool usb2 = each.type == controller_type::usb && is_usb_companion_family(each.model);
    if (!usb2 && !seen.emplace(each.type, *each.index).second)
      return fail(errc::bad_xml,
                  fmt::format("Multiple '{}' controllers with index '{}'", word_of(each.type), *each.index));
    if (each.type == controller_type::usb && each.model == "none")
      usb_none = true;
    if (each.type == controller_type::usb && each.ports && *each.ports > 15)
      return refuse(fmt::format("'{}' controller only supports up to '15' ports", each.model));
    if (each.type == controller_type::usb && each.model.starts_with("ich9-uhci") &&
        std::ranges::none_of(guest.devices.controllers, [&](const auto& other) {
          return other.type == controller_type::usb && other.index == each.index && other.model == "ich9-ehci1";
        }))
      return fail(errc::xml_detail, "No master USB controller specified");
    if (each.type == controller_type::scsi && !is_scsi_model(each.model))
      return refuse(fmt::format("Unsupported controller model: {}", each.model));
    if (each.type == controller_type::ide) {
      if (!is_i440fx(guest))
        return refuse("IDE controllers are unsupported for this QEMU binary or machine type");
      if (*each.index != 0)
        return refuse("Only a single IDE controller is supported for this machine type");
    }
    if (each.type == controller_type::ccid && *each.index > 0)
      return refuse("this QEMU binary lacks multiple smartcard support");
    if (each.type == controller_type::pci)
      if (auto went = check_pci_controller(guest, each); !went)
        return went;
  }
  if (usb_none) {
    if (std::ranges::count(guest.devices.controllers, controller_type::usb, &controller::type) > 1)
      return fail(errc::bad_xml, "Can't add another USB controller: USB is disabled for this domain");
    for (const auto& each : guest.devices.inputs)
      if (each.bus == "usb")
        return refuse("Can't add USB input device. USB bus is disabled");
    for (const auto& each : guest.devices.hubs)
      if (each.type == "usb")
        return refuse("Can't add USB hub: USB is disabled for this domain");
    for (const auto& each : guest.devices.redirdevs)
      if (each.bus == "usb")
        return refuse("Can't add redirected USB device: USB is disabled for this domain");
    for (const auto& each : guest.devices.disks)
      if (each.bus == disk_bus::usb)
        return refuse(fmt::format("disk '{}' is on USB, which is disabled for this domain", each.target));
    for (const auto& each : guest.devices.hostdevs)
      if (each.type == "usb" && each.mode == "subsystem")
        return refuse("Can't add USB host device: USB is disabled for this domain");
  }
  return {};
}

bool has_spice(const domain& guest) {
  return std::ranges::any_of(guest.devices.graphics,
                             [](const auto& each) { return each.type == graphics_type::spice; });
}

result<void> check_source(const domain& guest, const chardev_source& source) {
  if (source.type == chardev_type::spiceport && !has_spice(guest))
    return refuse("chardev 'spiceport' not supported without spice graphics");
  if (source.type == chardev_type::tcp || source.type == chardev_type::udp) {
    const bool named = std::ranges::any_of(source.ends, [](const auto& end) { return !end.service.empty(); });
    if (source.type == chardev_type::tcp && source.first().host.empty())
      return fail(errc::internal, "Missing source host attribute for char device");
    if (!named)
      return fail(errc::internal, "Missing source service attribute for char device");
  }
  if (source.ends.size() > 1 && source.type != chardev_type::udp)
    return fail(errc::bad_xml, "only one source element is allowed for character device");
  if (source.ends.size() > 2)
    return fail(errc::bad_xml, "only two source elements are allowed for character device");
  for (const auto& end : source.ends)
    if (end.reconnect && end.reconnect->enabled == yes_no::yes) {
      if (end.mode == "bind")
        return fail(errc::internal, "chardev reconnect is possible only for connect mode");
      if (end.reconnect->timeout.value_or(1) == 0)
        return fail(errc::bad_argument, "chardev reconnect source timeout cannot be '0'");
    }
  if ((source.type == chardev_type::file || source.type == chardev_type::dev || source.type == chardev_type::pipe) &&
      source.first().path.empty())
    return fail(errc::internal, "Missing source path attribute for char device");
  return {};
}

result<void> check_chardevs(const domain& guest) {
  const auto& devices = guest.devices;
  for (const auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels}) {
    std::set<std::pair<std::string, int>> numbers;
    for (const auto& each : *ports) {
      if (auto went = check_source(guest, each.source); !went)
        return went;
      if (each.kind == chardev_kind::serial &&
          (each.target_type.starts_with("spapr") || each.target_type.starts_with("sclp")))
        return refuse(fmt::format(
          "Serial device with target type '{}' and target model '{}' not compatible with guest architecture "
          "or machine type",
          each.target_type, each.target_model));
      if (each.kind == chardev_kind::console && each.target_type.starts_with("sclp"))
        return refuse("sclpconsole is not supported in this QEMU binary");
      if (each.kind != chardev_kind::channel && each.target_port &&
          !numbers.emplace(each.target_type, *each.target_port).second)
        return fail(errc::internal, fmt::format("target port '{}' already allocated", *each.target_port));
    }
  }
  for (const auto& each : devices.smartcards)
    if (auto went = check_source(guest, each.source); !went)
      return went;
  for (const auto& each : devices.redirdevs)
    if (auto went = check_source(guest, each.source); !went)
      return went;
  for (const auto& each : devices.rngs)
    if (auto went = check_source(guest, each.source); !went)
      return went;
  return {};
}

result<void> check_graphics(const domain& guest) {
  for (const auto& each : guest.devices.graphics) {
    if (each.type == graphics_type::rdp || each.type == graphics_type::desktop)
      return refuse(fmt::format("{} graphics are not supported with this QEMU", word_of(each.type)));
    if (each.type == graphics_type::spice && each.tls_port.value_or(0) > 0)
      return refuse("spice TLS port set in XML configuration, but TLS is disabled in qemu.conf");
  }
  return {};
}

result<void> check_mac(const net_interface& each) {
  std::vector<unsigned> bytes;
  std::string_view rest = each.mac;
  while (!rest.empty()) {
    const auto colon = std::min(rest.find(':'), rest.size());
    const auto digits = rest.substr(0, colon);
    unsigned byte = 0;
    const bool hex = !digits.empty() && digits.size() <= 2 && std::ranges::all_of(digits, [&](char c) {
      const auto place = std::string_view{"0123456789abcdef"}.find(static_cast<char>(c | 0x20));
      byte = byte * 16 + static_cast<unsigned>(place);
      return place != std::string_view::npos;
    });
    if (!hex)
      break;
    bytes.push_back(byte);
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  if (bytes.size() != 6 || !rest.empty() || each.mac.ends_with(':'))
    return fail(errc::bad_xml, fmt::format("unable to parse mac address '{}'", each.mac));
  if ((bytes.front() & 1) != 0)
    return fail(errc::bad_xml, fmt::format("expected unicast mac address, found multicast '{}'", each.mac));
  return {};
}

result<void> check_interfaces(const domain& guest) {
  for (const auto& each : guest.devices.interfaces) {
    if (auto went = check_mac(each); !went)
      return went;
    if (each.type == net_type::ethernet && each.coalesce_rx_frames)
      return refuse("coalesce settings on interface type ethernet are not supported");
    if (each.virtualport && each.virtualport->type == port_profile::openvswitch && each.port_isolated == yes_no::yes)
      return refuse(
        fmt::format("interface {} - <port isolated='yes'/> is not supported for network interfaces with virtualport "
                    "type='openvswitch'",
                    each.mac));
  }
  return {};
}

result<void> check_others(const domain& guest, const emulator_facts& facts) {
  const auto& devices = guest.devices;
  for (const auto& each : devices.inputs)
    if (each.model.ends_with("transitional") && each.bus == "virtio" && each.type != "passthrough")
      return refuse(fmt::format("virtio (non-)transitional models are not supported for input type={}", each.type));
  if (devices.vsocks.size() > 1)
    return fail(errc::bad_xml, "only a single vsock device is supported");
  for (const auto& each : devices.vsocks)
    if (each.cid && *each.cid < 3)
      return refuse("guest CIDs must be >= 3");
  for (const auto& each : devices.watchdogs) {
    if (each.model == "diag288")
      return refuse("diag288 model of watchdog is allowed for s390 and s390x only");
    if (each.model != "i6300esb" && each.model != "ib700")
      return refuse(fmt::format("unknown watchdog model '{}'", each.model));
  }
  for (const auto& each : devices.panics)
    if (each.model != "isa" && each.model != "hyperv" && each.model != "pseries" && each.model != "s390")
      return refuse(fmt::format("unknown panic model '{}'", each.model));
  for (const auto& each : devices.shmems) {
    if (each.has_msi && !each.has_server)
      return fail(errc::bad_xml, "msi option is only supported with a server");
    if (each.model == "ivshmem" && !has_device(facts, "ivshmem"))
      return refuse("ivshmem device is not supported with this QEMU binary");
  }
  if (devices.smartcards.size() > 1)
    return refuse("this QEMU binary lacks multiple smartcard support");
  for (const auto& info : guest.sysinfos)
    if (info.bios)
      for (const auto& entry : info.bios->entries)
        if (entry.name == "date" && !is_bios_date(entry.value))
          return fail(errc::xml_detail, "Invalid BIOS 'date' format");

  for (const auto& each : devices.tpms)
    if (each.backend.empty())
      return fail(errc::bad_xml, "missing TPM device backend");
  for (const auto& each : devices.iommus) {
    if (each.model == "intel" && !is_q35(guest))
      return refuse("IOMMU device: 'intel' is only supported with Q35 machines");
    if (each.intremap == on_off::on && (!guest.features || guest.features->ioapic != "qemu"))
      return refuse("IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')");
  }
  for (const auto& each : devices.hostdevs)
    if (each.type == "mdev" && each.model == "vfio-pci" && !each.address.is(address_type::unset) &&
        !each.address.is(address_type::pci))
      return fail(errc::bad_xml, fmt::format("Unsupported address type '{}' with mediated device model 'vfio-pci'",
                                             word_of(each.address.type)));
  for (const auto& each : devices.audios)
    if (!each.id)
      return fail(errc::bad_xml, "Missing required attribute 'id' in element 'audio'");
  return {};
}

result<void> check_zpci(const domain& guest) {
  bool wanted = false;
  each_device(guest, [&](const auto& each) {
    wanted = wanted || each.address.zpci.has_value();
  });
  return wanted ? refuse("This QEMU binary doesn't support zPCI") : result<void>{};
}

result<void> check_boot_order(const domain& guest) {
  std::set<unsigned> orders;
  result<void> went;
  each_device(guest, [&](const auto& each) {
    if (each.boot_order > 0 && !orders.insert(each.boot_order).second && went)
      went = refuse(fmt::format("boot order '{}' used for more than one device", each.boot_order));
  });
  if (went && !orders.empty() && !guest.os.boots.empty())
    return refuse("per-device boot elements cannot be used together with os/boot elements");
  return went;
}

} // namespace

result<void> check_identity(definition_work& work) {
  const auto& guest = work.guest;
  if (guest.type == virt_type::unset)
    return fail(errc::internal, "missing domain type attribute");
  if (guest.name.empty())
    return fail(errc::bad_xml, "the guest has no name: <name> is missing or empty");
  if (guest.name.find('/') != guest.name.npos)
    return fail(errc::bad_xml, fmt::format("name {} cannot contain '/'", guest.name));
  if (guest.name.find('\n') != guest.name.npos)
    return fail(errc::bad_xml, fmt::format("name {} cannot contain '\\n'", guest.name));
  if (guest.name == "." || guest.name == ".." || guest.name.size() > 240)
    return fail(errc::bad_xml,
                fmt::format("name {} cannot be a file's: no more than 240 bytes, not '.' or '..'", guest.name));
  if (guest.title.find('\n') != guest.title.npos)
    return fail(errc::bad_xml, "Domain title can't contain newlines");
  if (guest.os.type.empty())
    return guest.bootloader.empty() ? fail(errc::bad_xml, "an os <type> must be specified")
                                    : refuse("bootloader is not supported by QEMU");
  if (!known_os(guest.os.type))
    return refuse(fmt::format("unknown OS type '{}'", guest.os.type));
  if (!guest.os.arch.empty() && !known_arch(guest.os.arch))
    return refuse(fmt::format("Unknown architecture {}", guest.os.arch));
  if (!guest.bootloader.empty())
    return refuse("bootloader is not supported by QEMU");
  return {};
}

result<void> check_as_given(definition_work& work) {
  const auto& devices = work.guest.devices;
  for (const auto& each : devices.interfaces) {
    if (!each.mac.empty())
      if (auto went = check_mac(each); !went)
        return went;
    if (each.type == net_type::bridge && each.bridge.empty())
      return fail(errc::bad_xml, "interface type='bridge' requires a 'source' element");
    if (each.type == net_type::network && each.network.empty())
      return fail(errc::bad_xml, "interface type='network' requires a 'source' element");
  }
  return {};
}

result<void> check_definition(definition_work& work) {
  const auto& guest = work.guest;
  const result<void> checks[] = {
    check_labels(guest),
    check_machine(guest, work.facts),
    check_processors(guest),
    check_tuning(guest),
    check_memory(guest),
    check_features(guest),
    check_clock(guest),
    check_controllers(guest),
    check_disks(guest),
    check_chardevs(guest),
    check_graphics(guest),
    check_interfaces(guest),
    check_others(guest, work.facts),
    check_boot_order(guest),
    check_zpci(guest),
  };
  for (const auto& each : checks)
    if (!each)
      return each;
  return {};
}

result<void> check_addresses(definition_work& work) {
  // A device that sits on a controller which is not there would be lost at the start.
  const auto& guest = work.guest;
  for (const auto& each : guest.devices.disks) {
    constexpr std::pair<disk_bus, controller_type> buses[] = {{disk_bus::scsi, controller_type::scsi},
                                                              {disk_bus::fdc, controller_type::fdc},
                                                              {disk_bus::ide, controller_type::ide},
                                                              {disk_bus::sata, controller_type::sata}};
    for (const auto& [bus, type] : buses)
      if (each.bus == bus && find_controller(guest, type, static_cast<int>(each.address.controller)) == nullptr)
        return refuse(fmt::format("disk '{}' is on {} controller {}, which guest '{}' does not have", each.target,
                                  word_of(type), each.address.controller, guest.name));
  }
  return {};
}

} // namespace troupe
