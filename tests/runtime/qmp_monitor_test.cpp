#include "runtime/qmp_monitor.hpp"
#include "runtime/qmp_commands.hpp"
#include "runtime/unix_socket.hpp"
#include "tests/runtime/qmp_fixture.hpp"

#include <fcntl.h>

using namespace troupe;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr auto long_enough = 50s;

/// A monitor whose QEMU the test plays, and everything it told.
struct monitored {
  explicit monitored(qmp_limits limits = {}) {
    monitor.emplace(on, std::move(qemu.theirs), limits,
                    qmp_monitor::callbacks{
                      [this](const json& about) { greeting = about; },
                      [this](qmp_event event) { events.push_back(std::move(event)); },
                      [this](error why) { log.push_back("closed"), closed = std::move(why); },
                    });
  }
  void greet() {
    qemu.say(scripted_qemu::greeting);
    turn_until(on, [this] { return !greeting.is_null(); });
  }
  qmp_monitor::reply into(std::string name) {
    return [this, name](result<json> answer) {
      log.push_back(name);
      answers.insert_or_assign(name, std::move(answer));
    };
  }
  void until_asked(std::size_t count) {
    turn_until(on, [this, count] { return qemu.asked.size() >= count; });
  }
  void until_answered(const std::string& name) {
    turn_until(on, [this, &name] { return answers.contains(name); });
  }
  void until_closed() {
    turn_until(on, [this] { return closed.has_value(); });
  }

  loop on;
  scripted_qemu qemu{on};
  std::optional<qmp_monitor> monitor;
  json greeting;
  std::vector<qmp_event> events;
  std::optional<error> closed;
  std::map<std::string, result<json>> answers;
  std::vector<std::string> log; // who was called, in order
};

bool mentions(const error& e, std::string_view what) {
  return e.detail.find(what) != std::string::npos;
}

} // namespace

TEST_CASE("qmp monitor: it is greeted after the capabilities are accepted", "[runtime]") {
  monitored m;
  m.qemu.negotiates = false;
  m.qemu.say(scripted_qemu::greeting);
  settle(m.on);
  CHECK(m.greeting.is_null());
  m.qemu.hang_up();
  m.until_closed();

  monitored well;
  well.greet();
  CHECK(well.greeting["version"]["qemu"]["major"] == 7);
  CHECK(well.qemu.asked.empty());
}

TEST_CASE("qmp monitor: commands given before the greeting are held, then sent in order", "[runtime]") {
  monitored m;
  m.monitor->execute("first", nullptr, long_enough, m.into("first"));
  m.monitor->execute("second", {{"a", 1}}, long_enough, m.into("second"));
  settle(m.on);
  CHECK(m.qemu.asked.empty());
  CHECK(m.monitor->in_flight() == 2);
  m.greet();
  m.until_asked(2);
  CHECK(m.qemu.asked[0]["execute"] == "first");
  CHECK_FALSE(m.qemu.asked[0].contains("arguments"));
  CHECK(m.qemu.asked[1]["arguments"] == json{{"a", 1}});
}

TEST_CASE("qmp monitor: answers find their command in whatever order they come", "[runtime]") {
  monitored m;
  m.greet();
  for (const auto* name : {"a", "b", "c"})
    m.monitor->execute(name, nullptr, long_enough, m.into(name));
  m.until_asked(3);
  CHECK(m.monitor->in_flight() == 3);
  for (const auto i : {2, 0, 1})
    m.qemu.answer(m.qemu.asked[i], m.qemu.asked[i]["execute"]);
  m.until_answered("b");
  CHECK(m.log == std::vector<std::string>{"c", "a", "b"});
  for (const auto* name : {"a", "b", "c"})
    CHECK(m.answers.at(name).value() == name);
  CHECK(m.monitor->in_flight() == 0);
}

