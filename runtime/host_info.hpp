#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

namespace troupe {

/// What of a host does not change while it is up, hot-plugging aside.
struct host_info {
  struct cpu {
    unsigned id = 0, socket = 0, die = 0, core = 0;
    std::string siblings; ///< The threads of its core, with itself: "0-1".
  };
  struct cell {
    unsigned id = 0;
    std::uint64_t memory_kib = 0;
    std::vector<cpu> cpus;           ///< Those online.
    std::vector<unsigned> distances; ///< To cell 0, 1, ...; empty: unknown.
  };

  std::string boot_id;  ///< Source: /proc/sys/kernel/random/boot_id.
  std::string hostname;
  std::string arch;     ///< As uname(2) has it.
  std::string uuid;     ///< The firmware's, else one made of /etc/machine-id; empty: there is neither.
  std::string kernel;   ///< Release, as uname(2) has it.

  std::string cpu_vendor, cpu_model_name; ///< Empty where /proc/cpuinfo has none.
  int cpu_family = -1, cpu_model = -1, cpu_stepping = -1;
  std::vector<std::string> cpu_flags;
  std::uint64_t microcode = 0;    ///< Its revision; 0: unknown.
  unsigned physical_bits = 0;     ///< Of addresses; 0: unknown.
  unsigned mhz = 0; ///< Of the first CPU as it was read; 0: unknown.

  std::vector<unsigned> online; ///< CPU numbers, ascending.
  unsigned cpus_present = 0;    ///< One more than the highest number of a CPU that is there, online or not.
  unsigned cpus_possible = 0;
  /// As virNodeGetInfo counts: nodes * sockets (in a node) * cores (in a socket) * threads is all CPUs that are there.
  /// Where they are not laid out evenly it is 1 * 1 * all * 1.
  unsigned nodes = 1, sockets = 1, cores = 1, threads = 1;
  unsigned dies = 1; ///< In a socket; `cores` counts those of all its dies.

  std::uint64_t memory_kib = 0;
  std::vector<unsigned> page_kib; ///< Ascending; the first is the base page's.
  std::vector<cell> cells;        ///< At least one, also without NUMA.

  /// A bit for each of `cpus_present`, set when online; the first CPU is the lowest bit of the first byte.
  std::string cpu_map() const;
};

/// Reads /proc, /sys and /etc below `root`. Errors: system, naming the file, when memory or CPUs cannot be told.
result<host_info> read_host_info(const std::string& root = "");

/// Memory nobody uses, in bytes; caches count as used. Source: MemFree, as virNodeGetFreeMemory.
result<std::uint64_t> free_memory_bytes(const std::string& root = "");

/// The same of one NUMA node. Errors: bad_argument, when there is no such node.
result<std::uint64_t> free_memory_bytes_of(const host_info& info, unsigned cell, const std::string& root = "");

/// Pages of `kib` KiB nobody uses, of one NUMA node or, with -1, of all. The kernel counts base pages as it does memory.
/// Errors: operation_failed, when the host has no pages of that size; bad_argument, when there is no such node.
result<std::uint64_t> free_pages_of(const host_info& info, unsigned kib, int cell, const std::string& root = "");

/// What a process used so far.
struct process_usage {
  std::uint64_t user_ns = 0, system_ns = 0; ///< CPU time of all its threads.
  std::uint64_t rss_kib = 0;
};

/// Any thread, does not block. Errors: qemu_gone (no such process), system.
result<process_usage> usage_of(pid_t pid);

} // namespace troupe
