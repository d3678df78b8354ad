#include "runtime/qmp_probe.hpp"

#include "runtime/qmp_commands.hpp"

#include <fmt/format.h>
#include <memory>
#include <utility>

namespace troupe {
namespace {

enum class need : bool { optional, required };

struct probing {
  probe_answers answers = nlohmann::json::object();
  std::function<void(result<probe_answers>)> then;
  int unanswered = 0;
};

template <class Reply>
void ask(const qmp_asker& asker, command<Reply> what, need how, const std::shared_ptr<probing>& all) {
  ++all->unanswered;
  asker(what.execute, std::move(what.arguments), [all, name = what.execute, how](result<nlohmann::json> answer) {
    if (!all->then)
      return; // an earlier failure told it all
    if (answer)
      all->answers[name] = std::move(*answer);
    else if (how == need::required || answer.error().code != errc::operation_failed)
      return std::exchange(all->then, nullptr)(tl::make_unexpected(std::move(answer.error())));
    if (--all->unanswered == 0)
      std::exchange(all->then, nullptr)(std::move(all->answers));
  });
}

} // namespace

void probe(const qmp_asker& asker, std::function<void(result<probe_answers>)> then) {
  const auto all = std::make_shared<probing>();
  all->then = std::move(then);
  ask(asker, query_version(), need::required, all);
  ask(asker, query_target(), need::required, all);
  ask(asker, query_kvm(), need::required, all);
  ask(asker, query_machines(), need::required, all);
  ask(asker, qom_list_types("device"), need::required, all);
  ask(asker, query_cpu_definitions(), need::optional, all);
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
