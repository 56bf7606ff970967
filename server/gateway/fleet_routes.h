// The routes that a gateway before several daemons answers in its own way: health and metrics are
// the fleet's, and a cancel goes to every daemon.
//
// A cancel is not sent to where this gateway sent the request: beside another gateway, or after a
// restart, it would not know, and asking a daemon that lacks the id does no harm.
// Thread rule: on the connection's strand.
// Tested by tests/server/gateway/fleet_test.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/gateway/exchange.h"
#include "server/gateway/router.h"

namespace fastgen::gateway {

// {"status":"ok","model":..,"daemons":[..]}, or 503 in the shape of an error, with the daemons too.
std::shared_ptr<Exchange> GetFleetHealth(Router& router,
                                         const std::shared_ptr<ResponseWriter>& writer);
std::shared_ptr<Exchange> GetFleetMetrics(Router& router,
                                          const std::shared_ptr<ResponseWriter>& writer);
// Answers when every daemon that can be reached has; an error only when all of them gave one.
std::shared_ptr<Exchange> CancelEverywhere(Router& router, const HttpRequest& request,
                                           std::shared_ptr<ResponseWriter> writer,
                                           v1::CancelRequest call,
                                           std::vector<std::string> ignored);

}  // namespace fastgen::gateway
