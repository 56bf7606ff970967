#include "server/gateway/openai_chat.h"

#include <boost/json/serialize.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/json_text.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxParts = 1024;
constexpr size_t kMaxTools = 256;
constexpr int64_t kMaxTopLogprobs = 20;  // the engine's

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

// A list of {"type":"text","text":...}, joined with a line break.
std::optional<std::string> JoinParts(JsonFields* message, std::vector<std::string>* ignored) {
  const json::array* parts = message->Array("content", kMaxParts);
  if (parts == nullptr) return std::nullopt;
  std::string joined;
  for (size_t i = 0; i < parts->size(); ++i) {
    const json::object* object = (*parts)[i].if_object();
    const json::value* type = object == nullptr ? nullptr : object->if_contains("type");
    const json::value* text = object == nullptr ? nullptr : object->if_contains("text");
    if (type == nullptr || !type->is_string() || View(type->get_string()) != "text") {
      message->Fail("content", "content parts must have the type \"text\"",
                    "unsupported_parameter");
      return std::nullopt;
    }
    if (text == nullptr || !text->is_string()) {
      message->Fail("content", "a text part must have a string \"text\"", "invalid_type");
      return std::nullopt;
    }
    JsonFields part(*object, message->PathOf(absl::StrCat("content[", i, "]")), message->error());
    part.Accept({"type", "text"});
    part.AppendUnknown(ignored);
    if (i > 0) joined += '\n';
    joined += View(text->get_string());
  }
  return joined;
}

void ReadContent(JsonFields* message, v1::ChatMessage* out, std::vector<std::string>* ignored) {
  const json::value* content = message->Find("content");
  if (content == nullptr) {
    if (out->role() != "assistant") {
      message->Fail("content", absl::StrCat("a ", out->role(), " message needs content"),
                    "missing");
    }
    return;
  }
  if (content->is_string()) {
    out->set_content(std::string(View(content->get_string())));
  } else if (content->is_array()) {
    if (auto joined = JoinParts(message, ignored)) out->set_content(*std::move(joined));
  } else {
    message->Fail("content",
                  absl::StrCat("content must be a string or a list of text parts, not ",
                               ToAbsl(KindOf(*content))),
                  "invalid_type");
  }
}

void ReadToolCalls(JsonFields* message, v1::ChatMessage* out, std::vector<std::string>* ignored) {
  const json::array* calls = message->Array("tool_calls", kMaxTools);
  if (calls == nullptr) return;
  for (size_t i = 0; i < calls->size(); ++i) {
    const std::string name = absl::StrCat("tool_calls[", i, "]");
    if (!(*calls)[i].is_object()) {
      message->Fail(name, "a tool call must be an object", "invalid_type");
      return;
    }
    JsonFields call((*calls)[i].get_object(), message->PathOf(name), message->error());
    if (call.String("type").value_or("") != "function") {
      call.Fail("type", "a tool call must have the type \"function\"", "unsupported_parameter");
      return;
    }
    const json::object* object = call.Object("function");
    if (object == nullptr) {
      call.Fail("function", "a tool call needs a function", "missing");
      return;
    }
    JsonFields function(*object, call.PathOf("function"), message->error());
    v1::ToolCall* tool_call = out->add_tool_calls();
    tool_call->set_id(call.String("id").value_or(""));
    tool_call->set_name(function.String("name").value_or(""));
    if (tool_call->name().empty())
      function.Fail("name", "a tool call's function needs a name", "missing");
    const json::value* arguments = function.Find("arguments");
    if (arguments != nullptr && arguments->is_object()) {
      tool_call->set_arguments_json(json::serialize(*arguments));
    } else {
      tool_call->set_arguments_json(function.String("arguments").value_or("{}"));
    }
    function.AppendUnknown(ignored);
    call.AppendUnknown(ignored);
  }
}

void ReadMessage(JsonFields* message, v1::ChatMessage* out, std::vector<std::string>* ignored) {
  std::string role = message->String("role").value_or("");
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    message->Fail("role", "role must be system, developer, user, assistant or tool");
    return;
  }
  out->set_role(role);
  ReadContent(message, out, ignored);
  if (auto v = message->String("name")) out->set_name(*std::move(v));
  if (auto v = message->String("tool_call_id")) out->set_tool_call_id(*std::move(v));
  if (auto v = message->String("reasoning_content")) out->set_reasoning_content(*std::move(v));
  if (auto v = message->String("reasoning"); v.has_value() && !out->has_reasoning_content()) {
    out->set_reasoning_content(*std::move(v));
  }
  ReadToolCalls(message, out, ignored);
  for (std::string_view name : {"function_call", "audio"}) {
    if (message->Find(name) == nullptr) continue;
    message->Fail(name, absl::StrCat(ToAbsl(name), " is not supported by this version"),
                  "unsupported_parameter");
  }
  // What an answer of ours or OpenAI's holds beside its text, sent back with the conversation.
  message->Accept({"refusal", "annotations"});
  message->AppendUnknown(ignored);
}

