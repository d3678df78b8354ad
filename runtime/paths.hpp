#pragma once

#include "runtime/error.hpp"

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

namespace troupe {

/// Whether `name` can be part of a file's name: 1 to 247 bytes (what "NAME_VARS.fd" leaves), no '/', no newline, no NUL,
/// and neither "." nor "..". Errors: bad_name.
result<void> check_file_name(std::string_view name);

/// Where one instance of the daemon has its things. All paths are absolute and have no slash at their end.
struct instance_paths {
  bool session = false;
  std::string root; ///< As asked for; empty: none.

  std::string config;      ///< Of `settings` and `definitions`.
  std::string settings;    ///< The file qemu.conf.
  std::string definitions; ///< NAME.xml
  std::string autostart;   ///< Links to definitions.
  std::string state;
  std::string ledger; ///< The file.
  std::string saves;  ///< Managed saves.
  std::string nvram;
  std::string dumps;
  std::string cache;
  std::string run;
  std::string guest_runs; ///< A directory for each guest that runs.
  std::string probe_runs; ///< A directory for each emulator that is being probed.
  std::string log;        ///< NAME.log of each guest.

  std::string libvirt_sock;
  std::string libvirt_sock_ro;
  std::string control;
  std::string pid_file;

  /// These take a name that passed `check_file_name`. A guest's run directory bears the guest's name, cut (and told
  /// apart by a hash) so that names of up to 23 bytes in it can be addresses of sockets.
  std::string definition(std::string_view name) const;
  std::string guest_log(std::string_view name) const;
  std::string saved(std::string_view name) const;
  std::string guest_run_dir(std::string_view name) const;

  /// Makes what is missing. Others may search the system instance's `run` and what QEMU must reach; all else, and all
  /// of a session's, is the daemon's alone. What is there already keeps its mode. Blocks. Errors: system, naming the path.
  result<void> make_directories() const;
};

/// The places of the system or session instance, all below `root` unless it is empty. A session's are those of the XDG
/// Base Directory rules (`variable` reads the environment); with a root, HOME is taken to be the root and
/// XDG_RUNTIME_DIR to be ROOT/run. Errors: bad_argument when a socket's path would be too long for its address, or a
/// session has no home.
result<instance_paths> paths_of_instance(bool session, const std::string& root,
                                         const std::function<const char*(const char*)>& variable = ::getenv);

} // namespace troupe
