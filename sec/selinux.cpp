#include "sec/selinux.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <linux/magic.h>
#include <memory>
#include <selinux/label.h>
#include <selinux/selinux.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

namespace troupe {
namespace {

std::string reason(int number) {
  return std::strerror(number);
}

/// A text that libselinux made.
struct freed {
  void operator()(char* text) const { ::freecon(text); }
};
using made_text = std::unique_ptr<char, freed>;

/// Everything of a level but its categories: "s0" of "s0-s0:c0.c1023".
std::string_view sensitivity_of(std::string_view range) {
  return range.substr(0, range.find_first_of(":-"));
}

std::vector<std::string_view> context_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    while (!line.empty() && std::strchr(" \t\r", line.back()) != nullptr)
      line.remove_suffix(1);
    while (!line.empty() && std::strchr(" \t", line.front()) != nullptr)
      line.remove_prefix(1);
    if (!line.empty() && line.front() != '#')
      lines.push_back(line);
  }
  return lines;
}

/// Line `number` of a file of contexts, or its last one where it has fewer.
result<selinux_context> context_at(std::string_view text, std::size_t number, const char* what) {
  const auto lines = context_lines(text);
  if (lines.empty())
    return fail(errc::bad_argument, fmt::format("the policy's {} has no context", what));
  auto context = selinux_context_from(lines[std::min(number, lines.size() - 1)]);
  if (!context)
    context.error().detail = fmt::format("the policy's {}: {}", what, context.error().detail);
  return context;
}

result<std::string> text_of(const char* path) {
  std::ostringstream text;
  const std::ifstream file{path};
  text << file.rdbuf();
  if (!file || !text)
    return fail(errc::system, fmt::format("cannot read '{}', which SELinux's policy should have", path));
  return std::move(text).str();
}

bool has_no_labels(int number) {
  return number == EOPNOTSUPP || number == EROFS || number == EPERM || number == ENOSYS;
}

/// File systems that guests may use as they are when the policy is told so.
struct known_file_system {
  std::int64_t magic; ///< As statfs(2) tells it.
  const char* name;
  const char* boolean;
};
constexpr known_file_system known_file_systems[] = {
  {NFS_SUPER_MAGIC, "NFS", "virt_use_nfs"},
  {CIFS_SUPER_MAGIC, "a CIFS share", "virt_use_samba"},
  {SMB2_SUPER_MAGIC, "a CIFS share", "virt_use_samba"},
  {FUSE_SUPER_MAGIC, "a FUSE file system", "virt_use_fusefs"},
};

std::string remedy_for(const found_file& file, const std::string& path, const std::string& label, int number) {
  struct statfs about {};
  const bool known = ::fstatfs(file.fd.get(), &about) == 0;
  for (const auto& each : known_file_systems)
    if (known && static_cast<std::uint32_t>(about.f_type) == static_cast<std::uint32_t>(each.magic)) {
      if (selinux_boolean(each.boolean) == true)
        return {};
      return fmt::format("'{}' is on {}, which takes no label: `setsebool -P {} on` lets guests use it", path, each.name,
                         each.boolean);
    }
  auto own = read_selinux_label(file, path);
  return fmt::format("'{}' keeps its label '{}' ({}): to let guests use it, mount its file system with -o context=\"{}\"", path,
                     own ? *own : "", reason(number), label);
}

/// What the policy says a file there has; empty when it says nothing.
std::string usual_label(const std::string& path, mode_t mode) {
  const std::unique_ptr<selabel_handle, decltype(&::selabel_close)> rules{::selabel_open(SELABEL_CTX_FILE, nullptr, 0),
                                                                          &::selabel_close};
  char* text = nullptr;
  if (!rules || ::selabel_lookup_raw(rules.get(), &text, path.c_str(), static_cast<int>(mode)) != 0)
    return {};
  return made_text{text}.get();
}

} // namespace

result<selinux_context> selinux_context_from(std::string_view text) {
  selinux_context context;
  auto rest = text;
  for (auto* part : {&context.user, &context.role, &context.type}) {
    const auto end = std::min(rest.find(':'), rest.size());
    *part = rest.substr(0, end);
    rest.remove_prefix(std::min(rest.size(), end + 1));
  }
  context.range = rest;
  const auto odd = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == '\x7f'; };
  if (context.user.empty() || context.role.empty() || context.type.empty() || std::ranges::any_of(text, odd) ||
      text.ends_with(':'))
    return fail(errc::bad_argument,
                fmt::format("'{}' is no SELinux context such as 'system_u:system_r:svirt_t:s0:c34,c44'", text));
  return context;
}

std::string to_text(const selinux_context& context) {
  auto text = fmt::format("{}:{}:{}", context.user, context.role, context.type);
  return context.range.empty() ? text : text + ":" + context.range;
}

std::string in_order(const std::string& text) {
  auto context = selinux_context_from(text);
  const auto pair = context ? pair_of(context->range) : std::nullopt;
  if (!pair || context->range.find('-') != std::string::npos)
    return text;
  context->range = fmt::format("{}:{}", sensitivity_of(context->range), to_text(*pair));
  return to_text(*context);
}

