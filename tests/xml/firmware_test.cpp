#include "xml/firmware.hpp"

#include "tests/catch.hpp"

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
