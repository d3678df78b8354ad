#include "sec/dac.hpp"

#include "sec/file_access.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <grp.h>
#include <optional>
#include <pwd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

std::string reason(int number) {
  return std::strerror(number);
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

result<void> check_search(const std::string& path, const dac_identity& who) {
  if (auto absolute = must_be_absolute(path); !absolute)
    return absolute;
  std::optional<std::string> barred;
  const auto look = [&](const unique_fd& dir, const struct stat& info, const std::string& name) {
    if (!barred && !may_access(dir, info, who, permission::execute).allowed)
      barred = name;
  };
  const auto there = walk(path, {.directory = look, .link = {}});
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
