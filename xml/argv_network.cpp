#include "xml/argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Network cards and what they are connected to.

namespace troupe {
namespace {

/// The descriptors of TAPs, handed out in the order of `bridges_wanted`.
class tap_hands {
public:
  explicit tap_hands(argv_builder& b) : b_{b} {}

  int next(const net_interface& net) {
    if (used_ >= b_.run.tap_fds.size())
      b_.refuse(fmt::format("network card '{}' ({}) got no TAP; this is a fault of the daemon", net.alias, net.mac));
    return b_.run.tap_fds[used_++];
  }

private:
  argv_builder& b_;
  std::size_t used_ = 0;
};

std::string card_type(const net_interface& net) {
  const auto& model = net.model;
  if (model == "virtio" || model.empty())
    return virtio_type("virtio-net", net.address, {});
  if (model.starts_with("virtio-"))
    return virtio_type("virtio-net", net.address, model);
  return model == "netfront" ? "xen-net" : model;
}

bool is_virtio(const net_interface& net) {
  return net.model.starts_with("virtio") || net.model.empty();
}

bool is_user_mode(const argv_builder& b, const net_interface& net) {
  if (net.type == net_type::user)
    return true;
  if (net.type != net_type::network)
    return false;
  const auto found = b.run.networks.find(net.network);
  if (found != b.run.networks.end())
    return found->second == "user";
  return b.run.session && net.network == "default";
}

ordered_json user_netdev(const net_interface& net) {
  ordered_json out{{"type", "user"}};
  for (const auto& ip : net.ips) {
    const bool v6 = ip.family == "ipv6";
    out[v6 ? "ipv6-net" : "net"] = fmt::format("{}/{}", ip.address, ip.prefix.value_or(v6 ? 64 : 24));
  }
  return out;
}

ordered_json tap_netdev(const argv_builder& b, const net_interface& net, int fd) {
  ordered_json out{{"type", "tap"}, {"fd", b.run.generic_taps ? "N" : fmt::format("{}", fd)}};
  if (b.run.generic_taps)
    return out;
  if (net.driver && net.driver->name == "vhost")
    out["vhost"] = true;
  put(out, "sndbuf", net.sndbuf);
  return out;
}

ordered_json socket_netdev(const net_interface& net) {
  const auto remote = fmt::format("{}:{}", net.source_address, net.source_port);
  switch (net.type) {
  case net_type::server:
    return {{"type", "socket"}, {"listen", remote}};
  case net_type::client:
    return {{"type", "socket"}, {"connect", remote}};
  case net_type::mcast:
    return {{"type", "socket"}, {"mcast", remote}};
  default:
    return {
      {"type", "socket"}, {"udp", remote}, {"localaddr", fmt::format("{}:{}", net.local_address, net.local_port)}};
  }
}

ordered_json vhost_user_netdev(argv_builder& b, const net_interface& net) {
  chardev_source socket;
  socket.type = chardev_type::unix_;
  socket.ends.emplace_back();
  socket.ends.front().mode = net.source_mode == "server" ? "bind" : "connect";
  socket.ends.front().path = net.source_path;
  socket.ends.front().reconnect = net.reconnect;
  add_chardev(b, socket, "char" + net.alias);
  ordered_json out{{"type", "vhost-user"}, {"chardev", "char" + net.alias}};
  if (net.driver)
    put(out, "queues", net.driver->queues);
  return out;
}

/// A TAP that someone else has made, which QEMU opens itself.
ordered_json ready_tap_netdev(const argv_builder& b, const net_interface& net) {
  if (net.target_dev.empty())
    b.refuse(
      fmt::format("network card '{}' ({}) of type 'ethernet' names no TAP; give it one with <target dev='…'/> or use "
                  "type 'bridge', 'network' or 'user'",
                  net.alias, net.mac));
  const auto script = [](const std::string& path) { return path.empty() ? std::string{"no"} : path; };
  return {{"type", "tap"},
          {"ifname", net.target_dev},
          {"script", script(net.script)},
          {"downscript", script(net.downscript)}};
}

ordered_json netdev_of(argv_builder& b, const net_interface& net, tap_hands& taps) {
  if (b.run.generic_taps)
    return tap_netdev(b, net, -1);
  if (is_user_mode(b, net))
    return user_netdev(net);
  switch (net.type) {
  case net_type::network:
    if (!b.run.networks.contains(net.network))
      b.refuse(fmt::format(
        "network card '{}' ({}) wants network '{}', which is mapped to no bridge; map it in the settings or use "
        "<interface type='user'>",
        net.alias, net.mac, net.network));
    return tap_netdev(b, net, taps.next(net));
  case net_type::bridge:
    return tap_netdev(b, net, taps.next(net));
  case net_type::ethernet:
    return ready_tap_netdev(b, net);
  case net_type::server:
  case net_type::client:
  case net_type::mcast:
  case net_type::udp:
    return socket_netdev(net);
  case net_type::vhostuser:
    return vhost_user_netdev(b, net);
  default:
    b.refuse(fmt::format("network card '{}' ({}) of type '{}' is not possible here; use 'bridge', 'network' or 'user'",
                         net.alias, net.mac, word_of(net.type)));
  }
}

void put_offloads(ordered_json& out, const net_driver& driver) {
  if (driver.host) {
    const auto& host = *driver.host;
    put(out, "csum", host.csum);
    put(out, "gso", host.gso);
    put(out, "host_tso4", host.tso4);
    put(out, "host_tso6", host.tso6);
    put(out, "host_ecn", host.ecn);
    put(out, "host_ufo", host.ufo);
    put(out, "mrg_rxbuf", host.mrg_rxbuf);
  }
  if (driver.guest) {
    const auto& guest = *driver.guest;
    put(out, "guest_csum", guest.csum);
    put(out, "guest_tso4", guest.tso4);
    put(out, "guest_tso6", guest.tso6);
    put(out, "guest_ecn", guest.ecn);
    put(out, "guest_ufo", guest.ufo);
  }
}

void put_virtio_card(ordered_json& out, const net_interface& net) {
  const auto& driver = *net.driver;
  put_virtio(out, driver.virtio);
  if (driver.txmode == "iothread")
    out["tx"] = "bh";
  else
    put(out, "tx", driver.txmode);
  put(out, "ioeventfd", driver.ioeventfd);
  put(out, "event_idx", driver.event_idx);
  put_offloads(out, driver);
  if (driver.queues.value_or(1) > 1) {
    out["mq"] = true;
    out["vectors"] = 2 * *driver.queues + 2;
  }
  put(out, "rss", driver.rss);
  put(out, "hash", driver.rss_hash_report);
  put(out, "rx_queue_size", driver.rx_queue_size);
  put(out, "tx_queue_size", driver.tx_queue_size);
}

void add_card(argv_builder& b, const net_interface& net, unsigned boot_place) {
  ordered_json out{{"driver", card_type(net)}};
  // domxml-to-native shows a card without what its connection has to do with.
  if (is_virtio(net) && !b.run.generic_taps) {
    if (net.driver)
      put_virtio_card(out, net);
    put(out, "host_mtu", net.mtu);
  }
  out["netdev"] = "host" + net.alias;
  out["id"] = net.alias;
  out["mac"] = net.mac;
  put_bootindex(out, boot_place);
  put_address(out, b, net);
  if (!b.run.generic_taps)
    put_rom(out, net);
  b.device(out);
}

void add_assigned_card(argv_builder& b, const net_interface& net, unsigned boot_place) {
  const auto pci = net.source_pci ? net.source_pci->pci : pci_address{};
  ordered_json out{{"driver", "vfio-pci"},
                   {"host", fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.slot, pci.function)},
                   {"id", net.alias}};
  put_bootindex(out, boot_place);
  put_address(out, b, net);
  put_rom(out, net);
  b.device(out);
}

} // namespace

void add_interfaces(argv_builder& b) {
  tap_hands taps{b};
  const auto& all = b.guest.devices.interfaces;
  for (const auto& net : all) {
    auto place = b.run.generic_taps ? 0 : net.boot_order;
    if (!b.guest.os.boots.empty())
      place = &net == &all.front() ? b.boot_place(boot_device::network) : 0;
    if (net.type == net_type::hostdev) {
      add_assigned_card(b, net, place);
      continue;
    }
    auto back = netdev_of(b, net, taps);
    back["id"] = "host" + net.alias;
    b.netdev(back);
    add_card(b, net, place);
  }
}

} // namespace troupe
