#include "runtime/definition_store.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <csignal>
#include <map>
#include <random>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

using Catch::Matchers::Contains;

struct store_places {
  temp_dir dir;
  definition_store store{dir.path(), dir / "autostart"};
  store_places() { std::filesystem::create_directory(dir / "autostart"); }

  std::vector<stored_definition> all() const {
    auto found = store.load_all();
    REQUIRE(found);
    return std::move(*found);
  }
};

} // namespace

TEST_CASE("definition store: it holds what a map would, whatever the names and texts", "[runtime]") {
  std::mt19937 draw{3};
  store_places places;
  std::map<std::string, std::pair<std::string, bool>> expected;
  const std::string names[] = {
    "a", "web1", ".hidden", "...", "späße", "a b", "x.xml", ".x.new", std::string(247, 'n'), "autostart"};
  for (int step = 0; step < 200; ++step) {
    const auto& name = names[draw() % std::size(names)];
    switch (draw() % 4) {
    case 0:
    case 1: {
      const auto text = std::string(draw() % 20'000, static_cast<char>(draw() % 256));
      REQUIRE(places.store.save(name, text));
      expected[name].first = text;
      break;
    }
    case 2:
      REQUIRE(places.store.remove(name));
      expected.erase(name);
      break;
    case 3:
      if (const auto found = expected.find(name); found != expected.end()) {
        found->second.second = draw() % 2 == 0;
        REQUIRE(places.store.set_autostart(name, found->second.second));
      }
    }
    if (step % 10 != 0)
      continue;
    const auto found = places.all();
    REQUIRE(found.size() == expected.size());
    auto one = found.begin();
    for (const auto& [known, what] : expected) { // both by name
      CHECK(one->name == known);
      CHECK((one->text == what.first));
      CHECK(one->autostart == what.second);
      CHECK(one->error.empty());
      ++one;
    }
  }
}

TEST_CASE("definition store: files are its owner's alone, and links lead to them", "[runtime]") {
  store_places places;
  const auto umask_before = ::umask(0);
  REQUIRE(places.store.save("web1", "<domain/>"));
  ::umask(umask_before);
  REQUIRE(places.store.set_autostart("web1", true));
  struct stat found {};
  REQUIRE(::stat((places.dir / "autostart/web1.xml").c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0600);
  CHECK(contents_of(places.dir / "autostart/web1.xml") == "<domain/>");
  REQUIRE(places.store.save("web1", "<domain/>2"));
  CHECK(contents_of(places.dir / "autostart/web1.xml") == "<domain/>2");
}

TEST_CASE("definition store: a definition that cannot be read does not hide the others", "[runtime]") {
  store_places places;
  REQUIRE(places.store.save("good", "text"));
  std::filesystem::create_directory(places.dir / "dir.xml");
  REQUIRE(::mkfifo((places.dir / "fifo.xml").c_str(), 0600) == 0);
  std::filesystem::create_symlink("nowhere", places.dir / "dangling.xml");
  write_file(places.dir / "huge.xml", std::string(definition_store::most_bytes + 1, 'x'));
  write_file(places.dir / (std::string(250, 'n') + ".xml"), "too long a name");
  write_file(places.dir / "web1.xml~", "an editor's");
  write_file(places.dir / ".xml", "no name");
  std::map<std::string, std::string> errors;
  for (const auto& one : places.all())
    errors[one.name] = one.error;
  CHECK(errors.size() == 6);
  CHECK(errors.at("good").empty());
  for (const auto* bad : {"dir", "fifo", "dangling", "huge"})
    CHECK_THAT(errors.at(bad), Contains("cannot read '" + (places.dir / bad) + ".xml'"));
  CHECK_THAT(errors.at(std::string(250, 'n')), Contains("cannot read '") && Contains("250 bytes"));

  const auto missing = definition_store{places.dir / "no", places.dir / "no"}.load_all();
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == errc::system);
  CHECK_THAT(missing.error().detail, Contains("'" + (places.dir / "no") + "'"));
}

TEST_CASE("definition store: names that are no file names, and texts too long, are refused", "[runtime]") {
  store_places places;
  for (const auto* name : {"", ".", "..", "../x", "a/b"}) {
    for (const auto& done :
         {places.store.save(name, "x"), places.store.remove(name), places.store.set_autostart(name, true)}) {
      REQUIRE_FALSE(done);
      CHECK(done.error().code == errc::bad_name);
    }
  }
  const auto huge = places.store.save("a", std::string(definition_store::most_bytes + 1, 'x'));
  REQUIRE_FALSE(huge);
  CHECK(huge.error().code == errc::bad_argument);
  CHECK_THAT(huge.error().detail, Contains("'a'"));
  CHECK(places.all().empty());
}

TEST_CASE("definition store: a save that fails leaves what was there, and nothing else", "[runtime]") {
  store_places places;
  REQUIRE(places.store.save("a", "before"));
  std::filesystem::create_directory(places.dir / ".a.new"); // in its way
  std::filesystem::create_directory(places.dir / "b.xml");
  const auto first = places.store.save("a", "after");
  REQUIRE_FALSE(first);
  CHECK(first.error().code == errc::system);
  CHECK_THAT(first.error().detail, Contains(places.dir / ".a.new"));
  CHECK(contents_of(places.dir / "a.xml") == "before");
  const auto second = places.store.save("b", "text");
  REQUIRE_FALSE(second);
  CHECK_THAT(second.error().detail, Contains("replace '" + (places.dir / "b.xml") + "'"));
  CHECK_FALSE(std::filesystem::exists(places.dir / ".b.new"));
}

TEST_CASE("definition store: after a kill at any instant a file is old or new, never between", "[runtime]") {
  std::mt19937 draw{5};
  store_places places;
  REQUIRE(places.store.save("a", std::string(300'000, '0')));
  for (int round = 0; round < 10; ++round) {
    int begun[2];
    REQUIRE(::pipe(begun) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::write(begun[1], "x", 1) != 1)
        ::_exit(1);
      for (char c = 'a';; c = c == 'z' ? 'a' : static_cast<char>(c + 1))
        if (!places.store.save("a", std::string(300'000, c)))
          ::_exit(1);
    }
    char byte = 0;
    REQUIRE(::read(begun[0], &byte, 1) == 1);
    ::usleep(draw() % 20'000);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(begun[0]);
    ::close(begun[1]);
    REQUIRE(WIFSIGNALED(status));
    const auto found = places.all();
    REQUIRE(found.size() == 1);
    CHECK(found[0].error.empty());
    CHECK((found[0].text == std::string(300'000, found[0].text.front())));
    CHECK_FALSE(std::filesystem::exists(places.dir / ".a.new")); // what was interrupted is gone
  }
}

} // namespace troupe
