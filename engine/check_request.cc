#include "engine/check_request.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/choice_id.h"
#include "engine/request_queue.h"
#include "engine/schedule/admission.h"

namespace fastgen {
namespace {

template <typename... Parts>
absl::Status Bad(std::string_view field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(ToAbsl(field), ": ", parts...));
}

absl::Status CheckSampling(const SamplingParams& sampling) {
  if (!(sampling.temperature >= 0) || !std::isfinite(sampling.temperature)) {
    return Bad("sampling.temperature", sampling.temperature, " is not a finite number >= 0");
  }
  if (sampling.top_k < 0) {
    return Bad("sampling.top_k", sampling.top_k, " is negative; 0 turns it off");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return Bad("sampling.top_p", sampling.top_p, " is outside (0, 1]");
  }
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    return Bad("sampling.min_p", sampling.min_p, " is outside [0, 1]");
  }
  return absl::OkStatus();
}

absl::Status CheckPenalties(const SamplingParams& sampling) {
  const auto check = [](std::string_view field, float value) {
    if (value >= -2 && value <= 2) return absl::OkStatus();
    return Bad(field, value, " is outside [-2, 2]");
  };
  RETURN_IF_ERROR(check("sampling.presence_penalty", sampling.presence_penalty));
  RETURN_IF_ERROR(check("sampling.frequency_penalty", sampling.frequency_penalty));
  if (!(sampling.repetition_penalty > 0 && sampling.repetition_penalty <= 10)) {
    return Bad("sampling.repetition_penalty", sampling.repetition_penalty, " is outside (0, 10]");
  }
  return absl::OkStatus();
}

absl::Status CheckId(std::string_view field, int32_t id, int32_t vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return Bad(field, id, " is outside the vocabulary [0, ", vocab_size, ")");
}

