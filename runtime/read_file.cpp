#include "runtime/read_file.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <fcntl.h>
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

result<void> copy_file(const std::string& from, const std::string& to, std::size_t most_bytes) {
  if (::access(to.c_str(), F_OK) == 0)
    return {};
  auto text = read_file(from, most_bytes);
  if (!text)
    return tl::make_unexpected(std::move(text.error()));
  const auto fresh = to + ".new"; // from a copy that was cut short there may be one
  ::unlink(fresh.c_str());
  const unique_fd file{::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)};
  bool went = static_cast<bool>(file);
  for (std::string_view rest = *text; went && !rest.empty();) {
    const auto put = ::write(file.get(), rest.data(), rest.size());
    went = put > 0 || (put < 0 && errno == EINTR);
    rest.remove_prefix(put > 0 ? static_cast<std::size_t>(put) : 0);
  }
  // A link, unlike a rename, leaves one alone that came meanwhile.
  went = went && ::fsync(file.get()) == 0 && (::link(fresh.c_str(), to.c_str()) == 0 || errno == EEXIST);
  const auto why = errno;
  ::unlink(fresh.c_str());
  return went ? result<void>{} : fail(errc::system, fmt::format("cannot make '{}' a copy of '{}': {}", to, from, std::strerror(why)));
}

} // namespace troupe
