#include "xml/passes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <fmt/format.h>

// Twice over all devices: a trial run finds how many buses there must be, then controllers and devices get their
// places. What goes where, and in which order, is libvirt's: a guest moved from there must find its devices again.

namespace troupe {
namespace {

/// What a bus accepts, or what a device needs of one.
using fit = unsigned;
constexpr fit hotplug = 1u << 0;
constexpr fit shares_slot = 1u << 1; ///< Functions of one slot may go to several such devices.
constexpr fit pci_device = 1u << 2;
constexpr fit pcie_device = 1u << 3;
constexpr fit root_port = 1u << 4;
constexpr fit upstream_port = 1u << 5;
constexpr fit downstream_port = 1u << 6;
constexpr fit dmi_bridge = 1u << 7;
constexpr fit pci_bridge = 1u << 8;
constexpr fit pci_expander = 1u << 9;
constexpr fit pcie_expander = 1u << 10;
constexpr fit pcie_to_pci = 1u << 11;
constexpr fit endpoint = pci_device | pcie_device;
constexpr fit kinds = ~(hotplug | shares_slot);

struct bus_model {
  std::string_view name;
  fit accepts;
  unsigned first_slot, last_slot;
  fit needs; ///< Of the bus that it is plugged into itself; 0: it is the root.
};

constexpr bus_model bus_models[] = {
  {"pci-root", hotplug | pci_device | pci_bridge | pci_expander, 1, 31, 0},
  {"pcie-root", pcie_device | root_port | dmi_bridge | pcie_expander, 1, 31, 0},
  {"pci-bridge", hotplug | pci_device | pci_bridge, 1, 31, pci_bridge},
  {"dmi-to-pci-bridge", pci_device | pci_bridge, 0, 31, dmi_bridge},
  {"pcie-to-pci-bridge", hotplug | pci_device | pci_bridge, 1, 31, pcie_to_pci},
  {"pcie-root-port", hotplug | pcie_device | upstream_port | pcie_to_pci, 0, 0, root_port | shares_slot},
  {"pcie-switch-upstream-port", downstream_port, 0, 31, upstream_port},
  {"pcie-switch-downstream-port", hotplug | pcie_device | upstream_port | pcie_to_pci, 0, 0, downstream_port},
  {"pci-expander-bus", hotplug | pci_device | pci_bridge, 0, 31, pci_expander},
  {"pcie-expander-bus", root_port | dmi_bridge, 0, 31, pcie_expander},
};

constexpr std::pair<fit, std::string_view> fit_words[] = {
  {pci_device, "standard PCI device"},
  {pcie_device, "PCI Express device"},
  {root_port, "pcie-root-port"},
  {upstream_port, "pcie-switch-upstream-port"},
  {downstream_port, "pcie-switch-downstream-port"},
  {dmi_bridge, "dmi-to-pci-bridge"},
  {pci_bridge, "pci-bridge"},
  {pci_expander, "pci-expander-bus"},
  {pcie_expander, "pcie-expander-bus"},
  {pcie_to_pci, "pcie-to-pci-bridge"},
};

std::string_view words_of(fit wanted) {
  for (const auto& [bit, text] : fit_words)
    if ((wanted & bit) != 0)
      return text;
  return "device";
}

const bus_model* model_named(std::string_view name) {
  const auto found = std::ranges::find(bus_models, name, &bus_model::name);
  return found == std::end(bus_models) ? nullptr : found;
}

// ---- which place is taken

class pci_map {
public:
  explicit pci_map(bool may_grow) : may_grow_(may_grow) {}

  std::size_t size() const { return buses_.size(); }
  const bus_model& model(std::size_t bus) const { return *buses_[bus].model; }

  void add(const bus_model& model) { buses_.push_back({&model, {}}); }

  bool slot_is_free(unsigned slot) const { return buses_.front().slots[slot].functions == 0; }

