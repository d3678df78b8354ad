#include "runtime/rpc.hpp"

#include "tests/catch.hpp"

#include <fcntl.h>
#include <random>
#include <sys/stat.h>

using namespace troupe;

namespace {

unique_fd some_fd() {
  return unique_fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
}

std::vector<unique_fd> some_fds(std::size_t number) {
  std::vector<unique_fd> fds;
  for (std::size_t i = 0; i < number; ++i)
    fds.push_back(some_fd());
  return fds;
}

ino_t inode_of(const unique_fd& fd) {
  struct stat found {};
  REQUIRE(::fstat(fd.get(), &found) == 0);
  return found.st_ino;
}

rpc_header random_header(std::mt19937_64& draw) {
  return {static_cast<std::uint32_t>(draw()), static_cast<std::uint32_t>(draw()), static_cast<std::int32_t>(draw()),
          static_cast<rpc_type>(draw() % 7),  static_cast<std::uint32_t>(draw()), static_cast<rpc_status>(draw() % 3)};
}

struct sent_packet {
  rpc_header header;
  std::string payload;
  std::size_t fds = 0;
};

sent_packet random_packet(std::mt19937_64& draw) {
  sent_packet packet{random_header(draw), std::string(draw() % 50, 'p'), 0};
  for (auto& c : packet.payload)
    c = static_cast<char>(draw());
  if (carries_fds(packet.header.type))
    packet.fds = draw() % 4;
  return packet;
}

/// What the socket carries: bytes, and after which of them a descriptor arrives.
struct traffic {
  std::string bytes;
  std::vector<bool> has_fd;
};

void add(traffic& wire, const sent_packet& packet) {
  wire.bytes += encode_rpc(packet.header, packet.payload, packet.fds);
  wire.has_fd.resize(wire.bytes.size(), false);
  wire.bytes.append(packet.fds, '\0');
  wire.has_fd.resize(wire.bytes.size(), true);
}

/// Feeds wire[from, to) as the kernel would hand it over: a read ends with the byte that has a descriptor.
void feed(rpc_framer& framer, const traffic& wire, std::size_t from, std::size_t to, std::vector<rpc_packet>& got) {
  while (from < to) {
    auto end = from;
    while (end < to && !wire.has_fd[end])
      ++end;
    const auto with_fd = end < to;
    end += with_fd ? 1 : 0;
    framer.feed(std::string_view{wire.bytes}.substr(from, end - from), some_fds(with_fd ? 1 : 0));
    from = end;
    for (;;) {
      auto packet = framer.next();
      REQUIRE(packet);
      if (!packet->has_value())
        break;
      got.push_back(std::move(**packet));
    }
  }
}

void check_same(const std::vector<rpc_packet>& got, const std::vector<sent_packet>& sent) {
  REQUIRE(got.size() == sent.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].header == sent[i].header);
    REQUIRE(got[i].payload == sent[i].payload);
    REQUIRE(got[i].fds.size() == sent[i].fds);
  }
}

std::string length_word(std::uint32_t length) {
  xdr_writer out;
  out.u32(length);
  return out.take();
}

} // namespace

TEST_CASE("rpc: a call looks as libvirt's clients send it", "[runtime]") {
  const rpc_header open{rpc_program_remote, rpc_version, 1, rpc_type::call, 3, rpc_status::ok};
  const auto packet = encode_rpc(open, "abcd");
  const std::string expected{"\0\0\0\x20\x20\0\x80\x86\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\3\0\0\0\0"
                             "abcd",
                             32};
  CHECK(packet == expected);
}

TEST_CASE("rpc: a reply echoes its call", "[runtime]") {
  const rpc_header call{rpc_program_qemu, 7, -3, rpc_type::call_with_fds, 99, rpc_status::ok};
  const auto reply = reply_to(call, rpc_status::error);
  CHECK(reply == rpc_header{rpc_program_qemu, 7, -3, rpc_type::reply, 99, rpc_status::error});
}

TEST_CASE("rpc: packets split at every byte come out the same", "[runtime]") {
  std::mt19937_64 draw{4};
  for (int i = 0; i < 20; ++i) {
    std::vector<sent_packet> sent(3);
    traffic wire;
    for (auto& packet : sent)
      add(wire, packet = random_packet(draw));
    for (std::size_t at = 0; at <= wire.bytes.size(); ++at) {
      rpc_framer framer;
      std::vector<rpc_packet> got;
      feed(framer, wire, 0, at, got);
      feed(framer, wire, at, wire.bytes.size(), got);
      check_same(got, sent);
      REQUIRE(framer.pending_bytes() == 0);
    }
  }
}

