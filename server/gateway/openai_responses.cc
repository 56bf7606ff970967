#include "server/gateway/openai_responses.h"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "server/gateway/constraint_fields.h"
#include "server/gateway/function_tools.h"
#include "server/gateway/json_fields.h"
#include "server/gateway/refused_fields.h"
#include "server/gateway/responses_input.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxIncludes = 64;
constexpr size_t kMaxNameBytes = 64;

// All but the first are about tools that are refused, or ask for nothing that there is.
constexpr std::string_view kLogprobsInclude = "message.output_text.logprobs";
constexpr std::array<std::string_view, 8> kIncludes = {kLogprobsInclude,
                                                       "reasoning.encrypted_content",
                                                       "file_search_call.results",
                                                       "web_search_call.results",
                                                       "web_search_call.action.sources",
                                                       "message.input_image.image_url",
                                                       "computer_call_output.output.image_url",
                                                       "code_interpreter_call.outputs"};

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

void ReadTool(JsonFields* tool, ToolUse* use, v1::Chat* chat) {
  const std::string type = tool->String("type").value_or("");
  if (type != "function") {
    tool->Fail("type",
               absl::StrCat(tool->PathOf("type"), " \"", type.substr(0, kMaxNameBytes),
                            "\" is not supported by this version; it has \"function\" only"),
               "unsupported_parameter");
    return;
  }
  const std::string name = tool->String("name").value_or("");
  if (name.empty()) {
    tool->Fail("name", absl::StrCat(tool->PathOf("name"), " is missing"), "missing");
  }
  tool->Object("parameters");
  tool->String("description");
  if (tool->Bool("strict").value_or(false)) use->strict = true;
  if (!tool->ok()) return;
  use->offered.push_back(name);
  chat->add_tools_json(FunctionToolJson(name, tool->Find("description"), tool->Find("parameters")));
}

void ReadToolChoice(JsonFields* fields, ToolUse* use, std::vector<std::string>* ignored) {
  const json::value* value = fields->Find("tool_choice");
  if (value == nullptr) return;
  if (value->is_string()) {
    const std::string_view choice = View(value->get_string());
    if (choice == "none") use->choice = ToolUse::Choice::kNone;
    if (choice == "required") use->choice = ToolUse::Choice::kRequired;
    if (choice != "none" && choice != "auto" && choice != "required") {
      fields->Fail("tool_choice",
                   "tool_choice must be \"none\", \"auto\", \"required\" or a function");
    }
    return;
  }
  const json::object* object = fields->Object("tool_choice");
  if (object == nullptr) return;
  JsonFields choice(*object, "tool_choice", fields->error());
  const std::string type = choice.String("type").value_or("");
  if (type != "function") {
    choice.Fail("type",
                absl::StrCat("tool_choice.type \"", type.substr(0, kMaxNameBytes),
                             "\" is not supported by this version; it has \"function\" only"),
                "unsupported_parameter");
    return;
  }
  use->choice = ToolUse::Choice::kNamed;
  use->name = choice.String("name").value_or("");
  if (use->name.empty()) choice.Fail("name", "tool_choice.name is missing", "missing");
  choice.AppendUnknown(ignored);
}

ToolUse ReadTools(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  ToolUse use;
  use.choice = ToolUse::Choice::kAuto;
  use.parallel = fields->Bool("parallel_tool_calls").value_or(true);
  fields->EachObject("tools", kMaxFunctionTools, [&](JsonFields* tool) {
    ReadTool(tool, &use, chat);
    tool->AppendUnknown(ignored);
  });
  ReadToolChoice(fields, &use, ignored);
  SettleToolChoice(fields, &use);
  return use;
}

// Refuses a value other than the one that asks for nothing.
void RefuseUnlessString(JsonFields* fields, std::string_view name, std::string_view neutral) {
  const std::optional<std::string> value = fields->String(name);
  if (!value.has_value() || *value == neutral) return;
  fields->Fail(name, absl::StrCat(fields->PathOf(name), " is not supported by this version"),
               "unsupported_parameter");
}

void ReadText(JsonFields* fields, v1::GenerateRequest* call, ParamNames* names,
              std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("text");
  if (object == nullptr) return;
  JsonFields text(*object, "text", fields->error());
  if (const json::object* format_object = text.Object("format")) {
    JsonFields format(*format_object, "text.format", fields->error());
    ReadFormat(&format, "text.format", call, names, ignored);
  }
  RefuseUnlessString(&text, "verbosity", "medium");
  text.AppendUnknown(ignored);
}

void ReadReasoning(JsonFields* fields, std::vector<std::string>* ignored) {
  const json::object* object = fields->Object("reasoning");
  if (object == nullptr) return;
  JsonFields reasoning(*object, "reasoning", fields->error());
  RefuseNames(&reasoning, {"effort"}, "is not supported by this version");
  RefuseUnlessString(&reasoning, "context", "auto");
  RefuseUnlessString(&reasoning, "mode", "standard");
  // The reasoning itself is in the answer.
  reasoning.Accept({"summary", "generate_summary"});
  reasoning.AppendUnknown(ignored);
}

