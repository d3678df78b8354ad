#include "xml/domain_values.hpp"
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

/// One row for each of the numbers, in their order: `field` is a list of numbers.
template <class Row>
void split_rows(std::vector<Row>& rows, std::string Row::*field) {
  std::vector<std::pair<unsigned, Row>> split;
  for (const auto& row : rows)
    for (const auto& [first, last] : cpu_ranges(row.*field))
      for (auto each = first; each <= last; ++each) {
        auto one = row;
        one.*field = std::to_string(each);
        split.emplace_back(each, std::move(one));
      }
  std::ranges::stable_sort(split, {}, [](const auto& each) { return each.first; });
  // A list with no number in it stays, to be refused.
  std::erase_if(rows, [&](const Row& row) { return !cpu_ranges(row.*field).empty(); });
  for (auto& each : split)
    rows.push_back(std::move(each.second));
}

/// Which CPUs run what: sets in one form, a row for each vCPU or thread, none for a vCPU that is not there.
void settle(cpu_tuning& tuning, unsigned vcpus) {
  std::erase_if(tuning.vcpu_pins, [&](const vcpu_pin& each) { return each.vcpu && *each.vcpu >= vcpus; });
  for (auto& each : tuning.vcpu_pins)
    make_usual_set(each.cpuset);
  make_usual_set(tuning.emulator_cpuset);
  for (auto& each : tuning.iothread_pins)
    make_usual_set(each.cpuset);
  std::ranges::stable_sort(tuning.iothread_pins, {}, &iothread_pin::iothread);
  split_rows(tuning.vcpu_schedules, &vcpu_schedule::vcpus);
  split_rows(tuning.iothread_schedules, &iothread_schedule::iothreads);
  for (auto& each : tuning.caches)
    make_usual_set(each.vcpus);
  for (auto& each : tuning.bandwidths)
    make_usual_set(each.vcpus);
}

void settle(numa_tuning& tuning) {
  if (tuning.memory) {
    make_usual_set(tuning.memory->nodeset);
    if (tuning.memory->mode == numa_mode::unset && !tuning.memory->nodeset.empty())
      tuning.memory->mode = numa_mode::strict;
  }
  for (auto& each : tuning.cells)
    make_usual_set(each.nodeset);
  std::ranges::stable_sort(tuning.cells, {}, &numa_cell_memory::cell);
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

/// The format's own engine is QEMU's.
void settle(std::optional<disk_encryption>& encryption) {
  if (encryption && encryption->engine == encryption_engine::unset)
    encryption->engine = encryption_engine::qemu;
}

void settle(disk& each) {
  settle_source(each.source);
  settle(each.encryption), settle(each.source.encryption);
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
    each.filterref.reset();
  if (each.type != net_type::network)
    each.portgroup.clear();
  if (each.bandwidth) {
    const auto drop_empty = [](std::optional<traffic_rate>& rate) {
      if (rate && rate->is_empty())
        rate.reset();
    };
    drop_empty(each.bandwidth->inbound), drop_empty(each.bandwidth->outbound);
  }
}

/// "0x08" for a class of 8, "0x04D2" for a vendor of 1234; what is no number stays, to be refused.
void settle_usb_number(std::string& text, unsigned digits) {
  unsigned number = 0;
  if (parse_number(text, number, 0))
    text = fmt::format("0x{:0{}X}", number, digits);
}

void settle(usb_rule& rule) {
  const auto settle_or_drop = [](std::string& text, unsigned digits) {
    if (text == "-1") // any
      text.clear();
    settle_usb_number(text, digits);
  };
  settle_or_drop(rule.class_id, 2), settle_or_drop(rule.vendor, 4), settle_or_drop(rule.product, 4);
  if (rule.version == "-1")
    rule.version.clear();
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

/// Whether libvirt keeps it for another of its drivers, "test" or "bhyve": to a guest of QEMU it is nothing.
bool is_other_drivers(const xml_element& each) {
  return each.uri != qemu_uri && each.uri.starts_with("http://libvirt.org/schemas/domain/");
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
  std::erase_if(guest.rest.children, is_other_drivers);
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
  if (guest.cputune)
    settle(*guest.cputune, guest.vcpu_max.value_or(1));
  if (guest.numatune)
    settle(*guest.numatune);
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
  for (auto& each : devices.memories)
    make_usual_set(each.node_mask);
  for (auto& each : devices.videos)
    each.vgaconf.clear(); // bhyve's
  if (devices.redirfilter)
    for (auto& each : devices.redirfilter->rules)
      settle(each);
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
