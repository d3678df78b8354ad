#include "runtime/read_file.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <sys/stat.h>

namespace troupe {

TEST_CASE("read_file: a file is read whole, whatever its size", "[runtime]") {
  const temp_dir dir;
  for (const std::size_t size : {0, 1, 4095, 4096, 4097, 8192, 100'000}) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i)
      text.push_back(static_cast<char>(i * 7 + i / 256));
    CHECK(read_file(write_file(dir / "text", text), 100'000).value() == text);
  }
  CHECK(read_file("/proc/self/status", 100'000).value().starts_with("Name:"));
}

TEST_CASE("read_file: what is too long, not there, or no file is named with its reason", "[runtime]") {
  const temp_dir dir;
  const auto why = [](const std::string& path) {
    const auto text = read_file(path, 10);
    REQUIRE_FALSE(text);
    CHECK(text.error().code == errc::system);
    CHECK_THAT(text.error().detail, Catch::Matchers::Contains("'" + path + "'"));
    return text.error().detail;
  };
  CHECK_THAT(why(write_file(dir / "long", std::string(11, 'x'))), Catch::Matchers::EndsWith("more than 10 bytes"));
  CHECK_THAT(why(dir / "missing"), Catch::Matchers::EndsWith("No such file or directory"));
  CHECK_THAT(why(dir.path()), Catch::Matchers::EndsWith("Is a directory"));
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(read_file(dir / "fifo", 10).value().empty()); // nobody writes to it
}

TEST_CASE("copy_file: a file that is not there becomes a copy, one that is stays as it is", "[runtime]") {
  const temp_dir dir;
  const auto from = write_file(dir / "from", std::string(100'000, 'x'));
  const auto to = dir / "to";
  write_file(to + ".new", "half"); // of a copy that was cut short
  REQUIRE(copy_file(from, to, 100'000));
  CHECK(read_file(to, 100'000).value() == std::string(100'000, 'x'));
  CHECK(::access((to + ".new").c_str(), F_OK) != 0);
  struct stat made {};
  REQUIRE(::stat(to.c_str(), &made) == 0);
  CHECK((made.st_mode & 07777) == 0600);
  write_file(to, "mine");
  REQUIRE(copy_file(from, to, 100'000));
  CHECK(read_file(to, 10).value() == "mine");
  for (const auto& [source, target] : {std::pair{dir / "missing", dir / "a"}, {from, dir / "no/b"}}) {
    const auto went = copy_file(source, target, 100'000);
    REQUIRE_FALSE(went);
    CHECK(went.error().code == errc::system);
  }
  CHECK_FALSE(copy_file(from, dir / "c", 99'999));
  CHECK(::access((dir / "c").c_str(), F_OK) != 0);
}

} // namespace troupe
