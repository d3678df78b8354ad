#include "tests/xml/definitions.hpp"
#include "xml/qemu_argv.hpp"

#include <algorithm>

using namespace troupe;

TEST_CASE("aliases: devices are called as libvirt calls them, and keep what a user called them", "[xml]") {
  auto guest = completed(guest_xml("<disk type='file'><source file='/a'/><target dev='vdb'/></disk>"
                                   "<disk type='file'><source file='/b'/><target dev='hda'/></disk>"
                                   "<disk type='file'><source file='/c'/><target dev='sda' bus='scsi'/></disk>"
                                   "<interface type='user'/><interface type='user'><alias name='ua-lan'/></interface>"
                                   "<serial type='pty'/><rng model='virtio'><backend model='random'/></rng>"
                                   "<channel type='pty'><target type='virtio' name='c'/></channel>"));
  assign_aliases(guest);
  const auto& d = guest.devices;
  std::vector<std::string> disks;
  for (const auto& each : d.disks)
    disks.push_back(each.alias);
  std::ranges::sort(disks);
  CHECK(disks == std::vector<std::string>{"ide0-0-0", "scsi0-0-0", "virtio-disk1"});
  CHECK(d.interfaces[0].alias == "net0");
  CHECK(d.interfaces[1].alias == "ua-lan");
  CHECK(d.serials[0].alias == "serial0");
  CHECK(d.consoles[0].alias == "serial0");
  CHECK(d.channels[0].alias == "channel0");
  CHECK(d.balloons[0].alias == "balloon0");
  CHECK(d.rngs[0].alias == "rng0");
  const auto named = [&](controller_type type) {
    return std::ranges::find(d.controllers, type, &controller::type)->alias;
  };
  CHECK(named(controller_type::pci) == "pci.0");
  CHECK(named(controller_type::usb) == "usb");
  CHECK(named(controller_type::ide) == "ide");
  CHECK(named(controller_type::virtio_serial) == "virtio-serial0");
}

TEST_CASE("aliases: no two devices that QEMU tells apart share one", "[xml]") {
  auto guest = completed(
    guest_xml("<interface type='user'><alias name='ua-x'/></interface><interface type='user'/>"
              "<input type='tablet' bus='usb'/><sound model='ich6'/><sound model='ac97'/><graphics type='vnc'/>",
              "", "q35"));
  assign_aliases(guest);
  std::vector<std::string> all;
  for (const auto& each : guest.devices.interfaces)
    all.push_back(each.alias);
  for (const auto& each : guest.devices.controllers)
    all.push_back(each.alias);
  for (const auto& each : guest.devices.inputs)
    all.push_back(each.alias);
  for (const auto& each : guest.devices.sounds)
    all.push_back(each.alias);
  CHECK(std::ranges::none_of(all, &std::string::empty));
  std::ranges::sort(all);
  CHECK(std::ranges::adjacent_find(all) == all.end());
}

TEST_CASE("displays: those with autoport get ports in order, and an address to listen on", "[xml]") {
  auto guest = completed(guest_xml("<graphics type='vnc' port='-1'/><graphics type='spice' autoport='yes'/>"));
  REQUIRE(display_ports_wanted(guest) == 2);
  const std::array ports{5900, 5901};
  assign_display_ports(guest, ports, "127.0.0.1", "::1");
  CHECK(guest.devices.graphics[0].port == 5900);
  CHECK(guest.devices.graphics[0].listens[0].address == "127.0.0.1");
  CHECK(guest.devices.graphics[1].port == 5901);
  CHECK(guest.devices.graphics[1].listens[0].address == "::1");
  auto fixed = completed(guest_xml("<graphics type='vnc' port='5950' listen='10.0.0.1'/>"));
  CHECK(display_ports_wanted(fixed) == 0);
  assign_display_ports(fixed, {}, "127.0.0.1", "127.0.0.1");
  CHECK(fixed.devices.graphics[0].port == 5950);
  CHECK(fixed.devices.graphics[0].listens[0].address == "10.0.0.1");
}

