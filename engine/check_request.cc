#include "engine/check_request.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
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
  for (const std::string& stop : stopping.stop) {
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
    if (id < 0 || id >= limits.vocab_size) {
      return Bad("stopping.stop_token_ids", id, " is outside the vocabulary [0, ",
                 limits.vocab_size, ")");
    }
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
  RETURN_IF_ERROR(CheckSampling(request.sampling));
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
  sampling.num_top_logprobs = output.logprobs.value_or(-1);
  // An echoed prompt is part of the output, so its tokens are scored as the output's are.
  sampling.num_prompt_top_logprobs =
      output.prompt_logprobs.value_or(output.echo ? output.logprobs.value_or(-1) : -1);
  return sampling;
}

}  // namespace fastgen
