#include "runtime/ledger.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <iterator>
#include <mutex>
#include <optional>
#include <string_view>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>
#include <sqlite3.h>

namespace troupe {
namespace {

constexpr int application = 0x74727031;             // marks our files among SQLite's
constexpr std::size_t most_in_transaction = 256;    // batches; more would make the first of them wait
constexpr int pages_until_checkpoint = 1000;        // then the log is copied to the database when nothing is waiting,
constexpr int pages_at_most = 16'000;               // or at the latest then
constexpr std::chrono::milliseconds quiet_time{50}; // nothing came for so long: time for a checkpoint
constexpr std::uint64_t events_between_trims = 1024;

/// What brings a ledger of version N to version N + 1. Never change one that was released, add one.
constexpr const char* schema_steps[] = {
  R"(CREATE TABLE guests(
       uuid TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, domain_id INTEGER NOT NULL, phase TEXT NOT NULL,
       pid INTEGER NOT NULL, start_time INTEGER NOT NULL, boot_id TEXT NOT NULL, run_dir TEXT NOT NULL,
       live_xml TEXT NOT NULL, persistent INTEGER NOT NULL, extra TEXT NOT NULL) STRICT;
     CREATE TABLE files(
       number INTEGER PRIMARY KEY, path TEXT NOT NULL, guest_uuid TEXT NOT NULL, device INTEGER NOT NULL,
       inode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, mode INTEGER NOT NULL,
       taken_uid INTEGER NOT NULL, taken_gid INTEGER NOT NULL, UNIQUE(path, guest_uuid)) STRICT;
     CREATE TABLE events(sequence INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
     CREATE TABLE named(name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT, WITHOUT ROWID;)",
  // Labels of any security model, where owners were.
  R"(CREATE TABLE labelled(
       number INTEGER PRIMARY KEY, path TEXT NOT NULL, guest_uuid TEXT NOT NULL, device INTEGER NOT NULL,
       inode INTEGER NOT NULL, mode INTEGER NOT NULL, shared INTEGER NOT NULL, before TEXT NOT NULL,
       taken TEXT NOT NULL, UNIQUE(path, guest_uuid)) STRICT;
     INSERT INTO labelled SELECT number, path, guest_uuid, device, inode, mode, 1,
       json_object('dac', json_object('value', '+'||uid||':+'||gid, 'holders', 0, 'notes', json('{}'))),
       json_object('dac', '+'||taken_uid||':+'||taken_gid) FROM files;
     DROP TABLE files;
     ALTER TABLE labelled RENAME TO files;)",
};

enum class query : std::uint8_t {
  begin,
  commit,
  rollback,
  put_guest,
  drop_guest,
  put_file,
  drop_file,
  put_event,
  trim_events,
  set_value,
  guests,
  files,
  values,
  last_event,
  events,
};

/// A row each, in the same order. They are prepared once.
constexpr const char* query_texts[] = {
  "BEGIN IMMEDIATE",
  "COMMIT",
  "ROLLBACK",
  "INSERT OR REPLACE INTO guests VALUES(?,?,?,?,?,?,?,?,?,?,?)",
  "DELETE FROM guests WHERE uuid=?",
  "INSERT INTO files(path,guest_uuid,device,inode,mode,shared,before,taken) VALUES(?,?,?,?,?,?,?,?)"
  " ON CONFLICT(path,guest_uuid) DO UPDATE SET device=excluded.device, inode=excluded.inode, mode=excluded.mode,"
  " shared=excluded.shared, before=excluded.before, taken=excluded.taken",
  "DELETE FROM files WHERE path=? AND guest_uuid=?",
  "INSERT INTO events VALUES(?,?)",
  "DELETE FROM events WHERE sequence<=?",
  "INSERT OR REPLACE INTO named VALUES(?,?)",
  "SELECT uuid,name,domain_id,phase,pid,start_time,boot_id,run_dir,live_xml,persistent,extra FROM guests ORDER BY name",
  "SELECT path,guest_uuid,device,inode,mode,shared,before,taken FROM files ORDER BY number",
  "SELECT name,value FROM named",
  "SELECT coalesce(max(sequence),0) FROM events",
  "SELECT sequence,text FROM events WHERE sequence>? ORDER BY sequence LIMIT ?",
};
static_assert(std::size(query_texts) == static_cast<std::size_t>(query::events) + 1);

bool is_damage(int code) {
  return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
}

