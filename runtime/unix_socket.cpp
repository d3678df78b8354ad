#include "runtime/unix_socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/socket.h>
#include <system_error>
#include <utility>

namespace troupe {
namespace {

using std::chrono_literals::operator""ms;

/// Clients taken, and reads done, before the rest of the loop gets its turn.
constexpr int accepts_a_turn = 16;
constexpr int reads_a_turn = 4;
constexpr std::size_t read_bytes = 65'536;
/// Pieces gathered into one sendmsg.
constexpr std::size_t pieces_a_write = 16;
/// A packet up to this size is joined with what waits before it; a larger one is not copied.
constexpr std::size_t joined_bytes = 16'384;
/// Descriptors a client may leave unread: enough for eight full packets, far from what a process may have open.
constexpr std::size_t most_queued_fds = 8 * rpc_max_fds;
/// How long a listener rests when descriptors or memory have run out.
constexpr auto accept_rest = 100ms;

std::string text_of(int error_number) {
  return std::generic_category().message(error_number);
}

unique_fd new_socket() {
  return unique_fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
}

/// Makes room at `path` if what is there is a socket without a listener.
result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT)
      return {};
    return fail(errc::system, fmt::format("cannot look at socket '{}': {}", path, text_of(errno)));
  }
  if (!S_ISSOCK(found.st_mode))
    return fail(errc::system, fmt::format("'{}' is in the way of a socket and is none itself: remove it", path));
  const auto probe = new_socket();
  if (!probe)
    return fail(errc::system, fmt::format("cannot make a socket: {}", text_of(errno)));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN)
    return fail(errc::busy, fmt::format("another daemon answers on socket '{}'", path));
  if (errno == ENOENT)
    return {};
  if (errno != ECONNREFUSED)
    return fail(errc::system, fmt::format("cannot tell whether socket '{}' is in use: {}", path, text_of(errno)));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail(errc::system, fmt::format("cannot remove the stale socket '{}': {}", path, text_of(errno)));
  return {};
}

/// The descriptors that came with a message.
std::vector<unique_fd> fds_of(msghdr& message) {
  std::vector<unique_fd> fds;
  for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
      continue;
    const auto fd_count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < fd_count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

} // namespace

