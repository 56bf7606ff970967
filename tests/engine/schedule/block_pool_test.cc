// BlockPool: every block is handed out once, and comes back in an order that repeats.
#include "engine/schedule/block_pool.h"

#include <catch2/catch.hpp>
#include <set>

namespace fastgen {
namespace {

TEST_CASE("a pool hands out each block once", "[schedule]") {
  BlockPool pool(5, 4, 100);
  std::set<int32_t> seen;
  while (pool.num_available() > 0) seen.insert(pool.Take());
  CHECK(seen == std::set<int32_t>{0, 1, 2, 3, 4});
}

TEST_CASE("blocks are taken in ascending order from a fresh pool", "[schedule]") {
  BlockPool pool(3, 4, 100);
  CHECK(pool.Take() == 0);
  CHECK(pool.Take() == 1);
  CHECK(pool.Take() == 2);
}

}  // namespace
}  // namespace fastgen
