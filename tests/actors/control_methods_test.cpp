#include "actors/control_methods.hpp"

#include "tests/actors/control_fixture.hpp"

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

namespace troupe {
namespace {

/// The arguments of every row, a letter each: d domain, i int, u unsigned, s string, o optional string, U UUID,
/// e optional domain, D domains, S strings, N unsigneds. Their types are those of libvirt's protocol files.
const std::map<std::pair<std::uint32_t, int>, std::string> arguments = {
  {{rpc_program_remote, 1}, "ou"},    {{rpc_program_remote, 2}, ""},         {{rpc_program_remote, 3}, ""},
  {{rpc_program_remote, 4}, ""},      {{rpc_program_remote, 6}, ""},         {{rpc_program_remote, 7}, ""},
  {{rpc_program_remote, 9}, "d"},     {{rpc_program_remote, 10}, "su"},      {{rpc_program_remote, 11}, "s"},
  {{rpc_program_remote, 12}, "d"},    {{rpc_program_remote, 14}, "du"},      {{rpc_program_remote, 15}, "d"},
  {{rpc_program_remote, 16}, "d"},    {{rpc_program_remote, 17}, "d"},       {{rpc_program_remote, 19}, "d"},
  {{rpc_program_remote, 21}, "i"},    {{rpc_program_remote, 22}, "i"},       {{rpc_program_remote, 23}, "s"},
  {{rpc_program_remote, 24}, "U"},    {{rpc_program_remote, 25}, ""},        {{rpc_program_remote, 27}, "du"},
  {{rpc_program_remote, 28}, "d"},    {{rpc_program_remote, 29}, "di"},      {{rpc_program_remote, 33}, "d"},
  {{rpc_program_remote, 34}, "d"},    {{rpc_program_remote, 35}, "d"},       {{rpc_program_remote, 37}, "i"},
  {{rpc_program_remote, 51}, ""},     {{rpc_program_remote, 59}, ""},        {{rpc_program_remote, 60}, "i"},
  {{rpc_program_remote, 66}, ""},     {{rpc_program_remote, 70}, ""},        {{rpc_program_remote, 102}, ""},
  {{rpc_program_remote, 110}, ""},    {{rpc_program_remote, 121}, "d"},      {{rpc_program_remote, 122}, ""},
  {{rpc_program_remote, 135}, "ssu"}, {{rpc_program_remote, 136}, "ssu"},    {{rpc_program_remote, 149}, ""},
  {{rpc_program_remote, 150}, "d"},   {{rpc_program_remote, 151}, "d"},      {{rpc_program_remote, 157}, ""},
  {{rpc_program_remote, 183}, "du"},  {{rpc_program_remote, 187}, "du"},     {{rpc_program_remote, 196}, "du"},
  {{rpc_program_remote, 201}, "dou"}, {{rpc_program_remote, 202}, "d"},      {{rpc_program_remote, 212}, "du"},
  {{rpc_program_remote, 231}, "du"},  {{rpc_program_remote, 234}, "du"},     {{rpc_program_remote, 245}, "du"},
  {{rpc_program_remote, 258}, "du"},  {{rpc_program_remote, 264}, "diooou"}, {{rpc_program_remote, 265}, "diou"},
  {{rpc_program_remote, 273}, "iu"},  {{rpc_program_remote, 278}, "d"},      {{rpc_program_remote, 293}, "iiu"},
  {{rpc_program_remote, 316}, "ie"},
  {{rpc_program_remote, 317}, "i"},   {{rpc_program_remote, 342}, "oooou"},  {{rpc_program_remote, 344}, "Duu"},
  {{rpc_program_remote, 350}, "su"},  {{rpc_program_remote, 360}, ""},       {{rpc_program_remote, 361}, ""},
  {{rpc_program_remote, 426}, "du"},  {{rpc_program_qemu, 1}, "dsu"},        {{rpc_program_remote, 5}, "o"},
  {{rpc_program_remote, 101}, "ii"},  {{rpc_program_remote, 158}, "su"},     {{rpc_program_remote, 162}, "Su"},
  {{rpc_program_remote, 312}, "siu"}, {{rpc_program_remote, 340}, "Niuu"},   {{rpc_program_remote, 393}, "oooosu"},
  {{rpc_program_remote, 394}, "ooooSu"},
};

std::string payload_of(const std::string& letters) {
  xdr_writer out;
  const rpc_domain web{"web", web_uuid, 7};
  for (const char each : letters) {
    switch (each) {
    case 'd':
      write(out, web);
      break;
    case 'i':
    case 'u':
      out.u32(0);
      break;
    case 's':
      out.string("web");
      break;
    case 'o':
      out.optional_string("qemu:///system");
      break;
    case 'U':
      out.uuid(web_uuid);
      break;
    case 'e':
      out.present(true);
      write(out, web);
      break;
    case 'S':
      out.count(1);
      out.string("<cpu><arch>x86_64</arch><model>EPYC</model></cpu>");
      break;
    case 'N':
      out.count(2);
      out.u32(4);
      out.u32(2048);
      break;
    case 'D':
      out.count(2);
      write(out, web);
      write(out, web);
      break;
    }
  }
  return out.take();
}

std::string payload_of(const control_method& row) {
  return payload_of(arguments.at({row.program, row.number}));
}

struct csv_row {
  std::string program, name, fields;
  int number = 0, priority = 0;
};

/// libvirt's procedures as they were written down, where that list lies beside the sources.
std::vector<csv_row> procedure_list() {
  std::vector<csv_row> out;
  std::ifstream file{TROUPE_SOURCE_DIR "/../shared/reference/libvirt-procedures.csv"};
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::vector<std::string> cells{""};
    bool quoted = false;
    for (const char c : line) {
      if (c == '"')
        quoted = !quoted;
      else if (c == ',' && !quoted)
        cells.emplace_back();
      else if (c != '\r')
        cells.back() += c;
    }
    if (cells.size() >= 6)
      out.push_back({cells[0], cells[2], cells[3], std::stoi(cells[1]), std::stoi(cells[5])});
  }
  return out;
}

std::string letters_of(const std::string& fields) {
  static const std::map<std::string, std::string> letters = {{"domain", "d"},  {"int", "i"},          {"uint", "u"},
                                                             {"string", "s"},  {"string?", "o"},      {"uuid", "U"},
                                                             {"domain?", "e"}, {"domain<16384>", "D"},
                                                             {"string<256>", "S"}, {"uint<1024>", "N"}};
  std::string out;
  std::istringstream in{fields.substr(0, fields.find('['))};
  for (std::string field; std::getline(in, field, ';');) {
    const auto type = field.substr(field.find(':') + 1);
    const auto it = letters.find(type.substr(0, type.find_last_not_of(' ') + 1));
    out += it == letters.end() ? "?" : it->second;
  }
  return fields == "-" ? "" : out;
}

// The remote procedures that a read-only client of libvirtd is denied, up to the newest. Source: libvirt 9.0.0's API.
constexpr std::pair<int, int> denied[] = {
  {8, 13},    {26, 35},   {39, 42},   {48, 49},   {53, 55},   {58, 58},   {61, 63},   {75, 83},   {90, 90},
  {93, 94},   {103, 104}, {108, 109}, {118, 120}, {123, 125}, {131, 136}, {142, 142}, {144, 146}, {148, 148},
  {160, 161}, {164, 166}, {174, 174}, {180, 182}, {184, 185}, {192, 193}, {196, 197}, {199, 199}, {201, 201},
  {204, 205}, {207, 211}, {213, 222}, {225, 226}, {231, 237}, {239, 240}, {242, 242}, {245, 245}, {249, 252},
  {254, 254}, {256, 256}, {258, 261}, {264, 264}, {266, 267}, {277, 277}, {279, 279}, {288, 288}, {290, 291},
  {294, 296}, {300, 310}, {334, 338}, {342, 343}, {345, 345}, {347, 347}, {349, 350}, {352, 352}, {355, 358},
  {364, 364}, {371, 372}, {384, 384}, {386, 386}, {389, 390}, {392, 396}, {399, 400}, {402, 402}, {406, 406},
  {408, 408}, {410, 411}, {417, 418}, {420, 421}, {424, 425}, {427, 434}, {437, 437}, {439, 443}};

bool libvirt_denies(const control_method& row) {
  if (row.program == rpc_program_qemu)
    return true;
  for (const auto& [first, last] : denied)
    if (first <= row.number && row.number <= last)
      return true;
  return false;
}

} // namespace

