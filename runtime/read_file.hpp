#pragma once

#include "runtime/error.hpp"

#include <cstddef>
#include <string>

namespace troupe {

/// All that is in a file, which is no more than `most_bytes`. Blocks, but not on a FIFO. Errors: system, naming the path.
result<std::string> read_file(const std::string& path, std::size_t most_bytes);

} // namespace troupe
