#include "sec/file_labels.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <cerrno>
#include <map>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr uid_t guest = 64055;
constexpr gid_t guests = 64056;
const std::string owner = owner_label(guest, guests);
const std::vector<std::string> dac{"dac"};
const file_notes silent{};
const file_notes noting{true, "here"};

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

result<file_record> look(const std::string& path, const file_notes& notes = silent) {
  return observe(path, dac, notes);
}

result<std::vector<std::string>> takes(const file_record& was, const file_notes& notes = silent) {
  return take({was, {{"dac", owner}}}, notes);
}

result<void> returns(const file_record& was, const file_notes& notes = silent) {
  return give_back({was, {{"dac", owner}}}, notes);
}

/// Its mode, its owner and every extended attribute, ACLs too.
std::map<std::string, std::string> all_about(const std::string& path) {
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  std::map<std::string, std::string> about{{"mode", fmt::format("{:o}", info.st_mode)},
                                           {"owner", owner_label(info.st_uid, info.st_gid)}};
  std::string names(4096, '\0');
  names.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::listxattr(path.c_str(), names.data(), names.size()))));
  for (std::size_t at = 0; at < names.size(); at = names.find('\0', at) + 1) {
    const std::string name = names.c_str() + at;
    std::string value(4096, '\0');
    value.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::getxattr(path.c_str(), name.c_str(), value.data(), value.size()))));
    about[name] = value;
  }
  return about;
}

void set_note(const std::string& path, const std::string& name, const std::string& value) {
  const auto whole = "trusted.libvirt.security." + name;
  if (value.empty())
    REQUIRE(::removexattr(path.c_str(), whole.c_str()) == 0);
  else
    REQUIRE(::setxattr(path.c_str(), whole.c_str(), value.data(), value.size(), 0) == 0);
}

std::string note(const std::string& path, const std::string& name) {
  const auto all = all_about(path);
  const auto found = all.find("trusted.libvirt.security." + name);
  return found == all.end() ? "" : found->second;
}

bool skip_without_notes(const std::string& path) {
  if (::setxattr(path.c_str(), "trusted.troupe.test", "", 0, 0) == 0)
    return ::removexattr(path.c_str(), "trusted.troupe.test") != 0;
  WARN("skipped: no trusted attributes here");
  return true;
}

} // namespace

TEST_CASE("file labels: a file is taken and given back, whatever it is", "[sec]") {
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
    const auto was = look(dir / name);
    REQUIRE(was);
    CHECK(was->labels.at("dac").value == "+1:+2");
    CHECK(takes(*was));
    CHECK(owner_of(dir / name) == ours);
    CHECK(takes(*was)); // again, as after a crash
    CHECK(returns(*was));
    CHECK(owner_of(dir / name) == std::pair<uid_t, gid_t>{1, 2});
    CHECK(returns(*was));
  }
}

TEST_CASE("file labels: a symbolic link leads to its file, and the link is left alone", "[sec]") {
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
    const auto was = look(dir / name);
    REQUIRE(was);
    CHECK(was->path == fs::canonical(file));
    CHECK_FALSE(was->foreign_link);
    CHECK(takes(*was));
    CHECK(owner_of(file) == ours);
    CHECK(owner_of(dir / "absolute") == roots);
    fs::remove(dir / "nothing");
    CHECK(returns(*was));
    CHECK(owner_of(file) == roots);
  }
  fs::create_symlink("loop", dir / "loop");
  CHECK_FALSE(look(dir / "loop"));
}

TEST_CASE("file labels: somebody's link to a file that is not theirs gets nobody the file", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto file = write_file(dir / "secret", "x");
  fs::create_symlink(file, dir / "link");
  REQUIRE(::lchown((dir / "link").c_str(), 1000, 1000) == 0);
  const auto was = look(dir / "link");
  REQUIRE(was);
  CHECK(was->foreign_link);
  const auto taken = takes(*was);
  REQUIRE_FALSE(taken);
  CHECK_THAT(taken.error().detail, Catch::Matchers::Contains("symbolic link"));
  CHECK(owner_of(file) == roots);

  REQUIRE(::chown(file.c_str(), 1000, 0) == 0); // their own
  CHECK(takes(*look(dir / "link")));
  CHECK(owner_of(file) == ours);
  CHECK(takes(*look(dir / "link"))); // by a second guest, that shares it
}

