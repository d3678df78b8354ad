#include "tests/catch.hpp"
#include "xml/xml_tree.hpp"

#include <random>

using namespace troupe;

namespace {

std::string repeated(std::string_view piece, std::size_t times) {
  std::string all;
  all.reserve(piece.size() * times);
  for (std::size_t i = 0; i < times; ++i)
    all += piece;
  return all;
}

/// What is wrong with `text`; empty: nothing.
std::string complaint(std::string_view text) {
  const auto tree = parse_xml(text);
  if (tree)
    return {};
  CHECK((tree.error().code == errc::malformed_xml || tree.error().code == errc::bad_xml));
  CHECK(tree.error().detail.size() < 400);
  return tree.error().detail;
}

bool holds(const std::string& text, std::string_view piece) {
  return text.find(piece) != text.npos;
}

/// The same names, values and content, wherever they stood.
bool same(const xml_element& a, const xml_element& b) {
  const auto same_attribute = [](const xml_attribute& x, const xml_attribute& y) {
    return x.name == y.name && x.value == y.value;
  };
  return a.name == b.name && a.text == b.text && std::ranges::equal(a.attributes, b.attributes, same_attribute) &&
         std::ranges::equal(a.children, b.children, same);
}

/// Documents of every shape that a tree can have.
class tree_maker {
public:
  explicit tree_maker(unsigned seed) : draw_{seed} {}

  xml_element make(unsigned depth, bool below_metadata = false) {
    xml_element x;
    x.name = pick({"disk", "source", "m:tag", "os-state", "metadata", "xml.name"});
    below_metadata = below_metadata || x.name == "metadata";
    if (x.name == "m:tag")
      x.set("xmlns:m", "urn:" + word());
    for (auto n = draw_() % 3; n > 0; --n)
      x.set("a" + std::to_string(n), word());
    const auto kind = draw_() % 4;
    if (kind == 0 || depth == 0) {
      x.text = word();
    } else if (kind == 1) { // mixed: text, element, text
      auto& first = x.children.emplace_back();
      first.text = "t" + word();
      x.children.push_back(make(depth - 1, below_metadata));
      x.children.emplace_back().text = "u" + word();
    } else {
      for (auto n = 1 + draw_() % 3; n > 0; --n)
        x.children.push_back(make(depth - 1, below_metadata));
      if (below_metadata) {
        auto& comment = x.children.emplace_back();
        comment.name = "!";
        comment.text = " kept ";
      }
    }
    return x;
  }

private:
  std::string pick(std::initializer_list<const char*> choices) {
    return *(choices.begin() + static_cast<std::ptrdiff_t>(draw_() % choices.size()));
  }
  /// Text with all that needs care.
  std::string word() {
    std::string all;
    for (auto n = draw_() % 6; n > 0; --n)
      all +=
        pick({"a", "'", "\"", "&", "<", ">", "]]>", "\r", "\xc3\xa9", "\xf0\x9f\x8e\xad", "&amp;", "x\ty", "p\nq"});
    return all;
  }

  std::mt19937 draw_;
};

} // namespace

TEST_CASE("xml tree: a document keeps its names, namespaces, values, text and lines", "[xml]") {
  const auto tree = parse_xml("<?xml version='1.0'?>\n<!-- above -->\n"
                              "<a xmlns='urn:d' xmlns:q='urn:q' x='1 &lt; 2'>\n"
                              "  <q:b q:y=\"it's\">t&#233;xt<!-- not kept --> &amp; more</q:b>\n  <c/>\n</a>");
  REQUIRE(tree);
  CHECK(tree->name == "a");
  CHECK(tree->uri == "urn:d");
  CHECK(tree->line == 3);
  REQUIRE(tree->attribute("x") != nullptr);
  CHECK(*tree->attribute("x") == "1 < 2");
  CHECK(tree->attribute("y") == nullptr);
  CHECK(tree->text.empty());
  REQUIRE(tree->children.size() == 2);
  const auto& b = tree->children[0];
  CHECK(b.name == "q:b");
  CHECK(b.local_name() == "b");
  CHECK(b.uri == "urn:q");
  CHECK(b.text == "t\xc3\xa9xt & more");
  CHECK(*b.attribute("q:y") == "it's");
  CHECK(b.line == 4);
  REQUIRE(tree->child("c") != nullptr);
  CHECK(tree->child("c")->uri == "urn:d");
  CHECK(tree->child("d") == nullptr);
}

TEST_CASE("xml tree: comments are kept below metadata and nowhere else", "[xml]") {
  const auto tree = parse_xml("<a><!-- no --><metadata><!-- yes --><m/></metadata><!-- no --><b><!-- no --></b></a>");
  REQUIRE(tree);
  REQUIRE(tree->children.size() == 2);
  REQUIRE(tree->children[0].children.size() == 2);
  CHECK(tree->children[0].children[0].name == "!");
  CHECK(tree->children[0].children[0].text == " yes ");
  CHECK_FALSE(tree->children[0].children[0].is_element());
  CHECK(tree->children[1].children.empty());
}

TEST_CASE("xml tree: text around elements is kept in its place", "[xml]") {
  const auto text = "<p>one <b>two</b> <i>three</i> four</p>\n";
  const auto tree = parse_xml(text);
  REQUIRE(tree);
  CHECK(tree->children.size() == 5);
  CHECK(write_xml(*tree) == text);
}

