#include "xml/passes.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <set>
#include <span>

namespace troupe {
namespace {

/// A name that libvirt or we generated for the host's end of a network card.
bool is_generated_tap(std::string_view name) {
  constexpr std::string_view prefixes[] = {"vnet", "macvtap", "macvlan"};
  return std::ranges::any_of(prefixes, [&](auto prefix) { return name.starts_with(prefix); });
}

/// A socket that libvirt or we made up for a guest's agent: ".../channel/target/..." or ".../domain-.../NAME".
bool is_generated_socket(std::string_view path, std::string_view name) {
  if (name.empty() || !path.ends_with(name))
    return false;
  if (path.find("/channel/target/") != path.npos || path.find("/qemu/channel/") != path.npos)
    return true;
  path.remove_suffix(name.size());
  if (!path.ends_with('/'))
    return false;
  path.remove_suffix(1);
  const auto folder = path.substr(path.rfind('/') + 1);
  return folder.starts_with("domain-") && folder.size() > std::string_view{"domain-"}.size();
}

void drop_live_parts(chardev& port) {
  port.tty.clear();
  port.target_state.clear();
  auto& source = port.source;
  if (source.ends.empty())
    return;
  auto& end = source.first();
  if (source.type == chardev_type::pty)
    end.path.clear();
  if (port.kind == chardev_kind::channel && source.type == chardev_type::unix_ &&
      is_generated_socket(end.path, port.target_name)) {
    end.path.clear();
    end.mode = "bind";
  }
}

void drop_live_parts(backing_store& image) {
  image.index.reset();
  image.source.index.reset();
  for (auto& next : image.next)
    drop_live_parts(next);
}

void drop_live_parts(graphics& display) {
  if (display.autoport == yes_no::yes) {
    display.port.reset();
    display.tls_port.reset();
  }
  display.port_generated = display.tls_port_generated = display.websocket_generated = false;
  for (auto& each : display.listens) {
    if (each.generated)
      each.address.clear(), each.socket.clear();
    if (each.type == listen_type::network)
      each.address.clear();
    each.generated = false;
  }
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const auto byte : bytes)
    text += fmt::format("{:02x}", byte);
  return text;
}

std::string random_uuid(const random_source& random) {
  auto bytes = random();
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3f) | 0x80);
  const std::span all{bytes};
  return fmt::format("{}-{}-{}-{}-{}", hex(all.subspan(0, 4)), hex(all.subspan(4, 2)), hex(all.subspan(6, 2)),
                     hex(all.subspan(8, 2)), hex(all.subspan(10, 6)));
}

bool runs(const emulator_facts& facts, std::string_view arch) {
  if (arch == "i686")
    return facts.arch == "i386" || facts.arch == "x86_64";
  if (arch == "armv7l")
    return facts.arch == "arm";
  return facts.arch == arch;
}

/// "qemu64" of "qemu64-x86_64-cpu".
std::string model_of_type(std::string_view type, std::string_view arch) {
  const auto suffix = fmt::format("-{}-cpu", arch);
  if (type.ends_with(suffix))
    type.remove_suffix(suffix.size());
  return std::string{type};
}

/// libvirt and QEMU take no more.
constexpr std::size_t most_cells_with_distances = 128;

/// A vCPU that no NUMA cell names is in the first one.
void give_spare_vcpus(cpu_description& cpu, unsigned vcpus) {
  std::set<unsigned> spare;
  for (unsigned each = 0; each < vcpus; ++each)
    spare.insert(each);
  for (const auto& cell : cpu.cells)
    for (const auto& [first, last] : cpu_ranges(cell.cpus))
      spare.erase(spare.lower_bound(first), spare.upper_bound(last));
  if (cpu.cells.empty() || spare.empty())
    return;
  auto& first = cpu.cells.front().cpus;
  for (const auto each : spare)
    first += fmt::format("{}{}", first.empty() ? "" : ",", each);
  first = cpu_set_text(first);
}

/// Once one cell says how far it is from another, all say how far they are from all: the same as the other way round,
/// else 10 from itself and 20 from others.
void give_distances(cpu_description& cpu) {
  const auto said = [&](unsigned from, unsigned to) -> maybe_number {
    for (const auto& each : cpu.cells[from].distances)
      if (each.cell == to)
        return each.value;
    return std::nullopt;
  };
  if (std::ranges::all_of(cpu.cells, [](const auto& cell) { return cell.distances.empty(); }) ||
      cpu.cells.size() > most_cells_with_distances)
    return;
  const auto count = static_cast<unsigned>(cpu.cells.size());
  std::vector<std::vector<numa_distance>> all(count);
  for (unsigned from = 0; from < count; ++from)
    for (unsigned to = 0; to < count; ++to) {
      auto value = said(from, to);
      if (!value)
        value = said(to, from);
      all[from].push_back({{}, to, value.value_or(from == to ? 10 : 20)});
    }
  for (unsigned from = 0; from < count; ++from)
    if (std::ranges::all_of(cpu.cells[from].distances, [&](const auto& each) { return each.cell < count; }))
      cpu.cells[from].distances = std::move(all[from]);
}