  /// An address that the definition names. Errors: bad_xml, when nothing like it can be there.
  result<void> take_named(const pci_address& at, fit needs) {
    while (at.bus >= buses_.size() && may_grow_)
      if (auto grown = grow(needs); !grown)
        return grown;
    const auto text = pci_text(at);
    if (at.domain != 0)
      return fail(errc::bad_xml, fmt::format("Invalid PCI address {}. Only PCI domain 0 is available", text));
    if (at.bus >= buses_.size())
      return fail(errc::bad_xml, fmt::format("Invalid PCI address {}. Only PCI buses up to {} are available", text,
                                             buses_.size() - 1));
    const auto& model = *buses_[at.bus].model;
    auto accepts = model.accepts;
    // Who names an address knows better whether it will be unplugged, or that a card fits both kinds of bus.
    if ((accepts & endpoint) != 0)
      accepts |= endpoint;
    if ((accepts & needs & kinds) == 0)
      return fail(
        errc::bad_xml,
        fmt::format(
          "The device at PCI address {} cannot be plugged into the PCI controller with index='{}'. It requires "
          "a controller that accepts a {}.",
          text, at.bus, words_of(needs)));
    if (at.slot < model.first_slot)
      return fail(errc::bad_xml, fmt::format("Invalid PCI address {}. slot must be >= {}", text, model.first_slot));
    if (at.slot > model.last_slot)
      return fail(errc::bad_xml, fmt::format("Invalid PCI address {}. slot must be <= {}", text, model.last_slot));
    if (at.function > 7)
      return fail(errc::bad_xml, fmt::format("Invalid PCI address {}. function must be <= 7", text));
    return take(at, needs);
  }

  result<void> take(const pci_address& at, fit needs) {
    auto& slot = buses_[at.bus].slots[at.slot];
    const auto bit = static_cast<std::uint8_t>(1u << at.function);
    if ((slot.functions & bit) != 0)
      return fail(errc::bad_xml, fmt::format("Attempted double use of PCI Address {}", pci_text(at)));
    if (slot.functions == 0)
      slot.shared = (needs & shares_slot) != 0;
    slot.functions |= bit;
    return {};
  }

  /// The first free place that fits; in a trial run a new bus when there is none.
  result<pci_address> find(fit needs) {
    for (unsigned bus = 0; bus < buses_.size(); ++bus) {
      const auto& model = *buses_[bus].model;
      if ((model.accepts & needs & kinds) == 0 || ((needs & hotplug) != 0 && (model.accepts & hotplug) == 0))
        continue;
      for (auto at = model.first_slot; at <= model.last_slot; ++at) {
        const auto& slot = buses_[bus].slots[at];
        if (slot.functions == 0)
          return place(bus, at, 0);
        if ((needs & shares_slot) == 0 || !slot.shared)
          continue;
        for (unsigned function = 0; function < 8; ++function)
          if ((slot.functions & (1u << function)) == 0)
            return place(bus, at, function);
      }
    }
    if (!may_grow_)
      return fail(errc::internal, "No more available PCI slots");
    if (auto grown = grow(needs); !grown)
      return tl::make_unexpected(grown.error());
    return place(static_cast<unsigned>(buses_.size() - 1), buses_.back().model->first_slot, 0);
  }

  result<pci_address> take_next(fit needs) {
    auto at = find(needs);
    if (at)
      if (auto took = take(*at, needs); !took)
        return tl::make_unexpected(took.error());
    return at;
  }

  bool has_room() const {
    return std::ranges::any_of(buses_, [](const bus_state& each) {
      for (auto at = each.model->first_slot; at <= each.model->last_slot; ++at)
        if (each.slots[at].functions == 0)
          return true;
      return false;
    });
  }

  bool shares(const pci_address& at) const { return std::popcount(buses_[at.bus].slots[at.slot].functions) > 1; }

private:
  struct slot_state {
    std::uint8_t functions = 0; ///< A bit each.
    bool shared = false;
  };
  struct bus_state {
    const bus_model* model;
    std::array<slot_state, 32> slots;
  };

  static pci_address place(unsigned bus, unsigned slot, unsigned function) { return {0, bus, slot, function, {}}; }

  bool accepts_somewhere(fit wanted) const {
    return std::ranges::any_of(buses_, [&](const bus_state& each) { return (each.model->accepts & wanted) != 0; });
  }

