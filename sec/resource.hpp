#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// A label that a definition gives one file, or that it is to have none of ours.
struct resource_label {
  std::string model{};  ///< "dac", "selinux", ...; empty: every one.
  bool relabel = true;  ///< False: the file stays as it is.
  std::string label{};  ///< Empty: the guest's own.

  bool operator==(const resource_label&) const = default;
};

/// Something on the host that a guest opens: all that confinement needs to know of a definition.
struct resource {
  /// The last three have no path but what names a device of the host: "0000:01:00.0", a UUID, "VENDOR:PRODUCT".
  enum class kind : std::uint8_t { file, block, character, directory, socket, pci, mediated, usb };

  std::string path{};
  kind what = kind::file;
  bool readonly = false; ///< The guest only reads it: a CD, a backing layer.
  bool shared = false;   ///< Other guests may have it open at the same time.
  bool relabel = true;   ///< False: owner and label stay as they are.
  bool create = false;   ///< A file is made when there is none, as the guest's user may not make one there.
  bool optional = false; ///< A guest starts without it, too.
  std::vector<resource_label> labels{};
  std::string like{};    ///< With `create`: the file that a new one begins as a copy of; empty: it begins empty.

  bool operator==(const resource&) const = default;
};

/// What a definition says of the label of `file` in `model`; null: nothing.
inline const resource_label* own_label(const resource& file, std::string_view model) {
  for (const auto& each : file.labels)
    if (each.model == model || each.model.empty())
      return &each;
  return nullptr;
}

} // namespace troupe
