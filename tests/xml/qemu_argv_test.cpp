#include "xml/qemu_argv.hpp"

#include "tests/catch.hpp"
#include "tests/xml/definitions.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>

using namespace troupe;

namespace {

using word_list = std::vector<std::string>;

run_settings settings_of_a_start() {
  run_settings run;
  run.id = 7;
  run.run_dir = "/run/guest";
  run.state_dir = "/var/lib/troupe";
  run.monitor_fd = 5;
  return run;
}

result<command_line> try_line(const domain& defined, const run_settings& run) {
  auto guest = defined;
  assign_aliases(guest);
  auto facts = assumed_facts(guest, "x86_64");
  facts.device_types.clear(); // a QEMU that nobody has asked: it is not held to lack anything
  return qemu_command_line(guest, facts, run);
}

command_line line_of(const std::string& xml, const run_settings& run = settings_of_a_start()) {
  auto line = try_line(completed(xml), run);
  INFO((line ? "" : line.error().message()));
  REQUIRE(line);
  return std::move(*line);
}

std::string refused(const std::string& xml, const run_settings& run = settings_of_a_start()) {
  const auto line = try_line(completed(xml), run);
  REQUIRE_FALSE(line);
  CHECK(line.error().code == errc::unsupported_config);
  return line.error().detail;
}

bool has(const command_line& line, const std::string& option, const std::string& value) {
  for (std::size_t i = 0; i + 1 < line.argv.size(); ++i)
    if (line.argv[i] == option && line.argv[i + 1] == value)
      return true;
  return false;
}

bool mentions(const command_line& line, std::string_view text) {
  return std::ranges::any_of(line.argv, [&](const auto& word) { return word.find(text) != word.npos; });
}

/// What a shell makes of a line: what `script` prints, at NULs.
word_list run_in_shell(const std::string& line) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe{::popen(line.c_str(), "r"), ::pclose};
  REQUIRE(pipe);
  word_list words;
  std::string word;
  for (int c = 0; (c = std::fgetc(pipe.get())) != EOF;) {
    if (c != 0) {
      word += static_cast<char>(c);
      continue;
    }
    words.push_back(std::move(word));
    word.clear();
  }
  return words;
}

std::string random_word(std::mt19937& draw) {
  static constexpr std::string_view likely = "ab'\"\\ $`!*?~#&|;<>(){}[]=,.-%\n\t\xc3\xa4";
  std::string word(draw() % 12, ' ');
  for (auto& c : word)
    c = draw() % 8 ? likely[draw() % likely.size()] : static_cast<char>(1 + draw() % 255);
  return word;
}

} // namespace

TEST_CASE("qemu argv: the monitor is an inherited socket or one in the run directory", "[xml]") {
  CHECK(has(line_of(guest_xml("")), "-chardev", "socket,id=charmonitor,fd=5,server=on,wait=off"));
  auto run = settings_of_a_start();
  run.monitor_fd = -1;
  CHECK(has(line_of(guest_xml(""), run), "-chardev",
            "socket,id=charmonitor,path=/run/guest/monitor.sock,server=on,wait=off"));
}

TEST_CASE("argv: memory tuning is said of each cell's memory and of what is plugged in", "[xml]") {
  const auto line = line_of(guest_xml(
    "<memory model='nvdimm' access='shared'><source><path>/tmp/nv</path><alignsize unit='MiB'>2</alignsize><pmem/>"
    "</source><target><size unit='MiB'>511</size><node>1</node><label><size>128</size></label><readonly/></target>"
    "</memory>",
    "<maxMemory slots='4' unit='GiB'>4</maxMemory><vcpu>2</vcpu><numatune><memory mode='preferred' nodeset='0'/>"
    "<memnode cellid='1' mode='strict' nodeset='0,2'/></numatune><cpu><maxphysaddr mode='emulate' bits='42'/><numa>"
    "<cell cpus='0' memory='32' unit='MiB'><distances><sibling id='1' value='21'/></distances>"
    "<cache level='1' associativity='direct' policy='writeback'><size value='10' unit='KiB'/><line value='8' unit='B'/>"
    "</cache></cell><cell cpus='1' memory='32' unit='MiB'/><interconnects>"
    "<latency initiator='0' target='0' cache='1' type='access' value='5'/>"
    "<bandwidth initiator='0' target='1' type='read' value='2048' unit='KiB'/></interconnects></numa></cpu>",
    "q35"));
  CHECK(has(line, "-cpu", "qemu64,phys-bits=42"));
  CHECK(has(line, "-object", R"({"qom-type":"memory-backend-ram","id":"ram-node0","size":33554432,"host-nodes":[0],"policy":"preferred"})"));
  CHECK(has(line, "-object", R"({"qom-type":"memory-backend-ram","id":"ram-node1","size":33554432,"host-nodes":[0,2],"policy":"bind"})"));
  CHECK(has(line, "-numa", "node,nodeid=1,cpus=1,initiator=1,memdev=ram-node1"));
  CHECK(has(line, "-numa", "dist,src=1,dst=0,val=21"));
  CHECK(has(line, "-numa", "hmat-lb,initiator=0,target=0,hierarchy=first-level,data-type=access-latency,latency=5"));
  CHECK(has(line, "-numa", "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=read-bandwidth,bandwidth=2048K"));
  CHECK(has(line, "-numa", "hmat-cache,node-id=0,size=10K,level=1,associativity=direct,policy=write-back,line=8"));
  CHECK(has(line, "-object", R"({"qom-type":"memory-backend-file","id":"memnvdimm0","mem-path":"/tmp/nv","share":true,"size":536870912,"align":2097152,"pmem":true,"host-nodes":[0,2],"policy":"bind"})"));
  CHECK(has(line, "-device", R"({"driver":"nvdimm","node":1,"label-size":131072,"unarmed":true,"memdev":"memnvdimm0","id":"nvdimm0","slot":0})"));
}

