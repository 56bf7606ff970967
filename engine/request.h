// What a request is, as plain data: what to generate from, how to choose tokens, when to stop, what to report.
//
// No protobuf, no text library, no clock: server/proto_convert fills it, the engine consumes it.
// Thread rule: values; a request belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace fastgen {

class Grammar;  // engine/text/grammar.h

// One call's identity inside the engine; never reused within a process.
using SequenceId = uint64_t;

struct SamplingParams {
  float temperature = 1;  // 0: greedy
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // (0, 1]; 1: off
  float min_p = 0;        // [0, 1]; 0: off
  std::optional<uint64_t> seed;  // absent: drawn at admission and reported in the receipt
  // Penalties, taken off the logits before the temperature. Presence and frequency look at the output alone,
  // repetition at prompt and output.
  float presence_penalty = 0;    // [-2, 2]; 0: off
  float frequency_penalty = 0;   // [-2, 2]; 0: off
  float repetition_penalty = 1;  // (0, 10]; 1: off; l > 0 is divided by it, l <= 0 multiplied
  std::vector<std::pair<int32_t, float>> logit_bias;  // (token, added to its logit), [-100, 100], each token once
  std::vector<int32_t> allowed_token_ids;             // empty: all; else nothing outside is sampled
  std::vector<std::string> bad_words;                 // no output contains one of these as whole tokens
};

// What a model's publisher recommends (generation_config.json): stands where a request says nothing.
struct SamplingDefaults {
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

struct StoppingParams {
  std::optional<int32_t> max_tokens;  // absent: as many as the context allows; 0 only with prompt logprobs or echo
  int32_t min_tokens = 0;             // no eos or stop id before that many output tokens
  std::vector<std::string> stop;      // stop strings, searched in the output text
  std::vector<int32_t> stop_token_ids;
  bool include_stop = false;          // keep the matched stop string in the text
  bool ignore_eos = false;
  bool skip_special_tokens = true;    // special tokens are left out of the text (never out of the ids)
};

struct OutputParams {
  bool progress = false;  // report how far the prompt is computed
  bool token_ids = false;
  std::optional<int32_t> logprobs;         // N best beside each output token's own; 0 is legal
  std::optional<int32_t> prompt_logprobs;  // the same for prompt tokens
  bool echo = false;                       // the prompt's text (and ids, logprobs) opens the output
  bool reasoning = false;                  // the reasoning that opens an answer is kept apart from its text
  bool tool_calls = false;                 // so are the model's tool calls
};

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments_json;
};

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;
  std::string name;
  std::string tool_call_id;
  std::optional<std::string> reasoning_content;
  std::vector<ToolCall> tool_calls;
};

struct ChatPrompt {
  std::vector<ChatMessage> messages;
  std::vector<std::string> tools_json;  // one JSON object each, key order kept
  std::string template_kwargs_json;     // "" or one JSON object
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

struct TextPrompt {
  std::string text;
};

struct TokenPrompt {
  std::vector<int32_t> ids;
};

using Prompt = std::variant<TextPrompt, TokenPrompt, ChatPrompt>;

// What the answer may be (inference.proto's Constraint).
struct Constraint {
  enum class Kind {
    kNone,
    kJsonSchema,
    kJsonObject,
    kRegex,
    kChoice,
    kGrammar,
    kStructuralTag,
    kToolCalls,
  };
  Kind kind = Kind::kNone;
  std::string text;                  // schema, regex, grammar or structural tag
  std::vector<std::string> choices;  // kChoice
  std::string tool;                  // kToolCalls: its name; "": any
  bool single = false;               // kToolCalls: exactly one
  bool optional = false;             // kToolCalls: text may come before calls, and instead of them
  bool or_tool_calls = false;        // beside another kind: or one or more calls instead
};

struct GenerateRequest {
  std::string request_id;  // unique among live ones; the server draws one when the client gave none
  Prompt prompt;
  SamplingParams sampling;
  StoppingParams stopping;
  OutputParams output;
  Constraint constraint;
  // What `constraint` was compiled to (Engine::CompileConstraint); without it Submit compiles, and its caller waits.
  std::shared_ptr<const Grammar> grammar;
  int32_t n = 1;        // choices; each has its own index in deltas and FinishInfo
  int32_t best_of = 1;  // choices computed, of which the n with the highest mean logprob are delivered, at the end; >= n
  int32_t priority = 0; // classes: lower runs earlier; [-100, 100]
  std::string cache_salt;  // cached prefixes are shared between requests of equal salt only
  absl::Time deadline = absl::InfiniteFuture();  // when the client gives up
  bool add_special_tokens = true;  // text prompts: what the tokenizer adds (bos)
  bool parse_special = true;       // text prompts: special tokens written out in the text become ids
};

enum class FinishReason {
  kStop,       // eos, a stop id or a stop string
  kLength,     // max_tokens or the context length
  kCancelled,
  kDeadline,
  kError,      // only this request failed (a NaN logit)
};

struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0;
  int32_t rank = 0;                 // 1 = the most probable token of its row
  std::string bytes;                // the token's own bytes: may be part of a UTF-8 sequence
  struct Candidate {
    int32_t token = -1;
    float logprob = 0;
    std::string bytes;
  };
  std::vector<Candidate> top;       // best first
};

// A piece of a tool call that the model makes. The first one has the id and the name; the arguments of all pieces, put
// together, are the JSON text of an object.
struct ToolCallDelta {
  int32_t index = 0;  // of the call in its answer
  std::string id;
  std::string name;
  std::string arguments;
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;
  int32_t reasoning_tokens = 0;  // of the output, up to the end of the reasoning; only when it is kept apart
};

// What happened to a request, for the one who asked.
struct Receipt {
  absl::Duration queue_time;
  absl::Duration prefill_time;
  absl::Duration decode_time;
  int32_t num_chunks = 0;
  int32_t num_steps = 0;
  int32_t num_preemptions = 0;
  int32_t num_page_ins = 0;  // KV blocks brought back from host memory
  uint64_t seed = 0;
};

// How one choice ended.
struct FinishInfo {
  int32_t index = 0;
  FinishReason reason = FinishReason::kStop;
  std::string matched_stop;                 // the stop string, when one matched
  std::optional<int32_t> matched_token_id;  // eos or the stop id, when one matched
  std::string error;                        // kError: one sentence
  absl::StatusCode error_code = absl::StatusCode::kInternal;  // kError: whose fault it is
  int32_t num_tool_calls = 0;               // complete ones
  Usage usage;
  Receipt receipt;
};

}  // namespace fastgen
