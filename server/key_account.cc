#include "server/key_account.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/grpc_status.h"

namespace fastgen {
namespace {

// A place is free again when a request ends, which nobody can foretell.
constexpr absl::Duration kRetryPlace = absl::Seconds(1);

}  // namespace

void KeyAccount::SetLimits(const KeyLimits& limits) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  limits_ = limits;
  if (!limits.tokens_per_minute.has_value()) {
    bucket_.reset();
  } else if (bucket_.has_value()) {
    bucket_->SetRate(*limits.tokens_per_minute, now);
  } else {
    bucket_.emplace(*limits.tokens_per_minute);
  }
}

absl::Status KeyAccount::Enter() {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  if (limits_.max_concurrent.has_value() && num_live_ >= *limits_.max_concurrent) {
    return WithRetryAfter(
        absl::ResourceExhaustedError(absl::StrCat("the API key ", name_, " has ", num_live_,
                                                  " requests live; its max-concurrent is ",
                                                  *limits_.max_concurrent)),
        kRetryPlace);
  }
  if (bucket_.has_value()) {
    const absl::Duration wait = bucket_->WaitTime(now);
    if (wait > absl::ZeroDuration()) {
      return WithRetryAfter(
          absl::ResourceExhaustedError(
              absl::StrCat("the API key ", name_, " has used its tokens; its tokens-per-minute is ",
                           bucket_->tokens_per_minute())),
          wait);
    }
  }
  ++num_live_;
  return absl::OkStatus();
}

void KeyAccount::Leave() {
  MutexLock lock(&mutex_);
  --num_live_;
}

void KeyAccount::Use(int64_t num_tokens) {
  if (num_tokens == 0) return;
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  if (bucket_.has_value()) bucket_->Use(num_tokens, now);
}

int32_t KeyAccount::num_live() const {
  MutexLock lock(&mutex_);
  return num_live_;
}

Permit::Permit(std::shared_ptr<KeyAccount> account, std::string request_id, const Clock* clock)
    : account_(std::move(account)),
      request_id_(std::move(request_id)),
      clock_(clock),
      start_(clock->Now()) {}

Permit::~Permit() {
  End(absl::StatusCode::kUnknown);
  LogInfo(FromAbsl(absl::StrCat(
      "request ", request_id_, " of key ", account_->name(), ": ", num_prompt_tokens_, " + ",
      num_output_tokens_, " tokens in ",
      absl::FormatDuration(absl::Trunc(clock_->Now() - start_, absl::Milliseconds(1))), ", ",
      absl::StatusCodeToString(*end_))));
}

void Permit::End(absl::StatusCode status) {
  if (end_.has_value()) return;
  end_ = status;
  account_->Leave();
}

void Permit::UsePrompt(int64_t num_tokens) {
  num_prompt_tokens_ += num_tokens;
  account_->Use(num_tokens);
}

void Permit::UseOutput(int64_t num_tokens) {
  num_output_tokens_ += num_tokens;
  account_->Use(num_tokens);
}

}  // namespace fastgen
