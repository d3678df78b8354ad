// troupe-apparmor: writes, loads and removes the AppArmor profile of one guest, and nothing else. The request comes on
// standard input; the answer, one line, goes to standard output. Status 0: done.

#include "runtime/unique_fd.hpp"
#include "sec/apparmor.hpp"
#include "sec/apparmor_texts.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <string>
#include <sys/apparmor.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

/// The daemon gives up on us before.
constexpr unsigned most_seconds = 60;
constexpr std::size_t most_text = 1 << 20;

auto cannot(const std::string& what) {
  return fail(errc::system, fmt::format("cannot {}: {}", what, std::strerror(errno)));
}

/// All there is to read, up to `most` bytes.
result<std::string> all_of(int fd, std::size_t most, const std::string& what) {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const auto n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return cannot("read " + what);
    if (n == 0)
      return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > most)
      return fail(errc::bad_argument, fmt::format("{} has more than {} bytes", what, most));
  }
}

/// The text of a file of ours; none when there is no such file.
result<std::optional<std::string>> file_text(const std::string& path) {
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  if (!file && errno == ENOENT)
    return std::nullopt;
  if (!file)
    return cannot("open '" + path + "'");
  auto text = all_of(file.get(), most_text, "'" + path + "'");
  if (!text)
    return tl::make_unexpected(std::move(text.error()));
  return std::optional{std::move(*text)};
}

/// Whole or not at all, and never through a symbolic link.
result<void> write_whole(const std::string& path, const std::string& text) {
  const auto temporary = fmt::format("{}.{}~", path, ::getpid());
  ::unlink(temporary.c_str());
  const unique_fd file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644)};
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    auto failed = cannot("write '" + path + "'");
    ::unlink(temporary.c_str());
    return failed;
  }
  return {};
}

/// A folder that only root may write to: policy is made of what is in it.
result<void> must_be_roots(const std::string& folder) {
  struct stat info {};
  if (::stat(folder.c_str(), &info) != 0)
    return cannot("find the folder '" + folder + "'");
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(errc::bad_argument, fmt::format("'{}' is not a folder that only its owner, who must be us, may write to", folder));
  return {};
}

/// What is where below the folder of profiles.
struct places {
  explicit places(const apparmor_request& request)
    : folder{request.folder}, own{folder + "/troupe"}, profile{own + "/" + request.profile}, files{profile + ".files"} {}

  std::string folder, own, profile, files;
  std::string template_of_all = own + "/TEMPLATE.qemu";
  std::string abstractions = folder + "/abstractions";
  std::string abstraction = abstractions + "/troupe-qemu";
};

result<std::string> template_text(const places& at) {
  auto own = file_text(at.template_of_all);
  if (!own)
    return tl::make_unexpected(std::move(own.error()));
  return *own ? **own : std::string{apparmor_texts::template_qemu};
}

/// Puts what the installation should have put there, where it is missing. What is there stays as it is.
result<void> complete(const places& at) {
  for (const auto& folder : {at.folder, at.own, at.abstractions}) {
    if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
      return cannot("make the folder '" + folder + "'");
    if (auto roots = must_be_roots(folder); !roots)
      return roots;
  }
  for (const auto& [path, text] : {std::pair{at.template_of_all, apparmor_texts::template_qemu},
                                   std::pair{at.abstraction, apparmor_texts::abstraction}}) {
    auto there = file_text(path);
    if (!there)
      return tl::make_unexpected(std::move(there.error()));
    if (!*there)
      if (auto written = write_whole(path, text); !written)
        return written;
  }
  return {};
}

