#include "tests/actors/actor_fixture.hpp"

using namespace troupe;
using namespace troupe::sim;

namespace {

using lines = std::vector<std::string>;
using steps = std::vector<std::pair<int, int>>; ///< Lifecycle events and their details.

/// A company with one defined guest, "web1", that has an image.
struct one_guest : company_fixture {
  explicit one_guest(std::uint64_t seed = 0) : company_fixture{seed} {
    world->add_file("/images/web1.raw", 1000, 1000);
    REQUIRE(define({"web1", {"/images/web1.raw"}}));
    settle();
  }

  void script(qemu_script how) {
    world->script = [how](const std::string&) { return how; };
  }
  void fail_at(std::string_view call, const std::string& beginning = "") {
    world->fault = [call = std::string{call}, beginning](std::string_view at,
                                                         const std::string& about) -> std::optional<error> {
      if (at == call && about.starts_with(beginning))
        return error{errc::system, "the test says no"};
      return std::nullopt;
    };
  }

  /// The (event, detail) of every lifecycle event so far.
  steps lifecycle() const {
    steps out;
    for (const auto& each : now->heard)
      if (const auto* change = std::get_if<event::lifecycle>(&each.what))
        out.emplace_back(change->event, change->detail);
    return out;
  }

  void must_be_as_before() {
    settle();
    CHECK(contradictions() == lines{});
    REQUIRE(view("web1"));
    CHECK(view("web1")->life == guest_state::shutoff);
    CHECK(left_of("web1") == lines{});
    CHECK(world->files == world->first_owners);
    CHECK(world->file_rows.empty());
  }
};

std::size_t place_of(const lines& trace, const std::string& what) {
  for (std::size_t i = 0; i < trace.size(); ++i)
    if (trace[i].starts_with(what))
      return i;
  return trace.size();
}

} // namespace

TEST_CASE("guest: a start ends in a guest that runs, an end in one with nothing left", "[actors]") {
  one_guest company;
  const auto started = company.start("web1");
  REQUIRE(started);
  CHECK(started->id > 0);
  company.settle();
  CHECK(company.view("web1")->life == guest_state::running);
  CHECK(company.view("web1")->state == 1);
  REQUIRE(company.view("web1")->labels.size() == 1);
  CHECK(company.view("web1")->labels.front().process == "+64055:+108");
  CHECK(company.contradictions() == lines{});
  CHECK(company.lifecycle() == steps{{0, 0}, {4, 0}, {2, 0}});
  REQUIRE(company.destroy("web1"));
  company.must_be_as_before();
  CHECK(company.lifecycle() == steps{{0, 0}, {4, 0}, {2, 0}, {5, 1}});
}

TEST_CASE("guest: the steps of a start come in their order", "[actors]") {
  one_guest company;
  company.world->trace.clear();
  REQUIRE(company.start("web1"));
  company.settle();
  const auto& trace = company.world->trace;
  const lines order{"commit guest web1 starting",
                    "observe_files",
                    "commit files of",
                    "take_files",
                    "make_place web1",
                    "launch web1",
                    "go web1",
                    "qemu web1 query-chardev",
                    "commit guest web1 running",
                    "qemu web1 cont"};
  for (std::size_t i = 1; i < order.size(); ++i) {
    INFO(order[i - 1] << " before " << order[i] << " in\n" << fmt::format("{}", fmt::join(trace, "\n")));
    CHECK(place_of(trace, order[i]) < trace.size());
    CHECK(place_of(trace, order[i - 1]) < place_of(trace, order[i]));
  }
  CHECK(company.world->violations == lines{});
}

