#include "server/gateway/openai_chat.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/chat_fields.h"
#include "server/gateway/json_text.h"
#include "server/gateway/refused_fields.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

void ReadParsing(JsonFields* fields, GenerationRequest* request, v1::Output* output) {
  output->set_reasoning(fields->Bool("separate_reasoning").value_or(true));
  request->options.shows_reasoning = fields->Bool("include_reasoning").value_or(true);
}

void RefuseChatOnly(JsonFields* fields) {
  RefuseFields(RefusedOn::kChat, fields);
  RefuseTextOnly(fields);
  if (const json::array* modalities = fields->Array("modalities", 16)) {
    for (const json::value& item : *modalities) {
      if (item.is_string() && View(item.get_string()) == "text") continue;
      fields->Fail("modalities", "modalities may hold only \"text\"", "unsupported_parameter");
    }
  }
}

void ReadLogprobs(JsonFields* fields, v1::Output* output, GenerationRequest* request) {
  const bool logprobs = fields->Bool("logprobs").value_or(false);
  const std::optional<int64_t> top = fields->Int("top_logprobs", 0, kMaxLogprobs);
  if (top.value_or(0) > 0 && !logprobs)
    fields->Fail("top_logprobs", "top_logprobs needs logprobs to be true");
  request->options.logprobs = logprobs;
  if (logprobs) output->set_logprobs(static_cast<int32_t>(top.value_or(0)));
}

// "token":..,"logprob":..,"bytes":[..]
void AppendTokenFields(const AnswerOptions& options, int32_t id, std::string_view bytes,
                       float logprob, std::string* out) {
  out->append("{\"token\":");
  AppendToken(options, id, bytes, out);
  out->append(",\"logprob\":");
  AppendJsonFloat(logprob, out);
  out->append(",\"bytes\":");
  AppendJsonBytes(bytes, out);
}

}  // namespace

void AppendChatLogprobs(const AnswerOptions& options,
                        const google::protobuf::RepeatedPtrField<v1::TokenLogprob>& logprobs,
                        std::string* out) {
  for (const v1::TokenLogprob& token : logprobs) {
    if (!out->empty() && out->back() == '}') out->push_back(',');
    AppendTokenFields(options, token.token(), token.bytes(), token.logprob(), out);
    out->append(",\"top_logprobs\":[");
    bool first = true;
    for (const auto& candidate : token.top()) {
      if (!first) out->push_back(',');
      first = false;
      AppendTokenFields(options, candidate.token(), candidate.bytes(), candidate.logprob(), out);
      out->push_back('}');
    }
    out->append("]}");
  }
}

namespace {

// ,"reasoning_content":..,"reasoning":.. or nothing
void AppendReasoning(std::string_view reasoning, std::string* out) {
  if (reasoning.empty()) return;
  out->append(",\"reasoning_content\":");
  AppendJsonString(reasoning, out);
  out->append(",\"reasoning\":");
  AppendJsonString(reasoning, out);
}

// {"index":0,"id":..,"type":"function","function":{..}}; of a piece that goes on with a call, the
// arguments alone.
void AppendToolCall(const v1::ToolCallDelta& call, bool with_index, std::string* out) {
  out->push_back('{');
  if (with_index) {
    out->append("\"index\":");
    AppendJsonInt(call.index(), out);
    out->push_back(',');
  }
  if (!call.name().empty()) {
    out->append("\"id\":");
    AppendJsonString(call.id(), out);
    out->append(",\"type\":\"function\",\"function\":{\"name\":");
    AppendJsonString(call.name(), out);
    out->push_back(',');
  } else {
    out->append("\"function\":{");
  }
  out->append("\"arguments\":");
  AppendJsonString(call.arguments(), out);
  out->append("}}");
}

bool IsShown(const AnswerOptions& options, const v1::ToolCallDelta& call) {
  return options.parallel_tool_calls || call.index() == 0;
}

// ,"tool_calls":[..] or nothing
void AppendToolCallPieces(const AnswerOptions& options, const v1::Delta& delta, std::string* out) {
  std::string pieces;
  for (const v1::ToolCallDelta& call : delta.tool_calls()) {
    if (!IsShown(options, call)) continue;
    pieces += pieces.empty() ? "" : ",";
    AppendToolCall(call, /*with_index=*/true, &pieces);
  }
  if (!pieces.empty()) absl::StrAppend(out, ",\"tool_calls\":[", pieces, "]");
}

void KeepToolCall(const v1::ToolCallDelta& piece, std::vector<v1::ToolCallDelta>* calls) {
  if (calls->empty() || calls->back().index() != piece.index()) {
    calls->push_back(piece);
  } else {
    calls->back().mutable_arguments()->append(piece.arguments());
  }
}

// {"role":"assistant",..}
void AppendMessage(const AnswerOptions& options, const ChoiceState& choice, std::string* out) {
  out->append("{\"role\":\"assistant\",\"content\":");
  if (choice.text.empty() && !choice.tool_calls.empty()) {
    out->append("null");
  } else {
    AppendJsonString(choice.text, out);
  }
  out->append(",\"refusal\":null");
  if (options.shows_reasoning) AppendReasoning(choice.reasoning, out);
  if (!choice.tool_calls.empty()) {
    out->append(",\"tool_calls\":");
    char separator = '[';
    for (const v1::ToolCallDelta& call : choice.tool_calls) {
      out->push_back(std::exchange(separator, ','));
      AppendToolCall(call, /*with_index=*/false, out);
    }
    out->push_back(']');
  }
  out->push_back('}');
}

std::string ChunkHead(const AnswerOptions& options) {
  return absl::StrCat(ToAbsl(kSseDataPrefix), AnswerHead(options, "chat.completion.chunk"),
                      ",\"choices\":[{\"index\":");
}

}  // namespace

