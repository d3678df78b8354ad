#include "tests/actors/actor_fixture.hpp"

using namespace troupe;
using namespace troupe::sim;

namespace {

secure_guest wish_of(int number, std::vector<std::string> paths) {
  secure_guest wish;
  wish.uuid = uuid_for(number);
  wish.name = fmt::format("web{}", number);
  for (auto& path : paths)
    wish.paths.push_back({.path = std::move(path)});
  return wish;
}

/// The security manager, with the rest of a company that does nothing meanwhile.
struct manager : company_fixture {
  explicit manager(std::uint64_t seed = 0, confinement_model::kind model = confinement_model::kind::none)
    : company_fixture{seed, model} {
    world->add_file("/images/a", 1000, 1000);
    world->add_file("/images/b", 0, 6);
    settle();
  }
  outcome<guest_identity> wants(const secure_guest& wish) { return now->ask<guest_identity>(now->security, wish); }
  result<guest_identity> secure(const secure_guest& wish) { return answer(wants(wish)); }
  outcome<done> leaves(int number) { return now->ask<done>(now->security, release_guest{uuid_for(number), {}}); }
  void release(int number) { REQUIRE(answer(leaves(number))); }
  const fake_file& file(const std::string& path) { return world->files.at(path); }
  std::string owner(const std::string& path) { return file(path).labels.at("dac"); }
  bool is_taken(const std::string& path) { return owner(path) == owner_label(qemu_uid, qemu_gid); }
  bool is_as_before(const std::string& path) { return file(path) == world->first_owners.at(path); }
};

} // namespace

TEST_CASE("security manager: files are taken, and given back to whom they belonged", "[actors]") {
  manager it;
  const auto who = it.secure(wish_of(1, {"/images/a", "/images/b"}));
  REQUIRE(who);
  CHECK(who->change);
  CHECK(who->label == "+64055:+108");
  CHECK(it.is_taken("/images/a"));
  CHECK(it.is_taken("/images/b"));
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.is_as_before("/images/b"));
  CHECK(it.world->file_rows.empty());
  CHECK(it.world->violations.empty());
}

TEST_CASE("security manager: a shared file goes back with the last guest that has it", "[actors]") {
  for (const bool first_leaves_first : {true, false}) {
    manager it;
    REQUIRE(it.secure(wish_of(1, {"/images/a"})));
    REQUIRE(it.secure(wish_of(2, {"/images/a", "/images/b"})));
    it.release(first_leaves_first ? 1 : 2);
    CHECK(it.is_taken("/images/a"));
    it.release(first_leaves_first ? 2 : 1);
    CHECK(it.is_as_before("/images/a"));
    CHECK(it.is_as_before("/images/b"));
    CHECK(it.world->file_rows.empty());
  }
}

TEST_CASE("security manager: what cannot be taken leaves everything as it was, and the answer names guest and path",
          "[actors]") {
  manager it;
  REQUIRE(it.secure(wish_of(1, {"/images/a"})));
  it.world->fault = [](std::string_view call, const std::string& about) -> std::optional<error> {
    if (call == "take_file" && about == "/images/b")
      return error{errc::operation_failed, "cannot give '/images/b' to 64055"};
    return std::nullopt;
  };
  const auto who = it.secure(wish_of(2, {"/images/a", "/images/b"}));
  REQUIRE_FALSE(who);
  CHECK(who.error().code == errc::operation_failed);
  CHECK(who.error().detail == "guest 'web2': cannot give '/images/b' to 64055");
  CHECK(it.is_taken("/images/a")); // the first guest's
  CHECK(it.is_as_before("/images/b"));
  REQUIRE(it.world->file_rows.size() == 1);
  CHECK(it.world->file_rows.front().guest_uuid == uuid_for(1));
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
}

