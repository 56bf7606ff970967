// BlockPool: every block has the holders it was given, comes back when no step can touch it, and is evicted when it is
// nobody's and the least worth keeping.
#include "engine/schedule/block_pool.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "tests/testing/aborts.h"

namespace fastgen {
namespace {

using testing::Aborts;
using Content = BlockPool::Content;
using Blocks = std::vector<int32_t>;

constexpr int32_t kRoot = PrefixIndex::kRoot;
constexpr int32_t kNone = BlockPool::kNone;

// Takes `count` blocks and indexes them as one text: `text`, then 0, 1, 2, ...; block i holds one token.
Blocks TakeChain(int32_t count, int32_t text, BlockPool* pool) {
  Blocks chain;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t token = i == 0 ? text : i;
    chain.push_back(pool->Take());
    REQUIRE(
        pool->Insert(chain[i], i == 0 ? kRoot : chain[i - 1], "", Blocks{token}, Content::kReady));
  }
  return chain;
}

// As a sequence gives its table back.
void ReleaseChain(const Blocks& chain, uint64_t step, BlockPool* pool) {
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) pool->Release(*it, step);
}

int32_t ChainLength(int32_t text, const BlockPool& pool) {
  int32_t parent = kRoot;
  for (int32_t i = 0;; ++i) {
    parent = pool.Find(parent, "", Blocks{i == 0 ? text : i});
    if (parent == kNone) return i;
  }
}

Blocks TakeAll(BlockPool* pool) {
  Blocks blocks;
  for (int32_t block = pool->TryTake(); block != kNone; block = pool->TryTake()) {
    blocks.push_back(block);
  }
  return blocks;
}

TEST_CASE("a fresh pool hands out each block once, in ascending order", "[schedule]") {
  BlockPool pool(5, 1, 100);
  CHECK(pool.num_available() == 5);
  CHECK(TakeAll(&pool) == Blocks{0, 1, 2, 3, 4});
  CHECK(pool.num_available() == 0);
  CHECK(pool.TryTake() == kNone);
  pool.CheckInvariants(Blocks{1, 1, 1, 1, 1});
}

TEST_CASE("a table given back comes out again in its order", "[schedule]") {
  BlockPool pool(4, 1, 100);
  const Blocks table = {pool.Take(), pool.Take(), pool.Take()};
  ReleaseChain(table, 0, &pool);
  CHECK(Blocks{pool.Take(), pool.Take(), pool.Take()} == table);
}

TEST_CASE("a block is nobody's when its last holder lets go", "[schedule]") {
  BlockPool pool(1, 1, 100);
  const int32_t block = pool.Take();
  pool.Share(block);
  pool.Share(block);
  CHECK(pool.num_holders(block) == 3);
  pool.Release(block, 0);
  pool.Release(block, 0);
  CHECK(pool.num_available() == 0);
  pool.CheckInvariants(Blocks{1});
  pool.Release(block, 0);
  CHECK(pool.num_available() == 1);
  CHECK(pool.num_holders(block) == 0);
}

TEST_CASE("a released block is not had before its step is committed", "[schedule]") {
  BlockPool pool(3, 1, 100);
  const Blocks blocks = TakeAll(&pool);
  pool.Release(blocks[0], 5);
  pool.Release(blocks[1], 6);
  CHECK(pool.num_retiring() == 2);
  CHECK(pool.TryTake() == kNone);
  pool.CheckInvariants(Blocks{0, 0, 1});
  pool.Retire(4);
  CHECK(pool.TryTake() == kNone);
  pool.Retire(5);
  CHECK(pool.num_retiring() == 1);
  CHECK(pool.num_available() == 1);
  CHECK(pool.TryTake() == blocks[0]);
  CHECK(pool.TryTake() == kNone);
  pool.Retire(6);
  CHECK(pool.TryTake() == blocks[1]);
  pool.Release(blocks[2], 6);  // committed already
  CHECK(pool.TryTake() == blocks[2]);
}

TEST_CASE("a block shared again while it retires stays held", "[schedule]") {
  BlockPool pool(2, 1, 100);
  const Blocks chain = TakeChain(1, 7, &pool);
  pool.Release(chain[0], 1);
  CHECK(pool.Find(kRoot, "", Blocks{7}) == chain[0]);  // a prefix can be hit at once
  pool.Share(chain[0]);
  CHECK(pool.num_retiring() == 0);
  pool.Retire(1);
  CHECK(pool.num_cached() == 0);
  CHECK(pool.num_holders(chain[0]) == 1);
  pool.CheckInvariants(Blocks{1, 0});
}

