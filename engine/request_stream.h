// RequestStream: all choices of one request on their way to its TokenSink.
//
// With best_of == n each choice's deltas go out as they come, under its index. With best_of > n
// nothing goes out before the last choice has ended; then the n choices with the highest mean
// logprob of their output tokens do (ties: the lower choice first; one that failed comes last),
// numbered 0 to n - 1 in that order. The leader alone scores the prompt: its scores, in deltas of
// at most kMaxScoresPerDelta, open index 0 once they are complete. The echo opens every choice; at
// index 0 it goes along with the scores, each delta with the text and ids of the tokens that it
// scores.
//
// Thread rule: built by the caller of Submit; from Accept on completion thread only. Holds the sink
// until its last call. Tested by tests/engine/choices_test.cc, engine_scoring_test.cc and
// engine_stop_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/output_stream.h"
#include "engine/token_sink.h"

namespace fastgen {

class RequestStream {
 public:
  static constexpr int32_t kMaxScoresPerDelta = 256;

  RequestStream(const Tokenizer* tokenizer, StreamRequest request, std::shared_ptr<TokenSink> sink);

  const StreamRequest& request() const { return request_; }
  int32_t num_open() const { return num_open_; }
  int32_t num_output(int32_t choice) const { return choices_[choice].output.num_output(); }

  // The sink's OnAccepted, and the echo of a prompt that is not scored.
  void Accept(int32_t cached_tokens);

  // What one step gave a choice; `finished` as OutputStream::Deliver takes it.
  struct Progress {
    bool stopped = false;  // a stop string has just matched: post FinishAt(id, num_output(choice))
    bool prefilled = false;  // the request's prompt has just been computed, for the first time
    int32_t num_new_tokens = 0;
  };
  [[nodiscard]] Progress Deliver(int32_t choice, CommitResult::Output* output,
                                 const FinishedSequence* finished, absl::Time step_begin,
                                 absl::Time step_end);

  // A choice ended; with the last one the sink has its last call and is let go. REQUIRES: it has
  // not ended.
  void Finish(int32_t choice, const FinishedSequence& finished, absl::Time now);
  void Fail(const std::string& message);

 private:
  struct Choice {
    OutputStream output;
    std::optional<FinishInfo> finish;
  };

  bool holds() const { return request_.best_of > request_.n; }
  int32_t num_prompt() const { return static_cast<int32_t>(request_.prompt.size()); }
  void ReportProgress(const CommitResult::Output& output);
  void AddScores(const std::vector<TokenScore>& scored);
  void SendScores();
  void SendEcho(int32_t index);
  void Send(int32_t index, std::optional<TokenDelta> delta);
  void SendFinish(int32_t index, Choice* choice);
  void DeliverBest();

  const Tokenizer* const tokenizer_;
  const StreamRequest request_;
  std::shared_ptr<TokenSink> sink_;
  std::vector<Choice> choices_;
  int32_t num_open_ = 0;
  std::string echo_;
  std::vector<TokenLogprob> prompt_scores_;
  bool scores_complete_ = false;
  bool prefilled_ = false;
  int32_t num_processed_ = 0;  // as reported
  int32_t cached_tokens_ = 0;
};

}  // namespace fastgen