TEST_CASE("argv: what <qemu:override> says goes to the device it names", "[xml]") {
  const auto with = [](const std::string& properties) {
    return guest_xml("<video><model type='cirrus'/></video>",
                     "<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:device alias='video0'>"
                     "<qemu:frontend>" +
                       properties + "</qemu:frontend></qemu:device></qemu:override>");
  };
  const auto line = line_of(with("<qemu:property name='n' type='unsigned' value='1000'/>"
                                 "<qemu:property name='b' type='bool' value='true'/>"
                                 "<qemu:property name='s' type='string' value='q'/><qemu:property name='addr' type='remove'/>"));
  CHECK(has(line, "-device", R"({"driver":"cirrus-vga","id":"video0","bus":"pci.0","n":1000,"b":true,"s":"q"})"));
  CHECK(refused(with("<qemu:property name='b' type='bool' value='perhaps'/>")).find("it is true or false") !=
        std::string::npos);
}

TEST_CASE("argv: what QEMU would not take is refused by name", "[xml]") {
  const struct {
    const char* devices;
    const char* beside;
    const char* words;
  } rows[] = {
    {"<graphics type='vnc' port='5901'/><graphics type='vnc' port='5902'/>", "", "of type 'vnc' there are 2"},
    {"<graphics type='vnc' autoport='yes'><listen type='address' address='1.2.3.4'/><listen type='address' "
     "address='1.2.3.5'/></graphics>",
     "", "multiple listens"},
    {"<graphics type='vnc' autoport='no'/>", "", "vnc port must be in range [5900,65535]; it is 0"},
    {"<graphics type='vnc' port='80'/>", "", "it is 80"},
    {"<disk type='file'><source file='/a'/><target dev='vda'/><transient/></disk>", "", "disk 'vda' is <transient/>"},
    {"", "<sysinfo type='smbios'><baseBoard><entry name='serial'>1</entry></baseBoard><baseBoard><entry name='serial'>2"
         "</entry></baseBoard></sysinfo>",
     "there are 2 <baseBoard>"},
    {"", "<keywrap><cipher name='aes' state='on'/></keywrap>", "aes-key-wrap is not available"},
  };
  for (const auto& [devices, beside, words] : rows) {
    auto xml = guest_xml(devices, beside);
    if (std::string_view{beside}.find("sysinfo") != std::string_view::npos)
      xml.insert(xml.find("</os>"), "<smbios mode='sysinfo'/>");
    const auto said = refused(xml);
    CAPTURE(said, words);
    CHECK(said.find(words) != std::string::npos);
  }
}

TEST_CASE("argv: a model of CPU that this QEMU lacks is refused, and so is a controller", "[xml]") {
  auto guest = completed(guest_xml("<controller type='usb' model='vt82c686b-uhci'/>", "<cpu><model>Nonesuch</model></cpu>"));
  assign_aliases(guest);
  auto facts = assumed_facts(guest, "x86_64");
  facts.tcg_cpus = {{"qemu64", {}, false}};
  const auto line = qemu_command_line(guest, facts, settings_of_a_start());
  REQUIRE_FALSE(line);
  CHECK(line.error().message().starts_with("internal error: Unknown CPU model Nonesuch"));
  guest.cpu->model = "qemu64";
  const auto other = qemu_command_line(guest, facts, settings_of_a_start());
  REQUIRE_FALSE(other);
  CHECK(other.error().detail.find("USB controller model 'vt82c686b-uhci' not supported") != std::string::npos);
}

