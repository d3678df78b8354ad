// The measuring client of bench/run: one measurement a run, its samples on standard output as JSON lists of
// microseconds.
//
//   troupe-bench start SOCKET GUEST COUNT      starts it paused, destroys it
//   troupe-bench together SOCKET GUEST...      starts all at the same time, a connection for each; destroys them
//   troupe-bench calls SOCKET GUEST COUNT      asks its state, and for the library's version
//   troupe-bench query SOCKET GUEST COUNT      sends query-status through the daemon
//   troupe-bench events SOCKET GUEST COUNT     suspends and resumes it; another connection waits for the events
//   troupe-bench list SOCKET COUNT             lists all guests
//   troupe-bench loaded SOCKET COUNT           lists all guests until there are COUNT: one sample
//   troupe-bench argv SOCKET FILE COUNT        turns the XML in FILE into QEMU's command line
//   troupe-bench define SOCKET FILE FROM COUNT defines the XML in FILE, "@" in it being the number
//   troupe-bench bare PID COUNT                executes the command line of QEMU process PID, QMP handshake; ends it
//   troupe-bench bare-together PID COUNT       the same, COUNT at the same time
//   troupe-bench bare-query PID COUNT          sends query-status directly
//   troupe-bench bare-events PID COUNT         stops and resumes it directly, until the event comes
//   troupe-bench write DIRECTORY FILE COUNT    keeps what is in FILE for good: writes, syncs, renames, syncs DIRECTORY

#include "runtime/unix_socket.hpp"
#include "runtime/wire_client.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace troupe;
using words = std::vector<std::string>;
using samples = std::map<std::string, std::vector<double>>;
using steady = std::chrono::steady_clock;

// Numbers of libvirt's remote and QEMU programs.
constexpr int proc_domain_define_xml = 11;
constexpr int proc_domain_destroy = 12;
constexpr int proc_domain_lookup_by_name = 23;
constexpr int proc_domain_resume = 28;
constexpr int proc_domain_suspend = 34;
constexpr int proc_connect_domain_xml_to_native = 136;
constexpr int proc_connect_get_lib_version = 157;
constexpr int proc_domain_create_with_flags = 196;
constexpr int proc_domain_get_state = 212;
constexpr int proc_connect_list_all_domains = 273;
constexpr int proc_event_callback_register_any = 316;
constexpr int proc_event_callback_lifecycle = 318;
constexpr int qemu_proc_domain_monitor_command = 1;
constexpr std::uint32_t start_paused = 1;

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "troupe-bench: {}\n", why);
  std::exit(1);
}

template <class T>
T need(result<T> got, const std::string& what) {
  if (!got)
    give_up(what + ": " + got.error().message());
  if constexpr (!std::is_void_v<T>)
    return std::move(*got);
}

int number(const std::string& text) {
  int value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size() || value < 0)
    give_up("'" + text + "' is not a number");
  return value;
}

std::string contents(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  if (!file)
    give_up("can't read " + path);
  return {std::istreambuf_iterator<char>{file}, {}};
}

double since(steady::time_point begin) {
  return std::chrono::duration<double, std::micro>(steady::now() - begin).count();
}

template <class Work>
double timed(Work&& work) {
  const auto begin = steady::now();
  work();
  return since(begin);
}

