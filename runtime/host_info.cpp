#include "runtime/host_info.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <sys/utsname.h>
#include <tuple>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

/// The start of a small file, without white space at its end; none: it cannot be read.
std::optional<std::string> text_of(const std::string& path, std::size_t most = 1u << 20) {
  const unique_fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd)
    return std::nullopt;
  std::string text;
  std::array<char, 16384> buffer;
  while (text.size() < most) {
    const auto got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return std::nullopt;
    if (got == 0)
      break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  text.erase(text.find_last_not_of(" \t\r\n") + 1); // npos + 1 is 0
  return text;
}

std::string text_or_empty(const std::string& path) {
  return text_of(path).value_or("");
}

template <class Number>
std::optional<Number> number_in(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (ec != std::errc{} || end == text.data())
    return std::nullopt;
  return number;
}

unsigned number_at(const std::string& path, unsigned otherwise) {
  return number_in<unsigned>(text_or_empty(path)).value_or(otherwise);
}

/// "0-2,5" as numbers, ascending. Source: the kernel's cpulist format.
std::vector<unsigned> numbers_of_list(std::string_view list) {
  constexpr unsigned most = 65536; // far beyond any kernel's NR_CPUS
  std::set<unsigned> numbers;
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    const auto part = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    const auto dash = part.find('-');
    const auto first = number_in<unsigned>(part.substr(0, dash));
    const auto last = dash == part.npos ? first : number_in<unsigned>(part.substr(dash + 1));
    if (first && last)
      for (auto at = *first; at <= std::min(*last, most); ++at)
        numbers.insert(at);
  }
  return {numbers.begin(), numbers.end()};
}

/// The numbers N for which `dir` has an entry PREFIXN, ascending.
std::vector<unsigned> numbered_entries(const std::string& dir, std::string_view prefix) {
  std::vector<unsigned> numbers;
  const std::unique_ptr<DIR, int (*)(DIR*)> open{::opendir(dir.c_str()), ::closedir};
  while (const auto* entry = open ? ::readdir(open.get()) : nullptr) {
    const std::string_view name{entry->d_name};
    if (!name.starts_with(prefix))
      continue;
    const auto digits = name.substr(prefix.size());
    if (!digits.empty() && std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; }))
      if (const auto number = number_in<unsigned>(digits))
        numbers.push_back(*number);
  }
  std::ranges::sort(numbers);
  return numbers;
}

/// The value of "NAME : value" in a file of such lines, its first occurrence.
std::string field_of(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto colon = line.find(':');
    if (colon == line.npos)
      continue;
    const auto key_end = line.substr(0, colon).find_last_not_of(" \t");
    if (line.substr(0, key_end + 1) != name)
      continue;
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == line.npos ? std::string{} : std::string{line.substr(value)};
  }
  return {};
}

