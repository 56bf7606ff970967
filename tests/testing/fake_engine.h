// FakeEngine: an Engine without a model, for tests of the server.
//
// A request yields stopping.max_tokens tokens (4 when absent), each with the text set_token_text gave, one token for
// every live request a round; then it finishes with kLength. Tests hold the rounds back (Pause, Step), end a request
// as they like (FinishWith), refuse the next one (RefuseNext) or let the whole engine fail (Fail). A byte is a token.
// Thread rule: any thread; sinks are called by the engine's own thread, as TokenSink demands.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"

namespace fastgen::testing {

class FakeEngine final : public Engine {
 public:
  FakeEngine();
  ~FakeEngine() override;

  // No round from now on, until Step or Resume.
  void Pause();
  void Step(int num_rounds);
  void Resume();
  void set_token_text(const std::string& text);
  void RefuseNext(absl::Status status);
  // Ends a live request with `info`; usage is filled in.
  void FinishWith(const std::string& request_id, FinishInfo info);
  // Every live request gets OnEngineError.
  void Fail(const std::string& message);
  // What Tokenize uses instead of bytes.
  void set_tokenizer(std::unique_ptr<Tokenizer> tokenizer);

  // Requests in the order of Submit, also the refused ones.
  std::vector<GenerateRequest> submitted() const;
  // False after ten seconds.
  bool WaitSubmitted(size_t count) const;
  bool WaitCancelCalled(const std::string& request_id) const;
  bool WaitProduced(int64_t num_tokens) const;  // by all requests together
  int num_live() const;

  absl::Status Submit(GenerateRequest request, std::shared_ptr<TokenSink> sink) override;
  bool Cancel(std::string_view request_id) override;
  absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text,
                                                const EncodeOptions& options) const override;
  absl::StatusOr<std::string> Detokenize(absl::Span<const int32_t> ids,
                                         bool skip_special_tokens) const override;
  absl::StatusOr<std::vector<std::string>> TokenBytes(
      absl::Span<const int32_t> ids) const override;
  absl::StatusOr<Rendered> RenderChat(const ChatPrompt& chat) const override;
  const ModelInfo& model_info() const override { return info_; }
  const MemoryReport& memory_report() const override { return memory_; }
  EngineStats stats() const override;
  absl::Status health() const override;
  void StartDrain() override;
  bool WaitIdle(absl::Duration timeout) override;
  void CancelAll() override;

 private:
  struct Live {
    GenerateRequest request;
    std::shared_ptr<TokenSink> sink;
    bool accepted = false;
    bool cancelled = false;
    int32_t num_produced = 0;
    std::optional<FinishInfo> finish_with;
  };

  void Run();
  // What one round does to one request, outside the lock. True when the request has ended.
  bool Advance(const std::string& id, bool may_produce);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Condition>
  bool WaitUntil(const Condition& condition) const;

  ModelInfo info_;
  MemoryReport memory_;
  std::unique_ptr<Tokenizer> tokenizer_;  // set before serving

  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::map<std::string, std::shared_ptr<Live>> live_ ABSL_GUARDED_BY(mutex_);
  std::vector<GenerateRequest> submitted_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> cancel_calls_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> refuse_next_ ABSL_GUARDED_BY(mutex_);
  std::string token_text_ ABSL_GUARDED_BY(mutex_) = "t";
  std::string failure_ ABSL_GUARDED_BY(mutex_);
  int64_t num_rounds_left_ ABSL_GUARDED_BY(mutex_) = INT64_MAX;
  int64_t num_produced_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen::testing
