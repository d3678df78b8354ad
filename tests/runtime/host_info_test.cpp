#include "runtime/host_info.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <csignal>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace troupe {
namespace {

using Catch::Matchers::Contains;

/// A machine made up: the files of /proc, /sys and /etc that tell about it.
struct machine {
  temp_dir root;

  void put(const std::string& path, std::string_view text) {
    const auto full = root / path;
    std::filesystem::create_directories(std::filesystem::path{full}.parent_path());
    write_file(full, text);
  }

  void put_cpu(unsigned id, unsigned socket, unsigned die, unsigned core, const std::string& siblings) {
    const auto topology = "sys/devices/system/cpu/cpu" + std::to_string(id) + "/topology/";
    put(topology + "physical_package_id", std::to_string(socket) + "\n");
    put(topology + "die_id", std::to_string(die) + "\n");
    put(topology + "core_id", std::to_string(core) + "\n");
    put(topology + "thread_siblings_list", siblings + "\n");
  }

  machine() {
    put("proc/meminfo", "MemTotal:        1000 kB\nMemFree:           77 kB\nCached: 5 kB\n");
    put("sys/devices/system/cpu/online", "0\n");
  }

  host_info read() const {
    auto info = read_host_info(root.path());
    if (!info)
      FAIL(info.error().message());
    return std::move(*info);
  }
};

} // namespace

