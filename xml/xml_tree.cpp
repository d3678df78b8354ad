#include "xml/xml_tree.hpp"

#include "xml/xml_text.hpp"

#include <algorithm>
#include <expat.h>
#include <memory>

namespace troupe {

std::string_view xml_element::local_name() const {
  const auto colon = name.find(':');
  return colon == name.npos ? std::string_view{name} : std::string_view{name}.substr(colon + 1);
}

const std::string* xml_element::attribute(std::string_view wanted) const {
  const auto found = std::ranges::find(attributes, wanted, &xml_attribute::name);
  return found == attributes.end() ? nullptr : &found->value;
}

const xml_element* xml_element::child(std::string_view wanted) const {
  const auto found = std::ranges::find(children, wanted, &xml_element::name);
  return found == children.end() ? nullptr : &*found;
}

void xml_element::set(std::string_view attribute_name, std::string value) {
  const auto found = std::ranges::find(attributes, attribute_name, &xml_attribute::name);
  if (found != attributes.end())
    found->value = std::move(value);
  else
    attributes.push_back({std::string{attribute_name}, std::move(value)});
}

namespace {

constexpr std::string_view xml_namespace = "http://www.w3.org/XML/1998/namespace";

struct binding {
  std::string_view prefix; ///< Lies in an attribute of an open element.
  std::string uri;
  std::size_t depth = 0;
};

/// The part of a name before its colon.
std::string_view prefix_of(std::string_view name) {
  const auto colon = name.find(':');
  return colon == name.npos ? std::string_view{} : name.substr(0, colon);
}

/// Expat's callbacks and the tree they grow. Open elements are the last children of their parents, so that what is
/// pushed below the innermost one moves none of the others.
class tree_builder {
public:
  tree_builder(XML_Parser parser, bool fragment) : parser_{parser}, fragment_{fragment} {
    XML_SetUserData(parser, this);
    XML_SetElementHandler(parser, on_start, on_end);
    XML_SetCharacterDataHandler(parser, on_text);
    XML_SetCommentHandler(parser, on_comment);
    XML_SetStartDoctypeDeclHandler(parser, on_doctype);
  }

  result<xml_element> finish(XML_Status status) {
    if (!refusal_.empty())
      return fail(errc::bad_xml, refusal_);
    if (status != XML_STATUS_OK) {
      const auto* reason = XML_ErrorString(XML_GetErrorCode(parser_));
      return fail(errc::malformed_xml, place() + (reason != nullptr ? reason : "not well-formed"));
    }
    return std::move(root_);
  }

private:
  static tree_builder& self(void* data) { return *static_cast<tree_builder*>(data); }
  static void XMLCALL on_start(void* data, const char* name, const char** attributes) {
    self(data).start(name, attributes);
  }
  static void XMLCALL on_end(void* data, const char*) { self(data).end(); }
  static void XMLCALL on_text(void* data, const char* bytes, int count) {
    self(data).text({bytes, static_cast<std::size_t>(count)});
  }
  static void XMLCALL on_comment(void* data, const char* words) { self(data).comment(words); }
  static void XMLCALL on_doctype(void* data, const char*, const char*, const char*, int) {
    self(data).refuse("a DOCTYPE is not accepted: remove it, and write out what its entities stand for");
  }

  std::string place() const {
    auto where = "line " + std::to_string(XML_GetCurrentLineNumber(parser_));
    if (!open_.empty())
      where += ", in <" + open_.back()->name + ">";
    return where + ": ";
  }

  void refuse(const std::string& reason) {
    if (!refusal_.empty())
      return;
    refusal_ = place() + reason;
    XML_StopParser(parser_, XML_FALSE);
  }

  /// Counts what a document has of elements, attributes, comments and pieces of text.
  bool count(std::size_t more) {
    nodes_ += more;
    if (nodes_ <= most_xml_nodes)
      return true;
    refuse("more than " + std::to_string(most_xml_nodes) + " elements and attributes");
    return false;
  }

  void start(const char* name, const char** attributes) {
    if (!refusal_.empty())
      return;
    if (open_.size() >= most_xml_depth)
      return refuse("elements are nested more than " + std::to_string(most_xml_depth) + " deep");
    std::size_t given = 0;
    while (attributes[2 * given] != nullptr)
      ++given;
    if (!count(1 + given))
      return;
    auto& fresh = open_.empty() ? root_ : open_.back()->children.emplace_back();
    open_.push_back(&fresh);
    fresh.name = name;
    fresh.line = static_cast<unsigned>(XML_GetCurrentLineNumber(parser_));
    fresh.attributes.reserve(given);
    for (std::size_t i = 0; i < given; ++i)
      fresh.attributes.push_back({attributes[2 * i], attributes[2 * i + 1]});
    if (metadata_depth_ == 0 && fresh.name == "metadata")
      metadata_depth_ = open_.size();
    for (const auto& [attribute_name, value, taken] : fresh.attributes) {
      if (attribute_name == "xmlns")
        bindings_.push_back({{}, value, open_.size()});
      else if (attribute_name.starts_with("xmlns:"))
        bindings_.push_back({std::string_view{attribute_name}.substr(6), value, open_.size()});
    }
    const auto prefix = prefix_of(fresh.name);
    const auto found = std::ranges::find(bindings_.rbegin(), bindings_.rend(), prefix, &binding::prefix);
    if (found != bindings_.rend())
      fresh.uri = found->uri;
    else if (prefix == "xml")
      fresh.uri = xml_namespace;
    else if (!prefix.empty() && !fragment_)
      refuse("the prefix '" + std::string{prefix} + "' is not declared: add xmlns:" + std::string{prefix} +
             "='...' to the root element");
  }

