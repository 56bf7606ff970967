// What runs in a step: PlanStep and what it decides.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/stop_condition.h"

namespace fastgen {
namespace {

// Between two lookups of a waiting sequence that did not fit.
constexpr uint64_t kStepsBetweenLookups = 8;

}  // namespace

void Scheduler::PlanStep(StepPlan* plan) {
  CHECK_LT(num_in_flight(), options_.max_steps_in_flight)
      << "step " << committed_step_ + 1 << " is planned and not committed";
  plan->num_tokens = 0;
  plan->page_outs.clear();
  plan->swap_outs.clear();
  plan->poisoned_blocks.clear();
  plan->page_ins.clear();
  plan->copies.clear();
  planned_.clear();
  num_decode_rows_ = 0;
  num_stalled_ = 0;
  MakeRoomForUrgent();
  PlanDecodeRows(plan);
  PlanPrefills(plan);
  FinishPlan(plan);
  CheckInDebug();
}

bool Scheduler::Samples(const Sequence& sequence) const {
  return MaySample(sequence.stop, sequence.length(), sequence.length() - sequence.num_prompt,
                   options_.max_model_len);
}

bool Scheduler::IsDecoding(const Sequence& sequence) const {
  return sequence.num_remaining() == 1 && Samples(sequence);
}

bool Scheduler::IsPrefilling(const Sequence& sequence) const {
  if (sequence.num_remaining() > 1) return true;
  // The last token of a prompt that is only scored.
  return sequence.num_computed < sequence.num_prompt && !Samples(sequence);
}

bool Scheduler::IsEnding(const Sequence& sequence) const {
  return sequence.num_pending > 0 && !Samples(sequence);
}

void Scheduler::MakeRoomForUrgent() {
  if (waiting_.empty()) return;
  const Sequence& urgent = *waiting_.begin()->second;
  if (urgent.num_pending > 0 || running_.empty()) return;
  if (running_.back()->priority <= urgent.priority) return;
  // As if nothing of it were cached: what is given up too early here is found again by its owner.
  const int32_t needed = NumBlocksFor(urgent.num_tokens());
  auto num_kept = static_cast<int32_t>(running_.size());
  int32_t num_unheld = blocks_.num_available() + blocks_.num_retiring();
  for (const Sequence* sequence : running_) {
    if (sequence->priority <= urgent.priority || sequence->order < urgent.order) continue;
    --num_kept;
    for (const int32_t block : sequence->block_table) {
      // Free once the last of its holders has gone.
      if (++num_victims_[block] == blocks_.num_holders(block)) ++num_unheld;
    }
  }
  for (const Sequence* sequence : running_) {
    for (const int32_t block : sequence->block_table) num_victims_[block] = 0;
  }
  // Not even all of them together would make enough room.
  if (num_kept >= options_.max_num_seqs || needed + num_kept > num_unheld) return;
  while (!running_.empty()) {
    const Sequence& last = *running_.back();
    if (last.priority <= urgent.priority || last.order < urgent.order || IsEnding(last)) return;
    const auto num_running = static_cast<int32_t>(running_.size());
    const bool has_row = num_running < options_.max_num_seqs;
    if (has_row && needed + num_running <= blocks_.num_available() + blocks_.num_retiring()) return;
    PreemptLast();
  }
}

void Scheduler::PlanDecodeRows(StepPlan* plan) {
  // In order of service. Preemption takes from the end, so it never reaches a sequence that has its
  // row.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if (!IsDecoding(*sequence)) continue;
    if (TakeDecodeBlock(sequence)) AddRow(sequence, 1, plan);
  }
}

void Scheduler::PlanPrefills(StepPlan* plan) {
  bool may_admit = true;
  size_t next = 0;  // of running_: those before it decode, or have their row
  while (plan->num_tokens < options_.max_num_batched_tokens) {
    while (next < running_.size() && !NeedsChunk(*running_[next])) ++next;
    Sequence* running = next < running_.size() ? running_[next] : nullptr;
    Sequence* waiting = may_admit && !waiting_.empty() ? waiting_.begin()->second : nullptr;
    if (waiting != nullptr && (running == nullptr || waiting->order < running->order)) {
      // A later sequence that would fit has to wait too: otherwise small ones could keep a large
      // one out for ever.
      may_admit = TryAdmit(waiting, plan);
      if (may_admit) AddChunk(waiting, plan);
    } else if (running != nullptr) {
      AddChunk(running, plan);
    } else {
      return;
    }
  }
}

