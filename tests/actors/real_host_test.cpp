#include "actors/real_host.hpp"

#include "tests/catch.hpp"
#include "tests/runtime/run_until.hpp"
#include "tests/temp_dir.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>

using namespace troupe;
namespace fs = std::filesystem;

namespace {

/// A machine whose emulators, modules, firmware and cache are below a folder.
struct standing {
  loop on;
  temp_dir root;

  standing() {
    for (const auto* folder : {"bin", "bin2", "cache", "modules", "firmware"})
      fs::create_directory(root / folder);
  }

  std::unique_ptr<real_host> daemon(std::string identity = "kernel 1, microcode 1") {
    real_host_setup setup;
    setup.paths.cache = root / "cache";
    setup.host_identity = std::move(identity);
    setup.emulator_folders = {root / "bin", root / "missing", root / "bin2"};
    setup.module_folders = {root / "modules"};
    setup.firmware_folders = {root / "firmware"};
    return std::make_unique<real_host>(on, std::move(setup));
  }

  std::string program(const std::string& name, const std::string& contents = "#!/bin/sh\n") {
    const auto path = write_file(root / name, contents);
    fs::permissions(path, fs::perms{0755});
    return path;
  }

  /// What a call answers.
  template <class T, class Call>
  result<T> ask(Call call) {
    std::optional<result<T>> got;
    call([&got](result<T> answer) { got = std::move(answer); });
    run_until(on, [&] { return got.has_value(); });
    return std::move(*got);
  }

  result<host::remembered> recall(host& machine, const std::string& binary, const std::string& known = {}) {
    return ask<host::remembered>([&](auto then) { machine.recall_facts(binary, known, std::move(then)); });
  }
};

} // namespace

TEST_CASE("real host: what was remembered of an emulator is recalled by the next daemon, as long as nothing changed", "[actors]") {
  standing it;
  const auto binary = it.program("bin/qemu");
  auto machine = it.daemon();
  const auto first = it.recall(*machine, binary);
  REQUIRE(first);
  CHECK(first->text.empty());
  REQUIRE(it.ask<done>([&](auto then) { machine->remember_facts(first->key, "facts", std::move(then)); }));
  CHECK(it.recall(*machine, binary)->text == "facts");
  CHECK(it.recall(*machine, binary, first->key)->text.empty()); // known already
  machine = it.daemon();
  CHECK(it.recall(*machine, binary)->text == "facts");

  SECTION("the kernel or the CPU") {
    machine = it.daemon("kernel 1, microcode 2");
  }
  SECTION("the binary's time") {
    fs::last_write_time(binary, fs::last_write_time(binary) + std::chrono::seconds{1});
  }
  SECTION("its size") {
    it.program("bin/qemu", "#!/bin/sh\nexit 1\n");
  }
  SECTION("another in its place") {
    it.program("bin/new", "#!/bin/sh\n");
    fs::rename(it.root / "bin/new", binary);
  }
  SECTION("a module that was added") {
    write_file(it.root / "modules/spice.so", "");
    fs::last_write_time(it.root / "modules", fs::last_write_time(it.root / "modules") + std::chrono::seconds{1});
  }
  SECTION("a cache file that belongs to another key") {
    for (const auto& file : fs::directory_iterator{it.root / "cache"})
      write_file(file.path(), "another key\nfacts");
  }
  CHECK(it.recall(*machine, binary)->text.empty());
}

TEST_CASE("real host: a binary that cannot be run is refused by name", "[actors]") {
  standing it;
  const auto machine = it.daemon();
  write_file(it.root / "bin/plain", "");
  fs::permissions(it.root / "bin/plain", fs::perms{0644});
  for (const auto* name : {"bin/none", "bin/plain", "bin"}) {
    const auto kept = it.recall(*machine, it.root / name);
    REQUIRE_FALSE(kept);
    CHECK(kept.error().code == errc::operation_failed);
    CHECK(kept.error().detail.find(it.root / name) != std::string::npos);
  }
}

TEST_CASE("real host: emulators are found by their names, each program once", "[actors]") {
  standing it;
  for (const auto* name : {"bin/qemu", "bin/qemu-kvm", "bin/qemu-system-x86_64", "bin2/qemu-system-arm", "bin/qemu-img", "bin/other"})
    it.program(name);
  write_file(it.root / "bin/qemu-system-plain", "");
  fs::permissions(it.root / "bin/qemu-system-plain", fs::perms{0644});
  fs::create_directory(it.root / "bin/qemu-system-folder");
  fs::create_symlink(it.root / "bin/qemu-system-x86_64", it.root / "bin2/qemu-system-x86_64");
  fs::create_symlink("nowhere", it.root / "bin2/qemu-kvm");
  const auto machine = it.daemon();
  const auto found = it.ask<std::vector<std::string>>([&](auto then) { machine->find_emulators(std::move(then)); });
  REQUIRE(found);
  CHECK(*found == std::vector<std::string>{it.root / "bin/qemu", it.root / "bin/qemu-kvm", it.root / "bin/qemu-system-x86_64",
                                           it.root / "bin2/qemu-system-arm"});
}

TEST_CASE("real host: firmware is found as it is now, and one bad descriptor hides no other", "[actors]") {
  standing it;
  const auto machine = it.daemon();
  const auto look = [&] { return it.ask<host_firmware>([&](auto then) { machine->find_firmware(std::move(then)); }); };
  CHECK(look()->described.empty());
  write_file(it.root / "firmware/10-bad.json", "{");
  write_file(it.root / "firmware/20-good.json",
             R"({"interface-types": ["uefi"], "features": [], "targets": [],
                 "mapping": {"device": "memory", "filename": "/bios"}})");
  const auto found = look();
  REQUIRE(found);
  REQUIRE(found->described.size() == 1);
  CHECK(found->described[0].executable == "/bios");
}
