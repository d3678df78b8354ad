#pragma once

#include "runtime/error.hpp"

#include <compare>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct emulator_version {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::uint32_t micro = 0;
  std::string package;  ///< The packager's own version, may be empty.

  bool operator==(const emulator_version&) const = default;
};

/// One machine type. Source: qapi/machine.json MachineInfo.
struct machine_facts {
  std::string name;   ///< Canonical: "pc-q35-7.2".
  std::string alias;  ///< "q35", or empty.
  std::uint32_t max_cpus = 0;
  bool is_default = false;
  bool deprecated = false;
  bool hotpluggable_cpus = false;
  bool numa_mem = false;         ///< -numa node,mem= is understood.
  std::string default_ram_id;    ///< The memory backend's id, or empty.
  std::string default_cpu_type;  ///< A QOM type, or empty.

  bool operator==(const machine_facts&) const = default;
};

/// One CPU model under one accelerator. Source: qapi/machine-target.json CpuDefinitionInfo.
struct cpu_model_facts {
  std::string name;
  /// What the host or accelerator lacks to run it: empty means usable. None: QEMU can't tell.
  std::optional<std::vector<std::string>> unavailable_features;
  bool deprecated = false;

  bool usable() const { return unavailable_features && unavailable_features->empty(); }
  bool operator==(const cpu_model_facts&) const = default;
};

/// A CPU with all it has. Features are under libvirt's names. Source: query-cpu-model-expansion.
struct cpu_definition {
  std::string name;    ///< Of its model.
  std::string vendor;  ///< As CPUID has it, "GenuineIntel"; or empty.
  int family = -1, model = -1, stepping = -1; ///< -1: unknown.
  std::vector<std::string> features; ///< Sorted.

  bool operator==(const cpu_definition&) const = default;
};

/// Encrypted guests. Source: qapi/misc-target.json SevCapability.
struct sev_facts {
  std::uint32_t cbitpos = 0, reduced_phys_bits = 0;
  bool operator==(const sev_facts&) const = default;
};

/// Enclaves. Source: qapi/misc-target.json SGXInfo.
struct sgx_facts {
  bool sgx1 = false, sgx2 = false, flc = false;
  std::vector<std::uint64_t> section_bytes; ///< Of its memory, by host NUMA node.
  bool operator==(const sgx_facts&) const = default;
};

/// What one QEMU binary can do on this host.
struct emulator_facts {
  std::string binary;  ///< Absolute path.
  std::string arch;    ///< QEMU's name: "x86_64".
  emulator_version version;
  bool tcg_usable = false;
  bool kvm_usable = false;
  std::string why_no_kvm;  ///< For people; empty when KVM is usable.
  std::vector<machine_facts> machines;     ///< In QEMU's order.
  std::vector<cpu_model_facts> tcg_cpus;   ///< In QEMU's order; empty when TCG is not usable.
  std::vector<cpu_model_facts> kvm_cpus;   ///< The same for KVM.
  std::vector<std::string> device_types;   ///< Sorted.
  std::vector<cpu_definition> cpu_models;  ///< Those told by their features, whatever this host has of them; PCs only.
  std::vector<std::string> cpu_features;   ///< All that QEMU knows, sorted; empty where models are not told by features.
  std::optional<cpu_definition> tcg_cpu, kvm_cpu; ///< The most a guest gets, also of what keeps it on this host.
  std::optional<sev_facts> sev;            ///< None: KVM gives guests none.
  std::optional<sgx_facts> sgx;            ///< The same.
  std::vector<std::uint32_t> gic_versions;      ///< Of ARM's interrupt controller under the best accelerator, ascending.

  bool operator==(const emulator_facts&) const = default;
};

/// The machine of that name or alias, or null.
const machine_facts* find_machine(const emulator_facts& facts, std::string_view name);

/// The machine QEMU takes when none is named, or null.
const machine_facts* default_machine(const emulator_facts& facts);

/// The model of that name, or null.
const cpu_definition* find_cpu_model(const emulator_facts& facts, std::string_view name);

/// The name that libvirt has for a CPU feature of QEMU's, and back.
std::string libvirt_feature(std::string_view qemu_name);
std::string qemu_feature(std::string_view libvirt_name);

bool has_device(const emulator_facts& facts, std::string_view type);

/// Facts from what a QEMU said under TCG and another one under KVM: objects from QMP command to "return" value, null for the one
/// that would not start. `why_no_kvm`: what the KVM one said when it would not. Errors: internal, naming what is missing.
result<emulator_facts> facts_from_answers(std::string binary, const nlohmann::json& tcg, const nlohmann::json& kvm,
                                          std::string why_no_kvm);

/// For the cache on disk.
std::string to_json_text(const emulator_facts& facts);

/// Reads what `to_json_text` wrote, up to 16 MiB. Errors: internal, when the text is damaged or of another format version: probe anew.
result<emulator_facts> emulator_facts_from(std::string_view json_text);

} // namespace troupe