TEST_CASE("security manager: nothing is taken when the ledger does not take the intent", "[actors]") {
  manager it;
  it.world->fault = [](std::string_view call, const std::string& about) -> std::optional<error> {
    if (call == "commit" && about.starts_with("files of"))
      return error{errc::system, "no space left on device"};
    return std::nullopt;
  };
  const auto who = it.secure(wish_of(1, {"/images/a"}));
  REQUIRE_FALSE(who);
  CHECK(who.error().detail == "guest 'web1': no space left on device");
  CHECK(it.is_as_before("/images/a"));
  it.world->fault = nullptr;
  REQUIRE(it.secure(wish_of(1, {"/images/a"})));
  CHECK(it.is_taken("/images/a"));
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
}

TEST_CASE("security manager: a missing file and an unknown user are refused with the guest's name", "[actors]") {
  manager it;
  const auto missing = it.secure(wish_of(1, {"/images/gone"}));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().detail == "guest 'web1': '/images/gone' is not there");
  auto wish = wish_of(1, {"/images/a"});
  wish.user = "nobody-knows:nobody-knows";
  const auto unknown = it.secure(wish);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().detail.find("guest 'web1': DAC label 'nobody-knows:nobody-knows'") == 0);
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.world->file_rows.empty());
}

TEST_CASE("security manager: a file gets the owner that its definition gives it, or none", "[actors]") {
  manager it;
  it.world->add_file("/images/c", 5, 5);
  auto wish = wish_of(1, {"/images/a", "/images/b", "/images/c"});
  wish.user = "+7:+8";
  wish.paths[0].labels = {{"selinux", false, ""}, {"dac", true, "+1:+2"}};
  wish.paths[1].labels = {{"dac", false, ""}};
  wish.paths[2].labels = {{"selinux", true, "a_u:a_r:a_t:s0"}};
  const auto who = it.secure(wish);
  REQUIRE(who);
  CHECK(who->label == "+7:+8");
  CHECK(it.owner("/images/a") == "+1:+2");
  CHECK(it.is_as_before("/images/b"));
  CHECK(it.owner("/images/c") == "+7:+8");
  it.crash();
  it.settle();
  for (const auto* path : {"/images/a", "/images/b", "/images/c"})
    CHECK(it.is_as_before(path));

  wish.paths[0].labels = {{"dac", true, "nobody-knows:nobody-knows"}};
  const auto unknown = it.secure(wish);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().detail.find("guest 'web1': DAC label 'nobody-knows:nobody-knows' of '/images/a'") == 0);
  wish.relabel = false;
  wish.paths[0].labels.clear();
  REQUIRE(it.secure(wish));
  for (const auto* path : {"/images/a", "/images/b", "/images/c"})
    CHECK(it.is_as_before(path));
}

TEST_CASE("security manager: a file that a guest has to itself gets no other owner", "[actors]") {
  for (const bool after_restart : {false, true}) {
    manager it;
    REQUIRE(it.secure(wish_of(1, {"/images/a"})));
    if (after_restart) {
      const auto kept = it.world->file_rows;
      it.release(1);
      it.world->files["/images/a"].labels["dac"] = owner_label(qemu_uid, qemu_gid);
      it.world->file_rows = kept;
      caf::anon_send(it.now->security, recall_labels{kept});
    }
    auto wish = wish_of(2, {"/images/a", "/images/b"});
    wish.user = "+7:+8";
    const auto who = it.secure(wish);
    REQUIRE_FALSE(who);
    CHECK(who.error().code == errc::wrong_state);
    CHECK(who.error().detail == "guest 'web2': '/images/a' is in use by another guest with the dac label '+64055:+108': "
                                "it cannot be '+7:+8' as well");
    CHECK(it.is_taken("/images/a"));
    CHECK(it.is_as_before("/images/b"));
    wish.paths[0].shared = true; // the other one does not share
    CHECK_FALSE(it.secure(wish));
    it.release(1);
    CHECK(it.is_as_before("/images/a"));
    REQUIRE(it.secure(wish));
    CHECK(it.owner("/images/a") == "+7:+8");
    it.release(2);
    CHECK(it.is_as_before("/images/a"));
  }
}

