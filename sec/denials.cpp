#include "sec/denials.hpp"

#include "sec/file_access.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace troupe {
namespace {

using inode = std::pair<dev_t, ino_t>;

/// The kernel's guard against links that lie in /tmp and the like. Source: Documentation/admin-guide/sysctl/fs.rst.
bool guards_links() {
  const unique_fd file{::open("/proc/sys/fs/protected_symlinks", O_RDONLY | O_CLOEXEC)};
  char first = '0';
  return file && ::read(file.get(), &first, 1) == 1 && first != '0';
}

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == path.npos || slash == 0 ? "/" : path.substr(0, slash);
}

/// Where the descriptor's file is, without a symbolic link. Empty: the kernel does not tell.
std::string real_path(const unique_fd& fd) {
  std::array<char, PATH_MAX> real{};
  const auto length = ::readlink(name_of(fd).c_str(), real.data(), real.size());
  return length < 0 ? std::string{} : std::string{real.data(), static_cast<std::size_t>(length)};
}

class foresight {
public:
  foresight(const foreseen_guest& guest, const foreseen_use& use) : guest_{guest}, use_{use} {}

  std::vector<denial> look() {
    walk_watch watch;
    watch.directory = [this](const unique_fd& dir, const struct stat& info, const std::string& path) {
      permit(dir, info, path, permission::execute, "search");
    };
    watch.link = [this](const struct stat& dir, const struct stat& link, const std::string& path) { pass(dir, link, path); };
    // What is made is not looked for: its directory counts.
    const auto there = walk(use_.make ? directory_of(use_.path) : use_.path, watch);
    if (there)
      arrive(*there);
    else if (all_.empty() || there.error().number != EACCES) // which then was told already
      miss(there.error());
    return std::move(all_);
  }

private:
  void tell(std::string path, const char* layer, const char* denied, std::string why, std::string remedy) {
    all_.push_back({std::move(path), layer, denied, std::move(why), std::move(remedy)});
  }

  /// Owner, mode and ACL.
  void permit(const unique_fd& file, const struct stat& info, const std::string& path, unsigned wanted, const char* word) {
    const auto& who = guest_.who;
    const auto said = may_access(file, info, who, wanted);
    if (said.allowed)
      return;
    std::string letters;
    for (const auto& [bit, letter] : {std::pair{permission::read, 'r'}, {permission::write, 'w'}, {permission::execute, 'x'}})
      if ((wanted & bit) != 0)
        letters += letter;
    // The owner goes by the mode alone; and where there is an ACL, the mode's group bits are its mask.
    const auto acl = fmt::format("setfacl -m u:{}:{} '{}'", who.uid, letters, path);
    const auto mode = fmt::format("chmod {}+{} '{}'", info.st_uid == who.uid ? 'u' : is_in(who, info.st_gid) ? 'g' : 'o', letters, path);
    tell(path, said.by_acl ? "acl" : "dac", word,
         fmt::format("user {} may not {} {}'{}' of {}:{}, mode {:o}{}", who.uid, use_.make && word[0] == 'm' ? "make files in" : word,
                     S_ISDIR(info.st_mode) ? "the directory " : "", path, info.st_uid, info.st_gid, info.st_mode & 07777u,
                     said.by_acl ? ", by its ACL" : ""),
         said.by_acl ? acl : info.st_uid == who.uid ? mode : acl + ", or " + mode);
  }

  /// A symbolic link that the kernel guards: one in a sticky directory for all, of somebody else than follows it.
  void pass(const struct stat& dir, const struct stat& link, const std::string& path) {
    constexpr mode_t open_to_all = S_ISVTX | S_IWOTH;
    if ((dir.st_mode & open_to_all) == open_to_all && link.st_uid != guest_.who.uid && link.st_uid != dir.st_uid && guards_links())
      tell(path, "dac", "follow",
           fmt::format("user {} may not follow the symbolic link '{}' of user {} in a directory for all", guest_.who.uid, path,
                       link.st_uid),
           "name the file by its own path");
    link_owners_.push_back(link.st_uid);
  }

  void miss(const lost_file& lost) {
    if (lost.number == ENOENT || lost.number == ENOTDIR)
      return tell(lost.at, "file", "find", fmt::format("'{}' is not there", lost.at), "make it, or name another in the definition");
    tell(lost.at, "file", "find", fmt::format("'{}' cannot be reached: {}", lost.at, std::strerror(lost.number)),
         "see that the daemon can reach it: a server may keep root out");
  }

