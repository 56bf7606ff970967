#include "server/gateway/anthropic_conversation.h"

#include <boost/json/serialize.hpp>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxBlocks = 4096;
constexpr size_t kMaxNameBytes = 64;  // of what the client made up, in a message

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

class ConversationReader {
 public:
  ConversationReader(v1::Chat* chat, std::vector<std::string>* ignored)
      : chat_(chat), ignored_(ignored) {}

  void ReadSystem(JsonFields* fields);
  void ReadMessage(JsonFields* message);
  // After the last message.
  void Finish();

 private:
  using ReadBlock = std::function<void(JsonFields* block, const std::string& type)>;

  // Calls `read` for each object of the list, with its type.
  void ReadBlocks(JsonFields* owner, std::string_view name, const ReadBlock& read);
  // A string, or a list of text blocks joined with a line break; nullopt when absent or wrong.
  std::optional<std::string> ReadText(JsonFields* owner, std::string_view name);
  void ReadUserBlock(JsonFields* block, const std::string& type);
  void ReadAssistantBlock(JsonFields* block, const std::string& type);
  void ReadToolUse(JsonFields* block);
  void ReadToolResult(JsonFields* block);
  v1::ChatMessage* MessageOf(const std::string& role);
  void AddText(const std::string& role, std::string_view text);
  std::string TextOf(JsonFields* block, std::string_view name);
  static void Refuse(JsonFields* block, const std::string& type);

  v1::Chat* const chat_;
  std::vector<std::string>* const ignored_;
  std::unordered_map<std::string, std::string> tool_names_;  // by the id of the call
};

void ConversationReader::Refuse(JsonFields* block, const std::string& type) {
  if (type.empty()) {
    block->Fail("type", absl::StrCat(block->PathOf("type"), " is missing"), "missing");
    return;
  }
  block->Fail("type",
              absl::StrCat(block->PathOf("type"), " \"", type.substr(0, kMaxNameBytes),
                           "\" is not supported here by this version"),
              "unsupported_parameter");
}

// Turns of one role that follow each other are one.
v1::ChatMessage* ConversationReader::MessageOf(const std::string& role) {
  const int last = chat_->messages_size() - 1;
  if (last >= 0 && chat_->messages(last).role() == role) return chat_->mutable_messages(last);
  v1::ChatMessage* message = chat_->add_messages();
  message->set_role(role);
  return message;
}

void ConversationReader::AddText(const std::string& role, std::string_view text) {
  v1::ChatMessage* message = MessageOf(role);
  if (message->has_content()) message->mutable_content()->push_back('\n');
  message->mutable_content()->append(text);
}

std::string ConversationReader::TextOf(JsonFields* block, std::string_view name) {
  std::optional<std::string> text = block->String(name);
  if (!text.has_value()) {
    block->Fail(name, absl::StrCat(block->PathOf(name), " is missing"), "missing");
  }
  return std::move(text).value_or("");
}

void ConversationReader::ReadBlocks(JsonFields* owner, std::string_view name,
                                    const ReadBlock& read) {
  owner->EachObject(name, kMaxBlocks, [&](JsonFields* block) {
    read(block, block->String("type").value_or(""));
    block->Accept({"cache_control"});
    block->AppendUnknown(ignored_);
  });
}

std::optional<std::string> ConversationReader::ReadText(JsonFields* owner, std::string_view name) {
  const json::value* value = owner->Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return std::string(View(value->get_string()));
  if (!value->is_array()) {
    owner->Fail(name,
                absl::StrCat(owner->PathOf(name), " must be a string or a list of blocks, not ",
                             ToAbsl(KindOf(*value))),
                "invalid_type");
    return std::nullopt;
  }
  std::string joined;
  bool first = true;
  ReadBlocks(owner, name, [&](JsonFields* block, const std::string& type) {
    if (type != "text") {
      Refuse(block, type);
      return;
    }
    if (!std::exchange(first, false)) joined += '\n';
    joined += TextOf(block, "text");
    block->Accept({"citations"});
  });
  return joined;
}

