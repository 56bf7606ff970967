#include "engine/text/parser_choice.h"

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr std::pair<std::string_view, ToolCallFormat> kToolCallParsers[] = {
    {"none", ToolCallFormat::kNone},
    {"hermes", ToolCallFormat::kHermes},
    {"llama3_json", ToolCallFormat::kLlama3Json},
    {"mistral", ToolCallFormat::kMistral},
};
constexpr std::pair<std::string_view, ReasoningFormat> kReasoningParsers[] = {
    {"none", ReasoningFormat::kNone},
    {"think", ReasoningFormat::kThink},
};

template <typename Table>
absl::Status CheckName(std::string_view what, std::string_view name, const Table& table) {
  std::string names = "auto";
  bool is_known = name == "auto";
  for (const auto& [known, format] : table) {
    absl::StrAppend(&names, ", ", ToAbsl(known));
    is_known = is_known || known == name;
  }
  if (is_known) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      ToAbsl(what), ": \"", ToAbsl(name.substr(0, 64)), "\" is none of ", names));
}

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Of the special tokens that are written like one of `markers`.
std::vector<int32_t> FindTokens(const Tokenizer& tokenizer,
                                std::initializer_list<std::string_view> markers) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.IsSpecial(id)) continue;
    const std::string_view text = tokenizer.TokenBytes(id);
    for (std::string_view marker : markers) {
      if (text == marker) ids.push_back(id);
    }
  }
  return ids;
}

ToolCallFormat DetectToolCalls(std::string_view chat_template, const Tokenizer& tokenizer) {
  if (chat_template.empty()) {
    if (!FindTokens(tokenizer, {"[TOOL_CALLS]"}).empty()) return ToolCallFormat::kMistral;
    if (!FindTokens(tokenizer, {"<tool_call>"}).empty()) return ToolCallFormat::kHermes;
    if (!FindTokens(tokenizer, {"<|python_tag|>"}).empty()) return ToolCallFormat::kLlama3Json;
    return ToolCallFormat::kNone;
  }
  if (Has(chat_template, "[TOOL_CALLS]")) return ToolCallFormat::kMistral;
  if (Has(chat_template, "<tool_call>")) {
    return Has(chat_template, "<function=") ? ToolCallFormat::kNone : ToolCallFormat::kHermes;
  }
  const bool is_llama = Has(chat_template, "<|python_tag|>") ||
                        (Has(chat_template, "<|start_header_id|>") &&
                         Has(chat_template, "\"parameters\": "));
  return is_llama ? ToolCallFormat::kLlama3Json : ToolCallFormat::kNone;
}

ReasoningFormat DetectReasoning(std::string_view chat_template, const Tokenizer& tokenizer) {
  const bool thinks = chat_template.empty()
                          ? !FindTokens(tokenizer, {"<think>"}).empty()
                          : Has(chat_template, "<think>") || Has(chat_template, "</think>");
  return thinks ? ReasoningFormat::kThink : ReasoningFormat::kNone;
}

template <typename Table>
auto FormatOf(std::string_view name, const Table& table) {
  auto format = table[0].second;
  for (const auto& [known, value] : table) {
    if (known == name) format = value;
  }
  return format;
}

template <typename Table, typename Format>
std::string_view NameIn(const Table& table, Format format) {
  for (const auto& [name, value] : table) {
    if (value == format) return name;
  }
  return "none";
}

}  // namespace

absl::Status CheckToolCallParserName(std::string_view name) {
  return CheckName("tool_call_parser", name, kToolCallParsers);
}

absl::Status CheckReasoningParserName(std::string_view name) {
  return CheckName("reasoning_parser", name, kReasoningParsers);
}

absl::StatusOr<ParserChoice> ChooseParsers(std::string_view tool_calls, std::string_view reasoning,
                                           std::string_view chat_template,
                                           const Tokenizer& tokenizer) {
  RETURN_IF_ERROR(CheckToolCallParserName(tool_calls));
  RETURN_IF_ERROR(CheckReasoningParserName(reasoning));
  ParserChoice choice;
  choice.tool_calls = tool_calls == "auto" ? DetectToolCalls(chat_template, tokenizer)
                                           : FormatOf(tool_calls, kToolCallParsers);
  choice.reasoning = reasoning == "auto" ? DetectReasoning(chat_template, tokenizer)
                                         : FormatOf(reasoning, kReasoningParsers);
  switch (choice.tool_calls) {
    case ToolCallFormat::kNone:
      break;
    case ToolCallFormat::kHermes:
      choice.tool_call_markers = FindTokens(tokenizer, {"<tool_call>", "</tool_call>"});
      break;
    case ToolCallFormat::kLlama3Json:
      choice.tool_call_markers = FindTokens(tokenizer, {"<|python_tag|>"});
      break;
    case ToolCallFormat::kMistral:
      choice.tool_call_markers =
          FindTokens(tokenizer, {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"});
      break;
  }
  if (choice.reasoning == ReasoningFormat::kThink) {
    choice.reasoning_markers = FindTokens(tokenizer, {"<think>", "</think>"});
  }
  return choice;
}

std::string_view NameOf(ToolCallFormat format) { return NameIn(kToolCallParsers, format); }
std::string_view NameOf(ReasoningFormat format) { return NameIn(kReasoningParsers, format); }

}  // namespace fastgen
