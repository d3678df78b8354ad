#include "xml/from_argv_words.hpp"

#include "xml/domain_values.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace troupe {
namespace {

constexpr unsigned most_json_depth = 16;

/// Reads words off a shell's text.
class shell_reader {
public:
  explicit shell_reader(std::string_view text) : text_{text} {}

  result<std::vector<std::string>> words() {
    while (at_ < text_.size())
      if (auto went = step(); !went)
        return tl::make_unexpected(went.error());
    end_word();
    if (words_.size() > most_argv_words)
      return too_many();
    return std::move(words_);
  }

private:
  static tl::unexpected<error> too_many() {
    return fail(errc::bad_argument, fmt::format("the command line has more than {} words", most_argv_words));
  }

  auto refuse(std::string_view what) const {
    return fail(errc::bad_argument, fmt::format("the command line at byte {}: {}", at_, what));
  }

  void end_word() {
    if (in_word_)
      words_.push_back(std::move(word_));
    word_.clear();
    in_word_ = false;
  }

  void add(char c) {
    word_ += c;
    in_word_ = true;
  }

  /// Whether a shell would put a value or a command's output here.
  bool expands() const {
    if (text_[at_] == '`')
      return true;
    if (text_[at_] != '$' || at_ + 1 == text_.size())
      return false;
    const char next = text_[at_ + 1];
    return next == '{' || next == '(' || next == '_' || (next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z');
  }

  result<void> step() {
    const char c = text_[at_];
    if (is_space(c)) {
      end_word();
      ++at_;
      return words_.size() > most_argv_words ? result<void>{too_many()} : result<void>{};
    }
    if (c == '#' && !in_word_) {
      at_ = std::min(text_.find('\n', at_), text_.size());
      return {};
    }
    if (c == '\\')
      return after_backslash();
    if (c == '\'' || c == '"')
      return quoted(c);
    if (expands())
      return refuse(fmt::format("'{}' stands for something else: write out what it stands for", text_.substr(at_, 20)));
    if (std::string_view{";|&<>"}.find(c) != std::string_view::npos)
      return refuse(
        fmt::format("'{}' joins or redirects commands: give one command alone, or put the character in quotes", c));
    add(c);
    ++at_;
    return {};
  }

  result<void> after_backslash() {
    if (at_ + 1 == text_.size())
      return refuse("the text ends after a backslash: a character or a line must follow");
    const char next = text_[at_ + 1];
    if (next == '\r' && at_ + 2 < text_.size() && text_[at_ + 2] == '\n')
      ++at_;
    else if (next != '\n')
      add(next);
    at_ += 2;
    return {};
  }

  result<void> quoted(char quote) {
    const auto start = at_++;
    in_word_ = true;
    for (; at_ < text_.size(); ++at_) {
      char c = text_[at_];
      // Libvirt's wrapped lines go on inside single quotes, too, which no value of QEMU's needs otherwise.
      if (c == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n') {
        ++at_;
        continue;
      }
      if (c == quote) {
        ++at_;
        return {};
      }
      if (quote == '"') {
        if (expands())
          return refuse(
            fmt::format("'{}' stands for something else: write out what it stands for", text_.substr(at_, 20)));
        if (c == '\\' && at_ + 1 < text_.size() &&
            std::string_view{"$`\"\\"}.find(text_[at_ + 1]) != std::string_view::npos)
          c = text_[++at_];
      }
      word_ += c;
    }
    at_ = start;
    return refuse(fmt::format("the quote {} is not closed", quote));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string word_;
  bool in_word_ = false;
  std::vector<std::string> words_;
};

bool flatten(const nlohmann::ordered_json& json, const std::string& key, unsigned depth, arg_properties& out) {
  if (depth > most_json_depth)
    return false;
  const auto inner = [&](const std::string& name) { return key.empty() ? name : key + "." + name; };
  if (json.is_object()) {
    for (const auto& [name, value] : json.items())
      if (!flatten(value, inner(name), depth + 1, out))
        return false;
    return true;
  }
  if (json.is_array()) {
    std::size_t i = 0;
    for (const auto& value : json)
      if (!flatten(value, inner(fmt::format("{}", i++)), depth + 1, out))
        return false;
    return true;
  }
  arg_property made{key, {}};
  if (json.is_null())
    made.is = arg_property::kind::null;
  else if (json.is_boolean())
    made.is = arg_property::kind::boolean, made.value = json.get<bool>() ? "on" : "off";
  else if (json.is_string())
    made.value = json.get<std::string>();
  else
    made.is = arg_property::kind::number, made.value = json.dump();
  out.all.push_back(std::move(made));
  return true;
}

/// Up to the next comma that is not doubled; `at` moves behind it.
std::string next_part(std::string_view text, std::size_t& at) {
  std::string out;
  for (; at < text.size(); ++at) {
    if (text[at] == ',') {
      ++at;
      if (at == text.size() || text[at] != ',')
        return out;
    }
    out += text[at];
  }
  return out;
}

} // namespace

result<std::vector<std::string>> shell_words(std::string_view text) {
  if (text.size() > most_argv_bytes)
    return fail(errc::bad_argument,
                fmt::format("the command line has {} bytes: at most {} are read", text.size(), most_argv_bytes));
  if (const auto zero = text.find('\0'); zero != std::string_view::npos)
    return fail(errc::bad_argument, fmt::format("the command line at byte {}: a zero byte is not text", zero));
  return shell_reader{text}.words();
}

const std::string* arg_properties::take(std::string_view key) {
  const std::string* found = nullptr;
  for (auto& each : all)
    if (each.key == key && each.is != arg_property::kind::null) {
      each.used = true;
      found = &each.value;
    }
  return found;
}

std::vector<std::string> arg_properties::take_all(std::string_view key) {
  std::vector<std::string> found;
  for (auto& each : all)
    if (each.key == key && each.is != arg_property::kind::null) {
      each.used = true;
      found.push_back(each.value);
    }
  return found;
}

const std::string* arg_properties::peek(std::string_view key) const {
  const std::string* found = nullptr;
  for (const auto& each : all)
    if (each.key == key && each.is != arg_property::kind::null)
      found = &each.value;
  return found;
}

bool arg_properties::take_null(std::string_view key) {
  const auto found = std::ranges::find_if(all, [&](const auto& p) { return p.key == key && p.is == arg_property::kind::null; });
  if (found == all.end())
    return false;
  found->used = true;
  return true;
}

void arg_properties::drop(std::string_view key, std::string_view value) {
  for (auto& each : all)
    if (each.key == key && each.value == value)
      each.used = true;
}

bool arg_properties::has_below(std::string_view prefix) const {
  return std::ranges::any_of(all, [&](const auto& p) { return p.key.starts_with(prefix); });
}

const arg_property* arg_properties::unused() const {
  const auto found = std::ranges::find(all, false, &arg_property::used);
  return found == all.end() ? nullptr : &*found;
}

void arg_properties::forget_use() {
  for (auto& each : all)
    each.used = false;
}

result<arg_properties> option_properties(std::string_view value, std::string_view first_key) {
  arg_properties out;
  if (value.starts_with("{")) {
    const auto json = nlohmann::ordered_json::parse(value, nullptr, false);
    if (json.is_discarded())
      return fail(errc::bad_argument,
                  "it begins with '{' and is no JSON object: quotes of JSON must be quoted for the shell");
    if (!flatten(json, {}, 0, out))
      return fail(errc::bad_argument, fmt::format("its JSON is nested deeper than {} levels", most_json_depth));
    return out;
  }
  for (std::size_t at = 0; at < value.size();) {
    const bool first = at == 0;
    auto part = next_part(value, at);
    const auto equals = part.find('=');
    if (equals != std::string::npos)
      out.all.push_back({part.substr(0, equals), part.substr(equals + 1)});
    else if (first && !first_key.empty())
      out.all.push_back({std::string{first_key}, std::move(part)});
    else if (part == "nowait")
      out.all.push_back({"wait", "off"});
    else if (!part.empty())
      out.all.push_back({std::move(part), "on"});
  }
  return out;
}

std::optional<bool> switch_of(std::string_view text) {
  for (const std::string_view yes : {"on", "yes", "true", "y"})
    if (text == yes)
      return true;
  for (const std::string_view no : {"off", "no", "false", "n"})
    if (text == no)
      return false;
  return std::nullopt;
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t out = 0;
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  if (text.empty() || !parse_number(hexadecimal ? text.substr(2) : text, out, hexadecimal ? 16 : 10))
    return std::nullopt;
  return out;
}

std::optional<std::uint64_t> amount_of(std::string_view text, std::uint64_t unit) {
  if (text.starts_with("0x"))
    return number_of(text);
  const auto end = std::min(text.find_first_not_of("0123456789"), text.size());
  auto whole = number_of(text.substr(0, end));
  auto rest = text.substr(end);
  std::string_view fraction;
  if (rest.starts_with('.')) {
    const auto stop = std::min(rest.find_first_not_of("0123456789", 1), rest.size());
    fraction = rest.substr(1, stop - 1);
    rest.remove_prefix(stop);
  }
  if (!whole || fraction.size() > 9)
    return std::nullopt;
  if (!rest.empty()) {
    // QEMU knows letters alone and "MiB"-like ones of libvirt's are no harm; "MB" it would count in binary, too.
    const auto letter = rest.substr(0, 1);
    unit = rest == "b" || rest == "B" ? 1 : letter == "b" || letter == "B" ? 0 : unit_bytes(letter);
    if (unit == 0 || (rest.size() > 1 && rest.substr(1) != "B" && rest.substr(1) != "iB"))
      return std::nullopt;
  }
  const auto bytes = scaled(*whole, unit, 1);
  if (!bytes || fraction.empty())
    return bytes;
  double part = 0;
  for (auto digit = fraction.rbegin(); digit != fraction.rend(); ++digit)
    part = (part + (*digit - '0')) / 10;
  return *bytes + static_cast<std::uint64_t>(part * static_cast<double>(unit));
}

} // namespace troupe
