#include "xml/argv_tables.hpp"
#include "xml/domain_values.hpp"
#include "xml/from_argv_parts.hpp"

#include <algorithm>
#include <fmt/format.h>

// Disks, their images as block nodes or as one word, firmware flash and shared directories.

namespace troupe {
namespace {

// ---- an image named in one word

/// The usage libvirt's import gave to secrets whose value stood on the command line: the value itself is not kept.
constexpr std::string_view imported_secret = "qemuargv2xml_usage";

void set_path(storage_source& source, std::string_view path) {
  if (path.starts_with("file:"))
    path.remove_prefix(5);
  source.type = path.starts_with("/dev/") && !path.starts_with("/dev/shm/") ? storage_type::block : storage_type::file;
  source.path = path;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() && parse_number(text.substr(i + 1, 2), byte, 16)) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// "host:port", "[::1]:port" or "host".
host_address host_of(std::string_view text) {
  host_address out;
  if (text.starts_with('[')) {
    const auto end = std::min(text.find(']'), text.size());
    out.name = text.substr(1, end - 1);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (text.starts_with(':'))
      out.port = text.substr(1);
    return out;
  }
  const auto colon = text.find(':');
  out.name = text.substr(0, colon);
  if (colon != std::string_view::npos)
    out.port = text.substr(colon + 1);
  return out;
}

/// Up to the next such character that has no backslash before it; the backslashes go.
std::string next_field(std::string_view text, std::size_t& at, char end) {
  std::string out;
  for (; at < text.size() && text[at] != end; ++at) {
    if (text[at] == '\\' && at + 1 < text.size())
      ++at;
    out += text[at];
  }
  ++at;
  return out;
}

void add_secret(argv_import& in, const line_option& option, std::optional<disk_auth>& auth, std::string user,
                std::string_view type) {
  auth.emplace().username = std::move(user);
  auto& secret = auth->secret.emplace();
  secret.type = type;
  secret.usage = imported_secret;
  in.notes.push_back(fmt::format("{}: the password of a network disk is not kept; define a secret of usage '{}' for it",
                                 option.written, imported_secret));
}

/// "rbd:pool/image@snapshot:key=value:..."
void set_rbd(argv_import& in, const line_option& option, disk& d, std::string_view text) {
  auto& source = d.source;
  std::size_t at = 0;
  source.name = next_field(text, at, ':');
  if (const auto snapshot = source.name.find('@'); snapshot != std::string::npos) {
    source.snapshot = source.name.substr(snapshot + 1);
    source.name.resize(snapshot);
  }
  while (at < text.size()) {
    const auto field = next_field(text, at, ':');
    if (field.starts_with("id=")) {
      add_secret(in, option, d.auth, field.substr(3), "ceph");
    } else if (field.starts_with("conf=")) {
      source.config_file = field.substr(5);
    } else if (field.starts_with("mon_host=")) {
      const auto hosts = field.substr(9);
      for (std::size_t start = 0; start < hosts.size();) {
        const auto end = std::min(hosts.find_first_of(";,", start), hosts.size());
        source.hosts.push_back(host_of(std::string_view{hosts}.substr(start, end - start)));
        start = end + 1;
      }
    } else if (!field.starts_with("key=") && !field.starts_with("auth_supported=")) {
      in.note(option, fmt::format("'{}' of the rbd image is left out: domain XML has no words for it", field));
    }
  }
}

/// "scheme[+transport]://[user[:password]@]host[:port]/name[?query]"
void set_url(argv_import& in, const line_option& option, disk& d, std::string_view scheme, std::string_view rest) {
  auto& source = d.source;
  host_address host;
  const auto plus = scheme.find('+');
  if (plus != std::string_view::npos)
    host.transport = scheme.substr(plus + 1);
  const auto slash = std::min(rest.find('/'), rest.size());
  auto authority = rest.substr(0, slash);
  auto path = rest.substr(std::min(slash + 1, rest.size()));
  if (const auto user = authority.find_last_of('@'); user != std::string_view::npos) {
    const auto name = authority.substr(0, user);
    add_secret(in, option, d.auth, percent_decoded(name.substr(0, name.find(':'))),
               source.protocol == net_protocol::iscsi ? "iscsi" : "volume");
    authority.remove_prefix(user + 1);
  }
  if (const auto question = path.find('?'); question != std::string_view::npos) {
    const auto query = path.substr(question + 1);
    if (query.starts_with("socket="))
      host.socket = percent_decoded(query.substr(7));
    else
      source.query = query;
    path = path.substr(0, question);
  }
  source.name = percent_decoded(path);
  if (host.transport == "unix") {
    source.hosts.push_back(std::move(host));
    return;
  }
  auto place = host_of(authority);
  place.transport = host.transport == "tcp" ? "" : host.transport;
  source.hosts.push_back(std::move(place));
}

/// "nbd:host:port[:exportname=name]" or "nbd:unix:path[:exportname=name]"
void set_nbd(storage_source& source, std::string_view text) {
  constexpr std::string_view mark = ":exportname=";
  if (const auto name = text.find(mark); name != std::string_view::npos) {
    source.name = text.substr(name + mark.size());
    text = text.substr(0, name);
  }
  host_address host;
  if (text.starts_with("unix:")) {
    host.transport = "unix";
    host.socket = text.substr(5);
  } else {
    host = host_of(text);
  }
  source.hosts.push_back(std::move(host));
}

/// Reads what -drive file= and -hda name. False: it is of a kind XML has no words for.
bool read_file_word(argv_import& in, const line_option& option, disk& d, std::string_view text) {
  auto& source = d.source;
  const auto network = [&](net_protocol protocol) {
    source.type = storage_type::network;
    source.protocol = protocol;
  };
  if (const auto colon = text.find("://"); colon != std::string_view::npos) {
    const auto scheme = text.substr(0, colon);
    const auto base = scheme.substr(0, scheme.find('+'));
    const auto row = std::ranges::find(protocols, base, &protocol_row::driver);
    if (row == std::end(protocols))
      return false;
    network(row->protocol);
    set_url(in, option, d, scheme, text.substr(colon + 3));
    return true;
  }
  if (text.starts_with("nbd:")) {
    network(net_protocol::nbd);
    set_nbd(source, text.substr(4));
    return true;
  }
  if (text.starts_with("rbd:")) {
    network(net_protocol::rbd);
    set_rbd(in, option, d, text.substr(4));
    return true;
  }
  if (text.starts_with("sheepdog:")) {
    network(net_protocol::sheepdog);
    const auto rest = text.substr(9);
    const auto last = rest.find_last_of(':');
    source.name = rest.substr(last == std::string_view::npos ? 0 : last + 1);
    if (last != std::string_view::npos)
      source.hosts.push_back(host_of(rest.substr(0, last)));
    return true;
  }
  if (text.starts_with("fat:")) {
    source.type = storage_type::dir;
    auto rest = text.substr(4);
    for (const std::string_view word : {"rw:", "floppy:", "32:", "16:", "12:"})
      if (rest.starts_with(word))
        rest.remove_prefix(word.size());
    source.path = rest;
    d.driver->type = image_format::fat;
    return true;
  }
  if (text.starts_with("json:"))
    return false;
  set_path(source, text);
  return true;
}

// ---- an image as block nodes

struct format_row {
  std::string_view driver;
  image_format format;
};
constexpr format_row formats[] = {
  {"raw", image_format::raw},     {"qcow2", image_format::qcow2},     {"qcow", image_format::qcow},
  {"qed", image_format::qed},     {"vmdk", image_format::vmdk},       {"vdi", image_format::vdi},
  {"vpc", image_format::vpc},     {"dmg", image_format::dmg},         {"bochs", image_format::bochs},
  {"cloop", image_format::cloop}, {"parallels", image_format::ploop},
};

/// Properties below a prefix: a node inside another is "file.driver", a node of its own is "driver".
struct block_node {
  line_option* option = nullptr;
  std::string prefix;

