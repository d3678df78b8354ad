#include "xml/domain_values.hpp"
#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace troupe {
namespace {

constexpr unsigned hub_ports = 8;
constexpr std::size_t deepest_hub = 4; ///< Levels of a port, "1.2.3.4".

using port_path = std::vector<unsigned>;

std::optional<port_path> parse_port(std::string_view text) {
  port_path path;
  while (!text.empty()) {
    const auto dot = std::min(text.find('.'), text.size());
    unsigned number = 0;
    if (!parse_value(text.substr(0, dot), number, plain{}) || number == 0)
      return std::nullopt;
    path.push_back(number);
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  if (path.empty() || path.size() > deepest_hub)
    return std::nullopt;
  return path;
}

std::string port_text(const port_path& path) {
  std::string text;
  for (const auto number : path)
    text += (text.empty() ? "" : ".") + std::to_string(number);
  return text;
}

/// One controller's ports, or a hub's.
struct port_tree {
  struct port {
    bool taken = false;
    std::vector<port_tree> hub; ///< At most one.
  };
  std::vector<port> ports;

  explicit port_tree(unsigned count) : ports(count) {}

  /// The first free port here, else the first below a hub.
  std::optional<port_path> first_free() const {
    for (std::size_t at = 0; at < ports.size(); ++at)
      if (!ports[at].taken)
        return port_path{static_cast<unsigned>(at + 1)};
    for (std::size_t at = 0; at < ports.size(); ++at)
      for (const auto& hub : ports[at].hub)
        if (auto below = hub.first_free()) {
          below->insert(below->begin(), static_cast<unsigned>(at + 1));
          return below;
        }
    return std::nullopt;
  }

  port* find(std::span<const unsigned> path) {
    if (path.empty() || path.front() > ports.size())
      return nullptr;
    auto& here = ports[path.front() - 1];
    if (path.size() == 1)
      return &here;
    return here.hub.empty() ? nullptr : here.hub.front().find(path.subspan(1));
  }
};

/// The devices on USB in the order in which they get ports.
template <class F>
void each_usb(domain& guest, F&& f) {
  auto& d = guest.devices;
  for (auto& each : d.hubs)
    if (each.type == "usb")
      f(each);
  for (auto& each : d.hostdevs)
    if (each.type == "usb" && each.mode == "subsystem")
      f(each);
  for (auto& each : d.disks)
    if (each.bus == disk_bus::usb)
      f(each);
  for (auto& each : d.controllers)
    if (each.type == controller_type::ccid)
      f(each);
  for (auto& each : d.inputs)
    if (each.bus == "usb")
      f(each);
  for (auto& each : d.serials)
    if (each.target_type == "usb-serial")
      f(each);
  for (auto& each : d.sounds)
    if (each.model == "usb")
      f(each);
  for (auto& each : d.redirdevs)
    if (each.bus == "usb")
      f(each);
}

bool has_port(const device& each) {
  return each.address.is(address_type::usb) && !each.address.port.empty();
}

class usb_buses {
public:
  explicit usb_buses(const domain& guest) {
    for (const auto& each : guest.devices.controllers)
      if (each.type == controller_type::usb && each.model != "none")
        if (const auto ports = usb_ports(each); ports.value_or(0) > 0 && !is_companion(each))
          buses_.emplace(static_cast<unsigned>(*each.index), port_tree{*ports});
  }

  unsigned free_ports() const {
    unsigned count = 0;
    for (const auto& [bus, tree] : buses_)
      count += static_cast<unsigned>(tree.ports.size());
    return count;
  }

  bool empty() const { return buses_.empty(); }

  result<void> take(const device& each, bool hub) {
    const auto& at = each.address;
    const auto path = parse_port(at.port);
    if (!path)
      return fail(errc::bad_xml,
                  fmt::format("Cannot parse USB port '{}': 1 to {} numbers joined by dots", at.port, deepest_hub));
    const auto bus = buses_.find(at.bus);
    if (bus == buses_.end())
      return fail(errc::bad_xml, fmt::format("Missing USB bus {}", at.bus));
    auto* port = bus->second.find(*path);
    if (port == nullptr)
      return fail(errc::bad_xml, fmt::format("requested USB port {} not present on USB bus {}", at.port, at.bus));
    if (port->taken)
      return fail(errc::bad_xml, fmt::format("Duplicate USB address bus {} port {}", at.bus, at.port));
    port->taken = true;
    if (hub)
      port->hub.emplace_back(hub_ports);
    return {};
  }

  result<void> give(device& each, bool hub) {
    const bool fixed = each.address.is(address_type::usb);
    for (const auto& [bus, tree] : buses_) {
      if (fixed && bus != each.address.bus)
        continue;
      if (const auto free = tree.first_free()) {
        each.address.type = address_type::usb;
        each.address.bus = bus;
        each.address.port = port_text(*free);
        return take(each, hub);
      }
    }
    return fail(errc::internal, "No free USB ports");
  }

private:
  static bool is_companion(const controller& each) { return each.model.starts_with("ich9-uhci"); }

  std::map<unsigned, port_tree> buses_;
};

template <class Device>
constexpr bool is_hub = std::is_same_v<Device, hub>;

/// As many hubs as the devices without a port need.
void add_hubs(domain& guest, unsigned ports) {
  unsigned wanted = 0;
  each_usb(guest, [&]<class Device>(const Device& each) {
    if constexpr (is_hub<Device>)
      ports += hub_ports - (has_port(each) ? 0 : 1);
    else if (!has_port(each))
      ++wanted;
    if (has_port(each) && ports > 0)
      --ports;
  });
  if (wanted <= ports)
    return;
  // One more than is needed at the least, as libvirt counts.
  for (unsigned spare = 0; spare < wanted - ports + 1; spare += hub_ports - 1) {
    hub added;
    added.type = "usb";
    guest.devices.hubs.push_back(std::move(added));
  }
}

} // namespace

result<void> assign_usb_addresses(definition_work& work) {
  auto& guest = work.guest;
  usb_buses buses{guest};
  if (buses.empty())
    return {};
  // A hub below another one comes after it.
  std::vector<hub*> named;
  for (auto& each : guest.devices.hubs)
    if (has_port(each))
      named.push_back(&each);
  std::ranges::stable_sort(named, {}, [](const hub* each) { return std::ranges::count(each->address.port, '.'); });
  for (const auto* each : named)
    if (auto took = buses.take(*each, true); !took)
      return took;
  result<void> went;
  each_usb(guest, [&]<class Device>(const Device& each) {
    if constexpr (!is_hub<Device>)
      if (went && has_port(each))
        went = buses.take(each, false);
  });
  if (!went)
    return went;
  add_hubs(guest, buses.free_ports());
  each_usb(guest, [&]<class Device>(Device& each) {
    if (went && !has_port(each))
      went = buses.give(each, is_hub<Device>);
  });
  return went;
}

} // namespace troupe
