#pragma once

#include "xml/domain_values.hpp"

// What several devices have: addresses, boot order, labels, hosts, secrets, character devices' ends.

namespace troupe {

/// Where a device on a PCI bus sits; `hostdev` sources have the same attributes without a type.
template <class V>
void describe_pci(V& v, ref<V, pci_address> a) {
  v.attr("domain", a.domain, hex{4});
  v.attr("bus", a.bus, hex{2});
  v.attr("slot", a.slot, hex{2});
  v.attr("function", a.function, hex{1});
  v.attr("multifunction", a.multifunction);
}

template <class V>
void describe(V& v, ref<V, zpci_address> z) {
  v.attr("uid", z.uid, hex{4});
  v.attr("fid", z.fid, hex{8});
}

template <class V>
void describe(V& v, ref<V, device_address> a) {
  v.attr("type", a.type);
  switch (a.type) {
  case address_type::unset:
  case address_type::unassigned:
    break;
  case address_type::pci:
    // A device that only says it is on PCI has no place yet.
    if (V::reads || !a.pci.is_empty() || a.pci.multifunction != on_off::unset)
      describe_pci(v, a.pci);
    v.part("zpci", a.zpci);
    break;
  case address_type::drive:
    v.attr("controller", a.controller);
    v.attr("bus", a.bus);
    v.attr("target", a.target);
    v.attr("unit", a.unit);
    break;
  case address_type::virtio_serial:
    v.attr("controller", a.controller);
    v.attr("bus", a.bus);
    v.attr("port", a.port);
    break;
  case address_type::ccid:
    v.attr("controller", a.controller);
    v.attr("slot", a.slot);
    break;
  case address_type::usb:
    v.attr("bus", a.bus);
    v.attr("port", a.port);
    break;
  case address_type::spapr_vio:
    v.attr("reg", a.reg, hex{8});
    break;
  case address_type::isa:
    v.attr("iobase", a.iobase, hex{});
    v.attr("irq", a.irq, hex{});
    break;
  case address_type::dimm:
    v.attr("slot", a.slot);
    v.attr("base", a.base, hex{});
    break;
  case address_type::ccw:
    v.attr("cssid", a.ccw.cssid, hex{});
    v.attr("ssid", a.ccw.ssid, hex{});
    v.attr("devno", a.ccw.devno, hex{4});
    break;
  case address_type::virtio_s390:
  case address_type::virtio_mmio:
    break;
  }
}

template <class V>
void describe(V& v, ref<V, device_rom> r) {
  v.attr("enabled", r.enabled);
  v.attr("bar", r.bar);
  v.attr("file", r.file);
}

/// What every device ends with; `between` says what stands behind the alias.
template <class V, class Between>
void describe_place(V& v, ref<V, device> d, Between&& between) {
  v.child("boot", [&] {
    v.attr("order", d.boot_order, nonzero{});
    v.attr("loadparm", d.loadparm);
  });
  v.alias(d.alias);
  between();
  v.part("rom", d.rom);
  v.child("acpi", [&] { v.attr("index", d.acpi_index); });
  v.part("address", d.address);
}

template <class V>
void describe_place(V& v, ref<V, device> d) {
  describe_place(v, d, [] {});
}

template <class V>
void describe(V& v, ref<V, virtio_options> o) {
  v.attr("iommu", o.iommu);
  v.attr("ats", o.ats);
  v.attr("packed", o.packed);
  v.attr("page_per_vq", o.page_per_vq);
}

/// The driver of a device that has no more to say about it.
template <class V>
void describe_virtio_driver(V& v, ref<V, virtio_options> o) {
  v.child("driver", [&] { describe(v, o); });
}

template <class V>
void describe(V& v, ref<V, source_seclabel> s) {
  v.attr("model", s.model);
  v.attr("labelskip", s.label_skip);
  v.attr("relabel", s.relabel);
  v.leaf("label", s.label);
}

template <class V>
void describe(V& v, ref<V, host_address> h) {
  v.attr("name", h.name);
  v.attr("port", h.port);
  v.attr("transport", h.transport);
  v.attr("socket", h.socket);
}

template <class V>
void describe(V& v, ref<V, secret_ref> s) {
  v.attr("type", s.type);
  v.attr("uuid", s.uuid);
  v.attr("usage", s.usage);
}

template <class V>
void describe(V& v, ref<V, encryption_cipher> c) {
  v.attr("name", c.name);
  v.attr("size", c.size);
  v.attr("mode", c.mode);
  v.attr("hash", c.hash);
}

template <class V>
void describe(V& v, ref<V, encryption_ivgen> i) {
  v.attr("name", i.name);
  v.attr("hash", i.hash);
}

template <class V>
void describe(V& v, ref<V, disk_encryption> e) {
  v.attr("format", e.format);
  v.attr("engine", e.engine);
  v.parts("secret", e.secrets);
  v.part("cipher", e.cipher);
  v.part("ivgen", e.ivgen);
}

template <class V>
void describe(V& v, ref<V, disk_auth> a) {
  v.attr("username", a.username);
  v.part("secret", a.secret);
}

template <class V>
void describe(V& v, ref<V, reconnection> r) {
  v.attr("enabled", r.enabled);
  v.attr("timeout", r.timeout);
}

template <class V>
void describe(V& v, ref<V, name_value> x) {
  v.attr("name", x.name);
  v.text(x.value);
}

template <class V>
void describe(V& v, ref<V, chardev_end> e) {
  v.attr("channel", e.channel);
  v.attr("master", e.master);
  v.attr("slave", e.slave);
  v.attr("mode", e.mode);
  v.attr("host", e.host);
  v.attr("service", e.service);
  v.attr("tls", e.tls);
  v.attr("path", e.path);
  v.attr("append", e.append);
  v.child("clipboard", [&] { v.attr("copypaste", e.clipboard_copypaste); });
  v.child("mouse", [&] { v.attr("mode", e.mouse_mode); });
  v.part("reconnect", e.reconnect);
  v.parts("seclabel", e.labels);
}

/// The host's end of a character device, but for the type, which is an attribute of the device.
template <class V>
void describe_ends(V& v, ref<V, chardev_source> s) {
  // The terminal QEMU got is news of a running guest.
  if (V::reads || s.type != chardev_type::pty || !v.is_inactive())
    v.filled_parts("source", s.ends);
  v.child("protocol", [&] { v.attr("type", s.protocol); });
  v.child("log", [&] {
    v.attr("file", s.log_file);
    v.attr("append", s.log_append);
  });
}

} // namespace troupe
