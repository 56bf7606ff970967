// Real models' templates against what transformers rendered, and single features against what Jinja
// rendered.
#include <catch2/catch.hpp>

#include "tests/engine/text/jinja_testing.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

std::string Field(const jinja::Value& row, std::string_view name) {
  const jinja::Value* value = row.dict().Find(name);
  return value == nullptr ? "" : std::string(value->bytes());
}

// Whether the row renders as it says; otherwise what happened.
std::string Mismatch(const std::string& source, const jinja::Value& row) {
  absl::StatusOr<RenderedChat> rendered = RenderJinja(source, *row.dict().Find("context"));
  std::string error = Field(row, "error");
  if (row.dict().Find("rendered") != nullptr) {
    if (!rendered.ok()) return std::string(rendered.status().message());
    std::string expected = Field(row, "rendered");
    return rendered->text == expected ? "" : "got: " + rendered->text + "\nexpected: " + expected;
  }
  if (rendered.ok()) return "rendered '" + rendered->text + "' instead of the error: " + error;
  std::string message(rendered.status().message());
  bool same = message.find(ErrorMessage(error)) != std::string::npos;
  return same ? "" : "error: " + message + "\nexpected: " + error;
}

TEST_CASE("models' templates render as transformers renders them", "[text]") {
  std::optional<std::filesystem::path> shared = SharedTestdata();
  if (!shared) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  size_t num_rows = 0;
  for (const std::string& line : ReadLines(*shared / "chat_templates" / "expected.jsonl")) {
    jinja::Heap heap;
    absl::StatusOr<jinja::Value> row = jinja::ParseJson(heap, line);
    REQUIRE(row.ok());
    std::string name = Field(*row, "template");
    INFO(name << " " << Field(*row, "case"));
    CHECK(Mismatch(ReadFile(*shared / "chat_templates" / name), *row) == "");
    ++num_rows;
  }
  CHECK(num_rows == 208);
}

TEST_CASE("a past call and its result reach the prompt of every family with tools", "[text]") {
  std::optional<std::filesystem::path> shared = SharedTestdata();
  if (!shared) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  ChatPrompt chat;
  chat.messages = {MakeMessage("user", "How is Rome?"), MakeMessage("assistant", std::nullopt),
                   MakeMessage("tool", "{\"sky\": \"clear\"}")};
  chat.messages[1].tool_calls = {{"abcdefghi", "get_weather", R"({"city": "Rome", "days": 2})"}};
  chat.messages[2].tool_call_id = "abcdefghi";
  chat.tools_json = {
      R"({"type": "function", "function": {"name": "get_weather", "description": "Tells it.", )"
      R"("parameters": {"type": "object", "properties": {"city": {"type": "string", )"
      R"("description": "Where"}}, "required": ["city"]}}})"};
  for (const char* name :
       {"Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-QwQ-32B",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "meta-llama-Llama-3.1-8B-Instruct",
        "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct",
        "mistralai-Mistral-Nemo-Instruct-2407"}) {
    INFO(name);
    auto compiled = ChatTemplate::Compile(
        ReadFile(*shared / "chat_templates" / (std::string(name) + ".jinja")), "<s>", "</s>");
    REQUIRE(compiled.ok());
    auto rendered = compiled->Render(chat, GoldenTime());
    INFO(rendered.status().ToString());
    REQUIRE(rendered.ok());
    const size_t described = rendered->text.find("Tells it.");
    CHECK(described != std::string::npos);
    const size_t called = rendered->text.find(R"("city": "Rome", "days": 2)");
    CHECK(called != std::string::npos);
    CHECK(rendered->text.rfind("get_weather", called) != std::string::npos);
    const size_t answered = rendered->text.find("clear", called);
    CHECK(answered != std::string::npos);
  }
}

// 1 MB of messages of this many bytes, each with blanks around it.
ChatPrompt LongConversation(size_t message_bytes) {
  ChatPrompt chat;
  const std::string words = "It was said, and said again: \"so be it\".\n";
  for (size_t size = 0; size < (size_t{1} << 20); size += message_bytes) {
    const bool is_user = chat.messages.size() % 2 == 0;
    std::string text = is_user ? "\n " : "<think>\nHm.\n</think>\n\n";
    while (text.size() < message_bytes) text += words;
    chat.messages.push_back(MakeMessage(is_user ? "user" : "assistant", text + "\n \n"));
  }
  if (chat.messages.size() % 2 == 0) chat.messages.push_back(MakeMessage("user", "Go on."));
  return chat;
}

TEST_CASE("a long honest conversation stays within the bounds", "[text]") {
  std::optional<std::filesystem::path> shared = SharedTestdata();
  if (!shared) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  for (const char* name : {"meta-llama-Llama-3.1-8B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-QwQ-32B",
                           "google-gemma-2-2b-it", "mistralai-Mistral-Nemo-Instruct-2407"}) {
    auto compiled = ChatTemplate::Compile(
        ReadFile(*shared / "chat_templates" / (std::string(name) + ".jinja")), "<s>", "</s>");
    REQUIRE(compiled.ok());
    for (size_t message_bytes : {size_t{500}, size_t{20'000}, size_t{1} << 20}) {
      INFO(name << ", messages of " << message_bytes << " bytes");
      auto rendered = compiled->Render(LongConversation(message_bytes), GoldenTime());
      INFO(rendered.status().ToString());
      REQUIRE(rendered.ok());
      CHECK(rendered->text.size() > (size_t{1} << 20) * 9 / 10);
    }
  }
}

TEST_CASE("each feature renders as Jinja renders it", "[text]") {
  size_t num_rows = 0;
  for (const std::string& line :
       ReadLines(SourceTestdata() / "chat_templates" / "features.jsonl")) {
    jinja::Heap heap;
    absl::StatusOr<jinja::Value> row = jinja::ParseJson(heap, line);
    REQUIRE(row.ok());
    std::string source = Field(*row, "template");
    INFO(source);
    CHECK(Mismatch(source, *row) == "");
    ++num_rows;
  }
  CHECK(num_rows > 100);
}

}  // namespace
}  // namespace fastgen::testing
