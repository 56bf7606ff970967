// The conversation of a Messages request: `system` and `messages` to fastgen.v1's chat.
//
// One message of Anthropic's may hold what is several for a chat template, and the other way round:
// each tool_result block becomes a message of the role "tool" (named after the tool that was
// called), and turns of one role that follow each other become one turn, their texts joined with a
// line break. tool_use blocks become the tool calls, thinking blocks the reasoning of the
// assistant's message. When the assistant has the last word without a call, the answer goes on with
// it. Images, documents and what servers' tools leave behind are refused with their place and type;
// redacted thinking, which only its author can read, is left out and named as ignored.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/anthropic_messages_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <string>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

void ReadConversation(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored);

}  // namespace fastgen::gateway
