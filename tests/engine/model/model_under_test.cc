#include "tests/engine/model/model_under_test.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen::testing {
namespace {

struct Loaded {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  MemoryPlan plan;
  Weights weights;
};

template <typename T>
T Take(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

Loaded Load(const std::string& path, const TestModelOptions& options) {
  Loaded loaded;
  BackendOptions backend_options;
  backend_options.compute_dtype = options.compute_dtype;
  backend_options.cpu_isa = options.cpu_isa;
  backend_options.num_threads = options.num_threads;
  loaded.backend = Take(MakeBackend(backend_options));
  loaded.checkpoint = Take(Checkpoint::Open(path));
  loaded.weights =
      Take(LoadWeights(*loaded.checkpoint, loaded.backend.get(), {}, options.weights_form));
  MemoryRequest request;
  request.max_num_seqs = options.max_num_seqs;
  request.max_num_batched_tokens = options.max_num_batched_tokens;
  request.block_size = options.block_size;
  request.kv_cache_bytes = options.kv_cache_bytes;
  request.host_kv_bytes = options.host_kv_bytes;
  loaded.plan = Take(
      PlanMemory(loaded.checkpoint->config(), *loaded.backend, loaded.weights.bytes(), request));
  return loaded;
}

}  // namespace

ModelUnderTest::ModelUnderTest(const std::string& path, const TestModelOptions& options) {
  Loaded loaded = Load(path, options);
  checkpoint_ = std::move(loaded.checkpoint);
  backend_ = std::move(loaded.backend);
  plan_ = loaded.plan;
  transformer_ = std::make_unique<Transformer>(Take(Transformer::Create(
      backend_.get(), checkpoint_->config(), std::move(loaded.weights), plan_)));
  sampling_ = std::make_unique<SamplingState>(plan_, checkpoint_->config().vocab);
  inputs_ = std::make_unique<StepInputs>(plan_, checkpoint_->config().vocab);
}

std::vector<float> ModelUnderTest::Step(const std::vector<Chunk>& chunks) {
  StepPlan plan;
  plan.step = 1;
  for (const Chunk& chunk : chunks) {
    ScheduledSequence sequence;
    sequence.id = plan.sequences.size();
    sequence.tokens.assign(chunk.ids.begin() + chunk.begin, chunk.ids.begin() + chunk.end);
    sequence.context_begin = chunk.begin;
    const int32_t num_blocks = CeilDiv(chunk.end, plan_.block_size);
    sequence.block_table.assign(chunk.blocks.begin(), chunk.blocks.begin() + num_blocks);
    sequence.score_targets.assign(sequence.tokens.size(), 0);  // every row is asked for its logits
    plan.num_tokens += chunk.end - chunk.begin;
    plan.sequences.push_back(std::move(sequence));
  }
  inputs_->Build(plan, {}, sampling_.get());
  transformer_->Forward(*inputs_);
  std::vector<float> logits(static_cast<size_t>(plan.num_tokens * config().vocab));
  for (int64_t begin = 0; begin < plan.num_tokens; begin += transformer_->max_logit_rows()) {
    const int64_t count = std::min(transformer_->max_logit_rows(), plan.num_tokens - begin);
    const Tensor part = transformer_->Logits(*inputs_, begin, count);
    backend_->CopyToHost(part, logits.data() + begin * config().vocab);
  }
  CHECK(backend_->Synchronize().ok());
  return logits;
}

std::vector<float> ModelUnderTest::Logits(absl::Span<const int32_t> ids,
                                          const std::vector<int32_t>& chunk_sizes) {
  const int32_t length = static_cast<int32_t>(ids.size());
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < CeilDiv(length, plan_.block_size); ++i) blocks.push_back(i);
  std::vector<float> logits;
  size_t index = 0;
  for (int32_t begin = 0; begin < length;) {
    const int32_t size = chunk_sizes[std::min(index++, chunk_sizes.size() - 1)];
    const int32_t end = std::min(length, begin + size);
    const std::vector<float> part = Step({{ids, begin, end, blocks}});
    logits.insert(logits.end(), part.begin(), part.end());
    begin = end;
  }
  return logits;
}

std::vector<float> ModelUnderTest::Logits(absl::Span<const int32_t> ids) {
  return Logits(ids, {plan_.max_num_batched_tokens});
}

std::vector<uint8_t> ModelUnderTest::BlockBytes(int32_t block) {
  std::vector<uint8_t> bytes;
  for (int64_t layer = 0; layer < config().num_layers; ++layer) {
    for (const Tensor& pages :
         {transformer_->cache().keys(layer), transformer_->cache().values(layer)}) {
      const Tensor page = pages.Rows(block, 1);
      const size_t at = bytes.size();
      bytes.resize(at + static_cast<size_t>(BytesOf(page.dtype, page.cols())));
      backend_->CopyToHost(page, &bytes[at]);
    }
  }
  return bytes;
}

ExecutorUnderTest::ExecutorUnderTest(const std::string& path, const TestModelOptions& options) {
  Loaded loaded = Load(path, options);
  backend = std::move(loaded.backend);
  plan = loaded.plan;
  executor = Take(ModelExecutor::Create(backend.get(), loaded.checkpoint->config(),
                                        std::move(loaded.weights), plan));
}

StepResult ExecutorUnderTest::Run(StepPlan step_plan) {
  step_plan.step = ++last_step;
  StepResult result;
  const absl::Status status = executor->Run(step_plan, &result);
  CHECK(status.ok()) << status;
  return result;
}

std::vector<int32_t> ScatteredBlocks(int32_t first, int32_t count) {
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < count; ++i) {
    blocks.push_back(first + (i % 2 == 0 ? count - 1 - i / 2 : i / 2));
  }
  return blocks;
}

double Logprob(absl::Span<const float> row, int32_t token) {
  const double max = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float logit : row) sum += std::exp(logit - max);
  return row[static_cast<size_t>(token)] - max - std::log(sum);
}

int32_t ArgMax(absl::Span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace fastgen::testing
