// CORS: which web pages may read this server's answers in a browser. Off unless origins are named:
// no header is sent and no page of another origin can read anything.
//
// A request whose Origin is allowed is answered with that origin; a preflight (OPTIONS with
// Access-Control-Request-Method, which carries no key) also with the methods and headers that may
// follow. Credentials of the browser (cookies) are not allowed: keys travel in headers that the
// page sets itself.
// Thread rule: pure, any thread.
// Tested by tests/server/gateway/cors_test.cc.
#pragma once

#include <string>
#include <vector>

#include "server/gateway/exchange.h"

namespace fastgen::gateway {

// Whole header lines for the answer to `request`; "" when `origins` (exact, or "*" for all) do not
// allow its origin.
std::string CorsHeaders(const std::vector<std::string>& origins, const HttpRequest& request);

// Whether a page of `origin` may start work: those of `origins`, of this machine, and what is no
// web page ("", "null", app://x; browsers keep the last two from reading answers and from sending
// JSON).
bool MayCall(const std::vector<std::string>& origins, const std::string& origin);

// Whether `origin` can be an Origin header: "*", "null", or scheme://host[:port] without a path.
bool IsOrigin(const std::string& origin);

}  // namespace fastgen::gateway
