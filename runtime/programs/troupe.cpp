// troupe: asks a daemon from the command line. Guests are managed with virsh; this shows what virsh does not.

#include "runtime/paths.hpp"
#include "runtime/settings.hpp"
#include "runtime/varlink.hpp"
#include "runtime/wire_client.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace troupe {
namespace {

using json = nlohmann::ordered_json;

// Numbers of libvirt's remote program.
constexpr std::int32_t get_state = 212;
constexpr std::int32_t list_all_domains = 273;
constexpr std::int32_t register_any = 316;
constexpr std::int32_t lifecycle_message = 318;

struct options {
  bool system = false, session = false, as_json = false;
  std::string root, socket;
};

// virDomainState, virDomainEventType. Source: libvirt's public enumerations, the words virsh prints.
constexpr const char* states[] = {"no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended"};
constexpr const char* happenings[] = {"Defined", "Undefined", "Started", "Suspended", "Resumed", "Stopped", "Shutdown",
                                      "PMSuspended", "Crashed"};

template <std::size_t Size>
std::string word(const char* const (&words)[Size], std::int32_t number) {
  return number >= 0 && static_cast<std::size_t>(number) < Size ? words[number] : std::to_string(number);
}

result<std::unique_ptr<wire_client>> connect(const options& wish) {
  if (!wish.socket.empty())
    return wire_client::open(wish.socket);
  const auto paths = paths_of_instance(wish.session || (!wish.system && ::geteuid() != 0), wish.root);
  if (!paths)
    return tl::make_unexpected(paths.error());
  return wire_client::open(paths->libvirt_sock);
}

result<void> list(const options& wish) {
  auto daemon = connect(wish);
  if (!daemon)
    return tl::make_unexpected(daemon.error());
  xdr_writer ask;
  ask.i32(1); // the domains, not only their number
  ask.u32(0);
  const auto answer = (*daemon)->call(list_all_domains, ask.bytes());
  if (!answer)
    return tl::make_unexpected(answer.error());
  xdr_reader in{*answer};
  auto shown = json::array();
  for (auto left = in.count(rpc_max_list, 24); left > 0; --left) {
    const auto guest = read_domain(in);
    xdr_writer which;
    write(which, guest);
    which.u32(0);
    const auto state = (*daemon)->call(get_state, which.bytes());
    if (!state)
      continue; // it went away meanwhile
    xdr_reader told{*state};
    shown.push_back({{"name", guest.name},
                     {"uuid", format_uuid(guest.uuid)},
                     {"id", guest.id < 0 ? json{} : json(guest.id)},
                     {"state", word(states, told.i32())}});
  }
  if (wish.as_json) {
    fmt::print("{}\n", shown.dump(2));
    return {};
  }
  fmt::print("{:<6} {:<36} {:<12} {}\n", "ID", "UUID", "STATE", "NAME");
  for (const auto& each : shown)
    fmt::print("{:<6} {:<36} {:<12} {}\n", each["id"].is_null() ? "-" : each["id"].dump(), each["uuid"].get<std::string>(),
               each["state"].get<std::string>(), each["name"].get<std::string>());
  return {};
}

result<void> events(const options& wish) {
  auto daemon = connect(wish);
  if (!daemon)
    return tl::make_unexpected(daemon.error());
  xdr_writer ask;
  ask.i32(0); // lifecycle
  ask.present(false);
  if (auto registered = (*daemon)->call(register_any, ask.bytes()); !registered)
    return tl::make_unexpected(registered.error());
  for (;;) {
    const auto message = (*daemon)->next_message();
    if (!message)
      return tl::make_unexpected(message.error());
    if (message->header.procedure != lifecycle_message)
      continue;
    xdr_reader in{message->payload};
    in.i32(); // callback
    const auto guest = read_domain(in);
    const auto what = in.i32(), detail = in.i32();
    if (wish.as_json)
      fmt::print("{}\n", json{{"guest", guest.name}, {"uuid", format_uuid(guest.uuid)}, {"event", word(happenings, what)},
                              {"detail", detail}}.dump());
    else
      fmt::print("{} {} (detail {})\n", guest.name, word(happenings, what), detail);
    std::fflush(stdout);
  }
}

/// What a start of the guest would meet. Errors: also operation_failed, when something stands in its way.
result<void> check(const options& wish, const std::string& guest) {
  auto path = wish.socket;
  if (path.empty()) {
    const auto paths = paths_of_instance(wish.session || (!wish.system && ::geteuid() != 0), wish.root);
    if (!paths)
      return tl::make_unexpected(paths.error());
    path = paths->control;
  }
  auto daemon = varlink_client::open(path);
  if (!daemon)
    return tl::make_unexpected(daemon.error());
  auto answer = (*daemon)->call("org.troupe.Supervisor.Check", {{"guest", guest}});
  if (!answer)
    return tl::make_unexpected(std::move(answer.error()));
  const auto& denials = (*answer)["denials"];
  if (wish.as_json)
    fmt::print("{}\n", answer->dump(2));
  // One directory may bar the way to many files.
  std::vector<std::pair<std::string, std::vector<std::string>>> shown;
  for (const auto& each : denials) {
    const auto text = fmt::format("{}: {}\n    remedy: {}\n", each["layer"].get<std::string>(), each["why"].get<std::string>(),
                                  each["remedy"].get<std::string>());
    auto known = std::ranges::find(shown, text, [](const auto& x) { return x.first; });
    if (known == shown.end())
      known = shown.insert(shown.end(), {text, {}});
    if (each["use"] != each["path"])
      known->second.push_back(each["use"].get<std::string>());
  }
  if (!wish.as_json)
    for (const auto& [text, uses] : shown)
      fmt::print("{}{}", text, uses.empty() ? "" : fmt::format("    needed for: {}\n", fmt::join(uses, ", ")));
  if (!shown.empty())
    return fail(errc::operation_failed, fmt::format("{} of guest '{}' will be refused", shown.size() == 1 ? "1 use" : fmt::format("{} uses", shown.size()), guest));
  if (!wish.as_json)
    fmt::print("nothing stands in the way of guest '{}', which runs as {}: {} paths were looked at\n", guest,
               (*answer)["user"].get<std::string>(), (*answer)["looked_at"].size());
  return {};
}

int finish(result<void> went) {
  if (went)
    return 0;
  fmt::print(stderr, "troupe: {}\n", went.error().message());
  return 1;
}

} // namespace
} // namespace troupe

