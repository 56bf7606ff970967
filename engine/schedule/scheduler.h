// Scheduler: decides what runs in each step. A pure state machine: no threads, clock, device, text
// or logging; time is a number that the caller gives.
//
//   PlanStep: decode rows of every running sequence first (one token each), then prefill chunks in
//   order of service,
//             within max_num_batched_tokens. Waiting sequences are admitted, in order of service
//             and never past one that does not fit yet, while a row, their blocks for the whole
//             known text and a reserve of one block per running sequence are free.
//   CommitStep: appends sampled tokens, ends sequences (eos, stop id, length), frees blocks, fills
//   the prefix index.
// Run-ahead: with max_steps_in_flight 2 a step is planned from lengths while the one before it
// runs. What ends a sequence by length is known in time; one that ends by an id costs the row that
// was planned meanwhile.
//
// Admission looks the known text up in the prefix index (device blocks, shared) and then in the
// host tier (chunks, paged in), and computes the rest. A follower (another choice of the same
// prompt) shares its leader's blocks and copies the one that both would write. A decode row that
// finds no free block preempts the running sequence that is last in order of service; a waiting
// sequence of a strictly lower class number preempts likewise. The victim's KV is swapped to host
// blocks where that is cheaper than computing it again (measured step costs), else dropped; its
// tokens are kept.
//
// Invariants, checked after every call in debug builds, when the engine goes idle, and by the
// simulation:
//  1. Every device block is free, cached, about to be so once a step has retired, or held; its
//  count of holders is the
//     number of tables that name it; a block that is in two tables is full and in the prefix index,
//     or was, or is a prompt block of two choices. Host chunks likewise.
//  2. A block that a step in flight may touch is not handed out again before that step is
//  committed.
//  3. Every added sequence ends exactly once, in CommitResult::finished of some CommitStep, Cancel,
//  FinishAt, Expire or
//     EndAll.
//  4. In each plan, and in the queue, the order of service decides who is first. It never changes,
//  and everyone ends,
//     so nobody starves.
// Thread rule: engine thread only.
// Tested by tests/engine/schedule/*_test.cc, scripts in tests/testdata/schedule, and tests/sim.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/schedule/block_pool.h"
#include "engine/schedule/sequence.h"
#include "engine/schedule/step_cost.h"
#include "engine/schedule/step_plan.h"

namespace fastgen {

#ifdef NDEBUG
inline constexpr bool kPoisonsByDefault = false;
#else
inline constexpr bool kPoisonsByDefault = true;
#endif

// Ranges: Validate in admission.h.
struct SchedulerOptions {
  int32_t max_num_seqs = 256;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_model_len = 8192;
  int32_t block_size = 64;
  int32_t num_blocks = 0;
  int32_t num_host_blocks = 0;  // 0: no host tier
  int32_t host_chunk_tokens =
      256;  // what the host tier keeps and evicts as one; a multiple of block_size
  bool prefix_cache = true;
  uint64_t prefix_hash_key = 0;     // random where strangers send prompts
  int32_t max_steps_in_flight = 2;  // 1 or 2
  int64_t ageing_us = 1'000'000;    // waiting so long makes up for one class of priority
  int64_t deadline_margin_us = 20'000;
  double page_us_per_token = 0;  // measured: moving a token's KV between the tiers, one way
  bool poison_freed_blocks =
      kPoisonsByDefault;  // plans name them, so that a stale read gives a NaN
};

// How long before its deadline a request is ended: the option's margin, or a typical step where
// that is longer, but not longer than kMaxStepMarginUs: deadlines are looked at while steps run,
// and one slow step must not end what the next ones could serve.
inline constexpr int64_t kMaxStepMarginUs = 100'000;
int64_t DeadlineMarginUs(const SchedulerOptions& options, const StepCost& step_cost);

// What a step changed, for the completion side.
struct CommitResult {
  struct Output {
    SequenceId id = 0;
    TokenScore token;                // token.token == -1: none (a chunk that did not sample)
    std::vector<TokenScore> scored;  // prompt tokens scored in this step, in order
    bool first_chunk =
        false;  // the sequence's first step of all; never true again after a preemption
    bool prefilled = false;  // this step completed its prompt; never true again after a preemption
    int32_t num_computed = 0;   // tokens whose KV is there, cached ones included
    int32_t cached_tokens = 0;  // of the prompt, at the first admission
  };
  std::vector<Output> outputs;  // in plan order
  std::vector<FinishedSequence> finished;
};

// Figures of this moment; counters since the start.
struct SchedulerStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // held followers included
  int64_t num_waiting_tokens = 0;
  int32_t num_free_blocks = 0;  // cached and retiring ones included: what nobody holds
  int32_t num_cached_blocks = 0;
  int32_t num_blocks = 0;
  int32_t num_free_host_blocks = 0;
  int32_t num_host_blocks = 0;
  int64_t num_preemptions = 0;
  int64_t num_swaps = 0;
  int64_t num_wasted_rows = 0;
  int64_t prefix_query_tokens = 0;
  int64_t prefix_device_hit_tokens = 0;
  int64_t prefix_host_hit_tokens = 0;
};

