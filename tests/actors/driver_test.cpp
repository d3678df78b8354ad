#include "tests/actors/actor_fixture.hpp"

using namespace troupe;
using namespace troupe::sim;

namespace {

using lines = std::vector<std::string>;

struct company_of_three : company_fixture {
  explicit company_of_three(std::uint64_t seed = 0) : company_fixture{seed} {
    for (int i = 1; i <= 3; ++i) {
      world->add_file(fmt::format("/images/web{}.raw", i), 1000, 1000);
      REQUIRE(define(text(i)));
    }
    settle();
  }
  static guest_text text(int number) {
    return {fmt::format("web{}", number), {fmt::format("/images/web{}.raw", number)}, false, "", number};
  }
  outcome<guest_ref> defining(const guest_text& guest) {
    return now->ask<guest_ref>(now->driver, define_guest{xml_of(guest), 0});
  }
  outcome<guest_ref> creating(const guest_text& guest, std::uint32_t flags = 0) {
    return now->ask<guest_ref>(now->driver, create_guest{xml_of(guest), flags, nullptr});
  }
  outcome<done> undefining(int number) { return now->ask<done>(now->driver, undefine_guest{uuid_for(number), 0}); }
  outcome<done> marking(int number, bool on) {
    return now->ask<done>(now->driver, set_autostart{uuid_for(number), on});
  }
  void let_actor_fail(const std::string& name) {
    caf::anon_send(actor(name), completion{[] { throw std::runtime_error("a bug"); }});
  }
};

} // namespace

TEST_CASE("driver: guests are found by name, by UUID and, while active, by id", "[actors]") {
  company_of_three company;
  const auto by = [&](find_guest::key key, const std::string& text, int id = -1) {
    return company.answer(company.now->ask<guest_entry>(company.now->driver, find_guest{key, text, id}));
  };
  CHECK(by(find_guest::key::name, "web2"));
  CHECK(by(find_guest::key::uuid, uuid_for(2)));
  CHECK(by(find_guest::key::name, "web9").error().code == errc::no_such_guest);
  CHECK(by(find_guest::key::uuid, uuid_for(9)).error().code == errc::no_such_guest);
  const auto started = company.start("web2");
  REQUIRE(started);
  REQUIRE(by(find_guest::key::id, "", started->id));
  CHECK(by(find_guest::key::id, "", started->id)->view->ref.name == "web2");
  REQUIRE(company.destroy("web2"));
  company.settle();
  CHECK(by(find_guest::key::id, "", started->id).error().code == errc::no_such_guest);
}

TEST_CASE("driver: a definition is on disk before its answer, and the next daemon has it", "[actors]") {
  company_of_three company;
  CHECK(company.world->definitions.size() == 3);
  REQUIRE(company.answer(company.marking(2, true)));
  company.crash();
  company.settle();
  CHECK(company.views().size() == 3);
  CHECK(company.view("web2")->autostart);
  CHECK_FALSE(company.view("web1")->autostart);
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: a definition the disk does not take changes nothing", "[actors]") {
  company_of_three company;
  company.world->fault = [](std::string_view call, const std::string&) -> std::optional<error> {
    if (call == "save_definition" || call == "remove_definition" || call == "save_autostart")
      return error{errc::system, "no space left on device"};
    return std::nullopt;
  };
  CHECK(company.answer(company.defining({"web4", {}, false, "", 4})).error().code == errc::system);
  CHECK(company.answer(company.undefining(1)).error().code == errc::system);
  CHECK(company.answer(company.marking(1, true)).error().code == errc::system);
  company.settle();
  CHECK(company.views().size() == 3);
  CHECK(company.contradictions() == lines{});
  company.world->fault = nullptr;
  CHECK(company.answer(company.undefining(1)));
  company.settle();
  CHECK(company.views().size() == 2);
}

TEST_CASE("driver: a name or a UUID that is taken is refused", "[actors]") {
  company_of_three company;
  CHECK(company.answer(company.defining({"web1", {}, false, "", 7})).error().code == errc::operation_failed);
  CHECK(company.answer(company.defining({"web7", {}, false, "", 1})).error().code == errc::operation_failed);
  CHECK(company.answer(company.creating({"web1", {}, false, "", 7})).error().code == errc::operation_failed);
  company.settle();
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: of two that define one name under two UUIDs at the same time one wins", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    INFO("seed " << seed);
    company_of_three company{seed};
    const auto a = company.defining({"web8", {}, false, "", 8});
    const auto b = company.defining({"web8", {}, false, "", 9});
    const auto c = company.defining({"web9", {}, false, "", 8});
    const int won = company.answer(a).has_value() + company.answer(b).has_value() + company.answer(c).has_value();
    company.settle();
    REQUIRE(won >= 1);
    REQUIRE(company.contradictions() == lines{});
    const auto before = company.views().size();
    company.crash();
    company.settle();
    REQUIRE(company.views().size() == before);
    REQUIRE(company.contradictions() == lines{});
  }
}

