// Engine: the facade. One model, one device, one engine thread that owns the scheduler and the step loop, and one
// completion thread that turns ids into text and calls TokenSinks.
//
//   Submit (any thread): tokenise, check limits, push on the bounded queue
//   engine thread: drain queue -> Scheduler::Add -> PlanStep -> Executor::Run -> CommitStep -> outputs to completion
//   completion thread: Detokenizer, stop strings (posts FinishAt back), TokenSink
// Idle threads sleep on condition variables: no CPU is used without work.
// Thread rule: any thread, unless said otherwise.
// Tested by tests/engine/engine*_test.cc (fake executor), create_test.cc and golden_test.cc (real models).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/engine_options.h"
#include "engine/request.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "engine/token_sink.h"

namespace fastgen {

// Bytes of weights read so far, for a progress bar. Called from the loading thread.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// What clients may know about the loaded model.
struct ModelInfo {
  std::string name;          // file or directory name
  std::string architecture;
  int32_t context_length = 0;  // max_model_len in force
  int32_t vocab_size = 0;
  std::string dtype;           // weights, as stored: "Q4_1", "bf16", ...
  std::string backend;         // Backend::Describe()
  std::string weights_hash;    // hex; of names, shapes and bytes sampled as documented in engine/model/weights.h
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
  bool has_chat_template = false;
};

// How memory was divided at start. Nothing is taken after it.
struct MemoryReport {
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t workspace_bytes = 0;
  int32_t num_blocks = 0;
  int32_t block_size = 0;
};

// Counters and gauges of this moment.
struct EngineStats {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int32_t num_free_blocks = 0;
  int32_t num_blocks = 0;
  int64_t num_preemptions = 0;
  int64_t num_steps = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  int64_t finished_requests = 0;
};

class Engine {
 public:
  // Loads the model and starts the threads. Errors are one clear sentence for stderr.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        const LoadProgress& progress);
  virtual ~Engine() = default;

  // Takes a request. Errors, before any call of `sink`: INVALID_ARGUMENT (prompt empty or too long for the context, id
  // out of range, a bad parameter - the message opens with the field's name as inference.proto spells it, then ": "),
  // RESOURCE_EXHAUSTED (queue full), ALREADY_EXISTS (request_id is live), UNAVAILABLE (draining or failed).
  // On OK the sink is held until its last call.
  virtual absl::Status Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) = 0;

  // Ends a live request in any phase: its blocks are free before the next step, its sink gets OnFinished with
  // kCancelled. False when no such request is live. Idempotent, never blocks on a step.
  virtual bool Cancel(std::string_view request_id) = 0;

  virtual absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text,
                                                        const EncodeOptions& options) const = 0;
  // INVALID_ARGUMENT for an id outside the vocabulary.
  virtual absl::StatusOr<std::string> Detokenize(absl::Span<const int32_t> ids,
                                                 bool skip_special_tokens) const = 0;
  // The bytes that each id stands for in running text, possibly part of a UTF-8 sequence. INVALID_ARGUMENT as above.
  virtual absl::StatusOr<std::vector<std::string>> TokenBytes(
      absl::Span<const int32_t> ids) const = 0;
  // The rendered text and its ids. FAILED_PRECONDITION when the model has no chat template.
  struct Rendered {
    std::string text;
    std::vector<int32_t> ids;
  };
  virtual absl::StatusOr<Rendered> RenderChat(const ChatPrompt& chat) const = 0;

  virtual const ModelInfo& model_info() const = 0;
  virtual const MemoryReport& memory_report() const = 0;
  virtual EngineStats stats() const = 0;
  // Not OK once a device error ended all streams; the process should exit non-zero.
  virtual absl::Status health() const = 0;

  // Refuses new requests from now on (UNAVAILABLE).
  virtual void StartDrain() = 0;
  // True when drained: nothing queued, running or still to be delivered; false after `timeout`.
  virtual bool WaitIdle(absl::Duration timeout) = 0;
  // Cancels everything that is live.
  virtual void CancelAll() = 0;
};

}  // namespace fastgen