TEST_CASE("security manager: what another supervisor's guest uses gets no other owner", "[actors]") {
  manager it;
  it.world->held_by_others["/images/a"] = 1;
  const auto who = it.secure(wish_of(1, {"/images/a"}));
  REQUIRE_FALSE(who);
  CHECK(who.error().code == errc::wrong_state);
  CHECK(who.error().detail == "guest 'web1': '/images/a' is in use by another supervisor's guest with the dac label "
                              "'+1000:+1000': it cannot be '+64055:+108' as well");
  CHECK(it.is_as_before("/images/a"));
  auto wish = wish_of(1, {"/images/a"});
  wish.user = "+1000:+1000"; // the same
  REQUIRE(it.secure(wish));
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
}

TEST_CASE("security manager: a guest that ends while its user is looked up gets nothing", "[actors]") {
  manager it;
  auto wish = wish_of(1, {"/images/a"});
  wish.user = "+7:+8";
  const auto taking = it.wants(wish);
  const auto leaving = it.leaves(1);
  REQUIRE(it.answer(leaving));
  const auto who = it.answer(taking);
  REQUIRE_FALSE(who);
  CHECK(who.error().code == errc::aborted);
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.world->file_rows.empty());
}

TEST_CASE("security manager: a guest whose files hang delays no other", "[actors]") {
  manager it;
  it.world->add_file("/nfs/dead", 0, 0);
  it.world->stuck = [](std::string_view, const std::string& about) { return about == "/nfs/dead"; };
  const auto stuck = it.wants(wish_of(1, {"/nfs/dead", "/images/a"}));
  REQUIRE(it.secure(wish_of(2, {"/images/a"})));
  it.release(2);
  CHECK(it.is_as_before("/images/a"));
  CHECK_FALSE(stuck->has_value());
}

TEST_CASE("security manager: a guest that is gone from the ledger gives its files back at the next start", "[actors]") {
  manager it;
  REQUIRE(it.secure(wish_of(1, {"/images/a"})));
  it.crash(); // no guest row: the daemon died before, or after, there was one
  it.settle();
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.world->file_rows.empty());
}

TEST_CASE("security manager: two guests that come and go at the same time leave a shared file as it was", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    manager it{seed};
    std::mt19937_64 draw{seed};
    for (int round = 0; round < 4; ++round) {
      std::vector<outcome<guest_identity>> taking;
      for (int guest = 1; guest <= 3; ++guest)
        taking.push_back(it.wants(wish_of(guest, {"/images/a", "/images/b"})));
      for (auto& each : taking)
        REQUIRE(it.answer(each));
      REQUIRE(it.is_taken("/images/a"));
      std::vector<outcome<done>> leaving;
      for (int guest = 1; guest <= 2; ++guest)
        leaving.push_back(it.leaves(guest));
      const bool keeps = draw() % 2 == 0;
      if (!keeps)
        leaving.push_back(it.leaves(3));
      for (auto& each : leaving)
        REQUIRE(it.answer(each));
      REQUIRE((keeps ? it.is_taken("/images/a") : it.is_as_before("/images/a")));
      if (keeps)
        it.release(3);
      REQUIRE(it.is_as_before("/images/a"));
      REQUIRE(it.is_as_before("/images/b"));
      REQUIRE(it.world->violations == std::vector<std::string>{});
    }
  }
}

TEST_CASE("security manager: files that are taken while others give them back are taken in the end", "[actors]") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    manager it{seed};
    REQUIRE(it.secure(wish_of(1, {"/images/a", "/images/b"})));
    const auto leaving = it.leaves(1);
    const auto taking = it.wants(wish_of(2, {"/images/b", "/images/a"}));
    REQUIRE(it.answer(leaving));
    REQUIRE(it.answer(taking));
    REQUIRE(it.is_taken("/images/a"));
    REQUIRE(it.is_taken("/images/b"));
    it.release(2);
    REQUIRE(it.is_as_before("/images/a"));
    REQUIRE(it.is_as_before("/images/b"));
    REQUIRE(it.world->violations == std::vector<std::string>{});
  }
}

namespace {

using model = confinement_model::kind;

/// Two files with labels, under SELinux.
struct selinux_manager : manager {
  std::string label(const std::string& path) { return world->files.at(path).labels.at("selinux"); }
  std::string first_label(const std::string& path) { return world->first_owners.at(path).labels.at("selinux"); }

