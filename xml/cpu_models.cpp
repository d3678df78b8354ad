#include "xml/cpu_models.hpp"

#include "xml/xml_text.hpp"
#include "xml/xml_tree.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <optional>
#include <tuple>

namespace troupe {
namespace {

struct vendor_row {
  std::string_view cpuid, word;
};
constexpr vendor_row vendors[] = {{"GenuineIntel", "Intel"}, {"AuthenticAMD", "AMD"}, {"HygonGenuine", "Hygon"}};

/// QEMU's own models, and those older than features by which vendors differ.
constexpr std::string_view nobodys_models[] = {"486",    "pentium", "pentium2", "pentium3",
                                               "qemu32", "qemu64",  "kvm32",    "kvm64"};

/// What keeps a guest on its host. Source: QEMU, target/i386/cpu.c, unmigratable_flags.
constexpr std::string_view unmigratable[] = {"invtsc"};

/// Features of a host's CPU that QEMU has no word for: a guest never gets them, or always.
constexpr std::string_view not_for_guests[] = {"cmt",   "cvt16",   "mbm_local", "mbm_total", "ospke", "osxsave", "pconfig"};

constexpr std::string_view policies[] = {"force", "require", "optional", "disable", "forbid"};
constexpr std::string_view matches[] = {"exact", "strict", "minimum"};
constexpr std::string_view modes[] = {"custom", "host-model", "host-passthrough", "maximum"};

// Source: libvirt's schema cputypes.rng.
constexpr std::string_view known_attributes[] = {"mode", "match", "check", "migratable", "name", "supported"};
constexpr std::string_view known_elements[] = {"arch",     "model", "vendor",      "microcode", "signature", "counter",
                                               "topology", "cache", "maxphysaddr", "feature",   "pages",     "numa"};

/// Flags of Linux's that are more than their spelling away from a feature; the vendor they mean it for, or any.
struct flag_row {
  std::string_view flag, vendor, feature;
};
constexpr flag_row flag_rows[] = {
  {"tsc_deadline_timer", "", "tsc-deadline"}, {"pclmulqdq", "", "pclmuldq"},
  {"nonstop_tsc", "", "invtsc"},              {"ibrs", "GenuineIntel", "spec-ctrl"},
  {"stibp", "AuthenticAMD", "amd-stibp"},     {"ssbd", "AuthenticAMD", "amd-ssbd"},
};

using names = std::vector<std::string>;

bool is_in(std::string_view word, std::span<const std::string_view> list) {
  return std::ranges::find(list, word) != list.end();
}

/// `a` without what is in `b`; both sorted.
names without(const names& a, const names& b) {
  names out;
  std::ranges::set_difference(a, b, std::back_inserter(out));
  return out;
}

names common(const names& a, const names& b) {
  names out;
  std::ranges::set_intersection(a, b, std::back_inserter(out));
  return out;
}

/// The features of `cpu` with its model's, and those it must not have; sorted.
struct wanted_features {
  names required, forbidden;
};

result<wanted_features> features_of(const cpu_text& cpu, const emulator_facts& facts) {
  wanted_features out;
  if (!cpu.model.empty()) {
    const auto* model = find_cpu_model(facts, cpu.model);
    if (!model)
      return fail(errc::internal, fmt::format("Unknown CPU model {}: '{}' has none of that name", cpu.model, facts.binary));
    out.required = model->features;
  }
  names added, removed;
  for (const auto& [name, policy] : cpu.features) {
    if (is_in(name, not_for_guests))
      continue;
    if (!std::ranges::binary_search(facts.cpu_features, name))
      return fail(errc::internal, fmt::format("Unknown CPU feature {}: '{}' has none of that name", name, facts.binary));
    if (policy == "require" || policy.empty())
      added.push_back(name);
    else
      removed.push_back(name);
    if (policy == "forbid")
      out.forbidden.push_back(name);
  }
  out.required.insert(out.required.end(), added.begin(), added.end());
  std::ranges::sort(out.required);
  out.required.erase(std::unique(out.required.begin(), out.required.end()), out.required.end());
  std::ranges::sort(removed);
  out.required = without(out.required, removed);
  std::ranges::sort(out.forbidden);
  return out;
}

bool is_pc(std::string_view arch) {
  return arch == "x86_64" || arch == "i686" || arch == "i386";
}

/// `cpu` by `model`, with what differs.
cpu_text described_by(const cpu_definition& model, const cpu_definition& cpu, naming how) {
  cpu_text out;
  out.of_guest = how == naming::of_guest;
  out.model = model.name;
  out.vendor = vendor_word(cpu.vendor);
  for (auto& name : without(cpu.features, model.features))
    out.features.push_back({std::move(name), out.of_guest ? "require" : ""});
  if (out.of_guest)
    for (auto& name : without(model.features, cpu.features))
      out.features.push_back({std::move(name), "disable"});
  return out;
}

std::string attribute_or_nothing(const xml_element& from, std::string_view name) {
  const auto* value = from.attribute(name);
  return value ? *value : std::string{};
}

result<void> check_names(const xml_element& cpu) {
  for (const auto& attribute : cpu.attributes)
    if (!is_in(attribute.name, known_attributes))
      return fail(errc::bad_schema, fmt::format("<cpu> in line {} has an attribute '{}': it can have {}", cpu.line,
                                                attribute.name, fmt::join(known_attributes, ", ")));
  for (const auto& child : cpu.children)
    if (child.is_element() && !is_in(child.local_name(), known_elements))
      return fail(errc::bad_schema, fmt::format("<{}> in line {} does not belong into <cpu>, which can hold {}", child.name,
                                                child.line, fmt::join(known_elements, ", ")));
  return {};
}

/// Letters and digits only: "sse4_1" and "sse4.1" are the same flag.
std::string bare(std::string_view flag) {
  std::string out;
  std::ranges::copy_if(flag, std::back_inserter(out), [](char c) { return c != '_' && c != '-' && c != '.'; });
  return out;
}

} // namespace

result<cpu_text> read_cpu(std::string_view xml, bool strict) {
  const auto root = parse_xml(xml);
  if (!root)
    return tl::make_unexpected(root.error());
  if (root->local_name() != "cpu" && root->local_name() != "mode")
    return fail(errc::bad_xml, fmt::format("XML does not contain expected 'cpu' element: its root is <{}>, line {}",
                                           root->name, root->line));
  if (strict)
    if (auto checked = check_names(*root); !checked)
      return tl::make_unexpected(std::move(checked.error()));
  cpu_text out;
  const auto mode = attribute_or_nothing(*root, "mode");
  if (!mode.empty() && !is_in(mode, modes))
    return fail(errc::unsupported_config, fmt::format("Invalid mode attribute '{}' of <cpu>, line {}: it can be {}", mode,
                                                      root->line, fmt::join(modes, ", ")));
  out.match = attribute_or_nothing(*root, "match");
  if (!out.match.empty() && !is_in(out.match, matches))
    return fail(errc::bad_xml, fmt::format("Invalid value for attribute 'match' in element 'cpu': '{}', line {}; it can be {}",
                                           out.match, root->line, fmt::join(matches, ", ")));
  if (const auto* arch = root->child("arch")) {
    out.of_guest = false;
    out.arch = trimmed(arch->text);
  }
  if (const auto* model = root->child("model"))
    out.model = trimmed(model->text);
  if (const auto* vendor = root->child("vendor"))
    out.vendor = trimmed(vendor->text);
  names seen;
  for (const auto& child : root->children) {
    if (child.local_name() != "feature")
      continue;
    cpu_text::feature feature{attribute_or_nothing(child, "name"), attribute_or_nothing(child, "policy")};
    if (feature.name.empty())
      return fail(errc::bad_xml, fmt::format("Invalid CPU feature name: <feature> in line {} has no 'name'", child.line));
    if (!feature.policy.empty() && !is_in(feature.policy, policies))
      return fail(errc::unsupported_config,
                  fmt::format("Invalid CPU feature policy '{}' of '{}', line {}: it can be {}", feature.policy, feature.name,
                              child.line, fmt::join(policies, ", ")));
    if (!out.of_guest)
      feature.policy.clear();
    seen.push_back(feature.name);
    out.features.push_back(std::move(feature));
  }
  if (out.model.empty() && !out.features.empty())
    return fail(errc::bad_xml, fmt::format("Non-empty feature list specified without CPU model: <cpu> in line {} wants a <model>",
                                           root->line));
  std::ranges::sort(seen);
  if (const auto twice = std::ranges::adjacent_find(seen); twice != seen.end())
    return fail(errc::bad_xml, fmt::format("CPU feature '{}' specified more than once in <cpu>, line {}", *twice, root->line));
  return out;
}

std::string write_cpu(const cpu_text& cpu, std::string_view fallback) {
  const auto element = [](std::string name) {
    xml_element made;
    made.name = std::move(name);
    return made;
  };
  auto root = element("cpu");
  root.set("mode", "custom");
  root.set("match", "exact");
  auto& model = root.children.emplace_back(element("model"));
  model.set("fallback", std::string{fallback});
  model.text = cpu.model;
  if (!cpu.vendor.empty())
    root.children.emplace_back(element("vendor")).text = cpu.vendor;
  for (const auto& [name, policy] : cpu.features) {
    auto& feature = root.children.emplace_back(element("feature"));
    feature.set("policy", policy.empty() ? "require" : policy);
    feature.set("name", name);
  }
  return write_xml(root);
}

std::string_view vendor_word(std::string_view cpuid) {
  const auto* row = std::ranges::find(vendors, cpuid, &vendor_row::cpuid);
  return row == std::end(vendors) ? std::string_view{} : row->word;
}

bool has_vendor(const cpu_definition& model) {
  return !is_in(model.name, nobodys_models) && !vendor_word(model.vendor).empty();
}

bool is_unmigratable(std::string_view feature) {
  return is_in(feature, unmigratable);
}

cpu_text nearest_model(const cpu_definition& cpu, std::span<const cpu_definition> models, naming how) {
  struct rank {
    bool other_numbers = true;
    std::size_t differences = 0, lacking = 0;
    auto operator<=>(const rank&) const = default;
  };
  const cpu_definition* best = nullptr;
  rank best_rank;
  for (const auto& model : models) {
    if (has_vendor(model) && !cpu.vendor.empty() && model.vendor != cpu.vendor)
      continue;
    const auto lacking = without(model.features, cpu.features).size();
    if (how == naming::of_host && lacking > 0)
      continue;
    const bool same_numbers = has_vendor(model) && model.family == cpu.family && model.model == cpu.model && cpu.family >= 0;
    const rank its{!same_numbers, lacking + without(cpu.features, model.features).size(), lacking};
    if (!best || its < best_rank)
      best = &model, best_rank = its;
  }
  return best ? described_by(*best, cpu, how) : cpu_text{};
}

cpu_definition cpu_from_flags(std::span<const std::string> flags, std::string vendor, std::span<const std::string> known) {
  cpu_definition out;
  out.name = "host";
  std::vector<std::pair<std::string, std::string_view>> by_letters;
  for (const auto& feature : known)
    by_letters.emplace_back(bare(feature), feature);
  std::ranges::sort(by_letters);
  for (const auto& flag : flags) {
    const auto* row = std::ranges::find_if(
      flag_rows, [&](const auto& each) { return each.flag == flag && (each.vendor.empty() || each.vendor == vendor); });
    const auto letters = bare(row == std::end(flag_rows) ? std::string_view{flag} : row->feature);
    const auto found = std::ranges::lower_bound(by_letters, letters, {}, &std::pair<std::string, std::string_view>::first);
    if (found != by_letters.end() && found->first == letters)
      out.features.emplace_back(found->second);
  }
  std::ranges::sort(out.features);
  out.features.erase(std::unique(out.features.begin(), out.features.end()), out.features.end());
  out.vendor = std::move(vendor);
  return out;
}

result<cpu_comparison> compare_cpu(const cpu_definition& host, const cpu_text& wanted, const emulator_facts& facts) {
  const auto no = [](std::string why) { return cpu_comparison{cpu_order::incompatible, std::move(why)}; };
  if (!wanted.arch.empty() && !is_pc(wanted.arch))
    return no(fmt::format("CPU arch {} does not match host arch", wanted.arch));
  auto features = features_of(wanted, facts);
  if (!features)
    return tl::make_unexpected(std::move(features.error()));
  if (!wanted.vendor.empty() && vendor_word(host.vendor) != wanted.vendor)
    return no(fmt::format("host CPU vendor does not match required CPU vendor {}", wanted.vendor));
  if (const auto had = common(host.features, features->forbidden); !had.empty())
    return no(fmt::format("Host CPU provides forbidden features: {}", fmt::join(had, ", ")));
  if (const auto lacking = without(features->required, host.features); !lacking.empty())
    return no(fmt::format("Host CPU does not provide required features: {}", fmt::join(lacking, ", ")));
  if (host.features.size() == features->required.size())
    return cpu_comparison{cpu_order::identical, {}};
  if (wanted.match == "strict")
    return no("Host CPU does not strictly match CPU description: it also has " +
              fmt::format("{}", fmt::join(without(host.features, features->required), ", ")));
  return cpu_comparison{cpu_order::superset, {}};
}

result<cpu_text> baseline_cpu(std::span<const cpu_text> cpus, const emulator_facts& facts, const baseline_options& options) {
  std::optional<names> shared;
  std::string told_vendor, vendor; // what the CPUs say, and what their models are of
  bool one_model = true;
  for (const auto& cpu : cpus) {
    if (cpu.model.empty())
      return fail(errc::bad_xml, "Missing CPU model name: a baseline is made of CPUs with <model>");
    auto features = features_of(cpu, facts);
    if (!features)
      return tl::make_unexpected(std::move(features.error()));
    shared = shared ? common(*shared, features->required) : std::move(features->required);
    one_model = one_model && cpu.model == cpus.front().model;
    const auto& model = *find_cpu_model(facts, cpu.model);
    const std::string its{!cpu.vendor.empty() ? std::string_view{cpu.vendor}
                          : has_vendor(model) ? vendor_word(model.vendor)
                                              : std::string_view{}};
    if (!its.empty() && !vendor.empty() && its != vendor)
      return fail(errc::operation_failed, fmt::format("CPU vendors do not match: {} and {}", vendor, its));
    if (!its.empty())
      vendor = its;
    if (!cpu.vendor.empty())
      told_vendor = cpu.vendor;
  }
  cpu_definition base;
  base.features = std::move(shared).value_or(names{});
  if (options.within)
    base.features = common(base.features, options.within->features);
  if (options.migratable)
    std::erase_if(base.features, is_unmigratable);
  if (const auto* row = std::ranges::find(vendors, vendor, &vendor_row::word); row != std::end(vendors))
    base.vendor = row->cpuid;
  auto out = one_model && !cpus.empty() ? described_by(*find_cpu_model(facts, cpus.front().model), base, naming::of_guest)
                                        : nearest_model(base, facts.cpu_models, naming::of_guest);
  out.vendor = told_vendor;
  if (options.expand) {
    std::erase_if(out.features, [](const auto& feature) { return feature.policy != "disable"; });
    for (auto& name : base.features)
      out.features.push_back({std::move(name), "require"});
  }
  return out;
}

} // namespace troupe