/// "MemTotal:  123 kB" of /proc/meminfo, or of a node's ("Node 0 MemTotal: 123 kB").
std::optional<std::uint64_t> kib_of(std::string_view text, std::string_view name) {
  const auto at = text.find(fmt::format("{}:", name));
  if (at == text.npos)
    return std::nullopt;
  const auto value = text.find_first_not_of(" \t", at + name.size() + 1);
  return value == text.npos ? std::nullopt : number_in<std::uint64_t>(text.substr(value));
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const auto start = text.find_first_not_of(" \t\n");
    if (start == text.npos)
      break;
    text.remove_prefix(start);
    const auto end = std::min(text.find_first_of(" \t\n"), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return words;
}

void read_cpu_identity(const std::string& root, host_info& host) {
  const auto text = text_or_empty(root + "/proc/cpuinfo");
  host.cpu_vendor = field_of(text, "vendor_id");
  host.cpu_model_name = field_of(text, "model name");
  host.cpu_family = number_in<int>(field_of(text, "cpu family")).value_or(-1);
  host.cpu_model = number_in<int>(field_of(text, "model")).value_or(-1);
  host.cpu_stepping = number_in<int>(field_of(text, "stepping")).value_or(-1);
  host.cpu_flags = words_of(field_of(text, "flags"));
  host.mhz = number_in<unsigned>(field_of(text, "cpu MHz")).value_or(0);
}

/// Where each CPU that is there sits. One that is offline has no topology, and counts by its number alone.
void read_topology(const std::string& root, host_info& host) {
  const auto cpus = root + "/sys/devices/system/cpu";
  auto present = numbers_of_list(text_or_empty(cpus + "/present"));
  if (present.empty())
    present = numbered_entries(cpus, "cpu");
  host.online = numbers_of_list(text_or_empty(cpus + "/online"));
  if (host.online.empty())
    host.online = present;
  if (present.empty()) { // no sysfs: what the scheduler says
    for (unsigned id = 0; id < static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN))); ++id)
      present.push_back(id);
    host.online = present;
  }
  host.cpus_present = present.back() + 1;
  const auto possible = numbers_of_list(text_or_empty(cpus + "/possible"));
  host.cpus_possible = std::max(host.cpus_present, possible.empty() ? 0 : possible.back() + 1);

  std::map<unsigned, host_info::cpu> found;
  for (const auto id : host.online) {
    const auto topology = fmt::format("{}/cpu{}/topology", cpus, id);
    host_info::cpu one;
    one.id = id;
    one.socket = number_at(topology + "/physical_package_id", 0);
    one.die = number_at(topology + "/die_id", 0);
    one.core = number_at(topology + "/core_id", id);
    one.siblings = text_or_empty(topology + "/thread_siblings_list");
    if (one.siblings.empty())
      one.siblings = std::to_string(id);
    found.emplace(id, std::move(one));
  }

  const auto nodes = root + "/sys/devices/system/node";
  for (const auto id : numbered_entries(nodes, "node")) {
    const auto dir = fmt::format("{}/node{}", nodes, id);
    host_info::cell cell;
    cell.id = id;
    cell.memory_kib = kib_of(text_or_empty(dir + "/meminfo"), "MemTotal").value_or(0);
    for (const auto cpu : numbers_of_list(text_or_empty(dir + "/cpulist")))
      if (const auto it = found.find(cpu); it != found.end())
        cell.cpus.push_back(it->second);
    for (const auto& word : words_of(text_or_empty(dir + "/distance")))
      cell.distances.push_back(number_in<unsigned>(word).value_or(0));
    host.cells.push_back(std::move(cell));
  }
  if (host.cells.empty()) {
    host_info::cell whole;
    whole.memory_kib = host.memory_kib;
    for (const auto& [id, cpu] : found)
      whole.cpus.push_back(cpu);
    host.cells.push_back(std::move(whole));
  }

  // Even layouts multiply up to all CPUs; others are told flat, as clients multiply too.
  std::set<std::tuple<unsigned, unsigned>> sockets; // (node, socket)
  std::set<std::tuple<unsigned, unsigned>> dies;    // (socket, die)
  std::set<std::tuple<unsigned, unsigned, unsigned>> cores;
  std::map<std::tuple<unsigned, unsigned, unsigned>, unsigned> threads;
  unsigned nodes_with_cpus = 0;
  for (const auto& cell : host.cells) {
    nodes_with_cpus += cell.cpus.empty() ? 0 : 1;
    for (const auto& cpu : cell.cpus) {
      sockets.insert({cell.id, cpu.socket});
      dies.insert({cpu.socket, cpu.die});
      cores.insert({cpu.socket, cpu.die, cpu.core});
      ++threads[{cpu.socket, cpu.die, cpu.core}];
    }
  }
  const auto all = static_cast<unsigned>(present.size());
  const auto node_count = std::max(1u, nodes_with_cpus);
  const auto socket_count = std::max<unsigned>(1, static_cast<unsigned>(sockets.size()) / node_count);
  const auto core_count = std::max<unsigned>(1, static_cast<unsigned>(cores.size()) / (socket_count * node_count));
  unsigned thread_count = 1;
  for (const auto& [core, count] : threads)
    thread_count = std::max(thread_count, count);
  if (node_count * socket_count * core_count * thread_count == all) {
    host.nodes = node_count;
    host.sockets = socket_count;
    host.cores = core_count;
    host.threads = thread_count;
    std::set<unsigned> packages;
    for (const auto& [socket, die] : dies)
      packages.insert(socket);
    host.dies = std::max<unsigned>(1, static_cast<unsigned>(dies.size() / std::max<std::size_t>(1, packages.size())));
  } else {
    host.cores = all;
  }
}

