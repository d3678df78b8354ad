#pragma once

#include "actors/host.hpp"
#include "actors/interfaces.hpp"

namespace troupe {

struct event_hub_setup {
  std::shared_ptr<host> machine;
  std::uint64_t last_sequence = 0; ///< of the ledger's log
};

class event_hub_data;

/// Gives every event its number, writes it to the ledger's log and then passes it on to all subscribers, in order.
event_hub_actor::behavior_type event_hub(event_hub_actor::stateful_pointer<event_hub_data> self, event_hub_setup setup);

/// An event as the log keeps it: one JSON object.
std::string to_log_text(const guest_event& event);

} // namespace troupe
