#include "server/gateway/responses_input.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxItems = 4096;
constexpr size_t kMaxParts = 1024;
constexpr size_t kMaxNameBytes = 64;

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

class InputReader {
 public:
  InputReader(v1::Chat* chat, std::vector<std::string>* ignored) : chat_(chat), ignored_(ignored) {}

  void AddText(const std::string& role, std::string_view text);
  void ReadItem(JsonFields* item);

 private:
  using Types = std::initializer_list<std::string_view>;

  // A string, or a list of parts of the given types joined with a line break; nullopt when absent
  // or wrong. A part's text is its member of the name "text", or "refusal" in one of that type.
  std::optional<std::string> ReadText(JsonFields* owner, std::string_view name, Types types);
  std::string RequiredString(JsonFields* item, std::string_view name);
  void ReadMessage(JsonFields* item);
  void ReadFunctionCall(JsonFields* item);
  void ReadFunctionCallOutput(JsonFields* item);
  void ReadReasoning(JsonFields* item);
  // The message of the turn that the assistant is in, or a new one.
  v1::ChatMessage* AssistantTurn();

  v1::Chat* const chat_;
  std::vector<std::string>* const ignored_;
  std::unordered_map<std::string, std::string> tool_names_;  // by the id of the call
};

void InputReader::AddText(const std::string& role, std::string_view text) {
  const bool joins_instructions =
      role == "system" && chat_->messages_size() == 1 && chat_->messages(0).role() == "system";
  if (joins_instructions) {
    absl::StrAppend(chat_->mutable_messages(0)->mutable_content(), "\n", ToAbsl(text));
    return;
  }
  v1::ChatMessage* message = role == "assistant" ? AssistantTurn() : chat_->add_messages();
  // A second message of the assistant is a turn of its own.
  if (message->has_content()) message = chat_->add_messages();
  message->set_role(role);
  message->set_content(std::string(text));
}

v1::ChatMessage* InputReader::AssistantTurn() {
  const int last = chat_->messages_size() - 1;
  if (last >= 0 && chat_->messages(last).role() == "assistant") {
    return chat_->mutable_messages(last);
  }
  v1::ChatMessage* message = chat_->add_messages();
  message->set_role("assistant");
  return message;
}

std::string InputReader::RequiredString(JsonFields* item, std::string_view name) {
  std::optional<std::string> text = item->String(name);
  if (!text.has_value()) {
    item->Fail(name, absl::StrCat(item->PathOf(name), " is missing"), "missing");
  }
  return std::move(text).value_or("");
}

std::optional<std::string> InputReader::ReadText(JsonFields* owner, std::string_view name,
                                                 Types types) {
  const json::value* value = owner->Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::string(View(value->get_string()));
  if (!value->is_array()) {
    owner->Fail(name,
                absl::StrCat(owner->PathOf(name), " must be a string or a list of parts, not ",
                             ToAbsl(KindOf(*value))),
                "invalid_type");
    return std::nullopt;
  }
  const json::array* parts = owner->Array(name, kMaxParts);
  if (parts == nullptr) return std::nullopt;
  std::string joined;
  for (size_t i = 0; i < parts->size() && owner->ok(); ++i) {
    const std::string path = absl::StrCat(owner->PathOf(name), "[", i, "]");
    const json::object* object = (*parts)[i].if_object();
    if (object == nullptr) {
      owner->Fail(name, absl::StrCat(path, " must be an object"), "invalid_type");
      return std::nullopt;
    }
    JsonFields part(*object, path, owner->error());
    const std::string type = part.String("type").value_or("");
    if (std::find(types.begin(), types.end(), type) == types.end()) {
      part.Fail("type",
                absl::StrCat(path, ".type \"", type.substr(0, kMaxNameBytes),
                             "\" is not supported here by this version"),
                "unsupported_parameter");
      return std::nullopt;
    }
    if (i > 0) joined += '\n';
    joined += RequiredString(&part, type == "refusal" ? "refusal" : "text");
    part.Accept({"annotations", "logprobs", "prompt_cache_breakpoint"});
    part.AppendUnknown(ignored_);
  }
  return joined;
}

