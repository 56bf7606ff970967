#include "engine/running_engine.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/check_request.h"
#include "engine/completion.h"
#include "engine/output_stream.h"
#include "engine/request_queue.h"
#include "engine/step_loop.h"

namespace fastgen {
namespace {

uint64_t DrawSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

// The same error, with the field that it concerns in front.
absl::Status About(std::string_view field, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(ToAbsl(field), ": ", status.message()));
}

class RunningEngine final : public Engine {
 public:
  explicit RunningEngine(EngineParts parts);
  ~RunningEngine() override;

  absl::Status Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) override;
  bool Cancel(std::string_view request_id) override { return queue_.Cancel(request_id); }
  absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text,
                                                const EncodeOptions& options) const override;
  absl::StatusOr<std::string> Detokenize(absl::Span<const int32_t> ids,
                                         bool skip_special_tokens) const override;
  absl::StatusOr<std::vector<std::string>> TokenBytes(absl::Span<const int32_t> ids) const override;
  absl::StatusOr<Rendered> RenderChat(const ChatPrompt& chat) const override;
  const ModelInfo& model_info() const override { return parts_.info; }
  const MemoryReport& memory_report() const override { return parts_.memory; }
  EngineStats stats() const override;
  absl::Status health() const override { return queue_.health(); }
  void StartDrain() override { queue_.StartDrain(); }
  bool WaitIdle(absl::Duration timeout) override { return queue_.WaitIdle(timeout); }
  void CancelAll() override { queue_.CancelAll(); }

 private:
  RequestLimits limits() const { return {parts_.scheduler, parts_.info.vocab_size}; }
  absl::StatusOr<std::vector<int32_t>> PromptIds(GenerateRequest* request) const;
  absl::Status CheckIds(absl::Span<const int32_t> ids) const;

  const EngineParts parts_;
  const RealClock real_clock_;
  const Clock* const clock_;
  std::atomic<SequenceId> next_id_ = 1;
  RequestQueue queue_;
  Completion completion_;
  StepLoop step_loop_;
  std::thread engine_thread_;  // last: it uses everything above
};

RunningEngine::RunningEngine(EngineParts parts)
    : parts_(std::move(parts)),
      clock_(parts_.clock != nullptr ? parts_.clock.get() : &real_clock_),
      queue_(parts_.max_queued_requests),
      completion_(&queue_),
      step_loop_(parts_.scheduler, parts_.executor.get(), clock_, &queue_, &completion_),
      engine_thread_([this] { step_loop_.Run(); }) {}

RunningEngine::~RunningEngine() {
  queue_.StartDrain();
  queue_.CancelAll();
  queue_.Close();
  // It ends once all sequences have. Sinks may still call the engine: it stays whole until the last
  // one has been told.
  engine_thread_.join();
  queue_.WaitIdle(absl::InfiniteDuration());
}

absl::StatusOr<std::vector<int32_t>> RunningEngine::PromptIds(GenerateRequest* request) const {
  if (auto* tokens = std::get_if<TokenPrompt>(&request->prompt)) return std::move(tokens->ids);
  if (const auto* chat = std::get_if<ChatPrompt>(&request->prompt)) {
    ASSIGN_OR_RETURN(Rendered rendered, RenderChat(*chat));
    return std::move(rendered.ids);
  }
  EncodeOptions options;
  options.add_special_tokens = request->add_special_tokens;
  options.parse_special = request->parse_special;
  auto ids = parts_.tokenizer->Encode(std::get<TextPrompt>(request->prompt).text, options);
  if (!ids.ok()) return About("prompt", ids.status());
  return ids;
}

