#include "runtime/ledger.hpp"

#include "tests/catch.hpp"
#include "tests/runtime/run_until.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <csignal>
#include <optional>
#include <random>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using Catch::Matchers::Contains;

std::unique_ptr<ledger> opened(const std::string& path, loop& on) {
  auto file = ledger::open(path, on);
  if (!file)
    FAIL(file.error().message());
  return std::move(*file);
}

result<void> commit(ledger& file, loop& on, ledger_batch batch) {
  std::optional<result<void>> answer;
  file.commit(std::move(batch), [&](result<void> said) { answer = std::move(said); });
  run_until(on, [&] { return answer.has_value(); });
  return *answer;
}

std::vector<event_row> events_after(ledger& file, loop& on, std::uint64_t sequence, std::size_t most) {
  std::optional<result<std::vector<event_row>>> answer;
  file.events_after(sequence, most, [&](result<std::vector<event_row>> said) { answer = std::move(said); });
  run_until(on, [&] { return answer.has_value(); });
  REQUIRE(answer->has_value());
  return **answer;
}

error why_not(const std::string& path, loop& on) {
  const auto file = ledger::open(path, on);
  return file ? error{errc::none, "it opened"} : file.error();
}

guest_row some_guest(const std::string& name) {
  return {.uuid = "uuid-" + name,
          .name = name,
          .domain_id = 3,
          .phase = "running",
          .pid = 77,
          .start_time = ~0ull,
          .boot_id = "b",
          .run_dir = "/r",
          .live_xml = "<x>\0'\"\xff</x>"s,
          .persistent = false,
          .extra = "{}"};
}

/// Runs SQL on a ledger nobody has open.
void meddle(const std::string& path, const char* sql) {
  sqlite3* file = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &file) == SQLITE_OK);
  const auto code = sqlite3_exec(file, sql, nullptr, nullptr, nullptr);
  sqlite3_close(file);
  REQUIRE(code == SQLITE_OK);
}

/// What the contents ought to be, the simple way.
struct model {
  std::map<std::string, guest_row> guests;
  std::vector<file_row> files;
  std::map<std::string, std::string> values;
  std::vector<event_row> events;

  void take(const ledger_batch& batch) {
    const auto at = [this](const std::string& path, const std::string& uuid) {
      return std::find_if(files.begin(), files.end(),
                          [&](const file_row& f) { return f.path == path && f.guest_uuid == uuid; });
    };
    for (const auto& uuid : batch.drop_guests)
      guests.erase(uuid);
    for (const auto& [path, uuid] : batch.drop_files)
      if (const auto found = at(path, uuid); found != files.end())
        files.erase(found);
    for (const auto& g : batch.put_guests)
      guests[g.uuid] = g;
    for (const auto& f : batch.put_files) {
      if (const auto found = at(f.path, f.guest_uuid); found != files.end())
        *found = f;
      else
        files.push_back(f);
    }
    for (const auto& [name, value] : batch.set)
      values[name] = value;
    events.insert(events.end(), batch.events.begin(), batch.events.end());
  }
};

void check_same(const ledger_contents& found, const model& expected) {
  auto guests = found.guests;
  CHECK(std::is_sorted(guests.begin(), guests.end(), [](const auto& a, const auto& b) { return a.name < b.name; }));
  std::sort(guests.begin(), guests.end(), [](const auto& a, const auto& b) { return a.uuid < b.uuid; });
  std::vector<guest_row> expected_guests;
  for (const auto& [uuid, row] : expected.guests)
    expected_guests.push_back(row);
  CHECK((guests == expected_guests));
  CHECK((found.files == expected.files));
  CHECK(found.values == expected.values);
  CHECK(found.last_sequence == (expected.events.empty() ? 0 : expected.events.back().sequence));
}

