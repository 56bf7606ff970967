#include "engine/text/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_parser.h"

namespace fastgen {

using jinja::Heap;
using jinja::Value;

struct ChatTemplate::Program {
  std::string source;
  std::unique_ptr<jinja::SyntaxTree> tree;
  std::string bos_token;
  std::string eos_token;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::Compile(std::string_view source,
                                                   std::string_view bos_token,
                                                   std::string_view eos_token) {
  auto program = std::make_unique<Program>();
  program->source = std::string(source);
  ASSIGN_OR_RETURN(program->tree, jinja::Parse(program->source));
  program->bos_token = std::string(bos_token);
  program->eos_token = std::string(eos_token);
  return ChatTemplate(std::move(program));
}

std::string_view ChatTemplate::source() const { return program_->source; }

namespace {

using Entries = std::vector<std::pair<Value, Value>>;

// Turns the request into the values that templates expect. Names of keys and the usual roles are
// ours; everything else is untrusted.
class ContextBuilder {
 public:
  explicit ContextBuilder(Heap* heap) : heap_(*heap) {}

  // `last_content` stands for the last message's content when it is not empty.
  absl::StatusOr<Value> Messages(const ChatPrompt& chat, std::string_view last_content) {
    std::vector<Value> messages;
    for (size_t i = 0; i < chat.messages.size(); ++i) {
      bool is_replaced = i + 1 == chat.messages.size() && !last_content.empty();
      absl::StatusOr<Value> message =
          Message(chat.messages[i], is_replaced ? last_content : std::string_view());
      if (!message.ok()) {
        return absl::Status(message.status().code(),
                            absl::StrCat("messages[", i, "]: ", message.status().message()));
      }
      messages.push_back(*message);
    }
    return heap_.MakeList(std::move(messages));
  }

  absl::StatusOr<Value> Tools(const std::vector<std::string>& tools_json) {
    if (tools_json.empty()) return Value::None();
    std::vector<Value> tools;
    for (size_t i = 0; i < tools_json.size(); ++i) {
      ASSIGN_OR_RETURN(Value tool, Object(tools_json[i], absl::StrCat("tools[", i, "]")));
      tools.push_back(tool);
    }
    return heap_.MakeList(std::move(tools));
  }

  // A JSON object; `what` names it in errors.
  absl::StatusOr<Value> Object(std::string_view json, const std::string& what) {
    absl::StatusOr<Value> value = jinja::ParseJson(heap_, json);
    if (!value.ok()) {
      return absl::Status(value.status().code(),
                          absl::StrCat(what, ": ", value.status().message()));
    }
    if (value->is(jinja::Kind::kDict)) return value;
    return absl::InvalidArgumentError(absl::StrCat(what, " must be a JSON object"));
  }

 private:
  // Some templates write their role tokens as '<|' + role + '|>'. One of the roles that every
  // client uses cannot be an injection, so it counts as the template's own word; any other role is
  // the request's text.
  static bool IsKnownRole(std::string_view role) {
    return role == "system" || role == "developer" || role == "user" || role == "assistant" ||
           role == "tool";
  }
  Value Untrusted(std::string_view bytes) {
    return heap_.View(jinja::MakeText(bytes, /*untrusted=*/true));
  }
  void Add(Entries& entries, std::string_view key, const Value& value) {
    entries.emplace_back(heap_.Constant(key), value);
  }

  absl::StatusOr<Value> Message(const ChatMessage& message, std::string_view replacement) {
    Entries entries;
    Add(entries, "role",
        IsKnownRole(message.role) ? heap_.Constant(message.role) : Untrusted(message.role));
    Value content = message.content.has_value() ? Untrusted(*message.content) : Value::None();
    Add(entries, "content", replacement.empty() ? content : Untrusted(replacement));
    if (!message.name.empty()) Add(entries, "name", Untrusted(message.name));
    if (!message.tool_call_id.empty()) {
      Add(entries, "tool_call_id", Untrusted(message.tool_call_id));
    }
    if (message.reasoning_content.has_value()) {
      Add(entries, "reasoning_content", Untrusted(*message.reasoning_content));
    }
    if (!message.tool_calls.empty()) {
      std::vector<Value> calls;
      for (size_t i = 0; i < message.tool_calls.size(); ++i) {
        ASSIGN_OR_RETURN(Value call, Call(message.tool_calls[i], i));
        calls.push_back(call);
      }
      ASSIGN_OR_RETURN(Value list, heap_.MakeList(std::move(calls)));
      Add(entries, "tool_calls", list);
    }
    return heap_.MakeDict(std::move(entries));
  }

  absl::StatusOr<Value> Call(const ToolCall& call, size_t index) {
    std::string_view arguments = call.arguments_json;
    if (arguments.empty()) arguments = "{}";
    ASSIGN_OR_RETURN(Value parsed,
                     Object(arguments, absl::StrCat("tool_calls[", index, "].arguments")));
    Entries function;
    Add(function, "name", Untrusted(call.name));
    Add(function, "arguments", parsed);
    ASSIGN_OR_RETURN(Value function_value, heap_.MakeDict(std::move(function)));
    Entries entries;
    if (!call.id.empty()) Add(entries, "id", Untrusted(call.id));
    Add(entries, "type", heap_.Constant("function"));
    Add(entries, "function", function_value);
    return heap_.MakeDict(std::move(entries));
  }

