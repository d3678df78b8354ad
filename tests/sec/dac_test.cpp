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

std::pair<uid_t, gid_t> owner_of(const std::string& path) {
  struct stat info {};
  REQUIRE(::lstat(path.c_str(), &info) == 0);
  return {info.st_uid, info.st_gid};
}

const std::pair<uid_t, gid_t> roots{0, 0};
const std::pair<uid_t, gid_t> ours{guest, guests};

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

TEST_CASE("dac: a file is taken and given back, whatever it is", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directory(dir / "directory");
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (dir / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(made, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  ::close(made);
  write_file(dir / "file", "x");
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  for (const auto* name : {"directory", "socket", "file", "fifo"}) {
    INFO(name);
    REQUIRE(::chown((dir / name).c_str(), 1, 2) == 0);
    const auto was = observe(dir / name);
    REQUIRE(was);
    CHECK(was->uid == 1);
    CHECK(was->gid == 2);
    CHECK(take(*was, guest, guests));
    CHECK(owner_of(dir / name) == ours);
    CHECK(take(*was, guest, guests)); // again, as after a crash
    CHECK(give_back(*was, guest, guests));
    CHECK(owner_of(dir / name) == std::pair<uid_t, gid_t>{1, 2});
    CHECK(give_back(*was, guest, guests));
  }
}

TEST_CASE("dac: a symbolic link leads to its file, and the link is left alone", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directories(dir / "real/deep");
  const auto file = write_file(dir / "real/deep/disk", "x");
  fs::create_symlink("real", dir / "short");
  fs::create_symlink("../short/deep/disk", dir / "real/link");
  fs::create_symlink(dir / "real/link", dir / "absolute");
  for (const auto* name : {"short/deep/disk", "real/link", "absolute", "short/link", "./real/../absolute"}) {
    INFO(name);
    const auto was = observe(dir / name);
    REQUIRE(was);
    CHECK(was->path == fs::canonical(file));
    CHECK_FALSE(was->foreign_link);
    CHECK(take(*was, guest, guests));
    CHECK(owner_of(file) == ours);
    CHECK(owner_of(dir / "absolute") == roots);
    fs::remove(dir / "nothing");
    CHECK(give_back(*was, guest, guests));
    CHECK(owner_of(file) == roots);
  }
  fs::create_symlink("loop", dir / "loop");
  CHECK_FALSE(observe(dir / "loop"));
}

TEST_CASE("dac: somebody's link to a file that is not theirs gets nobody the file", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto file = write_file(dir / "secret", "x");
  fs::create_symlink(file, dir / "link");
  REQUIRE(::lchown((dir / "link").c_str(), 1000, 1000) == 0);
  const auto was = observe(dir / "link");
  REQUIRE(was);
  CHECK(was->foreign_link);
  const auto taken = take(*was, guest, guests);
  REQUIRE_FALSE(taken);
  CHECK_THAT(taken.error().detail, Catch::Matchers::Contains("symbolic link"));
  CHECK(owner_of(file) == roots);

  REQUIRE(::chown(file.c_str(), 1000, 0) == 0); // their own
  CHECK(take(*observe(dir / "link"), guest, guests));
  CHECK(owner_of(file) == ours);
  CHECK(take(*observe(dir / "link"), guest, guests)); // by a second guest, that shares it
}

TEST_CASE("dac: a file replaced meanwhile is neither taken nor given back", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  const auto was = observe(path);
  REQUIRE(was);
  fs::rename(path, dir / "old"); // keeps the inode in use
  write_file(path, "another");
  CHECK_FALSE(take(*was, guest, guests));
  CHECK(owner_of(path) == roots);
  REQUIRE(::chown(path.c_str(), guest, guests) == 0);
  CHECK(give_back(*was, guest, guests));
  CHECK(owner_of(path) == ours);

  fs::remove(path);
  fs::create_symlink("old", path); // the right inode, by a link that was not there
  CHECK_FALSE(take(*was, guest, guests));
  CHECK(owner_of(dir / "old") == roots);
}

TEST_CASE("dac: a file that vanished needs no giving back", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directory(dir / "sub");
  const auto path = write_file(dir / "sub/disk", "x");
  const auto was = observe(path);
  REQUIRE(was);
  CHECK(take(*was, guest, guests));
  fs::remove_all(dir / "sub");
  CHECK(give_back(*was, guest, guests));
  CHECK_FALSE(take(*was, guest, guests));
  write_file(dir / "sub", "a file where the directory was");
  CHECK(give_back(*was, guest, guests));
}

TEST_CASE("dac: a file that somebody else got meanwhile stays theirs", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  const auto was = observe(path);
  REQUIRE(was);
  CHECK(take(*was, guest, guests));
  REQUIRE(::chown(path.c_str(), guest, 5) == 0);
  CHECK(give_back(*was, guest, guests));
  CHECK(owner_of(path) == std::pair<uid_t, gid_t>{guest, 5});
}

TEST_CASE("dac: two names of one file are one file", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  fs::create_hard_link(path, dir / "other");
  const auto first = observe(path);
  const auto second = observe(dir / "other");
  REQUIRE((first && second));
  CHECK(first->inode == second->inode);
  CHECK(first->device == second->device);
  CHECK(take(*first, guest, guests));
  CHECK(take(*second, guest, guests));
  CHECK(give_back(*second, guest, guests));
  CHECK(owner_of(path) == roots);
  CHECK(give_back(*first, guest, guests));
  CHECK(owner_of(path) == roots);
}

TEST_CASE("dac: what is not there is named", "[sec]") {
  const temp_dir dir;
  const auto why = [](const std::string& path) {
    const auto was = observe(path);
    REQUIRE_FALSE(was);
    return was.error().detail;
  };
  CHECK(why(dir / "none") == "cannot reach '" + dir / "none" + "': No such file or directory");
  CHECK(why(dir / "none/disk") ==
        "cannot reach '" + dir / "none/disk" + "' at '" + dir / "none" + "': No such file or directory");
  CHECK(why("relative") == "'relative' is not an absolute path");
  CHECK(why("") == "'' is not an absolute path");
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
