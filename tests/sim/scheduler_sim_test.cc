// Simulation of the scheduler: random arrivals, priorities, deadlines, choices, cancels, late
// stops, NaN rows, device failures, tiny pools and preemptions from one seed a run, with a step
// planned while another runs.
//
// Checked at every step: the scheduler's invariants, the limits of a plan, that each row reads its
// own prefix and no plan writes what the one in flight touches (prefix_model.h), that the first in
// order of service always advances, and that no one ends twice. At its end, each sequence has what
// it gets when it runs alone, or the part of it up to where it was cut. FASTGEN_SIM_SEED runs one
// seed, FASTGEN_SIM_RUNS that many from 1 on.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "engine/schedule/admission.h"
#include "engine/schedule/scheduler.h"
#include "tests/sim/prefix_model.h"

namespace fastgen::sim {
namespace {

// A sequence that was added: what came of it so far.
struct Live {
  SimRequest request;
  ServiceOrder order;
  std::vector<int32_t> output;
  std::vector<TokenScore> scores;
  bool has_started = false;
  bool is_prefilled = false;
};

// What happened in a run, or in all: the test makes sure that nothing is left out.
struct Tally {
  int64_t num_steps = 0;
  int64_t num_ended[5] = {};
  int64_t num_forks = 0;
  int64_t num_page_ins = 0;
  int64_t num_flushes = 0;
  int64_t num_failures = 0;
  SchedulerStats stats;

  void Add(const Tally& other) {
    num_steps += other.num_steps;
    for (int i = 0; i < 5; ++i) num_ended[i] += other.num_ended[i];
    num_forks += other.num_forks;
    num_page_ins += other.num_page_ins;
    num_flushes += other.num_flushes;
    num_failures += other.num_failures;
    stats.num_preemptions += other.stats.num_preemptions;
    stats.num_swaps += other.stats.num_swaps;
    stats.num_wasted_rows += other.stats.num_wasted_rows;
    stats.prefix_device_hit_tokens += other.stats.prefix_device_hit_tokens;
    stats.prefix_host_hit_tokens += other.stats.prefix_host_hit_tokens;
  }
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        options_(DrawOptions(&random_)),
        scheduler_(options_),
        executor_(options_.num_blocks, options_.num_host_blocks, options_.block_size),
        calm_(random_.OneIn(3) ? random_.Between(2, 20) : random_.Between(20, 400)) {
    for (std::vector<int32_t>& text : texts_) {
      while (static_cast<int32_t>(text.size()) < options_.max_model_len) {
        text.push_back(random_.Between(0, kVocabSize - 1));
      }
    }
  }

  void Run() {
    const int32_t num_requests = random_.Between(10, 60);
    const bool may_fail = random_.OneIn(20);
    while (num_added_ < num_requests || !scheduler_.idle()) {
      now_us_ += random_.Between(0, 2000);
      for (int32_t i = random_.Between(0, 3); i > 0 && num_added_ < num_requests; --i) Add();
      Disturb();
      Expire();
      if (may_fail && random_.OneIn(100)) {
        Fail();
        break;
      }
      bool is_stuck = false;
      if (scheduler_.num_in_flight() < options_.max_steps_in_flight) is_stuck = !Plan();
      Disturb();
      const bool must_commit =
          scheduler_.num_in_flight() == options_.max_steps_in_flight || is_stuck;
      if (scheduler_.num_in_flight() > 0 && (must_commit || random_.OneIn(2))) Commit();
    }
    while (scheduler_.num_in_flight() > 0) Commit();
    Expect(live_.empty(), 0, "the scheduler is idle and sequences have not ended");
    scheduler_.FlushPrefixCache();
    scheduler_.CheckInvariants();
    tally_.stats = scheduler_.stats();
    Expect(tally_.stats.num_free_blocks == options_.num_blocks, 0,
           "blocks are held with nobody live");
    Expect(tally_.stats.num_cached_blocks == 0, 0, "blocks are cached after a flush");
    Expect(tally_.stats.num_waiting_tokens == 0, 0, "tokens wait with nobody live");
  }

  const Tally& tally() const { return tally_; }

