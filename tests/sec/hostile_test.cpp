#include "runtime/process.hpp"
#include "sec/device_acl.hpp"
#include "sec/landlock.hpp"
#include "sec/launch_plan.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <set>
#include <sstream>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// tests/sec/hostile_main.cpp in QEMU's place: what a guest that broke out of its QEMU is refused.
//
// In a VM whose kernel enforces an LSM the environment names what the program gets beside the rest, and then nothing at
// all may succeed: TROUPE_HOSTILE_CONTEXT (SELinux) or TROUPE_HOSTILE_PROFILE (AppArmor, loaded).

namespace troupe {
namespace {

constexpr uid_t guest_uid = 64055;
constexpr gid_t guest_gid = 64056;

/// Another guest's process: a program, as what only changed its user is out of reach anyway.
class bystander {
public:
  explicit bystander(uid_t uid) : pid_{::fork()} {
    if (pid_ == 0) {
      if (::setresgid(guest_gid, guest_gid, guest_gid) == 0 && ::setresuid(uid, uid, uid) == 0)
        ::execl("/bin/sleep", "sleep", "1000", nullptr);
      ::_exit(1);
    }
    const auto name = fmt::format("/proc/{}/comm", pid_);
    while (contents_of(name) != "sleep\n")
      ::usleep(1000);
  }
  ~bystander() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  bystander(const bystander&) = delete;
  bystander& operator=(const bystander&) = delete;

  pid_t pid() const { return pid_; }

private:
  pid_t pid_;
};

void own(const std::string& path, uid_t uid, mode_t mode) {
  REQUIRE(::chown(path.c_str(), uid, uid == 0 ? 0 : guest_gid) == 0);
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

/// A host with a daemon and two guests, as the daemon lays them out.
struct stage {
  temp_dir dir;
  std::string program = dir / "hostile", setuid = dir / "setuid";
  std::string own_dir = dir / "own", other_dir = dir / "other", daemon_dir = dir / "daemon";
  std::string other_file = dir / "other.img", daemon_file = dir / "daemon/ledger", daemon_socket = dir / "libvirt-sock";
  unique_fd listening{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  bystander other;

  explicit stage(uid_t other_uid) : other{other_uid} {
    for (const auto& copy : {program, setuid})
      std::filesystem::copy_file(std::string{TROUPE_BINARY_DIR} + "/bin/hostile", copy);
    own(program, 0, 0755);
    own(setuid, 0, 04755);
    for (const auto& each : {own_dir, other_dir, daemon_dir})
      std::filesystem::create_directory(each);
    own(own_dir, guest_uid, 0700);
    own(other_dir, other_uid, 0700);
    own(daemon_dir, 0, 0700);
    own(write_file(other_file, "secret"), other_uid, 0600);
    own(write_file(daemon_file, "secret"), 0, 0600);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    daemon_socket.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(listening.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listening.get(), 8) == 0);
    own(daemon_socket, 0, 0700);
  }

  launch_plan plan() const {
    launch_plan out;
    out.argv = {program,
                "own_dir=" + own_dir,
                "other_dir=" + other_dir,
                "other_file=" + other_file,
                fmt::format("other_pid={}", other.pid()),
                "daemon_dir=" + daemon_dir,
                "daemon_file=" + daemon_file,
                "daemon_socket=" + daemon_socket,
                fmt::format("daemon_pid={}", ::getpid()),
                "setuid=" + setuid};
    out.identity = launch_identity{guest_uid, guest_gid, {guest_gid}};
    if (const char* context = std::getenv("TROUPE_HOSTILE_CONTEXT")) {
      out.selinux_context = context;
      out.no_new_privs = false;
    }
    if (const char* profile = std::getenv("TROUPE_HOSTILE_PROFILE"))
      out.apparmor_profile = profile;
    return out;
  }
};

bool has_lsm() {
  return std::getenv("TROUPE_HOSTILE_CONTEXT") != nullptr || std::getenv("TROUPE_HOSTILE_PROFILE") != nullptr;
}

/// Runs the plan to its end; what became of each attempt, by name.
std::map<std::string, std::string> run(const launch_plan& plan) {
  loop on;
  const auto plan_file = memory_file("plan", to_text(plan));
  const unique_fd output{::memfd_create("output", MFD_CLOEXEC)};
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd read_end{ends[0]};
  unique_fd write_end{ends[1]};
  spawn_request request{.argv = {std::string{TROUPE_BINARY_DIR} + "/bin/troupe-launch", "--plan-fd", "3", "--status-fd", "4"},
                        .env = {},
                        .fds = {{output.get(), 1}, {output.get(), 2}, {plan_file->get(), 3}, {write_end.get(), 4}}};
  exit_status ended;
  const auto started = spawn(on, request, [&](exit_status status) {
    ended = status;
    on.stop();
  });
  REQUIRE(started);
  write_end.reset();
  std::string report(4096, '\0');
  const auto size = ::read(read_end.get(), report.data(), report.size());
  INFO(report.substr(0, static_cast<std::size_t>(std::max<ssize_t>(size, 0))));
  REQUIRE(size == 0);
  on.run();
  std::string text(1 << 16, '\0');
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::pread(output.get(), text.data(), text.size(), 0))));
  INFO(text);
  REQUIRE(ended.known);
  REQUIRE(ended.signal == 0);
  REQUIRE(ended.code == 0);
  std::map<std::string, std::string> all;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);)
    if (const auto colon = line.rfind(": "); colon != line.npos)
      all[line.substr(0, colon)] = line.substr(colon + 2);
  CHECK(all.size() > 60);
  return all;
}

