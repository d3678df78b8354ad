#pragma once

#include "runtime/error.hpp"
#include "sec/resource.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// AppArmor: a profile a guest. `apparmor_is_on` and `ask_apparmor_helper` block: workers only.

namespace troupe {

/// Whether the kernel enforces AppArmor's profiles.
bool apparmor_is_on();

/// What a guest's profile is called: "troupe-UUID", or "libvirt-UUID" for what knows guests by that.
std::string profile_name(std::string_view uuid, bool as_libvirt);

/// Whether `profile_name` makes such names.
bool is_profile_name(std::string_view name);

/// What a profile allows with a path.
struct profile_rule {
  enum class access : char {
    read = 'r',      ///< And nothing else: writing is refused without a word in the audit log.
    read_tree = 'd', ///< `read` for a directory and all that is or will be below it.
    write = 'w',     ///< Reading and locking, too.
    tree = 't',      ///< `write` for a directory and all that is or will be below it.
    connect = 'c',   ///< A socket that is there.
    program = 'x',   ///< The emulator itself.
  };

  access how = access::read;
  std::string path{}; ///< As the kernel sees it: no symbolic link on the way.

  bool operator==(const profile_rule&) const = default;
};

/// What a guest needs of a resource at its resolved path.
profile_rule profile_rule_for(const resource& file);

/// What troupe-apparmor is to do. It travels as text of fields that end in a zero byte.
struct apparmor_request {
  enum class verb : char {
    load = 'l',   ///< Also when it is loaded already: the new rules hold at once for the guest that runs.
    remove = 'u', ///< It and what was written for it; there being none is success.
  };

  verb what = verb::load;
  std::string folder = "/etc/apparmor.d"; ///< The profiles are in its `troupe`.
  std::string profile{};
  std::vector<profile_rule> rules{}; ///< For `load`.

  bool operator==(const apparmor_request&) const = default;
};

inline constexpr std::size_t max_apparmor_request = 4 << 20; ///< Bytes.

std::string to_text(const apparmor_request& request);

/// Reads and verifies: the helper does what this returns, whoever asks. Errors: bad_argument, for what is malformed, is no
/// guest's profile, or would let a guest write where the system itself is.
result<apparmor_request> apparmor_request_from(std::string_view text);

/// The path between quotes as apparmor.d(5) has it, with nothing in it taken for a pattern.
std::string quoted_path(std::string_view path);

/// The text of a guest's `.files`, which its profile includes.
std::string profile_files(const std::vector<profile_rule>& rules);

/// The profile that the template makes. Errors: bad_argument when it names no TROUPE_PROFILE or does not include its
/// files.
result<std::string> profile_from(std::string_view template_text, std::string_view name);

/// Has the helper at `helper` (absolute) do it, and waits. True: the profile is enforced; false: it complains, or was
/// removed. Errors: operation_failed with what the helper or apparmor_parser said; system.
result<bool> ask_apparmor_helper(const std::string& helper, const apparmor_request& request);

} // namespace troupe
