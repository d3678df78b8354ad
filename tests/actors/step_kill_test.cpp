#include "tests/actors/actor_fixture.hpp"
#include "tests/temp_dir.hpp"

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>

// The daemon is killed before and after every single step of starts and stops: each message to an actor, each thing that
// the machine does for one. Not by lot: all of them. Whatever the next daemon finds, files become what they were, and
// nothing is left.

using namespace troupe;
using namespace troupe::sim;

namespace {

using lines = std::vector<std::string>;

/// What happens while no daemon runs.
enum class meanwhile { nothing, guests_die, reboot };

constexpr const char* words_of(meanwhile what) {
  return what == meanwhile::nothing ? "nothing" : what == meanwhile::guests_die ? "the guests died" : "the machine was booted anew";
}

/// An operation that is cut short, on a machine where another guest uses some of its files.
struct operation {
  const char* name;
  void (*spoil)(qemu_script& script); ///< Of the guest that it is about.
  bool started;                       ///< The guest runs before.
  void (*begin)(company_fixture& on); ///< Returns at once.
};

void leave(qemu_script&) {}

void begin_start(company_fixture& on) {
  on.order<guest_ref>("web1", start_guest{0, nullptr, nullptr});
}

void begin_stop(company_fixture& on) {
  on.order<done>("web1", destroy_guest{});
}

constexpr operation operations[] = {
  {"a start", leave, false, begin_start},
  {"a start that the launcher refuses", [](qemu_script& script) { script.exec_error = "no such program"; }, false, begin_start},
  {"a start in which QEMU dies", [](qemu_script& script) { script.dies_at_once = true; }, false, begin_start},
  {"a start that QEMU refuses", [](qemu_script& script) { script.refuses = {"query-chardev"}; }, false, begin_start},
  {"a stop", leave, true, begin_stop},
  {"a stop of a guest that ignores it", [](qemu_script& script) { script.ignores_sigterm = true; }, true, begin_stop},
  {"a death", leave, true, [](company_fixture& on) { on.world->die(on.world->qemu_of("web1"), 0, 11); }},
};

/// The files of the machine; a test may put real ones in their place.
struct theatre {
  virtual ~theatre() = default;
  virtual void furnish(machine& on) const = 0;
  virtual guest_text text_of(int number) const = 0;
  /// What is not as it was at first.
  virtual lines changes(const machine& on) const = 0;
};

void end_daemon(company_fixture& on, meanwhile what) {
  on.now.reset();
  if (what != meanwhile::nothing)
    for (const auto& each : on.world->alive())
      on.world->die(each, 0, 9);
  if (what == meanwhile::reboot) {
    on.world->boot += "'";
    on.world->run_dirs.clear();
    on.world->control_groups.clear();
  }
  on.begin();
}

/// False: the operation was over before so many steps.
bool kill_after(int steps, const operation& what, meanwhile then, const theatre& stage) {
  company_fixture on;
  stage.furnish(*on.world);
  for (const int number : {1, 2})
    REQUIRE(on.define(stage.text_of(number)));
  REQUIRE(on.start("web2"));
  on.world->script = [&](const std::string& guest) {
    qemu_script script;
    if (guest == "web1")
      what.spoil(script);
    return script;
  };
  if (what.started)
    REQUIRE(on.start("web1"));
  on.run_for(1s);
  what.begin(on);
  const auto over = [&] {
    const auto row = on.world->rows.find(uuid_for(1));
    const bool settled = row == on.world->rows.end() || (row->second.phase == "running" && on.world->qemu_of("web1"));
    return settled && on.now->sched().jobs.empty() && !on.world->next_event();
  };
  int taken = 0;
  while (taken < steps && !over() && on.step())
    ++taken;
  const bool whole = taken == steps;
  end_daemon(on, then);
  on.world->script = [](const std::string&) { return qemu_script{}; };
  on.settle();
  INFO(what.name << " is cut short after " << steps << " steps, and " << words_of(then) << " meanwhile");
  CHECK(on.contradictions() == lines{});
  for (const auto& view : on.views())
    if (view->life != guest_state::shutoff)
      CHECK(on.destroy(view->ref.name));
  on.settle();
  CHECK(on.contradictions() == lines{});
  CHECK(on.world->file_rows.empty());
  CHECK(on.world->control_groups.empty());
  CHECK(on.world->run_dirs.empty());
  CHECK(stage.changes(*on.world) == lines{});
  return whole;
}

int kill_everywhere(const theatre& stage) {
  int kills = 0;
  for (const auto& what : operations)
    for (const auto then : {meanwhile::nothing, meanwhile::guests_die, meanwhile::reboot})
      for (int steps = 0; kill_after(steps, what, then, stage); ++steps)
        ++kills;
  return kills;
}

class made_up_files : public theatre {
  void furnish(machine& on) const override {
    on.add_file("/images/web1.raw", 1000, 1000);
    on.add_file("/images/web2.raw", 1001, 1001);
    on.add_file("/images/shared.raw", 0, 6);
  }
  guest_text text_of(int number) const override {
    return {fmt::format("web{}", number), {fmt::format("/images/web{}.raw", number), "/images/shared.raw"}, true, "", number};
  }
  lines changes(const machine& on) const override {
    lines out;
    for (const auto& [path, file] : on.files)
      if (file != on.first_owners.at(path))
        out.push_back(path);
    return out;
  }
};

/// A file as it can be told from another: owner, mode and every extended attribute, an ACL and trusted ones too.
std::string picture_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::lstat(path.c_str(), &info) == 0);
  auto out = fmt::format("{}:{} {:o}", info.st_uid, info.st_gid, info.st_mode);
  std::string names(4096, '\0');
  names.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::llistxattr(path.c_str(), names.data(), names.size()))));
  std::set<std::string> sorted;
  for (std::size_t at = 0; at < names.size(); at += names.substr(at).find('\0') + 1)
    sorted.insert(names.c_str() + at);
  for (const auto& name : sorted) {
    std::string value(4096, '\0');
    value.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size()))));
    out += "\n" + name + " ";
    for (const char c : value)
      out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  }
  return out;
}