TEST_CASE("file labels: a file replaced meanwhile is neither taken nor given back", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  const auto was = look(path);
  REQUIRE(was);
  fs::rename(path, dir / "old"); // keeps the inode in use
  write_file(path, "another");
  CHECK_FALSE(takes(*was));
  CHECK(owner_of(path) == roots);
  REQUIRE(::chown(path.c_str(), guest, guests) == 0);
  CHECK(returns(*was));
  CHECK(owner_of(path) == ours);

  fs::remove(path);
  fs::create_symlink("old", path); // the right inode, by a link that was not there
  CHECK_FALSE(takes(*was));
  CHECK(owner_of(dir / "old") == roots);
}

TEST_CASE("file labels: a file that vanished needs no giving back", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  fs::create_directory(dir / "sub");
  const auto path = write_file(dir / "sub/disk", "x");
  const auto was = look(path);
  REQUIRE(was);
  CHECK(takes(*was));
  fs::remove_all(dir / "sub");
  CHECK(returns(*was));
  CHECK_FALSE(takes(*was));
  write_file(dir / "sub", "a file where the directory was");
  CHECK(returns(*was));
}

TEST_CASE("file labels: a file that somebody else got meanwhile stays theirs", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  const auto was = look(path);
  REQUIRE(was);
  CHECK(takes(*was));
  REQUIRE(::chown(path.c_str(), guest, 5) == 0);
  CHECK(returns(*was));
  CHECK(owner_of(path) == std::pair<uid_t, gid_t>{guest, 5});
}

TEST_CASE("file labels: two names of one file are one file", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  fs::create_hard_link(path, dir / "other");
  const auto first = look(path);
  const auto second = look(dir / "other");
  REQUIRE((first && second));
  CHECK(first->inode == second->inode);
  CHECK(first->device == second->device);
  CHECK(takes(*first));
  CHECK(takes(*second));
  CHECK(returns(*second));
  CHECK(owner_of(path) == roots);
  CHECK(returns(*first));
  CHECK(owner_of(path) == roots);
}

TEST_CASE("file labels: what is not there is named", "[sec]") {
  const temp_dir dir;
  const auto why = [](const std::string& path) {
    const auto was = look(path);
    REQUIRE_FALSE(was);
    return was.error().detail;
  };
  CHECK(why(dir / "none") == "cannot reach '" + dir / "none" + "': No such file or directory");
  CHECK(why(dir / "none/disk") ==
        "cannot reach '" + dir / "none/disk" + "' at '" + dir / "none" + "': No such file or directory");
  CHECK(why("relative") == "'relative' is not an absolute path");
  CHECK(why("") == "'' is not an absolute path");
}

TEST_CASE("file labels: mode, ACL and attributes of a file that was given back are what they were", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  REQUIRE(::chown(path.c_str(), 1, 2) == 0);
  // As `setfacl -m u:7:r` leaves a file of mode 0640: version 2, then tag, permissions and id of each entry.
  const std::string acl{"\2\0\0\0" "\1\0\6\0\xff\xff\xff\xff" "\2\0\4\0\7\0\0\0" "\4\0\4\0\xff\xff\xff\xff"
                        "\x10\0\4\0\xff\xff\xff\xff" "\x20\0\0\0\xff\xff\xff\xff", 44};
  for (const mode_t mode : {0600u, 0444u, 04755u, 02770u, 06711u, 02640u}) {
    for (const auto& notes : {silent, noting}) {
      INFO(std::oct << mode << notes.kept);
      REQUIRE(::chmod(path.c_str(), mode) == 0);
      if (mode == 02640u && ::setxattr(path.c_str(), "system.posix_acl_access", acl.data(), acl.size(), 0) != 0)
        WARN("no ACLs here");
      static_cast<void>(::setxattr(path.c_str(), "user.mine", "a\0b", 3, 0));
      const auto before = all_about(path);
      const auto was = look(path, notes);
      REQUIRE(was);
      REQUIRE(takes(*was, notes));
      CHECK(owner_of(path) == ours);
      CHECK(all_about(path).at("user.mine") == before.at("user.mine"));
      REQUIRE(returns(*was, notes));
      CHECK(all_about(path) == before);
      REQUIRE(returns(*was, notes));
      CHECK(all_about(path) == before);
    }
  }
}

