#include "engine/output_stream.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace fastgen {
namespace {

DetokenizerOptions MakeDetokenizerOptions(const StreamRequest& request,
                                          std::shared_ptr<const StopStrings> stop) {
  DetokenizerOptions options;
  options.skip_special_tokens = request.stopping.skip_special_tokens;
  options.shown_special = request.markers;
  options.compiled_stop = std::move(stop);
  options.include_stop = request.stopping.include_stop;
  return options;
}

// Each choice has ids of its own for its calls.
std::optional<AnswerParser> MakeParser(const StreamRequest& request, int32_t choice) {
  if (!request.parser.has_value()) return std::nullopt;
  AnswerParserOptions options = *request.parser;
  options.id_seed ^= static_cast<uint64_t>(choice) << 32;
  return AnswerParser(options);
}

// A test's clock may be set back; a duration shown to people is never negative.
absl::Duration Between(absl::Time begin, absl::Time end) {
  return std::max(end - begin, absl::ZeroDuration());
}

}  // namespace

TokenLogprob MakeTokenLogprob(const Tokenizer& tokenizer, const TokenScore& score) {
  TokenLogprob logprob;
  logprob.token = score.token;
  logprob.logprob = score.logprob;
  logprob.rank = score.rank;
  logprob.bytes = std::string(tokenizer.TokenBytes(score.token));
  logprob.top.reserve(score.top.size());
  for (const auto& [token, value] : score.top) {
    logprob.top.push_back({token, value, std::string(tokenizer.TokenBytes(token))});
  }
  return logprob;
}

OutputStream::OutputStream(const Tokenizer* tokenizer, const StreamRequest* request,
                           std::shared_ptr<const StopStrings> stop, int32_t choice)
    : tokenizer_(tokenizer),
      request_(request),
      detokenizer_(tokenizer, MakeDetokenizerOptions(*request, std::move(stop))),
      parser_(MakeParser(*request, choice)),
      last_output_(request->submitted) {}

double OutputStream::MeanLogprob() const {
  if (num_output_ == 0) return -std::numeric_limits<double>::infinity();
  return sum_logprob_ / num_output_;
}

bool OutputStream::Deliver(const CommitResult::Output& output, const FinishedSequence* finished,
                           absl::Time step_begin, absl::Time step_end) {
  if (stopped()) return false;
  if (!first_step_.has_value()) first_step_ = step_begin;
  if (output.prefilled && !prefill_end_.has_value()) prefill_end_ = step_end;
  last_output_ = step_end;
  if (output.token.token >= 0) AddToken(output.token, finished);
  return stopped();
}

void OutputStream::AddToken(const TokenScore& score, const FinishedSequence* finished) {
  ++num_output_;
  sum_logprob_ += score.logprob;
  pending_.token_ids.push_back(score.token);
  if (request_->output.logprobs.has_value()) {
    pending_.logprobs.push_back(MakeTokenLogprob(*tokenizer_, score));
  }
  const bool is_stop_token = finished != nullptr && finished->matched_token_id == score.token;
  if (is_stop_token && !request_->stopping.include_stop) return;
  AddText(detokenizer_.Push(score.token), Text::kMore);
}

void OutputStream::AddText(std::string text, Text which) {
  if (!parser_.has_value()) {
    pending_.text += text;
    return;
  }
  AnswerDelta delta{std::move(pending_.reasoning), std::move(pending_.text),
                    std::move(pending_.tool_calls)};
  const bool counts = parser_->may_reason();
  parser_->Push(text, &delta);
  if (which == Text::kLast) parser_->Finish(&delta);
  if (counts && parser_->has_reasoned()) num_reasoning_ = num_output_;
  pending_.reasoning = std::move(delta.reasoning);
  pending_.text = std::move(delta.content);
  pending_.tool_calls = std::move(delta.tool_calls);
}

std::optional<TokenDelta> OutputStream::TakeDelta(Flush flush) {
  const bool has_tokens = !pending_.token_ids.empty();
  const bool shows_tokens = request_->output.token_ids || request_->output.logprobs.has_value();
  const bool has_text =
      !pending_.text.empty() || !pending_.reasoning.empty() || !pending_.tool_calls.empty();
  const bool is_useful = has_text || (has_tokens && (shows_tokens || flush == Flush::kAll));
  if (!is_useful) return std::nullopt;
  return std::exchange(pending_, TokenDelta());
}

FinishInfo OutputStream::Finish(const FinishedSequence& finished, absl::Time now) {
  AddText(detokenizer_.Flush(), Text::kLast);
  FinishInfo info;
  if (stopped()) {
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
    if (!finished.failure.ok()) {
      info.error = std::string(finished.failure.message());
      info.error_code = finished.failure.code();
    }
  }
  info.usage.prompt_tokens = static_cast<int32_t>(request_->prompt.size());
  info.usage.output_tokens = num_output_;
  info.usage.reasoning_tokens = num_reasoning_;
  if (parser_.has_value()) info.num_tool_calls = parser_->num_calls();
  info.receipt = MakeReceipt(finished, now);
  return info;
}

Receipt OutputStream::MakeReceipt(const FinishedSequence& finished, absl::Time now) const {
  Receipt receipt;
  const absl::Time first_step = first_step_.value_or(now);
  const absl::Time prefill_end = prefill_end_.value_or(now);
  receipt.queue_time = Between(request_->submitted, first_step);
  receipt.prefill_time = Between(first_step, prefill_end);
  receipt.decode_time = Between(prefill_end, now);
  receipt.num_chunks = finished.num_chunks;
  receipt.num_steps = finished.num_steps;
  receipt.num_preemptions = finished.num_preemptions;
  receipt.num_page_ins = finished.num_page_ins;
  receipt.seed = request_->seed;
  return receipt;
}

}  // namespace fastgen