result<std::unique_ptr<unix_listener>> unix_listener::open(loop& on, std::string path, mode_t mode, int backlog,
                                                           accepted on_accept) {
  const auto address = unix_address(path);
  if (!address)
    return tl::make_unexpected(address.error());
  if (const auto removed = remove_stale(path, *address); !removed)
    return tl::make_unexpected(removed.error());
  auto socket = new_socket();
  if (!socket)
    return fail(errc::system, fmt::format("cannot make a socket: {}", text_of(errno)));
  // The file gets the mode of the socket's own inode, less the umask; only then is it widened.
  if (::fchmod(socket.get(), mode) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return fail(errc::system, fmt::format("cannot create socket '{}': {}", path, text_of(errno)));
  struct stat made {};
  if (::chmod(path.c_str(), mode) != 0 || ::lstat(path.c_str(), &made) != 0 || ::listen(socket.get(), backlog) != 0) {
    const auto why = errno;
    ::unlink(path.c_str());
    return fail(errc::system, fmt::format("cannot listen on socket '{}': {}", path, text_of(why)));
  }
  return std::unique_ptr<unix_listener>{
    new unix_listener{on, std::move(path), std::move(socket), made, std::move(on_accept)}};
}

unix_listener::unix_listener(loop& on, std::string path, unique_fd socket, const struct stat& file, accepted on_accept)
  : path_{std::move(path)}, device_{file.st_dev}, inode_{file.st_ino}, socket_{std::move(socket)},
    watch_{on, socket_.get(), [this](int) { accept_some(); }}, retry_{on}, shared_{new shared{std::move(on_accept)}} {
  watch_.want(UV_READABLE);
}

unix_listener::~unix_listener() {
  shared_->alive = false;
  struct stat found {};
  if (::lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ && found.st_ino == inode_)
    ::unlink(path_.c_str());
}

void unix_listener::accept_some() {
  const auto keep = shared_;
  for (int i = 0; i < accepts_a_turn && keep->alive; ++i) {
    unique_fd client{::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (client) {
      keep->on_accept(std::move(client));
      continue;
    }
    if (errno == EAGAIN)
      return;
    if (errno == ECONNABORTED || errno == EINTR)
      continue;
    // Clients stay in the backlog. Without the rest, the loop would spin on a socket that stays readable.
    watch_.want(0);
    retry_.start(accept_rest, [this] { watch_.want(UV_READABLE); });
    return;
  }
}

result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  constexpr auto longest = sizeof address.sun_path - 1;
  if (path.empty() || path.size() > longest)
    return fail(errc::bad_argument,
                fmt::format("the path of socket '{}' has {} bytes, but a UNIX socket's may have 1 to {}: "
                            "choose a shorter directory",
                            path, path.size(), longest));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

result<unique_fd> reach_daemon(const std::string& socket_path) {
  const auto address = unix_address(socket_path);
  if (!address)
    return fail(errc::no_connect, address.error().detail);
  unique_fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return fail(errc::no_connect, fmt::format("nobody answers at '{}': {}", socket_path, text_of(errno)));
  return socket;
}

result<unique_fd> connect_unix(const std::string& path) {
  const auto address = unix_address(path);
  if (!address)
    return tl::make_unexpected(address.error());
  auto made = new_socket();
  if (!made)
    return fail(errc::system, fmt::format("no socket for '{}': {}", path, text_of(errno)));
  if (::connect(made.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return fail(errc::system, fmt::format("cannot connect to '{}': {}", path, text_of(errno)));
  return made;
}

result<peer_credentials> peer_of(int fd) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return fail(errc::system, fmt::format("cannot tell who is connected: {}", text_of(errno)));
  return peer_credentials{credentials.uid, credentials.gid, credentials.pid};
}

packet_stream::packet_stream(loop& on, unique_fd socket, callbacks calls, packet_limits limits)
  : loop_{on}, socket_{std::move(socket)}, watch_{new fd_watch{on, socket_.get(),
                                                               [this](int events) { on_ready(events); }}},
    framer_{limits.packet_bytes}, output_limit_{limits.output_bytes}, shared_{new shared{std::move(calls)}} {
  update_watch();
}

packet_stream::~packet_stream() {
  shared_->alive = false;
}

result<void> packet_stream::send(const rpc_header& header, std::string payload, std::vector<unique_fd> fds) {
  if (fds.size() > (carries_fds(header.type) ? rpc_max_fds : 0))
    return fail(errc::bad_packet,
                fmt::format("procedure {} cannot send {} file descriptors", header.procedure, fds.size()));
  auto head = encode_rpc_head(header, payload.size(), fds.size());
  if (head.size() + payload.size() > rpc_max_packet)
    return fail(errc::bad_packet, fmt::format("procedure {} cannot send {} bytes: at most {} are allowed",
                                              header.procedure, payload.size(), rpc_max_packet - head.size()));
  if (!is_open() || closing_)
    return {};
  const auto was_idle = queue_.empty();
  if (payload.size() <= joined_bytes) {
    enqueue(std::move(head.append(payload)));
  } else {
    enqueue(std::move(head));
    enqueue(std::move(payload));
  }
  queued_fds_ += fds.size();
  queue_.back().fds = std::move(fds);
  if (was_idle)
    flush();
  if (queued_bytes_ > output_limit_ || queued_fds_ > most_queued_fds)
    shut(fmt::format("the client does not read: {} bytes and {} file descriptors wait for it, at most {} and {} may",
                     queued_bytes_, queued_fds_, output_limit_, most_queued_fds));
  update_watch();
  return {};
}

void packet_stream::enqueue(std::string bytes) {
  queued_bytes_ += bytes.size();
  if (!queue_.empty() && queue_.back().fds.empty() && queue_.back().bytes.size() + bytes.size() <= joined_bytes)
    queue_.back().bytes += bytes;
  else
    queue_.push_back({std::move(bytes), {}});
}

void packet_stream::close_after_flush() {
  closing_ = true;
  if (is_open() && queue_.empty())
    shut("closed by this side");
  update_watch();
}

void packet_stream::pause() {
  paused_ = true;
  update_watch();
}

void packet_stream::resume() {
  if (!std::exchange(paused_, false))
    return;
  update_watch();
  if (framer_.pending_bytes() > 0)
    loop_.post([this, keep = shared_] {
      if (keep->alive && deliver())
        update_watch();
    });
}

void packet_stream::on_ready(int events) {
  const auto keep = shared_;
  if ((events & UV_WRITABLE) != 0)
    flush();
  if (is_open() && (events & ~UV_WRITABLE) != 0) {
    if (paused_ || closing_)
      shut("the client hung up");
    else
      read_some();
  }
  if (keep->alive)
    update_watch();
}

void packet_stream::read_some() {
  char bytes[read_bytes];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * rpc_max_fds)];
  for (int i = 0; i < reads_a_turn && !paused_ && !closing_; ++i) {
    iovec into{bytes, sizeof bytes};
    msghdr message{};
    message.msg_iov = &into;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const auto got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0) {
      if (errno != EAGAIN && errno != EINTR)
        shut(fmt::format("cannot read: {}", text_of(errno)));
      return;
    }
    auto fds = fds_of(message);
    if (got == 0)
      return shut(framer_.pending_bytes() > 0 ? "the client hung up within a packet" : "the client hung up");
    if ((message.msg_flags & MSG_CTRUNC) != 0)
      return shut("more file descriptors came at once than the protocol or this process allows");
    framer_.feed({bytes, static_cast<std::size_t>(got)}, std::move(fds));
    if (!deliver() || static_cast<std::size_t>(got) < sizeof bytes)
      return;
  }
}

