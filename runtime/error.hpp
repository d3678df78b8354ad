#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <tl/expected.hpp>

namespace troupe {

/// What went wrong, for programs. A row of `error_rows` each, in the same order.
enum class errc : std::uint8_t {
  none,
  internal,
  unsupported_call,
  no_connect,
  bad_argument,
  operation_failed,
  bad_name,
  bad_xml,
  bad_schema,
  read_only,
  system,
  bad_packet,
  no_such_guest,
  auth_failed,
  wrong_state,
  unsupported_config,
  timed_out,
  unsupported_argument,
  aborted,
  no_such_metadata,
  unsupported_operation,
  busy,
  bad_settings,
  qemu_gone,
  malformed_xml,
  xml_detail,
  overflow,
  no_source,
  no_emulator,
  cpu_incompatible,
};

/// How one error looks outside: the words before its detail, libvirt's number and domain, Varlink's name.
/// Source of the numbers: libvirt's virErrorNumber and virErrorDomain, as its clients know them.
struct error_row {
  const char* text;
  int libvirt_code;
  int libvirt_domain;
  const char* varlink;
  bool bare = false; ///< The detail stands alone; `text` is for where there is none.
};

inline constexpr error_row error_rows[] = {
  /* none                  */ {"no error", 0, 0, ""},
  /* internal              */ {"internal error", 1, 10, "org.troupe.Internal"},
  /* unsupported_call      */ {"this function is not supported by the connection driver", 3, 10, "org.troupe.NotSupported"},
  /* no_connect            */ {"no connection driver available", 5, 0, "org.troupe.NoConnection"},
  /* bad_argument          */ {"invalid argument", 8, 10, "org.troupe.BadArgument"},
  /* operation_failed      */ {"operation failed", 9, 10, "org.troupe.OperationFailed"},
  /* bad_name              */ {"invalid name", 21, 10, "org.troupe.BadName"},
  /* bad_xml               */ {"XML error", 27, 10, "org.troupe.BadDefinition"},
  /* bad_schema            */ {"XML document failed to validate against schema", 92, 10, "org.troupe.BadDefinition"},
  /* read_only             */ {"operation forbidden", 29, 20, "org.troupe.ReadOnly"},
  /* system                */ {"system error", 38, 10, "org.troupe.SystemError"},
  /* bad_packet            */ {"RPC error", 39, 7, "org.troupe.BadPacket"},
  /* no_such_guest         */ {"Domain not found", 42, 10, "org.troupe.NoSuchGuest"},
  /* auth_failed           */ {"authentication failed", 45, 7, "org.troupe.PermissionDenied"},
  /* wrong_state           */ {"Requested operation is not valid", 55, 10, "org.troupe.WrongState"},
  /* unsupported_config    */ {"unsupported configuration", 67, 10, "org.troupe.UnsupportedConfiguration"},
  /* timed_out             */ {"Timed out during operation", 68, 10, "org.troupe.TimedOut"},
  /* unsupported_argument  */ {"argument unsupported", 74, 10, "org.troupe.UnsupportedArgument"},
  /* aborted               */ {"operation aborted", 78, 10, "org.troupe.Aborted"},
  /* no_such_metadata      */ {"metadata not found", 80, 10, "org.troupe.NoSuchMetadata"},
  /* unsupported_operation */ {"Operation not supported", 84, 10, "org.troupe.UnsupportedOperation"},
  /* busy                  */ {"resource busy", 87, 10, "org.troupe.Busy"},
  /* bad_settings          */ {"configuration file syntax error", 33, 10, "org.troupe.BadSettings"},
  /* qemu_gone             */ {"internal error", 1, 10, "org.troupe.QemuGone"},
  /* malformed_xml         */ {"XML document is not well-formed", 35, 5, "org.troupe.BadDefinition"},
  /* xml_detail            */ {"not possible in a definition", 35, 10, "org.troupe.BadDefinition", true},
  /* overflow              */ {"numerical overflow", 82, 10, "org.troupe.BadDefinition"},
  /* no_source             */ {"missing source information", 19, 10, "org.troupe.BadDefinition", true},
  /* no_emulator           */ {"no such emulator", 38, 10, "org.troupe.SystemError", true},
  /* cpu_incompatible      */ {"the CPU is incompatible with host CPU", 91, 31, "org.troupe.CpuIncompatible"},
};
static_assert(std::size(error_rows) == static_cast<std::size_t>(errc::cpu_incompatible) + 1);

/// The row of `code`.
constexpr const error_row& row_of(errc code) {
  return error_rows[static_cast<std::size_t>(code)];
}

/// A code for programs and a detail for people, with names and values in it: "guest 'web1' is running".
struct error {
  errc code = errc::none;
  std::string detail;

  /// What a person is shown: "Domain not found: no guest is named 'web1'".
  std::string message() const {
    const auto& row = row_of(code);
    return detail.empty() ? std::string{row.text} : row.bare ? detail : std::string{row.text} + ": " + detail;
  }
};

template <class T>
using result = tl::expected<T, error>;

inline auto fail(errc code, std::string detail) {
  return tl::make_unexpected(error{code, std::move(detail)});
}

} // namespace troupe
