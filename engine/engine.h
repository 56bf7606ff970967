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
#include "base/histogram.h"
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
  std::string bos_token;  // the bytes of bos_id and of the first of eos_ids; "" without them
  std::string eos_token;
  bool has_chat_template = false;
  std::string tool_call_parser = "none";  // what reads its answers, when that is asked for
  std::string reasoning_parser = "none";
  SamplingDefaults sampling_defaults;
};

// How memory was divided at start. Nothing is taken after it.
struct MemoryReport {
  int64_t host_kv_bytes = 0;
  int32_t num_host_blocks = 0;
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
  // Prefix cache, counted in prompt tokens of admitted sequences: asked for, found in device memory, found in host
  // memory only.
  int64_t prefix_query_tokens = 0;
  int64_t prefix_device_hit_tokens = 0;
  int64_t prefix_host_hit_tokens = 0;
  int32_t num_cached_blocks = 0;  // of num_free_blocks: those that hold a prefix which may be hit
  int32_t num_host_blocks = 0;
  int32_t num_free_host_blocks = 0;
  int64_t num_swaps = 0;          // preemptions that kept their KV in host memory
  int64_t num_wasted_rows = 0;    // rows computed for sequences that had ended one step before
  int64_t num_queued_tokens = 0;  // prompt tokens of num_waiting
  HistogramCounts step_tokens;    // tokens computed in each step, prompt and output
  bool paused = false;
};

// What a dry run says.
struct PlanInfo {
  bool fits = false;   // Submit would take it now
  std::string reason;  // why not
  int32_t prompt_tokens = 0;
  int32_t cached_tokens_device = 0;
  int32_t cached_tokens_host = 0;  // beyond those in device memory
  int32_t queue_position = 0;      // requests that would run before it and have not started
  absl::Duration estimated_ttft;   // from measured step costs; zero before the first steps
};

// A live request, for operators.
struct RequestInfo {
  std::string request_id;
  enum class Phase { kQueued, kPrefill, kDecode } phase = Phase::kQueued;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;  // of all choices
  int32_t priority = 0;
  absl::Duration age;
};

class Engine {
 public:
  // Loads the model and starts the threads. Errors are one clear sentence for stderr.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        const LoadProgress& progress);
  virtual ~Engine() = default;

  // Takes a request. Errors, before any call of `sink`: INVALID_ARGUMENT (prompt empty or too long for the context, id
  // out of range, a bad parameter - the message opens with the field's name as inference.proto spells it, then ": "),
  // RESOURCE_EXHAUSTED (queue full; RetryAfter tells when to come again), ALREADY_EXISTS (request_id is live),
  // DEADLINE_EXCEEDED (by the measured step costs the first token would come too late), UNAVAILABLE (draining or
  // failed). On OK the sink is held until its last call.
  virtual absl::Status Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) = 0;

  // Compiles request.constraint off the calling thread, for request.grammar: `done` is called once, from another thread
  // or at once, and must not block. Null where there is no constraint. Errors: INVALID_ARGUMENT for what does not
  // compile, FAILED_PRECONDITION for what this model cannot do, RESOURCE_EXHAUSTED beyond the bounds of time and memory.
  // A caller that may wait calls Submit without it.
  virtual void CompileConstraint(
      const GenerateRequest& request,
      std::function<void(absl::StatusOr<std::shared_ptr<const Grammar>>)> done) {
    done(std::shared_ptr<const Grammar>());
  }

  // Ends a live request in any phase: its blocks are free before the next step, its sink gets OnFinished with
  // kCancelled for every choice that had not ended. False when no such request is live. Idempotent, never blocks on a
  // step. With `only`, a request of that id is ended only if it feeds that sink: an id may have been used again.
  virtual bool Cancel(std::string_view request_id, const TokenSink* only = nullptr) = 0;

  // Asks the engine thread, which answers between two steps by calling `done` (once, on its own thread; at once and on
  // the calling thread where no step is needed to answer). `done` must not block and must not call the engine.
  // Plan errors: as Submit's INVALID_ARGUMENT; what Submit would refuse for the moment comes as fits = false.
  virtual void Plan(GenerateRequest request,
                    std::function<void(absl::StatusOr<PlanInfo>)> done) = 0;
  virtual void ListRequests(std::function<void(std::vector<RequestInfo>)> done) = 0;
  // Stops planning steps; `done` is called when none is in flight. Requests are still taken, cancelled and expired.
  virtual void Pause(std::function<void()> done) = 0;
  virtual void Resume() = 0;
  // Forgets all cached prefixes in both tiers, also those of live requests; answers with the number of blocks freed.
  virtual void FlushPrefixCache(std::function<void(int32_t)> done) = 0;
  // A hint for a client that was refused: how long until what waits now has begun.
  virtual absl::Duration RetryAfter() const = 0;

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