/// Gives out the packets that are there. False: the stream may be gone, or wants no more now.
bool packet_stream::deliver() {
  const auto keep = shared_;
  while (is_open() && !paused_ && !closing_) {
    auto packet = framer_.next();
    if (!packet) {
      shut(std::move(packet.error().detail));
      return false;
    }
    if (!packet->has_value())
      return true;
    keep->calls.on_packet(std::move(**packet));
    if (!keep->alive)
      return false;
  }
  return false;
}

void packet_stream::flush() {
  while (is_open() && !queue_.empty()) {
    auto& first = queue_.front();
    if (!(first.sent < first.bytes.size() ? write_bytes() : write_fd(first)))
      return;
    while (!queue_.empty() && queue_.front().is_sent())
      queue_.pop_front();
  }
  if (is_open() && closing_)
    shut("closed by this side");
}

/// Writes what waits, up to the first descriptors. False: it would have to wait, or the stream is shut.
bool packet_stream::write_bytes() {
  std::array<iovec, pieces_a_write> pieces;
  std::size_t used = 0;
  for (auto& part : queue_) {
    pieces[used++] = {part.bytes.data() + part.sent, part.bytes.size() - part.sent};
    if (used == pieces.size() || !part.fds.empty())
      break;
  }
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = used;
  const auto wrote = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (wrote < 0)
    return wait_or_shut(errno);
  auto left = static_cast<std::size_t>(wrote);
  queued_bytes_ -= left;
  for (auto part = queue_.begin(); left > 0; ++part) {
    const auto taken = std::min(left, part->bytes.size() - part->sent);
    part->sent += taken;
    left -= taken;
  }
  return true;
}

/// libvirt reads descriptors one at a time, each with a byte of its own and never with a packet's bytes.
bool packet_stream::write_fd(outgoing& behind) {
  char marker = 0;
  iovec piece{&marker, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_LEN(sizeof(int));
  auto* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  auto& fd = behind.fds[behind.fds_sent];
  const int number = fd.get();
  std::memcpy(CMSG_DATA(part), &number, sizeof number);
  if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return wait_or_shut(errno);
  fd.reset();
  ++behind.fds_sent;
  --queued_fds_;
  return true;
}

bool packet_stream::wait_or_shut(int error_number) {
  if (error_number == EINTR)
    return true;
  if (error_number != EAGAIN)
    shut(fmt::format("cannot write: {}", text_of(error_number)));
  return false;
}

void packet_stream::update_watch() {
  if (!is_open())
    return;
  const int input = closing_ ? 0 : paused_ ? UV_DISCONNECT : UV_READABLE;
  watch_->want(input | (queue_.empty() ? 0 : UV_WRITABLE));
}

/// Closes now and tells later, when none of the stream's functions is running.
void packet_stream::shut(std::string why) {
  watch_.reset();
  socket_.reset();
  framer_ = rpc_framer{0}; // lets go of the bytes and descriptors of half a packet
  queue_.clear();
  queued_bytes_ = 0;
  queued_fds_ = 0;
  loop_.post([keep = shared_, why = std::move(why)] {
    if (keep->alive)
      keep->calls.on_closed(why);
  });
}

} // namespace troupe
