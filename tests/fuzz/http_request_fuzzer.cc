// Any bytes, cut anywhere, through the HTTP request reader: it must end in a request or an error,
// never crash, and never consume more than it was given. The first byte chooses how the rest is
// cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/gateway/http_request_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using State = fastgen::gateway::HttpRequestReader::State;
  if (size == 0) return 0;
  const size_t step = data[0] == 0 ? size : data[0];
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  fastgen::gateway::HttpRequestReader reader(1024, 4096);
  std::string input;
  while (!rest.empty()) {
    input += rest.substr(0, step);
    rest.remove_prefix(std::min(step, rest.size()));
    while (!input.empty()) {
      const size_t consumed = reader.Feed(input);
      if (consumed > input.size()) std::abort();
      input.erase(0, consumed);
      reader.TakeContinueWish();
      if (reader.state() == State::kFailed) {
        if (reader.error().status < 400 || reader.error().status > 499) std::abort();
        return 0;
      }
      if (reader.state() == State::kDone) {
        if (reader.TakeRequest().body.size() > 4096) std::abort();
      } else {
        break;
      }
    }
  }
  return 0;
}