TEST_CASE("networks: a mapped one is a bridge, 'user' and a session's default need none, others say what to set",
          "[xml]") {
  const auto guest = completed(guest_xml("<interface type='network'><source network='default'/></interface>"
                                         "<interface type='bridge'><source bridge='br7'/></interface>"));
  using names = std::vector<std::string>;
  CHECK(bridges_wanted(guest, {{"default", "virbr0"}}, false).value() == names{"virbr0", "br7"});
  CHECK(bridges_wanted(guest, {{"default", "user"}}, false).value() == names{"br7"});
  CHECK(bridges_wanted(guest, {}, true).value() == names{"br7"});
  CHECK(bridges_wanted(guest, {{"default", "virbr0"}}, true).value() == names{"virbr0", "br7"});
  const auto refused = bridges_wanted(guest, {}, false);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::unsupported_config);
  for (const auto* part : {"guest 'g'", "network 'default'", "networks = [ \"default=virbr0\" ]"})
    CHECK(refused.error().detail.find(part) != std::string::npos);
}

TEST_CASE("host ends: TAPs, agents' sockets and PTYs are noted where they belong", "[xml]") {
  auto guest =
    completed(guest_xml("<interface type='user'/><interface type='bridge'><source bridge='b'/></interface>"
                        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
                        "<serial type='pty'/>"));
  assign_aliases(guest);
  run_settings settings;
  settings.run_dir = "/run/g";
  const std::vector<std::string> taps{"vnet3"};
  name_host_ends(guest, settings, taps);
  CHECK(guest.devices.interfaces[0].target_dev.empty());
  CHECK(guest.devices.interfaces[1].target_dev == "vnet3");
  CHECK(guest.devices.channels[0].source.first().path == "/run/g/channel0.sock");
  CHECK(guest.devices.channels[0].source.first().mode == "bind");
  name_pty(guest, "charserial0", "/dev/pts/9");
  CHECK(guest.devices.serials[0].source.first().path == "/dev/pts/9");
  CHECK(guest.devices.consoles[0].tty == "/dev/pts/9");
  const auto console = console_of(guest, "");
  REQUIRE(console);
  CHECK(console->path == "/dev/pts/9");
  CHECK_FALSE(console->socket);
  CHECK(console_of(guest, "channel0")->socket);
  CHECK(console_of(guest, "nobody").error().code == errc::bad_argument);
}

TEST_CASE("console: one without an end on the host is told so", "[xml]") {
  auto guest = completed(guest_xml("<serial type='null'/>"));
  assign_aliases(guest);
  CHECK(console_of(guest, "").error().code == errc::operation_failed);
  CHECK(console_of(completed(guest_xml("")), "").error().code == errc::bad_argument);
}

TEST_CASE("resources: what QEMU opens is listed once, with what it does to it", "[xml]") {
  const auto guest = completed(guest_xml(
    "<disk type='file'><source file='/img'/><backingStore type='file'><format type='qcow2'/><source "
    "file='/base'/></backingStore>"
    "<target dev='vda'/></disk>"
    "<disk type='file' device='cdrom'><source file='/iso'/><target dev='hdc'/></disk>"
    "<disk type='block'><source dev='/dev/vg/x'/><target dev='vdb'/><shareable/></disk>"
    "<disk type='file'><source file='/keep'><seclabel model='dac' relabel='no'/></source><target dev='vdc'/></disk>"
    "<serial type='file'><source path='/log'/></serial><console type='file'><source path='/log'/></console>"
    "<filesystem type='mount'><driver type='virtiofs'/><source socket='/fs.sock'/><target dir='t'/></filesystem>",
    ""));
  const auto all = resources_of(guest);
  const auto find = [&](std::string_view path) {
    const auto found = std::ranges::find(all, path, &needed_resource::path);
    REQUIRE(found != all.end());
    return *found;
  };
  using kind = needed_resource::kind;
  CHECK(find("/img") == needed_resource{"/img", false, false, kind::file, true});
  CHECK(find("/base") == needed_resource{"/base", true, true, kind::file, true});
  CHECK(find("/iso") == needed_resource{"/iso", true, true, kind::file, true});
  CHECK(find("/dev/vg/x") == needed_resource{"/dev/vg/x", false, true, kind::block, true});
  CHECK(find("/keep").labels == std::vector<needed_resource::own_label>{{"dac", false, ""}});
  CHECK(find("/keep").relabel);
  CHECK(find("/fs.sock") == needed_resource{"/fs.sock", false, false, kind::socket, true});
  CHECK(std::ranges::count(all, "/log", &needed_resource::path) == 1);
}

