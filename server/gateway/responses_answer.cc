#include "server/gateway/responses_answer.h"

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/json_text.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace {

using Kind = AnswerItem::Kind;

constexpr std::string_view kInProgress = "in_progress";
constexpr std::string_view kCompleted = "completed";
constexpr std::string_view kIncomplete = "incomplete";
constexpr std::string_view kFailed = "failed";

std::string_view StatusOf(const ChoiceState& choice) {
  switch (choice.reason) {
    case v1::STOP:
      return kCompleted;
    case v1::LENGTH:
      return kIncomplete;
    default:
      return "cancelled";
  }
}

std::string JsonString(std::string_view text) {
  std::string json;
  AppendJsonString(text, &json);
  return json;
}

// A content part of a reasoning item or a message.
std::string PartJson(Kind kind, std::string_view text, std::string_view logprobs) {
  std::string part;
  if (kind == Kind::kReasoning) {
    part = "{\"type\":\"reasoning_text\",\"text\":";
  } else {
    absl::StrAppend(&part, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[",
                    ToAbsl(logprobs), "],\"text\":");
  }
  AppendJsonString(text, &part);
  part += '}';
  return part;
}

void AppendResponseUsage(const AnswerUsage& usage, std::string* out) {
  absl::StrAppend(out, "{\"input_tokens\":", usage.prompt_tokens,
                  ",\"input_tokens_details\":{\"cached_tokens\":", usage.cached_tokens,
                  ",\"cache_write_tokens\":0},\"output_tokens\":", usage.output_tokens,
                  ",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning_tokens,
                  "},\"total_tokens\":", int64_t{usage.prompt_tokens} + usage.output_tokens, "}");
}

std::string_view FailureCode(const ApiError& error) {
  if (error.status == 429) return "rate_limit_exceeded";
  return error.status < 500 && error.status != 408 ? "invalid_prompt" : "server_error";
}

}  // namespace

ResponsesFormat::ResponsesFormat(const AnswerOptions& options)
    : options_(options),
      items_(options.parallel_tool_calls ? AnswerItems::Calls::kAll : AnswerItems::Calls::kFirst) {}

// ---- JSON

std::string ResponsesFormat::ItemId(const AnswerItem& item) const {
  const std::string_view prefix = item.kind == Kind::kReasoning ? "rs_"
                                  : item.kind == Kind::kText    ? "msg_"
                                                                : "fc_";
  // "resp_<request id>"
  return absl::StrCat(ToAbsl(prefix), options_.id.substr(options_.id.find('_') + 1), "_",
                      item.index);
}

std::string ResponsesFormat::ContentOf(const AnswerItem& item) const {
  if (item.kind == Kind::kToolCall) return JsonString(item.text);
  return PartJson(item.kind, item.text, item.logprobs);
}

void ResponsesFormat::AppendItem(const AnswerItem& item, std::string_view status,
                                 std::string_view content, std::string* out) const {
  out->append("{\"id\":");
  AppendJsonString(ItemId(item), out);
  absl::StrAppend(out, ",\"status\":\"", ToAbsl(status), "\"");
  switch (item.kind) {
    case Kind::kReasoning:
      absl::StrAppend(out, ",\"type\":\"reasoning\",\"summary\":[],\"content\":[", ToAbsl(content),
                      "]}");
      return;
    case Kind::kText:
      absl::StrAppend(out, ",\"type\":\"message\",\"role\":\"assistant\",\"content\":[",
                      ToAbsl(content), "]}");
      return;
    case Kind::kToolCall:
      absl::StrAppend(out, ",\"type\":\"function_call\",\"call_id\":", JsonString(item.call_id),
                      ",\"name\":", JsonString(item.call_name), ",\"arguments\":", ToAbsl(content),
                      "}");
      return;
  }
}

std::string ResponsesFormat::ResponseJson(std::string_view status, const AnswerUsage* usage,
                                          const ApiError* error) const {
  std::string out = "{\"id\":";
  AppendJsonString(options_.id, &out);
  absl::StrAppend(&out, ",\"object\":\"response\",\"created_at\":", options_.created,
                  ",\"status\":\"", ToAbsl(status), "\",\"model\":", JsonString(options_.model),
                  ",\"error\":");
  if (error == nullptr) {
    out += "null";
  } else {
    absl::StrAppend(&out, "{\"code\":\"", ToAbsl(FailureCode(*error)),
                    "\",\"message\":", JsonString(error->message), "}");
  }
  absl::StrAppend(&out, ",\"incomplete_details\":",
                  status == kIncomplete ? "{\"reason\":\"max_output_tokens\"}" : "null",
                  ",\"output\":[");
  const bool ended = status != kInProgress;
  for (const AnswerItem& item : items_.items()) {
    if (!ended) break;
    if (item.index > 0) out += ',';
    const bool last = item.index + 1 == items_.items().size();
    AppendItem(item, last && status != kCompleted ? kIncomplete : kCompleted, ContentOf(item),
               &out);
  }
  out += "],\"usage\":";
  if (usage == nullptr) {
    out += "null";
  } else {
    AppendResponseUsage(*usage, &out);
  }
  absl::StrAppend(&out, ",", options_.echo_json, "}");
  return out;
}

// ---- events

void ResponsesFormat::OpenEvent(std::string_view name) {
  absl::StrAppend(out_, ToAbsl(kSseEventPrefix), ToAbsl(name), "\n", ToAbsl(kSseDataPrefix),
                  "{\"type\":\"", ToAbsl(name), "\",\"sequence_number\":", sequence_number_++);
}

void ResponsesFormat::OpenItemEvent(std::string_view name, const AnswerItem& item) {
  OpenEvent(name);
  absl::StrAppend(out_, ",\"output_index\":", item.index);
}

void ResponsesFormat::OpenPartEvent(std::string_view name, const AnswerItem& item) {
  OpenItemEvent(name, item);
  absl::StrAppend(out_, ",\"item_id\":", JsonString(ItemId(item)));
  if (item.kind != Kind::kToolCall) out_->append(",\"content_index\":0");
}

void ResponsesFormat::CloseEvent() {
  out_->push_back('}');
  out_->append(kSseEventEnd);
}

void ResponsesFormat::AppendItemEvent(std::string_view name, const AnswerItem& item,
                                      std::string_view status, std::string_view content) {
  OpenItemEvent(name, item);
  out_->append(",\"item\":");
  AppendItem(item, status, content, out_);
  CloseEvent();
}

void ResponsesFormat::AppendPartEvent(std::string_view name, const AnswerItem& item,
                                      std::string_view text, std::string_view logprobs) {
  OpenPartEvent(name, item);
  absl::StrAppend(out_, ",\"part\":", PartJson(item.kind, text, logprobs));
  CloseEvent();
}

void ResponsesFormat::OnOpen(const AnswerItem& item) {
  const bool call = item.kind == Kind::kToolCall;
  AppendItemEvent("response.output_item.added", item, kInProgress, call ? "\"\"" : "");
  if (!call) AppendPartEvent("response.content_part.added", item, "", "");
}

void ResponsesFormat::OnPiece(const AnswerItem& item, std::string_view piece,
                              std::string_view logprobs) {
  OpenPartEvent(item.kind == Kind::kReasoning ? "response.reasoning_text.delta"
                : item.kind == Kind::kText    ? "response.output_text.delta"
                                              : "response.function_call_arguments.delta",
                item);
  out_->append(",\"delta\":");
  AppendJsonString(piece, out_);
  if (item.kind == Kind::kText) absl::StrAppend(out_, ",\"logprobs\":[", ToAbsl(logprobs), "]");
  CloseEvent();
}

void ResponsesFormat::OnClose(const AnswerItem& item) {
  if (item.kind == Kind::kToolCall) {
    OpenPartEvent("response.function_call_arguments.done", item);
    absl::StrAppend(out_, ",\"name\":", JsonString(item.call_name),
                    ",\"arguments\":", JsonString(item.text));
    CloseEvent();
  } else {
    const bool text = item.kind == Kind::kText;
    OpenPartEvent(text ? "response.output_text.done" : "response.reasoning_text.done", item);
    absl::StrAppend(out_, ",\"text\":", JsonString(item.text));
    if (text) absl::StrAppend(out_, ",\"logprobs\":[", item.logprobs, "]");
    CloseEvent();
    AppendPartEvent("response.content_part.done", item, item.text, item.logprobs);
  }
  AppendItemEvent("response.output_item.done", item, last_status_, ContentOf(item));
}

void ResponsesFormat::AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                                    std::string* out) {
  out_ = out;
  started_ = true;
  const std::string response = ResponseJson(kInProgress, nullptr, nullptr);
  for (std::string_view name : {"response.created", "response.in_progress"}) {
    OpenEvent(name);
    absl::StrAppend(out, ",\"response\":", response);
    CloseEvent();
  }
}