  void end() {
    if (!refusal_.empty() || open_.empty())
      return;
    auto& done = *open_.back();
    const auto is_text = [](const xml_element& x) { return x.name.empty(); };
    const auto is_blank = [&](const xml_element& x) { return is_text(x) && is_space(x.text); };
    if (std::ranges::all_of(done.children, is_text)) {
      for (auto& piece : done.children)
        done.text += piece.text;
      done.children.clear();
    } else if (std::ranges::all_of(done.children, [&](const auto& x) { return !is_text(x) || is_blank(x); })) {
      std::erase_if(done.children, is_text);
    }
    while (!bindings_.empty() && bindings_.back().depth == open_.size())
      bindings_.pop_back();
    if (metadata_depth_ == open_.size())
      metadata_depth_ = 0;
    open_.pop_back();
  }

  void text(std::string_view bytes) {
    if (!refusal_.empty() || open_.empty())
      return;
    auto& siblings = open_.back()->children;
    if (siblings.empty() || !siblings.back().name.empty()) {
      if (!count(1))
        return;
      siblings.emplace_back().line = static_cast<unsigned>(XML_GetCurrentLineNumber(parser_));
    }
    siblings.back().text += bytes;
  }

  void comment(const char* words) {
    if (!refusal_.empty() || metadata_depth_ == 0 || !count(1))
      return;
    auto& fresh = open_.back()->children.emplace_back();
    fresh.name = "!";
    fresh.text = words;
  }

  XML_Parser parser_;
  bool fragment_;
  xml_element root_;
  std::vector<xml_element*> open_;
  std::vector<binding> bindings_;
  std::size_t metadata_depth_ = 0;
  std::size_t nodes_ = 0;
  std::string refusal_;
};

result<xml_element> parse(std::string_view text, bool fragment) {
  if (text.size() > most_xml_bytes)
    return fail(errc::bad_xml, "the document has " + std::to_string(text.size()) + " bytes, at most " +
                                 std::to_string(most_xml_bytes) + " are accepted");
  if (is_space(text))
    return fail(errc::malformed_xml, "the document is empty");
  const std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser{XML_ParserCreate("UTF-8"), &XML_ParserFree};
  if (parser == nullptr)
    return fail(errc::internal, "no memory for an XML parser");
  tree_builder builder{parser.get(), fragment};
  return builder.finish(XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()), XML_TRUE));
}

/// Whether the content is written as it is, as spaces between its parts would be new text.
bool is_mixed(const xml_element& x) {
  return std::ranges::any_of(x.children, [](const xml_element& child) { return child.name.empty(); });
}

void append_inline(std::string& out, const xml_element& x, quoting how) {
  if (x.name.empty())
    return append_text(out, x.text, how);
  if (x.name == "!") {
    out.append("<!--").append(x.text).append("-->");
    return;
  }
  out.append("<").append(x.name);
  for (const auto& attribute : x.attributes)
    append_attribute(out, attribute.name, attribute.value, how);
  if (x.children.empty() && x.text.empty()) {
    out += "/>";
    return;
  }
  out += '>';
  append_text(out, x.text, how);
  for (const auto& child : x.children)
    append_inline(out, child, how);
  out.append("</").append(x.name).append(">");
}

} // namespace

void append_element(std::string& out, const xml_element& x, unsigned indent, quoting how) {
  if (x.name == "metadata")
    how = quoting::double_;
  out.append(2 * static_cast<std::size_t>(indent), ' ');
  if (!x.is_element() || x.children.empty() || is_mixed(x)) {
    append_inline(out, x, how);
    out += '\n';
    return;
  }
  out.append("<").append(x.name);
  for (const auto& attribute : x.attributes)
    append_attribute(out, attribute.name, attribute.value, how);
  out += ">\n";
  for (const auto& child : x.children)
    append_element(out, child, indent + 1, how);
  out.append(2 * static_cast<std::size_t>(indent), ' ').append("</").append(x.name).append(">\n");
}

result<xml_element> parse_xml(std::string_view text) {
  return parse(text, false);
}

result<xml_element> parse_xml_fragment(std::string_view text) {
  return parse(text, true);
}

std::string write_xml(const xml_element& root, unsigned indent) {
  std::string out;
  append_element(out, root, indent, quoting::single);
  return out;
}

} // namespace troupe
