#include "sec/launch_plan.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace troupe {
namespace {

using nlohmann::json;

/// What a member should have been, thrown to where the member's name is known.
struct not_a {
  std::string what;
};

// JSON text is UTF-8 but a path is bytes: what is not UTF-8 travels as an array of numbers.
json written(const std::string& text) {
  json value = text;
  try {
    static_cast<void>(value.dump());
    return value;
  } catch (const json::exception&) {
    return std::vector<std::uint8_t>(text.begin(), text.end());
  }
}

void read(const json& value, std::string& text) {
  if (value.is_string())
    text = value.get<std::string>();
  else if (value.is_array() && std::ranges::all_of(value, [](const json& x) {
             return x.is_number_unsigned() && x.get<std::uint64_t>() < 256;
           }))
    for (const auto& byte : value)
      text.push_back(static_cast<char>(byte.get<std::uint8_t>()));
  else
    throw not_a{"text"};
  if (text.find('\0') != text.npos)
    throw not_a{"text without zero bytes"};
}

template <class Number>
requires std::is_arithmetic_v<Number> json written(Number number) {
  return number;
}

void read(const json& value, bool& flag) {
  if (!value.is_boolean())
    throw not_a{"true or false"};
  flag = value.get<bool>();
}

template <class Number>
requires std::is_integral_v<Number>
void read(const json& value, Number& number) {
  // For ids the highest is -1, which the kernel takes for "unchanged".
  constexpr bool is_id = std::is_same_v<Number, uid_t>;
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Number>::max()) - (is_id ? 1 : 0);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most)
    throw not_a{fmt::format("a number from 0 to {}", most)};
  number = value.get<Number>();
}

template <class T>
json written_members(const T& from);
template <class T>
void read_members(const json& value, T& into);

template <class T>
inline constexpr bool has_members =
  std::is_same_v<T, launch_identity> || std::is_same_v<T, resource_limit> || std::is_same_v<T, landlock_rule>;

template <class T>
requires has_members<T> json written(const T& value) {
  return written_members(value);
}

template <class T>
requires has_members<T>
void read(const json& value, T& into) {
  read_members(value, into);
}

template <class T>
json written(const std::vector<T>& list) {
  auto value = json::array();
  for (const auto& item : list)
    value.push_back(written(item));
  return value;
}

template <class T>
void read(const json& value, std::vector<T>& list) {
  if (!value.is_array())
    throw not_a{"a list"};
  for (const auto& item : value)
    read(item, list.emplace_back());
}

template <class T>
json written(const std::optional<T>& value) {
  return value ? written(*value) : json{};
}

template <class T>
void read(const json& value, std::optional<T>& into) {
  if (!value.is_null())
    read(value, into.emplace());
}

template <class T>
struct member {
  const char* name;
  json (*write)(const T&);
  void (*read)(const json&, T&);
};

template <class T, auto Field>
constexpr member<T> row(const char* name) {
  return {name, [](const T& from) { return written(from.*Field); },
          [](const json& value, T& into) { read(value, into.*Field); }};
}

template <class T>
inline constexpr std::array<member<T>, 0> members{};

template <>
inline constexpr std::array members<resource_limit>{
  row<resource_limit, &resource_limit::name>("name"),
  row<resource_limit, &resource_limit::soft>("soft"),
  row<resource_limit, &resource_limit::hard>("hard"),
};

template <>
inline constexpr std::array members<launch_identity>{
  row<launch_identity, &launch_identity::uid>("uid"),
  row<launch_identity, &launch_identity::gid>("gid"),
  row<launch_identity, &launch_identity::groups>("groups"),
};

template <>
inline constexpr std::array members<landlock_rule>{
  row<landlock_rule, &landlock_rule::path>("path"),
  row<landlock_rule, &landlock_rule::access>("access"),
};

