#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

struct named_text {
  std::string path, text;
};

/// The files whose names end in `ending`, by name, from folders of which each overrules those before it: a file takes
/// the place of an earlier folder's of the same name, and one that is empty or a link to /dev/null takes it away. What
/// cannot be read is left out, and so are files beyond 1 MiB, and those of a folder after 1000. Blocks.
/// Source: QEMU's docs/interop/firmware.json, "search path".
std::vector<named_text> read_layered_files(std::span<const std::string> folders, std::string_view ending);

} // namespace troupe
