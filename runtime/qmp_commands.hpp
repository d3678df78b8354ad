#pragma once

#include "runtime/error.hpp"
#include "runtime/qmp_monitor.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace troupe {

/// A QMP command and how its answer is read.
template <class Reply>
struct command {
  const char* execute;
  nlohmann::json arguments;                     ///< null: sent without "arguments"
  result<Reply> (*read)(nlohmann::json answer);  ///< Takes the "return" value. Errors: internal, naming the field.
};

/// Source: qapi/run-state.json StatusInfo.
struct qemu_status {
  bool running = false;
  std::string status;  ///< RunState: "running", "paused", "prelaunch", "shutdown", …
};

/// Source: qapi/control.json VersionInfo.
struct qemu_version {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::uint32_t micro = 0;
  std::string package;
};

/// Source: qapi/machine.json KvmInfo.
struct qemu_kvm {
  bool enabled = false;  ///< In use by this QEMU.
  bool present = false;  ///< Compiled in.
};

/// Source: qapi/char.json ChardevInfo.
struct qemu_chardev {
  std::string label;     ///< The chardev's id.
  std::string filename;  ///< "pty:/dev/pts/3", "unix:/path,server=on", …
  bool frontend_open = false;
};

/// Source: qapi/ui.json VncInfo.
struct qemu_vnc {
  bool enabled = false;
  std::string host;
  std::optional<std::uint16_t> port;  ///< None: disabled, or on a unix socket.
  std::string auth;
};

/// Source: qapi/machine.json CpuInfoFast.
struct qemu_cpu {
  std::uint32_t index = 0;
  std::int64_t thread_id = 0;  ///< The host thread that runs it.
  std::string qom_path;
};

command<void> cont();
command<void> stop();
command<void> quit();
command<void> system_powerdown();
command<void> system_reset();
command<void> system_wakeup();
command<void> inject_nmi();

/// Makes QEMU end where its guest would start over. Source: qapi/run-state.json `set-action`.
command<void> shut_down_at_reset();

/// The password of a display, "vnc" or "spice". Source: qapi/ui.json.
command<void> set_password(std::string protocol, std::string password);
/// When it ends, in seconds since 1970.
command<void> expire_password(std::string protocol, std::int64_t at);

/// Asks the guest to change its memory to `bytes`; QEMU answers before it has.
command<void> balloon(std::uint64_t bytes);

/// The guest's memory in bytes. Refused with DeviceNotActive by a guest that has no balloon.
command<std::uint64_t> query_balloon();

command<qemu_status> query_status();
command<qemu_version> query_version();
command<qemu_kvm> query_kvm();

/// The target's architecture: "x86_64".
command<std::string> query_target();

/// The name given by -name, or none.
command<std::optional<std::string>> query_name();

command<std::vector<qemu_chardev>> query_chardev();
command<qemu_vnc> query_vnc();
command<std::vector<qemu_cpu>> query_cpus_fast();

/// What the human monitor prints for `line`, with its line ends.
command<std::string> human_monitor_command(std::string line);

// Long lists go on as QEMU gives them; xml/emulator_facts reads them.
command<nlohmann::json> query_machines();
command<nlohmann::json> query_cpu_definitions();

/// All properties of a CPU of that model, those a guest may migrate with or, with `migratable` false, all that there are.
/// Only targets whose CPUs have static models know it. Source: qapi/machine-target.json.
command<nlohmann::json> query_cpu_model_expansion(std::string model, bool migratable = true);

// What the accelerator gives of confidential guests, and of ARM's interrupt controllers; refused where there is none.
command<nlohmann::json> query_sev_capabilities();
command<nlohmann::json> query_sgx_capabilities();
command<nlohmann::json> query_gic_capabilities();

/// Every type that implements `implements` and can be made.
command<nlohmann::json> qom_list_types(std::string implements);

/// Sends a command and reads its answer. Errors: those of qmp_monitor::execute; internal when the answer is not what it must be.
template <class Reply>
void run(qmp_monitor& monitor, command<Reply> what, std::chrono::milliseconds answer_within,
         std::type_identity_t<std::function<void(result<Reply>)>> then) {
  monitor.execute(what.execute, std::move(what.arguments), answer_within,
                  [what = what.execute, read = what.read, then = std::move(then)](result<nlohmann::json> answer) {
                    if (!answer)
                      return then(tl::make_unexpected(std::move(answer.error())));
                    auto value = read(std::move(*answer));
                    if (!value)
                      value.error().detail = "QEMU's answer to '" + std::string{what} + "' " + value.error().detail;
                    then(std::move(value));
                  });
}

} // namespace troupe
