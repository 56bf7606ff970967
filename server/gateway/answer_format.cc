#include "server/gateway/answer_format.h"

#include <algorithm>

#include "server/gateway/json_text.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {

void AnswerFormat::AppendEnd(std::string* out) { out->append(kSseDone); }

void AnswerFormat::AppendError(const ApiError& error, std::string* out) {
  AppendSseData(ErrorJson(error), out);
  out->append(kSseDone);
}

void AnswerFormat::AppendKeepAlive(std::string* out) { out->append(kSseKeepAlive); }

HttpResponse AnswerFormat::ErrorAnswer(const ApiError& error) { return ErrorResponse(error); }

std::string AnswerHead(const AnswerOptions& options, std::string_view object) {
  std::string head = "{\"id\":";
  AppendJsonString(options.id, &head);
  head += ",\"object\":\"";
  head += object;
  head += "\",\"created\":";
  AppendJsonInt(options.created, &head);
  head += ",\"model\":";
  AppendJsonString(options.model, &head);
  if (!options.system_fingerprint.empty()) {
    head += ",\"system_fingerprint\":";
    AppendJsonString(options.system_fingerprint, &head);
  }
  return head;
}

std::string_view FinishReasonName(const AnswerOptions& options, const ChoiceState& choice) {
  switch (choice.reason) {
    case v1::STOP:
      return choice.num_tool_calls > 0 && !options.named_tool ? "tool_calls" : "stop";
    case v1::LENGTH:
      return "length";
    default:
      return "abort";  // as vLLM says for a request that was cancelled by its id
  }
}

void AppendToken(const AnswerOptions& options, int32_t id, std::string_view bytes,
                 std::string* out) {
  if (!options.tokens_as_ids) {
    AppendJsonString(bytes, out);
    return;
  }
  out->append("\"token_id:");
  AppendJsonInt(id, out);
  out->push_back('"');
}

namespace {

void AppendRanked(const AnswerOptions& options, int32_t id, std::string_view bytes, float logprob,
                  int32_t rank, std::string* out) {
  if (out->back() != '{') out->push_back(',');
  out->push_back('"');
  AppendJsonInt(id, out);
  out->append("\":{\"logprob\":");
  AppendJsonFloat(logprob, out);
  out->append(",\"rank\":");
  AppendJsonInt(rank, out);
  out->append(",\"decoded_token\":");
  AppendToken(options, id, bytes, out);
  out->push_back('}');
}

}  // namespace

void KeepPromptLogprobs(const AnswerOptions& options, const v1::Delta& delta, PromptState* prompt) {
  if (!options.prompt_logprobs.has_value()) return;
  std::string* const out = &prompt->logprobs_json;
  for (const v1::TokenLogprob& token : delta.prompt_logprobs()) {
    if (!out->empty()) out->push_back(',');
    if (token.rank() == 0) {
      out->append("null");
      continue;
    }
    out->push_back('{');
    AppendRanked(options, token.token(), token.bytes(), token.logprob(), token.rank(), out);
    const int num_top = std::min(token.top_size(), *options.prompt_logprobs);
    for (int i = 0; i < num_top; ++i) {
      const auto& top = token.top(i);
      if (top.token() == token.token()) continue;
      AppendRanked(options, top.token(), top.bytes(), top.logprob(), i + 1, out);
    }
    out->push_back('}');
  }
}

void AppendPromptLogprobs(const AnswerOptions& options, const PromptState& prompt,
                          std::string* out) {
  if (!options.prompt_logprobs.has_value()) return;
  out->append(",\"prompt_logprobs\":[");
  out->append(prompt.logprobs_json);
  out->push_back(']');
}

void AppendUsageJson(const AnswerUsage& usage, std::string* out) {
  out->append("{\"prompt_tokens\":");
  AppendJsonInt(usage.prompt_tokens, out);
  out->append(",\"completion_tokens\":");
  AppendJsonInt(usage.output_tokens, out);
  out->append(",\"total_tokens\":");
  AppendJsonInt(int64_t{usage.prompt_tokens} + usage.output_tokens, out);
  out->append(",\"prompt_tokens_details\":{\"cached_tokens\":");
  AppendJsonInt(usage.cached_tokens, out);
  out->push_back('}');
  if (usage.reasoning_tokens > 0) {
    out->append(",\"completion_tokens_details\":{\"reasoning_tokens\":");
    AppendJsonInt(usage.reasoning_tokens, out);
    out->push_back('}');
  }
  out->push_back('}');
}

void AppendIds(const google::protobuf::RepeatedField<int32_t>& ids, std::string* out) {
  for (int32_t id : ids) {
    if (!out->empty() && out->back() != '[') out->push_back(',');
    AppendJsonInt(id, out);
  }
}

void AppendChunkUsage(const AnswerOptions& options, const ChoiceState& choice,
                      const PromptState& prompt, std::string* out) {
  if (options.continuous_usage) {
    out->append(",\"usage\":");
    AppendUsageJson(
        {prompt.prompt_tokens, prompt.cached_tokens, choice.output_tokens, choice.reasoning_tokens},
        out);
  } else if (options.include_usage) {
    out->append(",\"usage\":null");
  }
}

void AppendDeltaTail(const AnswerOptions& options, const v1::Delta& delta,
                     const ChoiceState& choice, const PromptState& prompt, std::string* out) {
  out->append(",\"finish_reason\":null");
  if (options.return_token_ids && delta.token_ids_size() > 0) {
    out->append(",\"token_ids\":[");
    AppendIds(delta.token_ids(), out);
    out->push_back(']');
  }
  out->append("}]");
  AppendChunkUsage(options, choice, prompt, out);
  out->append("}\n\n");
}

void AppendFinishTail(const AnswerOptions& options, const ChoiceState& choice,
                      const PromptState& prompt, std::string* out) {
  out->append(",\"finish_reason\":\"");
  out->append(FinishReasonName(options, choice));
  out->append("\",\"stop_reason\":");
  out->append(choice.stop_reason_json);
  out->append("}]");
  AppendChunkUsage(options, choice, prompt, out);
  out->append("}\n\n");
}

void AppendUsageChunk(const AnswerOptions& options, std::string_view object,
                      const AnswerUsage& usage, std::string* out) {
  out->append(kSseDataPrefix);
  out->append(AnswerHead(options, object));
  out->append(",\"choices\":[],\"usage\":");
  AppendUsageJson(usage, out);
  out->append("}\n\n");
}

}  // namespace fastgen::gateway
