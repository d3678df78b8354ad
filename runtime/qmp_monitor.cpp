#include "runtime/qmp_monitor.hpp"

#include "runtime/loop.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <sys/socket.h>
#include <utility>
#include <variant>
#include <vector>

namespace troupe {
namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t slice_bytes = 64u << 10;  // a read
constexpr int slices_a_turn = 4;                // then it is the next one's turn
constexpr milliseconds longest_wait = std::chrono::hours{24 * 365};

using answer = std::variant<qmp_monitor::reply, qmp_monitor::raw_reply>;

struct sent_command {
  std::string name;
  clock::time_point deadline;
  milliseconds within;
  answer then;
  bool answered = false;  // it timed out: QEMU's own answer finds nobody
};

struct refusal {
  answer then;
  error why;
};

void answer_error(const answer& then, error why) {
  std::visit([&](const auto& call) { call(tl::make_unexpected(std::move(why))); }, then);
}

/// QEMU may answer a command of an earlier connection on this one, so each connection counts from somewhere else.
std::uint64_t first_id() {
  std::random_device draw;
  return (std::uint64_t{draw()} & 0xffff'ffff) << 20; // leaves room below 2^53, where every JSON reader is exact
}

} // namespace

struct qmp_monitor::core : std::enable_shared_from_this<core> {
  core(loop& on, unique_fd connected, qmp_limits most, callbacks calls)
    : limits{most}, told{std::move(calls)}, fd{std::move(connected)}, lines{most.line_bytes}, alarm{on} {
    try {
      watch.emplace(on, fd.get(), [this](int events) { ready(events); });
      watch->want(UV_READABLE);
    } catch (const std::runtime_error&) {
      broken = error{errc::qemu_gone, fmt::format("descriptor {} is not a monitor's socket", fd.get())};
      wake_at(clock::now());
    }
  }

  /// Still whole and wanted: asked after every callback.
  bool is_open() const { return !abandoned && !is_closed; }

  // -- what the owner asks

  void send(std::string name, result<std::string> line, std::uint64_t id, milliseconds within, answer then) {
    if (!line)
      return refuse(std::move(then), std::move(line.error()));
    if (is_closed || broken)
      return refuse(std::move(then), error{errc::qemu_gone, fmt::format("QEMU's monitor is closed: '{}' is not sent", name)});
    if (commands.size() >= limits.in_flight)
      return refuse(std::move(then), error{errc::busy, fmt::format("QEMU has left {} commands unanswered: '{}' is not sent",
                                                                   commands.size(), name)});
    if (out.size() - taken + held.size() + line->size() > limits.queued_bytes)
      return refuse(std::move(then), error{errc::busy, fmt::format("more than {} bytes wait for QEMU's monitor: '{}' is not sent",
                                                                   limits.queued_bytes, name)});
    within = std::clamp(within, milliseconds{0}, longest_wait);
    const auto deadline = clock::now() + within;
    commands.emplace(id, sent_command{std::move(name), deadline, within, std::move(then)});
    wake_at(deadline);
    if (is_ready) {
      out += *line;
      flush();
    } else {
      held += *line;
    }
  }

  void refuse(answer then, error why) {
    refusals.push_back({std::move(then), std::move(why)});
    wake_at(clock::now());
  }

  void abandon() {
    abandoned = true;
    let_go();
    alarm.stop();
  }

  // -- the socket

  void ready(int events) {
    const auto self = shared_from_this(); // a callback may drop the monitor
    if (events & UV_READABLE)
      read();
    if (is_open() && (events & UV_WRITABLE) && !flush())
      close({errc::qemu_gone, fmt::format("QEMU's monitor takes no more commands: {}", std::strerror(errno))});
  }

  void read() {
    std::array<char, slice_bytes> slice; // not cleared: recv fills it
    for (int i = 0; i < slices_a_turn; ++i) {
      const auto got = ::recv(fd.get(), slice.data(), slice.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EINTR)
        continue;
      if (got < 0 && errno == EAGAIN)
        return;
      if (got < 0)
        return close({errc::qemu_gone, fmt::format("QEMU's monitor broke: {}", std::strerror(errno))});
      if (got == 0)
        return close({errc::qemu_gone, "QEMU closed its monitor"});
      heard = clock::now();
      const auto read_all = lines.feed({slice.data(), static_cast<std::size_t>(got)}, [this](std::string_view line) {
        take(line);
        return is_open();
      });
      if (!is_open())
        return;
      if (!read_all)
        return close(read_all.error());
      if (static_cast<std::size_t>(got) < slice.size())
        return;
    }
  }

  int wanted() const { return taken < out.size() ? UV_READABLE | UV_WRITABLE : UV_READABLE; }

  /// Sends what the socket takes. False: it is broken, and errno says how.
  bool flush() {
    while (taken < out.size()) {
      const auto sent = ::send(fd.get(), out.data() + taken, out.size() - taken, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        taken += static_cast<std::size_t>(sent);
        continue;
      }
      if (errno == EINTR)
        continue;
      watch->want(wanted()); // a broken socket is writable at once and gets its end told there
      return errno == EAGAIN;
    }
    out.clear();
    if (out.capacity() > slice_bytes)
      out.shrink_to_fit();
    taken = 0;
    watch->want(UV_READABLE);
    return true;
  }

  // -- QEMU's lines

  void take(std::string_view line) {
    auto message = read_qmp(line, limits.depth);
    if (!message)
      return close(std::move(message.error()));
    if (auto* greeting = std::get_if<qmp_greeting>(&*message))
      take_greeting(std::move(*greeting), line);
    else if (auto* event = std::get_if<qmp_event>(&*message))
      take_event(std::move(*event));
    else if (auto* value = std::get_if<qmp_return>(&*message))
      take_answer(value->id, line, [&](const std::string&) { return result<nlohmann::json>{std::move(value->value)}; });
    else if (auto* failure = std::get_if<qmp_failure>(&*message))
      take_answer(failure->id, line, [&](const std::string& name) -> result<nlohmann::json> {
        return fail(errc::operation_failed,
                    fmt::format("QEMU command '{}': {} ({})", name, failure->description, failure->error_class));
      });
  }