ToolChoice ReadToolChoice(JsonFields* fields) {
  const json::value* choice = fields->Find("tool_choice");
  if (choice == nullptr) return ToolChoice::kAuto;
  if (choice->is_string()) {
    const std::string_view name = View(choice->get_string());
    if (name == "none") return ToolChoice::kNone;
    if (name == "auto") return ToolChoice::kAuto;
    if (name != "required") {
      fields->Fail("tool_choice",
                   "tool_choice must be \"none\", \"auto\", \"required\" or a tool's name");
      return ToolChoice::kNone;
    }
  } else if (!choice->is_object()) {
    fields->Fail("tool_choice",
                 absl::StrCat("tool_choice must be a string or an object, not ",
                              ToAbsl(KindOf(*choice))),
                 "invalid_type");
    return ToolChoice::kNone;
  }
  fields->Fail("tool_choice",
               absl::StrCat("tool_choice ", choice->is_string() ? "\"required\"" : "by name",
                            " needs constrained decoding, which this version does not have; "
                            "\"auto\" and \"none\" are supported"),
               "unsupported_parameter");
  return ToolChoice::kNone;
}

ToolChoice ReadTools(JsonFields* fields, v1::Chat* chat) {
  const json::array* tools = fields->Array("tools", kMaxTools);
  fields->Bool("parallel_tool_calls");
  if (tools == nullptr) {
    const json::value* choice = fields->Find("tool_choice");
    const bool none =
        choice != nullptr && choice->is_string() && View(choice->get_string()) == "none";
    if (choice != nullptr && !none) fields->Fail("tool_choice", "tool_choice needs tools");
    return ToolChoice::kNone;
  }
  const ToolChoice choice = ReadToolChoice(fields);
  if (tools->empty()) fields->Fail("tools", "tools must not be empty");
  for (const json::value& tool : *tools) {
    if (!tool.is_object()) {
      fields->Fail("tools", absl::StrCat("tools must hold objects, not ", ToAbsl(KindOf(tool))),
                   "invalid_type");
      return choice;
    }
    chat->add_tools_json(json::serialize(tool));
  }
  return choice;
}

void ReadParsing(JsonFields* fields, ToolChoice tool_choice, v1::Output* output,
                 GenerationRequest* request) {
  output->set_tool_calls(tool_choice == ToolChoice::kAuto);
  output->set_reasoning(fields->Bool("separate_reasoning").value_or(true));
  request->options.shows_reasoning = fields->Bool("include_reasoning").value_or(true);
  request->options.parallel_tool_calls = fields->Bool("parallel_tool_calls").value_or(true);
}

void RefuseChatOnly(JsonFields* fields) {
  for (std::string_view name :
       {"functions", "function_call", "audio", "prediction", "web_search_options", "verbosity",
        "reasoning_effort", "chat_template", "documents", "suffix"}) {
    if (fields->Find(name) != nullptr) {
      fields->Fail(name, absl::StrCat(ToAbsl(name), " is not supported by this version"),
                   "unsupported_parameter");
    }
  }
  if (fields->Bool("echo").value_or(false))
    fields->Fail("echo", "echo is not supported for chat", "unsupported_parameter");
  RefuseTextOnly(fields);
  if (const json::array* modalities = fields->Array("modalities", 16)) {
    for (const json::value& item : *modalities) {
      if (item.is_string() && View(item.get_string()) == "text") continue;
      fields->Fail("modalities", "the only modality is \"text\"", "unsupported_parameter");
    }
  }
}

void ReadLogprobs(JsonFields* fields, v1::Output* output, GenerationRequest* request) {
  const bool logprobs = fields->Bool("logprobs").value_or(false);
  const std::optional<int64_t> top = fields->Int("top_logprobs", 0, kMaxTopLogprobs);
  if (top.value_or(0) > 0 && !logprobs)
    fields->Fail("top_logprobs", "top_logprobs needs logprobs to be true");
  request->options.logprobs = logprobs;
  if (logprobs) output->set_logprobs(static_cast<int32_t>(top.value_or(0)));
}

// "token":..,"logprob":..,"bytes":[..]
void AppendTokenFields(std::string_view bytes, float logprob, std::string* out) {
  out->append("{\"token\":");
  AppendJsonString(bytes, out);
  out->append(",\"logprob\":");
  AppendJsonFloat(logprob, out);
  out->append(",\"bytes\":");
  AppendJsonBytes(bytes, out);
}

