#include "engine/text/chat_template.h"

#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/text/jinja_testing.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

constexpr std::string_view kChatMl =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

ChatTemplate MustCompile(std::string_view source) {
  absl::StatusOr<ChatTemplate> compiled = ChatTemplate::Compile(source, "<s>", "</s>");
  INFO(compiled.status().ToString());
  REQUIRE(compiled.ok());
  return *std::move(compiled);
}

// The text, or the error's message.
std::string Render(std::string_view source, const ChatPrompt& chat) {
  absl::StatusOr<RenderedChat> rendered = MustCompile(source).Render(chat, GoldenTime());
  return rendered.ok() ? rendered->text : std::string(rendered.status().message());
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

TEST_CASE("ChatML renders with and without a system message", "[text]") {
  ChatPrompt chat;
  chat.messages = {MakeMessage("user", "Hi")};
  CHECK(Render(kChatMl, chat) ==
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n");
  chat.messages = {MakeMessage("system", "S"), MakeMessage("user", "Hi")};
  chat.add_generation_prompt = false;
  CHECK(Render(kChatMl, chat) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST_CASE("messages have exactly the keys that were given", "[text]") {
  ChatPrompt chat;
  chat.messages = {MakeMessage("user", "Hi")};
  CHECK(Render("{{ messages }}", chat) == "[{'role': 'user', 'content': 'Hi'}]");
  ChatMessage call;
  call.role = "assistant";
  call.tool_calls = {{"c1", "f", R"({"z": 1, "a": [true, null, 1.0]})"}, {"", "g", ""}};
  chat.messages = {call};
  CHECK(Render("{{ messages[0] | tojson }}", chat) ==
        R"({"role": "assistant", "content": null, "tool_calls": [)"
        R"({"id": "c1", "type": "function", "function": {"name": "f", "arguments": )"
        R"({"z": 1, "a": [true, null, 1.0]}}}, )"
        R"({"type": "function", "function": {"name": "g", "arguments": {}}}]})");
  ChatMessage full = MakeMessage("tool", "3");
  full.name = "f";
  full.tool_call_id = "c1";
  full.reasoning_content = "";
  chat.messages = {full};
  CHECK(Render("{{ messages[0].keys() | list }}", chat) ==
        "['role', 'content', 'name', 'tool_call_id', 'reasoning_content']");
}

TEST_CASE("tools are None when there are none, and keep the order of their keys", "[text]") {
  ChatPrompt chat;
  CHECK(Render("{{ tools is none }}", chat) == "True");
  chat.tools_json = {R"({"z":{"b":1,"a":2},"y":"ü","x":1.50})"};
  CHECK(Render("{{ tools[0] | tojson }}", chat) ==
        R"({"z": {"b": 1, "a": 2}, "y": "ü", "x": 1.5})");
}

TEST_CASE("template arguments are variables, but cannot replace what has its own field", "[text]") {
  ChatPrompt chat;
  chat.template_kwargs_json = R"({"enable_thinking": false, "level": "high"})";
  CHECK(Render("{{ enable_thinking }} {{ level }} {{ other is defined }}", chat) ==
        "False high False");
  for (const char* name : {"messages", "tools", "add_generation_prompt"}) {
    chat.template_kwargs_json = std::string("{\"") + name + "\": []}";
    CHECK(Contains(Render("x", chat), std::string("template_kwargs may not set '") + name));
  }
}

TEST_CASE("bos and eos come from the model and the date from the caller", "[text]") {
  CHECK(Render("{{ bos_token }}|{{ eos_token }}", {}) == "<s>|</s>");
  CHECK(Render("{{ strftime_now('%d %b %Y') }}", {}) == "22 Nov 2026");
}

TEST_CASE("a final message is continued where its content ends", "[text]") {
  ChatPrompt chat;
  chat.continue_final_message = true;
  chat.messages = {MakeMessage("user", "Count"), MakeMessage("assistant", "1, 2,")};
  const std::string start =
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nCount<|im_end|>\n"
      "<|im_start|>assistant\n";
  CHECK(Render(kChatMl, chat) == start + "1, 2,");
  chat.messages[1].content = "1, 2, ";
  CHECK(Render(kChatMl, chat) == start + "1, 2, ");
  chat.messages[1].content = "";
  CHECK(Render(kChatMl, chat) == start);
  // The same words elsewhere do not mislead the cut.
  chat.messages = {MakeMessage("user", "Count"), MakeMessage("assistant", "Count")};
  CHECK(Render(kChatMl, chat) == start + "Count");
  // A template that trims its messages gets a trimmed continuation.
  chat.messages = {MakeMessage("assistant", " a b ")};
  CHECK(Render("[{{ messages[0].content | trim }}]", chat) == "[a b");
  // A mark that the request guesses is not the one used.
  chat.messages = {MakeMessage("user", "END-OF-FINAL-MESSAGE-0- END-OF-FINAL-MESSAGE-1-"),
                   MakeMessage("assistant", "x")};
  CHECK(Render("{{ messages[1].content }}{{ messages[0].content }}", chat) == "x");
}

TEST_CASE("a final message without content cannot be continued", "[text]") {
  ChatPrompt chat;
  chat.continue_final_message = true;
  CHECK(Contains(Render(kChatMl, chat), "continue_final_message needs"));
  chat.messages = {MakeMessage("assistant", std::nullopt)};
  CHECK(Contains(Render(kChatMl, chat), "continue_final_message needs"));
  chat.messages = {MakeMessage("assistant", "hidden")};
  CHECK(Contains(Render("nothing", chat), "does not show the final message"));
}

TEST_CASE("JSON that is no object is refused by the name of its field", "[text]") {
  ChatPrompt chat;
  chat.tools_json = {"{}", "[1]"};
  CHECK(Contains(Render("x", chat), "tools[1] must be a JSON object"));
  chat.tools_json = {"{\"a\":"};
  CHECK(Contains(Render("x", chat), "tools[0]: not JSON at byte"));
  chat.tools_json.clear();
  chat.template_kwargs_json = "nul";
  CHECK(Contains(Render("x", chat), "template_kwargs: not JSON"));
  chat.template_kwargs_json.clear();
  chat.messages = {MakeMessage("user", "x"), MakeMessage("assistant", std::nullopt)};
  chat.messages[1].tool_calls = {{"", "f", "{}"}, {"", "f", "5"}};
  CHECK(Contains(Render("x", chat), "messages[1]: tool_calls[1].arguments must be a JSON object"));
}

TEST_CASE("raise_exception and misfitting messages are invalid arguments with a position",
          "[text]") {
  ChatTemplate compiled = MustCompile("a\n  {{ raise_exception('Roles must ' ~ 'alternate') }}");
  absl::Status status = compiled.Render({}, GoldenTime()).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message() == "chat template 2:6: Roles must alternate");
  ChatPrompt chat;
  chat.messages = {MakeMessage("user", std::nullopt)};
  status = MustCompile("{{ 'x' + messages[0].content }}").Render(chat, GoldenTime()).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message() ==
        "chat template 1:8: can only concatenate str (not \"NoneType\") to str");
}

TEST_CASE("one template renders on many threads at once", "[text]") {
  ChatTemplate compiled = MustCompile(kChatMl);
  std::vector<int> num_wrong(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      ChatPrompt chat;
      chat.messages = {MakeMessage("system", "s"), MakeMessage("user", std::to_string(t))};
      for (int i = 0; i < 200; ++i) {
        absl::StatusOr<RenderedChat> rendered = compiled.Render(chat, GoldenTime());
        bool right = rendered.ok() && Contains(rendered->text, "user\n" + std::to_string(t) + "<");
        num_wrong[t] += right ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_wrong == std::vector<int>(4, 0));
}

}  // namespace
}  // namespace fastgen::testing
