// Fields that other servers know and this version does not honour: one table.
//
// Each row has the value that asks for nothing, which is accepted, and why another value is refused
// where the name alone does not say it. A row stands here only when ignoring the field would change
// the answer; harmless fields are accepted by generation_request.cc, unknown ones are listed in
// X-Fastgen-Ignored (refused under --strict).
// Thread rule: pure functions.
// Tested by tests/server/gateway/openai_chat_test.cc, tests/e2e/test_errors.py.
#pragma once

#include "server/gateway/json_fields.h"

namespace fastgen::gateway {

enum class RefusedOn { kBoth, kChat, kCompletions };

void RefuseFields(RefusedOn route, JsonFields* fields);

}  // namespace fastgen::gateway