void ConversationReader::ReadToolUse(JsonFields* block) {
  v1::ToolCall* call = MessageOf("assistant")->add_tool_calls();
  call->set_id(TextOf(block, "id"));
  call->set_name(TextOf(block, "name"));
  const json::object* input = block->Object("input");
  call->set_arguments_json(input == nullptr ? "{}" : json::serialize(*input));
  tool_names_[call->id()] = call->name();
  block->Accept({"caller"});
}

void ConversationReader::ReadToolResult(JsonFields* block) {
  v1::ChatMessage* message = chat_->add_messages();
  message->set_role("tool");
  message->set_tool_call_id(TextOf(block, "tool_use_id"));
  const auto name = tool_names_.find(message->tool_call_id());
  if (name != tool_names_.end()) message->set_name(name->second);
  message->set_content(ReadText(block, "content").value_or(""));
  // Templates have no place for it: what went wrong is said by the content.
  if (block->Bool("is_error").value_or(false)) block->AppendIgnored("is_error", ignored_);
}

void ConversationReader::ReadUserBlock(JsonFields* block, const std::string& type) {
  if (type == "text") {
    AddText("user", TextOf(block, "text"));
    block->Accept({"citations"});
  } else if (type == "tool_result") {
    ReadToolResult(block);
  } else {
    Refuse(block, type);
  }
}

void ConversationReader::ReadAssistantBlock(JsonFields* block, const std::string& type) {
  if (type == "text") {
    AddText("assistant", TextOf(block, "text"));
    block->Accept({"citations"});
  } else if (type == "tool_use") {
    ReadToolUse(block);
  } else if (type == "thinking") {
    MessageOf("assistant")->mutable_reasoning_content()->append(TextOf(block, "thinking"));
    block->Accept({"signature"});
  } else if (type == "redacted_thinking") {
    block->AppendIgnored("data", ignored_);
    block->Accept({"data"});
  } else {
    Refuse(block, type);
  }
}

void ConversationReader::ReadSystem(JsonFields* fields) {
  if (const auto text = ReadText(fields, "system")) AddText("system", *text);
}

void ConversationReader::ReadMessage(JsonFields* message) {
  const std::string role = message->String("role").value_or("");
  const json::value* content = message->Find("content");
  if (role != "user" && role != "assistant" && role != "system") {
    message->Fail("role",
                  absl::StrCat(message->PathOf("role"), " must be user, assistant or system"));
  } else if (content == nullptr) {
    message->Fail("content", absl::StrCat(message->PathOf("content"), " is missing"), "missing");
  } else if (role == "system" || !content->is_array()) {
    if (const auto text = ReadText(message, "content")) AddText(role, *text);
  } else if (content->get_array().empty()) {
    AddText(role, "");
  } else {
    ReadBlocks(message, "content", [&](JsonFields* block, const std::string& type) {
      if (role == "user") {
        ReadUserBlock(block, type);
      } else {
        ReadAssistantBlock(block, type);
      }
    });
  }
  message->AppendUnknown(ignored_);
}

void ConversationReader::Finish() {
  const int last = chat_->messages_size() - 1;
  if (last < 0) return;
  const v1::ChatMessage& message = chat_->messages(last);
  if (message.role() != "assistant" || message.tool_calls_size() > 0) return;
  chat_->set_continue_final_message(true);
  chat_->set_add_generation_prompt(false);
}

}  // namespace

void ReadConversation(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored) {
  ConversationReader reader(chat, ignored);
  reader.ReadSystem(fields);
  if (fields->Find("messages") == nullptr) {
    fields->Fail("messages", "messages is missing", "missing");
    return;
  }
  const bool read = fields->EachObject("messages", kMaxMessages,
                                       [&](JsonFields* message) { reader.ReadMessage(message); });
  if (!read) return;
  // What stands in `system` is no turn.
  if (fields->Find("messages")->get_array().empty()) {
    fields->Fail("messages", "messages must not be empty");
  }
  reader.Finish();
}

}  // namespace fastgen::gateway
