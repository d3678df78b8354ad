#include "runtime/definition_store.hpp"

#include "runtime/paths.hpp"
#include "runtime/read_file.hpp"
#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::string_view suffix = ".xml";
constexpr std::string_view unfinished = ".new"; // ends the name of a file that `save` has not renamed yet

auto system_error(const char* what, const std::string& path, int why = errno) {
  return fail(errc::system, fmt::format("cannot {} '{}': {}", what, path, std::strerror(why)));
}

/// Makes what was done to names in `directory` last.
result<void> sync_directory(const std::string& directory) {
  const unique_fd opened{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!opened || ::fsync(opened.get()) != 0)
    return system_error("write directory", directory);
  return {};
}

/// Removes a name; true: there was one.
result<bool> remove_name(const std::string& path) {
  if (::unlink(path.c_str()) == 0)
    return true;
  if (errno == ENOENT)
    return false;
  return system_error("remove", path);
}

result<std::string> read_definition(const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) == 0 && !S_ISREG(found.st_mode))
    return fail(errc::system, fmt::format("cannot read '{}': it is no file", path));
  return read_file(path, definition_store::most_bytes);
}

/// The names in a directory. Errors: system.
result<std::vector<std::string>> names_in(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> opened{::opendir(directory.c_str()), ::closedir};
  if (!opened)
    return system_error("read directory", directory);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const auto* entry = ::readdir(opened.get());
    if (entry == nullptr && errno != 0)
      return system_error("read directory", directory);
    if (entry == nullptr)
      return names;
    names.emplace_back(entry->d_name);
  }
}

} // namespace

result<void> definition_store::save(std::string_view name, std::string_view text) const {
  if (auto good = check_file_name(name); !good)
    return good;
  if (text.size() > most_bytes)
    return fail(errc::bad_argument, fmt::format("the definition of guest '{}' has {} bytes, at most {} are possible",
                                                name, text.size(), most_bytes));
  const auto temporary = fmt::format("{}/.{}{}", dir_, name, unfinished);
  const auto path = fmt::format("{}/{}{}", dir_, name, suffix);
  auto done = write_through(temporary, text);
  if (done && ::rename(temporary.c_str(), path.c_str()) != 0)
    done = system_error("replace", path);
  if (!done) {
    ::unlink(temporary.c_str());
    return done;
  }
  return sync_directory(dir_);
}

result<void> definition_store::remove(std::string_view name) const {
  // The link first: what is left after a crash must not start a later guest of that name.
  if (auto off = set_autostart(name, false); !off)
    return off;
  const auto removed = remove_name(fmt::format("{}/{}{}", dir_, name, suffix));
  if (!removed)
    return tl::make_unexpected(removed.error());
  return *removed ? sync_directory(dir_) : result<void>{};
}

result<void> definition_store::set_autostart(std::string_view name, bool on) const {
  if (auto good = check_file_name(name); !good)
    return good;
  const auto link = fmt::format("{}/{}{}", autostart_dir_, name, suffix);
  if (on) {
    const auto target = fmt::format("../{}{}", name, suffix); // holds wherever the directories are moved to
    if (::symlink(target.c_str(), link.c_str()) == 0)
      return sync_directory(autostart_dir_);
    if (errno == EEXIST)
      return {};
    return system_error("create", link);
  }
  const auto removed = remove_name(link);
  if (!removed)
    return tl::make_unexpected(removed.error());
  return *removed ? sync_directory(autostart_dir_) : result<void>{};
}

result<std::vector<stored_definition>> definition_store::load_all() const {
  auto names = names_in(dir_);
  if (!names)
    return tl::make_unexpected(std::move(names.error()));
  std::vector<stored_definition> found;
  for (const auto& file : *names) {
    const auto path = dir_ + "/" + file;
    if (file.size() > 1 + unfinished.size() && file.front() == '.' && file.ends_with(unfinished)) {
      ::unlink(path.c_str());
      continue;
    }
    if (file.size() <= suffix.size() || !file.ends_with(suffix))
      continue;
    auto& one = found.emplace_back();
    one.name = file.substr(0, file.size() - suffix.size());
    auto text = check_file_name(one.name).and_then([&path] { return read_definition(path); });
    if (text)
      one.text = std::move(*text);
    else
      one.error = text.error().code == errc::system ? std::move(text.error().detail)
                                                    : fmt::format("cannot read '{}': {}", path, text.error().detail);
    struct stat link {};
    one.autostart = ::lstat((autostart_dir_ + "/" + file).c_str(), &link) == 0;
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return found;
}

} // namespace troupe
