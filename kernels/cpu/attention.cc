#include "kernels/cpu/attention.h"

#include <algorithm>

#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"

namespace fastgen::cpu {
namespace {

constexpr int64_t kPartitionKeys = 256;
// Room for partitions that run in parallel; a batch that needs more runs whole tiles.
constexpr int64_t kMaxSplitBytes = 32 << 20;

// Decode rows: with more pairs a tile has enough arithmetic to hide its reads, and its own scratch
// wants the cache.
constexpr int64_t kMaxSharedPairs = 16;

int64_t PaddedDim(int64_t head_dim) { return RoundUp<int64_t>(head_dim, 16); }

int64_t StateFloats(int64_t padded_dim) { return kMaxTilePairs * (padded_dim + 2); }

}  // namespace

struct PagedAttention::Call {
  const Tensor& q;
  const AttentionShape& shape;
  const AttentionBatch& batch;
  const Tensor& k_cache;
  const Tensor& v_cache;
  const Tensor& out;
  int64_t heads_per_kv;
  int64_t heads_per_tile;
  int64_t slices;  // tiles across the heads of a kv head
  int64_t rows_per_tile;
  int64_t partition_keys;
  bool share_sequences;  // many sequences: a task may take several kv heads

  // kv heads of a task of sequence `s`.
  int64_t HeadsPerTask(int64_t s) const {
    const int64_t pairs = (batch.query_start[s + 1] - batch.query_start[s]) * heads_per_kv;
    return share_sequences && pairs <= kMaxSharedPairs
               ? std::min<int64_t>(shape.kv_heads, kMaxTaskHeads)
               : 1;
  }
  int64_t NumPartitions(const AttentionTile& tile) const {
    return CeilDiv(tile.first_position + tile.num_rows, partition_keys);
  }
  // The first partition that a row of the tile sees.
  int64_t FirstPartition(const AttentionTile& tile) const {
    if (tile.window <= 0) return 0;
    return std::max<int64_t>(0, tile.first_position - tile.window + 1) / partition_keys;
  }
};

absl::Status PagedAttention::Reserve(const Backend::Limits& limits) {
  const int64_t padded_dim = PaddedDim(limits.attention.head_dim);
  ASSIGN_OR_RETURN(thread_scratch_, HostMemory::Allocate(pool_->num_threads() *
                                                         ThreadFloats(padded_dim) * sizeof(float)));
  const int64_t partitions = CeilDiv(std::max<int64_t>(1, limits.max_context), kPartitionKeys / 2);
  const int64_t all_bytes = 2 * pool_->num_threads() * partitions * StateFloats(padded_dim) *
                            static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(split_states_, HostMemory::Allocate(std::min(all_bytes, kMaxSplitBytes)));
  first_task_.assign(limits.max_sequences + 1, 0);
  return absl::OkStatus();
}

// Scores, then per kv head: queries, total state, partition state.
int64_t PagedAttention::ThreadFloats(int64_t padded_dim) const {
  return kAttentionScratchFloats +
         kMaxTaskHeads * (kMaxTilePairs * padded_dim + 2 * StateFloats(padded_dim));
}

int64_t PagedAttention::TasksOf(const Call& call, int64_t sequence) const {
  const int64_t num_queries =
      call.batch.query_start[sequence + 1] - call.batch.query_start[sequence];
  return CeilDiv(num_queries, call.rows_per_tile) *
         CeilDiv(call.shape.kv_heads, call.HeadsPerTask(sequence)) * call.slices;
}

SoftmaxState PagedAttention::StateAt(float* memory, int64_t padded_dim) const {
  return {memory + kMaxTilePairs * padded_dim, memory + kMaxTilePairs * (padded_dim + 1), memory};
}

int PagedAttention::MakeTiles(const Call& call, int64_t task, int thread,
                              AttentionTile* tiles) const {
  const AttentionShape& shape = call.shape;
  const int64_t sequence =
      std::upper_bound(first_task_.begin(), first_task_.begin() + call.batch.num_sequences() + 1,
                       task) -
      first_task_.begin() - 1;
  const int64_t heads_per_task = call.HeadsPerTask(sequence);
  const int64_t head_tasks = CeilDiv(shape.kv_heads, heads_per_task);
  int64_t rest = task - first_task_[sequence];
  const int64_t slice = rest % call.slices;
  rest /= call.slices;
  const int64_t first_kv_head = rest % head_tasks * heads_per_task;
  const int64_t first_row = rest / head_tasks * call.rows_per_tile;
  const int64_t query_begin = call.batch.query_start[sequence];
  const int64_t num_queries = call.batch.query_start[sequence + 1] - query_begin;
  const int64_t row = query_begin + first_row;
  const int num_tiles = static_cast<int>(std::min(heads_per_task, shape.kv_heads - first_kv_head));

  AttentionTile tile;
  tile.num_rows = std::min(call.rows_per_tile, num_queries - first_row);
  tile.num_heads = std::min(call.heads_per_tile, call.heads_per_kv - slice * call.heads_per_tile);
  tile.q_stride = call.q.row_stride;
  tile.out_stride = call.out.row_stride;
  tile.first_position = call.batch.context_len[sequence] - num_queries + first_row;
  tile.head_dim = shape.head_dim;
  tile.padded_dim = PaddedDim(shape.head_dim);
  tile.scale = shape.scale;
  tile.window = shape.window;
  tile.block_size = call.k_cache.dims[2];
  tile.block_stride = call.k_cache.row_stride;
  tile.block_table = call.batch.block_tables.data() + sequence * call.batch.max_blocks;
  tile.scratch =
      reinterpret_cast<float*>(thread_scratch_.data()) + thread * ThreadFloats(tile.padded_dim);
  for (int i = 0; i < num_tiles; ++i) {
    const int64_t kv_head = first_kv_head + i;
    const int64_t first_head = kv_head * call.heads_per_kv + slice * call.heads_per_tile;
    const int64_t page_offset =
        BytesOf(call.k_cache.dtype, kv_head * tile.block_size * shape.head_dim);
    tile.q = call.q.as<float>() + row * call.q.row_stride + first_head * shape.head_dim;
    tile.out = call.out.as<float>() + row * call.out.row_stride + first_head * shape.head_dim;
    tile.k_cache = call.k_cache.as<uint8_t>() + page_offset;
    tile.v_cache = call.v_cache.as<uint8_t>() + page_offset;
    tile.queries = tile.scratch + kAttentionScratchFloats + i * kMaxTilePairs * tile.padded_dim;
    tiles[i] = tile;
  }
  return num_tiles;
}

namespace {

// Whether a row of the tile was written that is not finite.
bool HasPoison(const AttentionTile& tile) {
  float taint[8] = {};  // 0, or NaN
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    const float* const out = tile.out + row * tile.out_stride;
    for (int64_t i = 0; i < tile.num_heads * tile.head_dim; i += 8) {
      for (int j = 0; j < 8; ++j) taint[j] += out[i + j] * 0.0f;
    }
  }
  return std::any_of(taint, taint + 8, [](float value) { return value != value; });
}

}  // namespace

