#include "runtime/process.hpp"
#include "sec/device_acl.hpp"
#include "sec/launch_plan.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <sstream>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// These start the real troupe-launch, which becomes a real program.

namespace troupe {
namespace {

const std::string launcher = std::string{TROUPE_BINARY_DIR} + "/bin/troupe-launch";
const launch_identity nobody{64055, 64056, {64055, 64057}};

unique_fd output_file() {
  return unique_fd{::memfd_create("output", MFD_CLOEXEC)};
}

std::string contents(int fd) {
  std::string text(65536, '\0');
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::pread(fd, text.data(), text.size(), 0))));
  return text;
}

struct launched {
  std::optional<launch_failure> failure; ///< As written to the status descriptor.
  exit_status status;
  std::string output; ///< 1 and 2 together.
  process_id id;
};

/// Lets troupe-launch carry out a plan to the end of the program. It gets the plan as 3 and the status pipe as 4.
launched launch(std::string plan, std::vector<fd_pass> more = {}, std::vector<std::string> env = {}) {
  loop on;
  const auto plan_file = memory_file("plan", plan);
  const auto output = output_file();
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  spawn_request request{.argv = {launcher, "--plan-fd", "3", "--status-fd", "4"}, .env = std::move(env), .fds = std::move(more)};
  request.fds.insert(request.fds.end(),
                     {{output.get(), 1}, {output.get(), 2}, {plan_file->get(), 3}, {write_end.get(), 4}});
  launched seen;
  const auto started = spawn(on, request, [&](exit_status status) {
    seen.status = status;
    on.stop();
  });
  REQUIRE(started);
  seen.id = (*started)->id();
  write_end.reset();
  std::string report;
  char buffer[4096];
  for (ssize_t n; (n = ::read(read_end.get(), buffer, sizeof buffer)) > 0;)
    report.append(buffer, static_cast<std::size_t>(n));
  on.run();
  if (!report.empty()) {
    CHECK(report.ends_with('\n'));
    seen.failure = launch_failure_from(report).value();
  }
  seen.output = contents(output.get());
  return seen;
}

launched launch(const launch_plan& plan, std::vector<fd_pass> more = {}, std::vector<std::string> env = {}) {
  return launch(to_text(plan), std::move(more), std::move(env));
}

launch_plan plan_for(std::vector<std::string> argv) {
  return {.argv = std::move(argv)};
}

/// A plan whose program is troupe-launch again, with less rights: it gets the inner plan as 5 and its status pipe as 6.
launched launch_inside(launch_plan outer, const launch_plan& inner) {
  const temp_dir dir; // where another user may execute it
  const auto copy = dir / "troupe-launch";
  std::filesystem::copy_file(launcher, copy);
  const auto inner_plan = memory_file("inner", to_text(inner));
  const auto status = output_file();
  outer.argv = {copy, "--plan-fd", "5", "--status-fd", "6"};
  outer.keep_fds = {5, 6};
  auto seen = launch(outer, {{inner_plan->get(), 5}, {status.get(), 6}});
  CHECK_FALSE(seen.failure);
  if (const auto report = contents(status.get()); !report.empty())
    seen.failure = launch_failure_from(report).value();
  return seen;
}

/// /proc/PID/status as it saw itself.
std::map<std::string, std::string> fields(const std::string& status) {
  std::map<std::string, std::string> found;
  std::istringstream lines{status};
  for (std::string line; std::getline(lines, line);)
    if (const auto colon = line.find(":\t"); colon != line.npos)
      found[line.substr(0, colon)] = line.substr(colon + 2);
  return found;
}

bool skip_without_root() {
  if (::geteuid() == 0)
    return false;
  WARN("skipped: needs root");
  return true;
}

const std::string no_caps(16, '0');

void check_no_capabilities(std::map<std::string, std::string> now) {
  for (const auto* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    INFO(set);
    CHECK(now[set] == no_caps);
  }
}

} // namespace