TEST_CASE("host info: a machine with NUMA is read whole", "[runtime]") {
  machine m;
  m.put("proc/sys/kernel/random/boot_id", "b-o-o-t\n");
  m.put("proc/sys/kernel/hostname", "node7\n");
  m.put("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8052-B9C04F4E4D32\n");
  m.put("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
                        "model name\t: Some CPU @ 2.00GHz: fast\nstepping\t: 7\nmicrocode\t: 0x5003006\ncpu MHz\t\t: 2100.537\n"
                        "address sizes\t: 46 bits physical, 48 bits virtual\n"
                        "flags\t\t: fpu vme  sse2\nbugs:\n\nprocessor\t: 1\nmodel name\t: other\n");
  m.put("sys/devices/system/cpu/online", "0-7\n");
  m.put("sys/devices/system/cpu/present", "0-7\n");
  m.put("sys/devices/system/cpu/possible", "0-15\n");
  m.put("sys/devices/system/node/online", "0-1\n");
  for (unsigned id = 0; id < 8; ++id) // two nodes, a socket each, two cores with two threads
    m.put_cpu(id, id / 4, 0, id / 2 % 2,
              id % 2 == 0 ? std::to_string(id) + "-" + std::to_string(id + 1)
                          : std::to_string(id - 1) + "-" + std::to_string(id));
  m.put("sys/devices/system/node/node0/cpulist", "0-3\n");
  m.put("sys/devices/system/node/node1/cpulist", "4-7\n");
  m.put("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       600 kB\nNode 0 MemFree: 1 kB\n");
  m.put("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:       400 kB\n");
  m.put("sys/devices/system/node/node0/distance", "10 21\n");
  m.put("sys/devices/system/node/node1/distance", "21 10\n");
  m.put("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
  m.put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
  const auto info = m.read();
  CHECK(info.boot_id == "b-o-o-t");
  CHECK(info.hostname == "node7");
  CHECK(info.uuid == "4c4c4544-0042-3510-8052-b9c04f4e4d32");
  CHECK(info.cpu_vendor == "GenuineIntel");
  CHECK(info.cpu_model_name == "Some CPU @ 2.00GHz: fast");
  CHECK(info.cpu_family == 6);
  CHECK(info.cpu_model == 85);
  CHECK(info.cpu_stepping == 7);
  CHECK(info.mhz == 2100);
  CHECK(info.microcode == 0x5003006);
  CHECK(info.physical_bits == 46);
  CHECK(info.cpu_flags == std::vector<std::string>{"fpu", "vme", "sse2"});
  CHECK(info.online == std::vector<unsigned>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(info.cpus_present == 8);
  CHECK(info.cpus_possible == 16);
  CHECK(info.nodes == 2);
  CHECK(info.sockets == 1);
  CHECK(info.cores == 2);
  CHECK(info.threads == 2);
  CHECK(info.dies == 1);
  CHECK(info.memory_kib == 1000);
  CHECK(std::vector<unsigned>(info.page_kib.begin() + 1, info.page_kib.end()) == std::vector<unsigned>{2048, 1048576});
  REQUIRE(info.cells.size() == 2);
  CHECK(info.cells[1].id == 1);
  CHECK(info.cells[1].memory_kib == 400);
  CHECK(info.cells[1].distances == std::vector<unsigned>{21, 10});
  REQUIRE(info.cells[1].cpus.size() == 4);
  CHECK(info.cells[1].cpus[3].id == 7);
  CHECK(info.cells[1].cpus[3].socket == 1);
  CHECK(info.cells[1].cpus[3].core == 1);
  CHECK(info.cells[1].cpus[3].siblings == "6-7");
  CHECK(info.cpu_map() == "\xff");

  // Memory and pages that nobody uses, by node.
  m.put("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 40 kB\n");
  m.put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "3\n");
  m.put("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0\n");
  m.put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n");
  const auto& root = m.root.path();
  CHECK(free_memory_bytes_of(info, 0, root) == 1024u);
  CHECK(free_memory_bytes_of(info, 1, root).error().code == errc::system); // that node's file does not say
  CHECK(free_memory_bytes_of(info, 2, root).error().code == errc::bad_argument);
  CHECK(free_pages_of(info, 2048, -1, root) == 3u);
  CHECK(free_pages_of(info, 2048, 0, root) == 3u);
  CHECK(free_pages_of(info, 2048, 1, root) == 0u);
  CHECK(free_pages_of(info, info.page_kib[0], -1, root) == 40 / info.page_kib[0]);
  CHECK(free_pages_of(info, 2048, 2, root).error().code == errc::bad_argument);
  CHECK(free_pages_of(info, 5, 0, root).error().code == errc::operation_failed);
}

TEST_CASE("host info: without NUMA, firmware or /proc/cpuinfo there is one cell and no guesses", "[runtime]") {
  machine m;
  m.put("sys/devices/system/cpu/online", "0,2-3\n");
  m.put("sys/devices/system/cpu/present", "0-9\n");
  m.put("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n");
  const auto info = m.read();
  utsname name{};
  ::uname(&name);
  CHECK(info.arch == name.machine);
  CHECK(info.hostname == name.nodename);
  CHECK(info.uuid == "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4");
  CHECK(info.cpu_vendor.empty());
  CHECK(info.cpu_family == -1);
  CHECK(info.mhz == 0);
  REQUIRE(info.cells.size() == 1);
  CHECK(info.cells[0].memory_kib == 1000);
  REQUIRE(info.cells[0].cpus.size() == 3);
  CHECK(info.cells[0].cpus[1].id == 2);
  CHECK(info.cells[0].cpus[1].siblings == "2");
  CHECK(info.cpus_present == 10);
  CHECK(info.cpus_possible == 10);
  CHECK(info.cpu_map() == std::string("\x0d\0", 2));
  CHECK(info.nodes * info.sockets * info.cores * info.threads == 10); // laid out unevenly
  CHECK(info.cores == 10);
}

TEST_CASE("host info: cores of all dies count, and a number of the firmware's that is none is not taken", "[runtime]") {
  machine m;
  m.put("sys/class/dmi/id/product_uuid", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n");
  m.put("sys/devices/system/cpu/online", "0-7\n");
  for (unsigned id = 0; id < 8; ++id) // two sockets with two dies with two cores, numbered alike in each die
    m.put_cpu(id, id / 4, id / 2 % 2, id % 2, std::to_string(id));
  const auto info = m.read();
  CHECK(info.uuid.empty());
  CHECK(info.sockets == 2);
  CHECK(info.dies == 2);
  CHECK(info.cores == 4);
  CHECK(info.threads == 1);
}

TEST_CASE("host info: when memory or CPUs cannot be told the file is named", "[runtime]") {
  const char* const bad[] = {"", "x", "3-1", "0-", "0-99999999", "-1"};
  for (const auto* list : bad) {
    machine m;
    m.put("sys/devices/system/cpu/online", list);
    const auto info = read_host_info(m.root.path());
    REQUIRE_FALSE(info);
    CHECK(info.error().code == errc::system);
    CHECK_THAT(info.error().detail, Contains(m.root / "sys/devices/system/cpu/online"));
  }
  machine m;
  m.put("proc/meminfo", "MemFree: 3 kB\n");
  CHECK_THAT(read_host_info(m.root.path()).error().detail, Contains(m.root / "proc/meminfo") && Contains("MemTotal"));
  CHECK(free_memory_bytes(m.root.path()) == 3 * 1024);
  std::filesystem::remove(m.root / "proc/meminfo");
  CHECK_THAT(read_host_info(m.root.path()).error().detail, Contains(m.root / "proc/meminfo"));
  CHECK_THAT(free_memory_bytes(m.root.path()).error().detail, Contains(m.root / "proc/meminfo"));
}

TEST_CASE("host info: this machine is told as the C library sees it", "[runtime]") {
  const auto info = read_host_info();
  REQUIRE(info);
  CHECK(info->online.size() == static_cast<std::size_t>(::sysconf(_SC_NPROCESSORS_ONLN)));
  CHECK(info->page_kib.front() == static_cast<unsigned>(::sysconf(_SC_PAGESIZE) / 1024));
  CHECK(info->memory_kib == static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                              static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 1024);
  CHECK(info->boot_id.size() == 36);
  CHECK_FALSE(info->cells.empty());
  std::size_t in_cells = 0;
  for (const auto& cell : info->cells)
    in_cells += cell.cpus.size();
  CHECK(in_cells == info->online.size());
  const auto free = free_memory_bytes();
  REQUIRE(free);
  CHECK(*free > 0);
  CHECK(*free < info->memory_kib * 1024);
}

TEST_CASE("host info: what a process used is told, of all its threads, and that it is gone", "[runtime]") {
  const auto before = usage_of(::getpid());
  REQUIRE(before);
  CHECK(before->rss_kib > 100);
  std::thread{[&] {
    volatile unsigned counter = 0;
    for (auto now = before; now && now->user_ns < before->user_ns + 30'000'000; now = usage_of(::getpid()))
      for (int i = 0; i < 1'000'000; ++i)
        counter = counter + 1;
  }}.join(); // ends when the work is seen
  CHECK(usage_of(::getpid())->user_ns >= before->user_ns + 30'000'000);
  const pid_t child = ::fork();
  if (child == 0)
    ::_exit(0);
  ::waitpid(child, nullptr, 0);
  const auto gone = usage_of(child);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == errc::qemu_gone);
  CHECK_THAT(gone.error().detail, Contains(std::to_string(child)));
}

} // namespace troupe
