#include "runtime/qmp_codec.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "xml/capabilities.hpp"
#include "xml/emulator_facts.hpp"
#include "xml/firmware.hpp"

#include <nlohmann/json.hpp>

// What QEMUs and packagers say: QMP lines, answers to a probe, the cache of them, descriptors of firmware.

using namespace troupe;

namespace {

/// Facts, however odd, survive the cache and can be told to clients.
void must_be_usable(const emulator_facts& facts) {
  const auto kept = to_json_text(facts);
  const auto again = emulator_facts_from(kept);
  claim(again.has_value(), "facts come back from the cache", again ? std::string{} : again.error().message());
  claim(to_json_text(*again) == kept, "facts are kept alike again", kept);
  host_facts host;
  host.cells.resize(1);
  host.cpu_flags = {"sse4_1", "lm"};
  const std::vector emulators{std::make_shared<const emulator_facts>(facts)};
  static_cast<void>(capabilities_xml(host, emulators));
  for (const auto* type : {"", "kvm", "qemu"})
    static_cast<void>(domain_capabilities_xml(facts, "", type));
}

} // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = text_of(data, size);
  qmp_lines lines{1 << 16};
  static_cast<void>(lines.feed(text, [](std::string_view line) {
    static_cast<void>(printable_start(line));
    return read_qmp(line, 32).has_value();
  }));
  static_cast<void>(rewrite_qmp(text, 32, 1));
  static_cast<void>(read_firmware("input", text));
  if (const auto facts = emulator_facts_from(text))
    must_be_usable(*facts);
  // Both accelerators' answers in one document.
  const auto both = parse_bounded(text, 64);
  if (!both || !both->is_object())
    return 0;
  const auto of = [&](const char* accelerator) {
    const auto found = both->find(accelerator);
    return found == both->end() ? nlohmann::json{} : *found;
  };
  if (const auto facts = facts_from_answers("/usr/bin/qemu", of("tcg"), of("kvm"), "no KVM"))
    must_be_usable(*facts);
  return 0;
}
