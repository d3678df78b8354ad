#include "actors/guest_labels.hpp"

#include "runtime/ledger.hpp"
#include "xml/domain.hpp"

#include <nlohmann/json.hpp>

namespace troupe {
namespace {

using origin = guest_label::origin;

origin origin_of(label_kind type) {
  return type == label_kind::none ? origin::none : type == label_kind::static_ ? origin::chosen : origin::dynamic;
}

label_kind type_of(origin how) {
  return how == origin::none ? label_kind::none : how == origin::chosen ? label_kind::static_ : label_kind::dynamic;
}

} // namespace

std::vector<guest_label> labels_wanted(const domain& guest) {
  std::vector<guest_label> labels;
  for (const auto& each : guest.seclabels)
    if (each.model != "dac")
      labels.push_back({each.model, origin_of(each.type), each.relabel, each.label, {}, each.base_label});
  return labels;
}

void show_labels(domain& guest, const std::vector<guest_label>& labels) {
  guest.seclabels.clear();
  for (const auto& each : labels) {
    seclabel shown;
    shown.model = each.model;
    shown.type = type_of(each.how);
    if (each.how != origin::none) {
      shown.relabel = each.relabel;
      shown.relabel_given = each.relabel ? yes_no::yes : yes_no::no;
    }
    shown.label = each.process;
    shown.image_label = each.image;
    shown.base_label = each.base;
    guest.seclabels.push_back(std::move(shown));
  }
}

void name_model(domain& guest, std::string_view model) {
  for (auto& each : guest.seclabels)
    if (each.model.empty() && each.type == label_kind::none)
      each.model = model;
}

std::string to_text(const std::vector<guest_label>& labels) {
  auto list = nlohmann::json::array();
  for (const auto& each : labels)
    list.push_back({{"model", each.model},
                    {"how", static_cast<int>(each.how)},
                    {"relabel", each.relabel},
                    {"process", each.process},
                    {"image", each.image},
                    {"base", each.base}});
  return list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<guest_label> labels_from(std::string_view text) {
  std::vector<guest_label> labels;
  try {
    for (const auto& each : nlohmann::json::parse(text)) {
      const auto how = each.at("how").get<int>();
      labels.push_back({each.at("model").get<std::string>(),
                        how == 0 ? origin::dynamic : how == 1 ? origin::chosen : origin::none, each.at("relabel").get<bool>(),
                        each.at("process").get<std::string>(), each.at("image").get<std::string>(),
                        each.at("base").get<std::string>()});
    }
  } catch (const nlohmann::json::exception&) {
    return {};
  }
  return labels;
}

std::vector<guest_label> labels_of(const guest_row& row) {
  const auto kept = nlohmann::json::parse(row.extra, nullptr, false);
  const auto found = kept.is_object() ? kept.find("labels") : kept.end();
  return found != kept.end() && found->is_string() ? labels_from(found->get<std::string>()) : std::vector<guest_label>{};
}

} // namespace troupe