  selinux_manager() : manager{0, model::selinux} {
    for (const auto* path : {"/images/a", "/images/b"}) {
      world->files[path].labels["selinux"] = std::string{"u:object_r:before_t:s0:of"} + path;
      world->first_owners[path] = world->files[path];
    }
  }
};

secure_guest wish_for(int number, std::vector<std::string> paths, bool shared) {
  auto wish = wish_of(number, std::move(paths));
  for (auto& each : wish.paths)
    each.shared = shared;
  return wish;
}

secure_guest private_wish(int number, std::vector<std::string> paths) {
  return wish_for(number, std::move(paths), false);
}

} // namespace

TEST_CASE("security manager: under SELinux a guest and its files get a pair of their own, and the files' labels come back",
          "[actors]") {
  selinux_manager it;
  auto wish = private_wish(1, {"/images/a", "/images/b"});
  wish.paths[1].readonly = true;
  const auto who = it.secure(wish).value();
  REQUIRE(who.labels.size() == 2);
  const auto& label = who.labels[0];
  CHECK(label.model == "selinux");
  CHECK(who.labels[1].model == "dac");
  const auto pair = pair_of(selinux_context_from(label.process).value().range);
  REQUIRE(pair);
  CHECK(label.process == "system_u:system_r:svirt_t:s0:" + to_text(*pair));
  CHECK(it.label("/images/a") == "system_u:object_r:svirt_image_t:s0:" + to_text(*pair));
  CHECK(it.label("/images/b") == "system_u:object_r:virt_content_t:s0");
  CHECK(it.is_taken("/images/a"));
  const auto other = it.secure(private_wish(2, {})).value();
  CHECK(other.labels[0].process != label.process);
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.is_as_before("/images/b"));
  CHECK(it.world->violations.empty());
}

TEST_CASE("security manager: a file that a guest has gets no other label, and nothing of the second guest is changed", "[actors]") {
  selinux_manager it;
  REQUIRE(it.secure(private_wish(1, {"/images/a"})));
  const auto label = it.label("/images/a");
  const auto second = it.secure(private_wish(2, {"/images/b", "/images/a"}));
  REQUIRE_FALSE(second);
  CHECK(second.error().detail.find("guest 'web2': '/images/a' is in use by another guest with the selinux label '" + label + "'") == 0);
  CHECK(it.is_as_before("/images/b"));
  CHECK(it.label("/images/a") == label);
  it.release(1);
  CHECK(it.is_as_before("/images/a"));
  REQUIRE(it.secure(private_wish(2, {"/images/a"}))); // free again
  it.release(2);
  // All may have what is shared.
  REQUIRE(it.secure(wish_for(1, {"/images/a"}, true)));
  REQUIRE(it.secure(wish_for(2, {"/images/a"}, true)));
  CHECK(it.label("/images/a") == "system_u:object_r:svirt_image_t:s0");
  it.release(1);
  CHECK(it.label("/images/a") == "system_u:object_r:svirt_image_t:s0");
  it.release(2);
  CHECK(it.is_as_before("/images/a"));
}

TEST_CASE("security manager: a label that cannot be given leaves everything as it was", "[actors]") {
  selinux_manager it;
  it.world->fault = [](std::string_view call, const std::string& about) -> std::optional<error> {
    if (call == "take_file" && about == "/images/b")
      return error{errc::operation_failed, "cannot label '/images/b'"};
    return std::nullopt;
  };
  const auto who = it.secure(private_wish(1, {"/images/a", "/images/b"}));
  REQUIRE_FALSE(who);
  CHECK(who.error().detail == "guest 'web1': cannot label '/images/b'");
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.is_as_before("/images/b"));
  CHECK(it.world->file_rows.empty());
}

TEST_CASE("security manager: the next daemon gives labels back, and leases no pair that a guest still has", "[actors]") {
  selinux_manager it;
  REQUIRE(it.secure(private_wish(1, {"/images/a"}))); // its guest never ran, so the next daemon gives up on it
  CHECK_FALSE(it.is_as_before("/images/a"));
  it.crash();
  it.settle();
  CHECK(it.is_as_before("/images/a"));
  CHECK(it.world->file_rows.empty());
  CHECK(it.world->violations.empty());
}

