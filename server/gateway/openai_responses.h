// POST /responses: OpenAI's Responses request, without state, to fastgen.v1.
//
// Nothing is kept between requests: `previous_response_id`, `conversation`, `background` and
// `prompt` are refused, and `store`, which clients send by default, is accepted and answered with
// false. Beside OpenAI's own fields the sampling parameters of the other routes are honoured
// (top_k, min_p, seed, ...), and chat_template_kwargs. text.format and tool_choice become
// constraints. What a Response repeats of its request is put together here
// (AnswerOptions::echo_json).
// Thread rule: any thread.
// Tested by tests/server/gateway/openai_responses_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <optional>
#include <string_view>

#include "server/gateway/errors.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

// nullopt and `*request` filled, or what is wrong.
std::optional<ApiError> ParseResponsesRequest(std::string_view body, GenerationRequest* request);

}  // namespace fastgen::gateway
