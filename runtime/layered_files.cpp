#include "runtime/layered_files.hpp"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

namespace troupe {
namespace {

constexpr std::size_t most_files = 1000;
constexpr std::uintmax_t most_bytes = 1u << 20;

/// Empty when it cannot be read, or is no file of a reasonable size.
std::string contents_of(const std::string& path) {
  std::error_code failed;
  const auto size = std::filesystem::is_regular_file(path, failed) ? std::filesystem::file_size(path, failed) : 0;
  if (failed || size == 0 || size > most_bytes)
    return {};
  std::ifstream file{path, std::ios::binary};
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

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
    if (auto text = contents_of(path); !text.empty())
      out.push_back({std::move(path), std::move(text)});
  return out;
}

} // namespace troupe
