#pragma once

#include "runtime/error.hpp"
#include "runtime/qmp_codec.hpp"
#include "runtime/unique_fd.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace troupe {

class loop;

/// What one QEMU may cost us. What goes beyond closes the monitor (input) or is refused with errc::busy (commands).
struct qmp_limits {
  std::size_t line_bytes = 16u << 20;   ///< A line from QEMU; the largest known answer, query-qmp-schema, has about 250 KiB.
  std::size_t depth = 64;               ///< Nesting of JSON, either way.
  std::size_t in_flight = 64;           ///< Commands that QEMU has not answered, timed out ones among them.
  std::size_t queued_bytes = 8u << 20;  ///< Commands that the socket has not taken yet.
};

/// One QMP connection: it negotiates, sends commands, matches answers by id and passes events on. Loop thread only.
///
/// No callback is made from within a method called here: what is refused is answered on a later turn. Any callback may destroy
/// the monitor; destroying it answers nothing more. A long run of input is read in slices, so that other guests get their turn.
class qmp_monitor {
public:
  struct callbacks {
    std::function<void(const nlohmann::json& greeting)> greeted;  ///< The greeting (value of "QMP") came and qmp_capabilities was accepted.
    std::function<void(qmp_event)> event;
    std::function<void(error why)> closed;  ///< The last call, made once; every unanswered command got qemu_gone before.
  };

  /// The "return" value. Errors: operation_failed with QEMU's description and class; timed_out (the command is still in
  /// flight: QEMU may carry it out yet); qemu_gone; busy (a limit is reached); bad_argument (not UTF-8).
  using reply = std::function<void(result<nlohmann::json>)>;
  using raw_reply = std::function<void(result<std::string>)>;

  /// Waits for the greeting on `connected`, a stream socket. What is wrong with it is told by `closed`.
  qmp_monitor(loop& on, unique_fd connected, qmp_limits limits, callbacks calls);
  ~qmp_monitor();
  qmp_monitor(const qmp_monitor&) = delete;
  qmp_monitor& operator=(const qmp_monitor&) = delete;

  /// Sends a command, or holds it until QEMU has greeted. Null `arguments` are left out. `then` is called once: after `closed`
  /// too, with qemu_gone, when the command is given so late.
  void execute(std::string_view command, nlohmann::json arguments, std::chrono::milliseconds answer_within, reply then);

  /// Sends a client's own JSON command: an object with "execute", whose id is replaced by ours. Answers with QEMU's whole line,
  /// be it a return or an error. Errors: those of `execute`, but a refusal by QEMU is an answer.
  void execute_raw(std::string_view json_text, std::chrono::milliseconds answer_within, raw_reply then);

  /// Commands that QEMU has not answered: timed out ones count until it does.
  std::size_t in_flight() const;

  /// Answers that belonged to no command of ours; they are otherwise ignored.
  std::size_t unknown_replies() const;

  /// When the last byte came; before the first one, when this was made.
  std::chrono::steady_clock::time_point last_heard() const;

private:
  struct core;
  std::shared_ptr<core> core_;  // outlives this while one of its callbacks runs
};

} // namespace troupe
