// What a route's parser makes of a body, for tests of the dialects' fields.
#pragma once

#include <catch2/catch.hpp>
#include <optional>
#include <string>

#include "server/gateway/generation_request.h"

namespace fastgen::testing {

// The one call of a body that `parser` accepts.
template <typename Parser>
v1::GenerateRequest ParseOne(Parser parser, const std::string& body,
                             gateway::GenerationRequest* request) {
  const std::optional<gateway::ApiError> error = parser(body, request);
  INFO(body);
  INFO((error.has_value() ? error->message : ""));
  REQUIRE_FALSE(error.has_value());
  REQUIRE(request->calls.size() == 1);
  return request->calls[0];
}

// role|content|reasoning|tool_call_id/name|calls, a line each.
inline std::string Shown(const v1::Chat& chat) {
  std::string text;
  for (const v1::ChatMessage& message : chat.messages()) {
    text += message.role() + "|" + (message.has_content() ? message.content() : "(none)") + "|" +
            message.reasoning_content() + "|" + message.tool_call_id() + "/" + message.name() + "|";
    for (const v1::ToolCall& call : message.tool_calls()) {
      text += call.id() + " " + call.name() + call.arguments_json();
    }
    text += "\n";
  }
  return text;
}

}  // namespace fastgen::testing
