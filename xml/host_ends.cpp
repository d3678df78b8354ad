#include "xml/passes.hpp"
#include "xml/qemu_argv.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

bool listens_on_tcp(const graphics& each) {
  if (each.type != graphics_type::vnc && each.type != graphics_type::spice)
    return false;
  return each.listens.empty() || each.listens.front().type == listen_type::address ||
         each.listens.front().type == listen_type::network;
}

bool wants_port(const graphics& each) {
  return listens_on_tcp(each) && each.autoport == yes_no::yes;
}

bool is_user_mode(const net_interface& each, const std::map<std::string, std::string>& networks, bool session) {
  if (each.type == net_type::user)
    return true;
  if (each.type != net_type::network)
    return false;
  const auto found = networks.find(each.network);
  return found == networks.end() ? session && each.network == "default" : found->second == "user";
}

bool wants_tap(const net_interface& each, const std::map<std::string, std::string>& networks, bool session) {
  return each.type == net_type::bridge || (each.type == net_type::network && !is_user_mode(each, networks, session));
}

} // namespace

int display_ports_wanted(const domain& guest) {
  return static_cast<int>(std::ranges::count_if(guest.devices.graphics, wants_port));
}

void assign_display_ports(domain& guest, std::span<const int> ports, std::string_view vnc_listen,
                          std::string_view spice_listen) {
  for (auto& each : guest.devices.graphics) {
    if (wants_port(each) && !ports.empty()) {
      each.port = ports.front();
      each.port_generated = true;
      ports = ports.subspan(1);
    }
    const bool named = each.type == graphics_type::vnc || each.type == graphics_type::spice;
    if (!named || !listens_on_tcp(each))
      continue;
    if (each.listens.empty())
      each.listens.push_back({{}, listen_type::address, each.listen, {}, {}, each.listen.empty()});
    for (auto& end : each.listens)
      if ((end.type == listen_type::address || end.type == listen_type::network) && end.address.empty()) {
        end.address = each.type == graphics_type::vnc ? vnc_listen : spice_listen;
        end.generated = true;
      }
    each.listen = each.listens.front().address;
  }
}

const seclabel* static_dac_label(const domain& guest) {
  const auto found = std::ranges::find_if(guest.seclabels, [](const auto& each) {
    return each.model == "dac" &&
           (each.type == label_kind::none || (each.type == label_kind::static_ && !each.label.empty()));
  });
  return found == guest.seclabels.end() ? nullptr : &*found;
}

result<std::vector<std::string>> bridges_wanted(const domain& guest, const std::map<std::string, std::string>& networks,
                                                bool session) {
  std::vector<std::string> bridges;
  for (const auto& each : guest.devices.interfaces) {
    if (!wants_tap(each, networks, session))
      continue;
    if (each.type == net_type::bridge) {
      if (each.bridge.empty())
        return fail(errc::unsupported_config,
                    fmt::format("guest '{}': its network card {} has no <source bridge='...'/>", guest.name, each.mac));
      bridges.push_back(each.bridge);
      continue;
    }
    const auto found = networks.find(each.network);
    if (found == networks.end())
      return fail(
        errc::unsupported_config,
        fmt::format(
          "guest '{}': its network card {} wants network '{}', which is mapped to no bridge; name the bridge in "
          "qemu.conf: networks = [ \"{}=virbr0\" ], or \"{}=user\" for user-mode networking",
          guest.name, each.mac, each.network, each.network, each.network));
    bridges.push_back(found->second);
  }
  return bridges;
}

void name_host_ends(domain& guest, const run_settings& settings, std::span<const std::string> tap_names) {
  for (auto& each : guest.devices.interfaces) {
    if (!wants_tap(each, settings.networks, settings.session) || tap_names.empty())
      continue;
    each.target_dev = tap_names.front();
    tap_names = tap_names.subspan(1);
  }
  for (auto& each : guest.devices.channels) {
    if (each.source.type != chardev_type::unix_ || !each.source.first().path.empty())
      continue;
    auto& end = each.source.first();
    end.mode = "bind";
    end.path = fmt::format("{}/{}.sock", settings.run_dir, each.alias);
  }
  for (auto& each : guest.devices.graphics)
    for (auto& end : each.listens)
      if (end.type == listen_type::socket && end.socket.empty()) {
        end.socket =
          each.socket.empty() ? fmt::format("{}/{}.sock", settings.run_dir, word_of(each.type)) : each.socket;
        end.generated = each.socket.empty();
      }
}

void name_pty(domain& guest, std::string_view chardev_id, std::string_view path) {
  constexpr std::string_view prefix = "char";
  if (!chardev_id.starts_with(prefix))
    return;
  const auto alias = chardev_id.substr(prefix.size());
  auto& devices = guest.devices;
  for (auto* list : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    for (auto& each : *list)
      if (each.alias == alias && each.source.type == chardev_type::pty) {
        each.source.first().path = path;
        if (each.kind == chardev_kind::console)
          each.tty = path;
      }
}

} // namespace troupe