// How much of a prompt is cached now.
struct CachedPrefix {
  int32_t num_device_tokens = 0;
  int32_t num_host_tokens = 0;  // beyond those
};

// What would run before a new sequence of some class.
struct QueueAhead {
  int32_t num_sequences = 0;
  int64_t num_tokens = 0;  // still to be computed before their first (next) output token
};

// A live sequence as operators see it.
struct SequenceView {
  SequenceId id = 0;
  enum class Phase { kQueued, kPrefill, kDecode } phase = Phase::kQueued;
  int32_t num_output = 0;
};

class Scheduler {
 public:
  // REQUIRES: Validate(options) is OK.
  explicit Scheduler(const SchedulerOptions& options);

  // Queues a sequence, also while steps are in flight. REQUIRES: id not live; 1 <= prompt <=
  // max_model_len; it fits the whole pool when alone (admission.h checks these for the outside
  // world).
  void Add(NewSequence sequence);

  // Ends a live sequence in any phase; its blocks are free as soon as no step in flight touches
  // them. False when `id` is not live (idempotent). `finished` may be null.
  bool Cancel(SequenceId id, FinishReason reason, FinishedSequence* finished);

  // A stop string ended at output token `num_output_tokens` (found late, on the completion side):
  // as Cancel, with reason kStop and the output cut there. False when `id` is not live. `finished`
  // may be null. REQUIRES: 0 <= num_output_tokens <= the output committed so far.
  bool FinishAt(SequenceId id, int32_t num_output_tokens, FinishedSequence* finished);

  // Ends everything whose deadline is nearer than the margin (the option's, or one typical step if
  // that is longer), with kDeadline, and appends the records.
  void Expire(int64_t now_us, std::vector<FinishedSequence>* expired);
  // When Expire next has something to do; kNoDeadline: never.
  int64_t next_expiry_us() const;

  // Ends everything, as after a device error, with steps in flight forgotten.
  void EndAll(FinishReason reason, std::vector<FinishedSequence>* finished);

  // Replaces `plan` by the next step's work; its storage is used again. Empty when nothing can run
  // before the step in flight is committed; never empty when none is in flight and sequences are
  // live. REQUIRES: fewer than max_steps_in_flight steps are planned and not committed.
  void PlanStep(StepPlan* plan);

  // Applies the result of the oldest plan in flight. Sequences that ended since it was planned are
  // skipped.
  void CommitStep(const StepPlan& plan, const StepResult& result, CommitResult* commit);

  // Feeds the cost model that swaps, deadlines and estimates use.
  void ObserveStep(int32_t num_tokens, int64_t duration_us) {
    step_cost_.Observe(num_tokens, duration_us);
  }
  const StepCost& step_cost() const { return step_cost_; }

