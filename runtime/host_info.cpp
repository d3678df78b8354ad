#include "runtime/host_info.hpp"

#include "runtime/read_file.hpp"
#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <sys/utsname.h>
#include <tuple>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr unsigned most_cpus = 1 << 16; // more is no list of CPUs

/// A small file of the kernel's, without its last newline. Errors: system.
result<std::string> contents_of_file(const std::string& path) {
  auto text = read_file(path, 1 << 20);
  if (text && text->ends_with('\n'))
    text->pop_back();
  return text;
}

std::string text_or_nothing(const std::string& path) {
  return contents_of_file(path).value_or(std::string{});
}

/// The number that `text` begins with, after blanks.
template <class Number>
std::optional<Number> leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  Number number{};
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc{})
    return std::nullopt;
  return number;
}

unsigned number_in(const std::string& path) {
  return leading_number<unsigned>(text_or_nothing(path)).value_or(0); // -1, too, means that it is not known
}

/// Of "0-3,7": 0, 1, 2, 3, 7. None: it is no such list.
std::optional<std::vector<unsigned>> read_list(std::string_view text) {
  std::vector<unsigned> numbers;
  while (!text.empty()) {
    const auto part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const auto dash = part.find('-');
    const auto first = leading_number<unsigned>(part);
    const auto last = dash == std::string_view::npos ? first : leading_number<unsigned>(part.substr(dash + 1));
    if (!first || !last || *last < *first || *last >= most_cpus)
      return std::nullopt;
    for (auto number = *first; number <= *last; ++number)
      numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

/// The number after `key` in a file of "KEY: NUMBER kB" lines.
std::optional<std::uint64_t> find_kib(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  return at == std::string_view::npos ? std::nullopt : leading_number<std::uint64_t>(text.substr(at + key.size()));
}

result<std::uint64_t> memory_kib(const std::string& root, std::string_view key) {
  const auto path = root + "/proc/meminfo";
  const auto text = contents_of_file(path);
  if (!text)
    return tl::make_unexpected(text.error());
  const auto kib = find_kib(*text, key);
  if (!kib)
    return fail(errc::system, fmt::format("'{}' says nothing of {}", path, key.substr(0, key.size() - 1)));
  return *kib;
}

/// The first CPU's section of /proc/cpuinfo. Keys differ between architectures.
void read_cpuinfo(host_info& info, const std::string& text) {
  std::istringstream lines{text.substr(0, text.find("\n\n"))};
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos)
      continue;
    const auto key = line.substr(0, line.find_last_not_of(" \t", colon - (colon > 0)) + 1);
    const auto value = line.substr(std::min(line.find_first_not_of(" \t", colon + 1), line.size()));
    const auto number = leading_number<int>(value).value_or(-1);
    if (key == "vendor_id")
      info.cpu_vendor = value;
    else if (key == "model name")
      info.cpu_model_name = value;
    else if (key == "cpu family")
      info.cpu_family = number;
    else if (key == "model")
      info.cpu_model = number;
    else if (key == "stepping")
      info.cpu_stepping = number;
    else if (key == "microcode")
      info.microcode = std::strtoull(value.c_str(), nullptr, 0); // "0x1000065"
    else if (key == "address sizes") // "48 bits physical, 48 bits virtual"
      info.physical_bits = leading_number<unsigned>(value).value_or(0);
    else if (key == "cpu MHz")
      info.mhz = leading_number<unsigned>(value).value_or(0);
    else if (key == "flags" || key == "Features") {
      std::istringstream words{value};
      for (std::string flag; words >> flag;)
        info.cpu_flags.push_back(flag);
    }
  }
}

/// In the form of a UUID, in lower case; empty when there are not 32 hexadecimal digits.
std::string as_uuid(std::string_view text) {
  std::string uuid;
  for (const char c : text) {
    if (c == '-')
      continue;
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0 || uuid.size() >= 36)
      return {};
    if (uuid.size() == 8 || uuid.size() == 13 || uuid.size() == 18 || uuid.size() == 23)
      uuid += '-';
    uuid += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return uuid.size() == 36 ? uuid : std::string{};
}

std::string host_uuid(const std::string& root) {
  const auto firmware = as_uuid(text_or_nothing(root + "/sys/class/dmi/id/product_uuid"));
  const auto same = [&firmware](char c) { return c == '-' || c == firmware.front(); };
  if (!firmware.empty() && !std::all_of(firmware.begin(), firmware.end(), same)) // else its maker gave it none
    return firmware;
  return as_uuid(text_or_nothing(root + "/etc/machine-id"));
}

host_info::cpu read_cpu(const std::string& cpus, unsigned id) {
  const auto topology = fmt::format("{}/cpu{}/topology/", cpus, id);
  host_info::cpu cpu{id, number_in(topology + "physical_package_id"), number_in(topology + "die_id"),
                     number_in(topology + "core_id"), text_or_nothing(topology + "thread_siblings_list")};
  if (cpu.siblings.empty())
    cpu.siblings = std::to_string(id);
  return cpu;
}