TEST_CASE("launcher: the program has the planned user and groups, and no capability in any set", "[sec]") {
  if (skip_without_root())
    return;
  auto plan = plan_for({"/bin/cat", "/proc/self/status"});
  plan.identity = nobody;
  const auto seen = launch(plan);
  CHECK_FALSE(seen.failure);
  CHECK(seen.status.code == 0);
  auto now = fields(seen.output);
  CHECK(now["Uid"] == "64055\t64055\t64055\t64055");
  CHECK(now["Gid"] == "64056\t64056\t64056\t64056");
  CHECK(now["Groups"] == "64055 64057 ");
  CHECK(now["NoNewPrivs"] == "1");
  check_no_capabilities(now);
}

TEST_CASE("launcher: a root program has no capabilities, with no_new_privs or without", "[sec]") {
  if (skip_without_root())
    return;
  for (const bool no_new_privs : {true, false}) {
    auto plan = plan_for({"/bin/cat", "/proc/self/status"});
    plan.identity = launch_identity{0, 0, {}};
    plan.no_new_privs = no_new_privs;
    auto now = fields(launch(plan).output);
    CHECK(now["Uid"] == "0\t0\t0\t0");
    CHECK(now["Groups"].find_first_not_of(' ') == std::string::npos);
    CHECK(now["NoNewPrivs"] == (no_new_privs ? "1" : "0"));
    check_no_capabilities(now);
  }
}

