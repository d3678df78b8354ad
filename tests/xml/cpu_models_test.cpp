#include "xml/cpu_models.hpp"

#include "tests/catch.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <set>

using namespace troupe;

namespace {

using names = std::vector<std::string>;

emulator_facts facts() {
  emulator_facts out;
  out.binary = "/usr/bin/qemu";
  out.cpu_models = {{"kvm64", "GenuineIntel", 15, 6, 1, {"lm", "sse2"}},
                    {"SandyBridge", "GenuineIntel", 6, 42, 1, {"avx", "lm", "sse2"}},
                    {"Haswell", "GenuineIntel", 6, 60, 4, {"avx", "avx2", "hle", "lm", "sse2"}},
                    {"EPYC", "AuthenticAMD", 23, 1, 2, {"avx", "avx2", "lm", "monitor", "sse2", "svm"}}};
  out.cpu_features = {"avx", "avx2", "hle", "invtsc", "lm", "monitor", "pclmuldq", "sse2", "sse4.1", "svm", "tsc-deadline"};
  return out;
}

cpu_definition intel(names features, int model = 0) {
  std::ranges::sort(features);
  return {"host", "GenuineIntel", 6, model, 0, std::move(features)};
}

/// "+avx -hle" of its features.
std::string differences(const cpu_text& cpu) {
  std::string out = cpu.model;
  for (const auto& [name, policy] : cpu.features)
    out += (policy == "disable" ? " -" : " +") + name;
  return out;
}

cpu_text guest_cpu(const std::string& inside, const std::string& attributes = "match='exact'") {
  auto cpu = read_cpu("<cpu " + attributes + ">" + inside + "</cpu>");
  if (!cpu)
    FAIL(cpu.error().message());
  return std::move(*cpu);
}

cpu_text host_text(const std::string& model, const std::string& more = "") {
  return guest_cpu("<arch>x86_64</arch><model>" + model + "</model>" + more, "");
}

/// What a guest has that is given this CPU.
names whole(const cpu_text& cpu) {
  const auto known = facts();
  const auto* model = find_cpu_model(known, cpu.model);
  REQUIRE(model);
  std::set<std::string> out{model->features.begin(), model->features.end()};
  for (const auto& [name, policy] : cpu.features)
    policy == "disable" ? void(out.erase(name)) : void(out.insert(name));
  return {out.begin(), out.end()};
}

} // namespace

TEST_CASE("cpu models: the nearest model has the fewest differences", "[xml]") {
  const auto models = facts().cpu_models;
  CHECK(differences(nearest_model(intel({"avx", "lm", "sse2"}), models, naming::of_guest)) == "SandyBridge");
  CHECK(differences(nearest_model(intel({"avx", "avx2", "lm", "sse2", "hle"}), models, naming::of_guest)) == "Haswell");
  CHECK(differences(nearest_model(intel({"avx2", "hle", "lm", "sse2"}), models, naming::of_guest)) == "Haswell -avx");
  CHECK(differences(nearest_model(intel({"avx", "avx2", "lm", "sse2"}), models, naming::of_host)) == "SandyBridge +avx2");
  CHECK(differences(nearest_model(intel({"lm", "sse2", "invtsc"}, 60), models, naming::of_guest)) == "Haswell +invtsc -avx -avx2 -hle");
  CHECK(nearest_model(intel({}), models, naming::of_host).model.empty());
}

TEST_CASE("cpu models: a model of another vendor is never the nearest, and nobody's model is anybody's", "[xml]") {
  const auto models = facts().cpu_models;
  auto amd = intel({"avx", "avx2", "hle", "lm", "sse2"});
  amd.vendor = "AuthenticAMD";
  CHECK(nearest_model(amd, models, naming::of_guest).model != "Haswell");
  CHECK(nearest_model(amd, models, naming::of_host).model == "kvm64");
  CHECK(nearest_model(amd, models, naming::of_host).vendor == "AMD");
  CHECK_FALSE(has_vendor(models[0]));
  CHECK(has_vendor(models[1]));
}

TEST_CASE("cpu models: model and differences together are the CPU, whatever it has", "[xml]") {
  const auto known = facts();
  std::mt19937 draw{1};
  for (int round = 0; round < 300; ++round) {
    names features;
    for (const auto& feature : known.cpu_features)
      if (draw() % 2 == 0)
        features.push_back(feature);
    const auto cpu = intel(features);
    CHECK(whole(nearest_model(cpu, known.cpu_models, naming::of_guest)) == features);
    const auto host = nearest_model(cpu, known.cpu_models, naming::of_host);
    if (!host.model.empty())
      CHECK(whole(host) == features);
  }
}

