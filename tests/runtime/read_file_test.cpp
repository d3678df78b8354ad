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

} // namespace troupe