TEST_CASE("guest: a start that fails at any step unwinds what was done, and its answer names the guest", "[actors]") {
  const auto [call, about] = GENERATE(table<std::string, std::string>({
    {"recall_facts", ""},
    {"commit", "guest web1 starting"},
    {"observe_files", ""},
    {"commit", "files of"},
    {"take_file", ""},
    {"make_place", ""},
    {"launch", ""},
    {"reach_monitor", ""},
    {"commit", "guest web1 running"},
  }));
  INFO(call << " " << about);
  one_guest company;
  company.fail_at(call, about);
  const auto started = company.start("web1");
  REQUIRE_FALSE(started);
  INFO(started.error().message());
  CHECK(started.error().detail.find("the test says no") != std::string::npos);
  CHECK(started.error().detail.find("web1") != std::string::npos);
  company.must_be_as_before();
  company.world->fault = nullptr;
  CHECK(company.start("web1"));
  company.settle();
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("guest: a QEMU that fails its start is told of with its own last words", "[actors]") {
  one_guest company;
  qemu_script how;
  SECTION("it cannot be executed") {
    how.exec_error = "cannot execute '/usr/bin/qemu-system-x86_64': no such file";
  }
  SECTION("it dies at once") {
    how.dies_at_once = true;
    how.last_words = "qemu: cannot execute '/usr/bin/qemu-system-x86_64': no such file";
  }
  SECTION("it dies of its first command") {
    how.dies_of = {"query-chardev"};
    how.last_words = "qemu: cannot execute '/usr/bin/qemu-system-x86_64': no such file";
  }
  SECTION("it dies of being let run") {
    how.dies_of = {"cont"};
    how.last_words = "qemu: cannot execute '/usr/bin/qemu-system-x86_64': no such file";
  }
  company.script(how);
  const auto started = company.start("web1");
  REQUIRE_FALSE(started);
  INFO(started.error().message());
  CHECK(started.error().detail.find("guest 'web1'") != std::string::npos);
  CHECK(started.error().detail.find("no such file") != std::string::npos);
  company.must_be_as_before();
}

TEST_CASE("guest: a QEMU that talks garbage, hangs up or refuses a command is ended", "[actors]") {
  one_guest company;
  qemu_script how;
  SECTION("garbage") {
    how.greets = qemu_script::greeting::garbage;
  }
  SECTION("it hangs up") {
    how.hangs_up_at = {"query-chardev"};
  }
  SECTION("it refuses to be asked") {
    how.refuses = {"query-chardev"};
  }
  SECTION("it refuses to run") {
    how.refuses = {"cont"};
  }
  SECTION("it never answers") {
    how.ignores = {"query-chardev"};
  }
  SECTION("it never runs") {
    how.ignores = {"cont"};
  }
  SECTION("it never runs, and SIGTERM does not move it") {
    how.ignores = {"cont"};
    how.ignores_sigterm = true;
  }
  company.script(how);
  const auto started = company.start("web1");
  REQUIRE_FALSE(started);
  INFO(started.error().message());
  CHECK(started.error().detail.find("guest 'web1'") != std::string::npos);
  company.must_be_as_before();
}

TEST_CASE("guest: a QEMU that never greets is given up at its deadline, and others start meanwhile", "[actors]") {
  one_guest company;
  company.world->add_file("/images/web2.raw", 1000, 1000);
  REQUIRE(company.define({"web2", {"/images/web2.raw"}, false, "", 2}));
  company.world->script = [](const std::string& guest) {
    qemu_script how;
    if (guest == "web1")
      how.greets = qemu_script::greeting::never;
    return how;
  };
  const auto stuck = company.order<guest_ref>("web1", start_guest{});
  const auto began = company.world->now;
  REQUIRE(company.start("web2"));
  CHECK(company.world->now - began < 5s);
  CHECK_FALSE(stuck->has_value());
  const auto started = company.answer(stuck);
  REQUIRE_FALSE(started);
  CHECK(started.error().code == errc::timed_out);
  CHECK(started.error().detail.find("guest 'web1'") == 0);
  CHECK(company.world->now - began >= 30s);
  CHECK(company.world->now - began < 40s);
  CHECK(company.view("web2")->life == guest_state::running);
  REQUIRE(company.destroy("web2"));
  company.must_be_as_before();
}

TEST_CASE("guest: a destroy at any moment of a start ends in shutoff with nothing left", "[actors]") {
  int lasted = 0;
  for (int after = 0;; ++after) {
    INFO("destroyed after " << after << " steps");
    one_guest company;
    const auto target = company.actor("web1");
    const auto starting = company.now->ask<guest_ref>(target, start_guest{});
    for (int i = 0; i < after; ++i)
      company.step();
    const bool over = starting->has_value();
    const auto destroying = company.now->ask<done>(target, destroy_guest{});
    const auto destroyed = company.answer(destroying);
    const auto started = company.answer(starting);
    if (!destroyed) {
      REQUIRE(destroyed.error().code == errc::wrong_state); // it came before the start
      company.settle();
      REQUIRE(company.contradictions() == lines{});
      continue;
    }
    if (!started)
      REQUIRE(started.error().detail.find("guest 'web1'") == 0);
    company.must_be_as_before();
    if (over && ++lasted > 3)
      break;
  }
}

TEST_CASE("guest: what happens in any order leaves no contradiction: destroy at a random moment", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    INFO("seed " << seed);
    one_guest company{seed};
    const auto target = company.actor("web1");
    const auto starting = company.now->ask<guest_ref>(target, start_guest{});
    for (auto left = company.world->draw() % 120; left > 0; --left)
      company.step();
    const auto destroying = company.now->ask<done>(target, destroy_guest{});
    company.answer(starting);
    const auto destroyed = company.answer(destroying);
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    if (destroyed)
      REQUIRE(company.view("web1")->life == guest_state::shutoff);
  }
}

