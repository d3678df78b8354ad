#include "actors/varlink_connection.hpp"

#include "tests/actors/control_fixture.hpp"
#include "tests/actors/scripted_host.hpp"
#include "tests/temp_dir.hpp"
#include "xml/domain_passes.hpp"

#include <algorithm>

namespace troupe {
namespace {

using nlohmann::json;

/// Answers at once what is foretold of each path; of "/hangs" nothing ever.
class foretelling_host final : public sim::scripted_host {
public:
  explicit foretelling_host(script_ptr script) : scripted_host{std::make_shared<sim::machine>()}, script_{std::move(script)} {}

  void foresee(foreseen_wish wish, answer<std::vector<denial>> then) override {
    script_->note(fmt::format("{} as {}{}{}{}", wish.use.path, wish.who.uid, wish.use.write ? " written" : "",
                              wish.use.given ? " given" : "", wish.granted ? " granted" : ""));
    if (wish.use.path == "/hangs")
      return;
    if (wish.use.path == "/slow")
      return then(fail(errc::timed_out, "looking at '/slow' took too long"));
    if (wish.use.path == "/bad")
      return then(std::vector<denial>{{"/", "dac", "search", "why", "chmod"}, {"/bad", "acl", "write", "why not", "setfacl"}});
    if (wish.use.path == "/log")
      return then(std::vector<denial>{{"/log", "file", "find", "it is not there", "make it"}});
    then(std::vector<denial>{});
  }