std::vector<host_info::cell> read_cells(const std::string& root, const host_info& info) {
  const auto nodes = root + "/sys/devices/system/node";
  const auto cpus = root + "/sys/devices/system/cpu";
  std::vector<host_info::cell> cells;
  for (const auto id : read_list(text_or_nothing(nodes + "/online")).value_or(std::vector<unsigned>{})) {
    const auto node = fmt::format("{}/node{}/", nodes, id);
    auto& cell = cells.emplace_back();
    cell.id = id;
    cell.memory_kib = find_kib(text_or_nothing(node + "meminfo"), "MemTotal:").value_or(0);
    for (const auto cpu : read_list(text_or_nothing(node + "cpulist")).value_or(std::vector<unsigned>{}))
      if (std::binary_search(info.online.begin(), info.online.end(), cpu))
        cell.cpus.push_back(read_cpu(cpus, cpu));
    std::istringstream distances{text_or_nothing(node + "distance")};
    for (unsigned distance = 0; distances >> distance;)
      cell.distances.push_back(distance);
  }
  if (!cells.empty())
    return cells;
  auto& all = cells.emplace_back(); // without NUMA
  all.memory_kib = info.memory_kib;
  for (const auto cpu : info.online)
    all.cpus.push_back(read_cpu(cpus, cpu));
  return cells;
}

/// Counts nodes, sockets, dies, cores and threads.
void count_layout(host_info& info, std::size_t all) {
  using key = std::tuple<unsigned, unsigned, unsigned, unsigned>; // node, socket, die, core
  std::map<key, std::size_t> threads;
  std::map<std::pair<unsigned, unsigned>, std::set<std::pair<unsigned, unsigned>>> cores; // by node and socket
  std::map<unsigned, std::set<unsigned>> sockets, dies_of_socket;
  for (const auto& cell : info.cells)
    for (const auto& cpu : cell.cpus) {
      ++threads[{cell.id, cpu.socket, cpu.die, cpu.core}];
      cores[{cell.id, cpu.socket}].emplace(cpu.die, cpu.core);
      sockets[cell.id].insert(cpu.socket);
      dies_of_socket[cpu.socket].insert(cpu.die);
    }
  const auto most = [](const auto& counted, auto size) {
    std::size_t largest = 1;
    for (const auto& [where, what] : counted)
      largest = std::max<std::size_t>(largest, size(what));
    return static_cast<unsigned>(largest);
  };
  const auto size = [](const auto& set) { return set.size(); };
  info.nodes = static_cast<unsigned>(info.cells.size());
  info.sockets = most(sockets, size);
  info.cores = most(cores, size);
  info.threads = most(threads, [](std::size_t count) { return count; });
  info.dies = most(dies_of_socket, size);
  if (std::size_t{info.nodes} * info.sockets * info.cores * info.threads != all) {
    info.nodes = info.sockets = info.threads = 1;
    info.cores = static_cast<unsigned>(all);
  }
}

std::vector<unsigned> read_page_sizes(const std::string& root) {
  std::vector<unsigned> sizes;
  std::error_code ignored;
  constexpr std::string_view prefix = "hugepages-";
  for (std::filesystem::directory_iterator entry{root + "/sys/kernel/mm/hugepages", ignored}, end; entry != end;
       entry.increment(ignored)) {
    const auto name = entry->path().filename().string();
    if (name.starts_with(prefix))
      if (const auto kib = leading_number<unsigned>(std::string_view{name}.substr(prefix.size())))
        sizes.push_back(*kib);
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.insert(sizes.begin(), static_cast<unsigned>(::sysconf(_SC_PAGESIZE) / 1024));
  return sizes;
}

/// The CPU list in a file. Errors: system.
result<std::vector<unsigned>> read_cpu_list(const std::string& path) {
  const auto text = contents_of_file(path);
  if (!text)
    return tl::make_unexpected(text.error());
  auto list = read_list(*text);
  if (!list || list->empty())
    return fail(errc::system, fmt::format("'{}' is no list of CPUs: '{}'", path, *text));
  return std::move(*list);
}

} // namespace

std::string host_info::cpu_map() const {
  std::string map((cpus_present + 7) / 8, '\0');
  for (const auto id : online)
    if (id / 8 < map.size())
      map[id / 8] = static_cast<char>(map[id / 8] | (1 << id % 8));
  return map;
}

