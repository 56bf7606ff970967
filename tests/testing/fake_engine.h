// FakeEngine: an Engine without a model, for tests of the server.
//
// A request yields stopping.max_tokens tokens (4 when absent) for each of its n choices, each with the text that
// set_token_text gave, one token for every live choice a round; then the choice finishes with kLength. Tests hold the
// rounds back (HoldRounds, LetRounds), end choices as they like (FinishWith, FinishChoice), refuse the next request
// (RefuseNext), keep questions waiting (HoldAnswers) or let the whole engine fail (Fail). A byte is a token.
// Thread rule: any thread; sinks and answers are called by the engine's own thread, as TokenSink and Engine demand.
#pragma once

#include <functional>
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

  // No round from now on, until LetRounds or ReleaseRounds.
  void HoldRounds();
  void LetRounds(int num_rounds);
  void ReleaseRounds();
  // Plan, ListRequests, Pause and FlushPrefixCache are answered only after ReleaseAnswers, or when the engine ends.
  void HoldAnswers();
  void ReleaseAnswers();
  bool WaitAsked(size_t count) const;  // so many questions; false after ten seconds
  void set_plan(absl::StatusOr<PlanInfo> plan);
  void set_retry_after(absl::Duration retry_after);
  // Of every prompt; 3 at first.
  void set_num_prompt_tokens(int32_t num_prompt_tokens);
  void set_token_text(const std::string& text);
  void set_model_name(const std::string& name) { info_.name = name; }  // before serving
  void RefuseNext(absl::Status status);
  // Ends all choices of a live request, or one of them, with `info`; index and usage are filled in.
  void FinishWith(const std::string& request_id, FinishInfo info);
  void FinishChoice(const std::string& request_id, int32_t index, FinishInfo info);
  // Every live request gets OnEngineError.
  void Fail(const std::string& message);
  // The engine hangs from now on; while it is destroyed, live requests get OnEngineError.
  void FailAtEnd(const std::string& message);
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
  bool Cancel(std::string_view request_id, const TokenSink* only = nullptr) override;
  void Plan(GenerateRequest request, std::function<void(absl::StatusOr<PlanInfo>)> done) override;
  void ListRequests(std::function<void(std::vector<RequestInfo>)> done) override;
  void Pause(std::function<void()> done) override;
  void Resume() override;
  void FlushPrefixCache(std::function<void(int32_t)> done) override;
  absl::Duration RetryAfter() const override;
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
  struct Choice {
    int32_t num_produced = 0;
    bool ended = false;
    std::optional<FinishInfo> finish_with;
  };
  struct Live {
    GenerateRequest request;
    std::shared_ptr<TokenSink> sink;
    bool accepted = false;
    bool cancelled = false;
    std::vector<Choice> choices;
    int num_open = 0;
  };
  // What one round does to one choice.
  struct Turn {
    std::optional<TokenDelta> delta;
    std::optional<FinishInfo> finish;
  };

  void Run();
  // What one round does to one request, its sink's calls outside the lock.
  void Advance(const std::string& id, bool may_produce);
  std::vector<Turn> PlanTurns(Live* live, bool may_produce) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Accept(const Live& live, int32_t num_prompt_tokens);
  void Ask(std::function<void()> answer);
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
  std::vector<std::function<void()>> answers_ ABSL_GUARDED_BY(mutex_);
  size_t num_asked_ ABSL_GUARDED_BY(mutex_) = 0;
  bool hold_answers_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<PlanInfo> plan_ ABSL_GUARDED_BY(mutex_) = PlanInfo();
  absl::Duration retry_after_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  int32_t num_prompt_tokens_ ABSL_GUARDED_BY(mutex_) = 3;
  std::optional<absl::Status> refuse_next_ ABSL_GUARDED_BY(mutex_);
  std::string token_text_ ABSL_GUARDED_BY(mutex_) = "t";
  std::string failure_ ABSL_GUARDED_BY(mutex_);
  int64_t num_rounds_left_ ABSL_GUARDED_BY(mutex_) = INT64_MAX;
  int64_t num_produced_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string failure_at_end_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen::testing
