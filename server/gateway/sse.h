// Server-sent events, and HTTP's chunked framing around them.
//
// An event is `data: <one line of JSON>` and an empty line; the last one is `data: [DONE]`. A
// comment line keeps intermediaries from closing a silent stream.
// Thread rule: any thread.
// Tested by tests/server/gateway/json_text_test.cc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fastgen::gateway {

inline constexpr std::string_view kSseDataPrefix = "data: ";
inline constexpr std::string_view kSseEventEnd = "\n\n";
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseKeepAlive = ": keep-alive\n\n";

// `event: <name>`, then the data.
inline constexpr std::string_view kSseEventPrefix = "event: ";

// REQUIRES: `json` has no line break (JSON text as AppendJsonString writes it never has).
void AppendSseData(std::string_view json, std::string* out);

// What goes before and after the bytes of one chunk: "<hex size>\r\n" and "\r\n".
void AppendChunkHead(size_t num_bytes, std::string* out);
inline constexpr std::string_view kChunkEnd = "\r\n";
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace fastgen::gateway
