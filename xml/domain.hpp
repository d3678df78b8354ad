#pragma once

#include "runtime/error.hpp"
#include "xml/xml_tree.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The typed definition of a guest, as libvirt's domain XML gives it. What a field may hold and how it is written is said once, in
// xml/domain_description.hpp. An enumeration's first value means "not given"; its words are listed right below it.

namespace troupe {

template <class... Words>
constexpr auto words(Words... each) {
  return std::array<std::string_view, sizeof...(each)>{each...};
}

/// An enumerator's word in XML; empty for "not given".
template <class Enum>
constexpr std::string_view word_of(Enum value) {
  return names_of(Enum{})[static_cast<std::size_t>(value)];
}

/// What was read but is not known here: kept and written back.
struct leftover {
  std::string within;  ///< The element this belongs to, when it is one that has no struct of its own.
  std::vector<xml_attribute> attributes;
  std::vector<xml_element> children;
  std::string text;
  std::vector<leftover> inner;

  bool empty() const { return attributes.empty() && children.empty() && text.empty() && inner.empty(); }
};

/// Base of all that is described: an element, or the part of one.
struct described {
  leftover rest;
};

enum class yes_no : std::uint8_t { unset, yes, no };
constexpr auto names_of(yes_no) { return words("", "yes", "no"); }
enum class on_off : std::uint8_t { unset, on, off };
constexpr auto names_of(on_off) { return words("", "on", "off"); }

using maybe_number = std::optional<unsigned>;
using maybe_size = std::optional<std::uint64_t>;

// ---- what several devices have

enum class address_type : std::uint8_t {
  unset, pci, drive, virtio_serial, ccid, usb, spapr_vio, virtio_s390, ccw, virtio_mmio, isa, dimm, unassigned
};
constexpr auto names_of(address_type) {
  return words("", "pci", "drive", "virtio-serial", "ccid", "usb", "spapr-vio", "virtio-s390", "ccw", "virtio-mmio", "isa", "dimm",
               "unassigned");
}

struct pci_address {
  unsigned domain = 0, bus = 0, slot = 0, function = 0;
  on_off multifunction{};

  bool is_empty() const { return domain == 0 && bus == 0 && slot == 0 && function == 0; }
  bool same_place(const pci_address& other) const {
    return domain == other.domain && bus == other.bus && slot == other.slot && function == other.function;
  }
};

/// s390x: where a device of the channel subsystem sits.
struct ccw_address {
  maybe_number cssid, ssid, devno;
};

/// s390x: the numbers of a PCI device.
struct zpci_address : described {
  maybe_number uid, fid;
};

struct device_address : described {
  address_type type{};
  pci_address pci;
  std::optional<zpci_address> zpci;
  ccw_address ccw;
  unsigned controller = 0, bus = 0, target = 0, unit = 0; ///< drive; controller and bus also of virtio-serial, bus of usb
  unsigned slot = 0;                ///< ccid, dimm
  std::string port;                 ///< usb "1.2"; virtio-serial a number
  std::optional<std::uint64_t> iobase, irq, reg, base; ///< isa, spapr-vio, dimm