/// Threads that have no number of their own take the lowest free ones, once any has one.
void number_iothreads(domain& guest) {
  auto& ids = guest.iothread_ids;
  if (ids.empty())
    return;
  const auto count = std::max<std::size_t>(guest.iothreads.value_or(0), ids.size());
  guest.iothreads = static_cast<unsigned>(count);
  for (unsigned id = 1; ids.size() < std::min<std::size_t>(count, 1024); ++id)
    if (std::ranges::find(ids, id, &iothread_id::id) == ids.end()) {
      iothread_id added;
      added.id = id;
      ids.push_back(std::move(added));
    }
}

void settle_cpu(definition_work& work) {
  auto& guest = work.guest;
  if (!is_x86(guest))
    return;
  if (!guest.cpu)
    guest.cpu.emplace();
  auto& cpu = *guest.cpu;
  const bool nothing_chosen = (cpu.mode.empty() || cpu.mode == "custom") && cpu.model.empty();
  if (nothing_chosen) {
    const auto* machine = find_machine(work.facts, guest.os.machine);
    auto model = machine ? model_of_type(machine->default_cpu_type, work.facts.arch) : std::string{};
    if (model.empty())
      model = work.facts.arch == "i386" ? "qemu32" : "qemu64";
    cpu.mode = "custom";
    cpu.match = "exact";
    cpu.check = "none";
    cpu.model = std::move(model);
    cpu.has_model = true;
    cpu.fallback = "forbid";
  }
  if (cpu.mode.empty())
    cpu.mode = "custom";
  if (cpu.mode == "custom" && cpu.match.empty())
    cpu.match = "exact";
  if (cpu.mode == "custom" && cpu.fallback.empty())
    cpu.fallback = "allow";
  if (cpu.mode != "custom" && cpu.model.empty())
    cpu.has_model = false, cpu.fallback.clear();
  if (cpu.check.empty()) {
    if (cpu.mode == "host-passthrough" || cpu.mode == "maximum")
      cpu.check = "none";
    else if (cpu.mode == "host-model")
      cpu.check = "partial";
    else
      cpu.check = guest.type == virt_type::kvm ? "partial" : "none";
  }
  if (cpu.mode == "host-passthrough" || cpu.mode == "maximum") {
    if (cpu.migratable == on_off::unset)
      cpu.migratable = work.facts.arch == "x86_64" ? on_off::on : on_off::off;
  }
  for (auto& feature : cpu.features)
    if (feature.policy.empty() && cpu.mode != "host-passthrough")
      feature.policy = "require";
  unsigned number = 0;
  for (auto& cell : cpu.cells) {
    if (!cell.id)
      cell.id = number;
    ++number;
  }
  std::ranges::stable_sort(cpu.cells, {}, [](const auto& cell) { return *cell.id; });
  give_spare_vcpus(cpu, guest.vcpu_max.value_or(1));
  give_distances(cpu);
}

} // namespace

