#include "xml/qemu_argv.hpp"

#include "xml/argv_parts.hpp"
#include "xml/domain_passes.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe {
namespace {

void add_environment(argv_builder& b) {
  const auto& home = b.run.home.empty() ? b.run.run_dir : b.run.home;
  auto& env = b.line.env;
  env = {"LC_ALL=C",
         "PATH=" + (b.run.path.empty() ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" : b.run.path),
         "HOME=" + home,
         "XDG_DATA_HOME=" + home + "/.local/share",
         "XDG_CACHE_HOME=" + home + "/.cache",
         "XDG_CONFIG_HOME=" + home + "/.config"};
}

void add_name(argv_builder& b) {
  b.word(b.guest.devices.emulator.empty() ? b.facts.binary : b.guest.devices.emulator);
  const auto process = b.run.name_process ? fmt::format("process=qemu:{},", escaped(b.guest.name)) : "";
  b.option("-name", fmt::format("guest={},{}debug-threads=on", escaped(b.guest.name), process));
}

/// What QEMU does when it is used in a way that will go.
void add_deprecation(argv_builder& b) {
  switch (b.guest.qemu.deprecation) {
  case deprecation::unset:
  case deprecation::none:
    return;
  case deprecation::omit:
    return b.option("-compat", to_text({{"deprecated-output", "hide"}}));
  case deprecation::reject:
    return b.option("-compat", to_text({{"deprecated-output", "hide"}, {"deprecated-input", "reject"}}));
  case deprecation::crash:
    return b.option("-compat", to_text({{"deprecated-output", "hide"}, {"deprecated-input", "crash"}}));
  }
}

void add_stopped(argv_builder& b) {
  b.word("-S");
}

/// libvirt encrypts secrets for QEMU with this key; a real start has no secrets, so nobody would write the file.
void add_master_key(argv_builder& b) {
  if (b.run.generic_taps)
    b.object(
      {{"qom-type", "secret"}, {"id", "masterKey0"}, {"format", "raw"}, {"file", b.run.run_dir + "/master-key.aes"}});
}

void add_uuid(argv_builder& b) {
  b.option("-uuid", b.guest.uuid);
}

void add_no_display(argv_builder& b) {
  if (b.guest.devices.graphics.empty())
    b.option("-display", "none");
}

void add_no_defaults(argv_builder& b) {
  b.word("-no-user-config");
  b.word("-nodefaults");
}

void add_monitor(argv_builder& b) {
  b.option("-chardev", fmt::format("socket,id=charmonitor,{},server=on,wait=off",
                                   b.run.monitor_fd >= 0 ? fmt::format("fd={}", b.run.monitor_fd)
                                                         : "path=" + escaped(b.run.run_dir) + "/monitor.sock"));
  b.option("-mon", "chardev=charmonitor,id=monitor,mode=control");
}

void add_message_format(argv_builder& b) {
  b.option("-msg", "timestamp=on");
}

void add_own_words(argv_builder& b) {
  for (const auto& arg : b.guest.qemu.args)
    b.word(arg);
  for (const auto& each : b.guest.qemu.envs)
    b.line.env.push_back(each.name + "=" + each.value.value_or(""));
}

/// The command line from left to right.
// clang-format off
constexpr void (*sections[])(argv_builder&) = {
  add_environment, add_name, add_deprecation, add_stopped, add_master_key, add_pflash, add_machine, add_accelerator, add_cpu, add_loader,
  add_memory, add_smp, add_iothreads, add_numa, add_uuid, add_generation_id, add_smbios, add_no_display,
  add_no_defaults, add_monitor, add_clock, add_power, add_boot, add_iommu, add_controllers, add_hubs,
  add_memory_devices, add_disks, add_filesystems, add_interfaces, add_smartcards, add_serials, add_parallels,
  add_channels, add_consoles, add_tpms, add_inputs, add_audios, add_graphics, add_videos, add_sounds, add_watchdogs,
  add_redirdevs, add_hostdevs, add_balloon, add_rngs, add_vmcoreinfo, add_launch_security, add_own_words, add_sandbox,
  add_panics, add_shmems, add_vsocks, add_cryptos, add_message_format,
};
// clang-format on

bool is_plain(std::string_view word) {
  return !word.empty() && std::ranges::all_of(word, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view{"_-+=./,:@%"}.find(c) != std::string_view::npos;
  });
}

/// In single quotes; a single quote inside is written '\''.
std::string single_quoted(std::string_view word) {
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'')
      out += "'\\'";
    out += c;
  }
  return out + "'";
}

/// A variable's name stays bare: in quotes the shell would take the word for a command.
std::string assignment(std::string_view word) {
  const auto value = word.find('=') + 1;
  const auto rest = word.substr(value);
  return std::string{word.substr(0, value)} +
         (rest.empty() || is_plain(rest) ? std::string{rest} : single_quoted(rest));
}

} // namespace

void forget_connections(domain& guest) {
  for (auto& each : guest.devices.interfaces) {
    net_interface bare;
    bare.type = net_type::ethernet;
    bare.mac = std::move(each.mac);
    bare.model = std::move(each.model);
    bare.alias = std::move(each.alias);
    bare.line = each.line;
    each = std::move(bare);
  }
}

std::string run_dir_under(const std::string& base, const domain& guest, int id) {
  run_settings run;
  run.id = id;
  return base + "/" + argv_builder{guest, {}, run}.domain_dir();
}

result<command_line> qemu_command_line(const domain& guest, const emulator_facts& facts, const run_settings& settings) {
  argv_builder b{guest, facts, settings};
  try {
    for (const auto section : sections)
      section(b);
  } catch (argv_refusal& refusal) {
    return tl::make_unexpected(std::move(refusal.why));
  }
  return std::move(b.line);
}

std::optional<std::uint64_t> locked_memory_of(const domain& guest) {
  const auto kib = [](std::uint64_t count) { return count * 1024; };
  const auto limit = guest.memtune ? guest.memtune->hard_limit_kib : std::nullopt;
  const auto& devices = guest.devices;
  const bool maps_all =
    std::ranges::any_of(devices.hostdevs, [](const auto& each) { return each.type == "pci" || each.type == "mdev"; }) ||
    std::ranges::any_of(devices.interfaces, [](const auto& each) { return each.type == net_type::hostdev; }) ||
    std::ranges::any_of(devices.disks, [](const auto& each) { return each.source.type == storage_type::nvme; });
  const bool locked = guest.backing && guest.backing->locked;
  if (!locked && !maps_all)
    return std::nullopt;
  if (limit)
    return kib(*limit);
  return locked ? unlimited_lock : kib(max_memory_kib_of(guest)) + (std::uint64_t{1} << 30);
}

std::string shell_line(const command_line& line) {
  std::string out;
  const auto add = [&](std::string word) {
    if (!out.empty())
      out += ' ';
    out += word;
  };
  for (const auto& each : line.env)
    add(assignment(each));
  for (const auto& each : line.argv)
    // A first word with '=' would be taken for an assignment.
    add(is_plain(each) && (&each != line.argv.data() || each.find('=') == std::string::npos) ? each
                                                                                             : single_quoted(each));
  return out;
}

} // namespace troupe