  // What admission would find cached now of a prompt.
  CachedPrefix Lookup(const std::vector<int32_t>& prompt, const std::string& cache_salt) const;
  QueueAhead Ahead(int32_t priority, int64_t now_us) const;
  // Forgets all cached prefixes of both tiers, those of live sequences included. Returns the number
  // of device blocks that held one.
  int32_t FlushPrefixCache();

  bool idle() const { return live_.empty(); }
  int32_t num_in_flight() const { return static_cast<int32_t>(last_step_ - committed_step_); }
  SchedulerStats stats() const;
  void List(std::vector<SequenceView>* views) const;
  // CHECKs the invariants above; linear in the number of blocks.
  void CheckInvariants() const;

 private:
  // What a sequence starts from when it is admitted now.
  struct Start {
    int32_t num_computed = 0;
    int32_t num_device_tokens = 0;       // of these, found in device blocks
    std::vector<int32_t> shared_blocks;  // the first of the table, held by others or cached
    int32_t copy_source = -1;            // copied to the block after those (copy on write)
    std::vector<int32_t> host_chunks;    // the chain, from the root
    bool is_cacheable = false;           // what it computes may enter the prefix index
  };

  // A host chunk to be written: with the text that ends in device block `last_block`, as long as
  // that has this hash.
  struct Fill {
    int32_t chunk = 0;
    int32_t last_block = 0;
    uint64_t hash = 0;
  };

  // In the order of planning; scheduler_plan.cc.
  void MakeRoomForUrgent();
  void PlanDecodeRows(StepPlan* plan);
  void PlanPrefills(StepPlan* plan);
  void FinishPlan(StepPlan* plan);

  bool Samples(const Sequence& sequence) const;
  // True when `sequence` feeds its newest token only, to sample the next.
  bool IsDecoding(const Sequence& sequence) const;
  // True when it has known text to compute.
  bool IsPrefilling(const Sequence& sequence) const;
  // Gives `sequence` a block for its next token, preempting from the last on. False when there is
  // none in this step, or it was itself preempted.
  bool TakeDecodeBlock(Sequence* sequence);
  void PreemptLast();
  bool TrySwapOut(Sequence* sequence);
  // Available blocks that admission takes.
  int32_t NumBlocksNeeded(const Sequence& sequence, const Start& start) const;
  bool NeedsChunk(const Sequence& sequence) const;
  // As much of its known text as the budget allows.
  void AddChunk(Sequence* sequence, StepPlan* plan);
  bool TryAdmit(Sequence* sequence, StepPlan* plan);
  void Admit(Sequence* sequence, StepPlan* plan);
  void AdmitFromSwap(Sequence* sequence, StepPlan* plan);
  void AdmitFromStart(Sequence* sequence, StepPlan* plan);
  // Adds the row that feeds the next `num_tokens` tokens.
  void AddRow(Sequence* sequence, int32_t num_tokens, StepPlan* plan);
  void FillSampling(Sequence* sequence, ScheduledSequence* row);
  ScheduledSequence* NextRow(StepPlan* plan);

  // scheduler_prefix.cc
  void FindStart(const Sequence& sequence, Start* start) const;
  bool FindFork(const Sequence& sequence, Start* start) const;
  // Tokens that need not be computed again if their KV is found: all but the newest, and those
  // still to be scored.
  int32_t PrefixLimit(const Sequence& sequence) const;
  void FindDevicePrefix(const std::vector<int32_t>& tokens, const std::string& salt, int32_t limit,
                        std::vector<int32_t>* blocks) const;
  void FindHostPrefix(const std::vector<int32_t>& tokens, const std::string& salt, int32_t limit,
                      std::vector<int32_t>* chunks) const;
  // Puts the full blocks below `limit` into the prefix index, and those chunks into the host tier.
  void IndexBlocks(Sequence* sequence, int32_t limit);
  void FillHost(Sequence* sequence, int32_t limit);
  // Gives the plan the fills that still can be done, a step's worth.
  void TakeFills(StepPlan* plan);
  void DropStaleFills();
  bool CanFill(const Fill& fill) const;
  void HoldChain(int32_t last_block);
  int32_t ForgetPrefixes();
  int32_t IndexLimit(const Sequence& sequence) const;
  // Brings blocks [first_block, end_block) of the table back from the host blocks of `chunks`.
  void AddPageIns(const std::vector<int32_t>& chunks, int32_t first_block, int32_t end_block,
                  Sequence* sequence, StepPlan* plan);

