#pragma once

#include "xml/domain_values.hpp"

// The machine around the devices, and the definition as a whole.

namespace troupe {

// ---- how it boots

template <class V>
void describe(V& v, ref<V, os_boot> b) {
  v.attr("dev", b.dev);
}

template <class V>
void describe(V& v, ref<V, os_loader> l) {
  v.attr("readonly", l.readonly);
  v.attr("secure", l.secure);
  v.attr("type", l.type);
  v.attr("stateless", l.stateless);
  v.attr("format", l.format);
  v.text(l.path);
}

template <class V>
void describe(V& v, ref<V, os_nvram> n) {
  v.attr("template", n.template_path);
  v.attr("type", n.type);
  v.attr("format", n.format);
  v.part("source", n.source, [&](storage_source& s) { s.type = n.type; });
  if (!n.source)
    v.text(n.path);
}

template <class V>
void describe(V& v, ref<V, acpi_table> t) {
  v.attr("type", t.type);
  v.text(t.path);
}

template <class V>
void describe(V& v, ref<V, firmware_feature> f) {
  v.attr("enabled", f.enabled);
  v.attr("name", f.name);
}

template <class V>
void describe(V& v, ref<V, os_description> o) {
  v.attr("firmware", o.firmware);
  v.child("type", [&] {
    v.attr("arch", o.arch);
    v.attr("machine", o.machine);
    v.text(o.type);
  });
  v.child("firmware", [&] { v.parts("feature", o.firmware_features); });
  v.leaf("init", o.init);
  v.values("initarg", "", o.init_args);
  v.parts("initenv", o.init_env);
  v.leaf("initdir", o.init_dir);
  v.leaf("inituser", o.init_user);
  v.leaf("initgroup", o.init_group);
  v.part("loader", o.loader);
  v.part("nvram", o.nvram);
  v.leaf("kernel", o.kernel);
  v.leaf("initrd", o.initrd);
  v.leaf("cmdline", o.cmdline);
  v.leaf("dtb", o.dtb);
  v.child("acpi", [&] { v.parts("table", o.acpi_tables); });
  v.parts("boot", o.boots);
  v.child("bootmenu", [&] {
    v.attr("enable", o.boot_menu);
    v.attr("timeout", o.boot_menu_timeout);
  });
  v.child("bios", [&] {
    v.attr("useserial", o.bios_useserial);
    v.attr("rebootTimeout", o.reboot_timeout);
  });
  v.child("smbios", [&] { v.attr("mode", o.smbios_mode); });
}

template <class V>
void describe(V& v, ref<V, sysinfo_entry> e) {
  v.attr("name", e.name);
  v.attr("file", e.file);
  v.text(e.value);
}

template <class V>
void describe(V& v, ref<V, sysinfo_block> b) {
  v.parts("entry", b.entries);
}

template <class V>
void describe(V& v, ref<V, sysinfo> s) {
  v.attr("type", s.type);
  v.part("bios", s.bios);
  v.part("system", s.system);
  v.parts("baseBoard", s.base_boards);
  v.part("chassis", s.chassis);
  v.part("oemStrings", s.oem_strings);
  v.parts("entry", s.entries);
}

// ---- memory and CPUs

template <class V>
void describe(V& v, ref<V, hugepage> p) {
  v.attr("size", p.size);
  v.attr("unit", p.unit);
  v.attr("nodeset", p.nodeset);
}

template <class V>
void describe(V& v, ref<V, memory_backing> m) {
  v.marked("hugepages", m.has_hugepages, [&] { v.parts("page", m.hugepages); });
  v.flag("nosharepages", m.nosharepages);
  v.flag("locked", m.locked);
  v.child("source", [&] { v.attr("type", m.source); });
  v.child("access", [&] { v.attr("mode", m.access); });
  v.child("allocation", [&] {
    v.attr("mode", m.allocation);
    v.attr("threads", m.allocation_threads);
  });
  v.flag("discard", m.discard);
}

template <class V>
void describe(V& v, ref<V, vcpu_state> c) {
  v.attr("id", c.id);
  v.attr("enabled", c.enabled);
  v.attr("hotpluggable", c.hotpluggable);
  v.attr("order", c.order);
}

template <class V>
void describe(V& v, ref<V, iothread_id> t) {
  v.attr("id", t.id);
  v.attr("thread_pool_min", t.pool_min);
  v.attr("thread_pool_max", t.pool_max);
}

template <class V>
void describe(V& v, ref<V, cpu_feature> f) {
  v.attr("policy", f.policy);
  v.attr("name", f.name);
}

template <class V>
void describe(V& v, ref<V, numa_distance> d) {
  v.attr("id", d.cell);
  v.attr("value", d.value);
}

template <class V>
void describe(V& v, ref<V, size_and_unit> s) {
  v.attr("value", s.value);
  v.attr("unit", s.unit);
}

template <class V>
void describe(V& v, ref<V, memory_side_cache> c) {
  v.attr("level", c.level);
  v.attr("associativity", c.associativity);
  v.attr("policy", c.policy);
  v.part("size", c.size);
  v.part("line", c.line);
}

template <class V>
void describe(V& v, ref<V, numa_link> l) {
  v.attr("initiator", l.initiator);
  v.attr("target", l.target);
  v.attr("cache", l.cache);
  v.attr("type", l.type);
  v.attr("value", l.value);
  v.attr("unit", l.unit);
}

template <class V>
void describe(V& v, ref<V, cpu_address_width> w) {
  v.attr("mode", w.mode);
  v.attr("bits", w.bits);
  v.attr("limit", w.limit);
}

template <class V>
void describe(V& v, ref<V, numa_cell> c) {
  v.attr("id", c.id);
  v.attr("cpus", c.cpus);
  v.amount_attr("memory", c.memory_kib, kib_bytes, kib_bytes);
  v.attr("memAccess", c.mem_access);
  v.attr("discard", c.discard);
  v.child("distances", [&] { v.parts("sibling", c.distances); });
  v.parts("cache", c.caches);
}

template <class V>
void describe(V& v, ref<V, cpu_cache> c) {
  v.attr("level", c.level);
  v.attr("mode", c.mode);
}

template <class V>
void describe(V& v, ref<V, cpu_topology> t) {
  v.attr("sockets", t.sockets);
  v.attr("dies", t.dies);
  v.attr("cores", t.cores);
  v.attr("threads", t.threads);
}

template <class V>
void describe(V& v, ref<V, cpu_description> c) {
  v.attr("mode", c.mode);
  v.attr("match", c.match);
  v.attr("check", c.check);
  v.attr("migratable", c.migratable);
  v.marked("model", c.has_model, [&] {
    v.attr("fallback", c.fallback);
    v.attr("vendor_id", c.vendor_id);
    v.text(c.model);
  });
  v.leaf("vendor", c.vendor);
  v.part("topology", c.topology);
  v.part("cache", c.cache);
  v.part("maxphysaddr", c.maxphysaddr);
  v.parts("feature", c.features);
  v.child("numa", [&] {
    v.parts("cell", c.cells);
    v.child("interconnects", [&] {
      v.parts("latency", c.latencies);
      v.parts("bandwidth", c.bandwidths);
    });
  });
}

// ---- features

/// `<NAME state='on'/>`
template <class V>
void describe_state(V& v, std::string_view name, ref<V, on_off> state) {
  v.child(name, [&] { v.attr("state", state); });
}

template <class V>
void describe(V& v, ref<V, hyperv_features> h) {
  v.attr("mode", h.mode);
  v.opened();
  describe_state(v, "relaxed", h.relaxed);
  describe_state(v, "vapic", h.vapic);
  v.child("spinlocks", [&] {
    v.attr("state", h.spinlocks);
    v.attr("retries", h.spinlock_retries);
  });
  describe_state(v, "vpindex", h.vpindex);
  describe_state(v, "runtime", h.runtime);
  describe_state(v, "synic", h.synic);
  v.child("stimer", [&] {
    v.attr("state", h.stimer);
    describe_state(v, "direct", h.stimer_direct);
  });
  describe_state(v, "reset", h.reset);
  v.child("vendor_id", [&] {
    v.attr("state", h.vendor_id);
    v.attr("value", h.vendor);
  });
  describe_state(v, "frequencies", h.frequencies);
  describe_state(v, "reenlightenment", h.reenlightenment);
  describe_state(v, "tlbflush", h.tlbflush);
  describe_state(v, "ipi", h.ipi);
  describe_state(v, "evmcs", h.evmcs);
  describe_state(v, "avic", h.avic);
}

template <class V>
void describe(V& v, ref<V, kvm_features> k) {
  describe_state(v, "hidden", k.hidden);
  describe_state(v, "hint-dedicated", k.hint_dedicated);
  describe_state(v, "poll-control", k.poll_control);
  describe_state(v, "pv-ipi", k.pv_ipi);
  v.child("dirty-ring", [&] {
    v.attr("state", k.dirty_ring);
    v.attr("size", k.dirty_ring_size);
  });
}

template <class V>
void describe(V& v, ref<V, feature_set> f) {
  v.flag("acpi", f.acpi);
  v.marked("apic", f.apic, [&] { v.attr("eoi", f.apic_eoi); });
  v.flag("pae", f.pae);
  v.marked("hap", f.hap, [&] { v.attr("state", f.hap_state); });
  v.flag("viridian", f.viridian);
  v.flag("privnet", f.privnet);
  v.part("hyperv", f.hyperv);
  v.part("kvm", f.kvm);
  describe_state(v, "pvspinlock", f.pvspinlock);
  describe_state(v, "pmu", f.pmu);
  describe_state(v, "vmport", f.vmport);
  v.marked("gic", f.gic, [&] { v.attr("version", f.gic_version); });
  v.marked("smm", f.smm, [&] {
    v.attr("state", f.smm_state);
    v.child("tseg", [&] { v.amount(f.tseg_bytes, 1, mib_bytes, "MiB"); });
  });
  v.child("ioapic", [&] { v.attr("driver", f.ioapic); });
  v.child("hpt", [&] { v.attr("resizing", f.hpt); });
  v.marked("vmcoreinfo", f.vmcoreinfo, [&] { v.attr("state", f.vmcoreinfo_state); });
  describe_state(v, "htm", f.htm);
  describe_state(v, "nested-hv", f.nested_hv);
  describe_state(v, "ccf-assist", f.ccf_assist);
  v.child("tcg", [&] { v.child("tb-cache", [&] { v.amount(f.tcg_tb_cache_kib, kib_bytes, kib_bytes); }); });
}

// ---- clock

template <class V>
void describe(V& v, ref<V, clock_catchup> c) {
  v.attr("threshold", c.threshold);
  v.attr("slew", c.slew);
  v.attr("limit", c.limit);
}

template <class V>
void describe(V& v, ref<V, clock_timer> t) {
  v.attr("name", t.name);
  v.attr("present", t.present);
  v.attr("tickpolicy", t.tickpolicy);
  v.attr("track", t.track);
  v.attr("frequency", t.frequency);
  v.attr("mode", t.mode);
  v.part("catchup", t.catchup);
}

template <class V>
void describe(V& v, ref<V, clock_description> c) {
  v.attr("offset", c.offset);
  v.attr("sync", c.sync);
  v.attr("adjustment", c.adjustment);
  v.attr("basis", c.basis);
  v.attr("timezone", c.timezone);
  v.attr("start", c.start);
  v.parts("timer", c.timers);
}

// ---- what it may use of the host

template <class V>
void describe(V& v, ref<V, blkio_device> d) {
  v.leaf("path", d.path);
  v.leaf("weight", d.weight);
  v.leaf("read_iops_sec", d.read_iops);
  v.leaf("write_iops_sec", d.write_iops);
  v.leaf("read_bytes_sec", d.read_bytes);
  v.leaf("write_bytes_sec", d.write_bytes);
}

template <class V>
void describe(V& v, ref<V, blkio_tuning> t) {
  v.leaf("weight", t.weight);
  v.parts("device", t.devices);
}

template <class V>
void describe(V& v, ref<V, memory_tuning> t) {
  v.child("hard_limit", [&] { v.amount(t.hard_limit_kib, kib_bytes, kib_bytes); });
  v.child("soft_limit", [&] { v.amount(t.soft_limit_kib, kib_bytes, kib_bytes); });
  v.child("min_guarantee", [&] { v.amount(t.min_guarantee_kib, kib_bytes, kib_bytes); });
  v.child("swap_hard_limit", [&] { v.amount(t.swap_hard_limit_kib, kib_bytes, kib_bytes); });
}

template <class V>
void describe(V& v, ref<V, vcpu_pin> p) {
  v.attr("vcpu", p.vcpu);
  v.attr("cpuset", p.cpuset);
}

template <class V>
void describe(V& v, ref<V, iothread_pin> p) {
  v.attr("iothread", p.iothread);
  v.attr("cpuset", p.cpuset);
}

template <class V>
void describe(V& v, ref<V, thread_schedule> s) {
  v.attr("scheduler", s.scheduler);
  v.attr("priority", s.priority);
}

template <class V>
void describe(V& v, ref<V, vcpu_schedule> s) {
  v.attr("vcpus", s.vcpus);
  describe(v, static_cast<ref<V, thread_schedule>>(s));
}

template <class V>
void describe(V& v, ref<V, iothread_schedule> s) {
  v.attr("iothreads", s.iothreads);
  describe(v, static_cast<ref<V, thread_schedule>>(s));
}

template <class V>
void describe(V& v, ref<V, cache_share> c) {
  v.attr("id", c.id);
  v.attr("level", c.level);
  v.attr("type", c.type);
  v.attr("size", c.size);
  v.attr("unit", c.unit);
}

template <class V>
void describe(V& v, ref<V, resource_monitor> m) {
  v.attr("level", m.level);
  v.attr("vcpus", m.vcpus);
}

template <class V>
void describe(V& v, ref<V, cache_tuning> t) {
  v.attr("vcpus", t.vcpus);
  v.parts("cache", t.caches);
  v.parts("monitor", t.monitors);
}

template <class V>
void describe(V& v, ref<V, bandwidth_share> s) {
  v.attr("id", s.id);
  v.attr("bandwidth", s.bandwidth);
}

template <class V>
void describe(V& v, ref<V, memory_bandwidth> b) {
  v.attr("vcpus", b.vcpus);
  v.parts("node", b.nodes);
  v.parts("monitor", b.monitors);
}

template <class V>
void describe(V& v, ref<V, cpu_tuning> t) {
  v.leaf("shares", t.shares);
  v.leaf("period", t.period);
  v.leaf("quota", t.quota);
  v.leaf("global_period", t.global_period);
  v.leaf("global_quota", t.global_quota);
  v.leaf("emulator_period", t.emulator_period);
  v.leaf("emulator_quota", t.emulator_quota);
  v.leaf("iothread_period", t.iothread_period);
  v.leaf("iothread_quota", t.iothread_quota);
  v.parts("vcpupin", t.vcpu_pins);
  v.child("emulatorpin", [&] { v.attr("cpuset", t.emulator_cpuset); });
  v.parts("iothreadpin", t.iothread_pins);
  v.part("emulatorsched", t.emulator_schedule);
  v.parts("vcpusched", t.vcpu_schedules);
  v.parts("iothreadsched", t.iothread_schedules);
  v.parts("cachetune", t.caches);
  v.parts("memorytune", t.bandwidths);
}

template <class V>
void describe(V& v, ref<V, numa_memory> m) {
  v.attr("mode", m.mode);
  v.attr("nodeset", m.nodeset);
  v.attr("placement", m.placement);
}

template <class V>
void describe(V& v, ref<V, numa_cell_memory> m) {
  v.attr("cellid", m.cell);
  v.attr("mode", m.mode);
  v.attr("nodeset", m.nodeset);
}

template <class V>
void describe(V& v, ref<V, numa_tuning> t) {
  v.part("memory", t.memory);
  v.parts("memnode", t.cells);
}

template <class V>
void describe(V& v, ref<V, id_range> r) {
  v.attr("start", r.start);
  v.attr("target", r.target);
  v.attr("count", r.count);
}

template <class V>
void describe(V& v, ref<V, perf_event> e) {
  v.attr("name", e.name);
  v.attr("enabled", e.enabled);
}

template <class V>
void describe(V& v, ref<V, key_cipher> c) {
  v.attr("name", c.name);
  v.attr("state", c.state);
}

template <class V>
void describe(V& v, ref<V, launch_security> s) {
  v.attr("type", s.type);
  v.attr("kernelHashes", s.kernel_hashes);
  v.leaf("cbitpos", s.c_bit);
  v.leaf("reducedPhysBits", s.reduced_bits);
  v.leaf("policy", s.policy, hex{4});
  v.leaf("dhCert", s.dh_cert);
  v.leaf("session", s.session);
}

// ---- confinement, and what goes to QEMU as it is

template <class V>
void describe(V& v, ref<V, seclabel> s) {
  v.attr("type", s.type);
  v.attr("model", s.model);
  v.attr("relabel", s.relabel_given);
  if constexpr (V::reads)
    s.relabel = s.relabel_given != yes_no::no;
  v.leaf("label", s.label);
  v.live([&] { v.leaf("imagelabel", s.image_label); });
  v.leaf("baselabel", s.base_label);
}

template <class V>
void describe(V& v, ref<V, qemu_env> e) {
  v.attr("name", e.name);
  v.attr("value", e.value);
}

template <class V>
void describe(V& v, ref<V, qemu_override_property> p) {
  v.attr("name", p.name);
  v.attr("type", p.type);
  v.attr("value", p.value);
}

template <class V>
void describe(V& v, ref<V, qemu_override_device> d) {
  v.attr("alias", d.alias);
  v.child("qemu:frontend", [&] { v.parts("qemu:property", d.frontend); });
}

template <class V>
void describe_qemu(V& v, ref<V, qemu_namespace> q) {
  v.child("qemu:commandline", [&] {
    v.values("qemu:arg", "value", q.args);
    v.parts("qemu:env", q.envs);
  });
  v.child("qemu:capabilities", [&] {
    v.values("qemu:add", "capability", q.capabilities_add);
    v.values("qemu:del", "capability", q.capabilities_del);
  });
  v.child("qemu:override", [&] { v.parts("qemu:device", q.overrides); });
  v.child("qemu:deprecation", [&] { v.attr("behavior", q.deprecation); });
}

// ---- the whole

template <class V>
void describe_memory(V& v, ref<V, domain> d) {
  v.child("maxMemory", [&] {
    v.attr("slots", d.memory_slots);
    v.amount(d.max_memory_kib, kib_bytes, kib_bytes);
  });
  v.child("memory", [&] {
    v.attr("dumpCore", d.memory_dump);
    v.amount(d.memory_kib, kib_bytes, kib_bytes);
  });
  v.child("currentMemory", [&] { v.amount(d.current_memory_kib, kib_bytes, kib_bytes); });
  v.part("blkiotune", d.blkiotune);
  v.part("memtune", d.memtune);
  v.part("memoryBacking", d.backing);
}

template <class V>
void describe_cpus(V& v, ref<V, domain> d) {
  v.child("vcpu", [&] {
    v.attr("placement", d.vcpu_placement);
    v.attr("cpuset", d.vcpu_cpuset);
    v.attr("current", d.vcpu_current);
    v.text(d.vcpu_max);
  });
  v.child("vcpus", [&] { v.parts("vcpu", d.vcpus); });
  v.leaf("iothreads", d.iothreads);
  v.child("iothreadids", [&] { v.parts("iothread", d.iothread_ids); });
  v.child("defaultiothread", [&] {
    v.attr("thread_pool_min", d.default_pool_min);
    v.attr("thread_pool_max", d.default_pool_max);
  });
  v.part("cputune", d.cputune);
  v.part("numatune", d.numatune);
}

template <class V>
void describe(V& v, ref<V, domain> d) {
  v.attr("type", d.type);
  v.live([&] {
    if (V::reads || d.id >= 0)
      v.attr("id", d.id);
  });
  const auto& q = d.qemu;
  v.qemu_prefix(!q.args.empty() || !q.envs.empty() || !q.overrides.empty() || !q.capabilities_add.empty() ||
                !q.capabilities_del.empty() || q.deprecation != deprecation::unset);
  v.leaf("name", d.name);
  v.leaf("uuid", d.uuid);
  v.child("genid", [&] { v.text(d.genid); });
  v.leaf("title", d.title);
  v.leaf("description", d.description);
  v.metadata(d.has_metadata, d.metadata);
  describe_memory(v, d);
  describe_cpus(v, d);
  v.child("resource", [&] {
    v.leaf("partition", d.partition);
    v.child("fibrechannel", [&] { v.attr("appid", d.appid); });
  });
  v.parts("sysinfo", d.sysinfos);
  v.leaf("bootloader", d.bootloader);
  v.leaf("bootloader_args", d.bootloader_args);
  v.part("os", d.os);
  v.child("idmap", [&] {
    v.parts("uid", d.uid_map);
    v.parts("gid", d.gid_map);
  });
  v.part("features", d.features);
  v.part("cpu", d.cpu);
  v.part("clock", d.clock);
  v.leaf("on_poweroff", d.on_poweroff);
  v.leaf("on_reboot", d.on_reboot);
  v.leaf("on_crash", d.on_crash);
  v.leaf("on_lockfailure", d.on_lockfailure);
  v.child("pm", [&] {
    v.child("suspend-to-mem", [&] { v.attr("enabled", d.suspend_to_mem); });
    v.child("suspend-to-disk", [&] { v.attr("enabled", d.suspend_to_disk); });
  });
  v.child("perf", [&] { v.parts("event", d.perf); });
  v.part("devices", d.devices);
  v.parts("seclabel", d.seclabels);
  v.child("keywrap", [&] { v.parts("cipher", d.keywrap); });
  v.part("launchSecurity", d.launch_security);
  describe_qemu(v, d.qemu);
}

} // namespace troupe
