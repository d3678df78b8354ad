#include "runtime/read_file.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
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

} // namespace troupe
