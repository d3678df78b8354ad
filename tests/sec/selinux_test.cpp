#include "sec/file_labels.hpp"
#include "sec/selinux.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <array>
#include <random>
#include <selinux/selinux.h>
#include <set>
#include <sys/xattr.h>
#include <unistd.h>

namespace troupe {
namespace {

// As Debian 12 and Fedora have them.
constexpr std::string_view one_domain = "system_u:system_r:svirt_t:s0\n";
constexpr std::string_view two_domains = "# guests\nsystem_u:system_r:svirt_t:s0\n\n  system_u:system_r:svirt_tcg_t:s0  \n";
const std::vector<std::string> selinux{"selinux"};
constexpr std::string_view images = "system_u:object_r:svirt_image_t:s0\nsystem_u:object_r:virt_content_t:s0\n";

selinux_contexts debian() {
  return selinux_contexts_from(one_domain, images).value();
}

resource file_that_is(bool readonly, bool shared) {
  resource file;
  file.path = "/x";
  file.readonly = readonly;
  file.shared = shared;
  return file;
}

/// The label of a file as bytes; "-" for none.
std::string label_at(const std::string& path) {
  std::array<char, 256> value{};
  const auto size = ::lgetxattr(path.c_str(), "security.selinux", value.data(), value.size());
  return size < 0 ? "-" : std::string{value.data(), static_cast<std::size_t>(size)};
}

/// Labels are plain attributes, which root may write, where no policy is in force.
bool can_write_labels(const std::string& path) {
  if (::is_selinux_enabled() == 1 || ::lsetxattr(path.c_str(), "security.selinux", "x", 2, 0) != 0) {
    WARN("for root where SELinux is off and files have attributes; the lab's tests do the rest: skipped");
    return false;
  }
  ::lremovexattr(path.c_str(), "security.selinux");
  return true;
}

std::string with_zero(std::string text) {
  text.push_back('\0');
  return text;
}

const std::string mine = "system_u:object_r:svirt_image_t:s0:c34,c44";

} // namespace

TEST_CASE("selinux: a context is read as it is written", "[sec]") {
  for (const auto* text : {"u:r:t", "u:r:t:s0", "system_u:system_r:svirt_t:s0:c34,c44", "u:r:t:s0-s15:c0.c1023"})
    CHECK(to_text(selinux_context_from(text).value()) == text);
  CHECK(selinux_context_from("u:r:t:s0-s0:c0.c3").value() == selinux_context{"u", "r", "t", "s0-s0:c0.c3"});
  for (const auto* text : {"", "u", "u:r", "u:r:", ":r:t", "u::t", "u:r:t:", "u:r:t x", "u:r:t:s0\n"}) {
    INFO(text);
    const auto wrong = selinux_context_from(text);
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().detail.find("'" + std::string{text} + "'") != std::string::npos);
  }
}

TEST_CASE("selinux: the policy's files tell what guests and images are", "[sec]") {
  const auto one = debian();
  CHECK(to_text(one.domain) == "system_u:system_r:svirt_t:s0");
  CHECK(one.emulated_domain == one.domain);
  CHECK(to_text(one.image) == "system_u:object_r:svirt_image_t:s0");
  CHECK(to_text(one.content) == "system_u:object_r:virt_content_t:s0");
  CHECK(to_text(selinux_contexts_from(two_domains, images).value().emulated_domain) == "system_u:system_r:svirt_tcg_t:s0");
  CHECK_FALSE(selinux_contexts_from("# none\n", images));
  CHECK_FALSE(selinux_contexts_from(one_domain, ""));
  CHECK(selinux_contexts_from(one_domain, "nonsense").error().detail.find("virtual_image_context") != std::string::npos);
}

TEST_CASE("selinux: a dynamic label is the policy's domain, or the base, with the pair", "[sec]") {
  const auto label = dynamic_selinux_label(debian(), "", true, {34, 44}).value();
  CHECK(label == selinux_label{"system_u:system_r:svirt_t:s0:c34,c44", mine});
  const auto two = selinux_contexts_from(two_domains, images).value();
  CHECK(dynamic_selinux_label(two, "", true, {1, 2}).value().process == "system_u:system_r:svirt_tcg_t:s0:c1,c2");
  CHECK(dynamic_selinux_label(two, "", false, {1, 2}).value().process == "system_u:system_r:svirt_t:s0:c1,c2");

  const auto based = dynamic_selinux_label(debian(), "u:r:custom_t:s3:c9", true, {1, 2}).value();
  CHECK(based == selinux_label{"u:r:custom_t:s3:c1,c2", "system_u:object_r:svirt_image_t:s3:c1,c2"});
  CHECK_FALSE(dynamic_selinux_label(debian(), "custom_t", true, {1, 2}));

  // A policy without levels has no pairs to give.
  const auto plain = selinux_contexts_from("u:r:svirt_t\n", "u:object_r:svirt_image_t\nu:object_r:virt_content_t\n").value();
  CHECK(dynamic_selinux_label(plain, "", true, {1, 2}).value() == selinux_label{"u:r:svirt_t", "u:object_r:svirt_image_t"});
}