TEST_CASE("a block shared and released again retires with its last step, once", "[schedule]") {
  BlockPool pool(2, 1, 100);
  const int32_t block = TakeChain(1, 7, &pool)[0];
  pool.Release(block, 1);
  pool.Share(block);
  pool.Release(block, 2);
  pool.Retire(1);
  CHECK(pool.num_retiring() == 1);  // step 2 may touch it
  CHECK_FALSE(pool.IsCached(block));
  pool.Retire(2);
  CHECK(pool.IsCached(block));
  CHECK(pool.num_cached() == 1);
  pool.CheckInvariants(Blocks{0, 0});

  SECTION("twice in one step") {
    pool.Share(block);
    pool.Release(block, 3);
    pool.Share(block);
    pool.Release(block, 3);
    CHECK(pool.num_retiring() == 1);
    pool.Retire(3);
    CHECK(pool.num_retiring() == 0);
    CHECK(pool.num_cached() == 1);
    CHECK(pool.num_available() == 2);
    pool.CheckInvariants(Blocks{0, 0});
  }
}

TEST_CASE("an indexed block that nobody holds is cached, others are free", "[schedule]") {
  BlockPool pool(3, 1, 100);
  const Blocks chain = TakeChain(2, 7, &pool);
  const int32_t plain = pool.Take();
  pool.Release(plain, 0);
  ReleaseChain(chain, 0, &pool);
  CHECK(pool.num_cached() == 2);
  CHECK(pool.num_available() == 3);
  CHECK(pool.IsCached(chain[0]));
  CHECK_FALSE(pool.IsCached(plain));
  CHECK(ChainLength(7, pool) == 2);
  pool.Share(chain[0]);
  CHECK(pool.num_cached() == 1);
  CHECK(pool.num_available() == 2);
  pool.CheckInvariants(Blocks{1, 0, 0});
}

TEST_CASE("free blocks are taken before cached ones", "[schedule]") {
  BlockPool pool(4, 1, 100);
  ReleaseChain(TakeChain(2, 7, &pool), 0, &pool);
  CHECK(pool.Take() == 2);
  CHECK(pool.Take() == 3);
  CHECK(ChainLength(7, pool) == 2);
  pool.Take();
  CHECK(ChainLength(7, pool) == 1);
}

TEST_CASE("the least recently used text is evicted first, from its end", "[schedule]") {
  BlockPool pool(5, 1, 100);
  const Blocks older = TakeChain(3, 70, &pool);
  const Blocks newer = TakeChain(2, 80, &pool);
  ReleaseChain(older, 0, &pool);
  ReleaseChain(newer, 0, &pool);
  CHECK(TakeAll(&pool) == Blocks{older[2], older[1], older[0], newer[1], newer[0]});
  CHECK(pool.index().size() == 0);
}

TEST_CASE("a used text is evicted later", "[schedule]") {
  BlockPool pool(5, 1, 100);
  const Blocks older = TakeChain(3, 70, &pool);
  const Blocks newer = TakeChain(2, 80, &pool);
  ReleaseChain(older, 0, &pool);
  ReleaseChain(newer, 0, &pool);
  SECTION("by Touch, the chain down to the block") {
    pool.Touch(older[1]);
    CHECK(TakeAll(&pool) == Blocks{older[2], newer[1], newer[0], older[1], older[0]});
  }
  SECTION("by Share and Release") {
    pool.Share(older[0]);
    pool.Release(older[0], 0);
    CHECK(TakeAll(&pool) == Blocks{older[2], older[1], newer[1], newer[0], older[0]});
  }
}

TEST_CASE("a parent is not evicted before its children, whatever their age", "[schedule]") {
  BlockPool pool(3, 1, 100);
  const Blocks chain = TakeChain(3, 70, &pool);
  for (const int32_t block : chain) pool.Release(block, 0);  // the root first
  CHECK(TakeAll(&pool) == Blocks{chain[2], chain[1], chain[0]});
}

TEST_CASE("a parent of a held child is kept, though it counts as available", "[schedule]") {
  BlockPool pool(2, 1, 100);
  const Blocks chain = TakeChain(2, 70, &pool);
  pool.Release(chain[0], 0);
  CHECK(pool.num_available() == 1);
  CHECK(pool.TryTake() == kNone);
  CHECK(Aborts([&] { pool.Take(); }));
  pool.CheckInvariants(Blocks{0, 1});
  pool.Release(chain[1], 0);
  CHECK(pool.TryTake() == chain[1]);
}

TEST_CASE("eviction goes on until the kept share is reached", "[schedule]") {
  BlockPool pool(8, 1, 75);
  ReleaseChain(TakeChain(4, 70, &pool), 0, &pool);
  ReleaseChain(TakeChain(4, 80, &pool), 0, &pool);
  CHECK(pool.num_available() == 8);
  pool.Take();
  CHECK(ChainLength(70, pool) == 2);  // 6 of 8 are kept, and then one is taken
  CHECK(ChainLength(80, pool) == 4);
  CHECK(pool.num_cached() == 6);
  pool.Take();
  CHECK(pool.num_cached() == 6);
  pool.Take();  // full again
  CHECK(pool.num_cached() == 4);
  CHECK(ChainLength(70, pool) == 0);
  CHECK(ChainLength(80, pool) == 4);
}

