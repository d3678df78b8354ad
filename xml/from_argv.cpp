#include "xml/from_argv.hpp"

#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

// ---- options that are not the guest's

void read_own(argv_import& in, line_option& option) {
  option.done = true;
  if (!in.is_libvirts)
    in.note(option, "left out: the supervisor sees to that itself");
}

void read_start_paused(argv_import& in, line_option& option) {
  option.done = true;
  if (!in.is_libvirts)
    in.note(option, "left out: a guest is started paused with 'virsh start --paused'");
}

/// Libvirt's ways with deprecated commands always hide them, too.
void read_compat(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    const auto* output = option.props.take("deprecated-output");
    const auto* input = option.props.take("deprecated-input");
    if (output == nullptr || *output != "hide")
      return false;
    auto& kind = in.guest.qemu.deprecation;
    if (input == nullptr || *input == "accept")
      kind = deprecation::omit;
    else if (*input == "reject")
      kind = deprecation::reject;
    else if (*input == "crash")
      kind = deprecation::crash;
    else
      in.refuse_value(option, "deprecated-input", "accept, reject, crash");
    return true;
  });
}

void read_no_defaults(argv_import& in, line_option& option) {
  option.done = true;
  in.no_defaults = true;
}

void read_incoming(argv_import& in, line_option& option) {
  option.done = true;
  in.note(option, "left out: where a guest migrates from is no part of its definition");
}

void read_handed_over(argv_import& in, line_option& option) {
  option.done = true;
  in.note(option, "left out: the descriptor belonged to whoever ran this line");
}

/// Makes what no reader has understood of a device of libvirt's part of `<qemu:override>`.
void override_the_rest(argv_import& in, line_option& option, const std::string& alias) {
  qemu_override_device device;
  device.alias = alias;
  for (auto& each : option.props.all) {
    if (each.used || each.is == arg_property::kind::null || each.key.find('.') != std::string::npos)
      continue;
    each.used = true;
    auto& property = device.frontend.emplace_back();
    property.name = each.key;
    property.value = each.value;
    if (each.is == arg_property::kind::text) {
      property.type = property_kind::string;
    } else if (each.is == arg_property::kind::boolean) {
      property.type = property_kind::bool_;
      property.value = each.value == "on" ? "true" : "false";
    } else {
      property.type = each.value.starts_with('-') ? property_kind::signed_ : property_kind::unsigned_;
    }
  }
  if (device.frontend.empty())
    return;
  in.note(option, "<qemu:override> has those properties that domain XML has no words for");
  in.guest.qemu.overrides.push_back(std::move(device));
}

void read_device_option(argv_import& in, line_option& option) {
  const auto* driver = option.props.peek("driver");
  if (driver == nullptr || driver->empty())
    in.refuse(option, "it names no driver: -device DRIVER[,property=value...] is accepted");
  const auto name = device_name_of(*driver);
  for (const auto find :
       {controller_reader, disk_reader, network_reader, chardev_reader, graphics_reader, other_reader})
    if (const auto read = find(name.base)) {
      const bool is_json = option.value->starts_with('{');
      const auto* id = option.props.peek("id");
      const auto alias = id == nullptr || !in.is_libvirts || !is_json ? std::string{} : *id;
      const auto overrides = in.guest.qemu.overrides.size();
      const bool went = in.attempt(option, [&] {
        option.props.drop("driver");
        if (!read(in, option, name))
          return false;
        if (!alias.empty())
          override_the_rest(in, option, alias);
        return true;
      });
      if (!went)
        in.guest.qemu.overrides.resize(overrides);
      return;
    }
}