void ResponsesFormat::AppendDelta(const v1::Delta& delta, ChoiceState* choice,
                                  const PromptState& prompt, std::string* out) {
  out_ = out;
  items_.Add(delta, this);
}

void ResponsesFormat::AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                                   std::string* out) {
  out_ = out;
  const std::string_view status = StatusOf(choice);
  last_status_ = status == kCompleted ? kCompleted : kIncomplete;
  items_.Finish(this);
  const AnswerUsage usage = {prompt.prompt_tokens, prompt.cached_tokens, choice.output_tokens,
                             choice.reasoning_tokens};
  OpenEvent(status == kCompleted ? "response.completed" : "response.incomplete");
  absl::StrAppend(out, ",\"response\":", ResponseJson(status, &usage, nullptr));
  CloseEvent();
}

void ResponsesFormat::AppendError(const ApiError& error, std::string* out) {
  out_ = out;
  OpenEvent("error");
  absl::StrAppend(out, ",\"code\":", error.code.empty() ? "null" : JsonString(error.code),
                  ",\"message\":", JsonString(error.message),
                  ",\"param\":", error.param.empty() ? "null" : JsonString(error.param));
  CloseEvent();
  if (!started_) return;
  OpenEvent("response.failed");
  absl::StrAppend(out, ",\"response\":", ResponseJson(kFailed, nullptr, &error));
  CloseEvent();
}

// ---- whole

void ResponsesFormat::Keep(const v1::Delta& delta, ChoiceState* choice) {
  items_.Add(delta, nullptr);
}

std::string ResponsesFormat::Whole(const std::vector<ChoiceState>& choices,
                                   const std::vector<PromptState>& prompts,
                                   const AnswerUsage& usage) {
  items_.Finish(nullptr);
  return ResponseJson(StatusOf(choices[0]), &usage, nullptr);
}

}  // namespace fastgen::gateway