 private:
  static SchedulerOptions DrawOptions(Random* random) {
    SchedulerOptions options;
    options.max_num_seqs = random->Between(1, 8);
    options.max_num_batched_tokens = options.max_num_seqs + random->Between(0, 24);
    options.block_size = 1 << random->Between(0, 3);
    options.max_model_len = random->Between(4, 48);
    options.num_blocks = random->Between(2, 4 + 60 / options.block_size);
    options.prefix_cache = !random->OneIn(5);
    options.max_steps_in_flight = random->Between(1, 2);
    options.host_chunk_tokens = options.block_size << random->Between(0, 2);
    const int32_t blocks_per_chunk = options.host_chunk_tokens / options.block_size;
    if (random->OneIn(2)) options.num_host_blocks = blocks_per_chunk * random->Between(1, 40);
    options.ageing_us = random->Between(0, 5000);
    options.deadline_margin_us = random->Between(0, 2000);
    // Steps cost about 30 us a token: sometimes paging is cheaper, sometimes not.
    options.page_us_per_token = random->OneIn(3) ? random->Between(1, 40) : random->Between(0, 5);
    options.poison_freed_blocks = true;
    return options;
  }

  void Add() {
    SimRequest request;
    request.max_model_len = options_.max_model_len;
    NewSequence& sequence = request.sequence;
    sequence.id = ++num_added_;
    // Prompts share beginnings, so that there is something to hit.
    const std::vector<int32_t>& text = texts_[random_.Between(0, 2)];
    const int32_t num_common = random_.Between(0, options_.max_model_len - 1);
    sequence.prompt.assign(text.begin(), text.begin() + num_common);
    for (int32_t i = random_.Between(1, options_.max_model_len - num_common); i > 0; --i) {
      sequence.prompt.push_back(random_.Between(0, kVocabSize - 1));
    }
    if (random_.OneIn(4)) sequence.cache_salt.assign(1, random_.OneIn(2) ? 'a' : 'b');
    const auto num_prompt = static_cast<int32_t>(sequence.prompt.size());
    std::optional<int32_t> asked;
    if (!random_.OneIn(4)) asked = random_.Between(0, 24);
    const auto resolved = ResolveMaxOutputTokens(num_prompt, asked, options_);
    if (!resolved.ok()) return;  // the facade refuses it
    int32_t max_output = *resolved;
    // More than the context holds is legal for the scheduler: the context ends it.
    const int64_t slots = MaxKvSlots(num_prompt, options_.max_model_len, options_.max_model_len);
    if (random_.OneIn(8) && slots <= int64_t{options_.num_blocks} * options_.block_size) {
      max_output = options_.max_model_len;
    }
    sequence.stop.max_output_tokens = max_output;
    sequence.stop.min_output_tokens = random_.OneIn(3) ? random_.Between(0, max_output) : 0;
    for (int32_t i = random_.Between(0, 2); i > 0; --i) {
      sequence.stop.stop_token_ids.push_back(random_.Between(0, kVocabSize - 1));
    }
    if (random_.OneIn(3)) sequence.sampling.num_prompt_top_logprobs = 0;
    if (random_.OneIn(4)) sequence.sampling.presence_penalty = 1;
    if (random_.OneIn(10)) request.nan_position = random_.Between(0, options_.max_model_len);
    sequence.priority = random_.OneIn(3) ? random_.Between(-2, 2) : 0;
    sequence.arrival_us = now_us_;
    if (random_.OneIn(6)) sequence.deadline_us = now_us_ + random_.Between(0, 40000);
    sequence.may_be_cut = random_.OneIn(3);
    const int32_t num_choices = random_.OneIn(4) ? random_.Between(2, 4) : 1;
    for (int32_t choice = 0; choice < num_choices; ++choice) AddChoice(request, choice);
  }

  // The first is the leader; the others follow it and score nothing.
  void AddChoice(SimRequest request, int32_t choice) {
    NewSequence& sequence = request.sequence;
    if (choice > 0) {
      sequence.leader = sequence.id;
      sequence.id = ++num_added_;
      sequence.sampling.choice_index = static_cast<uint32_t>(choice);
      sequence.sampling.num_prompt_top_logprobs = -1;
    }
    RunAlone(&request);
    executor_.AddSequence(request);
    scheduler_.Add(sequence);
    scheduler_.CheckInvariants();
    Live& live = live_[sequence.id];
    live.order = {sequence.arrival_us + sequence.priority * options_.ageing_us, ++num_arrived_};
    live.request = std::move(request);
  }

