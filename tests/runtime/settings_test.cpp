#include "runtime/settings.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <random>
#include <sstream>

namespace troupe {
namespace {

using Catch::Matchers::Contains;

qemu_settings good(std::string_view text) {
  auto read = parse_settings(text, "qemu.conf");
  if (!read)
    FAIL(read.error().message());
  for (const auto& warning : read->warnings)
    if (warning.find("has no effect: ") == warning.npos) // what they ask for is read all the same
      FAIL(warning);
  return std::move(read->settings);
}

std::string bad(std::string_view text) {
  const auto read = parse_settings(text, "qemu.conf");
  if (read)
    return "it was read";
  CHECK(read.error().code == errc::bad_settings);
  return read.error().detail;
}

/// The sample with its settings no longer commented out.
std::string uncommented(const std::string& sample) {
  std::istringstream lines{sample};
  std::string text;
  for (std::string line; std::getline(lines, line);)
    text += (line.size() > 1 && line[0] == '#' && line[1] != ' ' ? line.substr(1) : line) + "\n";
  return text;
}

} // namespace

TEST_CASE("settings: the sample says what holds without it", "[runtime]") {
  const auto sample = sample_settings();
  const qemu_settings defaults;
  for (const auto& read : {good(""), good(sample), good(uncommented(sample))}) {
    CHECK(read.user == defaults.user);
    CHECK(read.dynamic_ownership == defaults.dynamic_ownership);
    CHECK(read.security_driver == defaults.security_driver);
    CHECK(read.seccomp_sandbox == defaults.seccomp_sandbox);
    CHECK(read.cgroup_device_acl == defaults.cgroup_device_acl);
    CHECK(read.cgroup_controllers.value_or(std::vector<std::string>{"devices"}) == std::vector<std::string>{"devices"});
    CHECK(read.vnc_listen == defaults.vnc_listen);
    CHECK(read.remote_display_port_min == defaults.remote_display_port_min);
    CHECK(read.remote_display_port_max == defaults.remote_display_port_max);
    CHECK(read.set_process_name == defaults.set_process_name);
    CHECK(read.max_files == defaults.max_files);
    CHECK(read.stdio_handler == defaults.stdio_handler);
    CHECK(read.networks == defaults.networks);
    CHECK(read.grace_ms == defaults.grace_ms);
    CHECK(read.qmp_timeout_ms == defaults.qmp_timeout_ms);
  }
  CHECK(uncommented(sample) != sample);
  std::istringstream lines{sample};
  for (std::string line; std::getline(lines, line);)
    CHECK(line.size() <= 100);
}

TEST_CASE("settings: every key goes to its member", "[runtime]") {
  const auto read = good(R"(user = "qemu"
group = '+107'
dynamic_ownership = 0
security_driver = [ "apparmor", "dac" ]
security_default_confined = 0
security_require_confined = 1
clear_emulator_capabilities = 0
namespaces = []
cgroup_controllers = []
cgroup_device_acl = [ "/dev/null",
  "/dev/kvm" ]
seccomp_sandbox = 1
vnc_listen = "0.0.0.0"
vnc_password = "v"
spice_listen = "::1"
spice_password = "s"
remote_display_port_min = 6000
remote_display_port_max = 6100
auto_dump_path = "/dumps"
set_process_name = 1
remember_owner = 0
max_core = "unlimited"
dump_guest_core = 1
max_processes = 4294967295
max_files = 32768
stdio_handler = "file"
lock_manager = ""
networks = [ "default=virbr0", "a=b=br1" ]
grace_ms = 0
qmp_timeout_ms = 5000
)");
  CHECK(read.user == "qemu");
  CHECK(read.group == "+107");
  CHECK_FALSE(read.dynamic_ownership);
  CHECK(read.security_driver == std::vector<std::string>{"apparmor", "dac"});
  CHECK_FALSE(read.security_default_confined);
  CHECK(read.security_require_confined);
  CHECK_FALSE(read.clear_emulator_capabilities);
  CHECK(read.cgroup_controllers == std::vector<std::string>{});
  CHECK(read.cgroup_device_acl == std::vector<std::string>{"/dev/null", "/dev/kvm"});
  CHECK(read.seccomp_sandbox == true);
  CHECK(read.vnc_listen == "0.0.0.0");
  CHECK(read.vnc_password == "v");
  CHECK(read.spice_listen == "::1");
  CHECK(read.spice_password == "s");
  CHECK(read.remote_display_port_min == 6000);
  CHECK(read.remote_display_port_max == 6100);
  CHECK(read.auto_dump_path == "/dumps");
  CHECK(read.set_process_name);
  CHECK_FALSE(read.remember_owner);
  CHECK(read.max_core == std::numeric_limits<std::uint64_t>::max());
  CHECK(good("max_core = 4096").max_core == 4096);
  CHECK(read.dump_guest_core);
  CHECK(read.max_processes == 4294967295u);
  CHECK(read.max_files == 32768);
  CHECK(read.networks == std::map<std::string, std::string>{{"default", "virbr0"}, {"a=b", "br1"}});
  CHECK(read.grace_ms.count() == 0);
  CHECK(read.qmp_timeout_ms.count() == 5000);
}

TEST_CASE("settings: blanks, comments, quotes and lists are as in libvirt's file", "[runtime]") {
  CHECK(good("  user=\"a # b\"# comment\r\n\t# another\n\n").user == "a # b");
  CHECK(good("user = 'say \"x\"'").user == "say \"x\"");
  CHECK(good("user = \"\"\"two\nlines\"\"\"  \ngroup = \"g\"").user == "two\nlines");
  CHECK(good("user = \"first\"\nuser = \"last\"").user == "last");
  CHECK(good("security_driver = \"none\"").security_driver == std::vector<std::string>{"none"});
  CHECK(good("security_driver = [ # why\n  \"dac\", # so\n\n  \"selinux\",\n]\nmax_files = 7").max_files == 7);
  CHECK(good("max_files = +7").max_files == 7);
  CHECK(good("#user = nonsense").user.empty());
}

TEST_CASE("settings: what is wrong is named with its line", "[runtime]") {
  const std::pair<const char*, const char*> cases[] = {
    {"user", "qemu.conf:1: expected '=' after 'user'"},
    {"\n\nuser =", "qemu.conf:3: expected a value"},
    {"user = qemu", "qemu.conf:1: expected a number, a \"string\""},
    {"user = \"qemu\nmax_files = 1\"", "qemu.conf:1: the string that begins here has no \" at its end"},
    {"user = \"\"\"qemu\n\n\"\"", "has no \"\"\" at its end"},
    {"user = \"a\" group = \"b\"", "qemu.conf:1: expected nothing more on this line"},
    {"= 7", "qemu.conf:1: expected a setting"},
    {"security_driver = [ \"dac\"\n \"none\" ]", "qemu.conf:2: expected ',' or ']'"},
    {"security_driver = [ \"dac\",\n", "expected a \"string\" or ']'"},
    {"security_driver = [ 1 ]", "expected a \"string\" or ']'"},
    {"security_driver = [ [ ] ]", "expected a \"string\" or ']'"},
    {"max_files = 99999999999999999999", "too large"},
    {"max_files = -", "cannot be read"},
    {"max_files = 7x", "nothing more"},
    {"# c\nmax_files = -1", "qemu.conf:2: max_files: takes a number from 0 to 4294967295"},
    {"max_files = 4294967296", "max_files: takes a number"},
    {"max_files = \"7\"", "max_files: takes a number"},
    {"dynamic_ownership = 2", "dynamic_ownership: takes 0 or 1"},
    {"dynamic_ownership = \"1\"", "dynamic_ownership: takes 0 or 1"},
    {"user = 0", "user: takes a \"string\""},
    {"security_driver = \"smack\"", "'smack' is no security driver: there are none, dac, apparmor, selinux"},
    {"seccomp_sandbox = 2", "seccomp_sandbox: takes -1, 0 or 1"},
    {"remote_display_port_min = 80", "takes a number from 5900 to 65535"},
    {"remote_display_port_min = 6000\nremote_display_port_max = 5999\nuser=\"\"",
     "qemu.conf:2: remote_display_port_min"},
    {"auto_dump_path = \"dump\"", "'dump' does not begin with '/'"},
    {"max_core = \"much\"", "max_core: takes a number from 0, or \"unlimited\""},
    {"max_core = -1", "max_core: takes a number from 0"},
    {"cgroup_device_acl = [ \"null\" ]", "'null' does not begin with '/'"},
    {"stdio_handler = \"syslog\"", "stdio_handler: takes \"file\" or \"logd\""},
    {"networks = [ \"default\" ]", "'default' is not of the form"},
    {"networks = [ \"=br0\" ]", "'=br0' is not of the form"},
    {"networks = [ \"a=\" ]", "'a=' is not of the form"},
    {"networks = [ \"a=name-of-16-bytes\" ]", "'name-of-16-bytes' cannot be the name of a bridge"},
    {"networks = [ \"a=br0\", \"a=br1\" ]", "network 'a' is there twice"},
    {"grace_ms = 600001", "grace_ms: takes a number from 0 to 600000"},
    {"qmp_timeout_ms = 0", "qmp_timeout_ms: takes a number from 100"},
  };
  for (const auto& [text, reason] : cases) {
    INFO(text);
    CHECK_THAT(bad(text), Contains(reason));
  }
  CHECK_THAT(bad(std::string((1 << 20) + 1, '\n')), Contains("1048577 bytes"));
}

TEST_CASE("settings: keys without effect are warned of, and the rest still counts", "[runtime]") {
  const auto read = parse_settings("hugetlbfs_mount = [ \"/huge\" ]\nusser = \"x\"\nnamespaces = [ \"mount\" ]\n"
                                   "stdio_handler = \"logd\"\nlock_manager = \"sanlock\"\nuser = \"qemu\"",
                                   "/etc/qemu.conf");
  REQUIRE(read);
  CHECK(read->settings.user == "qemu");
  REQUIRE(read->warnings.size() == 5);
  CHECK(read->warnings[0] == "/etc/qemu.conf:1: 'hugetlbfs_mount' has no effect here");
  CHECK(read->warnings[1] == "/etc/qemu.conf:2: 'usser' is no setting that we know; it is ignored");
  CHECK_THAT(read->warnings[2], Contains(":3: 'namespaces' has no effect: "));
  CHECK_THAT(read->warnings[3], Contains(":4: 'stdio_handler' has no effect: "));
  CHECK_THAT(read->warnings[4], Contains(":5: 'lock_manager' has no effect: "));
}

TEST_CASE("settings: any text is read or refused with a line that it has", "[runtime]") {
  std::mt19937 draw{11};
  const std::string pieces[] = {
    "user",    "max_files", "networks",           "=",  " = ", "[", "]", ",", "\"", "'", "\"\"\"", "\n", "#", "7", "-",
    "\"a=b\"", "\xff",      std::string(1, '\0'), "\r", " "};
  int read = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (auto n = draw() % 12; n > 0; --n)
      text += pieces[draw() % std::size(pieces)];
    const auto parsed = parse_settings(text, "f");
    if (parsed) {
      ++read;
      continue;
    }
    const auto& detail = parsed.error().detail;
    REQUIRE(detail.substr(0, 2) == "f:");
    const auto line = std::stol(detail.substr(2));
    REQUIRE(line >= 1);
    REQUIRE(line <= 1 + std::count(text.begin(), text.end(), '\n'));
  }
  CHECK(read > 100);
}

TEST_CASE("settings: a file that is missing means the defaults, one that cannot be read is an error", "[runtime]") {
  temp_dir dir;
  const auto missing = read_settings(dir / "qemu.conf");
  REQUIRE(missing);
  CHECK(missing->settings.vnc_listen == "127.0.0.1");
  const auto there = read_settings(write_file(dir / "qemu.conf", "vnc_listen = \"::\"\n"));
  REQUIRE(there);
  CHECK(there->settings.vnc_listen == "::");
  const auto broken = read_settings(write_file(dir / "broken.conf", "\nvnc_listen"));
  REQUIRE_FALSE(broken);
  CHECK_THAT(broken.error().detail, Contains(dir / "broken.conf:2: "));
  const auto directory = read_settings(dir.path());
  REQUIRE_FALSE(directory);
  CHECK(directory.error().code == errc::system);
  CHECK_THAT(directory.error().detail, Contains("'" + dir.path() + "'"));
}

} // namespace troupe
