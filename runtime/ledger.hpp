#pragma once

#include "runtime/error.hpp"
#include "runtime/loop.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace troupe {

/// A guest that runs or is on its way up or down.
struct guest_row {
  std::string uuid, name;
  int domain_id = -1;
  std::string phase;
  pid_t pid = 0;
  std::uint64_t start_time = 0;
  std::string boot_id;
  std::string run_dir;
  std::string live_xml;
  bool persistent = true;
  std::string extra; ///< JSON of the actors' own.

  bool operator==(const guest_row&) const = default;
};

/// A file that a guest took, and what it was before. One row per (path, guest): a shared image has several, and the
/// first one's is the true "before".
struct file_row {
  std::string path, guest_uuid;
  std::uint64_t device = 0, inode = 0;
  unsigned mode = 0;
  bool shared = false;       ///< The guest lets others have it too.
  std::string before, taken; ///< JSON of the actors' own: its labels, by security model.

  bool operator==(const file_row&) const = default;
};

struct event_row {
  std::uint64_t sequence = 0;
  std::string text;

  bool operator==(const event_row&) const = default;
};

/// What is written together or not at all. Within a batch drops come before puts.
struct ledger_batch {
  std::vector<guest_row> put_guests{};
  std::vector<std::string> drop_guests{}; ///< UUIDs; their files stay until dropped themselves.
  std::vector<file_row> put_files{};
  std::vector<std::pair<std::string, std::string>> drop_files{}; ///< path, guest uuid
  std::vector<event_row> events{};
  std::map<std::string, std::string> set{}; ///< Small named values.
};

struct ledger_contents {
  std::vector<guest_row> guests; ///< By name.
  std::vector<file_row> files;   ///< In the order they were first put, so the true "before" of a path is its first row.
  std::map<std::string, std::string> values;
  std::uint64_t last_sequence = 0; ///< Of the newest event ever written.
};

/// What must survive the daemon: one SQLite file, written by one thread. Batches that arrive while a transaction is
/// written share the next one. Files that guests took must survive a power failure too, so a transaction with `put_files`
/// waits for the disk, and takes all before it along. Guests, which do not outlive the power, and events do not wait. No other process can open the file meanwhile.
/// Made, used and destroyed on one thread, the loop's when it runs; the loop outlives the ledger.
class ledger {
public:
  /// Opens or creates the file, mode 0600, and brings an older one up to date. Blocks on the disk.
  /// Errors: busy when another process has it, with its pid; unsupported_config when a newer Troupe wrote it; system;
  /// operation_failed when it is damaged: it is then set aside as PATH.damaged-N, and the next open begins afresh.
  static result<std::unique_ptr<ledger>> open(const std::string& path, loop& answers_on);

  /// Writes what is waiting, then closes. Answers still come while the loop turns.
  ~ledger();
  ledger(const ledger&) = delete;
  ledger& operator=(const ledger&) = delete;

  /// Everything but the events. Only before the first `commit`. Blocks on the disk. Errors: as `open`.
  result<ledger_contents> load();

  /// Calls `done` on the loop when the batch survives the daemon, and with `put_files` the machine. Batches are written, and answered, in the order
  /// of calls. Errors, with none of the batch written and the file named: system (no space, I/O error); busy when
  /// `most_waiting` batches already wait for a disk that does not keep up.
  void commit(ledger_batch batch, std::function<void(result<void>)> done);

  using events_answer = std::function<void(result<std::vector<event_row>>)>;

  /// The oldest `most` events after `sequence`, with all that was committed before this call. An answer that does not
  /// begin with sequence + 1 says that those between are forgotten.
  void events_after(std::uint64_t sequence, std::size_t most, events_answer done);

  static constexpr std::uint64_t kept_events = 100'000; ///< The newest ones; up to 1023 more may linger.
  static constexpr std::size_t most_waiting = 10'000;

private:
  class writer;
  explicit ledger(std::unique_ptr<writer> writer);

  std::unique_ptr<writer> writer_;
};

} // namespace troupe
