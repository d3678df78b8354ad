#include "sec/dac.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <deque>
#include <endian.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <optional>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr int max_links = 40; // as the kernel itself follows

std::string reason(int number) {
  return std::strerror(number);
}

/// The name by which the kernel lets us at the inode of an O_PATH descriptor.
std::string name_of(const unique_fd& fd) {
  return fmt::format("/proc/self/fd/{}", fd.get());
}

struct found {
  unique_fd fd; ///< O_PATH
  struct stat info {};
  std::vector<uid_t> link_owners; ///< Of the symbolic links on the way.
};

struct lost {
  int number = 0;
  std::string at;    ///< The component that could not be opened.
  bool last = false; ///< Nothing was to come after it.
};

/// Walks to `path` from the root, following symbolic links by hand: what is looked at is what is opened.
/// `search` is told of each directory before anything in it is opened.
template <class Search>
tl::expected<found, lost> walk(std::string_view path, Search search) {
  std::deque<std::string> names;
  const auto push_front = [&](std::string_view text) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < text.size();) {
      const auto end = std::min(text.find('/', at), text.size());
      if (end > at)
        parts.emplace_back(text.substr(at, end - at));
      at = end + 1;
    }
    names.insert(names.begin(), parts.begin(), parts.end());
  };
  const auto root = [] { return unique_fd{::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)}; };
  const auto failed = [&](std::string at) { return tl::make_unexpected(lost{errno, std::move(at), names.empty()}); };

  push_front(path);
  found here{.fd = root(), .info = {}, .link_owners = {}};
  std::string so_far = "/";
  if (!here.fd || ::fstat(here.fd.get(), &here.info) != 0)
    return failed(so_far);
  while (!names.empty()) {
    const auto name = std::move(names.front());
    names.pop_front();
    const auto next_path = (so_far == "/" ? so_far : so_far + "/") + name;
    if (S_ISDIR(here.info.st_mode))
      search(here.fd, here.info, so_far);
    // Asking for a directory first makes an automounter mount what belongs there.
    unique_fd next{::openat(here.fd.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC | O_DIRECTORY)};
    if (!next && errno == ENOTDIR)
      next = unique_fd{::openat(here.fd.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    struct stat info {};
    if (!next || ::fstat(next.get(), &info) != 0)
      return failed(next_path);
    if (!S_ISLNK(info.st_mode)) {
      here.fd = std::move(next);
      here.info = info;
      so_far = next_path;
      continue;
    }
    here.link_owners.push_back(info.st_uid);
    std::array<char, PATH_MAX> target{};
    const auto length = ::readlinkat(next.get(), "", target.data(), target.size());
    if (here.link_owners.size() > max_links)
      errno = ELOOP;
    if (length < 0 || here.link_owners.size() > max_links)
      return failed(next_path);
    const std::string_view text{target.data(), static_cast<std::size_t>(length)};
    push_front(text);
    if (text.starts_with('/')) {
      here.fd = root();
      so_far = "/";
      if (!here.fd || ::fstat(here.fd.get(), &here.info) != 0)
        return failed(so_far);
    }
  }
  return here;
}

result<void> must_be_absolute(std::string_view path) {
  if (path.starts_with('/') && path.find('\0') == path.npos && path.size() < PATH_MAX)
    return {};
  return fail(errc::bad_argument, fmt::format("'{}' is not an absolute path", path));
}

/// The recorded file as an O_PATH descriptor; empty when the path leads elsewhere or nowhere now.
result<std::optional<found>> find_again(const owner_record& was) {
  auto now = walk(was.path, [](auto&&...) {});
  if (!now) {
    if (now.error().number == ENOENT || now.error().number == ENOTDIR || now.error().number == ELOOP)
      return std::nullopt;
    return fail(errc::operation_failed,
                fmt::format("cannot reach '{}' of '{}': {}", now.error().at, was.path, reason(now.error().number)));
  }
  if (!now->link_owners.empty() || now->info.st_dev != was.device || now->info.st_ino != was.inode)
    return std::nullopt;
  return std::optional{std::move(*now)};
}

/// Whether a file system refuses owners rather than us.
bool has_no_owners(int number) {
  return number == EPERM || number == EROFS || number == EOPNOTSUPP || number == ENOSYS;
}

bool is_in(const dac_identity& who, gid_t group) {
  return group == who.gid || std::ranges::find(who.groups, group) != who.groups.end();
}

/// acl(5), "access check algorithm", for search permission. Empty when there is no ACL to go by.
std::optional<bool> acl_allows(const unique_fd& dir, const struct stat& info, const dac_identity& who) {
  std::array<char, 4096> value{};
  const auto size = ::getxattr(name_of(dir).c_str(), "system.posix_acl_access", value.data(), value.size());
  posix_acl_xattr_header header{};
  if (size < static_cast<ssize_t>(sizeof header))
    return std::nullopt;
  std::memcpy(&header, value.data(), sizeof header);
  if (le32toh(header.a_version) != POSIX_ACL_XATTR_VERSION)
    return std::nullopt;

  std::optional<bool> user;
  bool group_named = false;
  bool group_allows = false;
  bool mask = true;
  bool other = false;
  for (auto at = sizeof header; at + sizeof(posix_acl_xattr_entry) <= static_cast<std::size_t>(size);
       at += sizeof(posix_acl_xattr_entry)) {
    posix_acl_xattr_entry entry{};
    std::memcpy(&entry, value.data() + at, sizeof entry);
    const bool may = (le16toh(entry.e_perm) & ACL_EXECUTE) != 0;
    const auto id = le32toh(entry.e_id);
    switch (le16toh(entry.e_tag)) {
    case ACL_USER_OBJ:
      if (info.st_uid == who.uid)
        return may; // the mask does not apply to the owner
      break;
    case ACL_USER:
      if (id == who.uid)
        user = may;
      break;
    case ACL_GROUP_OBJ:
    case ACL_GROUP:
      if (is_in(who, le16toh(entry.e_tag) == ACL_GROUP_OBJ ? info.st_gid : id)) {
        group_named = true;
        group_allows |= may;
      }
      break;
    case ACL_MASK:
      mask = may;
      break;
    case ACL_OTHER:
      other = may;
      break;
    default:
      return std::nullopt;
    }
  }
  if (user)
    return *user && mask;
  return group_named ? group_allows && mask : other;
}

bool may_search(const unique_fd& dir, const struct stat& info, const dac_identity& who) {
  if (const auto allowed = acl_allows(dir, info, who))
    return *allowed;
  if (info.st_uid == who.uid)
    return (info.st_mode & S_IXUSR) != 0;
  if (is_in(who, info.st_gid))
    return (info.st_mode & S_IXGRP) != 0;
  return (info.st_mode & S_IXOTH) != 0;
}

struct user_entry {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name;
};

/// A row of the user database, by the getpw…_r or getgr…_r function given; empty when there is none.
template <class Row, class Key, class Found>
result<std::optional<Found>> look_up(int (*get)(Key, Row*, char*, std::size_t, Row**), Key key,
                                     Found (*read)(const Row&), std::string_view what) {
  constexpr std::size_t most = 1 << 20;
  for (std::vector<char> buffer(4096);; buffer.resize(buffer.size() * 4)) {
    Row row{};
    Row* hit = nullptr;
    const int number = get(key, &row, buffer.data(), buffer.size(), &hit);
    if (hit != nullptr)
      return std::optional{read(*hit)};
    if (number == ERANGE && buffer.size() < most)
      continue;
    // Name services answer "none such" in several ways; see getpwnam(3).
    if (number == 0 || number == ENOENT || number == ESRCH || number == EBADF || number == EPERM)
      return std::nullopt;
    return fail(errc::system, fmt::format("cannot look up {}: {}", what, reason(number)));
  }
}

user_entry read_user(const passwd& row) {
  return {row.pw_uid, row.pw_gid, row.pw_name};
}

gid_t read_group(const group& row) {
  return row.gr_gid;
}

/// An id that is not -1, which chown and setuid take for "unchanged".
std::optional<std::uint32_t> id_from(std::string_view text) {
  std::uint32_t id = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (text.empty() || ec != std::errc{} || end != text.data() + text.size() || id == UINT32_MAX)
    return std::nullopt;
  return id;
}

struct found_user {
  uid_t uid = 0;
  std::optional<user_entry> entry; ///< Its row, when it has one.
};

result<found_user> find_user(const std::string& text) {
  const auto what = fmt::format("user '{}'", text);
  if (!text.starts_with('+')) {
    auto named = look_up(::getpwnam_r, text.c_str(), read_user, what);
    if (!named)
      return tl::make_unexpected(std::move(named.error()));
    if (*named)
      return found_user{(*named)->uid, std::move(*named)};
  }
  const auto id = id_from(std::string_view{text}.substr(text.starts_with('+') ? 1 : 0));
  if (!id)
    return fail(
      errc::bad_argument,
      fmt::format("there is no user '{}': name one that `getent passwd` lists, or give its number as +NUMBER", text));
  auto numbered = look_up(::getpwuid_r, uid_t{*id}, read_user, what);
  if (!numbered)
    return tl::make_unexpected(std::move(numbered.error()));
  return found_user{*id, std::move(*numbered)};
}

result<gid_t> find_group(const std::string& text) {
  if (!text.starts_with('+')) {
    auto named = look_up(::getgrnam_r, text.c_str(), read_group, fmt::format("group '{}'", text));
    if (!named)
      return tl::make_unexpected(std::move(named.error()));
    if (*named)
      return **named;
  }
  const auto id = id_from(std::string_view{text}.substr(text.starts_with('+') ? 1 : 0));
  if (!id)
    return fail(
      errc::bad_argument,
      fmt::format("there is no group '{}': name one that `getent group` lists, or give its number as +NUMBER", text));
  return *id;
}

} // namespace

