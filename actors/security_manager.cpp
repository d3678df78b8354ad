#include "actors/security_manager.hpp"

#include "actors/inside.hpp"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <spdlog/spdlog.h>
#include <vector>

namespace troupe {
namespace {

/// A file that guests took: what it was before the first of them, what it is for them, and who they are.
struct taken_file {
  file_taking file;
  std::map<std::string, bool> guests; ///< UUID to whether this guest lets others have the file too.

  bool is_shared() const {
    return std::ranges::all_of(guests, [](const auto& each) { return each.second; });
  }
};

// ---- rows of the ledger

file_row row_for(const std::string& guest, const taken_file& taken) {
  auto before = nlohmann::json::object();
  for (const auto& [model, label] : taken.file.before.labels)
    before[model] = {{"value", label.value}, {"holders", label.holders}, {"notes", label.notes}};
  const auto text = [](const nlohmann::json& json) {
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  file_row row;
  row.path = taken.file.before.path;
  row.guest_uuid = guest;
  row.device = taken.file.before.device;
  row.inode = taken.file.before.inode;
  row.mode = taken.file.before.mode;
  row.shared = taken.guests.at(guest);
  row.before = text(before);
  row.taken = text(taken.file.labels);
  return row;
}

/// A row as `row_for` wrote it. What is no such text leaves the file without labels, and so alone.
file_taking taking_of(const file_row& row) {
  file_taking file;
  file.before.path = row.path;
  file.before.device = row.device;
  file.before.inode = row.inode;
  file.before.mode = row.mode;
  try {
    const auto before = nlohmann::json::parse(row.before);
    for (const auto& [model, label] : before.items()) {
      auto& to = file.before.labels[model];
      label.at("value").get_to(to.value);
      label.at("holders").get_to(to.holders);
      label.at("notes").get_to(to.notes);
    }
    nlohmann::json::parse(row.taken).get_to(file.labels);
  } catch (const nlohmann::json::exception& wrong) {
    spdlog::error("the ledger's row of '{}' cannot be read: {}", row.path, wrong.what());
    file.labels.clear();
  }
  return file;
}

// ---- what files become

using identities = std::map<std::string, dac_identity>; ///< by label of a definition

/// "user:group" as its two halves; the second may be missing.
std::pair<std::string, std::string> halves(const std::string& label) {
  const auto colon = label.find(':');
  return {label.substr(0, colon), colon == label.npos ? std::string{} : label.substr(colon + 1)};
}

/// The user of a guest and those that its definition names for single files: label to what it is for.
std::map<std::string, std::string> users_named(const secure_guest& wish) {
  std::map<std::string, std::string> named;
  for (const auto& each : wish.paths)
    if (const auto* own = own_label(each, "dac"); own && own->relabel && own->model == "dac" && !own->label.empty())
      named[own->label] = fmt::format("DAC label '{}' of '{}'", own->label, each.path);
  if (!wish.user.empty())
    named[wish.user] = fmt::format("DAC label '{}'", wish.user);
  return named;
}

/// The owner that a file gets. None: it keeps its own.
std::optional<std::string> owner_wanted(const resource& file, const dac_identity& guest, const identities& others) {
  const auto* own = own_label(file, "dac");
  if (own && !own->relabel)
    return std::nullopt;
  const auto other = own ? others.find(own->label) : others.end();
  const auto& who = other == others.end() ? guest : other->second;
  return owner_label(who.uid, who.gid);
}

} // namespace

class security_data {
public:
  void begin(security_actor::pointer self, security_setup setup) {
    self_ = self;
    setup_ = std::move(setup);
    desk_ = label_desk{setup_.model};
    models_ = {"dac"};
    if (setup_.model.what == confinement_model::kind::selinux)
      models_.emplace_back("selinux");
  }

  caf::result<guest_identity> secure(const secure_guest& wish);
  caf::result<bool> load_profile(const load_guest_profile& wish);
  caf::result<done> release(const release_guest& wish);
  done recall(const recall_labels& found);

private:
  using outcome = std::function<void(result<done>)>;
  /// Something that is done for a guest, and says when.
  using step = std::function<void(outcome)>;

  /// A guest on its way to being secured.
  struct securing {
    secure_guest wish;
    identities users; ///< By label, as far as they were looked up.
    dac_identity who;
    std::optional<guest_label> label; ///< Of the kernel's model; absent: that does not confine it.
    std::vector<host::seen_file> seen;
    std::vector<std::map<std::string, std::string>> labels; ///< What each of `seen` gets, by model.
    std::vector<std::string> held; ///< What nobody else may change meanwhile.
    std::shared_ptr<bool> released = std::make_shared<bool>(false);
    caf::typed_response_promise<guest_identity> promise;
  };
  using securing_ptr = std::shared_ptr<securing>;

