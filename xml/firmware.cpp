#include "xml/firmware.hpp"

#include "xml/domain.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <optional>

namespace troupe {
namespace {

using nlohmann::json;

constexpr std::size_t most_descriptor_bytes = 1u << 20;

/// Something is not as it must be; only this file sees it.
struct misfit {
  std::string what;
};

struct word_pair {
  std::string_view descriptor, libvirt;
};
constexpr word_pair interface_words[] = {{"bios", "bios"}, {"uefi", "efi"}}; // in the order they are told

struct device_row {
  std::string_view word;
  firmware_descriptor::device what;
};
constexpr device_row devices[] = {{"flash", firmware_descriptor::device::flash},
                                  {"kernel", firmware_descriptor::device::kernel},
                                  {"memory", firmware_descriptor::device::memory}};

const json& member(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end())
    throw misfit{fmt::format("there is no '{}'", key)};
  return *found;
}

std::string text_at(const json& object, const char* key) {
  const auto& value = member(object, key);
  if (!value.is_string())
    throw misfit{fmt::format("'{}' is no text", key)};
  return value.get<std::string>();
}

const json& list_at(const json& object, const char* key) {
  const auto& value = member(object, key);
  if (!value.is_array())
    throw misfit{fmt::format("'{}' is no list", key)};
  return value;
}

std::vector<std::string> texts_at(const json& object, const char* key) {
  std::vector<std::string> out;
  for (const auto& each : list_at(object, key)) {
    if (!each.is_string())
      throw misfit{fmt::format("'{}' holds something else than text", key)};
    out.push_back(each.get<std::string>());
  }
  return out;
}

firmware_descriptor descriptor_from(const json& from) {
  firmware_descriptor out;
  out.interfaces = texts_at(from, "interface-types");
  out.features = texts_at(from, "features");
  for (const auto& each : list_at(from, "targets"))
    out.targets.push_back({text_at(each, "architecture"), texts_at(each, "machines")});
  const auto& mapping = member(from, "mapping");
  const auto device = text_at(mapping, "device");
  const auto* row = std::ranges::find(devices, device, &device_row::word);
  if (row == std::end(devices))
    throw misfit{fmt::format("the device '{}' is none of flash, kernel and memory", device)};
  out.what = row->what;
  if (out.what != firmware_descriptor::device::flash) {
    out.executable = text_at(mapping, "filename");
    return out;
  }
  const auto& executable = member(mapping, "executable");
  out.executable = text_at(executable, "filename");
  out.executable_format = text_at(executable, "format");
  const bool split = !mapping.contains("mode") || text_at(mapping, "mode") == "split";
  if (split) {
    const auto& nvram = member(mapping, "nvram-template");
    out.nvram_template = text_at(nvram, "filename");
    out.nvram_format = text_at(nvram, "format");
  }
  return out;
}

/// Whether `text` is as `pattern` says, where `*` is any number of characters and `?` is one.
bool matches(std::string_view pattern, std::string_view text) {
  std::size_t at = 0, p = 0;
  std::optional<std::size_t> star; // where the last `*` was, and how much of the text it may have taken
  std::size_t taken = 0;
  while (at < text.size())
    if (p < pattern.size() && pattern[p] == '*')
      star = p++, taken = at;
    else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[at]))
      ++p, ++at;
    else if (star)
      p = *star + 1, at = ++taken;
    else
      return false;
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

} // namespace

bool firmware_descriptor::has(std::string_view feature) const {
  return std::ranges::find(features, feature) != features.end();
}

result<firmware_descriptor> read_firmware(std::string_view file, std::string_view json_text) {
  const auto bad = [&](std::string_view why) {
    return fail(errc::unsupported_config, fmt::format("the firmware descriptor '{}' cannot be used: {}", file, why));
  };
  if (json_text.size() > most_descriptor_bytes)
    return bad(fmt::format("it has more than {} bytes", most_descriptor_bytes));
  const auto from = json::parse(json_text, nullptr, false);
  if (from.is_discarded())
    return bad("it is not JSON");
  try {
    return descriptor_from(from);
  } catch (const misfit& m) {
    return bad(m.what);
  }
}

bool suits(const firmware_descriptor& firmware, std::string_view arch, std::string_view machine) {
  return std::ranges::any_of(firmware.targets, [&](const auto& target) {
    return target.arch == arch &&
           std::ranges::any_of(target.machines, [&](const auto& pattern) { return matches(pattern, machine); });
  });
}

firmware_choice firmware_for(const host_firmware& host, std::string_view arch, std::string_view machine) {
  firmware_choice out;
  for (const auto& each : host.described) {
    if (!suits(each, arch, machine))
      continue;
    out.secure = out.secure || (each.has("secure-boot") && each.has("requires-smm"));
    if (each.what == firmware_descriptor::device::flash && std::ranges::count(out.loaders, each.executable) == 0)
      out.loaders.push_back(each.executable);
    for (const auto& name : each.interfaces)
      out.interfaces.push_back(name);
  }
  std::vector<std::string> words;
  for (const auto& [theirs, ours] : interface_words)
    if (std::ranges::count(out.interfaces, theirs) != 0)
      words.emplace_back(ours);
  if (out.loaders.empty() && words.empty())
    out.loaders = host.usual_loaders;
  out.interfaces = std::move(words);
  return out;
}

