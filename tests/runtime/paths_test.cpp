#include "runtime/paths.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <map>
#include <random>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe {
namespace {

using Catch::Matchers::Contains;

/// An environment of its own.
std::function<const char*(const char*)> environment(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

/// Every path there is in `paths`.
std::vector<std::string> all_of(const instance_paths& p) {
  return {p.config, p.settings,     p.definitions, p.autostart,       p.state,   p.ledger,
          p.saves,  p.nvram,        p.dumps,       p.cache,           p.run,     p.guest_runs,
          p.log,    p.libvirt_sock, p.control,     p.libvirt_sock_ro, p.pid_file, p.probe_runs};
}

unsigned mode_of(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
}

} // namespace

TEST_CASE("paths: the system instance is where the file system hierarchy has such things", "[runtime]") {
  const auto paths = paths_of_instance(false, "", environment({}));
  REQUIRE(paths);
  CHECK(paths->root.empty());
  CHECK(paths->settings == "/etc/troupe/qemu.conf");
  CHECK(paths->definition("web1") == "/etc/troupe/qemu/web1.xml");
  CHECK(paths->autostart == "/etc/troupe/qemu/autostart");
  CHECK(paths->state == "/var/lib/troupe");
  CHECK(paths->cache == "/var/cache/troupe");
  CHECK(paths->libvirt_sock == "/run/troupe/libvirt-sock");
  CHECK(paths->libvirt_sock_ro == "/run/troupe/libvirt-sock-ro");
  CHECK(paths->control == "/run/troupe/control");
  CHECK(paths->guest_log("web1") == "/var/log/troupe/qemu/web1.log");
}

TEST_CASE("paths: with a root all paths are below it, absolute and without a slash at the end", "[runtime]") {
  const bool session = GENERATE(false, true);
  const std::string root = GENERATE("/tmp/x", "/tmp/x/", "/tmp//y/../x/.", "relative/x", "/");
  const auto paths = paths_of_instance(session, root, environment({{"HOME", "/home/u"}, {"XDG_STATE_HOME", "/s"}}));
  REQUIRE(paths);
  const auto below = root.front() != '/' ? std::filesystem::current_path().string() + "/relative/x/"
                     : root == "/"       ? std::string{"/"}
                                         : std::string{"/tmp/x/"};
  for (const auto& path : all_of(*paths)) {
    CHECK(path.substr(0, below.size()) == below);
    CHECK(path.back() != '/');
    CHECK(path.find("//") == std::string::npos);
  }
  CHECK(paths->run == below + "run/troupe");
  CHECK(paths->config == below + (session ? ".config/troupe" : "etc/troupe"));
}

TEST_CASE("paths: a session follows the XDG variables, else HOME", "[runtime]") {
  const auto plain = paths_of_instance(true, "", environment({{"HOME", "/home/u/"}}));
  REQUIRE(plain);
  CHECK(plain->settings == "/home/u/.config/troupe/qemu.conf");
  CHECK(plain->ledger == "/home/u/.local/state/troupe/ledger.sqlite");
  CHECK(plain->cache == "/home/u/.cache/troupe");
  CHECK(plain->run == "/home/u/.cache/troupe/run");
  CHECK(plain->log == "/home/u/.local/state/troupe/log");

  const auto set = paths_of_instance(true, "",
                                     environment({{"HOME", "/home/u"},
                                                  {"XDG_CONFIG_HOME", "/c"},
                                                  {"XDG_STATE_HOME", "/s/"},
                                                  {"XDG_CACHE_HOME", "not/absolute"},
                                                  {"XDG_RUNTIME_DIR", "/run/user/7"}}));
  REQUIRE(set);
  CHECK(set->definitions == "/c/troupe/qemu");
  CHECK(set->saves == "/s/troupe/save");
  CHECK(set->cache == "/home/u/.cache/troupe");
  CHECK(set->control == "/run/user/7/troupe/control");

  const auto homeless = paths_of_instance(true, "", environment({{"XDG_CONFIG_HOME", "/c"}}));
  REQUIRE_FALSE(homeless);
  CHECK(homeless.error().code == errc::bad_argument);
  CHECK_THAT(homeless.error().detail, Contains("HOME") && Contains("XDG_STATE_HOME"));
}

TEST_CASE("paths: a root is refused exactly when a socket below it would have no address", "[runtime]") {
  std::string longest;
  for (std::size_t length = 1; length <= 120; ++length) {
    const auto root = "/" + std::string(length - 1, 'r');
    const auto paths = paths_of_instance(false, length == 1 ? "" : root);
    if (!paths) {
      CHECK(paths.error().code == errc::bad_argument);
      CHECK_THAT(paths.error().detail, Contains(root) && Contains("choose a shorter root"));
      continue;
    }
    CHECK((longest.empty() || root.size() == longest.size() + 1)); // no gap
    longest = root;
    for (const auto& name : {std::string{"a"}, std::string(40, 'n'), std::string(247, 'n')})
      CHECK((paths->guest_run_dir(name) + "/org.qemu.guest_agent.0").size() <= 107);
    CHECK(paths->libvirt_sock_ro.size() <= 107);
  }
  CHECK(longest.size() >= 40); // a temporary directory fits
}

TEST_CASE("paths: directories of running guests are told apart, also when names are cut", "[runtime]") {
  const auto paths = paths_of_instance(false, "/tmp/troupe-story-abcdefgh");
  REQUIRE(paths);
  CHECK(paths->guest_run_dir("web1") == paths->guest_runs + "/web1");
  std::mt19937 draw{1};
  const std::string pieces[] = {"a", "b", "-", "ä", "€", "🐧"};
  std::set<std::string> names, places;
  for (int i = 0; i < 2000; ++i) {
    std::string name;
    const auto length = 1 + draw() % 240;
    while (name.size() < length)
      name += pieces[draw() % std::size(pieces)];
    names.insert(name);
    const auto place = paths->guest_run_dir(name);
    CHECK(place.size() + 24 <= 107);
    names.insert(place.substr(paths->guest_runs.size() + 1)); // a guest called as the directory of another
  }
  for (const auto& name : names) {
    const auto place = paths->guest_run_dir(name);
    places.insert(place);
    std::size_t characters = 0;
    for (std::size_t at = 0; at < place.size(); ++characters) { // no character is cut
      const auto first = static_cast<unsigned char>(place[at]);
      const std::size_t bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
      for (std::size_t i = 1; i < bytes; ++i)
        REQUIRE((static_cast<unsigned char>(place[at + i]) & 0xc0) == 0x80);
      at += bytes;
    }
    CHECK(characters > 0);
  }
  std::size_t kept = 0; // names that are directories already stand for themselves or are cut again, never both
  for (const auto& name : names)
    kept +=
      places.contains(paths->guest_runs + "/" + name) && paths->guest_run_dir(name) != paths->guest_runs + "/" + name;
  CHECK(places.size() == names.size());
  CHECK(kept > 0); // the case that needs the rule did come up
}

TEST_CASE("paths: names that cannot be part of a file's name are refused with the reason", "[runtime]") {
  for (const auto& good : {std::string{"a"}, std::string{"..."}, std::string{".hidden"}, std::string(247, 'x'),
                           std::string{"with space"}, std::string{"späße"}, std::string{"-rf"}})
    CHECK(check_file_name(good));
  const std::pair<std::string, const char*> bad[] = {
    {"", "empty"},
    {".", "'.'"},
    {"..", "'..'"},
    {"a/b", "'a/b' contains '/'"},
    {"a\nb", "newline"},
    {{"a\0b", 3}, "NUL"},
    {std::string(248, 'x'), "248 bytes, at most 247"},
  };
  for (const auto& [name, reason] : bad) {
    const auto checked = check_file_name(name);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == errc::bad_name);
    CHECK_THAT(checked.error().detail, Contains(reason));
  }
}

