// A chat message with a role and a content, for tests.
// Thread rule: any thread.
#pragma once

#include <string>
#include <utility>

#include "engine/request.h"

namespace fastgen::testing {

inline ChatMessage Message(std::string role, std::string content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

}  // namespace fastgen::testing
