#include "server/gateway/cors.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace fastgen::gateway {
namespace {

constexpr size_t kMaxEchoedBytes = 2048;
constexpr std::string_view kUsualHeaders =
    "Authorization, Content-Type, X-Api-Key, X-Request-Id, X-Fastgen-Resume-Window, "
    "X-Fastgen-Timeout, Last-Event-ID, "
    "Anthropic-Version, Anthropic-Beta, Traceparent, Tracestate";

bool IsTokenByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Clients send headers of their own with each call: what a page asks for is allowed, if it is a
// list of names.
std::string_view AllowedHeaders(std::string_view asked) {
  const bool is_list = std::all_of(asked.begin(), asked.end(),
                                   [](char c) { return IsTokenByte(c) || c == ',' || c == ' '; });
  return asked.empty() || asked.size() > kMaxEchoedBytes || !is_list ? kUsualHeaders : asked;
}

}  // namespace

std::string CorsHeaders(const std::vector<std::string>& origins, const HttpRequest& request) {
  if (origins.empty()) return "";
  const bool any = std::find(origins.begin(), origins.end(), "*") != origins.end();
  // Caches must not show one page what another one was answered.
  std::string lines = any ? "" : "Vary: Origin\r\n";
  if (!any && std::find(origins.begin(), origins.end(), request.origin) == origins.end())
    return lines;
  if (request.origin.empty()) return lines;
  absl::StrAppend(&lines, "Access-Control-Allow-Origin: ", any ? "*" : request.origin, "\r\n");
  if (request.method != "OPTIONS" || request.preflight_method.empty()) {
    lines += "Access-Control-Expose-Headers: X-Request-Id, X-Fastgen-Ignored, Retry-After\r\n";
    return lines;
  }
  lines +=
      "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Headers: ";
  lines += AllowedHeaders(request.preflight_headers);
  lines += "\r\nAccess-Control-Max-Age: 600\r\n";
  return lines;
}

bool MayCall(const std::vector<std::string>& origins, const std::string& origin) {
  const size_t scheme_end = origin.find("://");
  if (scheme_end == std::string::npos) return true;
  const std::string scheme = absl::AsciiStrToLower(origin.substr(0, scheme_end));
  if (scheme != "http" && scheme != "https") return true;
  for (const std::string& allowed : origins) {
    if (allowed == "*" || allowed == origin) return true;
  }
  std::string host = absl::AsciiStrToLower(origin.substr(scheme_end + 3));
  const size_t port = host.rfind(':');
  if (port != std::string::npos && host.find(']', port) == std::string::npos) host.resize(port);
  // 127.x.y.z as numbers only: 127.0.0.1.example is a stranger's name.
  const bool is_loopback_ip =
      host.rfind("127.", 0) == 0 && host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "[::1]" || is_loopback_ip;
}

bool IsOrigin(const std::string& origin) {
  if (origin == "*" || origin == "null") return true;
  const size_t scheme_end = origin.find("://");
  if (scheme_end == std::string::npos || scheme_end == 0) return false;
  const std::string host = origin.substr(scheme_end + 3);
  return !host.empty() && host.find_first_of("/?#@ \r\n\t,") == std::string::npos;
}

}  // namespace fastgen::gateway
