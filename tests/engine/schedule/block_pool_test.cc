// BlockPool: every block is handed out once, and comes back in an order that repeats.
#include "engine/schedule/block_pool.h"

#include <catch2/catch.hpp>
#include <set>

namespace fastgen {
namespace {

TEST_CASE("a pool hands out each block once", "[schedule]") {
  BlockPool pool(5);
  std::set<int32_t> seen;
  while (pool.num_free() > 0) seen.insert(pool.Take());
  CHECK(seen == std::set<int32_t>{0, 1, 2, 3, 4});
}

TEST_CASE("blocks are taken in ascending order from a fresh pool", "[schedule]") {
  BlockPool pool(3);
  CHECK(pool.Take() == 0);
  CHECK(pool.Take() == 1);
  CHECK(pool.Take() == 2);
}

TEST_CASE("a returned table is empty and comes out again in its order", "[schedule]") {
  BlockPool pool(4);
  std::vector<int32_t> table = {pool.Take(), pool.Take(), pool.Take()};
  pool.ReturnAll(&table);
  CHECK(table.empty());
  CHECK(pool.num_free() == 4);
  CHECK(pool.Take() == 0);
  CHECK(pool.Take() == 1);
  CHECK(pool.Take() == 2);
}

TEST_CASE("a block is taken from Take to ReturnAll", "[schedule]") {
  BlockPool pool(2);
  CHECK_FALSE(pool.IsTaken(0));
  std::vector<int32_t> table = {pool.Take()};
  CHECK(pool.IsTaken(0));
  CHECK_FALSE(pool.IsTaken(1));
  pool.ReturnAll(&table);
  CHECK_FALSE(pool.IsTaken(0));
}

TEST_CASE("no block outside the pool is taken", "[schedule]") {
  BlockPool pool(2);
  CHECK_FALSE(pool.IsTaken(-1));
  CHECK_FALSE(pool.IsTaken(2));
}

}  // namespace
}  // namespace fastgen