TEST_CASE("qmp monitor: a line may come a byte at a time", "[runtime]") {
  monitored m;
  const auto started = m.monitor->last_heard();
  for (const char c : std::string{scripted_qemu::greeting} + "\r\n") {
    m.qemu.say_bytes({&c, 1});
    turn_until(m.on, [&] { return m.qemu.said_all(); });
  }
  turn_until(m.on, [&] { return !m.greeting.is_null(); });
  CHECK(m.monitor->last_heard() > started);
}

TEST_CASE("qmp monitor: QEMU's refusal carries its description and class", "[runtime]") {
  monitored m;
  m.greet();
  m.monitor->execute("balloon", nullptr, long_enough, m.into("balloon"));
  m.until_asked(1);
  m.qemu.say(json{{"error", {{"class", "DeviceNotActive"}, {"desc", "No balloon"}}}, {"id", m.qemu.asked[0]["id"]}}.dump());
  m.until_answered("balloon");
  const auto& why = m.answers.at("balloon").error();
  CHECK(why.code == errc::operation_failed);
  CHECK(why.detail == "QEMU command 'balloon': No balloon (DeviceNotActive)");
}

TEST_CASE("qmp monitor: a silent QEMU makes the caller time out, and its late answer is only accounted", "[runtime]") {
  monitored m;
  m.greet();
  m.monitor->execute("slow", nullptr, 10ms, m.into("slow"));
  m.monitor->execute("other", nullptr, long_enough, m.into("other"));
  m.until_answered("slow");
  CHECK(m.answers.at("slow").error().code == errc::timed_out);
  CHECK(mentions(m.answers.at("slow").error(), "'slow'"));
  CHECK(mentions(m.answers.at("slow").error(), "still in flight"));
  CHECK(m.monitor->in_flight() == 2);
  m.until_asked(2);
  m.qemu.answer(m.qemu.asked[0], 1);
  m.qemu.answer(m.qemu.asked[1], 2);
  m.until_answered("other");
  CHECK(m.log == std::vector<std::string>{"slow", "other"});
  CHECK(m.monitor->in_flight() == 0);
  CHECK(m.monitor->unknown_replies() == 0);
}

TEST_CASE("qmp monitor: commands time out in the order of their deadlines", "[runtime]") {
  monitored m;
  m.monitor->execute("c", nullptr, 60ms, m.into("c"));
  m.monitor->execute("a", nullptr, 0ms, m.into("a"));
  m.monitor->execute("b", nullptr, 30ms, m.into("b"));
  m.monitor->execute("never", nullptr, std::chrono::milliseconds::max(), m.into("never"));
  m.until_answered("c");
  CHECK(m.log == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("qmp monitor: when QEMU goes, the unanswered hear it before closed does", "[runtime]") {
  monitored m;
  m.greet();
  m.monitor->execute("late", nullptr, 1ms, m.into("late"));
  m.until_answered("late");
  m.monitor->execute("one", nullptr, long_enough, m.into("one"));
  m.monitor->execute("two", nullptr, long_enough, m.into("two"));
  m.until_asked(3);
  m.qemu.answer(m.qemu.asked[1], 1);
  m.qemu.say_bytes("{\"return\": {}, \"i"); // and not a byte more
  turn_until(m.on, [&] { return m.qemu.said_all(); });
  m.qemu.hang_up();
  m.until_closed();
  CHECK(m.log == std::vector<std::string>{"late", "one", "two", "closed"});
  CHECK(m.answers.at("one").value() == 1);
  CHECK(m.answers.at("two").error().code == errc::qemu_gone);
  CHECK(m.closed->code == errc::qemu_gone);
  CHECK(m.monitor->in_flight() == 0);

  m.monitor->execute("after", nullptr, long_enough, m.into("after"));
  CHECK(m.log.back() == "closed");
  m.until_answered("after");
  CHECK(m.answers.at("after").error().code == errc::qemu_gone);
}

TEST_CASE("qmp monitor: a QEMU that hangs up while commands are sent is told by closed alone", "[runtime]") {
  monitored m;
  m.greet();
  m.qemu.hang_up();
  m.monitor->execute("one", nullptr, long_enough, m.into("one"));
  CHECK(m.log.empty());
  m.until_closed();
  CHECK(m.log == std::vector<std::string>{"one", "closed"});
}

TEST_CASE("qmp monitor: a connection reset behind QEMU's last words is told as closed", "[runtime]") {
  monitored m;
  m.greet();
  m.monitor->execute("quit", nullptr, long_enough, m.into("quit"));
  m.qemu.last_words(R"({"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}})");
  m.until_closed();
  CHECK(m.closed->code == errc::qemu_gone);
  CHECK(m.events.size() == 1);
  CHECK(m.log == std::vector<std::string>{"quit", "closed"});
}

