#include "runtime/read_file.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {

result<std::string> read_file(const std::string& path, std::size_t most_bytes) {
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
  std::string text;
  std::size_t size = 0;
  while (file) { // the kernel's own files say no size
    if (text.size() == size)
      text.resize(std::max<std::size_t>(4096, 2 * size));
    const auto got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      break;
    size += static_cast<std::size_t>(got);
    if (size > most_bytes)
      return fail(errc::system, fmt::format("cannot read '{}': it has more than {} bytes", path, most_bytes));
    if (got > 0)
      continue;
    text.resize(size);
    return text;
  }
  return fail(errc::system, fmt::format("cannot read '{}': {}", path, std::strerror(errno)));
}

result<void> write_through(const std::string& path, std::string_view text) {
  const auto failed = [&](const char* what) {
    return fail(errc::system, fmt::format("cannot {} '{}': {}", what, path, std::strerror(errno)));
  };
  const unique_fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600)};
  if (!file || ::fchmod(file.get(), 0600) != 0) // it may be an old one
    return failed("create");
  while (!text.empty()) {
    const auto written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno != EINTR)
      return failed("write");
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
  return ::fsync(file.get()) == 0 ? result<void>{} : failed("write");
}

result<void> copy_file(const std::string& from, const std::string& to, std::size_t most_bytes) {
  if (::access(to.c_str(), F_OK) == 0)
    return {};
  auto text = read_file(from, most_bytes);
  if (!text)
    return tl::make_unexpected(std::move(text.error()));
  const auto fresh = to + ".new";
  ::unlink(fresh.c_str()); // of a copy that was cut short, and may by now be `to` by another name
  auto went = write_through(fresh, *text);
  // A link, unlike a rename, leaves one alone that came meanwhile.
  if (went && ::link(fresh.c_str(), to.c_str()) != 0 && errno != EEXIST)
    went = fail(errc::system, fmt::format("cannot make '{}' a copy of '{}': {}", to, from, std::strerror(errno)));
  ::unlink(fresh.c_str());
  return went;
}

} // namespace troupe
