// TokenSink: how tokens leave the engine.
//
// Implemented by the server's reactor and by tests. Order of calls: OnAccepted once, OnProgress (when asked for) until
// the prompt is computed, OnDelta any number of times, OnFinished once for every choice. The last choice's OnFinished
// is the last call. A request that Engine::Submit refused gets no call at all. Of each choice, concatenated text deltas
// equal the decoded output, each delta is valid UTF-8, and text, ids and logprobs end at the same token; deltas of
// different choices interleave.
// Thread rule: called by the completion thread only, one call at a time for one sink; must not block (a slow reader is
// the sink's to buffer, up to its bound, and then to cancel).
#pragma once

#include <string>
#include <vector>

#include "engine/request.h"

namespace fastgen {

struct AcceptedInfo {
  std::string request_id;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, in either tier of the KV cache when the request entered the queue
  std::vector<int32_t> prompt_token_ids;
};

struct TokenDelta {
  int32_t index = 0;  // of the choice
  std::string text;
  std::string reasoning;                       // comes before any text; only when it is kept apart
  std::vector<ToolCallDelta> tool_calls;       // likewise
  std::vector<int32_t> token_ids;              // every token that this delta's step(s) produced
  int32_t num_prompt_tokens = 0;               // echo: so many of token_ids, at their front, are the prompt's
  std::vector<TokenLogprob> logprobs;          // parallel to the output's part of token_ids, or empty
  // Scoring (prompt_logprobs or echo): the prompt's tokens, in order, in deltas of at most 256, before any output. The
  // first has no logprob (token set, rank 0).
  std::vector<TokenLogprob> prompt_logprobs;
};

class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnAccepted(const AcceptedInfo& info) = 0;
  // `processed` of `total` prompt tokens are computed or were cached. Only when OutputParams::progress was set.
  virtual void OnProgress(int32_t processed, int32_t total) = 0;
  virtual void OnDelta(TokenDelta delta) = 0;
  virtual void OnFinished(FinishInfo info) = 0;
  // The engine failed as a whole (device error): the stream ends UNAVAILABLE. Instead of OnFinished.
  virtual void OnEngineError(const std::string& message) = 0;
};

}  // namespace fastgen
