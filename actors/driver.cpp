#include "actors/driver.hpp"

#include "actors/guest_labels.hpp"
#include "actors/inside.hpp"
#include "xml/domain.hpp"
#include "xml/domain_passes.hpp"
#include "xml/emulator_facts.hpp"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <set>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;

constexpr auto guest_answer = 60s;
constexpr auto prober_answer = 40s;

/// The most guests one daemon holds; libvirt's clients accept lists of no more.
constexpr std::size_t most_guests = 16384;

/// How often a guest's actor may fail before it is left alone, as OTP's intensity: so many in so long.
constexpr std::size_t most_failures = 5;
constexpr auto failure_window = 30s;

struct slot {
  guest_actor actor;
  guest_view_ptr view;
  std::shared_ptr<const domain> transient; ///< What created it, when it has no definition.
  std::deque<std::chrono::steady_clock::time_point> failures;

  /// Views are immutable: clients may hold the old one.
  template <class Change>
  void amend(Change change) {
    auto next = std::make_shared<guest_view>(*view);
    change(*next);
    view = std::move(next);
  }
};

// virConnectListAllDomainsFlags: groups of two or more bits; a group without a bit set does not restrict.
namespace list_flag {
constexpr std::uint32_t active = 1u << 0, inactive = 1u << 1, persistent = 1u << 2, transient = 1u << 3,
                        running = 1u << 4, paused = 1u << 5, shutoff = 1u << 6, other = 1u << 7,
                        managed_save = 1u << 8, no_managed_save = 1u << 9, autostart = 1u << 10, no_autostart = 1u << 11,
                        has_snapshot = 1u << 12, no_snapshot = 1u << 13, has_checkpoint = 1u << 14,
                        no_checkpoint = 1u << 15;
constexpr std::uint32_t known = (1u << 16) - 1;
} // namespace list_flag

bool is_listed(const guest_view& view, std::uint32_t flags) {
  using namespace list_flag;
  const auto group = [flags](std::uint32_t mask, std::uint32_t is) { return (flags & mask) == 0 || (flags & is) != 0; };
  const bool live = view.ref.id >= 0;
  const auto state = view.state == 1 ? running : view.state == 3 ? paused : view.state == 5 ? shutoff : other;
  return group(active | inactive, live ? active : inactive)
         && group(persistent | transient, view.persistent ? persistent : transient)
         && group(running | paused | shutoff | other, state)
         && group(managed_save | no_managed_save, view.managed_save ? managed_save : no_managed_save)
         && group(autostart | no_autostart, view.autostart ? autostart : no_autostart)
         && group(has_snapshot | no_snapshot, no_snapshot) && group(has_checkpoint | no_checkpoint, no_checkpoint);
}

} // namespace

class driver_data {
public:
  /// Nobody supervises the guests' actors any more; what they run runs on.
  ~driver_data() {
    for (const auto& [uuid, each] : slots_)
      caf::anon_send_exit(each.actor, caf::exit_reason::user_shutdown);
  }

  void begin(driver_actor::pointer self, driver_setup setup);

