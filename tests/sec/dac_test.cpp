#include "sec/dac.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <cerrno>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr uid_t guest = 64055;
constexpr gid_t guests = 64056;

bool skip_without_root() {
  if (::geteuid() == 0)
    return false;
  WARN("skipped: needs root");
  return true;
}

} // namespace

TEST_CASE("dac: users and groups are found by name and by number", "[sec]") {
  const auto root = resolve_identity("root", "");
  REQUIRE(root);
  CHECK(root->uid == 0);
  CHECK(root->gid == 0);
  CHECK(std::ranges::count(root->groups, 0U) == 1);
  CHECK(resolve_identity("0", "0").value() == *root);
  CHECK(resolve_identity("+0", "+0").value() == *root);
  CHECK(resolve_identity("root", "root").value() == *root);
  CHECK(resolve_identity("+4000123", "+4000456").value() == dac_identity{4000123, 4000456, {4000456}});
  const auto other = resolve_identity("root", "+4000456");
  REQUIRE(other);
  CHECK(std::ranges::is_sorted(other->groups));
  CHECK(std::ranges::count(other->groups, 4000456U) == 1);
}

TEST_CASE("dac: who cannot be found is named", "[sec]") {
  const auto why = [](const char* user, const char* group) {
    const auto who = resolve_identity(user, group);
    REQUIRE_FALSE(who);
    CHECK(who.error().code == errc::bad_argument);
    return who.error().detail;
  };
  CHECK_THAT(why("no-such-user", ""), Catch::Matchers::Contains("no user 'no-such-user'"));
  CHECK_THAT(why("root", "no-such-group"), Catch::Matchers::Contains("no group 'no-such-group'"));
  CHECK_THAT(why("+4000123", ""), Catch::Matchers::Contains("name its group too"));
  for (const auto* bad : {"", "+", "+root", "-1", "+-1", "4294967295", "99999999999", "1x"})
    why(bad, "+1");
}

TEST_CASE("dac: the directory that bars the way is named, with the remedy", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directories(dir / "a/b");
  write_file(dir / "a/b/disk", "x");
  const dac_identity who{guest, guests, {guests, 7}};
  CHECK(check_search(dir / "a/b/disk", who));
  CHECK(check_search(dir / "a/b/not-yet", who));
  REQUIRE(::chmod((dir / "a").c_str(), 0700) == 0);
  const auto barred = check_search(dir / "a/b/disk", who);
  REQUIRE_FALSE(barred);
  CHECK_THAT(barred.error().detail, Catch::Matchers::Contains("'" + dir / "a" + "'") &&
                                      Catch::Matchers::Contains("`chmod o+x " + dir / "a" + "`"));
  fs::create_symlink("a/b", dir / "link");
  CHECK_FALSE(check_search(dir / "link/disk", who));

  REQUIRE(::chmod((dir / "a").c_str(), 0710) == 0);
  CHECK_FALSE(check_search(dir / "a/b/disk", who));
  REQUIRE(::chown((dir / "a").c_str(), 0, 7) == 0); // a supplementary group
  CHECK(check_search(dir / "a/b/disk", who));
  REQUIRE(::chmod((dir / "a").c_str(), 0707) == 0); // the group's bits count, though others have more
  CHECK_FALSE(check_search(dir / "a/b/disk", who));
  REQUIRE(::chown((dir / "a").c_str(), guest, 0) == 0);
  REQUIRE(::chmod((dir / "a").c_str(), 0100) == 0);
  CHECK(check_search(dir / "a/b/disk", who));
  CHECK_FALSE(check_search(dir / "a/b/disk", dac_identity{0, 0, {0}})); // root without capabilities
  CHECK_FALSE(check_search(dir / "a/none/disk", who));
}

TEST_CASE("dac: an ACL may open a directory, and its mask close it", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directory(dir / "home");
  write_file(dir / "home/disk", "x");
  // As `setfacl -m u:GUEST:x,g:7:x,m:MASK` leaves a directory of mode 0700.
  const auto set_acl = [&](unsigned short mask) {
    struct {
      posix_acl_xattr_header header{POSIX_ACL_XATTR_VERSION};
      posix_acl_xattr_entry entries[6];
    } acl{};
    const auto none = static_cast<__le32>(ACL_UNDEFINED_ID);
    acl.entries[0] = {ACL_USER_OBJ, 7, none};
    acl.entries[1] = {ACL_USER, 1, guest};
    acl.entries[2] = {ACL_GROUP_OBJ, 0, none};
    acl.entries[3] = {ACL_GROUP, 1, 7};
    acl.entries[4] = {ACL_MASK, mask, none};
    acl.entries[5] = {ACL_OTHER, 0, none};
    return ::setxattr((dir / "home").c_str(), "system.posix_acl_access", &acl, sizeof acl, 0) == 0;
  };
  const auto may = [&](const dac_identity& who) { return check_search(dir / "home/disk", who).has_value(); };
  const dac_identity named{guest, guests, {guests}};
  const dac_identity in_group{1234, 7, {7}};
  const dac_identity other{1234, 1234, {1234}};
  REQUIRE(::chmod((dir / "home").c_str(), 0700) == 0);
  CHECK_FALSE(may(named));
  if (!set_acl(1)) {
    WARN("skipped: no ACLs on " << dir.path());
    return;
  }
  CHECK(may(named));
  CHECK(may(in_group));
  CHECK_FALSE(may(other));
  REQUIRE(set_acl(0));
  CHECK_FALSE(may(named));
  CHECK_FALSE(may(in_group));
}

} // namespace troupe
