#include "xml/passes.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

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
    known->labels.insert(known->labels.end(), wanted.labels.begin(), wanted.labels.end());
  }

  void add_source(const storage_source& source, bool readonly, bool shared) {
    const auto what = source.type == storage_type::block       ? kind::block
                      : source.type == storage_type::dir       ? kind::directory
                      : source.type == storage_type::vhostuser ? kind::socket
                                                               : kind::file;
    if (source.type == storage_type::file || source.type == storage_type::block || source.type == storage_type::dir ||
        source.type == storage_type::vhostuser)
      add({source.path, readonly, shared, what, source.type != storage_type::vhostuser, false,
           false, labels_of(source.labels)});
    if (source.type == storage_type::nvme && source.nvme_address)
      add({pci_text(source.nvme_address->pci), false, false, kind::pci});
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
        add({end.path, false, false, kind::file, true, true, false, labels_of(end.labels)});
        break;
      case chardev_type::dev:
        add({end.path, false, false, kind::character, true, false, false, labels_of(end.labels)});
        break;
      case chardev_type::pipe:
        add({end.path, false, false, kind::file, true, false, false, labels_of(end.labels)});
        break;
      case chardev_type::unix_:
        // A socket that QEMU makes is not there yet.
        if (end.mode == "connect")
          add({end.path, false, true, kind::socket, true, false, false, labels_of(end.labels)});
        break;
      default:
        break;
      }
    add({source.log_file, false, false, kind::file, true, true});
  }

  static std::vector<needed_resource::own_label> labels_of(const std::vector<source_seclabel>& labels) {
    std::vector<needed_resource::own_label> out;
    for (const auto& each : labels)
      out.push_back({each.model, each.relabel != yes_no::no, each.label});
    return out;
  }
};

/// A number as device files name it: four digits.
std::string bare_hex(std::string_view text) {
  return fmt::format("{:0>4}", text.substr(text.starts_with("0x") ? 2 : 0));
}

void add_machine(resource_list& list, const os_description& os) {
  // One kernel boots many guests, and nobody writes to it.
  for (const auto* path : {&os.kernel, &os.initrd, &os.dtb})
    list.add({*path, true, true, kind::file, true});
  for (const auto& table : os.acpi_tables)
    list.add({table.path, true, true, kind::file, true});
  if (os.loader)
    list.add({os.loader->path, true, true, kind::file, false});
  if (os.nvram) {
    needed_resource variables{os.nvram->path, false, false, kind::file, true};
    variables.create = !os.nvram->template_path.empty();
    variables.like = os.nvram->template_path;
    list.add(std::move(variables));
    if (os.nvram->source)
      list.add_source(*os.nvram->source, false, false);
  }
}

/// A node that many open, and whose owner and mode say who may.
void add_common(resource_list& list, std::string path) {
  list.add({std::move(path), false, true, kind::character, false});
}

void add_hostdev(resource_list& list, const hostdev& each) {
  if (each.mode != "subsystem")
    return;
  const bool optional = each.startup == "optional";
  if (each.type == "pci" && each.source_address)
    list.add({pci_text(each.source_address->pci), false, false, kind::pci});
  else if (each.type == "mdev")
    list.add({each.mdev_uuid, false, false, kind::mediated});
  else if (each.type == "usb" && !each.usb_bus.empty() && !each.usb_device.empty())
    list.add({fmt::format("/dev/bus/usb/{:0>3}/{:0>3}", each.usb_bus, each.usb_device), false, false, kind::character, true,
              false, optional});
  else if (each.type == "usb")
    list.add({fmt::format("{}:{}", bare_hex(each.vendor_id), bare_hex(each.product_id)), false, false, kind::usb, true, false,
              optional});
}