bool Scheduler::NeedsChunk(const Sequence& sequence) const {
  return sequence.row_in_step != last_step_ + 1 && IsPrefilling(sequence);
}

void Scheduler::AddChunk(Sequence* sequence, StepPlan* plan) {
  const int32_t budget = options_.max_num_batched_tokens - plan->num_tokens;
  AddRow(sequence, std::min(sequence->num_remaining(), budget), plan);
}

bool Scheduler::TryAdmit(Sequence* sequence, StepPlan* plan) {
  const bool has_row = static_cast<int32_t>(running_.size()) < options_.max_num_seqs;
  if (!has_row || sequence->num_pending > 0) return false;
  // A victim of this plan is not taken back by it, unless there is nothing else to run.
  if (sequence->preempted_in_step == last_step_ + 1 && !planned_.empty()) return false;
  // Looking a long text up takes long: what it lacked last time is believed for a few steps.
  const int32_t num_blocks = blocks_.num_available() - static_cast<int32_t>(running_.size());
  const bool may_wait = !planned_.empty() || num_in_flight() > 0;
  const bool is_believed = may_wait && last_step_ < sequence->blocked_until_step;
  if (is_believed && num_blocks < sequence->blocked_num_blocks) return false;
  FindStart(*sequence, &start_);
  sequence->blocked_num_blocks = NumBlocksNeeded(*sequence, start_);
  sequence->blocked_until_step = last_step_ + kStepsBetweenLookups;
  if (num_blocks < sequence->blocked_num_blocks) return false;
  Admit(sequence, plan);
  return true;
}

void Scheduler::FinishPlan(StepPlan* plan) {
  while (plan->sequences.size() > planned_.size()) {
    spare_rows_.push_back(std::move(plan->sequences.back()));
    plan->sequences.pop_back();
  }
  plan->step = 0;
  if (plan->empty()) {
    CHECK(idle() || num_in_flight() > 0) << "live sequences and nothing to run";
    return;
  }
  plan->step = ++last_step_;
  for (size_t row = 0; row < planned_.size(); ++row) {
    planned_[row]->last_row = static_cast<int32_t>(row);
  }
  TakeFills(plan);
  plan->swap_outs.swap(swap_outs_);
  plan->poisoned_blocks.swap(freed_blocks_);
}

bool Scheduler::TakeDecodeBlock(Sequence* sequence) {
  const auto num_blocks = static_cast<int32_t>(sequence->block_table.size());
  if (num_blocks >= NumBlocksFor(sequence->length())) return true;
  while (blocks_.num_available() == 0) {
    Sequence* last = running_.back();
    // Blocks that are on their way back are worth a step's wait, a preemption is not.
    if (blocks_.num_retiring() > num_stalled_ || IsEnding(*last)) {
      ++num_stalled_;
      return false;
    }
    // Alone it would fit (Add checked it), so preempting the last one would free what it needs
    // itself, for ever.
    CHECK_GT(running_.size(), 1u) << "sequence " << sequence->id << " does not fit the pool alone";
    PreemptLast();
    if (last == sequence) return false;
  }
  sequence->block_table.push_back(blocks_.Take());
  return true;
}

void Scheduler::PreemptLast() {
  Sequence* sequence = running_.back();
  ++sequence->num_preemptions;
  ++counters_.num_preemptions;
  sequence->preempted_in_step = last_step_ + 1;
  if (TrySwapOut(sequence)) {
    ++counters_.num_swaps;
  } else {
    sequence->num_computed = 0;
    sequence->num_committed = 0;
    ++sequence->epoch;
  }
  ReleaseBlocks(sequence);
  LeaveRunning(sequence);
  EnterWaiting(sequence);
}

bool Scheduler::TrySwapOut(Sequence* sequence) {
  if (host_.num_blocks() == 0) return false;
  const double num_tokens = sequence->num_computed;
  const double in_host =
      static_cast<double>(sequence->num_host_chunks) * options_.host_chunk_tokens;
  const double page_us = options_.page_us_per_token;
  const double swap_us = 2 * page_us * num_tokens;
  const double recompute_us =
      page_us * in_host + step_cost_.us_per_token() * std::max(0.0, num_tokens - in_host);
  if (swap_us >= recompute_us) return false;
  const int32_t num_blocks = NumBlocksFor(sequence->num_computed);
  const int32_t num_chunks = (num_blocks + blocks_per_chunk_ - 1) / blocks_per_chunk_;
  while (static_cast<int32_t>(sequence->swap_chunks.size()) < num_chunks) {
    const int32_t chunk = host_.TryTake();
    if (chunk == BlockPool::kNone) {
      ReleaseSwap(sequence);
      return false;
    }
    sequence->swap_chunks.push_back(chunk);
  }
  for (int32_t i = 0; i < num_blocks; ++i) {
    const int32_t chunk = sequence->swap_chunks[i / blocks_per_chunk_];
    swap_outs_.push_back(
        {sequence->block_table[i], chunk * blocks_per_chunk_ + i % blocks_per_chunk_});
  }
  return true;
}