TEST_CASE("control methods: a row is found by its program and number, and nothing else is", "[actors]") {
  for (const auto& row : control_methods()) {
    CHECK(find_method(row.program, row.number) == &row);
    CHECK(row.serve != nullptr);
  }
  CHECK(find_method(rpc_program_remote, 0) == nullptr);
  CHECK(find_method(rpc_program_remote, 8) == nullptr);
  CHECK(find_method(rpc_program_remote, 318) == nullptr); // what we send is not called
  CHECK(find_method(rpc_program_qemu, 2) == nullptr);
  CHECK(find_method(rpc_program_keepalive, 1) == nullptr);
  CHECK(find_method(0, 1) == nullptr);
}

TEST_CASE("control methods: people know a procedure by libvirt's name of it", "[actors]") {
  const auto name = [](std::uint32_t program, int number) { return api_name(*find_method(program, number)); };
  CHECK(name(rpc_program_remote, 9) == "virDomainCreate");
  CHECK(name(rpc_program_remote, 10) == "virDomainCreateXML");
  CHECK(name(rpc_program_remote, 14) == "virDomainGetXMLDesc");
  CHECK(name(rpc_program_remote, 136) == "virConnectDomainXMLToNative");
  CHECK(name(rpc_program_qemu, 1) == "virDomainQemuMonitorCommand");
}

