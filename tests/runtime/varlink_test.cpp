#include "runtime/varlink.hpp"

#include "tests/catch.hpp"

#include <random>

namespace troupe {
namespace {

std::string why_not(std::string_view text) {
  const auto call = varlink_call_from(text);
  return call ? "it is" : call.error().detail;
}

/// Without the zero byte at its end, which has to be there.
nlohmann::json tree_of(std::string message) {
  REQUIRE(message.ends_with('\0'));
  message.pop_back();
  CHECK(message.find('\0') == message.npos);
  return nlohmann::json::parse(message);
}

} // namespace

TEST_CASE("varlink: a call is read back as it was written", "[runtime]") {
  varlink_call call{"org.troupe.Supervisor.Check", {{"guest", "w\xc3\xa9\"\n"}}, true, true};
  auto text = to_text(call);
  text.pop_back();
  const auto read = varlink_call_from(text).value();
  CHECK(read.method == call.method);
  CHECK(read.parameters == call.parameters);
  CHECK(read.oneway);
  CHECK(read.more);
  const auto least = varlink_call_from(R"({"method":"a.B","parameters":null,"more":null})").value();
  CHECK(least.parameters == nlohmann::json::object());
  CHECK_FALSE(least.more);
}

TEST_CASE("varlink: what is no call is told why", "[runtime]") {
  CHECK(why_not("") == "the call is not a JSON object");
  CHECK(why_not("[]") == "the call is not a JSON object");
  CHECK(why_not(R"({"method":)") == "the call is not a JSON object");
  CHECK(why_not("{}") == "the call has no 'method'");
  CHECK(why_not(R"({"method":7})") == "the call has no 'method'");
  CHECK(why_not(R"({"method":"a.B","parameters":[]})") == "'parameters' of the call are not an object");
  CHECK(why_not(R"({"method":"a.B","more":"yes"})") == "'more' of the call is not true or false");
  CHECK(why_not(std::string(100'000, '[')) == "the call is not a JSON object");
}

TEST_CASE("varlink: our errors bear the interface's name, and what is not UTF-8 does no harm", "[runtime]") {
  const auto tree = tree_of(varlink_error({errc::no_such_guest, "no guest is named '\xff'"}));
  CHECK(tree["error"] == "org.troupe.Supervisor.NoSuchGuest");
  CHECK(tree["parameters"]["message"].get<std::string>().starts_with("Domain not found: no guest is named '"));
  CHECK(tree_of(varlink_reply({{"a", 1}}, true)) == nlohmann::json{{"parameters", {{"a", 1}}}, {"continues", true}});
}

TEST_CASE("varlink: messages come whole and in order, however they were cut, and no longer than may be", "[runtime]") {
  std::mt19937 draw{1};
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> sent, got;
    std::string bytes;
    for (auto left = draw() % 20; left > 0; --left) {
      sent.push_back(std::string(draw() % 300, 'x'));
      bytes += sent.back() + '\0';
    }
    varlink_framer framer;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto size = std::min<std::size_t>(draw() % 200 + 1, bytes.size() - at);
      REQUIRE(framer.add(std::string_view{bytes}.substr(at, size)));
      at += size;
      while (framer.has_message())
        got.push_back(framer.next());
    }
    CHECK(got == sent);
  }
  varlink_framer framer;
  CHECK(framer.add(std::string(max_varlink_message, 'x') + '\0'));
  CHECK(framer.add(std::string(max_varlink_message, 'x')));
  CHECK(framer.add("x").error().code == errc::bad_packet);
}

} // namespace troupe