TEST_CASE("argv: a crypto device has its backend, and deprecated ways are answered as asked", "[xml]") {
  const auto line =
    line_of(guest_xml("<crypto model='virtio' type='qemu'><backend model='builtin' queues='2'/></crypto>",
                      "<qemu:deprecation xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' behavior='reject'/>"));
  CHECK(has(line, "-object", R"({"qom-type":"cryptodev-backend-builtin","id":"objcrypto0","queues":2})"));
  CHECK(has(line, "-compat", R"({"deprecated-output":"hide","deprecated-input":"reject"})"));
}

TEST_CASE("qemu argv: QEMU starts paused, without defaults and in its sandbox", "[xml]") {
  const auto line = line_of(guest_xml(""));
  for (const auto* word : {"-S", "-no-user-config", "-nodefaults", "-no-shutdown", "-sandbox"})
    CHECK(std::ranges::count(line.argv, word) == 1);
  CHECK_FALSE(mentions(line, "masterKey0")); // there would be no such file
}

TEST_CASE("qemu argv: the settings say whether QEMU filters its calls, what it is called and what its core holds", "[xml]") {
  auto guest = completed(guest_xml(""));
  const auto says = [&](const run_settings& settings, std::string_view text) {
    return shell_line(try_line(guest, settings).value()).find(text) != std::string::npos;
  };
  const auto usual = settings_of_a_start();
  CHECK(says(usual, "-sandbox on,"));
  CHECK(says(usual, "-name guest=g,debug-threads=on"));
  CHECK(says(usual, "dump-guest-core=off"));
  auto settings = usual;
  settings.sandbox = false;
  settings.name_process = true;
  settings.dump_core = true;
  CHECK(says(settings, "-sandbox off"));
  CHECK(says(settings, "-name guest=g,process=qemu:g,debug-threads=on"));
  CHECK(says(settings, "dump-guest-core=on"));
  guest.memory_dump = on_off::off;
  CHECK(says(settings, "dump-guest-core=off"));
}

TEST_CASE("qemu argv: a guest whose memory is locked or mapped by a device may lock it", "[xml]") {
  const auto bytes = [](std::string_view devices, std::string_view beside) {
    return locked_memory_of(completed(guest_xml(devices, beside)));
  };
  constexpr std::string_view pci =
    "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' slot='2' function='3'/></source></hostdev>";
  CHECK_FALSE(bytes("", ""));
  CHECK(bytes("", "<memoryBacking><locked/></memoryBacking>") == unlimited_lock);
  CHECK(bytes("", "<memoryBacking><locked/></memoryBacking><memtune><hard_limit unit='MiB'>80</hard_limit></memtune>") ==
        80u << 20);
  CHECK(bytes(pci, "") == (64u << 20) + (1u << 30));
}

TEST_CASE("qemu argv: a network card is connected as the settings say", "[xml]") {
  const auto xml = guest_xml("<interface type='network'><source network='default'/></interface>"
                             "<interface type='bridge'><source bridge='br0'/></interface>");
  auto run = settings_of_a_start();
  run.tap_fds = {21, 22};
  SECTION("mapped to a bridge") {
    run.networks = {{"default", "virbr0"}};
    const auto line = line_of(xml, run);
    CHECK(has(line, "-netdev", R"({"type":"tap","fd":"21","id":"hostnet0"})"));
    CHECK(has(line, "-netdev", R"({"type":"tap","fd":"22","id":"hostnet1"})"));
  }
  SECTION("mapped to user mode") {
    run.networks = {{"default", "user"}};
    const auto line = line_of(xml, run);
    CHECK(has(line, "-netdev", R"({"type":"user","id":"hostnet0"})"));
    CHECK(has(line, "-netdev", R"({"type":"tap","fd":"21","id":"hostnet1"})"));
  }
  SECTION("'default' in a session") {
    run.session = true;
    CHECK(has(line_of(xml, run), "-netdev", R"({"type":"user","id":"hostnet0"})"));
  }
  SECTION("mapped to nothing") {
    const auto why = refused(xml, run);
    CHECK(why.find("'default'") != why.npos);
    CHECK(why.find("guest 'g'") != why.npos);
  }
}

