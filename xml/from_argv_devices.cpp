#include "xml/argv_tables.hpp"
#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"
#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>

// Controllers, input, assigned devices and all that has no file of its own.

namespace troupe {
namespace {

// ---- controllers

std::string id_of(const line_option& option, std::string_view otherwise) {
  const auto* id = option.props.peek("id");
  return id == nullptr ? std::string{otherwise} : *id;
}

bool read_pci_controller(argv_import& in, line_option& option, const device_name& name) {
  controller c;
  c.type = controller_type::pci;
  const auto id = id_of(option, "");
  const auto row = std::ranges::find(pci_models, name.base, &model_row::type);
  c.model = row == std::end(pci_models) ? std::string{"pcie-root-port"} : std::string{row->model}; // ioh3420
  if (row == std::end(pci_models))
    c.model_name = name.base;
  if (!read_device(in, option, c))
    return false;
  c.index = in.claim_bus(controller_type::pci, id);
  in.read(option, "chassis_nr", c.chassis_nr);
  in.read(option, "bus_nr", c.bus_nr);
  in.read(option, "port", c.port);
  in.read(option, "chassis", c.chassis);
  in.read(option, "numa_node", c.numa_node);
  in.read(option, "hotplug", c.hotplug);
  option.props.drop("shpc", "off");
  in.guest.devices.controllers.push_back(std::move(c));
  return true;
}

bool read_usb_controller(argv_import& in, line_option& option, const device_name& name) {
  controller c;
  c.type = controller_type::usb;
  const auto row =
    std::find_if(std::begin(usb_models) + 1, std::end(usb_models), [&](const auto& r) { return r.type == name.base; });
  c.model = row->model;
  const auto id = id_of(option, "usb");
  if (const auto* master = option.props.take("masterbus")) {
    const auto index =
      in.bus_index(controller_type::usb, std::string_view{*master}.substr(0, master->find_last_of('.')));
    if (!index)
      return false;
    c.index = *index;
    in.read(option, "firstport", c.master_startport);
  } else {
    c.index = in.claim_bus(controller_type::usb, id);
  }
  in.read(option, "p2", c.ports);
  if (c.ports)
    option.props.drop("p3", fmt::format("{}", *c.ports));
  if (!read_device(in, option, c))
    return false;
  in.guest.devices.controllers.push_back(std::move(c));
  return true;
}

controller_driver& driver_of(controller& c) {
  return c.driver ? *c.driver : c.driver.emplace();
}

void read_controller_virtio(argv_import& in, line_option& option, controller& c) {
  for (const std::string_view key : {"iommu_platform", "ats", "packed", "page-per-vq"})
    if (option.props.has(key)) {
      read_virtio(in, option, driver_of(c).virtio);
      return;
    }
}

bool read_scsi_controller(argv_import& in, line_option& option, const device_name& name) {
  controller c;
  c.type = controller_type::scsi;
  if (name.base == "virtio-scsi") {
    c.model = name.transition.empty() ? "virtio-scsi" : name.transition;
    read_controller_virtio(in, option, c);
    if (const auto* thread = option.props.take("iothread"))
      driver_of(c).iothread = in.iothread(*thread);
    struct number_row {
      std::string_view key;
      maybe_number controller_driver::*field;
    };
    for (const auto& row : {number_row{"num_queues", &controller_driver::queues},
                            number_row{"cmd_per_lun", &controller_driver::cmd_per_lun},
                            number_row{"max_sectors", &controller_driver::max_sectors}})
      if (option.props.has(row.key))
        in.read(option, row.key, driver_of(c).*row.field);
    if (option.props.has("ioeventfd"))
      in.read(option, "ioeventfd", driver_of(c).ioeventfd);
  } else {
    const auto base = name.base == "lsi53c895a" ? std::string{"lsi"}
                      : name.base == "dc390"    ? std::string{"dc-390"}
                                                : name.base;
    c.model = std::ranges::find(scsi_models, base, &model_row::type)->model;
  }
  c.index = in.claim_bus(controller_type::scsi, id_of(option, "scsi0"));
  if (name.base == "spapr-vscsi") {
    read_identity(in, option, c);
    if (const auto reg = in.number(option, "reg")) {
      c.address.type = address_type::spapr_vio;
      c.address.reg = *reg;
    }
  } else if (!read_device(in, option, c)) {
    return false;
  }
  in.guest.devices.controllers.push_back(std::move(c));
  return true;
}

bool read_sata_controller(argv_import& in, line_option& option, const device_name&) {
  controller c;
  c.type = controller_type::sata;
  if (in.is_q35() && !in.bus_index(controller_type::sata, "ide"))
    static_cast<void>(in.claim_bus(controller_type::sata, "ide")); // the machine's own is the first
  c.index = in.claim_bus(controller_type::sata, id_of(option, "sata0"));
  if (!read_device(in, option, c))
    return false;
  in.guest.devices.controllers.push_back(std::move(c));
  return true;
}

bool read_virtio_serial(argv_import& in, line_option& option, const device_name& name) {
  controller c;
  c.type = controller_type::virtio_serial;
  c.model = name.transition;
  read_controller_virtio(in, option, c);
  c.index = in.claim_bus(controller_type::virtio_serial, id_of(option, "virtio-serial0"));
  in.read(option, "max_ports", c.ports);
  in.read(option, "vectors", c.vectors);
  if (!read_device(in, option, c))
    return false;
  in.guest.devices.controllers.push_back(std::move(c));
  return true;
}

bool read_usb_part(argv_import& in, line_option& option, const device_name& name) {
  if (name.base == "usb-ccid") {
    controller c;
    c.type = controller_type::ccid;
    c.index = in.claim_bus(controller_type::ccid, id_of(option, "ccid0"));
    read_identity(in, option, c);
    if (!read_usb_place(in, option, c))
      return false;
    in.guest.devices.controllers.push_back(std::move(c));
    return true;
  }
  hub h;
  h.type = "usb";
  read_identity(in, option, h);
  if (!read_usb_place(in, option, h))
    return false;
  in.guest.devices.hubs.push_back(std::move(h));
  return true;
}

bool read_floppy_controller(argv_import& in, line_option& option, const device_name&) {
  // Its boot order is that of its drives.
  for (const auto& [key, unit] : {std::pair{"bootindexA", 0}, std::pair{"bootindexB", 1}})
    if (const auto place = in.number(option, key))
      in.floppy_boot[unit] = static_cast<unsigned>(std::min<std::uint64_t>(*place, 65'535));
  option.props.drop("id");
  return true;
}

// ---- input

struct input_row {
  std::string_view driver, type, bus;
};
constexpr input_row input_rows[] = {
  {"usb-tablet", "tablet", "usb"},
  {"usb-mouse", "mouse", "usb"},
  {"usb-kbd", "keyboard", "usb"},
  {"virtio-mouse", "mouse", "virtio"},
  {"virtio-tablet", "tablet", "virtio"},
  {"virtio-keyboard", "keyboard", "virtio"},
  {"virtio-input-host", "passthrough", "virtio"},
};

bool read_input(argv_import& in, line_option& option, const device_name& name) {
  const auto row = std::ranges::find(input_rows, name.base, &input_row::driver);
  input_device input;
  input.type = row->type;
  input.bus = row->bus;
  input.model = name.transition;
  in.read(option, "evdev", input.source_evdev);
  read_virtio(in, option, input.virtio);
  const bool placed = input.bus == "usb" ? (read_identity(in, option, input), read_usb_place(in, option, input))
                                         : read_device(in, option, input);
  if (!placed)
    return false;
  in.guest.devices.inputs.push_back(std::move(input));
  return true;
}

// ---- devices of the host

bool read_usb_host(argv_import& in, line_option& option, const device_name&) {
  hostdev h;
  h.mode = "subsystem";
  h.type = "usb";
  h.managed = yes_no::no;
  if (const auto* node = option.props.take("hostdevice")) {
    constexpr std::string_view folder = "/dev/bus/usb/";
    if (!node->starts_with(folder))
      return false;
    const auto rest = std::string_view{*node}.substr(folder.size());
    const auto slash = rest.find('/');
    const auto bus = number_of(rest.substr(0, slash));
    const auto place = slash == std::string_view::npos ? std::nullopt : number_of(rest.substr(slash + 1));
    if (!bus || !place)
      return false;
    h.usb_bus = fmt::format("{}", *bus);
    h.usb_device = fmt::format("{}", *place);
  } else if (option.props.has("hostbus")) {
    h.usb_bus = fmt::format("{}", in.number(option, "hostbus").value_or(0));
    const auto place = in.number(option, "hostaddr");
    if (!place)
      return false;
    h.usb_device = fmt::format("{}", *place);
  } else {
    const auto vendor = in.number(option, "vendorid"), product = in.number(option, "productid");
    if (!vendor || !product)
      return false;
    h.vendor_id = fmt::format("{:#06x}", *vendor);
    h.product_id = fmt::format("{:#06x}", *product);
  }
  read_identity(in, option, h);
  if (!read_usb_place(in, option, h))
    return false;
  in.guest.devices.hostdevs.push_back(std::move(h));
  return true;
}

bool read_vfio(argv_import& in, line_option& option, const device_name& name) {
  hostdev h;
  h.mode = "subsystem";
  if (const auto* place = option.props.take("host")) {
    const auto pci = pci_place_of(*place);
    if (!pci)
      in.refuse_value(option, "host", "a place on the host's PCI bus such as 0000:06:12.5");
    h.type = "pci";
    h.managed = yes_no::yes;
    h.source_address.emplace().pci = *pci;
    h.driver_name = "vfio";
  } else if (const auto* path = option.props.take("sysfsdev")) {
    h.type = "mdev";
    h.model = "vfio-pci";
    h.managed = yes_no::no;
    h.mdev_uuid = path->substr(path->find_last_of('/') + 1);
  } else {
    return false;
  }
  in.read(option, "display", h.display);
  if (name.base == "vfio-pci-nohotplug" && in.flag(option, "ramfb") == true)
    h.ramfb = on_off::on;
  if (!read_device(in, option, h))
    return false;
  in.guest.devices.hostdevs.push_back(std::move(h));
  return true;
}

bool read_vhost_scsi(argv_import& in, line_option& option, const device_name& name) {
  hostdev h;
  h.mode = "subsystem";
  h.type = "scsi_host";
  h.managed = yes_no::no;
  h.protocol = "vhost";
  h.model = name.transition;
  in.read(option, "wwpn", h.wwpn);
  option.props.drop("vhostfd");
  if (!read_device(in, option, h))
    return false;
  in.guest.devices.hostdevs.push_back(std::move(h));
  return true;
}

// ---- others

bool read_balloon_device(argv_import& in, line_option& option, const device_name& name) {
  memballoon b;
  b.model = name.transition.empty() ? "virtio" : name.transition;
  read_virtio(in, option, b.virtio);
  in.read(option, "deflate-on-oom", b.autodeflate);
  in.read(option, "free-page-reporting", b.free_page_reporting);
  if (!in.guest.devices.balloons.empty() || !read_device(in, option, b))
    return false;
  in.guest.devices.balloons.push_back(std::move(b));
  return true;
}

bool read_rng(argv_import& in, line_option& option, const device_name& name) {
  rng_device rng;
  rng.model = name.transition.empty() ? "virtio" : name.transition;
  const auto* id = option.props.take("rng");
  if (id == nullptr) {
    rng.backend = "builtin"; // QEMU's own since 4.2
  } else {
    auto* object = in.find("-object", *id);
    if (object == nullptr)
      return false;
    in.take(*object);
    object->props.drop("id");
    const auto* type = object->props.take("qom-type");
    if (*type == "rng-random") {
      rng.backend = "random";
      rng.path = "/dev/urandom";
      in.read(*object, "filename", rng.path);
    } else if (*type == "rng-egd") {
      rng.backend = "egd";
      const auto* chardev = object->props.take("chardev");
      if (chardev == nullptr || !read_chardev(in, *chardev, rng.source))
        return false;
    } else if (*type == "rng-builtin") {
      rng.backend = "builtin";
    } else {
      return false;
    }
  }
  read_virtio(in, option, rng.virtio);
  if (const auto bytes = in.number(option, "max-bytes")) {
    auto& rate = rng.rate.emplace();
    rate.bytes = static_cast<unsigned>(std::min<std::uint64_t>(*bytes, 0xffffffffu));
    in.read(option, "period", rate.period);
  }
  if (!read_device(in, option, rng))
    return false;
  in.guest.devices.rngs.push_back(std::move(rng));
  return true;
}

bool read_watchdog(argv_import& in, line_option& option, const device_name& name) {
  watchdog_device w;
  w.model = name.base;
  if (name.base == "ib700" ? (read_identity(in, option, w), false) : !read_device(in, option, w))
    return false;
  in.guest.devices.watchdogs.push_back(std::move(w));
  return true;
}

bool read_panic(argv_import& in, line_option& option, const device_name& name) {
  panic_device p;
  if (name.base == "pvpanic-pci") {
    p.model = "pvpanic";
    if (!read_device(in, option, p))
      return false;
  } else {
    p.model = "isa";
    read_identity(in, option, p);
    if (const auto port = in.number(option, "ioport")) {
      p.address.type = address_type::isa;
      p.address.iobase = *port;
    }
  }
  in.guest.devices.panics.push_back(std::move(p));
  return true;
}

bool read_shmem(argv_import& in, line_option& option, const device_name& name) {
  shmem_device s;
  s.model = name.base;
  if (const auto master = in.flag(option, "master"))
    s.role = *master ? "master" : "peer";
  if (name.base == "ivshmem-plain") {
    const auto* id = option.props.take("memdev");
    auto* object = id == nullptr ? nullptr : in.find("-object", *id);
    constexpr std::string_view folder = "/dev/shm/";
    const auto* path = object == nullptr ? nullptr : object->props.take("mem-path");
    if (path == nullptr || !path->starts_with(folder))
      return false;
    in.take(*object);
    s.name = path->substr(folder.size());
    std::string size;
    in.read(*object, "size", size);
    s.size_bytes = amount_of(size, 1);
    for (const std::string_view known : {"qom-type", "id"})
      object->props.drop(known);
    object->props.drop("share", "on");
  } else {
    chardev_source socket;
    const auto* chardev = option.props.take("chardev");
    if (chardev == nullptr || !read_chardev(in, *chardev, socket) || socket.type != chardev_type::unix_)
      return false;
    s.has_server = true;
    s.server_path = socket.first().path;
    s.name = *chardev;
    constexpr std::string_view own = "/var/lib/libvirt/shmem-";
    if (s.server_path.starts_with(own) && s.server_path.ends_with("-sock"))
      s.name = s.server_path.substr(own.size(), s.server_path.size() - own.size() - 5);
    in.read(option, "vectors", s.msi_vectors);
    in.read(option, "ioeventfd", s.msi_ioeventfd);
    s.has_msi = s.msi_vectors || s.msi_ioeventfd != on_off::unset;
  }
  if (!read_device(in, option, s))
    return false;
  in.guest.devices.shmems.push_back(std::move(s));
  return true;
}

bool read_iommu(argv_import& in, line_option& option, const device_name& name) {
  iommu_device iommu;
  iommu.model = name.base == "virtio-iommu" ? "virtio" : "intel";
  read_identity(in, option, iommu);
  in.read(option, "intremap", iommu.intremap);
  in.read(option, "caching-mode", iommu.caching_mode);
  in.read(option, "eim", iommu.eim);
  in.read(option, "device-iotlb", iommu.iotlb);
  in.read(option, "aw-bits", iommu.aw_bits);
  iommu.has_driver = iommu.intremap != on_off::unset || iommu.caching_mode != on_off::unset ||
                     iommu.eim != on_off::unset || iommu.iotlb != on_off::unset || iommu.aw_bits;
  if (iommu.model == "virtio" && !read_pci_place(in, option, iommu))
    return false;
  in.guest.devices.iommus.push_back(std::move(iommu));
  return true;
}

bool read_vsock(argv_import& in, line_option& option, const device_name& name) {
  vsock_device v;
  v.model = name.transition.empty() ? "virtio" : name.transition;
  in.read(option, "guest-cid", v.cid);
  if (v.cid == 0u)
    v.cid.reset();
  v.auto_cid = v.cid ? yes_no::no : yes_no::yes;
  option.props.drop("vhostfd");
  read_virtio(in, option, v.virtio);
  if (!read_device(in, option, v))
    return false;
  in.guest.devices.vsocks.push_back(std::move(v));
  return true;
}

bool read_crypto(argv_import& in, line_option& option, const device_name&) {
  crypto_device c;
  c.model = "virtio";
  c.type = "qemu";
  const auto* id = option.props.take("cryptodev");
  auto* object = id == nullptr ? nullptr : in.find("-object", *id);
  if (object == nullptr)
    return false;
  in.take(*object);
  object->props.drop("id");
  const auto* type = object->props.take("qom-type");
  if (*type == "cryptodev-backend-builtin")
    c.backend = "builtin";
  else if (*type == "cryptodev-backend-lkcf")
    c.backend = "lkcf";
  else
    return false;
  in.read(*object, "queues", c.queues);
  read_virtio(in, option, c.virtio);
  if (!read_device(in, option, c))
    return false;
  in.guest.devices.cryptos.push_back(std::move(c));
  return true;
}

bool read_generation_id(argv_import& in, line_option& option, const device_name&) {
  in.read(option, "guid", in.guest.genid.emplace());
  if (in.guest.genid == "auto")
    in.guest.genid = "";
  option.props.drop("id");
  return true;
}

bool read_vmcoreinfo(argv_import& in, line_option& option, const device_name&) {
  option.props.drop("id");
  (in.guest.features ? *in.guest.features : in.guest.features.emplace()).vmcoreinfo = true;
  return true;
}

/// The host's nodes that a module's memory lies on, when they are not those of its cell or of the whole guest.
std::string own_host_nodes(argv_import& in, line_option& backend, maybe_number cell) {
  backend.props.drop("policy"); // the cell's, which has it as well
  const auto nodes = take_host_nodes(backend);
  std::string usual;
  if (const auto& tuning = in.guest.numatune) {
    if (tuning->memory)
      usual = tuning->memory->nodeset;
    for (const auto& each : tuning->cells)
      if (each.cell == cell)
        usual = each.nodeset;
  }
  return nodes == usual ? std::string{} : nodes;
}

bool read_memory_device(argv_import& in, line_option& option, const device_name& name) {
  memory_device m;
  m.model = name.base == "pc-dimm" ? "dimm" : name.base;
  const auto* id = option.props.take("memdev");
  auto* backend = id == nullptr ? nullptr : in.find("-object", *id);
  if (backend == nullptr)
    return false;
  in.take(*backend);
  auto& props = backend->props;
  const auto* text = props.take("size");
  const auto size = text == nullptr ? std::nullopt : amount_of(*text, 1);
  if (!size)
    return false;
  const auto label = in.number(option, "label-size").value_or(0);
  m.size_kib = (*size - std::min(*size, label)) / 1024;
  if (label != 0)
    m.label_kib = label / 1024;
  in.read(option, "node", m.node);
  for (const auto& [key, into] : {std::pair{"block-size", &m.block_kib}, std::pair{"requested-size", &m.requested_kib}})
    if (const auto bytes = in.number(option, key))
      *into = *bytes / 1024;
  in.read(option, "uuid", m.uuid);
  const auto share = in.flag(*backend, "share");
  props.drop("id");
  const auto type = *props.take("qom-type");
  const auto* path = props.take("mem-path");
  const bool named =
    path != nullptr && path->find("/ram/") == std::string::npos && path->find("hugepages") == std::string::npos;
  if (m.model == "nvdimm" || m.model == "virtio-pmem") {
    if (!named)
      return false;
    m.path = *path;
    if (in.flag(*backend, "pmem") == true)
      m.pmem = true;
    const auto backend_readonly = in.flag(*backend, "readonly");
    if (in.flag(option, "unarmed") == true)
      m.readonly = true;
    else if (backend_readonly == true)
      return false; // QEMU would not take the device
    if (const auto align = props.take("align"))
      m.align_kib = amount_of(*align, 1).value_or(0) / 1024;
  } else if (named) {
    return false;
  }
  if (share)
    m.access = *share ? "shared" : "private";
  if (const auto discard = in.flag(*backend, "discard-data"))
    m.discard = *discard ? "yes" : "no";
  for (const std::string_view usual : {"prealloc", "reserve", "prealloc-threads"})
    props.drop(usual);
  m.node_mask = own_host_nodes(in, *backend, m.node);
  read_identity(in, option, m);
  if (m.model == "dimm" || m.model == "nvdimm") {
    const auto slot = in.number(option, "slot"), base = in.number(option, "addr");
    if (slot) {
      m.address.type = address_type::dimm;
      m.address.slot = static_cast<unsigned>(*slot);
      m.address.base = base;
    }
  } else if (!read_pci_place(in, option, m)) {
    return false;
  }
  // libvirt counts such memory into the whole.
  in.added_memory_kib += *m.size_kib;
  in.guest.devices.memories.push_back(std::move(m));
  return true;
}

constexpr device_row controller_rows[] = {
  {"pci-bridge", read_pci_controller},
  {"i82801b11-bridge", read_pci_controller},
  {"pcie-pci-bridge", read_pci_controller},
  {"pcie-root-port", read_pci_controller},
  {"ioh3420", read_pci_controller},
  {"x3130-upstream", read_pci_controller},
  {"xio3130-downstream", read_pci_controller},
  {"pxb", read_pci_controller},
  {"pxb-pcie", read_pci_controller},
  {"virtio-scsi", read_scsi_controller},
  {"lsi53c895a", read_scsi_controller},
  {"dc390", read_scsi_controller},
  {"ahci", read_sata_controller},
  {"ich9-ahci", read_sata_controller},
  {"virtio-serial", read_virtio_serial},
  {"usb-ccid", read_usb_part},
  {"usb-hub", read_usb_part},
  {"isa-fdc", read_floppy_controller},
};

constexpr device_row other_rows[] = {
  {"i6300esb", read_watchdog},
  {"ib700", read_watchdog},
  {"intel-iommu", read_iommu},
  {"ivshmem-doorbell", read_shmem},
  {"ivshmem-plain", read_shmem},
  {"nvdimm", read_memory_device},
  {"pc-dimm", read_memory_device},
  {"pvpanic", read_panic},
  {"pvpanic-pci", read_panic},
  {"usb-host", read_usb_host},
  {"vfio-pci", read_vfio},
  {"vfio-pci-nohotplug", read_vfio},
  {"vhost-scsi", read_vhost_scsi},
  {"vhost-vsock", read_vsock},
  {"virtio-balloon", read_balloon_device},
  {"virtio-crypto", read_crypto},
  {"virtio-iommu", read_iommu},
  {"virtio-mem", read_memory_device},
  {"virtio-pmem", read_memory_device},
  {"virtio-rng", read_rng},
  {"vmcoreinfo", read_vmcoreinfo},
  {"vmgenid", read_generation_id},
};

} // namespace

bool is_usb_controller(std::string_view driver) {
  return std::ranges::find(usb_models, driver, &model_row::type) != std::end(usb_models);
}

device_reader controller_reader(std::string_view base) {
  if (is_usb_controller(base))
    return read_usb_controller;
  if (std::ranges::find(scsi_models, base, &model_row::type) != std::end(scsi_models))
    return read_scsi_controller;
  const auto row = std::ranges::find(controller_rows, base, &device_row::driver);
  return row == std::end(controller_rows) ? nullptr : row->read;
}

device_reader other_reader(std::string_view base) {
  if (std::ranges::find(input_rows, base, &input_row::driver) != std::end(input_rows))
    return read_input;
  const auto row = std::ranges::find(other_rows, base, &device_row::driver);
  return row == std::end(other_rows) ? nullptr : row->read;
}

// ---- options of their own

void read_usb(argv_import& in, line_option& option) {
  option.done = true;
  in.usb_wanted = true;
}

void read_usbdevice(argv_import& in, line_option& option) {
  in.usb_wanted = true;
  in.attempt(option, [&] {
    const auto& value = *option.value;
    for (const auto& [word, type] :
         {std::pair{"tablet", "tablet"}, std::pair{"mouse", "mouse"}, std::pair{"keyboard", "keyboard"}})
      if (value == word) {
        auto& input = in.guest.devices.inputs.emplace_back();
        input.type = type;
        input.bus = "usb";
        return true;
      }
    if (!value.starts_with("host:"))
      return false;
    hostdev h;
    h.mode = "subsystem";
    h.type = "usb";
    h.managed = yes_no::no;
    const auto rest = std::string_view{value}.substr(5);
    if (const auto dot = rest.find('.'); dot != std::string_view::npos) {
      h.usb_bus = rest.substr(0, dot);
      h.usb_device = rest.substr(dot + 1);
      if (!number_of(h.usb_bus) || !number_of(h.usb_device))
        in.refuse(option, "a device of the host is BUS.DEVICE or VENDOR:PRODUCT");
    } else {
      const auto colon = std::min(rest.find(':'), rest.size());
      unsigned vendor = 0, product = 0;
      if (!parse_number(rest.substr(0, colon), vendor, 16) ||
          !parse_number(rest.substr(std::min(colon + 1, rest.size())), product, 16))
        in.refuse(option, "a device of the host is BUS.DEVICE or VENDOR:PRODUCT");
      h.vendor_id = fmt::format("{:#06x}", vendor);
      h.product_id = fmt::format("{:#06x}", product);
    }
    in.guest.devices.hostdevs.push_back(std::move(h));
    return true;
  });
}

void read_pcidevice(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    const auto* place = option.props.take("host");
    const auto pci = place == nullptr ? std::nullopt : pci_place_of(*place);
    if (!pci)
      in.refuse(option, "host=BUS:SLOT.FUNCTION is accepted, such as host=06:12.5");
    hostdev h;
    h.mode = "subsystem";
    h.type = "pci";
    h.managed = yes_no::yes;
    h.source_address.emplace().pci = *pci;
    in.guest.devices.hostdevs.push_back(std::move(h));
    return true;
  });
}

void read_watchdog_model(argv_import& in, line_option& option) {
  option.done = true;
  in.guest.devices.watchdogs.emplace_back().model = *option.value;
}

void read_watchdog_action(argv_import& in, line_option& option) {
  option.done = true;
  in.watchdog_action = *option.value;
}

void read_balloon(argv_import& in, line_option& option) {
  if (*option.value != "none" && !option.value->starts_with("virtio"))
    return;
  option.done = true;
  in.guest.devices.balloons.emplace_back().model = *option.value == "none" ? "none" : "virtio";
}

// ---- at the end

namespace {

void place_on_pci(device& of, unsigned slot) {
  if (of.address.is(address_type::unset)) {
    of.address.type = address_type::pci;
    of.address.pci.slot = slot;
  }
}

/// What a pseries machine has of its own. Source: libvirt's import of such lines.
void add_pseries_parts(argv_import& in) {
  auto& devices = in.guest.devices;
  const auto has = [&](controller_type type) {
    return std::ranges::any_of(devices.controllers, [&](const auto& c) { return c.type == type; });
  };
  const auto add = [&](controller_type type) -> controller& {
    auto& made = devices.controllers.emplace_back();
    made.type = type;
    made.index = 0;
    return made;
  };
  if (!has(controller_type::pci)) {
    auto& root = add(controller_type::pci);
    root.model = "pci-root";
    root.model_name = "spapr-pci-host-bridge";
    root.target_index = 0;
  }
  if (!has(controller_type::usb) && !in.no_defaults)
    place_on_pci(add(controller_type::usb), 1);
  if (!has(controller_type::scsi) &&
      std::ranges::any_of(devices.disks, [](const auto& d) { return d.bus == disk_bus::scsi; })) {
    auto& scsi = add(controller_type::scsi);
    scsi.model = "ibmvscsi";
    scsi.address.type = address_type::spapr_vio;
    scsi.address.reg = 0x2000;
  }
  for (auto& video : devices.videos)
    place_on_pci(video, 2);
  if (!devices.graphics.empty() && devices.inputs.empty())
    for (const auto* type : {"keyboard", "mouse"}) {
      auto& input = devices.inputs.emplace_back();
      input.type = type;
      input.bus = "usb";
    }
  if (devices.panics.empty())
    devices.panics.emplace_back().model = "pseries";
}

} // namespace

namespace {

/// Those of a definition are in the order of their indices; one behind a higher index was added to it, and will be again.
void leave_out_implied(std::vector<controller>& controllers) {
  int highest = -1;
  std::erase_if(controllers, [&](const controller& c) {
    if (c.type != controller_type::virtio_serial || !c.index)
      return false;
    const bool is_plain = c.alias.empty() && c.model.empty() && !c.ports && !c.vectors && !c.driver && !c.acpi_index && !c.rom;
    const bool was_added = *c.index < highest && is_plain;
    highest = std::max(highest, *c.index);
    return was_added;
  });
}

std::vector<controller> usb_among(const std::vector<controller>& controllers) {
  std::vector<controller> out;
  std::ranges::copy_if(controllers, std::back_inserter(out), [](const auto& c) { return c.type == controller_type::usb; });
  return out;
}

/// The USB controllers that a definition which lists these ends up with.
std::vector<controller> settled(const std::vector<controller>& controllers) {
  domain guest;
  guest.devices.controllers = usb_among(controllers);
  const emulator_facts facts;
  const random_source random = [] { return std::array<std::uint8_t, 16>{}; };
  definition_work work{guest, facts, random};
  if (!order_devices(work) || !number_controllers(work))
    return {};
  return std::move(guest.devices.controllers);
}

/// A USB 2 controller behind its companions was numbered only after the definition had been put in order. So that it
/// stays there, it is not given its number when it will get the same one again.
void leave_out_indices(std::vector<controller>& controllers) {
  auto freed = controllers;
  for (const auto& first : controllers) {
    const auto is_part = [&](const controller& each) {
      return each.type == controller_type::usb && each.index == first.index && is_usb_companion_family(each.model);
    };
    const auto leads = std::ranges::find_if(controllers, is_part);
    if (leads == controllers.end() || &*leads != &first || !first.master_startport)
      continue;
    for (std::size_t i = 0; i < controllers.size(); ++i)
      if (is_part(controllers[i]))
        freed[i].index.reset();
  }
  constexpr auto is_same = [](const controller& a, const controller& b) {
    return a.index == b.index && a.model == b.model;
  };
  const auto wanted = usb_among(controllers);
  if (!std::ranges::equal(settled(controllers), wanted, is_same) && std::ranges::equal(settled(freed), wanted, is_same))
    controllers = std::move(freed);
}

} // namespace

void keep_order(std::vector<controller>& controllers) {
  leave_out_implied(controllers);
  leave_out_indices(controllers);
}

void finish_others(argv_import& in) {
  auto& devices = in.guest.devices;
  if (in.is_pseries())
    add_pseries_parts(in);
  if (in.guest.os.arch == "s390x" && devices.panics.empty())
    devices.panics.emplace_back().model = "s390";
  if (devices.balloons.empty())
    devices.balloons.emplace_back().model = "none"; // or one would be added
  if (!in.watchdog_action.empty() && devices.watchdogs.empty() && in.is_libvirts && in.is_q35())
    devices.watchdogs.emplace_back().model = "itco"; // the machine's own
  for (auto& watchdog : devices.watchdogs)
    watchdog.action = in.watchdog_action.empty() ? "reset" : in.watchdog_action;
  if (devices.watchdogs.empty() && !in.watchdog_action.empty())
    in.notes.push_back(fmt::format("-watchdog-action {}: left out, as there is no watchdog", in.watchdog_action));
  in.guest.memory_kib = in.guest.memory_kib.value_or(0) + in.added_memory_kib;
  const bool has_usb =
    std::ranges::any_of(devices.controllers, [](const auto& c) { return c.type == controller_type::usb; });
  if (!has_usb && !in.usb_wanted && in.is_x86()) {
    controller none;
    none.type = controller_type::usb;
    none.index = 0;
    none.model = "none";
    devices.controllers.push_back(std::move(none));
  }
}

} // namespace troupe
