#include "sec/image_parts.hpp"

#include "runtime/unique_fd.hpp"

#include <algorithm>
#include <cstdint>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unistd.h>

#include <fmt/format.h>

namespace troupe {
namespace {

constexpr std::size_t most_layers = 200;
constexpr std::size_t longest_name = 1023; // by both formats
constexpr std::size_t header_bytes = 64 << 10;

/// What a header names, as it is written there.
struct named {
  std::string backing{};
  bool backing_is_raw = false;
  std::string data{};
};

template <class Number>
std::optional<Number> big(std::string_view bytes, std::size_t at) {
  if (at > bytes.size() || bytes.size() - at < sizeof(Number))
    return std::nullopt;
  Number number = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i)
    number = static_cast<Number>(number << 8 | static_cast<unsigned char>(bytes[at + i]));
  return number;
}

template <class Number>
std::optional<Number> little(std::string_view bytes, std::size_t at) {
  if (at > bytes.size() || bytes.size() - at < sizeof(Number))
    return std::nullopt;
  Number number = 0;
  for (std::size_t i = sizeof(Number); i > 0; --i)
    number = static_cast<Number>(number << 8 | static_cast<unsigned char>(bytes[at + i - 1]));
  return number;
}

std::string text_at(std::string_view bytes, std::uint64_t at, std::uint64_t size) {
  if (size > longest_name || at > bytes.size() || bytes.size() - at < size)
    return {};
  return std::string{bytes.substr(at, size)};
}

named read_qcow2(std::string_view bytes) {
  constexpr std::uint32_t backing_format = 0xE2792ACA;
  constexpr std::uint32_t data_file = 0x44415441;
  named out;
  out.backing = text_at(bytes, big<std::uint64_t>(bytes, 8).value_or(0), big<std::uint32_t>(bytes, 16).value_or(0));
  const auto version = big<std::uint32_t>(bytes, 4).value_or(0);
  if (version < 2) // qcow has no extensions
    return out;
  std::size_t at = version == 2 ? 72 : big<std::uint32_t>(bytes, 100).value_or(0);
  for (;;) {
    const auto type = big<std::uint32_t>(bytes, at);
    const auto size = big<std::uint32_t>(bytes, at + 4);
    if (!type || !size || *type == 0 || *size > bytes.size())
      return out;
    const auto text = text_at(bytes, at + 8, *size);
    if (*type == backing_format)
      out.backing_is_raw = text == "raw";
    if (*type == data_file)
      out.data = text;
    at += 8 + (*size + 7) / 8 * 8;
  }
}

named read_qed(std::string_view bytes) {
  constexpr std::uint64_t has_backing = 1;
  constexpr std::uint64_t backing_raw = 4;
  const auto features = little<std::uint64_t>(bytes, 16).value_or(0);
  named out;
  if ((features & has_backing) != 0)
    out.backing = text_at(bytes, little<std::uint32_t>(bytes, 56).value_or(0), little<std::uint32_t>(bytes, 60).value_or(0));
  out.backing_is_raw = (features & backing_raw) != 0;
  return out;
}

struct format_row {
  std::string_view magic;
  named (*read)(std::string_view);
};
constexpr format_row formats[] = {{"QFI\xfb", read_qcow2}, {{"QED\0", 4}, read_qed}};

named read_header(const std::string& path) {
  const unique_fd file{::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
  std::string bytes(header_bytes, '\0');
  const auto got = file ? ::pread(file.get(), bytes.data(), bytes.size(), 0) : -1;
  bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  for (const auto& row : formats)
    if (bytes.starts_with(row.magic))
      return row.read(bytes);
  return {};
}

/// The file name in the JSON that QEMU takes in place of a name. Empty: it names none.
std::string name_in_json(std::string_view text) {
  const auto tree = nlohmann::json::parse(text, nullptr, false);
  for (const auto* pointer : {"/file/filename", "/file.filename", "/filename"})
    if (const nlohmann::json::json_pointer at{pointer}; tree.is_object() && tree.contains(at) && tree.at(at).is_string())
      return tree.at(at).get<std::string>();
  return {};
}

/// Where the name that stands in `image` leads; empty: not to a file of this machine.
std::string path_of(std::string name, const std::string& image) {
  if (name.starts_with("json:"))
    name = name_in_json(std::string_view{name}.substr(5));
  if (name.starts_with("file:"))
    name = name.substr(5);
  if (name.empty() || name.starts_with('/'))
    return name;
  if (name.find(':') < name.find('/'))
    return {}; // a protocol
  return image.substr(0, image.rfind('/') + 1) + name;
}

} // namespace

result<std::vector<resource>> image_parts(const std::string& image) {
  std::vector<resource> parts;
  std::string at = image;
  for (std::size_t layers = 0; !at.empty(); ++layers) {
    if (layers == most_layers)
      return fail(errc::operation_failed, fmt::format("image '{}' has more than {} layers below it", image, most_layers));
    const auto header = read_header(at);
    const bool top = layers == 0;
    if (auto data = path_of(header.data, at); !data.empty())
      parts.push_back({.path = std::move(data), .readonly = !top, .shared = !top});
    auto below = path_of(header.backing, at);
    if (!below.empty())
      parts.push_back({.path = below, .readonly = true, .shared = true});
    at = header.backing_is_raw ? std::string{} : std::move(below);
  }
  return parts;
}

} // namespace troupe