TEST_CASE("control methods: numbers, names and arguments are libvirt's, and all that stock clients need is there",
          "[actors]") {
  const auto list = procedure_list();
  if (list.empty()) {
    WARN("the list of libvirt's procedures is not beside the sources");
    return;
  }
  std::size_t checked = 0;
  for (const auto& known : list) {
    INFO(known.program << " " << known.number << " " << known.name);
    const auto program = known.program == "remote" ? rpc_program_remote
                         : known.program == "qemu" ? rpc_program_qemu
                                                   : rpc_program_keepalive;
    if (program == rpc_program_keepalive)
      continue; // the connection's own: see "a ping is answered"
    const auto prefix = std::string{known.program == "remote" ? "REMOTE_PROC_" : "QEMU_PROC_"};
    if (known.fields.starts_with("event:")) {
      const auto rows = control_events();
      const auto it = std::ranges::find(rows, known.number, &control_event::number);
      // This one is about the connection: the socket's end tells it.
      if (program == rpc_program_remote && known.priority == 1 && known.number != 362) {
        REQUIRE(it != rows.end());
        CHECK(prefix + std::string{it->name} == known.name);
        ++checked;
      }
      continue;
    }
    const auto* row = find_method(program, known.number);
    CHECK((row != nullptr || known.priority != 1));
    if (row == nullptr)
      continue;
    CHECK(prefix + std::string{row->name} == known.name);
    CHECK(letters_of(known.fields) == arguments.at({program, known.number}));
    ++checked;
  }
  CHECK(checked == control_methods().size() + control_events().size());
}

TEST_CASE("control methods: read-only clients may call what libvirt lets them", "[actors]") {
  for (const auto& row : control_methods()) {
    INFO(row.name);
    CHECK((row.needs == access::change) == libvirt_denies(row));
  }
}

TEST_CASE("control methods: each is refused to a read-only client before its arguments are read, or served",
          "[actors]") {
  control_fixture on;
  auto by_socket = on.open(true);
  auto by_wish = on.connect();
  REQUIRE(by_wish.call(1, control_fixture::open_payload("", 1)).header.status == rpc_status::ok);
  for (auto* client : {&by_socket, &by_wish})
    for (const auto& row : control_methods()) {
      if (row.number == 2)
        continue;
      INFO(row.name);
      if (row.needs == access::change) {
        const auto why = error_of(client->call(row.number, "x", row.program));
        CHECK(why.code == 29);
        CHECK(why.domain == 20);
        CHECK(why.text == "operation forbidden: read only access prevents " + api_name(row));
      } else if (const auto answer = client->call(row.number, payload_of(row), row.program);
                 answer.header.status == rpc_status::error) {
        CHECK(error_of(answer).code != 29);
      }
    }
  CHECK(on.script->orders == std::vector<std::string>{"subscribe", "unsubscribe", "subscribe", "unsubscribe"});
  // The one whose flags decide.
  for (const std::uint32_t flags : {1u, 8u, 9u})
    CHECK(error_of(by_socket.call(14, web_payload(u32_payload(flags)))).code == 29);
  CHECK(by_socket.call(14, web_payload(u32_payload(2))).header.status == rpc_status::ok);
}