  caf::result<guest_entry> find(const find_guest& which) const;
  caf::result<std::vector<guest_view_ptr>> list(const list_guests& which) const;
  caf::result<guest_ref> define(const define_guest& order);
  caf::result<guest_ref> create(const create_guest& order);
  caf::result<done> undefine(const undefine_guest& order);
  caf::result<done> autostart(const set_autostart& order);
  caf::result<start_permit> admit(const admit_start& wish);
  caf::result<done> save(const save_config& order);
  void changed(const guest_view_ptr& view);
  void lost(const caf::down_msg& message);

private:
  using next_step = std::function<void(result<std::shared_ptr<const domain>>)>;

  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then) {
    return inside_as<driver_actor, result<T>>(self_, std::move(then));
  }
  guest_actor spawn(guest_setup setup);
  void add(const std::string& uuid, guest_actor actor, guest_view_ptr first);
  void complete(std::string xml, next_step then);
  result<std::string> check_names(const domain& wanted) const;
  void run(std::shared_ptr<const domain> wanted, std::uint32_t flags, caf::strong_actor_ptr owner,
           caf::typed_response_promise<guest_ref> promise);
  void store(std::shared_ptr<const domain> config, caf::typed_response_promise<guest_ref> promise);
  void forget(const std::string& uuid);
  void tell(const guest_ref& guest, int event, int detail);
  void start_marked();
  void start_at_boot(const std::string& uuid);
  void adopt_text(const stored_guest& found);
  void mark(slot& which, bool autostart);
  slot* slot_of(const std::string& uuid);
  caf::error no_guest(std::string which) const;
  void with_name(const std::string& name, std::function<void()> work);
  void name_free(const std::string& name);
  void with_identity(const domain& guest, std::function<void()> work);
  void identity_free(const domain& guest);

  driver_actor::pointer self_ = nullptr;
  std::shared_ptr<guest_surroundings> around_;
  int first_port_ = 5900, last_port_ = 65535;
  std::string host_arch_;
  std::map<std::string, slot> slots_;              ///< by uuid
  std::map<std::string, std::string> uuid_by_name_;
  std::map<int, std::string> uuid_by_id_;
  std::map<caf::actor_addr, std::string> uuid_by_actor_;
  std::map<std::string, std::vector<int>> ports_;  ///< by uuid
  std::set<int> taken_ports_;
  int next_id_ = 1;
  bool booted_ = false;                            ///< This is the first daemon since the machine came up.
  /// Changes of one name, and of one UUID (as "/UUID"), take turns; the first entry of each is under way.
  std::map<std::string, std::deque<std::function<void()>>> turns_;
};

void driver_data::begin(driver_actor::pointer self, driver_setup setup) {
  self_ = self;
  around_ = std::move(setup.around);
  around_->driver = self;
  first_port_ = setup.first_display_port;
  last_port_ = setup.last_display_port;
  host_arch_ = setup.host_arch;
  const auto& values = setup.kept.values;
  if (const auto it = values.find("next_id"); it != values.end())
    next_id_ = std::max(1, std::atoi(it->second.c_str()));
  if (const auto it = values.find("boot_id"); it == values.end() || it->second != around_->boot_id)
    next_id_ = 1; // ids are for one boot

  std::map<std::string, std::shared_ptr<const guest_row>> rows;
  for (auto& row : setup.kept.guests) {
    next_id_ = std::max(next_id_, row.domain_id + 1);
    auto kept = std::make_shared<const guest_row>(std::move(row));
    rows.emplace(kept->uuid, kept);
  }
  const auto begin_one = [&](guest_setup wish) {
    guest_view first;
    first.ref = {wish.name, wish.uuid, wish.found ? wish.found->domain_id : -1};
    first.persistent = wish.config != nullptr;
    first.autostart = wish.autostart;
    first.config = wish.config;
    auto uuid = wish.uuid;
    auto transient = wish.transient;
    add(uuid, spawn(std::move(wish)), std::make_shared<guest_view>(std::move(first)));
    slots_[uuid].transient = std::move(transient);
  };
  for (auto& each : setup.stored) {
    auto parsed = read_domain(each.xml);
    if (!parsed) {
      spdlog::error("definition '{}' is left out: {}", each.name, parsed.error().message());
      continue;
    }
    if (parsed->uuid.empty() && parsed->name == each.name) {
      adopt_text(each); // written by hand: it gets a UUID, which is kept
      continue;
    }
    if (parsed->name != each.name || slots_.contains(uuid_text(*parsed)) || uuid_by_name_.contains(parsed->name)) {
      spdlog::error("definition '{}' is left out: it holds guest '{}' with UUID {}, which does not fit its file name or "
                    "is taken", each.name, parsed->name, uuid_text(*parsed));
      continue;
    }
    guest_setup wish;
    wish.around = around_;
    wish.name = parsed->name;
    wish.uuid = uuid_text(*parsed);
    wish.autostart = each.autostart;
    wish.config = std::make_shared<domain>(std::move(*parsed));
    if (const auto row = rows.find(wish.uuid); row != rows.end()) {
      wish.found = row->second;
      rows.erase(row);
    }
    begin_one(std::move(wish));
  }
  for (auto& [uuid, row] : rows) {
    guest_setup wish;
    wish.around = around_;
    wish.name = row->name;
    wish.uuid = uuid;
    wish.found = row;
    begin_one(std::move(wish));
  }

  self_->set_down_handler([this](const caf::down_msg& message) { lost(message); });
  booted_ = !values.contains("autostarted") || values.at("autostarted") != around_->boot_id;
  ledger_batch began;
  began.set["boot_id"] = around_->boot_id;
  began.set["autostarted"] = around_->boot_id;
  around_->machine->commit(std::move(began), here<done>([this](result<done> written) {
    if (!written)
      spdlog::error("the ledger does not take writes: {}", written.error().message());
    if (booted_)
      start_marked();
  }));
}