/// The firmware's UUID, unless it is one that vendors leave in (all of one digit), else one made of the machine id.
std::string read_uuid(const std::string& root) {
  auto uuid = text_or_empty(root + "/sys/class/dmi/id/product_uuid");
  std::ranges::transform(uuid, uuid.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto one_digit = [](const std::string& text) {
    return std::ranges::all_of(text, [&](char c) { return c == '-' || c == text.front(); });
  };
  if (uuid.size() == 36 && !one_digit(uuid))
    return uuid;
  const auto id = text_or_empty(root + "/etc/machine-id");
  if (id.size() != 32 || one_digit(id))
    return {};
  return fmt::format("{}-{}-{}-{}-{}", id.substr(0, 8), id.substr(8, 4), id.substr(12, 4), id.substr(16, 4), id.substr(20));
}

std::vector<unsigned> read_page_sizes(const std::string& root) {
  std::vector<unsigned> sizes{static_cast<unsigned>(::sysconf(_SC_PAGESIZE) / 1024)};
  const auto dir = root + "/sys/kernel/mm/hugepages";
  const std::unique_ptr<DIR, int (*)(DIR*)> open{::opendir(dir.c_str()), ::closedir};
  while (const auto* entry = open ? ::readdir(open.get()) : nullptr) {
    const std::string_view name{entry->d_name};
    constexpr std::string_view prefix = "hugepages-"; // hugepages-2048kB
    if (name.starts_with(prefix))
      if (const auto size = number_in<unsigned>(name.substr(prefix.size())))
        sizes.push_back(*size);
  }
  std::sort(sizes.begin() + 1, sizes.end());
  return sizes;
}

} // namespace

std::string host_info::cpu_map() const {
  std::string map((cpus_present + 7) / 8, '\0');
  for (const auto id : online)
    if (id < cpus_present)
      map[id / 8] = static_cast<char>(static_cast<unsigned char>(map[id / 8]) | 1u << (id % 8));
  return map;
}

result<host_info> read_host_info(const std::string& root) {
  host_info host;
  utsname name{};
  if (::uname(&name) != 0)
    return fail(errc::system, fmt::format("cannot ask the kernel for its name: {}", std::strerror(errno)));
  host.arch = name.machine;
  host.kernel = name.release;
  host.hostname = name.nodename;
  host.boot_id = text_or_empty(root + "/proc/sys/kernel/random/boot_id");
  host.uuid = read_uuid(root);
  const auto memory = text_of(root + "/proc/meminfo");
  const auto total = memory ? kib_of(*memory, "MemTotal") : std::nullopt;
  if (!total)
    return fail(errc::system, fmt::format("'{}/proc/meminfo' does not tell how much memory there is: is /proc mounted?", root));
  host.memory_kib = *total;
  read_cpu_identity(root, host);
  read_topology(root, host);
  host.page_kib = read_page_sizes(root);
  return host;
}

result<std::uint64_t> free_memory_bytes(const std::string& root) {
  const auto memory = text_of(root + "/proc/meminfo");
  const auto kib = memory ? kib_of(*memory, "MemFree") : std::nullopt;
  if (!kib)
    return fail(errc::system, fmt::format("'{}/proc/meminfo' does not tell how much memory is free", root));
  return *kib * 1024;
}

result<process_usage> usage_of(pid_t pid) {
  const auto path = fmt::format("/proc/{}/stat", pid);
  const auto text = text_of(path);
  if (!text)
    return errno == ENOENT || errno == ESRCH
             ? fail(errc::qemu_gone, fmt::format("there is no process {}", pid))
             : fail(errc::system, fmt::format("cannot read '{}': {}", path, std::strerror(errno)));
  // Fields count from 1; the name, field 2, may hold anything. Source: proc(5).
  const auto name_end = text->rfind(") ");
  const auto fields = name_end == text->npos ? std::vector<std::string>{} : words_of(std::string_view{*text}.substr(name_end + 2));
  const auto field = [&](std::size_t number) { return number_in<std::uint64_t>(fields.at(number - 3)); };
  if (fields.size() < 24 - 2 || !field(14) || !field(15) || !field(24))
    return fail(errc::system, fmt::format("'{}' does not look as proc(5) says", path));
  static const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  static const auto page_kib = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE) / 1024);
  constexpr std::uint64_t second_ns = 1'000'000'000;
  return process_usage{*field(14) * (second_ns / ticks), *field(15) * (second_ns / ticks), *field(24) * page_kib};
}

} // namespace troupe
