#include "actors/connection.hpp"

#include "tests/actors/control_fixture.hpp"
#include "tests/temp_dir.hpp"

#include <fcntl.h>
#include <sys/un.h>
#include <thread>

namespace troupe {
namespace {

rpc_header call_header(std::int32_t procedure, std::uint32_t serial) {
  rpc_header header;
  header.procedure = procedure;
  header.serial = serial;
  return header;
}

std::string text_of(const rpc_packet& packet) {
  xdr_reader in{packet.payload};
  return std::string{in.string(rpc_max_string)};
}

int number_of(const rpc_packet& packet) {
  REQUIRE(packet.header.status == rpc_status::ok);
  xdr_reader in{packet.payload};
  return in.i32();
}

std::string register_payload(int event_id, const uuid_bytes* only = nullptr) {
  xdr_writer out;
  out.i32(event_id);
  out.present(only != nullptr);
  if (only != nullptr)
    write(out, rpc_domain{"whatever", *only, 3});
  return out.take();
}

guest_event_ptr event_of(event_body what) {
  auto out = std::make_shared<guest_event>();
  out->guest = {"web", format_uuid(web_uuid), 7};
  out->what = std::move(what);
  return out;
}

/// Both ends of a PTY, as QEMU and the daemon have them.
struct pty {
  unique_fd master{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)};
  std::string path;

