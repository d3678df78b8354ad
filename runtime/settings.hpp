#pragma once

#include "runtime/error.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// What qemu.conf says, with the defaults of what it does not. A member is named as its key; `setting_rows` in the
/// source file says what each means, and so does docs/qemu.conf.
struct qemu_settings {
  std::string user;  ///< Empty: not set.
  std::string group; ///< Empty: not set.
  bool dynamic_ownership = true;
  bool remember_owner = true;
  std::vector<std::string> security_driver; ///< Empty: whatever the host enforces.
  bool security_default_confined = true;
  bool security_require_confined = false;
  bool apparmor_libvirt_names = false;
  bool clear_emulator_capabilities = true;
  bool landlock = true;
  std::vector<std::string> namespaces; ///< Read and not obeyed.
  std::optional<std::vector<std::string>> cgroup_controllers; ///< Absent: all there are. Only "devices" is used.
  std::vector<std::string> cgroup_device_acl{"/dev/null",    "/dev/full", "/dev/zero", "/dev/random",
                                             "/dev/urandom", "/dev/ptmx", "/dev/kvm"}; ///< What every QEMU may open.
  std::optional<bool> seccomp_sandbox; ///< Absent: QEMU's filter where QEMU has one.

  std::string vnc_listen = "127.0.0.1";
  std::string vnc_password; ///< Empty: none.
  std::string spice_listen = "127.0.0.1";
  std::string spice_password; ///< Empty: none.
  unsigned remote_display_port_min = 5900;
  unsigned remote_display_port_max = 65535;

  std::string auto_dump_path; ///< Empty: `dump` in the state directory.
  bool set_process_name = false;
  unsigned max_processes = 0; ///< 0: as the daemon's own.
  unsigned max_files = 0;     ///< 0: as the daemon's own.
  std::uint64_t max_core = 0; ///< Bytes; the highest number: any.
  bool dump_guest_core = false;
  std::string stdio_handler = "file";
  std::string lock_manager; ///< Empty: none.

  std::map<std::string, std::string> networks{{"default", "user"}}; ///< Network name to bridge, or "user".
  std::chrono::milliseconds grace_ms{1500};
  std::chrono::milliseconds qmp_timeout_ms{30000};
};

struct settings_read {
  qemu_settings settings;
  std::vector<std::string> warnings; ///< "qemu.conf:12: ..." for keys unknown or without effect here.
};

/// Reads libvirt's qemu.conf syntax: `key = value` lines, `#` comments; a value is a number, a "string" ('string',
/// """string over lines""") or a [ list ] of strings. The last line of a key counts. `name` begins each message.
/// Errors: bad_settings, with the line, when the text is no such thing (or above 1 MiB), or a known key has a value of
/// the wrong kind or out of range.
result<settings_read> parse_settings(std::string_view text, std::string_view name);

/// The same from a file; all defaults when there is none. Blocks on it. Errors: as above; system.
result<settings_read> read_settings(const std::string& path);

/// A qemu.conf in which every setting is explained and set, commented out, to its default.
std::string sample_settings();

} // namespace troupe
