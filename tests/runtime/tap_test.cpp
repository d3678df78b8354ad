#include "runtime/tap.hpp"

#include "tests/catch.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <thread>

namespace troupe {
namespace {

/// Runs `work` on a thread in a network of its own, with a bridge "br0"; says why when that is not possible here.
void in_private_network(const std::function<void(int socket)>& work) {
  std::string obstacle;
  std::thread{[&] {
    const unique_fd tun{::open("/dev/net/tun", O_RDWR | O_CLOEXEC)};
    if (!tun) {
      obstacle = "/dev/net/tun";
    } else if (::unshare(CLONE_NEWNET) != 0) {
      obstacle = "a private network (needs root)";
    } else {
      const unique_fd socket{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
      if (::ioctl(socket.get(), SIOCBRADDBR, "br0") != 0)
        obstacle = "bridges";
      else
        work(socket.get());
    }
  }}.join();
  if (!obstacle.empty())
    WARN("skipped: this machine gives us no " << obstacle);
}

ifreq ask(int socket, unsigned long what, const std::string& device) {
  ifreq request{};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(socket, what, &request) != 0)
    request.ifr_name[0] = '\0';
  return request;
}

bool exists(int socket, const std::string& device) {
  return ask(socket, SIOCGIFINDEX, device).ifr_name[0] != '\0';
}

int first_port(int socket) {
  int ports[16]{};
  unsigned long arguments[] = {BRCTL_GET_PORT_LIST, reinterpret_cast<unsigned long>(ports), 16, 0};
  ifreq request{};
  std::strcpy(request.ifr_name, "br0");
  request.ifr_data = reinterpret_cast<char*>(arguments);
  ::ioctl(socket, SIOCDEVPRIVATE, &request);
  return ports[1];
}

} // namespace

TEST_CASE("tap: a device joins its bridge, is up, and ends with its descriptor", "[runtime]") {
  in_private_network([](int socket) {
    auto mtu = ask(socket, SIOCGIFMTU, "br0");
    mtu.ifr_mtu = 1400;
    ::ioctl(socket, SIOCSIFMTU, &mtu);
    auto first = open_tap("vnet%d", "br0", mac_address{0x52, 0x54, 0, 1, 2, 3});
    const auto second = open_tap("vnet%d", "br0");
    CHECK((first && second));
    if (!first || !second) {
      UNSCOPED_INFO((first ? second : first).error().detail);
      return;
    }
    CHECK(first->name == "vnet0");
    CHECK(second->name == "vnet1");
    CHECK((ask(socket, SIOCGIFFLAGS, "vnet0").ifr_flags & IFF_UP) != 0);
    CHECK(ask(socket, SIOCGIFMTU, "vnet0").ifr_mtu == 1400);
    const auto mac = ask(socket, SIOCGIFHWADDR, "vnet0");
    CHECK(std::memcmp(mac.ifr_hwaddr.sa_data, "\xfe\x54\x00\x01\x02\x03", 6) == 0);
    CHECK(first_port(socket) != 0);
    first->fd.reset();
    CHECK_FALSE(exists(socket, "vnet0"));
    CHECK(exists(socket, "vnet1"));
  });
}

TEST_CASE("tap: what is wrong is named, with its remedy, and nothing is left", "[runtime]") {
  in_private_network([](int socket) {
    using Catch::Matchers::Contains;
    const auto why = [](const char* name, const char* bridge) {
      const auto tap = open_tap(name, bridge);
      return tap ? std::string{"it worked"} : tap.error().detail;
    };
    CHECK_THAT(why("vnet%d", "br7"), Contains("no bridge 'br7'") && Contains("ip link add br7 type bridge"));
    {
      const auto tap = open_tap("plain", "br0");
      CHECK(why("vnet%d", "plain") == "'plain' is a network device but no bridge");
    }
    CHECK_THAT(why("a-name-with-16-b", "br0"), Contains("cannot name a network device"));
    CHECK_THAT(why("", "br0"), Contains("cannot name a network device"));
    CHECK_THAT(why("br0", "br0"), Contains("cannot create tap device 'br0'"));
    CHECK_FALSE(exists(socket, "vnet0"));
  });
}

} // namespace troupe
