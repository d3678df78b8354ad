#include "xml/argv_parts.hpp"
#include "xml/argv_tables.hpp"

#include <algorithm>
#include <fmt/format.h>

// Controllers, input, assigned devices and all that has no file of its own.

namespace troupe {
namespace {

std::string type_from(argv_builder& b, std::span<const model_row> rows, std::string_view model, std::string_view what) {
  const auto row = std::ranges::find(rows, model, &model_row::model);
  if (row == rows.end())
    b.refuse(fmt::format("{} of model '{}' is not one of QEMU's", what, model));
  return std::string{row->type};
}


// ---- controllers

std::string controller_name(const controller& c) {
  return fmt::format("{} controller {}", word_of(c.type), c.index.value_or(0));
}

void add_pci_controller(argv_builder& b, const controller& c) {
  if (c.model == "pci-root" || c.model == "pcie-root")
    return;
  auto type = c.model_name.empty() ? type_from(b, pci_models, c.model, controller_name(c)) : c.model_name;
  ordered_json out{{"driver", type}};
  const auto id = b.controller_id(controller_type::pci, c.index.value_or(0));
  if (c.model == "pci-bridge")
    put(out, "chassis_nr", c.chassis_nr);
  if (c.model == "pci-expander-bus" || c.model == "pcie-expander-bus")
    put(out, "bus_nr", c.bus_nr);
  if (c.model == "pcie-root-port" || c.model == "pcie-switch-downstream-port") {
    put(out, "port", c.port);
    put(out, "chassis", c.chassis);
  }
  out["id"] = id;
  put(out, "numa_node", c.numa_node);
  put(out, "hotplug", c.hotplug);
  put_address(out, b, c);
  b.device(out);
}

void add_usb_controller(argv_builder& b, const controller& c) {
  if (c.model == "none")
    return;
  const auto type = type_from(b, usb_models, c.model, controller_name(c));
  if (!b.has(type))
    b.refuse(fmt::format("USB controller model '{}' not supported in this QEMU binary ({} has no '{}')", c.model,
                         b.facts.binary, type));
  ordered_json out{{"driver", type}};
  if (c.model.ends_with("xhci") && c.ports) {
    out["p2"] = *c.ports;
    out["p3"] = *c.ports;
  }
  const auto id = b.controller_id(controller_type::usb, c.index.value_or(0));
  if (c.master_startport) {
    out["masterbus"] = id + ".0";
    out["firstport"] = *c.master_startport;
  } else {
    out["id"] = id;
  }
  put_address(out, b, c);
  b.device(out);
}

void add_scsi_controller(argv_builder& b, const controller& c) {
  ordered_json out;
  const auto id = b.controller_id(controller_type::scsi, c.index.value_or(0));
  if (!c.model.starts_with("virtio")) {
    out["driver"] =
      type_from(b, scsi_models, c.model.empty() ? "lsilogic" : std::string_view{c.model}, controller_name(c));
    out["id"] = id;
  } else {
    out["driver"] = virtio_type("virtio-scsi", c.address, c.model);
    if (c.driver) {
      put_virtio(out, c.driver->virtio);
      if (c.driver->iothread)
        out["iothread"] = fmt::format("iothread{}", *c.driver->iothread);
    }
    out["id"] = id;
    if (c.driver) {
      put(out, "num_queues", c.driver->queues);
      put(out, "cmd_per_lun", c.driver->cmd_per_lun);
      put(out, "max_sectors", c.driver->max_sectors);
      put(out, "ioeventfd", c.driver->ioeventfd);
    }
  }
  put_address(out, b, c);
  b.device(out);
}

void add_virtio_serial(argv_builder& b, const controller& c) {
  ordered_json out{{"driver", virtio_type("virtio-serial", c.address, c.model)}};
  if (c.driver)
    put_virtio(out, c.driver->virtio);
  out["id"] = b.controller_id(controller_type::virtio_serial, c.index.value_or(0));
  put(out, "max_ports", c.ports);
  put(out, "vectors", c.vectors);
  put_address(out, b, c);
  b.device(out);
}

void add_controller(argv_builder& b, const controller& c) {
  const auto index = c.index.value_or(0);
  switch (c.type) {
  case controller_type::pci:
    return add_pci_controller(b, c);
  case controller_type::usb:
    return add_usb_controller(b, c);
  case controller_type::scsi:
    return add_scsi_controller(b, c);
  case controller_type::virtio_serial:
    return add_virtio_serial(b, c);
  case controller_type::ide:
    if (index > 0 || !b.is_i440fx())
      b.refuse(fmt::format("{}: only i440fx machines have one, with index 0; use bus='sata' or bus='virtio'",
                           controller_name(c)));
    return;
  case controller_type::sata: {
    if (index == 0 && b.is_q35())
      return; // the machine's own
    ordered_json out{{"driver", "ahci"}, {"id", b.controller_id(controller_type::sata, index)}};
    put_address(out, b, c);
    b.device(out);
    return;
  }
  default:
    return;
  }
}

constexpr controller_type controller_order[] = {controller_type::pci,  controller_type::usb,
                                                controller_type::scsi, controller_type::ide,
                                                controller_type::sata, controller_type::virtio_serial};

void add_pci_holes(argv_builder& b) {
  for (const auto& c : b.guest.devices.controllers)
    if (c.type == controller_type::pci && c.pcihole64_kib)
      b.option("-global", fmt::format("{}-pcihost.pci-hole64-size={}K", c.model == "pcie-root" ? "q35" : "i440FX",
                                      *c.pcihole64_kib));
}

// ---- assigned devices

std::string pci_text(const std::optional<device_address>& address) {
  const auto pci = address ? address->pci : pci_address{};
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.slot, pci.function);
}

unsigned number_in(std::string_view text) {
  const bool hex = text.starts_with("0x");
  unsigned value = 0;
  for (const char c : hex ? text.substr(2) : text) {
    const unsigned digit =
      c >= '0' && c <= '9' ? static_cast<unsigned>(c - '0') : static_cast<unsigned>((c | 0x20) - 'a') + 10;
    if (digit >= (hex ? 16u : 10u) || value > 100'000)
      return value;
    value = value * (hex ? 16 : 10) + digit;
  }
  return value;
}

void add_usb_hostdev(argv_builder& b, const hostdev& h) {
  ordered_json out{{"driver", "usb-host"}};
  if (!h.usb_bus.empty() && !h.usb_device.empty()) {
    out["hostdevice"] = fmt::format("/dev/bus/usb/{:03}/{:03}", number_in(h.usb_bus), number_in(h.usb_device));
  } else {
    if (h.vendor_id.empty() || h.product_id.empty())
      b.refuse(fmt::format("USB host device '{}' is missing bus/device information", h.alias));
    out["vendorid"] = number_in(h.vendor_id);
    out["productid"] = number_in(h.product_id);
  }
  out["id"] = h.alias;
  put_bootindex(out, h.boot_order);
  put_address(out, b, h);
  b.device(out);
}

void add_scsi_hostdev(argv_builder& b, const hostdev& h, unsigned& next_node) {
  const auto node = fmt::format("libvirt-{}-backend", next_node++);
  ordered_json back;
  if (h.protocol == "iscsi") {
    storage_source source;
    source.type = storage_type::network;
    source.protocol = net_protocol::iscsi;
    source.name = h.source_name;
    source.hosts = h.hosts;
    source.auth = h.auth;
    source.initiator_iqn = h.initiator_iqn;
    back = network_place(b, source, node);
  } else {
    b.refuse(fmt::format(
      "SCSI host device '{}' ({} {}:{}:{}): its /dev/sg node is not looked up here; use protocol='iscsi' or a disk "
      "with device='lun'",
      h.alias, h.adapter, h.scsi_bus, h.scsi_target, h.scsi_unit));
  }
  back["node-name"] = node;
  back["read-only"] = h.readonly;
  b.blockdev(back);
  ordered_json out{{"driver", "scsi-generic"}, {"drive", node}, {"id", h.alias}};
  put_scsi_place(out, b, h.address);
  put_bootindex(out, h.boot_order);
  b.device(out);
}

void add_vfio(argv_builder& b, const hostdev& h) {
  const bool mediated = h.type == "mdev";
  ordered_json out{{"driver", h.ramfb == on_off::on ? "vfio-pci-nohotplug" : "vfio-pci"}};
  if (mediated && h.model != "vfio-pci")
    b.refuse(fmt::format("mediated device '{}' of model '{}': only vfio-pci is possible here", h.mdev_uuid, h.model));
  if (mediated) {
    out["id"] = h.alias;
    out["sysfsdev"] = "/sys/bus/mdev/devices/" + h.mdev_uuid;
    put_word(out, "display", h.display);
  } else {
    out["host"] = pci_text(h.source_address);
    out["id"] = h.alias;
  }
  if (h.ramfb == on_off::on)
    out["ramfb"] = true;
  put_bootindex(out, h.boot_order);
  put_address(out, b, h);
  put_rom(out, h);
  b.device(out);
}

void add_vhost_scsi(argv_builder& b, const hostdev& h) {
  b.refuse_to_run(fmt::format(
    "vhost-scsi device '{}' needs /dev/vhost-scsi opened for it, which is not done here; use protocol='iscsi'",
    h.wwpn));
  ordered_json out{
    {"driver", virtio_type("vhost-scsi", h.address, h.model)}, {"wwpn", h.wwpn}, {"vhostfd", "N"}, {"id", h.alias}};
  put_address(out, b, h);
  b.device(out);
}

} // namespace

void add_iommu(argv_builder& b) {
  for (const auto& iommu : b.guest.devices.iommus) {
    if (iommu.model == "virtio") {
      ordered_json out{{"driver", "virtio-iommu"}, {"id", iommu.alias.empty() ? "iommu0" : iommu.alias}};
      put_address(out, b, iommu);
      b.device(out);
      continue;
    }
    if (iommu.model != "intel")
      b.refuse(
        fmt::format("<iommu model='{}'> is not possible on this machine; use 'intel' (q35) or 'virtio'", iommu.model));
    ordered_json out{{"driver", "intel-iommu"}, {"id", iommu.alias.empty() ? "iommu0" : iommu.alias}};
    put_word(out, "intremap", iommu.intremap);
    put(out, "caching-mode", iommu.caching_mode);
    put_word(out, "eim", iommu.eim);
    put(out, "device-iotlb", iommu.iotlb);
    put(out, "aw-bits", iommu.aw_bits);
    b.device(out);
  }
}

void add_controllers(argv_builder& b) {
  add_pci_holes(b);
  for (const auto type : controller_order)
    for (const auto& c : b.guest.devices.controllers)
      if (c.type == type)
        add_controller(b, c);
}

void add_hubs(argv_builder& b) {
  for (const auto& h : b.guest.devices.hubs) {
    ordered_json out{{"driver", "usb-hub"}, {"id", h.alias}};
    put_address(out, b, h);
    b.device(out);
  }
  // Card readers sit on USB ports, so they follow the hubs.
  for (const auto& c : b.guest.devices.controllers)
    if (c.type == controller_type::ccid) {
      ordered_json out{{"driver", "usb-ccid"}, {"id", b.controller_id(controller_type::ccid, c.index.value_or(0))}};
      put_address(out, b, c);
      b.device(out);
    }
}

void add_tpms(argv_builder& b) {
  for (const auto& tpm : b.guest.devices.tpms) {
    const auto id = "tpm-" + tpm.alias;
    if (tpm.backend == "passthrough") {
      b.option("-tpmdev", fmt::format("passthrough,id={},path={}", id,
                                      tpm.device_path.empty() ? "/dev/tpm0" : escaped(tpm.device_path)));
    } else {
      const bool own = tpm.backend == "external" && !tpm.source_path.empty();
      if (!own)
        b.refuse_to_run(
          fmt::format("TPM '{}': swtpm is not started here; start it and name its socket: <backend type='external'>"
                      "<source type='unix' mode='connect' path='…'/></backend>",
                      tpm.alias));
      b.option("-chardev", own ? "socket,id=chrtpm,path=" + escaped(tpm.source_path) : "null,id=chrtpm");
      b.option("-tpmdev", fmt::format("emulator,id={},chardev=chrtpm", id));
    }
    ordered_json out{{"driver", tpm.model.empty() ? "tpm-tis" : tpm.model}, {"tpmdev", id}, {"id", tpm.alias}};
    put_address(out, b, tpm);
    b.device(out);
  }
}

void add_inputs(argv_builder& b) {
  for (const auto& input : b.guest.devices.inputs) {
    ordered_json out;
    if (input.type == "evdev") {
      out = {{"qom-type", "input-linux"}, {"id", input.alias}, {"evdev", input.source_dev}};
      put(out, "repeat", input.repeat);
      if (input.grab == "all")
        out["grab_all"] = true;
      put(out, "grab-toggle", input.grab_toggle);
      b.object(out);
      continue;
    }
    if (input.bus == "usb") {
      out["driver"] = "usb-" + (input.type == "keyboard" ? std::string{"kbd"} : input.type);
      out["id"] = input.alias;
    } else if (input.bus == "virtio") {
      const bool passed = input.type == "passthrough";
      out["driver"] = virtio_type(passed ? "virtio-input-host" : "virtio-" + input.type, input.address, input.model);
      put_virtio(out, input.virtio);
      out["id"] = input.alias;
      if (passed)
        out["evdev"] = input.source_evdev;
    } else {
      continue; // the machine's own mouse and keyboard
    }
    put_address(out, b, input);
    b.device(out);
  }
}

void add_watchdogs(argv_builder& b) {
  for (const auto& w : b.guest.devices.watchdogs) {
    if (w.model == "itco")
      continue; // the machine's own
    ordered_json out{{"driver", w.model}, {"id", w.alias}};
    put_address(out, b, w);
    b.device(out);
  }
  if (!b.guest.devices.watchdogs.empty()) {
    const auto& action = b.guest.devices.watchdogs.front().action;
    b.option("-watchdog-action", action == "dump" ? "pause" : action.empty() ? "reset" : action);
  }
}

namespace {

/// "class:vendor:product:version:allow" for each rule, -1 being any.
std::string filter_words(const usb_filter& filter) {
  const auto or_any = [](const std::string& text) { return text.empty() ? std::string{"-1"} : text; };
  std::string out;
  for (const auto& rule : filter.rules) {
    auto version = or_any(rule.version);
    if (const auto dot = version.find('.'); dot != std::string::npos)
      version =
        fmt::format("{:#06x}", number_in(version.substr(0, dot)) << 8 | number_in("0x" + version.substr(dot + 1)));
    out += fmt::format("{}{}:{}:{}:{}:{}", out.empty() ? "" : "|", or_any(rule.class_id), or_any(rule.vendor),
                       or_any(rule.product), version, rule.allow == yes_no::yes ? 1 : 0);
  }
  return out;
}

} // namespace

void add_redirdevs(argv_builder& b) {
  for (const auto& r : b.guest.devices.redirdevs) {
    add_chardev(b, r.source, "char" + r.alias, {}, chardev_use::usb_redirection);
    ordered_json out{{"driver", "usb-redir"}, {"chardev", "char" + r.alias}, {"id", r.alias}};
    if (b.guest.devices.redirfilter)
      put(out, "filter", filter_words(*b.guest.devices.redirfilter));
    put_bootindex(out, r.boot_order);
    put_address(out, b, r);
    b.device(out);
  }
}

void add_hostdevs(argv_builder& b) {
  auto next_node = disk_nodes(b.guest) + 1;
  for (const auto& h : b.guest.devices.hostdevs) {
    if (h.mode == "capabilities")
      b.refuse(fmt::format("host device '{}' of mode='capabilities' is for containers; use mode='subsystem'", h.alias));
    if (h.type == "usb")
      add_usb_hostdev(b, h);
    else if (h.type == "scsi")
      add_scsi_hostdev(b, h, next_node);
    else if (h.type == "scsi_host")
      add_vhost_scsi(b, h);
    else if (h.type == "pci" || h.type == "mdev")
      add_vfio(b, h);
    else
      b.refuse(
        fmt::format("host device '{}' of type '{}' is not possible; use usb, pci, scsi or mdev", h.alias, h.type));
  }
}

void add_balloon(argv_builder& b) {
  for (const auto& balloon : b.guest.devices.balloons) {
    if (balloon.model == "none")
      continue;
    if (!balloon.model.starts_with("virtio") && !balloon.model.empty())
      b.refuse(fmt::format("<memballoon model='{}'> is not one of QEMU's; use 'virtio' or 'none'", balloon.model));
    ordered_json out{{"driver", virtio_type("virtio-balloon", balloon.address, balloon.model)}};
    put_virtio(out, balloon.virtio);
    out["id"] = balloon.alias;
    put(out, "deflate-on-oom", balloon.autodeflate);
    put(out, "free-page-reporting", balloon.free_page_reporting);
    put_address(out, b, balloon);
    b.device(out);
  }
}

void add_rngs(argv_builder& b) {
  for (const auto& rng : b.guest.devices.rngs) {
    const auto object = "obj" + rng.alias;
    if (rng.backend == "egd") {
      add_chardev(b, rng.source, "char" + rng.alias);
      b.object({{"qom-type", "rng-egd"}, {"id", object}, {"chardev", "char" + rng.alias}});
    } else if (rng.backend == "builtin") {
      b.object({{"qom-type", "rng-builtin"}, {"id", object}});
    } else {
      b.object(
        {{"qom-type", "rng-random"}, {"id", object}, {"filename", rng.path.empty() ? "/dev/urandom" : rng.path}});
    }
    ordered_json out{{"driver", virtio_type("virtio-rng", rng.address, rng.model)}};
    put_virtio(out, rng.virtio);
    out["rng"] = object;
    out["id"] = rng.alias;
    if (rng.rate) {
      out["max-bytes"] = rng.rate->bytes;
      // QEMU counts in periods of a second when none is given.
      out["period"] = rng.rate->period.value_or(1000);
    }
    put_address(out, b, rng);
    b.device(out);
  }
}

void add_vmcoreinfo(argv_builder& b) {
  if (b.guest.features && b.guest.features->vmcoreinfo && b.guest.features->vmcoreinfo_state != on_off::off)
    b.device({{"driver", "vmcoreinfo"}});
}

void add_sandbox(argv_builder& b) {
  if (!b.run.sandbox)
    return b.option("-sandbox", "off");
  b.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

void add_panics(argv_builder& b) {
  for (const auto& panic : b.guest.devices.panics) {
    if (panic.model == "isa" || panic.model.empty()) {
      ordered_json out{{"driver", "pvpanic"}};
      if (panic.address.iobase)
        out["ioport"] = *panic.address.iobase;
      b.device(out);
    } else if (panic.model == "pvpanic") {
      ordered_json out{{"driver", "pvpanic-pci"}, {"id", panic.alias}};
      put_address(out, b, panic);
      b.device(out);
    } else if (panic.model != "hyperv") { // the CPU has it
      b.refuse(fmt::format("<panic model='{}'> is not possible on this machine; use 'isa' or 'hyperv'", panic.model));
    }
  }
}

void add_shmems(argv_builder& b) {
  for (const auto& shmem : b.guest.devices.shmems) {
    if (shmem.model == "ivshmem-plain" || shmem.model.empty()) {
      const auto memory = "shmmem-" + shmem.alias;
      b.object({{"qom-type", "memory-backend-file"},
                {"id", memory},
                {"mem-path", "/dev/shm/" + shmem.name},
                {"size", shmem.size_bytes.value_or(4u << 20)},
                {"share", true}});
      ordered_json out{{"driver", "ivshmem-plain"}, {"id", shmem.alias}, {"memdev", memory}};
      if (shmem.role == "master")
        out["master"] = "on";
      else if (shmem.role == "peer")
        out["master"] = "off";
      put_address(out, b, shmem);
      b.device(out);
    } else if (shmem.model == "ivshmem-doorbell") {
      ordered_json out{{"driver", "ivshmem-doorbell"}, {"id", shmem.alias}, {"chardev", "char" + shmem.alias}};
      if (shmem.role == "master")
        out["master"] = "on";
      put(out, "vectors", shmem.msi_vectors);
      put(out, "ioeventfd", shmem.msi_ioeventfd);
      put_address(out, b, shmem);
      b.device(out);
      b.option("-chardev",
               fmt::format("socket,id=char{},path={}", shmem.alias,
                           escaped(shmem.server_path.empty() ? fmt::format("/var/lib/libvirt/shmem-{}-sock", shmem.name)
                                                             : shmem.server_path)));
    } else {
      b.refuse(fmt::format("<shmem> model '{}' is gone from QEMU; use ivshmem-plain or ivshmem-doorbell", shmem.model));
    }
  }
}

void add_cryptos(argv_builder& b) {
  for (const auto& crypto : b.guest.devices.cryptos) {
    const auto object = "obj" + crypto.alias;
    if (!crypto.backend.empty() && crypto.backend != "builtin" && crypto.backend != "lkcf")
      b.refuse(fmt::format("<crypto>: backend model '{}' is not one of QEMU's; use 'builtin' or 'lkcf'", crypto.backend));
    ordered_json back{{"qom-type", crypto.backend == "lkcf" ? "cryptodev-backend-lkcf" : "cryptodev-backend-builtin"},
                      {"id", object}};
    put(back, "queues", crypto.queues);
    b.object(back);
    ordered_json out{{"driver", virtio_type("virtio-crypto", crypto.address, {})}};
    put_virtio(out, crypto.virtio);
    out["cryptodev"] = object;
    out["id"] = crypto.alias;
    put_address(out, b, crypto);
    b.device(out);
  }
}

void add_launch_security(argv_builder& b) {
  if (!b.guest.launch_security)
    return;
  const auto& security = *b.guest.launch_security;
  if (security.type == launch_kind::s390_pv) {
    b.object({{"qom-type", "s390-pv-guest"}, {"id", "lsec0"}});
    return;
  }
  ordered_json out{{"qom-type", "sev-guest"}, {"id", "lsec0"}};
  put(out, "cbitpos", security.c_bit);
  put(out, "reduced-phys-bits", security.reduced_bits);
  out["policy"] = security.policy.value_or(0);
  if (!security.dh_cert.empty())
    out["dh-cert-file"] = b.run.run_dir + "/dh_cert.base64";
  if (!security.session.empty())
    out["session-file"] = b.run.run_dir + "/session.base64";
  put(out, "kernel-hashes", security.kernel_hashes);
  b.object(out);
}

void add_vsocks(argv_builder& b) {
  for (const auto& vsock : b.guest.devices.vsocks) {
    ordered_json out{{"driver", virtio_type("vhost-vsock", vsock.address, vsock.model)}};
    put_virtio(out, vsock.virtio);
    out["id"] = vsock.alias;
    if (!vsock.cid)
      b.refuse_to_run(fmt::format("vsock '{}' has no CID; give it one: <cid auto='no' address='3'/>", vsock.alias));
    out["guest-cid"] = vsock.cid.value_or(0);
    if (b.run.generic_taps)
      out["vhostfd"] = "-1";
    put_address(out, b, vsock);
    b.device(out);
  }
}

} // namespace troupe
