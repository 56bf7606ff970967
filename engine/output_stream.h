// OutputStream: one request's way from scored tokens to its TokenSink.
//
// Text, ids, logprobs and usage end at the same token: once a stop string has matched, whatever the
// scheduler still produces is dropped here, so the answer does not depend on when FinishAt reaches
// the engine thread. An eos or stop id counts and is listed, but gives no text (unless
// include_stop). One delta a step; tokens whose text is held back wait for the next delta when only
// text was asked for.
//
// Thread rule: completion thread only. Holds the sink until its last call.
// Tested by tests/engine/engine_stop_test.cc and tests/engine/engine_scoring_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/sequence.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/token_sink.h"

namespace fastgen {

// What a stream needs to know of its request.
struct StreamRequest {
  std::string request_id;
  SequenceId id = 0;
  std::vector<int32_t> prompt;
  StoppingParams stopping;
  OutputParams output;
  uint64_t seed = 0;
  bool scores_prompt = false;
  absl::Time submitted;
};

class OutputStream {
 public:
  OutputStream(const Tokenizer* tokenizer, StreamRequest request, std::shared_ptr<TokenSink> sink);

  const std::string& request_id() const { return request_.request_id; }
  // Output tokens that the client gets, so far.
  int32_t num_output() const { return num_output_; }
  int32_t num_prompt() const { return static_cast<int32_t>(request_.prompt.size()); }
  bool prefilled() const { return prefill_end_.has_value(); }

  // The sink's OnAccepted, and the echo of a prompt that is not scored.
  void Accept();

  // What one step gave this sequence. `finished` is set when the same step ended it. Returns true
  // when a stop string has just matched: the caller posts FinishAt(id, num_output()).
  [[nodiscard]] bool Deliver(CommitResult::Output output, const FinishedSequence* finished,
                             absl::Time step_begin, absl::Time step_end);

  // The sink's last call, after what was held back; the sink is let go.
  void Finish(const FinishedSequence& finished, absl::Time now);
  void Fail(const std::string& message);

 private:
  void AddToken(const TokenScore& score, const FinishedSequence* finished);
  void AddPromptScores(std::vector<TokenScore> scored);
  TokenLogprob MakeLogprob(const TokenScore& score) const;
  // Sends pending_ when the client can use it, or when `is_last`.
  enum class Flush { kWhenUseful, kAll };
  void Send(Flush flush);
  Receipt MakeReceipt(const FinishedSequence& finished, absl::Time now) const;

  const Tokenizer* const tokenizer_;
  const StreamRequest request_;
  std::shared_ptr<TokenSink> sink_;
  Detokenizer detokenizer_;
  TokenDelta pending_;
  std::vector<TokenLogprob> prompt_scores_;  // until all are there
  bool prompt_sent_ = false;
  int32_t num_output_ = 0;
  std::optional<absl::Time> first_step_;
  std::optional<absl::Time> prefill_end_;
  absl::Time last_output_;
};

}  // namespace fastgen
