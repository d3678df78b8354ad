#include "actors/real_host.hpp"

#include "runtime/layered_files.hpp"
#include "runtime/read_file.hpp"
#include "runtime/stable_hash.hpp"
#include "runtime/tap.hpp"
#include "runtime/unix_socket.hpp"
#include "sec/host_devices.hpp"
#include "sec/image_parts.hpp"
#include "sec/selinux.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <set>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr std::size_t most_workers = 8;
// A file on a mount that hangs is given up after this; so is a user database.
constexpr auto file_limit = 30s;
/// Who asks what a start would meet wants to know soon.
constexpr auto look_limit = 4s;
constexpr auto sweep_every = 60s;
/// What of QEMU's last words an error message shows.
constexpr std::size_t last_words = 4096;
/// A log this long is set aside as NAME.log.old when its guest starts.
constexpr off_t most_log_bytes = 2 << 20;
/// What is known of one emulator, in the cache.
constexpr std::size_t most_facts_bytes = 16 << 20;
/// The variables of a firmware fit into its flash memory.
constexpr std::size_t most_firmware_bytes = 64 << 20;

// Descriptors inside the launcher.
constexpr int plan_number = 3;
constexpr int status_number = 4;

std::string reason(int number) {
  return std::strerror(number);
}

/// Writes all of a text to a pipe whose reader may be slow, then closes it. Owns itself.
class pipe_writer : public std::enable_shared_from_this<pipe_writer> {
public:
  pipe_writer(loop& on, unique_fd pipe, std::string text) : loop_{on}, pipe_{std::move(pipe)}, text_{std::move(text)} {}

  void write_some() {
    while (at_ < text_.size()) {
      const auto n = ::write(pipe_.get(), text_.data() + at_, text_.size() - at_);
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0 && errno == EAGAIN) {
        if (!watch_) {
          watch_ = std::make_unique<fd_watch>(loop_, pipe_.get(), [self = shared_from_this()](int) { self->write_some(); });
          watch_->want(UV_WRITABLE);
        }
        return;
      }
      if (n < 0)
        break; // the launcher is gone, which its own end reports
      at_ += static_cast<std::size_t>(n);
    }
    const auto self = shared_from_this();
    if (watch_)
      loop_.post([self] { self->let_go(); }); // not from within its own callback
    else
      let_go();
  }

private:
  void let_go() {
    watch_.reset();
    pipe_.reset();
  }

  loop& loop_;
  unique_fd pipe_;
  std::string text_;
  std::size_t at_ = 0;
  std::unique_ptr<fd_watch> watch_;
};

/// A process that troupe-launch becomes, or one that was there before us.
class real_process final : public host::process {
public:
  real_process(loop& on, unique_fd plan, unique_fd status, std::string text, host::process_events events)
    : loop_{on}, plan_{std::move(plan)}, status_{std::move(status)}, text_{std::move(text)}, events_{std::move(events)} {
    status_watch_ = std::make_unique<fd_watch>(loop_, status_.get(), [this](int) { read_status(); });
    status_watch_->want(UV_READABLE);
  }
  explicit real_process(loop& on, std::function<void(exit_status)> exited) : loop_{on} {
    events_.exited = std::move(exited);
  }

  void watch(std::unique_ptr<child> it) { child_ = std::move(it); }

  void ended(exit_status how) {
    if (status_watch_)
      read_status(); // why it never became QEMU comes before its end
    if (events_.exited)
      std::exchange(events_.exited, nullptr)(how);
  }

  void go() override {
    if (plan_)
      std::make_shared<pipe_writer>(loop_, std::move(plan_), std::move(text_))->write_some();
  }
  void signal(int number) override { static_cast<void>(child_->signal(number)); }
  process_id id() const override { return child_->id(); }

private:
  void read_status() {
    char buffer[4096];
    for (;;) {
      const auto n = ::read(status_.get(), buffer, sizeof buffer);
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0 && errno == EAGAIN)
        return;
      if (n > 0 && said_.size() < (1u << 16)) {
        said_.append(buffer, static_cast<std::size_t>(n));
        continue;
      }
      break;
    }
    status_watch_.reset();
    status_.reset();
    if (!events_.executed)
      return;
    auto executed = std::exchange(events_.executed, nullptr);
    if (said_.empty())
      return executed(done{});
    const auto failure = launch_failure_from(said_);
    executed(fail(errc::operation_failed, failure ? fmt::format("{} (step '{}')", failure->message, failure->step) : said_));
  }

  loop& loop_;
  unique_fd plan_, status_;
  std::string text_, said_;
  host::process_events events_;
  std::unique_ptr<fd_watch> status_watch_;
  std::unique_ptr<child> child_;
};

