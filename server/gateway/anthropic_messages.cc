#include "server/gateway/anthropic_messages.h"

#include <boost/json/serialize.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/anthropic_conversation.h"
#include "server/gateway/constraint_fields.h"
#include "server/gateway/function_tools.h"
#include "server/gateway/json_fields.h"
#include "server/gateway/refused_fields.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxStopSequences = 64;
constexpr size_t kMaxNameBytes = 64;

void ReadTool(JsonFields* tool, ToolUse* use, v1::Chat* chat) {
  const std::string type = tool->String("type").value_or("custom");
  if (type != "custom") {
    tool->Fail("type",
               absl::StrCat(tool->PathOf("type"), " \"", type.substr(0, kMaxNameBytes),
                            "\" is not supported by this version; it has \"custom\" tools only"),
               "unsupported_parameter");
    return;
  }
  const std::string name = tool->String("name").value_or("");
  if (name.empty()) {
    tool->Fail("name", absl::StrCat(tool->PathOf("name"), " is missing"), "missing");
  }
  if (tool->Object("input_schema") == nullptr) {
    tool->Fail("input_schema", absl::StrCat(tool->PathOf("input_schema"), " is missing"),
               "missing");
  }
  tool->String("description");
  if (tool->Bool("strict").value_or(false)) use->strict = true;
  // All but the first are about when a tool is sent or how its input is streamed, not what it is.
  tool->Accept({"cache_control", "defer_loading", "eager_input_streaming", "allowed_callers"});
  if (!tool->ok()) return;
  use->offered.push_back(name);
  chat->add_tools_json(
      FunctionToolJson(name, tool->Find("description"), tool->Find("input_schema")));
}

void ReadToolChoice(JsonFields* fields, ToolUse* use, std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("tool_choice");
  if (object == nullptr) return;
  JsonFields choice(*object, "tool_choice", fields->error());
  const std::string type = choice.String("type").value_or("");
  if (type == "none") {
    use->choice = ToolUse::Choice::kNone;
  } else if (type == "any") {
    use->choice = ToolUse::Choice::kRequired;
  } else if (type == "tool") {
    use->choice = ToolUse::Choice::kNamed;
  } else if (type != "auto") {
    choice.Fail("type", "tool_choice.type must be auto, any, tool or none");
  }
  if (type == "tool") {
    use->name = choice.String("name").value_or("");
    if (use->name.empty()) choice.Fail("name", "tool_choice.name is missing", "missing");
  }
  use->parallel = !choice.Bool("disable_parallel_tool_use").value_or(false);
  choice.AppendUnknown(ignored);
}

ToolUse ReadTools(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  ToolUse use;
  use.choice = ToolUse::Choice::kAuto;
  fields->EachObject("tools", kMaxFunctionTools, [&](JsonFields* tool) {
    ReadTool(tool, &use, chat);
    tool->AppendUnknown(ignored);
  });
  ReadToolChoice(fields, &use, ignored);
  SettleToolChoice(fields, &use);
  return use;
}

enum class Thinking { kAsTheModelDoes, kOn, kOff };

struct ThinkingRules {
  Thinking thinking = Thinking::kAsTheModelDoes;
  bool shown = true;
};

ThinkingRules ReadThinking(JsonFields* fields, std::vector<std::string>* ignored) {
  ThinkingRules rules;
  const json::object* object = fields->Object("thinking");
  if (object == nullptr) return rules;
  JsonFields thinking(*object, "thinking", fields->error());
  const std::string type = thinking.String("type").value_or("");
  if (type == "enabled") {
    rules.thinking = Thinking::kOn;
    if (thinking.Int32("budget_tokens", 1).has_value())
      thinking.AppendIgnored("budget_tokens", ignored);
  } else if (type == "disabled") {
    rules.thinking = Thinking::kOff;
  } else if (type != "adaptive" && type != "between_tools") {
    thinking.Fail("type",
                  "thinking.type must be \"enabled\", \"disabled\", \"adaptive\" or "
                  "\"between_tools\"");
  }
  if (auto display = thinking.String("display")) {
    rules.shown = *display != "omitted";
    if (rules.shown && *display != "summarized") {
      thinking.Fail("display", "thinking.display must be \"summarized\" or \"omitted\"");
    }
  }
  thinking.AppendUnknown(ignored);
  return rules;
}

// What the request says of template variables, and `thinking` unless it says that too.
void SetTemplateKwargs(JsonFields* fields, Thinking thinking, v1::Chat* chat) {
  const json::object* asked = fields->Object("chat_template_kwargs");
  json::object kwargs;
  if (asked != nullptr) kwargs = *asked;
  if (thinking != Thinking::kAsTheModelDoes) {
    kwargs.insert({{"enable_thinking", thinking == Thinking::kOn}});  // keeps what is there
  }
  if (asked != nullptr || !kwargs.empty())
    chat->set_chat_template_kwargs_json(json::serialize(kwargs));
}

