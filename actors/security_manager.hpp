#pragma once

#include "actors/host.hpp"
#include "actors/interfaces.hpp"
#include "actors/label_desk.hpp"

#include <memory>
#include <optional>

namespace troupe {

/// How guests are confined on this daemon.
struct security_setup {
  std::shared_ptr<host> machine;
  bool privileged = false;         ///< May change user and owners: a system instance run as root.
  bool dynamic_ownership = true;   ///< Give image files to the guest's user while it runs.
  dac_identity fallback;           ///< Whom a guest without a label of its own runs as: `user` and `group` of qemu.conf.
  confinement_model model{};       ///< What the kernel confines guests by beside users.
};

/// Hands out identities, labels of files and control groups. Two guests that share a path take turns; others never wait for
/// each other. To add a security model that labels files: a row in sec/file_labels.cpp, its name in `models_`, and what a
/// file gets in `choose_labels`. One that has something a guest: a step in `take` and one in `give_back`.
security_actor spawn_security_manager(caf::actor_system& system, security_setup setup);

} // namespace troupe
