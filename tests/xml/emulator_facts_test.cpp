#include "tests/catch.hpp"
#include "xml/emulator_facts.hpp"

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

using namespace troupe;
using nlohmann::json;

namespace {

json sample_answers(bool kvm) {
  return {
    {"query-version", {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 22}}}, {"package", "Debian"}}},
    {"query-target", {{"arch", "x86_64"}}},
    {"query-kvm", {{"enabled", kvm}, {"present", true}}},
    {"query-machines", json::parse(R"([
      {"name": "pc-i440fx-7.2", "alias": "pc", "is-default": true, "cpu-max": 255, "hotpluggable-cpus": true,
       "numa-mem-supported": false, "deprecated": false, "default-cpu-type": "qemu64-x86_64-cpu", "default-ram-id": "pc.ram"},
      {"name": "pc-i440fx-1.4", "cpu-max": 255, "hotpluggable-cpus": true, "numa-mem-supported": true, "deprecated": true},
      {"name": "none", "cpu-max": 1, "hotpluggable-cpus": false}])")},
    {"query-cpu-definitions", json::parse(kvm ? R"([{"name": "host", "unavailable-features": [], "deprecated": false}])"
                                              : R"([{"name": "host", "unavailable-features": ["kvm"], "deprecated": false},
                                                    {"name": "z900"}])")},
    {"query-cpu-model-expansion", json::parse(R"({
      "EPYC": {"model": {"name": "base", "props": {"vendor": "AuthenticAMD", "family": 23, "model": 1, "pclmulqdq": true,
                                                   "lahf-lm": false, "hypervisor": true, "kvm-pv-eoi": true}}},
      "host": {"model": {"name": "base", "props": {"lahf-lm": true, "hypervisor": true}}},
      "max": {"model": {"name": "base", "props": {"lahf-lm": true, "hypervisor": true}}}})")},
    {"query-sev-capabilities", {{"cbitpos", 47}, {"reduced-phys-bits", 1}}},
    {"query-sgx-capabilities", json::parse(R"({"sgx1": true, "sgx2": false, "flc": true, "sections": [{"size": 1024}]})")},
    {"query-gic-capabilities", json::parse(R"([{"version": 3, "emulated": true, "kernel": false},
                                               {"version": 2, "emulated": false, "kernel": true},
                                               {"version": 4, "emulated": false, "kernel": false}])")},
    {"qom-list-types", json::parse(R"([{"name": "virtio-net-pci", "parent": "x"}, {"name": "e1000", "parent": "y"}])")},
  };
}

/// What the installed QEMU answers to the probe's questions, or null. Its own monitor on its stdin and stdout: no socket, no loop.
json ask_real_qemu() {
  const auto command = std::string{R"(printf '%s\n' '{"execute":"qmp_capabilities","id":"-"}')"} +
                       R"( '{"execute":"query-version","id":"query-version"}' '{"execute":"query-target","id":"query-target"}')"
                       R"( '{"execute":"query-kvm","id":"query-kvm"}' '{"execute":"query-machines","id":"query-machines"}')"
                       R"( '{"execute":"query-cpu-definitions","id":"query-cpu-definitions"}')"
                       R"( '{"execute":"qom-list-types","arguments":{"implements":"device","abstract":false},"id":"qom-list-types"}')"
                       R"( '{"execute":"quit"}' | qemu-system-x86_64 -S -no-user-config -nodefaults -nographic)"
                       R"( -machine none,accel=tcg -qmp stdio)";
  auto* pipe = ::popen(command.c_str(), "r");
  std::string said;
  char bytes[65536];
  for (std::size_t got = 0; (got = std::fread(bytes, 1, sizeof bytes, pipe)) > 0;)
    said.append(bytes, got);
  ::pclose(pipe);
  json answers;
  for (std::size_t at = 0; at < said.size();) {
    const auto end = said.find('\n', at);
    const auto line = json::parse(said.substr(at, end - at));
    if (line.contains("return") && line.contains("id"))
      answers[line["id"].get<std::string>()] = line["return"];
    at = end == said.npos ? end : end + 1;
  }
  return answers;
}

} // namespace