int32_t Scheduler::NumBlocksNeeded(const Sequence& sequence, const Start& start) const {
  const auto num_shared = static_cast<int32_t>(start.shared_blocks.size());
  int32_t num_woken = 0;  // shared ones that count as available as long as nobody holds them
  for (const int32_t block : start.shared_blocks) num_woken += blocks_.IsCached(block) ? 1 : 0;
  return NumBlocksFor(sequence.num_tokens()) - num_shared + num_woken;
}

void Scheduler::Admit(Sequence* sequence, StepPlan* plan) {
  LeaveWaiting(sequence);
  const auto place = std::upper_bound(
      running_.begin(), running_.end(), sequence->order,
      [](const ServiceOrder& order, const Sequence* running) { return order < running->order; });
  running_.insert(place, sequence);
  sequence->phase = Sequence::Phase::kRunning;
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  sequence->history_started = false;
  sequence->prefill_end = sequence->num_tokens();
  sequence->num_host_chunks = 0;
  sequence->host_parent = PrefixIndex::kRoot;
  sequence->fills_host = host_.num_blocks() > 0;
  // All that it may grow to, once: decode steps do not allocate.
  const int64_t max_tokens = std::min<int64_t>(
      int64_t{sequence->num_prompt} + sequence->stop.max_output_tokens, options_.max_model_len);
  sequence->tokens.reserve(max_tokens);
  sequence->block_table.reserve(NumBlocksFor(static_cast<int32_t>(max_tokens)));
  if (sequence->swap_chunks.empty()) {
    AdmitFromStart(sequence, plan);
  } else {
    AdmitFromSwap(sequence, plan);
  }
}

void Scheduler::AdmitFromSwap(Sequence* sequence, StepPlan* plan) {
  const int32_t num_blocks = NumBlocksFor(sequence->num_tokens());
  for (int32_t i = 0; i < num_blocks; ++i) sequence->block_table.push_back(blocks_.Take());
  if (!IsPrefilling(*sequence)) sequence->prefill_end = sequence->num_computed;
  AddPageIns(sequence->swap_chunks, 0, NumBlocksFor(sequence->num_computed), sequence, plan);
  // The step that is being planned reads them.
  for (const int32_t chunk : sequence->swap_chunks) host_.Release(chunk, last_step_ + 1);
  sequence->swap_chunks.clear();
}

void Scheduler::AdmitFromStart(Sequence* sequence, StepPlan* plan) {
  const Start& start = start_;
  const auto num_shared = static_cast<int32_t>(start.shared_blocks.size());
  // First of all, so that none of them is evicted for the others.
  for (const int32_t block : start.shared_blocks) {
    blocks_.Share(block);
    sequence->block_table.push_back(block);
  }
  const int32_t num_blocks = NumBlocksFor(sequence->num_tokens());
  for (int32_t i = num_shared; i < num_blocks; ++i) {
    sequence->block_table.push_back(blocks_.Take());
  }
  if (start.copy_source >= 0) {
    plan->copies.push_back({start.copy_source, sequence->block_table[num_shared]});
  }
  if (!start.host_chunks.empty()) {
    AddPageIns(start.host_chunks, num_shared, NumBlocksFor(start.num_computed), sequence, plan);
    // Leaves first, as ReleaseBlocks.
    for (auto it = start.host_chunks.rbegin(); it != start.host_chunks.rend(); ++it) {
      host_.Share(*it);
      host_.Release(*it, last_step_ + 1);
    }
  }
  sequence->num_computed = start.num_computed;
  sequence->num_committed = num_shared * options_.block_size;
  sequence->num_indexed = start.is_cacheable ? num_shared : 0;
  sequence->is_cacheable = start.is_cacheable;
  if (sequence->num_steps > 0 || sequence->num_preemptions > 0) return;
  sequence->cached_tokens = std::min(start.num_computed, sequence->num_prompt);
  if (sequence->leader != 0) return;  // what choices share is not what the cache found
  counters_.prefix_query_tokens += sequence->num_prompt;
  counters_.prefix_device_hit_tokens += start.num_device_tokens;
  counters_.prefix_host_hit_tokens += start.num_computed - start.num_device_tokens;
}

