#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Network cards and what they are connected to.

namespace troupe {
namespace {

/// "a.b.c.d/24" or "fd00::/64".
bool read_prefix(const std::string& text, std::string_view family, net_interface& net) {
  const auto slash = text.find('/');
  ip_address ip;
  ip.family = family;
  ip.address = text.substr(0, slash);
  if (slash != std::string::npos) {
    const auto bits = number_of(std::string_view{text}.substr(slash + 1));
    if (!bits || *bits > 128)
      return false;
    ip.prefix = static_cast<unsigned>(*bits);
  }
  net.ips.push_back(std::move(ip));
  return true;
}

bool read_tap(argv_import& in, line_option& option, net_interface& net) {
  auto& props = option.props;
  net.type = net_type::ethernet;
  in.read(option, "ifname", net.target_dev);
  in.read(option, "script", net.script);
  in.read(option, "downscript", net.downscript);
  for (auto* script : {&net.script, &net.downscript})
    if (*script == "no")
      script->clear();
  if (!net.target_dev.empty() && net.script.empty())
    net.target_managed = yes_no::unset;
  in.read(option, "sndbuf", net.sndbuf);
  auto& driver = net.driver ? *net.driver : net.driver.emplace();
  if (const auto vhost = in.flag(option, "vhost"))
    driver.name = *vhost ? "vhost" : "qemu";
  in.read(option, "queues", driver.queues);
  if (in.flag(option, "vhostforce"))
    driver.name = "vhost";
  bool handed = false;
  for (const std::string_view key : {"fd", "fds", "vhostfd", "vhostfds"})
    if (props.take(key) != nullptr)
      handed = true;
  if (handed) {
    in.note(option, "the TAP came from whoever ran this line: say with <interface type='bridge'> or 'network' where "
                    "the card belongs");
    driver.name.clear();
  }
  if (const auto* helper = props.take("br"); helper != nullptr || props.has("helper")) {
    if (helper == nullptr)
      return false;
    net.type = net_type::bridge;
    net.bridge = *helper;
    props.drop("helper");
  }
  return true;
}

/// "host:port" of a socket.
bool read_address(const std::string& text, std::string& host, std::string& port) {
  const auto colon = text.find_last_of(':');
  if (colon == std::string::npos)
    return false;
  host = text.substr(0, colon);
  port = text.substr(colon + 1);
  return true;
}

bool read_socket(argv_import& in, line_option& option, net_interface& net) {
  std::string text;
  struct socket_row {
    std::string_view key;
    net_type type;
  };
  for (const auto& row : {socket_row{"listen", net_type::server}, socket_row{"connect", net_type::client},
                          socket_row{"mcast", net_type::mcast}, socket_row{"udp", net_type::udp}})
    if (option.props.has(row.key)) {
      in.read(option, row.key, text);
      net.type = row.type;
    }
  if (net.type == net_type::unset || !read_address(text, net.source_address, net.source_port))
    return false;
  if (net.type == net_type::udp) {
    in.read(option, "localaddr", text);
    return read_address(text, net.local_address, net.local_port);
  }
  if (net.type == net_type::server && net.source_address.empty())
    net.source_address = "0.0.0.0";
  return true;
}

/// What the card is connected to: a -netdev, or the half of -nic and -net that is one.
bool read_connection(argv_import& in, line_option& option, net_interface& net) {
  auto& props = option.props;
  const auto* type = props.take("type");
  if (type == nullptr)
    in.refuse(option, "it names no type: user, tap, bridge, socket, vhost-user and others are accepted");
  props.drop("id");
  if (*type == "user") {
    net.type = net_type::user;
    if (const auto* v4 = props.take("net"); v4 != nullptr && !read_prefix(*v4, "ipv4", net))
      return false;
    for (const std::string_view key : {"ipv6-net", "ip6-net"})
      if (const auto* v6 = props.take(key); v6 != nullptr && !read_prefix(*v6, "ipv6", net))
        return false;
    return true; // forwarded ports are left, so that the card is kept as it is
  }
  if (*type == "tap")
    return read_tap(in, option, net);
  if (*type == "bridge") {
    net.type = net_type::bridge;
    net.bridge = "br0"; // QEMU's own
    in.read(option, "br", net.bridge);
    props.drop("helper");
    return true;
  }
  if (*type == "socket")
    return read_socket(in, option, net);
  if (*type == "vhost-user") {
    chardev_source socket;
    const auto* chardev = props.take("chardev");
    if (chardev == nullptr || !read_chardev(in, *chardev, socket) || socket.type != chardev_type::unix_)
      return false;
    net.type = net_type::vhostuser;
    net.source_type = "unix";
    net.source_path = socket.first().path;
    net.source_mode = socket.first().mode == "bind" ? "server" : "client";
    net.reconnect = socket.first().reconnect;
    props.drop("vhostforce");
    auto& driver = net.driver ? *net.driver : net.driver.emplace();
    in.read(option, "queues", driver.queues);
    return true;
  }
  return false;
}

/// Cards of libvirt's list; any other that QEMU takes for a name is one, too.
constexpr std::string_view card_models[] = {
  "e1000",   "e1000e",  "rtl8139", "ne2k_pci", "ne2k_isa",      "pcnet",         "i82551", "i82557b", "i82559er",
  "vmxnet3", "igb",     "tulip",   "usb-net",  "e1000-82544gc", "e1000-82545em", "i82550", "i82557a", "i82557c",
  "i82558a", "i82558b", "i82559a", "i82559b",  "i82559c",       "i82562",        "i82801", "xen-net"};

void read_virtio_card(argv_import& in, line_option& option, net_interface& net) {
  auto& driver = net.driver ? *net.driver : net.driver.emplace();
  read_virtio(in, option, driver.virtio);
  if (const auto* tx = option.props.take("tx"))
    driver.txmode = *tx == "bh" ? "iothread" : *tx;
  in.read(option, "ioeventfd", driver.ioeventfd);
  in.read(option, "event_idx", driver.event_idx);
  struct offload_row {
    std::string_view key;
    bool host;
    on_off net_offloads::*field;
  };
  static constexpr offload_row offloads[] = {
    {"csum", true, &net_offloads::csum},           {"gso", true, &net_offloads::gso},
    {"host_tso4", true, &net_offloads::tso4},      {"host_tso6", true, &net_offloads::tso6},
    {"host_ecn", true, &net_offloads::ecn},        {"host_ufo", true, &net_offloads::ufo},
    {"mrg_rxbuf", true, &net_offloads::mrg_rxbuf}, {"guest_csum", false, &net_offloads::csum},
    {"guest_tso4", false, &net_offloads::tso4},    {"guest_tso6", false, &net_offloads::tso6},
    {"guest_ecn", false, &net_offloads::ecn},      {"guest_ufo", false, &net_offloads::ufo},
  };
  for (const auto& row : offloads)
    if (option.props.has(row.key)) {
      auto& side = row.host ? driver.host : driver.guest;
      in.read(option, row.key, (side ? *side : side.emplace()).*row.field);
    }
  // Queues are the connection's to count; vectors follow from them.
  option.props.drop("mq");
  if (driver.queues)
    option.props.drop("vectors", fmt::format("{}", 2 * *driver.queues + 2));
  in.read(option, "rss", driver.rss);
  in.read(option, "hash", driver.rss_hash_report);
  in.read(option, "rx_queue_size", driver.rx_queue_size);
  in.read(option, "tx_queue_size", driver.tx_queue_size);
  in.read(option, "host_mtu", net.mtu);
}

void settle(net_interface& net) {
  if (net.driver && net.driver->name.empty() && !net.driver->queues && net.driver->txmode.empty() &&
      net.driver->ioeventfd == on_off::unset && net.driver->event_idx == on_off::unset && !net.driver->host &&
      !net.driver->guest && net.driver->rss == on_off::unset && net.driver->rss_hash_report == on_off::unset &&
      !net.driver->rx_queue_size && !net.driver->tx_queue_size && net.driver->virtio.iommu == on_off::unset &&
      net.driver->virtio.ats == on_off::unset && net.driver->virtio.packed == on_off::unset &&
      net.driver->virtio.page_per_vq == on_off::unset)
    net.driver.reset();
}

bool read_card(argv_import& in, line_option& option, const device_name& name) {
  auto& props = option.props;
  net_interface net;
  const bool virtio = name.base == "virtio-net";
  net.model = virtio                   ? name.transition.empty() ? "virtio" : name.transition
              : name.base == "xen-net" ? "netfront"
                                       : name.base;
  in.read(option, "mac", net.mac);
  const auto* id = props.take("netdev");
  auto* back = id == nullptr ? nullptr : in.find("-netdev", *id);
  if (back == nullptr)
    return false; // a card without a cable, or with one that is kept
  in.take(*back);
  if (!read_connection(in, *back, net))
    return false;
  if (virtio)
    read_virtio_card(in, option, net);
  else if (name.base == "vmxnet3" || name.base == "e1000e")
    props.drop("vectors");
  const bool placed = name.base == "usb-net" ? (read_identity(in, option, net), read_usb_place(in, option, net))
                                             : read_device(in, option, net);
  if (!placed)
    return false;
  settle(net);
  in.guest.devices.interfaces.push_back(std::move(net));
  return true;
}

std::string model_named(const std::string& model) {
  return model == "virtio-net-pci" || model == "virtio-net" ? "virtio" : model;
}

} // namespace

device_reader network_reader(std::string_view base) {
  return base == "virtio-net" || std::ranges::find(card_models, base) != std::end(card_models) ? read_card : nullptr;
}

void read_nic(argv_import& in, line_option& option) {
  in.network_given = true;
  auto& props = option.props;
  if (const auto* type = props.peek("type"); type != nullptr && *type == "none") {
    option.done = true;
    return;
  }
  in.attempt(option, [&] {
    net_interface net;
    in.read(option, "model", net.model);
    net.model = model_named(net.model.empty() ? in.is_q35() ? "e1000e" : "e1000" : net.model);
    in.read(option, "mac", net.mac);
    if (!read_connection(in, option, net))
      return false;
    settle(net);
    in.guest.devices.interfaces.push_back(std::move(net));
    return true;
  });
}

/// Cards and cables of -net meet at a hub: the vlan.
void read_net(argv_import& in, line_option& option) {
  in.network_given = true;
  auto& props = option.props;
  const auto* type = props.peek("type");
  if (type == nullptr)
    in.refuse(option, "it names no type: nic, none, user, tap and bridge are accepted");
  if (*type == "none") {
    option.done = true;
    return;
  }
  if (*type != "nic")
    return; // found from its card
  const auto vlan_of = [](const line_option& each) {
    const auto* vlan = each.props.peek("vlan");
    return vlan == nullptr ? std::string{"0"} : *vlan;
  };
  const auto vlan = vlan_of(option);
  // A hub with more than a card and a cable is no one card's connection.
  std::vector<line_option*> cables;
  unsigned cards = 0;
  for (auto& each : in.options)
    if (each.name == "-net" && vlan_of(each) == vlan) {
      const auto* kind = each.props.peek("type");
      if (kind != nullptr && *kind == "nic")
        ++cards;
      else if (kind != nullptr && *kind != "none")
        cables.push_back(&each);
    }
  in.attempt(option, [&] {
    net_interface net;
    props.drop("type"), props.drop("vlan"), props.drop("name");
    in.read(option, "model", net.model);
    net.model = model_named(net.model.empty() ? in.is_q35() ? "e1000e" : "e1000" : net.model);
    for (const std::string_view key : {"macaddr", "mac"})
      in.read(option, key, net.mac);
    props.drop("vectors", "0");
    if (const auto* netdev = props.take("netdev")) {
      auto* back = in.find("-netdev", *netdev);
      if (back == nullptr)
        return false;
      in.take(*back);
      if (!read_connection(in, *back, net))
        return false;
    } else {
      if (cables.size() != 1 || cards != 1)
        return false;
      in.take(*cables.front());
      cables.front()->props.drop("vlan");
      cables.front()->props.drop("name");
      if (!read_connection(in, *cables.front(), net))
        return false;
    }
    settle(net);
    in.guest.devices.interfaces.push_back(std::move(net));
    return true;
  });
}

void finish_network(argv_import& in) {
  // Without a word about networks a pc has a card in user mode.
  const bool any = std::ranges::any_of(in.options, [](const auto& o) { return o.name == "-netdev"; });
  if (in.network_given || any || in.no_defaults || !in.is_x86() || in.facts == nullptr)
    return;
  net_interface net;
  net.type = net_type::user;
  net.model = in.is_q35() ? "e1000e" : "e1000";
  in.guest.devices.interfaces.push_back(std::move(net));
  in.notes.emplace_back("no option says what network there is: QEMU's usual card in user mode is written out");
}

} // namespace troupe
