#pragma once

#include "xml/from_argv.hpp"
#include "xml/from_argv_words.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

// Between from_argv.cpp, which goes through the options, and the from_argv_*.cpp files, which know what they mean.

namespace troupe {

/// Why there is no definition; caught in domain_from_argv.
struct import_refusal {
  error why;
};

/// One option of the command line.
struct line_option {
  std::string name;    ///< "-drive", whatever dashes it was written with.
  std::string written; ///< As it was written.
  std::optional<std::string> value;
  arg_properties props; ///< Of the value, when the option has a list.
  bool done = false;    ///< It is in the definition; what is not done is kept as it is.
  bool own = false;     ///< It comes from a definition's own words for QEMU, which it becomes again.

  std::string text() const { return value ? written + " " + *value : written; }
};

/// A guest in the making from a command line.
class argv_import {
public:
  domain guest;
  const emulator_facts* facts = nullptr;
  std::vector<line_option> options;
  std::vector<std::string> notes;
  std::vector<std::pair<std::string, std::string>> env; ///< Not understood yet.
  std::vector<std::string> kept; ///< Words for QEMU that stand for parts of options which are in the definition.

  bool no_defaults = false, is_libvirts = false;
  bool acpi_off = false, accelerator_given = false, secure_flash = false;
  std::string main_memory; ///< The id of the backend that is the guest's RAM.
  unsigned floppy_boot[2] = {0, 0};
  unsigned flash_units = 0; ///< -drive if=pflash so far.
  bool has_display = false; ///< An option says what is shown where.
  bool network_given = false, serial_given = false;
  bool terminal = false; ///< -nographic or -curses: the first serial port is on the terminal.
  std::string vga;       ///< The value of -vga.
  bool usb_wanted = false, fullscreen = false;
  line_option* keymap = nullptr;
  std::string watchdog_action;
  std::uint64_t added_memory_kib = 0; ///< Of memory modules.

  [[noreturn]] void refuse(const line_option& option, std::string_view why) const;
  void note(const line_option& option, std::string_view what);
  /// Two words for QEMU that say what of `option` XML can't.
  void keep(const line_option& option, std::string word, std::string value);
  /// Notes the properties of `option` that nothing has understood, which are left out: `why`.
  void leave_out(line_option& option, std::string_view why);

  /// The option `name` with that id, when nothing has understood it yet, or null.
  line_option* find(std::string_view name, std::string_view id);
  line_option* find_option(std::string_view name);
  /// The first of that name, understood or not, or null.
  const line_option* find_option_any(std::string_view name) const;
  /// The blockdev or drive of that node name or id.
  line_option* find_block(std::string_view node);

  /// Calls `read` to put `option`, and what it takes with it, into the definition. When it answers false, or a property
  /// is left that nothing has understood, the definition and the options are as before. Answers whether it went.
  template <class F>
  bool attempt(line_option& option, F&& read) {
    const auto marks = begin(option);
    const bool went = read() && all_understood();
    went ? commit() : roll_back(marks);
    return went;
  }
  /// From inside `attempt`: this option stands for the same thing.
  void take(line_option& option);
  /// The last option of that name that this attempt has taken, or null.
  line_option* last_taken(std::string_view name);

  /// The value of `key` as a number. Refuses what is none.
  std::optional<std::uint64_t> number(line_option& option, std::string_view key);
  std::optional<bool> flag(line_option& option, std::string_view key);
  template <class Number>
  void read(line_option& option, std::string_view key, std::optional<Number>& into) {
    if (const auto value = number(option, key)) {
      if (*value > static_cast<std::uint64_t>(std::numeric_limits<Number>::max()))
        refuse_value(option, key, "a smaller number");
      into = static_cast<Number>(*value);
    }
  }
  void read(line_option& option, std::string_view key, std::string& into);
  void read(line_option& option, std::string_view key, on_off& into);
  void read(line_option& option, std::string_view key, yes_no& into);
  /// One of an enumeration's words.
  template <class Enum>
  requires std::is_enum_v<Enum>
  void read_word(line_option& option, std::string_view key, Enum& into) {
    const auto* value = option.props.take(key);
    if (!value)
      return;
    constexpr auto names = names_of(Enum{});
    const auto found = std::find(names.begin() + 1, names.end(), *value);
    if (found == names.end())
      refuse_value(option, key, accepted_words(std::vector<std::string_view>(names.begin() + 1, names.end())));
    into = static_cast<Enum>(found - names.begin());
  }
  [[noreturn]] void refuse_value(const line_option& option, std::string_view key, std::string_view accepted) const;
  static std::string accepted_words(const std::vector<std::string_view>& words);

