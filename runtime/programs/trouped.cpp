// trouped: the daemon. Reads its options, starts a company and waits to be told to end.

#include "actors/company.hpp"
#include "runtime/settings.hpp"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <thread>
#include <unistd.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;

struct options {
  bool system = false, session = false;
  std::string root, config, log_level = "info";
  unsigned timeout_seconds = 0;
  std::string launcher;
};

/// troupe-launch lies beside us, or where it was installed.
std::string find_launcher() {
  std::error_code failed;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  for (const auto& each : {self / "troupe-launch", self / "../libexec/troupe-launch"})
    if (::access(each.c_str(), X_OK) == 0)
      return std::filesystem::canonical(each, failed);
  return {};
}

/// The signals that end us, blocked in every thread from here on.
sigset_t block_signals() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t ending;
  sigemptyset(&ending);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1})
    sigaddset(&ending, number);
  ::pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  return ending;
}

/// A descriptor or three for every client and guest.
void raise_limits() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
}

int complain(const error& why) {
  spdlog::critical("{}", why.message());
  return 1;
}

/// Until a signal comes, the company fails, or nobody has used it for a while.
int wait_for_end(company& running, sigset_t signals, std::chrono::seconds timeout) {
  auto idle_since = std::chrono::steady_clock::now();
  for (;;) {
    const timespec second{1, 0};
    const int number = timeout == 0s ? ::sigwaitinfo(&signals, nullptr) : ::sigtimedwait(&signals, nullptr, &second);
    if (number == SIGUSR1)
      return 1; // the company failed
    if (number > 0) {
      spdlog::info("ending at signal {}; guests run on", number);
      return 0;
    }
    if (!running.is_idle())
      idle_since = std::chrono::steady_clock::now();
    else if (timeout != 0s && std::chrono::steady_clock::now() - idle_since >= timeout) {
      spdlog::info("ending: nothing to do for {} s", timeout.count());
      return 0;
    }
  }
}

int run(const options& wish) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("trouped"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %l: %v");
  spdlog::set_level(spdlog::level::from_str(wish.log_level));
  spdlog::flush_on(spdlog::level::trace);
  const auto signals = block_signals();
  raise_limits();

  const bool session = wish.session || (!wish.system && ::geteuid() != 0);
  auto paths = paths_of_instance(session, wish.root);
  if (!paths)
    return complain(paths.error());
  if (!wish.config.empty())
    paths->settings = wish.config;
  auto settings = read_settings(paths->settings);
  if (!settings)
    return complain(settings.error());
  for (const auto& warning : settings->warnings)
    spdlog::warn("{}", warning);
  company_setup setup{*paths, settings->settings, wish.launcher.empty() ? find_launcher() : wish.launcher};
  if (setup.launcher.empty())
    return complain({errc::operation_failed, "troupe-launch is not beside trouped; name it with --launcher"});

  auto running = company::start(std::move(setup));
  if (!running)
    return complain(running.error());
  (*running)->on_failure([](std::string) { ::kill(::getpid(), SIGUSR1); });
  std::ofstream{paths->pid_file} << ::getpid() << '\n';
  spdlog::info("serving {} at {}", session ? "qemu:///session" : "qemu:///system", paths->libvirt_sock);
  ::sd_notify(0, "READY=1");
  const int code = wait_for_end(**running, signals, std::chrono::seconds{wish.timeout_seconds});
  ::sd_notify(0, "STOPPING=1");
  std::error_code ignored;
  std::filesystem::remove(paths->pid_file, ignored);
  if (code != 0)
    std::_Exit(code); // an actor that others wait for is gone: what is left cannot end in order
  return 0;
}

} // namespace
} // namespace troupe

int main(int argc, char** argv) {
  CLI::App app{"Troupe's daemon: supervises QEMU guests and serves libvirt's clients."};
  troupe::options wish;
  auto* system = app.add_flag("--system", wish.system, "Serve the machine's guests (default for root)");
  app.add_flag("--session", wish.session, "Serve the user's own guests (default for everybody else)")->excludes(system);
  app.add_option("--root", wish.root, "Put everything below this directory")->type_name("DIR");
  app.add_option("--config", wish.config, "Read this qemu.conf")->type_name("FILE");
  app.add_option("--timeout", wish.timeout_seconds, "End after so long without clients and running guests; 0: never")
    ->type_name("SECONDS");
  app.add_option("--launcher", wish.launcher, "Path of troupe-launch")->type_name("FILE");
  app.add_option("--log-level", wish.log_level, "What to tell on stderr")
    ->check(CLI::IsMember({"debug", "info", "warning", "error", "critical", "off"}))
    ->capture_default_str();
  app.set_version_flag("--version", "trouped 0.1.0");
  CLI11_PARSE(app, argc, argv);
  return troupe::run(wish);
}
