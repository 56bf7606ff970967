// The routes between text and tokens: tokenize, detokenize, and what a conversation's prompt is.
//
// Thread rule: on the connection's strand.
// Tested by tests/server/gateway/plain_routes_test.cc.
#pragma once

#include <memory>
#include <string_view>

#include "server/gateway/exchange.h"
#include "server/gateway/router.h"

namespace fastgen::gateway {

// {"prompt" | "content": text} or {"messages": [...]} to token ids.
std::shared_ptr<Exchange> PostTokenize(Router& router, const HttpRequest& request,
                                       std::string_view tail,
                                       std::shared_ptr<ResponseWriter> writer);
// llama-server's: what a chat's prompt is, {"prompt": text}, and how long, {"input_tokens": n}.
// Both read what /chat/completions reads of the conversation.
std::shared_ptr<Exchange> ApplyTemplate(Router& router, const HttpRequest& request,
                                        std::string_view tail,
                                        std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> CountChatTokens(Router& router, const HttpRequest& request,
                                          std::string_view tail,
                                          std::shared_ptr<ResponseWriter> writer);
// The names of the special tokens, as lm-eval's remote tokenizer asks for them.
std::shared_ptr<Exchange> GetTokenizerInfo(Router& router, const HttpRequest& request,
                                           std::string_view tail,
                                           std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> PostDetokenize(Router& router, const HttpRequest& request,
                                         std::string_view tail,
                                         std::shared_ptr<ResponseWriter> writer);
}  // namespace fastgen::gateway
