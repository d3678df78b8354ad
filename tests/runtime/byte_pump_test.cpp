#include "runtime/byte_pump.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <optional>
#include <sys/socket.h>
#include <utility>

namespace troupe {
namespace {

struct pump_fixture {
  loop turns;
  unique_fd near, far;
  std::string came;
  std::optional<std::string> ended;
  int drained = 0;
  std::unique_ptr<byte_pump> pump;

  pump_fixture() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    near = unique_fd{ends[0]};
    far = unique_fd{ends[1]};
    pump = std::make_unique<byte_pump>(turns, std::move(near),
                                       byte_pump::callbacks{[this](std::string_view bytes) { came += bytes; },
                                                            [this] { ++drained; },
                                                            [this](std::string why) { ended = std::move(why); }});
  }
  ~pump_fixture() {
    pump.reset();
    turns.close();
  }

  void run_once() { uv_run(turns.raw(), UV_RUN_NOWAIT); }
  std::string read_far() {
    std::string out;
    char bytes[65536];
    for (;;) {
      const auto got = ::read(far.get(), bytes, sizeof bytes);
      if (got <= 0)
        return out;
      out.append(bytes, static_cast<std::size_t>(got));
    }
  }
};

} // namespace

TEST_CASE("byte pump: bytes go both ways", "[runtime]") {
  pump_fixture on;
  on.pump->write("to the far end");
  CHECK(on.read_far() == "to the far end");
  REQUIRE(::write(on.far.get(), "and back", 8) == 8);
  on.run_once();
  CHECK(on.came == "and back");
  CHECK(!on.ended);
}

TEST_CASE("byte pump: what the far end does not take waits, in order, and its end is told", "[runtime]") {
  pump_fixture on;
  std::string sent;
  while (on.pump->queued_bytes() < 500'000) {
    const auto part = std::to_string(sent.size()) + ",";
    sent += part;
    on.pump->write(part);
  }
  CHECK(on.drained == 0);
  std::string got;
  while (got.size() < sent.size()) {
    got += on.read_far();
    on.run_once();
  }
  CHECK(got == sent);
  CHECK(on.pump->queued_bytes() == 0);
  CHECK(on.drained == 1);
}

TEST_CASE("byte pump: paused, it leaves the bytes where they are", "[runtime]") {
  pump_fixture on;
  on.pump->pause();
  REQUIRE(::write(on.far.get(), "x", 1) == 1);
  on.run_once();
  CHECK(on.came.empty());
  on.pump->resume();
  on.run_once();
  CHECK(on.came == "x");
}

TEST_CASE("byte pump: the end is told once, after the last bytes", "[runtime]") {
  pump_fixture on;
  REQUIRE(::write(on.far.get(), "last", 4) == 4);
  on.far.reset();
  for (int i = 0; i < 10 && !on.ended; ++i)
    on.run_once();
  CHECK(on.came == "last");
  CHECK(on.ended);
  on.ended.reset();
  on.pump->write("into the void");
  on.pump->resume();
  on.run_once();
  CHECK(!on.ended);
}

TEST_CASE("byte pump: its owner may destroy it from its own callback", "[runtime]") {
  loop turns;
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
  unique_fd far{ends[1]};
  std::unique_ptr<byte_pump> pump;
  pump = std::make_unique<byte_pump>(turns, unique_fd{ends[0]},
                                     byte_pump::callbacks{[&pump](std::string_view) { pump.reset(); }, [] {},
                                                          [](const std::string&) { FAIL("it is gone"); }});
  REQUIRE(::write(far.get(), "bye", 3) == 3);
  far.reset();
  for (int i = 0; i < 5; ++i)
    uv_run(turns.raw(), UV_RUN_NOWAIT);
  CHECK(!pump);
  turns.close();
}

TEST_CASE("byte pump: only PTYs are opened as such", "[runtime]") {
  temp_dir dir;
  for (const auto& path : {write_file(dir / "file", ""), std::string{"/dev/null"}, std::string{"/dev/pts/"},
                           std::string{"/dev/pts/ptmx"}, std::string{"/dev/pts/0/../../null"}, std::string{}})
    CHECK(open_pty(path).error().detail.find("is no PTY") != std::string::npos);
}

} // namespace troupe
