#include "actors/security_manager.hpp"

#include "actors/inside.hpp"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <set>
#include <spdlog/spdlog.h>
#include <vector>

namespace troupe {
namespace {

/// A file that guests took: whose it was before the first of them, and who has it now.
struct taken_file {
  owner_record before;
  uid_t taken_uid = 0;
  gid_t taken_gid = 0;
  std::set<std::string> guests; ///< their uuids
};

file_row row_for(const std::string& guest, const taken_file& file) {
  file_row row;
  row.path = file.before.path;
  row.guest_uuid = guest;
  row.device = file.before.device;
  row.inode = file.before.inode;
  row.uid = file.before.uid;
  row.gid = file.before.gid;
  row.mode = file.before.mode;
  row.taken_uid = file.taken_uid;
  row.taken_gid = file.taken_gid;
  return row;
}

std::string label_of(uid_t uid, gid_t gid) {
  return fmt::format("+{}:+{}", uid, gid);
}

} // namespace

class security_data {
public:
  void begin(security_actor::pointer self, security_setup setup) {
    self_ = self;
    setup_ = std::move(setup);
  }

  caf::result<guest_identity> secure(const secure_guest& wish);
  caf::result<done> release(const release_guest& wish);
  done recall(const recall_labels& found);

private:
  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then) {
    return inside_as<security_actor, result<T>>(self_, std::move(then));
  }

  /// Runs `work` when no other change touches one of `paths`; `work` calls `free_paths` at its end.
  void with_paths(std::vector<std::string> paths, std::function<void()> work);
  void free_paths(const std::vector<std::string>& paths);
  void look(const secure_guest& wish, const dac_identity& who, caf::typed_response_promise<guest_identity> promise);
  void looked(const std::string& uuid, const std::shared_ptr<bool>& released);
  void take(const secure_guest& wish, const dac_identity& who, std::vector<owner_record> now,
            caf::typed_response_promise<guest_identity> promise);
  void give_back(const std::string& uuid, const std::string& control_group, std::function<void()> then);

  struct waiting {
    std::vector<std::string> paths;
    std::function<void()> work;
  };

  security_actor::pointer self_ = nullptr;
  security_setup setup_;
  std::map<std::string, taken_file> taken_; ///< by resolved path
  std::set<std::string> busy_;
  std::deque<waiting> queue_;
  std::uint64_t returns_ = 0; ///< How often files were given back.
  /// Guests, by uuid, whose files are being looked at; true: released meanwhile, so nothing is to be taken any more.
  std::map<std::string, std::shared_ptr<bool>> looking_;
};

void security_data::with_paths(std::vector<std::string> paths, std::function<void()> work) {
  const auto is_busy = [this](const std::string& path) { return busy_.contains(path); };
  if (std::ranges::any_of(paths, is_busy)) {
    queue_.push_back({std::move(paths), std::move(work)});
    return;
  }
  busy_.insert(paths.begin(), paths.end());
  work();
}

void security_data::free_paths(const std::vector<std::string>& paths) {
  for (const auto& path : paths)
    busy_.erase(path);
  auto later = std::exchange(queue_, {});
  for (auto& each : later)
    with_paths(std::move(each.paths), std::move(each.work));
}

caf::result<guest_identity> security_data::secure(const secure_guest& wish) {
  if (!setup_.privileged)
    return guest_identity{};
  auto promise = self_->make_response_promise<guest_identity>();
  if (wish.user.empty()) {
    look(wish, setup_.fallback, promise);
    return promise;
  }
  const auto colon = wish.user.find(':');
  const auto user = wish.user.substr(0, colon);
  const auto group = colon == std::string::npos ? std::string{} : wish.user.substr(colon + 1);
  setup_.machine->resolve(user, group, here<dac_identity>([this, wish, promise](result<dac_identity> who) mutable {
    if (who) {
      look(wish, *who, promise);
    } else {
      who.error().detail = fmt::format("guest '{}': DAC label '{}': {}", wish.name, wish.user, who.error().detail);
      promise.deliver(to_caf(std::move(who.error())));
    }
  }));
  return promise;
}