TEST_CASE("rpc: packets in pieces of any sizes come out the same", "[runtime]") {
  std::mt19937_64 draw{5};
  for (int i = 0; i < 300; ++i) {
    std::vector<sent_packet> sent(1 + draw() % 20);
    traffic wire;
    for (auto& packet : sent)
      add(wire, packet = random_packet(draw));
    rpc_framer framer;
    std::vector<rpc_packet> got;
    const auto most = 1 + draw() % 200;
    for (std::size_t at = 0; at < wire.bytes.size();) {
      const auto to = std::min<std::size_t>(wire.bytes.size(), at + 1 + draw() % most);
      feed(framer, wire, at, to, got);
      at = to;
    }
    check_same(got, sent);
  }
}

TEST_CASE("rpc: descriptors keep their order and their packet", "[runtime]") {
  sent_packet first{{}, "one", 2};
  sent_packet second{{}, "two", 1};
  first.header.type = second.header.type = rpc_type::call_with_fds;
  rpc_framer framer;
  int ends[2] = {-1, -1};
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  std::vector<unique_fd> fds;
  fds.push_back(some_fd());
  fds.emplace_back(ends[0]);
  fds.emplace_back(ends[1]);
  std::vector<ino_t> inodes;
  for (const auto& fd : fds)
    inodes.push_back(inode_of(fd));
  const auto give = [&](std::size_t i) {
    std::vector<unique_fd> one;
    one.push_back(std::move(fds[i]));
    return one;
  };
  framer.feed(encode_rpc(first.header, first.payload, 2) + '\0', give(0));
  CHECK_FALSE(framer.next().value().has_value());
  framer.feed(std::string(1, '\0'), give(1));
  auto got = framer.next();
  REQUIRE(got.value().has_value());
  CHECK((*got)->payload == "one");
  REQUIRE((*got)->fds.size() == 2);
  CHECK(inode_of((*got)->fds[0]) == inodes[0]);
  CHECK(inode_of((*got)->fds[1]) == inodes[1]);
  framer.feed(encode_rpc(second.header, second.payload, 1) + '\0', give(2));
  got = framer.next();
  REQUIRE(got.value().has_value());
  REQUIRE((*got)->fds.size() == 1);
  CHECK(inode_of((*got)->fds[0]) == inodes[2]);
}

TEST_CASE("rpc: lengths out of bounds are refused before their bytes come", "[runtime]") {
  for (const std::uint32_t length :
       {0u, 3u, 4u, 27u, static_cast<std::uint32_t>(rpc_max_packet) + 1, 0x7fffffffu, 0xffffffffu}) {
    rpc_framer framer;
    framer.feed(length_word(length));
    const auto got = framer.next();
    REQUIRE_FALSE(got);
    CHECK(got.error().code == errc::bad_packet);
    CHECK(got.error().detail.find(std::to_string(length)) != std::string::npos);
  }
  for (const std::size_t length : {rpc_header_size, rpc_max_packet}) {
    rpc_framer framer;
    framer.feed(length_word(static_cast<std::uint32_t>(length)));
    CHECK(framer.next().value() == std::nullopt);
  }
}

TEST_CASE("rpc: a lowered limit holds until it is raised", "[runtime]") {
  const auto packet = encode_rpc({}, std::string(100, 'x'));
  rpc_framer framer{127};
  framer.feed(packet);
  CHECK_FALSE(framer.next());
  rpc_framer raised{100};
  raised.limit(128);
  raised.feed(packet);
  CHECK(raised.next().value().has_value());
}

TEST_CASE("rpc: the largest packet passes", "[runtime]") {
  rpc_framer framer;
  const std::string payload(rpc_max_payload, 'x');
  framer.feed(encode_rpc({}, payload));
  const auto got = framer.next();
  REQUIRE(got.value().has_value());
  CHECK((*got)->payload == payload);
}

