// AnswerFormat: how the events of Generate calls become a dialect's JSON, whole or as a stream.
//
// Generation (generation.h) owns the calls and the order of events; a format only appends text. One
// object per request; the constant parts of a chunk are put together once.
// Thread rule: the connection's strand.
// Implemented by ChatFormat, CompletionsFormat, ResponsesFormat and MessagesFormat; tested through
// them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

// One prompt's call, as far as answers show it.
struct PromptState {
  bool accepted = false;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  std::string token_ids_json = "[]";  // when ids were asked for
  std::string logprobs_json;          // whole answers: vLLM's prompt_logprobs, without brackets
};

// One answer.
struct ChoiceState {
  int index = 0;
  int prompt = 0;  // which PromptState
  int32_t output_tokens = 0;
  int32_t reasoning_tokens = 0;
  int32_t num_tool_calls = 0;  // complete ones, known when finished
  bool finished = false;
  v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
  std::string stop_reason_json = "null";
  bool opened = false;     // something of it has been sent
  size_t text_offset = 0;  // code points of all tokens so far, for the legacy logprobs

  // Whole answers only: what the deltas add up to.
  std::string text;
  std::string reasoning;
  std::vector<v1::ToolCallDelta> tool_calls;
  std::string token_ids;  // "1,2,3"
  // Chat uses the first only; completions: tokens, token_logprobs, top_logprobs, text_offset.
  std::string logprobs[4];
};

struct AnswerUsage {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;
  int32_t reasoning_tokens = 0;
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // Of the daemon that answers, where there are several; before anything is appended.
  virtual void SetSystemFingerprint(const std::string& fingerprint) {}

  // What opens a choice in a stream, before any text; may append nothing.
  virtual void AppendOpening(const ChoiceState& choice, const PromptState& prompt,
                             std::string* out) = 0;
  // One SSE event, or nothing when the delta shows nothing.
  virtual void AppendDelta(const v1::Delta& delta, ChoiceState* choice, const PromptState& prompt,
                           std::string* out) = 0;
  virtual void AppendFinish(const ChoiceState& choice, const PromptState& prompt,
                            std::string* out) = 0;
  virtual void AppendUsage(const AnswerUsage& usage, std::string* out) = 0;

  // Whether what a delta becomes depends on its choice's state alone, so that a broken stream of
  // one choice goes on from any event; else it is made again from its start, and what the client
  // has left out.
  virtual bool resumes_anywhere() const { return false; }

  // What differs between dialects, and here is OpenAI's chat: the end of a stream, an error within
  // one, what keeps a silent one open, and an error instead of an answer.
  virtual void AppendEnd(std::string* out);
  virtual void AppendError(const ApiError& error, std::string* out);
  virtual void AppendKeepAlive(std::string* out);
  virtual HttpResponse ErrorAnswer(const ApiError& error);

  // Whole answers: keep a delta, then write everything.
  virtual void Keep(const v1::Delta& delta, ChoiceState* choice) = 0;
  virtual std::string Whole(const std::vector<ChoiceState>& choices,
                            const std::vector<PromptState>& prompts, const AnswerUsage& usage) = 0;
};

// `{"id":..,"object":..,"created":..,"model":..` without the closing brace.
std::string AnswerHead(const AnswerOptions& options, std::string_view object);
// "stop", "tool_calls", "length", "abort". REQUIRES: it has finished.
std::string_view FinishReasonName(const AnswerOptions& options, const ChoiceState& choice);
// The token's text as a JSON string, or "token_id:5" where that was asked for.
void AppendToken(const AnswerOptions& options, int32_t id, std::string_view bytes,
                 std::string* out);
// vLLM's shape: null for the first token, then an object for each, by token id:
// {"5":{"logprob":..,"rank":..,"decoded_token":..},..}.
void KeepPromptLogprobs(const AnswerOptions& options, const v1::Delta& delta, PromptState* prompt);
// `,"prompt_logprobs":[..]` when it was asked for.
void AppendPromptLogprobs(const AnswerOptions& options, const PromptState& prompt,
                          std::string* out);
// {"prompt_tokens":..,...}
void AppendUsageJson(const AnswerUsage& usage, std::string* out);
// 1,2,3 after what `out` already holds of the list.
void AppendIds(const google::protobuf::RepeatedField<int32_t>& ids, std::string* out);
// `,"usage":...` of a stream's chunk: null, or the running count when it was asked for, or nothing.
void AppendChunkUsage(const AnswerOptions& options, const ChoiceState& choice,
                      const PromptState& prompt, std::string* out);
// What ends every chunk of a choice, after its text and logprobs: finish_reason, ids, usage.
void AppendDeltaTail(const AnswerOptions& options, const v1::Delta& delta,
                     const ChoiceState& choice, const PromptState& prompt, std::string* out);
void AppendFinishTail(const AnswerOptions& options, const ChoiceState& choice,
                      const PromptState& prompt, std::string* out);
// The stream's last chunk, without choices.
void AppendUsageChunk(const AnswerOptions& options, std::string_view object,
                      const AnswerUsage& usage, std::string* out);

}  // namespace fastgen::gateway
