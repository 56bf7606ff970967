// PagedAttention: cuts a step's attention into tiles of queries x kv heads, and long contexts into
// partitions.
//
// A tile is up to 32 (row, head) pairs of one sequence that share a kv head. Its keys are visited
// in partitions of about 256 keys (whole blocks); each partition has its own running softmax,
// merged in order. Where there are fewer tiles than would keep the threads busy, partitions run in
// parallel and are merged afterwards - the same additions in the same order, so the result does not
// depend on which way was taken. A decode step with enough sequences to share gives a task all kv
// heads of one: their pages lie behind one another, and a stream of 8 KB pieces reads memory at
// half the rate of a linear one (9 against 20 GB/s a core, Zen 4, 2026-11). Thread rule: one thread
// calls Run. Tested by tests/kernels/attention_test.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"

namespace fastgen::cpu {

class PagedAttention {
 public:
  PagedAttention(const AttentionKernels& kernels, ThreadPool* pool)
      : kernels_(kernels), pool_(pool) {}

  const AttentionKernels& kernels() const { return kernels_; }
  absl::Status Reserve(const Backend::Limits& limits);

  // As Backend::PagedAttention. REQUIRES: shapes were checked.
  void Run(const Tensor& q, const AttentionShape& shape, const AttentionBatch& batch,
           const Tensor& k_cache, const Tensor& v_cache, const Tensor& out);

 private:
  struct Call;

  // kv heads that one task takes in turn.
  static constexpr int kMaxTaskHeads = 8;

  int64_t ThreadFloats(int64_t padded_dim) const;
  int64_t TasksOf(const Call& call, int64_t sequence) const;
  // Tiles of task `task`, one a kv head, into tiles[kMaxTaskHeads]; their scratch belongs to
  // `thread`. Returns their number.
  int MakeTiles(const Call& call, int64_t task, int thread, AttentionTile* tiles) const;
  // Tiles that differ in their kv head only, all their partitions.
  void RunTiles(const Call& call, const AttentionTile* tiles, int num_tiles) const;
  // In a tile a row that is not finite reaches rows that do not see it, because 0 times NaN is NaN.
  // Where a finished tile has such a row, runs its rows one by one: alone, none meets a later one.
  void KeepPoisonApart(const Call& call, const AttentionTile& tile) const;
  void RunWhole(const Call& call, int64_t task, int thread) const;
  void RunSplit(const Call& call, int64_t num_tasks, int64_t max_partitions);
  SoftmaxState StateAt(float* memory, int64_t padded_dim) const;

  const AttentionKernels kernels_;
  ThreadPool* const pool_;
  HostMemory thread_scratch_;        // [threads, thread_floats_]
  HostMemory split_states_;          // partitions' states when they run in parallel
  std::vector<int64_t> first_task_;  // [max_sequences + 1]
};

}  // namespace fastgen::cpu