// clang-format off
using enum option_shape;
using enum option_phase;
constexpr option_row rows[] = {
  {"-S", alone, "", machine, read_start_paused},
  {"-accel", list, "accel", machine, read_accelerator},
  {"-acpitable", list, "", machine, read_acpitable},
  {"-add-fd", text, "", machine, read_handed_over},
  {"-append", text, "", machine, read_kernel},
  {"-audiodev", list, "driver", devices, read_audiodev},
  {"-balloon", text, "", devices, read_balloon},
  {"-bios", text, "", machine, read_bios},
  {"-blockdev", list, "driver", part, nullptr},
  {"-boot", list, "order", machine, read_boot},
  {"-cdrom", text, "", devices, read_disk_letter},
  {"-chardev", list, "backend", part, nullptr},
  {"-chroot", text, "", machine, read_own},
  {"-compat", list, "", machine, read_compat},
  {"-cpu", list, "model", machine, read_cpu},
  {"-curses", alone, "", machine, read_display_word},
  {"-daemonize", alone, "", machine, read_own},
  {"-device", list, "driver", devices, read_device_option},
  {"-display", list, "type", machine, read_display},
  {"-drive", list, "file", devices, read_drive},
  {"-dtb", text, "", machine, read_kernel},
  {"-enable-kvm", alone, "", machine, read_enable_kvm},
  {"-fda", text, "", devices, read_disk_letter},
  {"-fdb", text, "", devices, read_disk_letter},
  {"-fsdev", list, "fsdriver", part, nullptr},
  {"-full-screen", alone, "", machine, read_display_word},
  {"-fw_cfg", list, "name", machine, read_fw_cfg},
  {"-global", list, "", machine, read_global},
  {"-hda", text, "", devices, read_disk_letter},
  {"-hdb", text, "", devices, read_disk_letter},
  {"-hdc", text, "", devices, read_disk_letter},
  {"-hdd", text, "", devices, read_disk_letter},
  {"-incoming", text, "", machine, read_incoming},
  {"-initrd", text, "", machine, read_kernel},
  {"-k", text, "", devices, read_keymap},
  {"-kernel", text, "", machine, read_kernel},
  {"-localtime", alone, "", machine, read_localtime},
  {"-m", list, "size", machine, read_memory},
  {"-machine", list, "type", machine, read_machine},
  {"-mem-path", text, "", machine, read_memory_path},
  {"-mem-prealloc", alone, "", machine, read_memory_path},
  {"-mon", list, "chardev", machine, read_monitor},
  {"-monitor", text, "", machine, read_monitor},
  {"-msg", text, "", machine, read_own},
  {"-name", list, "guest", machine, read_name},
  {"-net", list, "type", devices, read_net},
  {"-netdev", list, "type", devices, read_netdev},
  {"-nic", list, "type", devices, read_nic},
  {"-no-acpi", alone, "", machine, read_no_acpi},
  {"-no-hpet", alone, "", machine, read_no_hpet},
  {"-no-reboot", alone, "", machine, read_no_reboot},
  {"-no-shutdown", alone, "", machine, read_own},
  {"-no-user-config", alone, "", machine, read_own},
  {"-nodefaults", alone, "", machine, read_no_defaults},
  {"-nodefconfig", alone, "", machine, read_own},
  {"-nographic", alone, "", machine, read_display_word},
  {"-nouserconfig", alone, "", machine, read_own},
  {"-numa", list, "type", devices, read_numa},
  {"-object", list, "qom-type", devices, read_object},
  {"-overcommit", list, "", machine, read_overcommit},
  {"-parallel", text, "", devices, read_parallel},
  {"-pcidevice", list, "", devices, read_pcidevice},
  {"-pidfile", text, "", machine, read_own},
  {"-qmp", text, "", machine, read_monitor},
  {"-qmp-pretty", text, "", machine, read_monitor},
  {"-rtc", list, "base", machine, read_rtc},
  {"-runas", text, "", machine, read_own},
  {"-sandbox", text, "", machine, read_own},
  {"-sdl", alone, "", machine, read_display_word},
  {"-serial", text, "", devices, read_serial},
  {"-smbios", list, "", machine, read_smbios},
  {"-smp", list, "cpus", machine, read_smp},
  {"-soundhw", text, "", devices, read_soundhw},
  {"-spice", list, "", devices, read_spice},
  {"-tpmdev", list, "type", part, nullptr},
  {"-usb", alone, "", machine, read_usb},
  {"-usbdevice", text, "", devices, read_usbdevice},
  {"-uuid", text, "", machine, read_uuid},
  {"-vga", text, "", machine, read_vga},
  {"-virtfs", list, "fsdriver", devices, read_filesystem},
  {"-vnc", list, "display", devices, read_vnc},
  {"-watchdog", text, "", devices, read_watchdog_model},
  {"-watchdog-action", text, "", devices, read_watchdog_action},
};
// clang-format on
static_assert(std::ranges::is_sorted(rows, {}, &option_row::name));

/// Other spellings of an option of the table.
constexpr std::pair<std::string_view, std::string_view> spellings[] = {{"-M", "-machine"}};

