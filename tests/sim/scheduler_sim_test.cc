// Simulation of the scheduler: random arrivals, cancels, late stops, NaN rows and preemptions from
// one seed a run.
//
// Checked at every step: the scheduler's invariants, the limits of a plan, that each row reads its
// own prefix (prefix_model.h), that sequences run in order of arrival with none left out (so the
// oldest always advances), and that no one ends twice. At its end, each sequence has what it gets
// when it runs alone, or the part of it up to where it was cut. FASTGEN_SIM_SEED runs one seed,
// FASTGEN_SIM_RUNS that many from 1 on.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
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
  std::vector<int32_t> output;
  std::vector<TokenScore> scores;
  bool has_started = false;
  bool is_prefilled = false;
  int32_t steps_as_oldest = 0;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        options_(DrawOptions(&random_)),
        scheduler_(options_),
        executor_(options_.num_blocks, options_.block_size),
        calm_(random_.OneIn(3) ? random_.Between(2, 20) : random_.Between(20, 400)) {}

  void Run() {
    const int32_t num_requests = random_.Between(10, 60);
    while (num_added_ < num_requests || !scheduler_.idle()) {
      for (int32_t i = random_.Between(0, 3); i > 0 && num_added_ < num_requests; --i) Add();
      Disturb();
      Step();
    }
    Expect(live_.empty(), 0, "the scheduler is idle and sequences have not ended");
    const SchedulerStats stats = scheduler_.stats();
    Expect(stats.num_free_blocks == options_.num_blocks, 0, "blocks are held with nobody live");
  }

  int64_t num_steps() const { return num_steps_; }
  int64_t num_preemptions() const { return scheduler_.stats().num_preemptions; }
  int64_t num_ended(FinishReason reason) const { return num_ended_[static_cast<int>(reason)]; }

 private:
  static SchedulerOptions DrawOptions(Random* random) {
    SchedulerOptions options;
    options.max_num_seqs = random->Between(1, 8);
    options.max_num_batched_tokens = options.max_num_seqs + random->Between(0, 24);
    options.block_size = 1 << random->Between(0, 3);
    options.max_model_len = random->Between(4, 48);
    options.num_blocks = random->Between(2, 4 + 60 / options.block_size);
    return options;
  }

  void Add() {
    SimRequest request;
    request.max_model_len = options_.max_model_len;
    request.sequence.id = ++num_added_;
    for (int32_t i = random_.Between(1, options_.max_model_len); i > 0; --i) {
      request.sequence.prompt.push_back(random_.Between(0, kVocabSize - 1));
    }
    const auto num_prompt = static_cast<int32_t>(request.sequence.prompt.size());
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
    request.sequence.stop.max_output_tokens = max_output;
    request.sequence.stop.min_output_tokens = random_.OneIn(3) ? random_.Between(0, max_output) : 0;
    for (int32_t i = random_.Between(0, 2); i > 0; --i) {
      request.sequence.stop.stop_token_ids.push_back(random_.Between(0, kVocabSize - 1));
    }
    if (random_.OneIn(3)) request.sequence.sampling.num_prompt_top_logprobs = 0;
    if (random_.OneIn(10)) request.nan_position = random_.Between(0, options_.max_model_len);
    RunAlone(&request);

    executor_.AddSequence(request.sequence.id, request.sequence.prompt, request.nan_position);
    scheduler_.Add(request.sequence);
    scheduler_.CheckInvariants();
    const SequenceId id = request.sequence.id;
    live_[id].request = std::move(request);
  }

  // Between any two calls of the step loop: cancels and late stops, now and then.
  void Disturb() {
    if (!random_.OneIn(calm_)) return;
    if (live_.empty()) return;
    auto it = live_.begin();
    std::advance(it, random_.Between(0, static_cast<int32_t>(live_.size()) - 1));
    const SequenceId id = it->first;
    FinishedSequence finished;
    const auto num_output = static_cast<int32_t>(it->second.output.size());
    if (random_.OneIn(2) && num_output > 0) {
      const int32_t cut = random_.Between(1, num_output);
      Expect(scheduler_.FinishAt(id, cut, &finished), id, "is live, and FinishAt does not know it");
      Expect(finished.reason == FinishReason::kStop, id, "FinishAt ends with another reason");
      Expect(finished.output_tokens == cut, id, "FinishAt keeps another number of tokens");
      it->second.output.resize(cut);
    } else {
      const FinishReason reason =
          random_.OneIn(2) ? FinishReason::kCancelled : FinishReason::kDeadline;
      Expect(scheduler_.Cancel(id, reason, &finished), id, "is live, and Cancel does not know it");
      Expect(finished.reason == reason, id, "Cancel ends with another reason");
    }
    scheduler_.CheckInvariants();
    CheckCut(finished);
    Expect(!scheduler_.Cancel(id, FinishReason::kCancelled, nullptr), id, "ended twice");
    Expect(!scheduler_.FinishAt(id, 0, nullptr), id, "ended twice");
    Forget(finished);
  }

  void Step() {
    scheduler_.PlanStep(&plan_);
    scheduler_.CheckInvariants();
    if (plan_.empty()) {
      Expect(live_.empty(), 0, "the plan is empty and sequences are live");
      return;
    }
    Expect(plan_.step == static_cast<uint64_t>(++num_steps_), 0, "steps are not numbered in order");
    CheckPlanLimits();
    CheckPlanOrder();
    Disturb();
    const StepResult result = executor_.Run(plan_);
    Disturb();
    scheduler_.CommitStep(plan_, result, &commit_);
    scheduler_.CheckInvariants();
    size_t row = 0;
    for (CommitResult::Output& output : commit_.outputs) {
      while (row < plan_.sequences.size() && plan_.sequences[row].id != output.id) ++row;
      Expect(row < plan_.sequences.size(), output.id, "its output is not in plan order");
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

  // Ids are drawn in order of arrival: those in the plan are the oldest ones, without a gap.
  void CheckPlanOrder() {
    auto oldest = live_.begin();
    Expect(oldest != live_.end(), 0, "a plan with nobody live");
    // Each step takes the oldest one a token further; it is never preempted, but may have been
    // before.
    const NewSequence& sequence = oldest->second.request.sequence;
    const auto bound =
        static_cast<int32_t>(sequence.prompt.size()) + sequence.stop.max_output_tokens;
    Expect(++oldest->second.steps_as_oldest <= bound, oldest->first,
           "is the oldest and does not advance");
    for (size_t i = 0; i < plan_.sequences.size(); ++i, ++oldest) {
      const bool is_planned =
          oldest != live_.end() &&
          std::any_of(plan_.sequences.begin(), plan_.sequences.end(),
                      [&](const ScheduledSequence& row) { return row.id == oldest->first; });
      Expect(is_planned, plan_.sequences[i].id, "an older sequence was left out of the plan");
    }
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
    executor_.AppendToken(output.id, output.token.token);
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
    ++num_ended_[static_cast<int>(finished.reason)];
  }

  Random random_;
  const SchedulerOptions options_;
  Scheduler scheduler_;
  PrefixExecutor executor_;
  const int32_t calm_;  // one chance of a cancel or late stop in so many
  std::map<SequenceId, Live> live_;
  StepPlan plan_;  // storage used again
  CommitResult commit_;
  int32_t num_added_ = 0;
  int64_t num_steps_ = 0;
  int64_t num_ended_[5] = {};
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
  int64_t num_steps = 0;
  int64_t num_preemptions = 0;
  int64_t num_ended[5] = {};
  for (uint64_t seed = first; seed < first + num_runs; ++seed) {
    Simulation simulation(seed);
    try {
      simulation.Run();
    } catch (const SimulationError& error) {
      FAIL("step " << simulation.num_steps() << ": " << error.what()
                   << "; run it again with FASTGEN_SIM_SEED=" << seed);
    }
    num_steps += simulation.num_steps();
    num_preemptions += simulation.num_preemptions();
    for (int i = 0; i < 5; ++i) num_ended[i] += simulation.num_ended(static_cast<FinishReason>(i));
  }
  std::cout << "seeds " << first << " to " << first + num_runs - 1 << ": " << num_steps
            << " steps, " << num_preemptions << " preemptions, ended by stop " << num_ended[0]
            << ", length " << num_ended[1] << ", cancel " << num_ended[2] << ", deadline "
            << num_ended[3] << ", error " << num_ended[4] << "\n";
  if (named.has_value()) return;
  // The simulation itself must not go blind: each kind of event has to happen.
  CHECK(num_preemptions > 0);
  for (const int64_t ended : num_ended) CHECK(ended > 0);
}

}  // namespace
}  // namespace fastgen::sim
