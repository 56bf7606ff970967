// Request ids: the client's own, or drawn here; every answer has one, in X-Request-Id.
//
// An id may stand in headers, logs and URLs, and names the request to /cancel and /streams. One
// that is drawn has 128 random bits, so that nobody guesses another's. Thread rule: any thread.
// Tested by tests/server/gateway/http_server_test.cc, tests/e2e/test_errors.py.
#pragma once

#include <string>
#include <string_view>

namespace fastgen::gateway {

// 1 to 128 printable ASCII characters, no space.
bool IsRequestId(std::string_view id);
std::string NewRequestId();

}  // namespace fastgen::gateway