void driver_data::start_marked() {
  for (auto& [uuid, each] : slots_)
    if (each.view->autostart && each.view->ref.id < 0)
      start_at_boot(uuid);
}

void driver_data::start_at_boot(const std::string& uuid) {
  const auto& each = slots_.at(uuid);
  self_->request(each.actor, guest_answer, start_guest{})
    .then([](guest_ref&) {},
          [name = each.view->ref.name](caf::error& why) {
            spdlog::error("guest '{}' is marked for autostart: {}", name, from_caf(why).message());
          });
}

/// What is on disk already: whether it starts with the host.
void driver_data::mark(slot& which, bool autostart) {
  which.amend([autostart](guest_view& view) { view.autostart = autostart; });
  self_->request(which.actor, guest_answer, mark_autostart{autostart}).then([](done) {}, [](caf::error&) {});
}

/// A definition found on disk that nobody gave a UUID yet.
void driver_data::adopt_text(const stored_guest& found) {
  self_->request(caf::actor_cast<driver_actor>(self_), guest_answer, define_guest{found.xml})
    .then(
      [this, autostart = found.autostart](guest_ref& defined) {
        auto* there = slot_of(defined.uuid);
        if (there == nullptr || !autostart)
          return;
        mark(*there, true);
        if (booted_)
          start_at_boot(defined.uuid);
      },
      [name = found.name](caf::error& why) {
        spdlog::error("definition '{}' is left out: {}", name, from_caf(why).message());
      });
}

guest_actor driver_data::spawn(guest_setup setup) {
  auto actor = spawn_guest(self_->system(), std::move(setup));
  self_->monitor(actor);
  return actor;
}

void driver_data::add(const std::string& uuid, guest_actor actor, guest_view_ptr first) {
  uuid_by_actor_[actor.address()] = uuid;
  uuid_by_name_[first->ref.name] = uuid;
  if (first->ref.id >= 0)
    uuid_by_id_[first->ref.id] = uuid;
  auto& place = slots_[uuid];
  place.actor = std::move(actor);
  place.view = std::move(first);
}

slot* driver_data::slot_of(const std::string& uuid) {
  const auto it = slots_.find(uuid);
  return it == slots_.end() ? nullptr : &it->second;
}

caf::error driver_data::no_guest(std::string which) const {
  return to_caf({errc::no_such_guest, std::move(which)});
}

caf::result<guest_entry> driver_data::find(const find_guest& which) const {
  const std::string* uuid = nullptr;
  switch (which.by) {
  case find_guest::key::uuid:
    uuid = &which.text;
    break;
  case find_guest::key::name:
    if (const auto it = uuid_by_name_.find(which.text); it != uuid_by_name_.end())
      uuid = &it->second;
    break;
  case find_guest::key::id:
    if (const auto it = uuid_by_id_.find(which.id); it != uuid_by_id_.end())
      uuid = &it->second;
    break;
  }
  if (uuid != nullptr)
    if (const auto it = slots_.find(*uuid); it != slots_.end())
      return guest_entry{it->second.actor, it->second.view};
  switch (which.by) {
  case find_guest::key::uuid:
    return no_guest(fmt::format("no domain with matching uuid '{}'", which.text));
  case find_guest::key::name:
    return no_guest(fmt::format("no domain with matching name '{}'", which.text));
  case find_guest::key::id:
    break;
  }
  return no_guest(fmt::format("no domain with matching id {}", which.id));
}

caf::result<std::vector<guest_view_ptr>> driver_data::list(const list_guests& which) const {
  if ((which.flags & ~list_flag::known) != 0)
    return to_caf({errc::bad_argument, fmt::format("unsupported flags ({:#x}) in a list of domains", which.flags)});
  std::vector<guest_view_ptr> out;
  out.reserve(slots_.size());
  for (const auto& [uuid, each] : slots_)
    if (is_listed(*each.view, which.flags))
      out.push_back(each.view);
  return out;
}

