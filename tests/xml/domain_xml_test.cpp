#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"
#include "xml/domain.hpp"

#include <map>
#include <random>
#include <set>

using namespace troupe;

namespace {

constexpr xml_options everything{.secure = true, .inactive = false, .migratable = false};
constexpr xml_options at_rest{.secure = true, .inactive = true, .migratable = false};

/// A guest without KVM: a CD drive, a disk, a card on a network, a VNC display.
constexpr auto emulated_guest = R"(<domain type='qemu'>
  <name>rehearsal</name>
  <uuid>5f1c9a52-3f0b-4c17-9a4e-1d2c3b4a5f60</uuid>
  <memory unit='KiB'>262144</memory>
  <currentMemory unit='KiB'>131072</currentMemory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='cdrom'/>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='cdrom'>
      <source file='/srv/images/rescue.iso'/>
      <target dev='hdc'/>
      <readonly/>
    </disk>
    <disk type='file' device='disk'>
      <source file='/srv/images/rehearsal.img'/>
      <target dev='hda'/>
    </disk>
    <interface type='network'>
      <source network='default'/>
    </interface>
    <graphics type='vnc' port='-1'/>
  </devices>
</domain>
)";

/// A guest with KVM on a 32-bit machine, as one wrote it before 2010.
constexpr auto kvm_guest = R"(<domain type='kvm'>
  <name>understudy</name>
  <uuid>0d4ab5ee-6a1f-4f0e-8a0e-7b9a3c2d1e0f</uuid>
  <memory unit='KiB'>131072</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='i686'>hvm</type>
  </os>
  <clock sync='localtime'/>
  <devices>
    <emulator>/usr/bin/qemu-kvm</emulator>
    <disk type='file' device='disk'>
      <source file='/srv/images/understudy.img'/>
      <target dev='hda'/>
    </disk>
    <interface type='network'>
      <mac address='24:42:53:21:52:45'/>
      <source network='default'/>
    </interface>
    <graphics type='vnc' port='-1' keymap='de'/>
  </devices>
</domain>
)";

/// A guest with words of its own for QEMU.
constexpr auto outspoken_guest = R"(<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>prompter</name>
  <memory unit='KiB'>65536</memory>
  <os>
    <type>hvm</type>
    <kernel>/boot/vmlinuz</kernel>
    <initrd>/boot/initrd.img</initrd>
    <cmdline>console=ttyS0 quiet</cmdline>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'>
      <source path='/var/log/prompter.log' append='on'/>
      <target port='0'/>
    </serial>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='edu,id=&quot;x&quot;'/>
    <qemu:arg value=''/>
    <qemu:env name='QEMU_AUDIO_DRV' value='none'/>
    <qemu:env name='QUIET'/>
  </qemu:commandline>
</domain>
)";

domain read(std::string_view text) {
  auto guest = read_domain(text);
  INFO((guest ? "" : guest.error().detail));
  REQUIRE(guest);
  return std::move(*guest);
}

/// A definition of a guest named "g" with `content` in it.
std::string around(std::string_view content) {
  return "<domain type='kvm'>\n<name>g</name>\n" + std::string{content} + "\n</domain>";
}

std::string written(std::string_view content, xml_options options = everything) {
  return write_domain(read(around(content)), options);
}

std::string complaint(std::string_view text) {
  const auto guest = read_domain(text);
  if (guest)
    return {};
  constexpr errc codes[] = {errc::bad_xml, errc::malformed_xml, errc::bad_argument, errc::overflow};
  CHECK(std::ranges::find(codes, guest.error().code) != std::end(codes));
  return guest.error().detail;
}

bool holds(const std::string& text, std::string_view piece) {
  return text.find(piece) != text.npos;
}

/// Definitions that people really use, with what libvirt 9.0.0 makes of them; none where they are not installed.
std::map<std::string, std::string> corpus(const std::string& folder) {
  const auto* named = std::getenv("TROUPE_CORPUS");
  const auto root = named != nullptr ? std::string{named} : std::string{TROUPE_SOURCE_DIR "/../shared/corpus"};
  std::map<std::string, std::string> all;
  if (std::filesystem::is_directory(root + "/" + folder))
    for (const auto& entry : std::filesystem::directory_iterator{root + "/" + folder})
      if (entry.path().extension() == ".xml")
        all[entry.path().stem()] = contents_of(entry.path());
  return all;
}

} // namespace

