#pragma once

#include "runtime/error.hpp"
#include "sec/category_pool.hpp"
#include "sec/file_access.hpp"
#include "sec/resource.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>

// Labels of SELinux. What takes a `found_file` file blocks on the file system: workers only.

namespace troupe {

/// The parts of "user:role:type:range". A policy without levels has no range.
struct selinux_context {
  std::string user{}, role{}, type{}, range{};

  bool operator==(const selinux_context&) const = default;
};

/// Errors: bad_argument.
result<selinux_context> selinux_context_from(std::string_view text);
std::string to_text(const selinux_context& context);

/// The context as the kernel tells it, as far as that can be known without its policy: two categories in order.
std::string in_order(const std::string& context);

/// What the policy means guests to have. Its range is what all guests share: "s0".
struct selinux_contexts {
  selinux_context domain{};          ///< Of processes under KVM.
  selinux_context emulated_domain{}; ///< Of those that make code at run time; as `domain` where the policy tells no other.
  selinux_context image{};           ///< Of what a guest writes.
  selinux_context content{};         ///< Of what guests only read.

  bool operator==(const selinux_contexts&) const = default;
};

/// From the texts of the policy's virtual_domain_context and virtual_image_context: a context a line, comments and empty
/// lines apart. Errors: bad_argument, telling of which.
result<selinux_contexts> selinux_contexts_from(std::string_view domain_text, std::string_view image_text);

/// SELinux as it is on this host.
struct selinux_host {
  selinux_contexts contexts{};
  category_range categories{}; ///< Those of our own context.
};

/// None: SELinux is off. Errors: system, naming the file that cannot be used.
result<std::optional<selinux_host>> read_selinux_host();

/// Whether the policy refuses, rather than only logs, what it does not allow.
bool selinux_is_enforcing();

/// A boolean of the policy; none where SELinux is off or its policy has no such boolean.
std::optional<bool> selinux_boolean(const char* name);

/// A guest's labels as a definition shows them.
struct selinux_label {
  std::string process{};
  std::string image{}; ///< Of what only this guest has.

  bool operator==(const selinux_label&) const = default;
};

/// A label nobody else has: `base`, or the policy's own domain when that is empty, and the pair. Errors: bad_argument.
result<selinux_label> dynamic_selinux_label(const selinux_contexts& contexts, std::string_view base, bool emulated,
                                            category_pair pair);

/// The label somebody chose, and the images' with its categories. Errors: bad_argument.
result<selinux_label> static_selinux_label(const selinux_contexts& contexts, std::string_view process);

/// What `file` gets: the guest's own label, or one that all guests may write or read.
std::string image_context(const selinux_contexts& contexts, const selinux_label& label, const resource& file);

/// The label in the form in which the kernel tells it. Errors: bad_argument when the policy does not know it.
result<std::string> known_selinux_label(const std::string& label);

/// The label of a file at `path`. Empty: it has none. Errors: operation_failed.
result<std::string> read_selinux_label(const found_file& file, const std::string& path);

/// Gives the file a label, or the policy's usual one for its path when that is empty. A file system that has no labels, or
/// one for all its files, leaves it as it is: that is told, with the remedy, and is no failure, as the policy may let
/// guests use it. Otherwise the text is empty. Errors: operation_failed.
result<std::string> write_selinux_label(const found_file& file, const std::string& path, const std::string& label);

/// While this lives, what its thread makes has the label. Empty: nothing changes.
class creation_label {
public:
  enum class kind : std::uint8_t { files, sockets };

  creation_label(kind what, const std::string& label);
  ~creation_label();
  creation_label(const creation_label&) = delete;
  creation_label& operator=(const creation_label&) = delete;

  /// Errors: operation_failed, when the kernel would not have the label.
  const result<void>& taken() const { return taken_; }

private:
  int (*set_)(const char*);
  bool on_ = false;
  result<void> taken_;
};

} // namespace troupe
