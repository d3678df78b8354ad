#pragma once

#include "runtime/error.hpp"
#include "sec/resource.hpp"

#include <string>
#include <vector>

namespace troupe {

/// What QEMU opens for a resource: itself, or, when it names a device of the host by its address (`pci`, `mediated`,
/// `usb`), the nodes of that. One that is `optional` and not there has none. Reads below `root`/sys. Blocks: workers only.
/// Errors: operation_failed, naming the device, and for a PCI device that VFIO does not have, the remedy.
result<std::vector<resource>> nodes_of(const resource& wanted, const std::string& root = {});

} // namespace troupe
