#include "xml/from_argv.hpp"

#include "tests/catch.hpp"
#include "tests/xml/corpus.hpp"
#include "tests/xml/definitions.hpp"
#include "xml/qemu_argv.hpp"

#include <filesystem>
#include <set>
#include <sstream>

using namespace troupe;
namespace fs = std::filesystem;

namespace {

imported_domain read(const std::string& line) {
  auto imported = domain_from_argv(line, nullptr);
  INFO(line << "\n" << (imported ? "" : imported.error().message()));
  REQUIRE(imported);
  return std::move(*imported);
}

/// The XML that a client is given.
std::string xml_of(const std::string& line) {
  auto imported = read(line);
  const auto whole = complete_imported(imported, assumed_facts(imported.guest, "x86_64"), no_random);
  INFO(line << "\n" << (whole ? "" : whole.error().message()));
  REQUIRE(whole);
  return imported_xml(imported);
}

std::string refusal_of(const std::string& line) {
  const auto imported = domain_from_argv(line, nullptr);
  REQUIRE_FALSE(imported);
  CHECK(imported.error().code == errc::bad_argument);
  return imported.error().detail;
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

std::string line_of(const std::string& xml) {
  auto guest = completed(xml);
  assign_aliases(guest);
  assign_display_ports(guest, {}, "127.0.0.1", "127.0.0.1");
  run_settings run;
  run.state_dir = "/state";
  run.run_dir = "/run";
  run.generic_taps = true;
  const auto words = qemu_command_line(guest, assumed_facts(guest, "x86_64"), run);
  INFO(xml << "\n" << (words ? "" : words.error().message()));
  REQUIRE(words);
  return shell_line(*words);
}

/// The line of what a line becomes.
std::string again(const std::string& line) {
  return line_of(xml_of(line));
}

} // namespace

TEST_CASE("from argv: lines of people and tools become definitions that can be defined", "[xml]") {
  unsigned lines = 0;
  for (const auto& each : fs::directory_iterator{fs::path{TROUPE_SOURCE_DIR} / "tests" / "xml" / "command_lines"}) {
    ++lines;
    const auto text = text_of(each.path());
    const auto xml = xml_of(text);
    INFO(each.path().stem().string() << "\n" << xml);
    std::istringstream rows{text};
    for (std::string row; std::getline(rows, row);) {
      if (row.starts_with("#=> ") && !says(xml, row.substr(4)))
        FAIL_CHECK("it does not say " << row.substr(4));
      if (row.starts_with("#=! ") && says(xml, row.substr(4)))
        FAIL_CHECK("it says " << row.substr(4));
    }
    const auto again_defined = read_domain(xml);
    CHECK(again_defined);
  }
  CHECK(lines >= 25);
}

TEST_CASE("from argv: nothing on a line is lost without a word", "[xml]") {
  const auto imported = read(
    "A=1 qemu-system-x86_64 -daemonize -plugin x.so -device edu,id=e -nic user,hostfwd=tcp::1-:2 -k de -display none");
  const auto xml = imported_xml(imported);
  for (const auto* part : {"-daemonize", "x.so", "edu,id=e", "hostfwd=tcp::1-:2", "name='A' value='1'"})
    CHECK(says(xml, part));
  CHECK(imported.guest.qemu.args == std::vector<std::string>{"-plugin", "x.so", "-device", "edu,id=e", "-nic",
                                                             "user,hostfwd=tcp::1-:2", "-k", "de"});
}

TEST_CASE("from argv: a device whose backend is kept is kept, too", "[xml]") {
  const auto imported =
    read("qemu-system-x86_64 -nodefaults -device virtio-blk-pci,drive=d -blockdev quorum,node-name=d");
  CHECK(imported.guest.devices.disks.empty());
  CHECK(imported.guest.qemu.args.size() == 4);
}

TEST_CASE("from argv: contradictions are refused, naming option and value", "[xml]") {
  struct refused_row {
    std::string line, part;
  };
  for (const auto& row :
       {refused_row{"-m", "value should be"}, refused_row{"-m lots", "'lots' is no amount"},
        refused_row{"-smp 4,sockets=1,cores=3,threads=1", "there are 4 processors"},
        refused_row{"-smp 0", "from 1 to 65536"}, refused_row{"-hda a -drive file=b,index=0", "another disk"},
        refused_row{"-boot x", "boot device 'x'"}, refused_row{"-machine pc,accel=hax", "kvm and tcg"},
        refused_row{"-uuid 12", "UUID of 32"}, refused_row{"-device ''", "names no driver"},
        refused_row{"-vga banana", "cirrus"}, refused_row{"-drive file=a,if=virtio,cache=maybe", "writeback"},
        refused_row{"-device {driver:e1000}", "no JSON object"}}) {
    INFO(row.line);
    CHECK(says(refusal_of("qemu-system-x86_64 " + row.line), row.part));
  }
}

TEST_CASE("from argv: a cache of memory is one of QEMU's, or refused", "[xml]") {
  const std::string line = "qemu-system-x86_64 -nodefaults -m 64 -object memory-backend-ram,id=m,size=64M "
                           "-numa node,nodeid=0,cpus=0,memdev=m -numa hmat-cache,node-id=0,size=10K,level=1,line=8,";
  const auto with = [&](const std::string& words) { return read(line + words).guest.cpu->cells.at(0).caches.at(0); };
  CHECK(with("associativity=complex,policy=write-back").associativity == cache_associativity::full);
  CHECK(with("associativity=complex,policy=write-back").policy == cache_policy::writeback);
  CHECK(with("associativity=none").policy == cache_policy::none);
  CHECK(says(refusal_of(line + "policy=write-sideways"), "write-sideways"));
  CHECK(says(refusal_of(line + "associativity=odd"), "none, direct, complex"));
}

TEST_CASE("from argv: characters that XML cannot hold are refused", "[xml]") {
  for (const auto* line : {"-name a\x03z", "-odd \xff"}) {
    INFO(line);
    CHECK(says(refusal_of(std::string{"qemu-system-x86_64 "} + line), "UTF-8"));
  }
}

TEST_CASE("from argv: a chain of block nodes that goes round is no disk's", "[xml]") {
  const auto imported =
    read("qemu-system-x86_64 -nodefaults -blockdev qcow2,node-name=a,file.driver=file,file.filename=x,backing=b "
         "-blockdev qcow2,node-name=b,file.driver=file,file.filename=y,backing=a -device virtio-blk-pci,drive=a");
  CHECK(imported.guest.devices.disks.empty());
  CHECK(imported.guest.qemu.args.size() == 6);
}

TEST_CASE("from argv: what stands in a definition only in one way comes back in that way", "[xml]") {
  const std::string devices[] = {
    "<controller type='virtio-serial' index='1'><address type='pci' bus='0' slot='10'/></controller>"
    "<channel type='pty'><target type='virtio' name='a'/></channel>",
    "<disk type='network'><source protocol='http' name='x.iso'><host name='h'/><cookies><cookie name='k'>v=1</cookie>"
    "<cookie name='l'>w</cookie></cookies></source><target dev='vda' bus='virtio'/></disk>",
    "<graphics type='dbus' p2p='yes'><audio id='1'/></graphics><audio id='1' type='dbus'/>",
    "<graphics type='vnc' keymap='de'/><graphics type='spice'/>",
    "<graphics type='vnc'/><graphics type='spice' keymap='de'/>",
    "<crypto model='virtio' type='qemu'><backend model='builtin' queues='2'/></crypto>",
  };
  for (const auto& each : devices) {
    const auto line = line_of(guest_xml(each));
    INFO(line);
    CHECK(again(line) == line);
  }
}

TEST_CASE("from argv: a definition's own words for QEMU are its own again", "[xml]") {
  const std::string own =
    "<qemu:commandline><qemu:arg value='-cpu'/><qemu:arg value='Penryn,vendor=GenuineIntel'/><qemu:arg value='-usb'/>"
    "</qemu:commandline><qemu:override><qemu:device alias='video0'><qemu:frontend>"
    "<qemu:property name='xres' type='unsigned' value='1000'/><qemu:property name='b' type='bool' value='true'/>"
    "<qemu:property name='s' type='string' value='-q'/><qemu:property name='n' type='signed' value='-4'/>"
    "</qemu:frontend></qemu:device></qemu:override><qemu:deprecation behavior='reject'/>";
  const auto line = line_of(guest_xml("<graphics type='vnc'/><video><model type='vga'/></video>", own, "q35",
                                      "qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0"));
  INFO(line);
  CHECK(again(line) == line);
  const auto imported = read(line);
  CHECK(imported.guest.qemu.args == std::vector<std::string>{"-cpu", "Penryn,vendor=GenuineIntel", "-usb"});
  REQUIRE(imported.guest.qemu.overrides.size() == 1);
  CHECK(imported.guest.qemu.overrides[0].frontend.size() == 4);
}

TEST_CASE("from argv: the socket of a shared directory goes in and out", "[xml]") {
  const auto line = again("qemu-system-x86_64 -nodefaults -m 64 -object memory-backend-memfd,id=m,size=64M,share=on "
                          "-machine q35,memory-backend=m "
                          "-chardev socket,id=c,path=/run/vfs.sock -device vhost-user-fs-pci,chardev=c,tag=home");
  CHECK(says(line, "path=/run/vfs.sock"));
}

TEST_CASE("from argv: the first word that is no assignment is the program", "[xml]") {
  CHECK(emulator_of_argv("A=b exec /opt/qemu-system-x86_64 -m 1").value() == "/opt/qemu-system-x86_64");
  CHECK(emulator_of_argv("qemu-system-x86_64").value() == "/usr/bin/qemu-system-x86_64");
  CHECK_FALSE(emulator_of_argv("A=b"));
  CHECK_FALSE(emulator_of_argv("-m 1"));
}
