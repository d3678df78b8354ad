#include "sec/host_devices.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>

#include <fmt/format.h>

namespace troupe {
namespace {

namespace fs = std::filesystem;

/// The number in a file of /sys. None: it is not there, or holds something else.
std::optional<unsigned> number_in(const fs::path& path, int base) {
  std::ifstream file{path};
  std::string text;
  unsigned number = 0;
  if (!(file >> text) || std::from_chars(text.data(), text.data() + text.size(), number, base).ec != std::errc{})
    return std::nullopt;
  return number;
}

resource node_like(const resource& wanted, std::string path) {
  auto node = wanted;
  node.path = std::move(path);
  node.what = resource::kind::character;
  return node;
}

/// The nodes by which VFIO gives a device in `folder` away, and what QEMU reads of it there.
result<std::vector<resource>> vfio_nodes(const resource& wanted, const std::string& root, const std::string& folder,
                                         const std::string& called) {
  std::error_code failed;
  const auto group = fs::read_symlink(root + folder + "/iommu_group", failed).filename().string();
  if (failed || group.empty()) {
    if (!fs::exists(root + folder, failed)) {
      if (wanted.optional)
        return std::vector<resource>{};
      return fail(errc::operation_failed, fmt::format("there is no {} on this host", called));
    }
    return fail(errc::operation_failed,
                fmt::format("the {} is in no IOMMU group: the host's IOMMU must be on (intel_iommu=on or amd_iommu=on at "
                            "its boot), and the device bound to vfio-pci",
                            called));
  }
  resource container{.path = "/dev/vfio/vfio", .what = resource::kind::character, .shared = true, .relabel = false};
  resource about{.path = fs::weakly_canonical(root + folder, failed).string(),
                 .what = resource::kind::directory,
                 .readonly = true,
                 .shared = true,
                 .relabel = false};
  return std::vector{std::move(container), node_like(wanted, "/dev/vfio/" + group), std::move(about)};
}

/// "1d6b:0002", vendor and product, as the one device that is plugged in.
result<std::vector<resource>> usb_nodes(const resource& wanted, const std::string& root) {
  const auto colon = wanted.path.find(':');
  const auto number = [](std::string_view text) {
    unsigned value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return ec == std::errc{} && end == text.data() + text.size() ? std::optional{value} : std::nullopt;
  };
  const auto vendor = number(std::string_view{wanted.path}.substr(0, colon));
  const auto product = colon == std::string::npos ? std::nullopt : number(std::string_view{wanted.path}.substr(colon + 1));
  if (!vendor || !product)
    return fail(errc::bad_argument, fmt::format("'{}' is no USB device as VENDOR:PRODUCT in hexadecimal", wanted.path));
  std::vector<resource> found;
  std::error_code failed;
  for (const auto& each : fs::directory_iterator{root + "/sys/bus/usb/devices", failed}) {
    if (number_in(each.path() / "idVendor", 16) != vendor || number_in(each.path() / "idProduct", 16) != product)
      continue;
    const auto bus = number_in(each.path() / "busnum", 10);
    const auto device = number_in(each.path() / "devnum", 10);
    if (bus && device)
      found.push_back(node_like(wanted, fmt::format("/dev/bus/usb/{:03}/{:03}", *bus, *device)));
  }
  if (found.size() > 1) {
    std::ranges::sort(found, {}, &resource::path);
    std::string paths;
    for (const auto& each : found)
      paths += (paths.empty() ? "" : ", ") + each.path;
    return fail(errc::operation_failed, fmt::format("there are {} USB devices {} on this host ({}): name one by its "
                                                    "<address bus='...' device='...'/>",
                                                    found.size(), wanted.path, paths));
  }
  if (found.empty() && !wanted.optional)
    return fail(errc::operation_failed, fmt::format("there is no USB device {} on this host", wanted.path));
  return found;
}

} // namespace

result<std::vector<resource>> nodes_of(const resource& wanted, const std::string& root) {
  switch (wanted.what) {
  case resource::kind::pci:
    return vfio_nodes(wanted, root, "/sys/bus/pci/devices/" + wanted.path, fmt::format("PCI device {}", wanted.path));
  case resource::kind::mediated:
    return vfio_nodes(wanted, root, "/sys/bus/mdev/devices/" + wanted.path, fmt::format("mediated device {}", wanted.path));
  case resource::kind::usb:
    return usb_nodes(wanted, root);
  case resource::kind::file:
  case resource::kind::block:
  case resource::kind::character:
  case resource::kind::directory:
  case resource::kind::socket:
    break;
  }
  return std::vector{wanted};
}

} // namespace troupe
