#include "xml/argv_parts.hpp"
#include "xml/argv_tables.hpp"

#include <algorithm>
#include <fmt/format.h>

// Images as block nodes, firmware flash, disks and shared directories.

namespace troupe {
namespace {

// ---- where the bytes are

const protocol_row& row_for(net_protocol protocol) {
  return *std::ranges::find(protocols, protocol == net_protocol::unset ? net_protocol::nbd : protocol,
                            &protocol_row::protocol);
}

std::string port_of(const host_address& host, const protocol_row& row) {
  return host.port.empty() ? std::string{row.port} : host.port;
}

ordered_json server_of(const host_address& host, const protocol_row& row) {
  if (host.transport == "unix" || !host.socket.empty())
    return {{"type", "unix"}, {"path", host.socket}};
  return {{"type", "inet"}, {"host", host.name}, {"port", port_of(host, row)}};
}

const host_address& first_host(const argv_builder& b, const storage_source& source) {
  if (source.hosts.empty())
    b.refuse(
      fmt::format("a disk at '{}' of protocol '{}' names no <host>; add one", source.name, word_of(source.protocol)));
  return source.hosts.front();
}

/// "pool/image" in two.
std::pair<std::string, std::string> in_two(const std::string& name) {
  const auto slash = name.find('/');
  return slash == std::string::npos ? std::pair{name, std::string{}}
                                    : std::pair{name.substr(0, slash), name.substr(slash + 1)};
}

void put_url(ordered_json& out, argv_builder& b, const storage_source& source, const std::string& node) {
  const auto& row = row_for(source.protocol);
  const auto& host = first_host(b, source);
  out["url"] = fmt::format("{}://{}:{}/{}{}", row.driver, host.name, port_of(host, row),
                           source.name.starts_with("/") ? source.name.substr(1) : source.name,
                           source.query.empty() ? "" : "?" + source.query);
  if (!source.cookies.empty()) {
    b.refuse_to_run("the cookies of an HTTP disk are secrets, which cannot be given to QEMU yet; leave <cookies> out");
    out["cookie-secret"] = node + "-httpcookie-secret0";
  }
  put(out, "sslverify", source.ssl_verify);
  put(out, "timeout", source.timeout);
  put(out, "readahead", source.readahead);
}

void put_network_source(ordered_json& out, argv_builder& b, const storage_source& source, const std::string& node) {
  const auto& row = row_for(source.protocol);
  out["driver"] = row.driver;
  if (source.auth)
    b.refuse(fmt::format("the disk '{}' needs the secret of user '{}', and secrets are not kept here", source.name,
                         source.auth->username));
  switch (source.protocol) {
  case net_protocol::unset:
  case net_protocol::nbd:
    out["server"] = server_of(first_host(b, source), row);
    put(out, "export", source.name);
    if (source.tls == yes_no::yes) {
      out["tls-creds"] = "obj" + node + "_tls0";
      put(out, "tls-hostname", source.tls_hostname);
    }
    return;
  case net_protocol::rbd: {
    const auto [pool, image] = in_two(source.name);
    out["pool"] = pool;
    out["image"] = image;
    put(out, "snapshot", source.snapshot);
    put(out, "conf", source.config_file);
    for (const auto& host : source.hosts)
      out["server"].push_back(ordered_json{{"host", host.name}, {"port", port_of(host, row)}});
    return;
  }
  case net_protocol::gluster: {
    const auto [volume, path] = in_two(source.name);
    out["volume"] = volume;
    out["path"] = path;
    for (const auto& host : source.hosts)
      out["server"].push_back(server_of(host, row));
    out["debug"] = 4;
    return;
  }
  case net_protocol::iscsi: {
    const auto [target, lun] = in_two(source.name);
    const auto& host = first_host(b, source);
    out["portal"] = fmt::format("{}:{}", host.name, port_of(host, row));
    out["target"] = target;
    unsigned number = 0;
    for (const char c : lun)
      if (c >= '0' && c <= '9' && number < 100'000)
        number = number * 10 + static_cast<unsigned>(c - '0');
    out["lun"] = number;
    out["transport"] = host.transport == "iser" ? "iser" : "tcp";
    put(out, "initiator-name", source.initiator_iqn);
    return;
  }
  case net_protocol::sheepdog:
    out["server"] = server_of(first_host(b, source), row);
    out["vdi"] = source.name;
    return;
  case net_protocol::ssh: {
    const auto& host = first_host(b, source);
    out["path"] = source.name;
    out["server"] = {{"host", host.name}, {"port", port_of(host, row)}};
    return;
  }
  case net_protocol::nfs:
    out["server"] = {{"host", first_host(b, source).name}, {"type", "inet"}};
    out["path"] = source.name;
    return;
  case net_protocol::vxhs:
    out["vdisk-id"] = source.name;
    out["server"] = {{"host", first_host(b, source).name}, {"port", port_of(first_host(b, source), row)}};
    return;
  default:
    put_url(out, b, source, node);
  }
}

const disk_driver& no_driver() {
  static const disk_driver none;
  return none;
}

const cache_row* cache_of(const disk_driver& driver) {
  const auto row = std::ranges::find(caches, driver.cache, &cache_row::mode);
  return row == std::end(caches) ? nullptr : row;
}

void put_cache(ordered_json& out, const disk_driver& driver) {
  if (const auto* row = cache_of(driver))
    out["cache"] = {{"direct", row->direct}, {"no-flush", row->no_flush}};
}

/// What of the source says which bytes: driver and place.
ordered_json place_of(argv_builder& b, const image_wish& wish, const std::string& node) {
  const auto& source = *wish.source;
  const auto& driver = wish.driver ? *wish.driver : no_driver();
  ordered_json out;
  switch (source.type) {
  case storage_type::unset:
  case storage_type::file:
  case storage_type::block:
    out = {{"driver", source.type == storage_type::block ? "host_device" : "file"}, {"filename", source.path}};
    if (driver.io != disk_io::unset && driver.io != disk_io::default_)
      out["aio"] = word_of(driver.io);
    if (source.pr)
      out["pr-manager"] = "pr-helper-" + node;
    return out;
  case storage_type::dir:
    return {
      {"driver", "vvfat"}, {"dir", source.path}, {"floppy", wish.format == image_format::fat}, {"rw", !wish.readonly}};
  case storage_type::network:
    put_network_source(out, b, source, node);
    return out;
  case storage_type::nvme: {
    const auto pci = source.nvme_address ? source.nvme_address->pci : pci_address{};
    return {{"driver", "nvme"},
            {"device", fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.slot, pci.function)},
            {"namespace", source.nvme_namespace.value_or(1)}};
  }
  case storage_type::volume:
    b.refuse(
      fmt::format("volume '{}' of storage pool '{}': there are no storage pools here; name the file or block device",
                  source.volume, source.pool));
  case storage_type::vhostuser:
    break;
  }
  b.refuse("a vhost-user disk is no image");
}

std::string_view format_driver(const argv_builder& b, image_format format) {
  switch (format) {
  case image_format::unset:
  case image_format::none:
  case image_format::fat:
  case image_format::dir:
  case image_format::iso:
    return "raw";
  case image_format::vhd:
  case image_format::vpc:
    return "vpc";
  case image_format::ploop:
    return "parallels";
  case image_format::cow:
    b.refuse("QEMU no longer reads images of type 'cow'; convert it to qcow2");
  default:
    return word_of(format);
  }
}

disk_zeroes zeroes_of(const disk_driver& driver) {
  return driver.detect_zeroes == disk_zeroes::unmap && driver.discard != disk_discard::unmap ? disk_zeroes::on
                                                                                             : driver.detect_zeroes;
}

bool has_backing_file(image_format format) {
  return format == image_format::qcow2 || format == image_format::qcow || format == image_format::qed ||
         format == image_format::vmdk;
}

/// As a browser sends them. Source: RFC 6265, 4.2.1.
std::string cookie_text(const std::vector<name_value>& cookies) {
  std::string out;
  for (const auto& cookie : cookies)
    out += fmt::format("{}{}={}", out.empty() ? "" : "; ", cookie.name, cookie.value);
  return out;
}

void add_source_objects(argv_builder& b, const storage_source& source, const std::string& node) {
  if (source.encryption)
    b.refuse(fmt::format("the encrypted image '{}' needs a secret, and secrets are not kept here", source.path));
  if (source.pr) {
    if (source.pr->managed == yes_no::yes)
      b.refuse_to_run(
        fmt::format("<reservations managed='yes'> of '{}': no helper is started here; run qemu-pr-helper and "
                    "name its socket with managed='no'",
                    source.path));
    b.object({{"qom-type", "pr-manager-helper"}, {"id", "pr-helper-" + node}, {"path", source.pr->path}});
  }
  if (source.tls == yes_no::yes)
    b.object(tls_credentials("obj" + node + "_tls0", false, true));
  // No key of a running supervisor is in the way of a line that people run by hand.
  if (!source.cookies.empty() && b.run.generic_taps)
    b.object({{"qom-type", "secret"},
              {"id", node + "-httpcookie-secret0"},
              {"data", cookie_text(source.cookies)},
              {"format", "raw"}});
}

// ---- a disk

/// A backing chain flattened: its images from the top one down.
struct chain {
  std::vector<const backing_store*> below;
  bool ends = false; ///< The definition says that nothing follows.
};

chain chain_of(const disk& d) {
  chain out;
  for (const auto* level = &d.backing; !level->empty(); level = &level->front().next) {
    if (level->front().ends_chain()) {
      out.ends = true;
      break;
    }
    out.below.push_back(&level->front());
  }
  return out;
}

bool has_image(const disk& d) {
  return !d.source.is_empty() && d.source.type != storage_type::vhostuser;
}

image_format format_of(const disk& d) {
  return d.driver ? d.driver->type : image_format::unset;
}

/// The driver as it is used: an image that several guests write to is not cached unless the definition says so.
disk_driver driver_of(const disk& d) {
  auto driver = d.driver ? *d.driver : disk_driver{};
  const bool open = driver.cache == disk_cache::unset || driver.cache == disk_cache::default_;
  if (open && d.shareable && !d.readonly)
    driver.cache = disk_cache::none;
  return driver;
}

void add_disk_images(argv_builder& b, const disk& d, unsigned first) {
  const auto images = chain_of(d);
  const auto node = [&](std::size_t i) { return fmt::format("libvirt-{}", first + i); };
  const auto used = driver_of(d);
  const auto* driver = &used;
  const auto below_of = [&](std::size_t i) -> std::optional<std::string> {
    if (i < images.below.size())
      return node(i + 1) + "-format";
    return images.ends ? std::optional<std::string>{""} : std::nullopt;
  };
  for (auto i = images.below.size(); i > 0; --i) {
    image_wish wish;
    wish.source = &images.below[i - 1]->source;
    wish.format = images.below[i - 1]->format;
    wish.node = node(i);
    wish.readonly = true;
    wish.driver = driver;
    wish.top = false;
    wish.backing = below_of(i);
    add_image(b, wish);
  }
  image_wish wish;
  wish.source = &d.source;
  wish.format = format_of(d);
  wish.node = node(0);
  wish.readonly = d.readonly || d.device_type == disk_device::cdrom;
  wish.driver = driver;
  wish.backing = below_of(0);
  add_image(b, wish);
}

std::string copy_on_read_node(const disk& d) {
  return "libvirt-CoR-" + d.target;
}

bool copies_on_read(const disk& d) {
  return d.driver && d.driver->copy_on_read == on_off::on;
}

std::string_view ide_type(const disk& d) {
  return d.device_type == disk_device::cdrom ? "ide-cd" : "ide-hd";
}

std::string_view scsi_type(const disk& d) {
  if (d.device_type == disk_device::lun)
    return "scsi-block";
  return d.device_type == disk_device::cdrom ? "scsi-cd" : "scsi-hd";
}

/// Old controllers that know targets only.
bool lacks_luns(std::string_view scsi_model) {
  return scsi_model == "lsilogic" || scsi_model == "am53c974" || scsi_model == "dc390";
}

std::string scsi_model_at(const argv_builder& b, unsigned index) {
  const auto* found = b.find_controller(controller_type::scsi, static_cast<int>(index));
  return found ? found->model : "";
}

void put_disk_place(ordered_json& out, const argv_builder& b, const disk& d) {
  const auto& at = d.address;
  switch (d.bus) {
  case disk_bus::ide:
    out["driver"] = ide_type(d);
    out["bus"] = fmt::format("{}.{}", b.controller_id(controller_type::ide, static_cast<int>(at.controller)), at.bus);
    out["unit"] = at.unit;
    return;
  case disk_bus::sata: {
    out["driver"] = ide_type(d);
    // The controller of q35 itself calls its buses ide.0 to ide.5.
    const bool builtin = at.controller == 0 && b.is_q35();
    out["bus"] = fmt::format(
      "{}.{}", builtin ? "ide" : b.controller_id(controller_type::sata, static_cast<int>(at.controller)), at.unit);
    return;
  }
  case disk_bus::scsi:
    out["driver"] = scsi_type(d);
    put_scsi_place(out, b, at);
    if (d.device_type != disk_device::lun)
      out["device_id"] = d.serial.empty() ? "drive-" + d.alias : d.serial;
    return;
  case disk_bus::fdc:
    out["driver"] = "floppy";
    out["unit"] = at.unit;
    return;
  case disk_bus::usb:
    out["driver"] = "usb-storage";
    put_address(out, b, at);
    return;
  case disk_bus::virtio: {
    out["driver"] =
      virtio_type(d.source.type == storage_type::vhostuser ? "vhost-user-blk" : "virtio-blk", at, word_of(d.model));
    if (d.driver) {
      put_virtio(out, d.driver->virtio);
      if (d.driver->iothread)
        out["iothread"] = fmt::format("iothread{}", *d.driver->iothread);
      put(out, "ioeventfd", d.driver->ioeventfd);
      put(out, "event_idx", d.driver->event_idx);
      put(out, "num-queues", d.driver->queues);
      put(out, "queue-size", d.driver->queue_size);
    }
    put_address(out, b, d);
    return;
  }
  default:
    b.refuse(fmt::format("disk '{}': QEMU has no disks on bus '{}'; use virtio, scsi, sata, ide or usb", d.target,
                         word_of(d.bus)));
  }
}

std::string error_word(disk_errors policy) {
  return policy == disk_errors::enospace ? "enospc" : std::string{word_of(policy)};
}

bool is_chosen(disk_errors policy) {
  return policy != disk_errors::unset && policy != disk_errors::default_;
}

void put_error_policies(ordered_json& out, const disk_driver& driver) {
  const auto write = driver.error_policy;
  auto read = is_chosen(driver.rerror_policy) ? driver.rerror_policy : write;
  if (read == disk_errors::enospace)
    read = disk_errors::unset; // reading never lacks space
  if (is_chosen(write))
    out["werror"] = error_word(write);
  if (is_chosen(read))
    out["rerror"] = error_word(read);
}

std::uint64_t hexadecimal(std::string_view text) {
  std::uint64_t value = 0;
  if (text.starts_with("0x"))
    text.remove_prefix(2);
  for (const char c : text)
    value = value * 16 + static_cast<unsigned>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  return value;
}

/// A serial number as libvirt hands it on: what it does not take for harmless gets a backslash.
std::string serial_words(std::string_view serial) {
  std::string out;
  for (const char c : serial) {
    if (c == ' ')
      out += '\\';
    out += c;
  }
  return out;
}

unsigned boot_place_of(const argv_builder& b, const disk& d) {
  if (b.guest.os.boots.empty())
    return d.boot_order;
  // <boot dev='hd'/> means the first disk, and so on.
  const auto kind = [](const disk& x) { return x.device_type == disk_device::lun ? disk_device::disk : x.device_type; };
  const auto first = std::ranges::find_if(b.guest.devices.disks, [&](const auto& x) {
    return (kind(x) == disk_device::unset ? disk_device::disk : kind(x)) ==
           (kind(d) == disk_device::unset ? disk_device::disk : kind(d));
  });
  if (&*first != &d)
    return 0;
  switch (d.device_type) {
  case disk_device::cdrom:
    return b.boot_place(boot_device::cdrom);
  case disk_device::floppy:
    return b.boot_place(boot_device::fd);
  default:
    return b.boot_place(boot_device::hd);
  }
}

void add_disk(argv_builder& b, const disk& d, unsigned node) {
  if (d.transient)
    b.refuse_to_run(fmt::format("disk '{}' is <transient/>, and what the guest writes would stay in its image; put an "
                                "overlay over the image and leave <transient/> out",
                                d.target));
  const bool image = has_image(d);
  if (image) {
    if (d.device_type == disk_device::floppy && d.source.type == storage_type::unset)
      b.refuse(fmt::format("floppy '{}' has no source", d.target));
    add_disk_images(b, d, node);
  }
  const auto format = fmt::format("libvirt-{}-format", node);
  if (image && copies_on_read(d))
    b.blockdev(
      {{"driver", "copy-on-read"}, {"node-name", copy_on_read_node(d)}, {"file", format}, {"discard", "unmap"}});
  if (d.source.type == storage_type::vhostuser) {
    chardev_source socket;
    socket.type = chardev_type::unix_;
    socket.ends.emplace_back();
    socket.ends.front().mode = "connect";
    socket.ends.front().path = d.source.path;
    socket.ends.front().reconnect = d.source.reconnect;
    add_chardev(b, socket, "chr-vu-" + d.alias);
  }

  const auto driver = driver_of(d);
  ordered_json out;
  put_disk_place(out, b, d);
  if (d.shareable)
    out["share-rw"] = true;
  if (d.source.type == storage_type::vhostuser)
    out["chardev"] = "chr-vu-" + d.alias;
  if (image)
    out["drive"] = copies_on_read(d) ? copy_on_read_node(d) : format;
  out["id"] = d.alias;
  if (d.bus != disk_bus::fdc)
    put_bootindex(out, boot_place_of(b, d));
  if (d.blockio) {
    put(out, "logical_block_size", d.blockio->logical_block_size);
    put(out, "physical_block_size", d.blockio->physical_block_size);
    put(out, "discard_granularity", d.blockio->discard_granularity);
  }
  if (!d.wwn.empty())
    out["wwn"] = hexadecimal(d.wwn);
  put(out, "rotation_rate", d.rotation_rate);
  put(out, "vendor", d.vendor);
  put(out, "product", d.product);
  if (d.bus == disk_bus::usb)
    out["removable"] = d.removable == on_off::on;
  const bool has_cache =
    d.bus != disk_bus::fdc && d.device_type != disk_device::cdrom && d.device_type != disk_device::lun;
  if (const auto* cache = cache_of(driver); cache && has_cache)
    out["write-cache"] = cache->write_cache ? "on" : "off";
  if (d.geometry && d.geometry->cylinders) {
    out["cyls"] = d.geometry->cylinders;
    out["heads"] = d.geometry->heads;
    out["secs"] = d.geometry->sectors;
    put(out, "bios-chs-trans", d.geometry->translation);
  }
  if (!d.serial.empty())
    out["serial"] = serial_words(d.serial);
  put_error_policies(out, driver);
  b.device(out);
}

/// The controller for floppies and which of them boot.
void add_floppy_controller(argv_builder& b) {
  auto places = ordered_json::object();
  for (const auto& d : b.guest.devices.disks)
    if (d.bus == disk_bus::fdc)
      if (const auto place = boot_place_of(b, d))
        places[d.address.unit ? "bootindexB" : "bootindexA"] = place;
  const bool any = std::ranges::any_of(b.guest.devices.disks, [](const auto& d) { return d.bus == disk_bus::fdc; });
  if (any && b.is_q35()) {
    ordered_json out{{"driver", "isa-fdc"}, {"id", b.controller_id(controller_type::fdc, 0)}};
    out.update(places);
    b.device(out);
    return;
  }
  for (const auto& [name, place] : places.items())
    b.option("-global", fmt::format("isa-fdc.{}={}", name, place.get<unsigned>()));
}

bool has_pflash(const argv_builder& b) {
  return b.guest.os.loader && b.guest.os.loader->type == "pflash";
}

image_format format_named(std::string_view word) {
  return word == "qcow2" ? image_format::qcow2 : image_format::raw;
}

} // namespace

void put_scsi_place(ordered_json& out, const argv_builder& b, const device_address& at) {
  out["bus"] = b.controller_id(controller_type::scsi, static_cast<int>(at.controller)) + ".0";
  if (lacks_luns(scsi_model_at(b, at.controller))) {
    out["scsi-id"] = at.unit;
    return;
  }
  out["channel"] = at.bus;
  out["scsi-id"] = at.target;
  out["lun"] = at.unit;
}

ordered_json network_place(argv_builder& b, const storage_source& source, const std::string& node) {
  ordered_json out;
  put_network_source(out, b, source, node);
  return out;
}

unsigned disk_nodes(const domain& guest) {
  std::size_t count = 0;
  for (const auto& d : guest.devices.disks)
    count += 1 + chain_of(d).below.size();
  return static_cast<unsigned>(count);
}

void add_image(argv_builder& b, const image_wish& wish) {
  const auto& source = *wish.source;
  const auto& driver = wish.driver ? *wish.driver : no_driver();
  const auto node = wish.node + "-storage";
  add_source_objects(b, source, node);

  auto storage = place_of(b, wish, node);
  storage["node-name"] = node;
  put_cache(storage, driver);
  storage["auto-read-only"] = true;
  storage["discard"] = "unmap";
  b.blockdev(storage);

  const auto format = format_driver(b, wish.format);
  const storage_slice* slice = nullptr;
  for (const auto& each : source.slices)
    if (each.type == "storage")
      slice = &each;
  auto file = node;
  if (slice && format != "raw") {
    file = wish.node + "-slice-sto";
    b.blockdev({{"driver", "raw"},
                {"node-name", file},
                {"offset", slice->offset},
                {"size", slice->size},
                {"file", node},
                {"auto-read-only", true},
                {"discard", "unmap"}});
  }
  ordered_json out{{"node-name", wish.node + "-format"}, {"read-only", wish.readonly}};
  if (driver.discard == disk_discard::unmap || driver.discard == disk_discard::ignore)
    out["discard"] = word_of(driver.discard);
  if (const auto zeroes = zeroes_of(driver);
      wish.top && zeroes != disk_zeroes::unset && zeroes != disk_zeroes::default_)
    out["detect-zeroes"] = word_of(zeroes);
  put_cache(out, driver);
  out["driver"] = format;
  if (slice && format == "raw") {
    out["offset"] = slice->offset;
    out["size"] = slice->size;
  }
  if (format == "qcow2")
    put(out, "cache-size", wish.top ? driver.metadata_cache_size : std::nullopt);
  out["file"] = file;
  if (wish.backing && has_backing_file(wish.format))
    out["backing"] = wish.backing->empty() ? ordered_json(nullptr) : ordered_json(*wish.backing);
  b.blockdev(out);
}

std::string pflash_node(const argv_builder& b, int unit) {
  if (!has_pflash(b))
    return {};
  return unit == 0 || b.guest.os.nvram ? fmt::format("libvirt-pflash{}-format", unit) : "";
}

void add_pflash(argv_builder& b) {
  const auto& os = b.guest.os;
  if (!has_pflash(b)) {
    if (!os.firmware.empty() && !(os.loader && !os.loader->path.empty()) && os.firmware != "bios")
      b.refuse(fmt::format("<os firmware='{}'>: no firmware was chosen; name its file in <loader type='pflash'>",
                           os.firmware));
    return;
  }
  storage_source code;
  code.type = storage_type::file;
  code.path = os.loader->path;
  image_wish wish;
  wish.source = &code;
  wish.format = format_named(os.loader->format);
  wish.node = "libvirt-pflash0";
  wish.readonly = os.loader->readonly != yes_no::no;
  add_image(b, wish);
  if (pflash_node(b, 1).empty())
    return;
  storage_source variables;
  if (os.nvram->source) {
    variables = *os.nvram->source;
    if (variables.type == storage_type::unset)
      variables.type = os.nvram->type;
  } else {
    variables.type = storage_type::file;
    variables.path = os.nvram->path;
  }
  wish.source = &variables;
  wish.format = format_named(os.nvram->format);
  wish.node = "libvirt-pflash1";
  wish.readonly = false;
  add_image(b, wish);
}

void add_disks(argv_builder& b) {
  add_floppy_controller(b);
  // libvirt numbers the nodes from the last disk to the first.
  auto next = disk_nodes(b.guest) + 1;
  for (const auto& d : b.guest.devices.disks) {
    next -= 1 + static_cast<unsigned>(chain_of(d).below.size());
    add_disk(b, d, next);
  }
}

// ---- directories of the host

namespace {

void add_shared_directory(argv_builder& b, const fs_device& fs) {
  const auto id = "fsdev-" + fs.alias;
  auto out = std::string{"local,security_model="};
  out += fs.accessmode == "mapped" ? "mapped" : fs.accessmode == "squash" ? "none" : "passthrough";
  if (fs.wrpolicy == "immediate")
    out += ",writeout=immediate";
  if (!fs.multidevs.empty() && fs.multidevs != "default")
    out += ",multidevs=" + fs.multidevs;
  const auto mode = [](const std::string& octal) { return (octal.starts_with("0") ? "" : "0") + octal; };
  if (!fs.fmode.empty())
    out += ",fmode=" + mode(fs.fmode);
  if (!fs.dmode.empty())
    out += ",dmode=" + mode(fs.dmode);
  out += fmt::format(",id={},path={}", id, escaped(fs.source));
  if (fs.readonly)
    out += ",readonly";
  b.option("-fsdev", out);
  ordered_json props{{"driver", virtio_type("virtio-9p", fs.address, fs.model)}};
  put_virtio(props, fs.virtio);
  props["id"] = fs.alias;
  props["fsdev"] = id;
  props["mount_tag"] = fs.target;
  put_address(props, b, fs);
  b.device(props);
}

void add_virtiofs(argv_builder& b, const fs_device& fs) {
  const auto chardev = "chr-vu-" + fs.alias;
  const auto socket = fs.source_attribute == "socket" ? fs.source : std::string{};
  if (socket.empty())
    b.refuse_to_run(
      fmt::format("filesystem '{}' of type virtiofs: virtiofsd is not started here; start it and name its socket: "
                  "<source socket='…'/>",
                  fs.target));
  b.option("-chardev",
           fmt::format("socket,id={},path={}", chardev,
                       escaped(socket.empty() ? fmt::format("{}/{}-fs.sock", b.run.run_dir, fs.alias) : socket)));
  ordered_json props{{"driver", virtio_type("vhost-user-fs", fs.address, {})}, {"id", fs.alias}, {"chardev", chardev}};
  put(props, "queue-size", fs.queue);
  props["tag"] = fs.target;
  put_address(props, b, fs);
  put_bootindex(props, fs.boot_order);
  b.device(props);
}

} // namespace

void add_filesystems(argv_builder& b) {
  for (const auto& fs : b.guest.devices.filesystems) {
    if (fs.driver_type == "virtiofs")
      add_virtiofs(b, fs);
    else if ((fs.type.empty() || fs.type == "mount") && (fs.driver_type.empty() || fs.driver_type == "path"))
      add_shared_directory(b, fs);
    else
      b.refuse(
        fmt::format("filesystem '{}' of type '{}' and driver '{}': QEMU shares directories of type 'mount' with driver "
                    "'path' or 'virtiofs' only",
                    fs.target, fs.type, fs.driver_type));
  }
}

} // namespace troupe