TEST_CASE("domain xml: a definition is written as it was read", "[xml]") {
  for (const auto* text : {emulated_guest, kvm_guest, outspoken_guest}) {
    CHECK(write_domain(read(text), everything) == text);
    CHECK(write_domain(read(text), at_rest) == text);
  }
}

TEST_CASE("domain xml: reading fills the fields", "[xml]") {
  const auto a = read(emulated_guest);
  CHECK(a.type == virt_type::qemu);
  CHECK(a.name == "rehearsal");
  CHECK(a.uuid == "5f1c9a52-3f0b-4c17-9a4e-1d2c3b4a5f60");
  CHECK(a.id == -1);
  CHECK(a.memory_kib == 262144);
  CHECK(a.current_memory_kib == 131072);
  CHECK(a.vcpu_max == 2);
  REQUIRE(a.os.boots.size() == 1);
  CHECK(a.os.boots[0].dev == boot_device::cdrom);
  REQUIRE(a.devices.disks.size() == 2);
  const auto& cdrom = a.devices.disks[0];
  CHECK(cdrom.device_type == disk_device::cdrom);
  CHECK(cdrom.source.type == storage_type::file);
  CHECK(cdrom.source.path == "/srv/images/rescue.iso");
  CHECK(cdrom.target == "hdc");
  CHECK(cdrom.readonly);
  CHECK(cdrom.bus == disk_bus::unset);
  CHECK(cdrom.line == 13);
  CHECK_FALSE(a.devices.disks[1].readonly);
  REQUIRE(a.devices.interfaces.size() == 1);
  CHECK(a.devices.interfaces[0].type == net_type::network);
  CHECK(a.devices.interfaces[0].network == "default");
  REQUIRE(a.devices.graphics.size() == 1);
  CHECK(a.devices.graphics[0].port == -1);

  const auto b = read(kvm_guest);
  CHECK(b.os.arch == "i686");
  REQUIRE(b.clock);
  CHECK(b.clock->sync == "localtime");
  CHECK(b.devices.interfaces[0].mac == "24:42:53:21:52:45");
  CHECK(b.devices.graphics[0].keymap == "de");

  const auto c = read(outspoken_guest);
  CHECK(c.os.kernel == "/boot/vmlinuz");
  CHECK(c.os.cmdline == "console=ttyS0 quiet");
  CHECK(c.qemu.args == std::vector<std::string>{"-device", "edu,id=\"x\"", ""});
  REQUIRE(c.qemu.envs.size() == 2);
  CHECK(c.qemu.envs[0].value == "none");
  CHECK_FALSE(c.qemu.envs[1].value);
  REQUIRE(c.devices.serials.size() == 1);
  CHECK(c.devices.serials[0].kind == chardev_kind::serial);
  CHECK(c.devices.serials[0].source.type == chardev_type::file);
  CHECK(c.devices.serials[0].source.first().append == on_off::on);
}

TEST_CASE("domain xml: amounts of memory are read in any unit", "[xml]") {
  const struct {
    std::string_view element;
    std::uint64_t kib;
  } rows[] = {
    {"<memory>7</memory>", 7},
    {"<memory unit='b'>1024</memory>", 1},
    {"<memory unit='bytes'>1025</memory>", 2},
    {"<memory unit='KB'>1024</memory>", 1000},
    {"<memory unit='k'>5</memory>", 5},
    {"<memory unit='KiB'> 5\n</memory>", 5},
    {"<memory unit='M'>3</memory>", 3072},
    {"<memory unit='mib'>3</memory>", 3072},
    {"<memory unit='MB'>1</memory>", 977},
    {"<memory unit='GiB'>2</memory>", 2097152},
    {"<memory unit='TiB'>1</memory>", 1073741824},
    {"<memory unit='EiB'>15</memory>", 15ull << 50},
  };
  for (const auto& [element, kib] : rows) {
    CAPTURE(element);
    const auto guest = read(around(element));
    CHECK(guest.memory_kib == kib);
    CHECK(holds(write_domain(guest, everything), "<memory unit='KiB'>" + std::to_string(kib) + "</memory>"));
  }
}

