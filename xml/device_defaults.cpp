#include "xml/passes.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace troupe {
namespace {

void default_to(std::string& value, std::string_view otherwise) {
  if (value.empty())
    value = otherwise;
}

template <class Enum>
requires std::is_enum_v<Enum>
void default_to(Enum& value, Enum otherwise) {
  if (value == Enum{})
    value = otherwise;
}

// ---- disks

disk_bus bus_of_target(std::string_view target) {
  constexpr std::pair<std::string_view, disk_bus> prefixes[] = {{"hd", disk_bus::ide},    {"sd", disk_bus::scsi},
                                                                {"vd", disk_bus::virtio}, {"xvd", disk_bus::xen},
                                                                {"ubd", disk_bus::uml},   {"fd", disk_bus::fdc}};
  for (const auto& [prefix, bus] : prefixes)
    if (target.starts_with(prefix))
      return bus;
  return disk_bus::ide;
}

/// The TCP port of a protocol whose client library has none of its own; empty otherwise.
std::string_view port_of(net_protocol protocol) {
  switch (protocol) {
  case net_protocol::nbd:
    return "10809";
  case net_protocol::sheepdog:
    return "7000";
  case net_protocol::gluster:
    return "24007";
  case net_protocol::iscsi:
    return "3260";
  case net_protocol::http:
    return "80";
  case net_protocol::https:
    return "443";
  case net_protocol::ftp:
    return "21";
  case net_protocol::ftps:
    return "990";
  case net_protocol::tftp:
    return "69";
  case net_protocol::ssh:
    return "22";
  case net_protocol::vxhs:
    return "9999";
  case net_protocol::nfs:
    return "2049";
  default:
    return {};
  }
}

void settle_source(storage_source& source) {
  if (source.type != storage_type::network)
    return;
  for (auto& host : source.hosts)
    if (host.transport != "unix")
      default_to(host.port, port_of(source.protocol));
}

void settle_chain(backing_store& image) {
  settle_source(image.source);
  if (!image.ends_chain())
    default_to(image.format, image_format::raw);
  for (auto& next : image.next)
    settle_chain(next);
}

bool is_wide(const domain& guest) {
  // lsilogic, which a controller without a model becomes, has seven units.
  const auto* there = find_controller(guest, controller_type::scsi, 0);
  return there != nullptr && there->model != "lsilogic";
}

result<void> settle(domain& guest, disk& each) {
  default_to(each.device_type, disk_device::disk);
  if (each.bus == disk_bus::unset)
    each.bus = each.device_type == disk_device::floppy ? disk_bus::fdc : bus_of_target(each.target);
  if (each.device_type == disk_device::cdrom)
    each.readonly = true;
  if (!each.driver)
    each.driver.emplace();
  default_to(each.driver->name, "qemu");
  if (each.driver->type == image_format::unset && each.source.type != storage_type::volume)
    each.driver->type = each.source.type == storage_type::dir ? image_format::fat : image_format::raw;
  settle_source(each.source);
  for (auto& image : each.backing)
    settle_chain(image);
  if (each.address.is(address_type::unset) && (each.bus == disk_bus::ide || each.bus == disk_bus::scsi ||
                                               each.bus == disk_bus::sata || each.bus == disk_bus::fdc)) {
    const auto index = disk_index(each.target);
    if (!index)
      return fail(errc::internal, fmt::format("Unknown disk name '{}' and no address specified", each.target));
    auto line = each.address.rest;
    each.address = drive_place(each.bus, *index, is_wide(guest));
    each.address.rest = std::move(line);
  }
  return {};
}

// ---- controllers

void settle_pci(controller& each) {
  constexpr std::pair<std::string_view, std::string_view> names[] = {
    {"pci-bridge", "pci-bridge"},
    {"pci-expander-bus", "pxb"},
    {"dmi-to-pci-bridge", "i82801b11-bridge"},
    {"pcie-to-pci-bridge", "pcie-pci-bridge"},
    {"pcie-root-port", "pcie-root-port"},
    {"pcie-switch-upstream-port", "x3130-upstream"},
    {"pcie-switch-downstream-port", "xio3130-downstream"},
    {"pcie-expander-bus", "pxb-pcie"},
  };
  if (each.model_name.empty())
    for (const auto& [model, name] : names)
      if (model == each.model)
        each.model_name = name;
}

result<void> settle(domain& guest, controller& each) {
  switch (each.type) {
  case controller_type::usb:
    // libvirt's choice of before USB 2, on q35 too.
    if (is_x86(guest))
      default_to(each.model, "piix3-uhci");
    if (each.model.starts_with("ich9-uhci") && !each.master_startport)
      each.master_startport = 2 * static_cast<unsigned>(each.model.back() - '1');
    break;
  case controller_type::scsi:
    if (each.model == "auto")
      each.model.clear();
    default_to(each.model, "lsilogic");
    break;
  case controller_type::pci:
    settle_pci(each);
    break;
  default:
    break;
  }
  return {};
}

// ---- character devices

void settle(domain& guest, chardev& each, unsigned position) {
  auto& source = each.source;
  default_to(source.type, chardev_type::pty);
  // The socket of an agent's channel is made up at the start.
  if (source.type == chardev_type::unix_ && each.kind == chardev_kind::channel)
    std::erase_if(source.ends,
                  [](const auto& end) { return end.path.empty() && end.mode != "connect" && !end.reconnect; });
  for (auto& end : source.ends) {
    if (source.type == chardev_type::tcp || source.type == chardev_type::unix_)
      default_to(end.mode, "connect");
    if (source.type == chardev_type::spicevmc)
      default_to(each.target_name, "com.redhat.spice.0");
  }
  switch (each.kind) {
  case chardev_kind::serial: {
    constexpr std::pair<std::string_view, std::string_view> models[] = {{"isa-serial", "isa-serial"},
                                                                        {"usb-serial", "usb-serial"},
                                                                        {"pci-serial", "pci-serial"},
                                                                        {"isa-debug", "isa-debugcon"},
                                                                        {"spapr-vio-serial", "spapr-vty"}};
    if (each.target_type.empty())
      each.target_type = each.address.is(address_type::usb)   ? "usb-serial"
                         : each.address.is(address_type::pci) ? "pci-serial"
                         : is_x86(guest)                      ? "isa-serial"
                                                              : "";
    for (const auto& [type, model] : models)
      if (type == each.target_type)
        default_to(each.target_model, model);
    break;
  }
  case chardev_kind::console:
    default_to(each.target_type, "serial");
    break;
  case chardev_kind::channel:
    if (source.type == chardev_type::spicevmc && each.target_type == "virtio")
      default_to(each.target_name, "com.redhat.spice.0");
    return;
  case chardev_kind::parallel:
    break;
  }
  if (!each.target_port || *each.target_port < 0)
    each.target_port = static_cast<int>(position);
}

/// Ports without a number take the next one.
void settle_ports(domain& guest, std::vector<chardev>& ports) {
  int next = 0;
  for (const auto& each : ports)
    if (each.target_port)
      next = std::max(next, *each.target_port + 1);
  for (auto& each : ports) {
    settle(guest, each, static_cast<unsigned>(next));
    if (each.target_port == next)
      ++next;
  }
}

// ---- network cards

std::string random_mac(const random_source& random) {
  const auto bytes = random();
  return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2]);
}

