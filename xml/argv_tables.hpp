#pragma once

#include "xml/domain.hpp"

// What QEMU calls the things of a definition: one table for both ways, argv_*.cpp out and from_argv_*.cpp in.

namespace troupe {

// ---- controllers

/// The model of a controller and the -device it is.
struct model_row {
  std::string_view model, type;
};
inline constexpr model_row usb_models[] = {
  {"", "piix3-usb-uhci"},
  {"piix3-uhci", "piix3-usb-uhci"},
  {"piix4-uhci", "piix4-usb-uhci"},
  {"ehci", "usb-ehci"},
  {"ich9-ehci1", "ich9-usb-ehci1"},
  {"ich9-uhci1", "ich9-usb-uhci1"},
  {"ich9-uhci2", "ich9-usb-uhci2"},
  {"ich9-uhci3", "ich9-usb-uhci3"},
  {"vt82c686b-uhci", "vt82c686b-usb-uhci"},
  {"pci-ohci", "pci-ohci"},
  {"nec-xhci", "nec-usb-xhci"},
  {"qemu-xhci", "qemu-xhci"},
};
inline constexpr model_row scsi_models[] = {
  {"lsilogic", "lsi"},         {"lsisas1068", "mptsas1068"}, {"lsisas1078", "megasas"}, {"vmpvscsi", "pvscsi"},
  {"ibmvscsi", "spapr-vscsi"}, {"am53c974", "am53c974"},     {"dc390", "dc-390"},
};
inline constexpr model_row pci_models[] = {
  {"pci-bridge", "pci-bridge"},
  {"dmi-to-pci-bridge", "i82801b11-bridge"},
  {"pcie-to-pci-bridge", "pcie-pci-bridge"},
  {"pcie-root-port", "pcie-root-port"},
  {"pcie-switch-upstream-port", "x3130-upstream"},
  {"pcie-switch-downstream-port", "xio3130-downstream"},
  {"pci-expander-bus", "pxb"},
  {"pcie-expander-bus", "pxb-pcie"},
};

// ---- disks

/// A protocol, its block driver and the port it has when none is given.
struct protocol_row {
  net_protocol protocol;
  std::string_view driver, port;
};
inline constexpr protocol_row protocols[] = {
  {net_protocol::nbd, "nbd", "10809"},
  {net_protocol::rbd, "rbd", "0"},
  {net_protocol::sheepdog, "sheepdog", "7000"},
  {net_protocol::gluster, "gluster", "24007"},
  {net_protocol::iscsi, "iscsi", "3260"},
  {net_protocol::http, "http", "80"},
  {net_protocol::https, "https", "443"},
  {net_protocol::ftp, "ftp", "21"},
  {net_protocol::ftps, "ftps", "990"},
  {net_protocol::tftp, "tftp", "69"},
  {net_protocol::ssh, "ssh", "22"},
  {net_protocol::vxhs, "vxhs", "9999"},
  {net_protocol::nfs, "nfs", ""},
};

/// What a cache mode is to QEMU: of both nodes, and of the device.
struct cache_row {
  disk_cache mode;
  bool direct, no_flush, write_cache;
};
inline constexpr cache_row caches[] = {
  {disk_cache::none, true, false, true},           {disk_cache::writeback, false, false, true},
  {disk_cache::writethrough, false, false, false}, {disk_cache::directsync, true, false, false},
  {disk_cache::unsafe, false, true, true},
};

// ---- sound

/// A backend of `<audio>`, and its -audiodev.
struct audio_row {
  std::string_view type, driver;
};
inline constexpr audio_row audio_rows[] = {
  {"none", "none"},     {"alsa", "alsa"}, {"coreaudio", "coreaudio"}, {"jack", "jack"}, {"oss", "oss"},
  {"pulseaudio", "pa"}, {"sdl", "sdl"},   {"spice", "spice"},         {"file", "wav"},  {"dbus", "dbus"},
};

/// Calls `f(property, field)` for what an `<input>` or `<output>` says, in libvirt's order. The last are of single
/// backends.
template <class Stream, class F>
void each_audio_setting(Stream& stream, F&& f) {
  f("mixing-engine", stream.mixing_engine);
  f("fixed-settings", stream.fixed_settings);
  f("voices", stream.voices);
  f("buffer-length", stream.buffer_length);
  f("frequency", stream.frequency);
  f("channels", stream.channels);
  f("format", stream.format);
  f("server-name", stream.server_name);
  f("client-name", stream.client_name);
  f("connect-ports", stream.connect_ports);
  f("exact-name", stream.exact_name);
  f("dev", stream.dev);
  f("buffer-count", stream.buffer_count);
  f("try-poll", stream.try_poll);
  f("name", stream.name);
  f("stream-name", stream.stream_name);
  f("latency", stream.latency);
}

struct sound_row {
  std::string_view model, type;
  bool codecs;
};
inline constexpr sound_row sound_rows[] = {{"sb16", "sb16", false},     {"es1370", "ES1370", false},
                                           {"ac97", "AC97", false},     {"usb", "usb-audio", false},
                                           {"ich6", "intel-hda", true}, {"ich9", "ich9-intel-hda", true}};

// ---- machine

struct track_row {
  std::string_view track, clock;
};
inline constexpr track_row tracks[] = {{"guest", "vm"}, {"wall", "host"}, {"boot", "rt"}, {"realtime", "rt"}};

/// An entry of a `<sysinfo>` block, and the property of -smbios.
struct smbios_row {
  std::string_view entry, property;
};
inline constexpr smbios_row bios_rows[] = {
  {"vendor", "vendor"}, {"version", "version"}, {"date", "date"}, {"release", "release"}};
inline constexpr smbios_row system_rows[] = {{"manufacturer", "manufacturer"},
                                             {"product", "product"},
                                             {"version", "version"},
                                             {"serial", "serial"},
                                             {"uuid", "uuid"},
                                             {"sku", "sku"},
                                             {"family", "family"}};
inline constexpr smbios_row board_rows[] = {{"manufacturer", "manufacturer"},
                                            {"product", "product"},
                                            {"version", "version"},
                                            {"serial", "serial"},
                                            {"asset", "asset"},
                                            {"location", "location"}};
inline constexpr smbios_row chassis_rows[] = {
  {"manufacturer", "manufacturer"}, {"version", "version"}, {"serial", "serial"}, {"asset", "asset"}, {"sku", "sku"}};

// ---- how fast memory is reached (-numa hmat-lb, hmat-cache)

/// By the number of the cache in front of it; 0: none.
inline constexpr std::string_view memory_levels[] = {"memory", "first-level", "second-level", "third-level"};
/// By value, as the enumerations count.
inline constexpr std::string_view qemu_associativities[] = {"none", "none", "direct", "complex"};
inline constexpr std::string_view qemu_cache_policies[] = {"none", "none", "write-back", "write-through"};

} // namespace troupe
