#include "xml/domain.hpp"

#include <algorithm>

namespace troupe {

bool storage_source::is_empty() const {
  return path.empty() && name.empty() && hosts.empty() && volume.empty() && !nvme_address &&
         protocol == net_protocol::unset;
}

const chardev_end& chardev_source::first() const {
  static const chardev_end none;
  return ends.empty() ? none : ends.front();
}

chardev_end& chardev_source::first() {
  return ends.empty() ? ends.emplace_back() : ends.front();
}

const chardev_end* chardev_source::end(std::string_view mode) const {
  const auto found = std::ranges::find(ends, mode, &chardev_end::mode);
  return found == ends.end() ? nullptr : &*found;
}

} // namespace troupe
