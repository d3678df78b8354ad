#include "runtime/paths.hpp"

#include "runtime/stable_hash.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>
#include <sys/un.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::size_t longest_name = 247;
constexpr std::size_t longest_socket = sizeof(sockaddr_un::sun_path) - 1;
// What a guest's own sockets may be called: "/org.qemu.guest_agent.0" is the longest usual one.
constexpr std::size_t room_for_socket_name = 24;
constexpr std::size_t shortest_guest_dir = 20; // a hash, a dash, and a little of the name

/// `name`, or when that has `room` bytes or more, exactly `room` bytes of its beginning and a hash: no two are the
/// same.
std::string shortened(std::string_view name, std::size_t room) {
  if (name.size() < room)
    return std::string{name};
  auto end = room - 17;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xc0) == 0x80) // not within a character
    --end;
  return fmt::format("{}{}-{:016x}", name.substr(0, end), std::string(room - 17 - end, '_'), stable_hash(name));
}

result<void> make_directory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), 0700) == 0) {
    if (::chmod(path.c_str(), mode) == 0) // whatever the umask
      return {};
    return fail(errc::system, fmt::format("cannot set the mode of '{}': {}", path, std::strerror(errno)));
  }
  const int why = errno;
  struct stat found {};
  if (why == EEXIST && ::stat(path.c_str(), &found) == 0) {
    if (S_ISDIR(found.st_mode))
      return {};
    return fail(errc::system, fmt::format("'{}' is there but is no directory", path));
  }
  return fail(errc::system, fmt::format("cannot create directory '{}': {}", path, std::strerror(why)));
}

/// Those of `path`, outermost first, that are missing get `parents`, itself gets `mode`.
result<void> make_with_parents(const std::string& path, mode_t mode, mode_t parents) {
  for (auto slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const auto parent = path.substr(0, slash);
    struct stat found {};
    if (::stat(parent.c_str(), &found) == 0 && S_ISDIR(found.st_mode))
      continue; // also on a file system that is read-only
    if (auto made = make_directory(parent, parents); !made)
      return made;
  }
  return make_directory(path, mode);
}

/// Without "." and "..", and without a slash at its end.
result<std::string> clean_absolute(const std::string& path) {
  std::error_code error;
  auto clean = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error)
    return fail(errc::bad_argument, fmt::format("'{}' cannot be made an absolute path: {}", path, error.message()));
  while (!clean.empty() && clean.back() == '/')
    clean.pop_back();
  return clean;
}

/// The directories a session's things are below.
struct session_places {
  std::string config, state, cache, run;
};

result<session_places> places_of_session(const std::function<const char*(const char*)>& variable) {
  // Source: XDG Base Directory Specification; a path that is not absolute counts as not set.
  const auto absolute = [&variable](const char* name) {
    const char* value = variable(name);
    return value != nullptr && value[0] == '/' ? std::string{value} : std::string{};
  };
  const auto home = absolute("HOME");
  session_places places;
  const struct {
    std::string& place;
    const char* name;
    const char* otherwise;
  } rows[] = {
    {places.config, "XDG_CONFIG_HOME", "/.config"},
    {places.state, "XDG_STATE_HOME", "/.local/state"},
    {places.cache, "XDG_CACHE_HOME", "/.cache"},
  };
  for (const auto& row : rows) {
    row.place = absolute(row.name);
    if (!row.place.empty())
      continue;
    if (home.empty())
      return fail(
        errc::bad_argument,
        fmt::format("the session instance has no place for its files: set HOME, or {}, to an absolute path", row.name));
    row.place = home + row.otherwise;
  }
  places.run = absolute("XDG_RUNTIME_DIR");
  for (auto* place : {&places.config, &places.state, &places.cache, &places.run}) {
    if (place->empty())
      continue;
    auto clean = clean_absolute(*place);
    if (!clean)
      return tl::make_unexpected(std::move(clean.error()));
    *place = std::move(*clean) + "/troupe";
  }
  if (places.run.empty())
    places.run = places.cache + "/run";
  return places;
}

} // namespace

