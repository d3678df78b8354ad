#include "sec/file_access.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <deque>
#include <endian.h>
#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <optional>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr int max_links = 40; // as the kernel itself follows

/// Empty when there is no ACL to go by.
std::optional<bool> acl_allows(const unique_fd& file, const struct stat& info, const dac_identity& who, unsigned wanted) {
  std::array<char, 4096> value{};
  const auto size = ::getxattr(name_of(file).c_str(), "system.posix_acl_access", value.data(), value.size());
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
    const bool may = (le16toh(entry.e_perm) & wanted) == wanted;
    const auto id = le32toh(entry.e_id);
    switch (le16toh(entry.e_tag)) {
    case ACL_USER_OBJ:
      break; // the owner goes by the mode
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

} // namespace

std::string name_of(const unique_fd& fd) {
  return fmt::format("/proc/self/fd/{}", fd.get());
}

tl::expected<found_file, lost_file> walk(std::string_view path, const walk_watch& watch) {
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
  const auto failed = [&](std::string at) { return tl::make_unexpected(lost_file{errno, std::move(at), names.empty()}); };

  push_front(path);
  found_file here{.fd = root(), .info = {}, .link_owners = {}};
  std::string so_far = "/";
  if (!here.fd || ::fstat(here.fd.get(), &here.info) != 0)
    return failed(so_far);
  while (!names.empty()) {
    const auto name = std::move(names.front());
    names.pop_front();
    const auto next_path = (so_far == "/" ? so_far : so_far + "/") + name;
    if (watch.directory && S_ISDIR(here.info.st_mode))
      watch.directory(here.fd, here.info, so_far);
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
    if (watch.link)
      watch.link(here.info, info, next_path);
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

bool is_in(const dac_identity& who, gid_t group) {
  return group == who.gid || std::ranges::find(who.groups, group) != who.groups.end();
}

verdict may_access(const unique_fd& file, const struct stat& info, const dac_identity& who, unsigned wanted) {
  const auto has = [&](unsigned shift) { return (info.st_mode >> shift & wanted) == wanted; };
  if (info.st_uid == who.uid)
    return {has(6), false};
  // The group's bits are the ACL's mask; when it is empty the kernel does not look at the ACL.
  if ((info.st_mode & S_IRWXG) != 0)
    if (const auto allowed = acl_allows(file, info, who, wanted))
      return {*allowed, true};
  return {has(is_in(who, info.st_gid) ? 3 : 0), false};
}

} // namespace troupe