class real_monitor final : public host::monitor {
public:
  real_monitor(loop& on, unique_fd connected, qmp_monitor::callbacks calls)
    : monitor_{on, std::move(connected), {}, std::move(calls)} {}

  void execute(std::string_view command, nlohmann::json arguments, std::chrono::milliseconds answer_within,
               std::function<void(result<nlohmann::json>)> then) override {
    monitor_.execute(command, std::move(arguments), answer_within, std::move(then));
  }
  void execute_raw(std::string_view json_text, std::chrono::milliseconds answer_within,
                   std::function<void(result<std::string>)> then) override {
    monitor_.execute_raw(json_text, answer_within, std::move(then));
  }

private:
  qmp_monitor monitor_;
};

/// A socket bound to `path` that listens; its file is for its owner alone.
result<unique_fd> listen_at(const std::string& path) {
  const auto address = unix_address(path);
  if (!address)
    return fail(errc::operation_failed, address.error().detail);
  unique_fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!socket || ::fchmod(socket.get(), 0600) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 || ::listen(socket.get(), 8) != 0)
    return fail(errc::system, fmt::format("cannot listen on '{}': {}", path, reason(errno)));
  return socket;
}

/// The log of a guest, ready to be appended to. One that has grown long is set aside.
result<unique_fd> open_log(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && info.st_size > most_log_bytes)
    ::rename(path.c_str(), (path + ".old").c_str());
  unique_fd log{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!log)
    return fail(errc::system, fmt::format("cannot open the log '{}': {}", path, reason(errno)));
  return log;
}

/// A directory with a label of SELinux from the start.
result<void> make_labelled_dir(const std::string& path, const std::string& label) {
  const creation_label as{creation_label::kind::files, label};
  if (!as.taken())
    return as.taken();
  if (::mkdir(path.c_str(), 0700) != 0)
    return fail(errc::system, fmt::format("cannot make '{}': {}", path, reason(errno)));
  return {};
}

result<std::shared_ptr<host::place>> place_at(const host::place_request& wish) {
  std::error_code ignored;
  fs::remove_all(wish.run_dir, ignored); // left by the same guest, before the ledger was lost
  if (auto dir = make_labelled_dir(wish.run_dir, wish.file_label); !dir)
    return fail(dir.error().code, fmt::format("guest '{}': {}", wish.guest, dir.error().detail));
  if (wish.change_owner && ::chown(wish.run_dir.c_str(), wish.uid, wish.gid) != 0)
    return fail(errc::system, fmt::format("guest '{}': cannot give '{}' to {}:{}: {}", wish.guest, wish.run_dir, wish.uid,
                                          wish.gid, reason(errno)));
  auto made = std::make_shared<host::place>();
  made->monitor_socket = wish.run_dir + "/monitor.sock";
  const creation_label as{creation_label::kind::sockets, wish.socket_label}; // which a guest's process may accept on
  if (!as.taken())
    return tl::make_unexpected(as.taken().error());
  auto listening = listen_at(made->monitor_socket);
  if (!listening)
    return tl::make_unexpected(std::move(listening.error()));
  made->listening = std::move(*listening);
  auto log = open_log(wish.log_file);
  if (!log)
    return tl::make_unexpected(std::move(log.error()));
  made->log = std::move(*log);
  struct stat info {};
  if (::fstat(made->log.get(), &info) == 0)
    made->log_start = static_cast<std::uint64_t>(info.st_size);
  for (const auto& bridge : wish.bridges) {
    auto tap = open_tap("vnet%d", bridge);
    if (!tap) {
      tap.error().detail = fmt::format("guest '{}': {}", wish.guest, tap.error().detail);
      return tl::make_unexpected(std::move(tap.error()));
    }
    made->taps.push_back(std::move(tap->fd));
    made->tap_names.push_back(std::move(tap->name));
  }
  return made;
}

/// Where the cache keeps what belongs to a key. The file holds the whole key too, so that a collision is only a miss.
std::string cache_file(const std::string& cache, const std::string& key) {
  return fmt::format("{}/{:016x}.facts", cache, stable_hash(key));
}