  result<void> grow(fit needs) {
    if (buses_.size() >= 256)
      return fail(errc::bad_xml, "a guest has no more than 256 PCI buses");
    if ((needs & (pci_device | pci_bridge)) != 0) {
      if (accepts_somewhere(pci_bridge)) {
        add(*model_named("pci-bridge"));
        return {};
      }
      if (!accepts_somewhere(root_port))
        return fail(errc::bad_xml, "No PCI buses available");
      add(*model_named("pcie-root-port"));
      add(*model_named("pcie-to-pci-bridge"));
      return {};
    }
    if ((needs & (pcie_device | upstream_port | pcie_to_pci)) != 0 && accepts_somewhere(root_port)) {
      add(*model_named("pcie-root-port"));
      return {};
    }
    return fail(errc::internal, fmt::format("Cannot automatically add a new PCI bus for a {} (connect flags {:02x})",
                                            words_of(needs), needs));
  }

  std::vector<bus_state> buses_;
  bool may_grow_;
};

// ---- what a device needs

/// The kinds of card on this machine: with one bus for all, they are all the same.
struct card_fits {
  fit pci = hotplug | pci_device;
  fit pcie = hotplug | pcie_device;

  fit virtio(std::string_view model) const {
    return model.ends_with("-transitional") && !model.ends_with("non-transitional") ? pci : pcie;
  }
};

card_fits fits_on(const domain& guest) {
  card_fits fits;
  if (!has_pcie_root(guest))
    fits.pcie = fits.pci;
  return fits;
}

fit fit_of(const controller& each, const card_fits& fits) {
  switch (each.type) {
  case controller_type::usb:
    return each.model == "none" ? 0 : each.model.ends_with("-xhci") ? fits.pcie : fits.pci;
  case controller_type::scsi:
    return each.model.starts_with("virtio") ? fits.virtio(each.model) : each.model == "ibmvscsi" ? 0 : fits.pci;
  case controller_type::virtio_serial:
    return fits.virtio(each.model);
  case controller_type::sata:
  case controller_type::ide:
    return fits.pci;
  case controller_type::pci: {
    const auto* model = model_named(each.model);
    return model != nullptr ? model->needs : 0;
  }
  default:
    return 0;
  }
}

fit fit_of(const net_interface& each, const card_fits& fits) {
  if (each.model == "usb-net")
    return 0;
  if (each.type == net_type::hostdev || each.model == "e1000e")
    return fits.pcie;
  return each.model.starts_with("virtio") ? fits.virtio(each.model) : fits.pci;
}

fit fit_of(const sound& each, const card_fits& fits) {
  constexpr std::string_view cards[] = {"es1370", "ac97", "ich6", "ich7", "ich9"};
  return std::ranges::find(cards, each.model) != std::end(cards) ? fits.pci : 0;
}

fit fit_of(const disk& each, const card_fits& fits) {
  return each.bus == disk_bus::virtio ? fits.virtio(word_of(each.model)) : 0;
}

fit fit_of(const hostdev& each, const card_fits& fits) {
  if (each.mode != "subsystem")
    return 0;
  if (each.type == "pci" || (each.type == "mdev" && each.model == "vfio-pci"))
    return fits.pcie;
  return each.type == "scsi_host" ? fits.virtio(each.model) : 0;
}

fit fit_of(const video& each, const card_fits& fits) {
  if (each.model == "none" || each.model == "ramfb")
    return 0;
  return each.model == "virtio" ? fits.pcie : each.model == "bochs" ? fits.pcie : fits.pci;
}

fit fit_of(const memballoon& each, const card_fits& fits) {
  return each.model.starts_with("virtio") ? fits.virtio(each.model) : 0;
}
fit fit_of(const rng_device& each, const card_fits& fits) {
  return fits.virtio(each.model);
}
fit fit_of(const watchdog_device& each, const card_fits& fits) {
  return each.model == "i6300esb" ? fits.pci : 0;
}
fit fit_of(const shmem_device&, const card_fits& fits) {
  return fits.pci;
}
fit fit_of(const input_device& each, const card_fits& fits) {
  return each.bus == "virtio" ? fits.virtio(each.model) : 0;
}
fit fit_of(const chardev& each, const card_fits& fits) {
  return each.kind == chardev_kind::serial && each.target_type == "pci-serial" ? fits.pci : 0;
}
fit fit_of(const memory_device& each, const card_fits& fits) {
  return each.model.starts_with("virtio") ? fits.virtio({}) : 0;
}
fit fit_of(const vsock_device& each, const card_fits& fits) {
  return fits.virtio(each.model);
}
fit fit_of(const iommu_device& each, const card_fits& fits) {
  return each.model == "virtio" ? fits.pcie & ~hotplug : 0;
}
fit fit_of(const crypto_device& each, const card_fits& fits) {
  return fits.virtio(each.model);
}
fit fit_of(const fs_device& each, const card_fits& fits) {
  return fits.virtio(each.model);
}

/// The devices in the order in which they get addresses; controllers of PCI buses are not among them.
template <class F>
result<void> each_card(domain& guest, F&& f) {
  const auto fits = fits_on(guest);
  auto& d = guest.devices;
  result<void> went;
  const auto all = [&](auto& list) {
    for (auto& each : list)
      if (went)
        if (const auto needs = fit_of(each, fits); needs != 0)
          went = f(each, needs);
  };
  all(d.filesystems), all(d.interfaces), all(d.sounds);
  for (auto& each : d.controllers)
    if (went && each.type != controller_type::pci && each.type != controller_type::ide)
      if (const auto needs = fit_of(each, fits); needs != 0)
        went = f(each, needs);
  all(d.disks), all(d.hostdevs), all(d.balloons), all(d.rngs), all(d.watchdogs), all(d.videos), all(d.shmems),
    all(d.inputs);
  all(d.serials), all(d.memories), all(d.vsocks), all(d.cryptos), all(d.iommus);
  return went;
}

bool is_set(const device& each) {
  return each.address.is(address_type::pci) && !each.address.pci.is_empty();
}

bool wants(const device& each) {
  return each.address.wants_pci();
}

void put(device& each, const pci_address& at) {
  const auto multifunction = each.address.pci.multifunction;
  each.address.type = address_type::pci;
  each.address.pci = at;
  if (at.multifunction == on_off::unset)
    each.address.pci.multifunction = multifunction;
}

// ---- the passes over one map

struct assignment {
  domain& guest;
  const emulator_facts& facts;
  pci_map& map;