TEST_CASE("selinux: no two leased pairs make one label, and each label tells its pair", "[sec]") {
  std::mt19937_64 random{2};
  category_pool pool;
  std::set<std::string> seen;
  for (int i = 0; i < 5'000; ++i) {
    const auto pair = pool.lease(random()).value();
    const auto label = dynamic_selinux_label(debian(), "", false, pair).value();
    CHECK(pair_of(selinux_context_from(label.process).value().range) == pair);
    CHECK(pair_of(selinux_context_from(label.image).value().range) == pair);
    CHECK(seen.insert(label.process).second);
  }
}

TEST_CASE("selinux: categories are put in the kernel's order, and nothing else is changed", "[sec]") {
  CHECK(in_order("u:r:t:s0:c44,c34") == "u:r:t:s0:c34,c44");
  CHECK(in_order("u:r:t:s0:c3.c4") == "u:r:t:s0:c3,c4");
  for (const auto* text : {"u:r:t", "u:r:t:s0", "u:r:t:s0:c34,c44", "u:r:t:s0-s0:c2,c1", "u:r:t:s0:c1,c2,c3", "nonsense"})
    CHECK(in_order(text) == text);
}

TEST_CASE("selinux: images of a static label have its categories", "[sec]") {
  CHECK(static_selinux_label(debian(), "system_u:system_r:svirt_t:s0:c34,c44").value() ==
        selinux_label{"system_u:system_r:svirt_t:s0:c34,c44", mine});
  CHECK(static_selinux_label(debian(), "root:system_r:qemu_t").value() ==
        selinux_label{"root:system_r:qemu_t", "system_u:object_r:svirt_image_t"});
  CHECK_FALSE(static_selinux_label(debian(), "qemu_t"));
}

TEST_CASE("selinux: what guests share has no guest's categories", "[sec]") {
  const auto contexts = debian();
  const selinux_label label{"system_u:system_r:svirt_t:s0:c34,c44", mine};
  CHECK(image_context(contexts, label, file_that_is(false, false)) == mine);
  CHECK(image_context(contexts, label, file_that_is(false, true)) == "system_u:object_r:svirt_image_t:s0");
  CHECK(image_context(contexts, label, file_that_is(true, false)) == "system_u:object_r:virt_content_t:s0");
  CHECK(image_context(contexts, label, file_that_is(true, true)) == "system_u:object_r:virt_content_t:s0");
}

TEST_CASE("selinux: a file gets its label, and the one it had comes back", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "image", "x");
  if (!can_write_labels(path))
    return;
  for (const auto& notes : {file_notes{}, file_notes{true, "here"}})
    for (const std::string before : {"", "system_u:object_r:virt_image_t:s0", "odd"}) {
      INFO(before);
      if (before.empty())
        ::lremovexattr(path.c_str(), "security.selinux");
      else
        REQUIRE(::lsetxattr(path.c_str(), "security.selinux", before.c_str(), before.size() + 1, 0) == 0);
      const auto was = label_at(path);
      const auto file = observe(path, selinux, notes).value();
      CHECK(file.labels.at("selinux").value == before);
      CHECK(take({file, {{"selinux", mine}}}, notes).value().empty());
      CHECK(label_at(path) == with_zero(mine));
      CHECK(observe(path, selinux, notes).value().labels.at("selinux").now == mine);
      CHECK(give_back({file, {{"selinux", mine}}}, notes));
      CHECK(label_at(path) == was);
    }
}

TEST_CASE("selinux: what somebody else labelled or put in its place is left alone", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "image", "x");
  if (!can_write_labels(path))
    return;
  const auto file = observe(path, selinux, {}).value();
  const std::string elses = "somebody:object_r:elses_t:s0";
  REQUIRE(take({file, {{"selinux", elses}}}, {}));
  CHECK(give_back({file, {{"selinux", mine}}}, {}));
  CHECK(label_at(path) == with_zero(elses));

  std::filesystem::rename(path, dir / "moved");
  write_file(path, "other");
  CHECK(give_back({file, {{"selinux", elses}}}, {}));
  CHECK(label_at(path) == "-");
  CHECK_FALSE(take({file, {{"selinux", mine}}}, {}));
  std::filesystem::remove(path);
  CHECK(give_back({file, {{"selinux", mine}}}, {}));
  std::filesystem::create_symlink(dir / "moved", path);
  CHECK(give_back({file, {{"selinux", elses}}}, {}));
  CHECK(label_at(dir / "moved") == with_zero(elses));
}

TEST_CASE("selinux: a file system without labels is told of with its remedy, and is no failure", "[sec]") {
  // The kernel's own file systems take none.
  const auto file = observe("/proc/version", selinux, {}).value();
  if (::geteuid() != 0 || ::is_selinux_enabled() == 1) {
    WARN("for root where SELinux is off: skipped");
    return;
  }
  const auto told = take({file, {{"selinux", mine}}}, {}).value();
  REQUIRE(told.size() == 1);
  CHECK(told[0].find("'/proc/version'") != std::string::npos);
  CHECK(told[0].find("-o context=\"" + mine + "\"") != std::string::npos);
  CHECK(observe("/proc/version", selinux, {}).value().labels.at("selinux").value.empty());
  CHECK(give_back({file, {{"selinux", mine}}}, {}));
}

TEST_CASE("selinux: where it is off, that is what the host tells", "[sec]") {
  const auto host = read_selinux_host();
  REQUIRE(host);
  CHECK(host->has_value() == (::is_selinux_enabled() == 1));
  const creation_label nothing{creation_label::kind::files, ""};
  CHECK(nothing.taken());
}

} // namespace troupe