TEST_CASE("launcher: a kept capability stays, alone, across the change of user", "[sec]") {
  if (skip_without_root())
    return;
  auto plan = plan_for({"/bin/cat", "/proc/self/status"});
  plan.identity = nobody;
  plan.capabilities = {"net_bind_service"};
  auto now = fields(launch(plan).output);
  CHECK(now["Uid"] == "64055\t64055\t64055\t64055");
  for (const auto* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"})
    CHECK(now[set] == "0000000000000400");
}

TEST_CASE("launcher: root that keeps all capabilities has those of the launcher, and no others", "[sec]") {
  if (skip_without_root())
    return;
  auto outer = plan_for({});
  outer.identity = launch_identity{0, 0, {}};
  outer.capabilities = {"setuid", "setgid", "setpcap", "kill"};
  auto inner = plan_for({"/bin/cat", "/proc/self/status"});
  inner.identity = launch_identity{0, 0, {}};
  inner.capabilities = {launch_plan::all_capabilities};
  const auto seen = launch_inside(outer, inner);
  CHECK_FALSE(seen.failure);
  auto now = fields(seen.output);
  for (const auto* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"})
    CHECK(now[set] == "00000000000001e0");
}

TEST_CASE("launcher: it believes the kernel, and not that a call did what it says", "[sec]") {
  if (skip_without_root())
    return;
  const auto told = [](const char* call, auto change) {
    auto plan = plan_for({"/bin/true"});
    plan.identity = nobody;
    change(plan);
    const auto leaked = memory_file("leaked", "");
    const auto seen = launch(plan, {{leaked->get(), 17}},
                             {"LD_PRELOAD=" TROUPE_BINARY_DIR "/tests/lying_calls.so", std::string{"TROUPE_LIE="} + call,
                              "ASAN_OPTIONS=verify_asan_link_order=0"});
    INFO(call);
    REQUIRE(seen.failure);
    CHECK(seen.failure->step == "verify");
    return seen.failure->message;
  };
  const auto nothing = [](auto&) {};
  const auto as_root = [](auto& plan) { plan.identity = launch_identity{0, 0, {}}; };
  CHECK(told("setgroups", nothing).starts_with("Groups is "));
  CHECK(told("setresgid", nothing) == "Gid is 0 0 0 0, planned was 64056");
  CHECK(told("setresuid", nothing) == "Uid is 0 0 0 0, planned was 64055");
  CHECK(told("capng_apply", as_root).starts_with("CapEff is "));
  CHECK(told("capng_apply bounds", nothing).starts_with("CapBnd is "));
  const auto unfiltered = [](auto& plan) { plan.filter_calls = false; }; // a filter takes what the lie is about
  CHECK(told("prctl", unfiltered) == "NoNewPrivs is 0, planned was 1");
  CHECK(told("setrlimit", [](auto& plan) { plan.limits = {{"stack", 65536, 65536}}; })
          .ends_with("planned was 65536:65536"));
  CHECK(told("umask", [](auto& plan) { plan.umask = 0123; }).ends_with(", planned was 0123"));
  CHECK(told("close_range", nothing) == "descriptors 0,1,2,17 would stay open, planned were 0,1,2");
}

TEST_CASE("launcher: without an identity the program stays who we are", "[sec]") {
  auto now = fields(launch(plan_for({"/bin/cat", "/proc/self/status"})).output);
  auto mine = fields(contents_of("/proc/self/status"));
  CHECK(now["Uid"] == mine["Uid"]);
  CHECK(now["Groups"] == mine["Groups"]);
  CHECK(now["CapEff"] == no_caps);
  CHECK(now["NoNewPrivs"] == "1");
}

TEST_CASE("launcher: an unprivileged one launches too, without new privileges", "[sec]") {
  if (skip_without_root())
    return;
  auto outer = plan_for({});
  outer.identity = nobody;
  const auto seen = launch_inside(outer, plan_for({"/bin/cat", "/proc/self/status"}));
  CHECK_FALSE(seen.failure);
  auto now = fields(seen.output);
  CHECK(now["Uid"] == "64055\t64055\t64055\t64055");
  CHECK(now["NoNewPrivs"] == "1");
}

TEST_CASE("launcher: only the planned descriptors stay open", "[sec]") {
  auto plan = plan_for({"/bin/sh", "-c", "echo /proc/self/fd/*; cat <&7"});
  plan.keep_fds = {7};
  const auto kept = memory_file("kept", "kept\n");
  const auto leaked = memory_file("leaked", "");
  const auto seen = launch(plan, {{kept->get(), 7}, {leaked->get(), 5}, {leaked->get(), 6}, {leaked->get(), 250}});
  CHECK_FALSE(seen.failure);
  // 3 is the shell's own, to list the directory
  CHECK(seen.output == "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3 /proc/self/fd/7\nkept\n");
}

TEST_CASE("launcher: environment, directory, umask, limits and banner are the plan's", "[sec]") {
  const temp_dir dir;
  auto plan = plan_for({"/bin/sh", "-c", "env; pwd -P; umask; ulimit -c; ulimit -Hn"});
  plan.env = {"GUEST=web1"};
  plan.working_dir = dir.path();
  plan.umask = 027;
  plan.limits = {{"core", 0, 0}, {"nofile", 100, 200}};
  plan.banner = "starting web1\n";
  const auto output = launch(plan).output;
  CHECK(output.starts_with("starting web1\n"));
  CHECK_THAT(output, Catch::Matchers::Contains("GUEST=web1\n"));
  CHECK(output.find("HOME=") == output.npos);
  CHECK_THAT(output, Catch::Matchers::EndsWith(std::filesystem::canonical(dir.path()).string() + "\n0027\n0\n200\n"));
}

TEST_CASE("launcher: the pid file names the process the program runs in", "[sec]") {
  const temp_dir dir;
  auto plan = plan_for({"/bin/true"});
  plan.umask = 077;
  plan.pid_file = write_file(dir / "guest.pid", "1 1\n"); // of an earlier life
  if (::geteuid() == 0)
    plan.identity = nobody;
  const auto seen = launch(plan);
  CHECK_FALSE(seen.failure);
  CHECK(read_pid_file(plan.pid_file) == seen.id);
  struct stat info {};
  REQUIRE(::stat(plan.pid_file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0644);
  CHECK(info.st_uid == ::geteuid());
  CHECK(std::distance(std::filesystem::directory_iterator{dir.path()}, {}) == 1); // no temporary file
}

TEST_CASE("launcher: the program is in the planned control group", "[sec]") {
  if (skip_without_root())
    return;
  const auto where = find_device_groups(contents_of("/proc/self/mountinfo"), contents_of("/proc/self/cgroup"));
  const auto group = fmt::format("{}/troupe-test-{}/launched", where.dir, ::getpid());
  if (!make_device_group(where.how, group, {device_rule_at("/dev/null", false).value().value()})) {
    WARN("no control group can be made here: skipped");
    return;
  }
  auto plan = plan_for({"/bin/sh", "-c", "cat /proc/self/cgroup; exec 5</dev/zero"});
  plan.identity = nobody;
  plan.control_groups = {group};
  const auto seen = launch(plan);
  CHECK_FALSE(seen.failure);
  CHECK_THAT(seen.output, Catch::Matchers::Contains(fmt::format("/troupe-test-{}/launched\n", ::getpid())));
  CHECK(seen.status.code != 0);
  CHECK_THAT(seen.output, Catch::Matchers::Contains("/dev/zero: Operation not permitted"));
  REQUIRE(remove_device_group(group));
}

TEST_CASE("launcher: without the label that is planned nothing is executed", "[sec]") {
  // What happens where the kernel has them is tested in the lab.
  auto plan = plan_for({"/bin/true"});
  plan.apparmor_profile = "troupe-00000000-0000-0000-0000-000000000000"; // loaded nowhere
  CHECK(launch(plan).failure.value().step == "label");
  plan.apparmor_profile.clear();
  plan.selinux_context = "nonsense";
  plan.no_new_privs = false;
  CHECK(launch(plan).failure.value().step == "label");
  plan.no_new_privs = true;
  CHECK(launch(plan).failure.value().message.find("'selinux_context'") != std::string::npos);
}

TEST_CASE("launcher: Landlock keeps the program to the planned paths, with no_new_privs or without", "[sec]") {
  if (landlock_abi() == 0) {
    WARN("skipped: this kernel has no Landlock, or its lsm= leaves it out; in the lsm-lab VM it is on");
    return;
  }
  const temp_dir dir;
  write_file(dir / "mine", "mine\n");
  write_file(dir / "others", "others\n");
  for (const bool no_new_privs : {true, false}) {
    if (!no_new_privs && ::geteuid() != 0)
      continue; // it takes CAP_SYS_ADMIN
    auto plan = plan_for({"/bin/sh", "-c", fmt::format("cat {0}/mine; cat {0}/others; echo x >{0}/mine; ls {0}", dir.path())});
    plan.no_new_privs = no_new_privs;
    plan.landlock = {{"/usr", "rx"}, {"/bin", "rx"}, {"/lib", "rx"}, {"/lib64", "rx"}, {"/proc", "r"}, {dir / "mine", "r"},
                     {"/etc/ld.so.cache", "r"}};
    const auto seen = launch(plan);
    CHECK_FALSE(seen.failure);
    CHECK(seen.output.starts_with("mine\n"));
    CHECK_THAT(seen.output, Catch::Matchers::Contains("others: Permission denied"));
    CHECK_THAT(seen.output, Catch::Matchers::Contains("mine: Permission denied"));
    CHECK(seen.output.find("others\n") == std::string::npos);
    CHECK(seen.status.code != 0);
  }
  auto plan = plan_for({"/bin/true"});
  plan.landlock = {{"/usr", "rx"}}; // without /proc the launcher cannot see what it is
  CHECK(launch(plan).failure.value().step == "verify");
  plan.landlock = {{"/usr", "drink"}};
  CHECK(launch(plan).failure.value().step == "landlock");
}

TEST_CASE("launcher: each step that fails is named, with its errno", "[sec]") {
  const temp_dir dir;
  const auto why = [&](const char* step, int number, auto change) {
    auto plan = plan_for({"/bin/true"});
    plan.pid_file = dir / "guest.pid";
    change(plan);
    const auto seen = launch(plan);
    INFO(step);
    REQUIRE(seen.failure);
    CHECK(seen.failure->step == step);
    CHECK(seen.failure->number == number);
    CHECK(seen.status.code == 1);
    CHECK(std::filesystem::is_empty(dir.path()));
    return seen.failure->message;
  };
  CHECK(why("exec", ENOENT, [](auto& plan) { plan.argv = {"/nowhere/qemu"}; }) ==
        "cannot execute '/nowhere/qemu': No such file or directory");
  CHECK(why("working_dir", ENOENT, [](auto& plan) { plan.working_dir = "/nowhere"; }) ==
        "cannot enter the directory '/nowhere': No such file or directory");
  CHECK(why("pid_file", ENOENT, [](auto& plan) { plan.pid_file = "/nowhere/guest.pid"; }) ==
        "cannot open the pid file's directory '/nowhere/': No such file or directory");
  CHECK(why("pid_file", ENOTDIR, [](auto& plan) { plan.pid_file = "/dev/null/guest.pid"; }) != "");
  CHECK(why("control_group", ENOENT, [](auto& plan) { plan.control_groups = {"/nowhere/web1"}; }) ==
        "cannot join the control group '/nowhere/web1': No such file or directory");
  CHECK(why("plan", 0, [](auto& plan) { plan.capabilities = {"CAP_SING"}; }) ==
        "'CAP_SING' is no capability; write it as in capabilities(7), without the CAP_");
  CHECK(why("plan", EBADF, [](auto& plan) { plan.keep_fds = {77}; }) ==
        "descriptor 77 is to be kept but was not passed: Bad file descriptor");
  CHECK(why("plan", 0, [](auto& plan) { plan.keep_fds = {4}; }) ==
        "descriptor 4 is the launcher's own and cannot be kept");
  CHECK(why("limits", 0, [](auto& plan) { plan.limits = {{"beer", 1, 1}}; }) == "'beer' is no resource limit");
  CHECK(why("limits", EINVAL, [](auto& plan) { plan.limits = {{"core", 2, 1}}; }) != "");
  if (::geteuid() == 0)
    return;
  CHECK(why("identity", EPERM, [](auto& plan) { plan.identity = nobody; }) != "");
}

TEST_CASE("launcher: a bad plan is reported as such", "[sec]") {
  const auto seen = launch(std::string{"{\"argv\":"});
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "plan");
  CHECK_THAT(seen.failure->message, Catch::Matchers::Contains("is not JSON"));
}

TEST_CASE("launcher: an unprivileged one cannot become somebody else or keep what it has not", "[sec]") {
  if (skip_without_root())
    return;
  auto outer = plan_for({});
  outer.identity = nobody;
  auto inner = plan_for({"/bin/true"});
  inner.identity = launch_identity{0, 0, {}};
  auto seen = launch_inside(outer, inner);
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "identity");
  CHECK(seen.failure->number == EPERM);

  inner.identity.reset();
  inner.capabilities = {"sys_admin"};
  seen = launch_inside(outer, inner);
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "capabilities");

  inner.capabilities.clear();
  inner.pid_file = "/proc/guest.pid";
  seen = launch_inside(outer, inner);
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "pid_file");
}