/// Runs the parser on the profile. Its words are the error.
result<void> parse(const places& at) {
  constexpr std::array parsers{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"};
  const auto* parser = *std::ranges::find_if(parsers, [](auto path) { return ::access(path, X_OK) == 0; });
  if (::access(parsers[0], X_OK) != 0 && ::access(parsers[1], X_OK) != 0)
    return fail(errc::operation_failed, "there is no /usr/sbin/apparmor_parser: install AppArmor's user space (Debian: `apt install apparmor`)");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return cannot("make a pipe");
  const unique_fd said{ends[0]};
  unique_fd speaks{ends[1]};
  const auto child = ::fork();
  if (child < 0)
    return cannot("start another process");
  if (child == 0) {
    ::alarm(most_seconds);
    ::dup2(speaks.get(), STDOUT_FILENO);
    ::dup2(speaks.get(), STDERR_FILENO);
    ::close(STDIN_FILENO);
    ::open("/dev/null", O_RDONLY);
    const auto include = fmt::format("--Include={}", at.folder);
    ::execl(parser, parser, "--replace", "--skip-cache", include.c_str(), at.profile.c_str(), nullptr);
    ::_exit(127);
  }
  speaks.reset();
  auto words = all_of(said.get(), most_text, "what apparmor_parser says");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return {};
  return fail(errc::operation_failed, fmt::format("apparmor_parser refused it (status {:#x}): {}", status, words ? *words : std::string{}));
}

/// "enforce", "complain", …: how the kernel has the profile now; empty when it does not have it.
result<std::string> mode_of(const std::string& name) {
  const unique_fd list{::open("/sys/kernel/security/apparmor/profiles", O_RDONLY | O_CLOEXEC)};
  if (!list)
    return cannot("read the kernel's list of AppArmor profiles");
  const auto text = all_of(list.get(), 64 << 20, "the kernel's list of AppArmor profiles");
  if (!text)
    return tl::make_unexpected(text.error());
  const auto before = "\n" + name + " (";
  const auto at = ("\n" + *text).find(before);
  if (at == std::string::npos)
    return std::string{};
  const auto start = at + before.size() - 1;
  return text->substr(start, text->find(')', start) - start);
}

result<std::string> load(const apparmor_request& request) {
  const places at{request};
  if (auto done = complete(at); !done)
    return tl::make_unexpected(std::move(done.error()));
  auto there = file_text(at.profile);
  if (!there)
    return tl::make_unexpected(std::move(there.error()));
  if (!*there) { // one that is there may have been changed for this guest
    const auto text = template_text(at);
    if (!text)
      return tl::make_unexpected(text.error());
    const auto profile = profile_from(*text, request.profile);
    if (!profile)
      return tl::make_unexpected(profile.error());
    if (auto written = write_whole(at.profile, *profile); !written)
      return tl::make_unexpected(std::move(written.error()));
  }
  if (auto written = write_whole(at.files, profile_files(request.rules)); !written)
    return tl::make_unexpected(std::move(written.error()));
  if (auto parsed = parse(at); !parsed)
    return tl::make_unexpected(std::move(parsed.error()));
  auto mode = mode_of(request.profile);
  if (mode && mode->empty())
    return fail(errc::operation_failed, fmt::format("'{}' does not define the profile '{}'", at.profile, request.profile));
  return mode;
}

result<std::string> remove(const apparmor_request& request) {
  const places at{request};
  aa_kernel_interface* kernel = nullptr;
  if (::aa_kernel_interface_new(&kernel, nullptr, nullptr) != 0)
    return cannot("reach AppArmor in the kernel");
  const int removed = ::aa_kernel_interface_remove_policy(kernel, request.profile.c_str());
  const int number = errno;
  ::aa_kernel_interface_unref(kernel);
  if (removed != 0 && number != ENOENT) {
    errno = number;
    return cannot("remove the profile from the kernel");
  }
  if (::unlink(at.files.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR)
    return cannot("remove '" + at.files + "'");
  // One that somebody changed is theirs.
  const auto text = template_text(at);
  const auto made = text ? profile_from(*text, request.profile) : text;
  const auto there = file_text(at.profile);
  if (made && there && *there == *made && ::unlink(at.profile.c_str()) != 0)
    return cannot("remove '" + at.profile + "'");
  return std::string{};
}

result<std::string> run() {
  const auto text = all_of(STDIN_FILENO, max_apparmor_request, "the request");
  if (!text)
    return tl::make_unexpected(text.error());
  const auto request = apparmor_request_from(*text);
  if (!request)
    return tl::make_unexpected(request.error());
  return request->what == apparmor_request::verb::load ? load(*request) : remove(*request);
}

} // namespace
} // namespace troupe

int main(int argc, char** argv) {
  if (argc != 1) {
    fmt::print(stderr, "usage: {} <REQUEST\nWrites, loads or removes the AppArmor profile of a guest. Meant to be started by trouped.\n", argv[0]);
    return 2;
  }
  ::alarm(troupe::most_seconds);
  ::umask(022);
  const auto answer = troupe::run();
  fmt::print("{}\n", answer ? *answer : answer.error().message());
  return answer ? 0 : 1;
}
