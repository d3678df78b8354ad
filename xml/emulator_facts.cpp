#include "xml/emulator_facts.hpp"

#include <algorithm>
#include <concepts>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

namespace troupe {
namespace {

using nlohmann::json;

constexpr int format_version = 2;
constexpr std::size_t most_cache_bytes = 16u << 20;

/// Features, in QEMU's words, that libvirt spells with underscores.
constexpr std::string_view underscored[] = {"ds-cpl",     "tsc-adjust", "fxsr-opt",     "lahf-lm",
                                            "cmp-legacy", "nodeid-msr", "perfctr-core", "perfctr-nb"};

/// Something is not as it must be; only this file sees it.
struct misfit {
  std::string what;
};

enum class presence : bool { optional, required };

/// The member of that kind, or null when it is absent and may be.
const json* member(const json& object, const char* key, presence how, bool (json::*is_kind)() const noexcept, const char* kind) {
  if (!object.is_object())
    throw misfit{fmt::format("something without '{}' where an object must be", key)};
  const auto found = object.find(key);
  if (found == object.end() && how == presence::optional)
    return nullptr;
  if (found == object.end() || !((*found).*is_kind)())
    throw misfit{fmt::format("no {} '{}'", kind, key)};
  return &*found;
}

void read(const json& object, const char* key, bool& into, presence how = presence::required) {
  if (const auto* found = member(object, key, how, &json::is_boolean, "boolean"))
    into = found->get<bool>();
}

void read(const json& object, const char* key, std::string& into, presence how = presence::required) {
  if (const auto* found = member(object, key, how, &json::is_string, "string"))
    into = found->get_ref<const std::string&>();
}

void read(const json& object, const char* key, std::uint32_t& into) {
  const auto& number = *member(object, key, presence::required, &json::is_number_integer, "whole number");
  const auto value = number.get<std::int64_t>(); // wraps below zero what is above its range
  if (!std::in_range<std::uint32_t>(value))
    throw misfit{fmt::format("'{}' out of range: {}", key, number.dump())};
  into = static_cast<std::uint32_t>(value);
}

std::vector<std::string> texts(const json& list) {
  std::vector<std::string> all;
  all.reserve(list.size());
  for (const auto& each : list) {
    if (!each.is_string())
      throw misfit{"something else in a list of strings"};
    all.push_back(each.get_ref<const std::string&>());
  }
  return all;
}

const json& list_at(const json& object, const char* key) {
  return *member(object, key, presence::required, &json::is_array, "list");
}

template <class Item>
std::vector<Item> items(const json& list, Item (*read_item)(const json&)) {
  std::vector<Item> all;
  all.reserve(list.size());
  for (const auto& each : list)
    all.push_back(read_item(each));
  return all;
}

// QEMU's own member names serve in the cache too: one reader for both.

emulator_version version_from(const json& from) {
  emulator_version version;
  const auto& numbers = *member(from, "qemu", presence::required, &json::is_object, "object");
  read(numbers, "major", version.major);
  read(numbers, "minor", version.minor);
  read(numbers, "micro", version.micro);
  read(from, "package", version.package);
  return version;
}

json to_json(const emulator_version& version) {
  return {{"qemu", {{"major", version.major}, {"minor", version.minor}, {"micro", version.micro}}}, {"package", version.package}};
}

machine_facts machine_from(const json& from) {
  machine_facts machine;
  read(from, "name", machine.name);
  read(from, "alias", machine.alias, presence::optional);
  read(from, "cpu-max", machine.max_cpus);
  read(from, "is-default", machine.is_default, presence::optional);
  read(from, "deprecated", machine.deprecated, presence::optional);
  read(from, "hotpluggable-cpus", machine.hotpluggable_cpus);
  read(from, "numa-mem-supported", machine.numa_mem, presence::optional);
  read(from, "default-ram-id", machine.default_ram_id, presence::optional);
  read(from, "default-cpu-type", machine.default_cpu_type, presence::optional);
  return machine;
}

json to_json(const machine_facts& machine) {
  return {{"name", machine.name},
          {"alias", machine.alias},
          {"cpu-max", machine.max_cpus},
          {"is-default", machine.is_default},
          {"deprecated", machine.deprecated},
          {"hotpluggable-cpus", machine.hotpluggable_cpus},
          {"numa-mem-supported", machine.numa_mem},
          {"default-ram-id", machine.default_ram_id},
          {"default-cpu-type", machine.default_cpu_type}};
}

cpu_model_facts cpu_model_from(const json& from) {
  cpu_model_facts model;
  read(from, "name", model.name);
  if (const auto* lacking = member(from, "unavailable-features", presence::optional, &json::is_array, "list"))
    model.unavailable_features = texts(*lacking);
  read(from, "deprecated", model.deprecated, presence::optional);
  return model;
}

json to_json(const cpu_model_facts& model) {
  json out{{"name", model.name}, {"deprecated", model.deprecated}};
  if (model.unavailable_features)
    out["unavailable-features"] = *model.unavailable_features;
  return out;
}

/// Properties that are no feature of a CPU but of how QEMU or KVM presents it.
bool is_of_hypervisor(std::string_view property) {
  return property.starts_with("kvm") || property.starts_with("hv-") || property.starts_with("vmx-") || property.starts_with("x-");
}

int whole_number(const json& properties, const char* key) {
  const auto* number = member(properties, key, presence::optional, &json::is_number_integer, "whole number");
  const auto value = number ? number->get<std::int64_t>() : -1;
  return std::in_range<int>(value) ? static_cast<int>(value) : -1;
}

/// Of an expansion's answer; `known` grows by every feature in it, had or not.
cpu_definition definition_from(std::string name, const json& from, std::set<std::string>& known) {
  const auto& model = *member(from, "model", presence::required, &json::is_object, "object");
  const auto& properties = *member(model, "props", presence::required, &json::is_object, "object");
  cpu_definition cpu;
  cpu.name = std::move(name);
  read(properties, "vendor", cpu.vendor, presence::optional);
  cpu.family = whole_number(properties, "family");
  cpu.model = whole_number(properties, "model");
  cpu.stepping = whole_number(properties, "stepping");
  for (const auto& [key, value] : properties.items()) {
    if (!value.is_boolean() || is_of_hypervisor(key))
      continue;
    auto feature = libvirt_feature(key);
    if (value.get<bool>())
      cpu.features.push_back(feature);
    known.insert(std::move(feature));
  }
  std::ranges::sort(cpu.features);
  return cpu;
}

cpu_definition cpu_definition_from(const json& from) {
  cpu_definition cpu;
  read(from, "name", cpu.name);
  read(from, "vendor", cpu.vendor);
  cpu.family = whole_number(from, "family");
  cpu.model = whole_number(from, "model");
  cpu.stepping = whole_number(from, "stepping");
  cpu.features = texts(list_at(from, "features"));
  std::ranges::sort(cpu.features);
  return cpu;
}

json to_json(const cpu_definition& cpu) {
  return {{"name", cpu.name},   {"vendor", cpu.vendor},     {"family", cpu.family},
          {"model", cpu.model}, {"stepping", cpu.stepping}, {"features", cpu.features}};
}

/// The models in an accelerator's answers, and the most it gives under `most`.
void read_expansions(const json& answers, std::string_view most_name, std::vector<cpu_definition>& models,
                     std::optional<cpu_definition>& most, std::set<std::string>& known) {
  const auto* all = member(answers, "query-cpu-model-expansion", presence::optional, &json::is_object, "object");
  if (!all)
    return;
  for (const auto& [name, answer] : all->items()) {
    auto cpu = definition_from(name, answer, known);
    if (name == most_name)
      most = std::move(cpu);
    else if (name != "host" && name != "max" && name != "base") {
      std::erase(cpu.features, "hypervisor"); // every guest is told that it is one
      models.push_back(std::move(cpu));
    }
  }
}

sev_facts sev_from(const json& from) {
  sev_facts sev;
  read(from, "cbitpos", sev.cbitpos);
  read(from, "reduced-phys-bits", sev.reduced_phys_bits);
  return sev;
}

json to_json(const sev_facts& sev) {
  return {{"cbitpos", sev.cbitpos}, {"reduced-phys-bits", sev.reduced_phys_bits}};
}

sgx_facts sgx_from(const json& from) {
  sgx_facts sgx;
  read(from, "sgx1", sgx.sgx1);
  read(from, "sgx2", sgx.sgx2);
  read(from, "flc", sgx.flc);
  for (const auto& section : list_at(from, "sections"))
    sgx.section_bytes.push_back(
      member(section, "size", presence::required, &json::is_number_unsigned, "whole number")->get<std::uint64_t>());
  return sgx;
}

json to_json(const sgx_facts& sgx) {
  auto sections = json::array();
  for (const auto bytes : sgx.section_bytes)
    sections.push_back({{"size", bytes}});
  return {{"sgx1", sgx.sgx1}, {"sgx2", sgx.sgx2}, {"flc", sgx.flc}, {"sections", std::move(sections)}};
}

template <class Item>
json to_json(const std::optional<Item>& item) {
  return item ? to_json(*item) : json(nullptr);
}

/// The member, or nothing when it is null, or absent and may be.
template <class Item>
std::optional<Item> maybe(const json& from, const char* key, Item (*read_item)(const json&), presence how = presence::required) {
  const auto found = from.find(key);
  if (found == from.end() && how == presence::required)
    throw misfit{fmt::format("no '{}'", key)};
  return found == from.end() || found->is_null() ? std::nullopt : std::optional{read_item(*found)};
}

std::vector<std::uint32_t> gic_versions_from(const json& answers) {
  std::vector<std::uint32_t> versions;
  if (const auto* list = member(answers, "query-gic-capabilities", presence::optional, &json::is_array, "list"))
    for (const auto& each : *list) {
      std::uint32_t version = 0;
      bool emulated = false, kernel = false;
      read(each, "version", version);
      read(each, "emulated", emulated);
      read(each, "kernel", kernel);
      if (emulated || kernel)
        versions.push_back(version);
    }
  std::ranges::sort(versions);
  return versions;
}

template <class Item>
json to_json(const std::vector<Item>& list) {
  auto out = json::array();
  for (const auto& each : list)
    out.push_back(to_json(each));
  return out;
}

std::string type_name_from(const json& from) {
  std::string name;
  read(from, "name", name);
  return name;
}

std::vector<cpu_model_facts> cpus_from(const json& answers) {
  const auto* list = member(answers, "query-cpu-definitions", presence::optional, &json::is_array, "list");
  return list ? items(*list, cpu_model_from) : std::vector<cpu_model_facts>{};
}

/// What does not depend on the accelerator, from either one's answers.
emulator_facts common_facts(const json& answers) {
  emulator_facts facts;
  facts.version = version_from(*member(answers, "query-version", presence::required, &json::is_object, "object"));
  read(*member(answers, "query-target", presence::required, &json::is_object, "object"), "arch", facts.arch);
  facts.machines = items(list_at(answers, "query-machines"), machine_from);
  facts.device_types = items(list_at(answers, "qom-list-types"), type_name_from);
  std::ranges::sort(facts.device_types);
  return facts;
}

void read_kvm(const json& answers, bool& enabled, bool& present) {
  const auto& kvm = *member(answers, "query-kvm", presence::required, &json::is_object, "object");
  read(kvm, "enabled", enabled);
  read(kvm, "present", present);
}

} // namespace

const machine_facts* find_machine(const emulator_facts& facts, std::string_view name) {
  const auto found = std::ranges::find_if(facts.machines, [&](const auto& machine) {
    return machine.name == name || (!name.empty() && machine.alias == name);
  });
  return found == facts.machines.end() ? nullptr : &*found;
}

const machine_facts* default_machine(const emulator_facts& facts) {
  const auto found = std::ranges::find_if(facts.machines, &machine_facts::is_default);
  return found == facts.machines.end() ? nullptr : &*found;
}

const cpu_definition* find_cpu_model(const emulator_facts& facts, std::string_view name) {
  const auto found = std::ranges::find(facts.cpu_models, name, &cpu_definition::name);
  return found == facts.cpu_models.end() ? nullptr : &*found;
}

std::string libvirt_feature(std::string_view qemu_name) {
  if (qemu_name == "pclmulqdq")
    return "pclmuldq";
  std::string name{qemu_name};
  if (std::ranges::find(underscored, qemu_name) != std::end(underscored))
    std::ranges::replace(name, '-', '_');
  return name;
}

std::string qemu_feature(std::string_view libvirt_name) {
  if (libvirt_name == "pclmuldq")
    return "pclmulqdq";
  std::string name{libvirt_name};
  std::ranges::replace(name, '_', '-');
  return name;
}

bool has_device(const emulator_facts& facts, std::string_view type) {
  return std::ranges::binary_search(facts.device_types, type);
}

result<emulator_facts> facts_from_answers(std::string binary, const json& tcg, const json& kvm, std::string why_no_kvm) {
  if (tcg.is_null() && kvm.is_null())
    return fail(errc::internal, fmt::format("'{}' would not start, neither with TCG nor with KVM: {}", binary, why_no_kvm));
  try {
    auto facts = common_facts(tcg.is_null() ? kvm : tcg);
    if (!tcg.is_null()) {
      facts.tcg_usable = true;
      facts.tcg_cpus = cpus_from(tcg);
    }
    std::set<std::string> known;
    if (!tcg.is_null())
      read_expansions(tcg, "max", facts.cpu_models, facts.tcg_cpu, known);
    bool enabled = false;
    bool present = false;
    read_kvm(kvm.is_null() ? tcg : kvm, enabled, present);
    facts.kvm_usable = enabled && !kvm.is_null();
    if (facts.kvm_usable) {
      facts.kvm_cpus = cpus_from(kvm);
      std::vector<cpu_definition> models; // KVM gives every model the host's vendor
      read_expansions(kvm, "host", models, facts.kvm_cpu, known);
      if (facts.cpu_models.empty())
        facts.cpu_models = std::move(models);
      facts.sev = maybe(kvm, "query-sev-capabilities", sev_from, presence::optional);
      facts.sgx = maybe(kvm, "query-sgx-capabilities", sgx_from, presence::optional);
    } else if (!present)
      facts.why_no_kvm = fmt::format("'{}' was built without KVM", binary);
    else
      facts.why_no_kvm = why_no_kvm.empty() ? fmt::format("'{}' runs without KVM", binary) : std::move(why_no_kvm);
    facts.cpu_features.assign(known.begin(), known.end());
    facts.gic_versions = gic_versions_from(facts.kvm_usable || tcg.is_null() ? kvm : tcg);
    facts.binary = std::move(binary);
    return facts;
  } catch (const misfit& m) {
    return fail(errc::internal, fmt::format("cannot tell what '{}' can do: its answers have {}", binary, m.what));
  }
}

std::string to_json_text(const emulator_facts& facts) {
  const json out{{"format", format_version},
                 {"binary", facts.binary},
                 {"arch", facts.arch},
                 {"version", to_json(facts.version)},
                 {"tcg-usable", facts.tcg_usable},
                 {"kvm-usable", facts.kvm_usable},
                 {"why-no-kvm", facts.why_no_kvm},
                 {"machines", to_json(facts.machines)},
                 {"tcg-cpus", to_json(facts.tcg_cpus)},
                 {"kvm-cpus", to_json(facts.kvm_cpus)},
                 {"device-types", facts.device_types},
                 {"cpu-models", to_json(facts.cpu_models)},
                 {"cpu-features", facts.cpu_features},
                 {"tcg-cpu", to_json(facts.tcg_cpu)},
                 {"kvm-cpu", to_json(facts.kvm_cpu)},
                 {"sev", to_json(facts.sev)},
                 {"sgx", to_json(facts.sgx)},
                 {"gic-versions", facts.gic_versions}};
  // What QEMU wrote to stderr need not be UTF-8.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<emulator_facts> emulator_facts_from(std::string_view json_text) {
  if (json_text.size() > most_cache_bytes)
    return fail(errc::internal, fmt::format("cached emulator facts of {} bytes: more than {}", json_text.size(), most_cache_bytes));
  const auto from = json::parse(json_text, nullptr, false);
  if (from.is_discarded())
    return fail(errc::internal, "the cached emulator facts are not JSON");
  try {
    std::uint32_t format = 0;
    read(from, "format", format);
    if (format != format_version)
      return fail(errc::internal, fmt::format("cached emulator facts of format {}: {} is read here", format, format_version));
    emulator_facts facts;
    read(from, "binary", facts.binary);
    read(from, "arch", facts.arch);
    facts.version = version_from(*member(from, "version", presence::required, &json::is_object, "object"));
    read(from, "tcg-usable", facts.tcg_usable);
    read(from, "kvm-usable", facts.kvm_usable);
    read(from, "why-no-kvm", facts.why_no_kvm);
    facts.machines = items(list_at(from, "machines"), machine_from);
    facts.tcg_cpus = items(list_at(from, "tcg-cpus"), cpu_model_from);
    facts.kvm_cpus = items(list_at(from, "kvm-cpus"), cpu_model_from);
    facts.device_types = texts(list_at(from, "device-types"));
    std::ranges::sort(facts.device_types);
    facts.cpu_models = items(list_at(from, "cpu-models"), cpu_definition_from);
    facts.cpu_features = texts(list_at(from, "cpu-features"));
    std::ranges::sort(facts.cpu_features);
    facts.tcg_cpu = maybe(from, "tcg-cpu", cpu_definition_from);
    facts.kvm_cpu = maybe(from, "kvm-cpu", cpu_definition_from);
    facts.sev = maybe(from, "sev", sev_from);
    facts.sgx = maybe(from, "sgx", sgx_from);
    for (const auto& version : list_at(from, "gic-versions")) {
      if (!version.is_number_unsigned() || !std::in_range<std::uint32_t>(version.get<std::uint64_t>()))
        throw misfit{"something else in a list of GIC versions"};
      facts.gic_versions.push_back(version.get<std::uint32_t>());
    }
    return facts;
  } catch (const misfit& m) {
    return fail(errc::internal, "the cached emulator facts have " + m.what);
  }
}

} // namespace troupe
