#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/int_math.h"
#include "engine/schedule/admission.h"

namespace fastgen {
namespace {

// What the host tier keeps when it makes room.
constexpr int32_t kHostKeepPercent = 75;

const SchedulerOptions& Checked(const SchedulerOptions& options) {
  const absl::Status valid = Validate(options);
  CHECK(valid.ok()) << std::string(valid.message());
  return options;
}

FinishedSequence RecordOf(const Sequence& sequence, FinishReason reason) {
  FinishedSequence record;
  record.id = sequence.id;
  record.reason = reason;
  record.prompt_tokens = sequence.num_prompt;
  record.cached_tokens = sequence.cached_tokens;
  record.output_tokens = sequence.num_output();
  record.num_chunks = sequence.num_chunks;
  record.num_steps = sequence.num_steps;
  record.num_preemptions = sequence.num_preemptions;
  record.num_page_ins = sequence.num_page_ins;
  return record;
}

}  // namespace

int64_t DeadlineMarginUs(const SchedulerOptions& options, const StepCost& step_cost) {
  const auto step_us = static_cast<int64_t>(step_cost.typical_step_us());
  return std::max(options.deadline_margin_us, std::min(step_us, kMaxStepMarginUs));
}

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(Checked(options)),
      blocks_per_chunk_(std::max(1, options.host_chunk_tokens / options.block_size)),
      blocks_(options.num_blocks, options.block_size, 100, options.prefix_hash_key),
      host_(options.num_host_blocks / blocks_per_chunk_, options.host_chunk_tokens,
            kHostKeepPercent, options.prefix_hash_key) {
  running_.reserve(options.max_num_seqs);
  planned_.reserve(options.max_num_seqs);
  for (int32_t slot = options.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  is_dropped_chunk_.assign(host_.num_blocks(), 0);
  hold_step_.assign(blocks_.num_blocks(), 0);
  num_victims_.assign(blocks_.num_blocks(), 0);
  if (options.poison_freed_blocks) blocks_.LogFreed(&freed_blocks_);
}

void Scheduler::Add(NewSequence added) {
  const int32_t num_prompt = static_cast<int32_t>(added.prompt.size());
  CHECK_GE(num_prompt, 1) << "sequence " << added.id;
  CHECK_LE(num_prompt, options_.max_model_len) << "sequence " << added.id;
  CHECK_GE(added.stop.max_output_tokens, 0) << "sequence " << added.id;
  const int64_t slots =
      MaxKvSlots(num_prompt, added.stop.max_output_tokens, options_.max_model_len);
  CHECK_LE(slots, int64_t{options_.num_blocks} * options_.block_size) << "sequence " << added.id;

  auto owned = std::make_unique<Sequence>();
  Sequence* sequence = owned.get();
  sequence->id = added.id;
  sequence->order = {added.arrival_us + added.priority * options_.ageing_us, ++last_arrival_};
  sequence->priority = added.priority;
  sequence->stop = std::move(added.stop);
  std::sort(sequence->stop.stop_token_ids.begin(), sequence->stop.stop_token_ids.end());
  sequence->sampling = std::move(added.sampling);
  sequence->deadline_us = added.deadline_us;
  sequence->cache_salt = std::move(added.cache_salt);
  sequence->may_be_cut = added.may_be_cut;
  sequence->num_found = added.num_cached_tokens;
  sequence->leader = added.leader;
  sequence->tokens = std::move(added.prompt);
  sequence->num_prompt = num_prompt;
  sequence->is_cacheable = options_.prefix_cache;
  const bool is_new = live_.emplace(added.id, std::move(owned)).second;
  CHECK(is_new) << "sequence " << added.id << " is already live";
  if (sequence->deadline_us != kNoDeadline) deadlines_.emplace(sequence->deadline_us, added.id);
  Sequence* leader = FindLive(sequence->leader);
  CHECK(leader == nullptr || leader->num_prompt == num_prompt)
      << "sequence " << added.id << " does not have the prompt of its leader " << added.leader;
  if (leader != nullptr && !leader->is_prefilled) {
    sequence->phase = Sequence::Phase::kHeld;
    leader->held_followers.push_back(sequence->id);
  } else {
    EnterWaiting(sequence);
  }
  CheckInDebug();
}

Sequence* Scheduler::FindLive(SequenceId id) const {
  const auto it = live_.find(id);
  return it == live_.end() ? nullptr : it->second.get();
}

bool Scheduler::Cancel(SequenceId id, FinishReason reason, FinishedSequence* finished) {
  Sequence* sequence = FindLive(id);
  if (sequence == nullptr) return false;
  const FinishedSequence record = End(sequence, reason, IndexLimit(*sequence));
  if (finished != nullptr) *finished = record;
  CheckInDebug();
  return true;
}

bool Scheduler::FinishAt(SequenceId id, int32_t num_output_tokens, FinishedSequence* finished) {
  Sequence* sequence = FindLive(id);
  if (sequence == nullptr) return false;
  CHECK_GE(num_output_tokens, 0) << "sequence " << id;
  CHECK_LE(num_output_tokens, sequence->num_output()) << "sequence " << id;
  FinishedSequence record =
      End(sequence, FinishReason::kStop, sequence->num_prompt + num_output_tokens);
  record.output_tokens = num_output_tokens;
  if (finished != nullptr) *finished = record;
  CheckInDebug();
  return true;
}

int64_t Scheduler::next_expiry_us() const {
  if (deadlines_.empty()) return kNoDeadline;
  return deadlines_.begin()->first - DeadlineMarginUs(options_, step_cost_);
}

void Scheduler::Expire(int64_t now_us, std::vector<FinishedSequence>* expired) {
  while (next_expiry_us() <= now_us && !deadlines_.empty()) {
    Sequence* sequence = FindLive(deadlines_.begin()->second);
    CHECK(sequence != nullptr) << "a deadline without a sequence";
    expired->push_back(End(sequence, FinishReason::kDeadline, IndexLimit(*sequence)));
  }
  CheckInDebug();
}

void Scheduler::EndAll(FinishReason reason, std::vector<FinishedSequence>* finished) {
  // What the steps in flight wrote is not to be trusted, and nothing will be planned after them.
  committed_step_ = last_step_;
  RetireStep(last_step_);
  ForgetPrefixes();
  std::vector<SequenceId> ids;
  for (const auto& [id, sequence] : live_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const SequenceId id : ids) finished->push_back(End(FindLive(id), reason, 0));
  CheckInDebug();
}

FinishedSequence Scheduler::End(Sequence* sequence, FinishReason reason, int32_t num_kept) {
  const FinishedSequence record = RecordOf(*sequence, reason);
  ReleaseFollowers(sequence);
  switch (sequence->phase) {
    case Sequence::Phase::kHeld:
      break;  // its leader finds it gone
    case Sequence::Phase::kWaiting:
      ReleaseSwap(sequence);
      LeaveWaiting(sequence);
      break;
    case Sequence::Phase::kRunning:
      IndexBlocks(sequence, num_kept);
      ReleaseBlocks(sequence);
      LeaveRunning(sequence);
      break;
  }
  if (sequence->deadline_us != kNoDeadline) deadlines_.erase({sequence->deadline_us, record.id});
  CHECK_EQ(live_.erase(record.id), 1u) << "sequence " << record.id;
  return record;
}

void Scheduler::ReleaseFollowers(Sequence* leader) {
  Sequence* next_leader = nullptr;
  for (const SequenceId id : leader->held_followers) {
    Sequence* follower = FindLive(id);
    if (follower == nullptr) continue;
    // Without a computed prompt to share, one of them computes it for the others.
    if (next_leader != nullptr) {
      follower->leader = next_leader->id;
      next_leader->held_followers.push_back(id);
      continue;
    }
    if (!leader->is_prefilled) {
      next_leader = follower;
      next_leader->leader = 0;
    }
    EnterWaiting(follower);
  }
  leader->held_followers.clear();
}

void Scheduler::EnterWaiting(Sequence* sequence) {
  const Sequence* leader = FindLive(sequence->leader);
  const bool shares_prompt =
      leader != nullptr && leader->is_prefilled && sequence->num_output() == 0;
  const bool has_kv = !sequence->swap_chunks.empty();
  sequence->phase = Sequence::Phase::kWaiting;
  sequence->waiting_tokens =
      shares_prompt || has_kv ? 1 : std::max(1, sequence->num_tokens() - sequence->num_found);
  num_waiting_tokens_ += sequence->waiting_tokens;
  waiting_.emplace(sequence->order, sequence);
}

void Scheduler::LeaveWaiting(Sequence* sequence) {
  num_waiting_tokens_ -= sequence->waiting_tokens;
  CHECK_EQ(waiting_.erase(sequence->order), 1u) << "sequence " << sequence->id;
}

void Scheduler::LeaveRunning(Sequence* sequence) {
  const auto it = std::lower_bound(
      running_.begin(), running_.end(), sequence->order,
      [](const Sequence* running, const ServiceOrder& order) { return running->order < order; });
  CHECK(it != running_.end() && *it == sequence)
      << "sequence " << sequence->id << " is not running";
  running_.erase(it);
  free_slots_.push_back(sequence->slot);
  sequence->slot = -1;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  // Backwards: leaves of the prefix index leave before their parents, and a table taken again right
  // away comes out in the same order.
  std::vector<int32_t>& table = sequence->block_table;
  for (auto it = table.rbegin(); it != table.rend(); ++it) blocks_.Release(*it, last_step_);
  table.clear();
  sequence->num_indexed = 0;
}

void Scheduler::ReleaseSwap(Sequence* sequence) {
  for (const int32_t chunk : sequence->swap_chunks) {
    // Moves that no plan has taken yet would overwrite what the chunk is given to next.
    std::erase_if(swap_outs_,
                  [&](const KvBlockMove& move) { return move.to / blocks_per_chunk_ == chunk; });
    host_.Release(chunk, last_step_);
  }
  sequence->swap_chunks.clear();
}

int32_t Scheduler::NumBlocksFor(int32_t num_tokens) const {
  return CeilDiv(num_tokens, options_.block_size);
}

QueueAhead Scheduler::Ahead(int32_t priority, int64_t now_us) const {
  QueueAhead ahead;
  const ServiceOrder order{now_us + priority * options_.ageing_us, last_arrival_ + 1};
  for (const auto& [waiting_order, sequence] : waiting_) {
    if (!(waiting_order < order)) break;
    ++ahead.num_sequences;
    ahead.num_tokens += sequence->waiting_tokens;
  }
  for (const Sequence* sequence : running_) {
    if (IsPrefilling(*sequence) && sequence->order < order) {
      ahead.num_tokens += sequence->num_remaining();
    }
  }
  return ahead;
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = counters_;
  stats.num_running = static_cast<int32_t>(running_.size());
  stats.num_waiting = static_cast<int32_t>(live_.size() - running_.size());
  stats.num_waiting_tokens = num_waiting_tokens_;
  stats.num_free_blocks = blocks_.num_available() + blocks_.num_retiring();
  stats.num_cached_blocks = blocks_.num_cached();
  stats.num_blocks = blocks_.num_blocks();
  stats.num_free_host_blocks = (host_.num_available() + host_.num_retiring()) * blocks_per_chunk_;
  stats.num_host_blocks = host_.num_blocks() * blocks_per_chunk_;
  return stats;
}

void Scheduler::List(std::vector<SequenceView>* views) const {
  for (const auto& [id, sequence] : live_) {
    SequenceView& view = views->emplace_back();
    view.id = id;
    view.num_output = sequence->num_output();
    if (sequence->phase != Sequence::Phase::kRunning) continue;
    view.phase =
        IsPrefilling(*sequence) ? SequenceView::Phase::kPrefill : SequenceView::Phase::kDecode;
  }
}

}  // namespace fastgen
