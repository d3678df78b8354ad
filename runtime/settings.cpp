#include "runtime/settings.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>
#include <variant>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::size_t most_bytes = 1 << 20;
constexpr std::size_t most_items = 10'000;

using list = std::vector<std::string>;
using value = std::variant<std::int64_t, std::string, list>;

const char* kind_of(const value& given) {
  constexpr const char* names[] = {"a number", "a string", "a list of strings"};
  return names[given.index()];
}

// ---- what a row does with its value; the message says what was expected.

using outcome = tl::expected<void, std::string>;

outcome expected(std::string what) {
  return tl::make_unexpected("must be " + std::move(what));
}

outcome set_bool(bool& to, const value& given) {
  const auto* number = std::get_if<std::int64_t>(&given);
  if (number == nullptr || (*number != 0 && *number != 1))
    return expected("0 or 1");
  to = *number == 1;
  return {};
}

outcome set_number(unsigned& to, const value& given, unsigned least, unsigned most) {
  const auto* number = std::get_if<std::int64_t>(&given);
  if (number == nullptr || *number < least || *number > most)
    return expected(fmt::format("a number from {} to {}", least, most));
  to = static_cast<unsigned>(*number);
  return {};
}

outcome set_milliseconds(std::chrono::milliseconds& to, const value& given, unsigned least, unsigned most) {
  unsigned number = 0;
  auto went = set_number(number, given, least, most);
  if (went)
    to = std::chrono::milliseconds{number};
  return went;
}

outcome set_text(std::string& to, const value& given) {
  const auto* text = std::get_if<std::string>(&given);
  if (text == nullptr)
    return expected("a string");
  to = *text;
  return {};
}

outcome set_list(list& to, const value& given) {
  if (const auto* items = std::get_if<list>(&given))
    to = *items;
  else if (const auto* text = std::get_if<std::string>(&given))
    to = {*text};
  else
    return expected("a list of strings");
  return {};
}

/// A user or group: a name, or a number.
outcome set_identity(std::string& to, const value& given) {
  if (const auto* number = std::get_if<std::int64_t>(&given); number != nullptr && *number >= 0) {
    to = fmt::format("+{}", *number);
    return {};
  }
  return set_text(to, given);
}

outcome set_networks(std::map<std::string, std::string>& to, const value& given) {
  const auto* items = std::get_if<list>(&given);
  if (items == nullptr)
    return expected("a list of strings such as \"default=virbr0\"");
  std::map<std::string, std::string> read;
  for (const auto& each : *items) {
    const auto equals = each.find('=');
    if (equals == 0 || equals == each.npos || equals + 1 == each.size())
      return expected(fmt::format("a list of strings such as \"default=virbr0\"; '{}' is none", each));
    read[each.substr(0, equals)] = each.substr(equals + 1);
  }
  to = std::move(read);
  return {};
}

struct setting_row {
  std::string_view key;
  std::string_view shown;   ///< The default, as it is written.
  std::string_view explain; ///< Lines of at most 78 characters.
  outcome (*set)(qemu_settings&, const value&);
};