  /// What a guest opens, without symbolic links on the way.
  static std::vector<resource> files_of(const securing& it) {
    std::vector<resource> files;
    for (const auto& [file, record] : it.seen) {
      files.push_back(file);
      files.back().path = record.path;
    }
    return files;
  }

  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then) {
    return inside_as<security_actor, result<T>>(self_, std::move(then));
  }

  /// Runs `work` when no other change touches one of `paths`; `work` calls `free_paths` at its end.
  void with_paths(std::vector<std::string> paths, std::function<void()> work);
  void free_paths(const std::vector<std::string>& paths);
  /// One after another, up to the first that fails.
  void run_steps(std::deque<step> steps, outcome then);

  void refuse(const securing_ptr& it, error why);
  void find_users(const securing_ptr& it, std::map<std::string, std::string> named);
  void look(const securing_ptr& it);
  void looked(const securing_ptr& it);
  void choose_labels(securing& it) const;
  std::vector<guest_label> shown_labels(const securing& it, const std::string& owner) const;
  result<void> check_conflicts(const securing& it) const;
  struct in_use {
    std::string label;
    std::string_view whose;
  };
  std::optional<in_use> label_in_use(const host::seen_file& file, const std::string& model) const;
  void take(const securing_ptr& it);
  void give_back(const release_guest& wish, std::function<void()> then);
  void give_back_files(const std::string& uuid, std::function<void()> then);

  struct waiting {
    std::vector<std::string> paths;
    std::function<void()> work;
  };

