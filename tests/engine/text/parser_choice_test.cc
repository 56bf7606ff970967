#include "engine/text/parser_choice.h"

#include <fstream>
#include <iterator>

#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using testing::FakeTokenizer;

// Some of whose pieces are special.
class MarkedTokenizer final : public Tokenizer {
 public:
  explicit MarkedTokenizer(std::vector<std::string> special) : special_(std::move(special)) {}
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const EncodeOptions&) const override {
    return std::vector<int32_t>();
  }
  std::string_view TokenBytes(int32_t id) const override { return special_[id]; }
  bool IsSpecial(int32_t) const override { return true; }
  int32_t vocab_size() const override { return static_cast<int32_t>(special_.size()); }
  bool has_byte_fallback() const override { return false; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }

 private:
  std::vector<std::string> special_;
};

ParserChoice Auto(std::string_view chat_template, const Tokenizer& tokenizer) {
  auto choice = ChooseParsers("auto", "auto", chat_template, tokenizer);
  REQUIRE(choice.ok());
  return *choice;
}

TEST_CASE("a chat template tells the parsers", "[text]") {
  const FakeTokenizer tokenizer;
  CHECK(Auto("{{ '<tool_call>' }}", tokenizer).tool_calls == ToolCallFormat::kHermes);
  CHECK(Auto("{{ '<tool_call>\n<function=f>' }}", tokenizer).tool_calls == ToolCallFormat::kNone);
  CHECK(Auto("{{ '[TOOL_CALLS]' }}", tokenizer).tool_calls == ToolCallFormat::kMistral);
  CHECK(Auto("{{ '<|python_tag|>' }}", tokenizer).tool_calls == ToolCallFormat::kLlama3Json);
  CHECK(Auto("<|start_header_id|> {\"name\": f, \"parameters\": p}", tokenizer).tool_calls ==
        ToolCallFormat::kLlama3Json);
  CHECK(Auto("{{ messages }}", tokenizer).tool_calls == ToolCallFormat::kNone);
  CHECK(Auto("{{ x.split('</think>') }}", tokenizer).reasoning == ReasoningFormat::kThink);
  CHECK(Auto("{{ messages }}", tokenizer).reasoning == ReasoningFormat::kNone);
}

TEST_CASE("published templates tell the parsers of their models", "[text]") {
  const auto shared = testing::SharedTestdata();
  if (!shared) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  const FakeTokenizer tokenizer;
  for (const auto& [name, tool_calls, reasoning] :
       {std::tuple{"Qwen-Qwen2.5-7B-Instruct", "hermes", "none"},
        std::tuple{"Qwen-Qwen3-0.6B", "hermes", "think"},
        std::tuple{"Qwen-QwQ-32B", "hermes", "think"},
        std::tuple{"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", "none"},
        std::tuple{"meta-llama-Llama-3.1-8B-Instruct", "llama3_json", "none"},
        std::tuple{"meta-llama-Llama-3.2-3B-Instruct", "llama3_json", "none"},
        std::tuple{"meta-llama-Llama-3.3-70B-Instruct", "llama3_json", "none"},
        std::tuple{"mistralai-Mistral-Nemo-Instruct-2407", "mistral", "none"},
        std::tuple{"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "none", "think"},
        std::tuple{"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "none", "think"},
        std::tuple{"google-gemma-2-2b-it", "none", "none"},
        std::tuple{"microsoft-Phi-3.5-mini-instruct", "none", "none"}}) {
    std::ifstream file(*shared / "chat_templates" / (std::string(name) + ".jinja"));
    REQUIRE(file.good());
    const std::string source(std::istreambuf_iterator<char>(file), {});
    const ParserChoice choice = Auto(source, tokenizer);
    INFO(name);
    CHECK(NameOf(choice.tool_calls) == tool_calls);
    CHECK(NameOf(choice.reasoning) == reasoning);
  }
}

TEST_CASE("without a template the special tokens do", "[text]") {
  CHECK(Auto("", MarkedTokenizer({"[TOOL_CALLS]"})).tool_calls == ToolCallFormat::kMistral);
  CHECK(Auto("", MarkedTokenizer({"<tool_call>"})).tool_calls == ToolCallFormat::kHermes);
  CHECK(Auto("", MarkedTokenizer({"<|python_tag|>"})).tool_calls == ToolCallFormat::kLlama3Json);
  CHECK(Auto("", MarkedTokenizer({"<think>"})).reasoning == ReasoningFormat::kThink);
  CHECK(Auto("", FakeTokenizer()).tool_calls == ToolCallFormat::kNone);
  CHECK(Auto("", FakeTokenizer({"[TOOL_CALLS]"})).tool_calls == ToolCallFormat::kNone);
}

TEST_CASE("markers are the special tokens of the chosen parser alone", "[text]") {
  const MarkedTokenizer tokenizer(
      {"<s>", "[TOOL_CALLS]", "</think>", "[ARGS]", "<think>", "<tool_call>"});
  const ParserChoice choice = Auto("[TOOL_CALLS] <think>", tokenizer);
  CHECK(choice.tool_call_markers == std::vector<int32_t>{1, 3});
  CHECK(choice.reasoning_markers == std::vector<int32_t>{2, 4});
  CHECK(Auto("{{ messages }}", tokenizer).tool_call_markers.empty());
}

TEST_CASE("a name is taken at its word, an unknown one is refused with the list", "[text]") {
  const FakeTokenizer tokenizer;
  const auto named = ChooseParsers("mistral", "think", "{{ '<tool_call>' }}", tokenizer);
  REQUIRE(named.ok());
  CHECK(named->tool_calls == ToolCallFormat::kMistral);
  CHECK(named->reasoning == ReasoningFormat::kThink);
  const auto none = ChooseParsers("none", "none", "<tool_call><think>", tokenizer);
  REQUIRE(none.ok());
  CHECK(none->tool_calls == ToolCallFormat::kNone);
  CHECK(none->reasoning == ReasoningFormat::kNone);
  CHECK(ChooseParsers("gpt", "auto", "", tokenizer).status().message() ==
        "tool_call_parser: \"gpt\" is none of auto, none, hermes, llama3_json, mistral");
  CHECK(ChooseParsers("auto", "deepseek", "", tokenizer).status().message() ==
        "reasoning_parser: \"deepseek\" is none of auto, none, think");
  CHECK(NameOf(ToolCallFormat::kLlama3Json) == "llama3_json");
  CHECK(NameOf(ReasoningFormat::kNone) == "none");
}

}  // namespace
}  // namespace fastgen
