#include "runtime/layered_files.hpp"

#include "tests/catch.hpp"
#include "tests/temp_dir.hpp"

using namespace troupe;

namespace {

using texts = std::vector<std::string>;

texts names_and_texts(const std::vector<named_text>& files) {
  texts out;
  for (const auto& [path, text] : files)
    out.push_back(std::filesystem::path{path}.filename().string() + "=" + text);
  return out;
}

} // namespace

TEST_CASE("layered files: a later folder overrules by name, and an empty file takes away", "[runtime]") {
  const temp_dir root;
  const std::vector<std::string> folders{root / "usr", root / "missing", root / "etc", root / "home"};
  for (const auto* folder : {"usr", "etc", "home"})
    std::filesystem::create_directory(root / folder);
  write_file(root / "usr/50-b.json", "usr b");
  write_file(root / "usr/60-c.json", "usr c");
  write_file(root / "usr/40-a.json", "usr a");
  write_file(root / "usr/70-d.json", "usr d");
  write_file(root / "usr/readme", "none");
  write_file(root / "usr/.hidden.json", "none");
  write_file(root / "etc/50-b.json", "etc b");
  write_file(root / "etc/60-c.json", "");
  std::filesystem::create_symlink("/dev/null", root / "etc/70-d.json");
  CHECK(names_and_texts(read_layered_files(folders, ".json")) == texts{"40-a.json=usr a", "50-b.json=etc b"});
  write_file(root / "home/60-c.json", "home c");
  write_file(root / "home/10-e.json", "home e");
  CHECK(names_and_texts(read_layered_files(folders, ".json")) ==
        texts{"10-e.json=home e", "40-a.json=usr a", "50-b.json=etc b", "60-c.json=home c"});
  CHECK(read_layered_files({}, ".json").empty());
}

TEST_CASE("layered files: what is no file of a reasonable size is left out", "[runtime]") {
  const temp_dir root;
  const std::vector<std::string> folders{root.path()};
  std::filesystem::create_directory(root / "folder.json");
  std::filesystem::create_symlink("/dev/zero", root / "endless.json");
  std::filesystem::create_symlink("nowhere", root / "dangling.json");
  write_file(root / "large.json", std::string((1u << 20) + 1, ' '));
  write_file(root / "most.json", std::string(1u << 20, ' '));
  const auto files = read_layered_files(folders, ".json");
  REQUIRE(files.size() == 1);
  CHECK(files[0].path == root / "most.json");
  CHECK(files[0].text.size() == 1u << 20);
}