TEST_CASE("cpu models: the kernel's flags become features that QEMU knows", "[xml]") {
  const names flags{"sse4_1", "pclmulqdq", "tsc_deadline_timer", "nonstop_tsc", "lm", "rep_good", "lm", "avx"};
  const auto cpu = cpu_from_flags(flags, "GenuineIntel", facts().cpu_features);
  CHECK(cpu.features == names{"avx", "invtsc", "lm", "pclmuldq", "sse4.1", "tsc-deadline"});
  CHECK(cpu.vendor == "GenuineIntel");
  const names speculation{"ibrs", "ssbd"};
  const names known{"amd-ssbd", "spec-ctrl", "ssbd"};
  CHECK(cpu_from_flags(speculation, "GenuineIntel", known).features == names{"spec-ctrl", "ssbd"});
  CHECK(cpu_from_flags(speculation, "AuthenticAMD", known).features == names{"amd-ssbd"});
}

TEST_CASE("cpu models: a CPU of a client's is read, or refused by what is wrong", "[xml]") {
  const auto host = host_text(" EPYC ", "<vendor>AMD</vendor><feature name='avx'/><topology sockets='1'/>");
  CHECK_FALSE(host.of_guest);
  CHECK(host.model == "EPYC");
  CHECK(host.vendor == "AMD");
  CHECK(host.features == std::vector<cpu_text::feature>{{"avx", ""}});
  const auto of_mode = read_cpu("<mode name='host-model' supported='yes'><model>EPYC</model><feature policy='disable' name='avx'/></mode>");
  REQUIRE(of_mode);
  CHECK(of_mode->features == std::vector<cpu_text::feature>{{"avx", "disable"}});

  struct row {
    const char *xml, *named;
    errc code;
  };
  const row rows[] = {
    {"<cpu", "", errc::malformed_xml},
    {"<foo/>", "<foo>", errc::bad_xml},
    {"<cpu mode='x'/>", "host-passthrough", errc::unsupported_config},
    {"<cpu match='x'/>", "strict", errc::bad_xml},
    {"<cpu><model>EPYC</model>\n<feature policy='x' name='avx'/></cpu>", "line 2", errc::unsupported_config},
    {"<cpu><model>EPYC</model><feature policy='require'/></cpu>", "'name'", errc::bad_xml},
    {"<cpu><feature policy='require' name='avx'/></cpu>", "<model>", errc::bad_xml},
    {"<cpu><model>EPYC</model><feature name='avx'/><feature name='avx'/></cpu>", "'avx'", errc::bad_xml},
  };
  for (const auto& [xml, named, code] : rows) {
    const auto cpu = read_cpu(xml);
    INFO(xml);
    REQUIRE_FALSE(cpu);
    CHECK(cpu.error().code == code);
    CHECK(cpu.error().detail.find(named) != std::string::npos);
  }
  CHECK(read_cpu("<cpu foo='1'><bar/></cpu>"));
  CHECK(read_cpu("<cpu foo='1'/>", true).error().code == errc::bad_schema);
  CHECK(read_cpu("<cpu><bar/></cpu>", true).error().detail.find("<bar>") != std::string::npos);
  CHECK(read_cpu("<cpu match='exact'><model>486</model><topology/></cpu>", true));
}

TEST_CASE("cpu models: a written CPU is read again as it was", "[xml]") {
  cpu_text cpu;
  cpu.model = "EPYC";
  cpu.vendor = "AMD";
  cpu.features = {{"avx", "require"}, {"svm", "disable"}};
  const auto again = read_cpu(write_cpu(cpu, "forbid"), true);
  REQUIRE(again);
  CHECK(again->model == cpu.model);
  CHECK(again->vendor == cpu.vendor);
  CHECK(again->features == cpu.features);
  CHECK(again->of_guest);
}

