#include "xml/capabilities.hpp"

#include "tests/catch.hpp"
#include "xml/xml_tree.hpp"

#include <algorithm>
#include <memory>

using namespace troupe;

namespace {

host_facts a_host() {
  host_facts host;
  host.uuid = "67da35d9-742e-4cd1-bc41-54434ad1c57e";
  host.cpu = {"", "AuthenticAMD", 25, 17, 1, {}};
  host.cpu_flags = {"vme", "sse2", "nonsense"};
  host.microcode = 0x1000065;
  host.physical_bits = 48;
  host.cores = 2;
  host.page_kib = {4, 2048};
  host.suspend_modes = {"suspend_mem"};
  host.cells = {{0, 1024, {{0, 0, 0, 0, "0"}, {1, 0, 0, 1, "1"}}, {10, 20}}, {1, 2048, {}, {}}};
  host.security = {{"<odd & 'quoted'>", "0", "", ""}, {"dac", "0", "+64055:+64055", "+64055:+64055"}};
  return host;
}

machine_facts machine(std::string name, std::string alias, bool is_default) {
  machine_facts out;
  out.name = std::move(name);
  out.alias = std::move(alias);
  out.max_cpus = 255;
  out.is_default = is_default;
  return out;
}

emulator_facts an_emulator(std::string arch = "x86_64") {
  emulator_facts facts;
  facts.binary = "/usr/bin/qemu-system-" + arch;
  facts.arch = std::move(arch);
  facts.tcg_usable = true;
  facts.why_no_kvm = "there is no /dev/kvm";
  facts.machines = {machine("pc-q35-7.2", "q35", false), machine("none", "", false),
                    machine("pc-i440fx-7.2", "pc", true)};
  facts.tcg_cpus = {{"max", {{}}, false},
                    {"qemu64-v1", {{}}, false},
                    {"qemu64", {{}}, false},
                    {"Haswell", {{"hle"}}, false},
                    {"athlon", std::nullopt, true}};
  facts.cpu_models = {{"Haswell", "GenuineIntel", 6, 60, 4, {"avx2", "hle", "vme"}},
                      {"EPYC", "AuthenticAMD", 23, 1, 2, {"sse2"}},
                      {"qemu64", "AuthenticAMD", 15, 107, 1, {}}};
  facts.cpu_features = {"avx2", "hle", "sse2", "svm", "vme"};
  facts.tcg_cpu = cpu_definition{"max", "AuthenticAMD", 15, 107, 1, {"svm"}};
  facts.device_types = {"VGA", "ich9-ahci", "iothread", "usb-storage", "virtio-blk-pci"};
  return facts;
}

std::vector<std::shared_ptr<const emulator_facts>> shared(const std::vector<emulator_facts>& all) {
  std::vector<std::shared_ptr<const emulator_facts>> out;
  for (const auto& each : all)
    out.push_back(std::make_shared<const emulator_facts>(each));
  return out;
}

xml_element parsed(const std::string& text) {
  auto root = parse_xml(text);
  INFO(text);
  REQUIRE(root);
  return std::move(*root);
}

const xml_element& at(const xml_element& root, std::initializer_list<std::string_view> path) {
  const auto* here = &root;
  for (const auto name : path) {
    here = here->child(name);
    INFO(name);
    REQUIRE(here);
  }
  return *here;
}

std::vector<std::string> values(const xml_element& parent, std::string_view name) {
  std::vector<std::string> out;
  for (const auto& child : parent.children)
    if (child.local_name() == "enum" && *child.attribute("name") == name)
      for (const auto& value : child.children)
        out.push_back(value.text);
  return out;
}

const xml_element& child_with(const xml_element& parent, std::string_view attribute, std::string_view value) {
  const auto found = std::ranges::find_if(parent.children, [&](const auto& child) {
    return child.attribute(attribute) && *child.attribute(attribute) == value;
  });
  REQUIRE(found != parent.children.end());
  return *found;
}

} // namespace

