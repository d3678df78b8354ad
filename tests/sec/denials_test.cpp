#include "sec/denials.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <array>
#include <cap-ng.h>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <random>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

// What is foretold is compared with what the kernel does to a process of that user.

namespace troupe {
namespace {

namespace fs = std::filesystem;

bool skip_without_root() {
  if (::geteuid() == 0)
    return false;
  WARN("skipped: needs root");
  return true;
}

/// Opens the path as the kernel lets the guest: 0 or errno; -1 when the child did not get there.
int opens(const foreseen_guest& guest, const std::string& path, int flags) {
  const auto child = ::fork();
  if (child == 0) {
    unique_fd rules;
    if (!guest.landlock.empty()) {
      auto made = make_landlock(guest.landlock);
      if (!made)
        ::_exit(255);
      rules = std::move(*made);
    }
    const auto& who = guest.who;
    if (::setgroups(who.groups.size(), who.groups.data()) != 0 || ::setresgid(who.gid, who.gid, who.gid) != 0 ||
        ::setresuid(who.uid, who.uid, who.uid) != 0)
      ::_exit(255);
    capng_clear(CAPNG_SELECT_CAPS);
    if (capng_apply(CAPNG_SELECT_CAPS) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || (rules && !enter_landlock(rules)))
      ::_exit(255);
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK);
    ::_exit(fd >= 0 ? 0 : errno);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) != 255 ? WEXITSTATUS(status) : -1;
}

constexpr uid_t users[] = {0, 64055, 64066};
constexpr gid_t groups[] = {0, 64056, 64067, 64068};

template <class T, std::size_t Size>
T one_of(const T (&all)[Size], std::mt19937& draw) {
  return all[draw() % Size];
}

/// An ACL such as setfacl writes: owner, named users, group, named groups, mask, others.
bool give_acl(const std::string& path, std::mt19937& draw) {
  std::string value(sizeof(posix_acl_xattr_header), '\0');
  reinterpret_cast<posix_acl_xattr_header*>(value.data())->a_version = POSIX_ACL_XATTR_VERSION; // little endian, as is all here
  const auto add = [&](unsigned tag, std::uint32_t id) {
    posix_acl_xattr_entry entry{};
    entry.e_tag = static_cast<std::uint16_t>(tag);
    entry.e_perm = static_cast<std::uint16_t>(draw() % 8);
    entry.e_id = id;
    value.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  };
  constexpr auto none = static_cast<std::uint32_t>(ACL_UNDEFINED_ID);
  add(ACL_USER_OBJ, none);
  for (const auto user : users)
    if (draw() % 2 == 0)
      add(ACL_USER, user);
  add(ACL_GROUP_OBJ, none);
  for (const auto group : groups)
    if (draw() % 2 == 0)
      add(ACL_GROUP, group);
  add(ACL_MASK, none);
  add(ACL_OTHER, none);
  return ::setxattr(path.c_str(), "system.posix_acl_access", value.data(), value.size(), 0) == 0;
}

/// Owner, mode and perhaps an ACL by lot, rather open than shut.
bool mistreat(const std::string& path, std::mt19937& draw, bool with_acls) {
  ::chmod(path.c_str(), 0);
  if (::lchown(path.c_str(), one_of(users, draw), one_of(groups, draw)) != 0)
    return false;
  if (with_acls && draw() % 3 == 0)
    return give_acl(path, draw);
  return ::chmod(path.c_str(), draw() & 0777u & (draw() | 0555u) ) == 0;
}

struct wood {
  temp_dir dir;
  std::vector<std::string> paths; ///< Of files, and of links to them.
};

/// Directories in each other with a file at the end of each and links between them.
void grow(wood& tree, std::mt19937& draw, bool with_acls) {
  std::vector<std::string> all;
  for (int branch = 0; branch < 3; ++branch) {
    auto at = tree.dir.path();
    for (auto depth = draw() % 4; depth > 0; --depth) {
      at += fmt::format("/d{}", branch);
      fs::create_directory(at);
      all.push_back(at);
    }
    const auto file = write_file(fmt::format("{}/f{}", at, branch), "x");
    all.push_back(file);
    tree.paths.push_back(file);
    const auto link = fmt::format("{}/l{}", at, branch);
    fs::create_symlink(tree.paths[draw() % tree.paths.size()], link);
    REQUIRE(::lchown(link.c_str(), one_of(users, draw), 0) == 0);
    tree.paths.push_back(link);
  }
  for (const auto& each : all)
    REQUIRE(mistreat(each, draw, with_acls));
}

foreseen_guest somebody(std::mt19937& draw) {
  foreseen_guest guest;
  guest.who = {one_of(users, draw), one_of(groups, draw), {}};
  guest.who.groups = {guest.who.gid};
  if (draw() % 2 == 0)
    guest.who.groups.push_back(one_of(groups, draw));
  return guest;
}

constexpr int flags_of(const foreseen_use& use) {
  return use.read && use.write ? O_RDWR : use.write ? O_WRONLY : O_RDONLY;
}

std::string told(const std::vector<denial>& all) {
  std::string text;
  for (const auto& each : all)
    text += each.layer + ": " + each.why + "\n";
  return text;
}

} // namespace