TEST_CASE("emulator facts: both accelerators' answers become one description", "[xml]") {
  const auto facts = facts_from_answers("/usr/bin/qemu", sample_answers(false), sample_answers(true), "");
  REQUIRE(facts);
  CHECK(facts->binary == "/usr/bin/qemu");
  CHECK(facts->arch == "x86_64");
  CHECK(facts->version == emulator_version{7, 2, 22, "Debian"});
  CHECK(facts->tcg_usable);
  CHECK(facts->kvm_usable);
  CHECK(facts->why_no_kvm.empty());
  REQUIRE(facts->tcg_cpus.size() == 2);
  CHECK_FALSE(facts->tcg_cpus[0].usable());
  CHECK(facts->tcg_cpus[0].unavailable_features == std::vector<std::string>{"kvm"});
  CHECK_FALSE(facts->tcg_cpus[1].unavailable_features);
  CHECK_FALSE(facts->tcg_cpus[1].usable());
  REQUIRE(facts->kvm_cpus.size() == 1);
  CHECK(facts->kvm_cpus[0].usable());
  CHECK(has_device(*facts, "e1000"));
  CHECK(has_device(*facts, "virtio-net-pci"));
  CHECK_FALSE(has_device(*facts, "e100"));
}

TEST_CASE("emulator facts: CPUs are told by their features, in libvirt's words", "[xml]") {
  const auto facts = facts_from_answers("/usr/bin/qemu", sample_answers(false), sample_answers(true), "");
  REQUIRE(facts);
  REQUIRE(facts->cpu_models.size() == 1);
  CHECK(facts->cpu_models[0] == cpu_definition{"EPYC", "AuthenticAMD", 23, 1, -1, {"pclmuldq"}});
  CHECK(find_cpu_model(*facts, "EPYC") == &facts->cpu_models[0]);
  CHECK_FALSE(find_cpu_model(*facts, "host"));
  CHECK(facts->cpu_features == std::vector<std::string>{"hypervisor", "lahf_lm", "pclmuldq"});
  CHECK(facts->tcg_cpu->features == std::vector<std::string>{"hypervisor", "lahf_lm"});
  CHECK(facts->kvm_cpu->features == std::vector<std::string>{"hypervisor", "lahf_lm"});
  CHECK(facts->sev == sev_facts{47, 1});
  CHECK(facts->sgx == sgx_facts{true, false, true, {1024}});
  const auto only_kvm = facts_from_answers("/usr/bin/qemu", nullptr, sample_answers(true), "");
  CHECK(only_kvm->cpu_models == facts->cpu_models);
  CHECK(only_kvm->gic_versions == std::vector<std::uint32_t>{2, 3});
}

TEST_CASE("emulator facts: a feature's name goes to QEMU's and back", "[xml]") {
  for (const auto* name : {"pclmulqdq", "ds-cpl", "fxsr-opt", "lahf-lm", "nodeid-msr", "perfctr-core", "avx512-bf16", "sse4.1",
                           "arch-capabilities", "tsc-deadline"})
    CHECK(qemu_feature(libvirt_feature(name)) == name);
  CHECK(libvirt_feature("pclmulqdq") == "pclmuldq");
  CHECK(libvirt_feature("tsc-adjust") == "tsc_adjust");
  CHECK(libvirt_feature("tsc-deadline") == "tsc-deadline");
}

TEST_CASE("emulator facts: a machine is found by name and alias", "[xml]") {
  const auto facts = facts_from_answers("qemu", sample_answers(false), nullptr, "no");
  REQUIRE(facts);
  REQUIRE(find_machine(*facts, "pc"));
  CHECK(find_machine(*facts, "pc") == find_machine(*facts, "pc-i440fx-7.2"));
  CHECK(find_machine(*facts, "pc") == default_machine(*facts));
  CHECK(find_machine(*facts, "pc")->max_cpus == 255);
  CHECK(find_machine(*facts, "pc")->default_ram_id == "pc.ram");
  CHECK(find_machine(*facts, "pc-i440fx-1.4")->deprecated);
  CHECK(find_machine(*facts, "pc-i440fx-1.4")->numa_mem);
  CHECK_FALSE(find_machine(*facts, "none")->hotpluggable_cpus);
  CHECK(find_machine(*facts, "q35") == nullptr);
  CHECK(find_machine(*facts, "") == nullptr);
}

TEST_CASE("emulator facts: why there is no KVM is kept", "[xml]") {
  const auto refused = facts_from_answers("qemu", sample_answers(false), nullptr, "Could not access KVM kernel module");
  REQUIRE(refused);
  CHECK_FALSE(refused->kvm_usable);
  CHECK(refused->kvm_cpus.empty());
  CHECK(refused->why_no_kvm == "Could not access KVM kernel module");

  auto built_without = sample_answers(false);
  built_without["query-kvm"]["present"] = false;
  CHECK(facts_from_answers("qemu", built_without, nullptr, "invalid accelerator kvm")->why_no_kvm == "'qemu' was built without KVM");

  // Asked for KVM, it runs without: it is believed.
  const auto fell_back = facts_from_answers("qemu", sample_answers(false), sample_answers(false), "");
  CHECK_FALSE(fell_back->kvm_usable);
  CHECK(fell_back->kvm_cpus.empty());
  CHECK_FALSE(fell_back->why_no_kvm.empty());
}

