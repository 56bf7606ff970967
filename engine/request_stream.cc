#include "engine/request_stream.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/types/span.h"
#include "base/check.h"

namespace fastgen {

RequestStream::RequestStream(const Tokenizer* tokenizer, StreamRequest request,
                             std::shared_ptr<TokenSink> sink)
    : tokenizer_(tokenizer),
      request_(std::move(request)),
      sink_(std::move(sink)),
      num_open_(request_.best_of) {
  CHECK_GE(request_.best_of, request_.n);
  const auto stop = std::make_shared<const StopStrings>(request_.stopping.stop);
  choices_.reserve(request_.best_of);
  for (int32_t i = 0; i < request_.best_of; ++i) {
    choices_.push_back(Choice{OutputStream(tokenizer_, &request_, stop, i), std::nullopt});
  }
}

void RequestStream::Accept(int32_t cached_tokens) {
  AcceptedInfo info;
  info.request_id = request_.request_id;
  info.prompt_tokens = num_prompt();
  info.cached_tokens = cached_tokens;
  info.prompt_token_ids = request_.prompt;
  sink_->OnAccepted(info);
  if (request_.scores_prompt) {
    prompt_scores_.reserve(request_.prompt.size());
    TokenLogprob first;
    first.token = request_.prompt.front();
    first.bytes = std::string(tokenizer_->TokenBytes(first.token));
    prompt_scores_.push_back(std::move(first));
  }
  if (!request_.output.echo || holds()) return;
  for (int32_t i = request_.scores_prompt ? 1 : 0; i < request_.n; ++i) SendEcho(i);
}

RequestStream::Progress RequestStream::Deliver(int32_t index, CommitResult::Output* output,
                                               const FinishedSequence* finished,
                                               absl::Time step_begin, absl::Time step_end) {
  OutputStream& stream = choices_[index].output;
  Progress progress;
  if (index == 0) {
    if (output->first_chunk) cached_tokens_ = output->cached_tokens;
    ReportProgress(*output);
    AddScores(output->scored);
  }
  const int32_t num_before = stream.num_output();
  progress.stopped = stream.Deliver(*output, finished, step_begin, step_end);
  progress.num_new_tokens = stream.num_output() - num_before;
  if (stream.prefilled()) progress.prefilled = !std::exchange(prefilled_, true);
  if (!holds()) Send(index, stream.TakeDelta(OutputStream::Flush::kWhenUseful));
  return progress;
}

void RequestStream::ReportProgress(const CommitResult::Output& output) {
  if (!request_.output.progress) return;
  const int32_t processed = std::min(output.num_computed, num_prompt());
  // After a preemption it is behind what was reported.
  if (processed <= num_processed_) return;
  num_processed_ = processed;
  sink_->OnProgress(processed, num_prompt());
}

void RequestStream::AddScores(const std::vector<TokenScore>& scored) {
  if (!request_.scores_prompt || scores_complete_) return;
  for (const TokenScore& score : scored) {
    if (prompt_scores_.size() == request_.prompt.size()) break;
    prompt_scores_.push_back(MakeTokenLogprob(*tokenizer_, score));
  }
  if (prompt_scores_.size() < request_.prompt.size()) return;
  scores_complete_ = true;
  if (!holds()) SendScores();
}

void RequestStream::SendScores() {
  DetokenizerOptions options;
  options.skip_special_tokens = request_.stopping.skip_special_tokens;
  Detokenizer detokenizer(tokenizer_, options);
  const int32_t total = num_prompt();
  for (int32_t begin = 0; begin < total; begin += kMaxScoresPerDelta) {
    const int32_t end = std::min(begin + kMaxScoresPerDelta, total);
    TokenDelta delta;
    delta.prompt_logprobs.assign(std::make_move_iterator(prompt_scores_.begin() + begin),
                                 std::make_move_iterator(prompt_scores_.begin() + end));
    if (request_.output.echo) {
      delta.token_ids.assign(request_.prompt.begin() + begin, request_.prompt.begin() + end);
      delta.num_prompt_tokens = end - begin;
      for (int32_t token : delta.token_ids) delta.text += detokenizer.Push(token);
      if (end == total) delta.text += detokenizer.Flush();
    }
    Send(0, std::move(delta));
  }
  prompt_scores_ = {};
}

void RequestStream::SendEcho(int32_t index) {
  // Once for all choices.
  if (echo_.empty()) {
    echo_ = DecodeAll(*tokenizer_, request_.prompt, request_.stopping.skip_special_tokens);
  }
  TokenDelta delta;
  delta.text = echo_;
  delta.token_ids = request_.prompt;
  delta.num_prompt_tokens = num_prompt();
  Send(index, std::move(delta));
}

void RequestStream::Send(int32_t index, std::optional<TokenDelta> delta) {
  if (!delta.has_value()) return;
  delta->index = index;
  sink_->OnDelta(*std::move(delta));
}

void RequestStream::Finish(int32_t index, const FinishedSequence& finished, absl::Time now) {
  Choice& choice = choices_[index];
  CHECK(!choice.finish.has_value())
      << "choice " << index << " of " << request_.request_id << " ended twice";
  CHECK_GE(--num_open_, 0);
  choice.finish = choice.output.Finish(finished, now);
  if (!holds()) {
    SendFinish(index, &choice);
  } else if (num_open_ == 0) {
    DeliverBest();
  }
  if (num_open_ == 0) sink_.reset();
}

void RequestStream::SendFinish(int32_t index, Choice* choice) {
  Send(index, choice->output.TakeDelta(OutputStream::Flush::kAll));
  choice->finish->index = index;
  choice->finish->usage.cached_tokens = cached_tokens_;
  sink_->OnFinished(*choice->finish);
}

void RequestStream::DeliverBest() {
  std::vector<int32_t> order(choices_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto failed = [this](int32_t i) {
    return choices_[i].finish->reason == FinishReason::kError;
  };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    if (failed(a) != failed(b)) return failed(b);
    const double mean_a = choices_[a].output.MeanLogprob();
    const double mean_b = choices_[b].output.MeanLogprob();
    return mean_a != mean_b ? mean_a > mean_b : a < b;
  });
  const bool sends_scores = request_.scores_prompt && scores_complete_;
  if (sends_scores) SendScores();
  for (int32_t i = 0; i < request_.n; ++i) {
    if (request_.output.echo && !(sends_scores && i == 0)) SendEcho(i);
    SendFinish(i, &choices_[order[i]]);
  }
}

void RequestStream::Fail(const std::string& message) {
  sink_->OnEngineError(message);
  sink_.reset();
  num_open_ = 0;
}

}  // namespace fastgen
