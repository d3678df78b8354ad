#include "actors/guest_states.hpp"

namespace troupe {

std::string_view to_string(guest_state state) {
  constexpr std::string_view names[] = {"shutoff", "preparing", "launching", "setting_up", "adopting",
                                        "paused",  "running",   "stopping",  "releasing"};
  return names[static_cast<std::size_t>(state)];
}

std::string_view to_string(guest_input input) {
  constexpr std::string_view names[] = {"start",           "prepared", "refused", "greeted", "ready",        "adopt",
                                        "adopted_paused",  "adopted_running", "held", "resumed", "stop",
                                        "child_exited",    "released"};
  return names[static_cast<std::size_t>(input)];
}

std::string_view to_string(guest_action action) {
  constexpr std::string_view names[] = {"none", "prepare", "cancel", "launch_qemu", "set_up", "reach_monitor", "tell_started",
                                        "tell", "quit_qemu", "release",     "finish"};
  return names[static_cast<std::size_t>(action)];
}

} // namespace troupe
