#include "runtime/qmp_probe.hpp"

#include "runtime/qmp_commands.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <utility>

namespace troupe {
namespace {

enum class need : bool { optional, required };

/// More CPU models than any QEMU has; what is beyond is not asked about.
constexpr std::size_t most_models = 512;

/// Targets whose CPU models are told feature by feature.
constexpr std::string_view told_by_feature[] = {"x86_64", "i386"};

struct probing {
  qmp_asker asker;
  probe_answers answers = nlohmann::json::object();
  std::function<void(result<probe_answers>)> then;
  int unanswered = 0;
  bool followed_up = false;
};

void follow_up(const std::shared_ptr<probing>& all);

/// Asks, and keeps the answer as that of the command or, with `about`, as one of several.
template <class Reply>
void ask(const std::shared_ptr<probing>& all, command<Reply> what, need how, std::string about = {}) {
  ++all->unanswered;
  all->asker(what.execute, std::move(what.arguments),
             [all, name = what.execute, how, about = std::move(about)](result<nlohmann::json> answer) {
               if (!all->then)
                 return; // an earlier failure told it all
               if (answer)
                 (about.empty() ? all->answers[name] : all->answers[name][about]) = std::move(*answer);
               else if (how == need::required || answer.error().code != errc::operation_failed)
                 return std::exchange(all->then, nullptr)(tl::make_unexpected(std::move(answer.error())));
               if (--all->unanswered == 0)
                 follow_up(all);
             });
}

/// "Haswell-v2" is a version of a model.
bool has_version(std::string_view model) {
  const auto digits = model.find_last_not_of("0123456789");
  return digits != std::string_view::npos && digits + 1 < model.size() && model.substr(0, digits + 1).ends_with("-v");
}

/// The text of a member, or nothing.
std::string text_at(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_string() ? found->get<std::string>() : std::string{};
}

void follow_up(const std::shared_ptr<probing>& all) {
  const auto& answers = all->answers;
  const auto models = answers.find("query-cpu-definitions");
  std::vector<std::string> names;
  if (!std::exchange(all->followed_up, true) && models != answers.end() &&
      std::ranges::count(told_by_feature, text_at(answers["query-target"], "arch")) != 0)
    for (const auto& model : *models)
      if (auto name = text_at(model, "name"); !name.empty() && !has_version(name) && names.size() < most_models)
        names.push_back(std::move(name));
  if (names.empty())
    return std::exchange(all->then, nullptr)(std::move(all->answers));
  for (auto& name : names) {
    // Of the host's own CPU also what keeps a guest on this host.
    auto question = query_cpu_model_expansion(name, name != "host" && name != "max");
    ask(all, std::move(question), need::optional, std::move(name));
  }
}

} // namespace

void probe(const qmp_asker& asker, std::function<void(result<probe_answers>)> then) {
  const auto all = std::make_shared<probing>();
  all->asker = asker;
  all->then = std::move(then);
  ask(all, query_version(), need::required);
  ask(all, query_target(), need::required);
  ask(all, query_kvm(), need::required);
  ask(all, query_machines(), need::required);
  ask(all, qom_list_types("object"), need::required);
  ask(all, query_cpu_definitions(), need::optional);
  ask(all, query_sev_capabilities(), need::optional);
  ask(all, query_sgx_capabilities(), need::optional);
  ask(all, query_gic_capabilities(), need::optional);
}

std::vector<std::string> probe_argv(std::string binary, std::string_view accel, int monitor_fd) {
  return {std::move(binary),
          "-S",
          "-no-user-config",
          "-nodefaults",
          "-nographic",
          "-machine",
          fmt::format("none,accel={}", accel),
          "-chardev",
          fmt::format("socket,id=mon,fd={},server=on,wait=off", monitor_fd),
          "-mon",
          "chardev=mon,mode=control"};
}

} // namespace troupe