ledger_batch random_batch(std::mt19937& draw, std::uint64_t& sequence) {
  ledger_batch batch;
  const auto name = [&] { return std::string(1, static_cast<char>('a' + draw() % 5)); };
  for (auto n = draw() % 3; n > 0; --n) {
    auto guest = some_guest(name());
    guest.pid = static_cast<pid_t>(draw() % 1000);
    guest.live_xml = std::string(draw() % 9000, 'x');
    guest.domain_id = -1;
    batch.put_guests.push_back(guest);
  }
  for (auto n = draw() % 2; n > 0; --n)
    batch.drop_guests.push_back("uuid-" + name());
  for (auto n = draw() % 3; n > 0; --n)
    batch.put_files.push_back({.path = "/" + name(),
                               .guest_uuid = name(),
                               .device = draw(),
                               .inode = ~0ull - draw() % 9,
                               .mode = 0100644,
                               .shared = draw() % 2 == 0,
                               .before = name(),
                               .taken = "{}"});
  for (auto n = draw() % 3; n > 0; --n)
    batch.drop_files.emplace_back("/" + name(), name());
  for (auto n = draw() % 4; n > 0; --n)
    batch.events.push_back({++sequence, "event " + std::to_string(sequence)});
  if (draw() % 2)
    batch.set[name()] = name();
  return batch;
}

} // namespace

TEST_CASE("ledger: what was committed is there after a restart, as a plain list of rows would hold it", "[runtime]") {
  const auto seed = GENERATE(1u, 2u, 3u);
  std::mt19937 draw{seed};
  temp_dir dir;
  loop on;
  model expected;
  std::uint64_t sequence = 0;
  for (int restart = 0; restart < 4; ++restart) {
    auto file = opened(dir / "ledger", on);
    const auto found = file->load();
    REQUIRE(found);
    check_same(*found, expected);
    for (int burst = 0; burst < 5; ++burst) {
      std::vector<int> answered;
      const int count = 1 + static_cast<int>(draw() % 40);
      for (int i = 0; i < count; ++i) {
        auto batch = random_batch(draw, sequence);
        expected.take(batch);
        file->commit(std::move(batch), [&answered, i](result<void> said) {
          CHECK(said);
          answered.push_back(i);
        });
      }
      CHECK(answered.empty()); // from the loop only
      run_until(on, [&] { return answered.size() == static_cast<std::size_t>(count); });
      CHECK(std::is_sorted(answered.begin(), answered.end()));
    }
    const auto from = draw() % (sequence + 1);
    const auto some = events_after(*file, on, from, 10);
    const auto first = expected.events.begin() + static_cast<std::ptrdiff_t>(from);
    CHECK((some == std::vector<event_row>(first, first + std::min<std::ptrdiff_t>(10, expected.events.end() - first))));
  }
}

TEST_CASE("ledger: every byte of a row comes back", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto guest = some_guest("web1");
  const file_row image{"/a\nb", "u", ~0ull, 1ull << 63, 0107777, true, "{\"dac\":\"+0\"}", "\xff'"};
  {
    auto file = opened(dir / "ledger", on);
    REQUIRE(commit(*file, on, {.put_guests = {guest}, .put_files = {image}, .set = {{"", "value"}}}));
  }
  const auto found = opened(dir / "ledger", on)->load();
  REQUIRE(found);
  CHECK((found->guests == std::vector{guest}));
  CHECK((found->files == std::vector{image}));
  CHECK(found->values == std::map<std::string, std::string>{{"", "value"}});
}

TEST_CASE("ledger: a batch is written whole or not at all, and a bad one spoils no other", "[runtime]") {
  temp_dir dir;
  loop on;
  std::vector<result<void>> answers;
  const auto note = [&](result<void> said) { answers.push_back(std::move(said)); };
  {
    auto file = opened(dir / "ledger", on);
    REQUIRE(commit(*file, on, {.events = {{1, "one"}}}));
    file->commit({.put_guests = {some_guest("a")}}, note);
    file->commit({.put_guests = {some_guest("bad")}, .events = {{2, "two"}, {1, "one again"}}, .set = {{"k", "v"}}},
                 note);
    file->commit({.put_guests = {some_guest("c")}, .events = {{2, "second"}}}, note);
    run_until(on, [&] { return answers.size() == 3; });
  }
  CHECK(answers[0]);
  REQUIRE_FALSE(answers[1]);
  CHECK(answers[1].error().code == errc::internal);
  CHECK_THAT(answers[1].error().detail, Contains(dir / "ledger"));
  CHECK(answers[2]);
  auto file = opened(dir / "ledger", on);
  const auto found = file->load();
  REQUIRE(found);
  REQUIRE(found->guests.size() == 2);
  CHECK(found->guests[0].name == "a");
  CHECK(found->guests[1].name == "c");
  CHECK(found->values.empty());
  CHECK((events_after(*file, on, 0, 100) == std::vector<event_row>{{1, "one"}, {2, "second"}}));
}

