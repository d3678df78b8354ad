#pragma once

#include "actors/messages.hpp"
#include "runtime/rpc.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace troupe {

class connection_data;
struct control_method;

/// One call of a client, from its packet to its answer. Copies are the same call; one of `answer` and `refuse` ends it,
/// once, inside the connection's actor.
struct control_call {
  connection_data* client = nullptr;
  const control_method* method = nullptr;
  rpc_header header;

  void answer(std::string payload = {}) const;
  void refuse(const error& why) const;
};

/// Whether a client that may only look may call it.
enum class access : std::uint8_t { look, change };

/// When it may be called: at once, or after CONNECT_OPEN.
enum class stage : std::uint8_t { any, open };

/// One procedure that clients call.
struct control_method {
  std::uint32_t program;
  std::int32_t number;
  std::string_view name; ///< libvirt's, without what it begins with: "DOMAIN_CREATE".
  access needs;
  stage from;
  /// Reads the arguments, and sees to it that the call is ended. Bytes are refused by `xdr_reader::done`.
  void (*serve)(control_call call, xdr_reader& args);
};

/// All of them, by program and number.
std::span<const control_method> control_methods();

/// The row, or null.
const control_method* find_method(std::uint32_t program, std::int32_t number);

/// "virDomainGetXMLDesc" for DOMAIN_GET_XML_DESC: what people know a procedure by.
std::string api_name(const control_method& method);

/// One message that subscribers of an event id get.
struct control_event {
  int id;              ///< virDomainEventID
  std::int32_t number; ///< procedure of the message
  std::string_view name;
  /// Appends what follows the callback id; false when `what` is another event. Null: nothing causes this event yet.
  bool (*write)(xdr_writer& out, const rpc_domain& guest, const event_body& what);
};

/// A row for every event id a client may register for, by id.
std::span<const control_event> control_events();

} // namespace troupe
