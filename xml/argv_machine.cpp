#include "xml/argv_parts.hpp"
#include "xml/argv_tables.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <set>

// Machine, accelerator, CPU, memory, firmware, clock and boot.

namespace troupe {
namespace {

const feature_set& features_of(const argv_builder& b) {
  static const feature_set none;
  return b.guest.features ? *b.guest.features : none;
}

constexpr std::uint64_t kib = 1024;

std::uint64_t whole_mib(std::uint64_t size_kib) {
  return (size_kib + 1023) / 1024 * 1024;
}

std::uint64_t initial_memory_kib(const argv_builder& b) {
  std::uint64_t total = 0;
  if (b.guest.cpu && !b.guest.cpu->cells.empty()) {
    for (const auto& cell : b.guest.cpu->cells)
      total += whole_mib(cell.memory_kib);
    return total;
  }
  total = b.guest.memory_kib.value_or(0);
  for (const auto& m : b.guest.devices.memories)
    total -= std::min(total, m.size_kib.value_or(0));
  return whole_mib(total);
}

/// "0-2,5,^1" as numbers.
std::set<unsigned> numbers_in(std::string_view list) {
  std::set<unsigned> all;
  std::size_t at = 0;
  const auto number = [&] {
    unsigned value = 0;
    for (; at < list.size() && list[at] >= '0' && list[at] <= '9' && value < 100'000; ++at)
      value = value * 10 + static_cast<unsigned>(list[at] - '0');
    return value;
  };
  while (at < list.size()) {
    const bool except = list[at] == '^';
    at += except;
    const auto start = at;
    const auto first = number();
    auto last = first;
    if (at < list.size() && list[at] == '-') {
      ++at;
      last = number();
    }
    if (at == start) { // neither digit nor dash: white space or a comma
      ++at;
      continue;
    }
    for (auto n = first; n <= last && n < 100'000; ++n)
      except ? (void)all.erase(n) : (void)all.insert(n);
    if (at < list.size() && list[at] == ',')
      ++at;
  }
  return all;
}

/// Runs of numbers, as "0-3" or "5".
std::vector<std::string> ranges_of(const std::set<unsigned>& numbers) {
  std::vector<std::string> out;
  for (auto it = numbers.begin(); it != numbers.end();) {
    const auto first = *it;
    auto last = first;
    while (++it != numbers.end() && *it == last + 1)
      last = *it;
    out.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return out;
}

/// host-nodes and policy of `<numatune>`, for the whole guest or one cell; `nodes` are a memory device's own.
void put_host_nodes(ordered_json& into, const argv_builder& b, int cell, std::string_view nodes) {
  auto mode = numa_mode::unset;
  std::string_view said;
  if (const auto& tuning = b.guest.numatune) {
    if (tuning->memory)
      mode = tuning->memory->mode, said = tuning->memory->nodeset;
    for (const auto& each : tuning->cells)
      if (cell >= 0 && each.cell == static_cast<unsigned>(cell))
        mode = each.mode, said = each.nodeset;
  }
  if (!nodes.empty())
    said = nodes;
  if (said.empty() || mode == numa_mode::restrictive)
    return;
  into["host-nodes"] = numbers_in(said);
  into["policy"] = mode == numa_mode::unset || mode == numa_mode::strict ? "bind" : word_of(mode);
}

struct backend_wish {
  std::string id;
  std::uint64_t size_kib = 0;
  int cell = -1;
  bool main = false;  ///< The guest's RAM as a whole.
  std::string access; ///< Overrides memoryBacking's.
  std::string path;   ///< A file to use.
  bool reserve = true;
  yes_no discard{};
  bool prealloc = false;
  std::string nodes;     ///< Host nodes that go ahead of numatune's.
  maybe_size page_kib;   ///< Pages that go ahead of memoryBacking's.
  maybe_size align_kib;
  bool pmem = false;
};

/// Memory modules are as big as a multiple of this.
constexpr std::uint64_t module_step_kib = 2048;

/// Below this a page is no huge one.
constexpr std::uint64_t usual_page_kib = 4;

const hugepage* hugepage_for(const argv_builder& b, int cell) {
  if (!b.guest.backing || !b.guest.backing->has_hugepages)
    return nullptr;
  const hugepage* common = nullptr;
  for (const auto& page : b.guest.backing->hugepages) {
    if (page.nodeset.empty())
      common = &page;
    else if (cell >= 0 && numbers_in(page.nodeset).contains(static_cast<unsigned>(cell)))
      return &page;
  }
  return common;
}

ordered_json memory_backend(const argv_builder& b, const backend_wish& wish) {
  static const memory_backing none;
  const auto& backing = b.guest.backing ? *b.guest.backing : none;
  const bool huge =
    wish.path.empty() &&
    (wish.page_kib ? *wish.page_kib > usual_page_kib
                   : backing.has_hugepages && (backing.hugepages.empty() || hugepage_for(b, wish.cell) != nullptr));
  const bool memfd = !huge && wish.path.empty() && backing.source == "memfd";
  const auto& access = wish.access.empty() ? backing.access : wish.access;
  const bool named = !access.empty();
  const bool file = !wish.path.empty() || (!memfd && (huge || named || backing.source == "file"));

  ordered_json out{{"qom-type", file    ? "memory-backend-file"
                                : memfd ? "memory-backend-memfd"
                                        : "memory-backend-ram"},
                   {"id", wish.id}};
  if (huge)
    out["mem-path"] = "/dev/hugepages/libvirt/qemu/" + b.short_name();
  else if (!wish.path.empty())
    out["mem-path"] = wish.path;
  else if (file)
    out["mem-path"] = fmt::format("{}/ram/{}/{}", b.run.state_dir, b.short_name(), wish.id);
  const auto discard = wish.discard != yes_no::unset ? wish.discard : backing.discard ? yes_no::yes : yes_no::unset;
  if (file || memfd)
    put(out, "discard-data", discard);
  if (named)
    out["share"] = access == "shared";
  if (wish.main && (file || memfd))
    out["x-use-canonical-path-for-ramblock-id"] = false;
  if (wish.prealloc || huge || backing.allocation == "immediate") {
    out["prealloc"] = true;
    put(out, "prealloc-threads", backing.allocation_threads);
  }
  if (!wish.reserve)
    out["reserve"] = false;
  out["size"] = wish.size_kib * kib;
  if (wish.align_kib)
    out["align"] = *wish.align_kib * kib;
  if (wish.pmem)
    out["pmem"] = true;
  put_host_nodes(out, b, wish.cell, wish.nodes);
  return out;
}

/// Whether the guest is told how fast its cells reach each other's memory.
bool has_hmat(const argv_builder& b) {
  return b.guest.cpu &&
         (!b.guest.cpu->latencies.empty() || !b.guest.cpu->bandwidths.empty() ||
          std::ranges::any_of(b.guest.cpu->cells, [](const auto& cell) { return !cell.caches.empty(); }));
}

bool has_cells(const argv_builder& b) {
  return b.guest.cpu && !b.guest.cpu->cells.empty();
}

/// The id of the memory backend that is all of the guest's RAM, empty when cells have their own.
std::string main_backend(const argv_builder& b) {
  if (has_cells(b))
    return {};
  const auto* machine = find_machine(b.facts, b.guest.os.machine);
  return machine ? machine->default_ram_id : "";
}

// ---- CPU

std::string cpu_model_words(const argv_builder& b) {
  const auto& cpu = *b.guest.cpu;
  std::string out;
  if (cpu.mode == "host-passthrough" || (cpu.mode == "host-model" && b.is_kvm()))
    out = "host";
  else if (cpu.mode == "maximum" || cpu.mode == "host-model")
    out = "max";
  else
    out = cpu.model;
  if (out == "host" && !b.is_kvm())
    b.refuse(
      "<cpu mode='host-passthrough'> needs KVM, and this is a guest of type='qemu'; take mode='maximum' or a model");
  const auto& known = b.is_kvm() ? b.facts.kvm_cpus : b.facts.tcg_cpus;
  if (cpu.mode == "custom" && !out.empty() && !known.empty() &&
      std::ranges::find(known, out, &cpu_model_facts::name) == known.end())
    throw argv_refusal{
      {errc::internal, fmt::format("Unknown CPU model {}; `virsh cpu-models {}` lists those of {}", out, b.guest.os.arch,
                                   b.facts.binary)}};
  if (out.empty())
    return out;
  // A host's model is what of its CPU can be moved.
  const auto migratable = cpu.mode == "host-model" ? on_off::on : cpu.migratable;
  if (cpu.mode != "custom" && migratable != on_off::unset && b.facts.arch == "x86_64")
    out += fmt::format(",migratable={}", word_of(migratable));
  if (!cpu.vendor_id.empty())
    out += ",vendor=" + escaped(cpu.vendor_id);
  for (const auto& feature : cpu.features) {
    if (feature.policy == "force" || feature.policy == "require")
      out += fmt::format(",{}=on", qemu_feature(feature.name));
    else if (feature.policy == "disable" || feature.policy == "forbid")
      out += fmt::format(",{}=off", qemu_feature(feature.name));
  }
  return out;
}

void add_timer_words(const argv_builder& b, std::string& out) {
  if (!b.guest.clock)
    return;
  for (const auto& timer : b.guest.clock->timers) {
    if (timer.name == "kvmclock" && timer.present != yes_no::unset)
      out += timer.present == yes_no::yes ? ",kvmclock=on" : ",kvmclock=off";
    else if (timer.name == "hypervclock" && timer.present == yes_no::yes)
      out += ",hv-time=on";
    else if (timer.name == "tsc" && timer.frequency)
      out += fmt::format(",tsc-frequency={}", *timer.frequency);
  }
}

void add_hyperv_words(const hyperv_features& hyperv, std::string& out) {
  if (hyperv.mode == "passthrough")
    out += ",hv-passthrough=on";
  const auto add = [&](std::string_view name, on_off state) {
    if (state == on_off::on)
      out += fmt::format(",hv-{}=on", name);
  };
  add("relaxed", hyperv.relaxed);
  add("vapic", hyperv.vapic);
  if (hyperv.spinlocks == on_off::on)
    out += fmt::format(",hv-spinlocks={:#x}", hyperv.spinlock_retries.value_or(0xfff));
  add("vpindex", hyperv.vpindex);
  add("runtime", hyperv.runtime);
  add("synic", hyperv.synic);
  add("stimer", hyperv.stimer);
  add("stimer-direct", hyperv.stimer_direct);
  add("reset", hyperv.reset);
  if (hyperv.vendor_id == on_off::on)
    out += ",hv-vendor-id=" + escaped(hyperv.vendor);
  add("frequencies", hyperv.frequencies);
  add("reenlightenment", hyperv.reenlightenment);
  add("tlbflush", hyperv.tlbflush);
  add("ipi", hyperv.ipi);
  add("evmcs", hyperv.evmcs);
  add("avic", hyperv.avic);
}

void add_cache_words(const cpu_description& cpu, std::string& out) {
  if (!cpu.cache)
    return;
  const auto& mode = cpu.cache->mode;
  const bool of_host = cpu.mode == "host-passthrough" || cpu.mode == "maximum";
  if (mode == "emulate")
    out += ",l3-cache=on";
  if (mode == "passthrough")
    out += ",host-cache-info=on";
  else if (of_host)
    out += ",host-cache-info=off";
  if (mode != "emulate")
    out += ",l3-cache=off";
}

void add_address_bits(const cpu_description& cpu, std::string& out) {
  if (!cpu.maxphysaddr)
    return;
  const auto& width = *cpu.maxphysaddr;
  if (width.mode == address_bits::passthrough) {
    out += ",host-phys-bits=on";
    if (width.limit)
      out += fmt::format(",host-phys-bits-limit={}", *width.limit);
  } else if (width.bits) {
    out += fmt::format(",phys-bits={}", *width.bits);
  }
}

// ---- clock

std::string moment(std::int64_t seconds, bool local) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  if (local)
    localtime_r(&time, &parts);
  else
    gmtime_r(&time, &parts);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}", parts);
}

std::int64_t number_or(const std::string& text, std::int64_t otherwise) {
  try {
    return text.empty() ? otherwise : std::stoll(text);
  } catch (const std::exception&) {
    return otherwise;
  }
}

std::string clock_base(argv_builder& b, const clock_description& clock) {
  if (clock.offset == "localtime")
    return "localtime";
  if (clock.offset == "timezone") {
    b.line.env.push_back("TZ=" + clock.timezone);
    return "localtime";
  }
  if (clock.offset == "absolute")
    return moment(static_cast<std::int64_t>(clock.start.value_or(0)), false);
  if (clock.offset == "variable")
    return moment(static_cast<std::int64_t>(std::time(nullptr)) + number_or(clock.adjustment, 0),
                  clock.basis == "localtime");
  return "utc";
}

} // namespace

void add_machine(argv_builder& b) {
  const auto& features = features_of(b);
  auto out = b.machine_name() + ",usb=off";
  if (features.vmport != on_off::unset)
    out += fmt::format(",vmport={}", word_of(features.vmport));
  if (features.smm)
    out += features.smm_state == on_off::off ? ",smm=off" : ",smm=on";
  if (features.ioapic == "kvm")
    out += ",kernel_irqchip=on";
  else if (features.ioapic == "qemu")
    out += ",kernel_irqchip=split";
  const bool dumped = b.guest.memory_dump == on_off::unset ? b.run.dump_core : b.guest.memory_dump == on_off::on;
  out += fmt::format(",dump-guest-core={}", dumped ? "on" : "off");
  if (b.guest.backing && b.guest.backing->nosharepages)
    out += ",mem-merge=off";
  if (std::ranges::any_of(b.guest.devices.memories, [](const auto& m) { return m.model == "nvdimm"; }))
    out += ",nvdimm=on";
  if (has_hmat(b))
    out += ",hmat=on";
  for (const auto& cipher : b.guest.keywrap) {
    if (b.guest.os.arch != "s390x")
      b.refuse(fmt::format("{}-key-wrap is not available with this QEMU binary", cipher.name));
    out += fmt::format(",{}-key-wrap={}", cipher.name, word_of(cipher.state));
  }
  if (b.guest.launch_security)
    out += ",confidential-guest-support=lsec0";
  if (const auto backend = main_backend(b); !backend.empty())
    out += ",memory-backend=" + backend;
  for (int unit = 0; unit < 2; ++unit)
    if (const auto node = pflash_node(b, unit); !node.empty())
      out += fmt::format(",pflash{}={}", unit, node);
  if (b.guest.os.bios_useserial == yes_no::yes)
    out += ",graphics=off";
  // What QEMU 8 and later no longer take as options of their own.
  if (b.facts.version.major >= 8) {
    if (!features.acpi)
      out += ",acpi=off";
    if (b.guest.clock)
      for (const auto& timer : b.guest.clock->timers)
        if (timer.name == "hpet" && timer.present != yes_no::unset)
          out += timer.present == yes_no::yes ? ",hpet=on" : ",hpet=off";
  }
  if (!b.run.generic_taps)
    for (const auto& sound : b.guest.devices.sounds)
      if (sound.model == "pcspk")
        out += fmt::format(",pcspk-audiodev=audio{}", sound.audio_id.value_or(1));
  b.option("-machine", out);
}

void add_accelerator(argv_builder& b) {
  const auto& features = features_of(b);
  if (b.is_kvm()) {
    if (!b.facts.kvm_usable && !b.facts.why_no_kvm.empty() && !b.run.generic_taps)
      b.refuse(fmt::format("<domain type='kvm'>: {}; take type='qemu' or make KVM usable", b.facts.why_no_kvm));
    std::string out = "kvm";
    if (features.kvm && features.kvm->dirty_ring == on_off::on)
      out += fmt::format(",dirty-ring-size={}", features.kvm->dirty_ring_size.value_or(4096));
    b.option("-accel", out);
  } else if (b.guest.type == virt_type::qemu) {
    b.option("-accel",
             features.tcg_tb_cache_kib ? fmt::format("tcg,tb-size={}", *features.tcg_tb_cache_kib / 1024) : "tcg");
  } else {
    b.refuse(fmt::format("<domain type='{}'> is not one of QEMU's; use 'kvm' or 'qemu'", word_of(b.guest.type)));
  }
  if (features.tseg_bytes)
    b.option("-global", fmt::format("mch.extended-tseg-mbytes={}", *features.tseg_bytes >> 20));
}

void add_cpu(argv_builder& b) {
  const auto& features = features_of(b);
  std::string words;
  add_timer_words(b, words);
  if (features.apic_eoi != on_off::unset)
    words += fmt::format(",kvm-pv-eoi={}", word_of(features.apic_eoi));
  if (features.pvspinlock != on_off::unset)
    words += fmt::format(",kvm-pv-unhalt={}", word_of(features.pvspinlock));
  if (features.hyperv)
    add_hyperv_words(*features.hyperv, words);
  if (std::ranges::any_of(b.guest.devices.panics, [](const auto& p) { return p.model == "hyperv"; }))
    words += ",hv-crash";
  if (features.kvm) {
    const auto& kvm = *features.kvm;
    if (kvm.hidden == on_off::on)
      words += ",kvm=off";
    if (kvm.hint_dedicated == on_off::on)
      words += ",kvm-hint-dedicated=on";
    if (kvm.poll_control == on_off::on)
      words += ",kvm-poll-control=on";
    if (kvm.pv_ipi == on_off::off)
      words += ",kvm-pv-ipi=off";
  }
  if (features.pmu != on_off::unset)
    words += fmt::format(",pmu={}", word_of(features.pmu));
  std::string model;
  if (b.guest.cpu) {
    model = cpu_model_words(b);
    add_cache_words(*b.guest.cpu, words);
    add_address_bits(*b.guest.cpu, words);
  }
  if (model.empty() && !words.empty())
    model = b.guest.os.arch == "i686" ? "qemu32" : "qemu64";
  if (!model.empty())
    b.option("-cpu", model + words);
}

void add_loader(argv_builder& b) {
  const auto& loader = b.guest.os.loader;
  if (!loader)
    return;
  if (loader->secure == yes_no::yes)
    b.option("-global", "driver=cfi.pflash01,property=secure,value=on");
  if (loader->type != "pflash" && !loader->path.empty())
    b.option("-bios", loader->path);
}

void add_memory(argv_builder& b) {
  const auto size = initial_memory_kib(b);
  if (b.guest.max_memory_kib)
    b.option("-m", fmt::format("size={}k,slots={},maxmem={}k", size, b.guest.memory_slots.value_or(0),
                               *b.guest.max_memory_kib));
  else
    b.option("-m", fmt::format("{}", size / 1024));
  if (const auto id = main_backend(b); !id.empty()) {
    backend_wish wish;
    wish.id = id;
    wish.size_kib = size;
    wish.main = true;
    b.object(memory_backend(b, wish));
  }
  b.option("-overcommit", b.guest.backing && b.guest.backing->locked ? "mem-lock=on" : "mem-lock=off");
}

void add_smp(argv_builder& b) {
  const auto most = b.guest.vcpu_max.value_or(1);
  auto now = b.guest.vcpu_current.value_or(most);
  if (!b.guest.vcpus.empty())
    // Those that can be unplugged are plugged in one by one after the start.
    now = static_cast<unsigned>(std::ranges::count_if(
      b.guest.vcpus, [](const auto& v) { return v.enabled == yes_no::yes && v.hotpluggable != yes_no::yes; }));
  auto out = fmt::format("{}", now);
  if (now != most)
    out += fmt::format(",maxcpus={}", most);
  if (b.guest.cpu && b.guest.cpu->topology) {
    const auto& t = *b.guest.cpu->topology;
    out += fmt::format(",sockets={},dies={},cores={},threads={}", t.sockets, t.dies, t.cores, t.threads);
  } else {
    out += fmt::format(",sockets={},cores=1,threads=1", most);
  }
  b.option("-smp", out);
}

void add_iothreads(argv_builder& b) {
  std::vector<iothread_id> threads = b.guest.iothread_ids;
  for (unsigned id = 1; threads.size() < std::min(b.guest.iothreads.value_or(0), 65'536u); ++id)
    if (std::ranges::find(threads, id, &iothread_id::id) == threads.end()) {
      threads.emplace_back();
      threads.back().id = id;
    }
  for (const auto& thread : threads) {
    ordered_json out{{"qom-type", "iothread"}, {"id", fmt::format("iothread{}", thread.id)}};
    put(out, "thread-pool-min", thread.pool_min);
    put(out, "thread-pool-max", thread.pool_max);
    b.object(out);
  }
  if (b.guest.default_pool_min || b.guest.default_pool_max) {
    ordered_json out{{"qom-type", "main-loop"}, {"id", "main-loop"}};
    put(out, "thread-pool-min", b.guest.default_pool_min);
    put(out, "thread-pool-max", b.guest.default_pool_max);
    b.object(out);
  }
}

namespace {

/// The cell whose CPUs reach a cell's memory soonest: its own, where it has some.
unsigned initiator_of(const cpu_description& cpu, const numa_cell& cell, unsigned number) {
  if (!cell.cpus.empty())
    return number;
  const numa_link* best = nullptr;
  for (const auto& each : cpu.latencies)
    if (each.target == number && (best == nullptr || each.value < best->value))
      best = &each;
  if (best == nullptr)
    for (const auto& each : cpu.bandwidths)
      if (each.target == number && (best == nullptr || each.value > best->value))
        best = &each;
  return best != nullptr ? best->initiator.value_or(0) : 0;
}

/// How fast cells reach each other's memory, and what stands in front of it.
void add_hmat(argv_builder& b) {
  const auto& cpu = *b.guest.cpu;
  const auto add_links = [&](const std::vector<numa_link>& links, std::string_view what, std::string_view unit) {
    for (const auto& each : links)
      b.option("-numa",
               fmt::format("hmat-lb,initiator={},target={},hierarchy={},data-type={}-{},{}={}{}",
                           each.initiator.value_or(0), each.target.value_or(0), memory_levels[each.cache.value_or(0) % std::size(memory_levels)],
                           word_of(each.type), what, what, each.value.value_or(0), unit));
  };
  add_links(cpu.latencies, "latency", "");
  add_links(cpu.bandwidths, "bandwidth", "K");
  for (const auto& cell : cpu.cells)
    for (const auto& each : cell.caches)
      b.option("-numa", fmt::format("hmat-cache,node-id={},size={}K,level={},associativity={},policy={},line={}",
                                    cell.id.value_or(0), each.size.value.value_or(0), each.level.value_or(0),
                                    qemu_associativities[static_cast<std::size_t>(each.associativity)],
                                    qemu_cache_policies[static_cast<std::size_t>(each.policy)],
                                    each.line.value.value_or(0)));
}

} // namespace

void add_numa(argv_builder& b) {
  if (!has_cells(b))
    return;
  const auto& cells = b.guest.cpu->cells;
  const auto* machine = find_machine(b.facts, b.guest.os.machine);
  const bool tuned = b.guest.numatune || b.guest.backing || has_hmat(b) ||
                     std::ranges::any_of(cells, [](const auto& c) { return !c.mem_access.empty(); });
  const bool backends = tuned || !machine || !machine->numa_mem;
  std::vector<std::string> distances;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const auto& cell = cells[i];
    const auto number = cell.id.value_or(static_cast<unsigned>(i));
    const auto size = whole_mib(cell.memory_kib);
    auto out = fmt::format("node,nodeid={}", number);
    for (const auto& range : ranges_of(numbers_in(cell.cpus)))
      out += ",cpus=" + range;
    if (has_hmat(b))
      out += fmt::format(",initiator={}", initiator_of(*b.guest.cpu, cell, number));
    if (backends) {
      backend_wish wish;
      wish.id = fmt::format("ram-node{}", number);
      wish.size_kib = size;
      wish.cell = static_cast<int>(number);
      wish.access = cell.mem_access;
      wish.discard = cell.discard;
      b.object(memory_backend(b, wish));
      out += ",memdev=" + wish.id;
    } else {
      out += fmt::format(",mem={}", size / 1024);
    }
    b.option("-numa", out);
    for (const auto& each : cell.distances)
      distances.push_back(
        fmt::format("dist,src={},dst={},val={}", number, each.cell.value_or(0), each.value.value_or(0)));
  }
  for (auto& each : distances)
    b.option("-numa", std::move(each));
  if (has_hmat(b))
    add_hmat(b);
}

void add_memory_devices(argv_builder& b) {
  for (std::size_t i = 0; i < b.guest.devices.memories.size(); ++i) {
    const auto& m = b.guest.devices.memories[i];
    const auto cell = m.node ? static_cast<int>(*m.node) : -1;
    const auto alias = m.alias.empty() ? fmt::format("{}{}", m.model, i) : m.alias;
    backend_wish wish;
    wish.id = "mem" + alias;
    wish.size_kib = (m.size_kib.value_or(0) + module_step_kib - 1) / module_step_kib * module_step_kib;
    wish.cell = cell;
    wish.access = m.access;
    wish.path = m.path;
    wish.nodes = m.node_mask;
    wish.page_kib = m.page_kib;
    wish.align_kib = m.align_kib;
    wish.pmem = m.pmem;
    wish.reserve = m.model != "virtio-mem";
    if (m.discard == "yes")
      wish.discard = yes_no::yes;
    wish.prealloc = m.model == "nvdimm" && !m.pmem;
    ordered_json out;
    if (m.model == "dimm")
      out["driver"] = "pc-dimm";
    else if (m.model == "nvdimm")
      out["driver"] = "nvdimm";
    else if (m.model == "virtio-mem" || m.model == "virtio-pmem")
      out["driver"] = virtio_type(m.model, m.address, {});
    else
      b.refuse(fmt::format(
        "<memory model='{}'> cannot be given to QEMU here; use dimm, nvdimm, virtio-pmem or virtio-mem", m.model));
    if (cell >= 0)
      out["node"] = cell;
    if (m.label_kib)
      out["label-size"] = *m.label_kib * kib;
    if (m.block_kib)
      out["block-size"] = *m.block_kib * kib;
    if (m.requested_kib)
      out["requested-size"] = *m.requested_kib * kib;
    put(out, "uuid", m.uuid);
    if (m.readonly)
      out["unarmed"] = true;
    out["memdev"] = wish.id;
    out["id"] = alias;
    put_address(out, b, m);
    b.object(memory_backend(b, wish));
    b.device(out);
  }
}

void add_generation_id(argv_builder& b) {
  if (b.guest.genid)
    b.device({{"driver", "vmgenid"}, {"guid", *b.guest.genid}, {"id", "vmgenid0"}});
}

namespace {

template <std::size_t Count>
void add_smbios_table(argv_builder& b, int type, const sysinfo_block& block, const smbios_row (&rows)[Count]) {
  auto out = fmt::format("type={}", type);
  for (const auto& row : rows)
    for (const auto& entry : block.entries)
      if (entry.name == row.entry && !entry.value.empty())
        out += fmt::format(",{}={}", row.property, escaped(entry.value));
  b.option("-smbios", out);
}

} // namespace

void add_smbios(argv_builder& b) {
  if (b.guest.os.smbios_mode == "host")
    b.refuse("<smbios mode='host'>: the host's SMBIOS is not read here; use mode='sysinfo' and <sysinfo>");
  if (b.guest.os.smbios_mode == "sysinfo" &&
      std::ranges::find(b.guest.sysinfos, "smbios", &sysinfo::type) == b.guest.sysinfos.end())
    throw argv_refusal{{errc::bad_xml, fmt::format("Domain '{}' sysinfo are not available: <smbios mode='sysinfo'/> "
                                                   "wants a <sysinfo type='smbios'>",
                                                   b.guest.name)}};
  for (const auto& info : b.guest.sysinfos) {
    if (info.type == "smbios" && b.guest.os.smbios_mode == "sysinfo") {
      if (info.bios)
        add_smbios_table(b, 0, *info.bios, bios_rows);
      if (info.system)
        add_smbios_table(b, 1, *info.system, system_rows);
      if (info.base_boards.size() > 1)
        b.refuse(fmt::format("qemu does not support more than one entry to Type 2 in SMBIOS table; there are {} "
                             "<baseBoard>",
                             info.base_boards.size()));
      for (const auto& board : info.base_boards)
        add_smbios_table(b, 2, board, board_rows);
      if (info.chassis)
        add_smbios_table(b, 3, *info.chassis, chassis_rows);
      if (info.oem_strings) {
        std::string out = "type=11";
        for (const auto& entry : info.oem_strings->entries)
          out += ",value=" + escaped(entry.value);
        b.option("-smbios", out);
      }
    } else if (info.type == "fwcfg") {
      for (const auto& entry : info.entries)
        b.option("-fw_cfg",
                 fmt::format("name={},{}", escaped(entry.name),
                             entry.file.empty() ? "string=" + escaped(entry.value) : "file=" + escaped(entry.file)));
    }
  }
}

void add_clock(argv_builder& b) {
  static const clock_description utc;
  const auto& clock = b.guest.clock ? *b.guest.clock : utc;
  auto out = "base=" + clock_base(b, clock);
  for (const auto& timer : clock.timers) {
    if (timer.name != "rtc")
      continue;
    for (const auto& row : tracks)
      if (row.track == timer.track)
        out += fmt::format(",clock={}", row.clock);
    if (timer.tickpolicy == "catchup")
      out += ",driftfix=slew";
  }
  b.option("-rtc", out);
  for (const auto& timer : clock.timers) {
    if (timer.name == "pit" && (timer.tickpolicy == "delay" || timer.tickpolicy == "discard"))
      b.option("-global", "kvm-pit.lost_tick_policy=" + timer.tickpolicy);
    if (timer.name == "hpet" && timer.present == yes_no::no && b.facts.version.major < 8)
      b.word("-no-hpet");
  }
}

void add_power(argv_builder& b) {
  b.word("-no-shutdown");
  if (!features_of(b).acpi && b.facts.version.major < 8)
    b.word("-no-acpi");
  const std::string_view bridge = b.is_q35() ? "ICH9-LPC" : "PIIX4_PM";
  const auto add = [&](std::string_view state, yes_no enabled) {
    if (enabled != yes_no::unset)
      b.option("-global", fmt::format("{}.disable_{}={}", bridge, state, enabled == yes_no::no ? 1 : 0));
  };
  add("s3", b.guest.suspend_to_mem);
  add("s4", b.guest.suspend_to_disk);
}

void add_boot(argv_builder& b) {
  const auto& os = b.guest.os;
  std::string out;
  if (os.boot_menu != yes_no::unset)
    out += os.boot_menu == yes_no::yes ? "menu=on," : "menu=off,";
  if (os.boot_menu == yes_no::yes && os.boot_menu_timeout)
    out += fmt::format("splash-time={},", *os.boot_menu_timeout);
  if (os.reboot_timeout)
    out += fmt::format("reboot-timeout={},", *os.reboot_timeout);
  b.option("-boot", out + "strict=on");
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty())
      b.option(name, value);
  };
  add("-kernel", os.kernel);
  add("-initrd", os.initrd);
  add("-append", os.cmdline);
  add("-dtb", os.dtb);
  for (const auto& table : os.acpi_tables)
    b.option("-acpitable",
             fmt::format("sig={},file={}", table.type == "slic" ? "SLIC" : table.type, escaped(table.path)));
}

} // namespace troupe