void InputReader::ReadMessage(JsonFields* item) {
  std::string role = RequiredString(item, "role");
  if (role == "developer") role = "system";
  std::optional<std::string> text;
  if (role == "assistant") {
    text = ReadText(item, "content", {"output_text", "refusal", "input_text"});
  } else if (role == "user" || role == "system") {
    text = ReadText(item, "content", {"input_text"});
  } else {
    item->Fail("role",
               absl::StrCat(item->PathOf("role"), " must be user, assistant, system or developer"));
    return;
  }
  if (!text.has_value()) {
    item->Fail("content", absl::StrCat(item->PathOf("content"), " is missing"), "missing");
    return;
  }
  AddText(role, *text);
  item->Accept({"id", "status", "phase"});
}

void InputReader::ReadFunctionCall(JsonFields* item) {
  v1::ToolCall call;
  call.set_id(RequiredString(item, "call_id"));
  call.set_name(RequiredString(item, "name"));
  call.set_arguments_json(RequiredString(item, "arguments"));
  tool_names_[call.id()] = call.name();
  *AssistantTurn()->add_tool_calls() = std::move(call);
  item->Accept({"id", "status", "caller"});
}

void InputReader::ReadFunctionCallOutput(JsonFields* item) {
  v1::ChatMessage* message = chat_->add_messages();
  message->set_role("tool");
  message->set_tool_call_id(RequiredString(item, "call_id"));
  const auto name = tool_names_.find(message->tool_call_id());
  if (name != tool_names_.end()) message->set_name(name->second);
  const std::optional<std::string> output = ReadText(item, "output", {"input_text"});
  if (!output.has_value()) {
    item->Fail("output", absl::StrCat(item->PathOf("output"), " is missing"), "missing");
  }
  message->set_content(output.value_or(""));
  item->Accept({"id", "status", "caller", "name"});
}

void InputReader::ReadReasoning(JsonFields* item) {
  // The reasoning itself; where there is none, what was said of it.
  std::optional<std::string> text = ReadText(item, "content", {"reasoning_text"});
  std::optional<std::string> summary = ReadText(item, "summary", {"summary_text"});
  if (!text.has_value() || text->empty()) text = std::move(summary);
  if (item->Find("encrypted_content") != nullptr)
    item->AppendIgnored("encrypted_content", ignored_);
  item->Accept({"id", "status"});
  if (!text.has_value() || text->empty()) return;
  v1::ChatMessage* message = AssistantTurn();
  // Reasoning opens a turn.
  if (message->has_content() || message->tool_calls_size() > 0) {
    message = chat_->add_messages();
    message->set_role("assistant");
  }
  absl::StrAppend(message->mutable_reasoning_content(),
                  message->reasoning_content().empty() ? "" : "\n", *text);
}

void InputReader::ReadItem(JsonFields* item) {
  const std::string type = item->String("type").value_or("message");
  if (type == "message") {
    ReadMessage(item);
  } else if (type == "function_call") {
    ReadFunctionCall(item);
  } else if (type == "function_call_output") {
    ReadFunctionCallOutput(item);
  } else if (type == "reasoning") {
    ReadReasoning(item);
  } else {
    item->Fail("type",
               absl::StrCat(item->PathOf("type"), " \"", type.substr(0, kMaxNameBytes),
                            "\" is not supported by this version, which keeps no state and has "
                            "function tools only"),
               "unsupported_parameter");
  }
  item->AppendUnknown(ignored_);
}

}  // namespace

void ReadResponsesInput(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  InputReader reader(chat, ignored);
  if (const auto instructions = fields->String("instructions")) {
    reader.AddText("system", *instructions);
  }
  const json::value* input = fields->Find("input");
  if (input == nullptr) {
    fields->Fail("input", "input is missing", "missing");
    return;
  }
  if (input->is_string()) {
    reader.AddText("user", View(input->get_string()));
    return;
  }
  if (!input->is_array()) {
    fields->Fail(
        "input",
        absl::StrCat("input must be a string or a list of items, not ", ToAbsl(KindOf(*input))),
        "invalid_type");
    return;
  }
  if (input->get_array().empty()) fields->Fail("input", "input must not be empty");
  fields->EachObject("input", kMaxItems, [&](JsonFields* item) { reader.ReadItem(item); });
}

}  // namespace fastgen::gateway
