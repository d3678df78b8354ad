#pragma once

#include "runtime/error.hpp"
#include "runtime/unique_fd.hpp"

#include <cstddef>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

// Varlink's messages: a JSON object each, ended by a zero byte. Source: https://varlink.org/Method-Call.

namespace troupe {

/// The most a message may be, in bytes.
inline constexpr std::size_t max_varlink_message = 1 << 20;

/// The interface that our errors belong to.
inline constexpr std::string_view supervisor_interface = "org.troupe.Supervisor";

/// What a client calls.
struct varlink_call {
  std::string method{}; ///< "org.troupe.Supervisor.Check"
  nlohmann::json parameters = nlohmann::json::object();
  bool oneway = false; ///< No answer is wanted.
  bool more = false;   ///< Several answers would be taken.
};

/// Errors: bad_packet, naming what is wrong.
result<varlink_call> varlink_call_from(std::string_view text);

std::string to_text(const varlink_call& call);

// Answers, with the zero byte at their end.
std::string varlink_reply(const nlohmann::json& parameters, bool continues = false);
std::string varlink_error(std::string_view name, const nlohmann::json& parameters);

/// One of our errors: the name of its row, with the text as parameter `message`.
std::string varlink_error(const error& why);

/// Cuts bytes into messages.
class varlink_framer {
public:
  /// Errors: bad_packet, when a message has become too long; nothing more is read then.
  result<void> add(std::string_view bytes);

  bool has_message() const { return !messages_.empty(); }
  std::string next();                                       ///< Precondition: has_message().
  std::size_t held_messages() const { return messages_.size(); }

private:
  std::string rest_;
  std::deque<std::string> messages_;
};

/// A client that blocks, for programs that do one thing at a time.
class varlink_client {
public:
  /// Errors: no_connect, naming the socket.
  static result<std::unique_ptr<varlink_client>> open(const std::string& socket_path);

  /// Calls and waits for the answer's parameters. Errors: what the daemon answers, by its name; no_connect when it went
  /// away; bad_packet.
  result<nlohmann::json> call(std::string_view method, nlohmann::json parameters);

private:
  explicit varlink_client(unique_fd socket) : socket_{std::move(socket)} {}

  unique_fd socket_;
  varlink_framer framer_;
};

} // namespace troupe