TEST_CASE("paths: missing directories are made with the modes they need, others are left alone", "[runtime]") {
  const bool session = GENERATE(false, true);
  temp_dir dir;
  const auto paths = paths_of_instance(session, dir / "root");
  REQUIRE(paths);
  std::filesystem::create_directories(paths->cache);
  REQUIRE(::chmod(paths->cache.c_str(), 0750) == 0);
  const auto umask_before = ::umask(0077);
  const auto made = paths->make_directories();
  const auto again = paths->make_directories();
  ::umask(umask_before);
  REQUIRE(made);
  REQUIRE(again);
  const unsigned searched = session ? 0700 : 0711;
  CHECK(mode_of(paths->run) == searched);
  CHECK(mode_of(paths->guest_runs) == searched);
  CHECK(mode_of(paths->probe_runs) == 0700);
  CHECK(mode_of(paths->state) == searched);
  CHECK(mode_of(paths->nvram) == searched);
  for (const auto& secret :
       {paths->config, paths->definitions, paths->autostart, paths->saves, paths->dumps, paths->log})
    CHECK(mode_of(secret) == 0700);
  CHECK(mode_of(paths->cache) == 0750);
  if (!session)
    CHECK(mode_of(dir / "root/run") == 0755);
}

TEST_CASE("paths: a file where a directory belongs is named", "[runtime]") {
  temp_dir dir;
  const auto paths = paths_of_instance(false, dir.path());
  REQUIRE(paths);
  write_file(dir / "var", "");
  const auto made = paths->make_directories();
  REQUIRE_FALSE(made);
  CHECK(made.error().code == errc::system);
  CHECK_THAT(made.error().detail, Contains("'" + (dir / "var") + "'"));
}

} // namespace troupe
