#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace troupe {

/// A claim about whatever input there is. One that does not hold ends the run, and libFuzzer keeps the input.
inline void claim(bool holds, const char* what, std::string_view detail = {}) {
  if (holds)
    return;
  std::fprintf(stderr, "does not hold: %s: %.*s\n", what, static_cast<int>(detail.size()), detail.data());
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

} // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