TEST_CASE("domain xml: a wrong value is refused with element, attribute, value, line and what is accepted", "[xml]") {
  const struct {
    std::string_view content;
    std::string_view words;
  } rows[] = {
    {"<devices>\n<disk type='tape'/></devices>",
     "Invalid value for attribute 'type' in element 'disk': 'tape' in line 4. Accepted: file, block, dir, network"},
    {"<memory dumpCore='yes'>1</memory>",
     "Invalid value for attribute 'dumpCore' in element 'memory': 'yes' in line 3. Accepted: on, off"},
    {"<devices><disk><driver ioeventfd='1'/></disk></devices>", "'ioeventfd' in element 'driver': '1'"},
    {"<devices><disk rawio='on'/></devices>", "'rawio' in element 'disk': 'on' in line 3. Accepted: yes, no"},
    {"<memory>much</memory>", "Invalid content of element 'memory': 'much' in line 3. Accepted: a whole number from 0"},
    {"<memory>-1</memory>", "'memory': '-1'"},
    {"<memory>1.5</memory>", "'memory': '1.5'"},
    {"<memory></memory>", "'memory': ''"},
    {"<memory unit='furlong'>1</memory>", "'unit' in element 'memory': 'furlong' in line 3. Accepted: b, bytes, KB"},
    {"<memory unit='EiB'>99</memory>", "'memory': '99EiB' in line 3. Accepted: less than 16 EiB"},
    {"<memory>18446744073709551616</memory>", "Accepted: a whole number from 0 to 18446744073709551615"},
    {"<vcpu>two</vcpu>", "'vcpu': 'two' in line 3. Accepted: a whole number from 0 to 4294967295"},
    {"<vcpu current='0x2'>4</vcpu>", "'current' in element 'vcpu': '0x2'"},
    {"<on_crash>explode</on_crash>", "'on_crash': 'explode' in line 3. Accepted: destroy, restart"},
    {"<os><boot dev='tape'/></os>", "'dev' in element 'boot': 'tape' in line 3. Accepted: fd, hd, cdrom, network"},
    {"<features><apic eoi='maybe'/></features>", "'eoi' in element 'apic'"},
    {"<devices><rng><address type='pci' slot='nine'/></rng></devices>", "'slot' in element 'address': 'nine'"},
    {"<devices><rng><address type='moon'/></rng></devices>", "Accepted: pci, drive, virtio-serial, ccid, usb"},
    {"<devices><input><boot order='first'/></input></devices>", "'order' in element 'boot': 'first'"},
  };
  for (const auto& [content, words] : rows) {
    const auto said = complaint(around(content));
    CAPTURE(content, said, words);
    CHECK(holds(said, words));
  }
  CHECK(holds(complaint(around("<vcpu>" + std::string(5000, '9') + "</vcpu>")), "999..."));
}

TEST_CASE("domain xml: what is no definition is refused by its name", "[xml]") {
  CHECK(holds(complaint("<network>\n<name>n</name></network>"), "not 'network' (line 1)"));
  CHECK(holds(complaint(""), "empty"));
  CHECK(holds(complaint("<domain><name>g</domain>"), "in <name>: mismatched tag"));
  CHECK(holds(complaint("<!DOCTYPE domain><domain/>"), "DOCTYPE"));
}

TEST_CASE("domain xml: what is not known is kept where it was", "[xml]") {
  const auto* text = R"(<domain type='kvm' mood='good'>
  <name>g</name>
  <os>
    <type arch='x86_64' future='yes'>hvm</type>
  </os>
  <devices>
    <disk type='file' colour='blue'>
      <driver name='qemu' turbo='on'>
        <tuning level='9'/>
      </driver>
      <source file='/a' owner='me'/>
      <target dev='vda' spin='left'>
        <shape>round</shape>
      </target>
    </disk>
    <teleporter range='5'>
      <aim>here</aim>
    </teleporter>
  </devices>
  <x:extra xmlns:x='urn:x'>
    <x:y z='1'/>
  </x:extra>
</domain>
)";
  const auto guest = read(text);
  CHECK(write_domain(guest, everything) == text);
  REQUIRE(guest.devices.disks.size() == 1);
  CHECK(guest.devices.disks[0].rest.attributes.at(0).name == "colour");
  REQUIRE(guest.devices.disks[0].rest.inner.size() == 1);
  CHECK(guest.devices.disks[0].rest.inner[0].within == "target");
  CHECK(guest.devices.rest.children.at(0).name == "teleporter");
}

