#include "server/gateway/sse.h"

#include <charconv>

namespace fastgen::gateway {

void AppendSseData(std::string_view json, std::string* out) {
  out->append(kSseDataPrefix);
  out->append(json);
  out->append(kSseEventEnd);
}

void AppendChunkHead(size_t num_bytes, std::string* out) {
  char digits[20];
  const auto result = std::to_chars(digits, digits + sizeof(digits), num_bytes, 16);
  out->append(digits, result.ptr);
  out->append("\r\n");
}

}  // namespace fastgen::gateway
