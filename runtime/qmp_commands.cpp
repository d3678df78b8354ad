#include "runtime/qmp_commands.hpp"

#include <charconv>
#include <concepts>
#include <fmt/format.h>
#include <string_view>

namespace troupe {
namespace {

using nlohmann::json;

/// Reads members of one object and keeps the first thing that is wrong with it.
class members {
public:
  explicit members(json& object) : object_{object} {
    if (!object.is_object())
      wrong_ = "is not an object";
  }

  members& read(const char* key, bool& into) {
    if (const auto* value = find(key, &json::is_boolean, "boolean"))
      into = value->get<bool>();
    return *this;
  }

  members& read(const char* key, std::string& into) {
    if (auto* value = find(key, &json::is_string, "string"))
      into = std::move(value->get_ref<std::string&>());
    return *this;
  }

  template <std::integral Number>
  members& read(const char* key, Number& into) {
    if (const auto* value = find(key, &json::is_number_integer, "whole number")) {
      const auto number = value->get<std::int64_t>();
      const bool wrapped = value->is_number_unsigned() && number < 0;
      if (!wrapped && std::in_range<Number>(number))
        into = static_cast<Number>(number);
      else
        wrong_ = fmt::format("has a '{}' out of range: {}", key, value->dump());
    }
    return *this;
  }

  template <class Value>
  members& read_if_there(const char* key, Value& into) {
    return object_.is_object() && object_.contains(key) ? read(key, into) : *this;
  }

  template <class Value>
  result<Value> done(Value value) {
    if (!wrong_.empty())
      return fail(errc::internal, std::move(wrong_));
    return value;
  }

private:
  json* find(const char* key, bool (json::*is_kind)() const noexcept, const char* kind) {
    if (!wrong_.empty())
      return nullptr;
    const auto found = object_.find(key);
    if (found != object_.end() && ((*found).*is_kind)())
      return &*found;
    wrong_ = fmt::format("has no {} '{}'", kind, key);
    return nullptr;
  }

