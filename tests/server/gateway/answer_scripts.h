// Scripts of answers with reasoning, text and tool calls, for tests of the dialects that answer in
// parts.
// Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>

#include "tests/testing/fake_inference_service.h"

namespace fastgen::testing {

v1::GenerateEvent ReasoningEvent(const std::string& reasoning);
// A piece of a call; the first one of a call has its id and name.
v1::GenerateEvent CallEvent(int index, const std::string& id, const std::string& name,
                            const std::string& arguments);

// Reasons, says a word, makes two calls in pieces: f({"x": 1}) and g({}). 5 prompt tokens of which
// 2 were cached, 9 output tokens of which 4 reasoned.
GenerateScript TwoCalls(const v1::GenerateRequest& request);

// An answer drawn from `seed`: parts in any order, cut into deltas in any way, with odd characters;
// several parts may come in one delta; the end is STOP or LENGTH.
GenerateScript RandomAnswer(uint32_t seed);

}  // namespace fastgen::testing