absl::Status RunningEngine::Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) {
  CHECK(sink != nullptr);
  RETURN_IF_ERROR(queue_.CheckAccepting());
  RETURN_IF_ERROR(CheckRequest(request, limits()));
  ASSIGN_OR_RETURN(std::vector<int32_t> prompt, PromptIds(&request));
  ASSIGN_OR_RETURN(const int32_t max_output_tokens, CheckPrompt(request, prompt, limits()));

  const uint64_t seed = request.sampling.seed.has_value() ? *request.sampling.seed : DrawSeed();
  NewSequence sequence;
  sequence.id = next_id_.fetch_add(1);
  sequence.stop = MakeStopCondition(request.stopping, max_output_tokens, parts_.info.eos_ids);
  sequence.sampling = MakeSampling(request, seed);
  sequence.prompt = prompt;

  StreamRequest stream_request;
  stream_request.request_id = std::move(request.request_id);
  stream_request.id = sequence.id;
  stream_request.prompt = std::move(prompt);
  stream_request.stopping = std::move(request.stopping);
  stream_request.output = request.output;
  stream_request.seed = seed;
  stream_request.scores_prompt = sequence.sampling.num_prompt_top_logprobs >= 0;
  stream_request.submitted = clock_->Now();

  const SequenceId id = sequence.id;
  const std::string request_id = stream_request.request_id;
  auto stream = std::make_unique<OutputStream>(parts_.tokenizer.get(), std::move(stream_request),
                                               std::move(sink));
  return queue_.Push(request_id, std::move(sequence),
                     [&] { completion_.Open(id, std::move(stream)); });
}

absl::StatusOr<std::vector<int32_t>> RunningEngine::Tokenize(std::string_view text,
                                                             const EncodeOptions& options) const {
  return parts_.tokenizer->Encode(text, options);
}

absl::StatusOr<std::string> RunningEngine::Detokenize(absl::Span<const int32_t> ids,
                                                      bool skip_special_tokens) const {
  RETURN_IF_ERROR(CheckIds(ids));
  return DecodeAll(*parts_.tokenizer, ids, skip_special_tokens);
}

absl::StatusOr<std::vector<std::string>> RunningEngine::TokenBytes(
    absl::Span<const int32_t> ids) const {
  RETURN_IF_ERROR(CheckIds(ids));
  std::vector<std::string> bytes;
  bytes.reserve(ids.size());
  for (int32_t id : ids) bytes.emplace_back(parts_.tokenizer->TokenBytes(id));
  return bytes;
}

absl::Status RunningEngine::CheckIds(absl::Span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < parts_.info.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("ids: ", ids[i], " at index ", i,
                                                   " is outside the vocabulary [0, ",
                                                   parts_.info.vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Engine::Rendered> RunningEngine::RenderChat(const ChatPrompt& chat) const {
  if (!parts_.chat_template.ok()) return About("chat", parts_.chat_template.status());
  auto rendered = parts_.chat_template->Render(chat, clock_->Now());
  if (!rendered.ok()) return About("chat", rendered.status());
  EncodeOptions options;
  options.add_special_tokens = false;  // the template writes them
  options.untrusted = rendered->untrusted;
  auto ids = parts_.tokenizer->Encode(rendered->text, options);
  if (!ids.ok()) return About("chat", ids.status());
  return Rendered{std::move(rendered->text), *std::move(ids)};
}

EngineStats RunningEngine::stats() const {
  const StepLoop::Stats loop = step_loop_.stats();
  const Completion::Counters counters = completion_.counters();
  EngineStats stats;
  stats.num_running = loop.scheduler.num_running;
  // Requests that the engine thread has not taken yet are in the queue's count alone, preempted
  // ones in the scheduler's alone.
  stats.num_waiting = std::max(loop.scheduler.num_waiting, queue_.num_queued());
  stats.num_free_blocks = loop.scheduler.num_free_blocks;
  stats.num_blocks = loop.scheduler.num_blocks;
  stats.num_preemptions = loop.scheduler.num_preemptions;
  stats.num_steps = loop.num_steps;
  stats.prompt_tokens = counters.prompt_tokens;
  stats.output_tokens = counters.output_tokens;
  stats.finished_requests = counters.finished_requests;
  return stats;
}

}  // namespace

std::unique_ptr<Engine> MakeEngine(EngineParts parts) {
  CHECK(parts.executor != nullptr && parts.tokenizer != nullptr);
  return std::make_unique<RunningEngine>(std::move(parts));
}

}  // namespace fastgen
