#include "sec/host_devices.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using kind = resource::kind;

std::vector<std::string> paths_of(const result<std::vector<resource>>& nodes) {
  std::vector<std::string> paths;
  for (const auto& each : nodes.value())
    paths.push_back(each.path);
  return paths;
}

std::string why_not(const resource& wanted, const std::string& root) {
  const auto nodes = nodes_of(wanted, root);
  REQUIRE_FALSE(nodes);
  CHECK(nodes.error().code == errc::operation_failed);
  return nodes.error().detail;
}

resource device(kind what, std::string path) {
  return {.path = std::move(path), .what = what};
}

} // namespace

TEST_CASE("host devices: what is named by a path is itself", "[sec]") {
  for (const auto what : {kind::file, kind::block, kind::character, kind::directory, kind::socket}) {
    auto wanted = device(what, "/somewhere");
    wanted.readonly = true;
    CHECK(nodes_of(wanted, "/nowhere").value() == std::vector{wanted});
  }
}

TEST_CASE("host devices: a PCI device is its VFIO group, and the container that all share", "[sec]") {
  const temp_dir dir;
  const auto root = dir.path();
  fs::create_directories(root + "/sys/devices/pci0/0000:01:00.0");
  fs::create_directories(root + "/sys/bus/pci/devices");
  fs::create_directories(root + "/sys/kernel/iommu_groups/12");
  fs::create_symlink("../../../devices/pci0/0000:01:00.0", root + "/sys/bus/pci/devices/0000:01:00.0");
  auto wanted = device(kind::pci, "0000:01:00.0");
  CHECK_THAT(why_not(wanted, root), Contains("PCI device 0000:01:00.0") && Contains("IOMMU") && Contains("vfio-pci"));
  fs::create_symlink("../../../kernel/iommu_groups/12", root + "/sys/devices/pci0/0000:01:00.0/iommu_group");
  const auto nodes = nodes_of(wanted, root);
  CHECK(paths_of(nodes) == std::vector<std::string>{"/dev/vfio/vfio", "/dev/vfio/12",
                                                    fs::canonical(root + "/sys/devices/pci0/0000:01:00.0").string()});
  CHECK_FALSE((*nodes)[0].relabel);
  CHECK((*nodes)[1].relabel);
  CHECK((*nodes)[1].what == kind::character);
  CHECK_FALSE((*nodes)[1].shared);
  CHECK((*nodes)[2].readonly);

  wanted.path = "0000:02:00.0";
  CHECK(why_not(wanted, root) == "there is no PCI device 0000:02:00.0 on this host");
  wanted.optional = true;
  CHECK(nodes_of(wanted, root).value().empty());
}

TEST_CASE("host devices: a mediated device is its VFIO group", "[sec]") {
  const temp_dir dir;
  const auto root = dir.path();
  const std::string uuid = "2d2a1e9c-6a3f-4c53-9e5d-4b0ad6c5a4d1";
  fs::create_directories(root + "/sys/bus/mdev/devices/" + uuid);
  fs::create_symlink("../../../../kernel/iommu_groups/3", root + "/sys/bus/mdev/devices/" + uuid + "/iommu_group");
  CHECK(paths_of(nodes_of(device(kind::mediated, uuid), root))[1] == "/dev/vfio/3");
  CHECK_THAT(why_not(device(kind::mediated, "other"), root), Contains("mediated device other"));
}

TEST_CASE("host devices: a USB device is found by vendor and product, when there is one", "[sec]") {
  const temp_dir dir;
  const auto root = dir.path();
  const auto plug = [&](const std::string& name, const char* vendor, const char* product, int bus, int number) {
    const auto place = root + "/sys/bus/usb/devices/" + name;
    fs::create_directories(place);
    write_file(place + "/idVendor", std::string{vendor} + "\n");
    write_file(place + "/idProduct", std::string{product} + "\n");
    write_file(place + "/busnum", std::to_string(bus) + "\n");
    write_file(place + "/devnum", std::to_string(number) + "\n");
  };
  auto wanted = device(kind::usb, "046d:c31c");
  CHECK(why_not(wanted, root) == "there is no USB device 046d:c31c on this host");
  plug("usb1", "1d6b", "0002", 1, 1);
  plug("1-1", "046d", "c31c", 1, 23);
  fs::create_directories(root + "/sys/bus/usb/devices/1-1:1.0"); // an interface
  CHECK(paths_of(nodes_of(wanted, root)) == std::vector<std::string>{"/dev/bus/usb/001/023"});
  plug("2-4", "046d", "c31c", 2, 107);
  CHECK_THAT(why_not(wanted, root), Contains("2 USB devices 046d:c31c") &&
                                      Contains("/dev/bus/usb/001/023, /dev/bus/usb/002/107") && Contains("<address"));
  wanted.path = "1234:5678";
  wanted.optional = true;
  CHECK(nodes_of(wanted, root).value().empty());
  for (const auto* odd : {"", ":", "1234", "xyzw:1", "1:2:3"})
    CHECK_FALSE(nodes_of(device(kind::usb, odd), root));
}

} // namespace troupe