TEST_CASE("file labels: a mode that was changed meanwhile stays", "[sec]") {
  if (skip_without_root())
    return;
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  REQUIRE(::chmod(path.c_str(), 04755) == 0);
  const auto was = look(path);
  REQUIRE(takes(*was));
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  REQUIRE(returns(*was));
  CHECK(all_about(path).at("mode") == "100600");
}

TEST_CASE("file labels: whose a file was is noted at it as libvirt does, once, and no longer when it is given back", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  if (skip_without_root() || skip_without_notes(path))
    return;
  REQUIRE(::chown(path.c_str(), 1, 2) == 0);
  const auto before = all_about(path);
  const auto was = look(path, noting);
  REQUIRE(was);
  CHECK(was->labels.at("dac").value == "+1:+2");
  CHECK(was->labels.at("dac").holders == 0);
  REQUIRE(takes(*was, noting));
  REQUIRE(takes(*was, noting)); // for a second guest
  CHECK(note(path, "dac") == "+1:+2");
  CHECK(note(path, "ref_dac") == "1");
  CHECK(std::stoll(note(path, "timestamp_dac")) > 0);
  REQUIRE(returns(*was, noting));
  CHECK(all_about(path) == before);
}

TEST_CASE("file labels: of two supervisors the last to let a file go makes it what it was", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  if (skip_without_root() || skip_without_notes(path))
    return;
  const file_notes other{true, "there"};
  for (const bool first_goes_first : {true, false}) {
    REQUIRE(::chown(path.c_str(), 1, 2) == 0);
    const auto before = all_about(path);
    const auto first = look(path, noting);
    REQUIRE(takes(*first, noting));
    const auto second = look(path, other);
    CHECK(second->labels.at("dac").value == "+1:+2");
    CHECK(second->labels.at("dac").now == owner);
    CHECK(second->labels.at("dac").holders == 1);
    REQUIRE(takes(*second, other));
    CHECK(note(path, "ref_dac") == "2");
    const auto goes = [&](bool which) { return which ? returns(*first, noting) : returns(*second, other); };
    REQUIRE(goes(first_goes_first));
    CHECK(owner_of(path) == ours);
    CHECK(note(path, "ref_dac") == "1");
    REQUIRE(goes(first_goes_first)); // again, as after a crash
    CHECK(owner_of(path) == ours);
    CHECK(note(path, "ref_dac") == "1");
    REQUIRE(goes(!first_goes_first));
    CHECK(all_about(path) == before);
  }
}

TEST_CASE("file labels: notes of an earlier boot say nothing, and are there again afterwards", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  if (skip_without_root() || skip_without_notes(path))
    return;
  set_note(path, "dac", "+77:+77");
  set_note(path, "timestamp_dac", "1000000000");
  set_note(path, "ref_dac", "5");
  const auto before = all_about(path);
  const auto was = look(path, noting);
  CHECK(was->labels.at("dac").value == "+0:+0");
  CHECK(was->labels.at("dac").holders == 0);
  REQUIRE(takes(*was, noting));
  CHECK(note(path, "dac") == "+0:+0");
  CHECK(note(path, "ref_dac") == "1");
  REQUIRE(returns(*was, noting));
  CHECK(all_about(path) == before);
}

TEST_CASE("file labels: a file taken before the machine started again is given back after", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  if (skip_without_root() || skip_without_notes(path))
    return;
  const auto before = all_about(path);
  const auto was = look(path, noting);
  REQUIRE(takes(*was, noting));
  set_note(path, "timestamp_dac", "1000000000");
  REQUIRE(returns(*was, noting));
  CHECK(all_about(path) == before);
}

TEST_CASE("file labels: notes that somebody removed keep no file from being given back", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  if (skip_without_root() || skip_without_notes(path))
    return;
  const auto before = all_about(path);
  const auto was = look(path, noting);
  REQUIRE(takes(*was, noting));
  for (const auto* name : {"dac", "timestamp_dac", "ref_dac"})
    set_note(path, name, "");
  REQUIRE(returns(*was, noting));
  CHECK(all_about(path) == before);
}

TEST_CASE("file labels: a model that there is not is refused", "[sec]") {
  const temp_dir dir;
  const auto path = write_file(dir / "disk", "x");
  const auto seen = observe(path, std::vector<std::string>{"astrology"}, silent);
  REQUIRE_FALSE(seen);
  CHECK_THAT(seen.error().detail, Catch::Matchers::Contains("'astrology'"));
}

} // namespace troupe
