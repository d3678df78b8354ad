#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

using kind = needed_resource::kind;

class resource_list {
public:
  std::vector<needed_resource> all;

  /// A path that two devices name is needed for what either does with it.
  void add(needed_resource wanted) {
    if (wanted.path.empty())
      return;
    const auto known = std::ranges::find(all, wanted.path, &needed_resource::path);
    if (known == all.end()) {
      all.push_back(std::move(wanted));
      return;
    }
    known->readonly = known->readonly && wanted.readonly;
    known->shared = known->shared && wanted.shared;
    known->relabel = known->relabel && wanted.relabel;
  }

  void add_source(const storage_source& source, bool readonly, bool shared) {
    const auto what = source.type == storage_type::block       ? kind::block
                      : source.type == storage_type::dir       ? kind::directory
                      : source.type == storage_type::vhostuser ? kind::socket
                                                               : kind::file;
    if (source.type == storage_type::file || source.type == storage_type::block || source.type == storage_type::dir ||
        source.type == storage_type::vhostuser)
      add({source.path, readonly, shared, what, relabels(source.labels) && source.type != storage_type::vhostuser});
    for (const auto& host : source.hosts)
      add({host.socket, false, true, kind::socket, false});
    if (source.pr)
      add({source.pr->path, false, true, kind::socket, false});
  }

  void add_chain(const std::vector<backing_store>& chain, bool shared) {
    for (const auto& image : chain) {
      add_source(image.source, true, shared);
      add_chain(image.next, shared);
    }
  }

  void add_chardev(const chardev_source& source) {
    for (const auto& end : source.ends)
      switch (source.type) {
      case chardev_type::file:
        add({end.path, false, false, kind::file, relabels(end.labels), true});
        break;
      case chardev_type::dev:
        add({end.path, false, false, kind::character, relabels(end.labels)});
        break;
      case chardev_type::pipe:
        add({end.path, false, false, kind::file, relabels(end.labels)});
        break;
      case chardev_type::unix_:
        // A socket that QEMU makes is not there yet.
        if (end.mode == "connect")
          add({end.path, false, true, kind::socket, relabels(end.labels)});
        break;
      default:
        break;
      }
    add({source.log_file, false, false, kind::file, true, true});
  }

private:
  static bool relabels(const std::vector<source_seclabel>& labels) {
    return std::ranges::none_of(labels, [](const auto& each) {
      return (each.model.empty() || each.model == "dac") && each.relabel == yes_no::no;
    });
  }
};

void add_machine(resource_list& list, const os_description& os) {
  // One kernel boots many guests, and nobody writes to it.
  for (const auto* path : {&os.kernel, &os.initrd, &os.dtb})
    list.add({*path, true, true, kind::file, true});
  for (const auto& table : os.acpi_tables)
    list.add({table.path, true, true, kind::file, true});
  if (os.loader)
    list.add({os.loader->path, true, true, kind::file, false});
  if (os.nvram) {
    list.add({os.nvram->path, false, false, kind::file, true});
    if (os.nvram->source)
      list.add_source(*os.nvram->source, false, false);
  }
}

void add_hostdev(resource_list& list, const hostdev& each) {
  if (each.mode != "subsystem")
    return;
  if (each.type == "pci" || each.type == "mdev")
    list.add({"/dev/vfio/vfio", false, true, kind::character, false});
  else if (each.type == "usb" && !each.usb_bus.empty() && !each.usb_device.empty())
    list.add(
      {fmt::format("/dev/bus/usb/{:0>3}/{:0>3}", each.usb_bus, each.usb_device), false, false, kind::character, true});
}

} // namespace

std::vector<needed_resource> resources_of(const domain& guest) {
  resource_list list;
  const auto& devices = guest.devices;
  for (const auto& each : devices.disks) {
    list.add_source(each.source, each.readonly, each.shareable || each.readonly);
    // Below the image that is written there may be one that other guests started from.
    list.add_chain(each.backing, true);
  }
  add_machine(list, guest.os);
  for (const auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    for (const auto& each : *ports)
      list.add_chardev(each.source);
  for (const auto& each : devices.smartcards)
    list.add_chardev(each.source);
  for (const auto& each : devices.redirdevs)
    list.add_chardev(each.source);
  for (const auto& each : devices.rngs) {
    list.add({each.path, true, true, kind::character, false});
    list.add_chardev(each.source);
  }
  for (const auto& each : devices.filesystems) {
    if (each.source_attribute == "dir")
      list.add({each.source, each.readonly, true, kind::directory, false});
    if (each.source_attribute == "socket")
      list.add({each.source, false, false, kind::socket, true});
  }
  for (const auto& each : devices.tpms) {
    list.add({each.device_path, false, false, kind::character, true});
    list.add({each.source_path, false, false, kind::socket, true});
  }
  for (const auto& each : devices.inputs) {
    list.add({each.source_evdev, false, false, kind::character, true});
    list.add({each.source_dev, false, false, kind::character, true});
  }
  for (const auto& each : devices.interfaces)
    if (each.type == net_type::vhostuser && each.source_mode != "server")
      list.add({each.source_path, false, false, kind::socket, true});
  for (const auto& each : devices.memories)
    list.add({each.path, false, false, kind::file, true});
  for (const auto& each : devices.shmems)
    list.add({each.server_path, false, true, kind::socket, false});
  for (const auto& each : devices.videos)
    if (each.acceleration)
      list.add({each.acceleration->rendernode, false, true, kind::character, false});
  for (const auto& each : devices.graphics)
    if (each.gl)
      list.add({each.gl->rendernode, false, true, kind::character, false});
  for (const auto& each : devices.hostdevs)
    add_hostdev(list, each);
  return std::move(list.all);
}

} // namespace troupe