TEST_CASE("launcher: root that would get capabilities back at exec is not executed", "[sec]") {
  if (skip_without_root())
    return;
  auto outer = plan_for({});
  outer.identity = launch_identity{0, 0, {}};
  outer.capabilities = {"setuid", "setgid"}; // and not setpcap
  outer.no_new_privs = false;
  auto inner = plan_for({"/bin/true"});
  inner.no_new_privs = false;
  inner.filter_calls = false; // it takes the one or CAP_SYS_ADMIN
  const auto seen = launch_inside(outer, inner);
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "verify");
  CHECK_THAT(seen.failure->message, Catch::Matchers::Contains("bounding set cannot be dropped"));

  inner.no_new_privs = true;
  CHECK_FALSE(launch_inside(outer, inner).failure);
}

TEST_CASE("launcher: a pid file that cannot be removed after the change of user is emptied", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  auto plan = plan_for({"/nowhere/qemu"});
  plan.identity = nobody;
  plan.pid_file = dir / "guest.pid";
  const auto seen = launch(plan);
  REQUIRE(seen.failure);
  CHECK(seen.failure->step == "exec");
  const auto read = read_pid_file(plan.pid_file);
  REQUIRE_FALSE(read);
  CHECK(read.error().code == errc::qemu_gone);
}

} // namespace troupe
