#include "sec/landlock.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

// The kernel's interface in its 7th version; the headers of Debian 12 know two. Source: include/uapi/linux/landlock.h.
namespace fs_right {
enum : std::uint64_t {
  execute = 1 << 0,
  write_file = 1 << 1,
  read_file = 1 << 2,
  read_dir = 1 << 3,
  remove_dir = 1 << 4,
  remove_file = 1 << 5,
  make_char = 1 << 6,
  make_dir = 1 << 7,
  make_reg = 1 << 8,
  make_sock = 1 << 9,
  make_fifo = 1 << 10,
  make_block = 1 << 11,
  make_sym = 1 << 12,
  refer = 1 << 13,
  truncate = 1 << 14,
  ioctl_dev = 1 << 15,
};
}

constexpr std::uint64_t scope_abstract_sockets_and_signals = 3;

struct ruleset_attr {
  std::uint64_t handled_access_fs = 0;
  std::uint64_t handled_access_net = 0;
  std::uint64_t scoped = 0;
};

struct [[gnu::packed]] path_beneath_attr {
  std::uint64_t allowed_access = 0;
  std::int32_t parent_fd = -1;
};

constexpr unsigned create_ruleset_version = 1;
constexpr int rule_path_beneath = 1;

/// Every right there is in the first version that has it. What is not handled is not restricted.
struct abi_row {
  int since;
  std::uint64_t rights;
};
constexpr abi_row abi_rows[] = {
  {1, (1u << 13) - 1}, {2, fs_right::refer}, {3, fs_right::truncate}, {5, fs_right::ioctl_dev}};
constexpr int scopes_since = 6;

std::uint64_t handled_by(int abi) {
  std::uint64_t rights = 0;
  for (const auto& row : abi_rows)
    if (abi >= row.since)
      rights |= row.rights;
  return rights;
}

/// Nobody makes device nodes.
struct letter_row {
  char letter;
  std::uint64_t rights;
};
constexpr letter_row letters[] = {
  // A disk that is only read is asked for its size by an ioctl.
  {'r', fs_right::read_file | fs_right::read_dir | fs_right::ioctl_dev},
  {'w', fs_right::write_file | fs_right::truncate | fs_right::ioctl_dev},
  {'x', fs_right::execute},
  {'m', fs_right::make_dir | fs_right::make_reg | fs_right::make_sock | fs_right::make_fifo | fs_right::make_sym |
          fs_right::remove_dir | fs_right::remove_file | fs_right::refer},
};
constexpr std::uint64_t rights_of_files =
  fs_right::execute | fs_right::write_file | fs_right::read_file | fs_right::truncate | fs_right::ioctl_dev;

result<std::uint64_t> rights_of(const landlock_rule& rule) {
  std::uint64_t rights = 0;
  for (const char letter : rule.access) {
    std::uint64_t more = 0;
    for (const auto& row : letters)
      if (row.letter == letter)
        more = row.rights;
    if (more == 0)
      return fail(errc::bad_argument,
                  fmt::format("access '{}' to '{}' is not of the letters r, w, x and m", rule.access, rule.path));
    rights |= more;
  }
  return rights;
}

/// What every QEMU opens: its program and libraries, what these are configured by, what tells of the machine.
constexpr std::pair<const char*, const char*> own_paths[] = {
  {"/usr", "rx"},
  {"/bin", "rx"},
  {"/sbin", "rx"},
  {"/lib", "rx"},
  {"/lib32", "rx"},
  {"/lib64", "rx"},
  {"/libx32", "rx"},
  {"/proc", "r"},
  {"/sys", "r"},
  // /etc holds secrets, too: only these.
  {"/etc/alternatives", "r"},
  {"/etc/asound.conf", "r"},
  {"/etc/ceph", "r"},
  {"/etc/crypto-policies", "r"},
  {"/etc/drirc", "r"},
  {"/etc/gai.conf", "r"},
  {"/etc/gnutls", "r"},
  {"/etc/group", "r"},
  {"/etc/host.conf", "r"},
  {"/etc/hosts", "r"},
  {"/etc/ld.so.cache", "r"},
  {"/etc/ld.so.conf", "r"},
  {"/etc/ld.so.conf.d", "r"},
  {"/etc/ld.so.preload", "r"},
  {"/etc/localtime", "r"},
  {"/etc/nsswitch.conf", "r"},
  {"/etc/passwd", "r"},
  {"/etc/pki", "r"},
  {"/etc/pulse", "r"},
  {"/etc/qemu", "r"},
  {"/etc/resolv.conf", "r"},
  {"/etc/sasl2", "r"},
  {"/etc/services", "r"},
  {"/etc/ssl", "r"},
  {"/etc/vulkan", "r"},
  {"/run/udev", "r"},
  {"/dev/null", "rw"},
  {"/dev/full", "rw"},
  {"/dev/zero", "rw"},
  {"/dev/random", "rw"},
  {"/dev/urandom", "rw"},
  {"/dev/ptmx", "rw"},
  {"/dev/kvm", "rw"},
  // Nodes that may be plugged in later: their owner and the control group's list say who gets which.
  {"/dev/bus/usb", "rw"},
  {"/dev/vfio", "rw"},
  {"/dev/pts", "rw"},
  {"/dev/dri", "rw"},
  {"/dev/snd", "rw"},
  {"/dev/net/tun", "rw"},
  {"/dev/vhost-net", "rw"},
  {"/dev/vhost-vsock", "rw"},
  {"/dev/sev", "rw"},
  {"/dev/udmabuf", "rw"},
};

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == path.npos || slash == 0 ? "/" : path.substr(0, slash);
}