const option_row* row_of(std::string_view name) {
  for (const auto& [other, usual] : spellings)
    if (name == other)
      name = usual;
  const auto row = std::ranges::lower_bound(rows, name, {}, &option_row::name);
  return row != std::end(rows) && row->name == name ? row : nullptr;
}

// ---- words to options

/// What libvirt and Troupe give QEMU themselves, whatever the definition.
constexpr std::string_view usual_environment[] = {"LC_ALL",
                                                  "LANG",
                                                  "PATH",
                                                  "HOME",
                                                  "USER",
                                                  "LOGNAME",
                                                  "XDG_DATA_HOME",
                                                  "XDG_CACHE_HOME",
                                                  "XDG_CONFIG_HOME",
                                                  "XDG_RUNTIME_DIR",
                                                  "QEMU_AUDIO_DRV",
                                                  "TMPDIR"};

bool is_assignment(std::string_view word) {
  const auto equals = word.find('=');
  return equals != std::string_view::npos && equals > 0 && !(word[0] >= '0' && word[0] <= '9') &&
         std::ranges::all_of(word.substr(0, equals), [](char c) {
           return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
         });
}

struct split_line {
  std::vector<std::pair<std::string, std::string>> env;
  std::string program;
  std::vector<std::string> rest;
};

result<split_line> split(std::string_view text) {
  auto words = shell_words(text);
  if (!words)
    return tl::make_unexpected(words.error());
  split_line out;
  auto word = words->begin();
  // "exec", "sudo" and "env" run what follows them.
  for (; word != words->end(); ++word)
    if (is_assignment(*word)) {
      const auto equals = word->find('=');
      out.env.emplace_back(word->substr(0, equals), word->substr(equals + 1));
    } else if (*word != "exec" && *word != "sudo" && *word != "env") {
      break;
    }
  if (word == words->end())
    return fail(errc::bad_argument,
                "the command line has no program: it must begin with QEMU's, as in 'qemu-system-x86_64 -m 512'");
  if (word->starts_with('-'))
    return fail(errc::bad_argument,
                fmt::format("the command line begins with '{}': it must begin with QEMU's program, as in "
                            "'qemu-system-x86_64 -m 512'",
                            *word));
  // A value of the environment may have lost its quotes on the way: the program is then the first word that looks like
  // one.
  if (!out.env.empty()) {
    const auto options = std::find_if(word, words->end(), [](const auto& w) { return w.starts_with('-'); });
    const auto program = std::find_if(word, options, [](const auto& w) {
      return w.find("qemu") != std::string::npos || w.find("kvm") != std::string::npos;
    });
    for (; program != options && word != program; ++word)
      out.env.back().second += " " + *word;
  }
  out.program = std::move(*word++);
  out.rest.assign(std::make_move_iterator(word), std::make_move_iterator(words->end()));
  return out;
}

/// The program's path: a bare name is looked for where distributions put it.
std::string program_path(const std::string& program) {
  return program.find('/') == std::string::npos ? "/usr/bin/" + program : program;
}

void read_options(argv_import& in, std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    line_option option;
    option.written = words[i];
    if (words[i].size() < 2 || words[i][0] != '-') {
      option.name = "image";
      in.options.push_back(std::move(option));
      continue;
    }
    option.name = words[i].starts_with("--") ? words[i].substr(1) : words[i];
    const auto* row = row_of(option.name);
    if (row != nullptr)
      option.name = row->name;
    const bool wants = row != nullptr ? row->shape != alone : i + 1 < words.size() && !words[i + 1].starts_with("-");
    if (wants) {
      if (i + 1 == words.size())
        in.refuse(option, "the line ends where its value should be");
      option.value = std::move(words[++i]);
    }
    if (row != nullptr && row->shape == list) {
      auto properties = option_properties(*option.value, row->first_key);
      if (!properties)
        in.refuse(option, properties.error().detail);
      option.props = std::move(*properties);
    }
    in.options.push_back(std::move(option));
  }
}

/// Libvirt and Troupe name the guest so, and give QEMU nothing of its own.
bool is_supervisors_line(argv_import& in) {
  const auto* name = in.find_option("-name");
  return name != nullptr && name->props.has("debug-threads") && name->value->starts_with("guest=") &&
         in.find_option("-nodefaults") != nullptr && in.find_option("-accel") != nullptr;
}

