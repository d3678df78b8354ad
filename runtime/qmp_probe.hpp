#pragma once

#include "runtime/error.hpp"
#include "runtime/qmp_monitor.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// What one QEMU said of itself: an object from QMP command to its "return" value. query-version, query-target, query-kvm,
/// query-machines and qom-list-types (all types) are there; others only where the target knows them. Below
/// "query-cpu-model-expansion" are the answers for each CPU model that QEMU gives without a version, by name.
/// xml/emulator_facts.hpp reads it.
using probe_answers = nlohmann::json;

/// Sends one command to the QEMU that is probed: `qmp_monitor::execute` of some monitor, with a deadline.
using qmp_asker = std::function<void(const char* command, nlohmann::json arguments, qmp_monitor::reply then)>;

/// Asks a fresh QEMU what it can do: all questions at once, then those that follow from the answers. `then` is called
/// once, unless the asker drops a reply. Errors: the first required question's. Loop thread.
void probe(const qmp_asker& asker, std::function<void(result<probe_answers>)> then);

/// The command line of a QEMU that only answers questions. `accel`: "kvm" or "tcg"; QEMU exits when it can't have it.
/// `monitor_fd`: a listening unix socket that QEMU inherits under that number.
std::vector<std::string> probe_argv(std::string binary, std::string_view accel, int monitor_fd);

} // namespace troupe
