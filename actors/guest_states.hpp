#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace troupe {

/// Where a guest is in its life. What a client sees (running, paused, crashed…) follows from this and from `run_state`.
enum class guest_state : std::uint8_t {
  shutoff,    ///< Defined, no QEMU.
  preparing,  ///< Ledger, labels, directories, sockets.
  launching,  ///< The launcher runs, then QEMU until its QMP greeting.
  setting_up, ///< QMP answers; what must be asked or set before the first instruction.
  adopting,   ///< A QEMU from before: its monitor is being reached again.
  paused,     ///< QEMU holds the vCPUs.
  running,
  stopping,   ///< QEMU was told to end, or its guest powered off; waiting for the process to go.
  releasing,  ///< The process is gone; labels, sockets and ledger row follow.
};

enum class guest_input : std::uint8_t {
  start,
  prepared,
  refused, ///< A step of the start failed; the reason is kept beside.
  greeted,
  ready,
  adopt,
  adopted_paused,
  adopted_running,
  held,    ///< QMP STOP.
  resumed, ///< QMP RESUME.
  stop,
  child_exited,
  released,
};

enum class guest_action : std::uint8_t {
  none,
  prepare,
  cancel,
  launch_qemu,
  set_up,
  reach_monitor,
  tell_started,
  tell,
  quit_qemu,
  release,
  finish,
};

struct guest_step {
  guest_state from;
  guest_input on;
  guest_state to;
  guest_action then;
};

namespace guest_life {
using enum guest_state;
using in = guest_input;
using act = guest_action;

// The state diagram. docs/guest_states.md is drawn from it.
inline constexpr guest_step steps[] = {
  {shutoff, in::start, preparing, act::prepare},
  {shutoff, in::adopt, adopting, act::reach_monitor},

  {preparing, in::prepared, launching, act::launch_qemu},
  {preparing, in::refused, releasing, act::release},
  {preparing, in::stop, preparing, act::cancel}, // heeded when the step under way is over

  {launching, in::greeted, setting_up, act::set_up},
  {launching, in::refused, stopping, act::quit_qemu},
  {launching, in::stop, stopping, act::quit_qemu},
  {launching, in::child_exited, releasing, act::release},

  {setting_up, in::ready, paused, act::tell_started},
  {setting_up, in::refused, stopping, act::quit_qemu},
  {setting_up, in::stop, stopping, act::quit_qemu},
  {setting_up, in::child_exited, releasing, act::release},

  {adopting, in::adopted_paused, paused, act::tell},
  {adopting, in::adopted_running, running, act::tell},
  {adopting, in::refused, stopping, act::quit_qemu},
  {adopting, in::stop, stopping, act::quit_qemu},
  {adopting, in::child_exited, releasing, act::release},

  {paused, in::resumed, running, act::tell},
  {paused, in::stop, stopping, act::quit_qemu},
  {paused, in::child_exited, releasing, act::release},

  {running, in::held, paused, act::tell},
  {running, in::stop, stopping, act::quit_qemu},
  {running, in::child_exited, releasing, act::release},

  {stopping, in::stop, stopping, act::none},
  {stopping, in::refused, stopping, act::none},
  {stopping, in::child_exited, releasing, act::release},

  {releasing, in::released, shutoff, act::finish},
};
} // namespace guest_life

/// The row for `on` in state `from`. None: the input has no meaning there.
constexpr std::optional<guest_step> find_step(guest_state from, guest_input on) {
  for (const auto& step : guest_life::steps)
    if (step.from == from && step.on == on)
      return step;
  return std::nullopt;
}

/// A QEMU process exists, or may.
constexpr bool has_process(guest_state state) {
  using enum guest_state;
  return state == launching || state == setting_up || state == adopting || state == paused || state == running
         || state == stopping;
}

/// Counts as an active domain for clients: it has an id.
constexpr bool is_active(guest_state state) {
  return state != guest_state::shutoff;
}

/// Takes orders such as suspend, reboot or a monitor command.
constexpr bool is_live(guest_state state) {
  return state == guest_state::paused || state == guest_state::running;
}

// A QEMU that dies is noticed wherever one can be alive, and a stop is possible there.
constexpr bool death_is_noticed_everywhere() {
  for (int at = 0; at <= static_cast<int>(guest_state::releasing); ++at) {
    const auto state = static_cast<guest_state>(at);
    if (has_process(state) && !(find_step(state, guest_input::child_exited) && find_step(state, guest_input::stop)))
      return false;
  }
  return true;
}
static_assert(death_is_noticed_everywhere());
// Nothing leaves for shutoff but through releasing: what was taken is given back.
constexpr bool only_releasing_ends() {
  for (const auto& step : guest_life::steps)
    if (step.to == guest_state::shutoff && step.from != guest_state::releasing)
      return false;
  return true;
}
static_assert(only_releasing_ends());

std::string_view to_string(guest_state state);
std::string_view to_string(guest_input input);
std::string_view to_string(guest_action action);

} // namespace troupe