  void take_greeting(qmp_greeting greeting, std::string_view line) {
    if (negotiation)
      return close({errc::internal, fmt::format("QEMU's monitor sent a second greeting: '{}'", printable_start(line))});
    about = std::move(greeting.about);
    negotiation = next_id++;
    out += *write_qmp("qmp_capabilities", nullptr, *negotiation);
    flush();
  }

  void take_event(qmp_event event) {
    if (told.event)
      told.event(std::move(event));
  }

  template <class ToResult>
  void take_answer(std::optional<std::uint64_t> id, std::string_view line, ToResult to_result) {
    if (id && id == negotiation && !is_ready)
      return take_negotiation(to_result("qmp_capabilities"));
    const auto found = id ? commands.find(*id) : commands.end();
    if (found == commands.end()) {
      ++strangers;
      return;
    }
    const auto command = std::move(found->second);
    commands.erase(found);
    if (command.answered)
      return;
    if (const auto* then = std::get_if<reply>(&command.then))
      (*then)(to_result(command.name));
    else
      std::get<raw_reply>(command.then)(std::string{line});
  }

  void take_negotiation(const result<nlohmann::json>& accepted) {
    if (!accepted)
      return close(accepted.error());
    is_ready = true;
    out += std::exchange(held, {});
    flush();
    if (told.greeted)
      told.greeted(std::exchange(about, nullptr));
  }

  // -- time

  void wake_at(clock::time_point when) {
    if (when >= wakes_at)
      return;
    wakes_at = when;
    alarm.start(std::chrono::ceil<milliseconds>(when - clock::now()), [this] { ring(); });
  }

  void ring() {
    const auto self = shared_from_this();
    wakes_at = clock::time_point::max();
    answer_refusals();
    if (abandoned)
      return;
    if (broken && !is_closed)
      return close(std::move(*broken));

    const auto now = clock::now();
    std::vector<std::uint64_t> late;
    for (const auto& [id, command] : commands)
      if (!command.answered && command.deadline <= now)
        late.push_back(id);
    for (const auto id : late) {
      const auto found = commands.find(id);
      if (found == commands.end())
        continue;
      auto& command = found->second;
      command.answered = true;
      const auto then = std::exchange(command.then, {});
      answer_error(then, {errc::timed_out, fmt::format("QEMU has not answered '{}' within {} ms; the command is still in flight",
                                                       command.name, command.within.count())});
      if (!is_open())
        return;
    }
    auto next = clock::time_point::max();
    for (const auto& [id, command] : commands)
      if (!command.answered)
        next = std::min(next, command.deadline);
    if (next != clock::time_point::max())
      wake_at(next);
  }

  void answer_refusals() {
    for (const auto& each : std::exchange(refusals, {})) {
      answer_error(each.then, each.why);
      if (abandoned)
        return;
    }
  }

  // -- the end

  void let_go() {
    watch.reset();
    fd.reset();
    out = {};
    held = {};
    taken = 0;
  }

  void close(error why) {
    is_closed = true;
    let_go();
    answer_refusals();
    while (!abandoned && !commands.empty()) {
      const auto command = std::move(commands.begin()->second);
      commands.erase(commands.begin());
      if (!command.answered)
        answer_error(command.then, {errc::qemu_gone, fmt::format("'{}' is unanswered: {}", command.name, why.detail)});
    }
    if (!abandoned && told.closed)
      told.closed(std::move(why));
  }

  const qmp_limits limits;
  const callbacks told;
  unique_fd fd;
  std::optional<fd_watch> watch;
  qmp_lines lines;
  std::string out;        // for the socket, taken up to `taken`
  std::size_t taken = 0;
  std::string held;       // waits for the negotiation
  nlohmann::json about;   // the greeting, until it is accepted
  std::uint64_t next_id = first_id();
  std::optional<std::uint64_t> negotiation;  // the id of qmp_capabilities, once greeted
  std::map<std::uint64_t, sent_command> commands;
  std::vector<refusal> refusals;
  std::optional<error> broken;
  timer alarm;
  clock::time_point wakes_at = clock::time_point::max();
  clock::time_point heard = clock::now();
  std::size_t strangers = 0;
  bool is_ready = false;
  bool is_closed = false;
  bool abandoned = false;
};

qmp_monitor::qmp_monitor(loop& on, unique_fd connected, qmp_limits limits, callbacks calls)
  : core_{std::make_shared<core>(on, std::move(connected), limits, std::move(calls))} {}

qmp_monitor::~qmp_monitor() {
  core_->abandon();
}

void qmp_monitor::execute(std::string_view command, nlohmann::json arguments, milliseconds answer_within, reply then) {
  const auto id = core_->next_id++;
  core_->send(std::string{command}, write_qmp(command, std::move(arguments), id), id, answer_within, std::move(then));
}

void qmp_monitor::execute_raw(std::string_view json_text, milliseconds answer_within, raw_reply then) {
  const auto id = core_->next_id++;
  core_->send(printable_start(json_text), rewrite_qmp(json_text, core_->limits.depth, id), id, answer_within, std::move(then));
}

std::size_t qmp_monitor::in_flight() const {
  return core_->commands.size();
}

std::size_t qmp_monitor::unknown_replies() const {
  return core_->strangers;
}

clock::time_point qmp_monitor::last_heard() const {
  return core_->heard;
}

} // namespace troupe