std::optional<ApiError> ParseChatRequest(std::string_view body, GenerationRequest* request) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  request->names.prompt = "messages";
  request->names.logprobs = "top_logprobs";
  JsonFields fields(*object, "", &error);
  v1::GenerateRequest call;
  const ToolUse tools = ReadChat(&fields, call.mutable_chat(), &request->ignored);
  ReadSharedFields(&fields, &call, request);
  ConstrainTools(&fields, tools, &call, &request->names);
  request->options.parallel_tool_calls = tools.parallel;
  request->options.named_tool = tools.choice == ToolUse::Choice::kNamed;
  ReadParsing(&fields, request, call.mutable_output());
  ReadLogprobs(&fields, call.mutable_output(), request);
  if (call.stopping().has_max_tokens() && call.stopping().max_tokens() == 0 &&
      !request->options.prompt_logprobs.has_value()) {
    fields.Fail(request->names.max_tokens,
                absl::StrCat(ToAbsl(request->names.max_tokens),
                             " 0 asks for no output; it needs prompt_logprobs"));
  }
  RefuseChatOnly(&fields);
  if (error.has_value()) return error;
  fields.AppendUnknown(&request->ignored);
  request->calls.push_back(std::move(call));
  return std::nullopt;
}

ChatFormat::ChatFormat(const AnswerOptions& options)
    : options_(options), chunk_head_(ChunkHead(options)) {}

void ChatFormat::SetSystemFingerprint(const std::string& fingerprint) {
  options_.system_fingerprint = fingerprint;
  chunk_head_ = ChunkHead(options_);
}

void ChatFormat::AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                               std::string* out) {
  out->append(chunk_head_);
  AppendJsonInt(choice.index, out);
  out->append(
      ",\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null,\"finish_reason\":"
      "null}]");
  AppendChunkUsage(options_, choice, prompt, out);
  if (options_.return_token_ids) {
    out->append(",\"prompt_token_ids\":");
    out->append(prompt.token_ids_json);
  }
  out->append("}\n\n");
}

void ChatFormat::AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                             std::string* out) {
  const bool ids = options_.return_token_ids && delta.token_ids_size() > 0;
  std::string members;
  if (options_.shows_reasoning) AppendReasoning(delta.reasoning(), &members);
  AppendToolCallPieces(options_, delta, &members);
  const bool shows_tokens = ids || delta.logprobs_size() > 0;
  if (!delta.text().empty() || (members.empty() && shows_tokens)) {
    members += ",\"content\":";
    AppendJsonString(delta.text(), &members);
  }
  if (members.empty()) return;
  out->append(chunk_head_);
  AppendJsonInt(choice->index, out);
  out->append(",\"delta\":{").append(members, 1).append("},\"logprobs\":");
  if (options_.logprobs && delta.logprobs_size() > 0) {
    std::string content;
    AppendChatLogprobs(options_, delta.logprobs(), &content);
    out->append("{\"content\":[").append(content).append("],\"refusal\":null}");
  } else {
    out->append("null");
  }
  AppendDeltaTail(options_, delta, *choice, prompt, out);
}

void ChatFormat::AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                              std::string* out) {
  out->append(chunk_head_);
  AppendJsonInt(choice.index, out);
  out->append(",\"delta\":{},\"logprobs\":null");
  AppendFinishTail(options_, choice, prompt, out);
}

void ChatFormat::AppendUsage(const AnswerUsage& usage, std::string* out) {
  AppendUsageChunk(options_, "chat.completion.chunk", usage, out);
}

void ChatFormat::Keep(const v1::Delta& delta, ChoiceState* choice) {
  choice->text += delta.text();
  choice->reasoning += delta.reasoning();
  for (const v1::ToolCallDelta& call : delta.tool_calls()) {
    if (IsShown(options_, call)) KeepToolCall(call, &choice->tool_calls);
  }
  if (options_.return_token_ids) AppendIds(delta.token_ids(), &choice->token_ids);
  if (options_.logprobs) AppendChatLogprobs(options_, delta.logprobs(), &choice->logprobs[0]);
}

std::string ChatFormat::Whole(const std::vector<ChoiceState>& choices,
                              const std::vector<PromptState>& prompts, const AnswerUsage& usage) {
  std::string out = AnswerHead(options_, "chat.completion");
  out += ",\"choices\":[";
  for (const ChoiceState& choice : choices) {
    if (choice.index > 0) out += ',';
    out += "{\"index\":";
    AppendJsonInt(choice.index, &out);
    out += ",\"message\":";
    AppendMessage(options_, choice, &out);
    out += ",\"logprobs\":";
    if (options_.logprobs) {
      absl::StrAppend(&out, "{\"content\":[", choice.logprobs[0], "],\"refusal\":null}");
    } else {
      out += "null";
    }
    absl::StrAppend(&out, ",\"finish_reason\":\"", ToAbsl(FinishReasonName(options_, choice)),
                    "\",\"stop_reason\":", choice.stop_reason_json);
    if (options_.return_token_ids) absl::StrAppend(&out, ",\"token_ids\":[", choice.token_ids, "]");
    out += '}';
  }
  out += "],\"usage\":";
  AppendUsageJson(usage, &out);
  if (options_.return_token_ids)
    absl::StrAppend(&out, ",\"prompt_token_ids\":", prompts[0].token_ids_json);
  AppendPromptLogprobs(options_, prompts[0], &out);
  out += '}';
  return out;
}

}  // namespace fastgen::gateway