  bool is(address_type wanted) const { return type == wanted; }
  bool wants_pci() const { return type == address_type::unset || (type == address_type::pci && pci.is_empty()); }
};

struct device_rom : described {
  yes_no enabled{};
  on_off bar{};
  std::string file;
};

/// Anything that sits in the guest.
struct device : described {
  std::string alias;
  device_address address;
  unsigned boot_order = 0; ///< 0: none
  std::string loadparm;
  std::optional<device_rom> rom;
  maybe_number acpi_index;
  unsigned line = 0;       ///< Where it was read.
};

/// What the drivers of virtio devices have in common.
struct virtio_options {
  on_off iommu{}, ats{}, packed{}, page_per_vq{};
};

enum class label_kind : std::uint8_t { unset, dynamic, static_, none };
constexpr auto names_of(label_kind) { return words("", "dynamic", "static", "none"); }

/// A guest's own security label.
struct seclabel : described {
  std::string model;
  label_kind type{};
  yes_no relabel_given{};
  std::string label, image_label, base_label;
  bool relabel = true;
};

/// A label of one disk or character device.
struct source_seclabel : described {
  std::string model;
  yes_no relabel{}, label_skip{};
  std::string label;
};

struct host_address : described {
  std::string transport, name, port, socket;
};

struct secret_ref : described {
  std::string type, uuid, usage;
};

struct disk_auth : described {
  std::string username;
  std::optional<secret_ref> secret;
};

enum class encryption_format : std::uint8_t { unset, default_, qcow, luks, luks2, luks_any };
constexpr auto names_of(encryption_format) { return words("", "default", "qcow", "luks", "luks2", "luks-any"); }
enum class encryption_engine : std::uint8_t { unset, qemu, librbd };
constexpr auto names_of(encryption_engine) { return words("", "qemu", "librbd"); }

struct encryption_cipher : described {
  std::string name, mode, hash;
  maybe_number size;
};
struct encryption_ivgen : described {
  std::string name, hash;
};

/// How a disk's bytes are encrypted.
struct disk_encryption : described {
  encryption_format format{};
  encryption_engine engine{};
  std::vector<secret_ref> secrets;
  std::optional<encryption_cipher> cipher;
  std::optional<encryption_ivgen> ivgen;
};

// ---- disks

enum class storage_type : std::uint8_t { unset, file, block, dir, network, volume, nvme, vhostuser };
constexpr auto names_of(storage_type) {
  return words("", "file", "block", "dir", "network", "volume", "nvme", "vhostuser");
}

enum class disk_device : std::uint8_t { unset, disk, cdrom, floppy, lun };
constexpr auto names_of(disk_device) { return words("", "disk", "cdrom", "floppy", "lun"); }

enum class disk_bus : std::uint8_t { unset, ide, fdc, scsi, virtio, xen, usb, uml, sata, sd };
constexpr auto names_of(disk_bus) {
  return words("", "ide", "fdc", "scsi", "virtio", "xen", "usb", "uml", "sata", "sd");
}

enum class net_protocol : std::uint8_t { unset, nbd, rbd, sheepdog, gluster, iscsi, http, https, ftp, ftps, tftp, ssh, vxhs, nfs };
constexpr auto names_of(net_protocol) {
  return words("", "nbd", "rbd", "sheepdog", "gluster", "iscsi", "http", "https", "ftp", "ftps", "tftp", "ssh", "vxhs", "nfs");
}

enum class startup_policy : std::uint8_t { unset, mandatory, requisite, optional };
constexpr auto names_of(startup_policy) { return words("", "mandatory", "requisite", "optional"); }

enum class image_format : std::uint8_t {
  unset, none, raw, dir, bochs, cloop, dmg, iso, vpc, vdi, fat, vhd, ploop, cow, qcow, qcow2, qed, vmdk
};
constexpr auto names_of(image_format) {
  return words("", "none", "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2",
               "qed", "vmdk");
}

struct name_value : described {
  std::string name, value;
};

struct reconnection : described {
  yes_no enabled{};
  maybe_number timeout;
};

struct storage_slice : described {
  std::string type;
  std::uint64_t offset = 0, size = 0;
};

struct reservations : described {
  yes_no managed{};
  std::string type, path, mode;
};

/// Where a disk's bytes are. `type` is written on the element around it.
struct storage_source : described {
  storage_type type{};
  std::string path;             ///< file, dev, dir, or a vhost-user socket's path
  startup_policy startup{};
  net_protocol protocol{};
  std::string name, query;
  yes_no tls{};
  std::string tls_hostname;
  std::string pool, volume, mode;
  std::string socket_type;      ///< vhost-user: "unix"
  maybe_number nvme_namespace;
  yes_no managed{};
  std::optional<device_address> nvme_address;
  std::vector<host_address> hosts;
  std::string snapshot, config_file, initiator_iqn;
  yes_no ssl_verify{};
  std::vector<name_value> cookies;
  maybe_size readahead, timeout;
  std::optional<reconnection> reconnect;
  std::optional<disk_auth> auth;
  std::optional<disk_encryption> encryption;
  std::optional<reservations> pr;
  std::vector<storage_slice> slices;
  std::vector<source_seclabel> labels;
  maybe_number index;           ///< Live only: libvirt's number for the node.

