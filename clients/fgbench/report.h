// Report: what a run measured, as a table for people and as JSON for programs.
//
// A round is one closed loop on one target. Figures of a target are over all its rounds:
// percentiles over all its requests (inter-token latencies: over all gaps between arrivals), rates
// as tokens of whole requests over the rounds' seconds. Failed requests count as errors and nowhere
// else. A ratio is the median, over the rounds, of a target's rate by the first target's in the
// same round: what drifts on a shared machine drifts for both. Thread rule: one thread. Tested by
// tests/clients/fgbench_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "clients/fgbench/closed_loop.h"
#include "clients/fgbench/statistics.h"

namespace fastgen {

struct RoundFigures {
  double seconds = 0;
  double cpu_seconds = 0;    // of this program
  int64_t num_requests = 0;  // that ended well
  int64_t num_errors = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;

  double output_rate() const {
    return seconds > 0 ? static_cast<double>(output_tokens) / seconds : 0;
  }
  double total_rate() const {
    return seconds > 0 ? static_cast<double>(prompt_tokens + output_tokens) / seconds : 0;
  }
};

class TargetReport {
 public:
  TargetReport(std::string kind, std::string address, std::string model);

  void Add(LoopResult result, double cpu_seconds);

  const std::string& kind() const { return kind_; }
  const std::string& address() const { return address_; }
  const std::string& model() const { return model_; }
  const std::vector<RoundFigures>& rounds() const { return rounds_; }
  const std::map<std::string, int64_t>& errors() const { return errors_; }
  bool gave_up() const { return gave_up_; }
  RoundFigures total() const;
  // Milliseconds.
  Summary first_token() const { return Summarize(first_token_ms_); }
  Summary between_tokens() const { return Summarize(between_tokens_ms_); }
  Summary whole() const { return Summarize(whole_ms_); }

 private:
  void AddRequest(const RequestResult& request, RoundFigures* round);

  const std::string kind_;  // "grpc", "http"
  const std::string address_;
  const std::string model_;
  std::vector<RoundFigures> rounds_;
  std::map<std::string, int64_t> errors_;  // by message
  bool gave_up_ = false;
  std::vector<double> first_token_ms_;
  std::vector<double> between_tokens_ms_;
  std::vector<double> whole_ms_;
};

struct RunOptions {
  LoopOptions loop;
  WorkloadOptions workload;
  RequestShape shape;
  int32_t num_rounds = 3;
  int64_t num_warmup = 0;
};

// Of the rounds that both have; 0 when none.
double OutputRatio(const TargetReport& target, const TargetReport& first);

std::string Table(const std::vector<TargetReport>& targets);
std::string Json(const RunOptions& options, const std::vector<TargetReport>& targets,
                 bool interrupted);

}  // namespace fastgen
