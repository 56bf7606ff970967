// POST /messages/count_tokens: how many tokens the daemon makes of a conversation, by the template
// and the tokenizer that an answer to it would use.
//
// Thread rule: on the connection's strand.
// Tested by tests/server/gateway/anthropic_messages_test.cc.
#pragma once

#include <memory>
#include <string_view>

#include "server/gateway/exchange.h"
#include "server/gateway/router.h"

namespace fastgen::gateway {

// {"input_tokens":n}
std::shared_ptr<Exchange> PostCountTokens(Router& router, const HttpRequest& request,
                                          std::string_view tail,
                                          std::shared_ptr<ResponseWriter> writer);

}  // namespace fastgen::gateway
