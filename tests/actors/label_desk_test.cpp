#include "actors/guest_labels.hpp"
#include "actors/label_desk.hpp"
#include "runtime/ledger.hpp"
#include "tests/actors/scripted_host.hpp"
#include "tests/catch.hpp"
#include "xml/domain.hpp"

#include <random>
#include <set>

using namespace troupe;
using namespace troupe::sim;

namespace {

using kind = confinement_model::kind;
using origin = guest_label::origin;

secure_guest guest_named(std::uint64_t number) {
  secure_guest wish;
  wish.uuid = fmt::format("{:08x}-0000-4000-8000-000000000000", number);
  return wish;
}

secure_guest with_static_pair(std::uint64_t number, category_pair pair) {
  auto wish = guest_named(number);
  wish.labels = {{"selinux", origin::chosen, true, "system_u:system_r:svirt_t:s0:" + to_text(pair), {}, {}}};
  return wish;
}

} // namespace

TEST_CASE("label desk: no guest is given the label of another, whoever chose that, across daemons", "[actors]") {
  std::mt19937_64 random{9};
  auto model = model_of(kind::selinux);
  model.selinux.categories = {0, 20}; // few, so that they meet
  auto desk = std::make_unique<label_desk>(model);
  std::map<std::uint64_t, guest_label> live;
  std::uint64_t next = 0;
  for (int i = 0; i < 20'000; ++i) {
    switch (random() % 6) {
    case 0:
      if (!live.empty()) {
        const auto it = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
        desk->give_back(guest_named(it->first).uuid);
        live.erase(it);
      }
      break;
    case 1:
      if (random() % 20 == 0) { // the next daemon
        desk = std::make_unique<label_desk>(model);
        for (const auto& [number, label] : live)
          desk->recall(guest_named(number).uuid, label);
      }
      break;
    case 2: {
      const auto low = static_cast<std::uint16_t>(random() % 20);
      const auto wish = with_static_pair(++next, {low, static_cast<std::uint16_t>(low + 1)});
      live[next] = desk->issue(wish, random()).value().value();
      break;
    }
    default: {
      const auto label = desk->issue(guest_named(++next), random());
      if (!label) {
        std::set<std::string> taken;
        for (const auto& [number, each] : live)
          taken.insert(each.process);
        REQUIRE(taken.size() == 210);
        break;
      }
      for (const auto& [number, each] : live)
        REQUIRE(each.process != (*label)->process);
      live[next] = **label;
      break;
    }
    }
    while (live.size() > 230) {
      desk->give_back(guest_named(live.begin()->first).uuid);
      live.erase(live.begin());
    }
  }
}

TEST_CASE("label desk: a profile is made for guests that have no other, and has their name", "[actors]") {
  label_desk desk{model_of(kind::apparmor)};
  const auto wish = guest_named(1);
  CHECK(desk.issue(wish, 0).value()->process == "troupe-" + wish.uuid);
  CHECK(desk.profile_of(wish.uuid) == "troupe-" + wish.uuid);
  auto named = guest_named(2);
  named.labels = {{"apparmor", origin::chosen, false, "mine", {}, {}}};
  CHECK(desk.issue(named, 0).value()->process == "mine");
  CHECK(desk.profile_of(named.uuid).empty());
  CHECK(desk.label_for(*desk.issue(wish, 0).value(), resource{}).empty());

  auto compatible = model_of(kind::apparmor);
  compatible.libvirt_names = true;
  label_desk as_libvirt{compatible};
  CHECK(as_libvirt.issue(wish, 0).value()->process == "libvirt-" + wish.uuid);
  label_desk none{model_of(kind::none)};
  CHECK_FALSE(none.issue(wish, 0).value());
  CHECK(none.profile_of(wish.uuid).empty());
}

TEST_CASE("guest labels: what a guest has is shown, kept in the ledger and found again", "[actors]") {
  const std::vector<guest_label> labels{
    {"selinux", origin::dynamic, true, "u:r:t:s0:c1,c2", "u:o:i:s0:c1,c2", "u:r:t:s0"},
    {"apparmor", origin::none, true, {}, {}, {}},
    {"dac", origin::chosen, false, "+0:+0", {}, {}},
  };
  CHECK(labels_from(to_text(labels)) == labels);
  for (const auto* text : {"", "{}x", "[1]", "[{\"model\":1}]", "{\"a\":1}"})
    CHECK(labels_from(text).empty());
  guest_row row;
  row.extra = nlohmann::json{{"labels", to_text(labels)}}.dump();
  CHECK(labels_of(row) == labels);
  row.extra = "odd";
  CHECK(labels_of(row).empty());

  domain guest;
  show_labels(guest, labels);
  REQUIRE(guest.seclabels.size() == 3);
  CHECK(guest.seclabels[0].image_label == "u:o:i:s0:c1,c2");
  CHECK(guest.seclabels[1].type == label_kind::none);
  CHECK(guest.seclabels[2].relabel_given == yes_no::no);
  const auto wanted = labels_wanted(guest);
  REQUIRE(wanted.size() == 2); // DAC's is asked for elsewhere
  CHECK(wanted[0].base == "u:r:t:s0");
  CHECK(wanted[1].how == origin::none);

  domain unnamed;
  unnamed.seclabels.emplace_back().type = label_kind::none;
  name_model(unnamed, "selinux");
  CHECK(unnamed.seclabels[0].model == "selinux");
}
