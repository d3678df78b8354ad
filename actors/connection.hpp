#pragma once

#include "actors/guest.hpp"
#include "runtime/host_info.hpp"
#include "runtime/unique_fd.hpp"
#include "runtime/unix_socket.hpp"
#include "xml/capabilities.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace troupe {

/// What holds for every client of this daemon.
struct control_surroundings {
  driver_actor driver;
  event_hub_actor events;
  prober_actor prober;
  std::shared_ptr<host> machine;
  host_info about_host;
  host_facts capabilities;
  bool session = false;
  dac_identity guest_user;   ///< Whom QEMU runs as, when its definition does not say otherwise.
  bool changes_user = false; ///< Definitions may say otherwise: we are root.
  bool gives_owners = false; ///< Files of a guest become its user's.
  std::chrono::milliseconds check_within{25000}; ///< Then a check answers with what it knows.
  std::string uri; ///< "qemu:///system"
  std::uint64_t version = 0; ///< Ours, in libvirt's encoding. Clients gate features on it: 9000000 or higher.
  std::shared_ptr<const guest_surroundings> around;
};

/// One client, and how it came.
struct connection_setup {
  std::shared_ptr<const control_surroundings> around;
  std::shared_ptr<unique_fd> socket; ///< Connected and non-blocking; the connection takes it.
  bool read_only = false;            ///< By the socket it came through; its own wish comes on top.
  peer_credentials peer;
};

using connection_actor =
  caf::typed_actor<caf::reacts_to<event_happened>, caf::reacts_to<close_console>, caf::reacts_to<completion>>;

class connection_data;

/// Serves one client of libvirt's protocol until it hangs up, misbehaves, or the driver ends. Nobody needs to hold the
/// handle. What the client asked for goes on when it is gone; only the wait for the answer is given up.
connection_actor::behavior_type connection(connection_actor::stateful_pointer<connection_data> self,
                                           connection_setup setup);

/// The same for who does not know `connection_data`.
connection_actor spawn_connection(caf::actor_system& system, connection_setup setup);

} // namespace troupe