TEST_CASE("qemu argv: what cannot be started here is refused by name", "[xml]") {
  struct row {
    const char* devices;
    const char* named;
  };
  const row rows[] = {
    {"<interface type='direct'><source dev='eth0' mode='bridge'/></interface>", "direct"},
    {"<interface type='ethernet'/>", "ethernet"},
    {"<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>", "swtpm"},
    {"<disk type='volume' device='disk'><source pool='p' volume='v1'/><target dev='vda' bus='virtio'/></disk>", "'v1'"},
    {"<vsock model='virtio'><cid auto='yes'/></vsock>", "CID"},
  };
  for (const auto& row : rows) {
    INFO(row.devices);
    const auto why = refused(guest_xml(row.devices));
    INFO(why);
    CHECK(why.find(row.named) != why.npos);
  }
}

TEST_CASE("qemu argv: a device that this QEMU lacks is refused by name", "[xml]") {
  auto guest = completed(guest_xml("<sound model='ac97'/>"));
  assign_aliases(guest);
  auto facts = assumed_facts(guest, "x86_64");
  facts.binary = "/usr/bin/qemu-system-x86_64";
  facts.device_types = {"piix3-usb-uhci"};
  const auto line = qemu_command_line(guest, facts, settings_of_a_start());
  REQUIRE_FALSE(line);
  CHECK(line.error().code == errc::unsupported_config);
  CHECK(line.error().detail.find("'AC97' ('sound0')") != std::string::npos);
  CHECK(line.error().detail.find(facts.binary) != std::string::npos);
}

TEST_CASE("qemu argv: words and variables of one's own are handed on as they are", "[xml]") {
  const auto line =
    line_of("<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
            "<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>"
            "<qemu:commandline><qemu:arg value='-newarg'/><qemu:arg value=\"it's, one\"/>"
            "<qemu:env name='QEMU_ENV' value='VAL'/><qemu:env name='NONE'/></qemu:commandline></domain>");
  const auto at = std::ranges::find(line.argv, "-newarg");
  REQUIRE(at != line.argv.end());
  CHECK(*(at + 1) == "it's, one");
  CHECK(std::ranges::count(line.env, "QEMU_ENV=VAL") == 1);
  CHECK(std::ranges::count(line.env, "NONE=") == 1);
}

TEST_CASE("qemu argv: q35 gets a floppy controller only for floppies", "[xml]") {
  const std::string floppy =
    "<disk type='file' device='floppy'><source file='/f'/><target dev='fda' bus='fdc'/></disk>";
  CHECK(has(line_of(guest_xml(floppy, "", "q35")), "-device", R"({"driver":"isa-fdc","id":"fdc0"})"));
  CHECK_FALSE(mentions(line_of(guest_xml("", "", "q35")), "isa-fdc"));
  CHECK_FALSE(mentions(line_of(guest_xml(floppy)), "isa-fdc"));
}

TEST_CASE("qemu argv: a comma in a path is no separator", "[xml]") {
  CHECK(has(line_of(guest_xml("<serial type='file'><source path='/a,b'/></serial>")), "-chardev",
            "file,id=charserial0,path=/a,,b"));
}

TEST_CASE("qemu argv: a display without a port is a fault, one with a port is shown there", "[xml]") {
  const auto xml = guest_xml("<graphics type='vnc' port='-1' keymap='de'/>");
  CHECK(refused(xml).find("port") != std::string::npos);
  auto guest = completed(xml);
  const int port = 5907;
  assign_display_ports(guest, {&port, 1}, "127.0.0.1", "127.0.0.1");
  const auto line = try_line(guest, settings_of_a_start());
  REQUIRE(line);
  CHECK(mentions(*line, "127.0.0.1:7"));
  CHECK(has(*line, "-k", "de"));
}

TEST_CASE("shell line: a shell reads the same words back", "[xml]") {
  std::mt19937 draw{20260101};
  for (int round = 0; round < 60; ++round) {
    word_list words;
    for (auto count = draw() % 6; count > 0; --count)
      words.push_back(random_word(draw));
    const auto value = random_word(draw);
    command_line line{{"TROUPE_WORD=" + value}, {"/bin/sh", "-c", R"(printf '%s\0' "$TROUPE_WORD" "$@")", "sh"}};
    line.argv.insert(line.argv.end(), words.begin(), words.end());
    words.insert(words.begin(), value);
    const auto text = shell_line(line);
    INFO(text);
    if (words.size() == 1)
      words = {value};
    REQUIRE(run_in_shell(text) == words);
  }
}