result<std::vector<std::string>> emulators_in(const std::vector<std::string>& folders) {
  std::vector<std::string> found;
  std::set<fs::path> seen;
  for (const auto& folder : folders) {
    std::error_code failed;
    std::vector<std::string> here;
    for (const auto& each : fs::directory_iterator{folder, fs::directory_options::skip_permission_denied, failed}) {
      const auto name = each.path().filename().string();
      if ((name == "qemu" || name == "qemu-kvm" || name.starts_with("qemu-system-")) &&
          ::access(each.path().c_str(), X_OK) == 0 && !fs::is_directory(each.path(), failed))
        here.push_back(each.path());
    }
    std::ranges::sort(here);
    for (auto& path : here)
      if (seen.insert(fs::weakly_canonical(path, failed)).second)
        found.push_back(std::move(path));
  }
  return found;
}

/// Where distributions put UEFI for PCs before it had descriptors.
constexpr const char* usual_loaders[] = {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE.secboot.fd"};

/// The device nodes among `files`, and terminals. Errors: operation_failed (one cannot be reached).
result<std::vector<device_rule>> rules_for(const std::vector<resource>& files) {
  std::vector<device_rule> rules{terminal_rule};
  for (const auto& each : files) {
    auto rule = device_rule_at(each.path, each.readonly);
    if (!rule)
      return tl::make_unexpected(std::move(rule.error()));
    if (*rule)
      rules.push_back(**rule);
  }
  return rules;
}

result<done> nothing_but(result<void> went) {
  if (!went)
    return tl::make_unexpected(std::move(went.error()));
  return done{};
}

} // namespace

real_host::real_host(loop& on, real_host_setup setup)
  : loop_{on}, setup_{std::move(setup)}, store_{setup_.paths.definitions, setup_.paths.autostart},
    workers_{on, most_workers}, sweeper_{on} {
  sweep_later();
}

real_host::~real_host() = default;

void real_host::sweep_later() {
  sweeper_.start(sweep_every, [this] {
    forgotten_.sweep();
    sweep_later();
  });
}

void real_host::make_place(place_request wish, answer<std::shared_ptr<place>> then) {
  auto what = fmt::format("making '{}'", wish.run_dir);
  workers_.run<std::shared_ptr<place>>(std::move(what), file_limit, [wish = std::move(wish)] { return place_at(wish); },
                                       std::move(then));
}

void real_host::remove_place(std::string run_dir, answer<done> then) {
  if (run_dir.empty())
    return loop_.post([then = std::move(then)] { then(done{}); });
  auto what = fmt::format("removing '{}'", run_dir);
  workers_.run<done>(
    std::move(what), file_limit,
    [run_dir = std::move(run_dir)]() -> result<done> {
      std::error_code failed;
      fs::remove_all(run_dir, failed);
      if (failed)
        return fail(errc::system, fmt::format("cannot remove '{}': {}", run_dir, failed.message()));
      return done{};
    },
    std::move(then));
}

