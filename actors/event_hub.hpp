#pragma once

#include "actors/host.hpp"
#include "actors/interfaces.hpp"

namespace troupe {

struct event_hub_setup {
  std::shared_ptr<host> machine;
  std::uint64_t last_sequence = 0; ///< of the ledger's log
};

/// Gives every event its number, writes it to the ledger's log and then passes it on to all subscribers, in order.
event_hub_actor spawn_event_hub(caf::actor_system& system, event_hub_setup setup);

/// An event as the log keeps it: one JSON object.
std::string to_log_text(const guest_event& event);

} // namespace troupe
