// What a server under load may send to fgbench: events, their JSON, and error bodies.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "clients/fgbench/completion_events.h"
#include "clients/fgbench/sse_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  // However the bytes are cut, the events are the same.
  const size_t piece = data[0] == 0 ? 1 : data[0];
  std::vector<std::string> whole;
  fastgen::SseReader at_once;
  at_once.Feed(bytes, [&](std::string_view event) { whole.emplace_back(event); });
  std::vector<std::string> cut;
  fastgen::SseReader in_pieces;
  for (size_t i = 0; i < bytes.size(); i += piece) {
    in_pieces.Feed(bytes.substr(i, piece),
                   [&](std::string_view event) { cut.emplace_back(event); });
  }
  if (whole != cut) __builtin_trap();
  for (const std::string& event : whole) fastgen::ReadCompletionEvent(event);
  fastgen::ReadCompletionEvent(bytes);
  fastgen::ErrorMessageOf(bytes);
  fastgen::FirstModelOf(bytes);
  return 0;
}
