#include "tests/xml/definitions.hpp"

#include <algorithm>

using namespace troupe;

// What a guest may use of the host: cputune, numatune, memtune, blkiotune, and the cells they are about. The forms are what
// libvirt 9.0.0 answers at dumpxml.

namespace {

constexpr const char* two_cells = "<vcpu>4</vcpu><cpu><numa><cell cpus='0-1' memory='32' unit='MiB'/>"
                                  "<cell cpus='2-3' memory='32' unit='MiB'/></numa></cpu>";

/// The element as it is written of the completed definition, or nothing.
std::string written(std::string_view element, const std::string& xml) {
  const auto text = write_domain(completed(xml), {true, true, false});
  const auto from = text.find("  <" + std::string{element});
  const auto end = "</" + std::string{element} + ">\n";
  const auto to = text.find(end, from);
  return from == text.npos || to == text.npos ? std::string{} : text.substr(from, to + end.size() - from);
}

bool holds(const std::string& text, std::string_view piece) {
  return text.find(piece) != text.npos;
}

} // namespace

TEST_CASE("tuning: cputune is written in one order, sets in one form, a row for each vCPU and thread", "[xml]") {
  CHECK(written("cputune", guest_xml("", "<vcpu>4</vcpu><iothreads>2</iothreads><cputune>"
                                         "<iothreadsched iothreads='1' scheduler='idle'/>"
                                         "<vcpusched vcpus='2' scheduler='batch'/>"
                                         "<vcpusched vcpus='0-1' priority='2' scheduler='fifo'/>"
                                         "<emulatorsched scheduler='rr' priority='3'/>"
                                         "<iothreadpin cpuset='1,0' iothread='2'/><emulatorpin cpuset='0'/>"
                                         "<vcpupin cpuset='0,1,2' vcpu='1'/><vcpupin cpuset='0' vcpu='9'/>"
                                         "<quota>-1</quota><period>5000</period><shares>100</shares></cputune>")) ==
        "  <cputune>\n"
        "    <shares>100</shares>\n"
        "    <period>5000</period>\n"
        "    <quota>-1</quota>\n"
        "    <vcpupin vcpu='1' cpuset='0-2'/>\n"
        "    <emulatorpin cpuset='0'/>\n"
        "    <iothreadpin iothread='2' cpuset='0-1'/>\n"
        "    <emulatorsched scheduler='rr' priority='3'/>\n"
        "    <vcpusched vcpus='0' scheduler='fifo' priority='2'/>\n"
        "    <vcpusched vcpus='1' scheduler='fifo' priority='2'/>\n"
        "    <vcpusched vcpus='2' scheduler='batch'/>\n"
        "    <iothreadsched iothreads='1' scheduler='idle'/>\n"
        "  </cputune>\n");
}

TEST_CASE("tuning: memory limits are in KiB whatever their unit", "[xml]") {
  CHECK(written("memtune", guest_xml("", "<memtune><swap_hard_limit unit='G'>2</swap_hard_limit>"
                                         "<soft_limit>1000</soft_limit><hard_limit unit='MiB'>700</hard_limit></memtune>")) ==
        "  <memtune>\n"
        "    <hard_limit unit='KiB'>716800</hard_limit>\n"
        "    <soft_limit unit='KiB'>1000</soft_limit>\n"
        "    <swap_hard_limit unit='KiB'>2097152</swap_hard_limit>\n"
        "  </memtune>\n");
}

TEST_CASE("tuning: once one cell says how far others are, every cell says it of every other", "[xml]") {
  const auto guest = completed(guest_xml("", "<vcpu>2</vcpu><cpu><numa><cell cpus='0' memory='32' unit='MiB'><distances>"
                                             "<sibling id='1' value='21'/></distances></cell>"
                                             "<cell cpus='1' memory='32' unit='MiB'/></numa></cpu>"));
  const auto& cells = guest.cpu->cells;
  REQUIRE(cells.size() == 2);
  for (unsigned from = 0; from < 2; ++from) {
    REQUIRE(cells[from].distances.size() == 2);
    for (unsigned to = 0; to < 2; ++to)
      CHECK(cells[from].distances[to].value == (from == to ? 10u : 21u));
  }
  CHECK(completed(guest_xml("", two_cells)).cpu->cells[0].distances.empty());
}

