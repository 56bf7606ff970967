#include "engine/engine.h"

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>

#include "base/status_macros.h"
#include "engine/choice_id.h"
#include "engine/load_text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/memory_plan.h"
#include "engine/model/model_executor.h"
#include "engine/model/weights.h"
#include "engine/running_engine.h"
#include "engine/schedule/admission.h"

namespace fastgen {
namespace {

// "SmolLM2-135M-Instruct.Q4_1" of the file, "Llama-3.1-8B-Instruct" of the directory.
std::string NameOf(const std::string& model_path) {
  const std::filesystem::path path = std::filesystem::path(model_path).lexically_normal();
  if (path.extension() == ".gguf") return path.stem().string();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

MemoryRequest MakeMemoryRequest(const EngineOptions& options) {
  MemoryRequest request;
  request.max_model_len = options.max_model_len;
  request.max_num_seqs = options.max_num_seqs;
  request.max_num_batched_tokens = options.max_num_batched_tokens;
  request.block_size = options.block_size;
  request.kv_cache_bytes = options.kv_cache_bytes;
  request.host_kv_bytes = options.host_kv_bytes;
  return request;
}

MemoryReport MakeMemoryReport(const MemoryPlan& plan) {
  MemoryReport report;
  report.weights_bytes = plan.weights_bytes;
  report.kv_bytes = plan.kv_bytes;
  report.workspace_bytes = plan.workspace_bytes;
  report.num_blocks = plan.num_blocks;
  report.block_size = plan.block_size;
  report.host_kv_bytes = plan.host_kv_bytes;
  report.num_host_blocks = plan.num_host_blocks;
  return report;
}

absl::StatusOr<SchedulerOptions> MakeSchedulerOptions(const EngineOptions& engine,
                                                      const MemoryPlan& plan,
                                                      const Executor& executor) {
  std::random_device random;
  SchedulerOptions options;
  options.max_num_seqs = plan.max_num_seqs;
  options.max_num_batched_tokens = plan.max_num_batched_tokens;
  options.max_model_len = plan.max_model_len;
  options.block_size = plan.block_size;
  options.num_blocks = plan.num_blocks;
  options.num_host_blocks = plan.num_host_blocks;
  options.host_chunk_tokens = kHostChunkTokens;
  options.prefix_cache = engine.prefix_cache;
  options.prefix_hash_key = (uint64_t{random()} << 32) | random();
  options.max_steps_in_flight = engine.max_steps_in_flight;
  options.deadline_margin_us = absl::ToInt64Microseconds(engine.deadline_margin);
  options.page_us_per_token = executor.page_us_per_token();
  RETURN_IF_ERROR(Validate(options));
  return options;
}

// What the model says it ends with, and what its tokenizer says: chat models often name the end of
// a turn in one of the two only. Ids without a row in the head are never sampled and left out.
std::vector<int32_t> EosIds(const ModelConfig& config, const ModelText& text) {
  std::vector<int32_t> ids;
  const auto add = [&](int32_t id) {
    const bool is_known = std::find(ids.begin(), ids.end(), id) != ids.end();
    if (!is_known && id >= 0 && id < config.vocab) ids.push_back(id);
  };
  for (int32_t id : config.eos_ids) add(id);
  for (int32_t id : text.eos_ids) add(id);
  return ids;
}

ModelInfo MakeModelInfo(const EngineOptions& options, const Checkpoint& checkpoint, const ModelText& text, const Backend& backend,
                        const MemoryPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  ModelInfo info;
  info.name = options.model_name.empty() ? NameOf(checkpoint.path()) : options.model_name;
  info.architecture = config.architecture;
  info.context_length = plan.max_model_len;
  info.vocab_size = static_cast<int32_t>(config.vocab);
  info.dtype = DescribeWeights(checkpoint, options.weights_dtype);
  info.backend = backend.Describe();
  info.weights_hash = checkpoint.Hash();
  info.bos_id = config.bos_id.has_value() ? config.bos_id : text.tokenizer->bos_id();
  info.eos_ids = EosIds(config, text);
  const auto bytes_of = [&](int32_t id) {
    return id >= 0 && id < text.tokenizer->vocab_size()
               ? std::string(text.tokenizer->TokenBytes(id))
               : std::string();
  };
  if (info.bos_id.has_value()) info.bos_token = bytes_of(*info.bos_id);
  if (!info.eos_ids.empty()) info.eos_token = bytes_of(info.eos_ids.front());
  info.has_chat_template = text.chat_template.ok();
  if (options.generation_config) info.sampling_defaults = config.sampling_defaults;
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       const LoadProgress& progress) {
  RETURN_IF_ERROR(Validate(options));
  // What is quick to check comes before what is slow to load.
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(options.model_path));
  ASSIGN_OR_RETURN(ModelText text,
                   LoadText(options.model_path, checkpoint->gguf(), options.chat_template_path));
  ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, MakeBackend(options.backend));
  // With the weights still to come, memory that is short already is refused before the long work.
  const MemoryRequest request = MakeMemoryRequest(options);
  RETURN_IF_ERROR(PlanMemory(checkpoint->config(), *backend, 0, request).status());
  ASSIGN_OR_RETURN(Weights weights, LoadWeights(*checkpoint, backend.get(), progress,
                                                options.weights_dtype));
  ASSIGN_OR_RETURN(const MemoryPlan plan,
                   PlanMemory(checkpoint->config(), *backend, weights.bytes(), request));
  ASSIGN_OR_RETURN(
      std::unique_ptr<Executor> executor,
      ModelExecutor::Create(backend.get(), checkpoint->config(), std::move(weights), plan));
  ASSIGN_OR_RETURN(const SchedulerOptions scheduler,
                   MakeSchedulerOptions(options, plan, *executor));
  ModelInfo info = MakeModelInfo(options, *checkpoint, text, *backend, plan);
  const std::string_view chat_template =
      text.chat_template.ok() ? text.chat_template->source() : std::string_view();
  ASSIGN_OR_RETURN(ParserChoice parsers,
                   ChooseParsers(options.tool_call_parser, options.reasoning_parser, chat_template,
                                 *text.tokenizer));
  return MakeEngine(
      {.backend = std::move(backend),
       .executor = std::move(executor),
       .tokenizer = std::move(text.tokenizer),
       .chat_template = std::move(text.chat_template),
       .parsers = std::move(parsers),
       .clock = nullptr,
       .info = std::move(info),
       .memory = MakeMemoryReport(plan),
       .scheduler = scheduler,
       .queue = {
           .max_requests = options.max_queued_requests,
           .max_tokens = options.max_queued_tokens,
           // Those that wait, those that run, and one request of as many choices as may be.
           .max_sequences = options.max_queued_requests + options.max_num_seqs + kMaxChoices}});
}

}  // namespace fastgen
