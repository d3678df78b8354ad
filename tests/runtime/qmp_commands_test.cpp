#include "runtime/qmp_commands.hpp"
#include "tests/runtime/qmp_fixture.hpp"

using namespace troupe;
using nlohmann::json;

namespace {

template <class Reply>
result<Reply> read(const command<Reply>& what, const char* answer) {
  return what.read(json::parse(answer));
}

} // namespace

TEST_CASE("qmp commands: they are spelt as QEMU spells them", "[runtime]") {
  CHECK(std::string{system_powerdown().execute} == "system_powerdown");
  CHECK(std::string{inject_nmi().execute} == "inject-nmi");
  CHECK(cont().arguments.is_null());
  CHECK(balloon(1ull << 40).arguments == json{{"value", 1ull << 40}});
  CHECK(human_monitor_command("info block").arguments == json{{"command-line", "info block"}});
  CHECK(qom_list_types("device").arguments == json{{"implements", "device"}, {"abstract", false}});
}

TEST_CASE("qmp commands: answers become structs", "[runtime]") {
  CHECK(read(cont(), "{}"));
  const auto status = read(query_status(), R"({"status": "paused", "singlestep": false, "running": false})");
  REQUIRE(status);
  CHECK(status->status == "paused");
  const auto version = read(query_version(), R"({"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"})");
  REQUIRE(version);
  CHECK(version->major == 7);
  CHECK(version->micro == 22);
  CHECK(version->package == "Debian");
  CHECK(read(query_kvm(), R"({"enabled": true, "present": true})")->enabled);
  CHECK(read(query_target(), R"({"arch": "x86_64"})").value() == "x86_64");
  CHECK(read(query_name(), R"({"name": "web1"})").value() == "web1");
  CHECK(read(query_name(), "{}").value() == std::nullopt);
  CHECK(read(query_balloon(), R"({"actual": 4294967296})").value() == 4294967296);
  CHECK(read(human_monitor_command(""), "\"text\\r\\n\"").value() == "text\r\n");

  const auto chardevs = read(query_chardev(), R"([{"frontend-open": true, "filename": "pty:/dev/pts/3", "label": "charserial0"}])");
  REQUIRE(chardevs);
  CHECK(chardevs->at(0).filename == "pty:/dev/pts/3");
  CHECK(chardevs->at(0).frontend_open);

  const auto vnc = read(query_vnc(), R"({"enabled": true, "host": "127.0.0.1", "family": "ipv4", "service": "5901", "auth": "none"})");
  REQUIRE(vnc);
  CHECK(vnc->port == 5901);
  CHECK(vnc->host == "127.0.0.1");
  CHECK_FALSE(read(query_vnc(), R"({"enabled": true, "family": "unix", "service": "/run/vnc"})")->port);
  CHECK_FALSE(read(query_vnc(), R"({"enabled": false})")->port);

  const auto cpus = read(query_cpus_fast(), R"([{"thread-id": 77, "qom-path": "/machine/a", "cpu-index": 0, "target": "x86_64"},
                                                {"thread-id": 78, "qom-path": "/machine/b", "cpu-index": 1, "target": "x86_64"}])");
  REQUIRE(cpus);
  CHECK(cpus->size() == 2);
  CHECK(cpus->at(1).thread_id == 78);
  CHECK(cpus->at(1).index == 1);
  CHECK(cpus->at(1).qom_path == "/machine/b");
}

TEST_CASE("qmp commands: an answer of another shape is an error that names the member", "[runtime]") {
  const auto status = read(query_status(), R"({"status": 1, "running": false})");
  REQUIRE_FALSE(status);
  CHECK(status.error().code == errc::internal);
  CHECK(status.error().detail == "has no string 'status'");
  for (const auto* strange : {"null", "1", "\"x\"", "[]", "{}", "[1]", "[{}]", "[[]]", "true"}) {
    CHECK_FALSE(read(query_status(), strange));
    CHECK_FALSE(read(query_version(), strange));
    CHECK_FALSE(read(query_kvm(), strange));
    CHECK_FALSE(read(query_target(), strange));
    CHECK_FALSE(read(query_balloon(), strange));
    CHECK_FALSE(read(query_vnc(), strange));
    if (std::string_view{strange} != "[]") {
      CHECK_FALSE(read(query_chardev(), strange));
      CHECK_FALSE(read(query_cpus_fast(), strange));
    }
    if (std::string_view{strange} != "{}")
      CHECK_FALSE(read(query_name(), strange));
    if (std::string_view{strange} != "\"x\"")
      CHECK_FALSE(read(human_monitor_command(""), strange));
  }
  for (const auto* number : {"-1", "1.5", "1e300", "\"1\"", "18446744073709551616"})
    CHECK_FALSE(query_balloon().read(json{{"actual", json::parse(number)}}));
  CHECK_FALSE(read(query_version(), R"({"qemu": {"micro": 4294967296, "minor": 2, "major": 7}, "package": ""})"));
  CHECK_FALSE(read(query_version(), R"({"qemu": 7, "package": ""})"));
}

TEST_CASE("qmp commands: run names the command whose answer is strange", "[runtime]") {
  loop on;
  scripted_qemu qemu{on};
  qemu.on_command = [&](const json& command) {
    qemu.answer(command, command["execute"] == "query-kvm" ? json{{"enabled", 1}} : json{{"arch", "x86_64"}});
  };
  qmp_monitor monitor{on, std::move(qemu.theirs), {}, {}};
  qemu.say(scripted_qemu::greeting);
  std::optional<result<qemu_kvm>> kvm;
  std::optional<result<std::string>> target;
  run(monitor, query_kvm(), std::chrono::seconds{50}, [&](auto got) { kvm = std::move(got); });
  run(monitor, query_target(), std::chrono::seconds{50}, [&](auto got) { target = std::move(got); });
  turn_until(on, [&] { return target.has_value(); });
  CHECK(kvm->error().detail == "QEMU's answer to 'query-kvm' has no boolean 'enabled'");
  CHECK(target->value() == "x86_64");
}