TEST_CASE("capabilities: the host is told whole, and what is odd in it is escaped", "[xml]") {
  const auto root = parsed(capabilities_xml(a_host(), shared({an_emulator()})));
  const auto& host = at(root, {"host"});
  CHECK(at(host, {"uuid"}).text == a_host().uuid);
  CHECK(at(host, {"cpu", "model"}).text == "EPYC");
  CHECK(at(host, {"cpu", "vendor"}).text == "AMD");
  CHECK(*at(host, {"cpu", "microcode"}).attribute("version") == "16777317");
  CHECK(*at(host, {"cpu", "signature"}).attribute("model") == "17");
  CHECK(*at(host, {"cpu", "maxphysaddr"}).attribute("bits") == "48");
  CHECK(*at(host, {"cpu", "topology"}).attribute("cores") == "2");
  CHECK(*at(host, {"cpu", "feature"}).attribute("name") == "vme");
  CHECK(std::ranges::count(at(host, {"cpu"}).children, "feature", &xml_element::name) == 1);
  CHECK(at(host, {"secmodel", "model"}).text == "<odd & 'quoted'>");
  CHECK(host.child("power_management")->child("suspend_mem"));
  const auto& cells = at(host, {"topology", "cells"});
  CHECK(*cells.attribute("num") == "2");
  CHECK(*child_with(at(cells.children[0], {"distances"}), "id", "1").attribute("value") == "20");
  CHECK(*at(cells.children[0], {"cpus", "cpu"}).attribute("siblings") == "0");
  CHECK(cells.children[1].child("distances") == nullptr);
  CHECK(std::ranges::count(host.children, "secmodel", &xml_element::name) == 2);
}

TEST_CASE("capabilities: the default machine comes first, and QEMU's own are left out", "[xml]") {
  const auto root = parsed(capabilities_xml(a_host(), shared({an_emulator()})));

  const auto& arch = child_with(root.children.back(), "name", "x86_64");
  std::vector<std::string> machines;
  for (const auto& child : arch.children)
    if (child.name == "machine")
      machines.push_back(child.text);
  CHECK(machines == std::vector<std::string>{"pc-i440fx-7.2", "pc", "pc-q35-7.2", "q35"});
  CHECK(*child_with(arch, "canonical", "pc-i440fx-7.2").attribute("maxCpus") == "255");
  CHECK(child_with(arch, "type", "qemu").name == "domain");
  CHECK(std::ranges::none_of(arch.children,
                             [](const auto& x) { return x.attribute("type") && *x.attribute("type") == "kvm"; }));
}

TEST_CASE("capabilities: a 64-bit emulator runs 32-bit guests where there is no other for them", "[xml]") {
  const auto emulators_of = [](const std::vector<emulator_facts>& emulators) {
    std::vector<std::string> out;
    for (const auto& child : parsed(capabilities_xml(a_host(), shared(emulators))).children)
      if (child.name == "guest")
        out.push_back(*child.child("arch")->attribute("name") + " " + child.child("arch")->child("emulator")->text);
    return out;
  };
  const std::string x86_64 = "/usr/bin/qemu-system-x86_64";
  CHECK(emulators_of({an_emulator()}) == std::vector<std::string>{"i686 " + x86_64, "x86_64 " + x86_64});
  CHECK(emulators_of({an_emulator("i386"), an_emulator()}) ==
        std::vector<std::string>{"i686 /usr/bin/qemu-system-i386", "x86_64 " + x86_64});
}

TEST_CASE("domain capabilities: defaults are the emulator's", "[xml]") {
  const auto text = domain_capabilities_xml(an_emulator(), "", "", {{}, {"/usr/share/OVMF/OVMF_CODE.fd"}});
  REQUIRE(text);
  const auto root = parsed(*text);
  CHECK(at(root, {"machine"}).text == "pc-i440fx-7.2");
  CHECK(at(root, {"domain"}).text == "qemu");
  CHECK(*at(root, {"vcpu"}).attribute("max") == "255");
  CHECK(at(root, {"os", "loader", "value"}).text == "/usr/share/OVMF/OVMF_CODE.fd");
  CHECK(values(at(root, {"os"}), "firmware").empty());
}

TEST_CASE("domain capabilities: firmware is offered for the machine it is made for", "[xml]") {
  host_firmware firmware;
  firmware.usual_loaders = {"/usual"};
  firmware.described = {{firmware_descriptor::device::flash,
                         {"uefi"},
                         "/described",
                         "raw",
                         "/template",
                         "raw",
                         {{"x86_64", {"pc-q35-*"}}},
                         {"secure-boot", "requires-smm"}}};
  const auto os_of = [&](const char* machine) {
    return at(parsed(*domain_capabilities_xml(an_emulator(), machine, "", firmware)), {"os"});
  };
  const auto described = os_of("q35");
  CHECK(values(described, "firmware") == std::vector<std::string>{"efi"});
  CHECK(at(described, {"loader", "value"}).text == "/described");
  CHECK(values(at(described, {"loader"}), "secure") == std::vector<std::string>{"yes", "no"});
  const auto usual = os_of("pc");
  CHECK(values(usual, "firmware").empty());
  CHECK(at(usual, {"loader", "value"}).text == "/usual");
  CHECK(values(at(usual, {"loader"}), "secure") == std::vector<std::string>{"no"});
}

