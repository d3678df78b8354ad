#include "sec/device_acl.hpp"

#include "runtime/unique_fd.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

using kind = device_rule::kind;

std::string contents(const char* path) {
  std::ostringstream text;
  text << std::ifstream{path}.rdbuf();
  return text.str();
}

const std::string family = fmt::format("troupe-test-{}", ::getpid());

/// The hierarchies of this machine in which a group can be made and limited.
std::vector<device_groups> usable() {
  const auto own = contents("/proc/self/cgroup");
  std::string lists, programs; // mountinfo with one kind only
  std::istringstream lines{contents("/proc/self/mountinfo")};
  for (std::string line; std::getline(lines, line);)
    (line.find(" - cgroup2 ") == line.npos ? lists : programs) += line + "\n";
  std::vector<device_groups> out;
  for (const auto& text : {lists, programs}) {
    const auto found = find_device_groups(text, own);
    if (found.how == device_groups::kind::none)
      continue;
    const auto group = fmt::format("{}/{}/probe", found.dir, family);
    if (make_device_group(found.how, group, {})) {
      REQUIRE(remove_device_group(group));
      out.push_back(found);
    }
  }
  if (out.empty())
    WARN("no control group can be made here: skipped");
  return out;
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

/// What `what` returns, below 100, in a process that has joined the group.
int inside(const std::string& group, const std::function<int()>& what) {
  const auto child = ::fork();
  if (child == 0) {
    const unique_fd file{::open((group + "/cgroup.procs").c_str(), O_WRONLY)};
    ::_exit(::write(file.get(), "0", 1) == 1 ? what() : 111);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

int opening(const std::string& group, const char* path, int flags) {
  return inside(group, [&] { return ::open(path, flags | O_NONBLOCK) >= 0 ? 0 : errno; });
}

device_rule rule_at(const char* path, bool readonly = false) {
  return device_rule_at(path, readonly).value().value();
}

} // namespace

TEST_CASE("device acl: a node is known by its number, and what is no node has none", "[sec]") {
  CHECK(rule_at("/dev/null") == device_rule{kind::character, 1, 3, true});
  CHECK(rule_at("/dev/urandom", true) == device_rule{kind::character, 1, 9, false});
  CHECK(rule_at("/proc/self/root/dev/zero") == device_rule{kind::character, 1, 5, true});
  CHECK(device_rule_at("/dev/no-such-node", false).value() == std::nullopt);
  CHECK(device_rule_at("/etc/passwd/below", false).value() == std::nullopt);
  CHECK(device_rule_at("/etc", false).value() == std::nullopt);
  const auto too_long = device_rule_at("/" + std::string(5000, 'x'), false);
  REQUIRE_FALSE(too_long);
  CHECK(too_long.error().code == errc::operation_failed);
}

TEST_CASE("device acl: the groups are where the kernel says that we are", "[sec]") {
  const std::string v1 = "36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                         "37 25 0:32 / /sys/fs/cgroup/devices rw,nosuid shared:9 - cgroup cgroup rw,devices\n";
  const std::string v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n";
  const std::string own = "5:devices:/system.slice/trouped.service\n4:cpu,cpuacct:/\n0::/user.slice/a\n";
  using how = device_groups::kind;
  CHECK(find_device_groups(v1 + v2, own) == device_groups{how::v1, "/sys/fs/cgroup/devices/system.slice/trouped.service"});
  CHECK(find_device_groups(v2 + v1, own) == device_groups{how::v1, "/sys/fs/cgroup/devices/system.slice/trouped.service"});
  CHECK(find_device_groups(v2, own) == device_groups{how::v2, "/sys/fs/cgroup/user.slice/a"});
  CHECK(find_device_groups(v2, "0::/\n") == device_groups{how::v2, "/sys/fs/cgroup"});
  CHECK(find_device_groups("", own) == device_groups{});
  CHECK(find_device_groups("none of this\n- - - -\n", "a\nb:c\n") == device_groups{});
  CHECK(find_device_groups(v2, "") == device_groups{});

  // In a container a part of the hierarchy is mounted.
  const std::string part = "30 24 0:26 /box /sys/fs/cgroup\\040x rw - cgroup2 none rw\n";
  CHECK(find_device_groups(part, "0::/box/inner\n") == device_groups{how::v2, "/sys/fs/cgroup x/inner"});
  CHECK(find_device_groups(part, "0::/box\n") == device_groups{how::v2, "/sys/fs/cgroup x"});
  CHECK(find_device_groups(part, "0::/boxes\n") == device_groups{});
}

TEST_CASE("device acl: a process in the group opens what the rules name, and nothing else", "[sec]") {
  for (const auto& where : usable()) {
    INFO(where.dir);
    const auto home = fmt::format("{}/{}", where.dir, family);
    const auto group = home + "/web1";
    REQUIRE(make_device_group(where.how, group, {rule_at("/dev/null"), rule_at("/dev/zero", true)}));
    CHECK(opening(group, "/dev/null", O_RDWR) == 0);
    CHECK(opening(group, "/dev/zero", O_RDONLY) == 0);
    CHECK(opening(group, "/dev/zero", O_WRONLY) == EPERM);
    CHECK(opening(group, "/dev/zero", O_RDWR) == EPERM);
    CHECK(opening(group, "/dev/full", O_RDONLY) == EPERM);
    CHECK(opening(group, "/etc/passwd", O_RDONLY) == 0);
    const auto node = "/tmp/" + family;
    CHECK(inside(group, [&] { return ::mknod(node.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0 ? 0 : errno; }) == EPERM);
    ::unlink(node.c_str());

    // A whole major, as terminals need; and what was allowed no longer is.
    REQUIRE(make_device_group(where.how, group, {{kind::character, 1, std::nullopt, true}}));
    CHECK(opening(group, "/dev/full", O_RDWR) == 0);
    CHECK(opening(group, "/dev/urandom", O_RDONLY) == 0);
    CHECK(opening(group, "/dev/ptmx", O_RDWR) == EPERM);
    REQUIRE(make_device_group(where.how, group, {terminal_rule}));
    CHECK(opening(group, "/dev/null", O_RDONLY) == EPERM);

    // The family goes with its last member.
    REQUIRE(make_device_group(where.how, home + "/web2", {}));
    REQUIRE(remove_device_group(group));
    CHECK_FALSE(exists(group));
    CHECK(remove_device_group(group));
    CHECK(exists(home));
    REQUIRE(remove_device_group(home + "/web2"));
    CHECK_FALSE(exists(home));
  }
}

TEST_CASE("device acl: hundreds of rules are as good as one", "[sec]") {
  for (const auto& where : usable()) {
    INFO(where.dir);
    std::vector<device_rule> rules;
    for (std::uint32_t i = 0; i < 400; ++i)
      rules.push_back({i % 2 == 0 ? kind::block : kind::character, 8 + i, 100 + i, i % 3 == 0});
    rules.push_back(rule_at("/dev/full"));
    const auto group = fmt::format("{}/{}/many", where.dir, family);
    REQUIRE(make_device_group(where.how, group, rules));
    CHECK(opening(group, "/dev/full", O_RDWR) == 0);
    CHECK(opening(group, "/dev/null", O_RDWR) == EPERM);
    REQUIRE(remove_device_group(group));
  }
}

TEST_CASE("device acl: what still runs in a group ends with it", "[sec]") {
  for (const auto& where : usable()) {
    INFO(where.dir);
    const auto group = fmt::format("{}/{}/left", where.dir, family);
    REQUIRE(make_device_group(where.how, group, {rule_at("/dev/null")}));
    const auto child = ::fork();
    if (child == 0) {
      const unique_fd file{::open((group + "/cgroup.procs").c_str(), O_WRONLY)};
      if (::write(file.get(), "0", 1) == 1)
        for (;;)
          ::pause();
      ::_exit(1);
    }
    const auto joined = [&] { return contents((group + "/cgroup.procs").c_str()).find(std::to_string(child)) == 0; };
    while (!joined())
      ::usleep(1000);
    REQUIRE(remove_device_group(group));
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
  }
}

TEST_CASE("device acl: where no group can be made, the error names it", "[sec]") {
  const auto made = make_device_group(device_groups::kind::v2, "/proc/self/family/web1", {});
  REQUIRE_FALSE(made);
  CHECK(made.error().code == errc::system);
  CHECK(made.error().detail.find("/proc/self/family") != std::string::npos);
}

} // namespace troupe