result<host_info> read_host_info(const std::string& root) {
  host_info info;
  utsname name{};
  ::uname(&name);
  info.arch = name.machine;
  info.kernel = name.release;
  info.boot_id = text_or_nothing(root + "/proc/sys/kernel/random/boot_id");
  info.hostname = text_or_nothing(root + "/proc/sys/kernel/hostname");
  if (info.hostname.empty())
    info.hostname = name.nodename;
  info.uuid = host_uuid(root);
  read_cpuinfo(info, text_or_nothing(root + "/proc/cpuinfo"));

  const auto cpus = root + "/sys/devices/system/cpu";
  auto online = read_cpu_list(cpus + "/online");
  if (!online)
    return tl::make_unexpected(std::move(online.error()));
  info.online = std::move(*online);
  const auto present = read_cpu_list(cpus + "/present").value_or(info.online);
  info.cpus_present = std::max(present.back(), info.online.back()) + 1;
  const auto possible = read_cpu_list(cpus + "/possible").value_or(present);
  info.cpus_possible = std::max(possible.back() + 1, info.cpus_present);

  const auto memory = memory_kib(root, "MemTotal:");
  if (!memory)
    return tl::make_unexpected(memory.error());
  info.memory_kib = *memory;
  info.page_kib = read_page_sizes(root);
  info.cells = read_cells(root, info);
  count_layout(info, std::max(present.size(), info.online.size()));
  return info;
}

result<std::uint64_t> free_memory_bytes(const std::string& root) {
  return memory_kib(root, "MemFree:").map([](std::uint64_t kib) { return kib * 1024; });
}

namespace {

/// Where sysfs tells of that node; empty on a host without NUMA. Errors: bad_argument.
result<std::string> folder_of_cell(const host_info& info, unsigned cell, const std::string& root) {
  if (std::ranges::find(info.cells, cell, &host_info::cell::id) == info.cells.end())
    return fail(errc::bad_argument, fmt::format("there is no NUMA cell {}: the host has {}", cell, info.cells.size()));
  auto folder = fmt::format("{}/sys/devices/system/node/node{}", root, cell);
  std::error_code ignored;
  return std::filesystem::exists(folder, ignored) ? folder : std::string{};
}

} // namespace

result<std::uint64_t> free_memory_bytes_of(const host_info& info, unsigned cell, const std::string& root) {
  const auto folder = folder_of_cell(info, cell, root);
  if (!folder)
    return tl::make_unexpected(folder.error());
  if (folder->empty())
    return free_memory_bytes(root);
  const auto kib = find_kib(text_or_nothing(*folder + "/meminfo"), "MemFree:");
  if (!kib)
    return fail(errc::system, fmt::format("'{}/meminfo' says nothing of MemFree", *folder));
  return *kib * 1024;
}

result<std::uint64_t> free_pages_of(const host_info& info, unsigned kib, int cell, const std::string& root) {
  if (std::ranges::find(info.page_kib, kib) == info.page_kib.end())
    return fail(errc::operation_failed, fmt::format("page size {} is not available on node {}: the host has {} KiB", kib, cell,
                                                    fmt::join(info.page_kib, ", ")));
  if (kib == info.page_kib.front()) {
    const auto bytes = cell < 0 ? free_memory_bytes(root) : free_memory_bytes_of(info, static_cast<unsigned>(cell), root);
    return bytes ? result<std::uint64_t>{*bytes / 1024 / kib} : bytes;
  }
  const auto folder = cell < 0 ? result<std::string>{std::string{}} : folder_of_cell(info, static_cast<unsigned>(cell), root);
  if (!folder)
    return tl::make_unexpected(folder.error());
  const auto path = fmt::format("{}/hugepages/hugepages-{}kB/free_hugepages",
                                folder->empty() ? root + "/sys/kernel/mm" : *folder, kib);
  const auto count = leading_number<std::uint64_t>(text_or_nothing(path));
  return count ? result<std::uint64_t>{*count} : fail(errc::system, fmt::format("'{}' has no number", path));
}

result<process_usage> usage_of(pid_t pid) {
  const auto path = fmt::format("/proc/{}/stat", pid);
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  char buffer[2048];
  const auto size = file ? ::read(file.get(), buffer, sizeof buffer) : -1;
  if (size < 0) {
    if (errno == ENOENT || errno == ESRCH)
      return fail(errc::qemu_gone, fmt::format("there is no process {}", pid));
    return fail(errc::system, fmt::format("cannot read '{}': {}", path, std::strerror(errno)));
  }
  const std::string_view text{buffer, static_cast<std::size_t>(size)};
  // Source: proc(5). The second field is a name in parentheses, which may contain anything; the third follows.
  std::istringstream fields{std::string{text.substr(std::min(text.rfind(')') + 1, text.size()))}};
  std::string skipped;
  std::uint64_t user_ticks = 0, system_ticks = 0, rss_pages = 0;
  for (int field = 3; field < 14; ++field)
    fields >> skipped;
  fields >> user_ticks >> system_ticks; // 14 and 15
  for (int field = 16; field < 24; ++field)
    fields >> skipped;
  fields >> rss_pages; // 24
  if (!fields)
    return fail(errc::system, fmt::format("'{}' is not as proc(5) says", path));
  const auto tick_ns = 1'000'000'000u / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return process_usage{user_ticks * tick_ns, system_ticks * tick_ns,
                       rss_pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 1024};
}

} // namespace troupe
