#include "runtime/settings.hpp"

#include "runtime/read_file.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <limits>
#include <unistd.h>
#include <variant>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace troupe {
namespace {

using text_list = std::vector<std::string>;
using setting_value = std::variant<std::int64_t, std::string, text_list>;

constexpr std::size_t most_bytes = 1 << 20;

// Setters say what is wrong with a value; empty: nothing. Showers write what a setter reads.

template <auto Member>
std::string set_text(qemu_settings& to, const setting_value& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr)
    return "takes a \"string\"";
  to.*Member = *text;
  return {};
}

std::string quoted(const std::string& text) {
  return text.find('"') == std::string::npos ? "\"" + text + "\"" : "'" + text + "'";
}

template <auto Member>
std::string show_text(const qemu_settings& from) {
  return quoted(from.*Member);
}

/// Absolute, or not set.
template <auto Member>
std::string set_path(qemu_settings& to, const setting_value& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && !text->empty() && text->front() != '/')
    return fmt::format("'{}' does not begin with '/'", *text);
  return set_text<Member>(to, value);
}

template <auto Member, std::int64_t Least, std::int64_t Most>
std::string set_number(qemu_settings& to, const setting_value& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr || *number < Least || *number > Most)
    return fmt::format("takes a number from {} to {}", Least, Most);
  to.*Member = std::remove_cvref_t<decltype(to.*Member)>(*number);
  return {};
}

template <auto Member>
std::string show_number(const qemu_settings& from) {
  return fmt::format("{}", from.*Member);
}

template <auto Member>
std::string show_ms(const qemu_settings& from) {
  return fmt::format("{}", (from.*Member).count());
}

template <auto Member>
std::string set_flag(qemu_settings& to, const setting_value& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr || *number < 0 || *number > 1)
    return "takes 0 or 1";
  to.*Member = *number == 1;
  return {};
}

template <auto Member>
std::string show_flag(const qemu_settings& from) {
  return from.*Member ? "1" : "0";
}

std::string set_seccomp(qemu_settings& to, const setting_value& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr || *number < -1 || *number > 1)
    return "takes -1, 0 or 1";
  to.seccomp_sandbox = *number < 0 ? std::optional<bool>{} : *number == 1;
  return {};
}

std::string show_seccomp(const qemu_settings& from) {
  return from.seccomp_sandbox ? (*from.seccomp_sandbox ? "1" : "0") : "-1";
}

/// A string stands for a list of one; an empty one for none.
std::string set_core(qemu_settings& to, const setting_value& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  const auto* text = std::get_if<std::string>(&value);
  if ((!number || *number < 0) && (!text || *text != "unlimited"))
    return "takes a number from 0, or \"unlimited\"";
  to.max_core = number ? static_cast<std::uint64_t>(*number) : std::numeric_limits<std::uint64_t>::max();
  return {};
}

std::string show_core(const qemu_settings& from) {
  return from.max_core == std::numeric_limits<std::uint64_t>::max() ? "\"unlimited\"" : std::to_string(from.max_core);
}

std::string as_list(const setting_value& value, text_list& list) {
  if (const auto* text = std::get_if<std::string>(&value))
    list = text->empty() ? text_list{} : text_list{*text};
  else if (const auto* texts = std::get_if<text_list>(&value))
    list = *texts;
  else
    return "takes a [ list ] of strings";
  return {};
}

std::string show_texts(const text_list& texts) {
  std::string shown = "[";
  for (const auto& text : texts)
    shown += (shown.size() > 1 ? ", " : " ") + quoted(text);
  return shown + " ]";
}

template <auto Member>
std::string show_list(const qemu_settings& from) {
  return show_texts(from.*Member);
}

std::string set_namespaces(qemu_settings& to, const setting_value& value) {
  return as_list(value, to.namespaces);
}

std::string set_controllers(qemu_settings& to, const setting_value& value) {
  return as_list(value, to.cgroup_controllers.emplace());
}

