#include "tests/actors/actor_fixture.hpp"

#include <typeinfo>

// Clients do anything, QEMUs behave in any way, and the daemon is killed at any moment: what is true once nothing moves
// any more is true in every run. A seed is a run; a failing one is printed and replays exactly.

using namespace troupe;
using namespace troupe::sim;

namespace {

using lines = std::vector<std::string>;

constexpr int guests = 4;
constexpr std::uint64_t runs = 300;

guest_text text_of(int number) {
  // Each has an image of its own, and one that it shares.
  return {
    fmt::format("web{}", number), {fmt::format("/images/web{}.raw", number), "/images/shared.raw"}, true, "", number};
}

class simulation : public company_fixture {
public:
  /// Kernels of every kind take turns.
  explicit simulation(std::uint64_t seed)
    : company_fixture{seed, static_cast<confinement_model::kind>(seed % 3)}, draw_{seed * 7919} {
    for (int i = 1; i <= guests; ++i)
      world->add_file(fmt::format("/images/web{}.raw", i), 1000, 1000);
    world->add_file("/images/shared.raw", 0, 6);
    world->script = [this](const std::string&) { return some_script(); };
  }

  void run() {
    const auto lives = 1 + draw_() % 3;
    for (std::uint64_t life = 0; life < lives; ++life) {
      for (auto left = 3 + draw_() % 12; left > 0; --left) {
        some_order();
        for (auto steps = draw_() % 120; steps > 0 && step(); --steps) {
        }
      }
      if (draw_() % 4 != 0) {
        crash();
        ++life_;
      }
    }
    calm_ = true;
    for (const auto& each : world->alive()) { // none of them stays mute for ever
      each->script.ignores.clear();
      each->script.hangs_up_at.clear();
    }
    settle();
    // A graceful destroy leaves alone who ignores it.
    for (const auto& view : views())
      if (view->life == guest_state::stopping)
        order<done>(view->ref.name, destroy_guest{});
    settle();
  }

  /// The orders that nobody answered.
  lines unanswered() const {
    lines out;
    for (const auto& [order, is_answered] : answered_)
      if (!is_answered())
        out.push_back(order);
    return out;
  }

private:
  qemu_script some_script() {
    qemu_script how;
    if (calm_)
      return how;
    how.last_words = "qemu: something is wrong";
    switch (draw_() % 16) {
    case 0:
      how.greets = qemu_script::greeting::never;
      break;
    case 1:
      how.greets = qemu_script::greeting::garbage;
      break;
    case 2:
      how.dies_at_once = true;
      break;
    case 3:
      how.exec_error = "no such program";
      break;
    case 4:
      how.answers_after = 200ms;
      how.out_of_order = true;
      break;
    case 5:
      how.dies_of = {draw_() % 2 == 0 ? "query-chardev" : "stop"};
      how.exit_signal = 11;
      break;
    case 6:
      how.ignores = {draw_() % 2 == 0 ? "cont" : "stop"};
      break;
    case 7:
      how.refuses = {draw_() % 2 == 0 ? "cont" : "query-chardev"};
      break;
    case 8:
      how.hangs_up_at = {draw_() % 2 == 0 ? "stop" : "query-status"};
      break;
    default:
      break;
    }
    how.ignores_sigterm = draw_() % 4 == 0;
    how.ignores_powerdown = draw_() % 4 == 0;
    return how;
  }

  template <class Reply, class Handle, class Order>
  void say(Handle whom, Order what) {
    world->trace.push_back(std::string{"ask "} + typeid(Order).name());
    auto outcome = now->ask<Reply>(whom, std::move(what));
    // The daemon that dies takes its clients with it.
    answered_.emplace_back(typeid(Order).name(),
                           [outcome, life = life_, this] { return outcome->has_value() || life != life_; });
  }

  void some_order() {
    const auto number = static_cast<int>(1 + draw_() % guests);
    const auto kind = draw_() % 16;
    if (kind < 4)
      return say<guest_ref>(now->driver, define_guest{xml_of(text_of(number)), 0});
    if (kind == 4)
      return say<guest_ref>(now->driver,
                            create_guest{xml_of(text_of(number)), static_cast<std::uint32_t>(draw_() % 2), nullptr});
    if (kind == 5)
      return say<done>(now->driver, undefine_guest{uuid_for(number), 0});
    if (kind == 6)
      return say<done>(now->driver, set_autostart{uuid_for(number), draw_() % 2 == 0});
    const auto found = find(text_of(number).name);
    if (!found)
      return;
    switch (kind) {
    case 7:
      return say<done>(found->actor, destroy_guest{static_cast<std::uint32_t>(draw_() % 2)});
    case 8:
      return say<done>(found->actor, suspend_guest{});
    case 9:
      return say<done>(found->actor, resume_guest{});
    case 10:
      return say<done>(found->actor, shutdown_guest{});
    case 11:
      return say<done>(found->actor, reboot_guest{});
    case 12:
      if (const auto qemu = world->qemu_of(text_of(number).name))
        world->die(qemu, 0, 11);
      return;
    case 13:
      if (draw_() % 3 == 0)
        caf::anon_send(found->actor, completion{[] { throw std::runtime_error("a bug"); }});
      return;
    default:
      return say<guest_ref>(found->actor, start_guest{static_cast<std::uint32_t>(draw_() % 2), nullptr, nullptr});
    }
  }

  std::mt19937_64 draw_;
  bool calm_ = false;
  int life_ = 0; ///< Which daemon it is.
  std::vector<std::pair<std::string, std::function<bool()>>> answered_;
};

void simulate(std::uint64_t seed) {
  INFO("seed " << seed);
  simulation company{seed};
  company.run();
  const auto wrong = company.contradictions();
  const auto silent = company.unanswered();
  if (!(wrong.empty() && silent.empty()) && std::getenv("TROUPE_TEST_LOG") != nullptr)
    for (const auto& each : company.world->trace)
      UNSCOPED_INFO(each);
  CHECK(wrong == lines{});
  CHECK(silent == lines{});
  // The next daemon finds the same.
  company.crash();
  company.settle();
  CHECK(company.contradictions() == lines{});
}

} // namespace

TEST_CASE("company: after anything that clients, QEMUs and kill -9 do, nothing contradicts", "[actors]") {
  // TROUPE_SEED=123 runs that one alone, TROUPE_RUNS=5000 so many.
  if (const auto* one = std::getenv("TROUPE_SEED"))
    return simulate(std::strtoull(one, nullptr, 10));
  const auto* more = std::getenv("TROUPE_RUNS");
  const auto last = more != nullptr ? std::strtoull(more, nullptr, 10) : runs;
  for (std::uint64_t seed = 1; seed <= last; ++seed)
    simulate(seed);
}

TEST_CASE("company: the same seed is the same run", "[actors]") {
  for (const std::uint64_t seed : {3, 14, 15}) {
    INFO("seed " << seed);
    lines first;
    for (int i = 0; i < 2; ++i) {
      simulation company{seed};
      company.run();
      if (i == 0)
        first = company.world->trace;
      else
        CHECK(company.world->trace == first);
    }
    CHECK(first.size() > 10);
  }
}