/// Before anything is taken, so that a path that hangs keeps nothing but itself busy.
void security_data::look(const secure_guest& wish, const dac_identity& who,
                         caf::typed_response_promise<guest_identity> promise) {
  if (wish.paths.empty() && wish.control_group.empty())
    return take(wish, who, {}, std::move(promise));
  const auto released = std::make_shared<bool>(false);
  looking_[wish.uuid] = released;
  setup_.machine->observe_owners(
    wish.paths, who,
    here<std::vector<owner_record>>(
      [this, wish, who, promise, released, returns = returns_](result<std::vector<owner_record>> now) mutable {
        if (!now) {
          looked(wish.uuid, released);
          now.error().detail = fmt::format("guest '{}': {}", wish.name, now.error().detail);
          promise.deliver(to_caf(std::move(now.error())));
          return;
        }
        std::vector<owner_record> mine;
        std::vector<std::string> resolved;
        for (std::size_t i = 0; i < now->size(); ++i)
          if (setup_.dynamic_ownership && wish.relabel && wish.paths[i].relabel) {
            resolved.push_back((*now)[i].path);
            mine.push_back(std::move((*now)[i]));
          }
        if (!wish.control_group.empty())
          resolved.push_back(wish.control_group); // its removal waits until it is made
        with_paths(resolved, [this, wish, who, mine, resolved, promise, released, returns]() mutable {
          looked(wish.uuid, released);
          if (*released) {
            free_paths(resolved);
            promise.deliver(to_caf({errc::aborted, fmt::format("guest '{}' ended while its files were looked at", wish.name)}));
            return;
          }
          // What was given back since may have been seen with the owner it had before.
          if (returns != returns_ && !mine.empty()) {
            free_paths(resolved);
            return look(wish, who, promise);
          }
          take(wish, who, std::move(mine), promise);
        });
      }));
}

void security_data::looked(const std::string& uuid, const std::shared_ptr<bool>& released) {
  if (const auto it = looking_.find(uuid); it != looking_.end() && it->second == released)
    looking_.erase(it);
}

void security_data::take(const secure_guest& wish, const dac_identity& who, std::vector<owner_record> now,
                         caf::typed_response_promise<guest_identity> promise) {
  ledger_batch intent;
  std::vector<std::string> paths;
  std::vector<owner_record> fresh;
  for (auto& each : now) {
    paths.push_back(each.path);
    auto [it, is_new] = taken_.try_emplace(each.path);
    auto& file = it->second;
    if (is_new || file.before.inode != each.inode || file.before.device != each.device) {
      file.before = each;
      file.guests.clear();
    }
    file.taken_uid = who.uid;
    file.taken_gid = who.gid;
    file.guests.insert(wish.uuid);
    intent.put_files.push_back(row_for(wish.uuid, file));
    fresh.push_back(each);
  }
  if (!wish.control_group.empty())
    paths.push_back(wish.control_group);
  auto give_up = [this, wish, paths, promise](error why) mutable {
    free_paths(paths);
    why.detail = fmt::format("guest '{}': {}", wish.name, why.detail);
    give_back(wish.uuid, wish.control_group, [promise, why]() mutable { promise.deliver(to_caf(std::move(why))); });
  };
  auto answer = [this, promise, who, paths]() mutable {
    free_paths(paths);
    guest_identity identity;
    identity.change = true;
    identity.uid = who.uid;
    identity.gid = who.gid;
    identity.groups = who.groups;
    identity.label = label_of(who.uid, who.gid);
    promise.deliver(std::move(identity));
  };
  auto confine = [this, wish, give_up, answer]() mutable {
    if (wish.control_group.empty())
      return answer();
    setup_.machine->make_control_group(wish.control_group, wish.paths,
                                       here<done>([give_up, answer](result<done> made) mutable {
                                         if (!made)
                                           return give_up(std::move(made.error()));
                                         answer();
                                       }));
  };
  if (fresh.empty())
    return confine();
  setup_.machine->commit(std::move(intent),
                         here<done>([this, who, fresh, give_up, confine](result<done> written) mutable {
                           if (!written)
                             return give_up(std::move(written.error()));
                           setup_.machine->take_owners(std::move(fresh), who.uid, who.gid,
                                                       here<done>([give_up, confine](result<done> took) mutable {
                                                         if (!took)
                                                           return give_up(std::move(took.error()));
                                                         confine();
                                                       }));
                         }));
}