void PagedAttention::RunTiles(const Call& call, const AttentionTile* tiles, int num_tiles) const {
  SoftmaxState totals[kMaxTaskHeads], parts[kMaxTaskHeads];
  const AttentionTile& tile = tiles[0];
  float* states =
      tile.scratch + kAttentionScratchFloats + kMaxTaskHeads * kMaxTilePairs * tile.padded_dim;
  for (int i = 0; i < num_tiles; ++i, states += 2 * StateFloats(tile.padded_dim)) {
    totals[i] = StateAt(states, tile.padded_dim);
    parts[i] = StateAt(states + StateFloats(tile.padded_dim), tile.padded_dim);
  }
  const int64_t first = call.FirstPartition(tile);
  const int64_t end = tile.first_position + tile.num_rows;
  for (int64_t p = first; p < call.NumPartitions(tile); ++p) {
    kernels_.attend(tiles, p == first ? totals : parts, num_tiles, p * call.partition_keys,
                    std::min(end, (p + 1) * call.partition_keys));
    if (p == first) continue;
    for (int i = 0; i < num_tiles; ++i) {
      kernels_.merge(tile.num_rows * tile.num_heads, tile.padded_dim, parts[i], totals[i]);
    }
  }
  for (int i = 0; i < num_tiles; ++i) kernels_.finish(tiles[i], totals[i]);
}

void PagedAttention::KeepPoisonApart(const Call& call, const AttentionTile& tile) const {
  if (tile.num_rows == 1 || !HasPoison(tile)) return;
  for (int64_t row = 0; row < tile.num_rows; ++row) {
    AttentionTile alone = tile;
    alone.num_rows = 1;
    alone.q += row * tile.q_stride;
    alone.out += row * tile.out_stride;
    alone.first_position += row;
    RunTiles(call, &alone, 1);
  }
}

