#include "actors/label_desk.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace troupe {
namespace {

using kind = confinement_model::kind;
using origin = guest_label::origin;

std::optional<category_pair> pair_in(const std::string& context) {
  const auto parts = selinux_context_from(context);
  return parts ? pair_of(parts->range) : std::nullopt;
}

error in_words(error why) {
  return {errc::unsupported_config, std::move(why.detail)};
}

} // namespace

label_desk::label_desk(confinement_model model) : model_{std::move(model)}, pool_{model_.selinux.categories} {}

result<std::optional<guest_label>> label_desk::issue(const secure_guest& wish, std::uint64_t draw) {
  for (const auto& each : wish.labels)
    if (each.model != model_.name() && !(each.model.empty() && each.how == origin::none))
      return fail(errc::unsupported_config,
                  fmt::format("the security model '{}' is not in force on this host: 'dac'{} can be labelled by", each.model,
                              model_.what == kind::none ? "" : fmt::format(" and '{}'", model_.name())));
  if (model_.what == kind::none)
    return std::nullopt;
  guest_label label;
  label.model = model_.name();
  if (!wish.labels.empty())
    label = wish.labels.front();
  else if (!model_.default_confined)
    label.how = origin::none;
  if (label.how == origin::none) {
    if (model_.require_confined)
      return fail(errc::unsupported_config, "Unconfined guests are not allowed on this host");
    return std::nullopt;
  }
  if (model_.what == kind::selinux) {
    auto issued = issue_selinux(wish, std::move(label), draw);
    if (!issued)
      return tl::make_unexpected(std::move(issued.error()));
    return std::optional{std::move(*issued)};
  }
  if (!label.base.empty())
    return fail(errc::unsupported_config, fmt::format("the baselabel '{}' has no meaning under AppArmor: a guest's profile is named "
                                                      "after its UUID, or by a static label", label.base));
  if (label.how == origin::dynamic)
    label.process = profile_name(wish.uuid, model_.libvirt_names);
  label.image = label.process;
  hold(wish.uuid, label, std::nullopt);
  return std::optional{std::move(label)};
}

result<guest_label> label_desk::issue_selinux(const secure_guest& wish, guest_label label, std::uint64_t draw) {
  const auto& contexts = model_.selinux.contexts;
  if (label.how == origin::chosen) {
    const auto both = static_selinux_label(contexts, label.process);
    if (!both)
      return tl::make_unexpected(in_words(both.error()));
    label.image = label.relabel ? in_order(both->image) : std::string{};
    hold(wish.uuid, label, pair_in(label.process));
    return label;
  }
  const auto pair = pool_.lease(draw);
  if (!pair)
    return tl::make_unexpected(pair.error());
  const auto both = dynamic_selinux_label(contexts, label.base, wish.emulated, *pair);
  pool_.give_back(*pair); // until it is held
  if (!both)
    return tl::make_unexpected(in_words(both.error()));
  label.process = both->process;
  label.image = both->image;
  hold(wish.uuid, label, *pair);
  return label;
}

std::string label_desk::label_for(const guest_label& label, const resource& file) const {
  if (model_.what != kind::selinux)
    return {};
  if (const auto* own = own_label(file, model_.name()); own && (!own->relabel || !own->label.empty()))
    return own->relabel ? in_order(own->label) : std::string{};
  return label.relabel ? image_context(model_.selinux.contexts, {label.process, label.image}, file) : std::string{};
}

void label_desk::recall(const std::string& uuid, const guest_label& label) {
  if (label.model == model_.name())
    hold(uuid, label, model_.what == kind::selinux ? pair_in(label.process) : std::nullopt);
}

void label_desk::hold(const std::string& uuid, const guest_label& label, std::optional<category_pair> pair) {
  give_back(uuid);
  if (pair)
    pool_.reserve(*pair);
  held_[uuid] = {label, pair};
}

void label_desk::give_back(const std::string& uuid) {
  const auto it = held_.find(uuid);
  if (it == held_.end())
    return;
  if (it->second.pair)
    pool_.give_back(*it->second.pair);
  held_.erase(it);
}

std::string label_desk::profile_of(const std::string& uuid) const {
  const auto it = held_.find(uuid);
  if (model_.what != kind::apparmor || (it != held_.end() && it->second.label.how != origin::dynamic))
    return {};
  // One whose start an earlier daemon did not finish may have a profile all the same.
  return it != held_.end() ? it->second.label.process : profile_name(uuid, model_.libvirt_names);
}

} // namespace troupe
