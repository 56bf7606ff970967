#include "server/gateway/answer_format.h"

#include "server/gateway/json_text.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {

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

std::string_view FinishReasonName(const ChoiceState& choice) {
  switch (choice.reason) {
    case v1::STOP:
      return choice.num_tool_calls > 0 ? "tool_calls" : "stop";
    case v1::LENGTH:
      return "length";
    default:
      return "abort";  // as vLLM says for a request that was cancelled by its id
  }
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
    AppendUsageJson({prompt.prompt_tokens, prompt.cached_tokens, choice.output_tokens,
                     choice.reasoning_tokens},
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
  out->append(FinishReasonName(choice));
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
