#pragma once

#include "actors/guest.hpp"
#include "actors/inside.hpp"
#include "runtime/qmp_commands.hpp"
#include "xml/domain.hpp"
#include "xml/emulator_facts.hpp"

#include <optional>
#include <vector>

namespace troupe {

/// How a guest's QEMU came to end: it decides the state, the reason and the event that clients see.
enum class guest_end : std::uint8_t { none, shut_down, destroyed, crashed, failed, lost };

/// A guest's own memory. All of it runs inside the guest's actor.
class guest_data {
public:
  using pointer = guest_actor::pointer;

  void begin(pointer self, guest_setup setup);
  ~guest_data();

  // Orders. Each answers through its promise.
  caf::result<guest_ref> start(const start_guest& order);
  caf::result<done> destroy(const destroy_guest& order);
  caf::result<done> shutdown(std::uint32_t flags, bool then_boot_again);
  caf::result<done> reset();
  caf::result<done> suspend();
  caf::result<done> resume();
  caf::result<std::string> command_monitor(const monitor_command& order);
  caf::result<done> change_config(std::shared_ptr<const domain> config);
  caf::result<done> forget_config();
  caf::result<done> change_metadata(const set_metadata& order);
  caf::result<console_place> console(const open_console& order);
  void console_closed(const std::string& path);
  void set_autostart_mark(bool on);
  void client_gone(const caf::actor_addr& who);

  // What QEMU says; actors/qmp_events.cpp calls these.
  void on_qmp(const qmp_event& said);
  void tell(event_body what);
  void on_held();
  void on_resumed();
  void on_powered_off(bool by_guest);
  void on_panicked();
  void on_reset();
  void on_suspended_to_ram();
  void on_woken();
  void on_balloon(std::uint64_t bytes);
  void expect_hold(int paused_reason) { hold_reason_ = paused_reason; }
  const domain* live() const { return live_.get(); }

private:
  // The life: `take` is the only writer of `life_`, and `perform` the only place that acts on it.
  result<guest_state> take(guest_input in);
  void perform(guest_action action);

  void admit();
  void find_firmware();
  void write_intent();
  void find_parts();
  void secure();
  void make_place();
  void compose();
  std::vector<profile_rule> rules_for(const std::vector<std::string>& makes) const;
  void launch();
  void set_up();
  void record_started();
  void boot();
  void booted();
  void adopt();
  result<void> connect_monitor();
  void keep_connecting(std::chrono::milliseconds after);
  void greeted();
  void learn_state();
  void monitor_closed(const error& why);
  void quit_qemu();
  void limit_stop();
  void release();
  void finish();
  void ended(exit_status how);
  void refuse(error why);
  error named(error why) const;

  template <class T>
  std::function<void(result<T>)> here(std::function<void(result<T>)> then);
  template <class Reply>
  void ask(command<Reply> what, std::type_identity_t<std::function<void(result<Reply>)>> then);
  template <class T>
  std::function<void(result<T>)> or_gone(std::function<void(result<T>)> then);
  void drop_monitor();
  void order(command<void> what, caf::typed_response_promise<done> then);

  result<void> must_be_live() const;
  void show(int state, int reason);
  void publish();
  void send_view();
  void keep_shown();
  std::shared_ptr<guest_row> make_row(std::string phase) const;
  void commit_row(std::shared_ptr<const guest_row> row, std::function<void(result<done>)> then);
  std::string called() const { return "guest '" + name_ + "'"; }

  pointer self_ = nullptr;
  std::shared_ptr<const guest_surroundings> around_;
  std::string name_, uuid_;
  std::shared_ptr<const domain> config_, transient_, live_;
  bool autostart_ = false;

  guest_state life_ = guest_state::shutoff;
  int shown_state_ = 5, shown_reason_ = 0;
  guest_end end_ = guest_end::none;
  bool cancelled_ = false;     ///< A stop came while the start was being prepared.
  bool graceful_ = false;      ///< Never SIGKILL.
  bool boot_again_ = false;    ///< The power-off that is expected is half of a reboot.
  bool stay_paused_ = false;
  bool to_boot_ = false;       ///< Its first instruction is still to come, and nobody asked for it to wait.
  bool autodestroy_ = false;
  int hold_reason_ = 1;        ///< virDomainPausedReason of the next STOP: user, unless QEMU told another cause first.
  int resume_reason_ = 5;
  std::optional<error> failure_; ///< Why the start does not succeed.
  std::uint64_t launch_ = 0;   ///< Tells a late timer of an earlier QEMU.

  int id_ = -1;
  std::vector<int> display_ports_;
  std::vector<resource> needs_; ///< What QEMU opens, from its start to its launch.
  guest_identity identity_;
  std::string control_group_; ///< Empty: none.
  emulator_facts_ptr facts_;
  host_firmware firmware_; ///< While a start chooses from it.
  std::shared_ptr<host::place> place_;
  launch_plan plan_;
  std::uint64_t words_from_ = 0; ///< Where QEMU's own words begin in the log.
  std::vector<fd_pass> passed_;
  std::unique_ptr<host::process> process_;
  std::unique_ptr<host::monitor> monitor_;
  process_id qemu_;
  std::string run_dir_;
  std::uint64_t balloon_kib_ = 0;
  std::map<std::string, caf::strong_actor_ptr> consoles_; ///< PTY or socket in use, by whom
  caf::actor_addr owner_;
  std::shared_ptr<const guest_row> row_;
  std::shared_ptr<const domain> written_; ///< What `row_` was made of.

  std::vector<caf::typed_response_promise<guest_ref>> starting_;
  std::vector<caf::typed_response_promise<done>> stopping_;
  std::vector<caf::typed_response_promise<done>> suspending_; ///< Held back while `to_boot_`.
  std::uint64_t asked_ = 0;
  std::map<std::uint64_t, std::function<void(error)>> unanswered_; ///< Orders that wait for QEMU's answer.
};

} // namespace troupe
