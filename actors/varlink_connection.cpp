#include "actors/varlink_connection.hpp"

#include "actors/loop_scheduler.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>
#include <spdlog/spdlog.h>

namespace troupe {
namespace {

using nlohmann::json;

// Beyond these a client is not read until it has been served.
constexpr std::size_t most_messages = 64;
constexpr std::size_t most_unread_bytes = 4 << 20;

constexpr std::string_view service_interface = "org.varlink.service";

constexpr varlink_method methods[] = {
  {"Check",
   "# What stands in the way of a guest's QEMU. `path` is what is refused, `use` the path for whose sake it is needed.\n"
   "type Denial (path: string, use: string, layer: string, denied: string, why: string, remedy: string)\n"
   "\n"
   "# Foretells, without a start, every refusal that the guest of that name or UUID will meet on this host as it is now.\n"
   "method Check(guest: string) -> (guest: string, user: string, looked_at: []string, denials: []Denial)\n",
   serve_check},
};

/// The protocol's own interface. Source: https://varlink.org/Service.
constexpr std::string_view service_description =
  "# What every Varlink service answers about itself.\n"
  "interface org.varlink.service\n"
  "\n"
  "method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)\n"
  "\n"
  "method GetInterfaceDescription(interface: string) -> (description: string)\n"
  "\n"
  "error InterfaceNotFound (interface: string)\n"
  "error MethodNotFound (method: string)\n"
  "error MethodNotImplemented (method: string)\n"
  "error InvalidParameter (parameter: string)\n"
  "error PermissionDenied ()\n"
  "error ExpectedMore ()\n";

void serve_info(varlink_request request) {
  request.answer({{"vendor", "Troupe"},
                  {"product", "trouped"},
                  {"version", "0.1.0"},
                  {"url", ""},
                  {"interfaces", json::array({service_interface, supervisor_interface})}});
}

void serve_description(varlink_request request) {
  const auto wanted = request.parameters.find("interface");
  if (wanted == request.parameters.end() || !wanted->is_string())
    return request.refuse("InvalidParameter", {{"parameter", "interface"}});
  if (*wanted == service_interface)
    return request.answer({{"description", service_description}});
  if (*wanted == supervisor_interface)
    return request.answer({{"description", supervisor_description()}});
  request.refuse("InterfaceNotFound", {{"interface", *wanted}});
}

constexpr varlink_method service_methods[] = {{"GetInfo", "", serve_info}, {"GetInterfaceDescription", "", serve_description}};

void dispatch(varlink_request request, const std::string& method) {
  const auto dot = std::min(method.rfind('.'), method.size());
  const auto interface = method.substr(0, dot);
  const auto name = dot < method.size() ? method.substr(dot + 1) : std::string{};
  const bool ours = interface == supervisor_interface;
  if (!ours && interface != service_interface)
    return request.refuse("InterfaceNotFound", {{"interface", interface}});
  const auto rows = ours ? varlink_methods() : std::span<const varlink_method>{service_methods};
  const auto row = std::ranges::find(rows, name, &varlink_method::name);
  if (row == rows.end())
    return request.refuse("MethodNotFound", {{"method", method}});
  row->serve(std::move(request));
}

} // namespace

std::span<const varlink_method> varlink_methods() {
  return methods;
}

std::string supervisor_description() {
  std::string text = fmt::format("# Supervises QEMU guests.\ninterface {}\n", supervisor_interface);
  for (const auto& each : methods)
    text += fmt::format("\n{}", each.declaration);
  text += "\n";
  std::set<std::string_view> names;
  for (const auto& row : error_rows)
    if (const std::string_view name = row.varlink; !name.empty())
      names.insert(name.substr(name.rfind('.') + 1));
  for (const auto name : names)
    text += fmt::format("error {} (message: string)\n", name);
  return text;
}

void varlink_request::answer(const json& with) const {
  client->end_call(number, varlink_reply(with));
}

void varlink_request::refuse(const error& why) const {
  client->end_call(number, varlink_error(why));
}

void varlink_request::refuse(std::string_view service_error, const json& with) const {
  client->end_call(number, varlink_error(fmt::format("{}.{}", service_interface, service_error), with));
}

void varlink_data::begin(pointer self, connection_setup setup) {
  self_ = self;
  keep_ = caf::actor_cast<caf::strong_actor_ptr>(self);
  around_ = std::move(setup.around);
  self->monitor(around_->driver);
  byte_pump::callbacks calls;
  calls.on_bytes = [this](std::string_view bytes) { on_bytes(bytes); };
  calls.on_drained = [this] { later([this] { take_next(); }); };
  calls.on_ended = [this](const std::string&) { close(); };
  pump_ = std::make_unique<byte_pump>(loop_scheduler::of(self->system()).loop_of(self->id()), std::move(*setup.socket), std::move(calls));
}

void varlink_data::later(std::function<void()> work) {
  caf::anon_send(varlink_actor{self_}, completion{std::move(work)});
}

void varlink_data::close() {
  if (std::exchange(closing_, true))
    return;
  pump_->pause();
  later([this] { self_->quit(); });
}

void varlink_data::on_bytes(std::string_view bytes) {
  if (auto added = framer_.add(bytes); !added) {
    spdlog::warn("a client of the control socket is dropped: {}", added.error().message());
    return close();
  }
  if (framer_.held_messages() >= most_messages)
    pump_->pause();
  if (framer_.has_message())
    later([this] { take_next(); });
}

void varlink_data::take_next() {
  if (busy_ || closing_ || !framer_.has_message() || pump_->queued_bytes() > most_unread_bytes)
    return;
  const auto text = framer_.next();
  pump_->resume();
  auto call = varlink_call_from(text);
  if (!call) {
    spdlog::warn("a client of the control socket is dropped: {}", call.error().message());
    return close();
  }
  busy_ = true;
  oneway_ = call->oneway;
  dispatch({this, ++number_, std::move(call->parameters)}, call->method);
}

void varlink_data::end_call(std::uint64_t number, std::string answer) {
  if (number != number_ || !std::exchange(busy_, false) || closing_)
    return;
  if (!oneway_)
    pump_->write(answer);
  later([this] { take_next(); });
}

namespace {

varlink_actor::behavior_type varlink_connection(varlink_actor::stateful_pointer<varlink_data> self, connection_setup setup) {
  self->set_down_handler([self](const caf::down_msg&) { self->quit(); });
  self->state.begin(self, std::move(setup));
  return {[](const completion& x) { x.run(); }};
}

} // namespace

varlink_actor spawn_varlink_connection(caf::actor_system& system, connection_setup setup) {
  return system.spawn(varlink_connection, std::move(setup));
}

} // namespace troupe