result<std::unique_ptr<host::process>> real_host::launch(launch_plan plan, std::vector<fd_pass> fds, process_events events) {
  int plan_ends[2], status_ends[2];
  if (::pipe2(plan_ends, O_CLOEXEC) != 0)
    return fail(errc::system, fmt::format("cannot make a pipe: {}", reason(errno)));
  const unique_fd plan_out{plan_ends[0]};
  unique_fd plan_in{plan_ends[1]};
  if (::pipe2(status_ends, O_CLOEXEC) != 0)
    return fail(errc::system, fmt::format("cannot make a pipe: {}", reason(errno)));
  unique_fd status_out{status_ends[0]};
  const unique_fd status_in{status_ends[1]};
  ::fcntl(plan_in.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(status_out.get(), F_SETFL, O_NONBLOCK);

  spawn_request request;
  request.argv = {setup_.launcher, "--plan-fd", std::to_string(plan_number), "--status-fd", std::to_string(status_number)};
  request.fds = std::move(fds);
  request.fds.push_back({plan_out.get(), plan_number});
  request.fds.push_back({status_in.get(), status_number});
  auto it = std::make_unique<real_process>(loop_, std::move(plan_in), std::move(status_out), to_text(plan), std::move(events));
  auto started = spawn(loop_, request, [raw = it.get()](exit_status how) { raw->ended(how); });
  if (!started)
    return tl::make_unexpected(std::move(started.error()));
  it->watch(std::move(*started));
  return it;
}

result<std::unique_ptr<host::process>> real_host::adopt(process_id id, std::function<void(exit_status)> exited) {
  auto it = std::make_unique<real_process>(loop_, std::move(exited));
  auto watched = child::watch(loop_, id, [raw = it.get()](exit_status how) { raw->ended(how); });
  if (!watched)
    return tl::make_unexpected(std::move(watched.error()));
  it->watch(std::move(*watched));
  return it;
}

result<std::unique_ptr<host::monitor>> real_host::reach_monitor(const std::string& socket, qmp_monitor::callbacks calls) {
  auto connected = connect_unix(socket);
  if (!connected)
    return tl::make_unexpected(std::move(connected.error()));
  return std::make_unique<real_monitor>(loop_, std::move(*connected), std::move(calls));
}

void real_host::read_log(std::string path, std::uint64_t from, answer<std::string> then) {
  auto what = fmt::format("reading '{}'", path);
  workers_.run<std::string>(
    std::move(what), file_limit,
    [path = std::move(path), from]() -> result<std::string> { return tail_of_file(path, last_words, from); }, std::move(then));
}

void real_host::commit(ledger_batch batch, answer<done> then) {
  setup_.kept->commit(std::move(batch), [then = std::move(then)](result<void> written) { then(nothing_but(std::move(written))); });
}

void real_host::save_definition(std::string name, std::string xml, answer<done> then) {
  auto what = fmt::format("saving the definition of '{}'", name);
  workers_.run<done>(
    std::move(what), file_limit,
    [store = store_, name = std::move(name), xml = std::move(xml)] { return nothing_but(store.save(name, xml)); },
    std::move(then));
}

void real_host::remove_definition(std::string name, answer<done> then) {
  auto what = fmt::format("removing the definition of '{}'", name);
  workers_.run<done>(
    std::move(what), file_limit, [store = store_, name = std::move(name)] { return nothing_but(store.remove(name)); },
    std::move(then));
}

void real_host::save_autostart(std::string name, bool on, answer<done> then) {
  auto what = fmt::format("the autostart mark of '{}'", name);
  workers_.run<done>(
    std::move(what), file_limit,
    [store = store_, name = std::move(name), on] { return nothing_but(store.set_autostart(name, on)); }, std::move(then));
}

void real_host::resolve(std::string user, std::string group, answer<dac_identity> then) {
  auto what = fmt::format("looking up '{}:{}'", user, group);
  workers_.run<dac_identity>(
    std::move(what), file_limit,
    [user = std::move(user), group = std::move(group)] { return resolve_identity(user, group); }, std::move(then));
}

void real_host::observe_files(std::vector<resource> files, std::vector<std::string> models, dac_identity reader,
                              answer<std::vector<seen_file>> then) {
  auto what = std::string{"looking at"};
  for (const auto& each : files)
    what += " '" + each.path + "'";
  workers_.run<std::vector<seen_file>>(
    std::move(what), file_limit,
    [files = std::move(files), models = std::move(models), reader = std::move(reader),
     notes = setup_.notes]() -> result<std::vector<seen_file>> {
      std::vector<seen_file> found;
      for (const auto& wanted : files) {
        auto nodes = nodes_of(wanted);
        if (!nodes)
          return tl::make_unexpected(std::move(nodes.error()));
        for (auto& each : *nodes) {
          if (each.optional && ::access(each.path.c_str(), F_OK) != 0 && errno == ENOENT)
            continue;
          // Whether that worked shows in what is there then.
          if (each.create && each.like.empty())
            unique_fd{::open(each.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)};
          else if (each.create)
            if (auto copied = copy_file(each.like, each.path, most_firmware_bytes); !copied)
              return tl::make_unexpected(std::move(copied.error()));
          auto one = observe(each.path, models, notes);
          if (!one)
            return tl::make_unexpected(std::move(one.error()));
          if (auto reachable = check_search(each.path, reader); !reachable)
            return tl::make_unexpected(std::move(reachable.error()));
          found.push_back({std::move(each), std::move(*one)});
        }
      }
      return found;
    },
    std::move(then));
}

void real_host::find_image_parts(std::vector<resource> images, answer<std::vector<resource>> then) {
  std::string what = "reading the headers of";
  for (const auto& each : images)
    what += " '" + each.path + "'";
  workers_.run<std::vector<resource>>(
    std::move(what), file_limit,
    [images = std::move(images)]() -> result<std::vector<resource>> {
      std::vector<resource> all;
      for (const auto& image : images) {
        auto parts = image_parts(image.path);
        if (!parts)
          return parts;
        for (auto& part : *parts) {
          // What leaves the image alone leaves these alone; a label of its own is not theirs.
          part.relabel = image.relabel;
          std::ranges::copy_if(image.labels, std::back_inserter(part.labels), [](const auto& each) { return !each.relabel; });
          all.push_back(std::move(part));
        }
      }
      return all;
    },
    std::move(then));
}

void real_host::take_files(std::vector<file_taking> files, answer<done> then) {
  workers_.run<done>(
    fmt::format("taking {} files", files.size()), file_limit,
    [files = std::move(files), notes = setup_.notes]() -> result<done> {
      for (const auto& each : files) {
        auto took = take(each, notes);
        if (!took)
          return tl::make_unexpected(std::move(took.error()));
        for (const auto& told : *took)
          spdlog::warn("{}", told);
      }
      return done{};
    },
    std::move(then));
}

void real_host::give_back_files(std::vector<file_taking> files, answer<std::vector<std::string>> then) {
  if (files.empty())
    return loop_.post([then = std::move(then)] { then(std::vector<std::string>{}); });
  workers_.run<std::vector<std::string>>(
    fmt::format("giving back {} files", files.size()), file_limit,
    [files = std::move(files), notes = setup_.notes]() -> result<std::vector<std::string>> {
      std::vector<std::string> complaints;
      for (const auto& each : files)
        if (auto gave = give_back(each, notes); !gave)
          complaints.push_back(gave.error().message());
      return complaints;
    },
    std::move(then));
}

void real_host::load_profile(std::string name, std::vector<profile_rule> rules, answer<bool> then) {
  auto what = fmt::format("loading the AppArmor profile '{}'", name);
  workers_.run<bool>(
    std::move(what), file_limit,
    [helper = setup_.apparmor_helper, folder = setup_.profiles, name = std::move(name), rules = std::move(rules)]() mutable {
      for (auto& each : rules) {
        std::error_code failed;
        if (auto real = fs::weakly_canonical(each.path, failed); !failed)
          each.path = std::move(real);
      }
      return ask_apparmor_helper(helper, {apparmor_request::verb::load, folder, name, std::move(rules)});
    },
    std::move(then));
}

void real_host::drop_profile(std::string name, answer<done> then) {
  auto what = fmt::format("dropping the AppArmor profile '{}'", name);
  workers_.run<done>(
    std::move(what), file_limit,
    [helper = setup_.apparmor_helper, folder = setup_.profiles, name = std::move(name)]() -> result<done> {
      if (auto dropped = ask_apparmor_helper(helper, {apparmor_request::verb::remove, folder, name, {}}); !dropped)
        return tl::make_unexpected(std::move(dropped.error()));
      return done{};
    },
    std::move(then));
}

void real_host::make_control_group(std::string group, std::vector<resource> files, answer<done> then) {
  auto what = fmt::format("making the control group '{}'", group);
  for (const auto& each : setup_.devices)
    files.push_back({.path = each});
  workers_.run<done>(
    std::move(what), file_limit,
    [how = setup_.groups, group = std::move(group), files = std::move(files)]() -> result<done> {
      const auto rules = rules_for(files);
      if (!rules)
        return tl::make_unexpected(rules.error());
      return nothing_but(make_device_group(how, group, *rules));
    },
    std::move(then));
}

void real_host::remove_control_group(std::string group, answer<done> then) {
  auto what = fmt::format("removing the control group '{}'", group);
  workers_.run<done>(
    std::move(what), file_limit, [group = std::move(group)] { return nothing_but(remove_device_group(group)); },
    std::move(then));
}

void real_host::foresee(foreseen_wish wish, answer<std::vector<denial>> then) {
  auto what = fmt::format("looking at '{}'", wish.use.path);
  std::vector<resource> nodes;
  for (const auto& each : setup_.devices)
    nodes.push_back({.path = each});
  if (wish.granted)
    nodes.push_back({.path = wish.use.path, .readonly = !wish.use.write});
  workers_.run<std::vector<denial>>(
    std::move(what), look_limit,
    [limited = setup_.groups != device_groups::kind::none && wish.limited, nodes = std::move(nodes),
     wish = std::move(wish)]() -> result<std::vector<denial>> {
      foreseen_guest guest{.who = wish.who, .devices = {}, .landlock = wish.landlock};
      if (limited)
        if (auto rules = rules_for(nodes)) // what cannot be reached is told by the rest
          guest.devices = std::move(*rules);
      return foresee_denials(guest, wish.use);
    },
    std::move(then));
}

void real_host::find_emulators(answer<std::vector<std::string>> then) {
  workers_.run<std::vector<std::string>>("looking for emulators", file_limit,
                                      [folders = setup_.emulator_folders] { return emulators_in(folders); },
                                      std::move(then));
}

void real_host::recall_facts(std::string binary, std::string known_key, answer<remembered> then) {
  auto what = fmt::format("looking at '{}'", binary);
  workers_.run<remembered>(
    std::move(what), file_limit,
    [binary = std::move(binary), known_key = std::move(known_key), cache = setup_.paths.cache,
     identity = setup_.host_identity, modules = setup_.module_folders]() -> result<remembered> {
      struct stat info {};
      if (::stat(binary.c_str(), &info) != 0 || ::access(binary.c_str(), X_OK) != 0)
        return fail(errc::operation_failed, fmt::format("the emulator '{}' cannot be used: {}", binary, reason(errno)));
      if (!S_ISREG(info.st_mode))
        return fail(errc::operation_failed, fmt::format("the emulator '{}' is not a file", binary));
      struct stat kvm {};
      const bool has_kvm = ::stat("/dev/kvm", &kvm) == 0;
      remembered out;
      out.key = fmt::format("{}:{} {} {}.{} {}.{} kvm {:o} {}:{} {}", info.st_dev, info.st_ino, info.st_size,
                            info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec,
                            has_kvm ? kvm.st_mode : 0, kvm.st_uid, kvm.st_gid, identity);
      for (const auto& folder : modules)
        if (struct stat its {}; ::stat(folder.c_str(), &its) == 0)
          out.key += fmt::format(" {}.{}", its.st_mtim.tv_sec, its.st_mtim.tv_nsec);
      // Whether it may make code at run time, and so work without KVM.
      if (const auto may = selinux_boolean("virt_use_execmem"))
        out.key += fmt::format(" execmem {:d}", *may);
      if (out.key == known_key)
        return out;
      const auto text = read_file(cache_file(cache, out.key), most_facts_bytes).value_or("");
      if (text.starts_with(out.key + "\n"))
        out.text = text.substr(out.key.size() + 1);
      return out;
    },
    std::move(then));
}

void real_host::remember_facts(std::string key, std::string text, answer<done> then) {
  workers_.run<done>(
    "writing the capability cache", file_limit,
    [path = cache_file(setup_.paths.cache, key), key, text]() -> result<done> {
      // No fsync: what a power failure leaves is probed anew.
      const auto temporary = path + ".new";
      std::ofstream file{temporary, std::ios::binary | std::ios::trunc};
      file << key << '\n' << text;
      file.close();
      if (!file || ::rename(temporary.c_str(), path.c_str()) != 0)
        return fail(errc::system, fmt::format("cannot write '{}': {}", path, reason(errno)));
      return done{};
    },
    std::move(then));
}

void real_host::find_firmware(answer<host_firmware> then) {
  workers_.run<host_firmware>(
    "looking for firmware", file_limit,
    [folders = setup_.firmware_folders]() -> result<host_firmware> {
      host_firmware out;
      for (const auto& [path, text] : read_layered_files(folders, ".json"))
        if (auto one = read_firmware(path, text))
          out.described.push_back(std::move(*one));
        else
          spdlog::warn("{}", one.error().message());
      for (const auto* loader : usual_loaders)
        if (::access(loader, R_OK) == 0)
          out.usual_loaders.emplace_back(loader);
      return out;
    },
    std::move(then));
}

result<void> real_host::kvm_usable() {
  const unique_fd kvm{::open("/dev/kvm", O_RDWR | O_CLOEXEC)};
  if (!kvm)
    return fail(errc::operation_failed, fmt::format("/dev/kvm cannot be opened: {}", reason(errno)));
  return {};
}

bool real_host::port_is_free(int port) {
  const unique_fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return socket && ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
         ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::array<std::uint8_t, 16> real_host::random_bytes() {
  std::array<std::uint8_t, 16> bytes{};
  static_cast<void>(::getrandom(bytes.data(), bytes.size(), 0) == 16); // never short for so few
  return bytes;
}

} // namespace troupe