  Heap& heap_;
};

// Marks the end of the final message's content while it renders: a word that no message contains,
// and a blank that shows whether the template keeps blanks at the end of a message.
std::string MakeEndMark(const ChatPrompt& chat) {
  std::string mark;
  for (int number = 0;; ++number) {
    mark = absl::StrCat("END-OF-FINAL-MESSAGE-", number, "-");
    bool is_free = std::none_of(
        chat.messages.begin(), chat.messages.end(), [&mark](const ChatMessage& message) {
          return message.content.has_value() && message.content->find(mark) != std::string::npos;
        });
    if (is_free) return mark;
  }
}

void CutAt(size_t end, RenderedChat* rendered) {
  rendered->text.resize(end);
  std::vector<ByteRange>& ranges = rendered->untrusted;
  while (!ranges.empty() && ranges.back().begin >= end) ranges.pop_back();
  if (!ranges.empty()) ranges.back().end = std::min(ranges.back().end, end);
}

absl::Status CutAtMark(const std::string& mark, RenderedChat* rendered) {
  size_t found = rendered->text.rfind(mark);
  if (found == std::string::npos) {
    return absl::InvalidArgumentError(
        "continue_final_message: the chat template does not show the final message");
  }
  bool keeps_blanks = rendered->text.compare(found + mark.size(), 1, " ") == 0;
  size_t end = keeps_blanks ? found : jinja::SkipSpaceBackward(rendered->text, found);
  CutAt(end, rendered);
  return absl::OkStatus();
}

absl::Status SetTemplateArguments(ContextBuilder& context, std::string_view json,
                                  jinja::Interpreter& interpreter) {
  if (json.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(Value arguments, context.Object(json, "template_kwargs"));
  for (const auto& [key, value] : arguments.dict().entries) {
    std::string_view name = key.bytes();
    if (name == "messages" || name == "tools" || name == "add_generation_prompt") {
      return absl::InvalidArgumentError(absl::StrCat("template_kwargs may not set '", ToAbsl(name),
                                                     "': it has a field of its own"));
    }
    interpreter.SetGlobal(name, value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RenderedChat> ChatTemplate::Render(const ChatPrompt& chat, absl::Time now) const {
  absl::StatusOr<RenderedChat> rendered = RenderAsGiven(chat, now);
  if (!absl::IsInvalidArgument(rendered.status())) return rendered;
  // Some templates tell a call by its missing content, others read every content: the first attempt
  // is for the former, the second for the latter.
  const auto lacks_content = [](const ChatMessage& message) {
    return !message.content.has_value() && !message.tool_calls.empty();
  };
  if (std::none_of(chat.messages.begin(), chat.messages.end(), lacks_content)) return rendered;
  ChatPrompt filled = chat;
  for (ChatMessage& message : filled.messages) {
    if (lacks_content(message)) message.content = "";
  }
  absl::StatusOr<RenderedChat> again = RenderAsGiven(filled, now);
  return again.ok() ? again : rendered;
}

absl::StatusOr<RenderedChat> ChatTemplate::RenderAsGiven(const ChatPrompt& chat,
                                                         absl::Time now) const {
  Heap heap;
  ContextBuilder context(&heap);
  jinja::Interpreter interpreter(*program_->tree, &heap, now);
  std::string mark;
  std::string last_content;
  if (chat.continue_final_message) {
    if (chat.messages.empty() || !chat.messages.back().content.has_value()) {
      return absl::InvalidArgumentError(
          "continue_final_message needs a final message with content");
    }
    mark = MakeEndMark(chat);
    last_content = absl::StrCat(*chat.messages.back().content, mark, " ");
  }
  ASSIGN_OR_RETURN(Value messages, context.Messages(chat, last_content));
  ASSIGN_OR_RETURN(Value tools, context.Tools(chat.tools_json));
  bool generates = chat.add_generation_prompt && !chat.continue_final_message;
  interpreter.SetGlobal("messages", messages);
  interpreter.SetGlobal("tools", tools);
  interpreter.SetGlobal("add_generation_prompt", Value::Bool(generates));
  interpreter.SetGlobal("bos_token", heap.Constant(program_->bos_token));
  interpreter.SetGlobal("eos_token", heap.Constant(program_->eos_token));
  RETURN_IF_ERROR(SetTemplateArguments(context, chat.template_kwargs_json, interpreter));
  ASSIGN_OR_RETURN(auto output, interpreter.Run());
  RenderedChat rendered{std::move(output.first), std::move(output.second)};
  if (chat.continue_final_message) RETURN_IF_ERROR(CutAtMark(mark, &rendered));
  return rendered;
}

}  // namespace fastgen