std::string show_controllers(const qemu_settings& from) {
  return show_texts(from.cgroup_controllers.value_or(text_list{"devices"}));
}

std::string set_device_acl(qemu_settings& to, const setting_value& value) {
  text_list paths;
  if (auto wrong = as_list(value, paths); !wrong.empty())
    return wrong;
  for (const auto& path : paths)
    if (!path.starts_with('/'))
      return fmt::format("'{}' does not begin with '/'", path);
  to.cgroup_device_acl = std::move(paths);
  return {};
}

std::string set_drivers(qemu_settings& to, const setting_value& value) {
  text_list drivers;
  if (auto wrong = as_list(value, drivers); !wrong.empty())
    return wrong;
  constexpr std::string_view known[] = {"none", "dac", "apparmor", "selinux"};
  for (const auto& driver : drivers)
    if (std::find(std::begin(known), std::end(known), driver) == std::end(known))
      return fmt::format("'{}' is no security driver: there are {}", driver, fmt::join(known, ", "));
  to.security_driver = std::move(drivers);
  return {};
}

std::string set_stdio_handler(qemu_settings& to, const setting_value& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr || (*text != "file" && *text != "logd"))
    return "takes \"file\" or \"logd\"";
  to.stdio_handler = *text;
  return {};
}

std::string set_networks(qemu_settings& to, const setting_value& value) {
  text_list entries;
  if (auto wrong = as_list(value, entries); !wrong.empty())
    return wrong;
  decltype(to.networks) networks;
  for (const auto& entry : entries) {
    const auto equals = entry.rfind('='); // names of bridges have none
    const auto bridge = equals == std::string::npos ? std::string{} : entry.substr(equals + 1);
    if (equals == 0 || bridge.empty())
      return fmt::format("'{}' is not of the form \"network=bridge\"", entry);
    if (bridge.size() > 15 || bridge.find_first_of("/: \t\n") != std::string::npos) // what Linux calls a device
      return fmt::format("'{}' cannot be the name of a bridge", bridge);
    if (!networks.emplace(entry.substr(0, equals), bridge).second)
      return fmt::format("network '{}' is there twice", entry.substr(0, equals));
  }
  to.networks = std::move(networks);
  return {};
}

std::string show_networks(const qemu_settings& from) {
  text_list entries;
  for (const auto& [network, bridge] : from.networks)
    entries.push_back(network + "=" + bridge);
  return show_texts(entries);
}

// Why a value that can be read has no effect here; empty: it has.

std::string without_namespaces(const qemu_settings& set) {
  return set.namespaces.empty() ? "" : "guests have no mount namespaces of their own";
}

std::string without_logd(const qemu_settings& set) {
  return set.stdio_handler == "file" ? "" : "there is no virtlogd: logs are written as with \"file\"";
}

std::string without_locks(const qemu_settings& set) {
  return set.lock_manager.empty() ? "" : "there is no lock manager: images are not locked beyond what QEMU does";
}

// These wait for what they would steer.

std::string without_dumps(const qemu_settings& set) {
  return set.auto_dump_path.empty() ? "" : "the memory of crashed guests is not kept";
}

struct setting_row {
  std::string_view key;
  const char* means; ///< Lines of 76 columns at most.
  std::string (*set)(qemu_settings&, const setting_value&);
  std::string (*show)(const qemu_settings&);
  std::string (*without_effect)(const qemu_settings&) = nullptr;
};

using s = qemu_settings;
constexpr auto most_unsigned = std::int64_t{std::numeric_limits<unsigned>::max()};