TEST_CASE("driver: creates, defines, undefines and starts of one guest at the same time leave no contradiction",
          "[actors]") {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    INFO("seed " << seed);
    company_of_three company{seed};
    auto& draw = company.world->draw;
    std::vector<std::function<bool()>> answered;
    const auto keep = [&](auto outcome) { answered.push_back([outcome] { return outcome->has_value(); }); };
    for (int i = 0; i < 6; ++i) {
      switch (draw() % 5) {
      case 0:
        keep(company.creating(company_of_three::text(1)));
        break;
      case 1:
        keep(company.defining(company_of_three::text(1)));
        break;
      case 2:
        keep(company.undefining(1));
        break;
      case 3:
        keep(company.marking(1, draw() % 2 == 0));
        break;
      default:
        if (const auto found = company.find("web1")) {
          if (draw() % 2 == 0)
            keep(company.now->ask<guest_ref>(found->actor, start_guest{}));
          else
            keep(company.now->ask<done>(found->actor, destroy_guest{}));
        }
      }
      for (auto steps = draw() % 40; steps > 0; --steps)
        company.step();
    }
    REQUIRE(company.run_until([&] { return std::ranges::all_of(answered, [](const auto& each) { return each(); }); }));
    company.settle();
    REQUIRE(company.contradictions() == lines{});
  }
}

TEST_CASE("driver: a transient guest is gone when it ends, and so is one undefined while it runs", "[actors]") {
  company_of_three company;
  company.world->add_file("/images/tmp.raw", 7, 7);
  const guest_text text{"tmp", {"/images/tmp.raw"}, false, "", 50};
  REQUIRE(company.answer(company.creating(text)));
  company.settle();
  REQUIRE(company.view("tmp"));
  CHECK_FALSE(company.view("tmp")->persistent);
  CHECK(company.contradictions() == lines{});
  CHECK(company.answer(company.creating(text)).error().code == errc::operation_failed);
  REQUIRE(company.start("web1"));
  REQUIRE(company.answer(company.undefining(1)));
  company.settle();
  CHECK_FALSE(company.view("web1")->persistent);
  CHECK(company.contradictions() == lines{});
  SECTION("under one daemon") {}
  SECTION("under the next") {
    company.crash();
    company.settle();
    CHECK_FALSE(company.view("web1")->persistent);
    CHECK_FALSE(company.view("tmp")->persistent);
    CHECK(company.contradictions() == lines{});
  }
  REQUIRE(company.destroy("web1"));
  REQUIRE(company.destroy("tmp"));
  company.settle();
  CHECK_FALSE(company.view("web1"));
  CHECK_FALSE(company.view("tmp"));
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: a transient guest whose start fails leaves nothing, and its text can be created again", "[actors]") {
  company_of_three company;
  company.world->script = [](const std::string&) {
    qemu_script how;
    how.dies_at_once = true;
    return how;
  };
  const guest_text text{"tmp", {}, false, "", 50};
  CHECK_FALSE(company.answer(company.creating(text)));
  company.settle();
  CHECK_FALSE(company.view("tmp"));
  CHECK(company.contradictions() == lines{});
  company.world->script = [](const std::string&) { return qemu_script{}; };
  CHECK(company.answer(company.creating(text)));
}

TEST_CASE("driver: guests marked for autostart start once after each boot of the machine", "[actors]") {
  company_of_three company;
  REQUIRE(company.answer(company.marking(1, true)));
  REQUIRE(company.answer(company.marking(3, true)));
  company.crash();
  company.settle();
  CHECK(company.world->alive().empty()); // the same boot
  company.world->values.erase("autostarted");
  company.crash();
  company.settle();
  CHECK(company.view("web1")->life == guest_state::running);
  CHECK(company.view("web2")->life == guest_state::shutoff);
  CHECK(company.view("web3")->life == guest_state::running);
  REQUIRE(company.destroy("web1"));
  company.crash();
  company.settle();
  CHECK(company.view("web1")->life == guest_state::shutoff);
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: ids go up, and are not given again by the next daemon", "[actors]") {
  company_of_three company;
  int last = 0;
  for (int i = 0; i < 6; ++i) {
    const auto started = company.start("web1");
    REQUIRE(started);
    CHECK(started->id > last);
    last = started->id;
    REQUIRE(company.destroy("web1"));
    if (i % 2 == 1) {
      company.settle();
      company.crash();
      company.settle();
    }
  }
}