  // scheduler_commit.cc
  void CommitRow(Sequence* sequence, const ScheduledSequence& row, const SequenceResult& row_result,
                 CommitResult* commit);
  void ReportScores(Sequence* sequence, const ScheduledSequence& row,
                    const SequenceResult& row_result, CommitResult::Output* output);
  void RetireStep(uint64_t step);

  // The record of how `sequence` ended; frees its blocks and forgets it. Blocks of its first
  // `num_kept` tokens stay for others to hit.
  FinishedSequence End(Sequence* sequence, FinishReason reason, int32_t num_kept);
  void ReleaseFollowers(Sequence* leader);
  void LeaveRunning(Sequence* sequence);
  void EnterWaiting(Sequence* sequence);
  void LeaveWaiting(Sequence* sequence);
  Sequence* FindLive(SequenceId id) const;
  // At its length and waiting for the step that samples the last token: it needs no more rows.
  bool IsEnding(const Sequence& sequence) const;
  void ReleaseBlocks(Sequence* sequence);
  void ReleaseSwap(Sequence* sequence);
  int32_t NumBlocksFor(int32_t num_tokens) const;

  // check_invariants.cc
  void CheckSequence(const Sequence& sequence) const;
  void CheckRunning() const;
  void CheckWaiting() const;
  void CheckBlocks() const;
  void CheckInDebug() const;

  const SchedulerOptions options_;
  const int32_t blocks_per_chunk_;
  BlockPool blocks_;
  BlockPool host_;  // its blocks are chunks: chunk c is host blocks [c * blocks_per_chunk_, ...)
  StepCost step_cost_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> live_;  // owns all sequences
  std::map<ServiceOrder, Sequence*> waiting_;
  std::vector<Sequence*> running_;  // in order of service
  std::set<std::pair<int64_t, SequenceId>> deadlines_;
  std::vector<int32_t> free_slots_;

  // For the next plan. Device blocks of either are not held: a fill whose block has lost its text
  // by then is dropped, swapped blocks are moved before the plan writes anything.
  std::vector<Fill> fills_;                // parents before their children
  std::vector<uint8_t> is_dropped_chunk_;  // by chunk; all 0 between calls
  std::vector<uint64_t> hold_step_;        // by block: the last step that a fill held it for
  std::vector<int32_t> num_victims_;       // by block: of its holders; all 0 between calls
  std::vector<int32_t> fill_holds_;        // of the plan in the making, parents first
  std::vector<KvBlockMove> swap_outs_;
  std::vector<int32_t> freed_blocks_;  // since the last plan, where they are to be poisoned
  std::vector<std::pair<uint64_t, int32_t>>
      chunks_in_flight_;  // (step, chunk) not to be hit before

  Start start_;                                // of the admission in the making: its storage
  std::vector<ScheduledSequence> spare_rows_;  // of earlier, longer plans: their storage
  std::vector<Sequence*> planned_;             // of the plan in the making, by row
  int32_t num_decode_rows_ = 0;                // those that lead it
  int32_t num_stalled_ = 0;  // decode rows that wait for a block of the step in flight

  uint64_t last_arrival_ = 0;
  uint64_t last_step_ = 0;       // planned
  uint64_t committed_step_ = 0;  // committed
  int64_t num_waiting_tokens_ = 0;
  SchedulerStats counters_;  // only the counters are kept here
};

}  // namespace fastgen
