#include "xml/host_model.hpp"

#include "tests/xml/definitions.hpp"

using namespace troupe;

namespace {

emulator_facts facts_for(const domain& guest) {
  auto facts = assumed_facts(guest, "x86_64");
  facts.cpu_models = {{"Haswell", "GenuineIntel", 6, 60, 4, {"avx2", "hle"}}, {"EPYC", "AuthenticAMD", 23, 1, 2, {"svm"}}};
  facts.cpu_features = {"avx2", "hle", "invtsc", "lm", "svm"};
  facts.tcg_cpu = cpu_definition{"max", "GenuineIntel", 6, 60, 4, {"avx2", "invtsc", "lm"}};
  facts.kvm_cpu = cpu_definition{"host", "AuthenticAMD", 25, 1, 1, {"lm", "svm"}};
  return facts;
}

/// "Haswell require:lm" of the guest's CPU, once named.
std::string named(const std::string& cpu, std::string_view type = "qemu") {
  auto guest = completed(guest_xml("", "<features><acpi/></features>" + cpu, "pc", type));
  name_host_model(guest, facts_for(guest));
  auto out = guest.cpu->mode + " " + guest.cpu->model;
  for (const auto& feature : guest.cpu->features)
    out += " " + feature.policy + ":" + feature.name;
  return out;
}

} // namespace

TEST_CASE("host model: it becomes the nearest model and what differs", "[xml]") {
  CHECK(named("<cpu mode='host-model'/>") == "custom Haswell require:lm disable:hle");
  CHECK(named("<cpu mode='host-model'/>", "kvm") == "custom EPYC require:lm");
}

TEST_CASE("host model: what the definition wishes for overrules, and only that keeps a guest on its host", "[xml]") {
  CHECK(named("<cpu mode='host-model'><feature policy='disable' name='lm'/><feature policy='require' name='invtsc'/></cpu>") ==
        "custom Haswell disable:lm disable:hle require:invtsc");
}

TEST_CASE("host model: other modes stay, and so does one that nothing is known of", "[xml]") {
  CHECK(named("<cpu mode='maximum'/>") == "maximum ");
  CHECK(named("<cpu mode='custom' match='exact'><model>EPYC</model></cpu>") == "custom EPYC");
  auto guest = completed(guest_xml("", "<cpu mode='host-model'/>"));
  auto facts = facts_for(guest);
  facts.tcg_cpu.reset();
  name_host_model(guest, facts);
  CHECK(guest.cpu->mode == "host-model");
  guest.cpu.reset();
  name_host_model(guest, facts_for(guest));
  CHECK_FALSE(guest.cpu);
}

TEST_CASE("host model: a named one is written and read like any other", "[xml]") {
  auto guest = completed(guest_xml("", "<cpu mode='host-model'><topology sockets='1' cores='1' threads='1'/></cpu>"));
  name_host_model(guest, facts_for(guest));
  const auto text = write_domain(guest, {});
  CHECK(text.find("<cpu mode='custom' match='exact' check='partial'>") != std::string::npos);
  CHECK(text.find("<model fallback='allow'>Haswell</model>") != std::string::npos);
  CHECK(text.find("<vendor>Intel</vendor>") != std::string::npos);
  CHECK(text.find("<topology sockets='1' dies='1' cores='1' threads='1'/>") != std::string::npos);
  CHECK(write_domain(*read_domain(text), {}) == text);
}