  // ---- buses

  /// The index of the controller that a device option with that id is.
  int claim_bus(controller_type type, const std::string& id);
  /// The index of the controller with that id.
  std::optional<int> bus_index(controller_type type, std::string_view id) const;

  /// The number of the I/O thread with that id.
  unsigned iothread(const std::string& id);

  /// The number of the `<audio>` with that id.
  unsigned audio(const std::string& id);
  /// The same for a device that plays on it; none for the first one of libvirt's, which is meant anyway.
  std::optional<unsigned> audio_wish(const std::string& id);

  bool is_x86() const { return guest.os.arch == "x86_64" || guest.os.arch == "i686"; }
  bool is_q35() const;
  bool is_pseries() const { return guest.os.machine.starts_with("pseries"); }
  bool is_kvm() const { return guest.type == virt_type::kvm; }

  /// A name for a disk on that bus: its `wanted` one unless an earlier disk has it or comes behind it.
  std::string disk_target(std::string_view prefix, unsigned wanted);
  /// That very name; empty when an earlier disk has it.
  std::string named_disk(std::string_view prefix, unsigned index);
  static unsigned index_in_name(std::string_view target, std::string_view prefix);
  unsigned next_disk(std::string_view prefix) const;
  /// The first that no disk has.
  unsigned free_disk(std::string_view prefix);

private:
  using list_sizes = std::vector<std::size_t>;
  static unsigned numbered(std::map<std::string, unsigned>& known, const std::string& id, std::string_view usual);
  list_sizes begin(line_option& option);
  bool all_understood() const;
  void commit();
  void roll_back(const list_sizes& marks);

