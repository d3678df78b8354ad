#include "tests/fuzz/definitions.hpp"
#include "xml/from_argv.hpp"

// QEMU's command lines, read into definitions.

using namespace troupe;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = text_of(data, size);
  const auto emulator = emulator_of_argv(text);
  auto imported = domain_from_argv(text, nullptr);
  if (!imported) {
    must_tell_why(imported.error());
    return 0;
  }
  claim(emulator.has_value(), "a line that is read names its program");
  must_come_back(imported->guest, {true, false, false});
  const auto facts = assumed_facts(imported->guest, "x86_64");
  if (auto whole = complete_imported(*imported, facts, counting()); !whole) {
    must_tell_why(whole.error());
    return 0;
  }
  const auto xml = imported_xml(*imported);
  const auto again = read_domain(xml);
  claim(again.has_value(), "what a line became is read again", again ? std::string{} : again.error().message() + "\n" + xml);
  return 0;
}
