#include "runtime/xdr.hpp"

#include "tests/catch.hpp"

#include <limits>
#include <random>
#include <variant>
#include <vector>

using namespace troupe;

namespace {

/// One value of each kind the wire knows, so that a random list of them is a random struct.
struct as_opaque {
  std::string bytes;
  bool operator==(const as_opaque&) const = default;
};
struct as_char4 {
  std::string bytes;
  bool operator==(const as_char4&) const = default;
};
using field = std::variant<std::uint32_t, std::int32_t, std::uint64_t, std::int64_t, double, bool, std::string,
                           std::optional<std::string>, as_opaque, as_char4, uuid_bytes>;

std::string random_bytes(std::mt19937_64& draw, std::size_t most, int first = 0) {
  std::string bytes(draw() % (most + 1), '\0');
  for (auto& c : bytes)
    c = static_cast<char>(first + static_cast<int>(draw() % static_cast<std::uint64_t>(256 - first)));
  return bytes;
}

field random_field(std::mt19937_64& draw) {
  switch (draw() % 11) {
  case 0:
    return static_cast<std::uint32_t>(draw());
  case 1:
    return static_cast<std::int32_t>(draw());
  case 2:
    return static_cast<std::uint64_t>(draw());
  case 3:
    return static_cast<std::int64_t>(draw());
  case 4:
    return static_cast<double>(static_cast<std::int64_t>(draw())) / 7;
  case 5:
    return draw() % 2 == 0;
  case 6:
    return random_bytes(draw, 40, 1);
  case 7:
    return draw() % 2 == 0 ? std::optional<std::string>{} : random_bytes(draw, 40, 1);
  case 8:
    return as_opaque{random_bytes(draw, 40)};
  case 9:
    return as_char4{random_bytes(draw, 40)};
  default:
    uuid_bytes uuid;
    for (auto& byte : uuid)
      byte = static_cast<std::uint8_t>(draw());
    return uuid;
  }
}

struct field_writer {
  xdr_writer& out;
  void operator()(std::uint32_t x) const { out.u32(x); }
  void operator()(std::int32_t x) const { out.i32(x); }
  void operator()(std::uint64_t x) const { out.u64(x); }
  void operator()(std::int64_t x) const { out.i64(x); }
  void operator()(double x) const { out.f64(x); }
  void operator()(bool x) const { out.boolean(x); }
  void operator()(const std::string& x) const { out.string(x); }
  void operator()(const std::optional<std::string>& x) const { out.optional_string(x); }
  void operator()(const as_opaque& x) const { out.opaque(x.bytes); }
  void operator()(const as_char4& x) const { out.char4(x.bytes); }
  void operator()(const uuid_bytes& x) const { out.uuid(x); }
};

field read_like(const field& shape, xdr_reader& in) {
  switch (shape.index()) {
  case 0:
    return in.u32();
  case 1:
    return in.i32();
  case 2:
    return in.u64();
  case 3:
    return in.i64();
  case 4:
    return in.f64();
  case 5:
    return in.boolean();
  case 6:
    return std::string{in.string(100)};
  case 7:
    return in.optional_string(100);
  case 8:
    return as_opaque{std::string{in.opaque(100)}};
  case 9:
    return as_char4{in.char4(100)};
  default:
    return in.uuid();
  }
}

std::vector<field> random_struct(std::mt19937_64& draw) {
  std::vector<field> fields(1 + draw() % 20);
  for (auto& f : fields)
    f = random_field(draw);
  return fields;
}

std::string encoded(const std::vector<field>& fields) {
  xdr_writer out;
  for (const auto& f : fields)
    std::visit(field_writer{out}, f);
  return out.take();
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const unsigned char c : bytes) {
    text.push_back("0123456789abcdef"[c >> 4]);
    text.push_back("0123456789abcdef"[c & 15]);
  }
  return text;
}

} // namespace

TEST_CASE("xdr: values look as RFC 4506 draws them", "[runtime]") {
  xdr_writer out;
  SECTION("integers are big-endian") {
    out.u32(0x01020304);
    out.i32(-2);
    out.u64(0x0102030405060708);
    out.i64(-1);
    CHECK(hex(out.bytes()) == "01020304fffffffe0102030405060708ffffffffffffffff");
  }
  SECTION("a double is IEEE 754") {
    out.f64(-2.5);
    CHECK(hex(out.bytes()) == "c004000000000000");
  }
  SECTION("strings are padded with zeros") {
    out.string("");
    out.string("abcde");
    CHECK(hex(out.bytes()) == "00000000000000056162636465000000");
  }
  SECTION("an optional string has a flag first") {
    out.optional_string(std::nullopt);
    out.optional_string("ab");
    CHECK(hex(out.bytes()) == "00000000000000010000000261620000");
  }
  SECTION("a char takes a word, with its sign") {
    out.char4("a\xff");
    CHECK(hex(out.bytes()) == "0000000200000061ffffffff");
  }
  SECTION("a fixed array of chars always ends in zero") {
    out.fixed_char4("abc", 3);
    out.fixed_char4("a", 3);
    CHECK(hex(out.bytes()) == "000000610000006200000000000000610000000000000000");
    xdr_reader in{out.bytes()};
    CHECK(in.fixed_char4(3) == "ab");
    CHECK(in.fixed_char4(3) == "a");
    CHECK(in.done());
  }
  SECTION("fixed opaque bytes have padding but no length") {
    out.fixed_opaque("abcde");
    CHECK(hex(out.bytes()) == "6162636465000000");
    xdr_reader in{out.bytes()};
    CHECK(in.fixed_opaque(5) == "abcde");
    CHECK(in.rest().empty());
  }
}

