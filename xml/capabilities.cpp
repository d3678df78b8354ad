#include "xml/capabilities.hpp"

#include "xml/cpu_models.hpp"
#include "xml/xml_tree.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <initializer_list>

namespace troupe {
namespace {

xml_element element(std::string name, std::initializer_list<std::pair<std::string_view, std::string>> attributes = {}) {
  xml_element out;
  out.name = std::move(name);
  for (const auto& [key, value] : attributes)
    out.set(key, value);
  return out;
}

xml_element& add(xml_element& parent, xml_element child) {
  return parent.children.emplace_back(std::move(child));
}

xml_element& add_text(xml_element& parent, std::string name, std::string text) {
  auto& child = add(parent, element(std::move(name)));
  child.text = std::move(text);
  return child;
}

std::string number(std::uint64_t value) {
  return fmt::format("{}", value);
}

// ---- the host

void add_cpu(xml_element& host, const host_facts& facts, const emulator_facts* emulator) {
  auto& cpu = add(host, element("cpu"));
  add_text(cpu, "arch", facts.arch);
  const auto described =
    emulator ? nearest_model(host_cpu(facts, *emulator), emulator->cpu_models, naming::of_host) : cpu_text{};
  if (!described.model.empty())
    add_text(cpu, "model", described.model);
  if (const auto vendor = vendor_word(facts.cpu.vendor); !vendor.empty())
    add_text(cpu, "vendor", std::string{vendor});
  if (facts.microcode != 0)
    add(cpu, element("microcode", {{"version", number(facts.microcode)}}));
  if (facts.cpu.family >= 0 && facts.cpu.model >= 0 && facts.cpu.stepping >= 0)
    add(cpu, element("signature", {{"family", fmt::format("{}", facts.cpu.family)},
                                   {"model", fmt::format("{}", facts.cpu.model)},
                                   {"stepping", fmt::format("{}", facts.cpu.stepping)}}));
  add(cpu, element("topology", {{"sockets", number(facts.sockets)},
                                {"dies", number(facts.dies)},
                                {"cores", number(facts.cores)},
                                {"threads", number(facts.threads)}}));
  if (facts.physical_bits != 0)
    add(cpu, element("maxphysaddr", {{"mode", "emulate"}, {"bits", number(facts.physical_bits)}}));
  for (const auto& feature : described.features)
    add(cpu, element("feature", {{"name", feature.name}}));
  for (const auto size : facts.page_kib)
    add(cpu, element("pages", {{"unit", "KiB"}, {"size", number(size)}}));
}

void add_cell(xml_element& cells, const host_facts::numa_cell& cell) {
  auto& out = add(cells, element("cell", {{"id", number(cell.id)}}));
  add_text(out, "memory", number(cell.memory_kib)).set("unit", "KiB");
  if (!cell.distances.empty()) {
    auto& distances = add(out, element("distances"));
    for (std::size_t to = 0; to < cell.distances.size(); ++to)
      add(distances, element("sibling", {{"id", number(to)}, {"value", number(cell.distances[to])}}));
  }
  auto& cpus = add(out, element("cpus", {{"num", number(cell.cpus.size())}}));
  for (const auto& cpu : cell.cpus)
    add(cpus, element("cpu", {{"id", number(cpu.id)},
                              {"socket_id", number(cpu.socket)},
                              {"die_id", number(cpu.die)},
                              {"core_id", number(cpu.core)},
                              {"siblings", cpu.siblings}}));
}

void add_security(xml_element& host, const host_facts::security_model& model) {
  auto& out = add(host, element("secmodel"));
  add_text(out, "model", model.model);
  add_text(out, "doi", model.doi);
  if (!model.kvm_label.empty())
    add_text(out, "baselabel", model.kvm_label).set("type", "kvm");
  if (!model.qemu_label.empty())
    add_text(out, "baselabel", model.qemu_label).set("type", "qemu");
}

void add_host(xml_element& root, const host_facts& facts, const emulator_facts* emulator) {
  auto& host = add(root, element("host"));
  add_text(host, "uuid", facts.uuid);
  add_cpu(host, facts, emulator);
  auto& power = add(host, element("power_management"));
  for (const auto& mode : facts.suspend_modes)
    add(power, element(mode));
  add(host, element("iommu", {{"support", facts.iommu ? "yes" : "no"}}));
  auto& cells = add(add(host, element("topology")), element("cells", {{"num", number(facts.cells.size())}}));
  for (const auto& cell : facts.cells)
    add_cell(cells, cell);
  for (const auto& model : facts.security)
    add_security(host, model);
}

// ---- what can be run

struct arch_row {
  std::string_view qemu, libvirt;
  unsigned wordsize;
};
constexpr arch_row arch_rows[] = {
  {"i386", "i686", 32},         {"x86_64", "x86_64", 64}, {"aarch64", "aarch64", 64}, {"arm", "armv7l", 32},
  {"ppc", "ppc", 32},           {"ppc64", "ppc64", 64},   {"s390x", "s390x", 64},     {"riscv32", "riscv32", 32},
  {"riscv64", "riscv64", 64},   {"mips", "mips", 32},     {"mipsel", "mipsel", 32},   {"mips64", "mips64", 64},
  {"mips64el", "mips64el", 64}, {"sparc", "sparc", 32},   {"sparc64", "sparc64", 64},
};

arch_row arch_of(std::string_view qemu) {
  const auto row = std::ranges::find(arch_rows, qemu, &arch_row::qemu);
  return row == std::end(arch_rows) ? arch_row{qemu, qemu, qemu.ends_with("64") ? 64u : 32u} : *row;
}

bool is_x86(std::string_view arch) {
  return arch == "i686" || arch == "x86_64";
}

/// Machines for QEMU's own use.
bool is_hidden(const machine_facts& machine) {
  return machine.name == "none" || machine.name == "x-remote";
}

void add_machine(xml_element& arch, const machine_facts& machine) {
  const auto add_one = [&](const std::string& name, bool alias) {
    auto& out = add_text(arch, "machine", name);
    if (alias)
      out.set("canonical", machine.name);
    if (machine.max_cpus)
      out.set("maxCpus", number(machine.max_cpus));
    if (machine.deprecated)
      out.set("deprecated", "yes");
  };
  add_one(machine.name, false);
  if (!machine.alias.empty())
    add_one(machine.alias, true);
}

void add_guest(xml_element& root, const emulator_facts& facts, const arch_row& row) {
  auto& guest = add(root, element("guest"));
  add_text(guest, "os_type", "hvm");
  {
    auto& arch = add(guest, element("arch", {{"name", std::string{row.libvirt}}}));
    add_text(arch, "wordsize", number(row.wordsize));
    add_text(arch, "emulator", facts.binary);
    // The default comes first: clients take the first.
    const auto* usual = default_machine(facts);
    if (usual)
      add_machine(arch, *usual);
    for (const auto& machine : facts.machines)
      if (&machine != usual && !is_hidden(machine))
        add_machine(arch, machine);
    if (facts.tcg_usable)
      add(arch, element("domain", {{"type", "qemu"}}));
    if (facts.kvm_usable)
      add(arch, element("domain", {{"type", "kvm"}}));
  }
  auto& features = add(guest, element("features"));
  if (row.libvirt == "i686") {
    add(features, element("pae"));
    add(features, element("nonpae"));
  }
  if (is_x86(row.libvirt)) {
    add(features, element("acpi", {{"default", "on"}, {"toggle", "yes"}}));
    add(features, element("apic", {{"default", "on"}, {"toggle", "no"}}));
  }
  add(features, element("cpuselection"));
  add(features, element("deviceboot"));
  add(features, element("disksnapshot", {{"default", "on"}, {"toggle", "no"}}));
}

// ---- what one emulator can do

using word_list = std::vector<std::string>;

xml_element& add_enum(xml_element& parent, const char* name, const word_list& values) {
  auto& out = add(parent, element("enum", {{"name", name}}));
  for (const auto& value : values)
    add_text(out, "value", value);
  return out;
}

std::string yes_if(bool yes) {
  return yes ? "yes" : "no";
}

xml_element& add_supported(xml_element& parent, std::string name, bool yes = true) {
  return add(parent, element(std::move(name), {{"supported", yes_if(yes)}}));
}

/// The words whose device this QEMU has; a word without a device is always there.
struct worded_device {
  std::string_view word, type;
};
template <std::size_t Count>
word_list present(const emulator_facts& facts, const worded_device (&rows)[Count]) {
  word_list out;
  for (const auto& row : rows)
    if (row.type.empty() || has_device(facts, row.type))
      out.emplace_back(row.word);
  return out;
}

constexpr worded_device video_devices[] = {{"vga", "VGA"},
                                           {"cirrus", "cirrus-vga"},
                                           {"vmvga", "vmware-svga"},
                                           {"qxl", "qxl-vga"},
                                           {"virtio", "virtio-gpu-pci"},
                                           {"none", ""},
                                           {"bochs", "bochs-display"},
                                           {"ramfb", "ramfb"}};
constexpr worded_device graphics_kinds[] = {
  {"vnc", ""}, {"spice", "chardev-spicevmc"}, {"egl-headless", ""}, {"dbus", "chardev-dbus"}};
constexpr worded_device virtio_models[] = {{"virtio", "virtio-blk-pci"},
                                           {"virtio-transitional", "virtio-blk-pci-transitional"},
                                           {"virtio-non-transitional", "virtio-blk-pci-non-transitional"}};
constexpr worded_device rng_models[] = {{"virtio", "virtio-rng-pci"},
                                        {"virtio-transitional", "virtio-rng-pci-transitional"},
                                        {"virtio-non-transitional", "virtio-rng-pci-non-transitional"}};
constexpr worded_device rng_backends[] = {{"random", "rng-random"}, {"egd", "rng-egd"}, {"builtin", "rng-builtin"}};
constexpr worded_device tpm_models[] = {{"tpm-tis", "tpm-tis"}, {"tpm-crb", "tpm-crb"}};
constexpr worded_device tpm_backends[] = {{"passthrough", "tpm-passthrough"}, {"external", "tpm-emulator"}};
constexpr worded_device memory_sources[] = {
  {"file", "memory-backend-file"}, {"anonymous", ""}, {"memfd", "memory-backend-memfd"}};
constexpr worded_device filesystem_drivers[] = {{"path", "virtio-9p-pci"}, {"virtiofs", "vhost-user-fs-pci"}};
constexpr worded_device channel_kinds[] = {{"pty", ""}, {"unix", ""}, {"spicevmc", "chardev-spicevmc"}};
constexpr worded_device host_devices[] = {{"usb", "usb-host"}, {"pci", "vfio-pci"}, {"scsi", "scsi-generic"}};

void add_firmware(xml_element& root, const firmware_choice& firmware) {
  auto& os = add_supported(root, "os");
  add_enum(os, "firmware", firmware.interfaces);
  auto& loader = add_supported(os, "loader");
  for (const auto& path : firmware.loaders)
    add_text(loader, "value", path);
  add_enum(loader, "type", {"rom", "pflash"});
  add_enum(loader, "readonly", {"yes", "no"});
  add_enum(loader, "secure", firmware.secure ? word_list{"yes", "no"} : word_list{"no"});
}

void add_host_model(xml_element& mode, const emulator_facts& facts, const cpu_definition& most) {
  const auto described = nearest_model(most, facts.cpu_models, naming::of_guest);
  add_text(mode, "model", described.model).set("fallback", "forbid");
  if (!described.vendor.empty())
    add_text(mode, "vendor", described.vendor);
  for (const auto& feature : described.features)
    add(mode, element("feature", {{"policy", feature.policy}, {"name", feature.name}}));
}

void add_custom_model(xml_element& mode, const emulator_facts& facts, const cpu_model_facts& model) {
  auto& out = add_text(mode, "model", model.name);
  out.set("usable", model.unavailable_features ? yes_if(model.usable()) : "unknown");
  if (model.deprecated)
    out.set("deprecated", "yes");
  if (const auto* whole = find_cpu_model(facts, model.name))
    out.set("vendor", has_vendor(*whole) ? std::string{vendor_word(whole->vendor)} : "unknown");
  if (!model.unavailable_features || model.usable())
    return;
  auto& blockers = add(mode, element("blockers", {{"model", model.name}}));
  for (const auto& lacking : *model.unavailable_features)
    add(blockers, element("feature", {{"name", libvirt_feature(lacking)}}));
}

void add_cpu_modes(xml_element& root, const emulator_facts& facts, accelerator under) {
  const bool kvm = under == accelerator::kvm;
  auto& cpu = add(root, element("cpu"));
  const auto mode = [&](const char* name, bool yes) -> xml_element& {
    return add(cpu, element("mode", {{"name", name}, {"supported", yes_if(yes)}}));
  };
  auto& passed = mode("host-passthrough", kvm);
  if (kvm)
    add_enum(passed, "hostPassthroughMigratable", {"on", "off"});
  add_enum(mode("maximum", true), "maximumMigratable", {"on", "off"});
  const auto* most = most_cpu(facts, under);
  auto& host_model = mode("host-model", most != nullptr);
  if (most)
    add_host_model(host_model, facts, *most);
  const auto& models = kvm ? facts.kvm_cpus : facts.tcg_cpus;
  auto& custom = mode("custom", !models.empty());
  for (const auto& model : models)
    if (is_plain_model(model.name))
      add_custom_model(custom, facts, model);
}

void add_devices(xml_element& root, const emulator_facts& facts, bool q35, bool x86) {
  auto& devices = add(root, element("devices"));
  auto& disk = add_supported(devices, "disk");
  add_enum(disk, "diskDevice", {"disk", "cdrom", "floppy", "lun"});
  word_list buses;
  if (x86 && !q35)
    buses.push_back("ide");
  if (x86)
    buses.push_back("fdc");
  for (const auto* bus : {"scsi", "virtio"})
    buses.push_back(bus);
  if (has_device(facts, "usb-storage"))
    buses.push_back("usb");
  if (has_device(facts, "ich9-ahci"))
    buses.push_back("sata");
  add_enum(disk, "bus", buses);
  add_enum(disk, "model", present(facts, virtio_models));
  add_enum(add_supported(devices, "graphics"), "type", present(facts, graphics_kinds));
  add_enum(add_supported(devices, "video"), "modelType", present(facts, video_devices));
  auto& host = add_supported(devices, "hostdev");
  add_enum(host, "mode", {"subsystem"});
  add_enum(host, "startupPolicy", {"default", "mandatory", "requisite", "optional"});
  add_enum(host, "subsysType", present(facts, host_devices));
  add_enum(host, "capsType", {});
  add_enum(host, "pciBackend", has_device(facts, "vfio-pci") ? word_list{"vfio"} : word_list{});
  const auto models = present(facts, rng_models);
  auto& rng = add_supported(devices, "rng", !models.empty());
  if (!models.empty()) {
    add_enum(rng, "model", models);
    add_enum(rng, "backendModel", present(facts, rng_backends));
  }
  const auto drivers = present(facts, filesystem_drivers);
  auto& filesystem = add_supported(devices, "filesystem", !drivers.empty());
  if (!drivers.empty())
    add_enum(filesystem, "driverType", drivers);
  const auto tpms = present(facts, tpm_models);
  auto& tpm = add_supported(devices, "tpm", !tpms.empty());
  if (!tpms.empty()) {
    add_enum(tpm, "model", tpms);
    add_enum(tpm, "backendModel", present(facts, tpm_backends));
  }
  const bool redirects = has_device(facts, "usb-redir");
  auto& redirection = add_supported(devices, "redirdev", redirects);
  if (redirects)
    add_enum(redirection, "bus", {"usb"});
  add_enum(add_supported(devices, "channel"), "type", present(facts, channel_kinds));
}

void add_sgx(xml_element& out, const sgx_facts& sgx) {
  add_text(out, "flc", yes_if(sgx.flc));
  add_text(out, "sgx1", yes_if(sgx.sgx1));
  add_text(out, "sgx2", yes_if(sgx.sgx2));
  std::uint64_t all = 0;
  auto sections = element("sections");
  for (std::size_t node = 0; node < sgx.section_bytes.size(); ++node) {
    const auto kib = sgx.section_bytes[node] / 1024;
    all += kib;
    add(sections, element("section", {{"node", number(node)}, {"size", number(kib)}, {"unit", "KiB"}}));
  }
  add_text(out, "section_size", number(all)).set("unit", "KiB");
  add(out, std::move(sections));
}

void add_features(xml_element& root, const emulator_facts& facts, bool x86, bool kvm) {
  auto& features = add(root, element("features"));
  auto& gic = add_supported(features, "gic", !facts.gic_versions.empty());
  word_list versions;
  for (const auto version : facts.gic_versions)
    versions.push_back(number(version));
  if (!versions.empty())
    add_enum(gic, "version", versions);
  add_supported(features, "vmcoreinfo", has_device(facts, "vmcoreinfo"));
  add_supported(features, "genid", has_device(facts, "vmgenid"));
  add_supported(features, "backingStoreInput");
  add_supported(features, "backup", false);
  auto& sev = add_supported(features, "sev", kvm && facts.sev);
  if (kvm && facts.sev) {
    add_text(sev, "cbitpos", number(facts.sev->cbitpos));
    add_text(sev, "reducedPhysBits", number(facts.sev->reduced_phys_bits));
  }
  auto& sgx = add_supported(features, "sgx", kvm && facts.sgx);
  if (kvm && facts.sgx)
    add_sgx(sgx, *facts.sgx);
  auto& hyperv = add_supported(features, "hyperv", x86);
  if (x86)
    add_enum(hyperv, "features", {"spinlocks", "vendor_id"});
}

} // namespace

cpu_definition host_cpu(const host_facts& host, const emulator_facts& emulator) {
  auto out = cpu_from_flags(host.cpu_flags, host.cpu.vendor, emulator.cpu_features);
  out.family = host.cpu.family;
  out.model = host.cpu.model;
  out.stepping = host.cpu.stepping;
  return out;
}

const emulator_facts* main_emulator(std::span<const std::shared_ptr<const emulator_facts>> emulators, std::string_view arch) {
  const auto found = std::ranges::find_if(emulators, [arch](const auto& each) { return each->arch == arch; });
  if (found != emulators.end())
    return found->get();
  return emulators.empty() ? nullptr : emulators.front().get();
}

std::string capabilities_xml(const host_facts& host, std::span<const std::shared_ptr<const emulator_facts>> emulators) {
  auto root = element("capabilities");
  add_host(root, host, main_emulator(emulators, host.arch));
  const bool has_i386 = std::ranges::any_of(emulators, [](const auto& facts) { return facts->arch == "i386"; });
  for (const auto& facts : emulators) {
    if (facts->arch == "x86_64" && !has_i386)
      add_guest(root, *facts, arch_of("i386"));
    add_guest(root, *facts, arch_of(facts->arch));
  }
  return write_xml(root);
}

std::string_view libvirt_arch(std::string_view qemu) {
  const auto* row = std::ranges::find(arch_rows, qemu, &arch_row::qemu);
  return row == std::end(arch_rows) ? std::string_view{} : row->libvirt;
}

std::shared_ptr<const emulator_facts> emulator_for(std::span<const std::shared_ptr<const emulator_facts>> emulators,
                                                   std::string_view arch) {
  const auto of = [&](std::string_view qemu) {
    const auto found = std::ranges::find_if(emulators, [&](const auto& each) { return each->arch == qemu; });
    return found == emulators.end() ? nullptr : *found;
  };
  const auto* row = std::ranges::find(arch_rows, arch, &arch_row::libvirt);
  auto found = of(row == std::end(arch_rows) ? arch : row->qemu);
  return !found && arch == "i686" ? of("x86_64") : found; // a 64-bit PC runs 32-bit guests as well
}

bool is_plain_model(std::string_view name) {
  if (name == "max" || name == "host" || name == "base")
    return false;
  const auto dash = name.rfind("-v");
  return dash == std::string_view::npos || dash + 2 == name.size() ||
         !std::ranges::all_of(name.substr(dash + 2), [](char c) { return c >= '0' && c <= '9'; });
}

result<accelerator> accelerator_for(const emulator_facts& facts, std::string_view virt_type) {
  const bool kvm = virt_type.empty() ? facts.kvm_usable : virt_type == "kvm";
  const auto refuse = [&](std::string_view type, std::string_view why) {
    return fail(errc::bad_argument, fmt::format("Emulator '{}' does not support virt type '{}': {}", facts.binary, type, why));
  };
  if (!virt_type.empty() && virt_type != "kvm" && virt_type != "qemu")
    return refuse(virt_type, "it can be kvm or qemu");
  if (kvm && !facts.kvm_usable)
    return refuse("kvm", facts.why_no_kvm.empty() ? "KVM is not usable" : facts.why_no_kvm);
  if (!kvm && !facts.tcg_usable)
    return refuse("qemu", "it was built without TCG");
  return kvm ? accelerator::kvm : accelerator::tcg;
}

const cpu_definition* most_cpu(const emulator_facts& facts, accelerator under) {
  const auto& most = under == accelerator::kvm ? facts.kvm_cpu : facts.tcg_cpu;
  return most && !facts.cpu_models.empty() ? &*most : nullptr;
}

result<std::string> domain_capabilities_xml(const emulator_facts& facts, std::string_view machine, std::string_view virt_type,
                                            const host_firmware& firmware) {
  const auto* found = machine.empty() ? default_machine(facts) : find_machine(facts, machine);
  if (!found && machine.empty() && !facts.machines.empty())
    found = &facts.machines.front();
  if (!found)
    return fail(errc::bad_argument,
                fmt::format("the machine '{}' is not supported by emulator '{}'", machine, facts.binary));
  const auto under = accelerator_for(facts, virt_type);
  if (!under)
    return tl::make_unexpected(under.error());
  const bool kvm = *under == accelerator::kvm;
  const auto arch = arch_of(facts.arch);
  const bool x86 = is_x86(arch.libvirt);
  auto root = element("domainCapabilities");
  add_text(root, "path", facts.binary);
  add_text(root, "domain", kvm ? "kvm" : "qemu");
  add_text(root, "machine", found->name);
  add_text(root, "arch", std::string{arch.libvirt});
  if (found->max_cpus)
    add(root, element("vcpu", {{"max", number(found->max_cpus)}}));
  add_supported(root, "iothreads", has_device(facts, "iothread"));
  add_firmware(root, firmware_for(firmware, facts.arch, found->name));
  add_cpu_modes(root, facts, *under);
  add_enum(add_supported(root, "memoryBacking"), "sourceType", present(facts, memory_sources));
  add_devices(root, facts, found->name.starts_with("pc-q35-"), x86);
  add_features(root, facts, x86, kvm);
  return write_xml(root);
}

} // namespace troupe
