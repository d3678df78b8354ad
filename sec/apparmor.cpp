#include "sec/apparmor.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <spawn.h>
#include <sys/apparmor.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

using access = profile_rule::access;
using verb = apparmor_request::verb;

constexpr std::string_view own_prefix = "troupe-";
constexpr std::string_view libvirt_prefix = "libvirt-";

std::string reason(int number) {
  return std::strerror(number);
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36)
    return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (dash ? text[i] != '-' : !hex)
      return false;
  }
  return true;
}

bool is_below(std::string_view path, std::string_view folder) {
  return path == folder || (path.starts_with(folder) && path.substr(folder.size()).starts_with('/'));
}

/// Where the system itself is: no guest writes there, whatever its definition says.
constexpr std::string_view kept_from_writing[] = {
  "/bin",  "/boot", "/etc",     "/lib",     "/lib32",       "/lib64",      "/libx32",    "/proc",
  "/sbin", "/sys",  "/usr/bin", "/usr/lib", "/usr/libexec", "/usr/lib32",  "/usr/lib64", "/usr/sbin",
  "/usr/share",
};
/// Parts of it that are devices that a guest may have.
constexpr std::string_view yet_writable[] = {"/sys/devices"};

result<void> must_be_sound(const profile_rule& rule) {
  const std::string_view path = rule.path;
  const auto wrong = [&](std::string why) {
    return fail(errc::bad_argument, fmt::format("'{}' is no path for a profile: {}", path, why));
  };
  if (!path.starts_with('/') || path.size() < 2 || path.size() >= PATH_MAX)
    return wrong(fmt::format("it must begin with '/', name something, and have fewer than {} bytes", PATH_MAX));
  for (std::size_t at = 0; at < path.size();) { // at a slash
    const auto end = std::min(path.find('/', at + 1), path.size());
    const auto name = path.substr(at + 1, end - at - 1);
    if (name.empty() || name == "." || name == "..")
      return wrong("it must have no empty, '.' or '..' part");
    at = end;
  }
  if (rule.how != access::write && rule.how != access::tree)
    return {};
  const auto has = [&](std::string_view folder) { return is_below(path, folder); };
  // All of a tree is written: none that the system is in.
  const auto holds = [&](std::string_view folder) { return rule.how == access::tree && is_below(folder, path); };
  for (const auto folder : kept_from_writing)
    if ((has(folder) && std::ranges::none_of(yet_writable, has)) || holds(folder))
      return wrong(fmt::format("no guest may write in '{}'", folder));
  return {};
}

/// The modes a rule gives, as apparmor.d(5) has them.
constexpr std::string_view modes_of(access how) {
  switch (how) {
  case access::read:
  case access::read_tree:
    return "rk";
  case access::write:
  case access::tree:
    return "rwk";
  case access::connect:
    return "rw";
  case access::program:
    return "rm";
  }
  return {};
}

std::optional<access> access_from(char letter) {
  for (const auto how :
       {access::read, access::read_tree, access::write, access::tree, access::connect, access::program})
    if (static_cast<char>(how) == letter)
      return how;
  return std::nullopt;
}

/// All of a file in memory.
std::string contents(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const auto n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(text.size()));
    if (n <= 0 || text.size() > 65536)
      return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
  return text;
}

} // namespace

bool apparmor_is_on() {
  return ::aa_is_enabled() == 1;
}

std::string profile_name(std::string_view uuid, bool as_libvirt) {
  return fmt::format("{}{}", as_libvirt ? libvirt_prefix : own_prefix, uuid);
}

bool is_profile_name(std::string_view name) {
  return std::ranges::any_of(std::array{own_prefix, libvirt_prefix}, [&](auto prefix) {
    return name.starts_with(prefix) && is_uuid(name.substr(prefix.size()));
  });
}

profile_rule profile_rule_for(const resource& file) {
  switch (file.what) {
  case resource::kind::socket:
    return {access::connect, file.path};
  case resource::kind::directory:
    return {file.readonly ? access::read_tree : access::tree, file.path};
  case resource::kind::file:
  case resource::kind::block:
  case resource::kind::character:
  case resource::kind::pci: // these three come as the nodes that they are
  case resource::kind::mediated:
  case resource::kind::usb:
    break;
  }
  return {file.readonly ? access::read : access::write, file.path};
}

std::string to_text(const apparmor_request& request) {
  std::string text;
  const auto field = [&](std::string_view value) { (text += value).push_back('\0'); };
  field(std::string{static_cast<char>(request.what)});
  field(request.folder);
  field(request.profile);
  for (const auto& rule : request.rules)
    field(static_cast<char>(rule.how) + rule.path);
  return text;
}

