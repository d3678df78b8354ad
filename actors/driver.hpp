#pragma once

#include "actors/guest.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

/// A definition as it was found on disk.
struct stored_guest {
  std::string name;
  std::string xml;
  bool autostart = false;
};

/// What the driver begins with.
struct driver_setup {
  std::shared_ptr<guest_surroundings> around; ///< its `driver` is filled in by the driver itself
  std::vector<stored_guest> stored;
  ledger_contents kept;
  int first_display_port = 5900;
  int last_display_port = 65535;
  std::string host_arch = "x86_64";
};

/// Spawns a guest for each definition and for each QEMU that an earlier daemon left running, and supervises them.
driver_actor spawn_driver(caf::actor_system& system, driver_setup setup);

} // namespace troupe
