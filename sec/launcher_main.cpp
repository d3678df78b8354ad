// troupe-launch: becomes the program that a plan describes, or says why not. One thread, and nothing shared with the
// daemon.

#include "runtime/unique_fd.hpp"
#include "sec/call_filter.hpp"
#include "sec/launch_plan.hpp"

#include <algorithm>
#include <array>
#include <cap-ng.h>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <getopt.h>
#include <grp.h>
#include <linux/close_range.h>
#include <selinux/selinux.h>
#include <span>
#include <sys/apparmor.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

struct trouble {
  int number = 0; ///< errno, or 0
  std::string message;
};

using outcome = tl::expected<void, trouble>;

auto failed(std::string what) {
  const int number = errno;
  return tl::make_unexpected(trouble{number, fmt::format("{}: {}", what, std::strerror(number))});
}

auto refused(std::string why) {
  return tl::make_unexpected(trouble{0, std::move(why)});
}

constexpr std::pair<std::string_view, int> limit_names[] = {
  {"as", RLIMIT_AS},
  {"core", RLIMIT_CORE},
  {"cpu", RLIMIT_CPU},
  {"data", RLIMIT_DATA},
  {"fsize", RLIMIT_FSIZE},
  {"memlock", RLIMIT_MEMLOCK},
  {"msgqueue", RLIMIT_MSGQUEUE},
  {"nice", RLIMIT_NICE},
  {"nofile", RLIMIT_NOFILE},
  {"nproc", RLIMIT_NPROC},
  {"rtprio", RLIMIT_RTPRIO},
  {"rttime", RLIMIT_RTTIME},
  {"sigpending", RLIMIT_SIGPENDING},
  {"stack", RLIMIT_STACK},
};

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno != EINTR)
      return false;
    if (n > 0)
      text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