result<dac_identity> resolve_identity(std::string_view user, std::string_view group) {
  auto who = find_user(std::string{user});
  if (!who)
    return tl::make_unexpected(std::move(who.error()));
  dac_identity identity{.uid = who->uid, .gid = 0, .groups = {}};
  if (!group.empty()) {
    const auto gid = find_group(std::string{group});
    if (!gid)
      return tl::make_unexpected(gid.error());
    identity.gid = *gid;
  } else if (who->entry) {
    identity.gid = who->entry->gid;
  } else {
    return fail(errc::bad_argument, fmt::format("user '{}' is in no user database: name its group too", user));
  }
  auto& groups = identity.groups;
  if (who->entry) {
    int count = 64;
    groups.resize(static_cast<std::size_t>(count));
    if (::getgrouplist(who->entry->name.c_str(), who->entry->gid, groups.data(), &count) < 0) {
      groups.resize(static_cast<std::size_t>(count)); // now it says how many there are
      if (::getgrouplist(who->entry->name.c_str(), who->entry->gid, groups.data(), &count) < 0)
        return fail(errc::system, fmt::format("cannot list the groups of user '{}'", user));
    }
    groups.resize(static_cast<std::size_t>(count));
  }
  groups.push_back(identity.gid);
  std::ranges::sort(groups);
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  return identity;
}

