// The routes that take one unary call: models, health, version, metrics, tokenize, detokenize,
// cancel.
//
// Thread rule: on the connection's strand.
// Tested by tests/server/gateway/plain_routes_test.cc.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "server/gateway/exchange.h"
#include "server/gateway/router.h"

namespace fastgen::gateway {

std::shared_ptr<Exchange> ListModels(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);
// `tail`: the model's id, which may hold slashes.
std::shared_ptr<Exchange> GetModel(Router& router, const HttpRequest& request,
                                   std::string_view tail, std::shared_ptr<ResponseWriter> writer);
// 200 {"status":"ok"}, or 503 with the reason. Asks grpc.health; a daemon without it is healthy
// when it knows its model.
std::shared_ptr<Exchange> GetHealth(Router& router, const HttpRequest& request,
                                    std::string_view tail, std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> GetVersion(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> GetMetrics(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);
// {"prompt" | "content": text} or {"messages": [...]} to token ids.
std::shared_ptr<Exchange> PostTokenize(Router& router, const HttpRequest& request,
                                       std::string_view tail,
                                       std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> PostDetokenize(Router& router, const HttpRequest& request,
                                         std::string_view tail,
                                         std::shared_ptr<ResponseWriter> writer);
// {"request_id": id} or {"request_ids": [id...]}.
std::shared_ptr<Exchange> PostCancel(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);

// Asks for the model and goes on with `next`; answers the error itself.
std::shared_ptr<Exchange> FetchModelInfo(Router& router, const HttpRequest& request,
                                         std::shared_ptr<ResponseWriter> writer,
                                         std::function<void(const v1::ModelInfo&)> next);

}  // namespace fastgen::gateway
