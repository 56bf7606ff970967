// The input of a Responses request: `instructions` and `input` to fastgen.v1's chat.
//
// `input` is a string (one user message) or a list of items: messages, function calls and their
// outputs, reasoning. Items that one turn of the assistant left behind (reasoning, its message, its
// calls) become one message again. System and developer messages at the beginning join the
// instructions, since templates read one system message. Text parts are joined with a line break.
// Items that need state or tools of OpenAI's servers, images and files are refused with their place
// and type; encrypted reasoning, which only its author can read, is left out and named as ignored.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/openai_responses_test.cc, tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <string>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

void ReadResponsesInput(JsonFields* fields, v1::Chat* chat, std::vector<std::string>* ignored);

}  // namespace fastgen::gateway
