#include "sec/call_filter.hpp"

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

namespace troupe {
namespace {

/// The calls of this program's kind; those of another kind, such as 32-bit ones, are refused whole.
#if defined(__x86_64__)
constexpr std::uint32_t own_arch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t own_arch = AUDIT_ARCH_AARCH64;
#elif defined(__powerpc64__)
constexpr std::uint32_t own_arch = std::endian::native == std::endian::little ? AUDIT_ARCH_PPC64LE : AUDIT_ARCH_PPC64;
#elif defined(__s390x__)
constexpr std::uint32_t own_arch = AUDIT_ARCH_S390X;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr std::uint32_t own_arch = AUDIT_ARCH_RISCV64;
#else
constexpr std::uint32_t own_arch = 0;
#endif
constexpr std::uint32_t x32_calls = 0x40000000;
#if defined(__s390x__)
constexpr unsigned clone_flags = 1; // its arguments are the other way round there
#else
constexpr unsigned clone_flags = 0;
#endif

constexpr std::uint32_t new_namespaces =
  CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS;

constexpr long refused_calls[] = {
  SYS_unshare,          SYS_setns,           SYS_chroot,        SYS_mount,
  SYS_umount2,          SYS_pivot_root,      SYS_open_tree,     SYS_move_mount,
  SYS_fsopen,           SYS_fsconfig,        SYS_fsmount,       SYS_fspick,
  SYS_mount_setattr,    SYS_add_key,         SYS_request_key,   SYS_keyctl,
  SYS_bpf,              SYS_perf_event_open, SYS_ptrace,        SYS_process_vm_readv,
  SYS_process_vm_writev, SYS_pidfd_getfd,    SYS_pidfd_send_signal, SYS_kcmp,
  SYS_tkill,
};

/// Calls whose first argument has to be this process; `or_zero`: 0 stands for it.
struct own_call {
  long number;
  bool or_zero;
};
constexpr own_call own_calls[] = {
  {SYS_kill, false}, {SYS_tgkill, false}, {SYS_rt_sigqueueinfo, false}, {SYS_rt_tgsigqueueinfo, false}, {SYS_prlimit64, true}};

constexpr std::uint32_t argument(unsigned index) {
  constexpr std::uint32_t low_half = std::endian::native == std::endian::little ? 0 : 4;
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args)) + index * 8 + low_half;
}

/// Put together from front to back; every jump is over the instructions that follow it.
class program {
public:
  void load(std::uint32_t offset) { add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void unless_equal(std::uint32_t value, std::uint8_t skip) { add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip); }
  void if_equal(std::uint32_t value, std::uint8_t skip) { add(BPF_JMP | BPF_JEQ | BPF_K, value, skip, 0); }
  void unless_any(std::uint32_t bits, std::uint8_t skip) { add(BPF_JMP | BPF_JSET | BPF_K, bits, 0, skip); }
  void give(std::uint32_t verdict) { add(BPF_RET | BPF_K, verdict); }
  void refuse(int number = EPERM) { give(SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(number)); }
  void reload() { load(offsetof(seccomp_data, nr)); }

  sock_fprog get() { return {static_cast<unsigned short>(all_.size()), all_.data()}; }

private:
  void add(unsigned code, std::uint32_t value, std::uint8_t when = 0, std::uint8_t otherwise = 0) {
    all_.push_back({static_cast<std::uint16_t>(code), when, otherwise, value});
  }
  std::vector<sock_filter> all_;
};

} // namespace

result<void> enter_call_filter() {
  if (own_arch == 0)
    return fail(errc::unsupported_operation, "system calls are not known on this kind of CPU: set seccomp_sandbox = 0 in qemu.conf");
  program filter;
  filter.load(offsetof(seccomp_data, arch));
  filter.if_equal(own_arch, 1);
  filter.refuse();
  filter.reload();
#if defined(__x86_64__)
  filter.unless_any(x32_calls, 1);
  filter.refuse();
#endif
  for (const auto number : refused_calls) {
    filter.unless_equal(static_cast<std::uint32_t>(number), 1);
    filter.refuse();
  }
  // Its flags are in memory, where no filter looks: libraries do with clone when it is not there.
  filter.unless_equal(SYS_clone3, 1);
  filter.refuse(ENOSYS);
  filter.unless_equal(SYS_clone, 4);
  filter.load(argument(clone_flags));
  filter.unless_any(new_namespaces, 1);
  filter.refuse();
  filter.give(SECCOMP_RET_ALLOW);
  const auto self = static_cast<std::uint32_t>(::getpid());
  for (const auto& call : own_calls) {
    filter.unless_equal(static_cast<std::uint32_t>(call.number), call.or_zero ? 5 : 4);
    filter.load(argument(0));
    if (call.or_zero)
      filter.if_equal(0, 2);
    filter.if_equal(self, 1);
    filter.refuse();
    filter.give(SECCOMP_RET_ALLOW);
  }
  filter.give(SECCOMP_RET_ALLOW);
  auto all = filter.get();
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all, 0, 0) != 0)
    return fail(errc::operation_failed, fmt::format("cannot filter system calls: {}", std::strerror(errno)));
  return {};
}

} // namespace troupe
