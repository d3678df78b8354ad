#include "runtime/definition_store.hpp"

#include "runtime/paths.hpp"
#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::string_view ending = ".xml";
/// What a file is called until it is whole. No definition has such a name: it does not end in `ending`.
constexpr std::string_view unfinished = ".new";

tl::unexpected<error> failed(std::string_view what, const std::string& path) {
  return fail(errc::system, fmt::format("cannot {} '{}': {}", what, path, std::strerror(errno)));
}

/// Makes what happened to the names in a directory last.
result<void> sync_directory(const std::string& path) {
  const unique_fd dir{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!dir || ::fsync(dir.get()) != 0)
    return failed("sync the directory", path);
  return {};
}

result<void> write_whole(const std::string& path, std::string_view text) {
  const unique_fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!file)
    return failed("create", path);
  while (!text.empty()) {
    const auto wrote = ::write(file.get(), text.data(), text.size());
    if (wrote < 0 && errno != EINTR)
      return failed("write", path);
    if (wrote > 0)
      text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  if (::fsync(file.get()) != 0)
    return failed("sync", path);
  return {};
}

result<std::string> read_whole(const std::string& path) {
  // Not a FIFO that would wait for a writer.
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0)
    return failed("read", path);
  if (!S_ISREG(info.st_mode))
    return fail(errc::system, fmt::format("'{}' is not a file", path));
  if (static_cast<std::uint64_t>(info.st_size) > definition_store::most_bytes)
    return fail(errc::system, fmt::format("'{}' is larger than {} bytes", path, definition_store::most_bytes));
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t at = 0;
  while (at < text.size()) {
    const auto got = ::pread(file.get(), text.data() + at, text.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return failed("read", path);
    if (got == 0)
      break;
    at += static_cast<std::size_t>(got);
  }
  text.resize(at);
  return text;
}

result<std::vector<std::string>> names_in(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir{::opendir(path.c_str()), ::closedir};
  if (!dir)
    return failed("list the directory", path);
  std::vector<std::string> names;
  while (const auto* entry = ::readdir(dir.get()))
    names.emplace_back(entry->d_name);
  std::ranges::sort(names);
  return names;
}

} // namespace

result<void> definition_store::save(std::string_view name, std::string_view text) const {
  if (auto good = check_file_name(name); !good)
    return good;
  if (text.size() > most_bytes)
    return fail(errc::bad_argument, fmt::format("the definition of '{}' is larger than {} bytes", name, most_bytes));
  const auto path = fmt::format("{}/{}{}", dir_, name, ending);
  const auto temporary = fmt::format("{}/{}{}", dir_, name, unfinished);
  if (auto wrote = write_whole(temporary, text); !wrote) {
    ::unlink(temporary.c_str());
    return wrote;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    auto why = failed("replace", path);
    ::unlink(temporary.c_str());
    return why;
  }
  return sync_directory(dir_);
}

result<void> definition_store::remove(std::string_view name) const {
  // The link first: one that leads nowhere would start nothing, but stay.
  if (auto unmarked = set_autostart(name, false); !unmarked)
    return unmarked;
  const auto path = fmt::format("{}/{}{}", dir_, name, ending);
  if (::unlink(path.c_str()) != 0)
    return errno == ENOENT ? result<void>{} : failed("remove", path);
  return sync_directory(dir_);
}

result<void> definition_store::set_autostart(std::string_view name, bool on) const {
  if (auto good = check_file_name(name); !good)
    return good;
  const auto path = fmt::format("{}/{}{}", autostart_dir_, name, ending);
  if (!on) {
    if (::unlink(path.c_str()) != 0)
      return errno == ENOENT ? result<void>{} : failed("remove the autostart link", path);
    return sync_directory(autostart_dir_);
  }
  const auto target = fmt::format("../{}{}", name, ending);
  if (::symlink(target.c_str(), path.c_str()) != 0)
    return errno == EEXIST ? result<void>{} : failed("make the autostart link", path);
  return sync_directory(autostart_dir_);
}

result<std::vector<stored_definition>> definition_store::load_all() const {
  auto names = names_in(dir_);
  if (!names)
    return tl::make_unexpected(std::move(names.error()));
  const auto links = names_in(autostart_dir_); // nothing starts by itself when it cannot be read
  const std::set<std::string> marked = links ? std::set<std::string>{links->begin(), links->end()} : std::set<std::string>{};
  std::vector<stored_definition> found;
  for (const auto& file : *names) {
    const auto path = fmt::format("{}/{}", dir_, file);
    if (file.ends_with(unfinished))
      ::unlink(path.c_str());
    if (!file.ends_with(ending) || file.size() == ending.size())
      continue;
    stored_definition one;
    one.name = file.substr(0, file.size() - ending.size());
    one.autostart = marked.contains(file);
    if (auto text = read_whole(path))
      one.text = std::move(*text);
    else
      one.error = text.error().detail;
    found.push_back(std::move(one));
  }
  return found;
}

} // namespace troupe
