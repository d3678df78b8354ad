// What a QEMU that was taken over might try. Executed in QEMU's place by troupe-launch; each attempt is a line on standard
// output: its name and "refused", with why, or "DONE". Nothing it does harms the machine when it succeeds.
//
//     hostile NAME=VALUE...
//
// other_file, other_pid, other_dir: another guest's disk, process and run directory. own_dir: a directory of its own.
// daemon_file, daemon_socket, daemon_pid, daemon_dir: the daemon's. setuid: a copy of this that is set-uid root. kept: its lawful descriptors above 2, as "10,11".

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <map>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string>
#include <sys/ioctl.h>
#if defined(__x86_64__)
#include <sys/io.h>
#endif
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <vector>

namespace {

std::map<std::string, std::string> given;

const std::string& at(const char* name) {
  return given[name];
}

pid_t pid_at(const char* name) {
  return std::atoi(at(name).c_str());
}

/// 0, or why not.
int outcome(long returned) {
  return returned < 0 ? errno : 0;
}

int opens(const std::string& path, int flags) {
  return outcome(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600));
}

int reads(const std::string& path) {
  char byte = 0;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  return fd < 0 ? errno : outcome(::read(fd, &byte, 1));
}

int writes(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
  return fd < 0 ? errno : outcome(::write(fd, text.data(), text.size()));
}

int connects(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return outcome(::connect(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), reinterpret_cast<sockaddr*>(&address), sizeof address));
}

int lists(const std::string& path) {
  return ::opendir(path.c_str()) == nullptr ? errno : 0;
}

int follows(const std::string& link) {
  char target[PATH_MAX];
  return outcome(::readlink(link.c_str(), target, sizeof target));
}

int reads_memory(pid_t pid) {
  char here = 0;
  const iovec mine{&here, 1};
  const iovec theirs{reinterpret_cast<void*>(&given), 1};
  return outcome(::process_vm_readv(pid, &mine, 1, &theirs, 1, 0));
}

/// Whether a copy of this program that is set-uid root runs as root.
int becomes_root() {
  const pid_t child = ::fork();
  if (child < 0)
    return errno;
  if (child == 0) {
    ::execl(at("setuid").c_str(), at("setuid").c_str(), "--root", nullptr);
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EPERM;
}

/// Calls that ask for rights first: what they say of senseless arguments comes after that.
int past_the_guard(long returned) {
  return returned < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS) ? errno : 0;
}

int loads_bpf() {
  bpf_attr attr{};
  const bpf_insn program[] = {{0xb7, 0, 0, 0, 0}, {0x95, 0, 0, 0, 0}};
  attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attr.insns = reinterpret_cast<std::uint64_t>(program);
  attr.insn_cnt = 2;
  attr.license = reinterpret_cast<std::uint64_t>("GPL");
  return outcome(::syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr));
}

int watches(pid_t pid) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_TASK_CLOCK;
  return outcome(::syscall(SYS_perf_event_open, &attr, pid, -1, -1, 0));
}

int opens_by_handle() {
  alignas(file_handle) unsigned char room[sizeof(file_handle) + MAX_HANDLE_SZ] = {};
  auto* handle = reinterpret_cast<file_handle*>(room);
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  const int usr = ::open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (usr < 0 || ::name_to_handle_at(usr, "", handle, &mount, AT_EMPTY_PATH) != 0)
    return errno;
  return outcome(::open_by_handle_at(usr, handle, O_RDONLY));
}

int changes_interface() {
  ifreq wish{};
  std::strcpy(wish.ifr_name, "lo");
  wish.ifr_flags = IFF_UP;
  return outcome(::ioctl(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), SIOCSIFFLAGS, &wish));
}

int holds_more_descriptors() {
  std::vector<int> lawful{0, 1, 2};
  for (std::size_t from = 0; from < at("kept").size();) {
    const auto end = std::min(at("kept").find(',', from), at("kept").size());
    lawful.push_back(std::atoi(at("kept").substr(from, end - from).c_str()));
    from = end + 1;
  }
  for (int fd = 0; fd < 4096; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0 && std::find(lawful.begin(), lawful.end(), fd) == lawful.end())
      return 0;
  return EBADF;
}

int raises_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max == RLIM_INFINITY)
    return EPERM;
  ++limit.rlim_max;
  return outcome(::setrlimit(RLIMIT_NOFILE, &limit));
}

int takes_capabilities() {
  struct {
    std::uint32_t version = 0x20080522;
    int pid = 0;
  } head;
  struct {
    std::uint32_t effective = ~0u, permitted = ~0u, inheritable = 0;
  } data[2];
  return outcome(::syscall(SYS_capset, &head, data));
}

std::string proc(const char* whose, const char* what) {
  return "/proc/" + at(whose) + "/" + what;
}