  std::string key(std::string_view name) const { return prefix + std::string{name}; }
  const std::string* take(std::string_view name) const { return option->props.take(key(name)); }
  const std::string* peek(std::string_view name) const { return option->props.peek(key(name)); }
  void drop(std::string_view name) const { option->props.drop(key(name)); }
};

struct image_reading {
  argv_import& in;
  disk& d;
  std::optional<bool> direct, no_flush;
  std::string copy_on_read; ///< The node that copies, when one does.
  bool readonly = false, floppy = false;
};

void read_server(const block_node& node, const std::string& at, host_address& host) {
  if (const auto* type = node.take(at + "type"); type != nullptr && *type == "unix")
    host.transport = "unix";
  if (const auto* path = node.take(at + "path"))
    host.socket = *path;
  if (const auto* name = node.take(at + "host"))
    host.name = *name;
  if (const auto* port = node.take(at + "port"); port != nullptr && *port != "0")
    host.port = *port;
}

void read_hosts(const block_node& node, storage_source& source) {
  if (node.option->props.has_below(node.key("server.0.")))
    for (unsigned i = 0; i < 64 && node.option->props.has_below(node.key(fmt::format("server.{}.", i))); ++i)
      read_server(node, fmt::format("server.{}.", i), source.hosts.emplace_back());
  else if (node.option->props.has_below(node.key("server.")))
    read_server(node, "server.", source.hosts.emplace_back());
}

std::string joined_name(const block_node& node, std::string_view first, std::string_view second) {
  const auto* a = node.take(first);
  const auto* b = node.take(second);
  return (a == nullptr ? "" : *a) + "/" + (b == nullptr ? "" : *b);
}

/// "name=value; name=value", as curl sends them.
std::vector<name_value> cookies_in(std::string_view text) {
  std::vector<name_value> out;
  while (!text.empty()) {
    const auto one = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(one.size() + 1, text.size()));
    const auto begin = std::min(one.find_first_not_of(' '), one.size());
    const auto equals = std::min(one.find('='), one.size());
    auto& cookie = out.emplace_back();
    cookie.name = one.substr(begin, equals - std::min(begin, equals));
    cookie.value = one.substr(std::min(equals + 1, one.size()));
  }
  return out;
}

bool read_network_node(argv_import& in, const block_node& node, const protocol_row& row, storage_source& source) {
  source.type = storage_type::network;
  source.protocol = row.protocol;
  const auto text = [&](std::string_view name, std::string& into) {
    if (const auto* value = node.take(name))
      into = *value;
  };
  switch (row.protocol) {
  case net_protocol::nbd:
    read_hosts(node, source);
    text("export", source.name);
    if (const auto* credentials = node.take("tls-creds")) {
      auto* object = in.find("-object", *credentials);
      if (object == nullptr)
        return false;
      in.take(*object);
      for (const std::string_view known : {"qom-type", "id", "dir", "endpoint", "verify-peer"})
        object->props.drop(known);
      source.tls = yes_no::yes;
      text("tls-hostname", source.tls_hostname);
    }
    break;
  case net_protocol::rbd:
    source.name = joined_name(node, "pool", "image");
    text("snapshot", source.snapshot);
    text("conf", source.config_file);
    read_hosts(node, source);
    break;
  case net_protocol::gluster:
    source.name = joined_name(node, "volume", "path");
    read_hosts(node, source);
    node.drop("debug");
    break;
  case net_protocol::iscsi: {
    source.name = joined_name(node, "target", "lun");
    std::string portal;
    text("portal", portal);
    auto host = host_of(portal);
    if (const auto* transport = node.take("transport"); transport != nullptr && *transport != "tcp")
      host.transport = *transport;
    source.hosts.push_back(std::move(host));
    text("initiator-name", source.initiator_iqn);
    break;
  }
  case net_protocol::sheepdog:
    read_hosts(node, source);
    text("vdi", source.name);
    break;
  case net_protocol::ssh:
  case net_protocol::nfs:
    text("path", source.name);
    read_hosts(node, source);
    break;
  case net_protocol::vxhs:
    text("vdisk-id", source.name);
    read_hosts(node, source);
    break;
  default: {
    std::string url;
    text("url", url);
    disk named;
    named.source.protocol = row.protocol;
    const auto colon = url.find("://");
    if (colon == std::string::npos)
      return false;
    set_url(in, *node.option, named, url.substr(0, colon), std::string_view{url}.substr(colon + 3));
    if (named.auth)
      return false;
    source.hosts = std::move(named.source.hosts);
    source.name = std::move(named.source.name);
    source.query = std::move(named.source.query);
    if (const auto* cookies = node.take("cookie-secret")) {
      auto* secret = in.find("-object", *cookies);
      const auto* data = secret == nullptr || secret->props.has("keyid") ? nullptr : secret->props.peek("data");
      const auto* format = data == nullptr ? nullptr : secret->props.peek("format");
      if (data != nullptr && (format == nullptr || *format == "raw"))
        source.cookies = cookies_in(*data);
      else
        in.note(*node.option,
                fmt::format("the cookies in secret '{}' are left out: their text is not on the command line", *cookies));
      if (secret != nullptr) {
        in.take(*secret);
        for (auto& each : secret->props.all)
          each.used = true;
      }
    }
    if (const auto* verify = node.take("sslverify"))
      source.ssl_verify = switch_of(*verify).value_or(true) ? yes_no::yes : yes_no::no;
    for (const auto& [name, into] : {std::pair{"timeout", &source.timeout}, std::pair{"readahead", &source.readahead}})
      if (const auto* value = node.take(name))
        *into = number_of(*value);
  }
  }
  return !source.name.empty() || row.protocol == net_protocol::nbd;
}

void read_node_cache(image_reading& r, const block_node& node) {
  if (const auto* direct = node.take("cache.direct"))
    r.direct = switch_of(*direct);
  if (const auto* no_flush = node.take("cache.no-flush"))
    r.no_flush = switch_of(*no_flush);
}

/// A node of a protocol: where the bytes are.
bool read_storage(image_reading& r, const block_node& node, storage_source& source) {
  node.drop("node-name");
  node.drop("auto-read-only");
  node.drop("discard");
  node.drop("read-only");
  read_node_cache(r, node);
  const auto* driver = node.take("driver");
  if (driver == nullptr)
    return false;
  if (*driver == "file" || *driver == "host_device" || *driver == "host_cdrom") {
    const auto* path = node.take("filename");
    if (path == nullptr)
      return false;
    source.type = *driver == "file" ? storage_type::file : storage_type::block;
    source.path = *path;
    if (node.peek("aio") != nullptr)
      r.in.read_word(*node.option, node.key("aio"), r.d.driver->io);
    if (const auto* manager = node.take("pr-manager")) {
      auto* helper = r.in.find("-object", *manager);
      if (helper == nullptr)
        return false;
      r.in.take(*helper);
      helper->props.drop("qom-type");
      helper->props.drop("id");
      auto& pr = source.pr.emplace();
      pr.type = "unix";
      pr.mode = "client";
      r.in.read(*helper, "path", pr.path);
      pr.managed = is_run_path(pr.path) ? yes_no::yes : yes_no::no;
      if (pr.managed == yes_no::yes)
        pr.type.clear(), pr.mode.clear(), pr.path.clear();
    }
    return true;
  }
  if (*driver == "vvfat") {
    source.type = storage_type::dir;
    if (const auto* dir = node.take("dir"))
      source.path = *dir;
    r.floppy = switch_of(node.peek("floppy") == nullptr ? "off" : *node.take("floppy")).value_or(false);
    node.drop("rw");
    return true;
  }
  if (*driver == "nvme") {
    const auto* place = node.take("device");
    const auto pci = place == nullptr ? std::nullopt : pci_place_of(*place);
    if (!pci)
      return false;
    source.type = storage_type::nvme;
    source.managed = yes_no::yes;
    source.nvme_address.emplace().pci = *pci;
    source.nvme_namespace = 1;
    if (const auto* number = node.take("namespace"))
      source.nvme_namespace = static_cast<unsigned>(number_of(*number).value_or(1));
    return true;
  }
  const auto row = std::ranges::find(protocols, *driver, &protocol_row::driver);
  return row != std::end(protocols) && read_network_node(r.in, node, *row, source);
}

/// The node that `name` of `node` refers to, or holds.
std::optional<block_node> node_below(image_reading& r, const block_node& node, std::string_view name) {
  if (const auto* reference = node.take(name)) {
    auto* found = r.in.find("-blockdev", *reference);
    if (found == nullptr)
      return std::nullopt;
    r.in.take(*found);
    return block_node{found, {}};
  }
  const auto prefix = node.key(name) + ".";
  return node.option->props.has_below(prefix) ? std::optional{block_node{node.option, prefix}} : std::nullopt;
}

constexpr unsigned longest_chain = 200;

/// A node of a format and what is below it. `into_backing`: where a backing image goes.
bool read_format(image_reading& r, const block_node& node, storage_source& source, image_format& format,
                 std::vector<backing_store>& into_backing, unsigned depth) {
  if (depth > longest_chain)
    r.in.refuse(*node.option,
                fmt::format("the chain of block nodes is longer than {} or goes round in a circle", longest_chain));
  const bool top = depth == 0;
  const auto* driver = node.peek("driver");
  if (driver == nullptr)
    return false;
  if (*driver == "copy-on-read" && top) {
    node.drop("driver");
    node.drop("discard");
    r.d.driver->copy_on_read = on_off::on;
    if (const auto* name = node.take("node-name"))
      r.copy_on_read = *name;
    const auto below = node_below(r, node, "file");
    return below && read_format(r, *below, source, format, into_backing, depth);
  }
  const auto row = std::ranges::find(formats, *driver, &format_row::driver);
  if (row == std::end(formats)) {
    format = image_format::raw; // no format node: QEMU takes the bytes as they are
    return read_storage(r, node, source);
  }
  format = row->format;
  node.drop("driver");
  node.drop("node-name");
  node.drop("auto-read-only");
  read_node_cache(r, node);
  if (const auto* readonly = node.take("read-only"); readonly != nullptr && top)
    r.readonly = switch_of(*readonly).value_or(false);
  if (top) {
    if (node.peek("discard") != nullptr)
      r.in.read_word(*node.option, node.key("discard"), r.d.driver->discard);
    if (node.peek("detect-zeroes") != nullptr)
      r.in.read_word(*node.option, node.key("detect-zeroes"), r.d.driver->detect_zeroes);
    if (const auto* size = node.take("cache-size"))
      r.d.driver->metadata_cache_size = amount_of(*size, 1);
  } else {
    node.drop("discard");
  }
  const auto slice = [&](const block_node& of) {
    const auto* offset = of.take("offset");
    const auto* size = of.take("size");
    if (offset == nullptr && size == nullptr)
      return;
    auto& made = source.slices.emplace_back();
    made.type = "storage";
    made.offset = offset == nullptr ? 0 : number_of(*offset).value_or(0);
    made.size = size == nullptr ? 0 : number_of(*size).value_or(0);
  };
  slice(node);
  auto below = node_below(r, node, "file");
  if (below && below->peek("driver") != nullptr && *below->peek("driver") == "raw") {
    slice(*below);
    for (const std::string_view known : {"driver", "node-name", "auto-read-only", "discard"})
      below->drop(known);
    below = node_below(r, *below, "file");
  }
  if (!below || !read_storage(r, *below, source))
    return false;
  if (source.type == storage_type::dir)
    format = image_format::fat;
  if (node.option->props.take_null(node.key("backing"))) {
    into_backing.emplace_back();
    return true;
  }
  if (node.peek("backing") == nullptr && !node.option->props.has_below(node.key("backing.")))
    return true;
  const auto next = node_below(r, node, "backing");
  if (!next)
    return false;
  backing_store store;
  if (!read_format(r, *next, store.source, store.format, store.next, depth + 1))
    return false;
  into_backing.push_back(std::move(store));
  return true;
}

// ---- -drive

void read_throttling(argv_import& in, line_option& option, disk& d) {
  disk_iotune tune;
  struct tune_row {
    std::string_view word, group;
    maybe_size disk_iotune::*field;
  };
  static constexpr tune_row tune_rows[] = {
    {"bps", "bps-total", &disk_iotune::total_bytes_sec},
    {"bps_rd", "bps-read", &disk_iotune::read_bytes_sec},
    {"bps_wr", "bps-write", &disk_iotune::write_bytes_sec},
    {"iops", "iops-total", &disk_iotune::total_iops_sec},
    {"iops_rd", "iops-read", &disk_iotune::read_iops_sec},
    {"iops_wr", "iops-write", &disk_iotune::write_iops_sec},
    {"bps_max", "bps-total-max", &disk_iotune::total_bytes_sec_max},
    {"bps_rd_max", "bps-read-max", &disk_iotune::read_bytes_sec_max},
    {"bps_wr_max", "bps-write-max", &disk_iotune::write_bytes_sec_max},
    {"iops_max", "iops-total-max", &disk_iotune::total_iops_sec_max},
    {"iops_rd_max", "iops-read-max", &disk_iotune::read_iops_sec_max},
    {"iops_wr_max", "iops-write-max", &disk_iotune::write_iops_sec_max},
    {"iops_size", "iops-size", &disk_iotune::size_iops_sec},
  };
  bool any = false;
  for (const auto& row : tune_rows)
    for (const auto& key : {std::string{row.word}, fmt::format("throttling.{}", row.group)})
      if (const auto value = in.number(option, key)) {
        any = any || *value != 0;
        tune.*row.field = *value == 0 ? std::nullopt : value;
      }
  in.read(option, "throttling.group", tune.group_name);
  if (any)
    d.iotune = std::move(tune);
}

void read_errors(argv_import& in, line_option& option, disk_driver& driver) {
  const auto read = [&](std::string_view key, disk_errors& into) {
    const auto* word = option.props.take(key);
    if (word == nullptr)
      return;
    constexpr std::pair<std::string_view, disk_errors> policies[] = {{"enospc", disk_errors::enospace},
                                                                     {"ignore", disk_errors::ignore},
                                                                     {"report", disk_errors::report},
                                                                     {"stop", disk_errors::stop}};
    for (const auto& [name, policy] : policies)
      if (*word == name)
        into = policy;
    if (into == disk_errors::unset)
      in.refuse_value(option, key, "enospc, ignore, report, stop");
  };
  read("werror", driver.error_policy);
  read("rerror", driver.rerror_policy);
  if (driver.rerror_policy == driver.error_policy)
    driver.rerror_policy = disk_errors::unset; // follows
}

/// What a -drive says of the image, whoever is its device.
bool read_drive_image(argv_import& in, line_option& option, disk& d) {
  auto& props = option.props;
  auto& driver = *d.driver;
  props.drop("id");
  if (const auto* media = props.take("media"); media != nullptr && *media == "cdrom")
    d.device_type = disk_device::cdrom;
  if (const auto* format = props.take("format")) {
    const auto row = std::ranges::find(formats, *format, &format_row::driver);
    if (row == std::end(formats))
      return false;
    driver.type = row->format;
  }
  const auto* cache = props.take("cache");
  if (cache != nullptr && *cache == "off")
    driver.cache = disk_cache::none;
  else if (cache != nullptr && *cache == "on")
    driver.cache = disk_cache::writeback;
  else if (cache != nullptr)
    in.read_word(option, "cache", driver.cache);
  in.read_word(option, "aio", driver.io);
  if (props.has("discard")) {
    props.drop("discard", "off");
    const auto* word = props.peek("discard");
    driver.discard = *word == "on" || *word == "unmap" ? disk_discard::unmap : disk_discard::ignore;
    props.drop("discard");
  }
  in.read_word(option, "detect-zeroes", driver.detect_zeroes);
  in.read(option, "copy-on-read", driver.copy_on_read);
  for (const std::string_view key : {"readonly", "read-only"})
    if (in.flag(option, key) == true)
      d.readonly = true;
  if (in.flag(option, "snapshot") == true)
    d.transient = true;
  props.drop("boot");
  in.read(option, "serial", d.serial);
  read_errors(in, option, driver);
  read_throttling(in, option, d);
  if (props.has("cyls")) {
    auto& geometry = d.geometry.emplace();
    geometry.cylinders = static_cast<unsigned>(in.number(option, "cyls").value_or(0));
    geometry.heads = static_cast<unsigned>(in.number(option, "heads").value_or(0));
    geometry.sectors = static_cast<unsigned>(in.number(option, "secs").value_or(0));
    in.read(option, "trans", geometry.translation);
  }
  props.drop("file.debug"); // of gluster: libvirt's own
  props.drop("file.locking", "off");
  if (const auto* file = props.take("file"))
    return file->empty() || read_file_word(in, option, d, *file);
  if (const auto* file = props.take("file.filename")) {
    props.drop("file.driver");
    set_path(d.source, *file);
    return true;
  }
  // What is named by properties of the file alone.
  if (props.has("file.driver")) {
    image_reading r{in, d, {}, {}, {}, {}, {}};
    return read_storage(r, block_node{&option, "file."}, d.source);
  }
  return true;
}

/// The image behind the node or drive of that name.
bool read_image(argv_import& in, const std::string& name, disk& d, std::optional<bool> write_cache,
                std::string& target) {
  auto* option = in.find_block(name);
  if (option == nullptr)
    return false;
  in.take(*option);
  if (option->name == "-drive") {
    const auto* interface = option->props.take("if");
    return (interface == nullptr || *interface == "none") && read_drive_image(in, *option, d);
  }
  image_reading r{in, d, {}, {}, {}, {}, {}};
  if (!read_format(r, block_node{option, {}}, d.source, d.driver->type, d.backing, 0))
    return false;
  constexpr std::string_view copying = "libvirt-CoR-";
  if (r.copy_on_read.starts_with(copying))
    target = r.copy_on_read.substr(copying.size());
  d.readonly = r.readonly;
  if (r.direct || r.no_flush) {
    const bool writes = write_cache.value_or(true);
    for (const auto& row : caches)
      if (row.direct == r.direct.value_or(false) && row.no_flush == r.no_flush.value_or(false) &&
          (row.write_cache == writes || row.no_flush))
        d.driver->cache = row.mode;
  }
  return true;
}

disk new_disk() {
  disk d;
  d.device_type = disk_device::disk;
  d.driver.emplace().name = "qemu";
  return d;
}

/// A CD-ROM is read-only, and a source without a type is an empty drive.
void settle(disk& d) {
  if (d.device_type == disk_device::cdrom)
    d.readonly = true;
  if (d.source.type == storage_type::unset)
    d.source.type = storage_type::file;
  if (d.driver->type == image_format::unset)
    d.driver->type = image_format::raw;
}

void set_drive_place(disk& d, unsigned controller, unsigned bus, unsigned target, unsigned unit) {
  d.address.type = address_type::drive;
  d.address.controller = controller;
  d.address.bus = bus;
  d.address.target = target;
  d.address.unit = unit;
}

/// A disk of the old kind, which brings its own device: by interface and index.
bool add_old_disk(argv_import& in, const line_option& option, disk&& d, std::string_view interface,
                  std::optional<unsigned> index) {
  struct interface_row {
    std::string_view name, prefix;
    disk_bus bus;
  };
  static constexpr interface_row interfaces[] = {{"ide", "hd", disk_bus::ide},
                                                 {"scsi", "sd", disk_bus::scsi},
                                                 {"virtio", "vd", disk_bus::virtio},
                                                 {"floppy", "fd", disk_bus::fdc},
                                                 {"sd", "sd", disk_bus::sd}};
  const auto row = std::ranges::find(interfaces, interface, &interface_row::name);
  if (row == std::end(interfaces))
    return false;
  d.bus = row->bus;
  auto prefix = row->prefix;
  if (row->bus == disk_bus::ide && in.is_q35()) {
    d.bus = disk_bus::sata;
    prefix = "sd";
  } else if (row->bus == disk_bus::ide && in.is_pseries()) {
    d.bus = disk_bus::scsi;
  } else if (row->bus == disk_bus::ide && !in.is_x86()) {
    d.bus = disk_bus::virtio;
    prefix = "vd";
  }
  if (row->bus == disk_bus::fdc)
    d.device_type = disk_device::floppy;
  settle(d);
  d.target = in.named_disk(prefix, index.value_or(in.free_disk(prefix)));
  if (d.target.empty())
    in.refuse(option, fmt::format("another disk is number {} of bus '{}': give it another index", index.value_or(0),
                                  interface));
  in.guest.devices.disks.push_back(std::move(d));
  return true;
}

} // namespace