TEST_CASE("xml tree: is written as libvirt writes it", "[xml]") {
  xml_element root;
  root.name = "domain";
  root.set("type", "it's");
  root.set("type", "q'\"<&>");
  auto& name = root.children.emplace_back();
  name.name = "name";
  name.text = "a'b\"c\td";
  auto& meta = root.children.emplace_back();
  meta.name = "metadata";
  auto& entry = meta.children.emplace_back();
  entry.name = "m";
  entry.set("k", "it's \"so\"");
  entry.text = "it's";
  root.children.emplace_back().name = "devices";
  CHECK(write_xml(root) == "<domain type='q&apos;&quot;&lt;&amp;&gt;'>\n"
                           "  <name>a&apos;b&quot;c\td</name>\n"
                           "  <metadata>\n"
                           "    <m k=\"it's &quot;so&quot;\">it's</m>\n"
                           "  </metadata>\n"
                           "  <devices/>\n"
                           "</domain>\n");
  CHECK(write_xml(root.children[0], 2) == "    <name>a&apos;b&quot;c\td</name>\n");
}

TEST_CASE("xml tree: what is written is read back the same", "[xml]") {
  for (unsigned seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const auto tree = tree_maker{seed}.make(4);
    const auto text = write_xml(tree);
    CAPTURE(text);
    const auto again = parse_xml(text);
    REQUIRE(again);
    CHECK(same(tree, *again));
    CHECK(write_xml(*again) == text);
  }
}

TEST_CASE("xml tree: what is no document is refused with line and reason", "[xml]") {
  const struct {
    std::string text;
    std::string_view words;
  } rows[] = {
    {"", "empty"},
    {" \n ", "empty"},
    {"hello", "line 1"},
    {"<a>\n<b>\n</a>", "line 3, in <b>: mismatched tag"},
    {"<a>\n<b>", "line 2, in <b>: no element found"},
    {"<a/>\n<b/>", "line 2"},
    {"<a x='1' x='2'/>", "duplicate attribute"},
    {"<a>&nbsp;</a>", "undefined entity"},
    {"<a>\n<q:b/></a>", "line 2, in <q:b>: the prefix 'q' is not declared"},
    {"<a>\xff\xfe</a>", "not well-formed"},
    {"<a>\xc0\xaf</a>", "not well-formed"},
    {"<a>\xed\xa0\x80</a>", "not well-formed"},
    {"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>", "not well-formed"},
    {std::string{"<a>\0</a>", 8}, "not well-formed"},
    {std::string{"<a/>\0<b/>", 9}, "line 1"},
    {"<a>&#0;</a>", "invalid character number"},
    {"<!DOCTYPE a><a/>", "a DOCTYPE is not accepted"},
    {"<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>", "a DOCTYPE is not accepted"},
    {"<!DOCTYPE a SYSTEM 'http://example.org/a.dtd'><a/>", "a DOCTYPE is not accepted"},
    {repeated("<d>", 65) + repeated("</d>", 65), "more than 64 deep"},
    {repeated("<d>", 10'000), "more than 64 deep"},
    {"<a>" + repeated("<b/>", most_xml_nodes) + "</a>", "more than 200000 elements"},
    {"<a>" + repeated("<b x='' y='' z=''/>", most_xml_nodes / 4) + "</a>", "more than 200000 elements"},
    {"<a>" + repeated("x", most_xml_bytes) + "</a>", "at most 8388608 are accepted"},
  };
  for (const auto& [text, words] : rows) {
    const auto said = complaint(text);
    CAPTURE(text.substr(0, 60), said, words);
    CHECK(holds(said, words));
  }
}

TEST_CASE("xml tree: entities that multiply are never expanded", "[xml]") {
  std::string bomb = "<!DOCTYPE a [<!ENTITY e0 'x'>";
  for (int i = 1; i < 30; ++i)
    bomb += "<!ENTITY e" + std::to_string(i) + " '" + repeated("&e" + std::to_string(i - 1) + ";", 10) + "'>";
  bomb += "]><a>&e29;</a>";
  CHECK(holds(complaint(bomb), "a DOCTYPE is not accepted"));
}

TEST_CASE("xml tree: the deepest and the fullest document accepted is read", "[xml]") {
  CHECK(parse_xml(repeated("<d>", most_xml_depth) + repeated("</d>", most_xml_depth)));
  const auto full = parse_xml("<a>" + repeated("<b/>", most_xml_nodes - 1) + "</a>");
  REQUIRE(full);
  CHECK(full->children.size() == most_xml_nodes - 1);
}

TEST_CASE("xml tree: a fragment may use prefixes declared elsewhere", "[xml]") {
  CHECK_FALSE(parse_xml("<q:b q:c='1'/>"));
  const auto fragment = parse_xml_fragment("<q:b q:c='1'/>");
  REQUIRE(fragment);
  CHECK(fragment->name == "q:b");
  CHECK(fragment->uri.empty());
}

TEST_CASE("xml tree: damaged documents are refused or read, never worse", "[xml]") {
  const auto whole = write_xml(tree_maker{7}.make(5));
  std::mt19937 draw{11};
  int read = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    auto text = whole;
    for (auto n = 1 + draw() % 3; n > 0; --n) {
      const auto at = draw() % text.size();
      switch (draw() % 4) {
      case 0:
        text[at] = static_cast<char>(draw());
        break;
      case 1:
        text.erase(at, 1 + draw() % 8);
        break;
      case 2:
        text.insert(at, text, draw() % text.size(), 16);
        break;
      default:
        text.resize(at + 1);
        break;
      }
    }
    const auto tree = parse_xml(text);
    tree ? ++read : ++refused;
    if (tree) {
      const auto again = parse_xml(write_xml(*tree));
      REQUIRE(again);
      CHECK(same(*tree, *again));
    } else {
      CHECK_FALSE(tree.error().detail.empty());
    }
  }
  CHECK(read > 0);
  CHECK(refused > 0);
}
