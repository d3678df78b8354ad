#pragma once

#include "tests/fuzz/fuzz.hpp"
#include "xml/domain_passes.hpp"

// What fuzzers of definitions share.

namespace troupe {

/// The same bytes each time, never twice in a run.
inline random_source counting() {
  return [next = std::uint64_t{0}]() mutable {
    std::array<std::uint8_t, 16> bytes{};
    const auto value = ++next * 0x9e3779b97f4a7c15u;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::uint8_t>(value >> i % 8 * 8);
    return bytes;
  };
}

inline void must_tell_why(const error& why) {
  claim(why.code != errc::none && !why.detail.empty(), "a refusal says why", why.message());
}

/// What is written can be read, and is then written alike.
inline void must_come_back(const domain& guest, xml_options options) {
  const auto once = write_domain(guest, options);
  const auto again = read_domain(once);
  claim(again.has_value(), "a written definition is read again", again ? std::string{} : again.error().message() + "\n" + once);
  const auto twice = write_domain(*again, options);
  claim(once == twice, "a definition is written alike again", once + "\n---\n" + twice);
}

} // namespace troupe
