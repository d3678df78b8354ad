#pragma once

#include "runtime/error.hpp"
#include "xml/domain.hpp"
#include "xml/emulator_facts.hpp"

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

/// What of a command line belongs to one run on one host.
struct run_settings {
  int id = -1;
  std::string run_dir;       ///< The guest's own directory: sockets QEMU makes lie there.
  std::string home;          ///< HOME and XDG_* of QEMU; empty: `run_dir`.
  std::string state_dir;     ///< Below it, as in libvirt's /var/lib/libvirt/qemu: nvram/, ram/, channel/target/.
  int monitor_fd = -1;       ///< A listening socket that QEMU finds there; negative: QEMU listens on run_dir/monitor.sock itself.
  std::map<std::string, std::string> networks; ///< Network name to bridge, or "user".
  std::vector<int> tap_fds;  ///< A descriptor for each bridge of `bridges_wanted`, in its order.
  bool session = false;
  bool generic_taps = false; ///< Every card becomes a TAP with descriptor `fd`: what domxml-to-native shows.
  std::string path;          ///< PATH of QEMU; empty: a system's usual one.
  bool sandbox = true;       ///< QEMU filters its own system calls.
  bool name_process = false; ///< ps(1) shows "qemu:NAME".
  bool dump_core = false;    ///< A core of QEMU holds the guest's memory, unless the definition says otherwise.
};

struct command_line {
  std::vector<std::string> env;   ///< NAME=VALUE
  std::vector<std::string> argv;
};

/// Takes from a completed definition what domxml-to-native does not look at: of a network card only MAC, model and alias
/// stay, and `give_places` finds it a place. For a command line with `generic_taps`.
void forget_connections(domain& guest);

/// "BASE/domain-ID-NAME", the name cut as libvirt cuts it.
std::string run_dir_under(const std::string& base, const domain& guest, int id);

/// QEMU's command line for a completed definition with aliases: words and order are libvirt 9.0.0's.
/// Errors: unsupported_config, naming the device, when QEMU or we can't do what the definition wants.
result<command_line> qemu_command_line(const domain& guest, const emulator_facts& facts, const run_settings& settings);

/// The memory, in bytes, that QEMU must be allowed to lock, `unlimited_lock` for any; none: what it may anyhow.
/// Source: libvirt 9.0.0, which adds 1 GiB for a device's own regions.
inline constexpr auto unlimited_lock = std::numeric_limits<std::uint64_t>::max();
std::optional<std::uint64_t> locked_memory_of(const domain& guest);

/// One line a POSIX shell reads back as the same words.
std::string shell_line(const command_line& line);

} // namespace troupe