  std::vector<line_option*> taken_;
  std::map<std::string, unsigned> iothreads_, audios_;
  std::map<std::string, unsigned, std::less<>> next_disk_, disks_before_, free_disk_;
  std::set<std::string> disk_names_;
  std::map<std::pair<controller_type, std::string>, int> buses_;
  std::vector<std::pair<controller_type, std::string>> claimed_;
  std::map<std::pair<std::string, std::string>, std::vector<std::size_t>> by_id_;
  bool indexed_ = false;
};

/// "virtio-blk-pci-transitional" in its parts.
struct device_name {
  std::string base;       ///< "virtio-blk"
  std::string transition; ///< "virtio-transitional", as a model is called; or empty
  address_type bus{};     ///< unset: PCI
};
device_name device_name_of(std::string_view driver);

// ---- what devices have in common; false: this is not one for the definition

bool read_device(argv_import& in, line_option& option, device& into);
bool read_pci_place(argv_import& in, line_option& option, device& into);
bool read_usb_place(argv_import& in, line_option& option, device& into);
/// Alias, boot order and option ROM.
void read_identity(argv_import& in, line_option& option, device& into);
void read_virtio(argv_import& in, line_option& option, virtio_options& into);
/// "0000:06:12.5" or "06:12.5"; none for what is no place.
std::optional<pci_address> pci_place_of(std::string_view text);
/// Whether a path lies in what a daemon makes for one run, so that the next run has another.
bool is_run_path(std::string_view path);

/// Reads a -device whose driver is `option.props["driver"]`.
using device_reader = bool (*)(argv_import&, line_option&, const device_name&);
struct device_row {
  std::string_view driver; ///< Without what says which bus.
  device_reader read;
};
/// Whether a -device is a USB controller: these are referred to from ahead of them.
bool is_usb_controller(std::string_view driver);
device_reader controller_reader(std::string_view base);
device_reader disk_reader(std::string_view base);
device_reader network_reader(std::string_view base);
device_reader chardev_reader(std::string_view base);
device_reader graphics_reader(std::string_view base);
device_reader other_reader(std::string_view base);

// ---- options, by what they are about; an option's reader is called once for each of it

using option_reader = void (*)(argv_import&, line_option&);
enum class option_shape : std::uint8_t { alone, text, list };
/// When an option is looked at. Those of `part` are found by what names them.
enum class option_phase : std::uint8_t { machine, controllers, devices, part };
struct option_row {
  std::string_view name;
  option_shape shape;
  std::string_view first_key;
  option_phase phase;
  option_reader read;
};

// machine
void read_name(argv_import& in, line_option& option);
void read_uuid(argv_import& in, line_option& option);
void read_machine(argv_import& in, line_option& option);
void read_accelerator(argv_import& in, line_option& option);
void read_enable_kvm(argv_import& in, line_option& option);
void read_cpu(argv_import& in, line_option& option);
void read_memory(argv_import& in, line_option& option);
void read_memory_path(argv_import& in, line_option& option);
void read_overcommit(argv_import& in, line_option& option);
void read_smp(argv_import& in, line_option& option);
void read_numa(argv_import& in, line_option& option);
void read_smbios(argv_import& in, line_option& option);
void read_fw_cfg(argv_import& in, line_option& option);
void read_rtc(argv_import& in, line_option& option);
void read_localtime(argv_import& in, line_option& option);
void read_boot(argv_import& in, line_option& option);
void read_kernel(argv_import& in, line_option& option);
void read_bios(argv_import& in, line_option& option);
void read_acpitable(argv_import& in, line_option& option);
void read_global(argv_import& in, line_option& option);
void read_no_acpi(argv_import& in, line_option& option);
void read_no_hpet(argv_import& in, line_option& option);
void read_no_reboot(argv_import& in, line_option& option);
void read_object(argv_import& in, line_option& option);
/// Memory of a backend, as `<memoryBacking>`; false when it says what XML can't. `main`: it is the guest's RAM, or a
/// cell's.
bool read_backend(argv_import& in, line_option& backend, bool main);
/// The nodes of the host that a backend's memory lies on, as a set: "0,2"; empty: anywhere.
std::string take_host_nodes(line_option& backend);
/// What of a backend is in `<numatune>`: for a cell, or the whole guest when negative.
bool read_host_nodes(argv_import& in, line_option& backend, int cell);
void finish_machine(argv_import& in);

// disks
void read_drive(argv_import& in, line_option& option);
void read_disk_letter(argv_import& in, line_option& option);
void read_bare_image(argv_import& in, line_option& option);
void read_filesystem(argv_import& in, line_option& option);
/// The image of `option`, a drive or a block node, as firmware (unit 0) or its variables (1).
bool read_flash(argv_import& in, line_option& option, unsigned unit);
bool read_pflash(argv_import& in, std::string_view node, unsigned unit);
void finish_disks(argv_import& in);

// network
void read_netdev(argv_import& in, line_option& option);
void read_nic(argv_import& in, line_option& option);
void read_net(argv_import& in, line_option& option);
void finish_network(argv_import& in);

// character devices
bool read_chardev(argv_import& in, std::string_view id, chardev_source& into);
void read_serial(argv_import& in, line_option& option);
void read_parallel(argv_import& in, line_option& option);
void read_monitor(argv_import& in, line_option& option);
void finish_chardevs(argv_import& in);

// graphics, sound
void read_vnc(argv_import& in, line_option& option);
void read_spice(argv_import& in, line_option& option);
void read_display(argv_import& in, line_option& option);
void read_display_word(argv_import& in, line_option& option);
void read_vga(argv_import& in, line_option& option);
void read_keymap(argv_import& in, line_option& option);
void read_soundhw(argv_import& in, line_option& option);
void read_audiodev(argv_import& in, line_option& option);
void finish_graphics(argv_import& in);

// others
void read_usb(argv_import& in, line_option& option);
void read_usbdevice(argv_import& in, line_option& option);
void read_pcidevice(argv_import& in, line_option& option);
void read_watchdog_model(argv_import& in, line_option& option);
void read_watchdog_action(argv_import& in, line_option& option);
void read_balloon(argv_import& in, line_option& option);
void finish_others(argv_import& in);
/// Leaves out what of controllers a definition had not said, where saying it would put them into another order.
void keep_order(std::vector<controller>& controllers);

} // namespace troupe
