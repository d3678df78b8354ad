#pragma once

#include "runtime/error.hpp"
#include "xml/domain.hpp"
#include "xml/emulator_facts.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// Sixteen random bytes a call: UUIDs and MAC addresses are drawn from it, so that tests can repeat a definition.
using random_source = std::function<std::array<std::uint8_t, 16>()>;

// ---- when a guest is defined

/// Names the emulator, and the architecture, of a definition that leaves them out.
void choose_emulator(domain& guest, std::string_view host_arch);

/// Facts to define a guest by whose emulator is not installed: pc and q35 as QEMU 7.2 has them, for `guest`'s architecture.
emulator_facts assumed_facts(const domain& guest, std::string_view host_arch);

/// Makes a definition whole, as libvirt 9.0.0 does at `define`: what only a running guest has is dropped; defaults, controllers and
/// devices that every machine has are added; UUID, MACs and addresses are chosen; the whole is checked.
/// Errors: bad_xml, unsupported_config and others, with libvirt's wording where clients know it.
result<void> complete_definition(domain& guest, const emulator_facts& facts, const random_source& random);

/// Names the file that keeps the variables of a completed definition's firmware, when it names none: below `state_dir`.
void choose_variables(domain& guest, std::string_view state_dir);

/// Gives an address to each device of a completed definition that has none. Errors: as above.
result<void> give_places(domain& guest, const emulator_facts& facts, const random_source& random);

/// The UUID in lower-case text.
std::string uuid_text(const domain& guest);
std::uint64_t max_memory_kib_of(const domain& guest);
std::uint64_t current_memory_kib_of(const domain& guest);
unsigned vcpus_of(const domain& guest);

// ---- when it is started

/// Names every device as libvirt does ("virtio-disk0", "net0"); names a user gave ("ua-...") stay.
void assign_aliases(domain& guest);

/// How many TCP ports `assign_display_ports` wants for graphics with autoport.
int display_ports_wanted(const domain& guest);

/// Gives ports to graphics with autoport, in order, and the default listen address to those that name none.
void assign_display_ports(domain& guest, std::span<const int> ports, std::string_view vnc_listen, std::string_view spice_listen);

/// The definition's own DAC label, or null. One of type none has no text: the guest has the usual user, and files are left alone.
const seclabel* static_dac_label(const domain& guest);

/// The bridges on which the guest's network cards need a TAP, in the order of its cards.
/// `networks`: network name to bridge, or "user". Errors: unsupported_config, naming guest, network and setting.
result<std::vector<std::string>> bridges_wanted(const domain& guest, const std::map<std::string, std::string>& networks, bool session);

struct run_settings;

/// Notes what the host's ends of the devices are called now: TAP names, in the order of `bridges_wanted`, and generated socket paths.
void name_host_ends(domain& guest, const run_settings& settings, std::span<const std::string> tap_names);

/// Notes the PTY that QEMU opened for the character device of that chardev id ("charserial0").
void name_pty(domain& guest, std::string_view chardev, std::string_view path);

/// Something on the host that the guest's QEMU opens.
struct needed_resource {
  /// The last three have no path but what names a device of the host: "0000:01:00.0", a UUID, "VENDOR:PRODUCT".
  enum class kind : std::uint8_t { file, block, character, directory, socket, pci, mediated, usb };

  std::string path;
  bool readonly = false;
  bool shared = false;   ///< Other guests may have it open at the same time.
  kind what = kind::file;
  bool relabel = true;   ///< False: owner and label stay as they are.
  bool create = false;   ///< Where there is none QEMU would make it: the file behind a serial port.
  struct own_label {
    std::string model;    ///< Empty: every one.
    bool relabel = true;
    std::string label;    ///< Empty: the guest's own.
    bool operator==(const own_label&) const = default;
  };
  bool optional = false; ///< The guest starts without it, too.
  std::vector<own_label> labels{}; ///< By which the definition treats it otherwise than the guest's other files.
  std::string like{};    ///< With `create`: what a new one begins as a copy of; empty: it begins empty.

  bool operator==(const needed_resource&) const = default;
};

/// Disks, kernel, initrd, firmware, serial files and the like; each path once.
std::vector<needed_resource> resources_of(const domain& guest);

/// Images whose header may name others that QEMU then opens: each the last that the definition knows of its chain.
std::vector<needed_resource> open_chains(const domain& guest);

/// Sockets and files of memory that QEMU makes itself, of a definition whose host ends are named. `argv` is its command
/// line, which alone tells of the memory.
std::vector<std::string> made_by_qemu(const domain& guest, const std::vector<std::string>& argv);

// ---- what clients ask

enum class crash_action : std::uint8_t { destroy, restart, preserve };
crash_action on_crash_of(const domain& guest);

/// Whether a power-off by the guest only boots it again.
bool restarts_on_poweroff(const domain& guest);

struct console_end {
  std::string path;
  bool socket = false; ///< A UNIX socket rather than a PTY.
};

/// Where the character device of that alias is reached; an empty alias takes the first console or serial port.
/// Errors: bad_argument when there is none, operation_failed when it has no end on the host.
result<console_end> console_of(const domain& guest, std::string_view alias);

/// `type`: virDomainMetadataType (0 description, 1 title, 2 element). `text` null removes.
/// Errors: bad_argument, no_such_metadata, bad_xml.
result<void> set_metadata_of(domain& guest, int type, const std::string* text, const std::string& key, const std::string& uri);
result<std::string> metadata_of(const domain& guest, int type, const std::string& uri);

} // namespace troupe