// ---- definitions

/// Reads a definition and fills in what its emulator and this host decide. Answers inside the driver.
void driver_data::complete(std::string xml, next_step then) {
  auto parsed = read_domain(xml);
  if (!parsed)
    return then(tl::make_unexpected(std::move(parsed.error())));
  auto wanted = std::make_shared<domain>(std::move(*parsed));
  choose_emulator(*wanted, host_arch_);
  name_model(*wanted, around_->model);
  self_->request(around_->prober, prober_answer, emulator_wanted{wanted->devices.emulator})
    .then(
      [this, wanted, then](emulator_facts_ptr& facts) {
        auto completed = complete_definition(*wanted, *facts, [this] { return around_->machine->random_bytes(); });
        if (!completed)
          return then(tl::make_unexpected(std::move(completed.error())));
        choose_variables(*wanted, around_->paths.state);
        then(std::shared_ptr<const domain>{wanted});
      },
      [this, wanted, then](caf::error& why) {
        // A definition may name an emulator that is not here yet; it is asked for again at the start.
        auto completed = complete_definition(*wanted, assumed_facts(*wanted, host_arch_),
                                             [this] { return around_->machine->random_bytes(); });
        if (!completed)
          return then(tl::make_unexpected(std::move(completed.error())));
        choose_variables(*wanted, around_->paths.state);
        spdlog::warn("guest '{}': {}", wanted->name, from_caf(why).message());
        then(std::shared_ptr<const domain>{wanted});
      });
}

/// The UUID under which `wanted` may be kept. Errors: operation_failed, as libvirt's clients know the texts.
result<std::string> driver_data::check_names(const domain& wanted) const {
  const auto uuid = uuid_text(wanted);
  if (const auto by_name = uuid_by_name_.find(wanted.name); by_name != uuid_by_name_.end() && by_name->second != uuid)
    return fail(errc::operation_failed, fmt::format("domain '{}' already exists with uuid {}", wanted.name, by_name->second));
  if (const auto by_uuid = slots_.find(uuid); by_uuid != slots_.end() && by_uuid->second.view->ref.name != wanted.name)
    return fail(errc::operation_failed, fmt::format("domain '{}' is already defined with uuid {}",
                                                    by_uuid->second.view->ref.name, uuid));
  if (!slots_.contains(uuid) && slots_.size() >= most_guests)
    return fail(errc::operation_failed, fmt::format("there are {} guests already, the most one daemon holds", most_guests));
  return uuid;
}

void driver_data::with_name(const std::string& name, std::function<void()> work) {
  auto& line = turns_[name];
  line.push_back(std::move(work));
  if (line.size() == 1)
    line.front()();
}

void driver_data::name_free(const std::string& name) {
  const auto it = turns_.find(name);
  it->second.pop_front();
  if (it->second.empty()) {
    turns_.erase(it);
    return;
  }
  const auto next = it->second.front();
  next();
}

/// Two definitions may have the same UUID and other names, or the other way round. `work` calls `identity_free` at its end.
void driver_data::with_identity(const domain& guest, std::function<void()> work) {
  with_name(guest.name, [this, uuid = uuid_text(guest), work = std::move(work)] { with_name("/" + uuid, work); });
}

void driver_data::identity_free(const domain& guest) {
  name_free("/" + uuid_text(guest));
  name_free(guest.name);
}

caf::result<guest_ref> driver_data::define(const define_guest& order) {
  constexpr std::uint32_t validate = 1;
  if ((order.flags & ~validate) != 0)
    return to_caf({errc::bad_argument, fmt::format("unsupported flags ({:#x}) for a definition", order.flags)});
  auto promise = self_->make_response_promise<guest_ref>();
  complete(order.xml, [this, promise](result<std::shared_ptr<const domain>> wanted) mutable {
    if (wanted)
      with_identity(**wanted, [this, promise, config = *wanted] { store(config, promise); });
    else
      promise.deliver(to_caf(std::move(wanted.error())));
  });
  return promise;
}

