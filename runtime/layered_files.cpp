#include "runtime/layered_files.hpp"

#include "runtime/read_file.hpp"

#include <filesystem>
#include <map>

namespace troupe {
namespace {

constexpr std::size_t most_files = 1000;
constexpr std::size_t most_bytes = 1u << 20;

} // namespace

std::vector<named_text> read_layered_files(std::span<const std::string> folders, std::string_view ending) {
  std::map<std::string, std::string> paths; // by name
  for (const auto& folder : folders) {
    std::size_t count = 0;
    std::error_code failed;
    for (std::filesystem::directory_iterator entry{folder, failed}, end; entry != end && count < most_files;
         entry.increment(failed), ++count)
      if (auto name = entry->path().filename().string(); name.ends_with(ending) && !name.starts_with('.'))
        paths[std::move(name)] = entry->path();
  }
  std::vector<named_text> out;
  for (auto& [name, path] : paths)
    if (auto text = read_file(path, most_bytes); text && !text->empty())
      out.push_back({std::move(path), std::move(*text)});
  return out;
}

} // namespace troupe