TEST_CASE("guest: a second start is refused at every moment of the first", "[actors]") {
  one_guest company;
  const auto first = company.order<guest_ref>("web1", start_guest{});
  for (int i = 0; i < 60; ++i) {
    const auto second = company.answer(company.order<guest_ref>("web1", start_guest{}));
    REQUIRE_FALSE(second);
    REQUIRE(second.error().code == errc::wrong_state);
    company.step();
  }
  REQUIRE(company.answer(first));
  const auto third = company.start("web1");
  REQUIRE_FALSE(third);
  CHECK(third.error().detail == "domain is already running");
  company.settle();
  CHECK(company.world->alive().size() == 1);
}

TEST_CASE("guest: a paused start holds the guest until it is resumed", "[actors]") {
  one_guest company;
  REQUIRE(company.start("web1", 1));
  company.settle();
  CHECK(company.view("web1")->life == guest_state::paused);
  CHECK(company.view("web1")->state == 3);
  CHECK(company.contradictions() == lines{});
  REQUIRE(company.answer(company.order<done>("web1", resume_guest{})));
  company.settle();
  CHECK(company.view("web1")->state == 1);
  const auto again = company.answer(company.order<done>("web1", resume_guest{}));
  REQUIRE_FALSE(again);
  CHECK(again.error().code == errc::wrong_state);
  REQUIRE(company.answer(company.order<done>("web1", suspend_guest{})));
  company.settle();
  CHECK(company.view("web1")->state == 3);
  CHECK(company.view("web1")->reason == 1);
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("guest: one that is resumed before its paused start is over is shown as it is", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    one_guest company{seed};
    const auto target = company.actor("web1");
    const auto starting = company.now->ask<guest_ref>(target, start_guest{1, nullptr, nullptr});
    outcome<done> resuming;
    do {
      company.step();
      resuming = company.now->ask<done>(target, resume_guest{});
    } while (!company.answer(resuming));
    REQUIRE(company.answer(starting));
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    REQUIRE(company.view("web1")->state == 1);
  }
}

