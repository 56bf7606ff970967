// Gateway: a FakeDaemon with the HTTP server before it, on a free port.
// Thread rule: one thread at a time.
#pragma once

#include <boost/json/value.hpp>
#include <memory>
#include <string>

#include "server/gateway/http_server.h"
#include "tests/server/gateway/http_client.h"
#include "tests/testing/fake_inference_service.h"

namespace fastgen::testing {

struct Gateway {
  explicit Gateway(GatewayOptions options = {},
                   FakeDaemon::Health health = FakeDaemon::Health::kServing);

  std::string address() const { return server->addresses()[0]; }
  HttpReply Get(const std::string& path) { return HttpClient(address()).Get(path); }
  HttpReply Post(const std::string& path, const std::string& body,
                 const std::string& headers = "") {
    return HttpClient(address()).Post(path, body, headers);
  }

  FakeDaemon daemon;
  std::unique_ptr<HttpServer> server;
};

// Null when `text` is not JSON.
boost::json::value Json(const std::string& text);

// The string at a JSON pointer; "(none)" when there is nothing, "(null)" for null, JSON text for
// what is not a string.
std::string At(const boost::json::value& value, const std::string& pointer);

}  // namespace fastgen::testing
