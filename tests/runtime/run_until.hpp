#pragma once

#include "runtime/loop.hpp"

#include <chrono>
#include <functional>

namespace troupe {

/// Runs the loop until `holds`, as its own thread does: what only that thread may touch can be used meanwhile.
inline void run_until(loop& on, const std::function<bool()>& holds) {
  timer again{on};
  std::function<void()> look = [&] {
    if (holds())
      on.stop();
    else
      again.start(std::chrono::milliseconds{1}, look);
  };
  look();
  on.run();
}

} // namespace troupe