TEST_CASE("guest: one that is suspended before its start is over is held when it is", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    one_guest company{seed};
    const auto target = company.actor("web1");
    const auto starting = company.now->ask<guest_ref>(target, start_guest{});
    outcome<done> suspending;
    do {
      company.step();
      suspending = company.now->ask<done>(target, suspend_guest{});
    } while (!company.answer(suspending));
    REQUIRE(company.answer(starting));
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    REQUIRE(company.view("web1")->state == 3);
    REQUIRE(company.view("web1")->reason == 1);
    REQUIRE(company.lifecycle() == steps{{0, 0}, {4, 0}, {2, 0}, {3, 0}});
  }
}

TEST_CASE("guest: with autodestroy it ends with the connection that started it", "[actors]") {
  one_guest company;
  const auto owner = company.now->bystander();
  const auto starting =
    company.order<guest_ref>("web1", start_guest{2, caf::actor_cast<caf::strong_actor_ptr>(owner), nullptr});
  SECTION("once it runs") {
    REQUIRE(company.answer(starting));
  }
  SECTION("while it starts") {
    for (int i = 0; i < 25; ++i)
      company.step();
  }
  SECTION("at once") {}
  caf::anon_send_exit(owner, caf::exit_reason::user_shutdown);
  company.must_be_as_before();
}

TEST_CASE("guest: without autodestroy it outlives the connection", "[actors]") {
  one_guest company;
  const auto owner = company.now->bystander();
  REQUIRE(company.answer(
    company.order<guest_ref>("web1", start_guest{0, caf::actor_cast<caf::strong_actor_ptr>(owner), nullptr})));
  caf::anon_send_exit(owner, caf::exit_reason::user_shutdown);
  company.settle();
  CHECK(company.view("web1")->life == guest_state::running);
}

TEST_CASE("guest: a QEMU that dies is noticed in every state, and told as a crash", "[actors]") {
  one_guest company;
  SECTION("running") {
    REQUIRE(company.start("web1"));
  }
  SECTION("paused") {
    REQUIRE(company.start("web1", 1));
  }
  SECTION("while its monitor is silent") {
    qemu_script how;
    how.ignores = {"stop"};
    company.script(how);
    REQUIRE(company.start("web1"));
    const auto pausing = company.order<done>("web1", suspend_guest{});
    company.run_for(1s);
    company.world->die(company.world->qemu_of("web1"), 0, 11);
    const auto paused = company.answer(pausing);
    REQUIRE_FALSE(paused);
    CHECK(paused.error().code == errc::qemu_gone);
  }
  if (auto qemu = company.world->qemu_of("web1"))
    company.world->die(qemu, 0, 11);
  company.must_be_as_before();
  CHECK(company.lifecycle().back() == std::pair{5, 2});
}

TEST_CASE("guest: who waits for QEMU's answer hears of its end, whatever is noticed first", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    one_guest company{seed};
    qemu_script how;
    how.ignores = {"stop"};
    company.script(how);
    REQUIRE(company.start("web1"));
    const auto pausing = company.order<done>("web1", suspend_guest{});
    const auto asking = company.order<std::string>("web1", monitor_command{R"({"execute":"stop"})", false});
    company.run_for(10ms);
    const bool actor_fails = seed % 4 == 0;
    if (actor_fails)
      caf::anon_send(company.actor("web1"), completion{[] { throw std::runtime_error("a bug"); }});
    else
      company.world->die(company.world->qemu_of("web1"), 0, 11);
    company.run_for(20s); // less than QEMU has for an answer
    REQUIRE(pausing->has_value());
    REQUIRE(asking->has_value());
    CHECK((**pausing).error().code == (actor_fails ? errc::aborted : errc::qemu_gone));
    CHECK((**asking).error().code == (actor_fails ? errc::aborted : errc::qemu_gone));
  }
}