/// A row a setting, in the order of the sample.
constexpr setting_row setting_rows[] = {
  {"user",
   "User that QEMU runs as in a system instance: a name, or a number as\n"
   "\"+64055\". Empty: libvirt-qemu, or qemu, if there is such a user; else root.",
   set_text<&s::user>, show_text<&s::user>},
  {"group", "Group that QEMU runs as, in the same forms. Empty: the user's own.", set_text<&s::group>,
   show_text<&s::group>},
  {"dynamic_ownership",
   "1: files of a guest are given to user and group while it runs, and back\n"
   "afterwards. 0: their owners are left alone.",
   set_flag<&s::dynamic_ownership>, show_flag<&s::dynamic_ownership>},
  {"remember_owner",
   "1: a file that is taken bears a note of whose it was, as libvirt writes them,\n"
   "so that of two daemons on one host the last one gives it back.",
   set_flag<&s::remember_owner>, show_flag<&s::remember_owner>},
  {"security_driver",
   "Confinement besides users: \"apparmor\", \"selinux\", or \"none\". Empty: what\n"
   "the host enforces. Of several the first counts.",
   set_drivers, show_list<&s::security_driver>},
  {"security_default_confined", "1: a guest whose definition does not say otherwise is confined.",
   set_flag<&s::security_default_confined>, show_flag<&s::security_default_confined>},
  {"security_require_confined", "1: a guest that is not confined may not start.",
   set_flag<&s::security_require_confined>, show_flag<&s::security_require_confined>},
  {"apparmor_libvirt_names",
   "1: the AppArmor profile of a guest is called libvirt-UUID rather than\n"
   "troupe-UUID, for what knows guests by that. Not a setting of libvirt's.",
   set_flag<&s::apparmor_libvirt_names>, show_flag<&s::apparmor_libvirt_names>},
  {"clear_emulator_capabilities",
   "1: QEMU has no capabilities, also when its user is root. 0: one of root has\n"
   "all that the daemon has.",
   set_flag<&s::clear_emulator_capabilities>, show_flag<&s::clear_emulator_capabilities>},
  {"namespaces", "Read for the sake of existing files; it has no effect.", set_namespaces, show_list<&s::namespaces>,
   without_namespaces},
  {"cgroup_controllers",
   "With \"devices\", each QEMU of a system instance has a control group of its\n"
   "own, which limits the device nodes that it may open. Others have no effect.",
   set_controllers, show_controllers},
  {"cgroup_device_acl",
   "The device nodes that every QEMU may open besides those of its disks,\n"
   "assigned devices and terminals.",
   set_device_acl, show_list<&s::cgroup_device_acl>},
  {"seccomp_sandbox",
   "1: QEMU filters its own system calls, as far as it does not need them.\n"
   "0: it does not. -1: the default, which is 1.",
   set_seccomp, show_seccomp},
  {"landlock",
   "1: where the kernel has Landlock, QEMU can open nothing but what its\n"
   "definition and the headers of its images name, and what every QEMU needs. A\n"
   "file that an administrator's monitor command or <qemu:commandline> has QEMU\n"
   "open in another way is refused. 0: it is not used. Not a setting of libvirt's.",
   set_flag<&s::landlock>, show_flag<&s::landlock>},
  {"vnc_listen", "Address that VNC servers listen on unless a definition has one.", set_text<&s::vnc_listen>,
   show_text<&s::vnc_listen>},
  {"vnc_password",
   "Password of VNC servers unless a definition has one. Empty: none. VNC\n"
   "looks at its first 8 characters only.",
   set_text<&s::vnc_password>, show_text<&s::vnc_password>},
  {"spice_listen", "Address that SPICE servers listen on unless a definition has one.", set_text<&s::spice_listen>,
   show_text<&s::spice_listen>},
  {"spice_password", "Password of SPICE servers unless a definition has one. Empty: none.",
   set_text<&s::spice_password>, show_text<&s::spice_password>},
  {"remote_display_port_min", "Lowest port that is given to a VNC or SPICE server by itself.",
   set_number<&s::remote_display_port_min, 5900, 65535>, show_number<&s::remote_display_port_min>},
  {"remote_display_port_max", "Highest port that is given to a VNC or SPICE server by itself.",
   set_number<&s::remote_display_port_max, 5900, 65535>, show_number<&s::remote_display_port_max>},
  {"auto_dump_path",
   "Directory of the memory of guests that crashed and are to be dumped. Empty:\n"
   "dump in the state directory.",
   set_path<&s::auto_dump_path>, show_text<&s::auto_dump_path>, without_dumps},
  {"set_process_name", "1: ps(1) shows a QEMU as \"qemu:NAME\".", set_flag<&s::set_process_name>,
   show_flag<&s::set_process_name>},
  {"max_processes", "Most processes and threads of QEMU's user. 0: as many as the daemon's own.",
   set_number<&s::max_processes, 0, most_unsigned>, show_number<&s::max_processes>},
  {"max_files", "Most files a QEMU may have open. 0: as many as the daemon.",
   set_number<&s::max_files, 0, most_unsigned>, show_number<&s::max_files>},
  {"max_core",
   "The most bytes of the core that a QEMU leaves when it crashes: a number, or\n"
   "\"unlimited\".",
   set_core, show_core},
  {"dump_guest_core",
   "1: such a core holds the guest's memory, unless its definition says\n"
   "otherwise by <memory dumpCore='off'/>.",
   set_flag<&s::dump_guest_core>, show_flag<&s::dump_guest_core>},
  {"stdio_handler", "Read for the sake of existing files; logs are written as with \"file\".", set_stdio_handler,
   show_text<&s::stdio_handler>, without_logd},
  {"lock_manager", "Read for the sake of existing files; it has no effect.", set_text<&s::lock_manager>,
   show_text<&s::lock_manager>, without_locks},
  {"networks",
   "What a definition's <source network='NAME'/> is connected to, as\n"
   "\"NAME=BRIDGE\", or \"NAME=user\" for QEMU's user-mode network. In a session\n"
   "instance every network is user-mode. Not a setting of libvirt's.",
   set_networks, show_networks},
  {"grace_ms",
   "Milliseconds from asking a QEMU to end until it is killed. Not a setting of\n"
   "libvirt's.",
   set_number<&s::grace_ms, 0, 600'000>, show_ms<&s::grace_ms>},
  {"qmp_timeout_ms",
   "Milliseconds a caller waits for QEMU's answer to one command. The command\n"
   "stays in flight. Not a setting of libvirt's.",
   set_number<&s::qmp_timeout_ms, 100, 3'600'000>, show_ms<&s::qmp_timeout_ms>},
};

/// Keys that libvirt's daemon obeys and we do not, yet or ever; warned of as such. In order.
constexpr std::string_view foreign_keys[] = {
  "allow_disk_format_probing",
  "auto_dump_bypass_cache",
  "auto_start_bypass_cache",
  "backup_tls_x509_cert_dir",
  "backup_tls_x509_secret_uuid",
  "backup_tls_x509_verify",
  "bridge_helper",
  "capability_filters",
  "chardev_tls",
  "chardev_tls_x509_cert_dir",
  "chardev_tls_x509_secret_uuid",
  "chardev_tls_x509_verify",
  "dbus_daemon",
  "default_tls_x509_cert_dir",
  "default_tls_x509_secret_uuid",
  "default_tls_x509_verify",
  "deprecation_behavior",
  "dump_image_format",
  "gluster_debug_level",
  "hugetlbfs_mount",
  "keepalive_count",
  "keepalive_interval",
  "mac_filter",
  "max_queued",
  "max_threads_per_process",
  "memory_backing_dir",
  "migrate_tls_force",
  "migrate_tls_x509_cert_dir",
  "migrate_tls_x509_secret_uuid",
  "migrate_tls_x509_verify",
  "migration_address",
  "migration_host",
  "migration_port_max",
  "migration_port_min",
  "nbd_tls",
  "nbd_tls_x509_cert_dir",
  "nbd_tls_x509_secret_uuid",
  "nographics_allow_host_audio",
  "nvram",
  "pr_helper",
  "qemu_bridge_helper",
  "relaxed_acs_check",
  "remote_websocket_port_max",
  "remote_websocket_port_min",
  "save_image_format",
  "sched_core",
  "slirp_helper",
  "snapshot_image_format",
  "spice_auto_unix_socket",
  "spice_sasl",
  "spice_sasl_dir",
  "spice_tls",
  "spice_tls_x509_cert_dir",
  "swtpm_group",
  "swtpm_user",
  "virtiofsd_debug",
  "vnc_allow_host_audio",
  "vnc_auto_unix_socket",
  "vnc_sasl",
  "vnc_sasl_dir",
  "vnc_tls",
  "vnc_tls_x509_cert_dir",
  "vnc_tls_x509_secret_uuid",
  "vnc_tls_x509_verify",
  "vxhs_tls",
  "vxhs_tls_x509_cert_dir",
};
static_assert(std::is_sorted(std::begin(foreign_keys), std::end(foreign_keys)));

bool begins_key(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Reads values off a text, and counts its lines. Where it fails, `error` has the reason.
class settings_reader {
public:
  explicit settings_reader(std::string_view text) : rest_{text} {}

  std::size_t line() const { return line_; }
  const std::string& error() const { return error_; }

  /// Goes to the next line that says something; false: there is none.
  bool next_entry() {
    skip_lines();
    return !rest_.empty();
  }

  bool key(std::string& key) {
    if (!begins_key(rest_.front()))
      return wrong("expected a setting: key = value");
    const auto end = std::find_if_not(rest_.begin(), rest_.end(),
                                      [](char c) { return begins_key(c) || is_digit(c) || c == '.' || c == '-'; });
    key.assign(rest_.begin(), end);
    take(key.size());
    skip_blanks();
    if (!take_if("="))
      return wrong(fmt::format("expected '=' after '{}'", key));
    return true;
  }

  bool value(setting_value& value) {
    skip_blanks();
    if (rest_.empty())
      return wrong("expected a value after '='");
    const char first = rest_.front();
    if (first == '[')
      return list(value.emplace<text_list>());
    if (first == '"' || first == '\'')
      return text(value.emplace<std::string>());
    if (is_digit(first) || first == '-' || first == '+')
      return number(value.emplace<std::int64_t>());
    return wrong("expected a number, a \"string\" or a [ list ] after '='");
  }

  bool end_of_line() {
    skip_blanks();
    if (!rest_.empty() && rest_.front() != '\n' && rest_.front() != '#')
      return wrong("expected nothing more on this line");
    return true;
  }

private:
  bool wrong(std::string why) {
    error_ = std::move(why);
    return false;
  }

  void take(std::size_t count) {
    line_ +=
      static_cast<std::size_t>(std::count(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(count), '\n'));
    rest_.remove_prefix(count);
  }

  bool take_if(std::string_view what) {
    if (!rest_.starts_with(what))
      return false;
    take(what.size());
    return true;
  }

  void skip_blanks() { take(std::min(rest_.find_first_not_of(" \t\r"), rest_.size())); }

  /// Blanks, ends of lines and comments.
  void skip_lines() {
    for (;;) {
      take(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
      if (rest_.empty() || rest_.front() != '#')
        return;
      take(std::min(rest_.find('\n'), rest_.size()));
    }
  }

  bool number(std::int64_t& number) {
    take_if("+");
    const auto [end, failed] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    if (failed != std::errc{})
      return wrong("this number cannot be read or is too large");
    take(static_cast<std::size_t>(end - rest_.data()));
    return true;
  }

  bool text(std::string& text) {
    const bool over_lines = take_if("\"\"\"");
    const std::string_view quote = over_lines ? "\"\"\"" : rest_.substr(0, 1);
    if (!over_lines)
      take(1);
    const auto end = rest_.find(quote);
    const auto content = rest_.substr(0, std::min(end, rest_.size()));
    if (end == std::string_view::npos || (!over_lines && content.find('\n') != std::string_view::npos))
      return wrong(fmt::format("the string that begins here has no {} at its end", quote));
    text = content;
    take(end + quote.size());
    return true;
  }

  bool list(text_list& list) {
    take(1);
    for (;;) {
      skip_lines();
      if (take_if("]"))
        return true;
      if (rest_.empty() || (rest_.front() != '"' && rest_.front() != '\''))
        return wrong("expected a \"string\" or ']' in the list");
      if (!text(list.emplace_back()))
        return false;
      skip_lines();
      if (!take_if(",") && !rest_.starts_with("]"))
        return wrong("expected ',' or ']' in the list");
    }
  }

  std::string_view rest_;
  std::size_t line_ = 1;
  std::string error_;
};

} // namespace

result<settings_read> parse_settings(std::string_view text, std::string_view name) {
  if (text.size() > most_bytes)
    return fail(errc::bad_settings,
                fmt::format("{}: {} bytes are no settings, at most {} are read", name, text.size(), most_bytes));
  settings_read read;
  settings_reader reader{text};
  const auto failure = [&](std::size_t line, std::string_view why) {
    return fail(errc::bad_settings, fmt::format("{}:{}: {}", name, line, why));
  };
  std::size_t last_port_line = 0;
  while (reader.next_entry()) {
    const auto line = reader.line();
    std::string key;
    setting_value value;
    if (!reader.key(key) || !reader.value(value) || !reader.end_of_line())
      return failure(reader.line(), reader.error());
    const auto* row =
      std::find_if(std::begin(setting_rows), std::end(setting_rows), [&](const auto& r) { return r.key == key; });
    if (row == std::end(setting_rows)) {
      const bool foreign = std::binary_search(std::begin(foreign_keys), std::end(foreign_keys), std::string_view{key});
      read.warnings.push_back(
        fmt::format("{}:{}: '{}' {}", name, line, key,
                    foreign ? "has no effect here" : "is no setting that we know; it is ignored"));
      continue;
    }
    if (const auto wrong = row->set(read.settings, value); !wrong.empty())
      return failure(line, fmt::format("{}: {}", key, wrong));
    if (row->without_effect != nullptr)
      if (const auto why = row->without_effect(read.settings); !why.empty())
        read.warnings.push_back(fmt::format("{}:{}: '{}' has no effect: {}", name, line, key, why));
    if (key.starts_with("remote_display_port_"))
      last_port_line = line;
  }
  if (read.settings.remote_display_port_min > read.settings.remote_display_port_max)
    return failure(last_port_line,
                   fmt::format("remote_display_port_min, {}, is above remote_display_port_max, {}",
                               read.settings.remote_display_port_min, read.settings.remote_display_port_max));
  return read;
}

result<settings_read> read_settings(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT)
    return settings_read{};
  const auto text = read_file(path, most_bytes);
  return text ? parse_settings(*text, path) : tl::make_unexpected(text.error());
}

namespace {

/// A value whose lists are broken into lines that begin with `mark`.
std::string on_lines(std::string value, std::string_view mark) {
  constexpr std::size_t most_columns = 60; // beside a key
  for (std::size_t start = 0, comma = 0; value.size() - start > most_columns; start = comma) {
    comma = value.rfind(", ", start + most_columns);
    if (comma == std::string::npos || comma <= start)
      break;
    value.replace(comma, 2, fmt::format(",\n{}", mark));
    comma += 2;
  }
  return value;
}

} // namespace

std::string sample_settings() {
  const qemu_settings defaults;
  std::string sample =
    "# Settings of trouped. Those that libvirt has too are named, and mean, as there.\n"
    "# A line is: key = value; a value is a number, a \"string\" or a [ \"list\", \"of strings\" ].\n"
    "# What follows are the defaults.\n";
  for (const auto& row : setting_rows) {
    sample += "\n# ";
    for (const char* c = row.means; *c != '\0'; ++c) {
      sample += *c;
      if (*c == '\n')
        sample += "# ";
    }
    sample += fmt::format("\n#{} = {}\n", row.key, on_lines(row.show(defaults), "#"));
  }
  return sample;
}

} // namespace troupe
