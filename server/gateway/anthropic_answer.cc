#include "server/gateway/anthropic_answer.h"

#include <boost/json/parse.hpp>
#include <exception>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/json_text.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace {

using Kind = AnswerItem::Kind;

// "event: <name>\ndata: {"type":"<name>"
void OpenEvent(std::string_view name, std::string* out) {
  absl::StrAppend(out, ToAbsl(kSseEventPrefix), ToAbsl(name), "\n", ToAbsl(kSseDataPrefix),
                  "{\"type\":\"", ToAbsl(name), "\"");
}

void OpenBlockEvent(std::string_view name, size_t index, std::string* out) {
  OpenEvent(name, out);
  out->append(",\"index\":");
  AppendJsonInt(static_cast<int64_t>(index), out);
}

void CloseEvent(std::string* out) {
  out->push_back('}');
  out->append(kSseEventEnd);
}

void AppendMessageUsage(const AnswerUsage& usage, std::string* out) {
  out->append("{\"input_tokens\":");
  AppendJsonInt(usage.prompt_tokens - usage.cached_tokens, out);
  out->append(",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":");
  AppendJsonInt(usage.cached_tokens, out);
  out->append(",\"output_tokens\":");
  AppendJsonInt(usage.output_tokens, out);
  if (usage.reasoning_tokens > 0) {
    out->append(",\"output_tokens_details\":{\"thinking_tokens\":");
    AppendJsonInt(usage.reasoning_tokens, out);
    out->push_back('}');
  }
  out->push_back('}');
}

// "stop_reason":..,"stop_sequence":..
void AppendStop(const ChoiceState& choice, std::string* out) {
  std::string_view reason = "null";
  const bool matched = choice.reason == v1::STOP && choice.stop_reason_json != "null";
  if (matched) {
    reason = "\"stop_sequence\"";
  } else if (choice.reason == v1::STOP) {
    reason = choice.num_tool_calls > 0 ? "\"tool_use\"" : "\"end_turn\"";
  } else if (choice.reason == v1::LENGTH) {
    reason = "\"max_tokens\"";
  }
  absl::StrAppend(out, "\"stop_reason\":", ToAbsl(reason),
                  ",\"stop_sequence\":", matched ? choice.stop_reason_json : "null");
}

// The arguments as the model wrote them when they are the text of an object.
std::string_view InputJson(const std::string& arguments) {
  try {
    boost::json::error_code error;
    const boost::json::value value =
        boost::json::parse(boost::json::string_view(arguments.data(), arguments.size()), error);
    if (!error && value.is_object()) return arguments;
  } catch (const std::exception&) {  // only memory can run out here
  }
  return "{}";
}

// The block as it begins: a stream adds to it.
void AppendEmptyBlock(const AnswerItem& item, std::string* out) {
  switch (item.kind) {
    case Kind::kReasoning:
      out->append("{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
      return;
    case Kind::kText:
      out->append("{\"type\":\"text\",\"text\":\"\"}");
      return;
    case Kind::kToolCall:
      out->append("{\"type\":\"tool_use\",\"id\":");
      AppendJsonString(item.call_id, out);
      out->append(",\"name\":");
      AppendJsonString(item.call_name, out);
      out->append(",\"input\":{}}");
      return;
  }
}

void AppendBlock(const AnswerItem& item, std::string* out) {
  switch (item.kind) {
    case Kind::kReasoning:
      out->append("{\"type\":\"thinking\",\"thinking\":");
      AppendJsonString(item.text, out);
      out->append(",\"signature\":\"\"}");
      return;
    case Kind::kText:
      out->append("{\"type\":\"text\",\"text\":");
      AppendJsonString(item.text, out);
      out->push_back('}');
      return;
    case Kind::kToolCall:
      out->append("{\"type\":\"tool_use\",\"id\":");
      AppendJsonString(item.call_id, out);
      out->append(",\"name\":");
      AppendJsonString(item.call_name, out);
      out->append(",\"input\":");
      out->append(InputJson(item.text));
      out->push_back('}');
      return;
  }
}

// {"id":..,"type":"message","role":"assistant","model":..
void OpenMessage(const AnswerOptions& options, std::string* out) {
  out->append("{\"id\":");
  AppendJsonString(options.id, out);
  out->append(",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
  AppendJsonString(options.model, out);
}

}  // namespace

MessagesFormat::MessagesFormat(const AnswerOptions& options)
    : options_(options),
      request_id_(options.id.substr(options.id.find('_') + 1)),  // "msg_<request id>"
      items_(options.parallel_tool_calls ? AnswerItems::Calls::kAll : AnswerItems::Calls::kFirst) {}

bool MessagesFormat::IsShown(const AnswerItem& item) const {
  return item.kind != Kind::kReasoning || options_.shows_reasoning;
}

size_t MessagesFormat::BlockIndex(const AnswerItem& item) const { return item.index - num_hidden_; }

void MessagesFormat::AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                                   std::string* out) {
  started_ = true;
  OpenEvent("message_start", out);
  out->append(",\"message\":");
  OpenMessage(options_, out);
  out->append(",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
  AppendMessageUsage({prompt.prompt_tokens, prompt.cached_tokens}, out);
  out->push_back('}');
  CloseEvent(out);
}

void MessagesFormat::AppendDelta(const v1::Delta& delta, ChoiceState* choice,
                                 const PromptState& prompt, std::string* out) {
  out_ = out;
  items_.Add(delta, this);
}

void MessagesFormat::OnOpen(const AnswerItem& item) {
  if (!IsShown(item)) {
    ++num_hidden_;
    return;
  }
  OpenBlockEvent("content_block_start", BlockIndex(item), out_);
  out_->append(",\"content_block\":");
  AppendEmptyBlock(item, out_);
  CloseEvent(out_);
}

void MessagesFormat::OnPiece(const AnswerItem& item, std::string_view piece, std::string_view) {
  if (!IsShown(item)) return;
  OpenBlockEvent("content_block_delta", BlockIndex(item), out_);
  out_->append(
      item.kind == Kind::kReasoning ? ",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":"
      : item.kind == Kind::kText    ? ",\"delta\":{\"type\":\"text_delta\",\"text\":"
                                 : ",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":");
  AppendJsonString(piece, out_);
  out_->push_back('}');
  CloseEvent(out_);
}

void MessagesFormat::OnClose(const AnswerItem& item) {
  if (!IsShown(item)) return;
  OpenBlockEvent("content_block_stop", BlockIndex(item), out_);
  CloseEvent(out_);
}

void MessagesFormat::AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                                  std::string* out) {
  out_ = out;
  items_.Finish(this);
  OpenEvent("message_delta", out);
  out->append(",\"delta\":{");
  AppendStop(choice, out);
  out->append("},\"usage\":");
  AppendMessageUsage(
      {prompt.prompt_tokens, prompt.cached_tokens, choice.output_tokens, choice.reasoning_tokens},
      out);
  CloseEvent(out);
  OpenEvent("message_stop", out);
  CloseEvent(out);
}

void MessagesFormat::AppendError(const ApiError& error, std::string* out) {
  absl::StrAppend(out, ToAbsl(kSseEventPrefix), "error\n");
  AppendSseData(AnthropicErrorJson(error, request_id_), out);
}

void MessagesFormat::AppendKeepAlive(std::string* out) {
  if (!started_) {
    out->append(kSseKeepAlive);
    return;
  }
  OpenEvent("ping", out);
  CloseEvent(out);
}

HttpResponse MessagesFormat::ErrorAnswer(const ApiError& error) {
  HttpResponse response = ErrorResponse(error);  // the headers are the answer's own
  response.body = AnthropicErrorJson(error, request_id_);
  return response;
}

void MessagesFormat::Keep(const v1::Delta& delta, ChoiceState* choice) {
  items_.Add(delta, nullptr);
}

std::string MessagesFormat::Whole(const std::vector<ChoiceState>& choices,
                                  const std::vector<PromptState>& prompts,
                                  const AnswerUsage& usage) {
  items_.Finish(nullptr);
  std::string out;
  OpenMessage(options_, &out);
  out += ",\"content\":[";
  for (const AnswerItem& item : items_.items()) {
    if (!IsShown(item)) continue;
    if (out.back() != '[') out += ',';
    AppendBlock(item, &out);
  }
  out += "],";
  AppendStop(choices[0], &out);
  out += ",\"usage\":";
  AppendMessageUsage(usage, &out);
  out += '}';
  return out;
}

}  // namespace fastgen::gateway
