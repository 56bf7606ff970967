#include "server/gateway/refused_fields.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::gateway {
namespace json = boost::json;
namespace {

constexpr size_t kMaxNameBytes = 64;  // of a name that the client made up, in a message

// The value that asks for nothing.
enum class Neutral { kNone, kFalse, kTrue, kZero, kOne, kMinusOne, kEmpty, kPlain };

struct Row {
  RefusedOn on;
  std::string_view name;
  Neutral neutral;
  std::string_view why = "";
};

constexpr std::string_view kChatOnly = "it belongs to /chat/completions";
constexpr std::string_view kOldTools = "use tools and tool_choice";
constexpr std::string_view kSamplers = "this sampler is not part of the engine";

constexpr Row kRows[] = {
    // vLLM
    {RefusedOn::kBoth, "use_beam_search", Neutral::kFalse, "best_of with sampling is"},
    {RefusedOn::kBoth, "length_penalty", Neutral::kOne, "it belongs to beam search"},
    {RefusedOn::kBoth, "truncate_prompt_tokens", Neutral::kNone,
     "a prompt is never shortened; /tokenize tells its length"},
    {RefusedOn::kBoth, "spaces_between_special_tokens", Neutral::kTrue},
    {RefusedOn::kBoth, "logprob_token_ids", Neutral::kEmpty},
    {RefusedOn::kBoth, "repetition_detection", Neutral::kNone},
    {RefusedOn::kBoth, "thinking_token_budget", Neutral::kNone},
    {RefusedOn::kBoth, "kv_transfer_params", Neutral::kEmpty},
    {RefusedOn::kBoth, "vllm_xargs", Neutral::kEmpty},
    {RefusedOn::kBoth, "logits_processors", Neutral::kEmpty},
    {RefusedOn::kBoth, "guided_whitespace_pattern", Neutral::kEmpty},
    // SGLang
    {RefusedOn::kBoth, "stop_regex", Neutral::kEmpty},
    {RefusedOn::kBoth, "no_stop_trim", Neutral::kFalse, "use include_stop_str_in_output"},
    {RefusedOn::kBoth, "lora_path", Neutral::kEmpty},
    {RefusedOn::kBoth, "custom_logit_processor", Neutral::kEmpty},
    {RefusedOn::kBoth, "return_hidden_states", Neutral::kFalse},
    {RefusedOn::kBoth, "session_params", Neutral::kEmpty},
    // llama-server
    {RefusedOn::kBoth, "typical_p", Neutral::kOne, kSamplers},
    {RefusedOn::kBoth, "mirostat", Neutral::kZero, kSamplers},
    {RefusedOn::kBoth, "dry_multiplier", Neutral::kZero, kSamplers},
    {RefusedOn::kBoth, "xtc_probability", Neutral::kZero, kSamplers},
    {RefusedOn::kBoth, "top_n_sigma", Neutral::kMinusOne, kSamplers},
    {RefusedOn::kBoth, "dynatemp_range", Neutral::kZero, kSamplers},
    {RefusedOn::kBoth, "samplers", Neutral::kNone, "their order is fixed"},
    {RefusedOn::kBoth, "repeat_penalty", Neutral::kOne, "use repetition_penalty"},
    {RefusedOn::kBoth, "n_predict", Neutral::kNone, "use max_tokens"},
    {RefusedOn::kBoth, "n_probs", Neutral::kZero, "use logprobs"},
    {RefusedOn::kBoth, "post_sampling_probs", Neutral::kFalse},
    {RefusedOn::kBoth, "lora", Neutral::kEmpty},
    {RefusedOn::kBoth, "grammar_lazy", Neutral::kFalse},
    {RefusedOn::kBoth, "return_progress", Neutral::kFalse},
    {RefusedOn::kBoth, "timings_per_token", Neutral::kFalse},
    // Chat
    {RefusedOn::kChat, "functions", Neutral::kEmpty, kOldTools},
    {RefusedOn::kChat, "function_call", Neutral::kNone, kOldTools},
    {RefusedOn::kChat, "audio", Neutral::kNone},
    {RefusedOn::kChat, "prediction", Neutral::kNone},
    {RefusedOn::kChat, "web_search_options", Neutral::kNone},
    {RefusedOn::kChat, "verbosity", Neutral::kNone,
     "what a model's template understands goes into chat_template_kwargs"},
    {RefusedOn::kChat, "reasoning_effort", Neutral::kNone,
     "what a model's template understands goes into chat_template_kwargs"},
    {RefusedOn::kChat, "chat_template", Neutral::kEmpty,
     "templates come with the model, since one is a program; send a rendered prompt to "
     "/completions instead"},
    {RefusedOn::kChat, "documents", Neutral::kEmpty,
     "put what the model is to read into the messages"},
    {RefusedOn::kChat, "suffix", Neutral::kEmpty},
    {RefusedOn::kChat, "echo", Neutral::kFalse, "continue_final_message goes on with a message"},
    {RefusedOn::kChat, "parse_tool_calls", Neutral::kTrue, "tool_choice \"none\" leaves them"},
    {RefusedOn::kChat, "stream_reasoning", Neutral::kTrue},
    {RefusedOn::kChat, "reasoning_format", Neutral::kPlain,
     "separate_reasoning false leaves the reasoning in the content"},
    // Completions
    {RefusedOn::kCompletions, "suffix", Neutral::kEmpty},
    {RefusedOn::kCompletions, "messages", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "tools", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "tool_choice", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "top_logprobs", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "chat_template", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "chat_template_kwargs", Neutral::kEmpty, kChatOnly},
    {RefusedOn::kCompletions, "add_generation_prompt", Neutral::kNone, kChatOnly},
    {RefusedOn::kCompletions, "continue_final_message", Neutral::kFalse, kChatOnly},
};

// vLLM's family of constraints grows; those that are read elsewhere.
constexpr std::string_view kGuided[] = {"guided_json",
                                        "guided_regex",
                                        "guided_choice",
                                        "guided_grammar",
                                        "guided_json_object",
                                        "guided_decoding_backend",
                                        "guided_whitespace_pattern"};

bool IsNumber(const json::value& value, double number) {
  return value.is_number() && value.to_number<double>() == number;
}

bool IsNeutral(const json::value& value, Neutral neutral) {
  switch (neutral) {
    case Neutral::kNone:
      return false;
    case Neutral::kFalse:
      return value.is_bool() && !value.get_bool();
    case Neutral::kTrue:
      return value.is_bool() && value.get_bool();
    case Neutral::kZero:
      return IsNumber(value, 0);
    case Neutral::kOne:
      return IsNumber(value, 1);
    case Neutral::kMinusOne:
      return IsNumber(value, -1);
    case Neutral::kEmpty:
      return (value.is_array() && value.get_array().empty()) ||
             (value.is_object() && value.get_object().empty()) ||
             (value.is_string() && value.get_string().empty());
    case Neutral::kPlain:  // what is done in any case
      return value.is_string() &&
             (value.get_string() == "auto" || value.get_string() == "deepseek");
  }
  return false;
}

void Refuse(JsonFields* fields, std::string_view name, std::string_view why) {
  name = name.substr(0, kMaxNameBytes);
  fields->Fail(name,
               absl::StrCat(ToAbsl(name), " is not supported by this version",
                            why.empty() ? "" : ": ", ToAbsl(why)),
               "unsupported_parameter");
}

}  // namespace

void RefuseFields(RefusedOn route, JsonFields* fields) {
  for (const Row& row : kRows) {
    if (row.on != route) continue;
    const json::value* value = fields->Find(row.name);
    if (value != nullptr && !IsNeutral(*value, row.neutral)) Refuse(fields, row.name, row.why);
  }
  if (route != RefusedOn::kBoth) return;
  for (std::string_view name : fields->NamesWithPrefix("guided_")) {
    const bool read = std::find(std::begin(kGuided), std::end(kGuided), name) != std::end(kGuided);
    if (!read && fields->Find(name) != nullptr) Refuse(fields, name, "");
  }
}

}  // namespace fastgen::gateway
