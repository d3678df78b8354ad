#include "xml/from_argv_words.hpp"

#include "tests/catch.hpp"
#include "xml/qemu_argv.hpp"

#include <random>

using namespace troupe;

namespace {

using word_list = std::vector<std::string>;

} // namespace

TEST_CASE("argv words: any words that are written for a shell are read back", "[xml]") {
  std::mt19937 draw{7};
  static constexpr std::string_view likely = "ab'\"\\ $`!*?~#&|;<>(){}[]=,.-%\t";
  for (int round = 0; round < 2000; ++round) {
    command_line line;
    line.argv = {"qemu"};
    for (auto count = draw() % 6; count > 0; --count) {
      std::string word(draw() % 12, ' ');
      for (auto& c : word)
        c = likely[draw() % likely.size()];
      line.argv.push_back(std::move(word));
    }
    INFO(shell_line(line));
    CHECK(shell_words(shell_line(line)).value() == line.argv);
  }
}

TEST_CASE("argv words: quotes, continued lines and comments are a shell's", "[xml]") {
  CHECK(shell_words("a 'b c' \"d\\\"e\" f\\ g # rest\nh \\\n i").value() ==
        word_list{"a", "b c", "d\"e", "f g", "h", "i"});
  CHECK(shell_words("'x,\\\ny'").value() == word_list{"x,y"});
  CHECK(shell_words("").value().empty());
}

TEST_CASE("argv words: what only a shell could do is refused", "[xml]") {
  for (const auto* text : {"a 'b", "a \"b", "a \\", "a | b", "a > f", "a; b", "a $HOME", "a `b`", "a \"${X}\"", "a &"})
    CHECK_FALSE(shell_words(text));
  CHECK_FALSE(shell_words(std::string(most_argv_bytes + 1, 'a')));
  std::string many;
  for (std::size_t i = 0; i <= most_argv_words; ++i)
    many += "a ";
  CHECK_FALSE(shell_words(many));
}

TEST_CASE("argv words: a list of properties and JSON say the same", "[xml]") {
  auto words = option_properties("virtio-blk-pci,drive=a,,b,cache.direct=on,x", "driver").value();
  auto json =
    option_properties(R"({"driver":"virtio-blk-pci","drive":"a,b","cache":{"direct":true},"x":true})", "driver")
      .value();
  for (const auto* key : {"driver", "drive", "cache.direct", "x"})
    CHECK(*words.take(key) == *json.take(key));
  CHECK(words.unused() == nullptr);
  CHECK_FALSE(option_properties("{", ""));
  std::string deep;
  for (int i = 0; i < 40; ++i)
    deep += "{\"a\":";
  CHECK_FALSE(option_properties(deep + "1" + std::string(40, '}'), ""));
}

TEST_CASE("argv words: amounts have QEMU's letters", "[xml]") {
  CHECK(amount_of("2G", 1) == std::uint64_t{2} << 30);
  CHECK(amount_of("1.5k", 1) == 1536);
  CHECK(amount_of("3", 1024) == 3072);
  for (const auto* text : {"", "G", "1x", "-1", "99999999999999999999", "1KKB"})
    CHECK_FALSE(amount_of(text, 1));
}
