#include "tests/actors/actor_fixture.hpp"

using namespace troupe;
using namespace troupe::sim;

namespace {

using lines = std::vector<std::string>;

/// What a QEMU answers to a probe.
qemu_script probed() {
  qemu_script how;
  how.says = {
    {"query-version", {{"qemu", {{"major", 7}, {"minor", 2}, {"micro", 0}}}, {"package", ""}}},
    {"query-target", {{"arch", "x86_64"}}},
    {"query-kvm", {{"enabled", false}, {"present", false}}},
    {"query-machines", json::parse(R"([{"name": "pc-i440fx-7.2", "alias": "pc", "is-default": true, "cpu-max": 255,
      "hotpluggable-cpus": true, "numa-mem-supported": false, "deprecated": false}])")},
    {"qom-list-types", json::parse(R"([{"name": "e1000", "parent": "y"}])")},
    {"query-cpu-definitions", json::array()},
  };
  return how;
}

/// A company whose cache knows nothing of two emulators.
struct probing : company_fixture {
  explicit probing(std::uint64_t seed = 0) : company_fixture{seed} {
    world->facts = {{"/usr/bin/qemu-a", ""}, {"/usr/bin/qemu-b", ""}};
    world->script = [](const std::string&) { return probed(); };
    crash();
  }
  outcome<emulator_facts_ptr> wants(const std::string& binary) {
    return now->ask<emulator_facts_ptr>(now->prober, emulator_wanted{binary});
  }
  long launches_of(const std::string& binary) const {
    return std::ranges::count(world->trace, "launch probe of " + binary);
  }
  /// Nothing of any probe is left.
  void must_be_clean() {
    settle();
    CHECK(world->alive().empty());
    CHECK(world->run_dirs.empty());
  }
};

} // namespace

TEST_CASE("prober: a host with many emulators is probed a few at a time", "[actors]") {
  probing company;
  constexpr int emulators = 12;
  for (int i = 0; i < emulators; ++i)
    company.world->facts[fmt::format("/usr/bin/qemu-{:02}", i)] = "";
  std::vector<outcome<emulator_facts_ptr>> all;
  for (int i = 0; i < emulators; ++i)
    all.push_back(company.wants(fmt::format("/usr/bin/qemu-{:02}", i)));
  std::size_t most = 0;
  while (company.step())
    most = std::max(most, company.world->run_dirs.size());
  CHECK(most > 1);
  CHECK(most <= 4);
  for (auto& each : all) {
    const auto facts = company.answer(each);
    INFO((facts ? std::string{} : facts.error().message()));
    CHECK(facts);
  }
  company.must_be_clean();
}

TEST_CASE("prober: each binary is probed once however many ask", "[actors]") {
  for (std::uint64_t seed = 0; seed <= 30; ++seed) {
    INFO("seed " << seed);
    probing company{seed};
    std::vector<outcome<emulator_facts_ptr>> all;
    for (int i = 0; i < 5; ++i) {
      all.push_back(company.wants("/usr/bin/qemu-a"));
      all.push_back(company.wants("/usr/bin/qemu-b"));
      for (auto steps = company.world->draw() % 20; steps > 0; --steps)
        company.step();
    }
    for (auto& each : all) {
      const auto facts = company.answer(each);
      REQUIRE(facts);
      REQUIRE((*facts)->arch == "x86_64");
    }
    REQUIRE(company.launches_of("/usr/bin/qemu-a") == 1);
    REQUIRE(company.launches_of("/usr/bin/qemu-b") == 1);
    company.must_be_clean();
  }
}

TEST_CASE("prober: what was learned is remembered by the next daemon", "[actors]") {
  probing company;
  REQUIRE(company.answer(company.wants("/usr/bin/qemu-a")));
  company.settle();
  company.crash();
  const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
  REQUIRE(facts);
  CHECK((*facts)->binary == "/usr/bin/qemu-a");
  CHECK(company.launches_of("/usr/bin/qemu-a") == 1);
}

TEST_CASE("prober: a probe that gets stuck is killed, and delays no other", "[actors]") {
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", ""}, {"/usr/bin/qemu-b", ""}};
  company.world->script = [](const std::string& guest) {
    auto how = probed();
    if (guest.ends_with("qemu-a")) {
      how.greets = qemu_script::greeting::never;
      how.ignores_sigterm = true;
    }
    return how;
  };
  company.crash();
  const auto stuck = company.wants("/usr/bin/qemu-a");
  REQUIRE(company.answer(company.wants("/usr/bin/qemu-b")));
  CHECK_FALSE(stuck->has_value());
  const auto facts = company.answer(stuck);
  REQUIRE_FALSE(facts);
  CHECK(facts.error().detail.find("/usr/bin/qemu-a") != std::string::npos);
  company.must_be_clean();
}