  // Between any two calls of the step loop: cancels and late stops, now and then.
  void Disturb() {
    if (!random_.OneIn(calm_)) return;
    if (random_.OneIn(20)) {
      scheduler_.FlushPrefixCache();
      ++tally_.num_flushes;
    }
    if (live_.empty()) return;
    auto it = live_.begin();
    std::advance(it, random_.Between(0, static_cast<int32_t>(live_.size()) - 1));
    const SequenceId id = it->first;
    const SimRequest& request = it->second.request;
    const CachedPrefix cached =
        scheduler_.Lookup(request.sequence.prompt, request.sequence.cache_salt);
    Expect(cached.num_device_tokens + cached.num_host_tokens <
               static_cast<int32_t>(request.sequence.prompt.size()),
           id, "would have nothing left to compute");
    FinishedSequence finished;
    const auto num_output = static_cast<int32_t>(it->second.output.size());
    if (request.sequence.may_be_cut && num_output > 0 && random_.OneIn(2)) {
      const int32_t cut = random_.Between(1, num_output);
      Expect(scheduler_.FinishAt(id, cut, &finished), id, "is live, and FinishAt does not know it");
      Expect(finished.reason == FinishReason::kStop, id, "FinishAt ends with another reason");
      Expect(finished.output_tokens == cut, id, "FinishAt keeps another number of tokens");
      it->second.output.resize(cut);
    } else {
      Expect(scheduler_.Cancel(id, FinishReason::kCancelled, &finished), id,
             "is live, and Cancel does not know it");
      Expect(finished.reason == FinishReason::kCancelled, id, "Cancel ends with another reason");
    }
    scheduler_.CheckInvariants();
    CheckCut(finished);
    Expect(!scheduler_.Cancel(id, FinishReason::kCancelled, nullptr), id, "ended twice");
    Forget(finished);
  }

  void Expire() {
    std::vector<FinishedSequence> expired;
    const int64_t next_us = scheduler_.next_expiry_us();
    scheduler_.Expire(now_us_, &expired);
    scheduler_.CheckInvariants();
    Expect(expired.empty() || next_us <= now_us_, 0, "expires before next_expiry_us");
    const int64_t limit_us = now_us_ + DeadlineMarginUs(options_, scheduler_.step_cost());
    for (const FinishedSequence& finished : expired) {
      Expect(finished.reason == FinishReason::kDeadline, finished.id, "expires otherwise");
      Expect(live_.contains(finished.id), finished.id, "expires after its end");
      Expect(live_.at(finished.id).request.sequence.deadline_us <= limit_us, finished.id,
             "expires before its time");
      CheckCut(finished);
      Forget(finished);
    }
    for (const auto& [id, live] : live_) {
      Expect(live.request.sequence.deadline_us > limit_us, id, "outlives its deadline");
    }
  }

  // The device fails: everything ends at once, also what is in flight.
  void Fail() {
    std::vector<FinishedSequence> finished;
    scheduler_.EndAll(FinishReason::kError, &finished);
    scheduler_.CheckInvariants();
    Expect(scheduler_.idle() && scheduler_.num_in_flight() == 0, 0, "goes on after a failure");
    for (const FinishedSequence& record : finished) {
      Expect(live_.contains(record.id), record.id, "ended twice");
      CheckCut(record);
      Forget(record);
    }
    in_flight_.clear();
    ++tally_.num_failures;
  }

  // False when there was nothing to plan.
  bool Plan() {
    scheduler_.PlanStep(&plan_);
    scheduler_.CheckInvariants();
    if (plan_.empty()) {
      Expect(live_.empty() || !in_flight_.empty(), 0, "the plan is empty and sequences are live");
      return false;
    }
    Expect(plan_.step == static_cast<uint64_t>(++tally_.num_steps), 0,
           "steps are not numbered in order");
    CheckPlanLimits();
    CheckProgress();
    tally_.num_page_ins += static_cast<int64_t>(plan_.page_ins.size());
    tally_.num_forks += static_cast<int64_t>(plan_.copies.size());
    executor_.Launch(plan_);
    in_flight_.push_back(plan_);
    return true;
  }

  void Commit() {
    const StepPlan plan = std::move(in_flight_.front());
    in_flight_.pop_front();
    const StepResult result = executor_.Run();
    Disturb();
    scheduler_.CommitStep(plan, result, &commit_);
    scheduler_.ObserveStep(plan.num_tokens, 100 + 30 * plan.num_tokens + random_.Between(0, 20));
    scheduler_.CheckInvariants();
    size_t row = 0;
    for (CommitResult::Output& output : commit_.outputs) {
      while (row < plan.sequences.size() && plan.sequences[row].id != output.id) ++row;
      Expect(row < plan.sequences.size(), output.id, "its output is not in plan order");
      Take(output);
    }
    for (const FinishedSequence& finished : commit_.finished) {
      CheckNaturalEnd(finished);
      Forget(finished);
    }
  }

