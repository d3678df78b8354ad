#pragma once

#include "xml/domain.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// Definitions with what libvirt 9.0.0 answered for each: the large set that lies beside this tree, when it does, and the small
// one in tests/xml/answers, which is laid out in the same way.

namespace troupe {

/// Where the large set is, or empty.
inline std::filesystem::path corpus_root() {
  if (const auto* named = std::getenv("TROUPE_CORPUS"))
    return named;
  const auto beside = std::filesystem::path{TROUPE_SOURCE_DIR}.parent_path() / "shared" / "corpus";
  return std::filesystem::exists(beside / "xml") ? beside : std::filesystem::path{};
}

inline std::filesystem::path own_answers() {
  return std::filesystem::path{TROUPE_SOURCE_DIR} / "tests" / "xml" / "answers";
}

inline std::string text_of(const std::filesystem::path& file) {
  std::ifstream in{file};
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

/// The documents of a set, by name.
inline std::vector<std::filesystem::path> inputs_of(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> all;
  if (!root.empty())
    for (const auto& each : std::filesystem::directory_iterator{root / "xml"})
      all.push_back(each.path());
  std::ranges::sort(all);
  return all;
}

inline void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; !from.empty() && (at = text.find(from, at)) != text.npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// Masks XML or argv as the answers are masked: what is chosen anew for each definition, and the time.
inline std::string masked(std::string text, const std::string& input, const domain& guest) {
  static const std::string zeros = "00000000-0000-0000-0000-000000000000";
  if (input.find("<uuid>") == input.npos)
    replace_all(text, guest.uuid, zeros);
  if (guest.genid && input.find(*guest.genid) == input.npos)
    replace_all(text, *guest.genid, zeros);
  for (const auto& net : guest.devices.interfaces)
    if (net.mac.starts_with("52:54:00:") && input.find(net.mac) == input.npos)
      replace_all(text, net.mac, "52:54:00:00:00:00");
  const auto base = text.find("\nbase=2");
  if (base != text.npos && guest.clock && guest.clock->offset != "absolute")
    text.replace(base + 6, std::string{"2022-10-17T14:20:17"}.size(), "MASKED");
  return text;
}

} // namespace troupe
