#include "sec/device_acl.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

auto system_error(std::string what, int why = errno) {
  return fail(errc::system, fmt::format("{}: {}", what, std::strerror(why)));
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == text.npos)
      return parts;
    text.remove_prefix(end + 1);
  }
}

bool has_word(std::string_view list, std::string_view word) {
  const auto words = split(list, ',');
  return std::ranges::find(words, word) != words.end();
}

/// A path as mountinfo writes it: space, tab, newline and backslash as three octal digits (proc(5)).
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 4], value, 8).ptr == &text[i + 4]) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// Where the group `path` is below a mount of `root`; empty: not there.
std::string below(const std::string& mounted_at, std::string_view root, std::string_view path) {
  if (path.empty())
    return {};
  if (root == "/")
    return path == "/" ? mounted_at : mounted_at + std::string{path};
  if (!path.starts_with(root))
    return {};
  path.remove_prefix(root.size());
  return path.empty() || path.front() == '/' ? mounted_at + std::string{path} : std::string{};
}

/// The path of our own group in the hierarchy that has `controller`; v2: the one that has none.
std::string_view own_path(std::string_view own_groups, std::string_view controller) {
  for (const auto line : split(own_groups, '\n')) {
    const auto first = line.find(':');
    const auto second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos)
      continue;
    const auto controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : has_word(controllers, controller))
      return line.substr(second + 1);
  }
  return {};
}

// ---- v1

result<void> write_line(const std::string& path, std::string_view line) {
  const unique_fd file{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  if (!file || ::write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return system_error(fmt::format("cannot write '{}' to {}", line, path));
  return {};
}

result<void> limit_by_list(const std::string& group, const std::vector<device_rule>& rules) {
  if (auto denied = write_line(group + "/devices.deny", "a"); !denied)
    return denied;
  for (const auto& rule : rules) {
    const auto minor = rule.minor ? std::to_string(*rule.minor) : "*";
    const auto line =
      fmt::format("{} {}:{} {}", static_cast<char>(rule.what), rule.major, minor, rule.write ? "rw" : "r");
    if (auto allowed = write_line(group + "/devices.allow", line); !allowed)
      return allowed;
  }
  return {};
}

// ---- v2

long bpf(int command, bpf_attr& wish) {
  return ::syscall(SYS_bpf, command, &wish, sizeof wish);
}

// The one place that knows how a BPF instruction is laid out: linux/bpf.h has only the numbers.
bpf_insn instruction(int code, int to, int from, int jump, std::int32_t value) {
  bpf_insn out{};
  out.code = static_cast<__u8>(code);
  out.dst_reg = static_cast<__u8>(to & 15);
  out.src_reg = static_cast<__u8>(from & 15);
  out.off = static_cast<__s16>(jump);
  out.imm = value;
  return out;
}

/// A program that the kernel asks at each open: registers 2 to 5 hold type, access, major and minor; each rule that does
/// not fit jumps to the next.
std::vector<bpf_insn> program_of(const std::vector<device_rule>& rules) {
  const auto load = [](int to, std::size_t from) {
    return instruction(BPF_LDX | BPF_MEM | BPF_W, to, BPF_REG_1, static_cast<int>(from), 0);
  };
  const auto answer = [](int allowed) { return instruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, allowed); };
  const auto leave = instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  std::vector<bpf_insn> out{
    load(BPF_REG_2, offsetof(bpf_cgroup_dev_ctx, access_type)),
    instruction(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0),
    instruction(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff),
    instruction(BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16),
    load(BPF_REG_4, offsetof(bpf_cgroup_dev_ctx, major)),
    load(BPF_REG_5, offsetof(bpf_cgroup_dev_ctx, minor)),
  };
  for (const auto& rule : rules) {
    const auto type = rule.what == device_rule::kind::block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR;
    const auto forbidden = BPF_DEVCG_ACC_MKNOD | (rule.write ? 0 : BPF_DEVCG_ACC_WRITE);
    const auto length = rule.minor ? 6 : 5; // of this rule
    auto left = length;
    const auto jump_unless = [&](int kind, int which, std::uint32_t value) {
      out.push_back(instruction(BPF_JMP | kind | BPF_K, which, 0, --left, static_cast<std::int32_t>(value)));
    };
    jump_unless(BPF_JNE, BPF_REG_2, static_cast<std::uint32_t>(type));
    jump_unless(BPF_JSET, BPF_REG_3, static_cast<std::uint32_t>(forbidden));
    jump_unless(BPF_JNE, BPF_REG_4, rule.major);
    if (rule.minor)
      jump_unless(BPF_JNE, BPF_REG_5, *rule.minor);
    out.push_back(answer(1));
    out.push_back(leave);
  }
  out.push_back(answer(0));
  out.push_back(leave);
  return out;
}

result<unique_fd> load_program(const std::vector<device_rule>& rules) {
  const auto program = program_of(rules);
  bpf_attr wish{};
  wish.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  wish.insns = reinterpret_cast<std::uintptr_t>(program.data());
  wish.insn_cnt = static_cast<__u32>(program.size());
  static constexpr char license[] = "Apache-2.0"; // it calls nothing that asks for another
  wish.license = reinterpret_cast<std::uintptr_t>(license);
  unique_fd loaded{static_cast<int>(bpf(BPF_PROG_LOAD, wish))};
  if (!loaded)
    return system_error(fmt::format("the kernel takes no device filter of {} rules", rules.size()));
  return loaded;
}

/// The program that an earlier call put at the group; invalid: none.
unique_fd program_at(int group) {
  __u32 ids[8] = {};
  bpf_attr ask{};
  ask.query.target_fd = static_cast<__u32>(group);
  ask.query.attach_type = BPF_CGROUP_DEVICE;
  ask.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids);
  ask.query.prog_cnt = std::size(ids);
  if (bpf(BPF_PROG_QUERY, ask) != 0 || ask.query.prog_cnt == 0)
    return {};
  bpf_attr open{};
  open.prog_id = ids[0];
  return unique_fd{static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, open))};
}

