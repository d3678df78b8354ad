#pragma once

#include "runtime/error.hpp"
#include "runtime/loop.hpp"
#include "runtime/rpc.hpp"
#include "runtime/unique_fd.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/types.h>
#include <vector>

namespace troupe {

/// A UNIX socket in the file system that accepts clients. Loop thread only.
/// The destructor removes the socket's file, if it still is this socket's.
class unix_listener {
public:
  /// Gets each client's socket, non-blocking and close-on-exec. May destroy the listener.
  using accepted = std::function<void(unique_fd)>;

  /// Creates the socket at `path` with permission bits `mode`, never wider for a moment, and listens.
  /// A socket that is already there is replaced if nobody answers on it.
  /// Errors: bad_argument (the path is too long), busy (somebody answers there), system.
  static result<std::unique_ptr<unix_listener>> open(loop& on, std::string path, mode_t mode, int backlog,
                                                     accepted on_accept);

  ~unix_listener();
  unix_listener(const unix_listener&) = delete;
  unix_listener& operator=(const unix_listener&) = delete;

  const std::string& path() const noexcept { return path_; }

private:
  /// Outlives the listener while its call runs.
  struct shared {
    accepted on_accept;
    bool alive = true;
  };

  unix_listener(loop& on, std::string path, unique_fd socket, const struct stat& file, accepted on_accept);
  void accept_some();

  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  unique_fd socket_;
  fd_watch watch_;
  timer retry_;
  std::shared_ptr<shared> shared_;
};

/// The address of a UNIX socket at `path`. Errors: bad_argument (the path is empty or too long).
result<sockaddr_un> unix_address(const std::string& path);

/// A blocking connection to a daemon's socket, for its clients. Errors: no_connect, naming the socket.
result<unique_fd> reach_daemon(const std::string& socket_path);

/// A non-blocking connection to a listening socket. Errors: system with path and errno; bad_argument (path too long).
result<unique_fd> connect_unix(const std::string& path);

/// Who is at the other end, as the kernel recorded it when the connection was made.
struct peer_credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0; ///< May be gone or another process by now; 0 if it lives in another pid namespace.
};

/// The credentials behind a connected UNIX socket. Errors: system. Source: unix(7), SO_PEERCRED.
result<peer_credentials> peer_of(int fd);

/// What one packet stream may hold. Beyond `output_bytes`, or 256 descriptors, not taken by the peer the stream closes.
struct packet_limits {
  std::size_t packet_bytes = rpc_max_packet;
  std::size_t output_bytes = rpc_max_packet + 8'388'608;
};

/// libvirt's packets over a connected UNIX socket, descriptors included. Loop thread only.
class packet_stream {
public:
  /// Both may destroy the stream. Neither is called from inside one of the stream's own functions.
  struct callbacks {
    std::function<void(rpc_packet)> on_packet;
    /// Once, when the connection ended and the socket is closed; not after the destructor ran.
    /// Unless paused, the packets the peer sent before it hung up come first.
    std::function<void(std::string why)> on_closed;
  };

  packet_stream(loop& on, unique_fd socket, callbacks calls, packet_limits limits = {});
  ~packet_stream();
  packet_stream(const packet_stream&) = delete;
  packet_stream& operator=(const packet_stream&) = delete;

  /// Writes what the socket takes at once and queues the rest. A closed stream ignores it.
  /// `fds` need a type that carries them. When too much is queued the stream closes, and says so by `on_closed`.
  /// Errors: bad_packet for a payload or descriptors beyond the protocol's bounds; nothing was sent then.
  result<void> send(const rpc_header& header, std::string payload, std::vector<unique_fd> fds = {});

  /// Reads no more, and closes once all that is queued has been written. A peer that never reads keeps it open:
  /// the owner decides how long.
  void close_after_flush();

  /// Stops reading and calling `on_packet`, until `resume`. A peer that hangs up is still noticed.
  void pause();
  void resume();

  /// Changes the bound on a packet, for packets not yet begun.
  void limit_packets(std::size_t most_bytes) { framer_.limit(most_bytes); }

  /// Bytes accepted by `send` that the peer's socket has not taken yet.
  std::size_t queued_bytes() const noexcept { return queued_bytes_; }
  bool is_open() const noexcept { return static_cast<bool>(socket_); }

private:
  /// Bytes on their way out: several small packets, or a part of a large one; then one byte a descriptor.
  struct outgoing {
    std::string bytes;
    std::vector<unique_fd> fds;
    std::size_t sent = 0;
    std::size_t fds_sent = 0;

    bool is_sent() const noexcept { return sent == bytes.size() && fds_sent == fds.size(); }
  };
  /// Outlives the stream while one of its calls runs.
  struct shared {
    callbacks calls;
    bool alive = true;
  };

  void on_ready(int events);
  void read_some();
  bool deliver();
  void flush();
  void enqueue(std::string bytes);
  bool write_bytes();
  bool write_fd(outgoing& behind);
  bool wait_or_shut(int error_number);
  void update_watch();
  void shut(std::string why);

  loop& loop_;
  unique_fd socket_;
  std::unique_ptr<fd_watch> watch_;
  rpc_framer framer_;
  std::size_t output_limit_;
  std::deque<outgoing> queue_;
  std::size_t queued_bytes_ = 0;
  std::size_t queued_fds_ = 0;
  bool paused_ = false;
  bool closing_ = false;
  std::shared_ptr<shared> shared_;
};

} // namespace troupe
