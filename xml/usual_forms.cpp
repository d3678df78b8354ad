#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>

// What can be written in several ways is brought into the one in which libvirt writes it, and what says nothing is left
// out.

namespace troupe {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

void make_lower(std::string& text) {
  std::ranges::transform(text, text.begin(), lower);
}

/// "12345678-1234-..." from any way to write a UUID, or none.
std::optional<std::string> usual_uuid(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c == '-' || c == ' ' || c == '\n' || c == '\t')
      continue;
    if (std::string_view{"0123456789abcdef"}.find(lower(c)) == std::string_view::npos)
      return std::nullopt;
    digits += lower(c);
  }
  if (digits.size() != 32)
    return std::nullopt;
  for (const std::size_t at : {20u, 16u, 12u, 8u})
    digits.insert(at, 1, '-');
  return digits;
}

/// A list of CPUs or nodes; what is none stays as it is.
void make_usual_set(std::string& text) {
  if (auto usual = cpu_set_text(text); !usual.empty())
    text = std::move(usual);
}

unsigned number_of(const xml_element& element, std::string_view name) {
  const auto* text = element.attribute(name);
  const auto ranges = text == nullptr ? decltype(cpu_ranges({})){} : cpu_ranges(*text);
  return ranges.empty() ? ~0u : ranges.front().first;
}

/// Which CPUs run what: sets in one form, a row for each vCPU or thread, none for a vCPU that is not there.
void settle_tuning(std::vector<xml_element>& rows, unsigned vcpus) {
  constexpr std::pair<std::string_view, std::string_view> schedulers[] = {{"vcpusched", "vcpus"},
                                                                          {"iothreadsched", "iothreads"}};
  for (auto& row : rows) {
    for (auto& each : row.attributes)
      if (each.name == "cpuset" || each.name == "nodeset")
        make_usual_set(each.value);
    settle_tuning(row.children, vcpus);
    std::vector<xml_element> split;
    for (auto& child : row.children) {
      if (child.name == "vcpupin" && number_of(child, "vcpu") >= vcpus)
        continue;
      const auto scheduler = std::ranges::find(schedulers, std::string_view{child.name},
                                               &std::pair<std::string_view, std::string_view>::first);
      const auto* all = scheduler == std::end(schedulers) ? nullptr : child.attribute(scheduler->second);
      if (all == nullptr) {
        split.push_back(std::move(child));
        continue;
      }
      for (const auto& [first, last] : cpu_ranges(*all))
        for (auto each = first; each <= last; ++each) {
          auto one = child;
          one.set(scheduler->second, std::to_string(each));
          split.push_back(std::move(one));
        }
    }
    row.children = std::move(split);
    constexpr std::pair<std::string_view, std::string_view> sorted[] = {
      {"iothreadpin", "iothread"}, {"vcpusched", "vcpus"}, {"iothreadsched", "iothreads"}};
    for (const auto& [name, number] : sorted) {
      const auto is_one = [wanted = name](const xml_element& each) { return each.name == wanted; };
      const auto first = std::ranges::find_if(row.children, is_one);
      const auto last = std::find_if_not(first, row.children.end(), is_one);
      std::stable_sort(first, last,
                       [of = number](const auto& a, const auto& b) { return number_of(a, of) < number_of(b, of); });
    }
  }
}

void settle_sizes(std::vector<xml_element>& elements) {
  constexpr std::string_view sizes[] = {"size", "requested", "block", "current", "pagesize"};
  for (auto& each : elements) {
    if (std::ranges::find(sizes, each.name) != std::end(sizes) && each.children.empty())
      if (const auto kib = kib_of_element(each); kib > 0) {
        each.text = std::to_string(kib);
        each.set("unit", "KiB");
      }
    settle_sizes(each.children);
  }
}

// ---- parts

template <class Enum>
void drop_default(Enum& value) {
  if (value == Enum::default_)
    value = Enum::unset;
}

void drop_skipped(std::vector<source_seclabel>& labels) {
  std::erase_if(labels, [](const auto& each) { return each.label_skip == yes_no::yes; });
}

void settle_iscsi(net_protocol protocol, std::string& name) {
  // The unit is 0 where it is not named.
  if (protocol == net_protocol::iscsi && !name.empty() && name.find('/') == name.npos)
    name += "/0";
}

void settle_source(storage_source& source) {
  if (source.type == storage_type::unset)
    source.type = storage_type::file;
  if (source.type == storage_type::file || source.type == storage_type::block)
    std::erase_if(source.rest.attributes, [](const auto& each) { return each.name == "name"; });
  for (auto& host : source.hosts)
    if (host.transport == "tcp")
      host.transport.clear();
  settle_iscsi(source.protocol, source.name);
  drop_skipped(source.labels);
}

void settle(disk& each) {
  settle_source(each.source);
  const bool removable = each.device_type == disk_device::cdrom || each.device_type == disk_device::floppy;
  if (removable && each.source.type == storage_type::block && each.source.path.empty())
    each.source.type = storage_type::file;
  if (each.driver) {
    auto& driver = *each.driver;
    drop_default(driver.cache), drop_default(driver.error_policy), drop_default(driver.rerror_policy),
      drop_default(driver.io);
    drop_default(driver.discard), drop_default(driver.detect_zeroes);
  }
  if (each.tray == tray_state::closed)
    each.tray = tray_state::unset;
  if (each.snapshot == snapshot_place::default_ ||
      (each.snapshot == snapshot_place::no && (each.readonly || each.device_type == disk_device::cdrom)))
    each.snapshot = snapshot_place::unset;
}