  json& object_;
  std::string wrong_;
};

result<void> read_nothing(json) {
  return {};
}

result<json> read_as_it_is(json answer) {
  return answer;
}

template <class Item, result<Item> (*ReadItem)(json)>
result<std::vector<Item>> read_list(json answer) {
  if (!answer.is_array())
    return fail(errc::internal, "is not a list");
  std::vector<Item> items;
  items.reserve(answer.size());
  for (auto& each : answer) {
    auto item = ReadItem(std::move(each));
    if (!item)
      return tl::make_unexpected(std::move(item.error()));
    items.push_back(std::move(*item));
  }
  return items;
}

result<std::uint64_t> read_balloon(json answer) {
  std::uint64_t actual = 0;
  return members{answer}.read("actual", actual).done(actual);
}

result<qemu_status> read_status(json answer) {
  qemu_status is;
  return members{answer}.read("running", is.running).read("status", is.status).done(std::move(is));
}

result<qemu_version> read_version(json answer) {
  qemu_version is;
  auto all = members{answer}.read("package", is.package);
  json numbers = answer.is_object() ? answer.value("qemu", json{}) : json{};
  auto some = members{numbers}.read("major", is.major).read("minor", is.minor).read("micro", is.micro);
  return some.done(0).and_then([&](int) { return all.done(std::move(is)); });
}

result<qemu_kvm> read_kvm(json answer) {
  qemu_kvm is;
  return members{answer}.read("enabled", is.enabled).read("present", is.present).done(is);
}

result<std::string> read_target(json answer) {
  std::string arch;
  return members{answer}.read("arch", arch).done(std::move(arch));
}

result<std::optional<std::string>> read_name(json answer) {
  std::string name;
  const bool named = answer.contains("name");
  return members{answer}.read_if_there("name", name).done(named ? std::optional{std::move(name)} : std::nullopt);
}

result<qemu_chardev> read_chardev(json answer) {
  qemu_chardev is;
  return members{answer}
    .read("label", is.label)
    .read("filename", is.filename)
    .read("frontend-open", is.frontend_open)
    .done(std::move(is));
}

result<qemu_vnc> read_vnc(json answer) {
  qemu_vnc is;
  std::string service;
  auto all = members{answer}
               .read("enabled", is.enabled)
               .read_if_there("host", is.host)
               .read_if_there("service", service)
               .read_if_there("auth", is.auth);
  std::uint16_t port = 0;
  const auto [end, ec] = std::from_chars(service.data(), service.data() + service.size(), port);
  if (!service.empty() && ec == std::errc{} && end == service.data() + service.size())
    is.port = port; // a unix socket's service is its path
  return all.done(std::move(is));
}

result<qemu_cpu> read_cpu(json answer) {
  qemu_cpu is;
  return members{answer}
    .read("cpu-index", is.index)
    .read("thread-id", is.thread_id)
    .read("qom-path", is.qom_path)
    .done(std::move(is));
}

result<std::string> read_text(json answer) {
  if (!answer.is_string())
    return fail(errc::internal, "is not text");
  return std::move(answer.get_ref<std::string&>());
}

} // namespace

command<void> cont() { return {"cont", nullptr, read_nothing}; }
command<void> stop() { return {"stop", nullptr, read_nothing}; }
command<void> quit() { return {"quit", nullptr, read_nothing}; }
command<void> system_powerdown() { return {"system_powerdown", nullptr, read_nothing}; }
command<void> system_reset() { return {"system_reset", nullptr, read_nothing}; }
command<void> system_wakeup() { return {"system_wakeup", nullptr, read_nothing}; }
command<void> inject_nmi() { return {"inject-nmi", nullptr, read_nothing}; }

command<void> shut_down_at_reset() { return {"set-action", {{"reboot", "shutdown"}}, read_nothing}; }

command<void> set_password(std::string protocol, std::string password) {
  return {"set_password", {{"protocol", std::move(protocol)}, {"password", std::move(password)}}, read_nothing};
}

command<void> expire_password(std::string protocol, std::int64_t at) {
  return {"expire_password", {{"protocol", std::move(protocol)}, {"time", std::to_string(at)}}, read_nothing};
}
command<void> balloon(std::uint64_t bytes) { return {"balloon", {{"value", bytes}}, read_nothing}; }
command<std::uint64_t> query_balloon() { return {"query-balloon", nullptr, read_balloon}; }
command<qemu_status> query_status() { return {"query-status", nullptr, read_status}; }
command<qemu_version> query_version() { return {"query-version", nullptr, read_version}; }
command<qemu_kvm> query_kvm() { return {"query-kvm", nullptr, read_kvm}; }
command<std::string> query_target() { return {"query-target", nullptr, read_target}; }
command<std::optional<std::string>> query_name() { return {"query-name", nullptr, read_name}; }
command<std::vector<qemu_chardev>> query_chardev() { return {"query-chardev", nullptr, read_list<qemu_chardev, read_chardev>}; }
command<qemu_vnc> query_vnc() { return {"query-vnc", nullptr, read_vnc}; }
command<std::vector<qemu_cpu>> query_cpus_fast() { return {"query-cpus-fast", nullptr, read_list<qemu_cpu, read_cpu>}; }

command<std::string> human_monitor_command(std::string line) {
  return {"human-monitor-command", {{"command-line", std::move(line)}}, read_text};
}

command<nlohmann::json> query_machines() { return {"query-machines", nullptr, read_as_it_is}; }
command<nlohmann::json> query_cpu_definitions() { return {"query-cpu-definitions", nullptr, read_as_it_is}; }

command<nlohmann::json> query_cpu_model_expansion(std::string model, bool migratable) {
  nlohmann::json which{{"name", std::move(model)}};
  if (!migratable)
    which["props"] = {{"migratable", false}};
  return {"query-cpu-model-expansion", {{"type", "static"}, {"model", std::move(which)}}, read_as_it_is};
}

command<nlohmann::json> query_sev_capabilities() { return {"query-sev-capabilities", nullptr, read_as_it_is}; }
command<nlohmann::json> query_sgx_capabilities() { return {"query-sgx-capabilities", nullptr, read_as_it_is}; }
command<nlohmann::json> query_gic_capabilities() { return {"query-gic-capabilities", nullptr, read_as_it_is}; }

command<nlohmann::json> qom_list_types(std::string implements) {
  return {"qom-list-types", {{"implements", std::move(implements)}, {"abstract", false}}, read_as_it_is};
}

} // namespace troupe