TEST_CASE("domain xml: a kept element takes the namespaces along that it needs", "[xml]") {
  const auto out = write_domain(read("<domain type='kvm' xmlns:a='urn:a' xmlns:b='urn:b'><name>g</name>"
                                     "<a:x b:y='1'><a:z/></a:x><devices b:mood='calm'/></domain>"),
                                everything);
  CAPTURE(out);
  CHECK(parse_xml(out));
  CHECK(holds(out, "<a:x b:y='1' xmlns:a='urn:a' xmlns:b='urn:b'>"));
  CHECK(holds(out, "xmlns:b='urn:b' b:mood='calm'"));
}

TEST_CASE("domain xml: the prefix of QEMU's namespace may be any", "[xml]") {
  const auto guest = read("<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
                          "<q:commandline><q:arg value='-s'/></q:commandline></domain>");
  CHECK(guest.qemu.args == std::vector<std::string>{"-s"});
  CHECK(holds(write_domain(guest, everything), "<qemu:arg value='-s'/>"));
  // Of another namespace it is none of ours.
  CHECK(read("<domain type='kvm' xmlns:qemu='urn:other'><name>g</name>"
             "<qemu:commandline><qemu:arg value='-s'/></qemu:commandline></domain>")
          .qemu.args.empty());
}

TEST_CASE("domain xml: what is kept of QEMU's namespace is declared, whatever it is", "[xml]") {
  for (const auto* inside : {"<qemu:commandline>text</qemu:commandline>", "<qemu:capabilities odd='1'/>",
                             "<qemu:override><odd/></qemu:override>"}) {
    const auto xml = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>" +
                     std::string{inside} + "</domain>";
    const auto once = write_domain(*read_domain(xml), {});
    INFO(once);
    const auto again = read_domain(once);
    REQUIRE(again);
    CHECK(write_domain(*again, {}) == once);
  }
}

TEST_CASE("domain xml: an attribute that was kept is not written beside one that means the same", "[xml]") {
  auto guest = read("<domain type='kvm'><name>g</name><devices><disk type='file' device='disk'><source file='/a'/>"
                    "<target dev='sda' bus='scsi'/><address odd='1' bus='7'/></disk></devices></domain>");
  guest.devices.disks.at(0).address.type = address_type::drive;
  const auto out = write_domain(guest, everything);
  CAPTURE(out);
  CHECK(parse_xml(out));
  CHECK(holds(out, " odd='1'/>"));
}

TEST_CASE("domain xml: metadata is kept to the letter", "[xml]") {
  const auto* text = R"(<domain type='kvm'>
  <name>g</name>
  <metadata xmlns:t="urn:t">
    <!-- mind the gap -->
    <t:play act="1" note="it's">To <em>be</em> or not</t:play>
    <n:empty xmlns:n="urn:n"/>
  </metadata>
</domain>
)";
  CHECK(write_domain(read(text), everything) == text);
  CHECK(holds(written("<metadata/>"), "<metadata/>"));
}

TEST_CASE("domain xml: passwords are shown only when asked for", "[xml]") {
  const auto guest =
    read(around("<devices><graphics type='vnc' passwd='hush &amp; hush'/><graphics type='spice' passwd=''/>"
                "<graphics type='vnc'/></devices>"));
  const auto shown = write_domain(guest, everything);
  CHECK(holds(shown, "passwd='hush &amp; hush'"));
  CHECK(holds(shown, "passwd=''"));
  CHECK_FALSE(holds(write_domain(guest, {}), "passwd"));
  CHECK(guest.devices.graphics[1].has_password);
  CHECK_FALSE(guest.devices.graphics[2].has_password);
}

TEST_CASE("domain xml: cookies of a web server are secrets", "[xml]") {
  const auto guest = read(around("<devices><disk type='network'><source protocol='https' name='/a'><host name='h'/>"
                                 "<cookies><cookie name='session'>abc</cookie></cookies></source></disk></devices>"));
  CHECK(holds(write_domain(guest, everything), "<cookie name='session'>abc</cookie>"));
  CHECK_FALSE(holds(write_domain(guest, {}), "cookie"));
}

