#include "runtime/qmp_codec.hpp"
#include "tests/catch.hpp"

#include <random>
#include <vector>

using namespace troupe;
using nlohmann::json;

TEST_CASE("qmp codec: each kind of line is told apart", "[runtime]") {
  const auto greeting = read_qmp(R"({"QMP": {"version": {}, "capabilities": []}})", 64);
  REQUIRE(greeting);
  CHECK(std::get<qmp_greeting>(*greeting).about.contains("version"));

  const auto value = read_qmp(R"({"return": {"running": true}, "id": 7})", 64);
  REQUIRE(value);
  CHECK(std::get<qmp_return>(*value).id == 7u);
  CHECK(std::get<qmp_return>(*value).value == json{{"running", true}});

  const auto failure = read_qmp(R"({"error": {"class": "GenericError", "desc": "no"}, "id": 8})", 64);
  REQUIRE(failure);
  CHECK(std::get<qmp_failure>(*failure).id == 8u);
  CHECK(std::get<qmp_failure>(*failure).error_class == "GenericError");
  CHECK(std::get<qmp_failure>(*failure).description == "no");

  const auto event = read_qmp(R"({"timestamp": {"seconds": 5, "microseconds": 6}, "event": "STOP", "data": {"a": 1}})", 64);
  REQUIRE(event);
  CHECK(std::get<qmp_event>(*event).name == "STOP");
  CHECK(std::get<qmp_event>(*event).seconds == 5);
  CHECK(std::get<qmp_event>(*event).microseconds == 6);
  CHECK(std::get<qmp_event>(*event).data == json{{"a", 1}});
}

TEST_CASE("qmp codec: an id that is not ours is no id", "[runtime]") {
  for (const auto* line : {R"({"return": {}})", R"({"return": {}, "id": "libvirt-7"})", R"({"return": {}, "id": -7})",
                           R"({"return": {}, "id": 7.5})", R"({"return": {}, "id": [7]})"}) {
    const auto message = read_qmp(line, 64);
    REQUIRE(message);
    CHECK_FALSE(std::get<qmp_return>(*message).id);
  }
}

TEST_CASE("qmp codec: a line that is no QMP is quoted in the error", "[runtime]") {
  for (const auto* line : {"hello", "[1, 2]", "12", "{\"what\": 1}", "{\"event\": 1}", "{\"error\": 1}", "{\"QMP\": 1}",
                           "{\"return\": 1e999}", "{\"return\": 1}}"}) {
    const auto message = read_qmp(line, 64);
    REQUIRE_FALSE(message);
    CHECK(message.error().code == errc::internal);
    CHECK(message.error().detail.find(line) != std::string::npos);
  }
  CHECK(printable_start(std::string_view{"a\0\xff\n", 4}) == "a\\x00\\xff\\x0a");
  CHECK(printable_start(std::string(100, 'x'), 4) == "xxxx…");
}

TEST_CASE("qmp codec: JSON is refused beyond its depth, and brackets in strings do not count", "[runtime]") {
  CHECK(parse_bounded(std::string(64, '[') + std::string(64, ']'), 64));
  CHECK_FALSE(parse_bounded(std::string(65, '[') + std::string(65, ']'), 64));
  CHECK_FALSE(parse_bounded(std::string(100'000, '['), 64));
  CHECK(parse_bounded('"' + std::string(1000, '[') + '"', 64));
  CHECK(parse_bounded(R"(["\"[[[[", "\\", [[]]])", 3));
  CHECK_FALSE(parse_bounded(R"(["\\", [[[]]]])", 3));
}

TEST_CASE("qmp codec: commands are one line each, with an id", "[runtime]") {
  CHECK(json::parse(*write_qmp("stop", nullptr, 3)) == json{{"execute", "stop"}, {"id", 3}});
  CHECK(json::parse(*write_qmp("balloon", {{"value", 1}}, 4)) ==
        json{{"execute", "balloon"}, {"arguments", {{"value", 1}}}, {"id", 4}});
  const auto multiline = *write_qmp("x", {{"text", "a\nb"}}, 5);
  CHECK(multiline.find('\n') == multiline.size() - 1);
  CHECK(write_qmp("x", {{"text", "\xff"}}, 5).error().code == errc::bad_argument);
}

TEST_CASE("qmp codec: a client's command keeps all but its id", "[runtime]") {
  const auto line = rewrite_qmp("{\n \"execute\": \"stop\", \"id\": \"mine\", \"arguments\": {\"n\": 9007199254740993}}", 64, 9);
  REQUIRE(line);
  CHECK(json::parse(*line) == json{{"execute", "stop"}, {"id", 9}, {"arguments", {{"n", 9007199254740993}}}});
  CHECK(line->find('\n') == line->size() - 1);
  for (const auto* text : {"", "stop", "{", "[]", "{\"execute\": 1}", "{\"arguments\": {}}", "{\"execute\": \"\xff\"}"})
    CHECK(rewrite_qmp(text, 64, 9).error().code == errc::bad_argument);
  CHECK(rewrite_qmp("{\"execute\":\"x\",\"arguments\":" + std::string(100'000, '['), 64, 9).error().code == errc::bad_argument);
}

TEST_CASE("qmp codec: lines come out the same however the stream is cut", "[runtime]") {
  std::mt19937 draw{GENERATE(1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u)};
  std::vector<std::string> sent;
  std::string stream;
  for (int i = 0; i < 200; ++i) {
    std::string line(draw() % 40, static_cast<char>('a' + draw() % 26));
    stream += line + (draw() % 2 ? "\r\n" : "\n");
    if (!line.empty())
      sent.push_back(line);
  }
  qmp_lines lines{40 + 1};
  std::vector<std::string> got;
  for (std::string_view rest = stream; !rest.empty();) {
    const auto piece = rest.substr(0, 1 + draw() % 90);
    REQUIRE(lines.feed(piece, [&](std::string_view line) { return got.emplace_back(line), true; }));
    rest.remove_prefix(piece.size());
  }
  CHECK(got == sent);
}

TEST_CASE("qmp codec: a line over the bound is an error, ended or not", "[runtime]") {
  const auto ignore = [](std::string_view) { return true; };
  CHECK(qmp_lines{10}.feed("0123456789\n", ignore));
  CHECK_FALSE(qmp_lines{10}.feed("01234567890\n", ignore));
  CHECK_FALSE(qmp_lines{10}.feed("01234567890", ignore));
  qmp_lines pieces{10};
  CHECK(pieces.feed("garbage", ignore));
  const auto over = pieces.feed("more", ignore);
  REQUIRE_FALSE(over);
  CHECK(over.error().detail.find("'garbage'") != std::string::npos);
}

TEST_CASE("qmp codec: no line is read after one that says stop", "[runtime]") {
  qmp_lines lines{100};
  int read = 0;
  CHECK(lines.feed("a\nb\nc\n", [&](std::string_view) { return ++read < 2; }));
  CHECK(read == 2);
}
