#pragma once

#include "runtime/error.hpp"
#include "xml/emulator_facts.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// A `<cpu>` as clients write one: a model, and what differs from it.
struct cpu_text {
  struct feature {
    std::string name;
    std::string policy; ///< force, require, optional, disable or forbid; empty in a host's CPU.

    bool operator==(const feature&) const = default;
  };
  std::string arch;   ///< Empty where there is none: a guest's CPU.
  bool of_guest = true;
  std::string match;  ///< exact, strict or minimum.
  std::string model;
  std::string vendor; ///< "Intel", "AMD", "Hygon", or empty.
  std::vector<feature> features;
};

/// Reads a host's `<cpu>` of capabilities, a guest's, or the host-model of domain capabilities as virsh passes it on.
/// `strict`: attributes and elements it should not have are refused. Errors: malformed_xml, bad_xml, bad_schema,
/// unsupported_config.
result<cpu_text> read_cpu(std::string_view xml, bool strict = false);

/// A guest's `<cpu>` that has exactly what `cpu` says. `fallback`: "allow" lets another model stand in.
std::string write_cpu(const cpu_text& cpu, std::string_view fallback);

/// libvirt's word for a vendor of CPUID, or empty.
std::string_view vendor_word(std::string_view cpuid);

/// Whether the model is somebody's CPU, so that it has a vendor that counts.
bool has_vendor(const cpu_definition& model);

/// Whether a guest with that feature cannot leave its host.
bool is_unmigratable(std::string_view feature);

/// How a CPU is told of: a host's has all that its model has; of a guest's model, features may be disabled.
enum class naming : std::uint8_t { of_host, of_guest };

/// The model that describes `cpu` with the fewest features beside it; one with the same numbers in CPUID comes first, and
/// one of another vendor not at all. Its `model` is empty when none fits.
cpu_text nearest_model(const cpu_definition& cpu, std::span<const cpu_definition> models, naming how);

/// The host's CPU as its kernel tells of it. `known`: features QEMU knows, sorted; others are left out.
/// Source of the flags: Linux's arch/x86/include/asm/cpufeatures.h.
cpu_definition cpu_from_flags(std::span<const std::string> flags, std::string vendor, std::span<const std::string> known);

/// As virCPUCompareResult counts.
enum class cpu_order : std::int32_t { incompatible = 0, identical = 1, superset = 2 };
struct cpu_comparison {
  cpu_order order = cpu_order::incompatible;
  std::string why; ///< When incompatible.
};

/// How `host` stands to a CPU that is wanted. Errors: internal, when the model or a feature is not known to `facts`.
result<cpu_comparison> compare_cpu(const cpu_definition& host, const cpu_text& wanted, const emulator_facts& facts);

struct baseline_options {
  bool expand = false;     ///< Name the model's own features, too.
  bool migratable = false; ///< Leave out what keeps a guest on its host.
  const cpu_definition* within = nullptr; ///< Nothing that this CPU lacks.
};

/// The most that all of these CPUs have. Errors: bad_xml (a CPU without model), internal (an unknown model or feature),
/// operation_failed (of different vendors).
result<cpu_text> baseline_cpu(std::span<const cpu_text> cpus, const emulator_facts& facts, const baseline_options& options);

} // namespace troupe
