// PrefixModel: a fake model and executor for the simulation, whose KV cache can tell a wrong block
// from a right one.
//
// The "hidden state" at position p is a hash of salt and tokens [0, p], computed from the hash at
// p - 1, which is read from the KV slot of p - 1. So whatever reads a wrong, stale, poisoned or
// overwritten slot gets another hash, and every position that a row attends to is compared with the
// hash of the tokens that the sequence really has. The next token, its stop and its score follow
// from the hash and the choice alone: a sequence must get the same tokens whatever runs beside it.
// Blocks move between device and host slots as the plan says. A plan that is launched while another
// is in flight may not write what that one touches, but for a sequence that continues.
// Thread rule: one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
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
uint64_t FirstState(const std::string& salt);
uint64_t NextState(uint64_t state, int32_t token);
int32_t NextToken(uint64_t state, uint32_t choice, const std::vector<int32_t>& banned);
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

// Runs plans in order. Knows the true tokens of each sequence, as it sampled them itself.
class PrefixExecutor {
 public:
  PrefixExecutor(int32_t num_blocks, int32_t num_host_blocks, int32_t block_size);

  void AddSequence(const SimRequest& request);

  // Takes a plan in flight. Throws SimulationError when it endangers the one before.
  void Launch(const StepPlan& plan);
  // Runs the oldest plan in flight. Throws SimulationError when a row reads anything but its own
  // prefix.
  StepResult Run();

 private:
  struct Truth {
    std::string salt;
    std::vector<int32_t> tokens;
    std::vector<uint64_t> states;  // by position
    int32_t num_prompt = 0;
    std::optional<int32_t> nan_position;
    bool needs_history = false;
    int32_t slot = -1;  // that holds its history
  };
  // What a plan in flight reads and writes: blocks, with the sequence that writes.
  struct Touched {
    std::set<int32_t> read;
    std::map<int32_t, SequenceId> written;
    std::set<int32_t> host_read;
    std::set<int32_t> host_written;
    std::set<int32_t> host_filled;  // of these, by fills
  };
  Touched TouchedBy(const StepPlan& plan) const;
  void MoveBlocks(const StepPlan& plan);
  void Move(const std::vector<KvBlockMove>& moves, const std::vector<uint64_t>& from,
            std::vector<uint64_t>* to);
  SequenceResult RunRow(const ScheduledSequence& row);
  void CheckHistory(const ScheduledSequence& row);
  void AppendToken(Truth* truth, int32_t token);
  uint64_t* Slot(const ScheduledSequence& row, int32_t position);

  const int32_t block_size_;
  std::vector<uint64_t> slots_;
  std::vector<uint64_t> host_slots_;
  std::unordered_map<SequenceId, Truth> truths_;
  std::unordered_map<int32_t, SequenceId> histories_;  // by slot: whose
  std::deque<std::pair<StepPlan, Touched>> in_flight_;
  std::vector<int32_t> last_sampled_;  // by row of the last plan run; -1: none
  uint64_t last_step_ = 0;
};

}  // namespace fastgen::sim
