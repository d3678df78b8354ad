#include "tests/xml/definitions.hpp"

#include <algorithm>

using namespace troupe;

TEST_CASE("defaults: what a definition leaves out about life and size is filled in", "[xml]") {
  const auto guest = completed(guest_xml(""));
  CHECK(guest.current_memory_kib == 65536u);
  CHECK(guest.vcpu_max == 1u);
  CHECK(guest.vcpu_placement == "static");
  CHECK(guest.clock->offset == "utc");
  CHECK(guest.on_poweroff == lifecycle_action::destroy);
  CHECK(guest.on_reboot == lifecycle_action::restart);
  CHECK(guest.on_crash == lifecycle_action::destroy);
  REQUIRE(guest.os.boots.size() == 1);
  CHECK(guest.os.boots[0].dev == boot_device::hd);
  CHECK(guest.cpu->mode == "custom");
  CHECK(guest.cpu->model == "qemu64");
}

TEST_CASE("defaults: a clock of the old kind keeps meaning local time", "[xml]") {
  CHECK(completed(guest_xml("", "<clock sync='localtime'/>")).clock->offset == "localtime");
}

TEST_CASE("defaults: a host's CPU passes through whole, and may migrate", "[xml]") {
  const auto guest = completed(guest_xml("", "<cpu mode='host-passthrough'/>", "q35", "kvm"));
  CHECK(guest.cpu->check == "none");
  CHECK(guest.cpu->migratable == on_off::on);
}

TEST_CASE("defaults: every pc has a mouse, a keyboard, a balloon and a USB controller, once", "[xml]") {
  for (const auto* machine : {"pc", "q35"}) {
    const auto guest =
      completed(guest_xml("<input type='keyboard' bus='ps2'/><memballoon model='none'/>", "", machine));
    CHECK(guest.devices.inputs.size() == 2);
    CHECK(guest.devices.balloons.size() == 1);
    CHECK(guest.devices.balloons[0].model == "none");
    CHECK(std::ranges::count(guest.devices.controllers, controller_type::usb, &controller::type) == 1);
  }
}

TEST_CASE("defaults: a display brings a video card and sound of its kind", "[xml]") {
  const auto vnc = completed(guest_xml("<graphics type='vnc' port='-1'/>"));
  REQUIRE(vnc.devices.videos.size() == 1);
  CHECK(vnc.devices.videos[0].model == "cirrus");
  CHECK(vnc.devices.videos[0].primary == yes_no::yes);
  CHECK(vnc.devices.graphics[0].autoport == yes_no::yes);
  REQUIRE(vnc.devices.graphics[0].listens.size() == 1);
  CHECK(vnc.devices.graphics[0].listens[0].type == listen_type::address);
  CHECK(vnc.devices.audios.at(0).type == "none");
  CHECK(completed(guest_xml("<graphics type='spice' autoport='yes'/>")).devices.audios.at(0).type == "spice");
  CHECK(completed(guest_xml("")).devices.videos.empty());
}

TEST_CASE("defaults: the first serial port is the console, and a lone console is a serial port", "[xml]") {
  for (const auto* port : {"<serial type='pty'/>", "<console type='pty'/>"}) {
    const auto guest = completed(guest_xml(port));
    REQUIRE(guest.devices.serials.size() == 1);
    REQUIRE(guest.devices.consoles.size() == 1);
    CHECK(guest.devices.serials[0].target_type == "isa-serial");
    CHECK(guest.devices.consoles[0].target_type == "serial");
  }
  CHECK(completed(guest_xml("<console type='pty'><target type='virtio'/></console>")).devices.serials.empty());
}

TEST_CASE("defaults: a network card gets a model and an address of its own", "[xml]") {
  const auto guest =
    completed(guest_xml("<interface type='network'><source network='default'/></interface>"
                        "<interface type='user'><mac address='52:54:00:AB:cd:ef'/><model type='virtio'/></interface>"));
  CHECK(guest.devices.interfaces[0].model == "rtl8139");
  CHECK(guest.devices.interfaces[0].mac == "52:54:00:00:00:00");
  CHECK(guest.devices.interfaces[1].model == "virtio");
  CHECK(guest.devices.interfaces[1].mac == "52:54:00:ab:cd:ef");
}

TEST_CASE("defaults: what only a running guest has is dropped", "[xml]") {
  const auto guest = completed(
    guest_xml("<interface type='bridge'><source bridge='b0'/><target dev='vnet7'/><alias name='net0'/></interface>"
              "<interface type='bridge'><source bridge='b0'/><target dev='mine'/><alias name='ua-mine'/></interface>"
              "<serial type='pty'><source path='/dev/pts/4'/></serial>"));
  CHECK(guest.devices.interfaces[0].target_dev.empty());
  CHECK(guest.devices.interfaces[0].alias.empty());
  CHECK(guest.devices.interfaces[1].target_dev == "mine");
  CHECK(guest.devices.interfaces[1].alias == "ua-mine");
  CHECK(guest.devices.serials[0].source.first().path.empty());
}

TEST_CASE("forms: sets of CPUs are written one way", "[xml]") {
  const auto guest = completed(guest_xml("", "<vcpu cpuset='1-4,^3,6'>2</vcpu>"));
  CHECK(guest.vcpu_cpuset == "1-2,4,6");
}

TEST_CASE("forms: the guest's UUID may stand in its BIOS, but no other one", "[xml]") {
  const auto info = [](std::string_view uuid) {
    return "<sysinfo type='smbios'><system><entry name='uuid'>" + std::string{uuid} + "</entry></system></sysinfo>";
  };
  CHECK(completed(guest_xml("", info("c7a5fdbd-cdaf-9455-926a-d65c16db1809"))).uuid ==
        "c7a5fdbd-cdaf-9455-926a-d65c16db1809");
  CHECK(refusal(guest_xml("", "<uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1800</uuid>" +
                                info("c7a5fdbd-cdaf-9455-926a-d65c16db1809")))
          .find("UUID mismatch") != std::string::npos);
}

TEST_CASE("validate: a definition that cannot be a guest is refused and says why", "[xml]") {
  const auto named = [](std::string_view name) {
    return "<domain type='qemu'><name>" + std::string{name} +
           "</name><memory>1024</memory><os><type>hvm</type></os></domain>";
  };
  CHECK(refusal(named("a/b")) == "XML error: name a/b cannot contain '/'");
  CHECK(refusal(named("")).find("has no name") != std::string::npos);
  CHECK(refusal(named("..")).find("cannot be a file's") != std::string::npos);
  CHECK(refusal("<domain type='qemu'><name>g</name><memory>1024</memory></domain>") ==
        "XML error: an os <type> must be specified");
  CHECK(refusal("<domain type='qemu'><name>g</name><os><type>hvm</type></os></domain>")
          .find("Memory size must be specified") != std::string::npos);
  CHECK(refusal(guest_xml("", "", "pc-1.2")) ==
        "unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support "
        "machine type 'pc-1.2'");
  CHECK(refusal(guest_xml("<input type='tablet' bus='usb'/><controller type='usb' model='none'/>")) ==
        "unsupported configuration: Can't add USB input device. USB bus is disabled");
  CHECK(refusal(guest_xml("", "<vcpu>0</vcpu>")).find("has no vCPU") != std::string::npos);
  CHECK(refusal(guest_xml("<interface type='user'><mac address='zz'/></interface>")) ==
        "XML error: unable to parse mac address 'zz'");
}
