#pragma once

#include "actors/messages.hpp"
#include "sec/category_pool.hpp"
#include "sec/selinux.hpp"

#include <map>
#include <optional>
#include <string>

namespace troupe {

/// The kernel's model that guests are confined by beside users, as the settings chose it.
struct confinement_model {
  enum class kind : std::uint8_t { none, selinux, apparmor };

  kind what = kind::none;
  selinux_host selinux{};         ///< With SELinux.
  bool enforced = true;           ///< The kernel refuses what a label does not allow, rather than only say so.
  bool default_confined = true;   ///< A guest whose definition says nothing is confined.
  bool require_confined = false;  ///< One that is not may not start.
  bool libvirt_names = false;     ///< AppArmor profiles have the names that libvirt gives.

  std::string_view name() const { return what == kind::selinux ? "selinux" : what == kind::apparmor ? "apparmor" : ""; }
};

/// Issues labels under the kernel's model, and knows which guest has which. Decides only: others change the world.
class label_desk {
public:
  explicit label_desk(confinement_model model);

  /// The guest's label, which it has until `give_back`. None: the model does not confine it, and if `wish` is not clear
  /// about that, no label of it is shown. `draw` is random. Errors: unsupported_config, for a model that is not in force
  /// or a label it does not know, and for a guest that would not be confined where all must be; operation_failed, when
  /// no label is left.
  result<std::optional<guest_label>> issue(const secure_guest& wish, std::uint64_t draw);

  /// The SELinux label for one of the files of a guest with `label`. Empty: it keeps its own.
  std::string label_for(const guest_label& label, const resource& file) const;

  /// At the start of the daemon: what a guest that runs has.
  void recall(const std::string& uuid, const guest_label& label);

  /// The guest has ended. There being no label of it is fine.
  void give_back(const std::string& uuid);

  /// The AppArmor profile that is made for the guest, and goes with it; empty: none is.
  std::string profile_of(const std::string& uuid) const;

  const confinement_model& model() const { return model_; }

private:
  void hold(const std::string& uuid, const guest_label& label, std::optional<category_pair> pair);
  result<guest_label> issue_selinux(const secure_guest& wish, guest_label label, std::uint64_t draw);

  struct held_label {
    guest_label label;
    std::optional<category_pair> pair;
  };

  confinement_model model_;
  category_pool pool_;
  std::map<std::string, held_label> held_; ///< by uuid
};

} // namespace troupe