void read_drive(argv_import& in, line_option& option) {
  auto& props = option.props;
  const auto* interface = props.peek("if");
  if (interface != nullptr && *interface == "none")
    return; // a device will name it
  if (interface != nullptr && *interface == "pflash") {
    const auto* unit = props.peek("unit");
    if (unit == nullptr)
      unit = props.peek("index");
    const auto number = unit == nullptr ? std::optional<std::uint64_t>{in.flash_units} : number_of(*unit);
    if (!number || *number > 1)
      in.refuse(option, "pflash has the units 0 (the firmware) and 1 (its variables)");
    in.attempt(option, [&] {
      props.drop("if"), props.drop("unit"), props.drop("index");
      return read_flash(in, option, static_cast<unsigned>(*number));
    });
    in.flash_units = static_cast<unsigned>(*number) + 1;
    return;
  }
  in.attempt(option, [&] {
    auto d = new_disk();
    props.drop("if");
    const auto bus = in.number(option, "bus");
    const auto unit = in.number(option, "unit");
    auto index = in.number(option, "index");
    const std::string_view kind =
      interface == nullptr ? in.is_x86() || in.is_pseries() ? "ide" : "virtio" : std::string_view{*interface};
    if (!index && (bus || unit)) {
      const auto on_bus = kind == "ide" && !in.is_q35() ? 2u : 7u;
      index = bus.value_or(0) * (kind == "ide" && in.is_q35() ? 1u : on_bus) + unit.value_or(0);
    }
    if (index && *index > 1000)
      in.refuse(option, fmt::format("disk {} is too many: the first 1000 are accepted", *index));
    if (!read_drive_image(in, option, d))
      return false;
    return add_old_disk(in, option, std::move(d), kind,
                        index ? std::optional{static_cast<unsigned>(*index)} : std::nullopt);
  });
}

