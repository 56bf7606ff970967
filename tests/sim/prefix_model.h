// PrefixModel: a fake model and executor for the simulation, whose KV cache can tell a wrong block
// from a right one.
//
// The "hidden state" at position p is a hash of tokens [0, p], computed from the hash at p - 1,
// which is read from the KV slot of p - 1. So whatever reads a wrong, stale or overwritten slot
// gets another hash, and every position that a row attends to is compared with the hash of the
// tokens that the sequence really has. The next token, its stop and its score follow from the hash
// alone: a sequence must get the same tokens whatever runs beside it. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/schedule/sequence.h"
#include "engine/schedule/step_plan.h"

namespace fastgen::sim {

// What the simulation found wrong; the test reports it with the seed.
class SimulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void Expect(bool holds, SequenceId id, const char* what);

// A random stream of its own: the same on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [low, high].
  int32_t Between(int32_t low, int32_t high);
  bool OneIn(int32_t n) { return Between(1, n) == 1; }

 private:
  uint64_t state_;
};

uint64_t Mix(uint64_t a, uint64_t b);

inline constexpr int32_t kVocabSize = 24;

// The model: pure functions of the hash at a position.
uint64_t NextState(uint64_t state, int32_t token);
int32_t NextToken(uint64_t state, const std::vector<int32_t>& banned);
float LogprobOf(uint64_t state, int32_t token);

// A request and all it will ever produce when it runs alone.
struct SimRequest {
  NewSequence sequence;
  int32_t max_model_len = 0;
  std::optional<int32_t> nan_position;  // logits of this position are NaN

  // Filled by RunAlone.
  std::vector<int32_t> output;
  std::vector<TokenScore> scores;
  FinishReason reason = FinishReason::kLength;
  std::optional<int32_t> matched_token_id;
};

// The oracle: a plain loop over one sequence, without blocks, chunks or a scheduler.
void RunAlone(SimRequest* request);

// Runs plans. Knows the true tokens of each sequence, as delivered by the scheduler's commits.
class PrefixExecutor {
 public:
  PrefixExecutor(int32_t num_blocks, int32_t block_size);

  void AddSequence(SequenceId id, const std::vector<int32_t>& prompt, std::optional<int32_t> nan);
  void AppendToken(SequenceId id, int32_t token);

  // Throws SimulationError when a row reads anything but its own prefix.
  StepResult Run(const StepPlan& plan);

 private:
  struct Truth {
    std::vector<int32_t> tokens;
    std::vector<uint64_t> states;  // by position
    std::optional<int32_t> nan_position;
  };
  SequenceResult RunRow(const ScheduledSequence& row);
  uint64_t* Slot(const ScheduledSequence& row, int32_t position);

  int32_t block_size_;
  std::vector<uint64_t> slots_;
  std::unordered_map<SequenceId, Truth> truths_;
};

}  // namespace fastgen::sim
