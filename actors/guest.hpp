#pragma once

#include "actors/host.hpp"
#include "actors/interfaces.hpp"
#include "runtime/paths.hpp"

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

/// What holds for every guest of this daemon.
struct guest_surroundings {
  std::shared_ptr<host> machine;
  driver_actor driver;
  security_actor security;
  prober_actor prober;
  event_hub_actor events;

  instance_paths paths;
  std::string boot_id;
  std::string vnc_listen = "127.0.0.1";
  std::string spice_listen = "127.0.0.1";
  std::string vnc_password, spice_password; ///< Of displays whose definition has none; empty: none.
  std::string model;                        ///< The kernel's that guests are confined by: "selinux", "apparmor" or "".
  bool filter_calls = true;                 ///< Every QEMU is refused the system calls that none makes.
  bool landlock = false;                    ///< Every QEMU shuts itself off from what it does not need.
  std::vector<resource_limit> limits;       ///< Of every QEMU.
  bool keep_capabilities = false;           ///< By a QEMU of root.
  bool sandbox = true, name_process = false, dump_core = false; ///< As in `run_settings`.
  std::string control_groups;               ///< Directory of the groups of guests. Empty: they have none.
  std::map<std::string, std::string> networks; ///< network name to bridge, or "user"
  std::chrono::milliseconds kill_after{1500};  ///< from SIGTERM to SIGKILL
  std::chrono::milliseconds greet_within{30000};
  std::chrono::milliseconds qmp_answer{30000};
};

/// One guest, and how it begins.
struct guest_setup {
  std::shared_ptr<const guest_surroundings> around;
  std::string name;
  std::string uuid;
  std::shared_ptr<const domain> config; ///< null: transient
  bool autostart = false;
  std::shared_ptr<const domain> transient;   ///< what `start_guest` runs when there is no config
  std::shared_ptr<const guest_row> found;    ///< a QEMU of before, to be adopted or cleared away
};

/// What the definition says that QEMU opens, in the words of sec/.
std::vector<resource> needs_of(const domain& guest);
/// The images whose headers name what else it opens: `open_chains`, in the same words.
std::vector<resource> chains_of(const domain& guest);

guest_actor spawn_guest(caf::actor_system& system, guest_setup setup);

} // namespace troupe