void bind(sqlite3_stmt* statement, int at, const std::string& text) {
  sqlite3_bind_text64(statement, at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
}

template <class Integer>
void bind(sqlite3_stmt* statement, int at, Integer number) {
  sqlite3_bind_int64(statement, at, static_cast<sqlite3_int64>(number));
}

void read(sqlite3_stmt* statement, int at, std::string& text) {
  if (const auto* bytes = sqlite3_column_blob(statement, at))
    text.assign(static_cast<const char*>(bytes), static_cast<std::size_t>(sqlite3_column_bytes(statement, at)));
}

template <class Integer>
void read(sqlite3_stmt* statement, int at, Integer& number) {
  number = static_cast<Integer>(sqlite3_column_int64(statement, at));
}

struct closes_statement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
struct closes_database {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
};

/// The pid of another process that has locks on the file; 0: of none.
pid_t holder_of(const std::string& path) {
  const unique_fd file{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return file && ::fcntl(file.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

error busy_error(const std::string& path, pid_t holder) {
  return {errc::busy, fmt::format("'{}' is in use by {}: only one daemon can have it", path,
                                  holder > 0 ? fmt::format("process {}", holder) : std::string{"another process"})};
}

/// Keeps other ledgers away, in this process too, which SQLite's own locks do not. Its pid is in PATH.lock.
result<unique_fd> lock_ledger(const std::string& path) {
  const auto name = path + ".lock";
  unique_fd file{::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!file)
    return fail(errc::system, fmt::format("cannot open '{}': {}", name, std::strerror(errno)));
  char text[32]{};
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return fail(errc::system, fmt::format("cannot lock '{}': {}", name, std::strerror(errno)));
    if (::pread(file.get(), text, sizeof text - 1, 0) < 0)
      text[0] = '\0';
    return tl::make_unexpected(busy_error(path, static_cast<pid_t>(std::strtol(text, nullptr, 10))));
  }
  const auto pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file.get(), 0) != 0 || ::pwrite(file.get(), pid.data(), pid.size(), 0) < 0)
    return fail(errc::system, fmt::format("cannot write '{}': {}", name, std::strerror(errno)));
  return file;
}

/// Renames the file and its log. Returns the new name, or why it could not be.
std::string set_aside(const std::string& path) {
  for (int number = 1;; ++number) {
    const auto aside = fmt::format("{}.damaged-{}", path, number);
    if (::access(aside.c_str(), F_OK) == 0)
      continue;
    ::rename((path + "-wal").c_str(), (aside + "-wal").c_str()); // there may be none
    if (::rename(path.c_str(), aside.c_str()) != 0)
      return fmt::format("it cannot be set aside as '{}': {}", aside, std::strerror(errno));
    return fmt::format("it is kept as '{}', and the next start begins with an empty one", aside);
  }
}

} // namespace

class ledger::writer {
public:
  writer(std::string path, loop& answers_on, unique_fd lock)
    : path_{std::move(path)}, loop_{answers_on}, lock_{std::move(lock)} {}

  ~writer() {
    {
      const std::lock_guard lock{mutex_};
      closing_ = true;
    }
    more_.notify_one();
    if (thread_.joinable())
      thread_.join();
  }

  result<void> open() {
    auto opened = open_database();
    if (opened)
      thread_ = std::thread{[this] { serve(); }};
    return opened;
  }

  result<ledger_contents> load() {
    ledger_contents all;
    auto code = each(query::guests, [&all](sqlite3_stmt* row) {
      auto& g = all.guests.emplace_back();
      read_row(row, g.uuid, g.name, g.domain_id, g.phase, g.pid, g.start_time, g.boot_id, g.run_dir, g.live_xml,
               g.persistent, g.extra);
    });
    if (code == SQLITE_OK)
      code = each(query::files, [&all](sqlite3_stmt* row) {
        auto& f = all.files.emplace_back();
        read_row(row, f.path, f.guest_uuid, f.device, f.inode, f.mode, f.shared, f.before, f.taken);
      });
    if (code == SQLITE_OK)
      code = each(query::values, [&all](sqlite3_stmt* row) {
        std::string name, value;
        read_row(row, name, value);
        all.values.emplace(std::move(name), std::move(value));
      });
    if (code == SQLITE_OK)
      code = each(query::last_event, [&all](sqlite3_stmt* row) { read_row(row, all.last_sequence); });
    if (code != SQLITE_OK)
      return tl::make_unexpected(give_up(code, "read"));
    return all;
  }

  void commit(ledger_batch batch, std::function<void(result<void>)> done) {
    {
      const std::lock_guard lock{mutex_};
      if (waiting_.size() < most_waiting) {
        waiting_.push_back({std::move(batch), std::move(done), {}});
        done = nullptr;
      }
    }
    if (done)
      return loop_.post([done = std::move(done), why = too_many()] { done(tl::make_unexpected(why)); });
    more_.notify_one();
  }

