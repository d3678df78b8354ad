#pragma once

#include "actors/messages.hpp"

namespace troupe {

/// One guest: its QEMU, its QMP monitor, its label. Operations answer when they are done, or fail at their deadline
/// while the work goes on. Errors: wrong_state, timed_out, qemu_gone, operation_failed and what a step reports.
using guest_actor = caf::typed_actor<
  caf::replies_to<start_guest>::with<guest_ref>,
  caf::replies_to<destroy_guest>::with<done>,
  caf::replies_to<shutdown_guest>::with<done>,
  caf::replies_to<reboot_guest>::with<done>,
  caf::replies_to<reset_guest>::with<done>,
  caf::replies_to<suspend_guest>::with<done>,
  caf::replies_to<resume_guest>::with<done>,
  caf::replies_to<monitor_command>::with<std::string>,
  caf::replies_to<set_config>::with<done>,
  caf::replies_to<drop_config>::with<done>,
  caf::replies_to<mark_autostart>::with<done>,
  caf::replies_to<set_metadata>::with<done>,
  caf::replies_to<open_console>::with<console_place>,
  caf::reacts_to<close_console>,
  caf::reacts_to<completion>>;

/// A guest as the driver knows it: whom to ask, and what needs no asking.
struct guest_entry {
  guest_actor actor;
  guest_view_ptr view;
};

/// The registry and the supervisor of all guests.
using driver_actor = caf::typed_actor<
  caf::replies_to<find_guest>::with<guest_entry>,            // no_such_guest
  caf::replies_to<list_guests>::with<std::vector<guest_view_ptr>>, // bad_argument
  caf::replies_to<define_guest>::with<guest_ref>,            // bad_xml, unsupported_config, operation_failed (name taken), system
  caf::replies_to<create_guest>::with<guest_ref>,
  caf::replies_to<undefine_guest>::with<done>,
  caf::replies_to<set_autostart>::with<done>,
  caf::replies_to<admit_start>::with<start_permit>,          // operation_failed: no port left
  caf::replies_to<save_config>::with<done>,
  caf::reacts_to<view_changed>,
  caf::reacts_to<completion>>;

/// The only actor that changes owners and labels.
using security_actor = caf::typed_actor<
  caf::replies_to<secure_guest>::with<guest_identity>, // operation_failed, with the path and the remedy
  caf::replies_to<load_guest_profile>::with<bool>,     // operation_failed, with what apparmor_parser said
  caf::replies_to<release_guest>::with<done>,
  caf::replies_to<recall_labels>::with<done>,
  caf::reacts_to<completion>>;

/// Knows what each emulator can do.
using prober_actor = caf::typed_actor<
  caf::replies_to<emulator_wanted>::with<emulator_facts_ptr>, // operation_failed: no such binary, or it does not answer
  caf::replies_to<list_emulators>::with<std::vector<emulator_facts_ptr>>,
  caf::reacts_to<completion>>;

/// Hears of every event, in order.
using subscriber_actor = caf::typed_actor<caf::reacts_to<event_happened>>;

/// Numbers, logs and passes on every event.
using event_hub_actor = caf::typed_actor<
  caf::reacts_to<publish_event>,
  caf::reacts_to<subscribe>,
  caf::reacts_to<unsubscribe>,
  caf::reacts_to<completion>>;

} // namespace troupe

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::guest_entry)