TEST_CASE("rpc: descriptors without a packet, or a packet without them, are refused", "[runtime]") {
  rpc_header with_fds;
  with_fds.type = rpc_type::call_with_fds;
  rpc_framer framer;
  SECTION("before any packet") {
    framer.feed("\0", some_fds(1));
    CHECK_FALSE(framer.next());
  }
  SECTION("with a packet of another type") {
    framer.feed(encode_rpc({}, "abcd"), some_fds(1));
    CHECK(framer.next().value().has_value());
    CHECK_FALSE(framer.next());
  }
  SECTION("within a packet that announces some") {
    framer.feed(encode_rpc(with_fds, "abcd", 1).substr(0, 33), some_fds(1));
    CHECK_FALSE(framer.next());
  }
  SECTION("a marker that brings none") {
    framer.feed(encode_rpc(with_fds, "abcd", 1) + '\0');
    CHECK_FALSE(framer.next());
  }
  SECTION("more than the protocol allows") {
    framer.feed(encode_rpc(with_fds, "abcd", rpc_max_fds + 1));
    CHECK_FALSE(framer.next());
  }
  SECTION("no room for their number") {
    auto packet = encode_rpc({}, "");
    packet[19] = 4; // the type
    framer.feed(packet);
    CHECK_FALSE(framer.next());
  }
  SECTION("none announced, none needed") {
    framer.feed(encode_rpc(with_fds, "abcd", 0));
    CHECK(framer.next().value().has_value());
  }
}

TEST_CASE("rpc: random bytes never crash the framer", "[runtime]") {
  std::mt19937_64 draw{6};
  for (int i = 0; i < 20'000; ++i) {
    rpc_framer framer;
    std::string bytes(draw() % 200, '\0');
    for (auto& c : bytes)
      c = static_cast<char>(draw());
    if (draw() % 2 == 0 && bytes.size() >= 20) { // a plausible length and type get further
      bytes.replace(0, 4, length_word(static_cast<std::uint32_t>(28 + draw() % 60)));
      bytes.replace(16, 4, length_word(static_cast<std::uint32_t>(draw() % 7)));
    }
    framer.feed(bytes, some_fds(draw() % 3));
    std::size_t out = 0;
    for (;;) {
      auto packet = framer.next();
      if (!packet || !packet->has_value())
        break;
      out += rpc_header_size + (*packet)->payload.size();
    }
    REQUIRE(out <= bytes.size());
  }
}

TEST_CASE("rpc: domains and typed parameters are read back", "[runtime]") {
  std::mt19937_64 draw{7};
  const auto text = [&draw](std::size_t most) { return std::string(draw() % (most + 1), 'a'); };
  for (int i = 0; i < 500; ++i) {
    rpc_domain domain{text(30), {}, static_cast<std::int32_t>(draw())};
    for (auto& byte : domain.uuid)
      byte = static_cast<std::uint8_t>(draw());
    std::vector<typed_param> params(draw() % 10);
    for (auto& param : params) {
      param.field = text(rpc_max_param_name);
      switch (draw() % 7) {
      case 0:
        param.value = static_cast<std::int32_t>(draw());
        break;
      case 1:
        param.value = static_cast<std::uint32_t>(draw());
        break;
      case 2:
        param.value = static_cast<std::int64_t>(draw());
        break;
      case 3:
        param.value = static_cast<std::uint64_t>(draw());
        break;
      case 4:
        param.value = static_cast<double>(draw()) / 3;
        break;
      case 5:
        param.value = draw() % 2 == 0;
        break;
      default:
        param.value = text(20);
      }
    }
    xdr_writer out;
    write(out, domain);
    write(out, params);
    xdr_reader in{out.bytes()};
    REQUIRE(read_domain(in) == domain);
    REQUIRE(read_typed_params(in, 10) == params);
    REQUIRE(in.done());
    xdr_reader again{std::string_view{out.bytes()}.substr(0, draw() % out.size())};
    read_domain(again);
    read_typed_params(again, 10);
    REQUIRE_FALSE(again.done());
  }
}

TEST_CASE("rpc: typed parameters out of bounds are refused", "[runtime]") {
  xdr_writer out;
  SECTION("too many") {
    write(out, std::vector<typed_param>(4, {"a", 1}));
    xdr_reader in{out.bytes()};
    CHECK(read_typed_params(in, 3).empty());
    CHECK_FALSE(in.done());
  }
  SECTION("a name too long for clients") {
    write(out, std::vector<typed_param>{{std::string(80, 'x'), 1}});
    xdr_reader in{out.bytes()};
    read_typed_params(in, 3);
    CHECK_FALSE(in.done());
  }
  SECTION("a type nobody knows") {
    out.u32(1);
    out.string("a");
    out.i32(8);
    out.u64(0);
    xdr_reader in{out.bytes()};
    read_typed_params(in, 3);
    CHECK(in.done().error().detail.find("type other than 1 to 7") != std::string::npos);
  }
}

