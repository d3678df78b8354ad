#include "tests/xml/corpus.hpp"
#include "tests/xml/definitions.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <tuple>

using namespace troupe;
namespace fs = std::filesystem;

namespace {

std::vector<fs::path> inputs() {
  return inputs_of(corpus_root());
}

/// Controllers by kind and number: libvirt, too, sorts those it added itself when it reads a definition again.
void sort_controllers(domain& guest) {
  std::ranges::stable_sort(guest.devices.controllers, {}, [](const auto& each) {
    return std::tuple{each.type, each.index, each.model, each.address.pci.slot, each.address.pci.function};
  });
}

/// Every place in the guest that one device alone can have.
std::vector<std::string> places(domain& guest) {
  std::vector<std::string> all;
  const auto note = [&](const device& each, std::string_view within) {
    const auto& at = each.address;
    if (at.is(address_type::pci))
      all.push_back("pci " + place(each));
    else if (at.is(address_type::usb))
      all.push_back("usb " + std::to_string(at.bus) + " " + at.port);
    else if (at.is(address_type::virtio_serial))
      all.push_back("port " + std::to_string(at.controller) + " " + at.port);
    else if (at.is(address_type::drive))
      all.push_back(std::string{within} + " " + std::to_string(at.controller) + ":" + std::to_string(at.bus) + ":" +
                    std::to_string(at.target) + ":" + std::to_string(at.unit));
  };
  auto& d = guest.devices;
  for (const auto& each : d.disks)
    note(each, word_of(each.bus));
  for (const auto& each : d.hostdevs)
    note(each, "scsi");
  const auto rest = [&](const auto& list) {
    for (const auto& each : list)
      note(each, "");
  };
  // Not the consoles: the first one shows the serial port, with its address.
  rest(d.interfaces), rest(d.sounds), rest(d.filesystems), rest(d.controllers), rest(d.serials), rest(d.channels),
    rest(d.inputs);
  rest(d.videos), rest(d.balloons), rest(d.watchdogs), rest(d.rngs), rest(d.hubs), rest(d.shmems), rest(d.redirdevs),
    rest(d.vsocks);
  return all;
}

} // namespace

TEST_CASE("complete: no two devices share a place", "[xml]") {
  for (const auto& input : inputs()) {
    auto guest = try_complete(text_of(input));
    if (!guest)
      continue;
    auto all = places(*guest);
    std::ranges::sort(all);
    const auto twice = std::ranges::adjacent_find(all);
    INFO(input << ": " << (twice == all.end() ? "" : *twice));
    CHECK(twice == all.end());
  }
}

TEST_CASE("complete: a second time changes nothing, nor does writing and reading", "[xml]") {
  for (const auto& input : inputs()) {
    auto once = try_complete(text_of(input));
    if (!once)
      continue;
    const auto facts = assumed_facts(*once, "x86_64");
    auto twice = *once;
    auto reread = read_domain(write_domain(*once, {.secure = true, .inactive = true}));
    INFO(input);
    REQUIRE(reread);
    const auto again = complete_definition(twice, facts, no_random);
    INFO((again ? "" : again.error().message()));
    REQUIRE(again);
    REQUIRE(complete_definition(*reread, facts, no_random));
    for (auto* each : {&*once, &twice, &*reread})
      sort_controllers(*each);
    const auto text = write_domain(*once, {.secure = true, .inactive = true});
    CHECK(write_domain(twice, {.secure = true, .inactive = true}) == text);
    CHECK(write_domain(*reread, {.secure = true, .inactive = true}) == text);
  }
}

TEST_CASE("complete: an emulator is chosen by architecture, a named one stays", "[xml]") {
  const auto chosen = [](std::string_view os, std::string_view devices) {
    auto guest =
      read_domain("<domain type='kvm'><name>g</name>" + std::string{os} + std::string{devices} + "</domain>");
    REQUIRE(guest);
    choose_emulator(*guest, "x86_64");
    return std::pair{guest->os.arch, guest->devices.emulator};
  };
  CHECK(chosen("<os><type>hvm</type></os>", "") ==
        std::pair<std::string, std::string>{"x86_64", "/usr/bin/qemu-system-x86_64"});
  CHECK(chosen("<os><type arch='i686'>hvm</type></os>", "").second == "/usr/bin/qemu-system-i386");
  CHECK(chosen("<os><type arch='aarch64'>hvm</type></os>", "").second == "/usr/bin/qemu-system-aarch64");
  CHECK(chosen("<os><type>hvm</type></os>", "<devices><emulator>/opt/q</emulator></devices>").second == "/opt/q");
}

TEST_CASE("complete: a machine's short name becomes the full one of this QEMU", "[xml]") {
  CHECK(completed(guest_xml("", "", "pc")).os.machine == "pc-i440fx-7.2");
  CHECK(completed(guest_xml("", "", "q35")).os.machine == "pc-q35-7.2");
  CHECK(completed(guest_xml("", "", "pc-q35-2.7")).os.machine == "pc-q35-2.7");
  CHECK(completed("<domain type='qemu'><name>g</name><memory>65536</memory><os><type>hvm</type></os></domain>")
          .os.machine == "pc-i440fx-7.2");
}

TEST_CASE("complete: a UUID is drawn for who has none, and stays for who has one", "[xml]") {
  CHECK(completed(guest_xml("")).uuid == "00000000-0000-4000-8000-000000000000"); // what comes of sixteen zeros
  CHECK(completed(guest_xml("", "<uuid>C7A5FDBD-cdaf-9455-926a-d65c16db1809</uuid>")).uuid ==
        "c7a5fdbd-cdaf-9455-926a-d65c16db1809");
}

TEST_CASE("complete: KVM that does not work is refused with the reason and the way out", "[xml]") {
  auto guest = read_domain(guest_xml("", "", "pc", "kvm"));
  REQUIRE(guest);
  choose_emulator(*guest, "x86_64");
  auto facts = assumed_facts(*guest, "x86_64");
  facts.kvm_usable = false;
  facts.why_no_kvm = "/dev/kvm is not there";
  const auto went = complete_definition(*guest, facts, no_random);
  REQUIRE_FALSE(went);
  CHECK(went.error().code == errc::unsupported_config);
  CHECK(went.error().detail.find("does not support virt type 'kvm'") != std::string::npos);
  CHECK(went.error().detail.find("/dev/kvm is not there") != std::string::npos);
  CHECK(went.error().detail.find("type='qemu'") != std::string::npos);
}