void settle(chardev_source& source) {
  if (source.type == chardev_type::tcp && source.protocol.empty())
    source.protocol = "raw";
  for (auto& end : source.ends)
    drop_skipped(end.labels);
}

void settle(graphics& each) {
  if (each.type != graphics_type::sdl)
    each.display.clear(), each.xauth.clear();
  if (!each.has_password && each.password.empty())
    each.password_valid_to.clear(), each.connected.clear();
  std::erase_if(each.channels, [](const auto& channel) { return channel.mode == "any"; });
}

void settle(net_interface& each) {
  make_lower(each.mac);
  if (each.driver && each.driver->queues == 1u)
    each.driver->queues.reset();
  if (each.type != net_type::network && each.type != net_type::bridge && each.type != net_type::ethernet)
    each.filterref.clear();
}

void settle(feature_set& features) {
  const auto say_on = [](bool given, on_off& state) {
    if (given && state == on_off::unset)
      state = on_off::on;
  };
  say_on(features.smm, features.smm_state);
  say_on(features.vmcoreinfo, features.vmcoreinfo_state);
  if (features.hyperv) {
    if (features.hyperv->mode.empty())
      features.hyperv->mode = "custom";
    if (features.hyperv->vendor_id != on_off::on)
      features.hyperv->vendor.clear();
  }
}

/// Errors: bad_xml, when the guest's UUID in there is another one.
result<void> settle(domain& guest, sysinfo& info) {
  const auto is_empty = [](const sysinfo_entry& entry) {
    return entry.value.empty() && entry.file.empty() && entry.rest.empty();
  };
  const auto drop_empty = [&](std::optional<sysinfo_block>& block) {
    if (!block)
      return;
    std::erase_if(block->entries, is_empty);
    if (block->entries.empty() && block->rest.empty())
      block.reset();
  };
  drop_empty(info.bios), drop_empty(info.system), drop_empty(info.chassis);
  for (auto& board : info.base_boards)
    std::erase_if(board.entries, is_empty);
  std::erase_if(info.base_boards, [](const auto& board) { return board.entries.empty() && board.rest.empty(); });
  if (!info.system)
    return {};
  auto& entries = info.system->entries;
  for (auto& entry : entries) {
    if (entry.name != "uuid")
      continue;
    const auto uuid = usual_uuid(entry.value);
    if (!uuid)
      return fail(errc::internal, fmt::format("malformed <sysinfo> uuid element: '{}'", entry.value));
    if (guest.uuid.empty())
      guest.uuid = *uuid;
    if (guest.uuid != *uuid)
      return fail(errc::bad_xml,
                  fmt::format("UUID mismatch between <uuid> and <sysinfo>: '{}' and '{}'", guest.uuid, *uuid));
    entry.value = *uuid;
  }
  // libvirt's own order.
  constexpr std::string_view order[] = {"manufacturer", "product", "version", "serial", "uuid", "sku", "family"};
  std::ranges::stable_sort(entries, {},
                           [&](const auto& entry) { return std::ranges::find(order, entry.name) - order; });
  return {};
}

} // namespace

result<void> settle_forms(definition_work& work) {
  auto& guest = work.guest;
  auto& devices = guest.devices;
  if (!guest.uuid.empty()) {
    const auto uuid = usual_uuid(guest.uuid);
    if (!uuid)
      return fail(errc::internal,
                  fmt::format("malformed uuid element: '{}' has not 32 hexadecimal digits", guest.uuid));
    guest.uuid = *uuid;
  }
  for (auto& info : guest.sysinfos)
    if (auto went = settle(guest, info); !went)
      return went;
  make_usual_set(guest.vcpu_cpuset);
  if (guest.cpu)
    for (auto& cell : guest.cpu->cells)
      make_usual_set(cell.cpus);
  settle_tuning(guest.cputune, guest.vcpu_max.value_or(1));
  settle_tuning(guest.numatune, guest.vcpu_max.value_or(1));
  if (guest.features)
    settle(*guest.features);
  if (guest.os.loader && guest.os.loader->type.empty() && !guest.os.loader->path.empty())
    guest.os.loader->type = "rom";
  if (guest.os.smbios_mode == "none")
    guest.os.smbios_mode.clear();
  for (auto& each : devices.disks)
    settle(each);
  for (auto& each : devices.interfaces)
    settle(each);
  for (auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    for (auto& each : *ports)
      settle(each.source);
  for (auto& each : devices.smartcards)
    settle(each.source);
  for (auto& each : devices.redirdevs)
    settle(each.source);
  for (auto& each : devices.rngs)
    settle(each.source);
  for (auto& each : devices.graphics)
    settle(each);
  for (auto& each : devices.hostdevs)
    if (each.protocol == "iscsi")
      settle_iscsi(net_protocol::iscsi, each.source_name);
  for (auto& each : devices.memories) {
    settle_sizes(each.target);
    settle_sizes(each.source);
  }
  for (auto& each : devices.controllers)
    if (each.type == controller_type::usb && each.model == "none")
      each.address = {};
  for (auto& each : devices.vsocks)
    if (each.cid && each.auto_cid == yes_no::unset)
      each.auto_cid = yes_no::no;
  for (auto& label : guest.seclabels) {
    if (label.relabel_given == yes_no::unset && label.type == label_kind::dynamic)
      label.relabel_given = yes_no::yes;
    if (label.relabel_given == yes_no::unset && label.type == label_kind::static_)
      label.relabel_given = yes_no::no;
    label.relabel = label.relabel_given == yes_no::yes;
  }
  return {};
}

} // namespace troupe