TEST_CASE("domain capabilities: only what this QEMU has is offered", "[xml]") {
  const auto root = parsed(*domain_capabilities_xml(an_emulator(), "q35", "qemu"));
  CHECK(at(root, {"machine"}).text == "pc-q35-7.2");
  CHECK(values(at(root, {"devices", "video"}), "modelType") == std::vector<std::string>{"vga", "none"});
  CHECK(values(at(root, {"devices", "disk"}), "bus") ==
        std::vector<std::string>{"fdc", "scsi", "virtio", "usb", "sata"});
  CHECK(*at(root, {"devices", "rng"}).attribute("supported") == "no");
  CHECK(*at(root, {"features", "genid"}).attribute("supported") == "no");
}

TEST_CASE("domain capabilities: a CPU model is usable, unusable or unknown", "[xml]") {
  const auto root = parsed(*domain_capabilities_xml(an_emulator(), "", "qemu"));
  const auto& custom = child_with(at(root, {"cpu"}), "name", "custom");
  std::vector<std::string> models;
  for (const auto& model : custom.children)
    if (model.name == "model")
      models.push_back(model.text + " " + *model.attribute("usable"));
  CHECK(models == std::vector<std::string>{"qemu64 yes", "Haswell no", "athlon unknown"});
  CHECK(*child_with(custom, "usable", "yes").attribute("vendor") == "unknown");
  CHECK(*child_with(custom, "usable", "no").attribute("vendor") == "Intel");
  CHECK(*at(child_with(custom, "model", "Haswell"), {"feature"}).attribute("name") == "hle");
  CHECK(std::ranges::count(custom.children, "blockers", &xml_element::name) == 1);
  CHECK(*child_with(at(root, {"cpu"}), "name", "host-passthrough").attribute("supported") == "no");
}

TEST_CASE("domain capabilities: the host's model is one of its vendor's, and what differs", "[xml]") {
  auto facts = an_emulator();
  const auto mode_of = [](const emulator_facts& of) {
    return child_with(at(parsed(*domain_capabilities_xml(of, "", "qemu")), {"cpu"}), "name", "host-model");
  };
  const auto mode = mode_of(facts);
  CHECK(at(mode, {"model"}).text == "qemu64");
  CHECK(at(mode, {"vendor"}).text == "AMD");
  CHECK(*child_with(mode, "policy", "require").attribute("name") == "svm");
  facts.tcg_cpu.reset();
  CHECK(*mode_of(facts).attribute("supported") == "no");
}

TEST_CASE("domain capabilities: encryption and enclaves are told of where KVM gives them", "[xml]") {
  auto facts = an_emulator();
  facts.kvm_usable = true;
  facts.sev = sev_facts{47, 1};
  facts.sgx = sgx_facts{true, false, true, {1024 * 1024, 3 * 1024 * 1024}};
  facts.gic_versions = {2, 3};
  const auto root = parsed(*domain_capabilities_xml(facts, "", "kvm"));
  CHECK(at(root, {"features", "sev", "cbitpos"}).text == "47");
  CHECK(at(root, {"features", "sgx", "section_size"}).text == "4096");
  CHECK(at(root, {"features", "sgx", "sections"}).children.size() == 2);
  CHECK(values(at(root, {"features", "gic"}), "version") == std::vector<std::string>{"2", "3"});
  const auto without = parsed(*domain_capabilities_xml(facts, "", "qemu"));
  CHECK(*at(without, {"features", "sev"}).attribute("supported") == "no");
  CHECK(*at(without, {"features", "sgx"}).attribute("supported") == "no");
}

TEST_CASE("capabilities: an emulator is found by libvirt's name of its architecture", "[xml]") {
  const auto both = shared({an_emulator("i386"), an_emulator()});
  CHECK(emulator_for(both, "i686")->arch == "i386");
  CHECK(emulator_for(shared({an_emulator()}), "i686")->arch == "x86_64");
  CHECK(emulator_for(both, "x86_64")->arch == "x86_64");
  CHECK(emulator_for(both, "aarch64") == nullptr);
  CHECK(emulator_for(both, "nonsense") == nullptr);
  CHECK(main_emulator(both, "x86_64")->arch == "x86_64");
  CHECK(main_emulator(both, "aarch64")->arch == "i386");
  CHECK(main_emulator({}, "x86_64") == nullptr);
}

TEST_CASE("domain capabilities: what the emulator cannot do is refused by name", "[xml]") {
  struct row {
    const char *machine, *type, *named;
  };
  const row rows[] = {{"nosuch", "", "'nosuch'"}, {"", "xen", "'xen'"}, {"", "kvm", "there is no /dev/kvm"}};
  for (const auto& row : rows) {
    const auto text = domain_capabilities_xml(an_emulator(), row.machine, row.type);
    REQUIRE_FALSE(text);
    CHECK(text.error().code == errc::bad_argument);
    CHECK(text.error().detail.find(row.named) != std::string::npos);
  }
}