/// Finds the words that libvirt or Troupe took from a definition's `<qemu:commandline>`: ahead of the sandbox, behind the
/// last device and what there may be of displays and character devices.
void find_own_words(argv_import& in) {
  constexpr std::string_view theirs[] = {"-chardev", "-display", "-fsdev", "-full-screen",     "-k",
                                         "-spice",   "-tpmdev",  "-vnc",   "-watchdog-action"};
  const auto is_json = [](const line_option& option) { return option.value && option.value->starts_with('{'); };
  const auto end = std::ranges::find(in.options, "-sandbox", &line_option::name);
  if (end == in.options.end())
    return;
  auto begin = end;
  while (begin != in.options.begin() && !is_json(*std::prev(begin)))
    --begin;
  if (begin == in.options.begin())
    return; // of a QEMU that took no JSON
  begin = std::find_if(begin, end, [&](const auto& option) { return std::ranges::find(theirs, option.name) == std::end(theirs); });
  for (; begin != end; ++begin)
    begin->own = true;
}

/// The architecture after QEMU's program, as libvirt calls it.
std::string arch_of(std::string_view program, const emulator_facts* facts) {
  auto name = program.substr(program.find_last_of('/') + 1);
  constexpr std::string_view prefix = "qemu-system-";
  if (name.starts_with(prefix))
    name.remove_prefix(prefix.size());
  else
    name = facts != nullptr ? std::string_view{facts->arch} : "x86_64";
  name = name.substr(0, name.find_first_of(".-"));
  return name == "i386" ? "i686" : name == "arm" ? "armv7l" : std::string{name};
}

void run(argv_import& in, option_phase phase) {
  for (auto& option : in.options) {
    if (option.done || option.own)
      continue;
    if (option.name == "image") {
      if (phase == devices && !in.is_libvirts) // which has such words from a definition's own
        read_bare_image(in, option);
      continue;
    }
    const auto* row = row_of(option.name);
    if (row == nullptr || row->read == nullptr)
      continue;
    // Controllers first: devices are found on their buses.
    const bool controller = option.name == "-device" && option.props.has("driver") &&
                            controller_reader(device_name_of(*option.props.peek("driver")).base) != nullptr;
    if ((controller ? controllers : row->phase) == phase)
      row->read(in, option);
  }
}

/// The companions of a USB controller stand before it.
void number_usb_controllers(argv_import& in) {
  for (const auto& option : in.options) {
    const auto* driver = option.name == "-device" ? option.props.peek("driver") : nullptr;
    const auto* id = option.props.peek("id");
    if (driver != nullptr && id != nullptr && is_usb_controller(*driver))
      static_cast<void>(in.claim_bus(controller_type::usb, *id));
  }
}

void settle_environment(argv_import& in) {
  for (auto& [name, value] : in.env) {
    if (std::ranges::find(usual_environment, name) != std::end(usual_environment))
      continue;
    qemu_env kept;
    kept.name = name;
    kept.value = value;
    in.guest.qemu.envs.push_back(std::move(kept));
    in.notes.push_back(fmt::format("the environment variable {} is kept for QEMU as it is", name));
  }
}

void keep_the_rest(argv_import& in) {
  auto& args = in.guest.qemu.args;
  for (const auto& option : in.options) {
    if (option.done)
      continue;
    args.push_back(option.written);
    if (option.value)
      args.push_back(*option.value);
    in.note(option, "kept for QEMU as it is: domain XML has no words for all of it");
  }
  args.insert(args.end(), in.kept.begin(), in.kept.end());
}

/// What may stand in a comment of XML.
std::string comment_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '-' && !out.empty() && out.back() == '-')
      out += ' ';
    out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return out;
}

/// Calls `f` with every list of devices.
template <class F>
void each_list(device_list& d, F&& f) {
  f(d.disks), f(d.controllers), f(d.filesystems), f(d.interfaces), f(d.smartcards), f(d.serials), f(d.parallels);
  f(d.consoles), f(d.channels), f(d.inputs), f(d.tpms), f(d.graphics), f(d.audios), f(d.sounds), f(d.videos);
  f(d.hostdevs), f(d.redirdevs), f(d.hubs), f(d.watchdogs), f(d.balloons), f(d.rngs), f(d.panics), f(d.shmems);
  f(d.memories), f(d.cryptos), f(d.iommus), f(d.vsocks);
}