  void events_after(std::uint64_t sequence, std::size_t most, events_answer done) {
    {
      const std::lock_guard lock{mutex_};
      if (waiting_.size() < most_waiting) {
        waiting_.push_back({{}, {}, question{sequence, most, std::move(done)}});
        done = nullptr;
      }
    }
    if (done)
      return loop_.post([done = std::move(done), why = too_many()] { done(tl::make_unexpected(why)); });
    more_.notify_one();
  }

private:
  struct question {
    std::uint64_t sequence;
    std::size_t most;
    events_answer done;
  };
  struct item {
    ledger_batch batch;
    std::function<void(result<void>)> done;
    std::optional<question> asks; // else it is a batch
  };

  error too_many() const {
    return {errc::busy, fmt::format("{} batches wait to be written to '{}' already: its disk does not keep up",
                                    most_waiting, path_)};
  }

  error error_of(int code, const char* what) const {
    const auto* said = database_ ? sqlite3_errmsg(database_.get()) : sqlite3_errstr(code);
    const int number = database_ ? sqlite3_system_errno(database_.get()) : 0;
    auto detail = fmt::format("cannot {} '{}': {}", what, path_, said);
    if ((code & 0xff) == SQLITE_IOERR && number != 0)
      detail += fmt::format(" ({})", std::strerror(number));
    return {is_damage(code)                      ? errc::operation_failed
            : (code & 0xff) == SQLITE_CONSTRAINT ? errc::internal
                                                 : errc::system,
            std::move(detail)};
  }

  /// The error of an open or a load that failed; the database is closed, and set aside when it is damaged.
  error give_up(int code, const char* what) {
    auto why = error_of(code, what);
    for (auto& one : statements_)
      one.reset();
    database_.reset();
    if ((code & 0xff) == SQLITE_BUSY)
      return busy_error(path_, holder_of(path_));
    if (is_damage(code))
      why.detail = fmt::format("'{}' is damaged: {}; {}", path_, sqlite3_errstr(code), set_aside(path_));
    return why;
  }

  result<void> open_database() {
    // Made here, as SQLite would leave its mode to the umask.
    if (!unique_fd{::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)})
      return fail(errc::system, fmt::format("cannot open '{}': {}", path_, std::strerror(errno)));
    sqlite3* opened = nullptr;
    auto code = sqlite3_open_v2(path_.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
    database_.reset(opened);
    if (code == SQLITE_OK) {
      sqlite3_extended_result_codes(opened, 1);
      // Locks before all else: then no other process can look in, and the log needs no shared memory.
      code = execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA trusted_schema=OFF; BEGIN IMMEDIATE");
    }
    std::int64_t version = 0, mark = 0, tables = 0;
    if (code == SQLITE_OK)
      code = read_number("PRAGMA user_version", version);
    if (code == SQLITE_OK)
      code = read_number("PRAGMA application_id", mark);
    if (code == SQLITE_OK)
      code = read_number("SELECT count(*) FROM sqlite_schema", tables);
    if (code != SQLITE_OK)
      return tl::make_unexpected(give_up(code, "open"));
    constexpr auto newest = static_cast<std::int64_t>(std::size(schema_steps));
    if (tables > 0 && (mark != application || version <= 0))
      return fail(errc::unsupported_config,
                  fmt::format("'{}' is an SQLite database but no ledger of Troupe: move it away", path_));
    if (version > newest)
      return fail(
        errc::unsupported_config,
        fmt::format("'{}' was written by a newer Troupe (its version is {}, we know {}): run that one, or move "
                    "the file away",
                    path_, version, newest));
    // A write-ahead log costs at most one fdatasync a transaction, and a third of the time of a rollback journal.
    code =
      execute("COMMIT; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY; BEGIN IMMEDIATE");
    for (auto step = version; step < newest && code == SQLITE_OK; ++step)
      code = execute(schema_steps[step]);
    if (code == SQLITE_OK && version < newest)
      code = execute(fmt::format("PRAGMA application_id={}; PRAGMA user_version={}", application, newest).c_str());
    if (code == SQLITE_OK)
      code = execute("COMMIT");
    if (code == SQLITE_OK)
      code = check();
    for (std::size_t i = 0; i < statements_.size() && code == SQLITE_OK; ++i) {
      sqlite3_stmt* statement = nullptr;
      code = sqlite3_prepare_v3(opened, query_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
      statements_[i].reset(statement);
    }
    if (code != SQLITE_OK)
      return tl::make_unexpected(give_up(code, "open"));
    sqlite3_wal_hook( // replaces the checkpoint SQLite would make within a commit
      opened,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<writer*>(self)->logged_pages_ = pages;
        return SQLITE_OK;
      },
      this);
    return {};
  }

