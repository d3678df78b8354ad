#include "xml/firmware.hpp"

#include "tests/catch.hpp"
#include "tests/xml/definitions.hpp"

#include <nlohmann/json.hpp>

using namespace troupe;
using nlohmann::json;

namespace {

json descriptor() {
  return json::parse(R"({
    "description": "UEFI", "interface-types": ["uefi"],
    "mapping": {"device": "flash", "executable": {"filename": "/code", "format": "raw"},
                "nvram-template": {"filename": "/vars", "format": "qcow2"}},
    "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-?.?"]}, {"architecture": "aarch64", "machines": ["*"]}],
    "features": ["secure-boot"], "tags": []})");
}

using texts = std::vector<std::string>;

} // namespace

TEST_CASE("firmware: a descriptor is read", "[xml]") {
  const auto one = read_firmware("f", descriptor().dump());
  REQUIRE(one);
  CHECK(one->what == firmware_descriptor::device::flash);
  CHECK(one->interfaces == texts{"uefi"});
  CHECK(one->executable == "/code");
  CHECK(one->nvram_template == "/vars");
  CHECK(one->nvram_format == "qcow2");
  CHECK(one->has("secure-boot"));
  CHECK_FALSE(one->has("secure"));

  auto bios = descriptor();
  bios["mapping"] = {{"device", "memory"}, {"filename", "/bios"}};
  CHECK(read_firmware("f", bios.dump())->executable == "/bios");
  auto stateless = descriptor();
  stateless["mapping"]["mode"] = "stateless";
  stateless["mapping"].erase("nvram-template");
  CHECK(read_firmware("f", stateless.dump())->nvram_template.empty());
}

TEST_CASE("firmware: patterns say for which machines it is made", "[xml]") {
  const auto one = *read_firmware("f", descriptor().dump());
  CHECK(suits(one, "x86_64", "pc-i440fx-7.2"));
  CHECK(suits(one, "x86_64", "pc-i440fx-"));
  CHECK(suits(one, "x86_64", "pc-q35-7.2"));
  CHECK_FALSE(suits(one, "x86_64", "pc-q35-7.20"));
  CHECK_FALSE(suits(one, "x86_64", "pc-q35-7"));
  CHECK_FALSE(suits(one, "x86_64", "microvm"));
  CHECK_FALSE(suits(one, "i386", "pc-i440fx-7.2"));
  CHECK(suits(one, "aarch64", "virt-7.2"));
  CHECK(suits(one, "aarch64", ""));
  auto stars = one;
  stars.targets = {{"x86_64", {"*a*b"}}};
  CHECK(suits(stars, "x86_64", "aab"));
  CHECK(suits(stars, "x86_64", "xabcab"));
  CHECK_FALSE(suits(stars, "x86_64", "abc"));
}

