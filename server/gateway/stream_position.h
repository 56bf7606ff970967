// Where a client stands in an event stream that can be taken up again, as SSE's event ids say it.
//
// An id is "tokens.passed.sent.offset":
//   tokens  output tokens in the daemon's events that are behind the client, as Attach counts them;
//   passed  events without tokens behind it since then;
//   sent    SSE events made after that point, of which this is the last;
//   offset  code points of its text (the legacy logprobs count on).
// The first two move only when the next event of the daemon is handled, so that one of them may
// make any number of SSE events. Where what comes next depends on more than the position (several
// choices, formats that number their items), they stay 0: such a stream is made again from its
// start, and what the client has is left out.
// Thread rule: the connection's strand.
// Tested by tests/server/gateway/resume_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fastgen/v1/inference.pb.h"

namespace fastgen::gateway {

struct StreamPosition {
  int32_t tokens = 0;
  int32_t passed = 0;
  int32_t sent = 0;
  int32_t offset = 0;

  bool at_start() const { return tokens == 0 && passed == 0; }
  std::string ToString() const;
  // nullopt for what ToString never wrote.
  static std::optional<StreamPosition> Parse(std::string_view id);
};

class StreamIds {
 public:
  // `moves`: the position follows the daemon's events, rather than staying at the start.
  StreamIds(const StreamPosition& start, bool moves);

  // Whether the client has all that `event` makes. In order, for each event of the daemon.
  bool IsPassed(const v1::GenerateEvent& event);
  // Gives its id to each SSE event that begins at `begin` or later, and takes out those that the
  // client has. "[DONE]" has none: it says that there is nothing to come back for.
  void Stamp(size_t begin, std::string* out);
  // `event` has been handled and its SSE events stamped.
  void Move(const v1::GenerateEvent& event, size_t offset);

 private:
  const bool moves_;
  StreamPosition position_;
  int32_t num_to_pass_;  // events without tokens that the client has
  int32_t num_to_drop_;  // SSE events that the client has
};

}  // namespace fastgen::gateway