constexpr setting_row setting_rows[] = {
  {"user", "\"libvirt-qemu\"",
   "The user that the guests of a system instance run as: a name, or a number as\n"
   "\"+64055\". Not set: libvirt-qemu, or qemu, if there is such a user; else root.",
   [](qemu_settings& s, const value& v) { return set_identity(s.user, v); }},
  {"group", "\"libvirt-qemu\"", "Their group. Not set: the user's own.",
   [](qemu_settings& s, const value& v) { return set_identity(s.group, v); }},
  {"dynamic_ownership", "1",
   "Whether a guest's user becomes the owner of its image files while it runs. They\n"
   "get their former owner back afterwards.",
   [](qemu_settings& s, const value& v) { return set_bool(s.dynamic_ownership, v); }},
  {"security_driver", "[ ]", "What confines guests beside users and groups. Not set: what the host enforces.",
   [](qemu_settings& s, const value& v) { return set_list(s.security_driver, v); }},
  {"security_default_confined", "1", "Whether a guest without a seclabel is confined.",
   [](qemu_settings& s, const value& v) { return set_bool(s.security_default_confined, v); }},
  {"security_require_confined", "0", "Whether a guest whose definition asks not to be confined is refused.",
   [](qemu_settings& s, const value& v) { return set_bool(s.security_require_confined, v); }},
  {"clear_emulator_capabilities", "1", "Whether QEMU runs without any capability of root.",
   [](qemu_settings& s, const value& v) { return set_bool(s.clear_emulator_capabilities, v); }},
  {"namespaces", "[ ]", "Read, and without effect: guests see the host's mounts.",
   [](qemu_settings& s, const value& v) { return set_list(s.namespaces, v); }},
  {"seccomp_sandbox", "1", "Whether QEMU filters its own system calls. Not set: where it can.",
   [](qemu_settings& s, const value& v) {
     unsigned number = 0;
     auto went = set_number(number, v, 0, 1);
     if (went)
       s.seccomp_sandbox = number == 1;
     return went;
   }},
  {"vnc_listen", "\"127.0.0.1\"", "Where VNC servers listen when a definition does not say.",
   [](qemu_settings& s, const value& v) { return set_text(s.vnc_listen, v); }},
  {"vnc_password", "\"\"", "The password of VNC servers without one in the definition. Empty: none.",
   [](qemu_settings& s, const value& v) { return set_text(s.vnc_password, v); }},
  {"spice_listen", "\"127.0.0.1\"", "Where SPICE servers listen when a definition does not say.",
   [](qemu_settings& s, const value& v) { return set_text(s.spice_listen, v); }},
  {"spice_password", "\"\"", "The password of SPICE servers without one in the definition. Empty: none.",
   [](qemu_settings& s, const value& v) { return set_text(s.spice_password, v); }},
  {"remote_display_port_min", "5900", "The lowest TCP port given to a display with autoport.",
   [](qemu_settings& s, const value& v) { return set_number(s.remote_display_port_min, v, 1, 65535); }},
  {"remote_display_port_max", "65535", "The highest.",
   [](qemu_settings& s, const value& v) { return set_number(s.remote_display_port_max, v, 1, 65535); }},
  {"auto_dump_path", "\"/var/lib/troupe/dump\"", "Where memory of guests that crash is kept.",
   [](qemu_settings& s, const value& v) { return set_text(s.auto_dump_path, v); }},
  {"set_process_name", "1", "Whether the process is named after its guest.",
   [](qemu_settings& s, const value& v) { return set_bool(s.set_process_name, v); }},
  {"max_processes", "0", "Limits of every QEMU. 0: as the daemon's own.",
   [](qemu_settings& s, const value& v) { return set_number(s.max_processes, v, 0, 4'194'304); }},
  {"max_files", "0", "",
   [](qemu_settings& s, const value& v) { return set_number(s.max_files, v, 0, 1'048'576); }},
  {"stdio_handler", "\"file\"", "Who writes guests' logs. \"logd\" is read as \"file\".",
   [](qemu_settings& s, const value& v) -> outcome {
     auto went = set_text(s.stdio_handler, v);
     if (went && s.stdio_handler != "file" && s.stdio_handler != "logd")
       return expected("\"file\" or \"logd\"");
     return went;
   }},
  {"lock_manager", "\"\"", "Read, and without effect.",
   [](qemu_settings& s, const value& v) { return set_text(s.lock_manager, v); }},
  {"networks", "[ \"default=user\" ]",
   "What the networks that definitions name are here: \"NAME=BRIDGE\", or \"NAME=user\"\n"
   "for QEMU's user-mode network. In a session instance every network is user-mode.",
   [](qemu_settings& s, const value& v) { return set_networks(s.networks, v); }},
  {"grace_ms", "1500", "Milliseconds from SIGTERM to SIGKILL when a guest is destroyed.",
   [](qemu_settings& s, const value& v) { return set_milliseconds(s.grace_ms, v, 0, 600'000); }},
  {"qmp_timeout_ms", "30000",
   "Milliseconds after which a client is told that QEMU has not answered a command.\n"
   "The command is not withdrawn.",
   [](qemu_settings& s, const value& v) { return set_milliseconds(s.qmp_timeout_ms, v, 100, 3'600'000); }},
};

// ---- the syntax

class reader {
public:
  reader(std::string_view text, std::string_view name) : rest_{text}, name_{name} {}

  result<settings_read> read();

private:
  tl::unexpected<error> bad(std::string what) const {
    return fail(errc::bad_settings, fmt::format("{}:{}: {}", name_, line_, what));
  }
  bool at_end() const { return rest_.empty(); }
  char next() const { return rest_.empty() ? '\0' : rest_.front(); }
  void step(std::size_t bytes = 1) {
    line_ += static_cast<unsigned>(std::count(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(bytes), '\n'));
    rest_.remove_prefix(bytes);
  }
  void skip_blanks() {
    while (next() == ' ' || next() == '\t' || next() == '\r')
      step();
  }
  /// Blanks, line ends and comments.
  void skip_all() {
    for (;;) {
      skip_blanks();
      if (next() == '#')
        step(std::min(rest_.find('\n'), rest_.size()));
      else if (next() == '\n')
        step();
      else
        return;
    }
  }
  result<std::string> read_string();
  result<value> read_value();
  result<list> read_list();

  std::string_view rest_, name_;
  unsigned line_ = 1;
};

result<std::string> reader::read_string() {
  constexpr std::string_view triple = "\"\"\"";
  const auto quote = next();
  if (rest_.starts_with(triple)) {
    const auto end = rest_.find(triple, triple.size());
    if (end == rest_.npos)
      return bad("the \"\"\" that begins here has no end");
    std::string text{rest_.substr(triple.size(), end - triple.size())};
    step(end + triple.size());
    return text;
  }
  const auto end = rest_.find_first_of(std::string{quote} + '\n', 1);
  if (end == rest_.npos || rest_[end] == '\n')
    return bad(fmt::format("the string has no closing {}", quote));
  std::string text{rest_.substr(1, end - 1)};
  step(end + 1);
  return text;
}

result<list> reader::read_list() {
  list items;
  step(); // the bracket
  for (;;) {
    skip_all();
    if (next() == ']') {
      step();
      return items;
    }
    if (next() != '"' && next() != '\'')
      return bad(at_end() ? "the list has no closing ]" : "a list holds strings in quotes, with commas between them");
    auto item = read_string();
    if (!item)
      return tl::make_unexpected(std::move(item.error()));
    items.push_back(std::move(*item));
    if (items.size() > most_items)
      return bad(fmt::format("the list has more than {} items", most_items));
    skip_all();
    if (next() == ',')
      step();
    else if (next() != ']')
      return bad(at_end() ? "the list has no closing ]" : "a comma or ] must follow a list's item");
  }
}

result<value> reader::read_value() {
  if (next() == '"' || next() == '\'')
    return read_string().map([](std::string text) { return value{std::move(text)}; });
  if (next() == '[')
    return read_list().map([](list items) { return value{std::move(items)}; });
  std::int64_t number = 0;
  const auto [end, ec] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
  if (ec != std::errc{})
    return bad("a value is a number, a \"string\" or a [ list ]");
  step(static_cast<std::size_t>(end - rest_.data()));
  return value{number};
}

result<settings_read> reader::read() {
  settings_read out;
  for (;;) {
    skip_all();
    if (at_end())
      return out;
    const auto is_key = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    };
    const auto key_size = static_cast<std::size_t>(std::ranges::find_if_not(rest_, is_key) - rest_.begin());
    if (key_size == 0)
      return bad("a line must begin with the name of a setting, or #");
    const auto key = rest_.substr(0, key_size);
    const auto key_line = line_;
    step(key_size);
    skip_blanks();
    if (next() != '=')
      return bad(fmt::format("= must follow '{}'", key));
    step();
    skip_blanks();
    auto given = read_value();
    if (!given)
      return tl::make_unexpected(std::move(given.error()));
    skip_blanks();
    if (!at_end() && next() != '\n' && next() != '#')
      return bad(fmt::format("nothing may follow the value of '{}' on its line", key));
    const auto row = std::ranges::find(setting_rows, key, &setting_row::key);
    if (row == std::end(setting_rows)) {
      out.warnings.push_back(fmt::format("{}:{}: '{}' is not known here and has no effect", name_, key_line, key));
      continue;
    }
    if (auto went = row->set(out.settings, *given); !went)
      return fail(errc::bad_settings,
                  fmt::format("{}:{}: '{}' {}, and is {}", name_, key_line, key, went.error(), kind_of(*given)));
  }
}

/// Keys that are understood and do nothing yet: said once, where they are set to more than nothing.
void warn_of_idle(settings_read& read, std::string_view name) {
  const auto idle = [&](bool is_set, std::string_view key) {
    if (is_set)
      read.warnings.push_back(fmt::format("{}: '{}' has no effect here", name, key));
  };
  idle(!read.settings.namespaces.empty(), "namespaces");
  idle(!read.settings.lock_manager.empty(), "lock_manager");
}

} // namespace

result<settings_read> parse_settings(std::string_view text, std::string_view name) {
  if (text.size() > most_bytes)
    return fail(errc::bad_settings, fmt::format("{}: it is larger than {} bytes", name, most_bytes));
  if (text.find('\0') != text.npos)
    return fail(errc::bad_settings, fmt::format("{}: it is not text", name));
  auto out = reader{text, name}.read();
  if (!out)
    return out;
  if (out->settings.remote_display_port_min > out->settings.remote_display_port_max)
    return fail(errc::bad_settings, fmt::format("{}: 'remote_display_port_min' ({}) is above 'remote_display_port_max' ({})",
                                                name, out->settings.remote_display_port_min,
                                                out->settings.remote_display_port_max));
  warn_of_idle(*out, name);
  return out;
}

result<settings_read> read_settings(const std::string& path) {
  const unique_fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd && errno == ENOENT)
    return settings_read{};
  std::string text(most_bytes + 1, '\0');
  std::size_t size = 0;
  while (fd && size < text.size()) {
    const auto got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return fail(errc::system, fmt::format("cannot read '{}': {}", path, std::strerror(errno)));
    if (got == 0)
      break;
    size += static_cast<std::size_t>(got);
  }
  if (!fd)
    return fail(errc::system, fmt::format("cannot open '{}': {}", path, std::strerror(errno)));
  return parse_settings(std::string_view{text}.substr(0, size), path);
}

std::string sample_settings() {
  std::string out = "# Settings of trouped, in the syntax of libvirt's qemu.conf and with its names. A line that begins\n"
                    "# with # has no effect; every setting is shown with its default.\n";
  for (const auto& row : setting_rows) {
    out += '\n';
    for (auto rest = row.explain; !rest.empty();) {
      const auto end = std::min(rest.find('\n'), rest.size());
      out += fmt::format("# {}\n", rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    out += fmt::format("#{} = {}\n", row.key, row.shown);
  }
  return out;
}

} // namespace troupe
