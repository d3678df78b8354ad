#pragma once

#include "runtime/error.hpp"
#include "sec/resource.hpp"

#include <string>
#include <vector>

namespace troupe {

/// The files that QEMU opens by itself because the header of `image` names them, and theirs: backing files, which are
/// read and shared, and files of data. A layer that cannot be read, or is no qcow2 or QED, has none; one that is not on
/// this machine is left out. `image` must not be of format raw: what looks like its header was written by the guest.
/// Blocks on the file system: workers only. Source: docs/interop/qcow2.txt, docs/interop/qed_spec.txt.
/// Errors: operation_failed, when a chain has more than 200 layers.
result<std::vector<resource>> image_parts(const std::string& image);

} // namespace troupe
