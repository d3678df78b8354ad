#pragma once

#include "runtime/error.hpp"
#include "runtime/unique_fd.hpp"
#include "sec/dac.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <vector>

// How the kernel comes to a file and what it then looks at. Inside sec/ only; blocks.

namespace troupe {

/// Permissions as in a mode and an ACL.
namespace permission {
inline constexpr unsigned execute = 1, write = 2, read = 4; // of a directory `execute` is to search it
}

/// The name by which the kernel lets us at the inode of an O_PATH descriptor.
std::string name_of(const unique_fd& fd);

struct found_file {
  unique_fd fd; ///< O_PATH
  struct stat info {};
  std::vector<uid_t> link_owners; ///< Of the symbolic links on the way.
};

struct lost_file {
  int number = 0;
  std::string at;    ///< The component that could not be opened.
  bool last = false; ///< Nothing was to come after it.
};

/// What a walk passes on its way.
struct walk_watch {
  /// Each directory, before anything in it is opened.
  std::function<void(const unique_fd& dir, const struct stat& info, const std::string& path)> directory{};
  /// Each symbolic link, before it is followed, with the directory it lies in.
  std::function<void(const struct stat& dir, const struct stat& link, const std::string& path)> link{};
};

/// Walks to `path` from the root, following symbolic links by hand: what is looked at is what is opened.
tl::expected<found_file, lost_file> walk(std::string_view path, const walk_watch& watch = {});

/// Errors: bad_argument.
result<void> must_be_absolute(std::string_view path);

/// Whether the group is one of theirs.
bool is_in(const dac_identity& who, gid_t group);

/// What the kernel says to somebody without capabilities, and whether an ACL made it say so.
struct verdict {
  bool allowed = false;
  bool by_acl = false;
};

/// Whether `who`, without capabilities, has all of `wanted` (permission::...). Source: acl(5), "access check algorithm".
verdict may_access(const unique_fd& file, const struct stat& info, const dac_identity& who, unsigned wanted);

} // namespace troupe