  /// A source that names nothing: an empty drive.
  bool is_empty() const;
};

struct backing_store;
/// The next image of a chain; `end` is an empty element, which says there is none.
struct backing_store : described {
  image_format format{};
  std::optional<std::uint64_t> metadata_cache_size;
  storage_source source;
  std::vector<backing_store> next;
  maybe_number index;
  bool ends_chain() const { return source.type == storage_type::unset; }
};

enum class disk_cache : std::uint8_t { unset, default_, none, writethrough, writeback, directsync, unsafe };
constexpr auto names_of(disk_cache) { return words("", "default", "none", "writethrough", "writeback", "directsync", "unsafe"); }
enum class disk_errors : std::uint8_t { unset, default_, stop, report, ignore, enospace };
constexpr auto names_of(disk_errors) { return words("", "default", "stop", "report", "ignore", "enospace"); }
enum class disk_io : std::uint8_t { unset, default_, native, threads, io_uring };
constexpr auto names_of(disk_io) { return words("", "default", "native", "threads", "io_uring"); }
enum class disk_discard : std::uint8_t { unset, default_, unmap, ignore };
constexpr auto names_of(disk_discard) { return words("", "default", "unmap", "ignore"); }
enum class disk_zeroes : std::uint8_t { unset, default_, off, on, unmap };
constexpr auto names_of(disk_zeroes) { return words("", "default", "off", "on", "unmap"); }
enum class disk_model : std::uint8_t { unset, virtio, virtio_transitional, virtio_non_transitional };
constexpr auto names_of(disk_model) { return words("", "virtio", "virtio-transitional", "virtio-non-transitional"); }
enum class tray_state : std::uint8_t { unset, closed, open };
constexpr auto names_of(tray_state) { return words("", "closed", "open"); }
enum class snapshot_place : std::uint8_t { unset, default_, no, internal, external, manual };
constexpr auto names_of(snapshot_place) { return words("", "default", "no", "internal", "external", "manual"); }

struct disk_driver : described {
  std::string name;
  image_format type{};
  disk_cache cache{};
  disk_errors error_policy{}, rerror_policy{};
  disk_io io{};
  on_off ioeventfd{}, event_idx{}, copy_on_read{};
  disk_discard discard{};
  disk_zeroes detect_zeroes{};
  maybe_number iothread, queues, queue_size;
  virtio_options virtio;
  std::optional<std::uint64_t> metadata_cache_size;
};

struct disk_iotune : described {
  maybe_size total_bytes_sec, read_bytes_sec, write_bytes_sec, total_iops_sec, read_iops_sec, write_iops_sec;
  maybe_size total_bytes_sec_max, read_bytes_sec_max, write_bytes_sec_max, total_iops_sec_max, read_iops_sec_max, write_iops_sec_max;
  maybe_size size_iops_sec;
  std::string group_name;
  maybe_size total_bytes_sec_max_length, read_bytes_sec_max_length, write_bytes_sec_max_length;
  maybe_size total_iops_sec_max_length, read_iops_sec_max_length, write_iops_sec_max_length;
};

struct disk_geometry : described {
  unsigned cylinders = 0, heads = 0, sectors = 0;
  std::string translation;
};

struct disk_blockio : described {
  maybe_number logical_block_size, physical_block_size, discard_granularity;
};

struct disk : device {
  disk_device device_type{};
  disk_model model{};
  yes_no rawio{};
  std::string sgio;
  snapshot_place snapshot{};
  std::optional<disk_driver> driver;
  std::optional<disk_auth> auth;  ///< Given beside the source, the old way.
  storage_source source;
  std::vector<backing_store> backing;
  std::string target;             ///< "vda"
  disk_bus bus{};
  tray_state tray{};
  on_off removable{};
  maybe_number rotation_rate;
  std::optional<disk_iotune> iotune;
  std::optional<disk_geometry> geometry;
  std::optional<disk_blockio> blockio;
  bool readonly = false, shareable = false, transient = false;
  std::string serial, wwn, vendor, product;
  std::optional<disk_encryption> encryption; ///< Given beside the source, the old way.
  std::vector<xml_element> mirror;     ///< Live only.
};

// ---- controllers

enum class controller_type : std::uint8_t { unset, ide, fdc, scsi, sata, virtio_serial, ccid, usb, pci, xenbus, isa };
constexpr auto names_of(controller_type) {
  return words("", "ide", "fdc", "scsi", "sata", "virtio-serial", "ccid", "usb", "pci", "xenbus", "isa");
}

struct controller_driver : described {
  maybe_number queues, cmd_per_lun, max_sectors, iothread;
  on_off ioeventfd{};
  virtio_options virtio;
};

struct controller : device {
  controller_type type{};
  std::optional<int> index;
  std::string model;
  maybe_number ports, vectors;
  std::optional<int> max_grant_frames, max_event_channels;
  std::optional<controller_driver> driver;
  maybe_number master_startport;     ///< A companion of a USB 2 controller.
  std::string model_name;            ///< pci: QEMU's device
  std::optional<int> chassis_nr, chassis, port, bus_nr, target_index, numa_node;
  on_off hotplug{};
  std::optional<std::uint64_t> pcihole64_kib;
};

// ---- character devices

enum class chardev_type : std::uint8_t {
  unset, null, vc, pty, dev, file, pipe, stdio, udp, tcp, unix_, spicevmc, spiceport, nmdm, qemu_vdagent, dbus
};
constexpr auto names_of(chardev_type) {
  return words("", "null", "vc", "pty", "dev", "file", "pipe", "stdio", "udp", "tcp", "unix", "spicevmc", "spiceport", "nmdm",
               "qemu-vdagent", "dbus");
}

/// One `<source>` of a character device; UDP has two.
struct chardev_end : described {
  std::string mode;   ///< "bind" or "connect"
  std::string path, host, service, channel, master, slave;
  on_off append{};
  yes_no tls{};
  std::optional<reconnection> reconnect;
  std::vector<source_seclabel> labels;
  on_off mouse{};     ///< qemu-vdagent: "client" or "server" as a word below
  std::string mouse_mode;
  yes_no clipboard_copypaste{};
};

/// The host's end of a character device.
struct chardev_source {
  chardev_type type{};
  std::vector<chardev_end> ends;
  std::string protocol;     ///< tcp: raw, telnet, telnets, tls
  std::string log_file;
  on_off log_append{};