  void arrive(const found_file& file) {
    auto info = file.info;
    struct statvfs fs {};
    const bool known = ::fstatvfs(file.fd.get(), &fs) == 0;
    const bool readonly = known && (fs.f_flag & ST_RDONLY) != 0;
    const bool node = S_ISBLK(info.st_mode) || S_ISCHR(info.st_mode);
    const auto& path = use_.make ? directory_of(use_.path) : use_.path;
    if (use_.given && !readonly && !use_.make) {
      if (info.st_uid != guest_.who.uid && std::ranges::any_of(link_owners_, [&](uid_t owner) { return owner != 0 && owner != info.st_uid; }))
        tell(path, "dac", "take", fmt::format("'{}' belongs to user {} but is named by somebody else's symbolic link", path, info.st_uid),
             "name the file by its own path");
      info.st_uid = guest_.who.uid;
      info.st_gid = guest_.who.gid;
    }
    // Sockets, devices and pipes may be written to on a file system that may not.
    const bool stored = S_ISREG(info.st_mode) || S_ISDIR(info.st_mode);
    if ((use_.write || use_.make) && readonly && stored)
      tell(path, "mount", use_.make ? "make" : "write", fmt::format("'{}' is on a file system that is mounted read-only", path),
           use_.make ? "remount it read-write" : "remount it read-write, or mark the device <readonly/>");
    if (node && known && (fs.f_flag & ST_NODEV) != 0)
      tell(path, "mount", "read", fmt::format("the device '{}' is on a file system that is mounted nodev", path), "remount it with dev");
    if (use_.execute && S_ISREG(info.st_mode) && known && (fs.f_flag & ST_NOEXEC) != 0)
      tell(path, "mount", "execute", fmt::format("'{}' is on a file system that is mounted noexec", path), "remount it with exec");
    if (use_.make) {
      permit(file.fd, info, path, permission::write | permission::execute, "make");
    } else {
      if (use_.read)
        permit(file.fd, info, path, permission::read, "read");
      if (use_.write)
        permit(file.fd, info, path, permission::write, "write");
      if (use_.execute)
        permit(file.fd, info, path, permission::execute, S_ISDIR(info.st_mode) ? "search" : "execute");
    }
    if (node)
      look_at_devices(info, path);
    if (!guest_.landlock.empty())
      look_at_landlock(file, info, path);
  }

  void look_at_devices(const struct stat& info, const std::string& path) {
    if (!guest_.devices)
      return;
    const auto kind = S_ISBLK(info.st_mode) ? device_rule::kind::block : device_rule::kind::character;
    const auto allows = [&](bool write) {
      return std::ranges::any_of(*guest_.devices, [&](const device_rule& rule) {
        return rule.what == kind && rule.major == major(info.st_rdev) && (!rule.minor || *rule.minor == minor(info.st_rdev)) &&
               (rule.write || !write);
      });
    };
    for (const bool write : {false, true})
      if ((write ? use_.write : use_.read) && !allows(write))
        tell(path, "cgroup", write ? "write" : "read",
             fmt::format("the guest's control group does not let it {} device {} {}:{}, '{}'", write ? "write" : "read",
                         static_cast<char>(kind), major(info.st_rdev), minor(info.st_rdev), path),
             fmt::format("add \"{}\" to cgroup_device_acl in qemu.conf", path));
  }

  void look_at_landlock(const found_file& file, const struct stat& info, const std::string& path) {
    std::map<inode, std::string> rules;
    for (const auto& rule : guest_.landlock)
      if (const unique_fd there{::open(rule.path.c_str(), O_PATH | O_CLOEXEC)}; there)
        if (struct stat its {}; ::fstat(there.get(), &its) == 0)
          rules[{its.st_dev, its.st_ino}] += rule.access;
    // From the file up to the root, over the edges of mounts: what any of them has is allowed.
    std::string allowed = rules[{info.st_dev, info.st_ino}];
    unique_fd dir{::open(S_ISDIR(info.st_mode) ? name_of(file.fd).c_str() : directory_of(real_path(file.fd)).c_str(),
                         O_PATH | O_DIRECTORY | O_CLOEXEC)};
    inode last{};
    for (struct stat its {}; dir && ::fstat(dir.get(), &its) == 0 && inode{its.st_dev, its.st_ino} != last;
         dir = unique_fd{::openat(dir.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC)}) {
      last = {its.st_dev, its.st_ino};
      allowed += rules[last];
    }
    const std::tuple<bool, char, const char*> wishes[] = {{use_.read && !use_.make, 'r', "read"},
                                                          {use_.write && !use_.make, 'w', "write"},
                                                          {use_.execute && S_ISREG(info.st_mode), 'x', "execute"},
                                                          {use_.make, 'm', "make"}};
    for (const auto& [wished, letter, word] : wishes)
      // Landlock mediates opening, and a socket is not opened.
      if (wished && !S_ISSOCK(info.st_mode) && allowed.find(letter) == allowed.npos)
        tell(path, "landlock", word, fmt::format("Landlock does not let the guest {} '{}'", use_.make ? "make files in" : word, path),
             "name it in the definition, or set landlock = 0 in qemu.conf");
  }

  const foreseen_guest& guest_;
  const foreseen_use& use_;
  std::vector<uid_t> link_owners_;
  std::vector<denial> all_;
};

} // namespace

result<std::vector<denial>> foresee_denials(const foreseen_guest& guest, const foreseen_use& use) {
  if (auto absolute = must_be_absolute(use.path); !absolute)
    return tl::make_unexpected(std::move(absolute.error()));
  return foresight{guest, use}.look();
}

} // namespace troupe