/// The attempts that did what they wanted.
std::set<std::string> successes(const std::map<std::string, std::string>& all) {
  std::set<std::string> done;
  for (const auto& [name, how] : all)
    if (how == "DONE")
      done.insert(name);
  return done;
}

/// An attempt whose object is not there shows nothing: only what machines may lack may be missing.
void check_objects(const std::map<std::string, std::string>& all) {
  const std::set<std::string> may_lack{"open the machine's disk", "use a device that is not on the list", "open the machine's memory",
                                       "read the kernel's log", "use ports of the machine", "leave the control group",
                                       "load a module", "swap to a file", "press a system request", "keep a key"};
  for (const auto& [name, how] : all) {
    INFO(name << ": " << how);
    CHECK((how.find("No such") == std::string::npos || may_lack.contains(name)));
  }
}

bool skip_without_root() {
  if (::geteuid() == 0)
    return false;
  WARN("skipped: needs root");
  return true;
}

/// A control group with the nodes that every QEMU has, as long as it lives; none where no group can be made.
class group {
public:
  group() {
    const auto where = find_device_groups(contents_of("/proc/self/mountinfo"), contents_of("/proc/self/cgroup"));
    std::vector<device_rule> rules{terminal_rule};
    for (const auto* node : {"/dev/null", "/dev/zero", "/dev/urandom"})
      rules.push_back(device_rule_at(node, false).value().value());
    path_ = fmt::format("{}/troupe-test-{}/hostile", where.dir, ::getpid());
    if (where.how == device_groups::kind::none || !make_device_group(where.how, path_, rules)) {
      WARN("no control group can be made here: device nodes are kept back by their owners only");
      path_.clear();
    }
  }
  ~group() {
    if (!path_.empty())
      static_cast<void>(remove_device_group(path_));
  }
  group(const group&) = delete;
  group& operator=(const group&) = delete;

  const std::string& path() const { return path_; }

private:
  std::string path_;
};

std::vector<landlock_rule> rules_on(const stage& on) {
  auto rules = landlock_rules({.emulator = on.program, .run_dir = on.own_dir, .resources = {}, .makes = {}, .words = {}});
  rules.push_back({on.setuid, "rx"});
  return rules;
}

} // namespace

TEST_CASE("hostile: a guest with a user of its own is refused everything, by owners and the control group alone", "[sec]") {
  if (skip_without_root())
    return;
  const stage on{guest_uid + 1};
  const group limits;
  auto plan = on.plan();
  if (!limits.path().empty())
    plan.control_groups = {limits.path()};
  const auto all = run(plan);
  check_objects(all);
  auto done = successes(all);
  if (limits.path().empty())
    done.erase("use a device that is not on the list"); // anybody may open it
  INFO(fmt::format("{}", fmt::join(done, "\n")));
  CHECK(done.empty());
}

TEST_CASE("hostile: Landlock keeps guests of one user apart, too, as far as it reaches", "[sec]") {
  if (skip_without_root())
    return;
  if (landlock_abi() == 0 && !has_lsm()) {
    WARN("skipped: this kernel has no Landlock, or its lsm= leaves it out; in the lsm-lab VM it is on");
    return;
  }
  const stage on{guest_uid};
  const group limits;
  auto plan = on.plan();
  if (!limits.path().empty())
    plan.control_groups = {limits.path()};
  if (landlock_abi() > 0)
    plan.landlock = rules_on(on);
  const auto all = run(plan);
  check_objects(all);
  auto done = successes(all);
  // What is done to a file without opening it is out of Landlock's reach: it takes SELinux, AppArmor or another user.
  std::set<std::string> beyond{"change the mode of another guest's disk", "mark another guest's disk"};
  if (landlock_abi() < 3)
    beyond.insert("truncate another guest's disk");
  if (has_lsm())
    beyond.clear();
  INFO(fmt::format("{}", fmt::join(done, "\n")));
  CHECK(done == beyond);
}

TEST_CASE("hostile: the program does succeed where nothing holds it", "[sec]") {
  if (skip_without_root() || has_lsm())
    return;
  const stage on{guest_uid};
  auto plan = on.plan();
  plan.filter_calls = false;
  plan.no_new_privs = false;
  plan.capabilities = {"chown", "dac_override", "kill", "net_raw", "sys_chroot"};
  const auto done = successes(run(plan));
  for (const auto* name : {"read another guest's disk", "write another guest's disk", "list another guest's directory", "signal another guest",
                           "limit another guest", "read the daemon's ledger", "connect to the daemon", "signal the daemon",
                           "become root by a set-uid program", "send raw packets", "change the root"}) {
    INFO(name);
    CHECK(done.contains(name));
  }
}

} // namespace troupe