// ---- for one guest

namespace {

bool leaves_loader_open(const domain& guest) {
  return !guest.os.firmware.empty() && (!guest.os.loader || guest.os.loader->path.empty());
}

bool is_wanted(const firmware_descriptor& each, const domain& guest) {
  const auto& os = guest.os;
  const auto serves = [&](const word_pair& row) {
    return row.libvirt == os.firmware && std::ranges::count(each.interfaces, row.descriptor) != 0;
  };
  if (std::ranges::none_of(interface_words, serves))
    return false;
  const bool protected_flash = each.has("secure-boot") && each.has("requires-smm");
  if (os.loader) {
    const auto& loader = *os.loader;
    if (!loader.type.empty() && (loader.type == "pflash") != (each.what == firmware_descriptor::device::flash))
      return false;
    if ((loader.secure == yes_no::yes && !protected_flash) || (loader.secure == yes_no::no && each.has("requires-smm")))
      return false;
    if (loader.stateless == yes_no::yes && !each.nvram_template.empty())
      return false;
  }
  if (each.has("requires-smm") && guest.features && guest.features->smm && guest.features->smm_state == on_off::off)
    return false;
  if (guest.launch_security && guest.launch_security->type == launch_kind::sev && !each.has("amd-sev"))
    return false;
  return std::ranges::all_of(os.firmware_features, [&](const auto& wish) {
    return wish.enabled == yes_no::unset || each.has(wish.name) == (wish.enabled == yes_no::yes);
  });
}

void load(const firmware_descriptor& each, domain& guest) {
  auto& os = guest.os;
  if (each.what == firmware_descriptor::device::kernel) {
    os.kernel = each.executable;
    return;
  }
  auto& loader = os.loader ? *os.loader : os.loader.emplace();
  loader.path = each.executable;
  if (each.what == firmware_descriptor::device::memory) {
    loader.type = "rom";
    return;
  }
  loader.type = "pflash";
  loader.readonly = yes_no::yes;
  if (each.executable_format != "raw")
    loader.format = each.executable_format;
  if (!each.has("requires-smm"))
    return;
  loader.secure = yes_no::yes;
  auto& features = guest.features ? *guest.features : guest.features.emplace();
  features.smm = true;
  features.smm_state = on_off::on;
}

/// What was asked for, for an error.
std::string wish_text(const domain& guest) {
  auto out = fmt::format("firmware='{}'", guest.os.firmware);
  if (guest.os.loader && guest.os.loader->secure != yes_no::unset)
    out += fmt::format(" secure='{}'", word_of(guest.os.loader->secure));
  for (const auto& each : guest.os.firmware_features)
    out += fmt::format(", feature '{}' {}", each.name, each.enabled == yes_no::yes ? "enabled" : "disabled");
  return out;
}

} // namespace

bool wants_firmware(const domain& guest) {
  const auto& os = guest.os;
  const bool keeps_variables = os.loader && os.loader->type == "pflash" && os.loader->readonly == yes_no::yes &&
                               os.loader->stateless != yes_no::yes && !(os.nvram && os.nvram->source);
  return leaves_loader_open(guest) || (keeps_variables && (!os.nvram || os.nvram->template_path.empty()));
}

result<void> choose_firmware(domain& guest, const host_firmware& host, std::string_view arch) {
  auto& os = guest.os;
  const bool open = leaves_loader_open(guest);
  const auto found = std::ranges::find_if(host.described, [&](const auto& each) {
    return suits(each, arch, os.machine) && (open ? is_wanted(each, guest) : os.loader && os.loader->path == each.executable);
  });
  if (found == host.described.end() && open)
    return fail(errc::unsupported_config,
                fmt::format("Unable to find any firmware to satisfy '{}': guest '{}' asks for {} with machine '{}', and of {} "
                            "descriptors in the firmware folders (/usr/share/qemu/firmware, ...) none is that; install the "
                            "package of the firmware (ovmf, edk2-ovmf), or name its file in <loader>",
                            os.firmware, guest.name, wish_text(guest), os.machine, host.described.size()));
  if (found == host.described.end())
    return {};
  if (open)
    load(*found, guest);
  if (found->what != firmware_descriptor::device::flash || found->nvram_template.empty() ||
      (os.loader && os.loader->stateless == yes_no::yes) || (os.nvram && os.nvram->source))
    return {};
  auto& nvram = os.nvram ? *os.nvram : os.nvram.emplace();
  if (nvram.template_path.empty())
    nvram.template_path = found->nvram_template;
  return {};
}

} // namespace troupe
