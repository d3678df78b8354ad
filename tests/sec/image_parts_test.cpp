#include "sec/image_parts.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <random>

// QEMU's own program makes the images.

namespace troupe {
namespace {

bool make(const std::string& words) {
  return std::system(("qemu-img create -q " + words).c_str()) == 0;
}

std::vector<std::string> paths_of(const std::string& image) {
  std::vector<std::string> paths;
  const auto parts = image_parts(image).value();
  for (const auto& each : parts)
    paths.push_back((each.readonly ? "r " : "rw ") + each.path);
  return paths;
}

using list = std::vector<std::string>;

} // namespace

TEST_CASE("image_parts: a chain of qcow2 and QED is followed to its end, by names relative to each image", "[sec]") {
  const temp_dir dir;
  std::filesystem::create_directory(dir / "sub");
  const auto at = dir.path();
  REQUIRE(make(fmt::format("-f raw {}/base.raw 1M", at)));
  REQUIRE(make(fmt::format("-f qed -b ../base.raw -F raw {}/sub/old.qed", at)));
  REQUIRE(make(fmt::format("-f qcow2 -o compat=0.10 -b sub/old.qed -F qed {}/two.qcow2", at)));
  REQUIRE(make(fmt::format("-f qcow2 -b file:{0}/two.qcow2 -F qcow2 {0}/top.qcow2", at)));
  CHECK(paths_of(dir / "top.qcow2") ==
        list{"r " + at + "/two.qcow2", "r " + at + "/sub/old.qed", "r " + at + "/sub/../base.raw"});
  REQUIRE(make(fmt::format("-f qcow -b {0}/base.raw -F raw {0}/ancient.qcow", at)));
  CHECK(paths_of(dir / "ancient.qcow") == list{"r " + at + "/base.raw"});
  CHECK(paths_of(dir / "base.raw").empty());
  CHECK(paths_of(dir / "nowhere").empty());
}

TEST_CASE("image_parts: a backing file of format raw is not believed what the guest wrote into it", "[sec]") {
  const temp_dir dir;
  const auto at = dir.path();
  REQUIRE(make(fmt::format("-f qcow2 -u -b /etc/shadow -F raw {}/trap 1M", at)));
  REQUIRE(make(fmt::format("-f qcow2 -u -b {0}/trap -F raw {0}/top.qcow2 1M", at)));
  CHECK(paths_of(dir / "top.qcow2") == list{"r " + at + "/trap"});
}

TEST_CASE("image_parts: a file of data is written, JSON is read for its file, and what is elsewhere is left out", "[sec]") {
  const temp_dir dir;
  const auto at = dir.path();
  REQUIRE(make(fmt::format("-f qcow2 -o data_file={0}/data.raw {0}/top.qcow2 1M", at)));
  CHECK(paths_of(dir / "top.qcow2") == list{"rw " + at + "/data.raw"});
  REQUIRE(make(fmt::format(R"(-f qcow2 -u -F raw -b 'json:{{"driver":"raw","file":{{"driver":"file","filename":"{0}/base"}}}}' {0}/json.qcow2 1M)", at)));
  CHECK(paths_of(dir / "json.qcow2") == list{"r " + at + "/base"});
  REQUIRE(make(fmt::format("-f qcow2 -u -F raw -b nbd://far/away {}/far.qcow2 1M", at)));
  CHECK(paths_of(dir / "far.qcow2").empty());
}

TEST_CASE("image_parts: a ring of images is refused, and no damaged header does harm", "[sec]") {
  const temp_dir dir;
  const auto at = dir.path();
  REQUIRE(make(fmt::format("-f qcow2 -u -b {0}/two -F qcow2 {0}/one 1M", at)));
  REQUIRE(make(fmt::format("-f qcow2 -u -b {0}/one -F qcow2 {0}/two 1M", at)));
  CHECK(image_parts(dir / "one").error().detail == fmt::format("image '{}/one' has more than 200 layers below it", at));
  REQUIRE(make(fmt::format("-f qcow2 -b {0}/base -F raw {0}/good 1M -u", at)));
  const auto good = contents_of(dir / "good");
  std::mt19937 draw{1};
  for (int round = 0; round < 2000; ++round) {
    auto bad = good.substr(0, 600);
    for (auto left = draw() % 8 + 1; left > 0; --left)
      bad[draw() % 120] = static_cast<char>(draw());
    bad.resize(draw() % 2 == 0 ? bad.size() : draw() % bad.size());
    CHECK(image_parts(write_file(dir / "bad", bad)));
  }
}

} // namespace troupe