TEST_CASE("control methods: before the connection is opened only a few are served", "[actors]") {
  control_fixture on;
  auto client = on.connect();
  for (const auto& row : control_methods()) {
    INFO(row.name);
    if (row.from == stage::any)
      continue;
    const auto why = error_of(client.call(row.number, payload_of(row), row.program));
    CHECK(why.code == 1);
    CHECK(why.domain == 7);
  }
  CHECK(on.script->orders.empty());
  for (const auto& row : control_methods())
    if (row.from == stage::any && row.number != 2) {
      INFO(row.name);
      CHECK(client.call(row.number, payload_of(row), row.program).header.status == rpc_status::ok);
    }
}

TEST_CASE("control methods: arguments cut short anywhere are refused, and nothing was done", "[actors]") {
  control_fixture on;
  auto client = on.open();
  for (const auto& row : control_methods()) {
    INFO(row.name);
    const auto whole = payload_of(row);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const auto why = error_of(client.call(row.number, whole.substr(0, size), row.program));
      CHECK(why.code == 39);
      CHECK(why.domain == 7);
    }
  }
  CHECK(on.script->orders.empty());
}

TEST_CASE("control methods: whole arguments are understood, with more behind them too", "[actors]") {
  control_fixture on;
  auto client = on.open();
  for (const auto& row : control_methods()) {
    if (row.number == 2)
      continue; // ends the connection
    INFO(row.name);
    for (const auto* more : {"", "left over"}) {
      const auto answer = client.call(row.number, payload_of(row) + more, row.program);
      if (answer.header.status == rpc_status::error) {
        CHECK(error_of(answer).code != 39);
      }
    }
  }
}

TEST_CASE("control methods: no bytes bring a connection down", "[actors]") {
  control_fixture on;
  auto client = on.open();
  std::mt19937 draw{4711}; // NOLINT: the same bytes each time
  std::size_t answers = 0;
  for (int round = 0; round < 40; ++round)
    for (const auto& row : control_methods()) {
      if (row.number == 2)
        continue;
      auto bytes = round % 2 == 0 ? payload_of(row) : std::string(draw() % 120, '\0');
      for (auto& c : bytes)
        if (round % 2 != 0 || draw() % 8 == 0)
          c = static_cast<char>(draw() % 4 == 0 ? draw() : draw() % 3);
      client.call(row.number, bytes, row.program);
      ++answers;
    }
  CHECK(answers == 40 * (control_methods().size() - 1));
  CHECK(client.call(3).header.status == rpc_status::ok);
}

TEST_CASE("control events: every event has a message, and every message has libvirt's form", "[actors]") {
  const rpc_domain web{"web", web_uuid, 7};
  const auto forms = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
    const event_body what{std::in_place_index<I>};
    int count = 0;
    for (const auto& row : control_events()) {
      xdr_writer out;
      if (row.write == nullptr || !row.write(out, web, what))
        continue;
      ++count;
      xdr_reader in{out.bytes()};
      if (row.number == 329 || row.number == 330 || row.number == 332)
        CHECK(in.i32() == 0);
      CHECK(read_domain(in) == web);
    }
    return count;
  };
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const int counts[] = {forms(std::integral_constant<std::size_t, I>{})...};
    for (std::size_t i = 0; i < std::size(counts); ++i) {
      INFO("alternative " << i << " of event_body");
      const bool told_twice = event_body{std::in_place_type<event::io_error>}.index() == i ||
                              event_body{std::in_place_type<event::block_job>}.index() == i;
      CHECK(counts[i] == (told_twice ? 2 : 1));
    }
  }
  (std::make_index_sequence<std::variant_size_v<event_body>>{});
}

} // namespace troupe
