#include "actors/guest_states.hpp"
#include "tests/catch.hpp"

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <utility>

using namespace troupe;

namespace {

/// The table as a Mermaid diagram: an arrow a row, labelled with the input and, if there is one, the action.
std::string diagram() {
  std::ostringstream out;
  out << "stateDiagram-v2\n    [*] --> shutoff\n";
  for (const auto& step : guest_life::steps) {
    out << "    " << to_string(step.from) << " --> " << to_string(step.to) << " : " << to_string(step.on);
    if (step.then != guest_action::none)
      out << " / " << to_string(step.then);
    out << "\n";
  }
  return out.str();
}

std::string drawn_in(const std::string& path) {
  std::ifstream file{path};
  const std::string text{std::istreambuf_iterator<char>{file}, {}};
  const std::string fence = "```mermaid\n";
  const auto begin = text.find(fence);
  if (begin == std::string::npos)
    return "";
  const auto end = text.find("```", begin + fence.size());
  return text.substr(begin + fence.size(), end - begin - fence.size());
}

} // namespace

TEST_CASE("guest_states: docs/guest_states.md shows the table", "[actors]") {
  // When this fails the table was changed: paste what is expected here between the fences of that file.
  CHECK(drawn_in(TROUPE_SOURCE_DIR "/docs/guest_states.md") == diagram());
}

TEST_CASE("guest_states: an input has one meaning in a state", "[actors]") {
  std::set<std::pair<guest_state, guest_input>> seen;
  for (const auto& step : guest_life::steps) {
    INFO(to_string(step.from) << " on " << to_string(step.on));
    CHECK(seen.emplace(step.from, step.on).second);
  }
}

TEST_CASE("guest_states: every state is reached, and shutoff is reached from every state", "[actors]") {
  std::set<guest_state> states;
  for (const auto& step : guest_life::steps)
    states.insert({step.from, step.to});
  CHECK(states.size() == static_cast<std::size_t>(guest_state::releasing) + 1);
  for (const auto start : states) {
    for (const auto& [from, to] : {std::pair{guest_state::shutoff, start}, std::pair{start, guest_state::shutoff}}) {
      std::set<guest_state> reached{from};
      for (std::size_t before = 0; before != reached.size();) {
        before = reached.size();
        for (const auto& step : guest_life::steps)
          if (reached.contains(step.from))
            reached.insert(step.to);
      }
      INFO("from " << to_string(from) << " to " << to_string(to));
      CHECK(reached.contains(to));
    }
  }
}

TEST_CASE("guest_states: files are held only between preparing and releasing", "[actors]") {
  for (const auto& step : guest_life::steps) {
    INFO(to_string(step.from) << " on " << to_string(step.on));
    CHECK((step.to == guest_state::shutoff) == (step.then == guest_action::finish));
    if (step.to == guest_state::releasing)
      CHECK(step.then == guest_action::release);
    if (step.from == guest_state::shutoff)
      CHECK((step.then == guest_action::prepare || step.then == guest_action::reach_monitor));
  }
}

TEST_CASE("guest_states: orders are taken only from a guest that has a process", "[actors]") {
  for (int at = 0; at <= static_cast<int>(guest_state::releasing); ++at) {
    const auto state = static_cast<guest_state>(at);
    INFO(to_string(state));
    CHECK((!is_live(state) || has_process(state)));
    CHECK((!has_process(state) || is_active(state)));
  }
}
