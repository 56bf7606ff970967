#include "tests/server/gateway/gateway_fixture.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "base/check.h"

namespace fastgen::testing {

Gateway::Gateway(GatewayOptions options, FakeDaemon::Health health) : daemon(health) {
  if (options.listen.empty()) options.listen = {"127.0.0.1:0"};
  auto started = HttpServer::Start(options, daemon.channel());
  CHECK(started.ok()) << started.status().ToString();
  server = *std::move(started);
}

boost::json::value Json(const std::string& text) {
  boost::json::error_code error;
  boost::json::value value =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  return error ? boost::json::value() : value;
}

std::string At(const boost::json::value& value, const std::string& pointer) {
  boost::json::error_code error;
  const boost::json::value* found =
      value.find_pointer(boost::json::string_view(pointer.data(), pointer.size()), error);
  if (error || found == nullptr) return "(none)";
  if (found->is_null()) return "(null)";
  if (found->is_string())
    return std::string(found->get_string().data(), found->get_string().size());
  return boost::json::serialize(*found);
}

}  // namespace fastgen::testing