void driver_data::store(std::shared_ptr<const domain> config, caf::typed_response_promise<guest_ref> promise) {
  auto uuid = check_names(*config);
  if (!uuid) {
    promise.deliver(to_caf(std::move(uuid.error())));
    return identity_free(*config);
  }
  const auto name = config->name;
  around_->machine->save_definition(
    name, write_domain(*config, {.secure = true, .inactive = true}),
    here<done>([this, config, promise, uuid = *uuid, name](result<done> saved) mutable {
      if (!saved) {
        promise.deliver(to_caf(std::move(saved.error())));
        return identity_free(*config);
      }
      if (auto* known = slot_of(uuid)) {
        const auto was_persistent = known->view->persistent;
        known->amend([&](guest_view& view) {
          view.persistent = true;
          view.config = config;
        });
        self_->request(known->actor, guest_answer, set_config{config}).then([](done) {}, [](caf::error&) {});
        tell(known->view->ref, 0, was_persistent ? 1 : 0);
        promise.deliver(known->view->ref);
        return identity_free(*config);
      }
      guest_setup wish;
      wish.around = around_;
      wish.name = name;
      wish.uuid = uuid;
      wish.config = config;
      auto first = std::make_shared<guest_view>();
      first->ref = {name, uuid, -1};
      first->config = config;
      add(uuid, spawn(std::move(wish)), first);
      tell(first->ref, 0, 0);
      promise.deliver(first->ref);
      identity_free(*config);
    }));
}

caf::result<guest_ref> driver_data::create(const create_guest& order) {
  constexpr std::uint32_t known = 1 | 2 | 16; // paused, autodestroy, validate
  if ((order.flags & ~known) != 0)
    return to_caf({errc::bad_argument, fmt::format("unsupported flags ({:#x}) for creating a domain", order.flags)});
  auto promise = self_->make_response_promise<guest_ref>();
  complete(order.xml, [this, promise, flags = order.flags,
                       owner = order.owner](result<std::shared_ptr<const domain>> wanted) mutable {
    if (wanted)
      with_identity(**wanted, [this, promise, flags, owner, config = *wanted] {
        run(config, flags, owner, promise);
        identity_free(*config);
      });
    else
      promise.deliver(to_caf(std::move(wanted.error())));
  });
  return promise;
}

void driver_data::run(std::shared_ptr<const domain> wanted, std::uint32_t flags, caf::strong_actor_ptr owner,
                      caf::typed_response_promise<guest_ref> promise) {
  auto uuid = check_names(*wanted);
  if (!uuid) {
    promise.deliver(to_caf(std::move(uuid.error())));
    return;
  }
  if (!slots_.contains(*uuid)) {
    guest_setup wish;
    wish.around = around_;
    wish.name = wanted->name;
    wish.uuid = *uuid;
    wish.transient = wanted;
    auto first = std::make_shared<guest_view>();
    first->ref = {wish.name, *uuid, -1};
    first->persistent = false;
    first->life = guest_state::preparing; // not to be forgotten as an inactive transient one before it began
    add(*uuid, spawn(std::move(wish)), first);
  } else if (is_active(slots_[*uuid].view->life)) {
    promise.deliver(to_caf({errc::operation_failed, fmt::format("domain '{}' already exists with uuid {}", wanted->name,
                                                                *uuid)}));
    return;
  }
  // One that is defined runs as this text says, until it ends.
  auto& place = slots_[*uuid];
  place.transient = wanted;
  self_->request(place.actor, guest_answer, start_guest{flags, owner, wanted})
    .then([promise](guest_ref& started) mutable { promise.deliver(std::move(started)); },
          [promise](caf::error& why) mutable { promise.deliver(std::move(why)); });
}

