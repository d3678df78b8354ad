#pragma once

#include "xml/qemu_argv.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

// Between qemu_argv.cpp, which has the order of the sections, and the argv_*.cpp files, which have the sections.

namespace troupe {

/// Keeps its keys in the order they were set, as QEMU is shown them.
using ordered_json = nlohmann::ordered_json;

/// Why there is no command line; caught in qemu_command_line.
struct argv_refusal {
  error why;
};

/// A command line in the making.
class argv_builder {
public:
  argv_builder(const domain& of, const emulator_facts& can, const run_settings& how)
    : guest{of}, facts{can}, run{how} {}

  const domain& guest;
  const emulator_facts& facts;
  const run_settings& run;
  command_line line;

  void word(std::string text) { line.argv.push_back(std::move(text)); }
  void option(const char* name, std::string value);
  void object(const ordered_json& properties) { json_option("-object", properties); }
  void blockdev(const ordered_json& properties) { json_option("-blockdev", properties); }
  void netdev(const ordered_json& properties) { json_option("-netdev", properties); }
  /// Refuses what this QEMU lacks.
  void device(const ordered_json& properties);

  [[noreturn]] void refuse_device(const ordered_json& properties) const;
  /// Stops with errc::unsupported_config; `what` follows "guest 'NAME': ".
  [[noreturn]] void refuse(std::string_view what) const;
  /// The same when this is a real start; domxml-to-native shows a placeholder instead.
  void refuse_to_run(std::string_view what) const {
    if (!run.generic_taps)
      refuse(what);
  }

  bool is_kvm() const { return guest.type == virt_type::kvm; }
  bool has(std::string_view device_type) const { return facts.device_types.empty() || has_device(facts, device_type); }
  bool is_q35() const { return machine_is("q35"); }
  bool is_i440fx() const { return machine_is("i440fx") || guest.os.machine == "pc" || guest.os.machine == "isapc"; }
  /// The machine as QEMU knows it, without an alias.
  std::string machine_name() const;

  /// "ID-NAME", the name cut as in libvirt's paths.
  std::string short_name() const;
  std::string domain_dir() const { return "domain-" + short_name(); }
  const controller* find_controller(controller_type type, int index) const;
  /// The id of the controller of that type and index, as QEMU's buses are named after it.
  std::string controller_id(controller_type type, int index) const;
  /// The place of boot device `dev` in `<os><boot>`, from 1; 0: not there.
  unsigned boot_place(boot_device dev) const;

private:
  ordered_json overridden(const ordered_json& properties) const;
  [[noreturn]] void refuse_override(const std::string& alias, const qemu_override_property& change,
                                    std::string_view wanted) const;
  void json_option(const char* name, const ordered_json& properties);
  bool machine_is(std::string_view family) const;
};

// ---- pieces

/// The text of JSON; what is not UTF-8 is replaced.
std::string to_text(const ordered_json& json);

/// Commas doubled, as in QEMU's key=value lists.
std::string escaped(std::string_view text);

void put(ordered_json& into, const char* key, std::string_view text); ///< Unless empty.
void put(ordered_json& into, const char* key, on_off value);          ///< Unless unset; true or false.
void put(ordered_json& into, const char* key, yes_no value);
void put_word(ordered_json& into, const char* key, on_off value); ///< "on" or "off".
template <class Number>
void put(ordered_json& into, const char* key, const std::optional<Number>& value) {
  if (value)
    into[key] = *value;
}

void put_virtio(ordered_json& into, const virtio_options& options);
void put_rom(ordered_json& into, const device& of);
/// Where the device sits: bus and address, in libvirt's order.
void put_address(ordered_json& into, const argv_builder& b, const device_address& address);
void put_address(ordered_json& into, const argv_builder& b, const device& of);
void put_bootindex(ordered_json& into, unsigned place);

/// "virtio-blk" to "virtio-blk-pci-transitional", by where it sits and its model.
std::string virtio_type(std::string_view base, const device_address& address, std::string_view model);

/// An object with the X.509 credentials of this host.
ordered_json tls_credentials(const std::string& id, bool server, bool verify_peer);

// ---- -chardev

/// What a character device is for.
enum class chardev_use : std::uint8_t { plain, usb_redirection };

/// Adds -chardev, and what objects it needs. `id`: "charserial0"; `channel`: the name a SPICE channel has.
void add_chardev(argv_builder& b, const chardev_source& source, const std::string& id, std::string_view channel = {},
                 chardev_use use = chardev_use::plain);
/// The socket of a channel that names none.
std::string channel_socket(const run_settings& run, const domain& guest, const chardev& channel);

// ---- blocks that several sections need

/// Storage and format nodes for an image, deepest first. `node`: "libvirt-1".
struct image_wish {
  const storage_source* source = nullptr;
  image_format format{};
  std::string node;
  bool readonly = false;
  const disk_driver* driver = nullptr; ///< Cache, aio, discard; null: none.
  bool top = true;                     ///< Not a backing image.
  std::optional<std::string> backing;  ///< The node below; empty: there is none and QEMU shall not look.
};
void add_image(argv_builder& b, const image_wish& wish);
/// The properties of a storage node of that name for a source on the network: driver and place.
ordered_json network_place(argv_builder& b, const storage_source& source, const std::string& node);
/// Bus and numbers of a device on a SCSI controller, by what its model knows.
void put_scsi_place(ordered_json& into, const argv_builder& b, const device_address& at);
/// The node of pflash unit 0 or 1 of the guest, empty without one.
std::string pflash_node(const argv_builder& b, int unit);
/// How many node numbers the guest's disks take; an empty drive takes one too.
unsigned disk_nodes(const domain& guest);

// ---- the sections, in the order of the command line

void add_pflash(argv_builder& b);
void add_machine(argv_builder& b);
void add_accelerator(argv_builder& b);
void add_cpu(argv_builder& b);
void add_loader(argv_builder& b);
void add_memory(argv_builder& b);
void add_smp(argv_builder& b);
void add_iothreads(argv_builder& b);
void add_numa(argv_builder& b);
void add_generation_id(argv_builder& b);
void add_smbios(argv_builder& b);
void add_clock(argv_builder& b);
void add_power(argv_builder& b);
void add_boot(argv_builder& b);
void add_iommu(argv_builder& b);
void add_controllers(argv_builder& b);
void add_memory_devices(argv_builder& b);
void add_hubs(argv_builder& b);
void add_disks(argv_builder& b);
void add_filesystems(argv_builder& b);
void add_interfaces(argv_builder& b);
void add_smartcards(argv_builder& b);
void add_serials(argv_builder& b);
void add_parallels(argv_builder& b);
void add_channels(argv_builder& b);
void add_consoles(argv_builder& b);
void add_tpms(argv_builder& b);
void add_inputs(argv_builder& b);
void add_audios(argv_builder& b);
void add_graphics(argv_builder& b);
void add_videos(argv_builder& b);
void add_sounds(argv_builder& b);
void add_watchdogs(argv_builder& b);
void add_redirdevs(argv_builder& b);
void add_hostdevs(argv_builder& b);
void add_balloon(argv_builder& b);
void add_rngs(argv_builder& b);
void add_vmcoreinfo(argv_builder& b);
void add_launch_security(argv_builder& b);
void add_sandbox(argv_builder& b);
void add_panics(argv_builder& b);
void add_shmems(argv_builder& b);
void add_vsocks(argv_builder& b);
void add_cryptos(argv_builder& b);

} // namespace troupe