  security_actor::pointer self_ = nullptr;
  security_setup setup_;
  std::vector<std::string> models_; ///< That label files.
  label_desk desk_{{}};
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

void security_data::run_steps(std::deque<step> steps, outcome then) {
  if (steps.empty())
    return then(done{});
  const auto first = std::move(steps.front());
  steps.pop_front();
  first([this, steps = std::move(steps), then = std::move(then)](result<done> went) mutable {
    if (!went)
      return then(std::move(went));
    run_steps(std::move(steps), std::move(then));
  });
}

caf::result<guest_identity> security_data::secure(const secure_guest& wish) {
  if (!setup_.privileged)
    return guest_identity{};
  const auto it = std::make_shared<securing>();
  it->wish = wish;
  it->who = setup_.fallback;
  it->promise = self_->make_response_promise<guest_identity>();
  looking_[wish.uuid] = it->released;
  std::uint64_t draw = 0;
  for (const auto byte : setup_.machine->random_bytes())
    draw = draw << 8 | byte;
  auto label = desk_.issue(wish, draw);
  if (!label) {
    looked(it);
    refuse(it, std::move(label.error()));
    return it->promise;
  }
  it->label = std::move(*label);
  find_users(it, users_named(wish));
  return it->promise;
}

/// Nothing of it is changed, or any more.
void security_data::refuse(const securing_ptr& it, error why) {
  desk_.give_back(it->wish.uuid);
  why.detail = fmt::format("guest '{}': {}", it->wish.name, why.detail);
  it->promise.deliver(to_caf(std::move(why)));
}

void security_data::find_users(const securing_ptr& it, std::map<std::string, std::string> named) {
  if (named.empty()) {
    if (!it->wish.user.empty())
      it->who = it->users.at(it->wish.user);
    return look(it);
  }
  const auto next = named.extract(named.begin());
  const auto [user, group] = halves(next.key());
  setup_.machine->resolve(
    user, group,
    here<dac_identity>([this, it, named = std::move(named), label = next.key(), what = next.mapped()](result<dac_identity> who) {
      if (!who) {
        looked(it);
        return refuse(it, {who.error().code, fmt::format("{}: {}", what, who.error().detail)});
      }
      it->users[label] = std::move(*who);
      find_users(it, named);
    }));
}

/// Before anything is taken, so that a path that hangs keeps nothing but itself busy.
void security_data::look(const securing_ptr& it) {
  setup_.machine->observe_files(
    it->wish.paths, models_, it->who,
    here<std::vector<host::seen_file>>([this, it, returns = returns_](result<std::vector<host::seen_file>> seen) {
      if (!seen) {
        looked(it);
        return refuse(it, std::move(seen.error()));
      }
      it->seen = std::move(*seen);
      choose_labels(*it);
      with_paths(it->held, [this, it, returns] {
        const auto leave = [&](error why) {
          looked(it);
          free_paths(it->held);
          refuse(it, std::move(why));
        };
        if (*it->released)
          return leave({errc::aborted, "it ended while its files were looked at"});
        // What was given back since may have been seen with the labels it had before.
        if (returns != returns_ && !it->held.empty()) {
          free_paths(it->held);
          return look(it);
        }
        if (auto free = check_conflicts(*it); !free)
          return leave(std::move(free.error()));
        looked(it);
        take(it);
      });
    }));
}

void security_data::looked(const securing_ptr& it) {
  if (const auto found = looking_.find(it->wish.uuid); found != looking_.end() && found->second == it->released)
    looking_.erase(found);
}

/// What each file gets in each model, and with it what others have to wait for.
void security_data::choose_labels(securing& it) const {
  it.labels.assign(it.seen.size(), {});
  it.held.clear();
  for (std::size_t i = 0; i < it.seen.size(); ++i) {
    const auto& [file, record] = it.seen[i];
    if (!file.relabel)
      continue;
    if (setup_.dynamic_ownership && it.wish.relabel)
      if (auto owner = owner_wanted(file, it.who, it.users))
        it.labels[i]["dac"] = std::move(*owner);
    if (it.label)
      if (auto label = desk_.label_for(*it.label, file); !label.empty())
        it.labels[i][it.label->model] = std::move(label);
    if (!it.labels[i].empty())
      it.held.push_back(record.path);
  }
  if (!it.wish.control_group.empty())
    it.held.push_back(it.wish.control_group); // its removal waits until it is made
}

/// Whether a file that somebody has to himself would get another label.
result<void> security_data::check_conflicts(const securing& it) const {
  for (std::size_t i = 0; i < it.seen.size(); ++i)
    for (const auto& [model, wanted] : it.labels[i])
      if (auto now = label_in_use(it.seen[i], model); now && now->label != wanted)
        return fail(errc::wrong_state,
                    fmt::format("'{}' is in use by {} with the {} label '{}': it cannot be '{}' as well",
                                it.seen[i].record.path, now->whose, model, now->label, wanted));
  return {};
}

/// The label that a file has for others, who may not be taken it from; none: it is free, or everybody shares it.
std::optional<security_data::in_use> security_data::label_in_use(const host::seen_file& file,
                                                                 const std::string& model) const {
  const auto& seen = file.record;
  const auto known = taken_.find(seen.path);
  if (known != taken_.end() && known->second.file.before.inode == seen.inode) {
    const auto& [taken, guests] = known->second;
    const auto now = taken.labels.find(model);
    if (now != taken.labels.end() && !(known->second.is_shared() && file.file.shared))
      return in_use{now->second, "another guest"};
    return std::nullopt;
  }
  const auto before = seen.labels.find(model);
  if (before != seen.labels.end() && before->second.holders > 0 && !file.file.shared)
    return in_use{before->second.now, "another supervisor's guest"};
  return std::nullopt;
}

void security_data::take(const securing_ptr& it) {
  ledger_batch intent;
  std::vector<file_taking> fresh;
  for (std::size_t i = 0; i < it->seen.size(); ++i) {
    if (it->labels[i].empty())
      continue;
    const auto& [file, seen] = it->seen[i];
    auto [known, is_new] = taken_.try_emplace(seen.path);
    auto& [taken, guests] = known->second;
    if (is_new || taken.before.inode != seen.inode || taken.before.device != seen.device) {
      taken = {seen, {}};
      guests.clear();
    }
    for (const auto& [model, label] : it->labels[i]) {
      if (!taken.labels.contains(model) && seen.labels.contains(model))
        taken.before.labels[model] = seen.labels.at(model);
      taken.labels[model] = label;
    }
    // A second path to the same file may want less of it.
    const auto [mine, first] = guests.try_emplace(it->wish.uuid, file.shared);
    mine->second = mine->second && file.shared;
    intent.put_files.push_back(row_for(it->wish.uuid, known->second));
    fresh.push_back({taken.before, it->labels[i]});
    fresh.back().before.foreign_link = seen.foreign_link;
  }

  std::deque<step> steps;
  if (!fresh.empty()) {
    steps.push_back([this, intent = std::move(intent)](outcome then) {
      setup_.machine->commit(intent, here<done>(std::move(then)));
    });
    steps.push_back([this, fresh = std::move(fresh)](outcome then) {
      setup_.machine->take_files(fresh, here<done>(std::move(then)));
    });
  }
  if (!it->wish.control_group.empty())
    steps.push_back([this, it](outcome then) {
      setup_.machine->make_control_group(it->wish.control_group, files_of(*it), here<done>(std::move(then)));
    });
  run_steps(std::move(steps), [this, it](result<done> went) {
    free_paths(it->held);
    if (!went)
      return give_back({it->wish.uuid, it->wish.control_group}, [this, it, why = went.error()] { refuse(it, why); });
    const auto& who = it->who;
    guest_identity identity{true, who.uid, who.gid, who.groups, owner_label(who.uid, who.gid), files_of(*it)};
    identity.labels = shown_labels(*it, identity.label);
    identity.enforced = setup_.model.enforced;
    it->promise.deliver(std::move(identity));
  });
}

/// What clients see of it.
std::vector<guest_label> security_data::shown_labels(const securing& it, const std::string& owner) const {
  const auto& wish = it.wish;
  std::vector<guest_label> labels;
  if (it.label)
    labels.push_back(*it.label);
  else
    labels = wish.labels;
  // Where guests that say nothing are not confined, they show nothing.
  if (labels.empty() && !setup_.model.default_confined && wish.user.empty())
    return labels;
  guest_label users;
  users.model = "dac";
  users.how = wish.user.empty() ? guest_label::origin::dynamic : guest_label::origin::chosen;
  users.relabel = wish.relabel;
  users.process = wish.user.empty() ? owner : wish.user;
  users.image = users.relabel ? users.process : std::string{};
  labels.push_back(std::move(users));
  return labels;
}

caf::result<bool> security_data::load_profile(const load_guest_profile& wish) {
  const auto name = desk_.profile_of(wish.uuid);
  if (!setup_.privileged || name.empty())
    return true;
  auto promise = self_->make_response_promise<bool>();
  setup_.machine->load_profile(name, wish.rules, here<bool>([wish, promise](result<bool> loaded) mutable {
                                 if (loaded) {
                                   promise.deliver(*loaded);
                                   return;
                                 }
                                 loaded.error().detail = fmt::format("guest '{}': {}", wish.name, loaded.error().detail);
                                 promise.deliver(to_caf(std::move(loaded.error())));
                               }));
  return promise;
}

/// Never fails: what could not be undone is said, and the rest is done.
void security_data::give_back(const release_guest& wish, std::function<void()> then) {
  std::deque<step> steps;
  if (const auto& group = wish.control_group; !group.empty())
    steps.push_back([this, group](outcome next) {
      with_paths({group}, [this, group, next] {
        setup_.machine->remove_control_group(group, here<done>([this, group, next](result<done> removed) {
          if (!removed)
            spdlog::error("{}", removed.error().message());
          free_paths({group});
          next(done{});
        }));
      });
    });
  if (const auto profile = desk_.profile_of(wish.uuid); !profile.empty() && setup_.privileged)
    steps.push_back([this, profile](outcome next) {
      setup_.machine->drop_profile(profile, here<done>([profile, next](result<done> dropped) {
                                     if (!dropped)
                                       spdlog::error("the profile '{}' stays: {}", profile, dropped.error().message());
                                     next(done{});
                                   }));
    });
  steps.push_back([this, uuid = wish.uuid](outcome next) {
    give_back_files(uuid, [this, uuid, next] {
      desk_.give_back(uuid); // no other guest may have its label while its files have
      next(done{});
    });
  });
  run_steps(std::move(steps), [then = std::move(then)](const result<done>&) { then(); });
}

void security_data::give_back_files(const std::string& uuid, std::function<void()> then) {
  std::vector<std::string> paths;
  for (const auto& [path, taken] : taken_)
    if (taken.guests.contains(uuid))
      paths.push_back(path);
  if (paths.empty())
    return then();
  with_paths(paths, [this, uuid, paths, then] {
    std::vector<file_taking> back;
    ledger_batch forget;
    for (const auto& path : paths) {
      const auto it = taken_.find(path);
      if (it == taken_.end())
        continue;
      it->second.guests.erase(uuid);
      forget.drop_files.emplace_back(path, uuid);
      if (it->second.guests.empty())
        back.push_back(it->second.file);
    }
    setup_.machine->give_back_files(
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
  give_back(wish, [promise]() mutable { promise.deliver(done{}); });
  return promise;
}

done security_data::recall(const recall_labels& found) {
  for (const auto& row : found.files) {
    auto& [file, guests] = taken_[row.path];
    auto recalled = taking_of(row);
    if (guests.empty())
      file = std::move(recalled);
    else // the first row has what was before; the last one what is now
      for (auto& [model, label] : recalled.labels) {
        file.before.labels.try_emplace(model, recalled.before.labels[model]);
        file.labels[model] = std::move(label);
      }
    guests[row.guest_uuid] = row.shared;
  }
  for (const auto& [uuid, label] : found.guests)
    desk_.recall(uuid, label);
  return {};
}

namespace {

security_actor::behavior_type security_manager(security_actor::stateful_pointer<security_data> self,
                                               security_setup setup) {
  self->state.begin(self, std::move(setup));
  return {
    [self](const secure_guest& x) { return self->state.secure(x); },
    [self](const load_guest_profile& x) { return self->state.load_profile(x); },
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