result<owner_record> observe(const std::string& path) {
  if (auto absolute = must_be_absolute(path); !absolute)
    return tl::make_unexpected(std::move(absolute.error()));
  const auto here = walk(path, [](auto&&...) {});
  if (!here)
    return fail(errc::operation_failed, fmt::format("cannot reach '{}'{}: {}", path,
                                                    here.error().at == path ? "" : " at '" + here.error().at + "'",
                                                    reason(here.error().number)));
  std::array<char, PATH_MAX> real{};
  const auto length = ::readlink(name_of(here->fd).c_str(), real.data(), real.size());
  if (length < 0)
    return fail(errc::operation_failed, fmt::format("cannot tell where '{}' leads: {}", path, reason(errno)));
  const auto& info = here->info;
  return owner_record{
    .path = {real.data(), static_cast<std::size_t>(length)},
    .device = info.st_dev,
    .inode = info.st_ino,
    .uid = info.st_uid,
    .gid = info.st_gid,
    .mode = info.st_mode,
    .foreign_link =
      std::ranges::any_of(here->link_owners, [&](uid_t owner) { return owner != 0 && owner != info.st_uid; }),
  };
}

result<void> take(const owner_record& was, uid_t uid, gid_t gid) {
  const auto now = find_again(was);
  if (!now)
    return tl::make_unexpected(now.error());
  if (!*now)
    return fail(errc::operation_failed, fmt::format("'{}' was replaced a moment ago: try again", was.path));
  const auto& [fd, info, links] = **now;
  if (info.st_uid == uid && info.st_gid == gid)
    return {};
  if (was.foreign_link && info.st_uid != uid)
    return fail(
      errc::operation_failed,
      fmt::format("'{}' belongs to user {} but was named by somebody else's symbolic link: name it by this path",
                  was.path, info.st_uid));
  if (::fchownat(fd.get(), "", uid, gid, AT_EMPTY_PATH) == 0 || has_no_owners(errno))
    return {};
  return fail(errc::operation_failed,
              fmt::format("cannot make '{}' belong to {}:{}: {}", was.path, uid, gid, reason(errno)));
}

result<void> give_back(const owner_record& was, uid_t taken_uid, gid_t taken_gid) {
  const auto now = find_again(was);
  if (!now)
    return tl::make_unexpected(now.error());
  if (!*now)
    return {};
  const auto& [fd, info, links] = **now;
  if (info.st_uid != taken_uid || info.st_gid != taken_gid || (info.st_uid == was.uid && info.st_gid == was.gid))
    return {};
  if (::fchownat(fd.get(), "", was.uid, was.gid, AT_EMPTY_PATH) == 0)
    return {};
  return fail(errc::operation_failed,
              fmt::format("cannot give '{}' back to {}:{}: {}", was.path, was.uid, was.gid, reason(errno)));
}

result<void> check_search(const std::string& path, const dac_identity& who) {
  if (auto absolute = must_be_absolute(path); !absolute)
    return absolute;
  std::optional<std::string> barred;
  const auto there = walk(path, [&](const unique_fd& dir, const struct stat& info, const std::string& name) {
    if (!barred && !may_search(dir, info, who))
      barred = name;
  });
  if (barred)
    return fail(errc::operation_failed,
                fmt::format("user {0} may not search the directory '{1}' on the way to '{2}': allow "
                            "it with `chmod o+x {1}` or `setfacl -m u:{0}:x {1}`",
                            who.uid, *barred, path));
  if (!there && !(there.error().number == ENOENT && there.error().last))
    return fail(errc::operation_failed, fmt::format("cannot reach '{}' on the way to '{}': {}", there.error().at, path,
                                                    reason(there.error().number)));
  return {};
}

} // namespace troupe
