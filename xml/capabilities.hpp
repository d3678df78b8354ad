#pragma once

#include "runtime/error.hpp"
#include "xml/emulator_facts.hpp"

#include <cstdint>
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
  std::string cpu_model;  ///< Empty: unknown.
  std::string cpu_vendor;
  std::vector<std::string> cpu_features;
  unsigned sockets = 1, dies = 1, cores = 1, threads = 1;
  std::vector<unsigned> page_kib{4};
  std::vector<std::string> suspend_modes; ///< "suspend_mem", "suspend_disk", "suspend_hybrid"
  bool iommu = false;
  std::vector<numa_cell> cells;
  std::vector<security_model> security;
};

/// What `virsh capabilities` prints.
std::string capabilities_xml(const host_facts& host, std::span<const emulator_facts> emulators);

/// What of one emulator, machine and accelerator `virsh domcapabilities` prints. `machine` and `virt_type` may be empty: the
/// emulator's default, and kvm where it works. `firmware`: loaders for pflash present on this host.
/// Errors: bad_argument, when the emulator has no such machine or accelerator.
result<std::string> domain_capabilities_xml(const emulator_facts& facts, std::string_view machine, std::string_view virt_type,
                                            std::span<const std::string> firmware = {});

} // namespace troupe
