#pragma once

#include "actors/messages.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace troupe {

/// The labels that a definition asks for under models other than DAC.
std::vector<guest_label> labels_wanted(const domain& guest);

/// Writes the labels that a guest has into what clients see of it while it runs.
void show_labels(domain& guest, const std::vector<guest_label>& labels);

/// A label of type 'none' without a model is one of `model`, as clients are told. An empty `model` leaves it.
void name_model(domain& guest, std::string_view model);

/// As JSON text, for the ledger, and back; what is not that has no labels.
std::string to_text(const std::vector<guest_label>& labels);
std::vector<guest_label> labels_from(std::string_view text);

/// The labels of a guest that an earlier daemon started.
std::vector<guest_label> labels_of(const guest_row& row);

} // namespace troupe