result<selinux_contexts> selinux_contexts_from(std::string_view domain_text, std::string_view image_text) {
  selinux_contexts contexts;
  const struct {
    selinux_context& into;
    std::string_view text;
    std::size_t line;
    const char* what;
  } wanted[] = {
    {contexts.domain, domain_text, 0, "virtual_domain_context"},
    {contexts.emulated_domain, domain_text, 1, "virtual_domain_context"},
    {contexts.image, image_text, 0, "virtual_image_context"},
    {contexts.content, image_text, 1, "virtual_image_context"},
  };
  for (const auto& each : wanted) {
    auto context = context_at(each.text, each.line, each.what);
    if (!context)
      return tl::make_unexpected(std::move(context.error()));
    each.into = std::move(*context);
  }
  return contexts;
}

result<std::optional<selinux_host>> read_selinux_host() {
  if (::is_selinux_enabled() != 1)
    return std::nullopt;
  auto domains = text_of(::selinux_virtual_domain_context_path());
  if (!domains)
    return tl::make_unexpected(std::move(domains.error()));
  auto images = text_of(::selinux_virtual_image_context_path());
  if (!images)
    return tl::make_unexpected(std::move(images.error()));
  auto contexts = selinux_contexts_from(*domains, *images);
  if (!contexts)
    return fail(errc::system, contexts.error().detail);
  char* text = nullptr;
  if (::getcon_raw(&text) != 0)
    return fail(errc::system, fmt::format("cannot tell our own SELinux context: {}", reason(errno)));
  const auto own = selinux_context_from(made_text{text}.get());
  if (!own)
    return fail(errc::system, own.error().detail);
  auto categories = categories_of(own->range);
  if (!categories)
    return fail(errc::system, fmt::format("our own SELinux context: {}", categories.error().detail));
  return selinux_host{std::move(*contexts), *categories};
}

bool selinux_is_enforcing() {
  return ::security_getenforce() == 1;
}

std::optional<bool> selinux_boolean(const char* name) {
  const int value = ::is_selinux_enabled() == 1 ? ::security_get_boolean_active(name) : -1;
  return value < 0 ? std::nullopt : std::optional{value == 1};
}

result<selinux_label> dynamic_selinux_label(const selinux_contexts& contexts, std::string_view base, bool emulated,
                                            category_pair pair) {
  auto domain = emulated ? contexts.emulated_domain : contexts.domain;
  if (!base.empty()) {
    auto given = selinux_context_from(base);
    if (!given)
      return tl::make_unexpected(std::move(given.error()));
    domain = std::move(*given);
  }
  auto image = contexts.image;
  if (!domain.range.empty() || !image.range.empty()) {
    const auto level = std::string{sensitivity_of(domain.range.empty() ? image.range : domain.range)};
    domain.range = image.range = level + ":" + to_text(pair);
  }
  return selinux_label{to_text(domain), to_text(image)};
}

result<selinux_label> static_selinux_label(const selinux_contexts& contexts, std::string_view process) {
  const auto chosen = selinux_context_from(process);
  if (!chosen)
    return tl::make_unexpected(chosen.error());
  auto image = contexts.image;
  image.range = chosen->range;
  return selinux_label{to_text(*chosen), to_text(image)};
}

std::string image_context(const selinux_contexts& contexts, const selinux_label& label, const resource& file) {
  if (file.readonly)
    return to_text(contexts.content);
  return file.shared ? to_text(contexts.image) : label.image;
}

result<std::string> known_selinux_label(const std::string& label) {
  char* text = nullptr;
  if (::security_canonicalize_context_raw(label.c_str(), &text) != 0)
    return fail(errc::bad_argument, fmt::format("SELinux's policy does not know the label '{}': {}", label, reason(errno)));
  return std::string{made_text{text}.get()};
}

result<std::string> read_selinux_label(const found_file& file, const std::string& path) {
  char* text = nullptr;
  if (::getfilecon_raw(name_of(file.fd).c_str(), &text) < 0) {
    if (errno == ENODATA || errno == EOPNOTSUPP)
      return std::string{};
    return fail(errc::operation_failed, fmt::format("cannot read the SELinux label of '{}': {}", path, reason(errno)));
  }
  return std::string{made_text{text}.get()};
}

result<std::string> write_selinux_label(const found_file& file, const std::string& path, const std::string& label) {
  const auto name = name_of(file.fd);
  const auto wanted = label.empty() ? usual_label(path, file.info.st_mode) : label;
  if ((wanted.empty() ? ::removexattr(name.c_str(), "security.selinux") : ::setfilecon_raw(name.c_str(), wanted.c_str())) == 0)
    return std::string{};
  const int number = errno;
  if (has_no_labels(number))
    return remedy_for(file, path, wanted, number);
  return fail(errc::operation_failed,
              fmt::format("cannot give '{}' the SELinux label '{}': {}", path, wanted, reason(number)));
}

creation_label::creation_label(kind what, const std::string& label)
  : set_{what == kind::files ? ::setfscreatecon_raw : ::setsockcreatecon_raw} {
  if (label.empty())
    return;
  on_ = set_(label.c_str()) == 0;
  if (!on_)
    taken_ = fail(errc::operation_failed, fmt::format("cannot make {} with the SELinux label '{}': {}",
                                                      what == kind::files ? "files" : "sockets", label, reason(errno)));
}

creation_label::~creation_label() {
  if (on_)
    set_(nullptr);
}

} // namespace troupe