  void CheckPlanLimits() const {
    int32_t num_tokens = 0;
    bool is_past_decode = false;
    std::vector<SequenceId> ids;
    for (const ScheduledSequence& row : plan_.sequences) {
      num_tokens += static_cast<int32_t>(row.tokens.size());
      ids.push_back(row.id);
      Expect(live_.contains(row.id), row.id, "is planned after its end");
      Expect(!row.tokens.empty(), row.id, "has an empty row");
      Expect(!(row.is_decode() && is_past_decode), row.id, "decodes behind a chunk");
      is_past_decode = is_past_decode || !row.is_decode();
    }
    std::sort(ids.begin(), ids.end());
    Expect(std::adjacent_find(ids.begin(), ids.end()) == ids.end(), 0, "a sequence has two rows");
    Expect(num_tokens == plan_.num_tokens, 0, "num_tokens is not the sum of the rows");
    Expect(num_tokens <= options_.max_num_batched_tokens, 0, "the plan exceeds the token budget");
    Expect(static_cast<int32_t>(ids.size()) <= options_.max_num_seqs, 0,
           "the plan has too many rows");
  }

  // Who is first in order of service waits for a block or a row for a few steps at most: where room
  // is made for an urgent one, each victim may cost two (the others take blocks while its own
  // retire). A follower that its leader has held finds others running that came after it: it waits
  // for these to end.
  void CheckProgress() {
    SequenceId first = 0;
    for (const auto& [id, live] : live_) {
      if (first == 0 || live.order < live_.at(first).order) first = id;
    }
    if (first == 0) return;
    const bool was_held = live_.at(first).request.sequence.leader != 0;
    const int32_t max_steps_without =
        12 + (was_held ? options_.max_model_len : 2 * options_.max_num_seqs);
    const bool is_planned =
        std::any_of(plan_.sequences.begin(), plan_.sequences.end(),
                    [&](const ScheduledSequence& row) { return row.id == first; });
    num_steps_without_ = is_planned || first != last_first_ ? 0 : num_steps_without_ + 1;
    last_first_ = first;
    Expect(num_steps_without_ <= max_steps_without, first, "is first and does not advance");
  }

  void Take(const CommitResult::Output& output) {
    const auto it = live_.find(output.id);
    Expect(it != live_.end(), output.id, "has output after its end");
    Live& live = it->second;
    Expect(output.first_chunk == !live.has_started, output.id, "first_chunk is not its first step");
    live.has_started = true;
    Expect(!(output.prefilled && live.is_prefilled), output.id, "completes its prompt twice");
    live.is_prefilled = live.is_prefilled || output.prefilled;
    live.scores.insert(live.scores.end(), output.scored.begin(), output.scored.end());
    if (output.token.token < 0) return;
    Expect(live.is_prefilled, output.id, "samples before its prompt is computed");
    live.output.push_back(output.token.token);
  }

  void CheckCounts(const FinishedSequence& finished, const Live& live) const {
    Expect(finished.prompt_tokens == static_cast<int32_t>(live.request.sequence.prompt.size()),
           finished.id, "counts another number of prompt tokens");
    Expect(finished.output_tokens == static_cast<int32_t>(live.output.size()), finished.id,
           "counts another number of output tokens");
    Expect(finished.num_chunks <= finished.num_steps, finished.id, "has more chunks than steps");
    Expect((finished.num_steps > 0) == live.has_started, finished.id,
           "counts other steps than it had");
  }

  void CheckCut(const FinishedSequence& finished) const {
    const Live& live = live_.at(finished.id);
    CheckCounts(finished, live);
    const std::vector<int32_t>& alone = live.request.output;
    Expect(live.output.size() <= alone.size() &&
               std::equal(live.output.begin(), live.output.end(), alone.begin()),
           finished.id, "got other tokens than alone");
    Expect(live.scores.size() <= live.request.scores.size(), finished.id, "was scored twice");
  }

