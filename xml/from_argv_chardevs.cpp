#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Character devices: what is on the host, and the ports and consoles of the guest.

namespace troupe {
namespace {

struct backend_row {
  std::string_view backend;
  chardev_type type;
};
constexpr backend_row backends[] = {
  {"dbus", chardev_type::dbus},
  {"file", chardev_type::file},
  {"null", chardev_type::null},
  {"parallel", chardev_type::dev},
  {"parport", chardev_type::dev},
  {"pipe", chardev_type::pipe},
  {"pty", chardev_type::pty},
  {"qemu-vdagent", chardev_type::qemu_vdagent},
  {"serial", chardev_type::dev},
  {"socket", chardev_type::unset},
  {"spiceport", chardev_type::spiceport},
  {"spicevmc", chardev_type::spicevmc},
  {"stdio", chardev_type::stdio},
  {"tty", chardev_type::dev},
  {"udp", chardev_type::udp},
  {"vc", chardev_type::vc},
};

void read_socket(argv_import& in, line_option& option, chardev_source& into) {
  auto& end = into.ends.emplace_back();
  const bool listens = in.flag(option, "server").value_or(false);
  end.mode = listens ? "bind" : "connect";
  option.props.drop("wait"); // a guest's start never waits for a client
  if (const auto* path = option.props.take("path")) {
    into.type = chardev_type::unix_;
    end.path = *path;
    option.props.drop("fd"); // the same socket, opened by who ran the line
  } else {
    into.type = chardev_type::tcp;
    in.read(option, "host", end.host);
    if (end.host.empty() && listens)
      end.host = "0.0.0.0";
    in.read(option, "port", end.service);
    into.protocol = in.flag(option, "telnet") == true ? "telnet" : "raw";
  }
  for (const std::string_view usual : {"nodelay", "delay"})
    option.props.drop(usual);
  if (const auto seconds = in.number(option, "reconnect")) {
    auto& reconnect = end.reconnect.emplace();
    reconnect.enabled = *seconds == 0 ? yes_no::no : yes_no::yes;
    if (*seconds != 0)
      reconnect.timeout = static_cast<unsigned>(*seconds);
  }
  if (const auto* credentials = option.props.take("tls-creds")) {
    end.tls = yes_no::yes;
    if (auto* object = in.find("-object", *credentials)) {
      in.take(*object);
      for (const std::string_view known : {"qom-type", "id", "dir", "endpoint", "verify-peer"})
        object->props.drop(known);
    }
  }
}

void read_udp(argv_import& in, line_option& option, chardev_source& into) {
  auto& to = into.ends.emplace_back();
  to.mode = "connect";
  in.read(option, "host", to.host);
  in.read(option, "port", to.service);
  chardev_end from;
  from.mode = "bind";
  in.read(option, "localaddr", from.host);
  in.read(option, "localport", from.service);
  if (from.service == "0")
    from.service.clear();
  if (!from.host.empty() || !from.service.empty())
    into.ends.insert(into.ends.begin(), std::move(from));
}

bool read_backend_of(argv_import& in, line_option& option, chardev_source& into) {
  auto& props = option.props;
  const auto* backend = props.take("backend");
  const auto row =
    backend == nullptr ? std::end(backends) : std::ranges::find(backends, *backend, &backend_row::backend);
  if (row == std::end(backends))
    return false;
  props.drop("id");
  into.type = row->type;
  in.read(option, "logfile", into.log_file);
  in.read(option, "logappend", into.log_append);
  if (*backend == "socket") {
    read_socket(in, option, into);
    return true;
  }
  if (*backend == "udp") {
    read_udp(in, option, into);
    return true;
  }
  auto& end = into.ends.emplace_back();
  switch (into.type) {
  case chardev_type::spicevmc:
    into.ends.clear();
    break; // whose name is the channel's
  case chardev_type::spiceport:
  case chardev_type::dbus:
    in.read(option, "name", end.channel);
    break;
  case chardev_type::qemu_vdagent:
    into.ends.clear();
    props.drop("name");
    if (props.has("clipboard") || props.has("mouse")) {
      auto& agent = into.ends.emplace_back();
      in.read(option, "clipboard", agent.clipboard_copypaste);
      if (const auto mouse = in.flag(option, "mouse"))
        agent.mouse_mode = *mouse ? "client" : "server";
    }
    break;
  case chardev_type::file:
  case chardev_type::pipe:
  case chardev_type::dev:
    in.read(option, "path", end.path);
    in.read(option, "append", end.append);
    break;
  default:
    into.ends.clear();
    props.drop("signal");
  }
  return true;
}

/// What -serial and its like name in one word: "unix:PATH,server=on", "telnet:HOST:PORT", "file:PATH", "pty".
bool read_word_backend(argv_import& in, const line_option& option, std::string_view word, chardev_source& into) {
  if (word.starts_with("mon:")) {
    in.note(option, "the monitor in it is left out: it is the supervisor's");
    word.remove_prefix(4);
  }
  if (word.starts_with("chardev:"))
    return read_chardev(in, word.substr(8), into);
  const auto colon = word.find(':');
  const auto kind = word.substr(0, colon);
  const auto rest = colon == std::string_view::npos ? std::string_view{} : word.substr(colon + 1);
  struct word_row {
    std::string_view word;
    chardev_type type;
  };
  constexpr word_row alone[] = {
    {"null", chardev_type::null}, {"pty", chardev_type::pty}, {"stdio", chardev_type::stdio}, {"vc", chardev_type::vc}};
  if (const auto row = std::ranges::find(alone, kind, &word_row::word); row != std::end(alone)) {
    into.type = row->type;
    return rest.empty() || kind == "vc"; // a size of the console is nobody's
  }
  if (word.starts_with("/dev/") || kind == "file" || kind == "pipe") {
    into.type = kind == "file" ? chardev_type::file : kind == "pipe" ? chardev_type::pipe : chardev_type::dev;
    into.ends.emplace_back().path = word.starts_with("/dev/") ? word : rest;
    return true;
  }
  if (kind == "udp") {
    into.type = chardev_type::udp;
    const auto at = rest.find('@');
    const auto remote = rest.substr(0, at);
    auto& to = into.ends.emplace_back();
    to.mode = "connect";
    const auto middle = remote.find_last_of(':');
    to.host = remote.substr(0, middle);
    if (middle != std::string_view::npos)
      to.service = remote.substr(middle + 1);
    if (at != std::string_view::npos) {
      const auto local = rest.substr(at + 1);
      const auto port = local.find_last_of(':');
      chardev_end from;
      from.mode = "bind";
      from.host = local.substr(0, port);
      if (port != std::string_view::npos)
        from.service = local.substr(port + 1);
      into.ends.insert(into.ends.begin(), std::move(from));
    }
    return true;
  }
  if (kind != "tcp" && kind != "telnet" && kind != "unix")
    return false;
  auto properties = option_properties(rest, "place");
  if (!properties)
    return false;
  auto& end = into.ends.emplace_back();
  const auto* place = properties->take("place");
  if (place == nullptr)
    return false;
  const auto* server = properties->take("server");
  end.mode = server != nullptr && switch_of(*server).value_or(false) ? "bind" : "connect";
  for (const std::string_view usual : {"wait", "nodelay"})
    properties->drop(usual);
  if (properties->unused() != nullptr)
    return false;
  if (kind == "unix") {
    into.type = chardev_type::unix_;
    end.path = *place;
    return true;
  }
  into.type = chardev_type::tcp;
  into.protocol = kind == "telnet" ? "telnet" : "raw";
  const auto last = place->find_last_of(':');
  if (last == std::string::npos)
    in.refuse(option, "a TCP place is HOST:PORT");
  end.host = place->substr(0, last);
  if (end.host.empty())
    end.host = "0.0.0.0";
  end.service = place->substr(last + 1);
  return true;
}

/// "virtio-serial0.0" and the port's number.
bool read_port(argv_import& in, line_option& option, chardev& c) {
  const auto* bus = option.props.take("bus");
  const auto number = in.number(option, "nr");
  int index = 0;
  if (bus != nullptr) {
    const auto found =
      in.bus_index(controller_type::virtio_serial, std::string_view{*bus}.substr(0, bus->find_last_of('.')));
    if (!found)
      return false;
    index = *found;
  }
  if (!number)
    return index == 0;
  c.address.type = address_type::virtio_serial;
  c.address.controller = static_cast<unsigned>(index);
  c.address.port = fmt::format("{}", *number);
  return true;
}

bool take_chardev(argv_import& in, line_option& option, chardev_source& into) {
  const auto* id = option.props.take("chardev");
  return id != nullptr && read_chardev(in, *id, into);
}

/// Whether the socket is one that a daemon makes for a run.
bool is_channel_path(const chardev_end& end, const std::string& name) {
  return end.mode == "bind" && is_run_path(end.path) && end.path.find("/channel/") != std::string::npos &&
         end.path.ends_with("/" + name);
}

bool read_virtio_port(argv_import& in, line_option& option, const device_name& name) {
  chardev c;
  const bool console = name.base == "virtconsole";
  c.kind = console ? chardev_kind::console : chardev_kind::channel;
  c.target_type = "virtio";
  in.read(option, "name", c.target_name);
  read_identity(in, option, c);
  if (!take_chardev(in, option, c.source) || !read_port(in, option, c))
    return false;
  if (c.source.type == chardev_type::spicevmc) {
    auto* taken = in.last_taken("-chardev");
    if (taken != nullptr)
      taken->props.drop("name",
                        c.target_name == "com.redhat.spice.0" || c.target_name.empty() ? "vdagent" : c.target_name);
  }
  // A channel's socket in a run's own folder is named anew at each start.
  if (c.source.type == chardev_type::unix_ && is_channel_path(c.source.first(), c.target_name))
    c.source.ends.clear();
  (console ? in.guest.devices.consoles : in.guest.devices.channels).push_back(std::move(c));
  return true;
}

bool read_serial_device(argv_import& in, line_option& option, const device_name& name) {
  chardev c;
  c.kind = chardev_kind::serial;
  c.target_type = name.base;
  c.target_model = name.base;
  if (name.base == "spapr-vty")
    c.target_type = "spapr-vio-serial";
  read_identity(in, option, c);
  if (name.base == "isa-serial") {
    c.target_port = static_cast<int>(
      std::min<std::uint64_t>(in.number(option, "index").value_or(in.guest.devices.serials.size()), 255));
    c.address.iobase = in.number(option, "iobase");
    c.address.irq = in.number(option, "irq");
    if (c.address.iobase || c.address.irq)
      c.address.type = address_type::isa;
  } else if (name.base == "usb-serial" ? !read_usb_place(in, option, c) : !read_pci_place(in, option, c)) {
    return false;
  }
  if (!take_chardev(in, option, c.source))
    return false;
  in.guest.devices.serials.push_back(std::move(c));
  return true;
}

bool read_parallel_device(argv_import& in, line_option& option, const device_name&) {
  chardev c;
  c.kind = chardev_kind::parallel;
  read_identity(in, option, c);
  c.target_port = static_cast<int>(in.guest.devices.parallels.size());
  option.props.drop("index");
  c.address.iobase = in.number(option, "iobase");
  c.address.irq = in.number(option, "irq");
  if (c.address.iobase || c.address.irq)
    c.address.type = address_type::isa;
  if (!take_chardev(in, option, c.source))
    return false;
  in.guest.devices.parallels.push_back(std::move(c));
  return true;
}

bool read_sclp(argv_import& in, line_option& option, const device_name& name) {
  chardev c;
  c.kind = chardev_kind::console;
  c.target_type = name.base == "sclpconsole" ? "sclp" : "sclplm";
  read_identity(in, option, c);
  if (!take_chardev(in, option, c.source))
    return false;
  in.guest.devices.consoles.push_back(std::move(c));
  return true;
}

bool read_redirection(argv_import& in, line_option& option, const device_name&) {
  redirdev r;
  r.bus = "usb";
  read_identity(in, option, r);
  if (!read_usb_place(in, option, r) || !take_chardev(in, option, r.source))
    return false;
  if (auto* taken = in.last_taken("-chardev"))
    taken->props.drop("name", "usbredir");
  if (const auto* filter = option.props.take("filter")) {
    // Rules "class:vendor:product:version:allow" between bars; libvirt has one filter for all.
    usb_filter all;
    for (std::size_t at = 0; at < filter->size();) {
      const auto end = std::min(filter->find('|', at), filter->size());
      auto& rule = all.rules.emplace_back();
      std::string allow;
      auto start = at;
      for (auto* field : {&rule.class_id, &rule.vendor, &rule.product, &rule.version, &allow}) {
        const auto stop = std::min(filter->find(':', start), end);
        *field = filter->substr(start, stop - start);
        if (*field == "-1")
          field->clear();
        start = std::min(stop + 1, end);
      }
      if (const auto number = number_of(rule.version))
        rule.version = fmt::format("{:x}.{:02x}", *number >> 8, *number & 0xff);
      rule.allow = allow == "1" ? yes_no::yes : yes_no::no;
      at = end + 1;
    }
    in.guest.devices.redirfilter = std::move(all);
  }
  in.guest.devices.redirdevs.push_back(std::move(r));
  return true;
}

bool read_smartcard(argv_import& in, line_option& option, const device_name& name) {
  smartcard card;
  auto& props = option.props;
  read_identity(in, option, card);
  if (const auto* bus = props.take("bus")) {
    const auto index = in.bus_index(controller_type::ccid, std::string_view{*bus}.substr(0, bus->find_last_of('.')));
    if (!index)
      return false;
    card.address.type = address_type::ccid;
    card.address.controller = static_cast<unsigned>(*index);
  }
  if (name.base == "ccid-card-passthru") {
    card.mode = "passthrough";
    if (!take_chardev(in, option, card.source))
      return false;
    if (auto* taken = in.last_taken("-chardev"))
      taken->props.drop("name", "smartcard");
  } else {
    const auto* backend = props.take("backend");
    card.mode = backend != nullptr && *backend == "certificates" ? "host-certificates" : "host";
    for (const std::string_view key : {"cert1", "cert2", "cert3"})
      if (const auto* certificate = props.take(key))
        card.certificates.push_back(*certificate);
    in.read(option, "db", card.database);
    if (card.database == "/etc/pki/nssdb")
      card.database.clear();
  }
  in.guest.devices.smartcards.push_back(std::move(card));
  return true;
}

bool read_tpm(argv_import& in, line_option& option, const device_name& name) {
  tpm_device tpm;
  tpm.model = name.base;
  const auto* id = option.props.take("tpmdev");
  auto* backend = id == nullptr ? nullptr : in.find("-tpmdev", *id);
  if (backend == nullptr)
    return false;
  in.take(*backend);
  backend->props.drop("id");
  const auto* type = backend->props.take("type");
  if (type == nullptr)
    return false;
  if (*type == "passthrough") {
    tpm.backend = "passthrough";
    tpm.device_path = "/dev/tpm0";
    in.read(*backend, "path", tpm.device_path);
    backend->props.drop("cancel-path");
  } else if (*type == "emulator") {
    chardev_source socket;
    if (!take_chardev(in, *backend, socket))
      return false;
    const bool ours = socket.type != chardev_type::unix_ || socket.first().path.find("swtpm") != std::string::npos;
    tpm.backend = ours && in.is_libvirts ? "emulator" : "external";
    if (tpm.backend == "external") {
      tpm.source_type = "unix";
      tpm.source_mode = "connect";
      tpm.source_path = socket.first().path;
    } else {
      tpm.version = "2.0";
    }
  } else {
    return false;
  }
  read_identity(in, option, tpm);
  if (name.base == "tpm-spapr" && !in.is_pseries())
    return false;
  in.guest.devices.tpms.push_back(std::move(tpm));
  return true;
}

/// "tcp:ADDRESS:PORT-chardev:ID" of a user network without a card: a channel.
bool read_guest_forward(argv_import& in, line_option& option, std::string_view rule) {
  constexpr std::string_view protocol = "tcp:", mark = "-chardev:";
  const auto dash = rule.find(mark);
  if (!rule.starts_with(protocol) || dash == std::string_view::npos)
    return false;
  const auto place = rule.substr(protocol.size(), dash - protocol.size());
  const auto colon = place.find_last_of(':');
  const auto port = colon == std::string_view::npos ? std::nullopt : number_of(place.substr(colon + 1));
  if (!port || *port > 65'535)
    return false;
  option.props.drop("type"), option.props.drop("id");
  chardev c;
  c.kind = chardev_kind::channel;
  c.target_type = "guestfwd";
  c.target_address = place.substr(0, colon);
  c.target_port = static_cast<int>(*port);
  if (!read_chardev(in, rule.substr(dash + mark.size()), c.source))
    return false;
  in.guest.devices.channels.push_back(std::move(c));
  return true;
}

constexpr device_row chardev_rows[] = {
  {"ccid-card-emulated", read_smartcard},
  {"ccid-card-passthru", read_smartcard},
  {"isa-parallel", read_parallel_device},
  {"isa-serial", read_serial_device},
  {"pci-serial", read_serial_device},
  {"sclpconsole", read_sclp},
  {"sclplmconsole", read_sclp},
  {"spapr-vty", read_serial_device},
  {"tpm-crb", read_tpm},
  {"tpm-spapr", read_tpm},
  {"tpm-tis", read_tpm},
  {"usb-redir", read_redirection},
  {"usb-serial", read_serial_device},
  {"virtconsole", read_virtio_port},
  {"virtserialport", read_virtio_port},
};

} // namespace

device_reader chardev_reader(std::string_view base) {
  const auto row = std::ranges::find(chardev_rows, base, &device_row::driver);
  return row == std::end(chardev_rows) ? nullptr : row->read;
}

bool read_chardev(argv_import& in, std::string_view id, chardev_source& into) {
  auto* option = in.find("-chardev", id);
  if (option == nullptr)
    return false;
  in.take(*option);
  return read_backend_of(in, *option, into);
}

/// A connection waits for its card, unless it is a channel.
void read_netdev(argv_import& in, line_option& option) {
  for (const std::string_view key : {"guestfwd.0.str", "guestfwd"})
    if (option.props.has(key))
      in.attempt(option, [&] { return read_guest_forward(in, option, *option.props.take(key)); });
}

void read_serial(argv_import& in, line_option& option) {
  in.serial_given = true;
  if (*option.value == "none") {
    option.done = true;
    return;
  }
  in.attempt(option, [&] {
    chardev c;
    c.kind = chardev_kind::serial;
    c.target_port = static_cast<int>(in.guest.devices.serials.size());
    if (in.is_x86())
      c.target_type = c.target_model = "isa-serial";
    if (!read_word_backend(in, option, *option.value, c.source))
      return false;
    in.guest.devices.serials.push_back(std::move(c));
    return true;
  });
}

void read_parallel(argv_import& in, line_option& option) {
  if (*option.value == "none") {
    option.done = true;
    return;
  }
  in.attempt(option, [&] {
    chardev c;
    c.kind = chardev_kind::parallel;
    c.target_port = static_cast<int>(in.guest.devices.parallels.size());
    if (!read_word_backend(in, option, *option.value, c.source))
      return false;
    in.guest.devices.parallels.push_back(std::move(c));
    return true;
  });
}

/// -monitor, -qmp and -mon, with the chardev of the last two when nothing else has it.
void read_monitor(argv_import& in, line_option& option) {
  option.done = true;
  if (!in.is_libvirts && option.value != "none")
    in.note(option, "left out: the monitor is the supervisor's");
  constexpr std::string_view by_name = "chardev:";
  std::string id;
  if (option.name == "-mon")
    in.read(option, "chardev", id);
  else if (option.value->starts_with(by_name))
    id = option.value->substr(by_name.size());
  if (auto* chardev = in.find("-chardev", id))
    if (std::ranges::none_of(in.options, [&](const auto& o) {
          const auto* used = o.props.peek("chardev");
          return !o.done && ((used != nullptr && *used == id) || (o.value && *o.value == "chardev:" + id));
        }))
      chardev->done = true;
}

void finish_chardevs(argv_import& in) {
  // -nographic puts the first serial port on the terminal, which a supervised guest does not have.
  if (!in.terminal || in.serial_given || in.no_defaults || !in.guest.devices.serials.empty())
    return;
  chardev c;
  c.kind = chardev_kind::serial;
  c.source.type = chardev_type::pty;
  c.target_port = 0;
  in.guest.devices.serials.push_back(std::move(c));
  in.notes.emplace_back("the serial port on QEMU's terminal becomes one on a PTY: 'virsh console' reaches it");
}

} // namespace troupe
