#include "tests/actors/actor_fixture.hpp"

using namespace troupe;
using namespace troupe::sim;

namespace {

void publish(company_fixture& company, int detail) {
  auto happened = std::make_shared<guest_event>();
  happened->guest = {"web1", uuid_for(1), -1};
  happened->what = event::lifecycle{0, detail};
  caf::anon_send(company.now->events, publish_event{std::move(happened)});
}

int detail_of(const guest_event& what) {
  return std::get<event::lifecycle>(what.what).detail;
}

} // namespace

TEST_CASE("event hub: events are numbered, logged and heard in the order they were told", "[actors]") {
  for (std::uint64_t seed = 0; seed <= 50; ++seed) {
    INFO("seed " << seed);
    company_fixture company{seed};
    company.settle();
    for (int i = 0; i < 20; ++i)
      publish(company, i);
    company.settle();
    REQUIRE(company.now->heard.size() == 20);
    REQUIRE(company.world->events.size() == 20);
    for (std::size_t i = 0; i < 20; ++i) {
      REQUIRE(detail_of(company.now->heard[i]) == static_cast<int>(i));
      REQUIRE(company.now->heard[i].sequence == i + 1);
      REQUIRE(company.world->events[i].sequence == i + 1);
      REQUIRE(json::parse(company.world->events[i].text)["detail"] == i);
    }
  }
}

TEST_CASE("event hub: what a subscriber heard is in the log, and the next daemon goes on counting", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    company_fixture company{seed};
    company.settle();
    std::mt19937_64 draw{seed};
    for (int life = 0; life < 5; ++life) {
      for (int i = 0; i < 10; ++i)
        publish(company, i);
      for (auto steps = draw() % 60; steps > 0; --steps)
        company.step();
      const auto logged = company.world->events.size();
      REQUIRE(company.now->heard.size() <= logged);
      if (!company.now->heard.empty())
        REQUIRE(company.now->heard.back().sequence <= logged);
      company.crash();
    }
    company.settle();
    for (std::size_t i = 0; i < company.world->events.size(); ++i)
      REQUIRE(company.world->events[i].sequence == i + 1);
  }
}

TEST_CASE("event hub: a ledger that is slow delays an event and loses none", "[actors]") {
  company_fixture company;
  company.settle();
  company.world->stuck = [](std::string_view call, const std::string& about) {
    return call == "make_place" && about.empty();
  };
  publish(company, 1);
  company.now->sched().run();
  CHECK(company.now->heard.empty()); // not yet written down
  company.settle();
  CHECK(company.now->heard.size() == 1);
}

TEST_CASE("event hub: one that unsubscribed or ended hears no more", "[actors]") {
  company_fixture company;
  company.settle();
  std::vector<int> heard;
  auto* all = &heard;
  const auto listen = [&] {
    const subscriber_actor ear =
      company.now->system().spawn([all](subscriber_actor::pointer) -> subscriber_actor::behavior_type {
        return {[all](const event_happened& x) { all->push_back(detail_of(*x.event)); }};
      });
    caf::anon_send(company.now->events, subscribe{caf::actor_cast<caf::strong_actor_ptr>(ear)});
    return company.now->keep(ear);
  };
  const auto first = listen();
  publish(company, 1);
  company.settle();
  CHECK(heard == std::vector{1});
  caf::anon_send(company.now->events, unsubscribe{caf::actor_cast<caf::strong_actor_ptr>(first)});
  publish(company, 2);
  company.settle();
  CHECK(heard == std::vector{1});
  const auto second = listen();
  publish(company, 3);
  company.settle();
  caf::anon_send_exit(second, caf::exit_reason::user_shutdown);
  company.settle();
  publish(company, 4);
  company.settle();
  CHECK(heard == std::vector{1, 3});
}

TEST_CASE("event hub: the log's text says who, what and the number", "[actors]") {
  guest_event what;
  what.sequence = 7;
  what.guest = {"web1", uuid_for(1), 3};
  what.what = event::io_error{"/images/a", "virtio-disk0", "enospc", 1};
  const auto text = json::parse(to_log_text(what));
  CHECK(text["guest"] == "web1");
  CHECK(text["uuid"] == uuid_for(1));
  CHECK(text["id"] == 3);
  CHECK(text["kind"] == "io_error");
  CHECK(text["path"] == "/images/a");
}
