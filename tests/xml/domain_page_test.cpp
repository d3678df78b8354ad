#include "tests/xml/domain_page.hpp"

#include "tests/catch.hpp"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>

using namespace troupe;

namespace {

constexpr const char* page_path = TROUPE_SOURCE_DIR "/docs/domain-xml.md";
constexpr const char* how_to_write = "TROUPE_WRITE_DOCS=1 build/bin/test_xml 'domain page*'";

/// What becomes of an element: of it, and of all below it that have no row of their own.
struct fate_row {
  std::string_view path, fate;
};
constexpr fate_row fates[] = {
#include "tests/xml/domain_fates.inc"
};

/// Where we part from libvirt 9.0.0, and why.
struct difference_row {
  std::string_view what, here, why;
};
constexpr difference_row differences[] = {
  {"elements and attributes that are not in this page", "kept where they stood and written back behind what is known",
   "libvirt drops them without a word; a definition written for a newer peer loses nothing here"},
  {"`<metadata>`", "kept as it is, also what has no namespace or repeats one",
   "libvirt keeps the last element of each namespace; what users wrote is theirs"},
  {"elements of libvirt's other drivers (`test:`, `bhyve:`, `xen:`)", "dropped, as libvirt does",
   "to a guest of QEMU they are nothing"},
  {"`<crypto>`, `<tlbflush><direct/>`, `<dataStore>`", "crypto devices are given to QEMU, the others are kept",
   "they are younger than libvirt 9.0.0, which drops them"},
  {"two serial ports with one `<target port>`", "refused at define",
   "libvirt takes them when no type is given, then refuses its own definition after a restart; QEMU refuses them too"},
  {"`<cpu mode='host-model'>` at the start", "`-cpu host,migratable=on` (`max` without KVM); `dumpxml --update-cpu` names the model",
   "the features of a host's model that KVM lacks there, as in a VM, make QEMU refuse a named one"},
  {"refusals", "say the line and what would be accepted behind libvirt's words",
   "a person who reads them need not look for it"},
  {"`<cookies>` of HTTP disks, passwords of displays", "shown with `--security-info` only", "they are secrets"},
  {"`<auth>`, `<encryption>`", "read and written; a start is refused with the name of the disk",
   "QEMU would need the secret, and secrets are not kept here"},
};

std::string_view fate_of(std::string path) {
  while (true) {
    const auto row = std::ranges::find(fates, std::string_view{path}, &fate_row::path);
    if (row != std::end(fates))
      return row->fate;
    const auto slash = path.rfind('/');
    if (slash == path.npos)
      return {};
    path.resize(slash);
  }
}

bool has_own_fate(std::string_view path) {
  return std::ranges::find(fates, path, &fate_row::path) != std::end(fates);
}

/// What is the same in every device or image, and told once.
bool told_once(std::string_view path, const described_element& each) {
  constexpr std::string_view places[] = {"alias", "boot", "rom", "acpi"};
  if (path.starts_with("devices/") && std::ranges::find(places, each.name) != std::end(places))
    return true;
  const bool device_address = each.name == "address" && std::ranges::any_of(each.attributes, [](const auto& attribute) {
                                return attribute.name == "multifunction";
                              });
  return device_address;
}

std::string cell(const described_element& each) {
  std::string out;
  for (const auto& attribute : each.attributes) {
    out += (out.empty() ? "`" : "<br>`") + attribute.name + "`";
    if (!attribute.takes.empty() && attribute.takes != "text")
      out += ": " + attribute.takes;
  }
  return out;
}

void add_rows(std::string& out, const described_element& each, const std::string& path, std::string_view section) {
  const auto shown = path.size() > section.size() ? path.substr(section.size() + 1) : path;
  out += "| `" + shown + "`" + (each.several ? " …" : "") + " | " + each.takes + (each.kept ? "kept as it is" : "") +
         " | " + cell(each) + " | " + std::string{has_own_fate(path) ? fate_of(path) : ""} + " |\n";
  if (path != "devices/disk/source" && each.name == "source" &&
      std::ranges::any_of(each.children, [](const auto& below) { return below.name == "slices"; })) {
    out += "| | | as `<source>` of a disk | |\n";
    return;
  }
  for (const auto& below : each.children)
    if (!told_once(path, below))
      add_rows(out, below, path + "/" + below.name, section);
}

void add_section(std::string& out, const described_element& each, const std::string& path, std::string_view marks) {
  out += "\n" + std::string{marks} + " `<" + each.name + ">`\n\n";
  out += std::string{fate_of(path)} + "\n\n";
  out += "| element | content | attributes | becomes |\n|---|---|---|---|\n";
  out += "| `" + each.name + "`" + (each.several ? " …" : "") + " | " + each.takes + (each.kept ? "kept as it is" : "") +
         " | " + cell(each) + " | |\n";
  for (const auto& below : each.children)
    if (!told_once(path, below))
      add_rows(out, below, path + "/" + below.name, path);
}

std::string page() {
  describing_visitor visitor;
  const auto root = visitor.walk<domain>("domain");
  std::string out = "# Domain XML\n\n"
                    "Every element and attribute of a definition that is understood, what it takes, and what becomes of it.\n"
                    "Written from the descriptions in `xml/describe_*.hpp`; do not edit it, but run\n\n    " +
                    std::string{how_to_write} +
                    "\n\n`…` marks what may stand several times. Attributes take any text unless it says otherwise. "
                    "Where nothing stands under\n\"becomes\" the words above the table hold. [Conformance](conformance.md) "
                    "says how far all this agrees with libvirt 9.0.0.\n";
  out += "\n## Where it differs from libvirt 9.0.0\n\n| what | here | why |\n|---|---|---|\n";
  for (const auto& row : differences)
    out.append("| ").append(row.what).append(" | ").append(row.here).append(" | ").append(row.why).append(" |\n");
  out += "\n## `<domain>`\n\n" + std::string{fate_of("domain")} +
         "\n\n| element | content | attributes | becomes |\n|---|---|---|---|\n| `domain` | | " + cell(root) + " | |\n";
  for (const auto& each : root.children)
    if (each.children.empty())
      add_rows(out, each, each.name, "");
  for (const auto& each : root.children)
    if (!each.children.empty() && each.name != "devices")
      add_section(out, each, each.name, "##");
  const auto devices = std::ranges::find(root.children, "devices", &described_element::name);
  const auto disk = std::ranges::find(devices->children, "disk", &described_element::name);
  out += "\n## Devices\n\nWhat every device has:\n\n| element | content | attributes | becomes |\n|---|---|---|---|\n";
  for (const auto& each : disk->children)
    if (told_once("devices/disk", each))
      add_rows(out, each, "device/" + each.name, "device");
  for (const auto& each : devices->children)
    add_section(out, each, "devices/" + each.name, "###");
  return out;
}

void each_path(const described_element& from, const std::string& path, std::set<std::string>& into) {
  for (const auto& each : from.children) {
    const auto mine = path.empty() ? each.name : path + "/" + each.name;
    into.insert(mine);
    each_path(each, mine, into);
  }
}

} // namespace

