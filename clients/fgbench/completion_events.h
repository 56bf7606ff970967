// CompletionEvents: reads the JSON events of a streamed /v1/completions answer.
//
// What counts is whether an event has text, the usage, and an error that came after the headers.
// Unknown members are skipped; what is no JSON is an error of the request.
// Thread rule: one thread at a time. Tested by tests/clients/fgbench_test.cc and
// tests/fuzz/sse_reader_fuzzer.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fastgen {

struct CompletionEvent {
  bool done = false;      // [DONE]
  bool has_text = false;  // of any choice
  std::optional<int32_t> prompt_tokens;
  std::optional<int32_t> output_tokens;
  std::string error;
};

CompletionEvent ReadCompletionEvent(std::string_view data);

// The message of an error's JSON body, or the body when it is something else.
std::string ErrorMessageOf(std::string_view body);

// The id of the first model that /v1/models lists; "" when there is none.
std::string FirstModelOf(std::string_view body);

// The body of a streamed request.
std::string CompletionRequest(const std::string& model, const std::string& prompt,
                              int32_t max_tokens, double temperature);

}  // namespace fastgen