/// "hd" and 28: "hdac".
std::string disk_name(std::string_view prefix, unsigned index) {
  std::string letters;
  for (auto rest = index + 1; rest > 0; rest = (rest - 1) / 26)
    letters.insert(letters.begin(), static_cast<char>('a' + (rest - 1) % 26));
  return std::string{prefix} + letters;
}

constexpr std::size_t most_shown = 200, most_notes = 500;

std::string shown(const std::string& text) {
  return text.size() <= most_shown ? text : text.substr(0, most_shown) + "…";
}

} // namespace

// ---- argv_import

void argv_import::refuse(const line_option& option, std::string_view why) const {
  throw import_refusal{{errc::bad_argument, fmt::format("option '{}': {}", shown(option.text()), why)}};
}

void argv_import::refuse_value(const line_option& option, std::string_view key, std::string_view accepted) const {
  const auto* value = option.props.peek(key);
  refuse(option, fmt::format("'{}' of '{}' is not accepted; what is: {}", value == nullptr ? "" : shown(*value), key,
                             accepted));
}

std::string argv_import::accepted_words(const std::vector<std::string_view>& words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

void argv_import::note(const line_option& option, std::string_view what) {
  if (notes.size() == most_notes)
    notes.emplace_back("there is more, which is not listed");
  if (notes.size() > most_notes)
    return;
  notes.push_back(fmt::format("{}: {}", shown(option.text()), what));
}

void argv_import::keep(const line_option& option, std::string word, std::string value) {
  note(option, fmt::format("'{} {}' is kept for QEMU as it is: domain XML has no words for it", word, shown(value)));
  kept.push_back(std::move(word));
  kept.push_back(std::move(value));
}

void argv_import::leave_out(line_option& option, std::string_view why) {
  for (auto& each : option.props.all)
    if (!each.used) {
      each.used = true;
      note(option, fmt::format("'{}={}' is left out: {}", each.key, shown(each.value), why));
    }
}

line_option* argv_import::find(std::string_view name, std::string_view id) {
  if (!indexed_) {
    indexed_ = true;
    for (std::size_t i = 0; i < options.size(); ++i)
      for (const std::string_view key : {"id", "node-name"})
        if (const auto* value = options[i].props.peek(key))
          by_id_[{options[i].name, *value}].push_back(i);
  }
  const auto found = by_id_.find({std::string{name}, std::string{id}});
  if (found == by_id_.end())
    return nullptr;
  for (const auto i : found->second)
    if (!options[i].done)
      return &options[i];
  return nullptr;
}

line_option* argv_import::find_option(std::string_view name) {
  const auto found = std::ranges::find_if(options, [&](const auto& o) { return o.name == name && !o.done; });
  return found == options.end() ? nullptr : &*found;
}

const line_option* argv_import::find_option_any(std::string_view name) const {
  const auto found = std::ranges::find(options, name, &line_option::name);
  return found == options.end() ? nullptr : &*found;
}

line_option* argv_import::find_block(std::string_view node) {
  auto* found = find("-blockdev", node);
  return found != nullptr ? found : find("-drive", node);
}

argv_import::list_sizes argv_import::begin(line_option& option) {
  list_sizes sizes;
  each_list(guest.devices, [&](const auto& list) { sizes.push_back(list.size()); });
  disks_before_ = next_disk_;
  claimed_.clear();
  taken_.clear();
  take(option);
  return sizes;
}

void argv_import::take(line_option& option) {
  option.done = true;
  if (std::ranges::find(taken_, &option) == taken_.end())
    taken_.push_back(&option);
}

line_option* argv_import::last_taken(std::string_view name) {
  const auto found = std::find_if(taken_.rbegin(), taken_.rend(), [&](const auto* o) { return o->name == name; });
  return found == taken_.rend() ? nullptr : *found;
}

bool argv_import::all_understood() const {
  return std::ranges::all_of(taken_, [](const auto* o) { return o->props.unused() == nullptr; });
}

void argv_import::commit() {
  taken_.clear();
}

void argv_import::roll_back(const list_sizes& marks) {
  for (auto* option : taken_) {
    option->done = false;
    option->props.forget_use();
  }
  taken_.clear();
  next_disk_ = disks_before_;
  for (const auto& bus : claimed_)
    buses_.erase(bus);
  auto size = marks.begin();
  each_list(guest.devices,
            [&](auto& list) { list.erase(list.begin() + static_cast<std::ptrdiff_t>(*size++), list.end()); });
}

std::optional<std::uint64_t> argv_import::number(line_option& option, std::string_view key) {
  const auto* value = option.props.take(key);
  if (value == nullptr)
    return std::nullopt;
  const auto number = number_of(*value);
  if (!number)
    refuse_value(option, key, "a whole number");
  return number;
}

std::optional<bool> argv_import::flag(line_option& option, std::string_view key) {
  const auto* value = option.props.take(key);
  if (value == nullptr)
    return std::nullopt;
  const auto state = switch_of(*value);
  if (!state)
    refuse_value(option, key, "on, off");
  return state;
}

void argv_import::read(line_option& option, std::string_view key, std::string& into) {
  if (const auto* value = option.props.take(key))
    into = *value;
}

void argv_import::read(line_option& option, std::string_view key, on_off& into) {
  if (const auto state = flag(option, key))
    into = *state ? on_off::on : on_off::off;
}

void argv_import::read(line_option& option, std::string_view key, yes_no& into) {
  if (const auto state = flag(option, key))
    into = *state ? yes_no::yes : yes_no::no;
}

std::optional<unsigned> argv_import::audio_wish(const std::string& id) {
  const auto number = audio(id);
  const auto* first = find_option_any("-audiodev");
  const auto* first_id = first == nullptr ? nullptr : first->props.peek("id");
  return is_libvirts && first_id != nullptr && *first_id == id ? std::nullopt : std::optional{number};
}

bool argv_import::is_q35() const {
  return guest.os.machine == "q35" || guest.os.machine.starts_with("pc-q35-");
}

int argv_import::claim_bus(controller_type type, const std::string& id) {
  claimed_.emplace_back(type, id);
  if (const auto known = buses_.find({type, id}); known != buses_.end())
    return known->second;
  const auto is_free = [&](int index) {
    return std::ranges::none_of(buses_,
                                [&](const auto& each) { return each.first.first == type && each.second == index; });
  };
  int index = type == controller_type::pci ? 1 : 0; // pci.0 is the machine's own
  // Libvirt's names end in the index.
  const auto digits = id.find_last_not_of("0123456789");
  const auto wanted =
    digits == std::string::npos || id.starts_with("ua-") ? std::nullopt : number_of(id.substr(digits + 1));
  if (wanted && *wanted < 10'000 && is_libvirts && is_free(static_cast<int>(*wanted)))
    index = static_cast<int>(*wanted);
  while (!is_free(index))
    ++index;
  buses_[{type, id}] = index;
  return index;
}

std::optional<int> argv_import::bus_index(controller_type type, std::string_view id) const {
  const auto found = buses_.find({type, std::string{id}});
  return found == buses_.end() ? std::nullopt : std::optional{found->second};
}

unsigned argv_import::numbered(std::map<std::string, unsigned>& known, const std::string& id, std::string_view usual) {
  if (const auto found = known.find(id); found != known.end())
    return found->second;
  const auto wanted = id.starts_with(usual) ? number_of(std::string_view{id}.substr(usual.size())) : std::nullopt;
  const auto is_free = [&](std::uint64_t n) {
    return std::ranges::none_of(known, [&](const auto& each) { return each.second == n; });
  };
  std::uint64_t number = wanted && *wanted > 0 && *wanted < 65'536 && is_free(*wanted) ? *wanted : 1;
  while (!is_free(number))
    ++number;
  return known[id] = static_cast<unsigned>(number);
}

unsigned argv_import::iothread(const std::string& id) {
  return numbered(iothreads_, id, "iothread");
}

unsigned argv_import::audio(const std::string& id) {
  return numbered(audios_, id, "audio");
}

std::string argv_import::disk_target(std::string_view prefix, unsigned wanted) {
  auto& next = next_disk_[std::string{prefix}];
  const auto index = std::max(next, wanted);
  next = index + 1;
  const auto name = disk_name(prefix, index);
  disk_names_.insert(name);
  return name;
}

unsigned argv_import::free_disk(std::string_view prefix) {
  auto& index = free_disk_[std::string{prefix}];
  while (disk_names_.contains(disk_name(prefix, index)))
    ++index;
  return index;
}

std::string argv_import::named_disk(std::string_view prefix, unsigned index) {
  const auto name = disk_name(prefix, index);
  if (!disk_names_.insert(name).second)
    return {};
  auto& next = next_disk_[std::string{prefix}];
  next = std::max(next, index + 1);
  return name;
}

unsigned argv_import::index_in_name(std::string_view target, std::string_view prefix) {
  unsigned index = 0;
  for (const char c : target.substr(std::min(prefix.size(), target.size())))
    if (c >= 'a' && c <= 'z' && index < 20'000)
      index = index * 26 + static_cast<unsigned>(c - 'a') + 1;
  return index > 0 ? index - 1 : 0;
}

unsigned argv_import::next_disk(std::string_view prefix) const {
  const auto found = next_disk_.find(prefix);
  return found == next_disk_.end() ? 0 : found->second;
}

// ---- what devices have in common

device_name device_name_of(std::string_view driver) {
  device_name out;
  for (const std::string_view kind : {"-non-transitional", "-transitional"})
    if (driver.ends_with(kind)) {
      driver.remove_suffix(kind.size());
      out.transition = "virtio" + std::string{kind};
      break;
    }
  struct suffix_row {
    std::string_view suffix;
    address_type bus;
  };
  constexpr suffix_row suffixes[] = {
    {"-pci", address_type::unset}, {"-ccw", address_type::ccw}, {"-device", address_type::virtio_mmio}};
  if (driver.starts_with("virtio-") || driver.starts_with("vhost-"))
    for (const auto& row : suffixes)
      if (driver.ends_with(row.suffix)) {
        driver.remove_suffix(row.suffix.size());
        out.bus = row.bus;
        break;
      }
  out.base = driver;
  return out;
}

std::optional<pci_address> pci_place_of(std::string_view text) {
  pci_address out;
  const auto part = [&](char end, unsigned& into) {
    const auto stop = text.find(end);
    if (stop == std::string_view::npos || !parse_number(text.substr(0, stop), into, 16))
      return false;
    text.remove_prefix(stop + 1);
    return true;
  };
  if (std::ranges::count(text, ':') == 2 && !part(':', out.domain))
    return std::nullopt;
  if (!part(':', out.bus) || !part('.', out.slot) || !parse_number(text, out.function, 16))
    return std::nullopt;
  return out;
}

bool is_run_path(std::string_view path) {
  return path.find("/domain-") != std::string_view::npos;
}

void read_identity(argv_import& in, line_option& option, device& into) {
  in.read(option, "id", into.alias);
  if (!into.alias.starts_with("ua-"))
    into.alias.clear(); // libvirt's own are given again, and no others are kept
  if (const auto place = in.number(option, "bootindex"))
    into.boot_order = static_cast<unsigned>(std::min<std::uint64_t>(*place, 65'535));
  if (option.props.has("romfile") || option.props.has("rombar")) {
    into.rom.emplace();
    if (const auto bar = in.number(option, "rombar"))
      into.rom->bar = *bar ? on_off::on : on_off::off;
    in.read(option, "romfile", into.rom->file);
    if (into.rom->file.empty() && into.rom->bar == on_off::unset)
      into.rom->enabled = yes_no::no;
  }
}

bool read_pci_place(argv_import& in, line_option& option, device& into) {
  auto& at = into.address;
  std::optional<int> bus = 0;
  if (const auto* name = option.props.take("bus");
      name != nullptr && *name != "pci" && *name != "pci.0" && *name != "pcie.0")
    bus = in.bus_index(controller_type::pci, *name);
  if (!bus)
    return false;
  in.read(option, "acpi-index", into.acpi_index);
  in.read(option, "multifunction", at.pci.multifunction);
  const auto* addr = option.props.take("addr");
  if (addr == nullptr) {
    // A root port has one place.
    if (*bus == 0)
      return at.pci.multifunction == on_off::unset;
    at.type = address_type::pci;
    at.pci.bus = static_cast<unsigned>(*bus);
    at.pci.slot = 0;
    return true;
  }
  const auto dot = addr->find('.');
  const auto hexadecimal = [&](std::string_view text, unsigned& out) {
    return parse_number(text.starts_with("0x") ? text.substr(2) : text, out, 16);
  };
  if (!hexadecimal(std::string_view{*addr}.substr(0, dot), at.pci.slot) || at.pci.slot > 31 ||
      (dot != std::string::npos &&
       (!hexadecimal(std::string_view{*addr}.substr(dot + 1), at.pci.function) || at.pci.function > 7)))
    in.refuse_value(option, "addr", "a slot from 0 to 0x1f and a function from 0 to 7, such as 0x5 or 0x5.0x1");
  at.type = address_type::pci;
  at.pci.bus = static_cast<unsigned>(*bus);
  return true;
}

bool read_usb_place(argv_import& in, line_option& option, device& into) {
  auto& at = into.address;
  const auto* name = option.props.take("bus");
  const auto* port = option.props.take("port");
  if (name != nullptr) {
    std::string_view id = *name;
    const auto dot = id.find_last_of('.');
    id = id.substr(0, dot);
    const auto index = id == "usb-bus" ? std::optional{0} : in.bus_index(controller_type::usb, id);
    if (!index)
      return false;
    at.bus = static_cast<unsigned>(*index);
  }
  if (port != nullptr) {
    at.type = address_type::usb;
    at.port = *port;
  }
  // A bus alone is a place only with the port libvirt then gives; the first bus is where it looks first.
  return name == nullptr || port != nullptr || at.bus == 0;
}

bool read_device(argv_import& in, line_option& option, device& into) {
  read_identity(in, option, into);
  return read_pci_place(in, option, into);
}

void read_virtio(argv_import& in, line_option& option, virtio_options& into) {
  in.read(option, "iommu_platform", into.iommu);
  in.read(option, "ats", into.ats);
  in.read(option, "packed", into.packed);
  in.read(option, "page-per-vq", into.page_per_vq);
}

// ---- the whole

result<std::string> emulator_of_argv(std::string_view text) {
  auto line = split(text);
  if (!line)
    return tl::make_unexpected(line.error());
  return program_path(line->program);
}

result<imported_domain> domain_from_argv(std::string_view text, const emulator_facts* facts) {
  auto line = split(text);
  if (!line)
    return tl::make_unexpected(line.error());
  argv_import in;
  in.facts = facts;
  in.env = std::move(line->env);
  in.guest.type = virt_type::qemu;
  in.guest.os.type = "hvm";
  in.guest.devices.emulator = program_path(line->program);
  in.guest.os.arch = arch_of(line->program, facts);
  in.guest.name = line->program.substr(line->program.find_last_of('/') + 1);
  try {
    read_options(in, line->rest);
    in.is_libvirts = is_supervisors_line(in);
    if (in.is_libvirts)
      find_own_words(in);
    run(in, machine);
    number_usb_controllers(in);
    run(in, controllers);
    run(in, devices);
    finish_machine(in);
    finish_disks(in);
    finish_network(in);
    finish_chardevs(in);
    finish_graphics(in);
    finish_others(in);
    keep_order(in.guest.devices.controllers);
  } catch (import_refusal& refusal) {
    return tl::make_unexpected(std::move(refusal.why));
  }
  settle_environment(in);
  keep_the_rest(in);
  imported_domain out{std::move(in.guest), std::move(in.notes)};
  // Escapes in JSON, too, can make what XML has no way to write.
  if (const auto written = parse_xml(imported_xml(out)); !written)
    return fail(errc::bad_argument, fmt::format("the command line has characters that XML cannot hold (control characters, or "
                                                "bytes that are not UTF-8), where its definition has {}",
                                                written.error().detail));
  return out;
}

result<void> complete_imported(imported_domain& imported, const emulator_facts& facts, const random_source& random) {
  const auto machine = imported.guest.os.machine;
  auto known = facts;
  // Of a machine that is not known here the line is proof enough.
  if (known.machines.empty() && !machine.empty()) {
    auto& row = known.machines.emplace_back();
    row.name = machine;
    row.max_cpus = 512;
  }
  auto went = complete_definition(imported.guest, known, random);
  if (went && !machine.empty())
    imported.guest.os.machine = machine;
  return went;
}

std::string imported_xml(const imported_domain& imported) {
  std::string out;
  for (const auto& note : imported.notes)
    out += fmt::format("<!-- {} -->\n", comment_text(note));
  auto guest = imported.guest;
  keep_order(guest.devices.controllers);
  return out + write_domain(guest, {.secure = true, .inactive = true});
}

} // namespace troupe
