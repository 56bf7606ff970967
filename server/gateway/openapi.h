// OpenApiJson: what GET /openapi.json answers, the OpenAPI 3.1 description of every route.
//
// The document is openapi.json beside this file, written by hand; the build puts it into the
// program, with the version. Tests hold it to the code: the same routes as the router's table, the
// same fields as the parsers read, and answers that fit its schemas.
// Thread rule: any thread.
// Tested by tests/server/gateway/openapi_test.cc and tests/e2e/test_openapi.py.
#pragma once

#include <string_view>

namespace fastgen::gateway {

std::string_view OpenApiJson();

}  // namespace fastgen::gateway
