#pragma once

#include "runtime/error.hpp"
#include "runtime/unique_fd.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace troupe {

using mac_address = std::array<std::uint8_t, 6>;

/// A guest's network card seen from the host. The device vanishes with its last descriptor.
struct tap_device {
  unique_fd fd;     ///< For QEMU's `-netdev tap,fd=`; opened with IFF_VNET_HDR and without packet information.
  std::string name; ///< What the kernel named it: "vnet0".
};

/// Makes a tap device, adds it to `bridge` and sets it up. It gets the bridge's MTU, so that the bridge keeps its own,
/// and the guest's `mac` with a first byte of fe, so that the bridge never takes it for its own address. `name` is at
/// most 15 bytes; the kernel puts the first free number in place of a %d. Needs CAP_NET_ADMIN. May wait for the
/// kernel's network lock: call it on a worker. Errors: bad_argument, operation_failed (no /dev/net/tun, no such bridge,
/// name in use, not permitted), system.
result<tap_device> open_tap(const std::string& name, const std::string& bridge, std::optional<mac_address> mac = {});

} // namespace troupe
