#include "engine/schedule/stop_condition.h"

#include <algorithm>

namespace fastgen {

bool BansStopIds(const StopCondition& stop, int32_t output_position) {
  return output_position < stop.min_output_tokens;
}

bool MaySample(const StopCondition& stop, int32_t num_tokens, int32_t num_output,
               int32_t max_model_len) {
  return num_output < stop.max_output_tokens && num_tokens < max_model_len;
}

std::optional<StopDecision> StopAtToken(const StopCondition& stop, int32_t newest_token,
                                        int32_t num_tokens, int32_t num_output,
                                        int32_t max_model_len) {
  const bool is_stop_id =
      std::binary_search(stop.stop_token_ids.begin(), stop.stop_token_ids.end(), newest_token);
  if (is_stop_id && !BansStopIds(stop, num_output - 1)) {
    return StopDecision{FinishReason::kStop, newest_token};
  }
  if (!MaySample(stop, num_tokens, num_output, max_model_len)) {
    return StopDecision{FinishReason::kLength, std::nullopt};
  }
  return std::nullopt;
}

}  // namespace fastgen
