#pragma once

#include "runtime/error.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct domain;

/// A firmware of this host, as its packager describes it. Source: QEMU's docs/interop/firmware.json.
struct firmware_descriptor {
  enum class device : std::uint8_t { flash, kernel, memory };
  struct target {
    std::string arch;                  ///< QEMU's name.
    std::vector<std::string> machines; ///< Patterns with `*` and `?`.
  };
  device what = device::flash;
  std::vector<std::string> interfaces; ///< "uefi", "bios", ...
  std::string executable, executable_format;
  std::string nvram_template, nvram_format; ///< Empty: its variables are not kept apart.
  std::vector<target> targets;
  std::vector<std::string> features;   ///< "secure-boot", "requires-smm", ...

  bool has(std::string_view feature) const;
};

/// Reads a descriptor. `file`: its path, for errors. Errors: unsupported_config, naming the file and what is wrong.
result<firmware_descriptor> read_firmware(std::string_view file, std::string_view json_text);

/// Whether it is made for this machine of that architecture, in QEMU's words.
bool suits(const firmware_descriptor& firmware, std::string_view arch, std::string_view machine);

/// What there is on this host: descriptors in the order of preference, and loaders by the names that distributions gave
/// them before there were descriptors.
struct host_firmware {
  std::vector<firmware_descriptor> described;
  std::vector<std::string> usual_loaders;
};

/// What a client may write in `<os>`.
struct firmware_choice {
  std::vector<std::string> interfaces; ///< For the attribute `firmware`: "bios", "efi".
  std::vector<std::string> loaders;    ///< For `<loader type='pflash'>`.
  bool secure = false;                 ///< `secure='yes'` is possible.
};

/// Whether a definition leaves to the host which firmware it starts with, or what its variables begin as.
bool wants_firmware(const domain& guest);

/// Takes for a completed definition the first of the host's that is what it asks for, and names what its variables begin
/// as. `arch`: QEMU's name. Errors: unsupported_config when there is none.
result<void> choose_firmware(domain& guest, const host_firmware& host, std::string_view arch);

firmware_choice firmware_for(const host_firmware& host, std::string_view arch, std::string_view machine);

} // namespace troupe