result<void> drop_live_parts(definition_work& work) {
  auto& guest = work.guest;
  guest.id = -1;
  each_device(guest, [](auto& each) {
    if (!each.alias.starts_with("ua-"))
      each.alias.clear();
  });
  auto& devices = guest.devices;
  for (auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    for (auto& port : *ports)
      drop_live_parts(port);
  for (auto& card : devices.interfaces) {
    if (is_generated_tap(card.target_dev))
      card.target_dev.clear();
    if (card.type == net_type::network)
      card.bridge.clear(), card.port_id.clear();
  }
  for (auto& each : devices.disks) {
    each.source.index.reset();
    each.mirror.clear();
    for (auto& image : each.backing)
      drop_live_parts(image);
  }
  for (auto& display : devices.graphics)
    drop_live_parts(display);
  for (auto& label : guest.seclabels)
    if (label.type == label_kind::dynamic)
      label.label.clear(), label.image_label.clear();
  return {};
}

result<void> settle_machine(definition_work& work) {
  auto& guest = work.guest;
  const auto& facts = work.facts;
  const auto cannot = [&](std::string_view what, std::string_view which) {
    return fail(errc::unsupported_config,
                fmt::format("Emulator '{}' does not support {} '{}'", facts.binary, what, which));
  };
  if (!runs(facts, guest.os.arch))
    return cannot("arch", guest.os.arch);
  if (guest.os.type != "hvm")
    return cannot("os type", guest.os.type);
  if (guest.type != virt_type::kvm && guest.type != virt_type::qemu)
    return cannot("virt type", word_of(guest.type));
  if (guest.type == virt_type::kvm && !facts.kvm_usable)
    return fail(
      errc::unsupported_config,
      fmt::format(
        "Emulator '{}' does not support virt type 'kvm': {}; guest '{}' runs without KVM as <domain type='qemu'>",
        facts.binary, facts.why_no_kvm.empty() ? "KVM is not usable" : facts.why_no_kvm, guest.name));
  if (guest.type == virt_type::qemu && !facts.tcg_usable)
    return cannot("virt type", "qemu");
  if (facts.machines.empty())
    return fail(errc::no_emulator, fmt::format("Cannot check QEMU binary {}: No such file or directory", facts.binary));
  auto& machine = guest.os.machine;
  const auto* known = machine.empty() ? default_machine(facts) : find_machine(facts, machine);
  if (known == nullptr && machine.empty())
    return fail(
      errc::unsupported_config,
      fmt::format("Emulator '{}' has no default machine: guest '{}' must name one in <os><type machine='...'>",
                  facts.binary, guest.name));
  if (known == nullptr)
    return cannot("machine type", machine);
  machine = known->name;
  return {};
}

result<void> settle_identity(definition_work& work) {
  auto& guest = work.guest;
  if (guest.uuid.empty())
    guest.uuid = random_uuid(work.random);
  if (guest.genid && guest.genid->empty())
    guest.genid = random_uuid(work.random);
  for (auto& card : guest.devices.interfaces) {
    if (!card.virtualport)
      continue;
    auto& port = *card.virtualport;
    if (port.type == port_profile::openvswitch && port.interface_id.empty())
      port.interface_id = random_uuid(work.random);
    if (port.type == port_profile::qbg && port.manager_id && port.instance_id.empty())
      port.instance_id = random_uuid(work.random);
  }
  for (auto& info : guest.sysinfos)
    if (info.type.empty())
      info.type = "smbios";
  return {};
}

result<void> settle_memory(definition_work& work) {
  auto& guest = work.guest;
  std::uint64_t in_cells = 0;
  if (guest.cpu)
    for (const auto& cell : guest.cpu->cells)
      in_cells += cell.memory_kib;
  std::uint64_t in_modules = 0;
  for (const auto& module : guest.devices.memories)
    in_modules += module.size_kib.value_or(0);
  if (in_cells > 0)
    guest.memory_kib = in_cells + in_modules;
  if (guest.memory_kib.value_or(0) == 0)
    return fail(errc::bad_xml, "Memory size must be specified via <memory> or in the <numa> configuration");
  if (in_cells == 0 && in_modules > *guest.memory_kib)
    return fail(errc::bad_xml, "Total size of memory devices exceeds the total memory size");
  auto& current = guest.current_memory_kib;
  if (current.value_or(0) == 0 || *current > *guest.memory_kib)
    current = guest.memory_kib;
  return {};
}

result<void> settle_processors(definition_work& work) {
  auto& guest = work.guest;
  if (!guest.vcpu_max)
    guest.vcpu_max = 1;
  if (guest.vcpu_current && *guest.vcpu_current >= *guest.vcpu_max && guest.vcpus.empty()) {
    if (*guest.vcpu_current > *guest.vcpu_max)
      return fail(errc::bad_xml, fmt::format("maxvcpus must not be less than current vcpus ({} < {})", *guest.vcpu_max,
                                             *guest.vcpu_current));
    guest.vcpu_current.reset();
  }
  if (guest.vcpu_placement.empty()) {
    const auto* memory = guest.numatune && guest.numatune->memory ? &*guest.numatune->memory : nullptr;
    guest.vcpu_placement = memory != nullptr && memory->placement == placement::auto_ ? "auto" : "static";
  }
  number_iothreads(guest);
  settle_cpu(work);
  return {};
}

result<void> settle_life(definition_work& work) {
  auto& guest = work.guest;
  if (!guest.clock)
    guest.clock.emplace();
  auto& clock = *guest.clock;
  if (clock.offset.empty())
    clock.offset = clock.sync == "localtime" ? "localtime" : "utc";
  clock.sync.clear();
  const auto settle = [](lifecycle_action& action, lifecycle_action otherwise) {
    if (action == lifecycle_action::unset)
      action = otherwise;
  };
  settle(guest.on_poweroff, lifecycle_action::destroy);
  settle(guest.on_reboot, lifecycle_action::restart);
  settle(guest.on_crash, lifecycle_action::destroy);
  bool ordered = false;
  each_device(guest, [&](const auto& each) { ordered = ordered || each.boot_order > 0; });
  if (guest.os.boots.empty() && !ordered)
    guest.os.boots.push_back({{}, boot_device::hd});
  return {};
}

} // namespace troupe
