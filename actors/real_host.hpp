#pragma once

#include "actors/host.hpp"
#include "runtime/definition_store.hpp"
#include "runtime/loop.hpp"
#include "runtime/paths.hpp"
#include "runtime/worker_pool.hpp"
#include "sec/device_acl.hpp"

#include <memory>
#include <string>
#include <vector>

namespace troupe {

struct real_host_setup {
  instance_paths paths;
  std::string launcher;        ///< Path of troupe-launch.
  std::string apparmor_helper; ///< Of troupe-apparmor.
  std::string profiles;        ///< The folder of AppArmor's profiles.
  std::string host_identity;  ///< Of kernel and CPU: what an emulator can do is remembered for this only.
  std::vector<std::string> emulator_folders{"/usr/bin", "/usr/local/bin", "/usr/libexec"};
  std::vector<std::string> module_folders; ///< Of parts that QEMU loads: one that comes or goes changes what it can do.
  std::vector<std::string> firmware_folders; ///< Of descriptors; later ones overrule earlier ones.
  std::unique_ptr<ledger> kept;
  device_groups::kind groups = device_groups::kind::none; ///< How control groups limit device nodes here.
  std::vector<std::string> devices; ///< Nodes that every QEMU may open, where they exist.
  file_notes notes;                 ///< What is noted at files that guests take.
};

/// The machine itself. Made, used and destroyed on the thread of `on`, where the actors that use it live too; what may
/// block runs on workers.
class real_host final : public host {
public:
  real_host(loop& on, real_host_setup setup);
  ~real_host() override;

  void make_place(place_request, answer<std::shared_ptr<place>>) override;
  void remove_place(std::string run_dir, answer<done>) override;
  result<std::unique_ptr<process>> launch(launch_plan, std::vector<fd_pass>, process_events) override;
  result<std::unique_ptr<process>> adopt(process_id, std::function<void(exit_status)> exited) override;
  result<std::unique_ptr<monitor>> reach_monitor(const std::string& socket, qmp_monitor::callbacks) override;
  void read_log(std::string path, std::uint64_t from, answer<std::string>) override;
  void commit(ledger_batch, answer<done>) override;
  void save_definition(std::string name, std::string xml, answer<done>) override;
  void remove_definition(std::string name, answer<done>) override;
  void save_autostart(std::string name, bool on, answer<done>) override;
  void resolve(std::string user, std::string group, answer<dac_identity>) override;
  void observe_files(std::vector<resource> files, std::vector<std::string> models, dac_identity reader,
                     answer<std::vector<seen_file>>) override;
  void find_image_parts(std::vector<resource> images, answer<std::vector<resource>>) override;
  void take_files(std::vector<file_taking>, answer<done>) override;
  void give_back_files(std::vector<file_taking>, answer<std::vector<std::string>> complaints) override;
  void load_profile(std::string name, std::vector<profile_rule> rules, answer<bool>) override;
  void drop_profile(std::string name, answer<done>) override;
  void make_control_group(std::string group, std::vector<resource> files, answer<done>) override;
  void remove_control_group(std::string group, answer<done>) override;
  void foresee(foreseen_wish wish, answer<std::vector<denial>>) override;
  void find_emulators(answer<std::vector<std::string>>) override;
  void recall_facts(std::string binary, std::string known_key, answer<remembered>) override;
  void remember_facts(std::string key, std::string text, answer<done>) override;
  void find_firmware(answer<host_firmware>) override;
  result<void> kvm_usable() override;
  bool port_is_free(int port) override;
  std::array<std::uint8_t, 16> random_bytes() override;

private:
  void sweep_later();

  loop& loop_;
  real_host_setup setup_;
  definition_store store_;
  worker_pool workers_;
  forgotten_children forgotten_;
  timer sweeper_;
};

} // namespace troupe
