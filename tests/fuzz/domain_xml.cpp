#include "tests/fuzz/definitions.hpp"
#include "xml/cpu_models.hpp"
#include "xml/qemu_argv.hpp"

// Domain XML from clients: read, written, completed, and turned into a command line.

using namespace troupe;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = text_of(data, size);
  static_cast<void>(read_cpu(text, true));
  auto guest = read_domain(text);
  if (!guest) {
    must_tell_why(guest.error());
    return 0;
  }
  must_come_back(*guest, {true, false, false});
  choose_emulator(*guest, "x86_64");
  const auto facts = assumed_facts(*guest, "x86_64");
  if (auto whole = complete_definition(*guest, facts, counting()); !whole) {
    must_tell_why(whole.error());
    return 0;
  }
  choose_variables(*guest, "/state");
  must_come_back(*guest, {true, true, false});
  static_cast<void>(resources_of(*guest));
  forget_connections(*guest);
  if (auto placed = give_places(*guest, facts, counting()); !placed) {
    must_tell_why(placed.error());
    return 0;
  }
  assign_aliases(*guest);
  assign_display_ports(*guest, {}, "127.0.0.1", "127.0.0.1");
  run_settings settings;
  settings.run_dir = run_dir_under("/run", *guest, -1);
  settings.state_dir = "/state";
  settings.generic_taps = true;
  const auto line = qemu_command_line(*guest, facts, settings);
  if (line)
    static_cast<void>(shell_line(*line));
  else
    must_tell_why(line.error());
  return 0;
}
