#include "xml/host_model.hpp"

#include "xml/capabilities.hpp"
#include "xml/cpu_models.hpp"

#include <algorithm>
#include <utility>

namespace troupe {

void name_host_model(domain& guest, const emulator_facts& facts) {
  if (!guest.cpu || guest.cpu->mode != "host-model")
    return;
  const auto* most = most_cpu(facts, guest.type == virt_type::kvm ? accelerator::kvm : accelerator::tcg);
  if (most == nullptr)
    return;
  auto movable = *most;
  std::erase_if(movable.features, is_unmigratable);
  const auto described = nearest_model(movable, facts.cpu_models, naming::of_guest);
  if (described.model.empty())
    return;
  auto& cpu = *guest.cpu;
  cpu.mode = "custom";
  cpu.match = "exact";
  cpu.has_model = true;
  cpu.model = described.model;
  if (cpu.fallback.empty())
    cpu.fallback = "allow";
  cpu.vendor = described.vendor;
  auto wishes = std::exchange(cpu.features, {});
  for (const auto& [name, policy] : described.features) {
    cpu_feature feature;
    feature.name = name;
    feature.policy = policy;
    const auto wish = std::ranges::find(wishes, name, &cpu_feature::name);
    cpu.features.push_back(wish == wishes.end() ? feature : *wish);
    if (wish != wishes.end())
      wishes.erase(wish);
  }
  cpu.features.insert(cpu.features.end(), wishes.begin(), wishes.end());
}

} // namespace troupe