TEST_CASE("prober: an emulator that ends, hangs up or is none is told of by name, with its words", "[actors]") {
  auto how = probed();
  SECTION("it dies at once") {
    how.dies_at_once = true;
    how.last_words = "missing library";
  }
  SECTION("it cannot be executed") {
    how.exec_error = "missing library";
  }
  SECTION("it dies of a question") {
    how.dies_of = {"query-machines"};
    how.last_words = "missing library";
  }
  SECTION("it talks garbage") {
    how.greets = qemu_script::greeting::garbage;
  }
  SECTION("it never answers") {
    how.ignores = {"query-machines"};
  }
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", ""}};
  company.world->script = [how](const std::string&) { return how; };
  company.crash();
  const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
  REQUIRE_FALSE(facts);
  INFO(facts.error().detail);
  CHECK(facts.error().detail.find("/usr/bin/qemu-a") != std::string::npos);
  if (!how.last_words.empty() || !how.exec_error.empty())
    CHECK(facts.error().detail.find("missing library") != std::string::npos);
  company.must_be_clean();
}

TEST_CASE("prober: a binary that is not there is refused, and asked for again when it is", "[actors]") {
  probing company;
  const auto missing = company.answer(company.wants("/usr/bin/qemu-z"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().detail.find("/usr/bin/qemu-z") != std::string::npos);
  company.world->facts["/usr/bin/qemu-z"] = "";
  CHECK(company.answer(company.wants("/usr/bin/qemu-z")));
}

TEST_CASE("prober: an emulator that was replaced is probed anew, and what the cache has of the new one is enough", "[actors]") {
  probing company;
  REQUIRE(company.answer(company.wants("/usr/bin/qemu-a")));
  company.world->builds["/usr/bin/qemu-a"] = " 2"; // its time, its size, the kernel or the microcode
  for (int i = 0; i < 3; ++i)
    REQUIRE(company.answer(company.wants("/usr/bin/qemu-a")));
  CHECK(company.launches_of("/usr/bin/qemu-a") == 2);
  company.settle();
  company.crash();
  REQUIRE(company.answer(company.wants("/usr/bin/qemu-a")));
  CHECK(company.launches_of("/usr/bin/qemu-a") == 2);
  company.must_be_clean();
}

TEST_CASE("prober: a cache that is damaged is the same as none", "[actors]") {
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", R"({"format": 2, "binary": 7})"}};
  company.world->trace.clear();
  company.crash();
  CHECK(company.answer(company.wants("/usr/bin/qemu-a")));
  CHECK(company.launches_of("/usr/bin/qemu-a") == 1);
}

TEST_CASE("prober: /dev/kvm that the emulator may not open costs one probe, whoever asks and however often", "[actors]") {
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", ""}};
  company.world->kvm_opens = true; // for the daemon
  company.world->trace.clear();
  int probes = 0;
  company.world->script = [&probes](const std::string&) {
    auto how = probed();
    if (++probes == 2) { // the first is without KVM
      how.dies_at_once = true;
      how.last_words = "Could not access KVM kernel module: Permission denied";
    }
    return how;
  };
  company.crash();
  for (int i = 0; i < 5; ++i) {
    const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
    REQUIRE(facts);
    CHECK_FALSE((*facts)->kvm_usable);
    CHECK((*facts)->tcg_usable);
  }
  CHECK(company.launches_of("/usr/bin/qemu-a") == 2);
  CHECK(std::ranges::count(company.world->trace, "kvm_usable ") == 1);
  company.settle();
  company.crash();
  const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
  REQUIRE(facts);
  CHECK_FALSE((*facts)->kvm_usable);
  CHECK(company.launches_of("/usr/bin/qemu-a") == 2);
  company.must_be_clean();
}

TEST_CASE("prober: what took too long to say is no knowledge for the next daemon", "[actors]") {
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", ""}};
  company.world->kvm_opens = true;
  company.world->trace.clear();
  int probes = 0;
  company.world->script = [&probes](const std::string&) {
    auto how = probed();
    how.says["query-kvm"] = {{"enabled", true}, {"present", true}};
    if (++probes == 1) // without KVM, on a busy host
      how.ignores = {"query-machines"};
    return how;
  };
  company.crash();
  for (int i = 0; i < 3; ++i) {
    const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
    REQUIRE(facts);
    CHECK_FALSE((*facts)->tcg_usable);
    CHECK((*facts)->kvm_usable);
  }
  CHECK(company.launches_of("/usr/bin/qemu-a") == 2);
  company.settle();
  company.crash();
  const auto facts = company.answer(company.wants("/usr/bin/qemu-a"));
  REQUIRE(facts);
  CHECK((*facts)->tcg_usable);
  CHECK((*facts)->kvm_usable);
  CHECK(company.launches_of("/usr/bin/qemu-a") == 4);
  company.must_be_clean();
}

TEST_CASE("prober: the list has those that answered", "[actors]") {
  probing company;
  company.settle();
  company.world->facts = {{"/usr/bin/qemu-a", ""}, {"/usr/bin/qemu-b", ""}};
  company.world->script = [](const std::string& guest) {
    auto how = probed();
    how.dies_at_once = guest.ends_with("qemu-a");
    return how;
  };
  company.crash();
  const auto all =
    company.answer(company.now->ask<std::vector<emulator_facts_ptr>>(company.now->prober, list_emulators{}));
  REQUIRE(all);
  REQUIRE(all->size() == 1);
  CHECK(all->front()->binary == "/usr/bin/qemu-b");
}