void AppendChatLogprobs(const google::protobuf::RepeatedPtrField<v1::TokenLogprob>& logprobs,
                        std::string* out) {
  for (const v1::TokenLogprob& token : logprobs) {
    if (!out->empty() && out->back() == '}') out->push_back(',');
    AppendTokenFields(token.bytes(), token.logprob(), out);
    out->append(",\"top_logprobs\":[");
    bool first = true;
    for (const auto& candidate : token.top()) {
      if (!first) out->push_back(',');
      first = false;
      AppendTokenFields(candidate.bytes(), candidate.logprob(), out);
      out->push_back('}');
    }
    out->append("]}");
  }
}

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

}  // namespace

ToolChoice ReadChat(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  const json::array* messages = fields->Array("messages", kMaxMessages);
  if (messages == nullptr) {
    fields->Fail("messages", "messages is missing", "missing");
    return ToolChoice::kNone;
  }
  if (messages->empty()) fields->Fail("messages", "messages must not be empty");
  for (size_t i = 0; i < messages->size() && fields->ok(); ++i) {
    const std::string path = absl::StrCat("messages[", i, "]");
    if (!(*messages)[i].is_object()) {
      fields->Fail(path,
                   absl::StrCat(path, " must be an object, not ", ToAbsl(KindOf((*messages)[i]))),
                   "invalid_type");
      return ToolChoice::kNone;
    }
    JsonFields message((*messages)[i].get_object(), path, fields->error());
    ReadMessage(&message, chat->add_messages(), ignored);
  }
  const ToolChoice tool_choice = ReadTools(fields, chat);
  if (const json::object* kwargs = fields->Object("chat_template_kwargs")) {
    chat->set_chat_template_kwargs_json(json::serialize(*kwargs));
  }
  if (auto v = fields->Bool("add_generation_prompt")) chat->set_add_generation_prompt(*v);
  if (auto v = fields->Bool("continue_final_message")) {
    chat->set_continue_final_message(*v);
    // Nothing may stand between the message's text and its continuation.
    if (*v && chat->add_generation_prompt() && chat->has_add_generation_prompt()) {
      fields->Fail("continue_final_message",
                   "continue_final_message and add_generation_prompt exclude each other");
    }
    if (*v) chat->set_add_generation_prompt(false);
  }
  return tool_choice;
}

void RefuseTextOnly(JsonFields* fields) {
  for (std::string_view name : {"add_special_tokens", "add_special", "parse_special"}) {
    if (fields->Find(name) == nullptr) continue;
    fields->Fail(name, absl::StrCat(ToAbsl(name), " belongs to a text prompt, not to messages"),
                 "unsupported_parameter");
  }
}

std::optional<ApiError> ParseChatRequest(std::string_view body, GenerationRequest* request) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  request->names = {.prompt = "messages", .max_tokens = "max_tokens", .logprobs = "top_logprobs"};
  JsonFields fields(*object, "", &error);
  v1::GenerateRequest call;
  const ToolChoice tool_choice = ReadChat(&fields, call.mutable_chat(), &request->ignored);
  ReadSharedFields(&fields, &call, request);
  ReadParsing(&fields, tool_choice, call.mutable_output(), request);
  ReadLogprobs(&fields, call.mutable_output(), request);
  if (call.stopping().has_max_tokens() && call.stopping().max_tokens() == 0) {
    fields.Fail(request->names.max_tokens,
                absl::StrCat(ToAbsl(request->names.max_tokens), " 0 asks for no output"));
  }
  RefuseChatOnly(&fields);
  if (error.has_value()) return error;
  fields.AppendUnknown(&request->ignored);
  request->calls.push_back(std::move(call));
  return std::nullopt;
}

ChatFormat::ChatFormat(const AnswerOptions& options)
    : options_(options),
      chunk_head_(absl::StrCat(ToAbsl(kSseDataPrefix), AnswerHead(options, "chat.completion.chunk"),
                               ",\"choices\":[{\"index\":")) {}

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
    AppendChatLogprobs(delta.logprobs(), &content);
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
  if (options_.logprobs) AppendChatLogprobs(delta.logprobs(), &choice->logprobs[0]);
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
    absl::StrAppend(&out, ",\"finish_reason\":\"", ToAbsl(FinishReasonName(choice)),
                    "\",\"stop_reason\":", choice.stop_reason_json);
    if (options_.return_token_ids) absl::StrAppend(&out, ",\"token_ids\":[", choice.token_ids, "]");
    out += '}';
  }
  out += "],\"usage\":";
  AppendUsageJson(usage, &out);
  if (options_.return_token_ids)
    absl::StrAppend(&out, ",\"prompt_token_ids\":", prompts[0].token_ids_json);
  out += '}';
  return out;
}

}  // namespace fastgen::gateway