caf::result<done> driver_data::undefine(const undefine_guest& order) {
  constexpr std::uint32_t known = 1 | 2 | 4 | 8 | 16 | 32 | 64; // what there may be beside it: saves, snapshots, nvram, tpm
  if ((order.flags & ~known) != 0)
    return to_caf({errc::bad_argument, fmt::format("unsupported flags ({:#x}) for undefining a domain", order.flags)});
  auto* known_slot = slot_of(order.uuid);
  if (known_slot == nullptr)
    return no_guest(fmt::format("no domain with matching uuid '{}'", order.uuid));
  if (!known_slot->view->persistent)
    return to_caf({errc::wrong_state, "cannot undefine transient domain"});
  auto promise = self_->make_response_promise<done>();
  const auto name = known_slot->view->ref.name;
  with_name(name, [this, uuid = order.uuid, name, promise]() mutable {
    around_->machine->remove_definition(name, here<done>([this, uuid, name, promise](result<done> removed) mutable {
      auto* there = slot_of(uuid);
      if (!removed || there == nullptr) {
        promise.deliver(removed ? no_guest(name) : to_caf(std::move(removed.error())));
        return name_free(name);
      }
      there->amend([](guest_view& view) {
        view.persistent = false;
        view.autostart = false;
        view.config.reset();
      });
      tell(there->view->ref, 1, 0);
      if (is_active(there->view->life))
        self_->request(there->actor, guest_answer, drop_config{}).then([](done) {}, [](caf::error&) {});
      else
        forget(uuid);
      promise.deliver(done{});
      name_free(name);
    }));
  });
  return promise;
}

void driver_data::forget(const std::string& uuid) {
  const auto it = slots_.find(uuid);
  if (it == slots_.end())
    return;
  const auto& view = *it->second.view;
  uuid_by_actor_.erase(it->second.actor.address());
  uuid_by_name_.erase(view.ref.name);
  uuid_by_id_.erase(view.ref.id);
  self_->demonitor(it->second.actor.address());
  self_->send_exit(it->second.actor, caf::exit_reason::user_shutdown);
  slots_.erase(it);
}

caf::result<done> driver_data::autostart(const set_autostart& order) {
  auto* there = slot_of(order.uuid);
  if (there == nullptr)
    return no_guest(fmt::format("no domain with matching uuid '{}'", order.uuid));
  if (!there->view->persistent)
    return to_caf({errc::wrong_state, "cannot set autostart for transient domain"});
  auto promise = self_->make_response_promise<done>();
  const auto name = there->view->ref.name;
  with_name(name, [this, order, name, promise]() mutable {
    if (const auto* still = slot_of(order.uuid); still == nullptr || !still->view->persistent) {
      promise.deliver(no_guest(name));
      return name_free(name);
    }
    around_->machine->save_autostart(name, order.on, here<done>([this, order, name, promise](result<done> saved) mutable {
      auto* now = slot_of(order.uuid);
      if (saved && now != nullptr) {
        mark(*now, order.on);
        promise.deliver(done{});
      } else {
        promise.deliver(saved ? no_guest(name) : to_caf(std::move(saved.error())));
      }
      name_free(name);
    }));
  });
  return promise;
}

caf::result<done> driver_data::save(const save_config& order) {
  auto promise = self_->make_response_promise<done>();
  const auto name = order.config->name;
  with_name(name, [this, order, name, promise]() mutable {
    const auto* there = slot_of(order.uuid);
    if (there == nullptr || !there->view->persistent) {
      promise.deliver(no_guest(name));
      return name_free(name);
    }
    around_->machine->save_definition(name, write_domain(*order.config, {.secure = true, .inactive = true}),
                                      here<done>([this, order, name, promise](result<done> saved) mutable {
                                        if (!saved) {
                                          promise.deliver(to_caf(std::move(saved.error())));
                                          return name_free(name);
                                        }
                                        if (auto* now = slot_of(order.uuid); now != nullptr && now->view->persistent)
                                          now->amend([&](guest_view& view) { view.config = order.config; });
                                        promise.deliver(done{});
                                        name_free(name);
                                      }));
  });
  return promise;
}

// ---- starts

caf::result<start_permit> driver_data::admit(const admit_start& wish) {
  auto* there = slot_of(wish.uuid);
  if (there == nullptr)
    return no_guest(fmt::format("no domain with matching uuid '{}'", wish.uuid));
  start_permit permit;
  auto& held = ports_[wish.uuid];
  for (const auto port : held)
    taken_ports_.erase(port);
  held.clear();
  for (int port = first_port_; held.size() < wish.display_ports && port <= last_port_; ++port) {
    if (taken_ports_.contains(port) || !around_->machine->port_is_free(port))
      continue;
    held.push_back(port);
    taken_ports_.insert(port);
  }
  if (held.size() < wish.display_ports) {
    for (const auto port : held)
      taken_ports_.erase(port);
    ports_.erase(wish.uuid);
    return to_caf({errc::operation_failed, fmt::format("no TCP port between {} and {} is free for a display",
                                                       first_port_, last_port_)});
  }
  permit.display_ports = held;
  permit.id = next_id_++;
  // From here on it is active: an undefine that comes before the guest's own news must not end it.
  there->amend([](guest_view& view) { view.life = guest_state::preparing; });
  // The guest's own row carries the id; what matters is that the next daemon does not use it again.
  ledger_batch used;
  used.set["next_id"] = std::to_string(next_id_);
  around_->machine->commit(std::move(used), [](result<done>) {});
  return permit;
}