template <>
inline constexpr std::array members<launch_plan>{
  row<launch_plan, &launch_plan::argv>("argv"),
  row<launch_plan, &launch_plan::env>("env"),
  row<launch_plan, &launch_plan::working_dir>("working_dir"),
  row<launch_plan, &launch_plan::control_groups>("control_groups"),
  row<launch_plan, &launch_plan::identity>("identity"),
  row<launch_plan, &launch_plan::capabilities>("capabilities"),
  row<launch_plan, &launch_plan::umask>("umask"),
  row<launch_plan, &launch_plan::selinux_context>("selinux_context"),
  row<launch_plan, &launch_plan::apparmor_profile>("apparmor_profile"),
  row<launch_plan, &launch_plan::no_new_privs>("no_new_privs"),
  row<launch_plan, &launch_plan::landlock>("landlock"),
  row<launch_plan, &launch_plan::filter_calls>("filter_calls"),
  row<launch_plan, &launch_plan::pid_file>("pid_file"),
  row<launch_plan, &launch_plan::keep_fds>("keep_fds"),
  row<launch_plan, &launch_plan::limits>("limits"),
  row<launch_plan, &launch_plan::banner>("banner"),
};

template <>
inline constexpr std::array members<launch_failure>{
  row<launch_failure, &launch_failure::step>("step"),
  row<launch_failure, &launch_failure::number>("errno"),
  row<launch_failure, &launch_failure::message>("message"),
};

template <class T>
json written_members(const T& from) {
  auto value = json::object();
  for (const auto& member : members<T>)
    value[member.name] = member.write(from);
  return value;
}

// All members, and no others: a plan made by another version is refused rather than followed in part.
template <class T>
void read_members(const json& value, T& into) {
  if (!value.is_object())
    throw not_a{"an object"};
  for (const auto& member : members<T>) {
    const auto found = value.find(member.name);
    if (found == value.end())
      throw not_a{fmt::format("complete: '{}' is missing", member.name)};
    try {
      member.read(*found, into);
    } catch (const not_a& wrong) {
      throw not_a{fmt::format("right: '{}' is not {}", member.name, wrong.what)};
    }
  }
  for (const auto& item : value.items())
    if (std::ranges::none_of(members<T>, [&](const auto& member) { return item.key() == member.name; }))
      throw not_a{fmt::format("known: it has a member '{}'", item.key())};
}

template <class T>
std::string text_of(const T& from) {
  return written_members(from).dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class T>
result<T> from_text(const char* what, std::string_view text) {
  try {
    T into;
    read_members(json::parse(text), into);
    return into;
  } catch (const json::exception& e) {
    return fail(errc::bad_argument, fmt::format("the {} is not JSON: {}", what, e.what()));
  } catch (const not_a& wrong) {
    return fail(errc::bad_argument, fmt::format("the {} is not {}", what, wrong.what));
  }
}

} // namespace

std::string to_text(const launch_plan& plan) {
  return text_of(plan);
}

result<launch_plan> launch_plan_from(std::string_view text) {
  if (text.size() > max_launch_plan)
    return fail(errc::bad_argument, fmt::format("the launch plan is longer than {} bytes", max_launch_plan));
  auto plan = from_text<launch_plan>("launch plan", text);
  if (!plan)
    return plan;
  if (plan->argv.empty() || !plan->argv.front().starts_with('/'))
    return fail(errc::bad_argument, "the launch plan's 'argv' does not begin with the absolute path of a program");
  if (!plan->pid_file.empty() && !plan->pid_file.starts_with('/'))
    return fail(errc::bad_argument, fmt::format("the launch plan's 'pid_file' '{}' is not absolute", plan->pid_file));
  if (!plan->selinux_context.empty() && plan->no_new_privs)
    return fail(errc::bad_argument, "the launch plan's 'no_new_privs' would keep the program from its 'selinux_context'");
  if ((plan->umask & ~mode_t{0777}) != 0)
    return fail(errc::bad_argument, fmt::format("the launch plan's 'umask' {:o} is more than 777", plan->umask));
  return plan;
}

std::string to_text(const launch_failure& failure) {
  return text_of(failure);
}

result<launch_failure> launch_failure_from(std::string_view text) {
  return from_text<launch_failure>("launcher's report", text);
}

} // namespace troupe
