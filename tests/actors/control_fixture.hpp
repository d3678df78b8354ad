#pragma once

#include "actors/connection.hpp"
#include "actors/control_methods.hpp"
#include "actors/loop_scheduler.hpp"
#include "runtime/rpc.hpp"
#include "tests/catch.hpp"
#include "xml/domain.hpp"

#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <poll.h>
#include <sys/socket.h>

namespace troupe {

/// What the scripted actors do, and what was asked of them. Shared with the test's thread.
struct control_script {
  std::mutex mutex;
  std::vector<std::string> orders;                     ///< In the order in which they came.
  std::vector<caf::typed_response_promise<done>> held; ///< Suspends are not answered before the test says so.
  bool hold_suspends = false;
  console_place console;
  guest_view_ptr view;
  std::vector<guest_view_ptr> listed;
  caf::strong_actor_ptr subscriber;

  void note(std::string order) {
    const std::lock_guard lock{mutex};
    orders.push_back(std::move(order));
  }
  std::size_t count(const std::string& order) {
    const std::lock_guard lock{mutex};
    return static_cast<std::size_t>(std::count(orders.begin(), orders.end(), order));
  }
};
using script_ptr = std::shared_ptr<control_script>;

inline constexpr uuid_bytes web_uuid = {0xc7, 0xa5, 0xfd, 0xbd, 0xed, 0xaf, 0x94, 0x55,
                                        0x92, 0x6a, 0xd6, 0x5c, 0x16, 0xdb, 0x18, 0x09};

inline guest_actor::behavior_type scripted_guest(guest_actor::pointer self, script_ptr script) {
  return {
    [=](const start_guest& x) {
      script->note("start " + std::to_string(x.flags));
      return script->view->ref;
    },
    [=](const destroy_guest& x) {
      script->note("destroy " + std::to_string(x.flags));
      return done{};
    },
    [=](const shutdown_guest& x) {
      script->note("shutdown " + std::to_string(x.flags));
      return done{};
    },
    [=](const reboot_guest& x) {
      script->note("reboot " + std::to_string(x.flags));
      return done{};
    },
    [=](const reset_guest&) {
      script->note("reset");
      return done{};
    },
    [=](const suspend_guest&) {
      script->note("suspend");
      auto promise = self->make_response_promise<done>();
      const std::lock_guard lock{script->mutex};
      if (script->hold_suspends)
        script->held.push_back(promise);
      else
        promise.deliver(done{});
      return promise;
    },
    [=](const resume_guest&) -> caf::result<done> {
      script->note("resume");
      return to_caf({errc::wrong_state, "domain is already running"});
    },
    [=](const monitor_command& x) { return x.text + (x.human ? " (hmp)" : " (qmp)"); },
    [=](const set_config&) { return done{}; },
    [=](const drop_config&) { return done{}; },
    [=](const mark_autostart&) { return done{}; },
    [=](const set_metadata& x) {
      script->note("metadata " + x.text + (x.remove ? " removed" : ""));
      return done{};
    },
    [=](const open_console&) -> caf::result<console_place> {
      if (script->console.path.empty())
        return to_caf({errc::operation_failed, "guest 'web' has no console"});
      return script->console;
    },
    [=](const close_console& x) { script->note("close " + x.path); },
    [](const completion& x) { x.run(); },
  };
}

inline driver_actor::behavior_type scripted_driver(driver_actor::pointer self, script_ptr script) {
  const auto web = self->spawn(scripted_guest, script);
  return {
    [=](const find_guest& x) -> caf::result<guest_entry> {
      if (x.text == format_uuid(web_uuid) || x.text == "web" || x.id == 7)
        return guest_entry{web, script->view};
      return to_caf({errc::no_such_guest, "no domain with matching uuid '" + x.text + "'"});
    },
    [=](const list_guests&) { return script->listed; },
    [=](const define_guest& x) -> caf::result<guest_ref> {
      script->note("define " + x.xml);
      return script->view->ref;
    },
    [=](const create_guest& x) {
      script->note("create " + x.xml + (x.owner ? " owned" : ""));
      return script->view->ref;
    },
    [=](const undefine_guest& x) {
      script->note("undefine " + std::to_string(x.flags));
      return done{};
    },
    [=](const set_autostart& x) {
      script->note(x.on ? "autostart on" : "autostart off");
      return done{};
    },
    [](const admit_start&) { return start_permit{}; },
    [](const save_config&) { return done{}; },
    [](const view_changed&) {},
    [](const completion& x) { x.run(); },
  };
}

inline prober_actor::behavior_type scripted_prober(prober_actor::pointer) {
  return {
    [](const emulator_wanted& x) -> caf::result<emulator_facts_ptr> {
      return to_caf({errc::operation_failed, "there is no emulator '" + x.binary + "'"});
    },
    [](const list_emulators&) {
      auto facts = std::make_shared<emulator_facts>();
      facts->binary = "/usr/bin/qemu-system-x86_64";
      facts->arch = "x86_64";
      facts->version = {7, 2, 11, {}};
      facts->tcg_usable = true;
      return std::vector<emulator_facts_ptr>{facts};
    },
    [](const completion& x) { x.run(); },
  };
}

inline event_hub_actor::behavior_type scripted_hub(event_hub_actor::pointer, script_ptr script) {
  return {
    [](const publish_event&) {},
    [=](const subscribe& x) {
      script->note("subscribe");
      const std::lock_guard lock{script->mutex};
      script->subscriber = x.who;
    },
    [=](const unsubscribe&) {
      script->note("unsubscribe");
      const std::lock_guard lock{script->mutex};
      script->subscriber = nullptr;
    },
    [](const completion& x) { x.run(); },
  };
}

/// The test's end of a connection. It waits, but never for good.
class waiting_client {
public:
  explicit waiting_client(unique_fd socket) : socket_{std::move(socket)} {}