TEST_CASE("xdr: what was written is read back", "[runtime]") {
  std::mt19937_64 draw{1};
  for (int i = 0; i < 2000; ++i) {
    const auto fields = random_struct(draw);
    const auto bytes = encoded(fields);
    xdr_reader in{bytes};
    for (const auto& f : fields)
      REQUIRE(read_like(f, in) == f);
    REQUIRE(in.done());
    REQUIRE(in.rest().empty());
  }
}

TEST_CASE("xdr: a truncated struct is refused, wherever it is cut", "[runtime]") {
  std::mt19937_64 draw{2};
  for (int i = 0; i < 200; ++i) {
    const auto fields = random_struct(draw);
    const auto bytes = encoded(fields);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      xdr_reader in{std::string_view{bytes}.substr(0, size)};
      for (const auto& f : fields)
        read_like(f, in);
      REQUIRE_FALSE(in.done());
      REQUIRE(in.done().error().code == errc::bad_packet);
    }
  }
}

TEST_CASE("xdr: random bytes never make it read beyond them", "[runtime]") {
  std::mt19937_64 draw{3};
  for (int i = 0; i < 20'000; ++i) {
    const auto bytes = random_bytes(draw, 64);
    const auto fields = random_struct(draw);
    xdr_reader in{bytes};
    for (const auto& f : fields)
      read_like(f, in);
    REQUIRE(in.offset() <= bytes.size());
  }
}

TEST_CASE("xdr: a count is believed only if the data could hold it", "[runtime]") {
  xdr_writer out;
  out.u32(3);
  out.u32(1);
  out.u32(2);
  SECTION("more than the data") {
    xdr_reader in{out.bytes()};
    CHECK(in.count(100) == 0);
    CHECK(in.failed());
  }
  SECTION("more than allowed") {
    xdr_reader in{out.bytes()};
    CHECK(in.count(2, 1) == 0);
    CHECK(in.done().error().detail.find("longer than allowed") != std::string::npos);
  }
  SECTION("just enough") {
    out.u32(3);
    xdr_reader in{out.bytes()};
    CHECK(in.count(3) == 3);
  }
  SECTION("absurd lengths cost nothing") {
    xdr_writer absurd;
    absurd.u32(std::numeric_limits<std::uint32_t>::max());
    absurd.u32(0);
    constexpr auto any = std::numeric_limits<std::uint32_t>::max();
    CHECK(xdr_reader{absurd.bytes()}.string(any).empty());
    CHECK(xdr_reader{absurd.bytes()}.opaque(any).empty());
    CHECK(xdr_reader{absurd.bytes()}.char4(any).empty());
    CHECK(xdr_reader{absurd.bytes()}.count(any) == 0);
  }
}

TEST_CASE("xdr: the first failure stays and is told", "[runtime]") {
  xdr_writer out;
  out.u32(7);
  out.string("abcdefgh");
  out.u32(9);
  xdr_reader in{out.bytes()};
  CHECK(in.u32() == 7);
  CHECK(in.string(4).empty());
  CHECK(in.u32() == 0);
  CHECK(in.u64() == 0);
  in.refuse("a later complaint");
  CHECK(in.done().error().detail == "cannot decode 20 bytes: at byte 8 a list or string is longer than allowed");
}

TEST_CASE("xdr: a present flag may have any non-zero value", "[runtime]") {
  const std::string bytes{"\1\0\0\0\0\0\0\1x\0\0\0", 12};
  xdr_reader in{bytes};
  CHECK(in.optional_string(10) == "x");
  CHECK(in.done());
}

TEST_CASE("xdr: a string with a NUL in it is refused", "[runtime]") {
  xdr_writer out;
  out.string(std::string_view{"a\0b", 3});
  xdr_reader in{out.bytes()};
  CHECK(in.string(10).empty());
  CHECK_FALSE(in.done());
  CHECK(xdr_reader{out.bytes()}.opaque(10) == std::string_view{"a\0b", 3});
}

TEST_CASE("xdr: bytes left over are no error", "[runtime]") {
  xdr_writer out;
  out.u32(1);
  out.u32(2);
  xdr_reader in{out.bytes()};
  in.u32();
  CHECK(in.done());
  CHECK(in.rest().size() == 4);
}