TEST_CASE("qmp monitor: garbage closes it and is quoted", "[runtime]") {
  const auto [said, quoted] = GENERATE(table<std::string, std::string>({
    {"SSH-2.0-OpenSSH\r\n", "SSH-2.0-OpenSSH"},
    {std::string{"\0\1\2\n", 4}, "\\x00\\x01\\x02"},
    {"{\"return\": {}, \"id\": 1\n", "{\"return\": {}"},
    {std::string(100'000, '[') + "\n", "[[["},
    {"{\"event\": \"X\", \"data\": " + std::string(100'000, '{') + "\n", "\"X\""},
    {std::string(70'000, 'x'), "xxx"},
  }));
  const bool greeted = GENERATE(true, false);
  monitored m{said.ends_with('\n') ? qmp_limits{} : qmp_limits{.line_bytes = 64 << 10}};
  if (greeted)
    m.greet();
  m.monitor->execute("one", nullptr, long_enough, m.into("one"));
  m.qemu.say_bytes(said);
  m.until_closed();
  CHECK(m.closed->code == errc::internal);
  CHECK(mentions(*m.closed, quoted));
  CHECK(m.closed->detail.size() < 500);
  CHECK(m.log == std::vector<std::string>{"one", "closed"});
  CHECK(m.answers.at("one").error().code == errc::qemu_gone);
}

TEST_CASE("qmp monitor: a second greeting and refused capabilities close it", "[runtime]") {
  monitored twice;
  twice.greet();
  twice.qemu.say(scripted_qemu::greeting);
  twice.until_closed();
  CHECK(mentions(*twice.closed, "second greeting"));

  monitored refused;
  refused.qemu.negotiates = false;
  refused.monitor->execute("early", nullptr, long_enough, refused.into("early"));
  refused.qemu.say(scripted_qemu::greeting);
  settle(refused.on);
  refused.qemu.say(R"({"return": {}, "id": 0})"); // nobody's
  refused.qemu.hang_up();
  refused.until_closed();
  CHECK(refused.greeting.is_null());
  CHECK(refused.qemu.asked.empty());
}

TEST_CASE("qmp monitor: answers to nobody are counted and ignored", "[runtime]") {
  monitored m;
  m.greet();
  m.monitor->execute("one", nullptr, long_enough, m.into("one"));
  m.until_asked(1);
  m.qemu.say(R"({"return": {}, "id": 1})");
  m.qemu.say(R"({"return": {}, "id": "libvirt-1"})");
  m.qemu.say(R"({"error": {"class": "GenericError", "desc": "JSON parse error"}})");
  m.qemu.answer(m.qemu.asked[0], 1);
  m.until_answered("one");
  m.qemu.answer(m.qemu.asked[0], 2); // twice
  turn_until(m.on, [&] { return m.monitor->unknown_replies() == 4; });
  CHECK(m.answers.at("one").value() == 1);
  CHECK_FALSE(m.closed);
}

TEST_CASE("qmp monitor: a flood of events arrives whole and in order, and others get their turn", "[runtime]") {
  monitored m;
  m.greet();
  std::string flood;
  constexpr int count = 20'000;
  for (int i = 0; i < count; ++i)
    flood += fmt::format("{{\"timestamp\": {{\"seconds\": {}, \"microseconds\": 1}}, \"event\": \"FLOOD\"}}\r\n", i);
  m.qemu.say_bytes(flood);
  std::size_t heard_when_others_ran = count;
  turn_until(m.on, [&] { return !m.events.empty(); });
  m.on.post([&] { heard_when_others_ran = m.events.size(); });
  turn_until(m.on, [&] { return m.events.size() == count; });
  CHECK(heard_when_others_ran < count);
  for (int i = 0; i < count; ++i)
    if (m.events[i].seconds != i)
      FAIL("event " << i << " is out of order");
  CHECK(m.events[0].data.is_null());
}

TEST_CASE("qmp monitor: more commands than QEMU may leave unanswered are refused, later and as busy", "[runtime]") {
  monitored m{{.in_flight = 2}};
  m.greet();
  for (const auto* name : {"a", "b", "c"})
    m.monitor->execute(name, nullptr, long_enough, m.into(name));
  CHECK(m.log.empty());
  m.until_answered("c");
  CHECK(m.answers.at("c").error().code == errc::busy);
  CHECK(m.log == std::vector<std::string>{"c"});
  m.until_asked(2);
  m.qemu.answer(m.qemu.asked[0], 1);
  m.until_answered("a");
  m.monitor->execute("d", nullptr, long_enough, m.into("d"));
  m.until_asked(3);
}

TEST_CASE("qmp monitor: more bytes than the bound are refused, and big commands below it arrive", "[runtime]") {
  monitored m{{.queued_bytes = 3 << 20}};
  m.greet();
  const std::string big(2 << 20, 'x');
  m.monitor->execute("a", {{"text", big}}, long_enough, m.into("a"));
  m.monitor->execute("b", {{"text", big}}, long_enough, m.into("b"));
  m.until_answered("b");
  CHECK(m.answers.at("b").error().code == errc::busy);
  m.until_asked(1);
  CHECK(m.qemu.asked[0]["arguments"]["text"] == big);
  m.monitor->execute("c", {{"text", big}}, long_enough, m.into("c"));
  m.until_asked(2);
  CHECK(m.qemu.asked[1]["arguments"]["text"] == big);
}

TEST_CASE("qmp monitor: a raw command is answered with QEMU's own line", "[runtime]") {
  monitored m;
  m.greet();
  std::vector<result<std::string>> got;
  const auto keep = [&](result<std::string> line) { got.push_back(std::move(line)); };
  m.monitor->execute_raw(R"({"execute": "query-x", "id": "mine", "arguments": {"b": 1}})", long_enough, keep);
  m.until_asked(1);
  CHECK(m.qemu.asked[0]["id"].is_number());
  CHECK(m.qemu.asked[0]["arguments"] == json{{"b", 1}});
  const auto line = fmt::format(R"({{ "return": {{}},  "id": {} }})", m.qemu.asked[0]["id"].dump());
  m.qemu.say(line);
  turn_until(m.on, [&] { return got.size() == 1; });
  CHECK(got[0].value() == line);

  m.monitor->execute_raw(R"({"execute": "nope"})", long_enough, keep);
  m.until_asked(2);
  const auto refused = fmt::format(R"({{"error": {{"class": "CommandNotFound", "desc": "x"}}, "id": {}}})", m.qemu.asked[1]["id"].dump());
  m.qemu.say(refused);
  turn_until(m.on, [&] { return got.size() == 2; });
  CHECK(got[1].value() == refused);

  m.monitor->execute_raw("info block", long_enough, keep);
  m.monitor->execute_raw(R"({"arguments": {}})", long_enough, keep);
  CHECK(got.size() == 2);
  turn_until(m.on, [&] { return got.size() == 4; });
  CHECK(got[2].error().code == errc::bad_argument);
  CHECK(mentions(got[2].error(), "info block"));
  CHECK(got[3].error().code == errc::bad_argument);

  m.monitor->execute_raw(R"({"execute": "slow"})", 1ms, keep);
  turn_until(m.on, [&] { return got.size() == 5; });
  CHECK(got[4].error().code == errc::timed_out);
  m.monitor->execute_raw(R"({"execute": "slow"})", long_enough, keep);
  m.qemu.hang_up();
  turn_until(m.on, [&] { return got.size() == 6; });
  CHECK(got[5].error().code == errc::qemu_gone);
}

TEST_CASE("qmp monitor: text that is not UTF-8 is refused before QEMU sees it", "[runtime]") {
  monitored m;
  m.greet();
  run(*m.monitor, human_monitor_command("\xff"), long_enough, [&](result<std::string> text) {
    m.answers.emplace("hmp", text ? result<json>{*text} : result<json>{tl::make_unexpected(text.error())});
  });
  m.until_answered("hmp");
  CHECK(m.answers.at("hmp").error().code == errc::bad_argument);
  CHECK(m.monitor->in_flight() == 0);
}

TEST_CASE("qmp monitor: any callback may destroy it", "[runtime]") {
  const std::string from = GENERATE(as<std::string>{}, "greeted", "event", "closed", "garbage", "answer", "raw", "timeout",
                                    "refusal", "gone", "second line");
  loop on;
  scripted_qemu qemu{on};
  std::optional<qmp_monitor> monitor;
  const std::string seen_from_the_heap(200, 'x');
  std::string last;
  int after = 0;
  // What a callback captured is still there after it has destroyed the monitor.
  const auto destroy = [&, seen_from_the_heap](const std::string& who) {
    if (!monitor)
      ++after;
    if (who != from)
      return;
    monitor.reset();
    last = seen_from_the_heap;
  };
  monitor.emplace(on, std::move(qemu.theirs), qmp_limits{.in_flight = 4},
                  qmp_monitor::callbacks{
                    [destroy](const json&) { destroy("greeted"); },
                    [destroy](qmp_event event) { destroy(event.name); },
                    [destroy, &from](error) { destroy(from == "garbage" ? "garbage" : "closed"); },
                  });
  qemu.on_command = [&](const json& command) {
    const std::string name = command["execute"];
    if (name == "answer" || name == "raw")
      qemu.answer(command, 1);
    if (name != "start")
      return;
    qemu.say(R"({"event": "event"})");
    qemu.say(R"({"event": "second line"})");
    if (from == "garbage")
      qemu.say("garbage");
    if (from == "closed" || from == "gone") {
      turn_until(on, [&] { return qemu.said_all(); });
      qemu.hang_up();
    }
  };
  const auto ask = [&](const char* name, std::chrono::milliseconds within) {
    monitor->execute(name, nullptr, within, [destroy, name](const result<json>& answer) {
      destroy(answer || answer.error().code == errc::timed_out ? name
              : answer.error().code == errc::busy              ? "refusal"
                                                               : "gone");
    });
  };
  monitor->execute_raw(R"({"execute": "raw"})", long_enough, [destroy](const result<std::string>&) { destroy("raw"); });
  ask("answer", long_enough);
  ask("timeout", 1ms);
  if (from == "timeout")
    turn_until(on, [&] { return !last.empty(); });
  else
    ask("start", long_enough);
  if (monitor)
    ask("refusal", long_enough);
  if (from != "timeout")
    qemu.say(scripted_qemu::greeting);
  turn_until(on, [&] { return !last.empty(); });
  settle(on);
  CHECK(after == 0);
}

TEST_CASE("qmp monitor: a descriptor that cannot be a monitor is told by closed", "[runtime]") {
  loop on;
  std::optional<error> closed;
  std::optional<error> refused;
  unique_fd file{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  if (GENERATE(true, false))
    file.reset();
  qmp_monitor monitor{on, std::move(file), {}, {nullptr, nullptr, [&](error why) { closed = std::move(why); }}};
  monitor.execute("x", nullptr, long_enough, [&](const result<json>& answer) { refused = answer.error(); });
  CHECK_FALSE(closed);
  turn_until(on, [&] { return closed.has_value(); });
  REQUIRE(refused);
  CHECK(refused->code == errc::qemu_gone);
}

TEST_CASE("qmp monitor: connecting names the path that fails", "[runtime]") {
  const auto missing = connect_unix("/nonexistent/monitor");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == errc::system);
  CHECK(mentions(missing.error(), "/nonexistent/monitor"));
  CHECK(connect_unix(std::string(200, 'x')).error().code == errc::bad_argument);
  CHECK(connect_unix("").error().code == errc::bad_argument);
}

TEST_CASE("qmp monitor: a real QEMU greets, answers and goes", "[runtime]") {
  if (!real_qemu::installed()) {
    WARN("qemu-system-x86_64 is not installed: skipped");
    return;
  }
  real_qemu qemu{[](int fd) {
    return std::vector<std::string>{"qemu-system-x86_64", "-machine", "none", "-S", "-nodefaults", "-display", "none", "-name", "tried",
                                    "-chardev", fmt::format("socket,id=mon,fd={},server=on,wait=off", fd), "-mon",
                                    "chardev=mon,mode=control"};
  }};
  loop on;
  auto connected = connect_unix(qemu.path);
  REQUIRE(connected);
  json greeting;
  std::vector<std::string> events;
  std::optional<error> closed;
  qmp_monitor monitor{on, std::move(*connected), {},
                      {[&](const json& about) { greeting = about; }, [&](const qmp_event& e) { events.push_back(e.name); },
                       [&](error why) { closed = std::move(why); }}};
  std::optional<result<qemu_status>> status;
  std::optional<result<std::optional<std::string>>> name;
  std::optional<result<std::vector<qemu_chardev>>> chardevs;
  std::optional<result<qemu_vnc>> vnc;
  std::optional<result<std::vector<qemu_cpu>>> cpus;
  std::optional<result<std::uint64_t>> memory;
  std::optional<result<std::string>> printed;
  std::optional<result<std::string>> raw;
  std::optional<result<json>> schema;
  run(monitor, query_status(), long_enough, [&](auto got) { status = std::move(got); });
  run(monitor, query_name(), long_enough, [&](auto got) { name = std::move(got); });
  run(monitor, query_chardev(), long_enough, [&](auto got) { chardevs = std::move(got); });
  run(monitor, query_vnc(), long_enough, [&](auto got) { vnc = std::move(got); });
  run(monitor, query_cpus_fast(), long_enough, [&](auto got) { cpus = std::move(got); });
  run(monitor, query_balloon(), long_enough, [&](auto got) { memory = std::move(got); });
  run(monitor, human_monitor_command("info status"), long_enough, [&](auto got) { printed = std::move(got); });
  monitor.execute_raw(R"({"execute":"query-status"})", long_enough, [&](auto got) { raw = std::move(got); });
  monitor.execute("query-qmp-schema", nullptr, long_enough, [&](auto got) { schema = std::move(got); });
  turn_until(on, [&] { return schema.has_value(); });
  CHECK(greeting["version"]["qemu"]["major"].is_number());
  CHECK(status->value().status == "prelaunch");
  CHECK_FALSE(status->value().running);
  CHECK(name->value() == "tried");
  CHECK(chardevs->value().at(0).label == "mon");
  if (*vnc) // a QEMU without VNC refuses
    CHECK_FALSE((*vnc)->enabled);
  CHECK(cpus->value().empty());
  CHECK(memory->error().code == errc::operation_failed);
  CHECK(mentions(memory->error(), "(DeviceNotActive)"));
  CHECK(printed->value().find("VM status") == 0);
  CHECK(json::parse(raw->value())["return"]["status"] == "prelaunch");
  CHECK(schema->value().size() > 100);

  std::optional<result<void>> left;
  run(monitor, quit(), long_enough, [&](auto got) { left = got; });
  turn_until(on, [&] { return closed.has_value(); });
  CHECK(left->has_value());
  CHECK(closed->code == errc::qemu_gone);
  CHECK(events == std::vector<std::string>{"SHUTDOWN"});
}