  /// Part of the chipset at the address it always has.
  result<void> fix(device& each, pci_address at, std::string_view what) {
    if (wants(each))
      put(each, at);
    else if (!each.address.is(address_type::pci) || !each.address.pci.same_place(at))
      return fail(errc::internal, fmt::format("{} must have PCI address {:x}:{:x}:{:x}.{:x}", what, at.domain, at.bus,
                                              at.slot, at.function));
    return {};
  }

  /// Whether the device is part of the PIIX3 of a pc, whose slot is taken as a whole.
  bool is_piix3(const controller& each) const {
    if (!is_i440fx(guest) || each.index != 0)
      return false;
    return each.type == controller_type::ide || (each.type == controller_type::usb && each.model == "piix3-uhci");
  }

  bool is_q35_sata(const controller& each) const {
    return is_q35(guest) && each.type == controller_type::sata && each.index == 0;
  }

  result<void> take_named() {
    const auto fits = fits_on(guest);
    const auto named = [&](device& each, fit needs) -> result<void> {
      return is_set(each) ? map.take_named(each.address.pci, needs) : result<void>{};
    };
    for (auto& each : guest.devices.controllers)
      if (each.type == controller_type::pci)
        if (auto went = named(each, fit_of(each, fits)); !went)
          return went;
    return each_card(guest, [&](auto& each, fit needs) -> result<void> {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(each)>, controller>)
        if (is_piix3(each) || is_q35_sata(each))
          return {};
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(each)>, controller>)
        if (each.model == "piix3-uhci" && each.index == 0 && is_set(each) &&
            each.address.pci.same_place({0, 0, 1, 2, {}}) && has_pcie_root(guest))
          return fail(errc::internal, "Bus 0 must be PCI for integrated PIIX3 USB or IDE controllers");
      return named(each, needs);
    });
  }

  result<void> reserve(unsigned slot, unsigned function, fit needs = pci_device) {
    return map.take({0, 0, slot, function, {}}, needs);
  }

  result<void> give_primary_video(unsigned slot) {
    auto& videos = guest.devices.videos;
    if (videos.empty() || !wants(videos.front()))
      return {};
    const auto needs = fit_of(videos.front(), fits_on(guest));
    if (needs == 0)
      return {};
    if (!map.slot_is_free(slot))
      return give(videos.front(), needs);
    if (auto went = reserve(slot, 0); !went)
      return went;
    put(videos.front(), {0, 0, slot, 0, {}});
    return {};
  }

