#include "tests/xml/definitions.hpp"

#include <algorithm>

using namespace troupe;

// What is checked against libvirt's answers as a whole in complete_definition_test, here rule by rule and without them.

TEST_CASE("pci: the chipset of a pc keeps its slot, the display comes next, cards follow by kind", "[xml]") {
  const auto guest = completed(guest_xml("<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
                                         "<disk type='file'><source file='/b'/><target dev='hda'/></disk>"
                                         "<interface type='user'/><graphics type='vnc'/><sound model='ich6'/>"));
  const auto& d = guest.devices;
  CHECK(place(d.controllers[0]) == "0:1.2"); // USB
  CHECK(place(d.videos[0]) == "0:2.0");
  CHECK(place(d.interfaces[0]) == "0:3.0");
  CHECK(place(d.sounds[0]) == "0:4.0");
  const auto virtio = std::ranges::find(d.disks, disk_bus::virtio, &disk::bus);
  CHECK(place(*virtio) == "0:5.0");
  CHECK(place(d.balloons[0]) == "0:6.0");
  const auto ide = std::ranges::find(d.controllers, controller_type::ide, &controller::type);
  REQUIRE(ide != d.controllers.end());
  CHECK(place(*ide) == "0:1.1");
}

TEST_CASE("pci: on q35 what may be unplugged gets a root port of its own, and one port stays free", "[xml]") {
  const auto guest = completed(guest_xml("<interface type='user'><model type='virtio'/></interface>", "", "q35"));
  const auto& d = guest.devices;
  CHECK(place(d.interfaces[0]) == "1:0.0");
  CHECK(place(d.balloons[0]) == "3:0.0");
  const auto ports = std::ranges::count(d.controllers, "pcie-root-port", &controller::model);
  CHECK(ports == 4); // card, USB, balloon, and the free one
  const auto sata = std::ranges::find(d.controllers, controller_type::sata, &controller::type);
  REQUIRE(sata != d.controllers.end());
  CHECK(place(*sata) == "0:31.2");
}

TEST_CASE("pci: a card for the old bus makes q35 grow a bridge to it", "[xml]") {
  const auto guest = completed(guest_xml("<interface type='user'><model type='rtl8139'/></interface>", "", "q35"));
  const auto& controllers = guest.devices.controllers;
  const auto bridge = std::ranges::find(controllers, "pcie-to-pci-bridge", &controller::model);
  REQUIRE(bridge != controllers.end());
  CHECK(guest.devices.interfaces[0].address.pci.bus == static_cast<unsigned>(*bridge->index));
}

TEST_CASE("pci: more cards than slots get a bridge", "[xml]") {
  std::string cards;
  for (int i = 0; i < 40; ++i)
    cards += "<interface type='user'/>";
  const auto guest = completed(guest_xml(cards));
  CHECK(std::ranges::count(guest.devices.controllers, "pci-bridge", &controller::model) == 1);
  CHECK(guest.devices.interfaces.back().address.pci.bus == 1);
}

TEST_CASE("pci: an address that is taken or cannot be is refused", "[xml]") {
  const auto at = [](std::string_view address) {
    return "<interface type='user'><address type='pci' domain='0x0000' " + std::string{address} + "/></interface>";
  };
  const auto five = at("bus='0x00' slot='0x05' function='0x0'");
  CHECK(refusal(guest_xml(five + five)) == "XML error: Attempted double use of PCI Address 0000:00:05.0");
  CHECK(refusal(guest_xml(at("bus='0x00' slot='0x01' function='0x3'"))).find("0000:00:01.0 is in use") !=
        std::string::npos);
  CHECK(refusal(guest_xml(five + "<memballoon model='none'/>")).empty());
}

TEST_CASE("usb: devices take the controller's ports in turn, and hubs come when they do not suffice", "[xml]") {
  const auto guest = completed(guest_xml("<input type='tablet' bus='usb'/><input type='mouse' bus='usb'/>"
                                         "<input type='keyboard' bus='usb'/>"));
  REQUIRE(guest.devices.hubs.size() == 1);
  CHECK(guest.devices.hubs[0].address.port == "1");
  CHECK(guest.devices.inputs[0].address.port == "2");
  CHECK(guest.devices.inputs[1].address.port == "1.1");
  CHECK(guest.devices.inputs[2].address.port == "1.2");
}

TEST_CASE("usb: a port that is not there or taken is refused", "[xml]") {
  const auto at = [](std::string_view port) {
    return "<input type='tablet' bus='usb'><address type='usb' bus='0' port='" + std::string{port} + "'/></input>";
  };
  CHECK(refusal(guest_xml(at("7"))) == "XML error: requested USB port 7 not present on USB bus 0");
  CHECK(refusal(guest_xml(at("1") + at("1"))) == "XML error: Duplicate USB address bus 0 port 1");
  CHECK(refusal(guest_xml(at("x"))).find("Cannot parse USB port 'x'") != std::string::npos);
}

TEST_CASE("virtio-serial: channels start at port 1, and a full controller is followed by another", "[xml]") {
  std::string channels;
  for (int i = 0; i < 31; ++i)
    channels += "<channel type='pty'><target type='virtio' name='c" + std::to_string(i) + "'/></channel>";
  const auto guest = completed(guest_xml(channels));
  CHECK(guest.devices.channels[0].address.port == "1");
  CHECK(guest.devices.channels[29].address.port == "30");
  CHECK(guest.devices.channels[30].address.controller == 1);
  CHECK(guest.devices.channels[30].address.port == "1");
}

TEST_CASE("drives: a disk's name is its place", "[xml]") {
  const auto guest = completed(guest_xml("<disk type='file' device='cdrom'><target dev='hdc'/></disk>"
                                         "<disk type='file'><source file='/a'/><target dev='sdb' bus='sata'/></disk>"
                                         "<disk type='file' device='floppy'><target dev='fdb'/></disk>"
                                         "<controller type='scsi' model='virtio-scsi'/>"
                                         "<disk type='file'><source file='/b'/><target dev='sdh' bus='scsi'/></disk>"));
  const auto at = [&](std::string_view target) {
    const auto found = std::ranges::find(guest.devices.disks, target, &disk::target);
    REQUIRE(found != guest.devices.disks.end());
    return std::array{found->address.controller, found->address.bus, found->address.unit};
  };
  CHECK(at("hdc") == std::array{0u, 1u, 0u});
  CHECK(at("sdb") == std::array{0u, 0u, 1u});
  CHECK(at("fdb") == std::array{0u, 0u, 1u});
  CHECK(at("sdh") == std::array{0u, 0u, 8u}); // 7 is the controller's
  CHECK(std::ranges::find(guest.devices.disks, std::string_view{"hdc"}, &disk::target)->readonly);
}

TEST_CASE("drives: the same name or place twice is refused", "[xml]") {
  const auto disk_at = [](std::string_view source, std::string_view target, std::string_view more = "") {
    return "<disk type='file'><source file='" + std::string{source} + "'/><target dev='" + std::string{target} +
           "' bus='scsi'/>" + std::string{more} + "</disk>";
  };
  CHECK(refusal(guest_xml(disk_at("/a", "sda") + disk_at("/b", "sda"))) ==
        "XML error: target 'sda' duplicated for disk sources '/a' and '/b'");
  const auto zero = "<address type='drive' controller='0' bus='0' target='0' unit='0'/>";
  CHECK(
    refusal(guest_xml(disk_at("/a", "sda", zero) + disk_at("/b", "sdb", zero))).find("Found duplicate drive address") !=
    std::string::npos);
}
