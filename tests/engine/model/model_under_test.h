// ModelUnderTest: a checkpoint on the CPU backend, driven below the executor so that tests see
// whole rows of logits.
// Thread rule: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_executor.h"
#include "engine/model/sampling_state.h"
#include "engine/model/step_inputs.h"
#include "engine/model/transformer.h"
#include "kernels/make_backend.h"

namespace fastgen::testing {

struct TestModelOptions {
  ComputeDType compute_dtype = ComputeDType::kF32;
  WeightForm weights_form = WeightForm::kAsStored;
  std::string cpu_isa;
  int num_threads = 2;
  int32_t max_num_seqs = 8;
  int32_t max_num_batched_tokens = 384;
  int32_t block_size = 16;
  int64_t kv_cache_bytes = 0;
  int64_t host_kv_bytes = 0;
};

// One sequence's part of a step: its ids [begin, end), on its blocks.
struct Chunk {
  absl::Span<const int32_t> ids;  // the whole sequence
  int32_t begin = 0;
  int32_t end = 0;
  absl::Span<const int32_t> blocks;  // of the whole sequence
};

class ModelUnderTest {
 public:
  // CHECKs that everything loads.
  ModelUnderTest(const std::string& path, const TestModelOptions& options);

  const ModelConfig& config() const { return transformer_->config(); }
  const MemoryPlan& plan() const { return plan_; }

  // Runs one step; the logits after every row, [rows, vocab].
  std::vector<float> Step(const std::vector<Chunk>& chunks);

  // The logits after every id of a sequence that is alone, fed in chunks of the given sizes (the
  // last size repeats), on blocks 0, 1, 2, ...
  std::vector<float> Logits(absl::Span<const int32_t> ids, const std::vector<int32_t>& chunk_sizes);
  std::vector<float> Logits(absl::Span<const int32_t> ids);  // in one chunk, or as few as fit

  // The pages of a block as they lie in memory: keys and values of every layer.
  std::vector<uint8_t> BlockBytes(int32_t block);

 private:
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Backend> backend_;
  MemoryPlan plan_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<SamplingState> sampling_;
  std::unique_ptr<StepInputs> inputs_;
};

// An executor with its backend, for whole runs.
struct ExecutorUnderTest {
  ExecutorUnderTest(const std::string& path, const TestModelOptions& options);

  // Runs `plan` as the next step; CHECKs that it succeeds.
  StepResult Run(StepPlan plan);

  std::unique_ptr<Backend> backend;
  MemoryPlan plan;
  std::unique_ptr<ModelExecutor> executor;
  uint64_t last_step = 0;
};

// Blocks [first, first + count) in an order that is neither rising nor contiguous.
std::vector<int32_t> ScatteredBlocks(int32_t first, int32_t count);

// Natural log of softmax(row)[token], summed in double.
double Logprob(absl::Span<const float> row, int32_t token);

int32_t ArgMax(absl::Span<const float> row);

}  // namespace fastgen::testing