TEST_CASE("security manager: what a definition says of labels is followed", "[actors]") {
  selinux_manager it;
  using origin = guest_label::origin;
  auto wish = private_wish(1, {"/images/a", "/images/b"});
  wish.labels = {{"selinux", origin::chosen, false, "system_u:system_r:svirt_t:s0:c5,c6", {}, {}}};
  auto who = it.secure(wish).value();
  CHECK(who.labels[0] == wish.labels[0]);
  CHECK(it.label("/images/a") == it.first_label("/images/a"));
  it.release(1);

  wish.labels[0].relabel = true;
  wish.paths[0].labels = {{"selinux", false, {}}};
  wish.paths[1].labels = {{"selinux", true, "system_u:object_r:own_t:s0"}};
  who = it.secure(wish).value();
  CHECK(who.labels[0].image == "system_u:object_r:svirt_image_t:s0:c5,c6");
  CHECK(it.label("/images/a") == it.first_label("/images/a"));
  CHECK(it.label("/images/b") == "system_u:object_r:own_t:s0");
  it.release(1);
  CHECK(it.is_as_before("/images/b"));

  wish.labels = {{"selinux", origin::none, true, {}, {}, {}}};
  who = it.secure(wish).value();
  CHECK(who.under("selinux") == nullptr);
  CHECK(who.labels[0].how == origin::none);
  CHECK(it.label("/images/b") == it.first_label("/images/b"));
  it.release(1);

  wish.labels = {{"selinux", origin::dynamic, true, {}, {}, "u:r:base_t:s0"}};
  who = it.secure(wish).value();
  CHECK(who.labels[0].process.starts_with("u:r:base_t:s0:c"));
  CHECK(who.labels[0].base == "u:r:base_t:s0");
  it.release(1);

  wish.labels = {{"apparmor", origin::dynamic, true, {}, {}, {}}};
  CHECK(it.secure(wish).error().code == errc::unsupported_config);
}

TEST_CASE("security manager: settings say whether guests are confined that say nothing, and whether they must be", "[actors]") {
  selinux_manager it;
  it.world->model.default_confined = false;
  it.crash();
  it.settle();
  const auto who = it.secure(private_wish(1, {"/images/a"})).value();
  CHECK(who.labels.empty());
  CHECK(it.label("/images/a") == it.first_label("/images/a"));
  CHECK(it.is_taken("/images/a"));
  it.release(1);
  it.world->model.require_confined = true;
  it.crash();
  it.settle();
  CHECK(it.secure(private_wish(1, {"/images/a"})).error().detail == "guest 'web1': Unconfined guests are not allowed on this host");
  CHECK(it.is_as_before("/images/a"));
}

TEST_CASE("security manager: under AppArmor a guest's profile goes with it, and one it named itself stays", "[actors]") {
  manager it{0, model::apparmor};
  it.world->rows[uuid_for(1)].uuid = uuid_for(1);
  const auto who = it.secure(private_wish(1, {"/images/a"})).value();
  CHECK(who.labels[0].process == "troupe-" + uuid_for(1));
  const std::vector<profile_rule> rules{{profile_rule::access::write, "/images/a"}};
  CHECK(it.answer(it.now->ask<bool>(it.now->security, load_guest_profile{uuid_for(1), "web1", rules})).value());
  CHECK(it.world->profiles.at("troupe-" + uuid_for(1)) == rules);
  it.release(1);
  CHECK(it.world->profiles.empty());

  auto wish = private_wish(1, {});
  wish.labels = {{"apparmor", guest_label::origin::chosen, false, "mine", {}, {}}};
  CHECK(it.secure(wish).value().labels[0].process == "mine");
  CHECK(it.answer(it.now->ask<bool>(it.now->security, load_guest_profile{uuid_for(1), "web1", rules})).value());
  CHECK(it.world->profiles.empty());
  wish.labels[0].base = "x";
  CHECK_FALSE(it.secure(wish));
  it.world->rows.clear();
}