TEST_CASE("held blocks count against the kept share but are not evicted", "[schedule]") {
  BlockPool pool(4, 1, 75);
  const Blocks held = {pool.Take(), pool.Take(), pool.Take()};
  ReleaseChain(TakeChain(1, 70, &pool), 0, &pool);
  CHECK(pool.TryTake() == 3);
  CHECK(pool.TryTake() == kNone);
  pool.CheckInvariants(Blocks{1, 1, 1, 1});
}

TEST_CASE("a block that is being filled is found by fillers only", "[schedule]") {
  BlockPool pool(2, 1, 100);
  const int32_t block = pool.Take();
  REQUIRE(pool.Insert(block, kRoot, "s", Blocks{7}, Content::kFilling));
  CHECK(pool.Find(kRoot, "s", Blocks{7}) == kNone);
  CHECK(pool.FindEvenFilling(kRoot, "s", Blocks{7}) == block);
  pool.SetReady(block);
  CHECK(pool.Find(kRoot, "s", Blocks{7}) == block);
}

TEST_CASE("a forgotten block is in no index, unless it has children there", "[schedule]") {
  BlockPool pool(3, 1, 100);
  const Blocks chain = TakeChain(2, 7, &pool);
  pool.Forget(chain[0]);
  CHECK(ChainLength(7, pool) == 2);
  pool.Forget(chain[1]);
  CHECK(ChainLength(7, pool) == 1);
  pool.Forget(chain[0]);
  CHECK(ChainLength(7, pool) == 0);
  ReleaseChain(chain, 0, &pool);
  CHECK(pool.num_cached() == 0);
  CHECK(pool.num_available() == 3);
}

TEST_CASE("a flush takes everything out of the index, in every state", "[schedule]") {
  BlockPool pool(4, 1, 100);
  const Blocks chain = TakeChain(4, 7, &pool);
  pool.Release(chain[3], 0);  // cached
  pool.Release(chain[2], 1);  // retiring
  pool.Share(chain[1]);       // held
  CHECK(pool.Flush() == 4);
  CHECK(pool.num_cached() == 0);
  CHECK(pool.num_available() == 1);
  CHECK(ChainLength(7, pool) == 0);
  pool.CheckInvariants(Blocks{1, 2, 0, 0});
  // None of them is cached later: what they hold is nobody's prefix any more.
  pool.Retire(1);
  pool.Release(chain[1], 1);
  pool.Release(chain[1], 1);
  pool.Release(chain[0], 1);
  CHECK(pool.num_cached() == 0);
  CHECK(pool.num_available() == 4);
  CHECK(pool.Flush() == 0);
  pool.CheckInvariants(Blocks{0, 0, 0, 0});
}

TEST_CASE("the log names each block when it becomes free", "[schedule]") {
  BlockPool pool(4, 1, 100);
  Blocks log;
  pool.LogFreed(&log);
  const Blocks chain = TakeChain(2, 7, &pool);
  const Blocks plain = {pool.Take(), pool.Take()};
  pool.Release(plain[0], 0);
  CHECK(log == Blocks{plain[0]});
  pool.Release(plain[1], 1);
  ReleaseChain(chain, 0, &pool);  // cached: they still hold something
  CHECK(log == Blocks{plain[0]});
  pool.Retire(1);
  CHECK(log == Blocks{plain[0], plain[1]});
  pool.Take();
  pool.Take();
  pool.Take();  // evicts
  CHECK(log == Blocks{plain[0], plain[1], chain[1]});
  pool.Flush();
  CHECK(log == Blocks{plain[0], plain[1], chain[1], chain[0]});
}

TEST_CASE("an empty pool has nothing to give", "[schedule]") {
  BlockPool pool(0, 4, 75);
  CHECK(pool.num_available() == 0);
  CHECK(pool.TryTake() == kNone);
  CHECK(pool.Flush() == 0);
  pool.Retire(3);
  pool.CheckInvariants({});
}

TEST_CASE("misuse of a pool aborts", "[schedule]") {
  BlockPool pool(3, 1, 100);
  const Blocks chain = TakeChain(1, 7, &pool);
  CHECK(Aborts([&] { pool.Share(1); }));       // free
  CHECK(Aborts([&] { pool.Release(1, 0); }));  // not held
  CHECK(Aborts([&] { pool.Insert(1, kRoot, "", Blocks{8}, Content::kReady); }));
  CHECK(Aborts([&] { pool.Insert(chain[0], kRoot, "", Blocks{8}, Content::kReady); }));
  CHECK(Aborts([&] { pool.Forget(1); }));
  CHECK(Aborts([&] {
    pool.Release(chain[0], 0);
    pool.Release(chain[0], 0);
  }));
  CHECK(Aborts([&] {
    pool.Retire(4);
    pool.Retire(3);
  }));
  CHECK(Aborts([&] { pool.CheckInvariants(Blocks{0, 0, 0}); }));
  CHECK(Aborts([&] { pool.CheckInvariants(Blocks{1, 0}); }));
  CHECK(Aborts([] { BlockPool(3, 1, 0); }));
  CHECK(Aborts([] { BlockPool(3, 1, 101); }));
  CHECK(Aborts([] { BlockPool(3, 0, 100); }));
}

}  // namespace
}  // namespace fastgen
