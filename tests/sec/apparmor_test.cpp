#include "sec/apparmor.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <fmt/format.h>
#include <optional>
#include <random>
#include <sstream>
#include <unistd.h>

namespace troupe {
namespace {

using access = profile_rule::access;
using verb = apparmor_request::verb;

const std::string uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
const std::string helper = std::string{TROUPE_BINARY_DIR} + "/bin/troupe-apparmor";

apparmor_request request_for(std::vector<profile_rule> rules) {
  return {verb::load, "/etc/apparmor.d", "troupe-" + uuid, std::move(rules)};
}

/// A path that a file system may have: every byte but zero, and odd ones often.
std::string odd_path(std::mt19937_64& random) {
  static constexpr std::string_view odd = "\"\\*?[]{}^@#,!$&;<>|`' \t\n\r\x01\x7f";
  std::string path;
  for (auto names = 1 + random() % 4; names > 0; --names) {
    path += "/x"; // never "." or ".."
    for (auto length = random() % 12; length > 0; --length) {
      auto c = random() % 2 != 0 ? odd[random() % odd.size()] : static_cast<char>(1 + random() % 255);
      path += c == '/' ? '_' : c;
    }
  }
  return path;
}

/// What apparmor_parser makes of a quoted text, by apparmor.d(5): an escaped octal number is that byte, any other escaped
/// character stands for itself. None: it ends too early, or has what would be a pattern or a variable.
std::optional<std::string> unquoted(std::string_view text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"')
    return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::string path;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      if (std::string_view{"\"*?[]{}^\n"}.find(text[i]) != std::string_view::npos)
        return std::nullopt;
      path += text[i];
      continue;
    }
    if (i + 3 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '7') {
      path += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else if (++i < text.size()) {
      path += text[i];
    } else {
      return std::nullopt;
    }
  }
  return path;
}

} // namespace

TEST_CASE("apparmor: whatever is in a path, its rule is for that path alone", "[sec]") {
  std::mt19937_64 random{11};
  for (int i = 0; i < 20'000; ++i) {
    const auto path = odd_path(random);
    REQUIRE(unquoted(quoted_path(path)) == path);
    // One line a rule: nothing in a path begins another.
    std::istringstream lines{profile_files({{access::write, path}})};
    std::string comment, rule, more;
    std::getline(lines, comment);
    std::getline(lines, rule);
    REQUIRE(comment.starts_with("# "));
    REQUIRE(rule == quoted_path(path) + " rwk,");
    REQUIRE_FALSE(std::getline(lines, more));
  }
}

TEST_CASE("apparmor: what is only read is never writable, and a directory is all that is below it", "[sec]") {
  const auto text = [](access how) {
    const auto all = profile_files({{how, "/a b"}});
    return all.substr(all.find('\n') + 1);
  };
  CHECK(quoted_path("/a\\") == "\"/a\\134\""); // else the quote would be taken for a part of it
  CHECK(text(access::write) == "\"/a b\" rwk,\n");
  CHECK(text(access::read) == "\"/a b\" rk,\ndeny \"/a b\" w,\n");
  CHECK(text(access::tree) == "\"/a b\" rwk,\n\"/a b/{,**}\" rwk,\n");
  CHECK(text(access::read_tree) == "\"/a b\" rk,\ndeny \"/a b\" w,\n\"/a b/{,**}\" rk,\ndeny \"/a b/{,**}\" w,\n");
  CHECK(text(access::connect) == "\"/a b\" rw,\n");
  CHECK(text(access::program) == "\"/a b\" rm,\n");

  using kind = resource::kind;
  const auto rule = [](kind what, bool readonly) {
    resource file;
    file.path = "/x";
    file.what = what;
    file.readonly = readonly;
    return profile_rule_for(file).how;
  };
  CHECK(rule(kind::file, false) == access::write);
  CHECK(rule(kind::file, true) == access::read);
  CHECK(rule(kind::block, true) == access::read);
  CHECK(rule(kind::character, false) == access::write);
  CHECK(rule(kind::directory, false) == access::tree);
  CHECK(rule(kind::directory, true) == access::read_tree);
  CHECK(rule(kind::socket, false) == access::connect);
}

TEST_CASE("apparmor: a request is read as it was written, whatever its paths", "[sec]") {
  std::mt19937_64 random{5};
  for (int i = 0; i < 2'000; ++i) {
    auto request = request_for({});
    for (auto rules = random() % 5; rules > 0; --rules)
      request.rules.push_back({static_cast<access>("rdwtcx"[random() % 6]), odd_path(random)});
    CHECK(apparmor_request_from(to_text(request)).value() == request);
  }
  const apparmor_request removal{verb::remove, "/tmp/x/etc/apparmor.d", "libvirt-" + uuid, {}};
  CHECK(apparmor_request_from(to_text(removal)).value() == removal);
}

TEST_CASE("apparmor: a damaged request is refused, and no part of it is believed", "[sec]") {
  std::mt19937_64 random{6};
  const auto good = to_text(request_for({{access::write, "/images/a"}, {access::read, "/images/b"}}));
  for (std::size_t length = 0; length < good.size(); ++length)
    if (length == 0 || good[length - 1] != '\0') {
      INFO(length);
      CHECK_FALSE(apparmor_request_from(std::string_view{good}.substr(0, length)));
    }
  for (int i = 0; i < 20'000; ++i) { // never more than a request for a guest's profile and sound paths
    auto text = good;
    for (auto changes = 1 + random() % 3; changes > 0; --changes)
      text[random() % text.size()] = static_cast<char>(random());
    if (const auto request = apparmor_request_from(text)) {
      REQUIRE(is_profile_name(request->profile));
      for (const auto& rule : request->rules)
        REQUIRE((rule.path.starts_with('/') && rule.path.find('\0') == std::string::npos));
    }
  }
}