void PagedAttention::RunWhole(const Call& call, int64_t task, int thread) const {
  AttentionTile tiles[kMaxTaskHeads];
  const int num_tiles = MakeTiles(call, task, thread, tiles);
  RunTiles(call, tiles, num_tiles);
  for (int i = 0; i < num_tiles; ++i) KeepPoisonApart(call, tiles[i]);
}

void PagedAttention::RunSplit(const Call& call, int64_t num_tasks, int64_t max_partitions) {
  const int64_t padded_dim = PaddedDim(call.shape.head_dim);
  float* const states = reinterpret_cast<float*>(split_states_.data());
  const auto state = [&](int64_t task, int64_t partition) {
    return StateAt(states + (task * max_partitions + partition) * StateFloats(padded_dim),
                   padded_dim);
  };
  pool_->ParallelFor(num_tasks * max_partitions, 1, [&](int64_t begin, int64_t end, int thread) {
    AttentionTile tiles[kMaxTaskHeads];
    for (int64_t item = begin; item < end; ++item) {
      MakeTiles(call, item / max_partitions, thread, tiles);
      const AttentionTile& tile = tiles[0];
      const int64_t p = item % max_partitions;
      if (p < call.FirstPartition(tile) || p >= call.NumPartitions(tile)) continue;
      const SoftmaxState part = state(item / max_partitions, p);
      kernels_.attend(tiles, &part, 1, p * call.partition_keys,
                      std::min(tile.first_position + tile.num_rows, (p + 1) * call.partition_keys));
    }
  });
  AttentionTile tiles[kMaxTaskHeads];
  for (int64_t task = 0; task < num_tasks; ++task) {
    MakeTiles(call, task, 0, tiles);
    const AttentionTile& tile = tiles[0];
    const int64_t first = call.FirstPartition(tile);
    for (int64_t p = first + 1; p < call.NumPartitions(tile); ++p) {
      kernels_.merge(tile.num_rows * tile.num_heads, padded_dim, state(task, p),
                     state(task, first));
    }
    kernels_.finish(tile, state(task, first));
    KeepPoisonApart(call, tile);
  }
}

void PagedAttention::Run(const Tensor& q, const AttentionShape& shape, const AttentionBatch& batch,
                         const Tensor& k_cache, const Tensor& v_cache, const Tensor& out) {
  const int64_t num_sequences = batch.num_sequences();
  CHECK_LT(num_sequences, static_cast<int64_t>(first_task_.size())) << "Reserve() was given less";
  const int64_t block_size = k_cache.dims[2];
  const int64_t heads_per_kv = shape.q_heads / shape.kv_heads;
  const int64_t heads_per_tile = std::min<int64_t>(heads_per_kv, kMaxTilePairs);
  const Call call = {q,
                     shape,
                     batch,
                     k_cache,
                     v_cache,
                     out,
                     heads_per_kv,
                     heads_per_tile,
                     CeilDiv(heads_per_kv, heads_per_tile),
                     kMaxTilePairs / heads_per_tile,
                     std::max<int64_t>(1, kPartitionKeys / block_size) * block_size,
                     num_sequences >= 2 * pool_->num_threads()};
  int64_t num_tasks = 0;
  int64_t max_context = 0;
  for (int64_t s = 0; s < num_sequences; ++s) {
    first_task_[s] = num_tasks;
    num_tasks += TasksOf(call, s);
    max_context = std::max<int64_t>(max_context, batch.context_len[s]);
  }
  first_task_[num_sequences] = num_tasks;
  const int64_t max_partitions = CeilDiv(max_context, call.partition_keys);
  const size_t split_bytes =
      num_tasks * max_partitions * StateFloats(PaddedDim(shape.head_dim)) * sizeof(float);
  if (!call.share_sequences && num_tasks < 4 * pool_->num_threads() && max_partitions > 1 &&
      pool_->num_threads() > 1 && split_bytes <= split_states_.bytes()) {
    RunSplit(call, num_tasks, max_partitions);
    return;
  }
  pool_->ParallelFor(num_tasks, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t task = begin; task < end; ++task) RunWhole(call, task, thread);
  });
}

}  // namespace fastgen::cpu
