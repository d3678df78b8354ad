#include "tests/catch.hpp"
#include "tests/xml/corpus.hpp"
#include "tests/xml/definitions.hpp"
#include "xml/domain_passes.hpp"
#include "xml/from_argv.hpp"
#include "xml/qemu_argv.hpp"
#include "xml/xml_tree.hpp"

#include <fmt/format.h>
#include <map>
#include <optional>
#include <set>

// What libvirt 9.0.0 answered, document by document, against what we answer: define, dumpxml and the command line. Of the large
// set exactly the differences are allowed that docs/conformance.md lists, each with its reason; of the small one none.

using namespace troupe;
namespace fs = std::filesystem;

namespace {

constexpr const char* page_path = TROUPE_SOURCE_DIR "/docs/conformance.md";
constexpr const char* how_to_write = "TROUPE_WRITE_DOCS=1 build/bin/test_xml 'conformance*'";
constexpr std::string_view rates_begin = "<!-- rates: written by a test -->\n", rates_end = "<!-- end of rates -->\n";
constexpr std::string_view list_begin = "<!-- differences: checked by a test -->\n", list_end = "<!-- end of differences -->\n";

/// The QEMU that libvirt used; the same as a 32-bit one for documents that name that.
emulator_facts facts_for(const domain& guest) {
  static const auto facts = [] {
    auto read = emulator_facts_from(text_of(own_answers() / "qemu-7.2.facts"));
    REQUIRE(read);
    read->kvm_cpus = read->tcg_cpus;
    return *read;
  }();
  if (guest.devices.emulator == facts.binary)
    return facts;
  if (!guest.devices.emulator.ends_with("/qemu-system-i386"))
    return assumed_facts(guest, "x86_64");
  auto smaller = facts;
  smaller.binary = guest.devices.emulator;
  smaller.arch = "i386";
  for (auto& machine : smaller.machines)
    machine.default_cpu_type = "qemu32-i386-cpu";
  return smaller;
}

/// One word a line, backslash and newline escaped: the form in which command lines are kept.
std::string stored(const command_line& line) {
  std::string out;
  const auto add = [&](const std::string& word) {
    auto text = word;
    replace_all(text, "\\", "\\\\");
    replace_all(text, "\n", "\\n");
    out += text + "\n";
  };
  std::ranges::for_each(line.env, add);
  std::ranges::for_each(line.argv, add);
  return out;
}

/// What a document comes to: XML or command line, masked, or a refusal.
struct answer {
  std::string text;
  std::optional<error> refused;
};

answer refusal_of(const error& why) {
  return {{}, why};
}

/// A completed definition. Errors: those of reading and completing.
result<domain> define(const std::string& input) {
  auto guest = read_domain(input);
  if (!guest)
    return guest;
  choose_emulator(*guest, "x86_64");
  unsigned drawn = 0;
  const auto random = [&] {
    std::array<std::uint8_t, 16> bytes{};
    ++drawn;
    for (unsigned i = 0; i < 4; ++i)
      bytes[i] = bytes[12 + i] = static_cast<std::uint8_t>(drawn >> (8 * i));
    return bytes;
  };
  if (auto went = complete_definition(*guest, facts_for(*guest), random); !went)
    return tl::make_unexpected(went.error());
  choose_variables(*guest, "/var/lib/libvirt/qemu");
  return guest;
}

answer dumped(const std::string& input) {
  const auto guest = define(input);
  if (!guest)
    return refusal_of(guest.error());
  return {masked(write_domain(*guest, {.inactive = true}), input, *guest), {}};
}

/// QEMU's command line for a defined guest, which becomes what it is made for.
result<command_line> line_of(domain& guest) {
  const auto facts = facts_for(guest);
  forget_connections(guest);
  if (const auto placed = give_places(guest, facts, no_random); !placed)
    return tl::make_unexpected(placed.error());
  assign_aliases(guest);
  assign_display_ports(guest, {}, "127.0.0.1", "127.0.0.1");
  run_settings run;
  run.state_dir = "/var/lib/libvirt/qemu";
  run.run_dir = run_dir_under(run.state_dir, guest, run.id);
  run.path = "MASKED";
  run.generic_taps = true;
  return qemu_command_line(guest, facts, run);
}

answer native(const std::string& input) {
  auto guest = define(input);
  if (!guest)
    return refusal_of(guest.error());
  const auto line = line_of(*guest);
  if (!line)
    return refusal_of(line.error());
  return {masked(stored(*line), input, *guest), {}};
}

/// Whether the command line of a document, read as one, is the command line of what it becomes; nothing when it has none.
std::optional<bool> comes_back(const std::string& input) {
  const auto exported = [](result<domain> guest) -> std::optional<std::string> {
    auto line = guest ? line_of(*guest) : tl::make_unexpected(guest.error());
    return line ? std::optional{shell_line(*line)} : std::nullopt;
  };
  const auto once = exported(define(input));
  if (!once)
    return std::nullopt;
  const auto facts = facts_for(*define(input));
  auto imported = domain_from_argv(*once, &facts);
  return imported && complete_imported(*imported, facts, no_random) && exported(define(imported_xml(*imported))) == once;
}

/// What a document says, path by path; order, repetition, the guest's UUID and zeros ahead of a number left out.
void say(const xml_element& element, std::string path, std::set<std::string>& into) {
  path += "/" + element.name;
  auto text = element.text;
  std::erase_if(text, [](char c) { return c == '\n'; });
  const bool is_blank = text.find_first_not_of(' ') == text.npos;
  into.insert(is_blank || path == "/domain/uuid" ? path : path + " = " + text);
  for (const auto& each : element.attributes) {
    auto value = each.value;
    while (value.starts_with("0x0") && value.size() > 3)
      value.erase(2, 1);
    into.insert(path + "/@" + each.name + " = " + value);
  }
  for (const auto& each : element.children)
    if (each.is_element())
      say(each, path, into);
}

std::set<std::string> said_by(const std::string& xml) {
  std::set<std::string> out;
  if (const auto root = parse_xml(xml))
    say(*root, "", out);
  return out;
}

/// Whether the definition made of a command line says all that `wanted` says.
bool imports(const std::string& line, const std::string& wanted) {
  auto imported = domain_from_argv(line, nullptr);
  if (!imported || !complete_imported(*imported, assumed_facts(imported->guest, "x86_64"), no_random))
    return false;
  return std::ranges::includes(said_by(imported_xml(*imported)), said_by(wanted));
}

/// The words that say what kind of refusal it is, "XML error"; empty where there are none.
std::string_view kind_of(std::string_view message) {
  for (const auto& row : error_rows)
    if (const std::string_view text = row.text; !row.bare && message.starts_with(text))
      return text;
  return {};
}

/// `kind` and the name of the document.
using difference = std::pair<std::string, std::string>;

struct tally {
  std::set<difference> differ;
  std::map<std::string, std::pair<unsigned, unsigned>> rates; ///< agreed, asked

