#pragma once

#include <cstdint>
#include <string>

namespace troupe {

/// Something on the host that a guest opens: all that confinement needs to know of a definition.
struct resource {
  enum class kind : std::uint8_t { file, block, character, directory, socket };

  std::string path{};
  kind what = kind::file;
  bool readonly = false; ///< The guest only reads it: a CD, a backing layer.
  bool shared = false;   ///< Other guests may have it open at the same time.
  bool relabel = true;   ///< False: owner and label stay as they are.

  bool operator==(const resource&) const = default;
};

} // namespace troupe
