#include "sec/launch_plan.hpp"

#include "tests/catch.hpp"

#include <nlohmann/json.hpp>
#include <random>

namespace troupe {
namespace {

launch_plan full_plan() {
  return {
    .argv = {"/usr/bin/qemu-system-x86_64", "-name",
             "guest=\"w\xc3\xa9"
             "b\"\n"},
    .env = {"PATH=/usr/bin", "ODD=\xff\xfe"},
    .working_dir = "/var/lib",
    .control_groups = {"/sys/fs/cgroup/web"},
    .identity = launch_identity{64055, 64055, {107, 64055}},
    .capabilities = {"net_bind_service"},
    .umask = 027,
    .selinux_context = "system_u:system_r:svirt_t:s0:c1,c2",
    .apparmor_profile = "troupe-c7a5fdbd-edaf-9455-926a-d65c16db1809",
    .no_new_privs = false,
    .landlock = {{"/usr", "rx"}, {"/disk.img", "rw"}},
    .filter_calls = false,
    .pid_file = "/run/web.pid",
    .keep_fds = {7, 9},
    .limits = {{"core", 0, resource_limit::unlimited}},
    .banner = "starting\n",
  };
}

std::string why_not(const std::string& text) {
  const auto plan = launch_plan_from(text);
  return plan ? "it is" : plan.error().detail;
}

} // namespace

TEST_CASE("launch_plan: what is written is read back", "[sec]") {
  const auto plan = full_plan();
  CHECK(launch_plan_from(to_text(plan)).value() == plan);
  const launch_plan least{.argv = {"/bin/true"}};
  CHECK(launch_plan_from(to_text(least)).value() == least);
}

TEST_CASE("launch_plan: any bytes but zero survive in arguments", "[sec]") {
  std::mt19937 draw{1};
  for (int round = 0; round < 200; ++round) {
    launch_plan plan{.argv = {"/bin/true", ""}};
    for (auto left = draw() % 40; left > 0; --left)
      plan.argv[1].push_back(static_cast<char>(draw() % 255 + 1));
    CHECK(launch_plan_from(to_text(plan)).value() == plan);
  }
}

TEST_CASE("launch_plan: every member is needed, and no other is known", "[sec]") {
  const auto good = nlohmann::json::parse(to_text(full_plan()));
  for (const auto& item : good.items()) {
    auto lacking = good;
    lacking.erase(item.key());
    CHECK(why_not(lacking.dump()) == "the launch plan is not complete: '" + item.key() + "' is missing");
    auto wrong = good;
    wrong[item.key()] = 1.5;
    CHECK_THAT(why_not(wrong.dump()), Catch::Matchers::Contains("'" + item.key() + "' is not "));
  }
  auto more = good;
  more["selinux"] = "x";
  CHECK(why_not(more.dump()) == "the launch plan is not known: it has a member 'selinux'");
}

TEST_CASE("launch_plan: values that would mean something else are refused", "[sec]") {
  const auto with = [](const char* pointer, const nlohmann::json& value) {
    auto plan = nlohmann::json::parse(to_text(full_plan()));
    plan[nlohmann::json::json_pointer{pointer}] = value;
    return why_not(plan.dump());
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(with("/identity/uid", 4294967295), Contains("'uid' is not a number from 0 to 4294967294"));
  CHECK_THAT(with("/identity/gid", -1), Contains("'gid' is not"));
  CHECK_THAT(with("/identity/groups", {1, 4294967296}), Contains("'groups' is not"));
  CHECK_THAT(with("/argv/1", std::string("a\0b", 3)), Contains("text without zero bytes"));
  CHECK_THAT(with("/argv/1", {256}), Contains("'argv' is not text"));
  CHECK_THAT(with("/argv/0", "qemu"), Contains("absolute path"));
  CHECK_THAT(with("/argv", nlohmann::json::array()), Contains("absolute path"));
  CHECK_THAT(with("/pid_file", "web.pid"), Contains("'web.pid' is not absolute"));
  CHECK_THAT(with("/no_new_privs", true), Contains("'no_new_privs' would keep the program from its 'selinux_context'"));
  CHECK_THAT(with("/umask", 01000), Contains("more than 777"));
  CHECK_THAT(with("/keep_fds/0", 4294967296), Contains("'keep_fds' is not"));
}

TEST_CASE("launch_plan: what is no plan is refused", "[sec]") {
  for (const auto* text : {"", "{", "[]", "null", "\xff", "{\"argv\":}"})
    CHECK_FALSE(launch_plan_from(text));
  CHECK_THAT(why_not(std::string(max_launch_plan + 1, ' ')), Catch::Matchers::Contains("longer than"));
  CHECK_FALSE(launch_plan_from(std::string(1 << 20, '[')));
}

TEST_CASE("launch_plan: a cut or changed plan is read or refused, never more", "[sec]") {
  const auto text = to_text(full_plan());
  std::mt19937 draw{2};
  for (int round = 0; round < 2000; ++round) {
    auto changed = text.substr(0, round % 2 == 0 ? text.size() : draw() % text.size());
    if (!changed.empty())
      changed[draw() % changed.size()] = static_cast<char>(draw() % 256);
    if (const auto plan = launch_plan_from(changed))
      CHECK(launch_plan_from(to_text(*plan)).value() == *plan);
  }
}

TEST_CASE("launch_plan: a failure is read back too", "[sec]") {
  const launch_failure failure{"exec", 2, "cannot execute '/x': No such file or directory"};
  CHECK(launch_failure_from(to_text(failure)).value() == failure);
  CHECK_FALSE(launch_failure_from("half a li"));
}

} // namespace troupe
