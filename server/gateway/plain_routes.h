// The routes that take one unary call or none: models, health, version, metrics, cancel, the
// OpenAPI description.
//
// Thread rule: on the connection's strand.
// Tested by tests/server/gateway/plain_routes_test.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/exchange.h"
#include "server/gateway/json_fields.h"
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
std::shared_ptr<Exchange> GetOpenApi(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);
std::shared_ptr<Exchange> GetMetrics(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);
// {"request_id": id} or {"request_ids": [id...]}.
std::shared_ptr<Exchange> PostCancel(Router& router, const HttpRequest& request,
                                     std::string_view tail, std::shared_ptr<ResponseWriter> writer);

// What the handlers of all routes share: an answer, an error, and the end of reading a request's
// fields. FinishReading names what nothing asked for, and is false when the request is refused.
void RespondJson(const std::shared_ptr<ResponseWriter>& writer, std::string json,
                 const std::vector<std::string>& ignored = {});
void RespondCancelled(const std::shared_ptr<ResponseWriter>& writer,
                      const v1::CancelResponse& response, const std::vector<std::string>& ignored);
std::shared_ptr<Exchange> RespondError(const std::shared_ptr<ResponseWriter>& writer,
                                       const ApiError& error);
bool FinishReading(const Router& router, JsonFields& fields, std::vector<std::string>* ignored);

// Asks for the model and goes on with `next`; answers the error itself.
std::shared_ptr<Exchange> FetchModelInfo(Router& router, const HttpRequest& request,
                                         std::shared_ptr<ResponseWriter> writer,
                                         std::function<void(const v1::ModelInfo&)> next);

}  // namespace fastgen::gateway
