#pragma once

#include "tests/catch.hpp"
#include "xml/domain_passes.hpp"

#include <string>
#include <string_view>

// Definitions for the tests of the passes. What is "installed" is `assumed_facts`: no QEMU is asked.

namespace troupe {

inline std::array<std::uint8_t, 16> no_random() {
  return {};
}

/// A definition with that inside its `<devices>` and that beside them.
inline std::string guest_xml(std::string_view devices, std::string_view beside = {}, std::string_view machine = "pc",
                             std::string_view type = "qemu") {
  return "<domain type='" + std::string{type} +
         "'><name>g</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='" + std::string{machine} +
         "'>hvm</type></os>" + std::string{beside} + "<devices>" + std::string{devices} + "</devices></domain>";
}

inline result<domain> try_complete(const std::string& xml) {
  auto guest = read_domain(xml);
  if (!guest)
    return guest;
  choose_emulator(*guest, "x86_64");
  if (auto went = complete_definition(*guest, assumed_facts(*guest, "x86_64"), no_random); !went)
    return tl::make_unexpected(went.error());
  choose_variables(*guest, "/state");
  return guest;
}

inline domain completed(const std::string& xml) {
  auto guest = try_complete(xml);
  INFO(xml << "\n" << (guest ? "" : guest.error().message()));
  REQUIRE(guest);
  return std::move(*guest);
}

/// What it is refused with; empty when it is not.
inline std::string refusal(const std::string& xml) {
  const auto guest = try_complete(xml);
  return guest ? std::string{} : guest.error().message();
}

inline std::string place(const device& each) {
  const auto& at = each.address.pci;
  if (!each.address.is(address_type::pci))
    return std::string{word_of(each.address.type)};
  return std::to_string(at.bus) + ":" + std::to_string(at.slot) + "." + std::to_string(at.function);
}

} // namespace troupe
