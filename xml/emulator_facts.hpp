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

  bool operator==(const emulator_facts&) const = default;
};

/// The machine of that name or alias, or null.
const machine_facts* find_machine(const emulator_facts& facts, std::string_view name);

/// The machine QEMU takes when none is named, or null.
const machine_facts* default_machine(const emulator_facts& facts);

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