unique_fd connect_to(const std::string& path) {
  return need(reach_daemon(path), path);
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0)
      give_up(std::string{"can't send: "} + std::strerror(errno));
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::string_view receive_some(int fd, std::string& into) {
  into.resize(65'536);
  const auto got = recv(fd, into.data(), into.size(), 0);
  if (got <= 0)
    give_up("the other side closed the connection");
  return {into.data(), static_cast<std::size_t>(got)};
}

/// A client of the daemon; what fails ends the measurement.
class client {
public:
  explicit client(const std::string& path) : wire_{need(wire_client::open(path, "qemu:///system"), path)} {}

  std::uint32_t send(int procedure, std::string_view payload, std::uint32_t program = rpc_program_remote) {
    return need(wire_->send(procedure, payload, program), fmt::format("procedure {}", procedure));
  }

  std::string answer(std::uint32_t serial) { return need(wire_->answer(serial), "an answer"); }

  std::string call(int procedure, std::string_view payload, std::uint32_t program = rpc_program_remote) {
    return answer(send(procedure, payload, program));
  }

  void wait_message(int procedure) {
    while (need(wire_->next_message(), "an event").header.procedure != procedure) {
    }
  }

  rpc_domain lookup(const std::string& name) {
    xdr_writer out;
    out.string(name);
    return domain_in(call(proc_domain_lookup_by_name, out.take()));
  }

  static rpc_domain domain_in(const std::string& payload) {
    xdr_reader in{payload};
    return read_domain(in);
  }

private:
  std::unique_ptr<wire_client> wire_;
};

std::string domain_only(const rpc_domain& domain) {
  xdr_writer out;
  write(out, domain);
  return out.take();
}

std::string domain_and(const rpc_domain& domain, std::uint32_t flags) {
  xdr_writer out;
  write(out, domain);
  out.u32(flags);
  return out.take();
}

samples measure_start(const words& arg) {
  client daemon{arg[0]};
  auto guest = daemon.lookup(arg[1]);
  samples out;
  for (int left = number(arg[2]); left > 0; --left) {
    out["start"].push_back(timed(
      [&] { guest = client::domain_in(daemon.call(proc_domain_create_with_flags, domain_and(guest, start_paused))); }));
    out["destroy"].push_back(timed([&] { daemon.call(proc_domain_destroy, domain_only(guest)); }));
  }
  return out;
}

samples measure_together(const words& arg) {
  std::vector<std::unique_ptr<client>> clients;
  std::vector<rpc_domain> guests;
  for (auto name = arg.begin() + 1; name != arg.end(); ++name) {
    clients.push_back(std::make_unique<client>(arg[0]));
    guests.push_back(clients.back()->lookup(*name));
  }
  samples out;
  out["start"].push_back(timed([&] {
    std::vector<std::uint32_t> serials;
    for (std::size_t i = 0; i < guests.size(); ++i)
      serials.push_back(clients[i]->send(proc_domain_create_with_flags, domain_and(guests[i], start_paused)));
    for (std::size_t i = 0; i < guests.size(); ++i)
      guests[i] = client::domain_in(clients[i]->answer(serials[i]));
  }));
  out["destroy"].push_back(timed([&] {
    std::vector<std::uint32_t> serials;
    for (std::size_t i = 0; i < guests.size(); ++i)
      serials.push_back(clients[i]->send(proc_domain_destroy, domain_only(guests[i])));
    for (std::size_t i = 0; i < guests.size(); ++i)
      clients[i]->answer(serials[i]);
  }));
  return out;
}

samples measure_calls(const words& arg) {
  client daemon{arg[0]};
  const auto state = domain_and(daemon.lookup(arg[1]), 0);
  samples out;
  for (int left = number(arg[2]); left > 0; --left) {
    out["state"].push_back(timed([&] { daemon.call(proc_domain_get_state, state); }));
    out["version"].push_back(timed([&] { daemon.call(proc_connect_get_lib_version, {}); }));
  }
  return out;
}

samples measure_query(const words& arg) {
  client daemon{arg[0]};
  xdr_writer call;
  write(call, daemon.lookup(arg[1]));
  call.string(R"({"execute":"query-status"})");
  call.u32(0);
  samples out;
  for (int left = number(arg[2]); left > 0; --left)
    out["query"].push_back(
      timed([&] { daemon.call(qemu_proc_domain_monitor_command, call.bytes(), rpc_program_qemu); }));
  return out;
}

samples measure_events(const words& arg) {
  client daemon{arg[0]};
  client listener{arg[0]};
  xdr_writer all_lifecycle;
  all_lifecycle.i32(0);
  all_lifecycle.present(false);
  listener.call(proc_event_callback_register_any, all_lifecycle.bytes());
  const auto guest = domain_only(daemon.lookup(arg[1]));
  samples out;
  for (int left = number(arg[2]); left > 0; --left)
    for (const int procedure : {proc_domain_resume, proc_domain_suspend}) {
      std::uint32_t serial = 0;
      out["event"].push_back(timed([&] {
        serial = daemon.send(procedure, guest);
        listener.wait_message(proc_event_callback_lifecycle);
      }));
      daemon.answer(serial);
    }
  return out;
}

samples measure_list(const words& arg) {
  client daemon{arg[0]};
  xdr_writer call;
  call.u32(1);
  call.u32(0);
  samples out;
  for (int left = number(arg[1]); left > 0; --left)
    out["list"].push_back(timed([&] { daemon.call(proc_connect_list_all_domains, call.bytes()); }));
  return out;
}

samples measure_loaded(const words& arg) {
  client daemon{arg[0]};
  xdr_writer call;
  call.u32(1);
  call.u32(0);
  const auto wanted = static_cast<std::uint32_t>(number(arg[1]));
  samples out;
  out["loaded"].push_back(timed([&] {
    std::uint32_t listed = 0;
    while (listed < wanted) {
      const auto answer = daemon.call(proc_connect_list_all_domains, call.bytes());
      listed = xdr_reader{answer}.u32();
    }
  }));
  return out;
}

samples measure_argv(const words& arg) {
  client daemon{arg[0]};
  xdr_writer call;
  call.string("qemu-argv");
  call.string(contents(arg[1]));
  call.u32(0);
  samples out;
  for (int left = number(arg[2]); left > 0; --left)
    out["argv"].push_back(timed([&] { daemon.call(proc_connect_domain_xml_to_native, call.bytes()); }));
  return out;
}

/// What is in the file, each "@" being the number.
std::string numbered(const std::string& pattern, int number) {
  std::string text;
  for (const char c : pattern)
    c == '@' ? text.append(std::to_string(number)) : text.append(1, c);
  return text;
}

samples measure_define(const words& arg) {
  client daemon{arg[0]};
  const auto pattern = contents(arg[1]);
  const int first = number(arg[2]);
  samples out;
  for (int at = 0; at < number(arg[3]); ++at) {
    xdr_writer call;
    call.string(numbered(pattern, first + at));
    out["define"].push_back(timed([&] { daemon.call(proc_domain_define_xml, call.bytes()); }));
  }
  return out;
}

samples measure_write(const words& arg) {
  const auto text = contents(arg[1]);
  const unique_fd directory{open(arg[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  samples out;
  for (int at = 0; at < number(arg[2]); ++at) {
    const auto path = fmt::format("{}/written-{}.xml", arg[0], at);
    out["write"].push_back(timed([&] {
      const auto fresh = path + ".new";
      const unique_fd file{open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
      if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) || fsync(file.get()) != 0 ||
          rename(fresh.c_str(), path.c_str()) != 0 || fsync(directory.get()) != 0)
        give_up("can't write " + path + ": " + std::strerror(errno));
    }));
    unlink(path.c_str());
  }
  return out;
}

// ---- QEMU without a daemon

/// The words of a file of /proc.
words words_in(const std::string& path) {
  words out;
  const auto text = contents(path);
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\0', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

/// How process PID was started, and the descriptor where its QEMU finds the listening socket of its monitor.
struct command_line {
  words argv, env;
  int monitor_fd = -1;
};

command_line command_line_of(const std::string& pid) {
  command_line out{words_in("/proc/" + pid + "/cmdline"), words_in("/proc/" + pid + "/environ"), -1};
  for (const auto& word : out.argv) {
    const auto at = word.find(",fd=");
    if (word.starts_with("socket,id=charmonitor") && at != std::string::npos)
      out.monitor_fd = number(word.substr(at + 4, word.find(',', at + 4) - at - 4));
  }
  if (out.monitor_fd < 0)
    give_up("process " + pid + " has no monitor on a descriptor: it is no QEMU of Troupe");
  return out;
}

/// A QEMU started by exec, and its monitor.
class bare_qemu {
public:
  /// Starts it; `greet` is what takes the time.
  bare_qemu(const command_line& line, int which) : path_{fmt::format("/tmp/troupe-bench-{}-{}", getpid(), which)} {
    unique_fd listening{socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const auto address = need(unix_address(path_), path_);
    unlink(path_.c_str());
    if (bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        listen(listening.get(), 1) != 0)
      give_up("can't listen at " + path_ + ": " + std::strerror(errno));
    std::vector<char*> argv, env;
    for (const auto& [from, to] : {std::pair{&line.argv, &argv}, std::pair{&line.env, &env}}) {
      for (const auto& word : *from)
        to->push_back(const_cast<char*>(word.c_str()));
      to->push_back(nullptr);
    }
    pid_ = fork();
    if (pid_ == 0) {
      const int nothing = open("/dev/null", O_RDWR);
      for (const int standard : {0, 1, 2})
        dup2(nothing, standard);
      if (listening.get() == line.monitor_fd)
        fcntl(listening.get(), F_SETFD, 0);
      else
        dup2(listening.get(), line.monitor_fd);
      execve(argv[0], argv.data(), env.data());
      _exit(127);
    }
    if (pid_ < 0)
      give_up(std::string{"can't fork: "} + std::strerror(errno));
  }

  ~bare_qemu() {
    terminate();
    unlink(path_.c_str());
  }
  bare_qemu(const bare_qemu&) = delete;
  bare_qemu& operator=(const bare_qemu&) = delete;

  /// The QMP handshake.
  void greet() {
    monitor_ = connect_to(path_);
    wait_for("QMP");
    execute("qmp_capabilities");
  }

  void execute(std::string_view command) {
    send_all(monitor_.get(), fmt::format("{{\"execute\":\"{}\"}}\n", command));
    wait_for("return");
  }

  /// Returns when the event that the command causes has come; `settle` takes the answer if that comes later.
  void execute_until(std::string_view command, const std::string& event) {
    send_all(monitor_.get(), fmt::format("{{\"execute\":\"{}\"}}\n", command));
    answered_ = false;
    for (auto line = next_line(); line.value("event", "") != event; line = next_line())
      answered_ = answered_ || line.contains("return");
  }

  void settle() {
    if (!answered_)
      wait_for("return");
  }

  /// SIGTERM, until it is gone.
  void terminate() {
    if (pid_ <= 0)
      return;
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

private:
  nlohmann::json next_line() {
    for (;;) {
      if (const auto end = lines_.find('\n'); end != std::string::npos) {
        const auto line = lines_.substr(0, end);
        lines_.erase(0, end + 1);
        return nlohmann::json::parse(line);
      }
      lines_ += receive_some(monitor_.get(), buffer_);
    }
  }

  void wait_for(const char* member) {
    while (!next_line().contains(member))
      continue;
  }

  std::string path_;
  pid_t pid_ = -1;
  unique_fd monitor_;
  std::string lines_, buffer_;
  bool answered_ = false;
};

samples measure_bare(const words& arg) {
  const auto line = command_line_of(arg[0]);
  samples out;
  for (int left = number(arg[1]); left > 0; --left) {
    const auto begin = steady::now();
    bare_qemu qemu{line, left};
    qemu.greet();
    out["start"].push_back(since(begin));
    out["destroy"].push_back(timed([&] { qemu.terminate(); }));
  }
  return out;
}

samples measure_bare_together(const words& arg) {
  const auto line = command_line_of(arg[0]);
  std::vector<std::unique_ptr<bare_qemu>> all;
  samples out;
  out["start"].push_back(timed([&] {
    for (int left = number(arg[1]); left > 0; --left)
      all.push_back(std::make_unique<bare_qemu>(line, left));
    for (const auto& qemu : all)
      qemu->greet();
  }));
  return out;
}

samples measure_bare_query(const words& arg) {
  bare_qemu qemu{command_line_of(arg[0]), 0};
  qemu.greet();
  samples out;
  for (int left = number(arg[1]); left > 0; --left)
    out["query"].push_back(timed([&] { qemu.execute("query-status"); }));
  return out;
}

samples measure_bare_events(const words& arg) {
  bare_qemu qemu{command_line_of(arg[0]), 0};
  qemu.greet();
  samples out;
  for (int left = number(arg[1]); left > 0; --left)
    for (const auto& each : {std::pair{"cont", "RESUME"}, std::pair{"stop", "STOP"}}) {
      out["event"].push_back(timed([&] { qemu.execute_until(each.first, each.second); }));
      qemu.settle();
    }
  return out;
}

struct measurement {
  std::string_view name;
  std::size_t least_arguments;
  samples (*run)(const words&);
};

constexpr measurement measurements[] = {
  {"start", 3, measure_start},
  {"together", 2, measure_together},
  {"calls", 3, measure_calls},
  {"query", 3, measure_query},
  {"events", 3, measure_events},
  {"list", 2, measure_list},
  {"loaded", 2, measure_loaded},
  {"argv", 3, measure_argv},
  {"define", 4, measure_define},
  {"bare", 2, measure_bare},
  {"bare-together", 2, measure_bare_together},
  {"bare-query", 2, measure_bare_query},
  {"bare-events", 2, measure_bare_events},
  {"write", 3, measure_write},
};

} // namespace

int main(int argc, char** argv) {
  const words arg(argv + 1, argv + argc);
  for (const auto& [name, least, run] : measurements)
    if (!arg.empty() && arg[0] == name && arg.size() > least) {
      fmt::print("{}\n", nlohmann::json(run({arg.begin() + 1, arg.end()})).dump());
      return 0;
    }
  give_up("says at the top of bench/bench.cpp what it can measure");
}
