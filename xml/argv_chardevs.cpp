#include "xml/argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Character devices: what is on the host, and the ports and consoles of the guest.

namespace troupe {
namespace {

void add_reconnection(std::string& out, const chardev_end& end) {
  if (!end.reconnect)
    return;
  if (end.reconnect->enabled == yes_no::no)
    out += ",reconnect=0";
  else if (end.reconnect->enabled == yes_no::yes)
    out += fmt::format(",reconnect={}", end.reconnect->timeout.value_or(0));
}

std::string socket_words(argv_builder& b, const chardev_source& source, const std::string& id) {
  const auto& end = source.first();
  const bool listens = end.mode == "bind" || (end.mode.empty() && source.type == chardev_type::unix_);
  std::string out;
  if (source.type == chardev_type::unix_) {
    out = ",path=" + escaped(end.path);
  } else {
    out = fmt::format(",host={},port={}", escaped(end.host), escaped(end.service));
    if (source.protocol == "telnet")
      out += ",telnet=on";
  }
  if (listens)
    out += ",server=on,wait=off";
  if (source.type == chardev_type::tcp && end.tls == yes_no::yes) {
    const auto credentials = fmt::format("obj{}_tls0", id);
    b.object(tls_credentials(credentials, listens, !listens));
    out += ",tls-creds=" + credentials;
  }
  if (!listens)
    add_reconnection(out, end);
  return out;
}

std::string udp_words(const chardev_source& source) {
  const auto* to = source.end("connect");
  const auto* from = source.end("bind");
  auto out = fmt::format(",host={},port={}", to ? escaped(to->host) : "", to ? escaped(to->service) : "");
  if (from)
    out += fmt::format(",localaddr={},localport={}", escaped(from->host),
                       from->service.empty() ? "0" : escaped(from->service));
  else
    out += ",localaddr=,localport=0";
  return out;
}

std::string file_words(const chardev_end& end) {
  auto out = ",path=" + escaped(end.path);
  if (end.append != on_off::unset)
    out += fmt::format(",append={}", word_of(end.append));
  return out;
}

const chardev_end& end_of(const chardev_source& source) {
  static const chardev_end none;
  return source.ends.empty() ? none : source.first();
}

void add_isa_place(ordered_json& out, const chardev& c) {
  put(out, "iobase", c.address.iobase);
  put(out, "irq", c.address.irq);
}

} // namespace

void add_chardev(argv_builder& b, const chardev_source& source, const std::string& id, std::string_view channel,
                 chardev_use use) {
  std::string backend, words;
  const auto& end = end_of(source);
  switch (source.type) {
  case chardev_type::null:
  case chardev_type::vc:
  case chardev_type::pty:
  case chardev_type::stdio:
    backend = word_of(source.type);
    break;
  case chardev_type::dev:
    backend = id.starts_with("charparallel") ? "parallel" : "serial";
    words = ",path=" + escaped(end.path);
    break;
  case chardev_type::file:
    backend = "file";
    words = file_words(end);
    break;
  case chardev_type::pipe:
    backend = "pipe";
    words = ",path=" + escaped(end.path);
    break;
  case chardev_type::udp:
    backend = "udp";
    words = udp_words(source);
    break;
  case chardev_type::tcp:
  case chardev_type::unix_:
    backend = "socket";
    words = socket_words(b, source, id);
    break;
  case chardev_type::spicevmc:
    backend = "spicevmc";
    words = use == chardev_use::usb_redirection                  ? ",name=usbredir"
            : channel == "com.redhat.spice.0" || channel.empty() ? ",name=vdagent"
                                                                 : ",name=" + escaped(channel);
    break;
  case chardev_type::spiceport:
    backend = "spiceport";
    words = ",name=" + escaped(end.channel);
    break;
  case chardev_type::qemu_vdagent:
    backend = "qemu-vdagent";
    words = ",name=vdagent";
    if (end.clipboard_copypaste != yes_no::unset)
      words += fmt::format(",clipboard={}", end.clipboard_copypaste == yes_no::yes ? "on" : "off");
    if (!end.mouse_mode.empty())
      words += fmt::format(",mouse={}", end.mouse_mode == "client" ? "on" : "off");
    break;
  case chardev_type::dbus:
    backend = "dbus";
    words = ",name=" + escaped(end.channel);
    break;
  case chardev_type::nmdm:
  case chardev_type::unset:
    b.refuse(
      fmt::format("the character device '{}' is of type '{}', which QEMU does not have; use pty, file, unix or tcp", id,
                  word_of(source.type)));
  }
  auto out = fmt::format("{},id={}{}", backend, id, words);
  if (!source.log_file.empty()) {
    out += ",logfile=" + escaped(source.log_file);
    if (source.log_append != on_off::unset)
      out += fmt::format(",logappend={}", word_of(source.log_append));
  }
  b.option("-chardev", out);
}

std::string channel_socket(const run_settings& run, const domain& guest, const chardev& channel) {
  const emulator_facts none;
  return run.generic_taps ? fmt::format("{}/channel/target/{}/{}", run.state_dir,
                                        argv_builder{guest, none, run}.domain_dir(), channel.target_name)
                          : fmt::format("{}/{}.sock", run.run_dir, channel.alias);
}

void add_serials(argv_builder& b) {
  for (const auto& c : b.guest.devices.serials) {
    const auto id = "char" + c.alias;
    add_chardev(b, c.source, id);
    auto model = c.target_model;
    if (model.empty())
      model = c.target_type.empty() ? "isa-serial" : c.target_type;
    if (model == "pl011" || model == "16550a" || model == "system-serial") {
      b.option("-serial", "chardev:" + id);
      continue;
    }
    ordered_json out{{"driver", model}, {"chardev", id}, {"id", c.alias}};
    if (model == "isa-serial") {
      out["index"] = c.target_port.value_or(0);
      add_isa_place(out, c);
    } else {
      put_address(out, b, c);
    }
    b.device(out);
  }
}

void add_parallels(argv_builder& b) {
  for (const auto& c : b.guest.devices.parallels) {
    const auto id = "char" + c.alias;
    add_chardev(b, c.source, id);
    ordered_json out{{"driver", "isa-parallel"}, {"chardev", id}, {"id", c.alias}};
    add_isa_place(out, c);
    b.device(out);
  }
}

namespace {

void put_port(ordered_json& out, const argv_builder& b, const chardev& c) {
  if (!c.address.is(address_type::virtio_serial))
    return;
  out["bus"] = fmt::format(
    "{}.{}", b.controller_id(controller_type::virtio_serial, static_cast<int>(c.address.controller)), c.address.bus);
  unsigned number = 0;
  for (const char digit : c.address.port)
    if (digit >= '0' && digit <= '9' && number < 100'000)
      number = number * 10 + static_cast<unsigned>(digit - '0');
  out["nr"] = number;
}

} // namespace

void add_channels(argv_builder& b) {
  for (const auto& c : b.guest.devices.channels) {
    if (c.target_type == "xen")
      b.refuse(fmt::format("channel '{}' is Xen's; use <target type='virtio'>", c.target_name));
    const auto id = "char" + c.alias;
    auto source = c.source;
    if (source.type == chardev_type::unix_ && end_of(source).path.empty()) {
      if (source.ends.empty())
        source.ends.emplace_back();
      source.first().mode = "bind";
      source.first().path = channel_socket(b.run, b.guest, c);
    }
    auto name = c.target_name;
    if (name.empty() && c.source.type == chardev_type::spicevmc)
      name = "com.redhat.spice.0";
    add_chardev(b, source, id, name);
    if (c.target_type == "guestfwd") {
      b.netdev({{"type", "user"},
                {"guestfwd",
                 {{{"str", fmt::format("tcp:{}:{}-chardev:{}", c.target_address, c.target_port.value_or(0), id)}}}},
                {"id", c.alias}});
      continue;
    }
    ordered_json out{{"driver", "virtserialport"}};
    put_port(out, b, c);
    out["chardev"] = id;
    out["id"] = c.alias;
    put(out, "name", name);
    b.device(out);
  }
}

void add_consoles(argv_builder& b) {
  for (const auto& c : b.guest.devices.consoles) {
    if (c.target_type == "serial" || c.target_type.empty())
      continue; // the first serial port once more
    const auto id = "char" + c.alias;
    if (c.target_type == "virtio") {
      add_chardev(b, c.source, id);
      ordered_json out{{"driver", "virtconsole"}};
      put_port(out, b, c);
      out["chardev"] = id;
      out["id"] = c.alias;
      b.device(out);
    } else if (c.target_type == "sclp" || c.target_type == "sclplm") {
      add_chardev(b, c.source, id);
      b.device(
        {{"driver", c.target_type == "sclp" ? "sclpconsole" : "sclplmconsole"}, {"chardev", id}, {"id", c.alias}});
    } else {
      b.refuse(fmt::format("console '{}' has target type '{}', which QEMU does not have; use 'serial' or 'virtio'",
                           c.alias, c.target_type));
    }
  }
}

void add_smartcards(argv_builder& b) {
  for (const auto& card : b.guest.devices.smartcards) {
    ordered_json out;
    if (card.mode == "host") {
      out = {{"driver", "ccid-card-emulated"}, {"backend", "nss-emulated"}};
    } else if (card.mode == "host-certificates") {
      out = {{"driver", "ccid-card-emulated"}, {"backend", "certificates"}};
      for (std::size_t i = 0; i < card.certificates.size(); ++i)
        out[fmt::format("cert{}", i + 1)] = card.certificates[i];
      out["db"] = card.database.empty() ? "/etc/pki/nssdb" : card.database;
    } else {
      add_chardev(b, card.source, "char" + card.alias, "smartcard");
      out = {{"driver", "ccid-card-passthru"}, {"chardev", "char" + card.alias}};
    }
    out["id"] = card.alias;
    put_address(out, b, card);
    b.device(out);
  }
}

} // namespace troupe