TEST_CASE("domain xml: elements kept as they are come in libvirt's order", "[xml]") {
  CHECK(holds(written("<cputune><future/><vcpupin cpuset='1' vcpu='0'/><quota>5</quota><shares>9</shares>"
                      "<vcpupin vcpu='1' cpuset='0'/></cputune>"),
              "  <cputune>\n"
              "    <shares>9</shares>\n"
              "    <quota>5</quota>\n"
              "    <vcpupin vcpu='0' cpuset='1'/>\n"
              "    <vcpupin vcpu='1' cpuset='0'/>\n"
              "    <future/>\n"
              "  </cputune>\n"));
  const auto containers = written("<os><type>exe</type><initarg>a</initarg><init>/i</init><initarg>b</initarg></os>");
  CHECK(holds(containers, "<init>/i</init>\n    <initarg>a</initarg>\n    <initarg>b</initarg>\n  </os>"));
}

TEST_CASE("domain xml: an end of a character device that says nothing is not written", "[xml]") {
  CHECK_FALSE(
    holds(written("<devices><channel type='unix'><source/><target type='virtio'/></channel></devices>"), "<source"));
  // An image that ends the chain does say something.
  CHECK(holds(written("<devices><disk type='file'><source file='/a'/><backingStore/></disk></devices>"),
              "<backingStore/>"));
}

TEST_CASE("domain xml: for older peers the controllers of every PC are left out", "[xml]") {
  const auto guest = read(around("<devices><controller type='usb' index='0' model='piix3-uhci'/>"
                                 "<controller type='pci' index='0' model='pci-root'/>"
                                 "<controller type='pci' index='1' model='pci-bridge'/></devices>"));
  const auto out = write_domain(guest, {.secure = true, .inactive = false, .migratable = true});
  CHECK_FALSE(holds(out, "piix3-uhci"));
  CHECK_FALSE(holds(out, "pci-root"));
  CHECK(holds(out, "pci-bridge"));
  CHECK(holds(write_domain(guest, everything), "pci-root"));
}

TEST_CASE("domain xml: what only a running guest has is left out of its definition", "[xml]") {
  auto guest = read(R"(<domain type='kvm' id='7'>
  <name>g</name>
  <devices>
    <disk type='file' device='disk'>
      <source file='/a' index='3'/>
      <backingStore type='file' index='4'>
        <format type='raw'/>
        <source file='/b'/>
        <backingStore/>
      </backingStore>
      <mirror type='file' job='copy'/>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
    </disk>
    <interface type='bridge'>
      <source bridge='br0'/>
      <target dev='vnet5'/>
      <alias name='ua-mine'/>
    </interface>
    <console type='pty' tty='/dev/pts/9'>
      <source path='/dev/pts/9'/>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'>
      <source mode='bind' path='/run/agent.sock'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
    </channel>
    <graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+104</label>
    <imagelabel>+64055:+104</imagelabel>
  </seclabel>
</domain>
)");
  auto& display = guest.devices.graphics.at(0);
  display.port_generated = true;
  display.listens.at(0).generated = true;
  const auto running = write_domain(guest, everything);
  const std::string_view live_only[] = {"id='7'",         "index='3'",   "index='4'",   "<mirror",
                                        "'virtio-disk0'", "'vnet5'",     "/dev/pts/9",  "state='connected'",
                                        "<imagelabel>",   "port='5901'", "listen='127", " address='127"};
  const auto kept = write_domain(guest, at_rest);
  CAPTURE(running, kept);
  for (const auto word : live_only) {
    CAPTURE(word);
    CHECK(holds(running, word));
    CHECK_FALSE(holds(kept, word));
  }
  CHECK(holds(kept, "<alias name='ua-mine'/>"));
  CHECK(holds(kept, "port='-1'"));
  CHECK(holds(kept, "<listen type='address'/>"));
  CHECK(holds(kept, "<label>+64055:+104</label>"));
  CHECK(holds(kept, "path='/run/agent.sock'"));
}

TEST_CASE("domain xml: an element that may stand once counts where it stands first", "[xml]") {
  const auto guest = read(around("<memory>1</memory><memory>2</memory><title>a</title><title>b</title>"));
  CHECK(guest.memory_kib == 1);
  CHECK(guest.title == "a");
  CHECK_FALSE(holds(write_domain(guest, everything), ">b<"));
}