  void count(const std::string& what, const std::string& kind, const std::string& name, bool agreed) {
    auto& [good, all] = rates[what];
    good += agreed ? 1 : 0;
    ++all;
    if (!agreed)
      differ.emplace(kind, name);
  }
};

void compare_refusals(tally& into, const std::string& call, const std::string& name, const answer& ours,
                      const std::string& recorded) {
  constexpr std::string_view mark = "message: ";
  auto message = recorded.substr(recorded.find(mark) + mark.size());
  while (message.ends_with('\n'))
    message.pop_back();
  into.count(call + " refused", call + " accepts", name, ours.refused.has_value());
  if (!ours.refused)
    return;
  const auto said = ours.refused->message();
  const bool same_kind = kind_of(said) == kind_of(message);
  into.count(call + " refused, same kind", call + " other kind", name, same_kind);
  if (same_kind)
    into.count(call + " refused, same words", call + " other words", name, said == message);
}

/// What of the inputs is the host's doing: the column of that name in index.csv, or nothing.
std::map<std::string, std::string> host_reasons(const fs::path& root) {
  std::map<std::string, std::string> reasons;
  std::ifstream index{root / "index.csv"};
  for (std::string row; std::getline(index, row);) {
    std::vector<std::string> columns(1);
    bool quoted = false;
    for (const char c : row) {
      quoted ^= c == '"';
      c == ',' && !quoted ? (void)columns.emplace_back() : columns.back().push_back(c);
    }
    if (columns.size() > 9 && !columns[9].empty())
      reasons[columns[0]] = columns[9];
  }
  return reasons;
}

/// The historical command lines, each beside what libvirt's import once made of it.
std::vector<fs::path> lines_of(const fs::path& root) {
  std::vector<fs::path> all;
  if (fs::exists(root / "argv-in"))
    for (const auto& each : fs::directory_iterator{root / "argv-in"})
      if (each.path().extension() == ".args")
        all.push_back(each.path());
  return all;
}

tally compare(const fs::path& root) {
  tally found;
  const auto reasons = host_reasons(root);
  for (const auto& path : inputs_of(root)) {
    const auto name = path.stem().string();
    const auto input = text_of(path);
    const auto recorded = [&](const char* folder, const char* ending) {
      const auto file = root / folder / (name + ending);
      return fs::exists(file) ? std::optional{text_of(file)} : std::nullopt;
    };
    const auto reason = reasons.find(name);
    if (reason == reasons.end() || reason->second.find("swtpm") == std::string::npos) {
      const auto ours = dumped(input);
      if (const auto refused = recorded("reject", ".err"))
        compare_refusals(found, "define", name, ours, *refused);
      if (const auto wanted = recorded("inactive", ".xml")) {
        found.count("define", "define refuses", name, !ours.refused);
        found.count("dumpxml, byte for byte", "dumpxml", name, ours.text == *wanted);
      }
    }
    if (const auto came = comes_back(input))
      found.count("argv, read and written again", "argv again", name, *came);
    if (reason != reasons.end())
      continue;
    const auto ours = native(input);
    if (const auto wanted = recorded("argv", ".args"))
      found.count("argv, word for word", "argv", name, ours.text == *wanted);
    if (const auto refused = recorded("tonative-reject", ".err"); refused && !recorded("reject", ".err"))
      compare_refusals(found, "argv", name, ours, *refused);
  }
  for (const auto& path : lines_of(root))
    found.count("from argv", "from argv", path.stem().string(),
                imports(text_of(path), text_of(fs::path{path}.replace_extension(".xml"))));
  return found;
}

std::string rates_text(const tally& found) {
  std::string out = "| question | agreed | asked | |\n|---|---:|---:|---:|\n";
  for (const auto& [what, rate] : found.rates)
    out += fmt::format("| {} | {} | {} | {:.1f} % |\n", what, rate.first, rate.second, 100.0 * rate.first / rate.second);
  return out;
}

std::string_view between(std::string_view text, std::string_view begin, std::string_view end) {
  const auto from = text.find(begin);
  const auto to = text.find(end);
  if (from == text.npos || to == text.npos)
    return {};
  return text.substr(from + begin.size(), to - from - begin.size());
}

/// The rows of the list: "| kind | `name` | reason |".
std::map<difference, std::string> listed(std::string_view page) {
  std::map<difference, std::string> all;
  std::istringstream lines{std::string{between(page, list_begin, list_end)}};
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> cells;
    std::size_t from = 1;
    for (auto to = line.find(" |", from); to != line.npos; to = line.find(" |", from)) {
      cells.push_back(line.substr(from + 1, to - from - 1));
      from = to + 2;
    }
    if (cells.size() == 3 && cells[1].starts_with('`'))
      all[{cells[0], cells[1].substr(1, cells[1].size() - 2)}] = cells[2];
  }
  return all;
}

