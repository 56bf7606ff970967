#include "engine/output_stream.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace fastgen {
namespace {

DetokenizerOptions MakeDetokenizerOptions(const StoppingParams& stopping) {
  DetokenizerOptions options;
  options.skip_special_tokens = stopping.skip_special_tokens;
  options.stop = stopping.stop;
  options.include_stop = stopping.include_stop;
  return options;
}

// Clocks may be set back; a duration shown to people is never negative.
absl::Duration Between(absl::Time begin, absl::Time end) {
  return std::max(end - begin, absl::ZeroDuration());
}

}  // namespace

OutputStream::OutputStream(const Tokenizer* tokenizer, StreamRequest request,
                           std::shared_ptr<TokenSink> sink)
    : tokenizer_(tokenizer),
      request_(std::move(request)),
      sink_(std::move(sink)),
      detokenizer_(tokenizer, MakeDetokenizerOptions(request_.stopping)),
      last_output_(request_.submitted) {}

void OutputStream::Accept() {
  AcceptedInfo info;
  info.request_id = request_.request_id;
  info.prompt_tokens = static_cast<int32_t>(request_.prompt.size());
  info.prompt_token_ids = request_.prompt;
  sink_->OnAccepted(info);
  if (request_.output.echo) {
    pending_.text = DecodeAll(*tokenizer_, request_.prompt, request_.stopping.skip_special_tokens);
    pending_.token_ids = request_.prompt;
    pending_.num_prompt_tokens = info.prompt_tokens;
  }
  if (request_.scores_prompt) {
    prompt_scores_.reserve(request_.prompt.size());
    TokenLogprob first;
    first.token = request_.prompt.front();
    first.bytes = std::string(tokenizer_->TokenBytes(first.token));
    prompt_scores_.push_back(std::move(first));
  } else {
    prompt_sent_ = true;
    Send(Flush::kWhenUseful);
  }
}

bool OutputStream::Deliver(CommitResult::Output output, const FinishedSequence* finished,
                           absl::Time step_begin, absl::Time step_end) {
  if (detokenizer_.stopped()) return false;
  if (!first_step_.has_value()) first_step_ = step_begin;
  if (output.prefilled && !prefill_end_.has_value()) prefill_end_ = step_end;
  last_output_ = step_end;
  AddPromptScores(std::move(output.scored));
  if (output.token.token >= 0) AddToken(output.token, finished);
  Send(Flush::kWhenUseful);
  return detokenizer_.stopped();
}

void OutputStream::AddPromptScores(std::vector<TokenScore> scored) {
  if (prompt_sent_) return;
  for (const TokenScore& score : scored) {
    if (prompt_scores_.size() == request_.prompt.size()) break;
    prompt_scores_.push_back(MakeLogprob(score));
  }
  if (prompt_scores_.size() < request_.prompt.size()) return;
  pending_.prompt_logprobs = std::move(prompt_scores_);
  prompt_sent_ = true;
}

void OutputStream::AddToken(const TokenScore& score, const FinishedSequence* finished) {
  ++num_output_;
  pending_.token_ids.push_back(score.token);
  if (request_.output.logprobs.has_value()) pending_.logprobs.push_back(MakeLogprob(score));
  const bool is_stop_token = finished != nullptr && finished->matched_token_id == score.token;
  if (is_stop_token && !request_.stopping.include_stop) return;
  pending_.text += detokenizer_.Push(score.token);
}

TokenLogprob OutputStream::MakeLogprob(const TokenScore& score) const {
  TokenLogprob logprob;
  logprob.token = score.token;
  logprob.logprob = score.logprob;
  logprob.rank = score.rank;
  logprob.bytes = std::string(tokenizer_->TokenBytes(score.token));
  logprob.top.reserve(score.top.size());
  for (const auto& [token, value] : score.top) {
    logprob.top.push_back({token, value, std::string(tokenizer_->TokenBytes(token))});
  }
  return logprob;
}

void OutputStream::Send(Flush flush) {
  // The scored prompt opens the output: nothing goes out before it is complete.
  if (!prompt_sent_ && flush == Flush::kWhenUseful) return;
  const bool has_tokens = !pending_.token_ids.empty();
  const bool shows_tokens = request_.output.token_ids || request_.output.logprobs.has_value();
  const bool is_useful = !pending_.text.empty() || !pending_.prompt_logprobs.empty() ||
                         (has_tokens && (shows_tokens || flush == Flush::kAll));
  if (!is_useful) return;
  sink_->OnDelta(std::exchange(pending_, TokenDelta()));
}

void OutputStream::Finish(const FinishedSequence& finished, absl::Time now) {
  pending_.text += detokenizer_.Flush();
  Send(Flush::kAll);
  FinishInfo info;
  if (detokenizer_.stopped()) {
    // Found here, before whatever the scheduler may have ended the sequence for in the meantime.
    info.reason = FinishReason::kStop;
    info.matched_stop = std::string(detokenizer_.matched_stop());
    now = last_output_;
  } else {
    info.reason = finished.reason;
    info.matched_token_id = finished.matched_token_id;
  }
  if (info.reason == FinishReason::kError) {
    info.error = finished.is_nan
                     ? absl::StrCat("the model produced a logit that is not a number after ",
                                    num_output_, " output tokens")
                     : "the request failed";
  }
  info.usage.prompt_tokens = static_cast<int32_t>(request_.prompt.size());
  info.usage.output_tokens = num_output_;
  info.receipt = MakeReceipt(finished, now);
  sink_->OnFinished(std::move(info));
  sink_.reset();
}

Receipt OutputStream::MakeReceipt(const FinishedSequence& finished, absl::Time now) const {
  Receipt receipt;
  const absl::Time first_step = first_step_.value_or(now);
  const absl::Time prefill_end = prefill_end_.value_or(now);
  receipt.queue_time = Between(request_.submitted, first_step);
  receipt.prefill_time = Between(first_step, prefill_end);
  receipt.decode_time = Between(prefill_end, now);
  receipt.num_chunks = finished.num_chunks;
  receipt.num_steps = finished.num_steps;
  receipt.num_preemptions = finished.num_preemptions;
  receipt.seed = request_.seed;
  return receipt;
}

void OutputStream::Fail(const std::string& message) {
  sink_->OnEngineError(message);
  sink_.reset();
}

}  // namespace fastgen