void settle(definition_work& work, net_interface& each) {
  if (each.mac.empty()) {
    each.mac = random_mac(work.random);
    each.mac_generated = true;
  }
  if (each.type == net_type::hostdev) {
    default_to(each.managed, yes_no::no);
    return;
  }
  if (each.model.empty() && is_x86(work.guest))
    each.model = has_device(work.facts, "rtl8139") ? "rtl8139" : has_device(work.facts, "e1000") ? "e1000" : "virtio";
  // What the driver of a virtio card can be told means nothing to another one.
  if (!each.model.starts_with("virtio")) {
    each.driver.reset();
    each.backend_vhost.clear();
  }
}

// ---- displays

result<void> settle_listens(graphics& each) {
  auto& listens = each.listens;
  if (each.type != graphics_type::vnc && each.type != graphics_type::spice && each.type != graphics_type::rdp)
    return {};
  if (!each.socket.empty() && !listens.empty() && listens.front().type == listen_type::socket &&
      !listens.front().socket.empty() && listens.front().socket != each.socket)
    return fail(errc::unsupported_config,
                fmt::format("graphics 'socket' attribute '{}' must match 'socket' attribute of first "
                            "listen element (found '{}')",
                            each.socket, listens.front().socket));
  if (!each.listen.empty() && !listens.empty() && listens.front().type == listen_type::address &&
      !listens.front().address.empty() && listens.front().address != each.listen)
    return fail(errc::unsupported_config,
                fmt::format("graphics 'listen' attribute '{}' must match 'address' attribute of first "
                            "listen element (found '{}')",
                            each.listen, listens.front().address));
  if (!each.socket.empty() && listens.empty())
    listens.push_back({{}, listen_type::socket, {}, {}, each.socket, false});
  if (listens.empty()) {
    const bool no_port = each.type == graphics_type::spice && !each.port.value_or(0) && !each.tls_port.value_or(0) &&
                         each.autoport != yes_no::yes;
    graphics_listen added;
    added.type = no_port && each.listen.empty() ? listen_type::none : listen_type::address;
    added.address = each.listen;
    listens.push_back(std::move(added));
  }
  auto& first = listens.front();
  if (first.type == listen_type::address && first.address.empty())
    first.address = each.listen;
  each.listen = first.type == listen_type::address ? first.address : std::string{};
  each.socket = first.type == listen_type::socket ? first.socket : std::string{};
  each.has_listens = true;
  return {};
}