void add_interface(resource_list& list, const net_interface& each) {
  if (each.type == net_type::vhostuser && each.source_mode != "server")
    list.add({each.source_path, false, false, kind::socket, true});
  if (each.type == net_type::hostdev && each.source_pci)
    list.add({pci_text(each.source_pci->pci), false, false, kind::pci});
  if (each.driver && each.driver->name == "vhost")
    add_common(list, "/dev/vhost-net");
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
    if (each.backend.empty() || each.backend == "random") {
      const auto path = each.path.empty() ? "/dev/urandom" : each.path;
      // Everybody reads the kernel's own; another source is for those it is given to.
      list.add({path, true, true, kind::character, path != "/dev/urandom" && path != "/dev/random"});
    }
    list.add_chardev(each.source);
  }
  for (const auto& each : devices.filesystems) {
    if (each.source_attribute == "dir")
      list.add({each.source, each.readonly, true, kind::directory, false});
    if (each.source_attribute == "socket")
      list.add({each.source, false, false, kind::socket, true});
  }
  for (const auto& each : devices.tpms) {
    if (each.backend == "passthrough")
      list.add({each.device_path.empty() ? "/dev/tpm0" : each.device_path, false, false, kind::character, true});
    list.add({each.source_path, false, false, kind::socket, true});
  }
  for (const auto& each : devices.inputs) {
    list.add({each.source_evdev, false, false, kind::character, true});
    list.add({each.source_dev, false, false, kind::character, true});
  }
  for (const auto& each : devices.interfaces)
    add_interface(list, each);
  for (const auto& each : devices.memories)
    list.add({each.path, false, false, kind::file, true});
  for (const auto& each : devices.shmems) {
    list.add({each.server_path, false, true, kind::socket, false});
    if (each.model.empty() || each.model == "ivshmem-plain")
      list.add({"/dev/shm/" + each.name, false, true, kind::file, true, true});
  }
  if (!devices.vsocks.empty())
    add_common(list, "/dev/vhost-vsock");
  if (guest.launch_security && guest.launch_security->type == launch_kind::sev)
    add_common(list, "/dev/sev");
  for (const auto& each : devices.videos)
    if (each.acceleration)
      add_common(list, each.acceleration->rendernode);
  for (const auto& each : devices.graphics)
    if (each.gl)
      add_common(list, each.gl->rendernode);
  for (const auto& each : devices.hostdevs)
    add_hostdev(list, each);
  return std::move(list.all);
}

std::vector<needed_resource> open_chains(const domain& guest) {
  std::vector<needed_resource> images;
  for (const auto& each : guest.devices.disks) {
    const auto* source = &each.source;
    auto format = each.driver ? each.driver->type : image_format::unset;
    bool open = true;
    for (const auto* level = &each.backing; open && !level->empty(); level = &level->front().next) {
      open = !level->front().ends_chain();
      source = &level->front().source;
      format = level->front().format;
    }
    const bool has_header = format == image_format::qcow || format == image_format::qcow2 || format == image_format::qed;
    if (open && has_header && !source->path.empty())
      images.push_back({source->path, each.readonly, true, kind::file, true, false, false, resource_list::labels_of(source->labels)});
  }
  return images;
}

std::vector<std::string> made_by_qemu(const domain& guest, const std::vector<std::string>& argv) {
  std::vector<std::string> paths;
  const auto& devices = guest.devices;
  const auto add_bound = [&](const chardev_source& source) {
    for (const auto& end : source.ends)
      if (source.type == chardev_type::unix_ && end.mode != "connect")
        paths.push_back(end.path);
  };
  for (const auto* ports : {&devices.serials, &devices.parallels, &devices.consoles, &devices.channels})
    for (const auto& each : *ports)
      add_bound(each.source);
  for (const auto& each : devices.smartcards)
    add_bound(each.source);
  for (const auto& each : devices.redirdevs)
    add_bound(each.source);
  for (const auto& each : devices.rngs)
    add_bound(each.source);
  for (const auto& each : devices.graphics) {
    paths.push_back(each.socket);
    for (const auto& end : each.listens)
      paths.push_back(end.socket);
  }
  for (const auto& each : devices.interfaces)
    if (each.type == net_type::vhostuser && each.source_mode == "server")
      paths.push_back(each.source_path);
  for (const auto& word : argv)
    if (const auto object = nlohmann::json::parse(word.starts_with('{') ? word : "{}", nullptr, false);
        object.is_object() && object.contains("mem-path"))
      paths.push_back(object.value("mem-path", ""));
  std::erase_if(paths, [](const auto& path) { return path.empty(); });
  return paths;
}

} // namespace troupe