  void resolve(std::string user, std::string, answer<dac_identity> then) override {
    if (user != "+77")
      return then(fail(errc::bad_argument, "there is no user '" + user + "'"));
    then(dac_identity{77, 78, {78}});
  }

private:
  script_ptr script_;
};

struct varlink_fixture : control_fixture {
  std::chrono::milliseconds check_within{20'000};
  std::vector<varlink_actor> served;

  ~varlink_fixture() {
    for (const auto& each : served)
      self->send_exit(each, caf::exit_reason::user_shutdown);
  }

  waiting_client connect() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    REQUIRE(::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    auto around = std::make_shared<control_surroundings>();
    around->driver = driver;
    around->prober = prober;
    around->machine = std::make_shared<foretelling_host>(script);
    around->around = std::make_shared<guest_surroundings>();
    around->guest_user = {64055, 64056, {64056}};
    around->changes_user = around->gives_owners = true;
    around->check_within = check_within;
    served.push_back(spawn_varlink_connection(system, connection_setup{around, std::make_shared<unique_fd>(ends[0]), false, {}}));
    return waiting_client{unique_fd{ends[1]}};
  }

  /// The guest 'web' with these devices, not running.
  void define(const std::string& devices, const std::string& more = "") {
    auto guest = std::make_shared<domain>(*read_domain("<domain type='qemu'><name>web</name><memory>8192</memory>"
                                                       "<os><type arch='x86_64'>hvm</type></os>" +
                                                       more + "<devices><emulator>/qemu</emulator>" + devices + "</devices></domain>"));
    auto view = std::make_shared<guest_view>(*script->view);
    view->live = nullptr;
    view->config = std::move(guest);
    script->view = std::move(view);
  }
};

json next_answer(waiting_client& client) {
  return json::parse(client.receive_text('\0').value());
}

json call(waiting_client& client, const std::string& method, const json& parameters = json::object()) {
  client.send_bytes(to_text(varlink_call{method, parameters}));
  return next_answer(client);
}

const std::string check = "org.troupe.Supervisor.Check";

std::string disk_at(const std::string& path, const std::string& more = "") {
  return "<disk type='file'><source file='" + path + "'/><target dev='vd" + std::string(1, path[1]) + "'/>" + more + "</disk>";
}

} // namespace

TEST_CASE("varlink: the service tells of itself, and its interface is the file that programs are written by", "[actors]") {
  varlink_fixture on;
  auto client = on.connect();
  const auto info = call(client, "org.varlink.service.GetInfo")["parameters"];
  CHECK(info["interfaces"] == json{"org.varlink.service", "org.troupe.Supervisor"});
  for (const auto& name : info["interfaces"]) {
    const auto text = call(client, "org.varlink.service.GetInterfaceDescription", {{"interface", name}})["parameters"]["description"];
    CHECK(text.get<std::string>().find("interface " + name.get<std::string>() + "\n") != std::string::npos);
  }
  CHECK(supervisor_description() == contents_of(std::string{TROUPE_SOURCE_DIR} + "/runtime/org.troupe.Supervisor.varlink"));
  for (const auto& method : varlink_methods())
    CHECK(method.declaration.find(fmt::format("\nmethod {}(", method.name)) != std::string_view::npos);
}

TEST_CASE("varlink: what is not served is refused by the protocol's own errors", "[actors]") {
  varlink_fixture on;
  auto client = on.connect();
  CHECK(call(client, "org.troupe.Supervisor.Dance")["error"] == "org.varlink.service.MethodNotFound");
  CHECK(call(client, "com.example.Dance")["error"] == "org.varlink.service.InterfaceNotFound");
  CHECK(call(client, "Dance")["error"] == "org.varlink.service.InterfaceNotFound");
  CHECK(call(client, check)["parameters"]["parameter"] == "guest");
  CHECK(call(client, "org.varlink.service.GetInterfaceDescription", {{"interface", 7}})["error"] ==
        "org.varlink.service.InvalidParameter");
  CHECK(call(client, "org.varlink.service.GetInterfaceDescription", {{"interface", "x"}})["parameters"]["interface"] == "x");
  CHECK(call(client, check, {{"guest", "nobody"}})["error"] == "org.troupe.Supervisor.NoSuchGuest");
}

TEST_CASE("varlink: answers come in the order of calls, none for a call that wants none", "[actors]") {
  varlink_fixture on;
  auto client = on.connect();
  std::string all;
  for (int i = 0; i < 200; ++i)
    all += to_text(varlink_call{"a.b" + std::to_string(i) + ".C", {}, i % 2 == 1});
  client.send_bytes(all);
  for (int i = 0; i < 200; i += 2)
    CHECK(next_answer(client)["parameters"]["interface"] == "a.b" + std::to_string(i));
}

TEST_CASE("varlink: a client that talks nonsense is dropped", "[actors]") {
  for (const auto& nonsense : {std::string{"{}\0", 3}, std::string(max_varlink_message + 1, 'x')}) {
    varlink_fixture on;
    auto client = on.connect();
    client.send_bytes(nonsense);
    CHECK_FALSE(client.receive_text('\0'));
  }
}

TEST_CASE("check: every use is looked at as it will be, and each denial is told with what it is needed for", "[actors]") {
  varlink_fixture on;
  on.define(disk_at("/bad") + disk_at("/good", "<readonly/>") +
            "<serial type='file'><source path='/log'/></serial>");
  auto client = on.connect();
  const auto answer = call(client, check, {{"guest", "web"}})["parameters"];
  CHECK(answer["guest"] == "web");
  CHECK(answer["user"] == "+64055:+64056");
  CHECK(answer["denials"] == json{{{"path", "/"}, {"use", "/bad"}, {"layer", "dac"}, {"denied", "search"}, {"why", "why"}, {"remedy", "chmod"}},
                                  {{"path", "/bad"}, {"use", "/bad"}, {"layer", "acl"}, {"denied", "write"}, {"why", "why not"}, {"remedy", "setfacl"}}});
  CHECK(on.script->count("/bad as 64055 written given granted") == 1);
  CHECK(on.script->count("/good as 64055 given granted") == 1);
  CHECK(on.script->count("/log as 64055 written given granted") == 1); // the start makes it
  CHECK(on.script->count("/qemu as 64055") == 1);
  CHECK(answer["looked_at"].size() == 4);
}

TEST_CASE("check: a label of the guest's own decides who asks and what is given", "[actors]") {
  varlink_fixture on;
  const auto labelled = [](const char* label) {
    return fmt::format("<seclabel type='static' model='dac' relabel='no'><label>{}</label></seclabel>", label);
  };
  on.define(disk_at("/good"), labelled("+77:+78"));
  auto client = on.connect();
  CHECK(call(client, check, {{"guest", format_uuid(web_uuid)}})["parameters"]["user"] == "+77:+78");
  CHECK(on.script->count("/good as 77 written granted") == 1);
  on.define(disk_at("/good"), labelled("nobody:+78"));
  const auto refused = call(client, check, {{"guest", "web"}});
  CHECK(refused["error"] == "org.troupe.Supervisor.BadArgument");
}

TEST_CASE("check: a path that hangs delays neither the others nor the answer", "[actors]") {
  varlink_fixture on;
  on.check_within = std::chrono::milliseconds{3000};
  on.define(disk_at("/hangs") + disk_at("/slow") + disk_at("/bad") + disk_at("/good"));
  auto client = on.connect();
  const auto answer = call(client, check, {{"guest", "web"}})["parameters"];
  std::vector<std::string> told;
  for (const auto& each : answer["denials"])
    told.push_back(each["use"].get<std::string>() + " " + each["denied"].get<std::string>());
  std::ranges::sort(told);
  CHECK(told == std::vector<std::string>{"/bad search", "/bad write", "/hangs find", "/slow find"});
  CHECK(std::ranges::find(answer["looked_at"], "/good") != answer["looked_at"].end());
}

} // namespace troupe