TEST_CASE("domain xml: a character device of two ends keeps both", "[xml]") {
  const auto guest = read(around("<devices><serial type='udp'><source mode='bind' host='a' service='1'/>"
                                 "<source mode='connect' host='b' service='2'/></serial></devices>"));
  const auto& source = guest.devices.serials.at(0).source;
  REQUIRE(source.end("connect") != nullptr);
  CHECK(source.end("connect")->host == "b");
  CHECK(source.first().host == "a");
  CHECK(source.end("sideways") == nullptr);
  CHECK(chardev_source{}.first().path.empty());
}

TEST_CASE("domain xml: elements that say nothing are not written", "[xml]") {
  CHECK(written("<os/><clock/><cpu/><devices/><pm/><resource/><iothreadids/><qemu:x xmlns:qemu='urn:n'/>") ==
        "<domain type='kvm'>\n  <name>g</name>\n  <qemu:x xmlns:qemu='urn:n'/>\n</domain>\n");
  CHECK(holds(written("<features><acpi/><apic/></features>"), "<features>\n    <acpi/>\n    <apic/>\n  </features>"));
}

TEST_CASE("domain xml: what libvirt 9.0.0 says of a definition is read and written byte for byte", "[xml]") {
  const auto answers = corpus("inactive");
  if (answers.empty()) {
    WARN("no corpus here: set TROUPE_CORPUS");
    return;
  }
  std::size_t exact = 0;
  for (const auto& [name, text] : answers) {
    const auto guest = read_domain(text);
    CAPTURE(name);
    REQUIRE(guest);
    auto ours = write_domain(*guest, at_rest);
    while (!ours.empty() && !text.ends_with('\n') && ours.back() == '\n')
      ours.pop_back();
    if (ours == text)
      ++exact;
    else
      UNSCOPED_INFO("differs: " << name);
  }
  CHECK(exact == answers.size());
}

TEST_CASE("domain xml: what is written is read back and written the same, for all that people wrote", "[xml]") {
  const auto inputs = corpus("xml");
  if (inputs.empty()) {
    WARN("no corpus here: set TROUPE_CORPUS");
    return;
  }
  const auto accepted = corpus("inactive");
  for (const auto& [name, text] : inputs) {
    CAPTURE(name);
    const auto guest = read_domain(text);
    if (!guest) {
      // Only what libvirt refuses too.
      CAPTURE(guest.error().detail);
      CHECK_FALSE(accepted.contains(name));
      CHECK_FALSE(guest.error().detail.empty());
      continue;
    }
    for (const auto options : {everything, at_rest}) {
      const auto once = write_domain(*guest, options);
      const auto again = read_domain(once);
      REQUIRE(again);
      CHECK(write_domain(*again, options) == once);
    }
  }
}

TEST_CASE("domain xml: a damaged definition is refused or read, never worse", "[xml]") {
  std::vector<std::string> whole{emulated_guest, kvm_guest, outspoken_guest};
  for (const auto& [name, text] : corpus("inactive"))
    if (name.starts_with("kv-") || name.starts_with("au-feat"))
      whole.push_back(text);
  std::mt19937 draw{5};
  std::size_t refused = 0, read_well = 0;
  for (int round = 0; round < 3000; ++round) {
    auto text = whole[draw() % whole.size()];
    // A value, a name or a piece of the structure becomes another that occurs.
    const std::string_view odd[] = {"",    "0",        "-1",  "99999999999999999999", "yes", "on", "none",
                                    "pci", "\xc3\xbc", "<a/>"};
    for (auto n = 1 + draw() % 4; n > 0; --n) {
      const auto from = text.find_first_of("'>", draw() % text.size());
      const auto to = from == text.npos ? from : text.find_first_of("'<", from + 1);
      if (to == text.npos)
        continue;
      text.replace(from + 1, to - from - 1, odd[draw() % std::size(odd)]);
    }
    const auto guest = read_domain(text);
    if (!guest) {
      ++refused;
      CHECK(holds(guest.error().detail, "line "));
      continue;
    }
    ++read_well;
    const auto once = write_domain(*guest, everything);
    const auto again = read_domain(once);
    CAPTURE(text, once);
    REQUIRE(again);
    CHECK(write_domain(*again, everything) == once);
  }
  CHECK(refused > 100);
  CHECK(read_well > 100);
}
