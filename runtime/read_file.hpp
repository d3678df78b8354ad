#pragma once

#include "runtime/error.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace troupe {

/// All that is in a file, which is no more than `most_bytes`. Blocks, but not on a FIFO. Errors: system, naming the path.
result<std::string> read_file(const std::string& path, std::size_t most_bytes);

/// Makes a file with `text`, for its owner alone, that is on the disk when this returns. Blocks. Errors: system, naming
/// the path.
result<void> write_through(const std::string& path, std::string_view text);

/// Makes `to` a copy of `from`, of at most `most_bytes`, for its owner alone, when there is no `to` yet; nobody ever sees
/// half of it. Blocks. Errors: system, naming the path.
result<void> copy_file(const std::string& from, const std::string& to, std::size_t most_bytes);

} // namespace troupe
