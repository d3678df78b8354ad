#include "runtime/tap.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/socket.h>
#include <utility>

// The kernel's and the C library's <net/if.h> may not meet.
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <fmt/format.h>

namespace troupe {
namespace {

ifreq request_for(std::string_view device) {
  ifreq request{};
  std::ranges::copy(device, request.ifr_name);
  return request;
}

bool is_device_name(std::string_view name) {
  return !name.empty() && name.size() < IFNAMSIZ && name.find_first_of("/ \t\n") == name.npos &&
         name.find('\0') == name.npos;
}

/// What went wrong, and what to do about it where that is known. Reads errno.
auto tap_failed(std::string_view what) {
  const int number = errno;
  const char* remedy = "";
  if (number == EPERM || number == EACCES)
    remedy = "; it needs CAP_NET_ADMIN: start the guest through the system daemon, or use <interface type='user'>";
  return fail(errc::operation_failed, fmt::format("{}: {}{}", what, std::strerror(number), remedy));
}

} // namespace

result<tap_device> open_tap(const std::string& name, const std::string& bridge, std::optional<mac_address> mac) {
  for (const auto& text : {name, bridge})
    if (!is_device_name(text))
      return fail(errc::bad_argument, fmt::format("'{}' cannot name a network device: it takes 1 to {} bytes without "
                                                  "slash or space",
                                                  text, IFNAMSIZ - 1));
  const unique_fd control{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!control)
    return fail(errc::system, fmt::format("no socket to set up a tap device: {}", std::strerror(errno)));

  auto of_bridge = request_for(bridge);
  if (::ioctl(control.get(), SIOCGIFINDEX, &of_bridge) != 0)
    return fail(errc::operation_failed,
                fmt::format("there is no bridge '{0}': create it (`ip link add {0} type bridge`) or name another in "
                            "<source bridge='...'/>",
                            bridge));
  of_bridge = request_for(bridge);
  if (::ioctl(control.get(), SIOCGIFMTU, &of_bridge) != 0)
    return tap_failed(fmt::format("cannot read the MTU of bridge '{}'", bridge));

  tap_device tap{.fd = unique_fd{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)}, .name = {}};
  if (!tap.fd) {
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
      return fail(errc::operation_failed, "there is no /dev/net/tun: load the kernel module (`modprobe tun`)");
    return tap_failed("cannot open /dev/net/tun");
  }
  auto request = request_for(name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.fd.get(), TUNSETIFF, &request) != 0)
    return tap_failed(fmt::format("cannot create tap device '{}'", name));
  tap.name = request.ifr_name;

  if (mac) {
    request = request_for(tap.name);
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(request.ifr_hwaddr.sa_data, mac->data(), mac->size());
    request.ifr_hwaddr.sa_data[0] = static_cast<char>(0xfe); // the highest of all: a bridge takes its lowest port's
    if (::ioctl(control.get(), SIOCSIFHWADDR, &request) != 0)
      return tap_failed(fmt::format("cannot set the MAC address of tap device '{}'", tap.name));
  }
  request = request_for(tap.name);
  request.ifr_mtu = of_bridge.ifr_mtu;
  if (::ioctl(control.get(), SIOCSIFMTU, &request) != 0)
    return tap_failed(fmt::format("cannot set the MTU of tap device '{}' to that of bridge '{}'", tap.name, bridge));

  request = request_for(tap.name);
  if (::ioctl(control.get(), SIOCGIFINDEX, &request) != 0)
    return tap_failed(fmt::format("cannot find tap device '{}' again", tap.name));
  const int index = request.ifr_ifindex;
  request = request_for(bridge);
  request.ifr_ifindex = index;
  if (::ioctl(control.get(), SIOCBRADDIF, &request) != 0) {
    if (errno == EOPNOTSUPP)
      return fail(errc::operation_failed, fmt::format("'{}' is a network device but no bridge", bridge));
    return tap_failed(fmt::format("cannot add tap device '{}' to bridge '{}'", tap.name, bridge));
  }

  request = request_for(tap.name);
  if (::ioctl(control.get(), SIOCGIFFLAGS, &request) != 0)
    return tap_failed(fmt::format("cannot read the state of tap device '{}'", tap.name));
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(control.get(), SIOCSIFFLAGS, &request) != 0)
    return tap_failed(fmt::format("cannot set up tap device '{}'", tap.name));
  return tap;
}

} // namespace troupe
