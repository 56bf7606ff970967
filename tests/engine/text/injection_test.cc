// Every special token of every tokenizer, typed into every role of every published template: what
// was typed never becomes a special token, whatever template and tokenizer meet.
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/chat_template.h"
#include "tests/engine/text/jinja_testing.h"
#include "tests/engine/text/real_tokenizers.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

// A conversation that says `typed` in one place: a message's content by its role, a name, a call.
std::vector<ChatPrompt> Conversations(const std::string& typed) {
  std::vector<ChatPrompt> chats;
  for (const char* role : {"system", "user", "assistant", "tool", "ipython"}) {
    ChatPrompt chat;
    if (role == std::string("system")) {
      chat.messages = {MakeMessage("system", typed), MakeMessage("user", "u")};
    } else if (role == std::string("user")) {
      chat.messages = {MakeMessage("user", typed)};
    } else {
      chat.messages = {MakeMessage("user", "u"), MakeMessage(role, typed), MakeMessage("user", "v")};
      chat.messages[1].tool_call_id = "123456789";
    }
    chats.push_back(std::move(chat));
  }
  ChatPrompt call;
  call.messages = {MakeMessage("user", "u"), MakeMessage("assistant", std::nullopt)};
  call.messages[1].tool_calls = {{"123456789", "f", "{\"a\": \"" + typed + "\"}"}};
  call.messages.push_back(MakeMessage("tool", typed));
  call.messages[2].tool_call_id = "123456789";
  call.tools_json = {R"({"type": "function", "function": {"name": "f", "description": ")" + typed +
                     R"(", "parameters": {"type": "object", "properties": {}}}})"};
  chats.push_back(std::move(call));
  return chats;
}

// How often each special token is in the prompt; nothing where the template refuses the messages.
std::optional<std::map<int32_t, int>> SpecialIds(const ChatTemplate& chat_template,
                                                 const Tokenizer& tokenizer,
                                                 const ChatPrompt& chat) {
  const auto rendered = chat_template.Render(chat, GoldenTime());
  if (!rendered.ok()) return std::nullopt;
  EncodeOptions options;
  options.add_special_tokens = false;
  options.untrusted = rendered->untrusted;
  const auto ids = tokenizer.Encode(rendered->text, options);
  REQUIRE(ids.ok());
  std::map<int32_t, int> counts;
  for (int32_t id : *ids) {
    if (tokenizer.IsSpecial(id)) ++counts[id];
  }
  return counts;
}

TEST_CASE("no typed text becomes a special token of any tokenizer in any template", "[text]") {
  const auto shared = SharedTestdata();
  if (!shared) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  int num_compared = 0;
  for (const std::string& name : TokenizerNames()) {
    const std::unique_ptr<Tokenizer> tokenizer = LoadByName(name);
    std::string typed;
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      const std::string token(tokenizer->TokenBytes(id));
      // Reserved ones, of which there are hundreds, are alike.
      if (!tokenizer->IsSpecial(id) || token.find("reserved_special_token_1") == 2) continue;
      if (token.find_first_of("\"\\\n") == std::string::npos) typed += token + "|";
    }
    for (const auto& file : std::filesystem::directory_iterator(*shared / "chat_templates")) {
      if (file.path().extension() != ".jinja") continue;
      const auto chat_template = ChatTemplate::Compile(ReadFile(file.path()), "<s>", "</s>");
      REQUIRE(chat_template.ok());
      const std::vector<ChatPrompt> plain = Conversations("plain");
      const std::vector<ChatPrompt> hostile = Conversations(typed);
      for (size_t i = 0; i < plain.size(); ++i) {
        const auto expected = SpecialIds(*chat_template, *tokenizer, plain[i]);
        const auto found = SpecialIds(*chat_template, *tokenizer, hostile[i]);
        if (!expected.has_value() || !found.has_value()) continue;
        ++num_compared;
        if (*found == *expected) continue;
        CAPTURE(name, file.path().filename().string(), i);
        CHECK(*found == *expected);
      }
    }
  }
  CHECK(num_compared > 300);
}

}  // namespace
}  // namespace fastgen::testing