/// The absolute paths in a word such as "driver=qcow2,file=/a/b", "/a/b" or {"filename": "/a/b"}.
void add_paths_in(const std::string& word, std::vector<std::string>& paths) {
  constexpr std::string_view before = "=:\"' [";
  constexpr std::string_view after = ",\"']";
  for (std::size_t at = 0; (at = word.find('/', at)) != word.npos;) {
    if (at > 0 && before.find(word[at - 1]) == before.npos) {
      ++at;
      continue;
    }
    const auto end = std::min(word.find_first_of(after, at), word.size());
    paths.push_back(word.substr(at, end - at));
    at = end;
  }
}

} // namespace

int landlock_abi() {
  const auto abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, create_ruleset_version);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

result<unique_fd> make_landlock(const std::vector<landlock_rule>& rules) {
  const int abi = landlock_abi();
  if (abi == 0)
    return fail(errc::unsupported_operation, fmt::format("this kernel has no Landlock: {}", std::strerror(errno)));
  ruleset_attr attr;
  attr.handled_access_fs = handled_by(abi);
  attr.scoped = abi >= scopes_since ? scope_abstract_sockets_and_signals : 0;
  unique_fd ruleset{static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0))};
  if (!ruleset)
    return fail(errc::operation_failed, fmt::format("cannot make a Landlock ruleset: {}", std::strerror(errno)));
  for (const auto& rule : rules) {
    const auto rights = rights_of(rule);
    if (!rights)
      return tl::make_unexpected(rights.error());
    if (!rule.path.starts_with('/'))
      return fail(errc::bad_argument, fmt::format("'{}' is not an absolute path", rule.path));
    const unique_fd there{::open(rule.path.c_str(), O_PATH | O_CLOEXEC)};
    struct stat info {};
    // What we cannot reach ourselves, the program cannot either.
    if (!there && (errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP))
      continue;
    if (!there || ::fstat(there.get(), &info) != 0)
      return fail(errc::operation_failed, fmt::format("cannot open '{}': {}", rule.path, std::strerror(errno)));
    path_beneath_attr beneath;
    beneath.allowed_access = *rights & attr.handled_access_fs & (S_ISDIR(info.st_mode) ? ~std::uint64_t{0} : rights_of_files);
    beneath.parent_fd = there.get();
    if (beneath.allowed_access != 0 &&
        ::syscall(SYS_landlock_add_rule, ruleset.get(), rule_path_beneath, &beneath, 0) != 0)
      return fail(errc::operation_failed,
                  fmt::format("cannot allow '{}' of '{}': {}", rule.access, rule.path, std::strerror(errno)));
  }
  return ruleset;
}

result<void> enter_landlock(const unique_fd& rules) {
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0)
    return fail(errc::operation_failed, fmt::format("cannot enter Landlock: {}", std::strerror(errno)));
  return {};
}

std::vector<landlock_rule> landlock_rules(const landlock_needs& needs) {
  std::vector<landlock_rule> rules;
  for (const auto& [path, access] : own_paths)
    rules.push_back({path, access});
  rules.push_back({needs.emulator, "rx"});
  // One that was installed elsewhere has its libraries and firmware beside it.
  const auto prefix = directory_of(directory_of(needs.emulator));
  for (const auto* part : {"lib", "lib64", "libexec", "share"})
    rules.push_back({(prefix == "/" ? "" : prefix) + "/" + part, "rx"});
  rules.push_back({needs.run_dir, "rwm"});
  for (const auto& each : needs.resources) {
    if (!each.path.starts_with('/')) // a device of the host by its address: its nodes are in the directories above
      continue;
    const auto* access = each.readonly ? "r" : each.what == resource::kind::directory ? "rwm" : "rw";
    rules.push_back({each.path, access});
  }
  const auto add_made = [&](const std::vector<std::string>& paths) {
    for (const auto& path : paths) {
      if (std::ranges::find(needs.resources, path, &resource::path) != needs.resources.end())
        continue;
      rules.push_back({path, "rwm"}); // it may be there from the last time
      rules.push_back({directory_of(path), "m"});
    }
  };
  add_made(needs.makes);
  std::vector<std::string> named;
  for (const auto& word : needs.words)
    add_paths_in(word, named);
  add_made(named);
  return rules;
}

} // namespace troupe