result<void> limit_by_program(const std::string& group, const std::vector<device_rule>& rules) {
  const unique_fd dir{::open(group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!dir)
    return system_error("cannot open control group " + group);
  const auto fresh = load_program(rules);
  if (!fresh)
    return tl::make_unexpected(fresh.error());
  const auto former = program_at(dir.get());
  bpf_attr wish{};
  wish.target_fd = static_cast<__u32>(dir.get());
  wish.attach_bpf_fd = static_cast<__u32>(fresh->get());
  wish.attach_type = BPF_CGROUP_DEVICE;
  wish.attach_flags = BPF_F_ALLOW_MULTI; // those of the groups above hold as well
  if (former) {
    wish.attach_flags |= BPF_F_REPLACE;
    wish.replace_bpf_fd = static_cast<__u32>(former.get());
  }
  if (bpf(BPF_PROG_ATTACH, wish) != 0)
    return system_error("cannot put a device filter at control group " + group);
  return {};
}

void kill_all_in(const std::string& group) {
  const unique_fd file{::open((group + "/cgroup.procs").c_str(), O_RDONLY | O_CLOEXEC)};
  char text[65536];
  const auto size = file ? ::read(file.get(), text, sizeof text) : 0;
  if (size <= 0)
    return;
  for (const auto word : split({text, static_cast<std::size_t>(size)}, '\n')) {
    pid_t pid = 0;
    if (std::from_chars(word.data(), word.data() + word.size(), pid).ec == std::errc{} && pid > 1)
      ::kill(pid, SIGKILL);
  }
}

} // namespace

result<std::optional<device_rule>> device_rule_at(const std::string& path, bool readonly) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      return std::nullopt;
    return fail(errc::operation_failed, fmt::format("cannot reach '{}': {}", path, std::strerror(errno)));
  }
  if (!S_ISBLK(found.st_mode) && !S_ISCHR(found.st_mode))
    return std::nullopt;
  return device_rule{S_ISBLK(found.st_mode) ? device_rule::kind::block : device_rule::kind::character,
                     major(found.st_rdev), minor(found.st_rdev), !readonly};
}

device_groups find_device_groups(std::string_view mountinfo, std::string_view own_groups) {
  device_groups v2;
  for (const auto line : split(mountinfo, '\n')) {
    // proc(5): number parent device root mount-point options [optional...] - type source super-options
    const auto words = split(line, ' ');
    const auto dash = std::ranges::find(words, "-");
    if (words.size() < 6 || words.end() - dash < 4)
      continue;
    const auto place = unescaped(words[4]);
    if (dash[1] == "cgroup" && has_word(dash[3], "devices")) {
      if (auto dir = below(place, words[3], own_path(own_groups, "devices")); !dir.empty())
        return {device_groups::kind::v1, std::move(dir)};
    } else if (dash[1] == "cgroup2" && v2.how == device_groups::kind::none) {
      if (auto dir = below(place, words[3], own_path(own_groups, "")); !dir.empty())
        v2 = {device_groups::kind::v2, std::move(dir)};
    }
  }
  return v2;
}

result<void> make_device_group(device_groups::kind how, const std::string& path, const std::vector<device_rule>& rules) {
  const auto family = path.substr(0, path.rfind('/'));
  for (const bool again : {true, false}) {
    if (::mkdir(family.c_str(), 0755) != 0 && errno != EEXIST)
      return system_error("cannot make control group " + family);
    if (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST)
      break;
    if (errno != ENOENT || !again) // the family went with its last member just now
      return system_error("cannot make control group " + path);
  }
  auto limited = how == device_groups::kind::v1 ? limit_by_list(path, rules) : limit_by_program(path, rules);
  if (!limited)
    ::rmdir(path.c_str());
  return limited;
}

result<void> remove_device_group(const std::string& path) {
  constexpr int tries = 200;
  for (int i = 0; i < tries; ++i) {
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) {
      ::rmdir(path.substr(0, path.rfind('/')).c_str()); // stays while it has members
      return {};
    }
    if (errno != EBUSY)
      break;
    kill_all_in(path);
    ::usleep(10'000); // a process is still in its group while it dies
  }
  return system_error("cannot remove control group " + path);
}

} // namespace troupe