TEST_CASE("cpu models: a host is compared with what is wanted of it", "[xml]") {
  const auto host = intel({"avx", "lm", "sse2"});
  const auto compare = [&](const cpu_text& wanted) {
    const auto out = compare_cpu(host, wanted, facts());
    if (!out)
      FAIL(out.error().message());
    return *out;
  };
  const auto sandy = [](const std::string& more, const std::string& attributes = "match='exact'") {
    return guest_cpu("<model>SandyBridge</model>" + more, attributes);
  };
  CHECK(compare(sandy("")).order == cpu_order::identical);
  CHECK(compare(guest_cpu("<model>kvm64</model>")).order == cpu_order::superset);
  CHECK(compare(guest_cpu("<model>kvm64</model>", "match='minimum'")).order == cpu_order::superset);
  CHECK(compare(guest_cpu("<model>kvm64</model>", "match='strict'")).order == cpu_order::incompatible);
  CHECK(compare(guest_cpu("<model>kvm64</model>", "match='strict'")).why.find("avx") != std::string::npos);
  CHECK(compare(sandy("", "match='strict'")).order == cpu_order::identical);
  CHECK(compare(guest_cpu("<model>Haswell</model>")).why.find("avx2, hle") != std::string::npos);
  CHECK(compare(sandy("<feature policy='require' name='svm'/>")).order == cpu_order::incompatible);
  CHECK(compare(sandy("<feature policy='force' name='svm'/>")).order == cpu_order::identical);
  CHECK(compare(sandy("<feature policy='optional' name='svm'/>")).order == cpu_order::identical);
  CHECK(compare(sandy("<feature policy='disable' name='avx'/>")).order == cpu_order::superset);
  CHECK(compare(sandy("<feature policy='forbid' name='avx'/>")).why.find("forbidden features: avx") != std::string::npos);
  CHECK(compare(sandy("<vendor>AMD</vendor>")).why.find("AMD") != std::string::npos);
  CHECK(compare(sandy("<vendor>Intel</vendor>")).order == cpu_order::identical);
  CHECK(compare(sandy("<arch>ppc64</arch>", "")).why.find("ppc64") != std::string::npos);
  CHECK(compare(sandy("<arch>i686</arch><feature name='osxsave'/>", "")).order == cpu_order::identical);
  CHECK(compare(guest_cpu("", "mode='host-passthrough'")).order == cpu_order::superset);

  for (const auto* unknown : {"<model>nosuch</model>", "<model>kvm64</model><feature policy='require' name='nosuch'/>"}) {
    const auto out = compare_cpu(host, guest_cpu(unknown), facts());
    REQUIRE_FALSE(out);
    CHECK(out.error().detail.find("nosuch") != std::string::npos);
  }
}

TEST_CASE("cpu models: a baseline is what all have", "[xml]") {
  const auto baseline = [](const std::vector<cpu_text>& cpus, baseline_options options = {}) {
    const auto out = baseline_cpu(cpus, facts(), options);
    return out ? differences(*out) : out.error().message();
  };
  CHECK(baseline({host_text("Haswell"), host_text("SandyBridge")}) == "SandyBridge");
  CHECK(baseline({host_text("Haswell"), host_text("Haswell")}) == "Haswell");
  CHECK(baseline({host_text("EPYC", "<feature name='invtsc'/>"), host_text("EPYC", "<feature name='hle'/>")}) == "EPYC");
  CHECK(baseline({host_text("EPYC", "<feature name='invtsc'/>")}) == "EPYC +invtsc");
  CHECK(baseline({host_text("EPYC", "<feature name='invtsc'/>")}, {false, true, nullptr}) == "EPYC");
  CHECK(baseline({host_text("SandyBridge")}, {true, false, nullptr}) == "SandyBridge +avx +lm +sse2");
  const auto limit = intel({"avx", "lm", "monitor"});
  CHECK(baseline({guest_cpu("<model>EPYC</model>")}, {false, false, &limit}) == "EPYC -avx2 -sse2 -svm");
  CHECK(baseline({guest_cpu("<model>EPYC</model>")}, {true, false, &limit}) == "EPYC -avx2 -sse2 -svm +avx +lm +monitor");
  CHECK(baseline({host_text("EPYC"), host_text("Haswell")}).find("vendors do not match: AMD and Intel") != std::string::npos);
  CHECK(baseline({host_text("EPYC"), host_text("kvm64", "<vendor>Intel</vendor>")}).find("vendors") != std::string::npos);
  CHECK(baseline({host_text("nosuch")}).find("nosuch") != std::string::npos);
  CHECK(baseline({guest_cpu("")}).find("<model>") != std::string::npos);

  const auto told = baseline_cpu(std::vector{host_text("kvm64", "<vendor>AMD</vendor>"), host_text("kvm64")}, facts(), {});
  CHECK(told->vendor == "AMD");
  CHECK(baseline_cpu(std::vector{host_text("Haswell")}, facts(), {})->vendor.empty());
}