TEST_CASE("domain page: docs/domain-xml.md is what the descriptions give", "[xml]") {
  const auto wanted = page();
  if (std::getenv("TROUPE_WRITE_DOCS") != nullptr)
    std::ofstream{page_path} << wanted;
  std::ifstream file{page_path};
  const std::string there{std::istreambuf_iterator<char>{file}, {}};
  INFO("the page is not what the descriptions give; write it anew: " << how_to_write);
  CHECK((there == wanted)); // the whole page is no message
}

TEST_CASE("domain page: it is told of every element what becomes of it, and of no other", "[xml]") {
  describing_visitor visitor;
  std::set<std::string> all;
  each_path(visitor.walk<domain>("domain"), "", all);
  for (const auto& path : all) {
    INFO(path);
    const bool in_devices = path.starts_with("devices/");
    CHECK((path == "devices" || !fate_of(path).empty() || (!in_devices && path.find('/') == path.npos && has_own_fate(path))));
  }
  for (const auto& row : fates) {
    INFO(row.path);
    CHECK((row.path == "domain" || row.path.starts_with("device/") || all.contains(std::string{row.path})));
  }
}

TEST_CASE("domain page: the descriptions name each attribute of a device's address", "[xml]") {
  describing_visitor visitor;
  const auto place = visitor.walk<device_address>("address");
  for (const char* name : {"type", "domain", "controller", "target", "port", "reg", "iobase", "base", "cssid"}) {
    INFO(name);
    CHECK(std::ranges::find(place.attributes, name, &described_attribute::name) != place.attributes.end());
  }
}