  result<void> fix_i440fx() {
    for (auto& each : guest.devices.controllers) {
      if (!is_piix3(each))
        continue;
      const bool ide = each.type == controller_type::ide;
      const auto what = ide ? "Primary IDE controller" : "PIIX3 USB controller at index 0";
      if (auto went = fix(each, {0, 0, 1, ide ? 1u : 2u, {}}, what); !went)
        return went;
    }
    if (!map.slot_is_free(1))
      return fail(errc::bad_xml,
                  "PCI address 0000:00:01.0 is in use, QEMU needs it for its ISA bridge: give the device there "
                  "another slot, or none");
    for (unsigned function = 0; function < 8; ++function)
      if (auto went = reserve(1, function); !went)
        return went;
    return give_primary_video(2);
  }

  result<void> fix_q35() {
    for (auto& each : guest.devices.controllers) {
      if (is_q35_sata(each)) {
        if (auto went = fix(each, {0, 0, 0x1f, 2, {}}, "Primary SATA controller"); !went)
          return went;
        if (auto went = reserve(0x1f, 2); !went)
          return went;
      }
      // Where the real chipset has its first two USB 2 controllers.
      if (each.type == controller_type::usb && each.model == "ich9-uhci1" && wants(each) && !usb2_slot(*each.index))
        for (const unsigned slot : {0x1du, 0x1au})
          if (map.slot_is_free(slot)) {
            if (auto went = reserve(slot, 0); !went)
              return went;
            put(each, {0, 0, slot, 0, on_off::on});
            break;
          }
      if (each.type == controller_type::pci && each.model == "dmi-to-pci-bridge" && wants(each) &&
          map.slot_is_free(0x1e)) {
        if (auto went = reserve(0x1e, 0); !went)
          return went;
        put(each, {0, 0, 0x1e, 0, {}});
      }
    }
    for (const unsigned function : {0u, 3u})
      if (auto went = reserve(0x1f, function); !went)
        return went;
    if (auto went = give_primary_video(1); !went)
      return went;
    for (auto& each : guest.devices.sounds)
      if (each.model == "ich9" && wants(each) && map.slot_is_free(0x1b)) {
        if (auto went = reserve(0x1b, 0); !went)
          return went;
        put(each, {0, 0, 0x1b, 0, {}});
      }
    return {};
  }

  /// Where a part of the USB 2 controller of that index is already.
  std::optional<pci_address> usb2_slot(int index) const {
    for (const auto& each : guest.devices.controllers)
      if (each.type == controller_type::usb && each.index == index && is_usb_companion_family(each.model) &&
          is_set(each))
        return each.address.pci;
    return std::nullopt;
  }

  result<void> give_usb2(controller& each, fit needs) {
    auto at = usb2_slot(*each.index);
    if (!at) {
      auto found = map.find(needs);
      if (!found)
        return tl::make_unexpected(found.error());
      at = *found;
    }
    at->multifunction = on_off::unset;
    at->function = each.model == "ich9-ehci1" ? 7 : static_cast<unsigned>(each.model.back() - '1');
    if (each.model == "ich9-uhci1")
      at->multifunction = on_off::on;
    if (auto took = map.take(*at, needs); !took)
      return took;
    put(each, *at);
    return {};
  }

  result<void> give(device& each, fit needs) {
    if (!wants(each))
      return {};
    auto at = map.take_next(needs);
    if (!at)
      return tl::make_unexpected(at.error());
    put(each, *at);
    return {};
  }

  result<void> give_all() {
    const auto fits = fits_on(guest);
    for (auto& each : guest.devices.controllers)
      if (each.type == controller_type::pci)
        if (const auto needs = fit_of(each, fits); needs != 0)
          if (auto went = give(each, needs); !went)
            return went;
    return each_card(guest, [&](auto& each, fit needs) -> result<void> {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(each)>, controller>)
        if (each.type == controller_type::usb && is_usb_companion_family(each.model))
          return wants(each) ? give_usb2(each, needs) : result<void>{};
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(each)>, iommu_device>)
        return wants(each) ? give(each, pcie_device) : result<void>{};
      return give(each, needs);
    });
  }

  result<void> prepare() {
    if (auto went = take_named(); !went)
      return went;
    return is_q35(guest) ? fix_q35() : is_i440fx(guest) ? fix_i440fx() : result<void>{};
  }
};