  void send(const rpc_header& header, std::string_view payload = {}) { send_bytes(encode_rpc(header, payload)); }

  void send_bytes(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0)
        FAIL("the connection takes no bytes: errno " << errno);
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  /// The next packet; none when the other side hung up.
  std::optional<rpc_packet> receive() {
    for (;;) {
      auto packet = framer_.next();
      REQUIRE(packet);
      if (*packet)
        return std::move(**packet);
      pollfd ready{socket_.get(), POLLIN, 0};
      REQUIRE(::poll(&ready, 1, 20'000) == 1);
      char bytes[65536];
      const auto got = ::recv(socket_.get(), bytes, sizeof bytes, 0);
      if (got <= 0)
        return std::nullopt;
      framer_.feed({bytes, static_cast<std::size_t>(got)});
    }
  }

  /// What comes up to the byte `end`, for protocols of lines; none when the other side hung up.
  std::optional<std::string> receive_text(char end) {
    for (;;) {
      if (const auto at = text_.find(end); at != text_.npos) {
        auto line = text_.substr(0, at);
        text_.erase(0, at + 1);
        return line;
      }
      pollfd ready{socket_.get(), POLLIN, 0};
      REQUIRE(::poll(&ready, 1, 20'000) == 1);
      char bytes[65536];
      const auto got = ::recv(socket_.get(), bytes, sizeof bytes, 0);
      if (got <= 0)
        return std::nullopt;
      text_.append(bytes, static_cast<std::size_t>(got));
    }
  }

  /// Calls and waits for the answer; packets that come before it are kept in `others`.
  rpc_packet call(std::int32_t procedure, std::string_view payload = {}, std::uint32_t program = rpc_program_remote) {
    rpc_header header;
    header.program = program;
    header.procedure = procedure;
    header.serial = ++serial_;
    send(header, payload);
    return answer_to(header);
  }

  rpc_packet answer_to(const rpc_header& header) {
    for (;;) {
      auto packet = receive();
      REQUIRE(packet);
      if (packet->header.type == rpc_type::reply && packet->header.serial == header.serial) {
        CHECK(packet->header.program == header.program);
        CHECK(packet->header.procedure == header.procedure);
        return std::move(*packet);
      }
      others.push_back(std::move(*packet));
    }
  }

  void hang_up() { socket_.reset(); }
  std::uint32_t last_serial() const { return serial_; }

  std::vector<rpc_packet> others;

private:
  unique_fd socket_;
  rpc_framer framer_;
  std::string text_;
  std::uint32_t serial_ = 0;
};

/// An error reply's code, domain and text. Fails for a reply that is none.
struct wire_error {
  int code = 0, domain = 0;
  std::string text;
};

inline wire_error error_of(const rpc_packet& packet) {
  REQUIRE(packet.header.status == rpc_status::error);
  xdr_reader in{packet.payload};
  wire_error out{in.i32(), in.i32(), {}};
  out.text = in.optional_string(rpc_max_string).value_or("");
  REQUIRE(in.done());
  return out;
}

/// A real connection on a real loop; all that it asks is scripted.
struct control_fixture {
  struct configuration : caf::actor_system_config {
    configuration() {
      set("scheduler.max-threads", 1);
      module_factories.push_back([](caf::actor_system& of) { return loop_scheduler::make(of, {}); });
    }
  };

  script_ptr script = std::make_shared<control_script>();
  configuration config;
  caf::actor_system system{config};
  caf::scoped_actor self{system, true};
  driver_actor driver;
  event_hub_actor hub;
  prober_actor prober;
  std::vector<connection_actor> connections;

  control_fixture() {
    auto live = std::make_shared<domain>();
    live->name = "web";
    live->uuid = format_uuid(web_uuid);
    live->title = "A Title";
    live->os.type = "hvm";
    live->memory_kib = live->current_memory_kib = 8192;
    auto view = std::make_shared<guest_view>();
    view->ref = {"web", format_uuid(web_uuid), 7};
    view->life = guest_state::running;
    view->state = 1;
    view->reason = 1;
    view->config = view->live = live;
    view->max_memory_kib = view->memory_kib = 8192;
    view->vcpus = 2;
    view->pid = ::getpid();
    view->labels = {{"dac", guest_label::origin::dynamic, true, "+107:+107", "+107:+107", {}}};
    view->enforced = true;
    script->view = view;
    script->listed = {view};
    driver = system.spawn(scripted_driver, script);
    hub = system.spawn(scripted_hub, script);
    prober = system.spawn(scripted_prober);
  }

  ~control_fixture() {
    script->held.clear();
    for (const auto& each : connections)
      self->send_exit(each, caf::exit_reason::user_shutdown);
    self->send_exit(driver, caf::exit_reason::user_shutdown);
    self->send_exit(hub, caf::exit_reason::user_shutdown);
    self->send_exit(prober, caf::exit_reason::user_shutdown);
    const std::lock_guard lock{script->mutex};
    script->subscriber = nullptr;
  }

  /// A connected client; not yet opened.
  waiting_client connect(bool read_only = false) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    REQUIRE(::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    auto around = std::make_shared<control_surroundings>();
    around->driver = driver;
    around->events = hub;
    around->prober = prober;
    around->about_host.arch = "x86_64";
    around->about_host.online = {0, 1};
    around->about_host.cpus_present = 2;
    around->capabilities.security.push_back({"dac", "0", {}, {}});
    around->uri = "qemu:///system";
    around->about_host.hostname = "stage";
    around->version = 9'000'000;
    around->around = std::make_shared<guest_surroundings>();
    connections.push_back(
      spawn_connection(system, connection_setup{around, std::make_shared<unique_fd>(ends[0]), read_only, {}}));
    return waiting_client{unique_fd{ends[1]}};
  }

  static std::string open_payload(std::string_view name = "qemu:///system", std::uint32_t flags = 0) {
    xdr_writer out;
    out.present(true);
    out.string(name);
    out.u32(flags);
    return out.take();
  }

  waiting_client open(bool read_only = false) {
    auto client = connect(read_only);
    REQUIRE(client.call(1, open_payload()).header.status == rpc_status::ok);
    return client;
  }

  /// Waits until `true_now`, as long as a loaded machine may need.
  template <class Predicate>
  static void eventually(Predicate true_now) {
    for (int i = 0; i < 2000 && !true_now(); ++i)
      ::poll(nullptr, 0, 10);
    REQUIRE(true_now());
  }

  /// Waits until the last connection's actor has ended.
  void wait_for_end() {
    self->monitor(connections.back());
    bool ended = false;
    self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(std::chrono::seconds{20}) >> [] {});
    REQUIRE(ended);
  }
};

inline std::string web_payload(std::string_view after = {}) {
  xdr_writer out;
  write(out, rpc_domain{"web", web_uuid, 7});
  return out.take().append(after);
}

inline std::string u32_payload(std::uint32_t value) {
  xdr_writer out;
  out.u32(value);
  return out.take();
}

} // namespace troupe