TEST_CASE("rpc: an error carries libvirt's numbers and both texts", "[runtime]") {
  const auto payload = encode_error({errc::no_such_guest, "no domain with matching name 'web1'"});
  xdr_reader in{payload};
  CHECK(in.i32() == 42);
  CHECK(in.i32() == 10);
  CHECK(in.optional_string(1000) == "Domain not found: no domain with matching name 'web1'");
  CHECK(in.i32() == 2);
  CHECK_FALSE(in.present());
  CHECK(in.optional_string(1000) == "Domain not found: %s");
  CHECK(in.optional_string(1000) == "no domain with matching name 'web1'");
  CHECK(in.optional_string(1000) == std::nullopt);
  CHECK(in.i32() == -1);
  CHECK(in.i32() == -1);
  CHECK_FALSE(in.present());
  CHECK(in.done());
  CHECK(in.rest().empty());
}

TEST_CASE("rpc: every error has a code, a message and a bounded size", "[runtime]") {
  for (std::size_t i = 0; i < std::size(error_rows); ++i) {
    for (const auto& detail : {std::string{}, std::string{"detail"}, std::string(1'000'001, 'x')}) {
      const auto payload = encode_error({static_cast<errc>(i), detail});
      xdr_reader in{payload};
      CHECK(in.i32() != 0);
      in.i32();
      CHECK_FALSE(in.optional_string(rpc_max_string).value_or("").empty());
      CHECK(in.done());
      CHECK(payload.size() < 200'000);
    }
  }
}

TEST_CASE("rpc: a long error is cut between characters", "[runtime]") {
  std::string detail;
  while (detail.size() < 70'000)
    detail += "\xe2\x82\xac"; // three bytes, which do not divide the bound
  const auto payload = encode_error({errc::bad_packet, detail});
  xdr_reader in{payload};
  in.u64();
  const auto message = in.optional_string(rpc_max_string).value_or("");
  CHECK(message.size() == 65'535);
  CHECK(detail.starts_with(message));
}

TEST_CASE("rpc: an unknown procedure is told in the words clients look for", "[runtime]") {
  const auto payload = encode_error(unknown_procedure({rpc_program_remote, 1, 500, rpc_type::call, 0, rpc_status::ok}));
  xdr_reader in{payload};
  CHECK(in.i32() == 39);
  CHECK(in.i32() == 7);
  CHECK(in.optional_string(1000).value_or("").starts_with("unknown procedure"));
  CHECK(in.i32() == 2);
}

TEST_CASE("rpc: UUIDs are read back from their text", "[runtime]") {
  std::mt19937_64 draw{8};
  for (int i = 0; i < 500; ++i) {
    uuid_bytes uuid;
    for (auto& byte : uuid)
      byte = static_cast<std::uint8_t>(draw());
    const auto text = format_uuid(uuid);
    REQUIRE(text.size() == 36);
    REQUIRE(parse_uuid(text).value() == uuid);
    for (std::size_t size = 0; size < text.size(); ++size)
      REQUIRE_FALSE(parse_uuid(text.substr(0, size)));
  }
  CHECK(format_uuid(parse_uuid("C7A5FDBDEDAF9455926AD65C16DB1809").value()) == "c7a5fdbd-edaf-9455-926a-d65c16db1809");
}

TEST_CASE("rpc: what is no UUID is refused by name", "[runtime]") {
  for (const auto* text : {"", "web1", "c7a5fdbd-edaf-9455-926a-d65c16db180", "c7a5fdbd-edaf-9455-926a-d65c16db18099",
                           "c7a5fdbd--edaf-9455-926a-d65c16db1809", "-c7a5fdbd-edaf-9455-926a-d65c16db1809",
                           "c7a5fdbd-edaf-9455-926a-d65c16db1809-", "c7a5fdbd-edaf-9455-926a-d65c16db180g",
                           "c-7a5fdbdedaf9455926ad65c16db1809"}) {
    const auto got = parse_uuid(text);
    REQUIRE_FALSE(got);
    CHECK(got.error().code == errc::bad_argument);
    CHECK(got.error().detail.find(text) != std::string::npos);
  }
}
