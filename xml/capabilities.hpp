#pragma once

#include "runtime/error.hpp"
#include "xml/emulator_facts.hpp"
#include "xml/firmware.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// What of the host clients are told; gathered elsewhere.
struct host_facts {
  struct numa_cpu {
    unsigned id = 0, socket = 0, die = 0, core = 0;
    std::string siblings;   ///< "0-1"
  };
  struct numa_cell {
    unsigned id = 0;
    std::uint64_t memory_kib = 0;
    std::vector<numa_cpu> cpus;
    std::vector<unsigned> distances; ///< To cell 0, 1, ...; empty: unknown.
  };
  struct security_model {
    std::string model;  ///< "dac", "apparmor", "selinux", "none"
    std::string doi;
    std::string kvm_label, qemu_label; ///< What guests get without a label of their own; empty: not told.
  };
  std::string uuid;
  std::string arch = "x86_64";
  cpu_definition cpu;     ///< As CPUID tells it, without model and features.
  std::vector<std::string> cpu_flags; ///< As the kernel names them.
  std::uint64_t microcode = 0;        ///< 0: unknown.
  unsigned physical_bits = 0;         ///< Of addresses; 0: unknown.
  unsigned sockets = 1, dies = 1, cores = 1, threads = 1;
  std::vector<unsigned> page_kib{4};
  std::vector<std::string> suspend_modes; ///< "suspend_mem", "suspend_disk", "suspend_hybrid"
  bool iommu = false;
  std::vector<numa_cell> cells;
  std::vector<security_model> security;
};

/// The host's CPU, with those of its features that an emulator knows.
cpu_definition host_cpu(const host_facts& host, const emulator_facts& emulator);

/// The emulator that stands for the host: the one of its architecture, else any. Null: there is none.
const emulator_facts* main_emulator(std::span<const std::shared_ptr<const emulator_facts>> emulators, std::string_view arch);

/// What `virsh capabilities` prints.
std::string capabilities_xml(const host_facts& host, std::span<const std::shared_ptr<const emulator_facts>> emulators);

/// libvirt's name for an architecture of QEMU's; empty: neither knows it.
std::string_view libvirt_arch(std::string_view qemu);

/// The emulator for guests of an architecture, in libvirt's words. Null: there is none.
std::shared_ptr<const emulator_facts> emulator_for(std::span<const std::shared_ptr<const emulator_facts>> emulators, std::string_view arch);

/// Whether it is a model's name as libvirt lists it: not one of QEMU's versions of a model, nor a stand-in as "max".
bool is_plain_model(std::string_view name);

/// The accelerator meant by a virt type, which may be empty: kvm where it works. Errors: bad_argument.
enum class accelerator : std::uint8_t { tcg, kvm };
result<accelerator> accelerator_for(const emulator_facts& facts, std::string_view virt_type);

/// The CPU that a guest with mode host-model gets; null where QEMU can't tell.
const cpu_definition* most_cpu(const emulator_facts& facts, accelerator under);

/// What of one emulator, machine and accelerator `virsh domcapabilities` prints. `machine` and `virt_type` may be empty: the
/// emulator's default, and kvm where it works. Errors: bad_argument, when the emulator has no such machine or accelerator.
result<std::string> domain_capabilities_xml(const emulator_facts& facts, std::string_view machine, std::string_view virt_type,
                                            const host_firmware& firmware = {});

} // namespace troupe
