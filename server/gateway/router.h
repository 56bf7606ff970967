// Router: from an HTTP request to the handler of its route; the checks that all routes share.
//
// Every route exists with and without "/v1". Unknown paths are 404, known ones with another method
// 405 with Allow; HEAD is GET without the body; a body must be JSON (415). Request ids come from
// the body, the X-Request-Id header or chance, in this order, and go out as X-Request-Id.
// Thread rule: Route on any connection's strand.
// Tested by tests/server/gateway/http_server_test.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "server/gateway/daemon_pool.h"
#include "server/gateway/errors.h"
#include "server/gateway/exchange.h"
#include "server/gateway/generation_request.h"
#include "server/gateway/http_server.h"
#include "server/gateway/resumable_streams.h"

namespace fastgen::gateway {

// X-Fastgen-Ignored, unless there is nothing to name.
Headers IgnoredHeaders(const std::vector<std::string>& ignored);

// Method and path of every route, without "/v1"; a path that ends in '/' takes a tail.
std::vector<std::pair<std::string_view, std::string_view>> Routes();

// A route whose answer is generated, in its own dialect.
struct GenerationRow {
  std::string_view path;
  GenerationRoute route;
  std::string_view id_prefix;
  std::optional<ApiError> (*parse)(std::string_view body, GenerationRequest* request);
};

class Router {
 public:
  // Both outlive the router.
  Router(const GatewayOptions& options, DaemonPool& daemons);

  // The Exchange that will answer; nullptr when the answer has been given.
  std::shared_ptr<Exchange> Route(HttpRequest request, std::shared_ptr<ResponseWriter> writer);

  DaemonPool& daemons() { return daemons_; }
  // The fleet's model, else the served model's name as last seen; "" before that.
  std::string model_name() const;
  // OpenAI's system_fingerprint: equal for answers of the same build and weights.
  std::string system_fingerprint() const;
  void set_model(const v1::ModelInfo& info);
  int64_t start_time_s() const { return start_time_s_; }
  // GET /streams/{id}: the answer of a request that has a resume window, from where it broke.
  std::shared_ptr<Exchange> Resume(const HttpRequest& request, std::string_view request_id,
                                   std::shared_ptr<ResponseWriter> writer);
  // Under strict_fields the first of the fields that nothing asked for is an error.
  std::optional<ApiError> CheckIgnored(const std::vector<std::string>& ignored) const;

 private:
  std::shared_ptr<Exchange> Generate(const GenerationRow& row, const HttpRequest& request,
                                     std::shared_ptr<ResponseWriter> writer);

  const GatewayOptions& options_;
  DaemonPool& daemons_;
  const int64_t start_time_s_;
  ResumableStreams resumable_;
  mutable Mutex mutex_;
  std::string model_name_ ABSL_GUARDED_BY(mutex_);
  std::string system_fingerprint_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen::gateway