TEST_CASE("ledger: its end writes what waits, and the answers still come", "[runtime]") {
  temp_dir dir;
  loop on;
  std::size_t good = 0;
  {
    auto file = opened(dir / "ledger", on);
    for (std::uint64_t i = 1; i <= 700; ++i)
      file->commit({.events = {{i, "e"}}}, [&](result<void> said) { good += said.has_value(); });
  }
  CHECK(good == 0);
  run_until(on, [&] { return good == 700; });
  CHECK(opened(dir / "ledger", on)->load()->last_sequence == 700);
}

TEST_CASE("ledger: what was answered survives a kill at any instant", "[runtime]") {
  std::mt19937 draw{7};
  temp_dir dir;
  std::uint64_t before = 0;
  for (int round = 0; round < 8; ++round) {
    int told[2];
    REQUIRE(::pipe(told) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      loop on;
      auto file = ledger::open(dir / "ledger", on);
      if (!file)
        ::_exit(1);
      std::uint64_t next = (*file)->load().value().last_sequence;
      std::function<void()> more = [&] {
        ++next;
        const auto name = "value" + std::to_string(next % 7);
        (*file)->commit(
          {.put_guests = {some_guest(name)}, .events = {{next, name}}, .set = {{"newest", std::to_string(next)}}},
          [&, number = next](result<void> said) {
            if (!said || ::write(told[1], &number, sizeof number) != sizeof number)
              ::_exit(2);
            more();
          });
      };
      more();
      more();
      more();
      on.run();
      ::_exit(3);
    }
    ::close(told[1]);
    std::uint64_t answered = before, number = 0;
    for (auto left = 1 + draw() % 60; left > 0 && ::read(told[0], &number, sizeof number) == sizeof number; --left)
      answered = number;
    ::usleep(draw() % 3000);
    ::kill(child, SIGKILL);
    while (::read(told[0], &number, sizeof number) == sizeof number)
      answered = number;
    ::close(told[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    loop on;
    const auto found = opened(dir / "ledger", on)->load();
    REQUIRE(found);
    CHECK(answered > before);
    CHECK(found->last_sequence >= answered);
    CHECK(found->last_sequence <= answered + 3);
    CHECK(found->values.at("newest") == std::to_string(found->last_sequence)); // whole batches only
    before = found->last_sequence;
  }
}

TEST_CASE("ledger: old events are forgotten, the newest are kept and the number goes on", "[runtime]") {
  temp_dir dir;
  loop on;
  constexpr std::uint64_t last = ledger::kept_events + 5000;
  auto file = opened(dir / "ledger", on);
  std::size_t good = 0, asked = 0;
  for (std::uint64_t sequence = 0; sequence < last; ++asked) {
    ledger_batch batch;
    while (batch.events.size() < 500 && sequence < last)
      batch.events.push_back({++sequence, "event"});
    file->commit(std::move(batch), [&](result<void> said) { good += said.has_value(); });
  }
  const auto oldest = events_after(*file, on, 0, 1); // sees all that was committed before
  CHECK(good == asked);
  REQUIRE(oldest.size() == 1);
  CHECK(oldest[0].sequence > last - ledger::kept_events - 1024);
  CHECK(oldest[0].sequence <= last - ledger::kept_events + 1);
  CHECK(events_after(*file, on, last - 1, 5).size() == 1);
  CHECK(events_after(*file, on, last, 5).empty());
  CHECK(events_after(*file, on, ~0ull, 5).empty());
}

/// Only what a power failure must not take waits for the disk.
file_row file_that_waits(std::size_t number) {
  file_row row;
  row.path = "/image";
  row.guest_uuid = std::to_string(number);
  return row;
}

TEST_CASE("ledger: a disk that does not keep up is answered busy, at the bound", "[runtime]") {
  temp_dir dir;
  loop on;
  auto file = opened(dir / "ledger", on);
  std::size_t good = 0, busy = 0, count = 0;
  while (busy == 0 && count < 40 * ledger::most_waiting) {
    for (std::size_t i = 0; i < 4 * ledger::most_waiting; ++i, ++count)
      file->commit({.put_files = {file_that_waits(i)}}, [&](result<void> said) {
        good += said.has_value();
        busy += !said && said.error().code == errc::busy;
      });
    run_until(on, [&] { return good + busy == count; });
  }
  CHECK(busy > 0);
  CHECK(good >= ledger::most_waiting);
}

TEST_CASE("ledger: only one can have the file, in one process and between two", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto path = dir / "ledger";
  auto file = opened(path, on);
  const auto us = std::to_string(::getpid());
  const auto here = why_not(path, on);
  CHECK(here.code == errc::busy);
  CHECK_THAT(here.detail, Contains(path) && Contains("process " + us));
  const pid_t child = ::fork();
  if (child == 0) {
    loop another;
    const auto there = why_not(path, another);
    ::_exit(there.code == errc::busy && there.detail.find("process " + us) != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  // The refused ones took nothing from us: other programs are still kept out.
  const pid_t program = ::fork();
  if (program == 0) {
    sqlite3* other = nullptr;
    sqlite3_open(path.c_str(), &other);
    ::_exit(sqlite3_exec(other, "SELECT * FROM guests", nullptr, nullptr, nullptr) == SQLITE_BUSY ? 0 : 1);
  }
  ::waitpid(program, &status, 0);
  CHECK(status == 0);
  CHECK(commit(*file, on, {.set = {{"a", "b"}}}));
  file.reset();
  CHECK(why_not(path, on).code == errc::none);
}

TEST_CASE("ledger: another program that has the file is named by its pid", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto path = dir / "ledger";
  opened(path, on);
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t program = ::fork();
  if (program == 0) {
    sqlite3* other = nullptr;
    sqlite3_open(path.c_str(), &other);
    const auto code = sqlite3_exec(other, "BEGIN IMMEDIATE; SELECT * FROM guests", nullptr, nullptr, nullptr);
    if (::write(ready[1], "x", 1) != 1 || code != SQLITE_OK)
      ::_exit(1);
    ::pause();
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  const auto why = why_not(path, on);
  ::kill(program, SIGKILL);
  ::waitpid(program, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(why.code == errc::busy);
  CHECK_THAT(why.detail, Contains("process " + std::to_string(program)));
  CHECK(why_not(path, on).code == errc::none);
}

TEST_CASE("ledger: a damaged file is set aside, never overwritten, and the next open begins afresh", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto path = dir / "ledger";
  for (int time = 1; time <= 3; ++time) {
    {
      auto file = opened(path, on);
      const auto found = file->load();
      REQUIRE(found);
      CHECK(found->guests.empty());
      for (int i = 0; i < 40; ++i)
        REQUIRE(commit(*file, on, {.put_guests = {some_guest("g" + std::to_string(i))}}));
    }
    auto bytes = contents_of(path);
    REQUIRE(bytes.size() > 8192);
    if (time == 1)
      bytes.replace(0, 4096, 4096, 'x'); // no database at all
    else if (time == 2)
      std::fill(bytes.begin() + 4096, bytes.end(), '\x5a'); // all but the first page
    else
      bytes.resize(8192); // cut off
    write_file(path, bytes);
    const auto why = why_not(path, on);
    CHECK(why.code == errc::operation_failed);
    const auto aside = path + ".damaged-" + std::to_string(time);
    CHECK_THAT(why.detail, Contains("damaged") && Contains(aside));
    CHECK(contents_of(aside) == bytes);
  }
}

TEST_CASE("ledger: a newer Troupe's file, and another program's, are left as they are", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto path = dir / "ledger";
  opened(path, on);
  meddle(path, "PRAGMA user_version=99");
  const auto newer = why_not(path, on);
  CHECK(newer.code == errc::unsupported_config);
  CHECK_THAT(newer.detail, Contains(path) && Contains("newer") && Contains("99"));

  const auto other = dir / "other";
  meddle(other, "CREATE TABLE t(x); PRAGMA user_version=1");
  const auto bytes = contents_of(other);
  const auto foreign = why_not(other, on);
  CHECK(foreign.code == errc::unsupported_config);
  CHECK_THAT(foreign.detail, Contains(other) && Contains("no ledger"));
  CHECK(contents_of(other) == bytes);
}

TEST_CASE("ledger: a file of before labels is brought up to date, with every owner", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto path = dir / "ledger";
  opened(path, on);
  meddle(path, R"(DROP TABLE files;
    CREATE TABLE files(
       number INTEGER PRIMARY KEY, path TEXT NOT NULL, guest_uuid TEXT NOT NULL, device INTEGER NOT NULL,
       inode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, mode INTEGER NOT NULL,
       taken_uid INTEGER NOT NULL, taken_gid INTEGER NOT NULL, UNIQUE(path, guest_uuid)) STRICT;
    INSERT INTO files VALUES(1, '/b', 'u', 7, -8, 4294967294, 6, 33188, 64055, 108);
    INSERT INTO files VALUES(2, '/a', 'u', 7, 9, 0, 0, 33188, 0, 0);
    PRAGMA user_version=1)");
  const std::vector<file_row> files{
    {"/b", "u", 7, ~0ull - 7, 33188, true, R"({"dac":{"value":"+4294967294:+6","holders":0,"notes":{}}})",
     R"({"dac":"+64055:+108"})"},
    {"/a", "u", 7, 9, 33188, true, R"({"dac":{"value":"+0:+0","holders":0,"notes":{}}})", R"({"dac":"+0:+0"})"}};
  CHECK((opened(path, on)->load().value().files == files));
  CHECK((opened(path, on)->load().value().files == files));
}

TEST_CASE("ledger: the file is its owner's alone, and a path that cannot be is named", "[runtime]") {
  temp_dir dir;
  loop on;
  const auto umask_before = ::umask(0);
  auto file = opened(dir / "ledger", on);
  REQUIRE(commit(*file, on, {.set = {{"a", "b"}}}));
  ::umask(umask_before);
  for (const auto& entry : std::filesystem::directory_iterator{dir.path()}) {
    INFO(entry.path());
    struct stat found {};
    REQUIRE(::stat(entry.path().c_str(), &found) == 0);
    CHECK((found.st_mode & 07777) == 0600);
  }
  const auto nowhere = why_not(dir / "no/ledger", on);
  CHECK(nowhere.code == errc::system);
  CHECK_THAT(nowhere.detail, Contains(dir / "no/ledger"));
}

TEST_CASE("ledger: a full disk fails what does not fit, and all is well when there is room again", "[runtime]") {
  temp_dir dir;
  loop on;
  auto file = opened(dir / "ledger", on);
  struct rlimit limit {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  auto small = limit;
  small.rlim_cur = 512 << 10;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto too_much = commit(*file, on, {.set = {{"big", std::string(2 << 20, 'x')}}});
  const auto fits = commit(*file, on, {.set = {{"small", "x"}}});
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, handler);
  REQUIRE_FALSE(too_much);
  CHECK(too_much.error().code == errc::system);
  CHECK_THAT(too_much.error().detail, Contains(dir / "ledger"));
  CHECK(fits);
  CHECK(commit(*file, on, {.set = {{"big", std::string(2 << 20, 'y')}}}));
  file.reset();
  const auto found = opened(dir / "ledger", on)->load();
  REQUIRE(found);
  CHECK(found->values.at("big") == std::string(2 << 20, 'y'));
  CHECK(found->values.at("small") == "x");
}

} // namespace troupe