void ReadLogprobs(JsonFields* fields, v1::Output* output, GenerationRequest* request) {
  const std::optional<int64_t> top = fields->Int("top_logprobs", 0, kMaxLogprobs);
  bool asked = top.value_or(0) > 0;
  if (const auto includes = fields->Strings("include", kMaxIncludes)) {
    for (const std::string& include : *includes) {
      if (std::find(kIncludes.begin(), kIncludes.end(), include) == kIncludes.end()) {
        fields->Fail("include", absl::StrCat("include names \"", include.substr(0, kMaxNameBytes),
                                             "\", which this version does not know"));
      }
      asked |= include == kLogprobsInclude;
    }
  }
  request->options.logprobs = asked;
  if (asked) output->set_logprobs(static_cast<int32_t>(top.value_or(0)));
}

void ReadStream(JsonFields* fields, GenerationRequest* request) {
  request->options.stream = fields->Bool("stream").value_or(false);
  const json::object* object = fields->Object("stream_options");
  if (object == nullptr) return;
  JsonFields options(*object, "stream_options", fields->error());
  options.Accept({"include_obfuscation"});
  options.AppendUnknown(&request->ignored);
}

void RefuseState(JsonFields* fields) {
  RefuseNames(fields, {"previous_response_id", "conversation", "prompt"},
              "needs state that this server does not keep; send the whole conversation as input");
  if (fields->Bool("background").value_or(false)) {
    fields->Fail("background", "background is not supported by this version",
                 "unsupported_parameter");
  }
  RefuseUnlessString(fields, "truncation", "disabled");
  RefuseNames(fields, {"context_management", "moderation", "background_options"},
              "is not supported by this version");
  RefuseNames(fields,
              {"messages",
               "n",
               "best_of",
               "stop",
               "logprobs",
               "max_tokens",
               "max_completion_tokens",
               "response_format",
               "min_tokens",
               "ignore_eos",
               "stop_token_ids",
               "include_stop_str_in_output",
               "skip_special_tokens",
               "return_token_ids",
               "reasoning_effort",
               "echo",
               "prompt_logprobs",
               "return_tokens_as_token_ids",
               "add_generation_prompt",
               "continue_final_message"},
              "is not part of /responses; /chat/completions has it");
}

// What a Response says of its request: each as it was sent, or what holds instead.
std::string EchoJson(const json::object& request) {
  constexpr std::pair<std::string_view, std::string_view> kEchoes[] = {
      {"instructions", "null"},
      {"max_output_tokens", "null"},
      {"max_tool_calls", "null"},
      {"metadata", "{}"},
      {"parallel_tool_calls", "true"},
      {"prompt_cache_key", "null"},
      {"reasoning", R"({"effort":null,"summary":null})"},
      {"safety_identifier", "null"},
      {"temperature", "null"},
      {"text", R"({"format":{"type":"text"}})"},
      {"tool_choice", R"("auto")"},
      {"tools", "[]"},
      {"top_logprobs", "0"},
      {"top_p", "null"},
      {"user", "null"},
  };
  std::string echo =
      R"("background":false,"previous_response_id":null,"service_tier":"default","store":false,)"
      R"("truncation":"disabled")";
  for (const auto& [name, otherwise] : kEchoes) {
    const json::value* value = request.if_contains(json::string_view(name.data(), name.size()));
    absl::StrAppend(&echo, ",\"", ToAbsl(name), "\":");
    if (value == nullptr || value->is_null()) {
      echo += otherwise;
    } else {
      echo += json::serialize(*value);
    }
  }
  return echo;
}

}  // namespace

std::optional<ApiError> ParseResponsesRequest(std::string_view body, GenerationRequest* request) {
  std::optional<ApiError> error;
  const std::optional<json::object> object = ParseJsonObject(body, &error);
  if (!object.has_value()) return error;
  request->names.prompt = "input";
  request->names.max_tokens = "max_output_tokens";
  request->names.logprobs = "top_logprobs";
  request->names.messages_match = false;
  JsonFields fields(*object, "", &error);
  v1::GenerateRequest call;
  ReadResponsesInput(&fields, call.mutable_chat(), &request->ignored);
  const ToolUse tools = ReadTools(&fields, call.mutable_chat(), &request->ignored);
  if (const json::object* kwargs = fields.Object("chat_template_kwargs")) {
    call.mutable_chat()->set_chat_template_kwargs_json(json::serialize(*kwargs));
  }
  ReadIdentity(&fields, &call, request);
  ReadSampling(&fields, call.mutable_sampling());
  if (auto v = fields.Int32("max_output_tokens", 1)) call.mutable_stopping()->set_max_tokens(*v);
  ReadStream(&fields, request);
  ReadText(&fields, &call, &request->names, &request->ignored);
  RefuseState(&fields);  // before response_format is looked into
  ReadConstraint(&fields, &call, &request->names, &request->ignored);
  ReadReasoning(&fields, &request->ignored);
  ReadLogprobs(&fields, call.mutable_output(), request);
  call.mutable_output()->set_reasoning(true);
  ConstrainTools(&fields, tools, &call, &request->names);
  request->options.parallel_tool_calls = tools.parallel;
  RefuseFields(RefusedOn::kBoth, &fields);
  fields.Object("metadata");
  fields.Bool("store");
  fields.String("user");
  fields.String("safety_identifier");
  fields.String("prompt_cache_key");
  fields.Int32("max_tool_calls");
  fields.Accept({"service_tier", "prompt_cache_retention", "prompt_cache_options",
                 "access_programs", "image"});
  if (error.has_value()) return error;
  fields.AppendUnknown(&request->ignored);
  request->options.echo_json = EchoJson(*object);
  request->calls.push_back(std::move(call));
  return std::nullopt;
}

}  // namespace fastgen::gateway
