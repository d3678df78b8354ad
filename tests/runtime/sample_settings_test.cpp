#include "runtime/settings.hpp"
#include "tests/catch.hpp"

#include <fstream>
#include <iterator>
#include <string>

using namespace troupe;

TEST_CASE("settings: docs/qemu.conf is what the daemon explains", "[runtime]") {
  // When this fails the table of settings was changed: build/bin/troupe settings >docs/qemu.conf
  std::ifstream file{TROUPE_SOURCE_DIR "/docs/qemu.conf"};
  const std::string text{std::istreambuf_iterator<char>{file}, {}};
  CHECK(text == sample_settings());
}