TEST_CASE("resources: what QEMU makes itself is told apart from what it opens", "[xml]") {
  const auto guest = completed(guest_xml(
    "<serial type='unix'><source mode='bind' path='/made.sock'/></serial>"
    "<channel type='unix'><source mode='connect' path='/there.sock'/><target type='virtio' name='a'/></channel>"
    "<graphics type='vnc' socket='/vnc.sock'/>"));
  auto made = made_by_qemu(guest, {"-object", R"({"qom-type":"memory-backend-file","id":"m","mem-path":"/dev/shm/ram"})", "{"});
  std::ranges::sort(made);
  made.erase(std::unique(made.begin(), made.end()), made.end());
  CHECK(made == std::vector<std::string>{"/dev/shm/ram", "/made.sock", "/vnc.sock"});
}

TEST_CASE("resources: every device node that QEMU opens is among them", "[xml]") {
  const auto all = resources_of(completed(guest_xml(
    "<hostdev mode='subsystem' type='usb'><source><address bus='3' device='7'/></source></hostdev>"
    "<hostdev mode='subsystem' type='usb'><source startupPolicy='optional'><vendor id='0x46d'/><product id='0xc31c'/>"
    "</source></hostdev>"
    "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0' bus='1' slot='2' function='3'/></source>"
    "</hostdev>"
    "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='2d2a1e9c-6a3f-4c53-9e5d-4b0ad6c5a4d1'/>"
    "</source></hostdev>"
    "<serial type='dev'><source path='/dev/ttyS0'/></serial>"
    "<parallel type='dev'><source path='/dev/parport0'/></parallel>"
    "<input type='evdev'><source dev='/dev/input/event3'/></input>"
    "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event4'/></input>"
    "<rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>"
    "<rng model='virtio'><backend model='random'/></rng>"
    "<tpm model='tpm-tis'><backend type='passthrough'/></tpm>"
    "<shmem name='shared'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
    "<vsock model='virtio'><cid auto='no' address='5'/></vsock>"
    "<interface type='bridge'><source bridge='br0'/><model type='virtio'/><driver name='vhost'/></interface>"
    "<disk type='nvme' device='disk'><source type='pci' managed='no' namespace='1'>"
    "<address domain='0x0000' bus='0x05' slot='0x00' function='0x0'/></source><target dev='vda' bus='virtio'/></disk>",
    "")));
  using kind = needed_resource::kind;
  const auto is = [&](const needed_resource& wanted) {
    const auto found = std::ranges::find(all, wanted.path, &needed_resource::path);
    INFO(wanted.path);
    REQUIRE(found != all.end());
    CHECK(found->readonly == wanted.readonly);
    CHECK(found->shared == wanted.shared);
    CHECK(found->what == wanted.what);
    CHECK(found->relabel == wanted.relabel);
    CHECK(found->create == wanted.create);
    CHECK(found->optional == wanted.optional);
  };
  is({"/dev/bus/usb/003/007", false, false, kind::character});
  is({"046d:c31c", false, false, kind::usb, true, false, true});
  is({"0000:01:02.3", false, false, kind::pci});
  is({"2d2a1e9c-6a3f-4c53-9e5d-4b0ad6c5a4d1", false, false, kind::mediated});
  for (const auto* own : {"/dev/ttyS0", "/dev/parport0", "/dev/input/event3", "/dev/input/event4", "/dev/tpm0"})
    is({own, false, false, kind::character});
  is({"/dev/hwrng", true, true, kind::character});
  is({"/dev/random", true, true, kind::character, false});
  is({"/dev/shm/shared", false, true, kind::file, true, true});
  is({"/dev/vhost-vsock", false, true, kind::character, false});
  is({"/dev/vhost-net", false, true, kind::character, false});
  is({"0000:05:00.0", false, false, kind::pci});
}

TEST_CASE("resources: what a definition says of a file's label goes with it", "[xml]") {
  const auto all = resources_of(completed(guest_xml(
    "<disk type='file'><source file='/img'><seclabel model='dac' relabel='yes'><label>+1:+2</label></seclabel>"
    "<seclabel model='selinux' relabel='no'/></source>"
    "<backingStore type='file'><format type='raw'/><source file='/base'><seclabel model='dac' relabel='no'/></source>"
    "</backingStore><target dev='vda'/></disk>",
    "")));
  using own = needed_resource::own_label;
  CHECK(std::ranges::find(all, "/img", &needed_resource::path)->labels ==
        std::vector<own>{{"dac", true, "+1:+2"}, {"selinux", false, ""}});
  CHECK(std::ranges::find(all, "/base", &needed_resource::path)->labels == std::vector<own>{{"dac", false, ""}});
}

