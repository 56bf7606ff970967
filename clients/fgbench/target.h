// Target: a server under load, by gRPC or HTTP. It runs requests side by side and tells how each
// went.
//
// A request is timed from the moment its bytes are handed to the transport to the last byte of its
// answer, on the client's side; "an arrival" is an event with text.
// Thread rule: Start and CancelAll from any thread, also from a `done`; `done` comes on the
// target's own threads, one call at a time for each request. Tested by tests/e2e/test_fgbench.py.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

using BenchClock = std::chrono::steady_clock;

// What all requests of a run have in common.
struct RequestShape {
  int32_t output_tokens = 64;
  double temperature = 0;
  std::string api_key;  // empty: none
  std::chrono::seconds timeout{600};
};

struct RequestResult {
  BenchClock::time_point begin;
  BenchClock::time_point end;
  std::vector<BenchClock::time_point> arrivals;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  bool cancelled = false;  // by CancelAll
  std::string error;       // one line; empty: it ended well
};

class Target {
 public:
  using Done = std::function<void(RequestResult)>;

  // Cancels what runs and waits for it.
  virtual ~Target() = default;

  // Whether the server is there and serves: its model's name, or one sentence.
  virtual absl::StatusOr<std::string> Probe() = 0;
  virtual void Start(const std::string& prompt, Done done) = 0;
  // What runs ends as cancelled.
  virtual void CancelAll() = 0;
};

}  // namespace fastgen