  const chardev_end& first() const;
  chardev_end& first();
  /// The end with that mode, or null.
  const chardev_end* end(std::string_view mode) const;
};

enum class chardev_kind : std::uint8_t { serial, parallel, console, channel };

/// serial, parallel, console and channel.
struct chardev : device {
  chardev_kind kind{};
  chardev_source source;
  std::string tty;               ///< Live only.
  std::string target_type;       ///< "isa-serial", "virtio", ...
  std::string target_model;      ///< serial: QEMU's device
  std::optional<int> target_port;
  std::string target_name;       ///< channel
  std::string target_address;    ///< guestfwd
  std::string target_state;      ///< Live only: whether an agent listens.
};

// ---- network

enum class net_type : std::uint8_t {
  unset, user, ethernet, vhostuser, server, client, mcast, network, bridge, internal, direct, hostdev, udp, vdpa, null, vds
};
constexpr auto names_of(net_type) {
  return words("", "user", "ethernet", "vhostuser", "server", "client", "mcast", "network", "bridge", "internal", "direct", "hostdev",
               "udp", "vdpa", "null", "vds");
}

enum class link_state : std::uint8_t { unset, up, down };
constexpr auto names_of(link_state) { return words("", "up", "down"); }

struct net_offloads : described {
  on_off csum{}, gso{}, tso4{}, tso6{}, ecn{}, ufo{}, mrg_rxbuf{};
};

struct net_driver : described {
  std::string name;       ///< "vhost", "qemu"; hostdev: "vfio"
  std::string txmode;
  on_off ioeventfd{}, event_idx{};
  maybe_number queues, rx_queue_size, tx_queue_size;
  on_off rss{}, rss_hash_report{};
  virtio_options virtio;
  std::optional<net_offloads> host, guest;
};

struct ip_address : described {
  std::string family, address, peer;
  maybe_number prefix;
};

enum class port_profile : std::uint8_t { unset, qbg, qbh, openvswitch, midonet };
constexpr auto names_of(port_profile) { return words("", "802.1Qbg", "802.1Qbh", "openvswitch", "midonet"); }

/// How the card joins a switch that knows its ports.
struct virtual_port : described {
  port_profile type{};
  maybe_number manager_id, type_id, type_version;
  std::string instance_id, interface_id, profile_id;
};

struct traffic_rate : described {
  std::uint64_t average = 0, peak = 0, floor = 0, burst = 0; ///< KiB and KiB/s
  bool is_empty() const { return average == 0 && floor == 0 && rest.empty(); }
};
struct traffic_rates : described {
  std::optional<traffic_rate> inbound, outbound;
};

enum class native_vlan : std::uint8_t { unset, tagged, untagged };
constexpr auto names_of(native_vlan) { return words("", "tagged", "untagged"); }
struct vlan_tag : described {
  maybe_number id;
  native_vlan native{};
};
struct vlan_set : described {
  yes_no trunk{};
  std::vector<vlan_tag> tags;
};

struct filter_parameter : described {
  std::string name, value;
};
struct filter_reference : described {
  std::string filter;
  std::vector<filter_parameter> parameters;
};

struct forwarded_range : described {
  maybe_number start, end, to;
  yes_no exclude{};
};
struct port_forward : described {
  std::string proto, address, dev;
  std::vector<forwarded_range> ranges;
};

enum class teaming_kind : std::uint8_t { unset, persistent, transient };
constexpr auto names_of(teaming_kind) { return words("", "persistent", "transient"); }
struct net_teaming : described {
  teaming_kind type{};
  std::string persistent; ///< The alias of the card that stays.
};

struct net_interface : device {
  net_type type{};
  yes_no managed{};            ///< hostdev
  std::string trust_guest_rx_filters;
  std::string mac, mac_type, mac_check;
  bool mac_generated = false;
  // source
  std::string network, portgroup, bridge, source_dev, source_mode, source_path, source_type, source_name;
  std::string source_address, source_port;      ///< server, client, mcast, udp
  std::string local_address, local_port;        ///< udp
  std::string port_id, portgroup_id, switch_id, connection_id; ///< network (live), vds
  std::optional<device_address> source_pci;     ///< hostdev
  std::optional<reconnection> reconnect;        ///< vhostuser
  std::string model;
  std::optional<net_driver> driver;
  std::string backend_type, backend_tap, backend_vhost, backend_logfile;
  std::optional<virtual_port> virtualport;
  std::optional<traffic_rates> bandwidth;
  std::optional<vlan_set> vlan;
  yes_no port_isolated{};
  std::vector<port_forward> port_forwards;
  std::optional<filter_reference> filterref;
  maybe_number coalesce_rx_frames;
  std::optional<net_teaming> teaming;
  std::string target_dev;
  yes_no target_managed{};
  std::string guest_dev, guest_actual;
  std::string script, downscript;
  link_state link{};
  maybe_number mtu;
  maybe_size sndbuf;
  std::vector<ip_address> ips;
};

// ---- graphics, audio, video

enum class graphics_type : std::uint8_t { unset, sdl, vnc, rdp, desktop, spice, egl_headless, dbus };
constexpr auto names_of(graphics_type) { return words("", "sdl", "vnc", "rdp", "desktop", "spice", "egl-headless", "dbus"); }

enum class listen_type : std::uint8_t { unset, none, address, network, socket };
constexpr auto names_of(listen_type) { return words("", "none", "address", "network", "socket"); }

struct graphics_listen : described {
  listen_type type{};
  std::string address, network, socket;
  bool generated = false;   ///< The address or socket is ours, not the definition's.
};

struct spice_channel : described {
  std::string name, mode;
};

struct graphics_gl : described {
  yes_no enable{};
  std::string rendernode;
};

struct graphics : device {
  graphics_type type{};
  std::optional<int> port, tls_port, websocket;
  yes_no autoport{};
  bool port_generated = false, tls_port_generated = false, websocket_generated = false;
  std::string listen, socket;             ///< The old attributes; `listens` is what counts.
  bool has_listens = false;
  std::vector<graphics_listen> listens;
  std::string keymap, password, password_valid_to, connected, share_policy, default_mode;
  bool has_password = false;              ///< As `password` may be empty.
  yes_no power_control{};
  std::string display, xauth, username;   ///< sdl, rdp
  yes_no fullscreen{}, replace_user{}, multi_user{}, p2p{};
  std::string dbus_address;
  std::vector<spice_channel> channels;
  std::string image_compression, jpeg_compression, zlib_compression, streaming, mouse;
  on_off playback_compression{};
  yes_no copypaste{}, filetransfer{};
  std::optional<graphics_gl> gl;
  maybe_number audio_id;
};

/// What goes in or out of a backend; below the first line what single backends know.
struct audio_stream : described {
  yes_no mixing_engine{}, fixed_settings{};
  maybe_number voices, buffer_length, frequency, channels;
  std::string format, dev, name, stream_name, server_name, client_name;
  maybe_number buffer_count, latency;
  yes_no try_poll{}, exact_name{};
  std::string connect_ports;
};

struct audio : described {
  maybe_number id;
  std::string type;
  maybe_number timer_period;
  std::optional<audio_stream> input, output;
  std::string path, server_name, driver;   ///< file, pulseaudio, sdl
  yes_no try_mmap{}, exclusive{};          ///< oss
  std::optional<int> dsp_policy;           ///< oss
};

struct sound_codec : described {
  std::string type;
};

struct sound : device {
  std::string model;
  yes_no multichannel{};
  on_off streams{};
  std::vector<sound_codec> codecs;
  maybe_number audio_id;
};

struct video_acceleration : described {
  yes_no accel2d{}, accel3d{};
  std::string rendernode;
};

struct video_resolution : described {
  maybe_number x, y;
};

struct video : device {
  std::string driver_name, vgaconf;
  virtio_options virtio;
  std::string model;           ///< Empty: libvirt's choice.
  maybe_number ram, vram, vram64, vgamem, heads;
  yes_no primary{};
  on_off blob{};
  std::optional<video_acceleration> acceleration;
  std::optional<video_resolution> resolution;
};

// ---- other devices

struct input_device : device {
  std::string type, bus, model;
  virtio_options virtio;
  std::string source_evdev, source_dev, grab, grab_toggle;
  on_off repeat{};
};

struct memballoon : device {
  std::string model;
  on_off autodeflate{}, free_page_reporting{};
  maybe_number stats_period;
  virtio_options virtio;
};

struct rng_rate : described {
  unsigned bytes = 0;
  maybe_number period;
};

struct rng_device : device {
  std::string model;
  virtio_options virtio;
  std::optional<rng_rate> rate;
  std::string backend;        ///< "random", "egd", "builtin"
  std::string path;           ///< random
  chardev_source source;      ///< egd
};

struct watchdog_device : device {
  std::string model, action;
};

struct panic_device : device {
  std::string model;
};

struct tpm_device : device {
  std::string model;
  std::string backend;            ///< "passthrough", "emulator", "external"
  std::string version;
  yes_no persistent_state{}, debug{};
  std::string device_path;
  std::string secret;
  bool sha1 = false, sha256 = false, sha384 = false, sha512 = false; ///< PCR banks that are active.
  std::string source_type, source_mode, source_path;
};

struct hostdev : device {
  std::string mode, type, model, managed_text, sgio;
  yes_no managed{}, rawio{};
  on_off display{}, ramfb{};
  std::string driver_name;
  // source
  std::string startup, protocol, source_name, wwpn;
  std::optional<device_address> source_address; ///< pci
  std::string vendor_id, product_id;
  std::string usb_bus, usb_device;
  std::string mdev_uuid;
  std::string adapter;             ///< scsi
  std::string scsi_bus, scsi_target, scsi_unit;
  std::vector<host_address> hosts;
  std::optional<disk_auth> auth;
  std::string initiator_iqn;
  std::string block, character;    ///< mode capabilities
  bool readonly = false, shareable = false;
};

struct redirdev : device {
  std::string bus;
  chardev_source source;
};

struct hub : device {
  std::string type;
};

struct smartcard : device {
  std::string mode;
  std::vector<std::string> certificates;
  std::string database;
  chardev_source source;
};

struct fs_device : device {
  std::string type, accessmode, model, fmode, dmode, multidevs;
  std::string driver_type, driver_format, wrpolicy, name;
  maybe_number queue;
  virtio_options virtio;
  std::string binary;           ///< virtiofsd
  on_off binary_xattr{}, lock_posix{}, lock_flock{};
  std::string cache_mode, sandbox_mode;
  maybe_number thread_pool;
  std::string source_attribute, source;  ///< "dir", "file", "name", ... and what it says
  std::string socket, pool, volume, units;
  maybe_size usage;
  std::string target;
  bool readonly = false;
  maybe_size space_hard_limit, space_soft_limit;
};

struct shmem_device : device {
  std::string name, role, model;
  maybe_size size_bytes;
  bool has_server = false, has_msi = false;
  std::string server_path;
  maybe_number msi_vectors;
  on_off msi_ioeventfd{};
};

struct memory_device : device {
  std::string model, access, discard, uuid;
  // source
  std::string node_mask, path;
  maybe_size page_kib, align_kib;
  bool pmem = false;
  // target
  maybe_size size_kib, label_kib, block_kib, requested_kib;
  maybe_size current_kib;       ///< Live only: how much of it the guest has plugged in.
  maybe_number node;
  bool readonly = false;
  std::optional<std::uint64_t> base;
};

/// pseries: where the firmware keeps its settings.
struct nvram_device : device {};

/// Which USB devices a redirection takes; absent is any.
struct usb_rule : described {
  std::string class_id, vendor, product, version;
  yes_no allow{};
};
struct usb_filter : described {
  std::vector<usb_rule> rules;
};

struct iommu_device : device {
  std::string model;
  on_off intremap{}, caching_mode{}, eim{}, iotlb{};
  maybe_number aw_bits;
  bool has_driver = false;
};

struct vsock_device : device {
  std::string model;
  yes_no auto_cid{};
  maybe_number cid;
  virtio_options virtio;
};

struct crypto_device : device {
  std::string model, type, backend;
  maybe_number queues;
  virtio_options virtio;
};

struct lease : described {
  std::string lockspace, key, target_path;
  maybe_size offset;
};

struct device_list : described {
  std::string emulator;
  std::vector<disk> disks;
  std::vector<controller> controllers;
  std::vector<lease> leases;
  std::vector<fs_device> filesystems;
  std::vector<net_interface> interfaces;
  std::vector<smartcard> smartcards;
  std::vector<chardev> serials, parallels, consoles, channels;
  std::vector<input_device> inputs;
  std::vector<tpm_device> tpms;
  std::vector<troupe::graphics> graphics;
  std::vector<audio> audios;
  std::vector<sound> sounds;
  std::vector<video> videos;
  std::vector<hostdev> hostdevs;
  std::vector<redirdev> redirdevs;
  std::optional<usb_filter> redirfilter;
  std::vector<hub> hubs;
  std::vector<watchdog_device> watchdogs;
  std::vector<memballoon> balloons;   ///< At most one.
  std::vector<rng_device> rngs;
  std::vector<nvram_device> nvram;
  std::vector<panic_device> panics;
  std::vector<shmem_device> shmems;
  std::vector<memory_device> memories;
  std::vector<crypto_device> cryptos;
  std::vector<iommu_device> iommus;
  std::vector<vsock_device> vsocks;
};

// ---- the machine

enum class virt_type : std::uint8_t {
  unset, qemu, kqemu, kvm, xen, lxc, uml, openvz, test, vmware, hyperv, vbox, phyp, parallels, bhyve, vz, hvf
};
constexpr auto names_of(virt_type) {
  return words("", "qemu", "kqemu", "kvm", "xen", "lxc", "uml", "openvz", "test", "vmware", "hyperv", "vbox", "phyp", "parallels",
               "bhyve", "vz", "hvf");
}

enum class lifecycle_action : std::uint8_t {
  unset, destroy, restart, rename_restart, preserve, coredump_destroy, coredump_restart
};
constexpr auto names_of(lifecycle_action) {
  return words("", "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart");
}

enum class boot_device : std::uint8_t { unset, fd, hd, cdrom, network };
constexpr auto names_of(boot_device) { return words("", "fd", "hd", "cdrom", "network"); }

struct os_boot : described {
  boot_device dev{};
};

struct os_loader : described {
  yes_no readonly{}, secure{}, stateless{};
  std::string type, format, path;
};

struct os_nvram : described {
  std::string template_path, format, path;
  storage_type type{};
  std::optional<storage_source> source;
};

struct acpi_table : described {
  std::string type, path;
};

struct firmware_feature : described {
  yes_no enabled{};
  std::string name;
};

struct os_description : described {
  std::string firmware;
  std::string type, arch, machine;
  std::vector<firmware_feature> firmware_features;
  std::string init, init_dir, init_user, init_group; ///< What containers boot with.
  std::vector<std::string> init_args;
  std::vector<name_value> init_env;
  std::optional<os_loader> loader;
  std::optional<os_nvram> nvram;
  std::string kernel, initrd, cmdline, dtb;
  std::vector<acpi_table> acpi_tables;
  std::vector<os_boot> boots;
  yes_no boot_menu{};
  maybe_number boot_menu_timeout;
  yes_no bios_useserial{};
  std::optional<int> reboot_timeout;
  std::string smbios_mode;
};

struct hugepage : described {
  std::uint64_t size = 0;
  std::string unit, nodeset;
};

struct memory_backing : described {
  bool has_hugepages = false, nosharepages = false, locked = false, discard = false;
  std::vector<hugepage> hugepages;
  std::string source, access, allocation;
  maybe_number allocation_threads;
};

struct vcpu_state : described {
  unsigned id = 0;
  yes_no enabled{}, hotpluggable{};
  maybe_number order;
};

struct iothread_id : described {
  unsigned id = 0;
  std::optional<int> pool_min, pool_max;
};

struct sysinfo_entry : described {
  std::string name, file, value;
};
struct sysinfo_block : described {
  std::vector<sysinfo_entry> entries;
};
struct sysinfo : described {
  std::string type;
  std::optional<sysinfo_block> bios, system, chassis, oem_strings;
  std::vector<sysinfo_block> base_boards;
  std::vector<sysinfo_entry> entries;  ///< fwcfg
};

struct hyperv_features : described {
  std::string mode;
  on_off relaxed{}, vapic{}, spinlocks{}, vpindex{}, runtime{}, synic{}, stimer{}, stimer_direct{}, reset{}, vendor_id{},
    frequencies{}, reenlightenment{}, tlbflush{}, ipi{}, evmcs{}, avic{};
  maybe_number spinlock_retries;
  std::string vendor;
};

struct kvm_features : described {
  on_off hidden{}, hint_dedicated{}, poll_control{}, pv_ipi{}, dirty_ring{};
  maybe_number dirty_ring_size;
};

struct feature_set : described {
  bool acpi = false, pae = false, viridian = false, privnet = false;
  bool apic = false;
  on_off apic_eoi{};
  bool hap = false;
  on_off hap_state{};
  std::optional<hyperv_features> hyperv;
  std::optional<kvm_features> kvm;
  on_off pvspinlock{}, pmu{}, vmport{};
  bool vmcoreinfo = false;
  on_off vmcoreinfo_state{};
  bool smm = false;
  on_off smm_state{};
  std::optional<std::uint64_t> tseg_bytes;
  std::string ioapic, gic_version, hpt;
  bool gic = false;
  on_off htm{}, nested_hv{}, ccf_assist{};
  std::optional<std::uint64_t> tcg_tb_cache_kib;
};

struct cpu_feature : described {
  std::string policy, name;
};

struct numa_distance : described {
  maybe_number cell, value;
};

struct size_and_unit : described {
  maybe_size value;
  std::string unit;
};
enum class cache_associativity : std::uint8_t { unset, none, direct, full };
constexpr auto names_of(cache_associativity) { return words("", "none", "direct", "full"); }
enum class cache_policy : std::uint8_t { unset, none, writeback, writethrough };
constexpr auto names_of(cache_policy) { return words("", "none", "writeback", "writethrough"); }
/// Memory that works as the cache of a cell.
struct memory_side_cache : described {
  maybe_number level;
  cache_associativity associativity{};
  cache_policy policy{};
  size_and_unit size, line;
};

struct numa_cell : described {
  maybe_number id;
  std::string cpus;
  std::uint64_t memory_kib = 0;
  std::string mem_access;
  yes_no discard{};
  std::vector<numa_distance> distances;
  std::vector<memory_side_cache> caches;
};

enum class memory_access : std::uint8_t { unset, access, read, write };
constexpr auto names_of(memory_access) { return words("", "access", "read", "write"); }
/// How long one cell waits for another's memory, or how much comes in a second.
struct numa_link : described {
  maybe_number initiator, target, cache;
  memory_access type{};
  maybe_size value;
  std::string unit;         ///< Of bandwidth.
};

enum class address_bits : std::uint8_t { unset, passthrough, emulate };
constexpr auto names_of(address_bits) { return words("", "passthrough", "emulate"); }
struct cpu_address_width : described {
  address_bits mode{};
  maybe_number bits, limit;
};

struct cpu_cache : described {
  maybe_number level;
  std::string mode;
};

struct cpu_topology : described {
  unsigned sockets = 0, dies = 1, cores = 0, threads = 0;
};

struct cpu_description : described {
  std::string mode, match, check;
  on_off migratable{};
  std::string model, fallback, vendor_id;
  bool has_model = false;
  std::string vendor;
  using topology_counts = cpu_topology;
  std::optional<cpu_topology> topology;
  std::optional<cpu_cache> cache;
  std::optional<cpu_address_width> maxphysaddr;
  std::vector<cpu_feature> features;
  std::vector<numa_cell> cells;
  std::vector<numa_link> latencies, bandwidths;
};

struct clock_catchup : described {
  maybe_size threshold, slew, limit;
};

struct clock_timer : described {
  std::string name, tickpolicy, track, mode;
  yes_no present{};
  maybe_size frequency;
  std::optional<clock_catchup> catchup;
};

struct clock_description : described {
  std::string offset;      ///< utc, localtime, timezone, variable, absolute
  std::string adjustment, basis, timezone;
  std::string sync;        ///< The attribute of before 2010, read as `offset`.
  maybe_size start;
  std::vector<clock_timer> timers;
};

struct qemu_env : described {
  std::string name;
  std::optional<std::string> value;
};

// ---- what the guest may use of the host

struct blkio_device : described {
  std::string path;
  maybe_number weight, read_iops, write_iops;
  maybe_size read_bytes, write_bytes;
};
struct blkio_tuning : described {
  maybe_number weight;
  std::vector<blkio_device> devices;
};

struct memory_tuning : described {
  maybe_size hard_limit_kib, soft_limit_kib, min_guarantee_kib, swap_hard_limit_kib;
};

struct vcpu_pin : described {
  maybe_number vcpu;
  std::string cpuset;
};
struct iothread_pin : described {
  maybe_number iothread;
  std::string cpuset;
};
enum class scheduler : std::uint8_t { unset, batch, idle, fifo, rr };
constexpr auto names_of(scheduler) { return words("", "batch", "idle", "fifo", "rr"); }
struct thread_schedule : described {
  troupe::scheduler scheduler{};
  std::optional<int> priority;
};
struct vcpu_schedule : thread_schedule {
  std::string vcpus;
};
struct iothread_schedule : thread_schedule {
  std::string iothreads;
};
enum class cache_kind : std::uint8_t { unset, both, code, data };
constexpr auto names_of(cache_kind) { return words("", "both", "code", "data"); }
struct cache_share : described {
  maybe_number id, level;
  cache_kind type{};
  maybe_size size;
  std::string unit;
};
struct resource_monitor : described {
  maybe_number level;
  std::string vcpus;
};
struct cache_tuning : described {
  std::string vcpus;
  std::vector<cache_share> caches;
  std::vector<resource_monitor> monitors;
};
struct bandwidth_share : described {
  maybe_number id, bandwidth;
};
struct memory_bandwidth : described {
  std::string vcpus;
  std::vector<bandwidth_share> nodes;
  std::vector<resource_monitor> monitors;
};
struct cpu_tuning : described {
  maybe_size shares, period, global_period, emulator_period, iothread_period;       ///< microseconds
  std::optional<std::int64_t> quota, global_quota, emulator_quota, iothread_quota; ///< microseconds; negative: no limit
  std::vector<vcpu_pin> vcpu_pins;
  std::string emulator_cpuset;
  std::vector<iothread_pin> iothread_pins;
  std::optional<thread_schedule> emulator_schedule;
  std::vector<vcpu_schedule> vcpu_schedules;
  std::vector<iothread_schedule> iothread_schedules;
  std::vector<cache_tuning> caches;
  std::vector<memory_bandwidth> bandwidths;
};

enum class numa_mode : std::uint8_t { unset, strict, preferred, interleave, restrictive };
constexpr auto names_of(numa_mode) { return words("", "strict", "preferred", "interleave", "restrictive"); }
enum class placement : std::uint8_t { unset, static_, auto_ };
constexpr auto names_of(placement) { return words("", "static", "auto"); }
/// Where the guest's memory comes from.
struct numa_memory : described {
  numa_mode mode{};
  std::string nodeset;
  troupe::placement placement{};
};
struct numa_cell_memory : described {
  maybe_number cell;
  numa_mode mode{};
  std::string nodeset;
};
struct numa_tuning : described {
  std::optional<numa_memory> memory;
  std::vector<numa_cell_memory> cells;
};

struct id_range : described {
  maybe_number start, target, count;
};
struct perf_event : described {
  std::string name;
  yes_no enabled{};
};
struct key_cipher : described {
  std::string name;
  on_off state{};
};

enum class launch_kind : std::uint8_t { unset, sev, s390_pv };
constexpr auto names_of(launch_kind) { return words("", "sev", "s390-pv"); }
/// A guest whose memory the host can't read.
struct launch_security : described {
  launch_kind type{};
  yes_no kernel_hashes{};
  maybe_number c_bit, reduced_bits, policy;
  std::string dh_cert, session;
};

enum class deprecation : std::uint8_t { unset, none, omit, reject, crash };
constexpr auto names_of(deprecation) { return words("", "none", "omit", "reject", "crash"); }
enum class property_kind : std::uint8_t { unset, string, signed_, unsigned_, bool_, remove };
constexpr auto names_of(property_kind) { return words("", "string", "signed", "unsigned", "bool", "remove"); }

struct qemu_override_property : described {
  std::string name;
  property_kind type{};
  std::optional<std::string> value;
};
struct qemu_override_device : described {
  std::string alias;
  std::vector<qemu_override_property> frontend;
};

/// What goes to QEMU as it is.
struct qemu_namespace {
  std::vector<std::string> args;
  std::vector<qemu_env> envs;
  std::vector<std::string> capabilities_add, capabilities_del;
  troupe::deprecation deprecation{};
  std::vector<qemu_override_device> overrides;
};

/// A guest's definition, or what a running guest is.
struct domain : described {
  virt_type type{};
  int id = -1;
  std::string name;
  std::string uuid;                    ///< Lower-case text.
  std::optional<std::string> genid;    ///< Empty: to be generated.
  std::string title, description;
  bool has_metadata = false;
  std::vector<xml_element> metadata;
  std::optional<std::uint64_t> memory_kib, current_memory_kib, max_memory_kib;
  on_off memory_dump{};
  maybe_number memory_slots;
  std::optional<blkio_tuning> blkiotune;
  std::optional<memory_tuning> memtune;
  std::optional<memory_backing> backing;
  std::optional<unsigned> vcpu_max, vcpu_current;
  std::string vcpu_placement, vcpu_cpuset;
  std::vector<vcpu_state> vcpus;
  maybe_number iothreads;
  std::vector<iothread_id> iothread_ids;
  std::optional<int> default_pool_min, default_pool_max;
  std::optional<cpu_tuning> cputune;
  std::optional<numa_tuning> numatune;
  std::string partition, appid;
  std::vector<sysinfo> sysinfos;
  std::string bootloader, bootloader_args;
  os_description os;
  std::vector<id_range> uid_map, gid_map;
  std::optional<feature_set> features;
  std::optional<cpu_description> cpu;
  std::optional<clock_description> clock;
  lifecycle_action on_poweroff{}, on_reboot{}, on_crash{};
  std::string on_lockfailure;
  yes_no suspend_to_mem{}, suspend_to_disk{};
  std::vector<perf_event> perf;
  device_list devices;
  std::vector<seclabel> seclabels;
  std::vector<key_cipher> keywrap;
  std::optional<troupe::launch_security> launch_security;
  qemu_namespace qemu;
};

struct xml_options {
  bool secure = false;     ///< Passwords are shown.
  bool inactive = false;   ///< What only a running guest has is left out.
  bool migratable = false; ///< Understood by older peers.
};

/// Reads a definition of at most `most_xml_bytes`; nothing is filled in. What is not known is kept; of an element that may stand
/// once, the first counts and others are dropped.
/// Errors: malformed_xml; bad_xml, naming element, attribute, value, line and what is accepted.
result<domain> read_domain(std::string_view text);

/// The definition as libvirt formats it.
std::string write_domain(const domain& guest, xml_options options);

} // namespace troupe