void read_disk_letter(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    auto d = new_disk();
    const char letter = option.name.back();
    const bool cdrom = option.name == "-cdrom", floppy = option.name.starts_with("-fd");
    if (cdrom)
      d.device_type = disk_device::cdrom;
    return read_file_word(in, option, d, *option.value) &&
           add_old_disk(in, option, std::move(d), floppy ? "floppy" : "ide",
                        cdrom ? 2u : static_cast<unsigned>(letter - 'a'));
  });
}

void read_bare_image(argv_import& in, line_option& option) {
  if (option.written.empty())
    in.refuse(option, "an empty word is no disk image");
  in.attempt(option, [&] {
    auto d = new_disk();
    return read_file_word(in, option, d, option.written) && add_old_disk(in, option, std::move(d), "ide", 0u);
  });
}

// ---- firmware flash

bool read_flash(argv_import& in, line_option& option, unsigned unit) {
  auto d = new_disk();
  std::string ignored;
  const bool went = option.name == "-drive" ? read_drive_image(in, option, d)
                                            : read_image(in, *option.props.peek("node-name"), d, {}, ignored);
  if (!went || d.source.type == storage_type::unset)
    return false;
  auto& os = in.guest.os;
  const std::string format = d.driver->type == image_format::qcow2 ? "qcow2" : "";
  const bool is_path = d.source.type == storage_type::file || d.source.type == storage_type::block;
  if (unit == 0) {
    if (!is_path)
      return false;
    auto& loader = os.loader ? *os.loader : os.loader.emplace();
    loader.type = "pflash";
    loader.readonly = d.readonly ? yes_no::yes : yes_no::no;
    loader.path = d.source.path;
    loader.format = format;
    return true;
  }
  auto& nvram = os.nvram.emplace();
  nvram.format = format;
  if (is_path) {
    nvram.path = d.source.path;
  } else {
    nvram.type = d.source.type;
    nvram.source = std::move(d.source);
  }
  return true;
}