int main(int argc, char** argv) {
  CLI::App app{"Asks a Troupe daemon. Guests are managed with virsh."};
  app.require_subcommand(1);
  troupe::options wish;
  auto* system = app.add_flag("--system", wish.system, "The machine's daemon (default for root)");
  app.add_flag("--session", wish.session, "The user's own daemon (default for everybody else)")->excludes(system);
  app.add_option("--root", wish.root, "A daemon that runs below this directory")->type_name("DIR");
  app.add_option("--socket", wish.socket, "The daemon that listens here")->type_name("FILE");
  app.add_flag("--json", wish.as_json, "Answer in JSON");
  app.set_version_flag("--version", "troupe 0.1.0");
  app.fallthrough();
  auto* list = app.add_subcommand("list", "All guests and their states");
  auto* events = app.add_subcommand("events", "What happens to guests, as it happens");
  auto* check = app.add_subcommand("check", "What a start of the guest would be refused, and what helps");
  std::string guest;
  check->add_option("guest", guest, "Its name or UUID")->required();
  auto* settings = app.add_subcommand("settings", "Print a qemu.conf that explains every setting");
  CLI11_PARSE(app, argc, argv);
  if (*list)
    return troupe::finish(troupe::list(wish));
  if (*events)
    return troupe::finish(troupe::events(wish));
  if (*check)
    return troupe::finish(troupe::check(wish, guest));
  if (*settings)
    fmt::print("{}", troupe::sample_settings());
  return 0;
}