void rewrite(const tally& found) {
  auto page = text_of(page_path);
  const auto known = listed(page);
  std::string list = "| question | document | why |\n|---|---|---|\n";
  for (const auto& each : found.differ) {
    const auto row = known.find(each);
    list += fmt::format("| {} | `{}` | {} |\n", each.first, each.second, row == known.end() ? "" : row->second);
  }
  const auto put = [&](std::string_view begin, std::string_view end, const std::string& text) {
    const auto old = between(page, begin, end);
    REQUIRE(old.data() != nullptr);
    page.replace(static_cast<std::size_t>(old.data() - page.data()), old.size(), text);
  };
  put(rates_begin, rates_end, rates_text(found));
  put(list_begin, list_end, list);
  std::ofstream{page_path} << page;
}

} // namespace

TEST_CASE("conformance: our own documents get libvirt's answers, all of them", "[xml]") {
  const auto found = compare(own_answers());
  REQUIRE_FALSE(found.rates.empty());
  for (const auto& [kind, name] : found.differ)
    FAIL_CHECK(kind << ": " << name);
}

TEST_CASE("conformance: what differs from libvirt's answers is what docs/conformance.md lists, no more and no less", "[xml]") {
  const auto root = corpus_root();
  if (root.empty()) {
    WARN("skipped: there is no large set of libvirt's answers beside this tree; TROUPE_CORPUS names its folder");
    return;
  }
  const auto found = compare(root);
  if (std::getenv("TROUPE_WRITE_DOCS") != nullptr)
    rewrite(found);
  const auto page = text_of(page_path);
  const auto known = listed(page);
  INFO("when the change is meant, write the page anew and give each new row its reason: " << how_to_write);
  for (const auto& each : found.differ)
    if (const auto row = known.find(each); row == known.end() || row->second.empty())
      FAIL_CHECK("not listed, or without a reason: " << each.first << ": " << each.second);
  for (const auto& [each, reason] : known)
    if (!found.differ.contains(each))
      FAIL_CHECK("listed, but agrees: " << each.first << ": " << each.second);
  CHECK(between(page, rates_begin, rates_end) == rates_text(found));
}