result<void> settle(graphics& each) {
  const bool asks = each.port == -1 || each.tls_port == -1;
  if (each.type == graphics_type::vnc) {
    const bool by_socket =
      !each.socket.empty() || (!each.listens.empty() && (each.listens.front().type == listen_type::socket ||
                                                         each.listens.front().type == listen_type::none));
    if (each.port == -1 || (!each.port && each.autoport == yes_no::unset))
      each.autoport = by_socket ? each.autoport : yes_no::yes;
    if (each.autoport == yes_no::yes && !by_socket)
      each.port = -1;
    else if (!by_socket)
      each.autoport = yes_no::no;
  } else if (each.type == graphics_type::spice) {
    if (each.port == -1 && (each.tls_port == -1 || !each.tls_port))
      each.autoport = yes_no::yes;
    if (each.autoport == yes_no::yes) {
      each.port.reset();
      each.tls_port.reset();
    } else {
      each.autoport = each.port.value_or(0) > 0 || each.tls_port.value_or(0) > 0 || asks ? yes_no::no : yes_no::unset;
    }
  }
  return settle_listens(each);
}

void settle(definition_work& work, video& each, bool first) {
  if (each.model.empty())
    each.model = has_device(work.facts, "cirrus-vga") ? "cirrus" : "vga";
  const auto default_number = [](maybe_number& value, unsigned otherwise) {
    if (value.value_or(0) == 0)
      value = otherwise;
  };
  if (each.model == "qxl") {
    default_number(each.ram, 64 * 1024);
    default_number(each.vram, 64 * 1024);
    default_number(each.vgamem, 16 * 1024);
    each.vgamem = std::bit_ceil(std::min(*each.vgamem, 1u << 30));
  } else if (each.model == "vga" || each.model == "cirrus" || each.model == "vmvga" || each.model == "bochs") {
    default_number(each.vram, 16 * 1024);
    each.vram = std::bit_ceil(std::min(*each.vram, 1u << 30));
  }
  if (each.model != "none")
    default_number(each.heads, 1);
  if (first)
    each.primary = yes_no::yes;
}

// ---- the rest

result<void> settle(domain& guest, input_device& each) {
  if (each.bus.empty()) {
    if (each.type == "passthrough")
      each.bus = "virtio";
    else if (each.type != "evdev")
      each.bus = is_x86(guest) && each.type != "tablet" ? "ps2" : "usb";
  }
  if (each.bus == "ps2" && each.type != "mouse" && each.type != "keyboard")
    return fail(errc::internal, fmt::format("ps2 bus does not support {} input device", each.type));
  return {};
}

void settle(rng_device& each) {
  if (each.backend == "random")
    default_to(each.path, "/dev/random");
}

void settle(shmem_device& each) {
  default_to(each.model, "ivshmem");
  if (!each.size_bytes && each.model != "ivshmem-doorbell")
    each.size_bytes = 4u << 20;
  if (each.has_server) {
    each.has_msi = true;
    default_to(each.msi_ioeventfd, on_off::on);
  }
}

void settle(tpm_device& each) {
  default_to(each.model, "tpm-tis");
  if (each.backend == "emulator")
    default_to(each.version, "2.0");
}

void settle(smartcard& each) {
  if (each.address.is(address_type::unset))
    each.address.type = address_type::ccid;
}

} // namespace

result<void> settle_devices(definition_work& work) {
  auto& guest = work.guest;
  auto& devices = guest.devices;
  for (auto& each : devices.controllers)
    if (auto went = settle(guest, each); !went)
      return went;
  for (auto& each : devices.disks)
    if (auto went = settle(guest, each); !went)
      return went;
  for (auto& each : devices.interfaces)
    settle(work, each);
  for (auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    settle_ports(guest, *ports);
  for (auto& each : devices.graphics)
    if (auto went = settle(each); !went)
      return went;
  for (auto& each : devices.videos)
    settle(work, each, &each == &devices.videos.front());
  for (auto& each : devices.inputs)
    if (auto went = settle(guest, each); !went)
      return went;
  for (auto& each : devices.filesystems) {
    default_to(each.type, "mount");
    default_to(each.accessmode, "passthrough");
  }
  for (auto& each : devices.hostdevs) {
    default_to(each.managed, yes_no::no);
    if (each.type == "scsi" && each.mode == "subsystem" && each.address.is(address_type::unset))
      each.address.type = address_type::drive;
    if (each.type == "mdev" && each.model == "vfio-pci")
      default_to(each.display, on_off::off);
  }
  for (auto& each : devices.rngs)
    settle(each);
  for (auto& each : devices.watchdogs)
    default_to(each.action, "reset");
  for (auto& each : devices.panics)
    default_to(each.model, "isa");
  for (auto& each : devices.shmems)
    settle(each);
  for (auto& each : devices.tpms)
    settle(each);
  for (auto& each : devices.smartcards)
    settle(each);
  for (auto& each : devices.redirdevs)
    default_to(each.bus, "usb");
  for (auto& each : devices.vsocks)
    default_to(each.model, "virtio");
  return {};
}

result<void> settle_wanted_devices(definition_work& work) {
  return settle_devices(work);
}

} // namespace troupe
