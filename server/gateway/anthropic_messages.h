// POST /messages and /messages/count_tokens: Anthropic's request to fastgen.v1.
//
// Beside Anthropic's own fields the sampling parameters of the other routes are honoured (min_p,
// seed, ...), and chat_template_kwargs. Models that reason do so unasked: `thinking` enabled or
// disabled becomes the template's variable enable_thinking, which templates that do not know it
// pass over, and thinking.budget_tokens, which nothing would keep to, is named as ignored.
// Reasoning comes as thinking blocks unless thinking.display is "omitted". Tools that Anthropic's
// servers would run are refused with their type; output_config.format and tool_choice become
// constraints.
// Thread rule: any thread.
// Tested by tests/server/gateway/anthropic_messages_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/errors.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

// nullopt and `*request` filled, or what is wrong.
std::optional<ApiError> ParseMessagesRequest(std::string_view body, GenerationRequest* request);

// The same for what is counted: the conversation, the tools and what changes their rendering.
std::optional<ApiError> ParseCountTokensRequest(std::string_view body, v1::RenderChatRequest* call,
                                                std::vector<std::string>* ignored);

}  // namespace fastgen::gateway