result<pci_map> map_of(const domain& guest, bool may_grow) {
  pci_map map{may_grow};
  int last = 0;
  for (const auto& each : guest.devices.controllers)
    if (each.type == controller_type::pci)
      last = std::max(last, *each.index);
  if (last > 255)
    return fail(errc::bad_xml, fmt::format("PCI controller index {} too high: 255 is the highest", last));
  for (int index = 0; index <= last; ++index) {
    const auto* there = find_controller(guest, controller_type::pci, index);
    const auto* model = there != nullptr ? model_named(there->model)
                                         : model_named(has_pcie_root(guest) ? "pcie-root-port" : "pci-bridge");
    if (model == nullptr)
      return fail(errc::bad_xml, fmt::format("PCI controller {} has no known model: '{}'", index, there->model));
    map.add(*model);
  }
  return map;
}

/// Finds how many buses there must be and adds their controllers.
result<void> add_buses(definition_work& work) {
  auto trial = work.guest;
  auto map = map_of(trial, true);
  if (!map)
    return tl::make_unexpected(map.error());
  const auto named = map->size();
  assignment all{trial, work.facts, *map};
  if (auto went = all.prepare(); !went)
    return went;
  // A slot stays free for the bridge that more devices would need.
  if (!has_pcie_root(trial) && map->has_room())
    if (auto spare = map->take_next(pci_device); !spare)
      return tl::make_unexpected(spare.error());
  if (auto went = all.give_all(); !went)
    return went;
  // Who leaves all buses to us gets one more port, so that a device can be plugged in later.
  if (named == 1 && map->size() > 1 && has_pcie_root(trial))
    if (auto spare = map->take_next(hotplug | pcie_device); !spare)
      return tl::make_unexpected(spare.error());
  for (std::size_t bus = 1; bus < map->size(); ++bus) {
    const auto index = static_cast<int>(bus);
    if (find_controller(work.guest, controller_type::pci, index) != nullptr)
      continue;
    const auto& model = map->model(bus);
    need_controller(work.guest, controller_type::pci, index, model.name);
    if (auto at = map->take_next(model.needs); !at)
      return tl::make_unexpected(at.error());
  }
  return {};
}

/// What follows from the place of a bus's controller.
void settle_targets(domain& guest) {
  int lowest = 256;
  for (const auto& each : guest.devices.controllers)
    if (each.type == controller_type::pci && each.bus_nr)
      lowest = std::min(lowest, *each.bus_nr);
  for (auto& each : guest.devices.controllers) {
    if (each.type != controller_type::pci)
      continue;
    const auto& at = each.address.pci;
    if (each.model == "pci-bridge" && !each.chassis_nr)
      each.chassis_nr = *each.index;
    if (each.model == "pcie-root-port" || each.model == "pcie-switch-downstream-port") {
      if (!each.chassis)
        each.chassis = *each.index;
      if (!each.port)
        each.port = static_cast<int>(each.model == "pcie-root-port" ? at.slot << 3 | at.function : at.slot);
    }
    if ((each.model == "pci-expander-bus" || each.model == "pcie-expander-bus") && !each.bus_nr) {
      lowest -= 2;
      each.bus_nr = lowest;
    }
  }
}

} // namespace

result<void> assign_pci_addresses(definition_work& work) {
  auto& guest = work.guest;
  if (!has_pci(guest))
    return {};
  if (auto went = add_buses(work); !went)
    return went;
  // The controllers that were added have names and models of their own.
  if (auto went = settle_wanted_devices(work); !went)
    return went;
  auto map = map_of(guest, false);
  if (!map)
    return tl::make_unexpected(map.error());
  assignment all{guest, work.facts, *map};
  if (auto went = all.prepare(); !went)
    return went;
  if (auto went = all.give_all(); !went)
    return went;
  const auto mark = [&](device& each) {
    auto& at = each.address.pci;
    if (is_set(each) && at.function == 0 && at.multifunction == on_off::unset && map->shares(at) &&
        !(is_i440fx(guest) && at.bus == 0 && at.slot == 1))
      at.multifunction = on_off::on;
  };
  each_device(guest, mark);
  settle_targets(guest);
  return {};
}

} // namespace troupe
