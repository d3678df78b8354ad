#include "runtime/unix_socket.hpp"

#include "tests/catch.hpp"

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <random>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>

using namespace troupe;

namespace {

struct temp_dir {
  std::string path;

  temp_dir() {
    auto name = (std::filesystem::temp_directory_path() / "troupe-socket-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~temp_dir() { std::filesystem::remove_all(path); }
};

/// Turns the loop until `done`, or for so long that it never will be.
template <class Predicate>
bool turn_until(loop& on, Predicate done) {
  for (int i = 0; i < 100'000 && !done(); ++i)
    if (uv_run(on.raw(), UV_RUN_NOWAIT); !done())
      std::this_thread::sleep_for(std::chrono::microseconds{i < 100 ? 0 : 100});
  return done();
}

/// Turns the loop often enough that whatever can happen has happened.
void turn(loop& on) {
  for (int i = 0; i < 50; ++i)
    uv_run(on.raw(), UV_RUN_NOWAIT);
}

std::pair<unique_fd, unique_fd> socket_pair() {
  int ends[2] = {-1, -1};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  return {unique_fd{ends[0]}, unique_fd{ends[1]}};
}

unique_fd connect_to(const std::string& path) {
  unique_fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return {};
  return socket;
}

/// Plays a client that is slow on purpose: it writes and reads only when told to.
struct client {
  unique_fd socket;

  void write(std::string_view bytes) const {
    REQUIRE(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
  }
  /// As libvirt passes a descriptor: one byte, one message.
  void write_fd(int fd) const {
    char marker = 0;
    iovec piece{&marker, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_LEN(sizeof fd);
    auto* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
    REQUIRE(::sendmsg(socket.get(), &message, MSG_NOSIGNAL) == 1);
  }
  /// What is there now, at most `most` bytes.
  std::string read(std::size_t most = 1 << 20) const {
    std::string bytes(most, '\0');
    const auto got = ::recv(socket.get(), bytes.data(), most, 0);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  /// As libvirt reads a descriptor: one byte, by its own recvmsg.
  unique_fd read_fd() const {
    char marker = 'x';
    iovec piece{&marker, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC) != 1 || marker != 0 || CMSG_FIRSTHDR(&message) == nullptr)
      return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return unique_fd{fd};
  }
  bool sees_end() const {
    char byte = 0;
    return ::recv(socket.get(), &byte, 1, MSG_PEEK) == 0;
  }
};

struct stream_fixture {
  loop on;
  client peer;
  std::unique_ptr<packet_stream> stream;
  std::vector<rpc_packet> got;
  std::vector<std::string> closed;

  void open(packet_limits limits = {}) {
    auto [ours, theirs] = socket_pair();
    peer.socket = std::move(theirs);
    stream = std::make_unique<packet_stream>(
      on, std::move(ours),
      packet_stream::callbacks{[this](rpc_packet packet) { got.push_back(std::move(packet)); },
                               [this](std::string why) { closed.push_back(std::move(why)); }},
      limits);
  }
  bool turn_until_closed() {
    return turn_until(on, [this] { return !closed.empty(); });
  }
};

rpc_header numbered(std::uint32_t serial, rpc_type type = rpc_type::call) {
  rpc_header header;
  header.serial = serial;
  header.type = type;
  return header;
}

bool same_file(const unique_fd& a, const unique_fd& b) {
  struct stat first {
  }, second{};
  return ::fstat(a.get(), &first) == 0 && ::fstat(b.get(), &second) == 0 && first.st_ino == second.st_ino &&
         first.st_dev == second.st_dev;
}

/// Both ends of a pipe: files that can be told from all others.
std::vector<unique_fd> pipe_ends() {
  int ends[2] = {-1, -1};
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  std::vector<unique_fd> fds;
  fds.emplace_back(ends[0]);
  fds.emplace_back(ends[1]);
  return fds;
}

std::vector<unique_fd> copies(const std::vector<unique_fd>& fds) {
  std::vector<unique_fd> made;
  for (const auto& fd : fds)
    made.emplace_back(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  return made;
}

std::size_t open_fds() {
  const std::filesystem::directory_iterator all{"/proc/self/fd"};
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

} // namespace

TEST_CASE("unix_socket: clients are accepted, with who they are", "[runtime]") {
  const temp_dir dir;
  loop on;
  std::vector<unique_fd> clients;
  const auto made = unix_listener::open(on, dir.path + "/sock", 0640, 5,
                                        [&clients](unique_fd client) { clients.push_back(std::move(client)); });
  REQUIRE(made);
  struct stat found {};
  REQUIRE(::stat((dir.path + "/sock").c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0640);
  const auto one = connect_to(dir.path + "/sock");
  const auto two = connect_to(dir.path + "/sock");
  REQUIRE(turn_until(on, [&clients] { return clients.size() == 2; }));
  const auto peer = peer_of(clients[0].get());
  REQUIRE(peer);
  CHECK(peer->uid == ::getuid());
  CHECK(peer->gid == ::getgid());
  CHECK(peer->pid == ::getpid());
  CHECK((::fcntl(clients[0].get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(clients[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("unix_socket: the mode does not depend on the umask", "[runtime]") {
  const temp_dir dir;
  loop on;
  const auto before = ::umask(0077);
  const auto made = unix_listener::open(on, dir.path + "/sock", 0777, 5, [](unique_fd) {});
  ::umask(before);
  REQUIRE(made);
  struct stat found {};
  REQUIRE(::stat((dir.path + "/sock").c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0777);
}

TEST_CASE("unix_socket: a stale socket is replaced, a living one is not", "[runtime]") {
  const temp_dir dir;
  const auto path = dir.path + "/sock";
  loop on;
  {
    const unique_fd dead{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  const auto first = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
  REQUIRE(first);
  const auto second = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
  REQUIRE_FALSE(second);
  CHECK(second.error().code == errc::busy);
  CHECK(second.error().detail.find(path) != std::string::npos);
  CHECK(connect_to(path));
}

TEST_CASE("unix_socket: a full backlog counts as living", "[runtime]") {
  const temp_dir dir;
  const auto path = dir.path + "/sock";
  loop on;
  const auto first = unix_listener::open(on, path, 0600, 0, [](unique_fd) {});
  REQUIRE(first);
  std::vector<unique_fd> waiting;
  while (auto one = connect_to(path))
    waiting.push_back(std::move(one));
  const auto second = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
  REQUIRE_FALSE(second);
  CHECK(second.error().code == errc::busy);
}

TEST_CASE("unix_socket: a file that is no socket stays", "[runtime]") {
  const temp_dir dir;
  const auto path = dir.path + "/sock";
  loop on;
  SECTION("a plain file") {
    REQUIRE(unique_fd{::open(path.c_str(), O_CREAT | O_CLOEXEC, 0600)});
  }
  SECTION("a link to nowhere") {
    std::filesystem::create_symlink(dir.path + "/elsewhere", path);
  }
  const auto made = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
  REQUIRE_FALSE(made);
  CHECK(made.error().detail.find("remove it") != std::string::npos);
  CHECK(std::filesystem::symlink_status(path).type() != std::filesystem::file_type::not_found);
}

TEST_CASE("unix_socket: a path that is too long is named, with the bound", "[runtime]") {
  loop on;
  const temp_dir dir;
  const auto fits = dir.path + "/" + std::string(107 - dir.path.size() - 1, 'x');
  CHECK(unix_listener::open(on, fits, 0600, 5, [](unique_fd) {}));
  const auto made = unix_listener::open(on, fits + "x", 0600, 5, [](unique_fd) {});
  REQUIRE_FALSE(made);
  CHECK(made.error().code == errc::bad_argument);
  CHECK(made.error().detail.find(fits + "x") != std::string::npos);
  CHECK(made.error().detail.find("107") != std::string::npos);
  CHECK_FALSE(unix_listener::open(on, "", 0600, 5, [](unique_fd) {}));
}

TEST_CASE("unix_socket: the listener removes its own file and no other's", "[runtime]") {
  const temp_dir dir;
  const auto path = dir.path + "/sock";
  loop on;
  auto first = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
  REQUIRE(first);
  SECTION("its own") {
    first->reset();
    CHECK_FALSE(std::filesystem::exists(path));
  }
  SECTION("another's") {
    std::filesystem::rename(path, path + ".old");
    const auto second = unix_listener::open(on, path, 0600, 5, [](unique_fd) {});
    REQUIRE(second);
    first->reset();
    CHECK(connect_to(path));
  }
}

TEST_CASE("unix_socket: a listener may be destroyed by its own call", "[runtime]") {
  const temp_dir dir;
  const auto path = dir.path + "/sock";
  loop on;
  std::unique_ptr<unix_listener> listener;
  int accepted = 0;
  auto made = unix_listener::open(on, path, 0600, 5, [&](unique_fd) {
    listener.reset();
    ++accepted;
  });
  REQUIRE(made);
  listener = std::move(*made);
  const auto one = connect_to(path);
  const auto two = connect_to(path);
  REQUIRE(turn_until(on, [&accepted] { return accepted > 0; }));
  turn(on);
  CHECK(accepted == 1);
}

TEST_CASE("unix_socket: a client waits while descriptors have run out", "[runtime]") {
  const temp_dir dir;
  loop on;
  int accepted = 0;
  const auto made = unix_listener::open(on, dir.path + "/sock", 0600, 5, [&accepted](unique_fd) { ++accepted; });
  REQUIRE(made);
  const auto one = connect_to(dir.path + "/sock");
  REQUIRE(one);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{1, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  turn(on);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(accepted == 0);
  CHECK(turn_until(on, [&accepted] { return accepted == 1; }));
}

TEST_CASE("unix_socket: whoever is no socket has no credentials", "[runtime]") {
  const auto got = peer_of(pipe_ends()[0].get());
  REQUIRE_FALSE(got);
  CHECK(got.error().code == errc::system);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: packets go both ways", "[runtime]") {
  open();
  peer.write(encode_rpc(numbered(1), "abc") + encode_rpc(numbered(2), ""));
  REQUIRE(turn_until(on, [this] { return got.size() == 2; }));
  CHECK(got[0].header == numbered(1));
  CHECK(got[0].payload == "abc");
  CHECK(got[1].header == numbered(2));
  REQUIRE(stream->send(numbered(1, rpc_type::reply), "answer"));
  CHECK(stream->queued_bytes() == 0); // written at once, without a turn of the loop
  CHECK(peer.read() == encode_rpc(numbered(1, rpc_type::reply), "answer"));
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: descriptors come in with their packet", "[runtime]") {
  open();
  const auto ends = pipe_ends();
  const auto type = rpc_type::call_with_fds;
  peer.write(encode_rpc(numbered(1), "plain") + encode_rpc(numbered(2, type), "two", 2));
  peer.write_fd(ends[0].get());
  peer.write_fd(ends[1].get());
  peer.write(encode_rpc(numbered(3, type), "one", 1));
  turn(on);
  peer.write_fd(ends[1].get());
  REQUIRE(turn_until(on, [this] { return got.size() == 3; }));
  CHECK(got[0].fds.empty());
  CHECK(got[1].payload == "two");
  REQUIRE(got[1].fds.size() == 2);
  CHECK(same_file(got[1].fds[0], ends[0]));
  CHECK((::fcntl(got[1].fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(::fcntl(got[1].fds[1].get(), F_GETFL) == ::fcntl(ends[1].get(), F_GETFL));
  REQUIRE(got[2].fds.size() == 1);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: descriptors go out one byte each behind their packet", "[runtime]") {
  open();
  const auto ends = pipe_ends();
  const auto type = rpc_type::reply_with_fds;
  REQUIRE(stream->send(numbered(1, type), "two", copies(ends)));
  REQUIRE(stream->send(numbered(2, rpc_type::reply), "plain"));
  const auto first = encode_rpc(numbered(1, type), "two", 2);
  CHECK(peer.read(first.size()) == first);
  CHECK(same_file(peer.read_fd(), ends[0]));
  CHECK(same_file(peer.read_fd(), ends[1]));
  CHECK(peer.read() == encode_rpc(numbered(2, rpc_type::reply), "plain"));
  CHECK(stream->queued_bytes() == 0);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: two streams understand each other, descriptors and all", "[runtime]") {
  open();
  std::vector<rpc_packet> back;
  packet_stream other{on,
                      std::move(peer.socket),
                      {[&back](rpc_packet packet) { back.push_back(std::move(packet)); }, [](std::string) {}}};
  std::mt19937_64 draw{9};
  const auto ends = pipe_ends();
  std::vector<std::pair<std::string, std::size_t>> sent;
  for (std::uint32_t i = 0; i < 200; ++i) {
    const std::string payload(draw() % (draw() % 20 == 0 ? 200'000 : 300), static_cast<char>(draw()));
    const auto fds = draw() % 10 == 0 ? copies(ends) : std::vector<unique_fd>{};
    sent.emplace_back(payload, fds.size());
    REQUIRE(stream->send(numbered(i, fds.empty() ? rpc_type::reply : rpc_type::reply_with_fds), payload,
                         fds.empty() ? std::vector<unique_fd>{} : copies(fds)));
    if (draw() % 8 == 0)
      uv_run(on.raw(), UV_RUN_NOWAIT);
  }
  REQUIRE(turn_until(on, [&] { return back.size() == sent.size(); }));
  for (std::size_t i = 0; i < sent.size(); ++i) {
    REQUIRE(back[i].header.serial == i);
    REQUIRE(back[i].payload == sent[i].first);
    REQUIRE(back[i].fds.size() == sent[i].second);
  }
  CHECK(stream->queued_bytes() == 0);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: what cannot be sent is refused and the stream lives", "[runtime]") {
  open();
  CHECK_FALSE(stream->send(numbered(1), std::string(rpc_max_payload + 1, 'x')));
  CHECK_FALSE(stream->send(numbered(1), "abc", pipe_ends()));
  CHECK(stream->queued_bytes() == 0);
  CHECK(stream->is_open());
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a slow reader gets everything, in order", "[runtime]") {
  open();
  std::string expected;
  for (std::uint32_t i = 0; i < 3000; ++i) {
    const std::string payload(i % 100 == 0 ? 100'000 : i % 500, 'x');
    expected += encode_rpc(numbered(i), payload);
    REQUIRE(stream->send(numbered(i), payload));
  }
  CHECK(stream->queued_bytes() > 0);
  std::string read;
  CHECK(turn_until(on, [&] { return (read += peer.read(10'000)).size() >= expected.size(); }));
  CHECK(read == expected);
  CHECK(stream->queued_bytes() == 0);
  CHECK(closed.empty());
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a client that stops reading is dropped at the bound", "[runtime]") {
  open({rpc_max_packet, 1'000'000});
  std::size_t most = 0;
  for (int i = 0; i < 100'000 && stream->is_open(); ++i) {
    REQUIRE(stream->send(numbered(1), std::string(1000, 'x')));
    most = std::max(most, stream->queued_bytes());
  }
  CHECK(most <= 1'000'000);
  CHECK(most > 990'000);
  CHECK(closed.empty()); // told later, not from inside send
  REQUIRE(stream->send(numbered(1), "ignored"));
  REQUIRE(turn_until_closed());
  CHECK(closed[0].find("does not read") != std::string::npos);
  CHECK(stream->queued_bytes() == 0);
  turn(on);
  CHECK(closed.size() == 1);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a client cannot make descriptors pile up", "[runtime]") {
  open();
  const auto ends = pipe_ends();
  const auto before = open_fds();
  std::size_t most = 0;
  for (int i = 0; i < 10'000 && stream->is_open(); ++i) {
    REQUIRE(stream->send(numbered(1, rpc_type::reply_with_fds), "", copies(ends)));
    most = std::max(most, open_fds());
  }
  CHECK_FALSE(stream->is_open());
  CHECK(most - before <= 256);
  CHECK(open_fds() == before - 1); // its socket
  CHECK(turn_until_closed());
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: the last answer is written before the end", "[runtime]") {
  open();
  SECTION("with nothing waiting") {
    stream->close_after_flush();
    CHECK_FALSE(stream->is_open());
  }
  SECTION("with much waiting") {
    const std::string payload(3'000'000, 'x');
    REQUIRE(stream->send(numbered(1), payload));
    stream->close_after_flush();
    REQUIRE(stream->send(numbered(2), "too late"));
    CHECK(stream->is_open());
    std::string read;
    CHECK(turn_until(on, [&] { return (read += peer.read()).size() >= payload.size() + rpc_header_size; }));
    CHECK(read == encode_rpc(numbered(1), payload));
  }
  REQUIRE(turn_until_closed());
  CHECK(peer.sees_end());
  CHECK(closed == std::vector<std::string>{"closed by this side"});
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a client that leaves before the last answer ends the stream",
                 "[runtime]") {
  open();
  REQUIRE(stream->send(numbered(1), std::string(3'000'000, 'x')));
  stream->close_after_flush();
  peer.socket.reset();
  CHECK(turn_until_closed());
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: the packets before a hang-up are delivered", "[runtime]") {
  open();
  const auto packet = encode_rpc(numbered(1), std::string(1000, 'x'));
  std::string all;
  for (int i = 0; i < 100; ++i)
    all += packet;
  SECTION("a clean end") {
    peer.write(all);
    peer.socket.reset();
    REQUIRE(turn_until_closed());
    CHECK(closed[0] == "the client hung up");
  }
  SECTION("with our answers unread") {
    REQUIRE(stream->send(numbered(1), "unread"));
    peer.write(all);
    peer.socket.reset();
    REQUIRE(turn_until_closed());
  }
  SECTION("within a packet") {
    peer.write(all + packet.substr(0, 40));
    peer.socket.reset();
    REQUIRE(turn_until_closed());
    CHECK(closed[0] == "the client hung up within a packet");
  }
  CHECK(got.size() == 100);
  CHECK_FALSE(stream->is_open());
  turn(on);
  CHECK(closed.size() == 1);
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a paused stream gives out nothing until it is resumed", "[runtime]") {
  open();
  const auto packet = encode_rpc(numbered(1), "abc");
  stream->pause();
  peer.write(packet + packet);
  turn(on);
  CHECK(got.empty());
  stream->resume();
  CHECK(got.empty()); // not from inside resume
  REQUIRE(turn_until(on, [this] { return got.size() == 2; }));
  SECTION("it still writes") {
    stream->pause();
    REQUIRE(stream->send(numbered(1), std::string(1'000'000, 'x')));
    std::size_t read = 0;
    CHECK(turn_until(on, [&] { return (read += peer.read().size()) == 1'000'000 + rpc_header_size; }));
  }
  SECTION("it notices a hang-up") {
    stream->pause();
    turn(on);
    peer.socket.reset();
    CHECK(turn_until_closed());
  }
  SECTION("it notices a hang-up that leaves our answers unread") {
    REQUIRE(stream->send(numbered(1), "unread"));
    stream->pause();
    peer.socket.reset();
    CHECK(turn_until_closed());
  }
}

TEST_CASE("unix_socket: a stream paused by each packet gives out one a resume", "[runtime]") {
  loop on;
  auto [ours, theirs] = socket_pair();
  const client peer{std::move(theirs)};
  std::vector<std::uint32_t> got;
  std::unique_ptr<packet_stream> stream;
  stream = std::make_unique<packet_stream>(on, std::move(ours),
                                           packet_stream::callbacks{[&](const rpc_packet& packet) {
                                                                      got.push_back(packet.header.serial);
                                                                      stream->pause();
                                                                    },
                                                                    [](std::string) {}});
  peer.write(encode_rpc(numbered(0), "a") + encode_rpc(numbered(1), "b") + encode_rpc(numbered(2), "c"));
  for (std::size_t i = 1; i <= 3; ++i) {
    REQUIRE(turn_until(on, [&] { return got.size() == i; }));
    turn(on);
    CHECK(got.size() == i);
    stream->resume();
  }
  CHECK(got == std::vector<std::uint32_t>{0, 1, 2});
}

TEST_CASE("unix_socket: a stream may be destroyed by its own calls", "[runtime]") {
  loop on;
  auto ends_of_pair = socket_pair();
  client peer{std::move(ends_of_pair.second)};
  std::unique_ptr<packet_stream> stream;
  int packets = 0;
  int ends = 0;
  const auto witness = std::make_shared<int>(0); // the call's own captures stay until it returns
  const auto open = [&](bool in_packet, bool in_end) {
    stream = std::make_unique<packet_stream>(on, std::move(ends_of_pair.first),
                                             packet_stream::callbacks{[&, witness, in_packet](rpc_packet) {
                                                                        if (in_packet)
                                                                          stream.reset();
                                                                        *witness += ++packets;
                                                                      },
                                                                      [&, witness, in_end](std::string) {
                                                                        if (in_end)
                                                                          stream.reset();
                                                                        *witness += ++ends;
                                                                      }});
  };
  const auto packet = encode_rpc(numbered(1), "abc");
  SECTION("by a packet") {
    open(true, false);
    peer.write(packet + packet);
    REQUIRE(turn_until(on, [&packets] { return packets > 0; }));
    turn(on);
    CHECK(packets == 1);
    CHECK(ends == 0);
    CHECK(peer.sees_end());
  }
  SECTION("by a packet delivered on resume") {
    open(true, false);
    stream->pause();
    peer.write(packet + packet);
    turn(on);
    stream->resume();
    REQUIRE(turn_until(on, [&packets] { return packets > 0; }));
    turn(on);
    CHECK(packets == 1);
  }
  SECTION("by the end") {
    open(false, true);
    peer.socket.reset();
    REQUIRE(turn_until(on, [&ends] { return ends > 0; }));
    turn(on);
    CHECK(ends == 1);
  }
  SECTION("before the end could be told") {
    open(false, false);
    stream->close_after_flush();
    stream.reset();
    turn(on);
    CHECK(ends == 0);
  }
  CHECK(witness.use_count() == (stream ? 3 : 1));
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: bad packets close the stream with the reason", "[runtime]") {
  open({1000, 1000});
  std::string bytes;
  SECTION("a length out of bounds") {
    bytes = encode_rpc(numbered(1), std::string(973, 'x'));
  }
  SECTION("noise") {
    bytes = "GET / HTTP/1.1\r\n\r\n";
  }
  peer.write(bytes);
  REQUIRE(turn_until_closed());
  CHECK(closed[0].find("28 to 1000 are allowed") != std::string::npos);
  CHECK(got.empty());
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: a raised limit admits larger packets", "[runtime]") {
  open({1000, 1000});
  stream->limit_packets(2000);
  peer.write(encode_rpc(numbered(1), std::string(1500, 'x')));
  CHECK(turn_until(on, [this] { return got.size() == 1; }));
}

TEST_CASE_METHOD(stream_fixture, "unix_socket: descriptors nobody announced close the stream and themselves",
                 "[runtime]") {
  open();
  const auto ends = pipe_ends();
  const auto before = open_fds();
  for (int i = 0; i < 40; ++i)
    peer.write_fd(ends[0].get());
  REQUIRE(turn_until_closed());
  CHECK(open_fds() == before - 1); // its socket
}

TEST_CASE("unix_socket: random bytes never crash a stream", "[runtime]") {
  std::mt19937_64 draw{10};
  for (int i = 0; i < 300; ++i) {
    stream_fixture f;
    f.open({100'000, 100'000});
    std::string bytes;
    for (auto left = draw() % 5; left > 0; --left)
      bytes += encode_rpc(numbered(1, static_cast<rpc_type>(draw() % 4)), std::string(draw() % 100, 'x'));
    const auto whole = bytes.size();
    for (auto left = draw() % 100; left > 0; --left)
      bytes.push_back(static_cast<char>(draw()));
    if (!bytes.empty())
      f.peer.write(bytes);
    f.peer.socket.reset();
    REQUIRE(f.turn_until_closed());
    std::size_t out = 0;
    for (const auto& packet : f.got)
      out += rpc_header_size + packet.payload.size();
    REQUIRE(out >= whole);
  }
}
