#pragma once

#include "actors/host.hpp"
#include "actors/interfaces.hpp"
#include "sec/selinux.hpp"

#include <memory>
#include <string>

namespace troupe {

struct prober_setup {
  std::shared_ptr<host> machine;
  std::string run_root;  ///< A directory per probe below.
  std::string log_file;  ///< What probed emulators write.
  std::optional<launch_identity> identity; ///< Whom they run as; absent: as the daemon.
  selinux_label label{}; ///< What they run as under SELinux, and what their directory gets; empty: as the daemon.
};

/// Learns what each emulator can do: from the cache on disk, else by starting it once per accelerator and asking over QMP.
/// Each binary is probed once however many ask, at most a few at a time, and killed when it gets stuck.
prober_actor spawn_prober(caf::actor_system& system, prober_setup setup);

} // namespace troupe
