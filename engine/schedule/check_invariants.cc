// The scheduler's invariants, as CHECKs.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "engine/schedule/scheduler.h"

namespace fastgen {

void Scheduler::CheckInvariants() const {
  const size_t num_held =
      static_cast<size_t>(std::count_if(live_.begin(), live_.end(), [](const auto& entry) {
        return entry.second->phase == Sequence::Phase::kHeld;
      }));
  CHECK_EQ(live_.size(), running_.size() + waiting_.size() + num_held);
  CHECK_LE(static_cast<int32_t>(running_.size()), options_.max_num_seqs);
  CHECK_EQ(static_cast<int32_t>(running_.size() + free_slots_.size()), options_.max_num_seqs);
  CheckRunning();
  CheckWaiting();
  CheckBlocks();
}

void Scheduler::CheckRunning() const {
  std::vector<bool> has_slot(options_.max_num_seqs, false);
  for (const int32_t slot : free_slots_) has_slot[slot] = true;
  const Sequence* before = nullptr;
  for (const Sequence* sequence : running_) {
    CHECK(sequence->phase == Sequence::Phase::kRunning) << "sequence " << sequence->id;
    CHECK(before == nullptr || before->order < sequence->order)
        << "running sequence " << sequence->id << " is out of order";
    before = sequence;
    CHECK(sequence->swap_chunks.empty()) << "sequence " << sequence->id << " runs swapped out";
    CHECK(!has_slot[sequence->slot]) << "slot " << sequence->slot << " is taken twice";
    has_slot[sequence->slot] = true;
    CheckSequence(*sequence);
  }
}

void Scheduler::CheckWaiting() const {
  int64_t num_waiting_tokens = 0;
  for (const auto& [order, sequence] : waiting_) {
    CHECK(sequence->phase == Sequence::Phase::kWaiting) << "sequence " << sequence->id;
    CHECK_EQ(order.arrival, sequence->order.arrival);
    CHECK(sequence->block_table.empty()) << "waiting sequence " << sequence->id << " holds blocks";
    CHECK(sequence->num_computed == 0 || !sequence->swap_chunks.empty())
        << "waiting sequence " << sequence->id << " has lost its KV";
    num_waiting_tokens += sequence->waiting_tokens;
    CheckSequence(*sequence);
  }
  CHECK_EQ(num_waiting_tokens, num_waiting_tokens_);
  for (const auto& [id, sequence] : live_) {
    if (sequence->phase != Sequence::Phase::kHeld) continue;
    const Sequence* leader = FindLive(sequence->leader);
    CHECK(leader != nullptr && !leader->is_prefilled) << "sequence " << id << " is held by nobody";
    CHECK(std::count(leader->held_followers.begin(), leader->held_followers.end(), id) == 1)
        << "sequence " << id << " is forgotten by its leader";
  }
}

void Scheduler::CheckBlocks() const {
  std::vector<int32_t> holders(blocks_.num_blocks(), 0);
  std::vector<int32_t> host_holders(host_.num_blocks(), 0);
  for (const auto& [id, sequence] : live_) {
    for (const int32_t block : sequence->block_table) ++holders[block];
    for (const int32_t chunk : sequence->swap_chunks) ++host_holders[chunk];
  }
  for (const Fill& fill : fills_) ++host_holders[fill.chunk];
  for (const auto& [step, chunk] : chunks_in_flight_) ++host_holders[chunk];
  blocks_.CheckInvariants(holders);
  host_.CheckInvariants(host_holders);
  // Nobody writes into a block that is shared: its holders are all past it. (Fills read full
  // blocks.)
  for (const Sequence* sequence : running_) {
    const int32_t num_full = sequence->num_computed / options_.block_size;
    for (size_t i = num_full; i < sequence->block_table.size(); ++i) {
      CHECK_EQ(holders[sequence->block_table[i]], 1)
          << "block " << sequence->block_table[i] << " of sequence " << sequence->id
          << " is shared and still written";
    }
  }
}

void Scheduler::CheckSequence(const Sequence& sequence) const {
  CHECK(FindLive(sequence.id) == &sequence) << "sequence " << sequence.id << " is not live";
  CHECK(sequence.num_pending >= 0 && sequence.num_pending <= num_in_flight())
      << "sequence " << sequence.id << " waits for " << sequence.num_pending << " tokens";
  CHECK_LE(sequence.num_committed, sequence.num_computed) << "sequence " << sequence.id;
  CHECK_LE(sequence.num_computed, sequence.length()) << "sequence " << sequence.id;
  CHECK(sequence.num_remaining() > 0 || num_in_flight() > 0)
      << "sequence " << sequence.id << " has nothing left and did not end";
  CHECK_LE(sequence.length() - sequence.num_prompt, sequence.stop.max_output_tokens)
      << "sequence " << sequence.id;
  CHECK_LE(sequence.length(), options_.max_model_len) << "sequence " << sequence.id;
  const auto num_blocks = static_cast<int32_t>(sequence.block_table.size());
  const int32_t swapped_tokens =
      static_cast<int32_t>(sequence.swap_chunks.size()) * blocks_per_chunk_ * options_.block_size;
  CHECK_LE(sequence.num_computed, num_blocks * options_.block_size + swapped_tokens)
      << "sequence " << sequence.id << " computes beyond its blocks";
  CHECK_LE(num_blocks, NumBlocksFor(sequence.length())) << "sequence " << sequence.id;
  CHECK_LE(sequence.num_indexed * options_.block_size, sequence.num_committed)
      << "sequence " << sequence.id << " is indexed beyond what is computed";
  for (int32_t i = 0; i < sequence.num_indexed; ++i) {
    CHECK(blocks_.index().Contains(sequence.block_table[i]))
        << "block " << sequence.block_table[i] << " of sequence " << sequence.id
        << " has left the index";
  }
}

void Scheduler::CheckInDebug() const {
#ifndef NDEBUG
  CheckInvariants();
#endif
}

}  // namespace fastgen
