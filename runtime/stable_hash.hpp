#pragma once

#include <cstdint>
#include <string_view>

namespace troupe {

/// FNV-1a: the same on every run and machine, for what a later daemon must find again. Not against an adversary.
constexpr std::uint64_t stable_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

} // namespace troupe