TEST_CASE("firmware: a descriptor that lacks or mistakes anything is refused by its name", "[xml]") {
  const auto refused = [](const json& from) {
    const auto one = read_firmware("/etc/qemu/firmware/x.json", from.dump());
    return !one && one.error().code == errc::unsupported_config &&
           one.error().detail.find("/etc/qemu/firmware/x.json") != std::string::npos;
  };
  const auto whole = descriptor().flatten();
  for (const auto& [path, value] : whole.items()) {
    if (path == "/description" || path.starts_with("/tags"))
      continue;
    auto damaged = descriptor();
    damaged[json::json_pointer{path}] = 7;
    INFO(path);
    CHECK(refused(damaged));
  }
  for (const auto* key : {"interface-types", "features", "targets", "mapping"}) {
    auto damaged = descriptor();
    damaged.erase(key);
    CHECK(refused(damaged));
  }
  auto device = descriptor();
  device["mapping"]["device"] = "tape";
  CHECK(refused(device));
  CHECK_FALSE(read_firmware("f", "{"));
  CHECK_FALSE(read_firmware("f", std::string(200'000, '[')));
  CHECK_FALSE(read_firmware("f", std::string(2u << 20, ' ')));
}

TEST_CASE("firmware: a machine's choice has each loader once, in order, and only by descriptor where there is one", "[xml]") {
  host_firmware host;
  host.usual_loaders = {"/usual"};
  CHECK(firmware_for(host, "x86_64", "pc-q35-7.2").loaders == texts{"/usual"});
  auto uefi = *read_firmware("f", descriptor().dump());
  auto bios = uefi;
  bios.what = firmware_descriptor::device::memory;
  bios.interfaces = {"bios"};
  bios.executable = "/bios";
  auto other = uefi;
  other.executable = "/other";
  other.features = {"secure-boot", "requires-smm"};
  host.described = {uefi, bios, other, uefi};
  const auto choice = firmware_for(host, "x86_64", "pc-q35-7.2");
  CHECK(choice.loaders == texts{"/code", "/other"});
  CHECK(choice.interfaces == texts{"bios", "efi"});
  CHECK(choice.secure);
  CHECK(firmware_for(host, "i386", "pc-q35-7.2").loaders == texts{"/usual"});
  CHECK_FALSE(firmware_for(host, "i386", "pc-q35-7.2").secure);
}

namespace {

firmware_descriptor flash(std::string name, texts features) {
  firmware_descriptor out;
  out.interfaces = {"uefi"};
  out.executable = "/" + name;
  out.executable_format = "raw";
  out.nvram_template = "/" + name + "-vars";
  out.targets = {{"x86_64", {"pc-q35-*"}}};
  out.features = std::move(features);
  return out;
}

/// What a guest with that in its `<os>` and beside it starts with: loader, template, and the variables' file; or why not.
std::string chosen(const std::string& os, const std::string& beside = {}, const std::string& machine = "q35") {
  host_firmware host;
  host.described = {flash("enrolled", {"secure-boot", "enrolled-keys", "requires-smm"}),
                    flash("secure", {"secure-boot", "requires-smm"}), flash("plain", {"acpi-s3"})};
  firmware_descriptor bios;
  bios.what = firmware_descriptor::device::memory;
  bios.interfaces = {"bios"};
  bios.executable = "/bios";
  bios.targets = {{"x86_64", {"pc-*"}}};
  host.described.push_back(bios);
  auto guest = read_domain("<domain type='qemu'><name>g</name><memory>65536</memory><os " + os + "</os>" + beside + "</domain>");
  INFO(os << (guest ? "" : guest.error().message()));
  REQUIRE(guest);
  guest->os.arch = "x86_64";
  guest->os.machine = machine == "q35" ? "pc-q35-7.2" : "pc-i440fx-7.2";
  if (!wants_firmware(*guest))
    return "no wish";
  if (const auto went = choose_firmware(*guest, host, "x86_64"); !went) {
    CHECK(went.error().code == errc::unsupported_config);
    return went.error().detail;
  }
  choose_variables(*guest, "/state");
  auto out = guest->os.loader->type + " " + guest->os.loader->path;
  if (guest->os.nvram)
    out += " " + guest->os.nvram->template_path + " " + guest->os.nvram->path;
  const bool smm = guest->features && guest->features->smm && guest->features->smm_state == on_off::on;
  return out + (smm ? " smm" : "");
}

constexpr const char* type = "<type>hvm</type>";

} // namespace

TEST_CASE("firmware: a guest that leaves it open gets the first that is what it asks for", "[xml]") {
  const auto efi = std::string{"firmware='efi'>"} + type;
  CHECK(chosen(efi) == "pflash /enrolled /enrolled-vars /state/nvram/g_VARS.fd smm");
  CHECK(chosen(efi + "<firmware><feature enabled='no' name='enrolled-keys'/></firmware>") ==
        "pflash /secure /secure-vars /state/nvram/g_VARS.fd smm");
  CHECK(chosen(efi + "<loader secure='no'/>") == "pflash /plain /plain-vars /state/nvram/g_VARS.fd");
  CHECK(chosen(efi, "<features><smm state='off'/></features>") == "pflash /plain /plain-vars /state/nvram/g_VARS.fd");
  CHECK(chosen(efi + "<nvram>/mine</nvram>") == "pflash /enrolled /enrolled-vars /mine smm");
  CHECK(chosen(efi + "<nvram template='/t'/>") == "pflash /enrolled /t /state/nvram/g_VARS.fd smm");
  CHECK(chosen(std::string{"firmware='bios'>"} + type, {}, "pc") == "rom /bios");
}

TEST_CASE("firmware: a named loader keeps its place and learns what its variables begin as", "[xml]") {
  const auto named = std::string{">"} + type + "<loader type='pflash' readonly='yes'>/plain</loader>";
  CHECK(chosen(named) == "pflash /plain /plain-vars /state/nvram/g_VARS.fd");
  CHECK(chosen(std::string{">"} + type + "<loader type='pflash' readonly='yes'>/other</loader>") ==
        "pflash /other  /state/nvram/g_VARS.fd");
  CHECK(chosen(named + "<nvram template='/t'>/v</nvram>") == "no wish");
  CHECK(chosen(std::string{">"} + type + "<loader type='rom'>/x</loader>") == "no wish");
  CHECK(chosen(std::string{">"} + type) == "no wish");
}

TEST_CASE("firmware: none that suits is an error that says what was asked for", "[xml]") {
  const auto why = chosen(std::string{"firmware='efi'>"} + type, {}, "pc");
  CHECK_THAT(why, Catch::Matchers::StartsWith("Unable to find any firmware to satisfy 'efi'"));
  CHECK_THAT(why, Catch::Matchers::Contains("guest 'g'"));
  CHECK_THAT(why, Catch::Matchers::Contains("pc-i440fx-7.2"));
  CHECK_THAT(chosen(std::string{"firmware='efi'>"} + type + "<loader secure='yes'/>",
                    "<features><smm state='off'/></features>"),
             Catch::Matchers::Contains("secure='yes'"));
}