void Scheduler::AddPageIns(const std::vector<int32_t>& chunks, int32_t first_block,
                           int32_t end_block, Sequence* sequence, StepPlan* plan) {
  for (int32_t i = first_block; i < end_block; ++i) {
    const int32_t host_block =
        chunks[i / blocks_per_chunk_] * blocks_per_chunk_ + i % blocks_per_chunk_;
    plan->page_ins.push_back({host_block, sequence->block_table[i]});
    ++sequence->num_page_ins;
  }
}

ScheduledSequence* Scheduler::NextRow(StepPlan* plan) {
  if (planned_.size() == plan->sequences.size()) {
    if (spare_rows_.empty()) {
      plan->sequences.emplace_back();
    } else {
      plan->sequences.push_back(std::move(spare_rows_.back()));
      spare_rows_.pop_back();
    }
  }
  return &plan->sequences[planned_.size()];
}

void Scheduler::AddRow(Sequence* sequence, int32_t num_tokens, StepPlan* plan) {
  const int32_t begin = sequence->num_computed;
  const int32_t end = begin + num_tokens;
  const int32_t num_blocks = NumBlocksFor(end);
  CHECK_LE(num_blocks, static_cast<int32_t>(sequence->block_table.size()))
      << "sequence " << sequence->id;
  ScheduledSequence* row = NextRow(plan);
  row->id = sequence->id;
  row->slot = sequence->slot;
  row->epoch = sequence->epoch;
  row->num_prompt = sequence->num_prompt;
  row->token_row = -1;
  if (begin < sequence->num_tokens()) {
    row->tokens.assign(sequence->tokens.begin() + begin, sequence->tokens.begin() + end);
  } else {
    CHECK_EQ(sequence->row_in_step, last_step_) << "sequence " << sequence->id;
    row->tokens.assign(1, kPendingToken);
    row->token_row = sequence->last_row;
  }
  row->context_begin = begin;
  row->block_table.reserve(sequence->block_table.capacity());  // all it may grow to, see Admit
  row->block_table.assign(sequence->block_table.begin(),
                          sequence->block_table.begin() + num_blocks);
  row->samples = end == sequence->length() && Samples(*sequence);
  row->output_position = sequence->length() - sequence->num_prompt;
  row->score_targets.clear();
  // A chunk that holds the first unscored token scores from its own beginning (targets are parallel
  // to its tokens); CommitStep drops what a run before a preemption already reported.
  const int32_t score_end = std::min(end + 1, sequence->num_prompt);
  if (sequence->sampling.num_prompt_top_logprobs >= 0 &&
      score_end > std::max(sequence->num_scored, begin) + 1) {
    row->score_targets.assign(sequence->tokens.begin() + begin + 1,
                              sequence->tokens.begin() + score_end);
  }
  FillSampling(sequence, row);
  sequence->row_in_step = last_step_ + 1;
  sequence->num_computed = end;
  if (row->samples) ++sequence->num_pending;
  plan->num_tokens += num_tokens;
  planned_.push_back(sequence);
  if (!row->is_decode()) return;
  // A prompt of one token is a decode row too, and those lead the plan.
  const auto last = static_cast<int64_t>(planned_.size());
  const auto rows = plan->sequences.begin();
  std::rotate(rows + num_decode_rows_, rows + last - 1, rows + last);
  std::rotate(planned_.begin() + num_decode_rows_, planned_.end() - 1, planned_.end());
  ++num_decode_rows_;
}

void Scheduler::FillSampling(Sequence* sequence, ScheduledSequence* row) {
  row->sampling = sequence->sampling;
  row->banned_tokens.clear();
  row->history.clear();
  row->starts_history = false;
  if (!row->samples) return;
  if (BansStopIds(sequence->stop, row->output_position)) {
    row->banned_tokens = sequence->stop.stop_token_ids;
  }
  if (sequence->history_started || !sequence->sampling.needs_history()) return;
  CHECK_EQ(sequence->num_pending, 0) << "sequence " << sequence->id;
  row->starts_history = true;
  row->history = sequence->tokens;
  sequence->history_started = true;
}

}  // namespace fastgen