void security_data::give_back(const std::string& uuid, const std::string& control_group, std::function<void()> then) {
  if (!control_group.empty()) {
    with_paths({control_group}, [this, uuid, control_group, then] {
      setup_.machine->remove_control_group(control_group, here<done>([=, this](result<done> removed) {
        if (!removed)
          spdlog::error("{}", removed.error().message());
        free_paths({control_group});
        give_back(uuid, "", then);
      }));
    });
    return;
  }
  std::vector<std::string> paths;
  for (const auto& [path, file] : taken_)
    if (file.guests.contains(uuid))
      paths.push_back(path);
  if (paths.empty())
    return then();
  with_paths(paths, [this, uuid, paths, then] {
    std::vector<host::giving_back> back;
    ledger_batch forget;
    for (const auto& path : paths) {
      const auto it = taken_.find(path);
      if (it == taken_.end())
        continue;
      it->second.guests.erase(uuid);
      forget.drop_files.emplace_back(path, uuid);
      if (it->second.guests.empty())
        back.push_back({it->second.before, it->second.taken_uid, it->second.taken_gid});
    }
    setup_.machine->give_back_owners(
      back, here<std::vector<std::string>>([this, paths, forget, then](result<std::vector<std::string>> complaints) mutable {
        if (!complaints)
          spdlog::error("files were not given back: {}", complaints.error().message());
        else
          for (const auto& each : *complaints)
            spdlog::error("{}", each);
        ++returns_;
        for (const auto& path : paths)
          if (const auto it = taken_.find(path); it != taken_.end() && it->second.guests.empty())
            taken_.erase(it);
        setup_.machine->commit(std::move(forget), here<done>([this, paths, then](result<done> written) {
          if (!written)
            spdlog::error("the ledger still holds files as taken: {}", written.error().message());
          free_paths(paths);
          then();
        }));
      }));
  });
}

caf::result<done> security_data::release(const release_guest& wish) {
  if (const auto it = looking_.find(wish.uuid); it != looking_.end()) {
    *it->second = true;
    looking_.erase(it);
  }
  auto promise = self_->make_response_promise<done>();
  give_back(wish.uuid, wish.control_group, [promise]() mutable { promise.deliver(done{}); });
  return promise;
}

done security_data::recall(const recall_labels& found) {
  for (const auto& row : found.files) {
    auto& file = taken_[row.path];
    if (file.guests.empty()) {
      file.before.path = row.path;
      file.before.device = row.device;
      file.before.inode = row.inode;
      file.before.uid = row.uid;
      file.before.gid = row.gid;
      file.before.mode = row.mode;
    }
    file.taken_uid = row.taken_uid;
    file.taken_gid = row.taken_gid;
    file.guests.insert(row.guest_uuid);
  }
  return {};
}

namespace {

security_actor::behavior_type security_manager(security_actor::stateful_pointer<security_data> self,
                                               security_setup setup) {
  self->state.begin(self, std::move(setup));
  return {
    [self](const secure_guest& x) { return self->state.secure(x); },
    [self](const release_guest& x) { return self->state.release(x); },
    [self](const recall_labels& x) { return self->state.recall(x); },
    [](const completion& x) { x.run(); },
  };
}

} // namespace

security_actor spawn_security_manager(caf::actor_system& system, security_setup setup) {
  return system.spawn(security_manager, std::move(setup));
}

} // namespace troupe