bool read_pflash(argv_import& in, std::string_view node, unsigned unit) {
  auto* option = in.find_block(node);
  return option != nullptr && in.attempt(*option, [&] {
    option->done = false; // found by its name once more
    const bool went = read_flash(in, *option, unit);
    option->done = true;
    return went;
  });
}

// ---- -device

namespace {

void read_disk_details(argv_import& in, line_option& option, disk& d) {
  auto& props = option.props;
  if (in.flag(option, "share-rw") == true)
    d.shareable = true;
  disk_blockio io;
  in.read(option, "logical_block_size", io.logical_block_size);
  in.read(option, "physical_block_size", io.physical_block_size);
  in.read(option, "discard_granularity", io.discard_granularity);
  if (io.logical_block_size || io.physical_block_size || io.discard_granularity)
    d.blockio = io;
  if (const auto wwn = in.number(option, "wwn"))
    d.wwn = fmt::format("{:016x}", *wwn);
  in.read(option, "rotation_rate", d.rotation_rate);
  in.read(option, "vendor", d.vendor);
  in.read(option, "product", d.product);
  in.read(option, "removable", d.removable);
  if (d.removable == on_off::off)
    d.removable = on_off::unset;
  if (props.has("cyls")) {
    auto& geometry = d.geometry.emplace();
    geometry.cylinders = static_cast<unsigned>(in.number(option, "cyls").value_or(0));
    geometry.heads = static_cast<unsigned>(in.number(option, "heads").value_or(0));
    geometry.sectors = static_cast<unsigned>(in.number(option, "secs").value_or(0));
    in.read(option, "bios-chs-trans", geometry.translation);
  }
  if (const auto* serial = props.take("serial")) {
    d.serial.clear();
    for (std::size_t i = 0; i < serial->size(); ++i)
      if ((*serial)[i] != '\\' || i + 1 == serial->size() || (*serial)[i + 1] != ' ')
        d.serial += (*serial)[i];
  }
}

/// "scsi0.0" and its numbers.
bool read_scsi_place(argv_import& in, line_option& option, device_address& at) {
  auto& props = option.props;
  const auto* bus = props.take("bus");
  std::string_view id = bus == nullptr ? "scsi0.0" : std::string_view{*bus};
  id = id.substr(0, id.find_last_of('.'));
  const auto index = in.bus_index(controller_type::scsi, id);
  if (!index)
    return false;
  const bool any = props.has("scsi-id") || props.has("lun") || props.has("channel");
  const auto channel = in.number(option, "channel"), target = in.number(option, "scsi-id"),
             unit = in.number(option, "lun");
  at.controller = static_cast<unsigned>(*index);
  if (!any)
    return *index == 0;
  at.type = address_type::drive;
  at.bus = static_cast<unsigned>(channel.value_or(0));
  at.target = static_cast<unsigned>(target.value_or(0));
  at.unit = static_cast<unsigned>(unit.value_or(0));
  if (!unit && !channel) { // an old controller knows targets alone
    at.unit = at.target;
    at.target = 0;
  }
  return true;
}

/// "ide.1" and "unit": IDE on a pc, SATA elsewhere.
bool read_ide_place(argv_import& in, line_option& option, disk& d, unsigned& wanted) {
  const auto* bus = option.props.take("bus");
  const auto unit = in.number(option, "unit").value_or(0);
  if (unit > 255)
    in.refuse_value(option, "unit", "a small number");
  if (bus == nullptr) {
    d.bus = in.is_q35() ? disk_bus::sata : disk_bus::ide;
    wanted = in.next_disk(in.is_q35() ? "sd" : "hd");
    return true;
  }
  const auto dot = bus->find_last_of('.');
  const auto number = dot == std::string::npos ? std::nullopt : number_of(std::string_view{*bus}.substr(dot + 1));
  if (!number || *number > 31)
    return false;
  const auto id = bus->substr(0, dot);
  const auto port = static_cast<unsigned>(*number);
  if (id == "ide" && !in.is_q35()) {
    d.bus = disk_bus::ide;
    set_drive_place(d, 0, port, 0, static_cast<unsigned>(unit));
    wanted = port * 2 + static_cast<unsigned>(unit);
    return true;
  }
  const auto index = id == "ide" ? std::optional{0} : in.bus_index(controller_type::sata, id);
  if (!index)
    return false;
  d.bus = disk_bus::sata;
  set_drive_place(d, static_cast<unsigned>(*index), 0, 0, port);
  wanted = static_cast<unsigned>(*index) * 6 + port;
  return true;
}

/// The number at the end of libvirt's own "virtio-disk3".
unsigned number_in_alias(const argv_import& in, const line_option& option, std::string_view usual, unsigned otherwise) {
  const auto* id = option.props.peek("id");
  if (!in.is_libvirts || id == nullptr || !id->starts_with(usual))
    return otherwise;
  const auto number = number_of(std::string_view{*id}.substr(usual.size()));
  return number && *number < 18'000 ? static_cast<unsigned>(*number) : otherwise;
}

bool read_virtio_disk(argv_import& in, line_option& option, disk& d, const device_name& name) {
  d.bus = disk_bus::virtio;
  d.model = name.transition == "virtio-transitional"       ? disk_model::virtio_transitional
            : name.transition == "virtio-non-transitional" ? disk_model::virtio_non_transitional
                                                           : disk_model::unset;
  auto& driver = *d.driver;
  read_virtio(in, option, driver.virtio);
  if (const auto* thread = option.props.take("iothread"))
    driver.iothread = in.iothread(*thread);
  in.read(option, "ioeventfd", driver.ioeventfd);
  in.read(option, "event_idx", driver.event_idx);
  in.read(option, "num-queues", driver.queues);
  in.read(option, "queue-size", driver.queue_size);
  option.props.drop("scsi", "off");
  option.props.drop("config-wce", "off");
  return read_pci_place(in, option, d);
}

bool read_disk_device(argv_import& in, line_option& option, const device_name& name) {
  auto d = new_disk();
  auto& props = option.props;
  std::string_view prefix = "sd";
  unsigned wanted = 0;
  bool placed = true;
  const bool old_scsi_cd = name.base == "scsi-cd" || name.base == "ide-cd";
  if (old_scsi_cd)
    d.device_type = disk_device::cdrom;
  if (name.base == "virtio-blk") {
    prefix = "vd";
    wanted = number_in_alias(in, option, "virtio-disk", in.next_disk(prefix));
    placed = read_virtio_disk(in, option, d, name);
  } else if (name.base.starts_with("ide-")) {
    placed = read_ide_place(in, option, d, wanted);
    prefix = d.bus == disk_bus::ide ? "hd" : "sd";
  } else if (name.base.starts_with("scsi-")) {
    d.bus = disk_bus::scsi;
    placed = read_scsi_place(in, option, d.address);
    wanted = in.next_disk(prefix);
    if (name.base == "scsi-block")
      d.device_type = disk_device::lun;
    props.drop("device_id");
  } else if (name.base == "usb-storage") {
    d.bus = disk_bus::usb;
    placed = read_usb_place(in, option, d);
    wanted = number_in_alias(in, option, "usb-disk", in.next_disk(prefix));
  } else { // floppy
    d.bus = disk_bus::fdc;
    d.device_type = disk_device::floppy;
    prefix = "fd";
    props.drop("bus"), props.drop("drive-type");
    wanted = static_cast<unsigned>(in.number(option, "unit").value_or(in.next_disk(prefix)));
    if (wanted > 1)
      in.refuse_value(option, "unit", "0, 1");
    set_drive_place(d, 0, 0, 0, wanted);
    d.boot_order = in.floppy_boot[wanted];
  }
  if (!placed)
    return false;
  const auto boot = d.boot_order;
  read_identity(in, option, d);
  if (boot != 0)
    d.boot_order = boot;
  read_disk_details(in, option, d);
  const auto write_cache = in.flag(option, "write-cache");
  std::string target;
  if (const auto* image = props.take("drive"); image != nullptr && !read_image(in, *image, d, write_cache, target))
    return false;
  if (write_cache && d.driver->cache == disk_cache::unset)
    d.driver->cache = *write_cache ? disk_cache::writeback : disk_cache::writethrough;
  read_errors(in, option, *d.driver);
  settle(d);
  if (d.device_type == disk_device::disk || d.device_type == disk_device::lun || d.device_type == disk_device::floppy) {
    if (d.shareable && !d.readonly && d.driver->cache == disk_cache::none)
      d.driver->cache = disk_cache::unset; // what sharing means
    if (d.source.is_empty() && d.device_type != disk_device::floppy)
      return false;
  }
  if (!target.empty() && target.starts_with(prefix))
    wanted = std::max(wanted, in.index_in_name(target, prefix));
  d.target = in.disk_target(prefix, wanted);
  in.guest.devices.disks.push_back(std::move(d));
  return true;
}

bool read_vhost_user_disk(argv_import& in, line_option& option, const device_name& name) {
  auto d = new_disk();
  if (!read_virtio_disk(in, option, d, name))
    return false;
  read_identity(in, option, d);
  chardev_source socket;
  const auto* chardev = option.props.take("chardev");
  if (chardev == nullptr || !read_chardev(in, *chardev, socket) || socket.type != chardev_type::unix_)
    return false;
  d.source.type = storage_type::vhostuser;
  d.source.socket_type = "unix";
  d.source.path = socket.first().path;
  d.source.reconnect = socket.first().reconnect;
  d.driver->type = image_format::raw;
  d.target = in.disk_target("vd", number_in_alias(in, option, "virtio-disk", in.next_disk("vd")));
  in.guest.devices.disks.push_back(std::move(d));
  return true;
}

/// A SCSI device of the host: iSCSI is the kind that has words.
bool read_scsi_generic(argv_import& in, line_option& option, const device_name&) {
  hostdev h;
  h.mode = "subsystem";
  h.type = "scsi";
  h.managed = yes_no::unset;
  read_identity(in, option, h);
  auto d = new_disk();
  const auto* image = option.props.take("drive");
  auto* node = image == nullptr ? nullptr : in.find("-blockdev", *image);
  if (node == nullptr || !read_scsi_place(in, option, h.address))
    return false;
  in.take(*node);
  h.readonly = in.flag(*node, "read-only").value_or(false);
  image_reading r{in, d, {}, {}, {}, {}, {}};
  if (!read_storage(r, block_node{node, {}}, d.source) || d.source.protocol != net_protocol::iscsi)
    return false;
  h.protocol = "iscsi";
  h.source_name = d.source.name;
  h.hosts = d.source.hosts;
  h.initiator_iqn = d.source.initiator_iqn;
  in.guest.devices.hostdevs.push_back(std::move(h));
  return true;
}

// ---- directories of the host

bool read_shared(argv_import& in, line_option& backend, fs_device& fs) {
  auto& props = backend.props;
  const auto* kind = props.take("fsdriver");
  if (kind == nullptr || *kind != "local")
    return false;
  props.drop("id");
  fs.type = "mount";
  in.read(backend, "path", fs.source);
  fs.source_attribute = "dir";
  const auto* model = props.take("security_model");
  if (model == nullptr)
    model = props.take("security-model");
  if (model != nullptr)
    fs.accessmode = model->starts_with("mapped") ? "mapped" : *model == "none" ? "squash" : "passthrough";
  if (model != nullptr && *model == "mapped-file")
    return false;
  if (const auto* writeout = props.take("writeout"); writeout != nullptr && *writeout == "immediate")
    fs.wrpolicy = "immediate";
  if (!fs.wrpolicy.empty())
    fs.driver_type = "path";
  in.read(backend, "multidevs", fs.multidevs);
  in.read(backend, "fmode", fs.fmode);
  in.read(backend, "dmode", fs.dmode);
  fs.readonly = in.flag(backend, "readonly").value_or(false);
  return !fs.source.empty();
}

bool read_9p(argv_import& in, line_option& option, const device_name& name) {
  fs_device fs;
  const auto* id = option.props.take("fsdev");
  auto* backend = id == nullptr ? nullptr : in.find("-fsdev", *id);
  if (backend == nullptr)
    return false;
  in.take(*backend);
  fs.model = name.transition;
  in.read(option, "mount_tag", fs.target);
  read_virtio(in, option, fs.virtio);
  if (!read_shared(in, *backend, fs) || !read_device(in, option, fs))
    return false;
  in.guest.devices.filesystems.push_back(std::move(fs));
  return true;
}

bool read_virtiofs(argv_import& in, line_option& option, const device_name&) {
  fs_device fs;
  fs.type = "mount";
  fs.driver_type = "virtiofs";
  chardev_source socket;
  const auto* chardev = option.props.take("chardev");
  if (chardev == nullptr || !read_chardev(in, *chardev, socket) || socket.type != chardev_type::unix_)
    return false;
  fs.source_attribute = "socket";
  fs.source = socket.first().path;
  in.read(option, "tag", fs.target);
  in.read(option, "queue-size", fs.queue);
  if (!read_device(in, option, fs))
    return false;
  in.guest.devices.filesystems.push_back(std::move(fs));
  return true;
}

constexpr device_row disk_rows[] = {
  {"floppy", read_disk_device},
  {"ide-cd", read_disk_device},
  {"ide-drive", read_disk_device},
  {"ide-hd", read_disk_device},
  {"scsi-block", read_disk_device},
  {"scsi-cd", read_disk_device},
  {"scsi-disk", read_disk_device},
  {"scsi-generic", read_scsi_generic},
  {"scsi-hd", read_disk_device},
  {"usb-storage", read_disk_device},
  {"vhost-user-blk", read_vhost_user_disk},
  {"vhost-user-fs", read_virtiofs},
  {"virtio-9p", read_9p},
  {"virtio-blk", read_disk_device},
};

} // namespace