TEST_CASE("apparmor: no guest is let write where the system is", "[sec]") {
  const auto refusal = [](access how, const std::string& path) {
    const auto request = apparmor_request_from(to_text(request_for({{how, path}})));
    return request ? std::string{} : request.error().detail;
  };
  for (const auto* path : {"/etc/shadow", "/etc", "/usr/bin/x", "/lib/x/y", "/proc/sysrq-trigger", "/sys/kernel/x", "/boot/vmlinuz"}) {
    INFO(path);
    CHECK(refusal(access::write, path).find(std::string{"'"} + path + "'") != std::string::npos);
    CHECK(refusal(access::read, path).empty());
  }
  CHECK_FALSE(refusal(access::tree, "/usr").empty()); // /usr/bin is in it
  for (const auto* path : {"/etcetera/x", "/var/lib/x.img", "/dev/sda", "/sys/devices/pci0000:00/config", "/usr/local/x"}) {
    INFO(path);
    CHECK(refusal(access::write, path).empty());
  }
  for (const auto* path : {"", "/", "relative", "/a/../b", "/a/..", "/./a", "/a//b", "/a/"}) {
    INFO(path);
    CHECK_FALSE(refusal(access::read, path).empty());
  }
  CHECK_FALSE(refusal(access::read, "/" + std::string(5000, 'x')).empty());
}

TEST_CASE("apparmor: only names of guests' profiles are taken", "[sec]") {
  CHECK(is_profile_name(profile_name(uuid, false)));
  CHECK(is_profile_name(profile_name(uuid, true)));
  CHECK(profile_name(uuid, false) == "troupe-" + uuid);
  CHECK(profile_name(uuid, true) == "libvirt-" + uuid);
  for (const auto* name : {"troupe-", "/usr/sbin/sshd", "troupe-c7a5fdbd-edaf-9455-926a-d65c16db1809x",
                           "other-c7a5fdbd-edaf-9455-926a-d65c16db1809", "troupe-../5fdbd-edaf-9455-926a-d65c16db1809",
                           "troupe-C7A5FDBD-edaf-9455-926a-d65c16db1809"}) {
    INFO(name);
    CHECK_FALSE(is_profile_name(name));
    auto request = request_for({});
    request.profile = name;
    CHECK_FALSE(apparmor_request_from(to_text(request)));
  }
}

TEST_CASE("apparmor: the template that comes with Troupe makes a profile, and one that cannot is refused", "[sec]") {
  const auto text = contents_of(std::string{TROUPE_SOURCE_DIR} + "/sec/apparmor/TEMPLATE.qemu");
  const auto profile = profile_from(text, "troupe-" + uuid).value();
  CHECK(profile.find("\nprofile troupe-" + uuid + " flags=(attach_disconnected) {\n") != std::string::npos);
  CHECK(profile.find("include <troupe/troupe-" + uuid + ".files>") != std::string::npos);
  CHECK(profile.find("TROUPE_PROFILE") == std::string::npos);
  for (const auto* wrong : {"", "profile TROUPE_PROFILE {}", "include <troupe/TROUPE_PROFILE.files>"})
    CHECK(profile_from(wrong, "troupe-" + uuid).error().code == errc::bad_argument);
}

TEST_CASE("apparmor: the helper refuses what is no request, and says why", "[sec]") {
  const auto answer = ask_apparmor_helper(helper, {verb::load, "/etc/apparmor.d", "sshd", {}});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().code == errc::operation_failed);
  CHECK(answer.error().detail.find("'sshd' is not the name of a guest's profile") != std::string::npos);
  CHECK_FALSE(ask_apparmor_helper("/nowhere/troupe-apparmor", request_for({})));
}

TEST_CASE("apparmor: the helper writes a guest's files, keeps what an administrator changed, and says what it misses", "[sec]") {
  if (::geteuid() != 0 || apparmor_is_on()) {
    WARN("for root where AppArmor is off; the lab's tests do the rest: skipped");
    return;
  }
  const temp_dir dir;
  auto request = request_for({{access::write, "/images/a"}});
  request.folder = dir / "apparmor.d";
  const auto own = request.folder + "/troupe/";
  CHECK_FALSE(ask_apparmor_helper(helper, request)); // nothing to load it into
  CHECK(contents_of(own + "TEMPLATE.qemu") == contents_of(std::string{TROUPE_SOURCE_DIR} + "/sec/apparmor/TEMPLATE.qemu"));
  CHECK(contents_of(request.folder + "/abstractions/troupe-qemu") ==
        contents_of(std::string{TROUPE_SOURCE_DIR} + "/sec/apparmor/troupe-qemu"));
  CHECK(contents_of(own + request.profile + ".files") == profile_files(request.rules));
  CHECK(contents_of(own + request.profile) == profile_from(contents_of(own + "TEMPLATE.qemu"), request.profile).value());

  write_file(own + request.profile, "# mine\n");
  write_file(request.folder + "/abstractions/troupe-qemu", "# mine, too\n");
  request.rules.push_back({access::read, "/images/b"});
  CHECK_FALSE(ask_apparmor_helper(helper, request));
  CHECK(contents_of(own + request.profile) == "# mine\n");
  CHECK(contents_of(request.folder + "/abstractions/troupe-qemu") == "# mine, too\n");
  CHECK(contents_of(own + request.profile + ".files") == profile_files(request.rules));

  std::filesystem::permissions(own, std::filesystem::perms::all);
  const auto refused = ask_apparmor_helper(helper, request);
  CHECK(refused.error().detail.find("only its owner") != std::string::npos);
}

} // namespace troupe
