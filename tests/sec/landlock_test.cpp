#include "sec/landlock.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <set>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

bool skip_without_landlock() {
  if (landlock_abi() > 0)
    return false;
  WARN("skipped: this kernel has no Landlock, or its lsm= leaves it out; in the lsm-lab VM it is on");
  return true;
}

/// Runs `what` in a child behind `rules`: 0, or the errno that it returns; -1 when it did not get there.
int behind(const std::vector<landlock_rule>& rules, const std::function<int()>& what) {
  const auto child = ::fork();
  if (child == 0) {
    const auto made = make_landlock(rules);
    if (!made || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !enter_landlock(*made))
      ::_exit(255);
    ::_exit(what());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) != 255 ? WEXITSTATUS(status) : -1;
}

int opening(const std::string& path, int flags) {
  return unique_fd{::open(path.c_str(), flags | O_CLOEXEC, 0600)} ? 0 : errno;
}

int outcome_of(int returned) {
  return returned < 0 ? errno : 0;
}

const landlock_rule* rule_for(const std::vector<landlock_rule>& rules, const std::string& path) {
  const auto found = std::ranges::find(rules, path, &landlock_rule::path);
  return found == rules.end() ? nullptr : &*found;
}

} // namespace

TEST_CASE("landlock: each letter allows what it says and nothing else", "[sec]") {
  if (skip_without_landlock())
    return;
  const temp_dir dir;
  const auto file = write_file(dir / "file", "text");
  const auto allows = [&](const char* access, const std::function<int()>& what) {
    return behind({{dir.path(), access}}, what);
  };
  const auto read = [&] { return opening(file, O_RDONLY); };
  const auto list = [&] { return opening(dir.path(), O_RDONLY | O_DIRECTORY); };
  const auto write = [&] { return opening(file, O_WRONLY); };
  const auto make = [&] { return outcome_of(::mkdir((dir / "new").c_str(), 0700)); };
  const auto make_node = [&] { return outcome_of(::mknod((dir / "node").c_str(), S_IFCHR | 0600, 0x103)); };
  CHECK(allows("r", read) == 0);
  CHECK(allows("r", list) == 0);
  CHECK(allows("r", write) == EACCES);
  CHECK(allows("r", make) == EACCES);
  CHECK(allows("w", read) == EACCES);
  CHECK(allows("w", write) == 0);
  CHECK(allows("m", make) == 0);
  CHECK(allows("m", read) == EACCES);
  CHECK(allows("m", write) == EACCES);
  for (const auto* access : {"r", "w", "x", "m", "rwxm"})
    CHECK(allows(access, make_node) != 0);
}

TEST_CASE("landlock: a rule for a file is for that file, by whatever link it is named", "[sec]") {
  if (skip_without_landlock())
    return;
  const temp_dir dir;
  const auto mine = write_file(dir / "mine", "");
  const auto others = write_file(dir / "others", "");
  std::filesystem::create_symlink(mine, dir / "link");
  const std::vector<landlock_rule> rules{{dir / "link", "rw"}, {dir / "nowhere", "rw"}};
  CHECK(behind(rules, [&] { return opening(mine, O_RDWR); }) == 0);
  CHECK(behind(rules, [&] { return opening(dir / "link", O_RDWR); }) == 0);
  CHECK(behind(rules, [&] { return opening(others, O_RDONLY); }) == EACCES);
  CHECK(behind(rules, [&] { return opening(dir / "nowhere", O_WRONLY | O_CREAT); }) == EACCES);
  // What stands in the way of a file that is plugged in later, and what does not: a descriptor that is handed over.
  const unique_fd handed{::open(others.c_str(), O_RDWR | O_CLOEXEC)};
  CHECK(behind(rules, [&] { return outcome_of(static_cast<int>(::pwrite(handed.get(), "x", 1, 0))); }) == 0);
}

TEST_CASE("landlock: signals and abstract sockets of others are out of reach where the kernel can do that", "[sec]") {
  if (skip_without_landlock())
    return;
  if (landlock_abi() < 6) {
    WARN("skipped: signals and abstract sockets came with Landlock's 6th version, Linux 6.12");
    return;
  }
  CHECK(behind({}, [] { return outcome_of(::kill(::getppid(), 0)); }) == EPERM);
  const unique_fd listening{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX; // autobind: an abstract name
  REQUIRE(::bind(listening.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0);
  REQUIRE(::listen(listening.get(), 1) == 0);
  socklen_t size = sizeof address;
  REQUIRE(::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  CHECK(behind({}, [&] {
          const unique_fd other{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
          return outcome_of(::connect(other.get(), reinterpret_cast<sockaddr*>(&address), size));
        }) == EPERM);
}

TEST_CASE("landlock: wrong rules are refused by name", "[sec]") {
  if (skip_without_landlock())
    return;
  CHECK(make_landlock({{"etc", "r"}}).error().detail == "'etc' is not an absolute path");
  CHECK(make_landlock({{"/etc", "rq"}}).error().detail == "access 'rq' to '/etc' is not of the letters r, w, x and m");
}

TEST_CASE("landlock: a guest gets its resources as it uses them, and the places of what it makes", "[sec]") {
  landlock_needs needs;
  needs.emulator = "/opt/qemu/bin/qemu-system-x86_64";
  needs.run_dir = "/run/troupe/qemu/web";
  needs.resources = {{.path = "/images/web.qcow2"},
                     {.path = "/images/base.qcow2", .readonly = true},
                     {.path = "/srv/share", .what = resource::kind::directory}};
  needs.makes = {"/srv/sockets/web.sock", "/images/web.qcow2"};
  needs.words = {"-drive", "file=/extra/a.img,if=virtio", R"({"filename":"/extra/b.img"})", "/extra/c d.img", "a/b", "8/9"};
  const auto rules = landlock_rules(needs);
  const auto access_to = [&](const std::string& path) {
    const auto* rule = rule_for(rules, path);
    return rule == nullptr ? "none" : rule->access;
  };
  CHECK(access_to("/opt/qemu/bin/qemu-system-x86_64") == "rx");
  CHECK(access_to("/opt/qemu/share") == "rx");
  CHECK(access_to("/run/troupe/qemu/web") == "rwm");
  CHECK(access_to("/images/web.qcow2") == "rw");
  CHECK(access_to("/images/base.qcow2") == "r");
  CHECK(access_to("/srv/share") == "rwm");
  CHECK(access_to("/srv/sockets") == "m");
  CHECK(access_to("/dev/kvm") == "rw");
  for (const auto* path : {"/extra/a.img", "/extra/b.img", "/extra/c d.img"})
    CHECK(access_to(path) == "rwm");
  std::set<std::string> paths;
  for (const auto& rule : rules) {
    CHECK(rule.path.starts_with('/'));
    paths.insert(rule.path);
  }
  for (const auto* never : {"/", "/etc", "/dev", "/images", "/home", "/root", "/run", "/var", "/tmp"})
    CHECK_FALSE(paths.contains(never));
}

} // namespace troupe