TEST_CASE("tuning: what cannot be is refused by element and value", "[xml]") {
  const struct {
    const char* beside;
    const char* words;
  } rows[] = {
    {"<cputune><vcpupin vcpu='0' cpuset='x'/></cputune>", "Invalid value of 'cpuset': x"},
    {"<cputune><vcpupin cpuset='0'/></cputune>", "Missing required attribute 'vcpu' in element 'vcpupin'"},
    {"<vcpu>2</vcpu><cputune><vcpusched vcpus='0-1' scheduler='idle'/><vcpusched vcpus='1' scheduler='idle'/></cputune>",
     "'vcpusched' attributes 'vcpus' must not overlap"},
    {"<cputune><vcpusched vcpus='0' scheduler='rr'/></cputune>", "needs one, from 1 to 99"},
    {"<cputune><vcpusched vcpus='0'/></cputune>", "names no scheduler"},
    {"<cputune><vcpusched vcpus='none' scheduler='idle'/></cputune>", "a list of numbers such as '0-3,5'; it is 'none'"},
    {"<cputune><iothreadpin iothread='3' cpuset='0'/></cputune>", "Cannot find 'iothread' : 3"},
    {"<cputune><period>7</period></cputune>", "Value of cputune 'period' must be in range [1000, 1000000]"},
    {"<cputune><quota>7</quota></cputune>", "Value of cputune 'quota' must be in range"},
    {"<cputune><emulatorsched scheduler='lottery'/></cputune>",
     "'scheduler' in element 'emulatorsched': 'lottery' in line 1. Accepted: batch, idle, fifo, rr"},
    {"<numatune><memory mode='strict'/></numatune>", "Invalid value of 'nodeset': "},
    {"<numatune><memory mode='best' nodeset='0'/></numatune>",
     "'mode' in element 'memory': 'best' in line 1. Accepted: strict, preferred, interleave, restrictive"},
    {"<numatune><memnode cellid='0' nodeset='0'/></numatune>", "Element 'memnode' is invalid without any guest NUMA cells"},
    {"<memtune><min_guarantee>1</min_guarantee></memtune>", "'min_guarantee' not supported by QEMU"},
    {"<blkiotune><device><weight>100</weight></device></blkiotune>", "missing per-device path"},
    {"<launchSecurity type='fort'/>", "'type' in element 'launchSecurity': 'fort' in line 1. Accepted: sev, s390-pv"},
    {"<launchSecurity/>", "'type' in element 'launchSecurity'"},
  };
  for (const auto& [beside, words] : rows) {
    const auto said = refusal(guest_xml("", beside));
    CAPTURE(beside, said, words);
    CHECK(holds(said, words));
  }
  CHECK(holds(refusal(guest_xml("", std::string{two_cells} +
                                      "<numatune><memnode cellid='2' mode='strict' nodeset='0'/></numatune>")),
              "memnode element is out of range"));
}

TEST_CASE("forms: a card's traffic, profile and filter are typed", "[xml]") {
  const auto text = write_domain(
    completed(guest_xml("<interface type='direct'><mac address='52:54:00:11:11:11'/>"
                        "<source dev='eth0' mode='vepa' portgroup='gone'/><virtualport type='802.1Qbg'>"
                        "<parameters typeidversion='2' typeid='0x12345' managerid='0x11' "
                        "instanceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport>"
                        "<bandwidth><outbound average='0'/><inbound burst='3' peak='4' average='5'/></bandwidth>"
                        "<vlan trunk='yes'><tag nativeMode='untagged' id='42'/><tag id='3'/></vlan></interface>")),
    {true, true, false});
  CAPTURE(text);
  CHECK(holds(text, "<source dev='eth0' mode='vepa'/>"));
  CHECK(holds(text, "<tag id='42' nativeMode='untagged'/>\n        <tag id='3'/>"));
  CHECK(holds(text, "<parameters managerid='17' typeid='74565' typeidversion='2' "
                    "instanceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/>"));
  CHECK(holds(text, "<bandwidth>\n        <inbound average='5' peak='4' burst='3'/>\n      </bandwidth>"));
}

TEST_CASE("forms: a port of Open vSwitch gets the name it lacks", "[xml]") {
  const auto guest = completed(guest_xml("<interface type='bridge'><source bridge='b'/><virtualport type='openvswitch'/>"
                                         "</interface>"));
  CHECK(guest.devices.interfaces[0].virtualport->interface_id.size() == 36);
}

TEST_CASE("forms: what libvirt keeps for its other drivers goes, what nobody knows stays", "[xml]") {
  const auto text = write_domain(
    completed(guest_xml("", "<t:runstate xmlns:t='http://libvirt.org/schemas/domain/test/1.0'>5</t:runstate>"
                            "<o:note xmlns:o='urn:o'>kept</o:note>")),
    {true, true, false});
  CHECK_FALSE(holds(text, "runstate"));
  CHECK(holds(text, "<o:note xmlns:o='urn:o'>kept</o:note>"));
}

TEST_CASE("forms: USB rules are written as libvirt writes them", "[xml]") {
  const auto text =
    write_domain(completed(guest_xml("<redirfilter><usbdev version='2.56' product='0xbeef' vendor='1234' class='8' "
                                     "allow='yes'/><usbdev class='-1' allow='no'/></redirfilter>")),
                 {true, true, false});
  CHECK(holds(text, "<usbdev class='0x08' vendor='0x04D2' product='0xBEEF' version='2.56' allow='yes'/>"));
  CHECK(holds(text, "<usbdev allow='no'/>"));
}

TEST_CASE("places: devices of pseries buses get the numbers libvirt gives", "[xml]") {
  const auto guest = completed(guest_xml("<controller type='scsi' model='ibmvscsi'/>"
                                         "<interface type='user'><address type='spapr-vio'/></interface>"
                                         "<interface type='user'><address type='spapr-vio'/></interface>"));
  CHECK(guest.devices.interfaces[0].address.reg == 0x1000u);
  CHECK(guest.devices.interfaces[1].address.reg == 0x2000u);
  const auto scsi = std::ranges::find(guest.devices.controllers, controller_type::scsi, &controller::type);
  CHECK(scsi->address.reg == 0x3000u);
}

TEST_CASE("live parts: a socket that was made up for another guest is made up anew", "[xml]") {
  const auto guest = completed(guest_xml("<channel type='unix'><source mode='connect' path='/tmp/domain-old/a'/>"
                                         "<target type='virtio' name='a'/></channel>"
                                         "<channel type='unix'><source mode='connect' path='/tmp/mine/b'/>"
                                         "<target type='virtio' name='b'/></channel>"));
  CHECK(guest.devices.channels[0].source.first().path.empty());
  CHECK(guest.devices.channels[1].source.first().path == "/tmp/mine/b");
}