TEST_CASE("driver: a guest's actor that fails is replaced, and the new one has the same QEMU", "[actors]") {
  company_of_three company;
  REQUIRE(company.start("web1"));
  company.settle();
  const auto before = company.view("web1");
  company.let_actor_fail("web1");
  company.settle();
  const auto after = company.view("web1");
  CHECK(after->pid == before->pid);
  CHECK(after->ref.id == before->ref.id);
  CHECK(after->life == guest_state::running);
  CHECK(company.contradictions() == lines{});
  REQUIRE(company.destroy("web1"));
  company.settle();
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: a guest's actor that fails at any moment of a start leaves no contradiction", "[actors]") {
  for (int steps = 0;; ++steps) {
    INFO("failed after " << steps << " steps");
    company_of_three company;
    const auto starting = company.order<guest_ref>("web1", start_guest{});
    for (int i = 0; i < steps; ++i)
      company.step();
    const bool over = starting->has_value();
    company.let_actor_fail("web1");
    company.answer(starting);
    company.settle();
    REQUIRE(company.contradictions() == lines{});
    if (over)
      break;
  }
}

TEST_CASE("driver: a guest's actor that keeps failing is left alone, and its QEMU runs on", "[actors]") {
  company_of_three company;
  REQUIRE(company.start("web1"));
  company.settle();
  const auto pid = company.view("web1")->pid;
  for (int i = 0; i < 6; ++i) {
    company.let_actor_fail("web1");
    company.run_for(1s);
  }
  CHECK(company.view("web1")->pid == pid);
  CHECK(company.world->process_at(pid)->alive());
  const auto ordered = company.answer(company.order<done>("web1", suspend_guest{}));
  CHECK_FALSE(ordered);
  // Others are not concerned.
  CHECK(company.start("web2"));
  // And a new daemon takes it up again.
  company.crash();
  company.settle();
  CHECK(company.view("web1")->pid == pid);
  CHECK(company.answer(company.order<done>("web1", suspend_guest{})));
}

TEST_CASE("driver: an actor that fails now and then is always replaced", "[actors]") {
  company_of_three company;
  REQUIRE(company.start("web1"));
  for (int i = 0; i < 12; ++i) {
    company.let_actor_fail("web1");
    company.run_for(20s);
  }
  REQUIRE(company.destroy("web1"));
  company.settle();
  CHECK(company.contradictions() == lines{});
}

TEST_CASE("driver: a guest whose host calls never answer delays no other", "[actors]") {
  const std::string call =
    GENERATE("observe_files", "take_files", "make_place", "remove_place", "give_back_files", "launch");
  INFO(call);
  company_of_three company;
  company.world->stuck = [&](std::string_view at, const std::string& about) {
    return at == call && about.find("web1") != std::string::npos;
  };
  const auto stuck = company.order<guest_ref>("web1", start_guest{});
  company.run_for(100ms);
  const auto ending = company.order<done>("web1", destroy_guest{});
  for (int round = 0; round < 2; ++round) {
    const auto began = company.world->now;
    REQUIRE(company.start("web2"));
    REQUIRE(company.destroy("web2"));
    REQUIRE(company.views().size() == 3);
    REQUIRE(company.world->now - began < 3s);
  }
}

TEST_CASE("driver: lists show what their flags ask for", "[actors]") {
  company_of_three company;
  REQUIRE(company.start("web1"));
  company.settle();
  const auto count = [&](std::uint32_t flags) {
    return company.answer(company.now->ask<std::vector<guest_view_ptr>>(company.now->driver, list_guests{flags}))
      ->size();
  };
  CHECK(count(0) == 3);
  CHECK(count(1) == 1);
  CHECK(count(2) == 2);
  CHECK(count(1 | 2) == 3);
  CHECK(count(1 | 64) == 0);
  CHECK(company.answer(company.now->ask<std::vector<guest_view_ptr>>(company.now->driver, list_guests{1u << 30}))
          .error()
          .code == errc::bad_argument);
}
