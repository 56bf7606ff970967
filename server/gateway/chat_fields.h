// The fields of a request that hold a conversation: `messages`, `tools`, `chat_template_kwargs`.
//
// Messages go to the daemon as they are: it owns the chat template. `developer` becomes `system`
// (the same role by its newer name) and text parts are joined with a line break. Tools are shown to
// the template whatever the tool_choice.
// Thread rule: pure functions.
// Tested by tests/server/gateway/openai_chat_test.cc, openai_tools_test.cc;
// tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <string>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/constraint_fields.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

// Also read by /tokenize.
ToolUse ReadChat(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored);

// Refuses what is said about the special tokens of a text prompt: the template places them here.
void RefuseTextOnly(JsonFields* fields);

}  // namespace fastgen::gateway