/// Until the end of the file, or `most` bytes. False with errno.
bool read_all(int fd, std::size_t most, std::string& text) {
  std::array<char, 65536> buffer;
  while (text.size() < most) {
    const auto n = ::read(fd, buffer.data(), buffer.size());
    if (n == 0)
      break;
    if (n < 0 && errno != EINTR)
      return false;
    if (n > 0)
      text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return true;
}

result<std::string> small_file(const char* path) {
  const unique_fd fd{::open(path, O_RDONLY | O_CLOEXEC)};
  std::string text;
  if (!fd || !read_all(fd.get(), 65536, text))
    return fail(errc::system, fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  return text;
}

/// The words after "NAME:" in /proc/self/status.
std::vector<std::string_view> words_of(std::string_view status, std::string_view name) {
  std::vector<std::string_view> words;
  const auto start = status.find(fmt::format("\n{}:", name));
  if (start == status.npos)
    return words;
  auto line = status.substr(start + name.size() + 2);
  line = line.substr(0, line.find('\n'));
  for (;;) {
    const auto word = line.find_first_not_of("\t ");
    if (word == line.npos)
      return words;
    line.remove_prefix(word);
    words.push_back(line.substr(0, line.find_first_of("\t ")));
    line.remove_prefix(words.back().size());
  }
}

template <class Number>
std::optional<Number> number_from(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (ec != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return number;
}

/// Field 22 of /proc/self/stat, which exec does not change.
std::optional<std::uint64_t> own_start_time() {
  const auto text = small_file("/proc/self/stat");
  std::string_view rest = text ? std::string_view{*text} : std::string_view{};
  const auto name_end = rest.rfind(") ");
  if (name_end == rest.npos)
    return std::nullopt;
  rest.remove_prefix(name_end + 2);
  for (int field = 3; field < 22 && !rest.empty(); ++field)
    rest.remove_prefix(std::min(rest.size(), rest.find(' ') + 1));
  return number_from<std::uint64_t>(rest.substr(0, rest.find(' ')));
}

/// The SELinux context that exec will give; empty when none was chosen.
std::string next_context() {
  char* text = nullptr;
  if (::getexeccon_raw(&text) != 0 || text == nullptr)
    return {};
  std::string context{text};
  ::freecon(text);
  return context;
}

/// The AppArmor profile that exec will give, without its mode; empty when none was chosen.
std::string next_profile() {
  for (const auto* where : {"/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"})
    if (const auto text = small_file(where); text && !text->empty())
      return text->substr(0, text->rfind(" ("));
  return {};
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (auto& text : texts)
    pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// The plan on its way to being carried out. The steps run in the order of `steps`, below.
class launch {
public:
  launch(launch_plan plan, int status_fd) : plan_{std::move(plan)}, status_fd_{status_fd} {}

  outcome look_around();
  outcome set_limits();
  outcome set_umask();
  outcome change_directory();
  outcome write_pid_file();
  outcome join_groups();
  outcome choose_label();
  outcome open_landlock();
  outcome filter_calls_early();
  outcome drop_bounding();
  outcome change_identity();
  outcome drop_capabilities();
  outcome forbid_privileges();
  outcome enter_landlock();
  outcome filter_calls();
  outcome verify();
  outcome close_descriptors();
  outcome execute();

  /// The launch failed: no pid file may claim otherwise.
  void clear_pid_file();

private:
  launch_plan plan_;
  int status_fd_;
  std::uint64_t kept_ = 0;  // the planned capabilities as a mask
  bool privileged_ = false; // we hold CAP_SETPCAP: the bounding set can be dropped
  launch_identity before_;
  unique_fd landlock_; // the plan's rules, until they are entered
  bool filtered_ = false;
  unique_fd run_dir_;
  unique_fd pid_fd_;
  std::string pid_name_;
};

outcome launch::look_around() {
  if (capng_get_caps_process() != 0)
    return failed("cannot read own capabilities");
  privileged_ = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
  for (const auto& name : plan_.capabilities) {
    if (name == launch_plan::all_capabilities) {
      for (unsigned number = 0; number < 64; ++number)
        if (capng_have_capability(CAPNG_PERMITTED, number) != 0)
          kept_ |= std::uint64_t{1} << number;
      continue;
    }
    const int number = capng_name_to_capability(name.c_str());
    if (number < 0)
      return refused(fmt::format("'{}' is no capability; write it as in capabilities(7), without the CAP_", name));
    kept_ |= std::uint64_t{1} << number;
  }
  before_ = {::getuid(), ::getgid(), std::vector<gid_t>(NGROUPS_MAX)};
  const int count = ::getgroups(NGROUPS_MAX, before_.groups.data());
  if (count < 0)
    return failed("cannot read own groups");
  before_.groups.resize(static_cast<std::size_t>(count));

  auto& keep = plan_.keep_fds;
  keep.insert(keep.end(), {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
  std::ranges::sort(keep);
  keep.erase(std::unique(keep.begin(), keep.end()), keep.end()); // clang 14 cannot take std::ranges::unique
  for (const int fd : keep) {
    if (fd == status_fd_)
      return refused(fmt::format("descriptor {} is the launcher's own and cannot be kept", fd));
    if (::fcntl(fd, F_GETFD) < 0)
      return failed(fmt::format("descriptor {} is to be kept but was not passed", fd));
  }
  return {};
}

/// The resource of a limit; none: there is no such one.
std::optional<__rlimit_resource> resource_of(const resource_limit& limit) {
  const auto found = std::ranges::find(limit_names, limit.name, [](const auto& x) { return x.first; });
  if (found == std::end(limit_names))
    return std::nullopt;
  return static_cast<__rlimit_resource>(found->second);
}

outcome launch::set_limits() {
  for (const auto& limit : plan_.limits) {
    const auto which = resource_of(limit);
    if (!which)
      return refused(fmt::format("'{}' is no resource limit", limit.name));
    const rlimit value{limit.soft, limit.hard}; // `unlimited` is RLIM_INFINITY
    static_assert(resource_limit::unlimited == RLIM_INFINITY);
    if (::setrlimit(*which, &value) != 0)
      return failed(fmt::format("cannot limit {} to {}:{}", limit.name, limit.soft, limit.hard));
  }
  return {};
}

outcome launch::set_umask() {
  ::umask(plan_.umask);
  return {};
}

outcome launch::change_directory() {
  if (::chdir(plan_.working_dir.c_str()) != 0)
    return failed(fmt::format("cannot enter the directory '{}'", plan_.working_dir));
  return {};
}

// Before the identity changes, as the directory is the daemon's. The descriptors stay, to take the file back.
outcome launch::write_pid_file() {
  if (plan_.pid_file.empty())
    return {};
  const auto slash = plan_.pid_file.rfind('/');
  const auto dir = plan_.pid_file.substr(0, slash + 1);
  const auto name = plan_.pid_file.substr(slash + 1);
  const auto temporary = fmt::format(".{}.{}", name, ::getpid());
  const auto start_time = own_start_time();
  if (!start_time)
    return refused("/proc/self/stat has no start time: is /proc mounted?");
  run_dir_ = unique_fd{::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!run_dir_)
    return failed(fmt::format("cannot open the pid file's directory '{}'", dir));
  ::unlinkat(run_dir_.get(), temporary.c_str(), 0); // left by a launcher that was killed here
  pid_fd_ = unique_fd{::openat(run_dir_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  if (!pid_fd_)
    return failed(fmt::format("cannot create the pid file '{}'", plan_.pid_file));
  pid_name_ = temporary;
  if (::fchmod(pid_fd_.get(), 0644) != 0 ||
      !write_all(pid_fd_.get(), fmt::format("{} {}\n", ::getpid(), *start_time)) ||
      ::renameat(run_dir_.get(), temporary.c_str(), run_dir_.get(), name.c_str()) != 0)
    return failed(fmt::format("cannot write the pid file '{}'", plan_.pid_file));
  pid_name_ = name;
  return {};
}

// Before the identity changes, as the groups are the daemon's.
outcome launch::join_groups() {
  for (const auto& group : plan_.control_groups) {
    const unique_fd members{::open((group + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC)};
    if (!members || ::write(members.get(), "0", 1) != 1)
      return failed(fmt::format("cannot join the control group '{}'", group));
  }
  return {};
}

// Both take effect at exec.
outcome launch::choose_label() {
  if (const auto& context = plan_.selinux_context; !context.empty() && ::setexeccon_raw(context.c_str()) != 0)
    return failed(fmt::format("cannot choose the SELinux context '{}'", context));
  if (const auto& profile = plan_.apparmor_profile; !profile.empty() && ::aa_change_onexec(profile.c_str()) != 0)
    return failed(errno == ENOENT ? fmt::format("the AppArmor profile '{}' is not loaded", profile)
                                  : fmt::format("cannot choose the AppArmor profile '{}'", profile));
  return {};
}

// Before the identity changes, as the guest's user may not reach every directory on the way to its files.
outcome launch::open_landlock() {
  if (plan_.landlock.empty())
    return {};
  auto rules = make_landlock(plan_.landlock);
  if (!rules)
    return refused(std::move(rules.error().detail));
  landlock_ = std::move(*rules);
  // Without no_new_privs it takes CAP_SYS_ADMIN, which is about to go.
  return plan_.no_new_privs ? outcome{} : enter_landlock();
}

outcome launch::enter_landlock() {
  if (!landlock_)
    return {};
  if (auto entered = troupe::enter_landlock(landlock_); !entered)
    return refused(std::move(entered.error().detail));
  landlock_.reset();
  return {};
}

outcome launch::filter_calls_early() {
  return plan_.no_new_privs ? outcome{} : filter_calls();
}

outcome launch::filter_calls() {
  if (!plan_.filter_calls || filtered_)
    return {};
  if (auto entered = enter_call_filter(); !entered)
    return refused(std::move(entered.error().detail));
  filtered_ = true;
  return {};
}

void launch::clear_pid_file() {
  if (pid_name_.empty())
    return;
  // Once we are the guest's user the directory may be closed to us: an empty file says the same.
  if (::unlinkat(run_dir_.get(), pid_name_.c_str(), 0) != 0)
    static_cast<void>(::ftruncate(pid_fd_.get(), 0) == 0);
}

void select_capabilities(std::uint64_t kept) {
  capng_clear(CAPNG_SELECT_ALL);
  for (unsigned number = 0; number < 64; ++number)
    if ((kept >> number & 1) != 0)
      capng_update(CAPNG_ADD,
                   static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE |
                                             CAPNG_BOUNDING_SET | CAPNG_AMBIENT),
                   number);
}

// Before the identity changes: that takes CAP_SETPCAP away. Without this, root would get everything back at exec.
outcome launch::drop_bounding() {
  select_capabilities(kept_);
  if (privileged_ && capng_apply(CAPNG_SELECT_BOUNDS) != 0)
    return failed("cannot drop the capability bounding set");
  return {};
}

outcome launch::change_identity() {
  if (!plan_.identity)
    return {};
  const auto& [uid, gid, groups] = *plan_.identity;
  if (kept_ != 0 && ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
    return failed("cannot keep capabilities");
  if (::setgroups(groups.size(), groups.data()) != 0)
    return failed(fmt::format("cannot take the groups {}", fmt::join(groups, ",")));
  if (::setresgid(gid, gid, gid) != 0)
    return failed(fmt::format("cannot become group {}", gid));
  if (::setresuid(uid, uid, uid) != 0)
    return failed(fmt::format("cannot become user {}", uid));
  return {};
}

outcome launch::drop_capabilities() {
  select_capabilities(kept_);
  if (capng_apply(static_cast<capng_select_t>(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT)) != 0)
    return failed(kept_ == 0 ? "cannot drop capabilities"
                             : fmt::format("cannot keep the capabilities {}", fmt::join(plan_.capabilities, ",")));
  if (::prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0)
    return failed("cannot forget kept capabilities");
  return {};
}

outcome launch::forbid_privileges() {
  if (plan_.no_new_privs && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return failed("cannot set no_new_privs");
  return {};
}

// What the kernel says of us, rather than what the calls above returned.
outcome launch::verify() {
  const auto status = small_file("/proc/self/status");
  if (!status)
    return refused(status.error().detail);
  const auto& who = plan_.identity ? *plan_.identity : before_;

  const auto all_are = [&](const char* field, std::uint32_t planned) -> outcome {
    const auto words = words_of(*status, field);
    if (words.size() == 4 &&
        std::ranges::all_of(words, [&](auto word) { return number_from<std::uint32_t>(word) == planned; }))
      return {};
    return refused(fmt::format("{} is {}, planned was {}", field, fmt::join(words, " "), planned));
  };
  const auto groups_are = [&]() -> outcome {
    const auto words = words_of(*status, "Groups");
    std::vector<gid_t> now;
    for (const auto word : words)
      now.push_back(number_from<gid_t>(word).value_or(static_cast<gid_t>(-1)));
    auto planned = who.groups;
    std::ranges::sort(now);
    std::ranges::sort(planned);
    if (now == planned)
      return {};
    return refused(fmt::format("Groups is {}, planned was {}", fmt::join(now, " "), fmt::join(planned, " ")));
  };
  const auto mask_of = [&](const char* field) {
    const auto words = words_of(*status, field);
    return words.size() == 1 ? number_from<std::uint64_t>(words.front(), 16) : std::nullopt;
  };
  const auto mask_is = [&](const char* field) -> outcome {
    const auto now = mask_of(field);
    if (now == kept_)
      return {};
    return refused(fmt::format("{} is {:x}, planned was {:x}", field, now.value_or(0), kept_));
  };
  const auto bounded = [&]() -> outcome {
    if (privileged_)
      return mask_is("CapBnd");
    const auto now = mask_of("CapBnd");
    if (who.uid != 0 || plan_.no_new_privs || (now && (*now & ~kept_) == 0))
      return {};
    return refused("root would get capabilities back at exec: the bounding set cannot be dropped without CAP_SETPCAP, "
                   "and no_new_privs is not set");
  };
  const auto grouped = [&]() -> outcome {
    const auto self = fmt::format("\n{}\n", ::getpid());
    for (const auto& group : plan_.control_groups) {
      const auto members = small_file((group + "/cgroup.procs").c_str());
      if (!members || ("\n" + *members).find(self) == std::string::npos)
        return refused(fmt::format("not in the control group '{}'", group));
    }
    return {};
  };
  const auto labelled = [&]() -> outcome {
    const auto next = plan_.selinux_context.empty() ? std::string{} : next_context();
    if (next != plan_.selinux_context)
      return refused(fmt::format("the next SELinux context is '{}', planned was '{}'", next, plan_.selinux_context));
    const auto profile = plan_.apparmor_profile.empty() ? std::string{} : next_profile();
    if (profile != plan_.apparmor_profile)
      return refused(fmt::format("the next AppArmor profile is '{}', planned was '{}'", profile, plan_.apparmor_profile));
    return {};
  };
  const auto no_new_privs = [&]() -> outcome {
    const auto words = words_of(*status, "NoNewPrivs");
    if (words.size() == 1 && (words.front() == "1" || (words.front() == "0" && !plan_.no_new_privs)))
      return {};
    return refused(fmt::format("NoNewPrivs is {}, planned was {:d}", fmt::join(words, " "), plan_.no_new_privs));
  };
  const auto filtered = [&]() -> outcome {
    const auto words = words_of(*status, "Seccomp");
    if (!plan_.filter_calls || (words.size() == 1 && words.front() == "2"))
      return {};
    return refused(fmt::format("Seccomp is {}, planned was 2", fmt::join(words, " ")));
  };
  // /proc does not tell: a directory that the plan does not let us list must not open.
  const auto shut_off = [&]() -> outcome {
    if (plan_.landlock.empty() || std::ranges::find(plan_.landlock, "/", &landlock_rule::path) != plan_.landlock.end() ||
        (!unique_fd{::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)} && errno == EACCES))
      return {};
    return refused("Landlock lets us list '/', which is not planned");
  };

  const auto limited = [&]() -> outcome {
    for (const auto& limit : plan_.limits) {
      const auto which = resource_of(limit);
      rlimit now{};
      if (!which || ::getrlimit(*which, &now) != 0 || now.rlim_cur != limit.soft || now.rlim_max != limit.hard)
        return refused(fmt::format("the limit of {} is {}:{}, planned was {}:{}", limit.name, now.rlim_cur, now.rlim_max,
                                   limit.soft, limit.hard));
    }
    return {};
  };
  const auto masked = [&]() -> outcome {
    const auto words = words_of(*status, "Umask");
    const auto now = words.size() == 1 ? number_from<mode_t>(words.front(), 8) : std::nullopt;
    if (now == plan_.umask)
      return {};
    return refused(fmt::format("Umask is {}, planned was {:04o}", fmt::join(words, " "), plan_.umask));
  };
  const auto not_keeping = [&]() -> outcome {
    if (::prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0) == 0)
      return {};
    return refused("capabilities would be kept at a change of user");
  };
  // The listing's own descriptor closes at exec as those of this program do.
  const auto open_are_planned = [&]() -> outcome {
    std::error_code wrong;
    std::vector<int> seen;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd", wrong}) {
      const auto fd = number_from<int>(entry.path().filename().native());
      const int flags = fd ? ::fcntl(*fd, F_GETFD) : -1;
      if (flags >= 0 && (flags & FD_CLOEXEC) == 0)
        seen.push_back(*fd);
    }
    std::ranges::sort(seen);
    if (!wrong && seen == plan_.keep_fds)
      return {};
    return refused(fmt::format("descriptors {} would stay open, planned were {}", fmt::join(seen, ","),
                               fmt::join(plan_.keep_fds, ",")));
  };

  return all_are("Uid", who.uid)
    .and_then([&] { return all_are("Gid", who.gid); })
    .and_then(groups_are)
    .and_then([&] { return mask_is("CapEff"); })
    .and_then([&] { return mask_is("CapPrm"); })
    .and_then([&] { return mask_is("CapInh"); })
    .and_then([&] { return mask_is("CapAmb"); })
    .and_then(bounded)
    .and_then(grouped)
    .and_then(limited)
    .and_then(masked)
    .and_then(not_keeping)
    .and_then(open_are_planned)
    .and_then(labelled)
    .and_then(no_new_privs)
    .and_then(filtered)
    .and_then(shut_off);
}

// Closes at exec rather than now: until then the status descriptor and the pid file are needed.
outcome launch::close_descriptors() {
  unsigned first = 0;
  const auto close_up_to = [&](unsigned last) {
    return first > last || ::close_range(first, last, CLOSE_RANGE_CLOEXEC) == 0;
  };
  for (const int fd : plan_.keep_fds) { // sorted
    const auto number = static_cast<unsigned>(fd);
    if (number > 0 && !close_up_to(number - 1))
      return failed("cannot close descriptors");
    if (::fcntl(fd, F_SETFD, 0) != 0)
      return failed(fmt::format("cannot keep descriptor {}", fd));
    first = number + 1;
  }
  if (!close_up_to(UINT_MAX))
    return failed("cannot close descriptors");
  return {};
}

outcome launch::execute() {
  write_all(STDERR_FILENO, plan_.banner); // a full log is no reason not to start
  const auto argv = pointers_to(plan_.argv);
  const auto env = pointers_to(plan_.env);
  ::execve(argv.front(), argv.data(), env.data());
  if ((errno == EACCES || errno == EPERM) && !plan_.selinux_context.empty())
    return failed(fmt::format("cannot execute '{}' as '{}': SELinux's policy must let this daemon's domain enter that one, as it "
                              "lets that of a daemon whose program is labelled virtd_exec_t", plan_.argv.front(), plan_.selinux_context));
  return failed(fmt::format("cannot execute '{}'", plan_.argv.front()));
}

constexpr std::pair<const char*, outcome (launch::*)()> steps[] = {
  {"plan", &launch::look_around},
  {"limits", &launch::set_limits},
  {"umask", &launch::set_umask},
  {"working_dir", &launch::change_directory},
  {"pid_file", &launch::write_pid_file},
  {"control_group", &launch::join_groups},
  {"label", &launch::choose_label},
  {"landlock", &launch::open_landlock},
  {"call_filter", &launch::filter_calls_early},
  {"bounding", &launch::drop_bounding},
  {"identity", &launch::change_identity},
  {"capabilities", &launch::drop_capabilities},
  {"no_new_privs", &launch::forbid_privileges},
  {"landlock", &launch::enter_landlock},
  {"call_filter", &launch::filter_calls},
  {"descriptors", &launch::close_descriptors},
  {"verify", &launch::verify},
  {"exec", &launch::execute},
};

[[noreturn]] void give_up(int status_fd, const char* step, trouble why) {
  write_all(status_fd, to_text(launch_failure{step, why.number, std::move(why.message)}) + "\n");
  std::_Exit(1);
}

int run(int argc, char** argv) {
  constexpr option options[] = {
    {"plan-fd", required_argument, nullptr, 'p'},
    {"status-fd", required_argument, nullptr, 's'},
    {nullptr, 0, nullptr, 0},
  };
  int plan_number = -1;
  int status_fd = -1;
  for (int found; (found = ::getopt_long(argc, argv, "", options, nullptr)) != -1;)
    if (found == 'p' || found == 's')
      (found == 'p' ? plan_number : status_fd) = number_from<int>(optarg).value_or(-1);
  if (plan_number <= STDERR_FILENO || status_fd <= STDERR_FILENO || plan_number == status_fd || optind != argc ||
      ::fcntl(status_fd, F_SETFD, FD_CLOEXEC) != 0) {
    fmt::print(stderr, "usage: troupe-launch --plan-fd N --status-fd M\n"
                       "Becomes the program that the plan on descriptor N describes. Why it cannot is written to M.\n"
                       "Meant to be started by trouped.\n");
    return 2;
  }

  unique_fd plan_fd{plan_number};
  std::string text;
  if (!read_all(plan_fd.get(), max_launch_plan + 1, text))
    give_up(status_fd, "plan", {errno, fmt::format("cannot read the plan: {}", std::strerror(errno))});
  plan_fd.reset();
  auto plan = launch_plan_from(text);
  if (!plan)
    give_up(status_fd, "plan", {0, plan.error().detail});

  launch it{std::move(*plan), status_fd};
  for (const auto& [name, step] : steps)
    if (auto done = (it.*step)(); !done) {
      it.clear_pid_file();
      give_up(status_fd, name, std::move(done.error()));
    }
  return 0; // not reached: the last step does not return when it succeeds
}

} // namespace
} // namespace troupe

int main(int argc, char** argv) {
  return troupe::run(argc, argv);
}
