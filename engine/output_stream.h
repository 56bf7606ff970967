// OutputStream: one choice's way from sampled tokens to deltas and a FinishInfo.
//
// Text, ids, logprobs and usage end at the same token: once a stop string has matched, whatever the
// scheduler still produces is dropped here, so the answer does not depend on when FinishAt reaches
// the engine thread. An eos or stop id counts and is listed, but gives no text (unless
// include_stop). One delta a step at most; tokens whose text is held back wait for the next delta
// when only text was asked for. With a parser, the text goes on to reasoning, content and tool
// calls: stop strings are searched before, in all that the model wrote, markers included, and a
// token counts as reasoning when the reasoning had not ended before its text came out. The prompt's echo and scores are RequestStream's.
//
// Thread rule: completion thread only.
// Tested by tests/engine/engine_stop_test.cc and tests/engine/engine_scoring_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/sequence.h"
#include "engine/text/answer_parser.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/token_sink.h"

namespace fastgen {

// What the completion side needs to know of a request.
struct StreamRequest {
  std::string request_id;
  SequenceId leader = 0;
  int32_t n = 1;
  int32_t best_of = 1;
  std::vector<int32_t> prompt;
  StoppingParams stopping;
  OutputParams output;
  uint64_t seed = 0;
  bool scores_prompt = false;
  absl::Time submitted;
  // When reasoning or tool calls are to be told from text.
  std::optional<AnswerParserOptions> parser;
  std::vector<int32_t> markers;  // special tokens that the parser is to see, sorted
};

TokenLogprob MakeTokenLogprob(const Tokenizer& tokenizer, const TokenScore& score);

class OutputStream {
 public:
  // Tokenizer and request must outlive the object; `stop` are the request's stop strings.
  OutputStream(const Tokenizer* tokenizer, const StreamRequest* request,
               std::shared_ptr<const StopStrings> stop, int32_t choice);

  // Output tokens that the client gets, so far.
  int32_t num_output() const { return num_output_; }
  bool prefilled() const { return prefill_end_.has_value(); }
  bool stopped() const { return detokenizer_.stopped(); }
  // Of those tokens, when they were scored; minus infinity without any.
  double MeanLogprob() const;

  // What one step gave this choice. `finished` is set when the same step ended it. Returns true
  // when a stop string has just matched: the caller posts FinishAt(id, num_output()).
  [[nodiscard]] bool Deliver(const CommitResult::Output& output, const FinishedSequence* finished,
                             absl::Time step_begin, absl::Time step_end);

  // How it ended; what was held back is in the next delta. `index` and cached tokens are the
  // caller's to fill.
  FinishInfo Finish(const FinishedSequence& finished, absl::Time now);

  // What was not taken yet: when the client can use it, or all of it.
  enum class Flush { kWhenUseful, kAll };
  std::optional<TokenDelta> TakeDelta(Flush flush);

 private:
  void AddToken(const TokenScore& score, const FinishedSequence* finished);
  enum class Text { kMore, kLast };
  void AddText(std::string text, Text which);
  Receipt MakeReceipt(const FinishedSequence& finished, absl::Time now) const;

  const Tokenizer* const tokenizer_;
  const StreamRequest* const request_;
  Detokenizer detokenizer_;
  std::optional<AnswerParser> parser_;
  TokenDelta pending_;
  int32_t num_output_ = 0;
  int32_t num_reasoning_ = 0;
  double sum_logprob_ = 0;
  std::optional<absl::Time> first_step_;
  std::optional<absl::Time> prefill_end_;
  absl::Time last_output_;
};

}  // namespace fastgen