result<apparmor_request> apparmor_request_from(std::string_view text) {
  if (text.size() > max_apparmor_request)
    return fail(errc::bad_argument, fmt::format("the request has more than {} bytes", max_apparmor_request));
  std::vector<std::string_view> fields;
  while (!text.empty()) {
    const auto end = text.find('\0');
    if (end == text.npos)
      return fail(errc::bad_argument, "the request ends within a field");
    fields.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  if (fields.size() < 3)
    return fail(errc::bad_argument, "the request has no verb, folder and profile");
  apparmor_request request;
  if (fields[0] != "l" && fields[0] != "u")
    return fail(errc::bad_argument, fmt::format("the request's verb is '{}', neither 'l' nor 'u'", fields[0]));
  request.what = static_cast<verb>(fields[0].front());
  request.folder = fields[1];
  request.profile = fields[2];
  if (auto sound = must_be_sound({access::read, request.folder}); !sound)
    return tl::make_unexpected(std::move(sound.error()));
  if (!is_profile_name(request.profile))
    return fail(errc::bad_argument, fmt::format("'{}' is not the name of a guest's profile", request.profile));
  for (std::size_t i = 3; i < fields.size(); ++i) {
    const auto how = fields[i].empty() ? std::nullopt : access_from(fields[i].front());
    if (!how || request.what != verb::load)
      return fail(errc::bad_argument, fmt::format("the request's rule '{}' has no meaning", fields[i]));
    request.rules.push_back({*how, std::string{fields[i].substr(1)}});
    if (auto sound = must_be_sound(request.rules.back()); !sound)
      return tl::make_unexpected(std::move(sound.error()));
  }
  return request;
}

std::string quoted_path(std::string_view path) {
  std::string text = "\"";
  for (const char c : path)
    // The parser takes a backslash before a quote for one that keeps the text open, whatever is before it.
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f' || c == '\\') {
      text += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    } else {
      if (std::strchr("\"*?[]{}^", c) != nullptr)
        text += '\\';
      text += c;
    }
  return text + "\"";
}

std::string profile_files(const std::vector<profile_rule>& rules) {
  std::string text = "# Written by Troupe whenever the guest starts or changes. Rules of your own go into its profile.\n";
  for (const auto& rule : rules) {
    const auto path = quoted_path(rule.path);
    const auto below = fmt::format("{}/{{,**}}\"", std::string_view{path}.substr(0, path.size() - 1));
    const bool whole_tree = rule.how == access::tree || rule.how == access::read_tree;
    const bool only_read = rule.how == access::read || rule.how == access::read_tree;
    for (const auto& pattern : whole_tree ? std::vector{path, below} : std::vector{path}) {
      text += fmt::format("{} {},\n", pattern, modes_of(rule.how));
      if (only_read)
        text += fmt::format("deny {} w,\n", pattern); // QEMU tries to write first: that is nothing to report
    }
  }
  return text;
}

result<std::string> profile_from(std::string_view template_text, std::string_view name) {
  for (const auto needed : {"profile TROUPE_PROFILE", "TROUPE_PROFILE.files>"})
    if (template_text.find(needed) == template_text.npos)
      return fail(errc::bad_argument, fmt::format("the template of profiles has no '{}'", needed));
  return replaced(std::string{template_text}, "TROUPE_PROFILE", name);
}

result<bool> ask_apparmor_helper(const std::string& helper, const apparmor_request& request) {
  // In memory, so that neither side ever waits for the other to read.
  const unique_fd asked{::memfd_create("request", MFD_CLOEXEC)};
  const unique_fd answer{::memfd_create("answer", MFD_CLOEXEC)};
  const auto text = to_text(request);
  if (!asked || !answer || ::write(asked.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::lseek(asked.get(), 0, SEEK_SET) != 0)
    return fail(errc::system, fmt::format("cannot hold a request to '{}': {}", helper, reason(errno)));

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, asked.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, answer.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, answer.get(), STDERR_FILENO);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  auto name = helper;
  std::array<char*, 2> argv{name.data(), nullptr};
  std::array<char*, 1> env{nullptr};
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, helper.c_str(), &actions, &attributes, argv.data(), env.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0)
    return fail(errc::system, fmt::format("cannot start '{}': {}", helper, reason(failed)));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      return fail(errc::system, fmt::format("cannot wait for '{}': {}", helper, reason(errno)));
  const auto said = contents(answer.get());
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(errc::operation_failed,
                fmt::format("the AppArmor profile '{}': {}", request.profile,
                            said.empty() ? fmt::format("'{}' ended with status {:#x}", helper, status) : said));
  return said.starts_with("enforce");
}

} // namespace troupe
