#include "xml/argv_tables.hpp"
#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fmt/format.h>
#include <tuple>

// Machine, accelerator, CPU, memory, firmware, clock and boot: what argv_machine.cpp writes, and older spellings.

namespace troupe {
namespace {

feature_set& features_of(argv_import& in) {
  return in.guest.features ? *in.guest.features : in.guest.features.emplace();
}

cpu_description& cpu_of(argv_import& in) {
  return in.guest.cpu ? *in.guest.cpu : in.guest.cpu.emplace();
}

clock_description& clock_of(argv_import& in) {
  return in.guest.clock ? *in.guest.clock : in.guest.clock.emplace();
}

memory_backing& backing_of(argv_import& in) {
  return in.guest.backing ? *in.guest.backing : in.guest.backing.emplace();
}

clock_timer& timer_of(argv_import& in, std::string_view name) {
  auto& timers = clock_of(in).timers;
  const auto found = std::ranges::find(timers, name, &clock_timer::name);
  if (found != timers.end())
    return *found;
  timers.emplace_back().name = name;
  return timers.back();
}

void set_accelerator(argv_import& in, const line_option& option, std::string_view name) {
  // "kvm:tcg" takes the first that works.
  const auto first = name.substr(0, name.find(':'));
  if (first == "kvm")
    in.guest.type = virt_type::kvm;
  else if (first == "tcg")
    in.guest.type = virt_type::qemu;
  else
    in.refuse(option, fmt::format("accelerator '{}' is not one of Linux: kvm and tcg are accepted", name));
}

std::uint64_t amount(argv_import& in, const line_option& option, std::string_view text, std::uint64_t unit) {
  const auto bytes = amount_of(text, unit);
  if (!bytes)
    in.refuse(option, fmt::format("'{}' is no amount: a number with K, M, G or T behind it is accepted", text));
  return *bytes;
}

} // namespace

// ---- identity

void read_name(argv_import& in, line_option& option) {
  option.done = true;
  in.read(option, "guest", in.guest.name);
  if (in.guest.name.empty())
    in.refuse(option, "the name is empty");
  option.props.drop("debug-threads");
  in.leave_out(option, "the supervisor names processes itself");
}

void read_uuid(argv_import& in, line_option& option) {
  option.done = true;
  const auto& text = *option.value;
  std::string digits;
  for (const char c : text)
    if (c != '-')
      digits += c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
  if (digits.size() != 32 || digits.find_first_not_of("0123456789abcdef") != std::string::npos)
    in.refuse(option, "a UUID of 32 hexadecimal digits is accepted, such as c7a5fdbd-edaf-9455-926a-d65c16db1809");
  for (const auto at : {20, 16, 12, 8})
    digits.insert(static_cast<std::size_t>(at), "-");
  in.guest.uuid = digits;
}

// ---- machine and accelerator

void read_machine(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  if (const auto* type = props.take("type")) {
    if (*type == "help" || *type == "?" || *type == "none")
      in.refuse(option, "it names no machine that runs a guest: pc, q35 and others of '-machine help' are accepted");
    in.guest.os.machine = *type;
  }
  if (const auto* accelerator = props.take("accel"))
    set_accelerator(in, option, *accelerator);
  if (const auto usb = in.flag(option, "usb"))
    in.usb_wanted |= *usb;
  if (const auto dump = in.flag(option, "dump-guest-core"))
    in.guest.memory_dump = *dump ? on_off::on : on_off::off;
  if (in.is_libvirts && in.guest.memory_dump == on_off::off)
    in.guest.memory_dump = on_off::unset; // what it says anyway
  if (const auto vmport = props.peek("vmport"); vmport != nullptr && *vmport != "auto")
    in.read(option, "vmport", features_of(in).vmport);
  props.drop("vmport", "auto");
  if (const auto* smm = props.peek("smm"); smm != nullptr && *smm != "auto") {
    in.read(option, "smm", features_of(in).smm_state);
    features_of(in).smm = true;
  }
  props.drop("smm", "auto");
  if (const auto* irqchip = props.peek("kernel_irqchip"); irqchip == nullptr)
    props.drop("kernel-irqchip", "on"); // as it is
  else if (*irqchip == "split" || switch_of(*irqchip) == true)
    features_of(in).ioapic = *props.take("kernel_irqchip") == "split" ? "qemu" : "kvm";
  if (in.flag(option, "mem-merge") == false)
    backing_of(in).nosharepages = true;
  if (in.flag(option, "graphics") == false)
    in.guest.os.bios_useserial = yes_no::yes;
  if (in.flag(option, "acpi") == false)
    features_of(in).acpi = false, in.acpi_off = true;
  if (const auto hpet = in.flag(option, "hpet"))
    timer_of(in, "hpet").present = *hpet ? yes_no::yes : yes_no::no;
  if (const auto* gic = props.take("gic-version"))
    features_of(in).gic = true, features_of(in).gic_version = *gic;
  for (const std::string_view cipher : {"aes", "dea"})
    if (const auto state = in.flag(option, fmt::format("{}-key-wrap", cipher))) {
      auto& each = in.guest.keywrap.emplace_back();
      each.name = cipher;
      each.state = *state ? on_off::on : on_off::off;
    }
  props.drop("nvdimm", "on"); // follows from the devices
  const auto tells_speed = [](const line_option& each) {
    const auto* type = each.name == "-numa" ? each.props.peek("type") : nullptr;
    return type != nullptr && type->starts_with("hmat-");
  };
  if (std::ranges::any_of(in.options, tells_speed))
    props.drop("hmat", "on"); // follows from the cells
  props.drop("pcspk-audiodev");
  const auto* backend = props.take("memory-backend");
  if (backend != nullptr)
    in.main_memory = *backend;
  for (unsigned unit = 0; unit < 2; ++unit)
    if (const auto* node = props.take(fmt::format("pflash{}", unit)); node != nullptr && !read_pflash(in, *node, unit))
      in.keep(option, "-machine", fmt::format("pflash{}={}", unit, *node));
  for (auto& each : props.all)
    if (!each.used) {
      each.used = true;
      in.keep(option, "-machine", each.key + "=" + each.value);
    }
}

void read_accelerator(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  const auto* name = props.take("accel");
  if (name == nullptr)
    in.refuse(option, "it names no accelerator: kvm and tcg are accepted");
  if (in.accelerator_given) {
    in.note(option, "left out: an earlier one is taken");
    return;
  }
  in.accelerator_given = true;
  set_accelerator(in, option, *name);
  if (const auto size = in.number(option, "dirty-ring-size")) {
    auto& kvm = features_of(in).kvm.emplace();
    kvm.dirty_ring = on_off::on;
    kvm.dirty_ring_size = static_cast<unsigned>(*size);
  }
  if (const auto mib = in.number(option, "tb-size"))
    features_of(in).tcg_tb_cache_kib = std::min<std::uint64_t>(*mib, 1u << 20) * 1024;
  if (const auto* irqchip = props.peek("kernel-irqchip"); irqchip != nullptr && *irqchip == "split")
    features_of(in).ioapic = "qemu", props.drop("kernel-irqchip");
  props.drop("thread", "multi"); // where it can
  in.leave_out(option, "domain XML has no words for it, and -accel stands once");
}

void read_enable_kvm(argv_import& in, line_option& option) {
  option.done = true;
  in.guest.type = virt_type::kvm;
}

// ---- CPU

namespace {

struct hyperv_row {
  std::string_view name;
  on_off hyperv_features::*field;
};
constexpr hyperv_row hyperv_rows[] = {
  {"relaxed", &hyperv_features::relaxed},
  {"vapic", &hyperv_features::vapic},
  {"vpindex", &hyperv_features::vpindex},
  {"runtime", &hyperv_features::runtime},
  {"synic", &hyperv_features::synic},
  {"stimer", &hyperv_features::stimer},
  {"stimer-direct", &hyperv_features::stimer_direct},
  {"reset", &hyperv_features::reset},
  {"frequencies", &hyperv_features::frequencies},
  {"reenlightenment", &hyperv_features::reenlightenment},
  {"tlbflush", &hyperv_features::tlbflush},
  {"ipi", &hyperv_features::ipi},
  {"evmcs", &hyperv_features::evmcs},
  {"avic", &hyperv_features::avic},
};

/// Hyper-V enlightenments: "relaxed" without its prefix. Answers whether it is one.
bool read_enlightenment(argv_import& in, std::string_view name, const std::string& value) {
  const auto state = switch_of(value);
  if (name == "time" && state) {
    timer_of(in, "hypervclock").present = *state ? yes_no::yes : yes_no::no;
    return true;
  }
  if (name == "crash") {
    in.guest.devices.panics.emplace_back().model = "hyperv";
    return true;
  }
  auto& features = features_of(in);
  auto& hyperv = features.hyperv ? *features.hyperv : features.hyperv.emplace();
  if (name == "passthrough") {
    hyperv.mode = "passthrough";
    return state == true;
  }
  if (name == "spinlocks") {
    const auto retries = number_of(value);
    if (!retries || *retries > 0xffffffffu)
      return false;
    hyperv.spinlocks = on_off::on;
    hyperv.spinlock_retries = static_cast<unsigned>(*retries);
    return true;
  }
  if (name == "vendor-id") {
    hyperv.vendor_id = on_off::on;
    hyperv.vendor = value;
    return true;
  }
  const auto row = std::ranges::find(hyperv_rows, name, &hyperv_row::name);
  if (row == std::end(hyperv_rows) || !state)
    return false;
  hyperv.*row->field = *state ? on_off::on : on_off::off;
  return true;
}

struct kvm_row {
  std::string_view name;
  on_off kvm_features::*field;
  bool opposite;
};
constexpr kvm_row kvm_rows[] = {{"kvm", &kvm_features::hidden, true},
                                {"kvm-hint-dedicated", &kvm_features::hint_dedicated, false},
                                {"kvm-poll-control", &kvm_features::poll_control, false},
                                {"kvm-pv-ipi", &kvm_features::pv_ipi, false}};

/// What of -cpu is in `<features>` or `<clock>`. Answers whether the property is of these.
bool read_cpu_elsewhere(argv_import& in, std::string_view name, const std::string& value) {
  for (const std::string_view prefix : {"hv-", "hv_"})
    if (name.starts_with(prefix)) {
      std::string plain{name.substr(prefix.size())};
      std::ranges::replace(plain, '_', '-');
      return read_enlightenment(in, plain, value);
    }
  const auto state = switch_of(value);
  const auto as = [&](bool wanted) { return wanted ? on_off::on : on_off::off; };
  if (name == "tsc-frequency") {
    const auto frequency = number_of(value);
    if (frequency)
      timer_of(in, "tsc").frequency = *frequency;
    return frequency.has_value();
  }
  if (!state)
    return false;
  if (name == "kvmclock") {
    timer_of(in, "kvmclock").present = *state ? yes_no::yes : yes_no::no;
    return true;
  }
  if (name == "kvm-pv-eoi" || name == "kvm_pv_eoi") {
    features_of(in).apic = true;
    features_of(in).apic_eoi = as(*state);
    return true;
  }
  if (name == "kvm-pv-unhalt" || name == "kvm_pv_unhalt") {
    features_of(in).pvspinlock = as(*state);
    return true;
  }
  if (name == "pmu") {
    features_of(in).pmu = as(*state);
    return true;
  }
  const auto row = std::ranges::find(kvm_rows, name, &kvm_row::name);
  if (row == std::end(kvm_rows))
    return false;
  auto& features = features_of(in);
  auto& kvm = features.kvm ? *features.kvm : features.kvm.emplace();
  kvm.*row->field = as(*state != row->opposite);
  return true;
}

bool is_feature_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

/// Properties of -cpu that are switches and no CPU features.
constexpr std::string_view cpu_switches[] = {"check",
                                             "enforce",
                                             "x-force-features",
                                             "fill-mtrr-mask",
                                             "vmware-cpuid-freq",
                                             "legacy-cache",
                                             "full-cpuid-auto-level",
                                             "xlevel",
                                             "cpuid-0xb",
                                             "tcg-cpuid",
                                             "start-powered-off",
                                             "x-intel-pt-auto-level"};

} // namespace

void read_cpu(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  const auto* model = props.take("model");
  if (model == nullptr || model->empty() || *model == "help" || *model == "?")
    in.refuse(option, "it names no CPU model: host, max and those of '-cpu help' are accepted");
  auto& cpu = cpu_of(in);
  const bool passthrough = *model == "host" || *model == "max";
  if (passthrough) {
    cpu.mode = *model == "host" ? "host-passthrough" : "maximum";
  } else {
    cpu.mode = "custom";
    cpu.match = "exact";
    cpu.has_model = true;
    cpu.model = *model;
    cpu.fallback = "forbid";
  }
  if (const auto migratable = in.flag(option, "migratable"))
    cpu.migratable = *migratable ? on_off::on : on_off::off;
  in.read(option, "vendor", cpu.vendor_id);
  if (!cpu.vendor_id.empty() && !cpu.has_model)
    cpu.has_model = false;
  const auto l3 = in.flag(option, "l3-cache");
  const auto host_cache = in.flag(option, "host-cache-info");
  if (l3 == true || host_cache == true || l3 == false) {
    auto& cache = cpu.cache.emplace();
    cache.mode = host_cache == true ? "passthrough" : l3 == true ? "emulate" : "disable";
    if (l3 == true)
      cache.level = 3;
  }
  const auto bits = in.flag(option, "host-phys-bits");
  maybe_number limit, count;
  in.read(option, "host-phys-bits-limit", limit);
  in.read(option, "phys-bits", count);
  if (bits == true || count) {
    auto& width = cpu.maxphysaddr.emplace();
    width.mode = bits == true ? address_bits::passthrough : address_bits::emulate;
    (bits == true ? width.limit : width.bits) = bits == true ? limit : count;
  }
  for (auto& each : props.all) {
    if (each.used)
      continue;
    each.used = true;
    // "+name" and "-name" are the old spelling of switches.
    const bool old = each.key.starts_with('+') || each.key.starts_with('-');
    const auto name = old ? each.key.substr(1) : each.key;
    const auto value = !old ? each.value : each.key[0] == '+' ? std::string{"on"} : std::string{"off"};
    if (read_cpu_elsewhere(in, name, value))
      continue;
    const auto state = switch_of(value);
    if (state && is_feature_name(name) && std::ranges::find(cpu_switches, name) == std::end(cpu_switches)) {
      cpu_feature feature;
      feature.name = name == "pclmulqdq" ? "pclmuldq" : name;
      feature.policy = *state ? "require" : "disable";
      const auto same = std::ranges::find(cpu.features, feature.name, &cpu_feature::name);
      same == cpu.features.end() ? cpu.features.push_back(std::move(feature)) : (void)(same->policy = feature.policy);
      continue;
    }
    // QEMU makes the same of it: a property of all CPUs of that type.
    in.keep(
      option, "-global",
      fmt::format("{}-{}-cpu.{}={}", *model, in.guest.os.arch == "i686" ? "i386" : in.guest.os.arch, name, value));
  }
}

// ---- memory

void read_memory(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  std::string size;
  in.read(option, "size", size);
  if (!size.empty()) {
    const auto bytes = amount(in, option, size, mib_bytes);
    in.guest.memory_kib = bytes / 1024;
  }
  in.read(option, "slots", in.guest.memory_slots);
  std::string most;
  in.read(option, "maxmem", most);
  if (!most.empty())
    in.guest.max_memory_kib = amount(in, option, most, mib_bytes) / 1024;
  if (const auto* unknown = props.unused())
    in.refuse(option, fmt::format("'{}' is not known: size, slots and maxmem are accepted", unknown->key));
}

void read_memory_path(argv_import& in, line_option& option) {
  auto& backing = backing_of(in);
  if (option.name == "-mem-prealloc") {
    option.done = true;
    backing.allocation = "immediate";
    return;
  }
  // Which page size is there only the host knows; its usual mount is where libvirt looks.
  if (option.value->find("hugepages") == std::string::npos)
    return;
  option.done = true;
  backing.has_hugepages = true;
  in.note(option, "read as <hugepages/>: the supervisor looks for their mount itself");
}

void read_overcommit(argv_import& in, line_option& option) {
  option.done = true;
  if (in.flag(option, "mem-lock") == true)
    backing_of(in).locked = true;
  for (auto& each : option.props.all)
    if (!each.used) {
      each.used = true;
      in.keep(option, "-overcommit", each.key + "=" + each.value);
    }
}

bool read_backend(argv_import& in, line_option& backend, bool main) {
  auto& props = backend.props;
  const auto type = *props.take("qom-type");
  memory_backing read = in.guest.backing.value_or(memory_backing{});
  props.drop("id");
  props.drop("size");
  props.drop("x-use-canonical-path-for-ramblock-id");
  if (const auto* path = props.take("mem-path")) {
    if (path->find("hugepages") != std::string::npos) {
      read.has_hugepages = true;
    } else if (path->starts_with("/dev/shm") || path->find("/ram/") != std::string::npos || is_run_path(*path)) {
      read.source = "file";
    } else {
      return false;
    }
  } else if (type == "memory-backend-memfd") {
    read.source = "memfd";
    if (in.flag(backend, "hugetlb") == true)
      read.has_hugepages = true;
    props.drop("seal", "on");
  } else if (type == "memory-backend-file") {
    return false;
  }
  if (const auto share = in.flag(backend, "share"))
    read.access = *share ? "shared" : "private";
  if (in.flag(backend, "discard-data") == true)
    read.discard = true;
  if (in.flag(backend, "prealloc") == true && !read.has_hugepages)
    read.allocation = "immediate";
  in.read(backend, "prealloc-threads", read.allocation_threads);
  if (in.flag(backend, "merge") == false)
    read.nosharepages = true;
  if (main)
    in.guest.backing = std::move(read);
  return true;
}

void read_object(argv_import& in, line_option& option) {
  auto& props = option.props;
  const auto* type = props.peek("qom-type");
  if (type == nullptr)
    in.refuse(option, "it names no type: -object TYPE,id=ID[,property=value...] is accepted");
  const auto* id = props.peek("id");
  if (*type == "secret" && id != nullptr && *id == "masterKey0") {
    option.done = true; // the supervisor makes its own
    return;
  }
  if (*type == "iothread") {
    in.attempt(option, [&] {
      props.drop("qom-type");
      std::string name;
      in.read(option, "id", name);
      iothread_id made;
      in.read(option, "thread-pool-min", made.pool_min);
      in.read(option, "thread-pool-max", made.pool_max);
      made.id = in.iothread(name);
      if (in.guest.iothread_ids.size() >= 65'536)
        return false;
      if (props.unused() == nullptr &&
          std::ranges::find(in.guest.iothread_ids, made.id, &iothread_id::id) == in.guest.iothread_ids.end())
        in.guest.iothread_ids.push_back(std::move(made));
      return true;
    });
    in.guest.iothreads = static_cast<unsigned>(in.guest.iothread_ids.size());
    if (in.guest.iothread_ids.empty())
      in.guest.iothreads.reset();
    return;
  }
  if (*type == "main-loop") {
    in.attempt(option, [&] {
      props.drop("qom-type");
      props.drop("id");
      in.read(option, "thread-pool-min", in.guest.default_pool_min);
      in.read(option, "thread-pool-max", in.guest.default_pool_max);
      return true;
    });
    return;
  }
  if (*type == "input-linux") {
    in.attempt(option, [&] {
      props.drop("qom-type");
      props.drop("id");
      input_device input;
      input.type = "evdev";
      in.read(option, "evdev", input.source_dev);
      in.read(option, "repeat", input.repeat);
      if (in.flag(option, "grab_all") == true)
        input.grab = "all";
      in.read(option, "grab-toggle", input.grab_toggle);
      in.guest.devices.inputs.push_back(std::move(input));
      return true;
    });
  }
}

// ---- processors

void read_smp(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  struct count_row {
    std::string_view key;
    std::optional<unsigned> value;
  };
  count_row counts[] = {{"cpus", {}}, {"maxcpus", {}}, {"sockets", {}}, {"dies", {}}, {"cores", {}}, {"threads", {}}};
  for (auto& [key, value] : counts) {
    in.read(option, key, value);
    if (value && (*value == 0 || *value > 65'536))
      in.refuse_value(option, key, "a number from 1 to 65536");
  }
  auto& [cpus, most, sockets, dies, cores, threads] = counts;
  if (const auto* unknown = props.unused())
    in.refuse(option, fmt::format("'{}' is not known: cpus, maxcpus, sockets, dies, cores and threads are accepted",
                                  unknown->key));
  const bool topology = sockets.value || dies.value || cores.value || threads.value;
  const auto product = std::uint64_t{sockets.value.value_or(1)} * dies.value.value_or(1) * cores.value.value_or(1) *
                       threads.value.value_or(1);
  const auto all = most.value                                                            ? std::uint64_t{*most.value}
                   : cpus.value && !(topology && product > *cpus.value && sockets.value) ? std::uint64_t{*cpus.value}
                                                                                         : product;
  if (all == 0 || all > 65'536)
    in.refuse(option, fmt::format("{} processors are not possible: 1 to 65536 are accepted", all));
  const auto now = cpus.value.value_or(static_cast<unsigned>(all));
  if (now > all)
    in.refuse(option, fmt::format("{} processors are more than the {} there can be: raise maxcpus", now, all));
  in.guest.vcpu_max = static_cast<unsigned>(all);
  if (now != all)
    in.guest.vcpu_current = now;
  if (!topology)
    return;
  const bool plain = sockets.value == all && cores.value == 1u && threads.value == 1u && !dies.value;
  if (plain && in.is_libvirts)
    return; // what libvirt says when no topology was asked for
  cpu_topology made;
  made.dies = dies.value.value_or(1);
  made.cores = cores.value.value_or(1);
  made.threads = threads.value.value_or(1);
  const auto known = std::uint64_t{made.dies} * made.cores * made.threads;
  made.sockets = sockets.value.value_or(0);
  // QEMU fills in what is left out: cores before sockets since 6.2, sockets before.
  if (!sockets.value && !cores.value && all % (std::uint64_t{made.dies} * made.threads) == 0) {
    made.sockets = 1;
    made.cores = static_cast<unsigned>(all / (std::uint64_t{made.dies} * made.threads));
  } else if (!sockets.value) {
    made.sockets = static_cast<unsigned>(std::max<std::uint64_t>(1, all / known));
  } else if (!cores.value && all % (std::uint64_t{made.sockets} * made.dies * made.threads) == 0) {
    made.cores = static_cast<unsigned>(all / (std::uint64_t{made.sockets} * made.dies * made.threads));
  } else if (!threads.value && all % (std::uint64_t{made.sockets} * made.dies * made.cores) == 0) {
    made.threads = static_cast<unsigned>(all / (std::uint64_t{made.sockets} * made.dies * made.cores));
  }
  if (std::uint64_t{made.sockets} * made.dies * made.cores * made.threads != all)
    in.refuse(
      option,
      fmt::format("sockets × dies × cores × threads is {} × {} × {} × {}, and there are {} processors: the two must "
                  "be the same",
                  made.sockets, made.dies, made.cores, made.threads, all));
  cpu_of(in).topology = made;
}

namespace {

numa_cell* cell_of(argv_import& in, maybe_number number) {
  auto& cells = cpu_of(in).cells;
  const auto cell = std::ranges::find_if(cells, [&](const auto& c) { return number && c.id == number; });
  return cell == cells.end() ? nullptr : &*cell;
}

bool read_numa_node(argv_import& in, line_option& option) {
  auto& props = option.props;
  numa_cell cell;
  auto& cells = cpu_of(in).cells;
  cell.id = static_cast<unsigned>(cells.size());
  in.read(option, "nodeid", cell.id);
  for (const auto& range : props.take_all("cpus"))
    cell.cpus += (cell.cpus.empty() ? "" : ",") + range;
  // Of a cell with processors it is the cell itself; of another it follows from how fast its memory is reached.
  if (const auto initiator = in.number(option, "initiator"); initiator && !cell.cpus.empty() && initiator != cell.id)
    return false;
  // A node without memory is not one of XML's.
  if (const auto* size = props.take("mem")) {
    cell.memory_kib = amount(in, option, *size, mib_bytes) / 1024;
  } else if (const auto* memdev = props.take("memdev")) {
    auto* backend = in.find("-object", *memdev);
    if (backend == nullptr || !backend->props.has("size"))
      return false;
    in.take(*backend);
    cell.memory_kib = amount(in, *backend, *backend->props.peek("size"), 1) / 1024;
    if (!read_host_nodes(in, *backend, static_cast<int>(*cell.id)) || !read_backend(in, *backend, true))
      return false;
    cell.mem_access = std::exchange(in.guest.backing->access, {}); // each cell has its own
  }
  if (cell.memory_kib == 0)
    return false;
  cells.push_back(std::move(cell));
  return true;
}

bool read_numa_distance(argv_import& in, line_option& option) {
  maybe_number from;
  numa_distance distance;
  in.read(option, "src", from);
  in.read(option, "dst", distance.cell);
  in.read(option, "val", distance.value);
  auto* cell = cell_of(in, from);
  if (cell == nullptr || !distance.cell || !distance.value)
    return false;
  cell->distances.push_back(distance);
  return true;
}

bool read_numa_link(argv_import& in, line_option& option) {
  auto& props = option.props;
  numa_link link;
  in.read(option, "initiator", link.initiator);
  in.read(option, "target", link.target);
  const auto* hierarchy = props.take("hierarchy");
  const auto level = hierarchy == nullptr ? std::begin(memory_levels) : std::ranges::find(memory_levels, *hierarchy);
  if (level == std::end(memory_levels))
    in.refuse_value(option, "hierarchy", "memory, first-level, second-level, third-level");
  if (level != std::begin(memory_levels))
    link.cache = static_cast<unsigned>(level - std::begin(memory_levels));
  const auto* kind = props.take("data-type");
  if (kind == nullptr || cell_of(in, link.initiator) == nullptr || cell_of(in, link.target) == nullptr)
    return false;
  const auto dash = kind->find('-');
  constexpr std::pair<std::string_view, memory_access> accesses[] = {
    {"access", memory_access::access}, {"read", memory_access::read}, {"write", memory_access::write}};
  const auto access = std::ranges::find(accesses, std::string_view{*kind}.substr(0, dash),
                                        &std::pair<std::string_view, memory_access>::first);
  if (access == std::end(accesses))
    in.refuse_value(option, "data-type", "{access,read,write}-{latency,bandwidth}");
  link.type = access->second;
  if (const auto* bandwidth = props.take("bandwidth")) {
    link.value = amount(in, option, *bandwidth, 1) / 1024;
    link.unit = "KiB";
    cpu_of(in).bandwidths.push_back(std::move(link));
    return kind->ends_with("-bandwidth");
  }
  link.value = in.number(option, "latency");
  cpu_of(in).latencies.push_back(std::move(link));
  return kind->ends_with("-latency") && cpu_of(in).latencies.back().value;
}

bool read_numa_cache(argv_import& in, line_option& option) {
  auto& props = option.props;
  maybe_number node;
  in.read(option, "node-id", node);
  auto* cell = cell_of(in, node);
  const auto* size = props.take("size");
  if (cell == nullptr || size == nullptr)
    return false;
  memory_side_cache cache;
  in.read(option, "level", cache.level);
  cache.size.value = amount(in, option, *size, 1) / 1024;
  cache.size.unit = "KiB";
  cache.line.value = in.number(option, "line").value_or(0);
  cache.line.unit = "B";
  const auto read_row = [&](std::string_view key, auto& table, auto& into) {
    const auto* value = props.take(key);
    const auto row = value == nullptr ? std::begin(table) : std::ranges::find(table, *value);
    if (row == std::end(table))
      in.refuse_value(option, key, fmt::format("{}", fmt::join(std::begin(table) + 1, std::end(table), ", ")));
    into = static_cast<std::decay_t<decltype(into)>>(std::max<std::ptrdiff_t>(1, row - std::begin(table)));
  };
  read_row("associativity", qemu_associativities, cache.associativity);
  read_row("policy", qemu_cache_policies, cache.policy);
  cell->caches.push_back(std::move(cache));
  return true;
}

constexpr std::pair<std::string_view, bool (*)(argv_import&, line_option&)> numa_readers[] = {
  {"node", read_numa_node}, {"dist", read_numa_distance}, {"hmat-lb", read_numa_link}, {"hmat-cache", read_numa_cache}};

} // namespace

void read_numa(argv_import& in, line_option& option) {
  const auto* type = option.props.peek("type");
  for (const auto& row : numa_readers)
    if (type != nullptr && *type == row.first) {
      const auto before = std::tuple{in.guest.cpu, in.guest.numatune, in.guest.backing};
      const bool went = in.attempt(option, [&] {
        option.props.drop("type");
        return row.second(in, option);
      });
      if (!went)
        std::tie(in.guest.cpu, in.guest.numatune, in.guest.backing) = before;
      return;
    }
}

std::string take_host_nodes(line_option& backend) {
  std::string nodes;
  for (auto& each : backend.props.all)
    if (each.key == "host-nodes" || each.key.starts_with("host-nodes.")) {
      each.used = true;
      nodes += (nodes.empty() ? "" : ",") + each.value;
    }
  return nodes;
}

bool read_host_nodes(argv_import& in, line_option& backend, int cell) {
  const auto* policy = backend.props.take("policy");
  const auto nodes = take_host_nodes(backend);
  if (policy == nullptr || *policy == "default")
    return nodes.empty();
  constexpr std::pair<std::string_view, numa_mode> modes[] = {
    {"bind", numa_mode::strict}, {"interleave", numa_mode::interleave}, {"preferred", numa_mode::preferred}};
  const auto mode = std::ranges::find(modes, *policy, &std::pair<std::string_view, numa_mode>::first);
  if (mode == std::end(modes))
    in.refuse_value(backend, "policy", "default, bind, interleave, preferred");
  auto& tuning = in.guest.numatune ? *in.guest.numatune : in.guest.numatune.emplace();
  if (cell < 0) {
    auto& memory = tuning.memory.emplace();
    memory.mode = mode->second;
    memory.nodeset = nodes;
  } else {
    auto& memory = tuning.cells.emplace_back();
    memory.cell = static_cast<unsigned>(cell);
    memory.mode = mode->second;
    memory.nodeset = nodes;
  }
  return true;
}

// ---- SMBIOS

namespace {

template <std::size_t Count>
bool read_smbios_table(argv_import& in, line_option& option, sysinfo_block& block, const smbios_row (&table)[Count]) {
  for (const auto& row : table)
    if (const auto* value = option.props.take(row.property)) {
      sysinfo_entry entry;
      entry.name = row.entry;
      entry.value = *value;
      block.entries.push_back(std::move(entry));
    }
  return in.guest.os.smbios_mode != "host";
}

sysinfo& sysinfo_of(argv_import& in, std::string_view type) {
  auto& all = in.guest.sysinfos;
  const auto found = std::ranges::find(all, type, &sysinfo::type);
  if (found != all.end())
    return *found;
  all.emplace_back().type = type;
  return all.back();
}

} // namespace

void read_smbios(argv_import& in, line_option& option) {
  const auto type = option.props.peek("type");
  if (type == nullptr)
    return; // file=
  sysinfo_block block;
  std::vector<sysinfo_entry> strings;
  const bool went = in.attempt(option, [&] {
    option.props.drop("type");
    if (*type == "0")
      return read_smbios_table(in, option, block, bios_rows);
    if (*type == "1")
      return read_smbios_table(in, option, block, system_rows);
    if (*type == "2")
      return read_smbios_table(in, option, block, board_rows);
    if (*type == "3")
      return read_smbios_table(in, option, block, chassis_rows);
    for (const auto& value : option.props.take_all("value"))
      block.entries.emplace_back().value = value;
    return *type == "11";
  });
  if (!went)
    return;
  in.guest.os.smbios_mode = "sysinfo";
  auto& info = sysinfo_of(in, "smbios");
  const auto number = (*type)[0];
  if (*type == "11")
    info.oem_strings = std::move(block);
  else if (number == '0')
    info.bios = std::move(block);
  else if (number == '1')
    info.system = std::move(block);
  else if (number == '2')
    info.base_boards.push_back(std::move(block));
  else
    info.chassis = std::move(block);
}

void read_fw_cfg(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    sysinfo_entry entry;
    in.read(option, "name", entry.name);
    in.read(option, "file", entry.file);
    in.read(option, "string", entry.value);
    if (entry.name.empty() || entry.file.empty() == entry.value.empty() || option.props.unused() != nullptr)
      return false;
    sysinfo_of(in, "fwcfg").entries.push_back(std::move(entry));
    return true;
  });
}

// ---- clock

namespace {

/// "2010-02-02T18:22:10" in seconds of UTC; none for what is no moment.
std::optional<std::int64_t> seconds_of(std::string_view text) {
  int parts[6] = {0, 0, 0, 0, 0, 0};
  std::size_t at = 0, part = 0;
  while (part < 6) {
    const auto end = std::min(text.find_first_of("-T:", at), text.size());
    if (!parse_number(text.substr(at, end - at), parts[part], 10))
      return std::nullopt;
    ++part;
    at = end + 1;
    if (end == text.size())
      break;
  }
  if (part != 3 && part != 6)
    return std::nullopt;
  const std::chrono::year_month_day day{std::chrono::year{parts[0]},
                                        std::chrono::month{static_cast<unsigned>(parts[1])},
                                        std::chrono::day{static_cast<unsigned>(parts[2])}};
  if (!day.ok())
    return std::nullopt;
  return std::chrono::sys_seconds{std::chrono::sys_days{day}}.time_since_epoch().count() + parts[3] * 3600 +
         parts[4] * 60 + parts[5];
}

} // namespace

void read_rtc(argv_import& in, line_option& option) {
  option.done = true;
  auto& props = option.props;
  if (const auto* base = props.take("base")) {
    auto& clock = clock_of(in);
    if (*base == "utc" || *base == "localtime") {
      clock.offset = *base;
    } else if (const auto start = seconds_of(*base)) {
      clock.offset = "absolute";
      clock.start = static_cast<std::uint64_t>(*start);
    } else {
      in.refuse_value(option, "base", "utc, localtime or a moment such as 2010-02-02T18:22:10");
    }
  }
  if (const auto* source = props.take("clock"); source != nullptr && (*source != "host" || in.is_libvirts)) {
    const auto row = std::ranges::find(tracks, *source, &track_row::clock);
    if (row == std::end(tracks))
      in.refuse_value(option, "clock", "host, rt, vm");
    timer_of(in, "rtc").track = row->track;
  }
  if (const auto* fix = props.take("driftfix"); fix != nullptr && *fix == "slew")
    timer_of(in, "rtc").tickpolicy = "catchup";
  if (const auto* unknown = props.unused())
    in.refuse(option, fmt::format("'{}' is not known: base, clock and driftfix are accepted", unknown->key));
}

void read_localtime(argv_import& in, line_option& option) {
  option.done = true;
  clock_of(in).offset = "localtime";
}

void read_no_acpi(argv_import& in, line_option& option) {
  option.done = true;
  in.acpi_off = true;
}

void read_no_hpet(argv_import& in, line_option& option) {
  option.done = true;
  timer_of(in, "hpet").present = yes_no::no;
}

void read_no_reboot(argv_import& in, line_option& option) {
  option.done = true;
  in.guest.on_reboot = lifecycle_action::destroy;
}

// ---- firmware and boot

namespace {

void set_boot_order(argv_import& in, line_option& option, std::string_view order) {
  struct letter_row {
    char letter;
    boot_device device;
  };
  constexpr letter_row letters[] = {
    {'a', boot_device::fd},      {'b', boot_device::fd},      {'c', boot_device::hd},     {'d', boot_device::cdrom},
    {'n', boot_device::network}, {'o', boot_device::network}, {'p', boot_device::network}};
  for (const char letter : order) {
    const auto row = std::ranges::find(letters, letter, &letter_row::letter);
    if (row == std::end(letters))
      in.refuse(
        option,
        fmt::format("boot device '{}' is not known: a (floppy), c (disk), d (CD-ROM) and n (network) are accepted",
                    letter));
    if (std::ranges::find(in.guest.os.boots, row->device, &os_boot::dev) == in.guest.os.boots.end())
      in.guest.os.boots.emplace_back().dev = row->device;
  }
}

} // namespace

void read_boot(argv_import& in, line_option& option) {
  option.done = true;
  auto& os = in.guest.os;
  if (const auto* order = option.props.take("order"))
    set_boot_order(in, option, *order);
  if (const auto* once = option.props.take("once")) {
    if (os.boots.empty())
      set_boot_order(in, option, *once);
    in.note(option, "'once' is not for one start alone in domain XML: it is read as the order, or left out beside one");
  }
  in.read(option, "menu", os.boot_menu);
  in.read(option, "splash-time", os.boot_menu_timeout);
  if (const auto* timeout = option.props.take("reboot-timeout")) {
    int milliseconds = 0;
    if (!parse_number(*timeout, milliseconds, 10))
      in.refuse_value(option, "reboot-timeout", "a number of milliseconds, or -1");
    os.reboot_timeout = milliseconds;
  }
  option.props.drop("strict");
  for (auto& each : option.props.all)
    if (!each.used) {
      each.used = true;
      in.keep(option, "-boot", each.key + "=" + each.value);
    }
}

void read_kernel(argv_import& in, line_option& option) {
  option.done = true;
  auto& os = in.guest.os;
  (option.name == "-kernel"   ? os.kernel
   : option.name == "-initrd" ? os.initrd
   : option.name == "-dtb"    ? os.dtb
                              : os.cmdline) = *option.value;
}

void read_bios(argv_import& in, line_option& option) {
  option.done = true;
  auto& loader = in.guest.os.loader ? *in.guest.os.loader : in.guest.os.loader.emplace();
  loader.path = *option.value;
  loader.type = "rom";
}

void read_acpitable(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    acpi_table table;
    in.read(option, "sig", table.type);
    in.read(option, "file", table.path);
    if (table.type != "SLIC" || table.path.empty() || option.props.unused() != nullptr)
      return false;
    table.type = "slic";
    in.guest.os.acpi_tables.push_back(std::move(table));
    return true;
  });
}

void read_global(argv_import& in, line_option& option) {
  auto& props = option.props;
  std::string property, value;
  if (const auto* driver = props.peek("driver")) {
    const auto* name = props.peek("property");
    const auto* given = props.peek("value");
    if (name == nullptr || given == nullptr)
      return;
    property = *driver + "." + *name;
    value = *given;
  } else if (props.all.size() == 1) {
    property = props.all.front().key;
    value = props.all.front().value;
  }
  const auto number = number_of(value);
  const auto power = [&](yes_no& state) {
    option.done = number.has_value();
    if (number)
      state = *number == 0 ? yes_no::yes : yes_no::no;
  };
  const auto amount_kib = [&]() -> std::optional<std::uint64_t> {
    const auto bytes = amount_of(value, 1);
    return bytes ? std::optional{*bytes / 1024} : std::nullopt;
  };
  if (property == "PIIX4_PM.disable_s3" || property == "ICH9-LPC.disable_s3") {
    power(in.guest.suspend_to_mem);
  } else if (property == "PIIX4_PM.disable_s4" || property == "ICH9-LPC.disable_s4") {
    power(in.guest.suspend_to_disk);
  } else if (property == "kvm-pit.lost_tick_policy" && (value == "delay" || value == "discard")) {
    option.done = true;
    timer_of(in, "pit").tickpolicy = value;
  } else if (property == "cfi.pflash01.secure" && switch_of(value)) {
    option.done = true;
    in.secure_flash = *switch_of(value);
  } else if (property == "mch.extended-tseg-mbytes" && number && *number <= 65'535) {
    option.done = true;
    features_of(in).smm = true;
    features_of(in).smm_state = on_off::on;
    features_of(in).tseg_bytes = *number << 20;
  } else if ((property == "isa-fdc.bootindexA" || property == "isa-fdc.bootindexB") && number && *number < 65'536) {
    option.done = true;
    in.floppy_boot[property.back() - 'A'] = static_cast<unsigned>(*number);
  } else if (property == "q35-pcihost.pci-hole64-size" || property == "i440FX-pcihost.pci-hole64-size") {
    if (const auto size = amount_kib()) {
      option.done = true;
      controller root;
      root.type = controller_type::pci;
      root.index = 0;
      root.model = property.starts_with("q35") ? "pcie-root" : "pci-root";
      root.pcihole64_kib = *size;
      in.guest.devices.controllers.push_back(std::move(root));
    }
  } else if (property == "spapr-nvram.reg" && number) {
    option.done = true;
    auto& nvram = in.guest.devices.nvram.emplace_back();
    nvram.address.type = address_type::spapr_vio;
    nvram.address.reg = *number;
  }
}

// ---- at the end

namespace {

/// The first device of a kind that `<boot dev=…/>` means, or null.
device* first_of(domain& guest, boot_device kind) {
  if (kind == boot_device::network)
    return guest.devices.interfaces.empty() ? nullptr : &guest.devices.interfaces.front();
  for (auto& d : guest.devices.disks)
    if ((d.device_type == disk_device::cdrom) == (kind == boot_device::cdrom) &&
        (d.device_type == disk_device::floppy) == (kind == boot_device::fd))
      return &d;
  return nullptr;
}

/// Boot orders as `<os><boot dev=…/>`, which libvirt's lines mostly come from, when each is the first of its kind. What
/// is not there has no place on the line, so that a gap stands for it.
void read_boot_kinds(argv_import& in) {
  constexpr boot_device kinds[] = {boot_device::network, boot_device::cdrom, boot_device::fd, boot_device::hd};
  auto& guest = in.guest;
  std::map<unsigned, boot_device> places;
  std::vector<boot_device> absent;
  unsigned ordered = 0;
  const auto count = [&](const auto& list) {
    for (const auto& each : list)
      ordered += each.boot_order != 0;
  };
  count(guest.devices.disks), count(guest.devices.interfaces), count(guest.devices.hostdevs),
    count(guest.devices.redirdevs);
  count(guest.devices.filesystems);
  for (const auto kind : kinds) {
    const auto* first = first_of(guest, kind);
    if (first == nullptr)
      absent.push_back(kind);
    else if (first->boot_order != 0)
      places[first->boot_order] = kind;
  }
  if (places.size() != ordered)
    return; // one that is no first of its kind, or two on one place
  const auto last = places.empty() ? 1 : places.rbegin()->first;
  std::vector<boot_device> found;
  auto next = absent.begin();
  for (unsigned place = 1; place <= last; ++place)
    if (const auto kind = places.find(place); kind != places.end())
      found.push_back(kind->second);
    else if (next != absent.end())
      found.push_back(*next++);
    else
      return;
  if (found.size() == 1 && found.front() == boot_device::hd && places.empty())
    return; // as it is anyway
  for (const auto kind : found) {
    guest.os.boots.emplace_back().dev = kind;
    if (auto* first = first_of(guest, kind))
      first->boot_order = 0;
  }
}

} // namespace

void finish_machine(argv_import& in) {
  auto& guest = in.guest;
  if (in.is_libvirts && guest.os.boots.empty())
    read_boot_kinds(in);
  if (in.is_x86() && !in.acpi_off)
    features_of(in).acpi = true;
  if (in.is_x86() && in.is_kvm())
    features_of(in).pae = true; // as libvirt's import had it
  if (guest.os.loader && in.secure_flash)
    guest.os.loader->secure = yes_no::yes;
  if (!guest.memory_kib)
    guest.memory_kib = 128 * 1024; // QEMU's own
  auto* backend = in.main_memory.empty() ? nullptr : in.find("-object", in.main_memory);
  if (backend != nullptr) {
    const bool went =
      in.attempt(*backend, [&] { return read_host_nodes(in, *backend, -1) && read_backend(in, *backend, true); });
    if (!went)
      in.keep(*backend, "-machine", "memory-backend=" + in.main_memory);
  }
  if (guest.cpu && !guest.cpu->cells.empty()) {
    std::uint64_t total = 0;
    for (const auto& cell : guest.cpu->cells)
      total += cell.memory_kib;
    guest.memory_kib = total;
  }
  // Memory can only be plugged into a NUMA cell; QEMU makes the one itself.
  if (guest.max_memory_kib && !in.is_libvirts && in.is_x86() && (!guest.cpu || guest.cpu->cells.empty())) {
    numa_cell all;
    all.id = 0;
    all.cpus = guest.vcpu_max.value_or(1) == 1 ? "0" : fmt::format("0-{}", *guest.vcpu_max - 1);
    all.memory_kib = *guest.memory_kib;
    cpu_of(in).cells.push_back(std::move(all));
  }
  if (guest.backing) {
    // A memfd or a file with no name of its own.
    static const memory_backing none;
    const auto& b = *guest.backing;
    if (!b.has_hugepages && !b.nosharepages && !b.locked && !b.discard && b.source.empty() && b.access.empty() &&
        b.allocation.empty() && !b.allocation_threads)
      guest.backing.reset();
  }
}

} // namespace troupe
