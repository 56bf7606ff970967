// Metrics: what is measured about requests, and the Prometheus text with it, the engine's figures
// and the process's.
//
// Names are vLLM's with our prefix, and so are the histograms' bounds (with finer ones below, where
// a small model spends its time), so that a dashboard needs one substitution. A request is observed
// by its RequestObservation, which its event stream feeds: once however many choices it has. It
// ends under the reason of a choice that ended well, if any did: stop, length, abort (cancelled),
// deadline or error. Tokens that came together share the time since those before them; the first
// ones of a choice have no such time. Labels are the model's name and fixed words: their number is
// bounded. Observing takes no lock and allocates nothing (base/histogram.h): it is done for every
// token. Thread rule: Metrics: any thread; RequestObservation: its owner's lock. Tested by
// tests/server/metrics_test.cc and tests/e2e/test_metrics.py.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/histogram.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace fastgen {

class MetricFamilies;

class Metrics {
 public:
  // Why requests end, in the order of FinishReason.
  static constexpr std::array<const char*, 5> kFinishedReasons = {"stop", "length", "abort",
                                                                  "deadline", "error"};

  // How a request went, over all its choices.
  struct RequestEnd {
    FinishReason reason = FinishReason::kError;
    absl::Duration latency;  // from its arrival
    absl::Duration queue_time;
    absl::Duration prefill_time;
    absl::Duration decode_time;
    int64_t prompt_tokens = 0;
    int64_t output_tokens = 0;
  };

  Metrics();

  void ObserveFirstToken(absl::Duration since_arrival);
  // So many tokens came that long after those before them.
  void ObserveTokens(int32_t num_tokens, absl::Duration since_last);
  void ObserveEnd(const RequestEnd& end);
  // A request that was never accepted. REQUIRES: not OK.
  void ObserveRefusal(absl::StatusCode code);

  // The text exposition format, version 0.0.4; without a loaded engine only what is known without
  // one.
  std::string Render(const Engine* engine) const;

 private:
  static constexpr int kNumCodes = 17;  // of absl::StatusCode

  void AddRequests(int32_t context_length, MetricFamilies* out) const;

  Histogram time_to_first_token_;
  Histogram inter_token_latency_;
  Histogram e2e_latency_;
  Histogram queue_time_;
  Histogram prefill_time_;
  Histogram decode_time_;
  Histogram prompt_tokens_;
  Histogram output_tokens_;
  std::array<std::atomic<int64_t>, kFinishedReasons.size()> finished_ = {};
  std::array<std::atomic<int64_t>, kNumCodes> refused_ = {};
};

// One request, from its arrival, which is the object's construction, to the end of its last choice.
class RequestObservation {
 public:
  using Clock = std::chrono::steady_clock;

  // `metrics` outlives the object; null: nothing is observed.
  RequestObservation(Metrics* metrics, int32_t num_choices, Clock::time_point now = Clock::now());

  void OnTokens(int32_t choice, int32_t num_tokens, Clock::time_point now = Clock::now());
  void OnFinished(const FinishInfo& info, Clock::time_point now = Clock::now());
  // The engine failed: no choice will finish any more.
  void OnEngineError(Clock::time_point now = Clock::now());

 private:
  void End(Clock::time_point now);

  Metrics* const metrics_;
  const Clock::time_point arrival_;
  int32_t num_open_;
  bool has_tokens_ = false;
  std::vector<std::optional<Clock::time_point>> last_tokens_;  // by choice
  std::optional<FinishReason> reason_;
  Metrics::RequestEnd end_;
};

}  // namespace fastgen
