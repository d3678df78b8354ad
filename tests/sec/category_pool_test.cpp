#include "sec/category_pool.hpp"

#include "tests/catch.hpp"

#include <map>
#include <random>
#include <set>
#include <vector>

namespace troupe {

TEST_CASE("category_pool: a million draws never give two live guests one pair", "[sec]") {
  // Ranges in which pairs are plenty, scarce, and so few that the pool is often exhausted.
  for (const auto range : {category_range{0, 1023}, category_range{100, 160}, category_range{0, 5}}) {
    std::mt19937_64 random{range.last};
    category_pool pool{range};
    std::vector<category_pair> live;
    std::set<category_pair> taken;
    std::size_t refused = 0;
    for (int i = 0; i < 400'000; ++i) {
      // Fills up and empties again, twenty times.
      const bool filling = i / 10'000 % 2 == 0;
      if (!live.empty() && (random() % 4 == 0) == filling) {
        const auto at = random() % live.size();
        pool.give_back(live[at]);
        REQUIRE(taken.erase(live[at]) == 1);
        live[at] = live.back();
        live.pop_back();
        continue;
      }
      const auto pair = pool.lease(random());
      if (!pair) {
        REQUIRE(pair.error().code == errc::operation_failed);
        REQUIRE(live.size() == range.pairs());
        ++refused;
        continue;
      }
      REQUIRE(pair->low < pair->high);
      REQUIRE((pair->low >= range.first && pair->high <= range.last));
      REQUIRE(taken.insert(*pair).second);
      live.push_back(*pair);
    }
    CHECK(pool.in_use() == live.size());
    CHECK((refused > 0) == (range.pairs() < 2000));
  }
}

TEST_CASE("category_pool: every pair of the range is leased, and each once", "[sec]") {
  const category_range range{7, 50};
  REQUIRE(range.pairs() == 44 * 43 / 2);
  for (const bool one_draw : {true, false}) {
    std::mt19937_64 random{1};
    category_pool pool{range};
    std::set<category_pair> seen;
    for (std::size_t i = 0; i < range.pairs(); ++i)
      seen.insert(pool.lease(one_draw ? 1 : random()).value());
    CHECK(seen.size() == range.pairs());
    CHECK_FALSE(pool.lease(random()));
  }
}

TEST_CASE("category_pool: the draw decides, and all pairs are as likely", "[sec]") {
  std::mt19937_64 random{3};
  std::map<category_pair, int> seen;
  for (int i = 0; i < 45'000; ++i) {
    category_pool pool{{0, 9}};
    ++seen[pool.lease(random()).value()];
  }
  REQUIRE(seen.size() == 45);
  for (const auto& [pair, times] : seen)
    CHECK((times > 800 && times < 1200)); // 1000 expected, 31 the standard deviation
}

TEST_CASE("category_pool: a pair that labels name is free when the last of them is gone", "[sec]") {
  category_pool pool{{0, 1}};
  pool.reserve({0, 1});
  pool.reserve({0, 1});
  CHECK_FALSE(pool.lease(0));
  pool.give_back({0, 1});
  CHECK_FALSE(pool.lease(0));
  pool.give_back({0, 1});
  CHECK(pool.lease(0) == category_pair{0, 1});
  pool.give_back({5, 6}); // nobody's: nothing happens
  CHECK(pool.in_use() == 1);
}

TEST_CASE("category_pool: the categories come from a context's higher level", "[sec]") {
  CHECK(categories_of("s0") == category_range{0, 1023});
  CHECK(categories_of("s0-s0") == category_range{0, 1023});
  CHECK(categories_of("s0-s0:c0.c1023") == category_range{0, 1023});
  CHECK(categories_of("s0:c100.c199") == category_range{100, 199});
  CHECK(categories_of("s0:c1-s15:c1,c4.c9,c20.c22") == category_range{4, 9});
  for (const auto* wrong : {"s0:c5", "s0:c1,c3,c5", "s0:", "s0:x", "s0:c1.c", "s0:c9.c1", "s0:c1024", "s0-s0:c0.c70000"}) {
    INFO(wrong);
    const auto range = categories_of(wrong);
    REQUIRE_FALSE(range);
    CHECK(range.error().code == errc::bad_argument);
    CHECK(range.error().detail.find(wrong) != std::string::npos);
  }
}

TEST_CASE("category_pool: a label's pair is read back as it is written", "[sec]") {
  for (const category_pair pair : {category_pair{0, 1}, category_pair{3, 1023}, category_pair{34, 44}})
    CHECK(pair_of("s0:" + to_text(pair)) == pair);
  CHECK(pair_of("s0:c44,c34") == category_pair{34, 44});
  CHECK(pair_of("s0:c3.c4") == category_pair{3, 4});
  for (const auto* other : {"s0", "s0:c1", "s0:c1,c1", "s0:c1.c3", "s0:c1,c2,c3", "s0:c1.c2,c9", "s0-s0:c0.c1023"}) {
    INFO(other);
    CHECK_FALSE(pair_of(other));
  }
}

} // namespace troupe