TEST_CASE("emulator facts: a QEMU without TCG is described by its KVM answers", "[xml]") {
  const auto facts = facts_from_answers("qemu", nullptr, sample_answers(true), "");
  REQUIRE(facts);
  CHECK_FALSE(facts->tcg_usable);
  CHECK(facts->tcg_cpus.empty());
  CHECK(facts->kvm_usable);
  CHECK(facts->machines.size() == 3);

  const auto neither = facts_from_answers("qemu", nullptr, nullptr, "not executable");
  REQUIRE_FALSE(neither);
  CHECK(neither.error().detail.find("not executable") != std::string::npos);
}

TEST_CASE("emulator facts: whatever member of the answers is damaged, the error says so", "[xml]") {
  const auto whole = sample_answers(false).flatten();
  for (const auto& [path, value] : whole.items())
    for (const json& damage : {json(nullptr), json(-1), json(1.5), json::array({1}), json{{"x", 1}}}) {
      if (damage.type() == value.type())
        continue;
      auto answers = sample_answers(false);
      answers[json::json_pointer{path}] = damage;
      const auto facts = facts_from_answers("qemu", answers, nullptr, "no");
      const bool unread = path.ends_with("/parent") || path.ends_with("/model/name") || path.starts_with("/query-s");
      const bool property = path.find("/props/") != path.npos; // of a kind that is of no interest then
      INFO(path << " = " << damage);
      CHECK((facts.has_value() == unread || property));
      CHECK((facts || facts.error().code == errc::internal));
    }
  const auto all = sample_answers(false);
  for (const auto& [key, value] : all.items()) {
    auto answers = all;
    answers.erase(key);
    const bool optional = key.starts_with("query-cpu") || key.starts_with("query-s") || key.starts_with("query-gic");
    CHECK(facts_from_answers("qemu", answers, nullptr, "no").has_value() == optional);
  }
  CHECK_FALSE(facts_from_answers("qemu", json::array({1}), nullptr, "no"));
}

TEST_CASE("emulator facts: the cache gives back what it was given", "[xml]") {
  auto facts = *facts_from_answers("/usr/bin/qemu", sample_answers(false), sample_answers(true), "");
  CHECK(emulator_facts_from(to_json_text(facts)).value() == facts);
  facts.kvm_usable = false;
  facts.why_no_kvm = "no /dev/kvm";
  facts.kvm_cpus.clear();
  CHECK(emulator_facts_from(to_json_text(facts)).value() == facts);
  CHECK(emulator_facts_from(to_json_text({})).value() == emulator_facts{});
  facts.why_no_kvm = "\xff";
  CHECK(emulator_facts_from(to_json_text(facts)));
}

TEST_CASE("emulator facts: a damaged or foreign cache is refused", "[xml]") {
  const auto text = to_json_text(*facts_from_answers("qemu", sample_answers(false), nullptr, "no"));
  for (std::size_t length = 0; length < text.size(); length += 7)
    CHECK_FALSE(emulator_facts_from(text.substr(0, length)));
  auto other = json::parse(text);
  other["format"] = 99;
  const auto foreign = emulator_facts_from(other.dump());
  REQUIRE_FALSE(foreign);
  CHECK(foreign.error().detail.find("99") != std::string::npos);
  const auto members = json::parse(text);
  for (const auto& [key, value] : members.items()) {
    auto without = members;
    without.erase(key);
    CHECK_FALSE(emulator_facts_from(without.dump()));
  }
  for (const auto* strange : {"null", "[]", "1", "{}", "x"})
    CHECK_FALSE(emulator_facts_from(strange));
  CHECK_FALSE(emulator_facts_from(std::string(1'000'000, '[')));
}

TEST_CASE("emulator facts: a real QEMU's answers are understood", "[xml]") {
  if (std::system("command -v qemu-system-x86_64 >/dev/null 2>&1") != 0) {
    WARN("qemu-system-x86_64 is not installed: skipped");
    return;
  }
  const auto facts = facts_from_answers("qemu-system-x86_64", ask_real_qemu(), nullptr, "not asked");
  REQUIRE(facts);
  CHECK(facts->arch == "x86_64");
  CHECK(facts->version.major >= 7);
  REQUIRE(find_machine(*facts, "q35"));
  CHECK(find_machine(*facts, "q35")->max_cpus >= 255);
  CHECK(default_machine(*facts) != nullptr);
  CHECK(has_device(*facts, "virtio-net-pci"));
  CHECK(facts->tcg_cpus.size() > 10);
  CHECK(emulator_facts_from(to_json_text(*facts)).value() == *facts);
}