void driver_data::changed(const guest_view_ptr& view) {
  auto* there = slot_of(view->ref.uuid);
  if (there == nullptr)
    return;
  const auto& old = *there->view;
  if (old.ref.id != view->ref.id) {
    uuid_by_id_.erase(old.ref.id);
    if (view->ref.id >= 0)
      uuid_by_id_[view->ref.id] = view->ref.uuid;
  }
  const bool ended = is_active(old.life) && !is_active(view->life);
  // What the driver itself decides (the definition, autostart) may be newer here than in the guest's mailbox.
  auto next = std::make_shared<guest_view>(*view);
  next->persistent = old.persistent;
  next->autostart = old.autostart;
  next->config = old.config;
  there->view = std::move(next);
  if (!ended)
    return;
  if (const auto held = ports_.find(view->ref.uuid); held != ports_.end()) {
    for (const auto port : held->second)
      taken_ports_.erase(port);
    ports_.erase(held);
  }
  if (!there->view->persistent)
    forget(view->ref.uuid);
}

void driver_data::tell(const guest_ref& guest, int event, int detail) {
  auto happened = std::make_shared<guest_event>();
  happened->guest = guest;
  happened->what = event::lifecycle{event, detail};
  self_->send(around_->events, publish_event{std::move(happened)});
}

// ---- supervision

void driver_data::lost(const caf::down_msg& message) {
  const auto who = uuid_by_actor_.find(message.source);
  if (who == uuid_by_actor_.end())
    return;
  const auto uuid = who->second;
  uuid_by_actor_.erase(who);
  auto& place = slots_.at(uuid);
  const auto& name = place.view->ref.name;
  const auto now = self_->clock().now();
  while (!place.failures.empty() && now - place.failures.front() > failure_window)
    place.failures.pop_front();
  place.failures.push_back(now);
  spdlog::error("guest '{}': its actor failed ({}); failure {} within {} s", name, caf::to_string(message.reason),
                place.failures.size(), std::chrono::duration_cast<std::chrono::seconds>(failure_window).count());
  if (place.failures.size() > most_failures) {
    spdlog::error("guest '{}': left alone; its QEMU, if any, runs on. Restart the daemon to take it up again", name);
    return;
  }
  if (!place.view->persistent && !place.view->row)
    return forget(uuid); // it was transient, and had not begun
  guest_setup wish;
  wish.around = around_;
  wish.name = name;
  wish.uuid = uuid;
  wish.config = place.view->config;
  wish.transient = place.transient;
  wish.autostart = place.view->autostart;
  wish.found = place.view->row;
  place.actor = spawn(std::move(wish));
  uuid_by_actor_[place.actor.address()] = uuid;
}

namespace {

driver_actor::behavior_type driver(driver_actor::stateful_pointer<driver_data> self, driver_setup setup) {
  self->state.begin(self, std::move(setup));
  return {
    [self](const find_guest& x) { return self->state.find(x); },
    [self](const list_guests& x) { return self->state.list(x); },
    [self](const define_guest& x) { return self->state.define(x); },
    [self](const create_guest& x) { return self->state.create(x); },
    [self](const undefine_guest& x) { return self->state.undefine(x); },
    [self](const set_autostart& x) { return self->state.autostart(x); },
    [self](const admit_start& x) { return self->state.admit(x); },
    [self](const save_config& x) { return self->state.save(x); },
    [self](const view_changed& x) { self->state.changed(x.view); },
    [](const completion& x) { x.run(); },
  };
}

} // namespace

driver_actor spawn_driver(caf::actor_system& system, driver_setup setup) {
  return system.spawn(driver, std::move(setup));
}

} // namespace troupe
