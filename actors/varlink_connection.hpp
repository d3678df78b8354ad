#pragma once

#include "actors/connection.hpp"
#include "actors/inside.hpp"
#include "runtime/byte_pump.hpp"
#include "runtime/varlink.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace troupe {

using varlink_actor = caf::typed_actor<caf::reacts_to<completion>>;

class varlink_data;

/// One call of a client. Copies are the same call; one of `answer` and `refuse` ends it, once, inside the actor.
struct varlink_request {
  varlink_data* client = nullptr;
  std::uint64_t number = 0;
  nlohmann::json parameters;

  void answer(const nlohmann::json& parameters) const;
  void refuse(const error& why) const;
  /// An error of the protocol's own interface: "MethodNotFound".
  void refuse(std::string_view service_error, const nlohmann::json& parameters) const;
};

/// A method that clients call.
struct varlink_method {
  std::string_view name;    ///< "Check"
  std::string_view declaration; ///< As the interface's description has it, with what types it takes and the comments.
  void (*serve)(varlink_request request);
};

/// The methods of org.troupe.Supervisor, in the order of its description.
std::span<const varlink_method> varlink_methods();

/// The interface in Varlink's language: runtime/org.troupe.Supervisor.varlink.
std::string supervisor_description();

/// A client's own memory, on its actor's shard; the socket's callbacks run there too, outside the actor.
class varlink_data {
public:
  using pointer = varlink_actor::pointer;

  void begin(pointer self, connection_setup setup);

  pointer self() const { return self_; }
  const control_surroundings& around() const { return *around_; }

  void end_call(std::uint64_t number, std::string answer);

private:
  void on_bytes(std::string_view bytes);
  void take_next();
  void later(std::function<void()> work);
  void close();

  pointer self_ = nullptr;
  caf::strong_actor_ptr keep_; ///< Nobody else may hold the actor; it ends by itself.
  std::shared_ptr<const control_surroundings> around_;
  varlink_framer framer_;
  std::uint64_t number_ = 0; ///< Of the last call taken.
  bool busy_ = false;        ///< It has no answer yet: answers go out in the order of calls.
  bool oneway_ = false;
  bool closing_ = false;
  std::unique_ptr<byte_pump> pump_; ///< Last, so that its callbacks find the rest alive.
};

/// Serves one client of the Varlink interface until it hangs up, misbehaves, or the driver ends.
varlink_actor spawn_varlink_connection(caf::actor_system& system, connection_setup setup);

// check_guest.cpp
void serve_check(varlink_request request);

} // namespace troupe
