#include "actors/event_hub.hpp"

#include "actors/inside.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using json = nlohmann::json;

// A function per kind of event: its name and what it holds. Overload resolution picks it.
json log_form(const event::lifecycle& x) { return {{"kind", "lifecycle"}, {"event", x.event}, {"detail", x.detail}}; }
json log_form(const event::reboot&) { return {{"kind", "reboot"}}; }
json log_form(const event::rtc_change& x) { return {{"kind", "rtc_change"}, {"offset", x.offset}}; }
json log_form(const event::watchdog& x) { return {{"kind", "watchdog"}, {"action", x.action}}; }
json log_form(const event::io_error& x) {
  return {{"kind", "io_error"}, {"path", x.path}, {"device", x.device}, {"reason", x.reason}, {"action", x.action}};
}
json log_form(const event::graphics& x) {
  return {{"kind", "graphics"},
          {"phase", x.phase},
          {"local", {x.local.node, x.local.service}},
          {"remote", {x.remote.node, x.remote.service}},
          {"auth", x.auth_scheme}};
}
json log_form(const event::control_error&) { return {{"kind", "control_error"}}; }
json log_form(const event::block_job& x) {
  return {{"kind", "block_job"}, {"path", x.path}, {"type", x.type}, {"status", x.status}};
}
json log_form(const event::tray_change& x) { return {{"kind", "tray_change"}, {"device", x.device}, {"reason", x.reason}}; }
json log_form(const event::pm_wakeup&) { return {{"kind", "pm_wakeup"}}; }
json log_form(const event::pm_suspend&) { return {{"kind", "pm_suspend"}}; }
json log_form(const event::pm_suspend_disk&) { return {{"kind", "pm_suspend_disk"}}; }
json log_form(const event::balloon_change& x) { return {{"kind", "balloon_change"}, {"actual_kib", x.actual_kib}}; }
json log_form(const event::device_removed& x) { return {{"kind", "device_removed"}, {"device", x.device}}; }
json log_form(const event::device_added& x) { return {{"kind", "device_added"}, {"device", x.device}}; }
json log_form(const event::device_removal_failed& x) { return {{"kind", "device_removal_failed"}, {"device", x.device}}; }
json log_form(const event::agent_lifecycle& x) {
  return {{"kind", "agent_lifecycle"}, {"state", x.state}, {"reason", x.reason}};
}
json log_form(const event::metadata_change& x) { return {{"kind", "metadata_change"}, {"type", x.type}, {"uri", x.uri}}; }
json log_form(const event::memory_failure& x) {
  return {{"kind", "memory_failure"}, {"recipient", x.recipient}, {"action", x.action}, {"flags", x.flags}};
}
json log_form(const event::memory_device_size& x) {
  return {{"kind", "memory_device_size"}, {"device", x.device}, {"size", x.size}};
}

} // namespace

std::string to_log_text(const guest_event& happened) {
  auto out = std::visit([](const auto& what) { return log_form(what); }, happened.what);
  out["guest"] = happened.guest.name;
  out["uuid"] = happened.guest.uuid;
  out["id"] = happened.guest.id;
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

class event_hub_data {
public:
  void begin(event_hub_actor::pointer self, event_hub_setup setup) {
    self_ = self;
    setup_ = std::move(setup);
    last_ = setup_.last_sequence;
    self_->set_down_handler([this](const caf::down_msg& gone) {
      std::erase_if(subscribers_, [&](const auto& each) { return each == gone.source; });
    });
  }

  void publish(const guest_event_ptr& event) {
    auto numbered = std::make_shared<guest_event>(*event);
    numbered->sequence = ++last_;
    ledger_batch batch;
    batch.events.push_back({numbered->sequence, to_log_text(*numbered)});
    // Passed on once it is written down: what a subscriber saw, the next daemon knows.
    setup_.machine->commit(std::move(batch), inside_as<event_hub_actor, result<done>>(
                                               self_, [this, numbered](result<done> written) {
                                                 if (!written)
                                                   spdlog::error("event {} is not in the log: {}", numbered->sequence,
                                                                 written.error().message());
                                                 pass_on(numbered);
                                               }));
  }

  void add(const caf::strong_actor_ptr& who) {
    auto subscriber = caf::actor_cast<subscriber_actor>(who);
    self_->monitor(subscriber);
    subscribers_.push_back(std::move(subscriber));
  }

  void remove(const caf::strong_actor_ptr& who) {
    std::erase_if(subscribers_, [&](const auto& each) { return each == caf::actor_cast<subscriber_actor>(who); });
  }

private:
  void pass_on(const guest_event_ptr& event) {
    for (const auto& each : subscribers_)
      self_->send(each, event_happened{event});
  }

  event_hub_actor::pointer self_ = nullptr;
  event_hub_setup setup_;
  std::uint64_t last_ = 0;
  std::vector<subscriber_actor> subscribers_;
};

namespace {

event_hub_actor::behavior_type event_hub(event_hub_actor::stateful_pointer<event_hub_data> self,
                                         event_hub_setup setup) {
  self->state.begin(self, std::move(setup));
  return {
    [self](const publish_event& x) { self->state.publish(x.event); },
    [self](const subscribe& x) { self->state.add(x.who); },
    [self](const unsubscribe& x) { self->state.remove(x.who); },
    [](const completion& x) { x.run(); },
  };
}

} // namespace

event_hub_actor spawn_event_hub(caf::actor_system& system, event_hub_setup setup) {
  return system.spawn(event_hub, std::move(setup));
}

} // namespace troupe