TEST_CASE("resources: a chain that the definition leaves open is known by its last image, unless that is raw", "[xml]") {
  const auto open_of = [](const std::string& format, const std::string& backing) {
    std::vector<std::string> paths;
    for (const auto& each : open_chains(completed(guest_xml("<disk type='file'><driver name='qemu' type='" + format +
                                                            "'/><source file='/img'/>" + backing +
                                                            "<target dev='vda'/></disk>"))))
      paths.push_back(each.path);
    return paths;
  };
  using paths = std::vector<std::string>;
  const auto below = [](const std::string& format, const std::string& more) {
    return "<backingStore type='file'><format type='" + format + "'/><source file='/base'/>" + more + "</backingStore>";
  };
  CHECK(open_of("qcow2", "") == paths{"/img"});
  CHECK(open_of("raw", "").empty());
  CHECK(open_of("qcow2", "<backingStore/>").empty());
  CHECK(open_of("qcow2", below("qcow2", "")) == paths{"/base"});
  CHECK(open_of("qcow2", below("raw", "")).empty());
  CHECK(open_of("qcow2", below("qcow2", "<backingStore/>")).empty());
}

TEST_CASE("labels: a static DAC label is the guest's own, and none is a choice, too", "[xml]") {
  CHECK(static_dac_label(completed(guest_xml(""))) == nullptr);
  const auto guest = completed(guest_xml(
    "",
    "<seclabel type='dynamic' model='selinux'/><seclabel type='static' model='dac'><label>107:108</label></seclabel>"));
  REQUIRE(static_dac_label(guest) != nullptr);
  CHECK(static_dac_label(guest)->label == "107:108");
  CHECK_FALSE(static_dac_label(guest)->relabel);

  const auto unlabelled = completed(guest_xml("", "<seclabel type='none' model='dac'/>"));
  REQUIRE(static_dac_label(unlabelled) != nullptr);
  CHECK(static_dac_label(unlabelled)->label.empty());
  CHECK_FALSE(static_dac_label(unlabelled)->relabel);
}

TEST_CASE("questions: what happens on a crash and on power-off is what was asked for", "[xml]") {
  CHECK(on_crash_of(completed(guest_xml(""))) == crash_action::destroy);
  CHECK(on_crash_of(completed(guest_xml("", "<on_crash>coredump-restart</on_crash>"))) == crash_action::restart);
  CHECK(on_crash_of(completed(guest_xml("", "<on_crash>preserve</on_crash>"))) == crash_action::preserve);
  CHECK_FALSE(restarts_on_poweroff(completed(guest_xml(""))));
  CHECK(restarts_on_poweroff(completed(guest_xml("", "<on_poweroff>restart</on_poweroff>"))));
  CHECK(vcpus_of(completed(guest_xml("", "<vcpu current='1'>4</vcpu>"))) == 1);
}

TEST_CASE("metadata: what is set is found again, under its own namespace alone", "[xml]") {
  auto guest = completed(guest_xml(""));
  const std::string text = "<app name='x'><part/></app>";
  REQUIRE(set_metadata_of(guest, 2, &text, "my", "http://my"));
  CHECK(metadata_of(guest, 2, "http://my")->find("<app name=") == 0);
  CHECK(write_domain(guest, {}).find("<my:app xmlns:my=\"http://my\"") != std::string::npos);
  CHECK(metadata_of(guest, 2, "http://other").error().code == errc::no_such_metadata);
  auto reread = read_domain(write_domain(guest, {.secure = true, .inactive = true}));
  REQUIRE(reread);
  CHECK(metadata_of(*reread, 2, "http://my").value() == metadata_of(guest, 2, "http://my").value());
  REQUIRE(set_metadata_of(guest, 2, nullptr, "", "http://my"));
  CHECK_FALSE(metadata_of(guest, 2, "http://my"));

  const std::string title = "web";
  REQUIRE(set_metadata_of(guest, 1, &title, "", ""));
  CHECK(metadata_of(guest, 1, "").value() == "web");
  const std::string two_lines = "a\nb";
  CHECK(set_metadata_of(guest, 1, &two_lines, "", "").error().code == errc::bad_argument);
  const std::string broken = "<app>";
  CHECK(set_metadata_of(guest, 2, &broken, "my", "http://my").error().code == errc::bad_xml);
  CHECK(set_metadata_of(guest, 2, &text, "no prefix", "http://my").error().code == errc::bad_argument);
  CHECK(set_metadata_of(guest, 9, &text, "my", "http://my").error().code == errc::bad_argument);
}