absl::Status CheckLogitBias(const SamplingParams& sampling, int32_t vocab_size) {
  constexpr std::string_view kField = "sampling.logit_bias";
  if (sampling.logit_bias.size() > kMaxLogitBiases) {
    return Bad(kField, sampling.logit_bias.size(), " tokens exceed the limit of ", kMaxLogitBiases);
  }
  absl::flat_hash_set<int32_t> seen;
  for (const auto& [token, bias] : sampling.logit_bias) {
    RETURN_IF_ERROR(CheckId(kField, token, vocab_size));
    if (!seen.insert(token).second) return Bad(kField, "token ", token, " is named twice");
    if (!(bias >= -100 && bias <= 100)) {
      return Bad(kField, bias, " for token ", token, " is outside [-100, 100]");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTokenRules(const SamplingParams& sampling, int32_t vocab_size) {
  RETURN_IF_ERROR(CheckLogitBias(sampling, vocab_size));
  if (sampling.allowed_token_ids.size() > kMaxAllowedTokenIds) {
    return Bad("sampling.allowed_token_ids", sampling.allowed_token_ids.size(),
               " ids exceed the limit of ", kMaxAllowedTokenIds);
  }
  for (int32_t id : sampling.allowed_token_ids) {
    RETURN_IF_ERROR(CheckId("sampling.allowed_token_ids", id, vocab_size));
  }
  if (sampling.bad_words.size() > kMaxBadWords) {
    return Bad("sampling.bad_words", sampling.bad_words.size(), " words exceed the limit of ",
               kMaxBadWords);
  }
  for (const std::string& word : sampling.bad_words) {
    if (word.empty()) return Bad("sampling.bad_words", "an empty word is in every output");
    if (word.size() > kMaxBadWordBytes) {
      return Bad("sampling.bad_words", "a word of ", word.size(), " bytes exceeds the limit of ",
                 kMaxBadWordBytes);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckChoices(const GenerateRequest& request) {
  if (request.n < 1 || request.n > kMaxChoices) {
    return Bad("n", request.n, " is outside [1, ", kMaxChoices, "]");
  }
  if (request.best_of < request.n || request.best_of > kMaxChoices) {
    return Bad("best_of", request.best_of, " is outside [n, ", kMaxChoices, "]; n is ", request.n);
  }
  return absl::OkStatus();
}

absl::Status CheckOutput(const OutputParams& output) {
  const auto check = [](std::string_view field, const std::optional<int32_t>& count) {
    if (!count.has_value() || (*count >= 0 && *count <= kMaxLogprobs)) return absl::OkStatus();
    return Bad(field, *count, " is outside [0, ", kMaxLogprobs, "]");
  };
  RETURN_IF_ERROR(check("output.logprobs", output.logprobs));
  return check("output.prompt_logprobs", output.prompt_logprobs);
}

absl::Status CheckStopStrings(const StoppingParams& stopping) {
  if (stopping.stop.size() > kMaxStopStrings) {
    return Bad("stopping.stop", stopping.stop.size(), " strings exceed the limit of ",
               kMaxStopStrings);
  }
  size_t num_bytes = 0;
  for (const std::string& stop : stopping.stop) {
    num_bytes += stop.size();
    if (num_bytes > kMaxStopBytes) {
      return Bad("stopping.stop", "its strings exceed the limit of ", kMaxStopBytes,
                 " bytes together");
    }
    if (stop.empty()) return Bad("stopping.stop", "an empty string would stop every output");
    if (stop.size() > kMaxStopStringBytes) {
      return Bad("stopping.stop", "a string of ", stop.size(), " bytes exceeds the limit of ",
                 kMaxStopStringBytes);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStopping(const StoppingParams& stopping, const OutputParams& output,
                           const RequestLimits& limits) {
  if (stopping.max_tokens.has_value()) {
    const int32_t max_tokens = *stopping.max_tokens;
    if (max_tokens < 0) return Bad("stopping.max_tokens", max_tokens, " is negative");
    if (max_tokens == 0 && !output.prompt_logprobs.has_value() && !output.echo) {
      return Bad("stopping.max_tokens",
                 "0 asks for no output; it needs output.prompt_logprobs or output.echo");
    }
    if (stopping.min_tokens > max_tokens) {
      return Bad("stopping.min_tokens", stopping.min_tokens, " exceeds stopping.max_tokens (",
                 max_tokens, ")");
    }
  }
  if (stopping.min_tokens < 0) {
    return Bad("stopping.min_tokens", stopping.min_tokens, " is negative");
  }
  if (stopping.min_tokens > limits.scheduler.max_model_len) {
    return Bad("stopping.min_tokens", stopping.min_tokens, " exceeds the context length ",
               limits.scheduler.max_model_len);
  }
  RETURN_IF_ERROR(CheckStopStrings(stopping));
  if (stopping.stop_token_ids.size() > kMaxStopTokenIds) {
    return Bad("stopping.stop_token_ids", stopping.stop_token_ids.size(),
               " ids exceed the limit of ", kMaxStopTokenIds);
  }
  for (int32_t id : stopping.stop_token_ids) {
    RETURN_IF_ERROR(CheckId("stopping.stop_token_ids", id, limits.vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(const GenerateRequest& request, const RequestLimits& limits) {
  if (request.request_id.empty()) return Bad("request_id", "is empty");
  if (request.request_id.size() > kMaxRequestIdBytes) {
    return Bad("request_id", request.request_id.size(), " bytes exceed the limit of ",
               kMaxRequestIdBytes);
  }
  if (request.cache_salt.size() > kMaxCacheSaltBytes) {
    return Bad("cache_salt", request.cache_salt.size(), " bytes exceed the limit of ",
               kMaxCacheSaltBytes);
  }
  if (request.priority < -kMaxPriority || request.priority > kMaxPriority) {
    return Bad("priority", request.priority, " is outside [", -kMaxPriority, ", ", kMaxPriority,
               "]");
  }
  RETURN_IF_ERROR(CheckChoices(request));
  RETURN_IF_ERROR(CheckSampling(request.sampling));
  RETURN_IF_ERROR(CheckPenalties(request.sampling));
  RETURN_IF_ERROR(CheckTokenRules(request.sampling, limits.vocab_size));
  RETURN_IF_ERROR(CheckOutput(request.output));
  return CheckStopping(request.stopping, request.output, limits);
}

absl::StatusOr<int32_t> CheckPrompt(const GenerateRequest& request, absl::Span<const int32_t> ids,
                                    const RequestLimits& limits) {
  // Far above any context, so that the count fits an int32_t.
  const size_t num_ids = std::min<size_t>(ids.size(), 1 << 30);
  ASSIGN_OR_RETURN(const int32_t max_output_tokens,
                   ResolveMaxOutputTokens(static_cast<int32_t>(num_ids),
                                          request.stopping.max_tokens, limits.scheduler));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limits.vocab_size) {
      return Bad("prompt", "token id ", ids[i], " at index ", i, " is outside the vocabulary [0, ",
                 limits.vocab_size, ")");
    }
  }
  return max_output_tokens;
}

StopCondition MakeStopCondition(const StoppingParams& stopping, int32_t max_output_tokens,
                                absl::Span<const int32_t> eos_ids) {
  StopCondition stop;
  stop.max_output_tokens = max_output_tokens;
  stop.min_output_tokens = stopping.min_tokens;
  stop.stop_token_ids = stopping.stop_token_ids;
  if (!stopping.ignore_eos) {
    stop.stop_token_ids.insert(stop.stop_token_ids.end(), eos_ids.begin(), eos_ids.end());
  }
  return stop;
}

absl::Status CheckDeadline(int64_t deadline_us, int64_t now_us, int64_t first_token_us,
                           const SchedulerOptions& options, const StepCost& step_cost) {
  if (deadline_us == kNoDeadline) return absl::OkStatus();
  const int64_t left_us = deadline_us - now_us;
  if (left_us <= 0) {
    return absl::DeadlineExceededError(
        absl::StrCat("deadline: it passed ", -left_us / 1000, " ms ago"));
  }
  const int64_t margin_us = DeadlineMarginUs(options, step_cost);
  if (first_token_us <= left_us - margin_us) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      "deadline: the first token would come in about ", first_token_us / 1000, " ms, ",
      left_us / 1000, " ms are left, of which ", margin_us / 1000, " ms are kept for the answer"));
}

bool ScoresPrompt(const GenerateRequest& request) {
  return request.output.prompt_logprobs.has_value() ||
         (request.output.echo && request.output.logprobs.has_value());
}

SequenceSampling MakeSampling(const GenerateRequest& request, uint64_t seed) {
  constexpr float kGreedyBelow = 1e-5f;
  const SamplingParams& params = request.sampling;
  const OutputParams& output = request.output;
  SequenceSampling sampling;
  sampling.temperature = params.temperature < kGreedyBelow ? 0 : params.temperature;
  sampling.top_k = params.top_k;
  sampling.top_p = params.top_p;
  sampling.min_p = params.min_p;
  sampling.seed = seed;
  sampling.presence_penalty = params.presence_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  sampling.repetition_penalty = params.repetition_penalty;
  sampling.num_top_logprobs = output.logprobs.value_or(request.best_of > request.n ? 0 : -1);
  // An echoed prompt is part of the output, so its tokens are scored as the output's are.
  if (ScoresPrompt(request)) {
    sampling.num_prompt_top_logprobs =
        output.prompt_logprobs.has_value() ? *output.prompt_logprobs : *output.logprobs;
  }
  return sampling;
}

}  // namespace fastgen
