#include "runtime/qmp_codec.hpp"

#include <fmt/format.h>

namespace troupe {
namespace {

/// Looks at brackets outside strings only: deep text is refused before anything is built from it.
bool nests_deeper(std::string_view text, std::size_t depth) {
  std::size_t open = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++open > depth)
        return true;
    } else if ((c == '}' || c == ']') && open > 0) {
      --open;
    }
  }
  return false;
}

auto unexpected_line(std::string_view line, std::string_view why) {
  return fail(errc::internal, fmt::format("QEMU's monitor sent '{}', which {}", printable_start(line), why));
}

std::optional<std::uint64_t> id_of(const nlohmann::json& message) {
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_unsigned())
    return std::nullopt;
  return id->get<std::uint64_t>();
}

std::string text_at(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

std::int64_t number_at(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

result<std::string> as_line(const nlohmann::json& command) {
  try {
    return command.dump() + '\n';
  } catch (const nlohmann::json::exception&) {
    return fail(errc::bad_argument, "the QEMU command holds text that is not UTF-8");
  }
}

} // namespace

std::string printable_start(std::string_view bytes, std::size_t most) {
  std::string shown;
  for (const char c : bytes.substr(0, most)) {
    if (c >= 0x20 && c < 0x7f)
      shown += c;
    else
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  if (bytes.size() > most)
    shown += "…";
  return shown;
}

result<nlohmann::json> parse_bounded(std::string_view text, std::size_t depth) {
  if (nests_deeper(text, depth))
    return fail(errc::bad_argument, fmt::format("JSON nested more than {} deep", depth));
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    return fail(errc::bad_argument, fmt::format("not JSON: it goes wrong at byte {} of {}", e.byte, text.size()));
  } catch (const nlohmann::json::exception&) {
    return fail(errc::bad_argument, "JSON with a number out of range");
  }
}

result<qmp_message> read_qmp(std::string_view line, std::size_t depth) {
  auto parsed = parse_bounded(line, depth);
  if (!parsed)
    return unexpected_line(line, "is " + parsed.error().detail);
  auto& message = *parsed;
  if (!message.is_object())
    return unexpected_line(line, "is not a JSON object");

  if (const auto value = message.find("return"); value != message.end())
    return qmp_return{id_of(message), std::move(*value)};

  if (const auto what = message.find("error"); what != message.end()) {
    if (!what->is_object())
      return unexpected_line(line, "is an error without a description");
    return qmp_failure{id_of(message), text_at(*what, "class"), text_at(*what, "desc")};
  }
  if (const auto name = message.find("event"); name != message.end()) {
    if (!name->is_string())
      return unexpected_line(line, "is an event without a name");
    qmp_event event{std::move(name->get_ref<std::string&>()), nullptr, 0, 0};
    if (const auto data = message.find("data"); data != message.end())
      event.data = std::move(*data);
    if (const auto when = message.find("timestamp"); when != message.end() && when->is_object()) {
      event.seconds = number_at(*when, "seconds");
      event.microseconds = number_at(*when, "microseconds");
    }
    return event;
  }
  if (const auto about = message.find("QMP"); about != message.end()) {
    if (!about->is_object())
      return unexpected_line(line, "is a greeting that says nothing");
    return qmp_greeting{std::move(*about)};
  }
  return unexpected_line(line, "is no greeting, answer or event");
}

result<std::string> write_qmp(std::string_view command, nlohmann::json arguments, std::uint64_t id) {
  nlohmann::json message{{"execute", command}, {"id", id}};
  if (!arguments.is_null())
    message["arguments"] = std::move(arguments);
  return as_line(message);
}

result<std::string> rewrite_qmp(std::string_view json_text, std::size_t depth, std::uint64_t id) {
  auto command = parse_bounded(json_text, depth);
  if (!command)
    return fail(errc::bad_argument, fmt::format("QEMU command '{}' is {}", printable_start(json_text), command.error().detail));
  const auto name = command->is_object() ? command->find("execute") : command->end();
  if (name == command->end() || !name->is_string())
    return fail(errc::bad_argument, fmt::format("QEMU command '{}' is not an object with \"execute\": \"COMMAND\"",
                                                printable_start(json_text)));
  (*command)["id"] = id;
  return as_line(*command);
}

result<void> qmp_lines::overlong(std::string_view rest) const {
  const auto start = printable_start(partial_.empty() ? rest : partial_);
  return fail(errc::internal, fmt::format("QEMU's monitor sent a line of more than {} bytes, which starts with '{}'", most_, start));
}

} // namespace troupe
