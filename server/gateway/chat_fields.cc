#include "server/gateway/chat_fields.h"

#include <boost/json/serialize.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxParts = 1024;
constexpr size_t kMaxTools = 256;
constexpr size_t kMaxToolNameBytes = 256;

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
      message->Fail("content", "a text part of content must have a string \"text\"",
                    "invalid_type");
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
  message->EachObject("tool_calls", kMaxTools, [&](JsonFields* call) {
    if (call->String("type").value_or("") != "function") {
      call->Fail("type", "a tool call must have the type \"function\"", "unsupported_parameter");
      return;
    }
    const json::object* object = call->Object("function");
    if (object == nullptr) {
      call->Fail("function", "a tool call needs a function", "missing");
      return;
    }
    JsonFields function(*object, call->PathOf("function"), message->error());
    v1::ToolCall* tool_call = out->add_tool_calls();
    tool_call->set_id(call->String("id").value_or(""));
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
    call->AppendUnknown(ignored);
  });
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

void ReadNamedChoice(JsonFields* fields, const json::object& object, ToolUse* use,
                     std::vector<std::string>* ignored) {
  JsonFields choice(object, "tool_choice", fields->error());
  if (choice.String("type").value_or("function") != "function") {
    choice.Fail("type", "tool_choice.type must be \"function\"", "unsupported_parameter");
    return;
  }
  const json::object* function = choice.Object("function");
  if (function == nullptr) {
    choice.Fail("function", "tool_choice.function is missing", "missing");
    return;
  }
  JsonFields members(*function, "tool_choice.function", fields->error());
  use->choice = ToolUse::Choice::kNamed;
  use->name = members.String("name").value_or("");
  if (use->name.empty()) members.Fail("name", "tool_choice.function.name is missing", "missing");
  members.AppendUnknown(ignored);
  choice.AppendUnknown(ignored);
}

void ReadToolChoice(JsonFields* fields, ToolUse* use, std::vector<std::string>* ignored) {
  const json::value* choice = fields->Find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_object()) {
    ReadNamedChoice(fields, choice->get_object(), use, ignored);
  } else if (!choice->is_string()) {
    fields->Fail(
        "tool_choice",
        absl::StrCat("tool_choice must be a string or an object, not ", ToAbsl(KindOf(*choice))),
        "invalid_type");
  } else if (const std::string_view name = View(choice->get_string()); name == "none") {
    use->choice = ToolUse::Choice::kNone;
  } else if (name == "required") {
    use->choice = ToolUse::Choice::kRequired;
  } else if (name != "auto") {
    fields->Fail("tool_choice",
                 "tool_choice must be \"none\", \"auto\", \"required\" or an object that names "
                 "a tool");
  }
}

// The template gets the tool as it is written; what is read here is what constrains.
void ReadTool(JsonFields* tool, ToolUse* use) {
  if (tool->String("type").value_or("") != "function") {
    tool->Fail("type", absl::StrCat(tool->PathOf("type"), " must be \"function\""),
               "unsupported_parameter");
    return;
  }
  const json::object* object = tool->Object("function");
  if (object == nullptr) {
    tool->Fail("function", absl::StrCat(tool->PathOf("function"), " is missing"), "missing");
    return;
  }
  JsonFields function(*object, tool->PathOf("function"), tool->error());
  std::string name = function.String("name").value_or("");
  if (name.empty() || name.size() > kMaxToolNameBytes) {
    function.Fail("name", absl::StrCat(function.PathOf("name"), " must have 1 to ",
                                       kMaxToolNameBytes, " bytes"));
  }
  function.Object("parameters");
  if (function.Bool("strict").value_or(false)) use->strict = true;
  use->offered.push_back(std::move(name));
}

ToolUse ReadTools(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  ToolUse use;
  const json::array* tools = fields->Array("tools", kMaxTools);
  use.parallel = fields->Bool("parallel_tool_calls").value_or(true);
  if (tools == nullptr) {
    const json::value* choice = fields->Find("tool_choice");
    const bool none =
        choice != nullptr && choice->is_string() && View(choice->get_string()) == "none";
    if (choice != nullptr && !none) fields->Fail("tool_choice", "tool_choice needs tools");
    return use;
  }
  use.choice = ToolUse::Choice::kAuto;
  ReadToolChoice(fields, &use, ignored);
  if (tools->empty()) fields->Fail("tools", "tools must not be empty");
  for (size_t i = 0; i < tools->size() && fields->ok(); ++i) {
    const json::value& tool = (*tools)[i];
    if (!tool.is_object()) {
      fields->Fail("tools", absl::StrCat("tools must hold objects, not ", ToAbsl(KindOf(tool))),
                   "invalid_type");
      return use;
    }
    JsonFields members(tool.get_object(), absl::StrCat("tools[", i, "]"), fields->error());
    ReadTool(&members, &use);
    chat->add_tools_json(json::serialize(tool));
  }
  return use;
}

}  // namespace

ToolUse ReadChat(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  if (fields->Find("messages") == nullptr) {
    fields->Fail("messages", "messages is missing", "missing");
    return {};
  }
  const bool read = fields->EachObject("messages", kMaxMessages, [&](JsonFields* message) {
    ReadMessage(message, chat->add_messages(), ignored);
  });
  if (!read) return {};
  if (chat->messages().empty()) fields->Fail("messages", "messages must not be empty");
  ToolUse use = ReadTools(fields, chat, ignored);
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
  return use;
}

void RefuseTextOnly(JsonFields* fields) {
  // vLLM's clients say false: nothing beyond what the template places is wanted, and nothing is.
  for (std::string_view name : {"add_special_tokens", "add_special"}) {
    if (fields->Bool(name).value_or(false)) {
      fields->Fail(name,
                   absl::StrCat(ToAbsl(name),
                                " belongs to a text prompt; the chat template places "
                                "the special tokens of messages"),
                   "unsupported_parameter");
    }
  }
  if (fields->Find("parse_special") != nullptr) {
    fields->Fail("parse_special", "parse_special belongs to a text prompt, not to messages",
                 "unsupported_parameter");
  }
}

}  // namespace fastgen::gateway