device_reader disk_reader(std::string_view base) {
  const auto row = std::ranges::find(disk_rows, base, &device_row::driver);
  return row == std::end(disk_rows) ? nullptr : row->read;
}

void read_filesystem(argv_import& in, line_option& option) {
  in.attempt(option, [&] {
    fs_device fs;
    in.read(option, "mount_tag", fs.target);
    if (!read_shared(in, option, fs) || fs.target.empty())
      return false;
    in.guest.devices.filesystems.push_back(std::move(fs));
    return true;
  });
}

// ---- at the end

void finish_disks(argv_import& in) {
  // Ceph's monitors may stand in the environment: "-m host,host".
  const auto ceph = std::ranges::find(in.env, "CEPH_ARGS", &std::pair<std::string, std::string>::first);
  if (ceph == in.env.end() || !ceph->second.starts_with("-m "))
    return;
  std::vector<host_address> hosts;
  const auto list = ceph->second.substr(3);
  if (list.find(' ') != std::string::npos)
    return;
  for (std::size_t start = 0; start < list.size();) {
    const auto end = std::min(list.find_first_of(",;", start), list.size());
    hosts.push_back(host_of(std::string_view{list}.substr(start, end - start)));
    start = end + 1;
  }
  bool used = false;
  for (auto& d : in.guest.devices.disks)
    if (d.source.protocol == net_protocol::rbd && d.source.hosts.empty()) {
      d.source.hosts = hosts;
      used = true;
    }
  if (used)
    in.env.erase(ceph);
}

} // namespace troupe
