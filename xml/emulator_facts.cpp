#include "xml/emulator_facts.hpp"

#include <algorithm>
#include <concepts>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <utility>

namespace troupe {
namespace {

using nlohmann::json;

constexpr int format_version = 1;
constexpr std::size_t most_cache_bytes = 16u << 20;

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
    bool enabled = false;
    bool present = false;
    read_kvm(kvm.is_null() ? tcg : kvm, enabled, present);
    facts.kvm_usable = enabled && !kvm.is_null();
    if (facts.kvm_usable)
      facts.kvm_cpus = cpus_from(kvm);
    else if (!present)
      facts.why_no_kvm = fmt::format("'{}' was built without KVM", binary);
    else
      facts.why_no_kvm = why_no_kvm.empty() ? fmt::format("'{}' runs without KVM", binary) : std::move(why_no_kvm);
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
                 {"device-types", facts.device_types}};
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
    return facts;
  } catch (const misfit& m) {
    return fail(errc::internal, "the cached emulator facts have " + m.what);
  }
}

} // namespace troupe
