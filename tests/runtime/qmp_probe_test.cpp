#include "runtime/qmp_probe.hpp"
#include "runtime/unix_socket.hpp"
#include "tests/runtime/qmp_fixture.hpp"

using namespace troupe;
using nlohmann::json;

namespace {

constexpr std::chrono::seconds long_enough{50};

qmp_asker asker_of(qmp_monitor& monitor) {
  return [&monitor](const char* command, json arguments, qmp_monitor::reply then) {
    monitor.execute(command, std::move(arguments), long_enough, std::move(then));
  };
}

/// Probes a QEMU that answers as `answer` says: null is a refusal.
result<probe_answers> probe_scripted(const std::function<json(const json&)>& answer) {
  loop on;
  scripted_qemu qemu{on};
  qemu.on_command = [&](const json& command) {
    const auto value = answer(command);
    if (value.is_null())
      qemu.say(json{{"error", {{"class", "CommandNotFound"}, {"desc", "no"}}}, {"id", command["id"]}}.dump());
    else
      qemu.answer(command, value);
  };
  qmp_monitor monitor{on, std::move(qemu.theirs), {}, {}};
  qemu.say(scripted_qemu::greeting);
  std::vector<result<probe_answers>> got;
  probe(asker_of(monitor), [&](auto answers) { got.push_back(std::move(answers)); });
  turn_until(on, [&] { return !got.empty() && monitor.in_flight() == 0; });
  REQUIRE(got.size() == 1);
  return std::move(got[0]);
}

} // namespace

TEST_CASE("qmp probe: every answer is kept under its command", "[runtime]") {
  const auto answers = probe_scripted([](const json& command) { return json{{"said", command["execute"]}}; });
  REQUIRE(answers);
  CHECK(answers->size() == 9);
  for (const auto& [name, value] : answers->items())
    CHECK(value == json{{"said", name}});
}

TEST_CASE("qmp probe: CPU models are asked about one by one, without their versions", "[runtime]") {
  std::vector<json> asked;
  const auto answer = [&asked](const std::string& arch) {
    return [&asked, arch](const json& command) {
      const auto& name = command["execute"];
      if (name == "query-target")
        return json{{"arch", arch}};
      if (name == "query-cpu-definitions")
        return json::parse(R"([{"name": "EPYC-v1"}, {"name": "EPYC"}, {"name": "host"}, {"name": 7}, 8, {"name": "odd-v"}])");
      if (name != "query-cpu-model-expansion")
        return json{1};
      asked.push_back(command["arguments"]["model"]);
      return command["arguments"]["model"]["name"] == "odd-v" ? json{} : json{{"model", "whole"}};
    };
  };
  const auto answers = probe_scripted(answer("x86_64"));
  REQUIRE(answers);
  CHECK(asked == std::vector<json>{{{"name", "EPYC"}},
                                   {{"name", "host"}, {"props", {{"migratable", false}}}},
                                   {{"name", "odd-v"}}});
  const json whole{{"model", "whole"}};
  CHECK((*answers)["query-cpu-model-expansion"] == json{{"EPYC", whole}, {"host", whole}});

  asked.clear();
  CHECK(probe_scripted(answer("aarch64")));
  CHECK(asked.empty());
}

TEST_CASE("qmp probe: a target without CPU definitions has none, and other refusals end the probe once", "[runtime]") {
  const auto without = probe_scripted([](const json& command) {
    return command["execute"].get<std::string>().starts_with("query-cpu") ? json{} : json{1};
  });
  REQUIRE(without);
  CHECK(without->size() == 8);
  CHECK_FALSE(without->contains("query-cpu-definitions"));

  const auto failed = probe_scripted([](const json&) { return json{}; });
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == errc::operation_failed);
  CHECK(failed.error().detail.find("'query-version'") != std::string::npos);
}

TEST_CASE("qmp probe: a QEMU that goes away ends it", "[runtime]") {
  loop on;
  scripted_qemu qemu{on};
  qmp_monitor monitor{on, std::move(qemu.theirs), {}, {}};
  int calls = 0;
  std::optional<result<probe_answers>> got;
  probe(asker_of(monitor), [&](auto answers) { ++calls, got = std::move(answers); });
  qemu.hang_up();
  turn_until(on, [&] { return got.has_value(); });
  settle(on);
  CHECK(got->error().code == errc::qemu_gone);
  CHECK(calls == 1);
}

TEST_CASE("qmp probe: a real QEMU started by probe_argv answers everything", "[runtime]") {
  if (!real_qemu::installed()) {
    WARN("qemu-system-x86_64 is not installed: skipped");
    return;
  }
  real_qemu qemu{[](int fd) { return probe_argv("qemu-system-x86_64", "tcg", fd); }};
  loop on;
  auto connected = connect_unix(qemu.path);
  REQUIRE(connected);
  qmp_monitor monitor{on, std::move(*connected), {}, {}};
  std::optional<result<probe_answers>> got;
  probe(asker_of(monitor), [&](auto answers) { got = std::move(answers); });
  turn_until(on, [&] { return got.has_value(); });
  REQUIRE(*got);
  const auto& answers = **got;
  CHECK(answers["query-target"]["arch"] == "x86_64");
  CHECK(answers["query-kvm"]["enabled"] == false);
  CHECK(answers["query-version"]["qemu"]["major"] >= 7);
  CHECK(answers["query-machines"].size() > 2);
  CHECK(answers["query-cpu-definitions"].size() > 10);
  CHECK(answers["qom-list-types"].size() > 100);
  CHECK(answers["query-cpu-model-expansion"]["Haswell"]["model"]["props"]["avx2"] == true);
}
