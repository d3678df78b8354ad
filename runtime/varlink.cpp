#include "runtime/varlink.hpp"

#include "runtime/unix_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace troupe {
namespace {

using nlohmann::json;

std::string message(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + '\0';
}

/// "NoSuchGuest": what a row's name says within an interface.
std::string_view word_of(std::string_view name) {
  return name.substr(name.rfind('.') + 1);
}

result<bool> flag(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null())
    return false;
  if (!found->is_boolean())
    return fail(errc::bad_packet, fmt::format("'{}' of the call is not true or false", name));
  return found->get<bool>();
}

} // namespace

result<varlink_call> varlink_call_from(std::string_view text) {
  const auto tree = json::parse(text, nullptr, false);
  if (!tree.is_object())
    return fail(errc::bad_packet, "the call is not a JSON object");
  varlink_call call;
  const auto method = tree.find("method");
  if (method == tree.end() || !method->is_string())
    return fail(errc::bad_packet, "the call has no 'method'");
  call.method = method->get<std::string>();
  if (const auto parameters = tree.find("parameters"); parameters != tree.end() && !parameters->is_null()) {
    if (!parameters->is_object())
      return fail(errc::bad_packet, "'parameters' of the call are not an object");
    call.parameters = *parameters;
  }
  for (const auto& [name, into] : {std::pair{"oneway", &call.oneway}, {"more", &call.more}}) {
    const auto set = flag(tree, name);
    if (!set)
      return tl::make_unexpected(set.error());
    *into = *set;
  }
  return call;
}

std::string to_text(const varlink_call& call) {
  json tree{{"method", call.method}, {"parameters", call.parameters}};
  if (call.oneway)
    tree["oneway"] = true;
  if (call.more)
    tree["more"] = true;
  return message(tree);
}

std::string varlink_reply(const json& parameters, bool continues) {
  json tree{{"parameters", parameters}};
  if (continues)
    tree["continues"] = true;
  return message(tree);
}

std::string varlink_error(std::string_view name, const json& parameters) {
  return message({{"error", name}, {"parameters", parameters}});
}

std::string varlink_error(const error& why) {
  return varlink_error(fmt::format("{}.{}", supervisor_interface, word_of(row_of(why.code).varlink)),
                       {{"message", why.message()}});
}

result<void> varlink_framer::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto end = bytes.find('\0');
    const auto part = bytes.substr(0, end);
    if (rest_.size() + part.size() > max_varlink_message)
      return fail(errc::bad_packet, fmt::format("a message is longer than {} bytes", max_varlink_message));
    rest_ += part;
    if (end == bytes.npos)
      return {};
    messages_.push_back(std::exchange(rest_, {}));
    bytes.remove_prefix(end + 1);
  }
  return {};
}

std::string varlink_framer::next() {
  auto first = std::move(messages_.front());
  messages_.pop_front();
  return first;
}

result<std::unique_ptr<varlink_client>> varlink_client::open(const std::string& socket_path) {
  auto socket = reach_daemon(socket_path);
  if (!socket)
    return tl::make_unexpected(std::move(socket.error()));
  return std::unique_ptr<varlink_client>{new varlink_client{std::move(*socket)}};
}

result<json> varlink_client::call(std::string_view method, json parameters) {
  const auto text = to_text(varlink_call{std::string{method}, std::move(parameters)});
  const auto gone = [](int number) {
    return fail(errc::no_connect, fmt::format("the daemon went away: {}", number == 0 ? "end of file" : std::strerror(number)));
  };
  for (std::size_t sent = 0; sent < text.size();) {
    const auto n = ::send(socket_.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR)
      return gone(errno);
    sent += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  }
  while (!framer_.has_message()) {
    char buffer[16384];
    const auto n = ::read(socket_.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return gone(n < 0 ? errno : 0);
    if (auto taken = framer_.add({buffer, static_cast<std::size_t>(n)}); !taken)
      return tl::make_unexpected(std::move(taken.error()));
  }
  const auto tree = json::parse(framer_.next(), nullptr, false);
  if (!tree.is_object())
    return fail(errc::bad_packet, "the daemon's answer is not a JSON object");
  auto answer = tree.value("parameters", json::object());
  const auto name = tree.find("error");
  if (name == tree.end())
    return answer;
  const auto text_of_error = name->is_string() ? name->get<std::string>() : name->dump();
  const auto row = std::ranges::find(error_rows, word_of(text_of_error), [](const auto& each) { return word_of(each.varlink); });
  const auto which = row == std::end(error_rows) ? errc::operation_failed : static_cast<errc>(row - std::begin(error_rows));
  // The message repeats what the name says.
  auto detail = answer.is_object() && answer.contains("message") && answer["message"].is_string()
                  ? answer["message"].get<std::string>()
                  : text_of_error + " " + answer.dump();
  if (const auto prefix = std::string{row_of(which).text} + ": "; detail.starts_with(prefix))
    detail.erase(0, prefix.size());
  return fail(which, std::move(detail));
}

} // namespace troupe