/// Real ones, of several owners, with an ACL and attributes, labelled and given back by sec/.
class real_files : public theatre {
public:
  real_files() {
    for (const auto& [name, uid] : {std::pair{"web1.raw", 1000u}, {"web2.raw", 1001u}, {"shared.raw", 0u}}) {
      const auto path = write_file(dir_ / name, "disk");
      REQUIRE(::chown(path.c_str(), uid, 6) == 0);
      REQUIRE(::chmod(path.c_str(), 0640) == 0);
      std::string acl(sizeof(posix_acl_xattr_header), '\0');
      acl[0] = POSIX_ACL_XATTR_VERSION;
      const auto add = [&](int tag, int may, std::uint32_t id) {
        posix_acl_xattr_entry entry{};
        entry.e_tag = static_cast<std::uint16_t>(tag);
        entry.e_perm = static_cast<std::uint16_t>(may);
        entry.e_id = id;
        acl.append(reinterpret_cast<const char*>(&entry), sizeof entry);
      };
      constexpr auto none = static_cast<std::uint32_t>(ACL_UNDEFINED_ID);
      add(ACL_USER_OBJ, 6, none);
      add(ACL_USER, 4, 1234);
      add(ACL_GROUP_OBJ, 4, none);
      add(ACL_MASK, 4, none);
      add(ACL_OTHER, 0, none);
      for (const auto& [attribute, value] : {std::pair<std::string, std::string>{"system.posix_acl_access", acl},
                                             {"user.note", "of its owner"},
                                             {"trusted.other", "of somebody else"}})
        REQUIRE(::setxattr(path.c_str(), attribute.c_str(), value.data(), value.size(), 0) == 0);
      first_[path] = picture_of(path);
    }
  }

private:
  void furnish(machine& on) const override {
    const file_notes notes{true, "stepkill"};
    on.real_files = file_work{
      [notes](const std::string& path, const std::vector<std::string>& models) { return observe(path, models, notes); },
      [notes](const file_taking& wanted) -> result<void> {
        auto took = take(wanted, notes);
        if (!took)
          return tl::make_unexpected(std::move(took.error()));
        return {};
      },
      [notes](const file_taking& taken) { return give_back(taken, notes); }};
  }
  guest_text text_of(int number) const override {
    return {fmt::format("web{}", number), {dir_ / fmt::format("web{}.raw", number), dir_ / "shared.raw"}, true, "", number};
  }
  lines changes(const machine&) const override {
    lines out;
    for (const auto& [path, first] : first_)
      if (const auto now = picture_of(path); now != first)
        out.push_back(path + " is " + now + "\nand was " + first);
    return out;
  }

  temp_dir dir_;
  std::map<std::string, std::string> first_;
};

} // namespace

TEST_CASE("company: a kill before and after every step of a start and a stop leaves nothing changed", "[actors]") {
  CHECK(kill_everywhere(made_up_files{}) > 1000);
}

TEST_CASE("company: after a kill at any step real files have their owners, modes, ACLs and attributes to the byte", "[actors]") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root, to give files away");
    return;
  }
  CHECK(kill_everywhere(real_files{}) > 1000);
}