// Everything that changes how the conversation is rendered.
ThinkingRules ReadPrompt(JsonFields* fields, v1::Chat* chat, ToolUse* tools,
                         std::vector<std::string>* ignored) {
  ReadConversation(fields, chat, ignored);
  *tools = ReadTools(fields, chat, ignored);
  const ThinkingRules thinking = ReadThinking(fields, ignored);
  SetTemplateKwargs(fields, thinking.thinking, chat);
  fields->Accept({"cache_control", "speed", "user_profile_id", "workspace_id"});
  return thinking;
}

void ReadOutputConfig(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names,
                      std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("output_config");
  if (object == nullptr) return;
  JsonFields config(*object, "output_config", fields->error());
  RefuseNames(&config, {"effort", "task_budget"}, "is not supported by this version");
  if (const json::object* format_object = config.Object("format")) {
    JsonFields format(*format_object, "output_config.format", fields->error());
    ReadFormat(&format, "output_config.format", call, names, ignored);
  }
  config.AppendUnknown(ignored);
}

void ReadStopping(JsonFields* fields, v1::Stopping* stopping) {
  if (auto max_tokens = fields->Int32("max_tokens", 1)) {
    stopping->set_max_tokens(*max_tokens);
  } else {
    fields->Fail("max_tokens", "max_tokens is missing", "missing");
  }
  if (auto sequences = fields->Strings("stop_sequences", kMaxStopSequences)) {
    for (std::string& sequence : *sequences) stopping->add_stop(std::move(sequence));
  }
}

void ReadMetadata(JsonFields* fields, std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("metadata");
  if (object == nullptr) return;
  JsonFields metadata(*object, "metadata", fields->error());
  metadata.String("user_id");
  metadata.AppendUnknown(ignored);
}

void RefuseOtherDialects(JsonFields* fields) {
  RefuseNames(fields,
              {"container", "mcp_servers", "context_management", "inference_geo", "output_format"},
              "is not supported by this version");
  RefuseNames(fields,
              {"n", "best_of", "stop", "logprobs", "top_logprobs", "response_format",
               "max_completion_tokens", "min_tokens", "ignore_eos", "stop_token_ids",
               "include_stop_str_in_output", "skip_special_tokens", "return_token_ids",
               "reasoning_effort", "echo", "prompt_logprobs", "return_tokens_as_token_ids",
               "add_generation_prompt", "continue_final_message"},
              "is not part of /messages; /chat/completions has it");
}

}  // namespace

std::optional<ApiError> ParseMessagesRequest(std::string_view body, GenerationRequest* request) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  request->names.prompt = "messages";
  request->names.stop = "stop_sequences";
  request->names.messages_match = false;
  JsonFields fields(*object, "", &error);
  v1::GenerateRequest call;
  ToolUse tools;
  const ThinkingRules thinking =
      ReadPrompt(&fields, call.mutable_chat(), &tools, &request->ignored);
  ReadIdentity(&fields, &call, request);
  ReadSampling(&fields, call.mutable_sampling());
  ReadStopping(&fields, call.mutable_stopping());
  ReadOutputConfig(&fields, &call, &request->names, &request->ignored);
  RefuseOtherDialects(&fields);  // before response_format is looked into
  ReadConstraint(&fields, &call, &request->names, &request->ignored);
  ReadMetadata(&fields, &request->ignored);
  request->options.stream = fields.Bool("stream").value_or(false);
  request->options.shows_reasoning = thinking.shown;
  call.mutable_output()->set_reasoning(true);
  ConstrainTools(&fields, tools, &call, &request->names);
  request->options.parallel_tool_calls = tools.parallel;
  RefuseFields(RefusedOn::kBoth, &fields);
  fields.Accept({"service_tier", "diagnostics"});
  if (error.has_value()) return error;
  fields.AppendUnknown(&request->ignored);
  request->calls.push_back(std::move(call));
  return std::nullopt;
}

std::optional<ApiError> ParseCountTokensRequest(std::string_view body, v1::RenderChatRequest* call,
                                                std::vector<std::string>* ignored) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  JsonFields fields(*object, "", &error);
  ToolUse tools;
  ReadPrompt(&fields, call->mutable_chat(), &tools, ignored);
  // Clients count what they are about to send: what changes no prompt is theirs to say.
  fields.Accept({"model", "max_tokens", "metadata", "output_config", "service_tier",
                 "stop_sequences", "stream", "temperature", "top_k", "top_p"});
  if (error.has_value()) return error;
  fields.AppendUnknown(ignored);
  return std::nullopt;
}

}  // namespace fastgen::gateway
