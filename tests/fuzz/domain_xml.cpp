#include "tests/fuzz/fuzz.hpp"
#include "xml/cpu_models.hpp"
#include "xml/domain_passes.hpp"
#include "xml/qemu_argv.hpp"

// Domain XML from clients: read, written, completed, and turned into a command line.

using namespace troupe;

namespace {

random_source counting() {
  return [next = std::uint64_t{0}]() mutable {
    std::array<std::uint8_t, 16> bytes{};
    const auto value = ++next * 0x9e3779b97f4a7c15u;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::uint8_t>(value >> i % 8 * 8);
    return bytes;
  };
}

/// What is written can be read, and is then written alike.
void must_come_back(const domain& guest, xml_options options) {
  const auto once = write_domain(guest, options);
  const auto again = read_domain(once);
  claim(again.has_value(), "a written definition is read again", again ? std::string{} : again.error().message() + "\n" + once);
  const auto twice = write_domain(*again, options);
  claim(once == twice, "a definition is written alike again", once + "\n---\n" + twice);
}

void must_tell_why(const error& why) {
  claim(why.code != errc::none && !why.detail.empty(), "a refusal says why", why.message());
}

} // namespace

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