struct attempt {
  const char* name;
  std::function<int()> go;
};

const attempt attempts[] = {
  // First, as the others leave some open.
  {"hold more descriptors than were handed over", holds_more_descriptors},
  // Files of others.
  {"read another guest's disk", [] { return reads(at("other_file")); }},
  {"write another guest's disk", [] { return opens(at("other_file"), O_WRONLY); }},
  {"truncate another guest's disk", [] { return outcome(::truncate(at("other_file").c_str(), 0)); }},
  {"link another guest's disk", [] { return outcome(::link(at("other_file").c_str(), (at("own_dir") + "/link").c_str())); }},
  {"change the mode of another guest's disk", [] { return outcome(::chmod(at("other_file").c_str(), 0666)); }},
  {"mark another guest's disk", [] { return outcome(::setxattr(at("other_file").c_str(), "user.hostile", "1", 1, 0)); }},
  {"remove another guest's disk", [] { return outcome(::unlink(at("other_file").c_str())); }},
  {"list another guest's directory", [] { return lists(at("other_dir")); }},
  {"make a file in another guest's directory", [] { return opens(at("other_dir") + "/hostile", O_WRONLY | O_CREAT); }},
  {"read the daemon's ledger", [] { return reads(at("daemon_file")); }},
  {"write the daemon's ledger", [] { return opens(at("daemon_file"), O_WRONLY); }},
  {"make a file in the daemon's directory", [] { return opens(at("daemon_dir") + "/hostile", O_WRONLY | O_CREAT); }},
  {"take the daemon's ledger by a link", [] {
     const auto link = at("own_dir") + "/ledger";
     return ::symlink(at("daemon_file").c_str(), link.c_str()) != 0 && errno != EEXIST ? errno : reads(link);
   }},
  {"read the shadow file", [] { return reads("/etc/shadow"); }},
  {"write the user database", [] { return opens("/etc/passwd", O_WRONLY); }},
  {"write a program", [] { return opens("/usr/bin/env", O_WRONLY); }},
  {"open a file by its handle", opens_by_handle},
  // The daemon.
  {"connect to the daemon", [] { return connects(at("daemon_socket")); }},
  {"signal the daemon", [] { return outcome(::kill(pid_at("daemon_pid"), 0)); }},
  {"trace the daemon", [] { return outcome(::ptrace(PTRACE_SEIZE, pid_at("daemon_pid"), nullptr, nullptr)); }},
  {"read the daemon's memory", [] { return reads(proc("daemon_pid", "mem")); }},
  {"read the daemon's environment", [] { return reads(proc("daemon_pid", "environ")); }},
  {"see the files of the daemon", [] { return follows(proc("daemon_pid", "fd/0")); }},
  {"leave by the daemon's root", [] { return opens(proc("daemon_pid", "root/etc/hostname"), O_RDONLY); }},
  {"enter the daemon's namespaces", [] {
     const int fd = ::open(proc("daemon_pid", "ns/mnt").c_str(), O_RDONLY | O_CLOEXEC);
     return fd < 0 ? errno : outcome(::setns(fd, 0));
   }},
  // Another guest's process.
  {"signal another guest", [] { return outcome(::kill(pid_at("other_pid"), 0)); }},
  {"signal another guest by a descriptor", [] {
     const auto fd = ::syscall(SYS_pidfd_open, pid_at("other_pid"), 0);
     return fd < 0 ? errno : outcome(::syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0));
   }},
  {"trace another guest", [] { return outcome(::ptrace(PTRACE_SEIZE, pid_at("other_pid"), nullptr, nullptr)); }},
  {"read another guest's memory", [] { return reads_memory(pid_at("other_pid")); }},
  {"open another guest's memory", [] { return opens(proc("other_pid", "mem"), O_RDWR); }},
  {"read another guest's environment", [] { return reads(proc("other_pid", "environ")); }},
  {"see the files of another guest", [] { return follows(proc("other_pid", "fd/0")); }},
  {"take a descriptor of another guest", [] {
     const auto fd = ::syscall(SYS_pidfd_open, pid_at("other_pid"), 0);
     return fd < 0 ? errno : outcome(::syscall(SYS_pidfd_getfd, fd, 0, 0));
   }},
  {"limit another guest", [] {
     const rlimit none{1, 1};
     return outcome(::syscall(SYS_prlimit64, pid_at("other_pid"), RLIMIT_CORE, &none, nullptr));
   }},
  {"watch another guest", [] { return watches(pid_at("other_pid")); }},
  // Devices.
  {"make a block device", [] { return outcome(::mknod((at("own_dir") + "/block").c_str(), S_IFBLK | 0600, makedev(7, 0))); }},
  {"make a character device", [] { return outcome(::mknod((at("own_dir") + "/memory").c_str(), S_IFCHR | 0600, makedev(1, 1))); }},
  {"open the machine's memory", [] { return opens("/dev/mem", O_RDONLY); }},
  {"read the kernel's log", [] { return opens("/dev/kmsg", O_RDONLY); }},
  {"open the machine's disk", [] {
     for (const char* disk : {"/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/xvda"})
       if (const int why = opens(disk, O_RDONLY); why != ENOENT)
         return why;
     return ENOENT;
   }},
  {"use a device that is not on the list", [] { return opens("/dev/fuse", O_RDWR); }},
  {"use ports of the machine", [] {
#if defined(__x86_64__)
     return outcome(::iopl(3));
#else
     return ENOSYS;
#endif
   }},
  // More rights.
  {"become root", [] { return ::geteuid() == 0 ? EPERM : outcome(::setresuid(0, 0, 0)); }},
  {"join root's group", [] { return ::getegid() == 0 ? EPERM : outcome(::setresgid(0, 0, 0)); }},
  {"choose groups", [] {
     const gid_t root = 0;
     return outcome(::setgroups(1, &root));
   }},
  {"become root by a set-uid program", becomes_root},
  {"take capabilities", takes_capabilities},
  {"raise a limit", raises_limit},
  {"go first", [] { return outcome(::setpriority(PRIO_PROCESS, 0, -20)); }},
  {"run in real time", [] {
     const sched_param first{1};
     return outcome(::sched_setscheduler(0, SCHED_FIFO, &first));
   }},
  // The kernel.
  {"load a program into the kernel", loads_bpf},
  {"watch the kernel", [] { return watches(-1); }},
  {"load a module", [] { return past_the_guard(::syscall(SYS_init_module, "", 0, "")); }},
  {"keep a key", [] { return outcome(::syscall(SYS_add_key, "user", "hostile", "x", 1, -3)); }},
  {"change a setting of the kernel", [] { return opens("/proc/sys/kernel/core_pattern", O_WRONLY); }},
  {"press a system request", [] { return opens("/proc/sysrq-trigger", O_WRONLY); }},
  {"restart the machine", [] { return outcome(::reboot(RB_DISABLE_CAD)); }},
  {"swap to a file", [] { return past_the_guard(::swapon(at("own_dir").c_str(), 0)); }},
  {"rename the machine", [] {
     char name[65] = {};
     ::gethostname(name, sizeof name - 1);
     return outcome(::sethostname(name, std::strlen(name)));
   }},
  {"set the clock", [] {
     timeval now{};
     ::gettimeofday(&now, nullptr);
     return outcome(::settimeofday(&now, nullptr));
   }},
  // The network.
  {"send raw packets", [] { return outcome(::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); }},
  {"see all packets", [] { return outcome(::socket(AF_PACKET, SOCK_RAW, htons(3))); }},
  {"change a network interface", changes_interface},
  // Another world.
  {"mount", [] { return outcome(::mount("none", at("own_dir").c_str(), "tmpfs", 0, nullptr)); }},
  {"unmount", [] { return past_the_guard(::umount2(at("own_dir").c_str(), MNT_DETACH)); }},
  {"make a file system", [] { return outcome(::syscall(SYS_fsopen, "tmpfs", 0)); }},
  {"copy a mount", [] { return outcome(::syscall(SYS_open_tree, AT_FDCWD, "/usr", 1)); }},
  {"make a user namespace", [] { return outcome(::unshare(CLONE_NEWUSER)); }},
  {"make a mount namespace", [] { return outcome(::unshare(CLONE_NEWNS)); }},
  {"be born into a user namespace", [] {
     const auto child = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
     if (child == 0)
       ::_exit(0);
     return outcome(child);
   }},
  {"leave the control group", [] {
     int why = ENOENT;
     for (const char* group : {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/devices/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"})
       if (const int now = writes(group, "0"); now == 0)
         return 0;
       else if (now != ENOENT)
         why = now;
     return why;
   }},
  {"change the root", [] { return outcome(::chroot("/usr")); }},
};

} // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--root") == 0)
    return ::geteuid() == 0 && ::getuid() != 0 ? 0 : 1;
  for (int i = 1; i < argc; ++i)
    if (const char* value = std::strchr(argv[i], '='); value != nullptr)
      given[std::string{argv[i], static_cast<std::size_t>(value - argv[i])}] = value + 1;
  for (const auto& each : attempts) {
    errno = 0;
    const int why = each.go();
    if (why == 0)
      std::printf("%s: DONE\n", each.name);
    else
      std::printf("%s: refused, %s\n", each.name, std::strerror(why));
    std::fflush(stdout);
  }
  return 0;
}