TEST_CASE("denials: what is foretold of owners, modes, ACLs and links is what the kernel does", "[sec]") {
  if (skip_without_root())
    return;
  int refused = 0, allowed = 0;
  for (unsigned seed = 1; seed <= 150; ++seed) {
    std::mt19937 draw{seed};
    wood tree;
    grow(tree, draw, true);
    for (int round = 0; round < 6; ++round) {
      const auto guest = somebody(draw);
      for (const auto& path : tree.paths) {
        foreseen_use use{.path = path};
        use.write = draw() % 2 == 0;
        use.read = !use.write || draw() % 2 == 0;
        const auto foretold = foresee_denials(guest, use).value();
        const auto number = opens(guest, path, flags_of(use));
        INFO("seed " << seed << ", uid " << guest.who.uid << ", gid " << guest.who.gid << ", " << path << ", " << told(foretold));
        REQUIRE(number == (foretold.empty() ? 0 : EACCES));
        (foretold.empty() ? allowed : refused) += 1;
      }
    }
  }
  CHECK(refused > 500);
  CHECK(allowed > 500);
}

TEST_CASE("denials: who does what the remedies say is let in", "[sec]") {
  if (skip_without_root())
    return;
  int helped = 0;
  for (unsigned seed = 1; seed <= 60; ++seed) {
    std::mt19937 draw{seed};
    wood tree;
    grow(tree, draw, false);
    const auto guest = somebody(draw);
    for (const auto& path : tree.paths) {
      const auto foretold = foresee_denials(guest, {.path = path}).value();
      for (const auto& each : foretold) {
        const auto at = each.remedy.find("chmod ");
        REQUIRE(at != std::string::npos);
        REQUIRE(std::system(each.remedy.substr(at).c_str()) == 0);
        ++helped;
      }
      INFO("seed " << seed << ", " << path << ", " << told(foretold));
      REQUIRE(opens(guest, path, O_RDONLY) == 0);
    }
  }
  CHECK(helped > 100);
}

TEST_CASE("denials: what the start gives to the guest is judged as its own", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto file = write_file(dir / "disk", "");
  REQUIRE(::chmod(file.c_str(), 0600) == 0);
  foreseen_guest guest;
  guest.who = {64055, 64056, {64056}};
  CHECK(foresee_denials(guest, {.path = file, .write = true, .given = true}).value().empty());
  const auto kept = foresee_denials(guest, {.path = file, .write = true}).value();
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].denied == "read");
  CHECK(kept[1].denied == "write");
  CHECK(kept[1].layer == "dac");
  CHECK(kept[1].remedy == fmt::format("setfacl -m u:64055:w '{0}', or chmod o+w '{0}'", file));
  // A link that somebody else laid may lead to what is not theirs to give.
  REQUIRE(::chown(file.c_str(), 64066, 64066) == 0);
  fs::create_symlink(file, dir / "link");
  REQUIRE(::lchown((dir / "link").c_str(), 64067, 64067) == 0);
  const auto linked = foresee_denials(guest, {.path = dir / "link", .given = true}).value();
  REQUIRE(linked.size() == 1);
  CHECK(linked[0].denied == "take");
}