  pty() {
    REQUIRE(master);
    REQUIRE(::grantpt(master.get()) == 0);
    REQUIRE(::unlockpt(master.get()) == 0);
    path = ::ptsname(master.get());
  }
};

std::string console_payload() {
  xdr_writer out;
  write(out, rpc_domain{"web", web_uuid, 7});
  out.present(false);
  out.u32(0);
  return out.take();
}

rpc_header stream_header(std::uint32_t serial, rpc_status status) {
  return {rpc_program_remote, rpc_version, 201, rpc_type::stream, serial, status};
}

/// Reads from a console's far end until `size` bytes came.
std::string read_exactly(int fd, std::size_t size) {
  std::string out;
  while (out.size() < size) {
    pollfd ready{fd, POLLIN, 0};
    REQUIRE(::poll(&ready, 1, 20'000) == 1);
    char bytes[4096];
    const auto got = ::read(fd, bytes, std::min(sizeof bytes, size - out.size()));
    REQUIRE(got > 0);
    out.append(bytes, static_cast<std::size_t>(got));
  }
  return out;
}

} // namespace

TEST_CASE("connection: a client is told what libvirt's would", "[actors]") {
  control_fixture on;
  auto client = on.connect();
  const auto auth = client.call(66);
  CHECK(auth.payload == u32_payload(1) + u32_payload(0));
  REQUIRE(client.call(1, control_fixture::open_payload("qemu:///system?a=b")).header.status == rpc_status::ok);
  CHECK(text_of(client.call(3)) == "QEMU");
  CHECK(text_of(client.call(59)) == "stage");
  CHECK(text_of(client.call(110)) == "qemu:///system?a=b");
  const auto version = client.call(4);
  CHECK(xdr_reader{version.payload}.u64() == 7'002'011);
  CHECK(client.call(6).payload.size() == 160); // 188 with the header
  CHECK(client.call(212, web_payload(u32_payload(0))).payload == u32_payload(1) + u32_payload(1));
  CHECK(client.call(122).payload.size() == 4 + 4 * 4 + 4 + 2 * 4); // "dac", "0" and their ends
}

TEST_CASE("connection: features are what is served, and the unknown are not an error", "[actors]") {
  control_fixture on;
  auto client = on.open();
  for (const auto& [feature, yes] : std::initializer_list<std::pair<std::uint32_t, int>>{
         {1, 0}, {3, 0}, {4, 0}, {8, 1}, {9, 1}, {10, 1}, {13, 0}, {14, 1}, {15, 1}, {16, 0}, {99, 0}})
    CHECK(number_of(client.call(60, u32_payload(feature))) == yes);
}

TEST_CASE("connection: it is opened once, and for this driver only", "[actors]") {
  control_fixture on;
  for (const auto& [name, code] : std::initializer_list<std::pair<const char*, int>>{{"vbox:///system", 5},
                                                                                     {"test:///default", 5},
                                                                                     {"nonsense", 5},
                                                                                     {"qemu:///elsewhere", 1},
                                                                                     {"qemu://host/system", 1}}) {
    auto client = on.connect();
    INFO(name);
    CHECK(error_of(client.call(1, control_fixture::open_payload(name))).code == code);
    CHECK(error_of(client.call(3)).code == 1); // still closed
  }
  for (const auto* name : {"", "qemu:///system", "qemu:///session", "qemu+unix:///system?x=y"}) {
    auto client = on.connect();
    INFO(name);
    CHECK(client.call(1, control_fixture::open_payload(name, 6)).header.status == rpc_status::ok);
    const auto again = error_of(client.call(1, control_fixture::open_payload(name)));
    CHECK(again.code == 1);
    CHECK(again.domain == 7);
    CHECK(client.call(9, web_payload()).header.status == rpc_status::ok); // 6 is not read-only
  }
}

TEST_CASE("connection: what is not served is refused as clients expect, and the connection lives", "[actors]") {
  control_fixture on;
  auto client = on.open();
  for (const auto number : {0, 8, 318, 9999, -1}) {
    const auto why = error_of(client.call(number));
    CHECK(why.code == 39);
    CHECK(why.domain == 7);
    CHECK(why.text.starts_with("unknown procedure"));
  }
  CHECK(error_of(client.call(5, {}, 0x12345678)).code == 39);
  auto odd = call_header(3, 50);
  odd.version = 4711;
  client.send(odd);
  CHECK(error_of(client.answer_to(odd)).code == 39);
  odd = call_header(3, 51);
  odd.status = rpc_status::error;
  client.send(odd);
  CHECK(error_of(client.answer_to(odd)).code == 39);
  // Dropped without a word.
  odd = call_header(3, 52);
  for (const auto type : {rpc_type::message, rpc_type::reply, rpc_type::stream, rpc_type::stream_hole}) {
    odd.type = type;
    client.send(odd, "data");
  }
  CHECK(text_of(client.call(3)) == "QEMU");
  CHECK(client.others.empty());
}

TEST_CASE("connection: a length out of bounds ends it", "[actors]") {
  for (const auto length : {0u, 3u, 27u, 0x7fffffffu, 33'554'437u}) {
    control_fixture on;
    auto client = on.open();
    client.send_bytes(u32_payload(length) + std::string(24, '\0'));
    CHECK(!client.receive());
    on.wait_for_end();
  }
}

TEST_CASE("connection: a ping is answered, before the connection is open too", "[actors]") {
  control_fixture on;
  auto client = on.connect();
  const rpc_header ping{rpc_program_keepalive, rpc_version, rpc_keepalive_ping, rpc_type::message, 0, rpc_status::ok};
  client.send(ping);
  const auto pong = client.receive();
  REQUIRE(pong);
  auto expected = ping;
  expected.procedure = rpc_keepalive_pong;
  CHECK(pong->header == expected);
  CHECK(pong->payload.empty());
}

TEST_CASE("connection: a fast call overtakes a slow one", "[actors]") {
  control_fixture on;
  on.script->hold_suspends = true;
  auto client = on.open();
  const auto slow = call_header(34, 100);
  client.send(slow, web_payload());
  CHECK(text_of(client.call(3)) == "QEMU");
  CHECK(client.others.empty());
  control_fixture::eventually([&] { return on.script->count("suspend") == 1; });
  {
    const std::lock_guard lock{on.script->mutex};
    REQUIRE(on.script->held.size() == 1);
    on.script->held.front().deliver(done{});
  }
  CHECK(client.answer_to(slow).header.status == rpc_status::ok);
}

TEST_CASE("connection: many calls at once are all answered, in spite of the bound", "[actors]") {
  control_fixture on;
  auto client = on.open();
  constexpr std::uint32_t many = 3000;
  std::thread sender{[&client] {
    std::string bytes;
    for (std::uint32_t i = 0; i < many; ++i)
      bytes += encode_rpc(call_header(i % 3 == 0 ? 3 : 16, 1000 + i), i % 3 == 0 ? "" : web_payload());
    client.send_bytes(bytes);
  }};
  std::vector<bool> answered(many);
  for (std::uint32_t i = 0; i < many; ++i) {
    const auto packet = client.receive();
    REQUIRE(packet);
    CHECK(packet->header.status == rpc_status::ok);
    answered.at(packet->header.serial - 1000) = true;
  }
  sender.join();
  CHECK(std::ranges::all_of(answered, [](bool x) { return x; }));
}

TEST_CASE("connection: calls that do not end are bounded, and the rest waits unread", "[actors]") {
  control_fixture on;
  on.script->hold_suspends = true;
  auto client = on.open();
  std::string bytes; // at once: they have to fit into the socket while nobody reads it
  for (std::uint32_t i = 0; i < 1000; ++i)
    bytes += encode_rpc(call_header(34, 1000 + i), web_payload());
  client.send_bytes(bytes);
  control_fixture::eventually([&] { return on.script->count("suspend") >= 256; });
  ::poll(nullptr, 0, 100);
  CHECK(on.script->count("suspend") == 256);
  // Answered, they make room for as many.
  std::size_t answered = 0;
  while (answered < 1000) {
    std::vector<caf::typed_response_promise<done>> held;
    control_fixture::eventually([&] {
      const std::lock_guard lock{on.script->mutex};
      return !on.script->held.empty();
    });
    {
      const std::lock_guard lock{on.script->mutex};
      held.swap(on.script->held);
    }
    for (auto& promise : held) {
      promise.deliver(done{});
      REQUIRE(client.receive());
      ++answered;
    }
  }
  CHECK(on.script->count("suspend") == 1000);
}

TEST_CASE("connection: orders reach the guest with their flags, and its refusals come back", "[actors]") {
  control_fixture on;
  auto client = on.open();
  const auto with = [](std::uint32_t flags) { return web_payload(u32_payload(flags)); };
  CHECK(client.call(9, web_payload()).payload.empty());
  CHECK(client.call(196, with(1)).payload == web_payload());
  CHECK(client.call(12, web_payload()).header.status == rpc_status::ok);
  CHECK(client.call(234, with(1)).header.status == rpc_status::ok);
  CHECK(client.call(258, with(2)).header.status == rpc_status::ok);
  CHECK(client.call(231, with(4)).header.status == rpc_status::ok);
  CHECK(client.call(29, with(1)).header.status == rpc_status::ok);
  CHECK(on.script->orders == std::vector<std::string>{"start 0", "start 1", "destroy 0", "destroy 1", "shutdown 2",
                                                      "undefine 4", "autostart on"});
  const auto refused = error_of(client.call(28, web_payload()));
  CHECK(refused.code == 55);
  CHECK(refused.text == "Requested operation is not valid: domain is already running");
  for (const auto number : {212, 234, 245, 258, 27, 14, 196, 183, 426})
    CHECK(error_of(client.call(number, with(1u << 28))).code == 8);
}

TEST_CASE("connection: only the UUID says which guest is meant", "[actors]") {
  control_fixture on;
  auto client = on.open();
  xdr_writer stale;
  write(stale, rpc_domain{"another", web_uuid, 99});
  CHECK(client.call(16, stale.bytes()).header.status == rpc_status::ok);
  auto other = web_uuid;
  other[0] = 0;
  xdr_writer gone;
  write(gone, rpc_domain{"web", other, 7});
  const auto why = error_of(client.call(16, gone.bytes()));
  CHECK(why.code == 42);
  CHECK(why.text.find("(web)") != why.text.npos);
}

TEST_CASE("connection: metadata that is not there has its own code", "[actors]") {
  control_fixture on;
  auto client = on.open();
  const auto get = [&](int type, std::uint32_t flags) {
    xdr_writer out;
    write(out, rpc_domain{"web", web_uuid, 7});
    out.i32(type);
    out.present(false);
    out.u32(flags);
    return client.call(265, out.bytes());
  };
  CHECK(text_of(get(1, 0)) == "A Title");
  CHECK(text_of(get(1, 2)) == "A Title");
  CHECK(error_of(get(0, 0)).code == 80);
  CHECK(error_of(get(1, 3)).code == 8);
}

TEST_CASE("connection: statistics hold what was asked for", "[actors]") {
  control_fixture on;
  auto client = on.open();
  const auto stats = [&](std::uint32_t groups, std::uint32_t flags) {
    return client.call(344, u32_payload(0) + u32_payload(groups) + u32_payload(flags));
  };
  const auto names = [](const rpc_packet& packet) {
    std::vector<std::string> out;
    xdr_reader in{packet.payload};
    REQUIRE(in.u32() == 1);
    CHECK(read_domain(in).name == "web");
    for (const auto& each : read_typed_params(in, 262'144))
      out.push_back(each.field);
    REQUIRE(in.done());
    return out;
  };
  CHECK(names(stats(1, 0)) == std::vector<std::string>{"state.state", "state.reason"});
  CHECK(names(stats(8, 0)) == std::vector<std::string>{"vcpu.current", "vcpu.maximum"});
  CHECK(names(stats(2, 0)) == std::vector<std::string>{"cpu.time", "cpu.user", "cpu.system"});
  CHECK(names(stats(0, 0)).size() == 10);
  CHECK(error_of(stats(1u << 20, 1u << 31)).code == 74);
  CHECK(names(stats(1u << 20, 0)).empty());
}

TEST_CASE("connection: events reach those who asked for them, with the id they were given", "[actors]") {
  control_fixture on;
  auto client = on.open();
  auto other = web_uuid;
  other[15] ^= 1;
  CHECK(number_of(client.call(316, register_payload(0))) == 0);
  CHECK(number_of(client.call(316, register_payload(0, &web_uuid))) == 1);
  CHECK(number_of(client.call(316, register_payload(0, &other))) == 2);
  CHECK(number_of(client.call(316, register_payload(23))) == 3);
  for (int id = 0; id <= 26; ++id)
    CHECK(number_of(client.call(316, register_payload(id, &other))) == 4 + id);
  for (const auto id : {-1, 27, 1000}) {
    const auto why = error_of(client.call(316, register_payload(id)));
    CHECK(why.code == 1);
    CHECK(why.domain == 7);
  }
  CHECK(on.script->count("subscribe") == 1);

  const auto& connection = on.connections.back();
  caf::anon_send(connection, event_happened{event_of(event::lifecycle{5, 1})});
  for (const auto id : {0u, 1u}) {
    const auto packet = client.receive();
    REQUIRE(packet);
    CHECK(packet->header.procedure == 318);
    CHECK(packet->header.type == rpc_type::message);
    CHECK(packet->payload == u32_payload(id) + web_payload(u32_payload(5) + u32_payload(1)));
  }
  caf::anon_send(connection, event_happened{event_of(event::metadata_change{1, {}})});
  const auto packet = client.receive();
  REQUIRE(packet);
  CHECK(packet->header.procedure == 379);
  CHECK(packet->payload == u32_payload(3) + web_payload(u32_payload(1) + u32_payload(0)));

  for (std::uint32_t id = 0; id < 31; ++id)
    CHECK(client.call(317, u32_payload(id)).header.status == rpc_status::ok);
  CHECK(error_of(client.call(317, u32_payload(0))).domain == 7);
  control_fixture::eventually([&] { return on.script->count("unsubscribe") == 1; });
  caf::anon_send(connection, event_happened{event_of(event::lifecycle{5, 1})});
  client.call(3);
  CHECK(client.others.empty());
}

TEST_CASE("connection: a subscriber that does not read is dropped", "[actors]") {
  control_fixture on;
  auto client = on.open();
  client.call(316, register_payload(4));
  const event::io_error large{std::string(1u << 20, 'x'), "virtio-disk0", "enospc", 1};
  for (int i = 0; i < 60; ++i)
    caf::anon_send(on.connections.back(), event_happened{event_of(large)});
  on.wait_for_end();
}

TEST_CASE("connection: closing it is answered first", "[actors]") {
  control_fixture on;
  auto client = on.open();
  client.send_bytes(encode_rpc(call_header(2, 9), {}) + encode_rpc(call_header(3, 10), {})); // the second is too late
  const auto answer = client.receive();
  REQUIRE(answer);
  CHECK(answer->header == reply_to(call_header(2, 9)));
  CHECK(!client.receive());
  on.wait_for_end();
}

TEST_CASE("connection: a client's death gives up the wait, not the operation", "[actors]") {
  control_fixture on;
  on.script->hold_suspends = true;
  auto client = on.open();
  client.send(call_header(34, 1), web_payload());
  control_fixture::eventually([&] { return on.script->count("suspend") == 1; });
  client.hang_up();
  on.wait_for_end();
  const std::lock_guard lock{on.script->mutex};
  on.script->held.front().deliver(done{}); // nobody hears it, nothing breaks
}

TEST_CASE("connection: it ends with the driver", "[actors]") {
  control_fixture on;
  auto client = on.open();
  on.self->send_exit(on.driver, caf::exit_reason::user_shutdown);
  CHECK(!client.receive());
  on.wait_for_end();
}

TEST_CASE("connection: autodestroy names the connection as the owner", "[actors]") {
  control_fixture on;
  auto client = on.open();
  const auto create = [&](std::uint32_t flags) {
    xdr_writer out;
    out.string("<domain/>");
    out.u32(flags);
    return client.call(10, out.bytes()).payload;
  };
  CHECK(create(0) == web_payload());
  CHECK(create(2) == web_payload());
  CHECK(on.script->orders == std::vector<std::string>{"create <domain/>", "create <domain/> owned"});
}

TEST_CASE("connection: a console's bytes go both ways, and its end is told", "[actors]") {
  control_fixture on;
  std::optional<pty> console{std::in_place};
  on.script->console = {console->path, false};
  auto client = on.open();
  REQUIRE(client.call(201, console_payload()).header.status == rpc_status::ok);
  const auto serial = client.last_serial();

  client.send(stream_header(serial, rpc_status::more), "ls\n");
  CHECK(read_exactly(console->master.get(), 3) == "ls\n");
  REQUIRE(::write(console->master.get(), "login:\n", 7) == 7);
  std::string came;
  while (came.size() < 7) {
    const auto packet = client.receive();
    REQUIRE(packet);
    CHECK(packet->header == stream_header(serial, rpc_status::more));
    came += packet->payload;
  }
  CHECK(came == "login:\n"); // raw: no carriage returns were added

  const auto path = console->path;
  console.reset(); // QEMU is gone
  const auto end = client.receive();
  REQUIRE(end);
  CHECK(end->header == stream_header(serial, rpc_status::more));
  CHECK(end->payload.empty());
  client.send(stream_header(serial, rpc_status::ok));
  const auto confirmed = client.receive();
  REQUIRE(confirmed);
  CHECK(confirmed->header == stream_header(serial, rpc_status::ok));
  control_fixture::eventually([&] { return on.script->count("close " + path) == 1; });
  client.send(stream_header(serial, rpc_status::more), "late"); // ignored
  CHECK(text_of(client.call(3)) == "QEMU");
}

TEST_CASE("connection: a console that does not read holds back its client, and no bytes are lost", "[actors]") {
  control_fixture on;
  pty console;
  on.script->console = {console.path, false};
  auto client = on.open();
  REQUIRE(client.call(201, console_payload()).header.status == rpc_status::ok);
  const auto serial = client.last_serial();
  std::string sent;
  for (std::size_t i = 0; sent.size() < (2u << 20); ++i)
    sent += std::to_string(i) + "\n";
  std::thread typist{[&] {
    for (std::size_t at = 0; at < sent.size(); at += 10'000)
      client.send(stream_header(serial, rpc_status::more), std::string_view{sent}.substr(at, 10'000));
  }};
  const auto came = read_exactly(console.master.get(), sent.size());
  typist.join();
  CHECK(came == sent);
  CHECK(text_of(client.call(3)) == "QEMU");
}

TEST_CASE("connection: a client that does not read holds back its console, and no bytes are lost", "[actors]") {
  control_fixture on;
  temp_dir dir;
  const auto path = dir / "serial";
  unique_fd listener{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  on.script->console = {path, true};
  auto client = on.open();
  REQUIRE(client.call(201, console_payload()).header.status == rpc_status::ok);
  unique_fd far{::accept(listener.get(), nullptr, nullptr)};
  REQUIRE(far);

  std::string written;
  for (std::size_t i = 0; written.size() < (8u << 20); ++i)
    written += std::to_string(i) + "\n";
  std::thread guest{[&] {
    std::string_view rest = written;
    while (!rest.empty()) {
      const auto wrote = ::write(far.get(), rest.data(), rest.size());
      if (wrote <= 0)
        break;
      rest.remove_prefix(static_cast<std::size_t>(wrote));
    }
    far.reset();
  }};
  ::poll(nullptr, 0, 100); // let what may wait pile up
  std::string came;
  for (;;) {
    const auto packet = client.receive();
    REQUIRE(packet);
    if (packet->payload.empty())
      break;
    came += packet->payload;
  }
  guest.join();
  CHECK(came == written);
}

TEST_CASE("connection: a console goes to the next user when its client is gone, or another took it", "[actors]") {
  control_fixture on;
  pty console;
  on.script->console = {console.path, false};
  auto client = on.open();
  REQUIRE(client.call(201, console_payload()).header.status == rpc_status::ok);
  caf::anon_send(on.connections.back(), close_console{console.path});
  const auto taken = client.receive();
  REQUIRE(taken);
  CHECK(taken->header == stream_header(client.last_serial(), rpc_status::error));
  CHECK(error_of(*taken).code == 78);
  CHECK(on.script->count("close " + console.path) == 0); // it is the other's now

  REQUIRE(client.call(201, console_payload()).header.status == rpc_status::ok);
  client.hang_up();
  on.wait_for_end();
  control_fixture::eventually([&] { return on.script->count("close " + console.path) == 1; });
}

TEST_CASE("connection: a path that is no PTY is not opened as one", "[actors]") {
  control_fixture on;
  temp_dir dir;
  auto client = on.open();
  for (const auto& path :
       {write_file(dir / "secret", "secret"), std::string{"/dev/pts/../null"}, std::string{"/dev/pts/"}}) {
    on.script->console = {path, false};
    CHECK(error_of(client.call(201, console_payload())).text.find("is no PTY") != std::string::npos);
    control_fixture::eventually([&] { return on.script->count("close " + path) == 1; });
  }
}

} // namespace troupe