TEST_CASE("guest: a power-off by the guest ends it as a shutdown", "[actors]") {
  one_guest company;
  REQUIRE(company.start("web1"));
  REQUIRE(company.answer(company.order<done>("web1", shutdown_guest{})));
  company.must_be_as_before();
  CHECK(company.view("web1")->reason == 1);
  const auto told = company.lifecycle();
  CHECK(told.back() == std::pair{5, 0});
  CHECK(std::ranges::count(told, std::pair{5, 0}) == 1);
  CHECK(std::ranges::count(told, std::pair{6, 1}) == 1);
}

TEST_CASE("guest: a reboot keeps its QEMU", "[actors]") {
  one_guest company;
  REQUIRE(company.start("web1"));
  const auto pid = company.view("web1")->pid;
  REQUIRE(company.answer(company.order<done>("web1", reboot_guest{})));
  company.settle();
  CHECK(company.view("web1")->pid == pid);
  CHECK(company.view("web1")->life == guest_state::running);
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("guest: a destroy of a QEMU that ignores SIGTERM ends it by SIGKILL, a graceful one never does", "[actors]") {
  one_guest company;
  qemu_script how;
  how.ignores_sigterm = true;
  company.script(how);
  REQUIRE(company.start("web1"));
  const auto killed = [&] { return place_of(company.world->trace, "signal web1 9") < company.world->trace.size(); };
  const auto graceful = company.answer(company.order<done>("web1", destroy_guest{1}));
  REQUIRE_FALSE(graceful);
  CHECK(graceful.error().code == errc::busy);
  CHECK(graceful.error().detail.find("guest 'web1'") == 0);
  company.settle();
  CHECK_FALSE(killed());
  // Who insists gets it.
  REQUIRE(company.destroy("web1"));
  CHECK(killed());
  company.must_be_as_before();
}

TEST_CASE("guest: a monitor that hangs up under a running guest is connected anew, and the state learned again",
          "[actors]") {
  one_guest company;
  qemu_script how;
  how.hangs_up_at = {"stop"};
  company.script(how);
  REQUIRE(company.start("web1"));
  const auto pausing = company.answer(company.order<done>("web1", suspend_guest{}));
  REQUIRE_FALSE(pausing);
  CHECK(pausing.error().code == errc::qemu_gone);
  CHECK(pausing.error().detail.find("guest 'web1'") == 0);
  company.settle();
  CHECK(company.view("web1")->life == guest_state::running);
  REQUIRE(company.answer(company.order<done>("web1", suspend_guest{})));
  company.settle();
  CHECK(company.view("web1")->state == 3);
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("guest: a command QEMU never answers fails at its deadline and holds up no other order", "[actors]") {
  one_guest company;
  qemu_script how;
  how.ignores = {"system_reset"};
  how.out_of_order = true;
  company.script(how);
  REQUIRE(company.start("web1"));
  const auto resetting = company.order<done>("web1", reset_guest{});
  REQUIRE(company.answer(company.order<done>("web1", suspend_guest{})));
  CHECK_FALSE(resetting->has_value());
  const auto reset = company.answer(resetting);
  REQUIRE_FALSE(reset);
  CHECK(reset.error().code == errc::timed_out);
  CHECK(reset.error().detail.find("guest 'web1'") == 0);
  REQUIRE(company.destroy("web1"));
  company.must_be_as_before();
}

TEST_CASE("guest: the next daemon adopts it with its id, its pid and its state", "[actors]") {
  one_guest company;
  const bool paused = GENERATE(false, true);
  REQUIRE(company.start("web1", paused ? 1 : 0));
  company.settle();
  const auto before = company.view("web1");
  const auto told = company.world->events.size();
  company.crash();
  company.settle();
  const auto after = company.view("web1");
  CHECK(after->ref.id == before->ref.id);
  CHECK(after->pid == before->pid);
  CHECK(after->life == before->life);
  CHECK(after->state == before->state);
  CHECK(after->reason == before->reason);
  CHECK(after->labels == before->labels);
  CHECK(company.contradictions() == lines{});
  CHECK(company.world->events.size() == told); // nothing happened to it
  REQUIRE(company.destroy("web1"));
  company.must_be_as_before();
}

TEST_CASE("guest: one whose monitor cannot be reached is tried again until it is adopted", "[actors]") {
  one_guest company;
  REQUIRE(company.start("web1"));
  company.settle();
  const auto before = company.view("web1");
  int refusals = 6;
  company.world->fault = [&](std::string_view at, const std::string&) -> std::optional<error> {
    if (at == "reach_monitor" && refusals-- > 0)
      return error{errc::system, "the test says no"};
    return std::nullopt;
  };
  company.crash();
  company.settle();
  CHECK(refusals < 0);
  CHECK(company.view("web1")->life == guest_state::running);
  CHECK(company.view("web1")->pid == before->pid);
  CHECK(company.contradictions() == lines{});
  REQUIRE(company.destroy("web1"));
  company.must_be_as_before();
}

TEST_CASE("guest: what happened to it between two daemons is told by the next", "[actors]") {
  one_guest company;
  REQUIRE(company.start("web1"));
  company.settle();
  const auto qemu = company.world->qemu_of("web1");
  company.now.reset();
  SECTION("it died") {
    company.world->die(qemu, 0, 11);
    company.begin();
    company.must_be_as_before();
    REQUIRE_FALSE(company.lifecycle().empty());
    CHECK(company.lifecycle().back().first == 5);
  }
  SECTION("it was powered off") {
    company.world->power_off(qemu);
    company.begin();
    company.must_be_as_before();
    CHECK(company.lifecycle().back() == std::pair{5, 0});
  }
  SECTION("the machine was booted anew") {
    company.world->die(qemu, 0, 9);
    for (auto& [uuid, row] : company.world->rows)
      row.boot_id = "another";
    company.begin();
    company.must_be_as_before();
  }
  SECTION("its pid went to another") {
    company.world->die(qemu, 0, 9);
    auto other = std::make_shared<fake_qemu>();
    other->id = {qemu->id.pid, qemu->id.start_time + 5};
    other->guest = "not a guest";
    other->is = fake_qemu::stage::running;
    company.world->processes[qemu->id.pid] = other;
    company.begin();
    company.settle();
    CHECK(company.view("web1")->life == guest_state::shutoff);
    CHECK(other->alive());
    CHECK(company.contradictions() ==
          lines{fmt::format("QEMU {} of not a guest runs and no guest knows it", other->id.pid)});
  }
}

TEST_CASE("guest: kill -9 of the daemon at any moment of a start leaves it running or shut off, with no rest",
          "[actors]") {
  bool ran = false, was_shut_off = false;
  for (int after = 0;; ++after) {
    INFO("killed after " << after << " steps");
    one_guest company;
    const auto starting = company.now->ask<guest_ref>(company.actor("web1"), start_guest{});
    for (int i = 0; i < after; ++i)
      company.step();
    const bool over = starting->has_value();
    company.crash();
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    const auto life = company.view("web1")->life;
    (life == guest_state::shutoff ? was_shut_off : ran) = true;
    if (over) {
      REQUIRE(life == guest_state::running);
      break;
    }
  }
  CHECK(ran);
  CHECK(was_shut_off);
}

TEST_CASE("guest: kill -9 of the daemon at any moment of an end does not bring it back", "[actors]") {
  for (int after = 0;; ++after) {
    INFO("killed after " << after << " steps");
    one_guest company;
    REQUIRE(company.start("web1"));
    company.settle();
    const auto ending = company.now->ask<done>(company.actor("web1"), destroy_guest{});
    for (int i = 0; i < after; ++i)
      company.step();
    const bool over = ending->has_value();
    company.crash();
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    if (over) {
      REQUIRE(company.view("web1")->life == guest_state::shutoff);
      break;
    }
  }
}