  void CheckNaturalEnd(const FinishedSequence& finished) const {
    const auto it = live_.find(finished.id);
    Expect(it != live_.end(), finished.id, "ended twice");
    const Live& live = it->second;
    CheckCounts(finished, live);
    const SimRequest& alone = live.request;
    Expect(live.output == alone.output, finished.id, "got other tokens than alone");
    Expect(finished.reason == alone.reason, finished.id, "ended for another reason than alone");
    Expect(finished.matched_token_id == alone.matched_token_id, finished.id,
           "matched another stop id than alone");
    Expect(finished.is_nan == (alone.reason == FinishReason::kError), finished.id,
           "is_nan is wrong");
    // A chunk with a NaN delivers none of its scores.
    Expect(finished.is_nan ? live.scores.size() <= alone.scores.size()
                           : live.scores.size() == alone.scores.size(),
           finished.id, "was not scored once");
    for (size_t i = 0; i < live.scores.size(); ++i) {
      Expect(live.scores[i].token == alone.scores[i].token &&
                 live.scores[i].logprob == alone.scores[i].logprob,
             finished.id, "was scored otherwise than alone");
    }
    Expect(finished.is_nan || live.is_prefilled, finished.id, "never completed its prompt");
  }

  void Forget(const FinishedSequence& finished) {
    live_.erase(finished.id);
    ++tally_.num_ended[static_cast<int>(finished.reason)];
  }

  Random random_;
  const SchedulerOptions options_;
  Scheduler scheduler_;
  PrefixExecutor executor_;
  const int32_t calm_;  // one chance of a cancel or late stop in so many
  std::vector<int32_t> texts_[3];
  int64_t now_us_ = 0;
  std::map<SequenceId, Live> live_;
  StepPlan plan_;  // storage used again
  CommitResult commit_;
  std::deque<StepPlan> in_flight_;
  int32_t num_added_ = 0;
  uint64_t num_arrived_ = 0;
  SequenceId last_first_ = 0;
  int32_t num_steps_without_ = 0;
  Tally tally_;
};

constexpr uint64_t kDefaultRuns = 20000;  // about 3 s

// The number in an environment variable; nullopt when unset or empty.
std::optional<uint64_t> NumberFrom(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

TEST_CASE("under any load, every sequence gets what it gets alone and ends once", "[sim]") {
  const std::optional<uint64_t> named = NumberFrom("FASTGEN_SIM_SEED");
  const uint64_t first = named.value_or(1);
  const uint64_t num_runs =
      named.has_value() ? 1 : NumberFrom("FASTGEN_SIM_RUNS").value_or(kDefaultRuns);
  Tally tally;
  for (uint64_t seed = first; seed < first + num_runs; ++seed) {
    INFO("run it again with FASTGEN_SIM_SEED=" << seed);  // also where a CHECK ends the process
    Simulation simulation(seed);
    try {
      simulation.Run();
    } catch (const SimulationError& error) {
      FAIL("step " << simulation.tally().num_steps << ": " << error.what());
    }
    tally.Add(simulation.tally());
  }
  std::cout << "seeds " << first << " to " << first + num_runs - 1 << ": " << tally.num_steps
            << " steps, " << tally.stats.num_preemptions << " preemptions ("
            << tally.stats.num_swaps << " swaps), " << tally.stats.num_wasted_rows
            << " wasted rows, " << tally.num_forks << " copied blocks, " << tally.num_page_ins
            << " page-ins, " << tally.stats.prefix_device_hit_tokens << " + "
            << tally.stats.prefix_host_hit_tokens << " tokens hit; ended by stop "
            << tally.num_ended[0] << ", length " << tally.num_ended[1] << ", cancel "
            << tally.num_ended[2] << ", deadline " << tally.num_ended[3] << ", error "
            << tally.num_ended[4] << "\n";
  if (named.has_value()) return;
  // The simulation itself must not go blind: each kind of event has to happen.
  CHECK(tally.stats.num_preemptions > tally.stats.num_swaps);
  CHECK(tally.stats.num_swaps > 0);
  CHECK(tally.stats.num_wasted_rows > 0);
  CHECK(tally.stats.prefix_device_hit_tokens > 0);
  CHECK(tally.stats.prefix_host_hit_tokens > 0);
  CHECK(tally.num_forks > 0);
  CHECK(tally.num_page_ins > 0);
  CHECK(tally.num_flushes > 0);
  CHECK(tally.num_failures > 0);
  for (const int64_t ended : tally.num_ended) CHECK(ended > 0);
}

}  // namespace
}  // namespace fastgen::sim