TEST_CASE("denials: what is not there is told, unless it is made there", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  foreseen_guest guest;
  guest.who = {64055, 64056, {64056}};
  const auto missing = foresee_denials(guest, {.path = dir / "no/disk"}).value();
  REQUIRE(missing.size() == 1);
  CHECK(missing[0].layer == "file");
  CHECK(missing[0].path == dir / "no");
  const auto made = foresee_denials(guest, {.path = dir / "socket", .make = true}).value();
  REQUIRE(made.size() == 1);
  CHECK(made[0].denied == "make");
  CHECK(made[0].path == dir.path());
  REQUIRE(::chown(dir.path().c_str(), 64055, 0) == 0);
  CHECK(foresee_denials(guest, {.path = dir / "socket", .make = true}).value().empty());
  CHECK(foresee_denials(guest, {.path = "disk"}).error().code == errc::bad_argument);
}

TEST_CASE("denials: a device node takes a rule of the control group, and of its kind", "[sec]") {
  foreseen_guest guest;
  guest.who = {::geteuid(), ::getegid(), {::getegid()}};
  using kind = device_rule::kind;
  const auto layers = [&](std::optional<std::vector<device_rule>> rules, bool write) {
    guest.devices = std::move(rules);
    std::vector<std::string> out;
    const auto all = foresee_denials(guest, {.path = "/dev/null", .write = write}).value();
    for (const auto& each : all)
      out.push_back(each.layer + " " + each.denied);
    return out;
  };
  using list = std::vector<std::string>;
  CHECK(layers({}, true).empty());
  CHECK(layers(std::vector<device_rule>{}, true) == list{"cgroup read", "cgroup write"});
  CHECK(layers(std::vector<device_rule>{{kind::character, 1, 3, true}}, true).empty());
  CHECK(layers(std::vector<device_rule>{{kind::character, 1, std::nullopt, false}}, true) == list{"cgroup write"});
  CHECK(layers(std::vector<device_rule>{{kind::block, 1, 3, true}, {kind::character, 1, 5, true}}, false) == list{"cgroup read"});
}

TEST_CASE("denials: what is foretold of Landlock is what the kernel does", "[sec]") {
  if (landlock_abi() == 0) {
    WARN("skipped: this kernel has no Landlock, or its lsm= leaves it out; in the lsm-lab VM it is on");
    return;
  }
  int refused = 0, allowed = 0;
  for (unsigned seed = 1; seed <= 60; ++seed) {
    std::mt19937 draw{seed};
    const temp_dir dir;
    std::vector<std::string> places{dir.path()}, files;
    for (int depth = 0; depth < 3; ++depth) {
      places.push_back(places.back() + "/d");
      fs::create_directory(places.back());
      files.push_back(write_file(places.back() + "/f", "x"));
      fs::create_directory_symlink(places.back(), places.back() + "/../l");
    }
    foreseen_guest guest;
    guest.who = {::geteuid(), ::getegid(), {}};
    if (::geteuid() != 0)
      return; // the child below gives itself groups
    constexpr const char* accesses[] = {"r", "w", "rw", "x", "m"};
    for (auto left = draw() % 4 + 1; left > 0; --left) {
      const auto& place = draw() % 2 == 0 ? places[draw() % places.size()] : files[draw() % files.size()];
      guest.landlock.push_back({place, one_of(accesses, draw)});
    }
    guest.landlock.push_back({dir / "l", one_of(accesses, draw)});
    for (const auto& file : files)
      for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
        foreseen_use use{.path = file, .read = flags != O_WRONLY, .write = flags != O_RDONLY};
        const auto foretold = foresee_denials(guest, use).value();
        INFO("seed " << seed << ", " << file << ", " << told(foretold));
        REQUIRE(opens(guest, file, flags) == (foretold.empty() ? 0 : EACCES));
        (foretold.empty() ? allowed : refused) += 1;
      }
  }
  CHECK(refused > 50);
  CHECK(allowed > 50);
}

} // namespace troupe
