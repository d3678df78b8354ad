#include "sec/file_labels.hpp"

#include "sec/file_access.hpp"
#include "sec/selinux.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utmpx.h>
#include <vector>

#include <fmt/format.h>

namespace troupe {
namespace {

std::string reason(int number) {
  return std::strerror(number);
}

/// Whether a file system refuses owners rather than us.
bool has_no_owners(int number) {
  return number == EPERM || number == EROFS || number == EOPNOTSUPP || number == ENOSYS;
}

template <class Number>
std::optional<Number> number_from(std::string_view text) {
  Number number{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || ec != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return number;
}

// ---- models

/// How to read and write a file's label in one model. What a file system would not have is told with its remedy; an
/// empty text: it has it, or there is none.
struct label_model {
  std::string_view name;
  result<std::string> (*read)(const found_file& file, const std::string& path);
  result<std::string> (*write)(const found_file& file, const std::string& path, const std::string& label);
};

result<std::string> read_owner(const found_file& file, const std::string&) {
  return owner_label(file.info.st_uid, file.info.st_gid);
}

result<std::string> write_owner(const found_file& file, const std::string& path, const std::string& label) {
  const std::string_view text{label};
  const auto colon = std::min(text.find(":+"), text.size());
  const auto uid = text.starts_with('+') ? number_from<uid_t>(text.substr(1, colon - 1)) : std::nullopt;
  const auto gid = number_from<gid_t>(text.substr(std::min(colon + 2, text.size())));
  if (!uid || !gid)
    return fail(errc::operation_failed, fmt::format("'{}' is no owner of '{}', which would be +UID:+GID", label, path));
  if (::fchownat(file.fd.get(), "", *uid, *gid, AT_EMPTY_PATH) == 0 || has_no_owners(errno))
    return std::string{};
  return fail(errc::operation_failed, fmt::format("cannot make '{}' belong to {}:{}: {}", path, *uid, *gid, reason(errno)));
}

constexpr label_model models[] = {
  {"dac", read_owner, write_owner},
  {"selinux", read_selinux_label, write_selinux_label},
};

result<const label_model*> find_model(std::string_view name) {
  const auto found = std::ranges::find(models, name, &label_model::name);
  if (found == std::end(models))
    return fail(errc::bad_argument, fmt::format("there is no security model '{}' that labels files", name));
  return &*found;
}

// ---- notes

std::int64_t find_boot_time() {
  std::int64_t found = 0;
  ::setutxent();
  while (const auto* entry = ::getutxent())
    if (entry->ut_type == BOOT_TIME)
      found = entry->ut_tv.tv_sec;
  ::endutxent();
  if (found != 0)
    return found;
  struct timespec up {};
  ::clock_gettime(CLOCK_BOOTTIME, &up);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::round<std::chrono::seconds>(now - std::chrono::seconds{up.tv_sec} -
                                                  std::chrono::nanoseconds{up.tv_nsec})
    .count();
}

/// Seconds since 1970 at which this machine started, as libvirt tells: by utmp, else by the uptime.
std::int64_t boot_time() {
  static const auto found = find_boot_time(); // utmp is read by one thread at a time
  return found;
}

std::optional<std::string> attribute(const found_file& file, const std::string& name) {
  std::array<char, 4096> value{};
  const auto size = ::getxattr(name_of(file.fd).c_str(), name.c_str(), value.data(), value.size());
  if (size < 0)
    return std::nullopt;
  return std::string{value.data(), static_cast<std::size_t>(size)};
}

bool set_attribute(const found_file& file, const std::string& name, const std::string& value) {
  return ::setxattr(name_of(file.fd).c_str(), name.c_str(), value.data(), value.size(), 0) == 0;
}

bool remove_attribute(const found_file& file, const std::string& name) {
  return ::removexattr(name_of(file.fd).c_str(), name.c_str()) == 0 || errno == ENODATA;
}

/// The notes at a file about its label in one model: those of everybody, which count how many hold it, and one of ours,
/// which says whether we are counted.
class noted {
public:
  noted(const found_file& file, std::string_view model, const file_notes& notes)
    : file_{file}, model_{model}, ours_{fmt::format("trusted.troupe.{}.{}", notes.holder, model)} {}

  /// Everybody's as they are, valid or not.
  std::map<std::string, std::string> all() const {
    std::map<std::string, std::string> found;
    for (const auto& name : names())
      if (auto value = attribute(file_, name))
        found[name] = std::move(*value);
    return found;
  }

  std::optional<std::string> original() const { return attribute(file_, names()[0]); }

  /// How many hold the file; 0 when the notes are of an earlier boot, or no notes.
  std::uint64_t holders() const {
    const auto since = attribute(file_, names()[1]);
    const auto count = attribute(file_, names()[2]);
    const auto when = since ? number_from<std::int64_t>(*since) : std::nullopt;
    const bool valid = original() && when && std::abs(*when - boot_time()) <= 2; // where it is worked out, it wavers
    return valid && count ? number_from<std::uint64_t>(*count).value_or(0) : 0;
  }

  bool are_ours() const { return attribute(file_, ours_).has_value(); }

  /// Counts us in. Where the file system has no such notes, none are left.
  void add(const std::string& label, const std::map<std::string, std::string>& earlier) const {
    const auto count = holders();
    const bool added =
      set_attribute(file_, ours_, fmt::format("taking {}", count)) &&
      (count > 0 || (set_attribute(file_, names()[0], label) &&
                     set_attribute(file_, names()[1], std::to_string(boot_time())))) &&
      set_attribute(file_, names()[2], std::to_string(count + 1)) && set_attribute(file_, ours_, "held");
    if (!added && are_ours())
      finish(count, earlier);
  }

  /// How many hold the file besides us. What was cut short in the middle is known by the count it began with.
  std::uint64_t others() const {
    const auto now = holders();
    const auto state = attribute(file_, ours_);
    if (!state || now == 0)
      return now;
    const auto begun = number_from<std::uint64_t>(std::string_view{*state}.substr(state->find(' ') + 1));
    const bool counted = state->starts_with("taking") ? now != begun : !state->starts_with("returning") || now == begun;
    return now - (counted ? 1 : 0);
  }

  /// Counts us out; there are `others` left. Without any, the earlier notes are put back.
  void remove(std::uint64_t others, const std::map<std::string, std::string>& earlier) const {
    if (!are_ours())
      return;
    set_attribute(file_, ours_, fmt::format("returning {}", others + 1));
    finish(others, earlier);
  }

private:
  /// The original label, the time of the boot that the notes are of, and the count.
  std::array<std::string, 3> names() const {
    return {fmt::format("trusted.libvirt.security.{}", model_), fmt::format("trusted.libvirt.security.timestamp_{}", model_),
            fmt::format("trusted.libvirt.security.ref_{}", model_)};
  }

  void finish(std::uint64_t others, const std::map<std::string, std::string>& earlier) const {
    if (others > 0) {
      set_attribute(file_, names()[2], std::to_string(others));
    } else {
      for (const auto& name : {names()[2], names()[1], names()[0]}) // without a count they say nothing
        if (const auto was = earlier.find(name); was != earlier.end())
          set_attribute(file_, name, was->second);
        else
          remove_attribute(file_, name);
    }
    remove_attribute(file_, ours_);
  }

  const found_file& file_;
  std::string_view model_;
  std::string ours_;
};

// ----

/// The recorded file; empty when the path leads elsewhere or nowhere now.
result<std::optional<found_file>> find_again(const file_record& was) {
  auto now = walk(was.path);
  if (!now) {
    if (now.error().number == ENOENT || now.error().number == ENOTDIR || now.error().number == ELOOP)
      return std::nullopt;
    return fail(errc::operation_failed,
                fmt::format("cannot reach '{}' of '{}': {}", now.error().at, was.path, reason(now.error().number)));
  }
  if (!now->link_owners.empty() || now->info.st_dev != was.device || now->info.st_ino != was.inode)
    return std::nullopt;
  return std::optional{std::move(*now)};
}

/// chown(2) takes the bits that lend an identity, and its writer may have them back.
void restore_mode(const found_file& file, mode_t was) {
  constexpr mode_t lending = S_ISUID | S_ISGID;
  struct stat now {};
  if (::fstat(file.fd.get(), &now) == 0 && now.st_mode != was && (now.st_mode | (was & lending)) == was)
    ::chmod(name_of(file.fd).c_str(), was & 07777);
}

} // namespace

std::string owner_label(uid_t uid, gid_t gid) {
  return fmt::format("+{}:+{}", uid, gid);
}

result<file_record> observe(const std::string& path, std::span<const std::string> wanted, const file_notes& notes) {
  if (auto absolute = must_be_absolute(path); !absolute)
    return tl::make_unexpected(std::move(absolute.error()));
  const auto here = walk(path);
  if (!here)
    return fail(errc::operation_failed, fmt::format("cannot reach '{}'{}: {}", path,
                                                    here.error().at == path ? "" : " at '" + here.error().at + "'",
                                                    reason(here.error().number)));
  std::array<char, PATH_MAX> real{};
  const auto length = ::readlink(name_of(here->fd).c_str(), real.data(), real.size());
  if (length < 0)
    return fail(errc::operation_failed, fmt::format("cannot tell where '{}' leads: {}", path, reason(errno)));
  const auto& info = here->info;
  file_record found{
    .path = {real.data(), static_cast<std::size_t>(length)},
    .device = info.st_dev,
    .inode = info.st_ino,
    .mode = info.st_mode,
    .labels = {},
    .foreign_link =
      std::ranges::any_of(here->link_owners, [&](uid_t owner) { return owner != 0 && owner != info.st_uid; }),
  };
  for (const auto& name : wanted) {
    const auto model = find_model(name);
    if (!model)
      return tl::make_unexpected(model.error());
    auto& label = found.labels[name];
    auto now = (*model)->read(*here, found.path);
    if (!now)
      return tl::make_unexpected(std::move(now.error()));
    label.value = label.now = std::move(*now);
    if (!notes.kept)
      continue;
    const noted about{*here, name, notes};
    label.holders = about.holders();
    if (label.holders > 0)
      label.value = about.original().value_or(label.now);
    else
      label.notes = about.all();
  }
  return found;
}

result<std::vector<std::string>> take(const file_taking& wanted, const file_notes& notes) {
  const auto& was = wanted.before;
  const auto file = find_again(was);
  if (!file)
    return tl::make_unexpected(file.error());
  if (!*file)
    return fail(errc::operation_failed, fmt::format("'{}' was replaced a moment ago: try again", was.path));
  std::vector<std::string> told;
  for (const auto& [name, label] : wanted.labels) {
    const auto model = find_model(name);
    if (!model)
      return tl::make_unexpected(model.error());
    const auto now = (*model)->read(**file, was.path);
    if (!now)
      return tl::make_unexpected(now.error());
    if (was.foreign_link && *now != label)
      return fail(errc::operation_failed,
                  fmt::format("'{}' belongs to user {} but was named by somebody else's symbolic link: name it by this "
                              "path",
                              was.path, (*file)->info.st_uid));
    const noted about{**file, name, notes};
    const auto before = was.labels.find(name);
    if (notes.kept && !about.are_ours() && before != was.labels.end())
      about.add(before->second.value, before->second.notes);
    if (*now == label)
      continue;
    auto wrote = (*model)->write(**file, was.path, label);
    if (!wrote)
      return tl::make_unexpected(std::move(wrote.error()));
    if (!wrote->empty())
      told.push_back(std::move(*wrote));
  }
  return told;
}

result<void> give_back(const file_taking& taken, const file_notes& notes) {
  const auto& was = taken.before;
  const auto file = find_again(was);
  if (!file)
    return tl::make_unexpected(file.error());
  if (!*file)
    return {};
  result<void> out;
  bool still_held = false;
  for (const auto& [name, label] : taken.labels) {
    const auto model = find_model(name);
    const auto before = was.labels.find(name);
    if (!model || before == was.labels.end())
      continue;
    const auto& value = before->second.value;
    const noted about{**file, name, notes};
    const auto others = about.others();
    still_held |= others > 0;
    if (others == 0) {
      const auto now = (*model)->read(**file, was.path);
      const auto wrote = now && *now == label && *now != value ? (*model)->write(**file, was.path, value) : now;
      if (!wrote) {
        out = tl::make_unexpected(wrote.error());
        continue;
      }
    }
    about.remove(others, before->second.notes);
  }
  if (!still_held)
    restore_mode(**file, was.mode);
  return out;
}

} // namespace troupe
