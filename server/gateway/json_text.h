// Writing JSON as text: answers are appended to a string, never built as a tree, because each token
// of each stream passes through here.
//
// Strings are escaped as RFC 8259 asks; bytes that are not UTF-8 (a token may be half a character)
// become U+FFFD.
// Thread rule: any thread.
// Tested by tests/server/gateway/json_text_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fastgen::gateway {

// Quoted and escaped.
void AppendJsonString(std::string_view text, std::string* out);
void AppendJsonInt(int64_t value, std::string* out);
// Infinities and NaN, which JSON cannot write, become -9999 (as vLLM writes an impossible token's
// logprob).
void AppendJsonFloat(float value, std::string* out);
// [226,150]
void AppendJsonBytes(std::string_view bytes, std::string* out);

// `bytes` with each ill-formed UTF-8 sequence replaced by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);
// REQUIRES: `text` is valid UTF-8.
size_t NumCodePoints(std::string_view text);

}  // namespace fastgen::gateway
