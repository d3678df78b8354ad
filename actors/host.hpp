#pragma once

#include "actors/messages.hpp"
#include "runtime/error.hpp"
#include "runtime/ledger.hpp"
#include "runtime/process.hpp"
#include "runtime/qmp_monitor.hpp"
#include "sec/apparmor.hpp"
#include "sec/dac.hpp"
#include "sec/denials.hpp"
#include "sec/file_labels.hpp"
#include "sec/launch_plan.hpp"
#include "sec/resource.hpp"
#include "xml/firmware.hpp"

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

/// What the actors ask of the machine. Every call returns at once; what comes later comes through the callback, on the
/// thread of the actor that asked but outside any actor: it is handed over by `inside` (actors/inside.hpp). The daemon
/// runs on `real_host`; tests script one, so that a whole company runs in one thread under a virtual clock.
class host {
public:
  virtual ~host() = default;

  template <class T>
  using answer = std::function<void(result<T>)>;

  /// A process that is or will be QEMU. Destroying the handle leaves the process alone.
  class process {
  public:
    virtual ~process() = default;
    /// Lets the launcher become QEMU. It waits for this, and ends when the daemon dies before: no QEMU runs that the
    /// ledger does not know.
    virtual void go() = 0;
    /// Sends a signal; nothing happens when it is gone.
    virtual void signal(int number) = 0;
    virtual process_id id() const = 0;
  };
  struct process_events {
    std::function<void(result<done>)> executed; ///< QEMU's program runs; or why not, and the launcher ends.
    std::function<void(exit_status)> exited;         ///< Last call.
  };

  /// One QEMU's monitor. Destroying it closes it.
  class monitor {
  public:
    virtual ~monitor() = default;
    virtual void execute(std::string_view command, nlohmann::json arguments, std::chrono::milliseconds answer_within,
                         std::function<void(result<nlohmann::json>)> then) = 0;
    virtual void execute_raw(std::string_view json_text, std::chrono::milliseconds answer_within,
                             std::function<void(result<std::string>)> then) = 0;
  };

  /// What a guest's QEMU needs on disk and of descriptors before it can be launched.
  struct place_request {
    std::string guest;               ///< its name
    std::string run_dir;
    std::string log_file;
    uid_t uid = 0;                   ///< owner of the directory QEMU puts its own sockets in
    gid_t gid = 0;
    bool change_owner = false;
    std::vector<std::string> bridges; ///< a TAP on each, in this order
    std::string file_label{};   ///< of SELinux, for the directory; empty: none
    std::string socket_label{}; ///< and for the monitor's socket
  };
  struct place {
    std::string monitor_socket;
    unique_fd listening; ///< bound to `monitor_socket`: QEMU accepts on it, and so can be reached by any later daemon
    unique_fd log;
    std::uint64_t log_start = 0;
    std::vector<unique_fd> taps;
    std::vector<std::string> tap_names;
  };

  virtual void make_place(place_request, answer<std::shared_ptr<place>>) = 0;
  virtual void remove_place(std::string run_dir, answer<done>) = 0;

  virtual result<std::unique_ptr<process>> launch(launch_plan, std::vector<fd_pass>, process_events) = 0;
  virtual result<std::unique_ptr<process>> adopt(process_id, std::function<void(exit_status)> exited) = 0;
  virtual result<std::unique_ptr<monitor>> reach_monitor(const std::string& socket, qmp_monitor::callbacks) = 0;

  /// The end of QEMU's log since `from`: what it said before it died.
  virtual void read_log(std::string path, std::uint64_t from, answer<std::string>) = 0;

  /// Written down for good when answered. Commits take effect in the order of calls.
  virtual void commit(ledger_batch, answer<done>) = 0;

  virtual void save_definition(std::string name, std::string xml, answer<done>) = 0;
  virtual void remove_definition(std::string name, answer<done>) = 0;
  virtual void save_autostart(std::string name, bool on, answer<done>) = 0;

  /// The user and group of a DAC label or of qemu.conf; the user database may be remote.
  virtual void resolve(std::string user, std::string group, answer<dac_identity>) = 0;

  /// Labels of files, on workers that can be abandoned: the files may be on a mount that hangs. Devices that are named by
  /// an address answer as their nodes. What `reader` cannot reach is refused; a file with `create` is made when it is
  /// not there.
  struct seen_file {
    resource file;
    file_record record;
  };
  virtual void observe_files(std::vector<resource> files, std::vector<std::string> models, dac_identity reader,
                             answer<std::vector<seen_file>>) = 0;
  /// What QEMU opens because headers of `images` name it; only images that are not raw. Errors: as image_parts.
  virtual void find_image_parts(std::vector<resource> images, answer<std::vector<resource>>) = 0;
  virtual void take_files(std::vector<file_taking>, answer<done>) = 0;
  virtual void give_back_files(std::vector<file_taking>, answer<std::vector<std::string>> complaints) = 0;

  /// Makes, or makes anew, the AppArmor profile, and loads it. Answers whether it is enforced. Symbolic links in the rules'
  /// paths are followed.
  virtual void load_profile(std::string name, std::vector<profile_rule> rules, answer<bool>) = 0;
  virtual void drop_profile(std::string name, answer<done>) = 0;

  /// A control group whose members may open the device nodes among `files` and those every QEMU may, and no others.
  virtual void make_control_group(std::string group, std::vector<resource> files, answer<done>) = 0;
  virtual void remove_control_group(std::string group, answer<done>) = 0;

  /// What will be refused to a guest's QEMU at one path, as things are now.
  struct foreseen_wish {
    dac_identity who{};
    std::vector<landlock_rule> landlock{};
    foreseen_use use{};
    bool limited = false; ///< It will be in a control group.
    bool granted = false; ///< The start lets that group open this path, too.
  };
  virtual void foresee(foreseen_wish, answer<std::vector<denial>>) = 0;

  /// The binaries on this host that look like QEMU emulators: /usr/bin/qemu, qemu-kvm and qemu-system-*, each once.
  virtual void find_emulators(answer<std::vector<std::string>>) = 0;
  /// What the cache on disk holds of a binary as it is now, on this kernel and CPU. Errors: operation_failed, no such binary.
  struct remembered {
    std::string key;  ///< where `remember_facts` puts it
    std::string text; ///< empty: not known, or the key is the one the caller knows
  };
  virtual void recall_facts(std::string binary, std::string known_key, answer<remembered>) = 0;
  virtual void remember_facts(std::string key, std::string text, answer<done>) = 0;

  /// Firmware for guests, as it is now. A descriptor that cannot be read is left out, and the log tells why.
  virtual void find_firmware(answer<host_firmware>) = 0;

  /// Whether /dev/kvm can be opened; or why not. Looked at once.
  virtual result<void> kvm_usable() = 0;

  /// Whether nobody listens on this TCP port now.
  virtual bool port_is_free(int port) = 0;

  /// 16 random bytes.
  virtual std::array<std::uint8_t, 16> random_bytes() = 0;
};

} // namespace troupe