result<void> check_file_name(std::string_view name) {
  if (name.empty())
    return fail(errc::bad_name, "a name must not be empty");
  if (name.size() > longest_name)
    return fail(errc::bad_name, fmt::format("name '{}...' has {} bytes, at most {} are possible", name.substr(0, 40),
                                            name.size(), longest_name));
  if (name == "." || name == "..")
    return fail(errc::bad_name, fmt::format("name '{}' stands for a directory", name));
  const struct {
    char character;
    const char* called;
  } forbidden[] = {{'/', "'/'"}, {'\n', "a newline"}, {'\0', "a NUL byte"}};
  for (const auto& one : forbidden)
    if (name.find(one.character) != std::string_view::npos)
      return fail(errc::bad_name, fmt::format("name '{}' contains {}", name, one.called));
  return {};
}

std::string instance_paths::definition(std::string_view name) const {
  return fmt::format("{}/{}.xml", definitions, name);
}

std::string instance_paths::guest_log(std::string_view name) const {
  return fmt::format("{}/{}.log", log, name);
}

std::string instance_paths::saved(std::string_view name) const {
  return fmt::format("{}/{}.save", saves, name);
}

std::string instance_paths::guest_run_dir(std::string_view name) const {
  return guest_runs + "/" + shortened(name, longest_socket - room_for_socket_name - guest_runs.size() - 1);
}

result<void> instance_paths::make_directories() const {
  const mode_t searched = session ? 0700 : 0711;
  const struct {
    const std::string& path;
    mode_t mode;
  } rows[] = {
    {config, 0700}, {definitions, 0700}, {autostart, 0700}, {state, searched},      {saves, 0700}, {nvram, searched},
    {dumps, 0700},  {cache, 0700},       {run, searched},   {guest_runs, searched}, {log, 0700},
    {probe_runs, 0700},
  };
  for (const auto& row : rows)
    if (auto made = make_with_parents(row.path, row.mode, session ? 0700 : 0755); !made)
      return made;
  return {};
}

result<instance_paths> paths_of_instance(bool session, const std::string& root,
                                         const std::function<const char*(const char*)>& variable) {
  instance_paths paths;
  paths.session = session;
  std::string below; // what all paths begin with
  if (!root.empty()) {
    auto clean = clean_absolute(root);
    if (!clean)
      return tl::make_unexpected(std::move(clean.error()));
    below = std::move(*clean);
    paths.root = below.empty() ? "/" : below;
  }
  if (!session) {
    paths.config = below + "/etc/troupe";
    paths.state = below + "/var/lib/troupe";
    paths.cache = below + "/var/cache/troupe";
    paths.run = below + "/run/troupe";
    paths.log = below + "/var/log/troupe/qemu";
  } else {
    const auto run = below + "/run";
    const auto in_root = [&](const char* name) {
      const std::string_view asked{name};
      return asked == "HOME" ? paths.root.c_str() : asked == "XDG_RUNTIME_DIR" ? run.c_str() : nullptr;
    };
    auto places = root.empty() ? places_of_session(variable) : places_of_session(in_root);
    if (!places)
      return tl::make_unexpected(std::move(places.error()));
    paths.config = std::move(places->config);
    paths.state = std::move(places->state);
    paths.cache = std::move(places->cache);
    paths.run = std::move(places->run);
    paths.log = paths.state + "/log";
  }
  paths.settings = paths.config + "/qemu.conf";
  paths.definitions = paths.config + "/qemu";
  paths.autostart = paths.definitions + "/autostart";
  paths.ledger = paths.state + "/ledger.sqlite";
  paths.saves = paths.state + "/save";
  paths.nvram = paths.state + "/nvram";
  paths.dumps = paths.state + "/dump";
  paths.guest_runs = paths.run + "/guests";
  paths.probe_runs = paths.run + "/probes"; // not among the guests, who may have any name
  paths.libvirt_sock = paths.run + "/libvirt-sock";
  paths.libvirt_sock_ro = paths.run + "/libvirt-sock-ro";
  paths.control = paths.run + "/control";
  paths.pid_file = paths.run + "/trouped.pid";

  // The directories of guests leave less room than our own sockets do.
  static_assert(sizeof("/guests/") + shortest_guest_dir + room_for_socket_name > sizeof("/libvirt-sock-ro"));
  const auto longest_run = longest_socket - room_for_socket_name - shortest_guest_dir - std::strlen("/guests/");
  if (paths.run.size() > longest_run)
    return fail(
      errc::bad_argument,
      fmt::format("'{}' has {} bytes, and at most {} leave room for the names of sockets, whose addresses end "
                  "at {}: choose a shorter {}",
                  paths.run, paths.run.size(), longest_run, longest_socket,
                  root.empty() ? "XDG_RUNTIME_DIR" : "root directory"));
  return paths;
}

} // namespace troupe