  int execute(const char* sql) { return sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr); }

  int read_number(const char* sql, std::int64_t& number) {
    return sqlite3_exec(
      database_.get(), sql,
      [](void* to, int, char** values, char**) {
        *static_cast<std::int64_t*>(to) = std::strtoll(values[0] != nullptr ? values[0] : "0", nullptr, 10);
        return 0;
      },
      &number, nullptr);
  }

  /// Looks through all but the events, which are many and can be done without.
  int check() {
    for (const auto* table : {"guests", "files", "named"}) {
      bool good = false;
      const auto code = sqlite3_exec(
        database_.get(), fmt::format("PRAGMA quick_check({})", table).c_str(),
        [](void* to, int, char** values, char**) {
          *static_cast<bool*>(to) = values[0] != nullptr && std::string_view{values[0]} == "ok";
          return 0;
        },
        &good, nullptr);
      if (code != SQLITE_OK)
        return code;
      if (!good)
        return SQLITE_CORRUPT;
    }
    return SQLITE_OK;
  }

  sqlite3_stmt* prepared(query which) { return statements_[static_cast<std::size_t>(which)].get(); }

  template <class... Values>
  int run(query which, const Values&... values) {
    auto* statement = prepared(which);
    int at = 0;
    (bind(statement, ++at, values), ...);
    sqlite3_step(statement);
    return sqlite3_reset(statement);
  }

  template <class... Values>
  static void read_row(sqlite3_stmt* row, Values&... values) {
    int at = 0;
    (read(row, at++, values), ...);
  }

  template <class Call, class... Values>
  int each(query which, Call call, const Values&... values) {
    if (!database_)
      return SQLITE_CORRUPT;
    auto* statement = prepared(which);
    int at = 0;
    (bind(statement, ++at, values), ...);
    while (sqlite3_step(statement) == SQLITE_ROW)
      call(statement);
    return sqlite3_reset(statement);
  }

  int write(const ledger_batch& batch) {
    int code = SQLITE_OK;
    const auto all = [&code](const auto& rows, auto put) {
      for (auto row = rows.begin(); row != rows.end() && code == SQLITE_OK; ++row)
        code = put(*row);
    };
    all(batch.drop_guests, [this](const std::string& uuid) { return run(query::drop_guest, uuid); });
    all(batch.drop_files, [this](const auto& file) { return run(query::drop_file, file.first, file.second); });
    all(batch.put_guests, [this](const guest_row& g) {
      return run(query::put_guest, g.uuid, g.name, g.domain_id, g.phase, g.pid, g.start_time, g.boot_id, g.run_dir,
                 g.live_xml, g.persistent, g.extra);
    });
    all(batch.put_files, [this](const file_row& f) {
      return run(query::put_file, f.path, f.guest_uuid, f.device, f.inode, f.mode, f.shared, f.before, f.taken);
    });
    all(batch.events, [this](const event_row& e) { return run(query::put_event, e.sequence, e.text); });
    all(batch.set, [this](const auto& one) { return run(query::set_value, one.first, one.second); });
    if (code != SQLITE_OK || batch.events.empty())
      return code;
    const auto newest = batch.events.back().sequence;
    if (newest <= kept_events || newest < trimmed_at_ + events_between_trims)
      return code;
    trimmed_at_ = newest;
    return run(query::trim_events, newest - kept_events);
  }

  /// Whether the transactions that follow end on the disk, or with the kernel, which a daemon's death does not touch.
  int wait_for_disk(bool wait) {
    if (wait == waits_for_disk_)
      return SQLITE_OK;
    waits_for_disk_ = wait;
    return execute(wait ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
  }

  /// One transaction. None of it is written when it fails.
  result<void> write_together(std::deque<item>::const_iterator first, std::deque<item>::const_iterator last) {
    if (!database_)
      return fail(errc::operation_failed, fmt::format("'{}' is damaged and was set aside", path_));
    auto code = wait_for_disk(std::any_of(first, last, [](const item& one) { return !one.batch.put_files.empty(); }));
    if (code == SQLITE_OK)
      code = run(query::begin);
    for (auto one = first; one != last && code == SQLITE_OK; ++one)
      code = write(one->batch);
    if (code == SQLITE_OK)
      code = run(query::commit);
    if (code == SQLITE_OK)
      return {};
    auto why = error_of(code, "write");
    trimmed_at_ = 0; // it may have been part of this
    if (sqlite3_get_autocommit(database_.get()) == 0)
      run(query::rollback);
    return tl::make_unexpected(std::move(why));
  }

  /// Writes batches in as few transactions as there are bad ones among them; answers all, in order.
  void write_all(std::deque<item> batches) {
    std::vector<result<void>> outcomes(batches.size());
    if (auto together = write_together(batches.begin(), batches.end()); !together) {
      if (batches.size() == 1) {
        outcomes[0] = std::move(together);
      } else { // perhaps the disk is too full for all but not for each
        for (std::size_t i = 0; i < batches.size(); ++i) {
          const auto one = batches.cbegin() + static_cast<std::ptrdiff_t>(i);
          outcomes[i] = write_together(one, std::next(one));
        }
      }
    }
    std::vector<std::function<void(result<void>)>> calls;
    calls.reserve(batches.size());
    for (auto& one : batches)
      calls.push_back(std::move(one.done));
    loop_.post([calls = std::move(calls), outcomes = std::move(outcomes)] {
      for (std::size_t i = 0; i < calls.size(); ++i)
        if (calls[i])
          calls[i](outcomes[i]);
    });
  }

  void answer(question asked) {
    std::vector<event_row> events;
    const auto limit = std::min<std::size_t>(asked.most, kept_events + events_between_trims);
    const auto code = each(
      query::events,
      [&events](sqlite3_stmt* row) {
        auto& e = events.emplace_back();
        read_row(row, e.sequence, e.text);
      },
      std::min<std::uint64_t>(asked.sequence, INT64_MAX), limit);
    auto outcome = code == SQLITE_OK ? result<std::vector<event_row>>{std::move(events)}
                                     : tl::make_unexpected(error_of(code, "read"));
    loop_.post([done = std::move(asked.done), outcome = std::move(outcome)] { done(outcome); });
  }

  /// The writer's thread: it takes batches up to the next question, or a question.
  void serve() {
    std::unique_lock lock{mutex_};
    for (;;) {
      const auto anything = [this] { return !waiting_.empty() || closing_; };
      if (logged_pages_ < pages_until_checkpoint) {
        more_.wait(lock, anything);
      } else if (logged_pages_ >= pages_at_most || !more_.wait_for(lock, quiet_time, anything)) {
        lock.unlock();
        checkpoint();
        lock.lock();
        continue;
      }
      if (waiting_.empty())
        return;
      std::deque<item> batches;
      std::optional<question> asked;
      while (!waiting_.empty() && batches.size() < most_in_transaction && !asked) {
        if (!waiting_.front().asks)
          batches.push_back(std::move(waiting_.front()));
        else if (batches.empty())
          asked = std::move(waiting_.front().asks);
        else
          break;
        waiting_.pop_front();
      }
      lock.unlock();
      if (asked)
        answer(std::move(*asked));
      else
        write_all(std::move(batches));
      lock.lock();
    }
  }

  /// Copies the log to the database; the log is then written anew from its beginning, which is faster than growing it.
  void checkpoint() {
    logged_pages_ = 0; // also when it fails, which harms nothing: the next pages bring another try
    sqlite3_wal_checkpoint_v2(database_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  }

  const std::string path_;
  loop& loop_;
  const unique_fd lock_;
  std::unique_ptr<sqlite3, closes_database> database_; // after `open` and `load`, the writer thread's
  std::array<std::unique_ptr<sqlite3_stmt, closes_statement>, std::size(query_texts)> statements_;
  std::uint64_t trimmed_at_ = 0;
  int logged_pages_ = 0;
  bool waits_for_disk_ = true;

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<item> waiting_;
  bool closing_ = false;
  std::thread thread_;
};

ledger::ledger(std::unique_ptr<writer> opened) : writer_{std::move(opened)} {}

ledger::~ledger() = default;

result<std::unique_ptr<ledger>> ledger::open(const std::string& path, loop& answers_on) {
  auto lock = lock_ledger(path);
  if (!lock)
    return tl::make_unexpected(std::move(lock.error()));
  auto opened = std::make_unique<writer>(path, answers_on, std::move(*lock));
  if (auto done = opened->open(); !done)
    return tl::make_unexpected(std::move(done.error()));
  return std::unique_ptr<ledger>{new ledger{std::move(opened)}};
}

result<ledger_contents> ledger::load() {
  return writer_->load();
}

void ledger::commit(ledger_batch batch, std::function<void(result<void>)> done) {
  writer_->commit(std::move(batch), std::move(done));
}

void ledger::events_after(std::uint64_t sequence, std::size_t most, events_answer done) {
  writer_->events_after(sequence, most, std::move(done));
}

} // namespace troupe
