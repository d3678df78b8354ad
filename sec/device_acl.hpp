#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The device nodes a guest may open, whatever their owner and mode: a control group a guest, with the kernel's own filter.
// All but `find_device_groups` blocks: workers only.

namespace troupe {

/// Nodes that may be opened, by number. Making new ones is never allowed.
struct device_rule {
  enum class kind : char { block = 'b', character = 'c' };

  kind what = kind::character;
  std::uint32_t major = 0;
  std::optional<std::uint32_t> minor{}; ///< Absent: every one of `major`.
  bool write = true;                    ///< Reading always.

  bool operator==(const device_rule&) const = default;
};

/// The terminals that QEMU makes by /dev/ptmx: Unix98 slaves, Documentation/admin-guide/devices.txt.
inline constexpr device_rule terminal_rule{device_rule::kind::character, 136, std::nullopt, true};

/// The device node that `path` (absolute; symbolic links are followed) is now. None: it is something else, or not there.
/// Errors: operation_failed (cannot be reached).
result<std::optional<device_rule>> device_rule_at(const std::string& path, bool readonly);

/// Where this process's guests get their groups.
struct device_groups {
  enum class kind : std::uint8_t {
    none, ///< No control groups here.
    v1,   ///< The `devices` controller: a list in devices.allow.
    v2,   ///< A BPF program at the group.
  };

  kind how = kind::none;
  std::string dir{}; ///< Of the group this process is in.

  bool operator==(const device_groups&) const = default;
};

/// Reads the texts of /proc/self/mountinfo and /proc/self/cgroup. A mounted `devices` controller comes before v2, where the
/// kernel then has none.
device_groups find_device_groups(std::string_view mountinfo, std::string_view own_groups);

/// Makes the group at `path`, in a family of groups that is made too, and limits it to `rules`; one that is there gets
/// the new rules, which hold at once for what runs in it, while what is open stays open. A new one has no process: the
/// launcher joins by its cgroup.procs. Errors: system.
result<void> make_device_group(device_groups::kind how, const std::string& path, const std::vector<device_rule>& rules);

/// Kills what is still in the group and removes it, and its family with the last one; there being none is success.
/// Errors: system, after two seconds of trying.
result<void> remove_device_group(const std::string& path);

} // namespace troupe
