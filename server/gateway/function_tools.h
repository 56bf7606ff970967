// Function tools as Responses and Messages have them, to what chat templates and constraints know.
//
// Thread rule: pure functions.
// Tested by tests/server/gateway/openai_responses_test.cc and anthropic_messages_test.cc.
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <string>
#include <string_view>

#include "server/gateway/constraint_fields.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

inline constexpr size_t kMaxFunctionTools = 256;

// {"type":"function","function":{"name":..,"description":..,"parameters":..}}; the last two may be
// nullptr.
std::string FunctionToolJson(std::string_view name, const boost::json::value* description,
                             const boost::json::value* parameters);

// After tools and tool_choice: without tools none is called, and to require one is an error.
void SettleToolChoice(JsonFields* fields, ToolUse* use);

}  // namespace fastgen::gateway
