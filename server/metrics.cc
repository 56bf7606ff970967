#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "server/build_info.h"
#include "server/process_stats.h"

namespace fastgen {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr char kPrefix[] = "fastgen:";

std::vector<double> FirstTokenBounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
          1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
}

// vLLM's begin at 0.01.
std::vector<double> TokenGapBounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
          0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10,  20,   40,  80};
}

// vLLM's begin at 0.3.
std::vector<double> LatencyBounds() {
  return {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0,  2.5,
          5.0,   10,    15,   20,    30,   40,  50,  60,  120, 240, 480, 960, 1920, 7680};
}

// Beyond any context length; Render leaves out what no request can reach.
std::vector<double> TokenCountBounds() {
  std::vector<double> bounds;
  for (double decade = 1; decade <= 1e6; decade *= 10) {
    for (const double digit : {1, 2, 5}) bounds.push_back(digit * decade);
  }
  return bounds;
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

// Builds families that all carry the same labels.
class MetricFamilies {
 public:
  explicit MetricFamilies(Labels labels) : labels_(std::move(labels)) {}

  void Gauge(const std::string& name, const std::string& help, double value) {
    AddMetric(Family(name, help, MetricType::Gauge), {}).gauge.value = value;
  }
  void Counter(const std::string& name, const std::string& help, double value) {
    AddMetric(Family(name, help, MetricType::Counter), {}).counter.value = value;
  }
  // Bounds above `max_value` are left out.
  void Histogram(const std::string& name, const std::string& help, const HistogramCounts& counts,
                 double max_value = kUnbounded);
  MetricFamily* Family(const std::string& name, const std::string& help, MetricType type);
  ClientMetric& AddMetric(MetricFamily* family, Labels more_labels);
  const std::vector<MetricFamily>& families() const { return families_; }

 private:
  static constexpr double kUnbounded = std::numeric_limits<double>::infinity();

  const Labels labels_;
  std::vector<MetricFamily> families_;
};

MetricFamily* MetricFamilies::Family(const std::string& name, const std::string& help,
                                     MetricType type) {
  MetricFamily& family = families_.emplace_back();
  family.name = name;
  family.help = help;
  family.type = type;
  return &family;
}

ClientMetric& MetricFamilies::AddMetric(MetricFamily* family, Labels more_labels) {
  ClientMetric& metric = family->metric.emplace_back();
  metric.label = labels_;
  metric.label.insert(metric.label.end(), more_labels.begin(), more_labels.end());
  return metric;
}

void MetricFamilies::Histogram(const std::string& name, const std::string& help,
                               const HistogramCounts& counts, double max_value) {
  ClientMetric::Histogram& histogram =
      AddMetric(Family(name, help, MetricType::Histogram), {}).histogram;
  histogram.sample_sum = counts.sum;
  for (size_t i = 0; i < counts.counts.size(); ++i) {
    histogram.sample_count += static_cast<uint64_t>(counts.counts[i]);
    const bool is_last = i == counts.bounds.size();
    if (!is_last && counts.bounds[i] > max_value) continue;
    histogram.bucket.push_back({histogram.sample_count, is_last ? kUnbounded : counts.bounds[i]});
  }
}

namespace {

std::string Named(const char* suffix) { return std::string(kPrefix) + suffix; }

void AddRequestGauges(const EngineStats& stats, MetricFamilies* out) {
  out->Gauge(Named("num_requests_running"), "Requests that are being computed.", stats.num_running);
  out->Gauge(Named("num_requests_waiting"), "Requests that wait to be computed.",
             stats.num_waiting);
  out->Gauge(Named("num_tokens_waiting"), "Prompt tokens of the requests that wait.",
             static_cast<double>(stats.num_queued_tokens));
  out->Gauge(Named("paused"), "1 while an operator has paused the engine.", stats.paused ? 1 : 0);
}

double UsedShare(int32_t num_blocks, int32_t num_free) {
  return num_blocks == 0 ? 0 : static_cast<double>(num_blocks - num_free) / num_blocks;
}

void AddCaches(const EngineStats& stats, MetricFamilies* out) {
  out->Gauge(Named("kv_cache_usage_perc"),
             "Share of the KV blocks in device memory that live requests hold; 1 is all.",
             UsedShare(stats.num_blocks, stats.num_free_blocks));
  out->Gauge(Named("kv_cache_blocks"), "KV blocks in device memory.", stats.num_blocks);
  out->Gauge(Named("kv_cache_cached_blocks"),
             "Blocks that no request holds and that keep a prefix for the next one.",
             stats.num_cached_blocks);
  out->Gauge(Named("host_kv_cache_usage_perc"),
             "Share of the KV blocks in host memory in use; 1 is all.",
             UsedShare(stats.num_host_blocks, stats.num_free_host_blocks));
  out->Gauge(Named("host_kv_cache_blocks"), "KV blocks in host memory.", stats.num_host_blocks);
  const auto count = [out](const char* name, const char* help, int64_t value) {
    out->Counter(Named(name), help, static_cast<double>(value));
  };
  count("prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache.",
        stats.prefix_query_tokens);
  count("prefix_cache_hits_total", "Prompt tokens that were found there, in either memory.",
        stats.prefix_device_hit_tokens + stats.prefix_host_hit_tokens);
  count("prefix_cache_device_hits_total", "Of those, found in device memory.",
        stats.prefix_device_hit_tokens);
  count("prefix_cache_host_hits_total", "Of those, found in host memory only.",
        stats.prefix_host_hit_tokens);
}

void AddWork(const EngineStats& stats, MetricFamilies* out) {
  const auto count = [out](const char* name, const char* help, int64_t value) {
    out->Counter(Named(name), help, static_cast<double>(value));
  };
  count("num_preemptions_total", "Requests that had to make room for others.",
        stats.num_preemptions);
  count("num_swaps_total", "Preemptions that kept their KV in host memory.", stats.num_swaps);
  count("num_wasted_rows_total", "Rows computed for requests that had ended one step before.",
        stats.num_wasted_rows);
  count("prompt_tokens_total", "Prompt tokens of requests whose prompt has been computed.",
        stats.prompt_tokens);
  count("generation_tokens_total", "Tokens generated.", stats.output_tokens);
  count("engine_steps_total", "Steps of the engine.", stats.num_steps);
  out->Histogram(Named("iteration_tokens_total"), "Tokens computed in a step of the engine.",
                 stats.step_tokens);
}

void AddBuild(MetricFamilies* out) {
  MetricFamily* family =
      out->Family(Named("build_info"), "Always 1; the label says what runs.", MetricType::Gauge);
  out->AddMetric(family, {{"build", std::string(BuildInfo())}}).gauge.value = 1;
}

// A counter for each word that a label may be.
using Counts = std::vector<std::pair<std::string, int64_t>>;
void AddCounts(const char* name, const char* help, const char* label, const Counts& counts,
               MetricFamilies* out) {
  MetricFamily* family = out->Family(Named(name), help, MetricType::Counter);
  for (const auto& [word, count] : counts) {
    out->AddMetric(family, {{label, word}}).counter.value = static_cast<double>(count);
  }
}

// Under the names that every Prometheus client library gives them.
void AddProcess(const ProcessStats& stats, MetricFamilies* out) {
  out->Counter("process_cpu_seconds_total", "CPU time of the process, user and system.",
               stats.cpu_seconds);
  out->Gauge("process_start_time_seconds", "When the process started, as Unix time.",
             stats.start_time_seconds);
  out->Gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.",
             stats.resident_bytes);
  out->Gauge("process_virtual_memory_bytes", "Address space of the process.", stats.virtual_bytes);
  out->Gauge("process_open_fds", "Files and sockets that the process has open.",
             stats.num_open_files);
  out->Gauge("process_max_fds", "How many it may have open.", stats.max_open_files);
}

}  // namespace

Metrics::Metrics()
    : time_to_first_token_(FirstTokenBounds()),
      inter_token_latency_(TokenGapBounds()),
      e2e_latency_(LatencyBounds()),
      queue_time_(LatencyBounds()),
      prefill_time_(LatencyBounds()),
      decode_time_(LatencyBounds()),
      prompt_tokens_(TokenCountBounds()),
      output_tokens_(TokenCountBounds()) {}

void Metrics::ObserveFirstToken(absl::Duration since_arrival) {
  time_to_first_token_.Observe(Seconds(since_arrival));
}

void Metrics::ObserveTokens(int32_t num_tokens, absl::Duration since_last) {
  inter_token_latency_.Observe(Seconds(since_last) / num_tokens, num_tokens);
}

void Metrics::ObserveEnd(const RequestEnd& end) {
  e2e_latency_.Observe(Seconds(end.latency));
  queue_time_.Observe(Seconds(end.queue_time));
  prefill_time_.Observe(Seconds(end.prefill_time));
  decode_time_.Observe(Seconds(end.decode_time));
  prompt_tokens_.Observe(static_cast<double>(end.prompt_tokens));
  output_tokens_.Observe(static_cast<double>(end.output_tokens));
  finished_.at(static_cast<size_t>(end.reason)).fetch_add(1, std::memory_order_relaxed);
}

void Metrics::ObserveRefusal(absl::StatusCode code) {
  CHECK(code != absl::StatusCode::kOk);
  refused_.at(static_cast<size_t>(code)).fetch_add(1, std::memory_order_relaxed);
}

void Metrics::AddRequests(int32_t context_length, MetricFamilies* out) const {
  Counts counts;
  for (size_t i = 0; i < finished_.size(); ++i) {
    counts.push_back({kFinishedReasons[i], finished_[i].load(std::memory_order_relaxed)});
  }
  AddCounts("request_success_total", "Requests that ended, by reason.", "finished_reason", counts,
            out);
  counts.clear();
  for (int i = 1; i < kNumCodes; ++i) {
    counts.push_back({absl::StatusCodeToString(static_cast<absl::StatusCode>(i)),
                      refused_[i].load(std::memory_order_relaxed)});
  }
  AddCounts("request_refused_total", "Requests that were not accepted, by gRPC status code.",
            "code", counts, out);
  out->Histogram(Named("time_to_first_token_seconds"),
                 "Time from a request's arrival to its first token.", time_to_first_token_.Read());
  out->Histogram(Named("inter_token_latency_seconds"), "Time between tokens of one answer.",
                 inter_token_latency_.Read());
  out->Histogram(Named("e2e_request_latency_seconds"), "Time from a request's arrival to its end.",
                 e2e_latency_.Read());
  out->Histogram(Named("request_queue_time_seconds"),
                 "Time that a request waited for its first step.", queue_time_.Read());
  out->Histogram(Named("request_prefill_time_seconds"),
                 "Time from a request's first step until its prompt was computed.",
                 prefill_time_.Read());
  out->Histogram(Named("request_decode_time_seconds"),
                 "Time from the end of a request's prompt to its end.", decode_time_.Read());
  out->Histogram(Named("request_prompt_tokens"), "Prompt tokens of a request.",
                 prompt_tokens_.Read(), context_length);
  out->Histogram(Named("request_generation_tokens"), "Tokens generated for a request.",
                 output_tokens_.Read(), context_length);
}

std::string Metrics::Render(const Engine* engine) const {
  std::ostringstream text;
  const prometheus::TextSerializer serializer;
  if (engine != nullptr) {
    const EngineStats stats = engine->stats();
    MetricFamilies out({{"model_name", engine->model_info().name}});
    AddRequestGauges(stats, &out);
    AddCaches(stats, &out);
    AddWork(stats, &out);
    AddRequests(engine->model_info().context_length, &out);
    serializer.Serialize(text, out.families());
  }
  MetricFamilies process((Labels()));
  AddBuild(&process);
  AddProcess(ReadProcessStats(), &process);
  serializer.Serialize(text, process.families());
  return text.str();
}

// ---- one request

RequestObservation::RequestObservation(Metrics* metrics, int32_t num_choices, Clock::time_point now)
    : metrics_(metrics),
      arrival_(now),
      num_open_(num_choices),
      last_tokens_(static_cast<size_t>(num_choices)) {}

void RequestObservation::OnTokens(int32_t choice, int32_t num_tokens, Clock::time_point now) {
  if (metrics_ == nullptr || num_tokens == 0) return;
  if (!std::exchange(has_tokens_, true)) {
    metrics_->ObserveFirstToken(absl::FromChrono(now - arrival_));
  }
  auto& last = last_tokens_.at(static_cast<size_t>(choice));
  if (last.has_value()) metrics_->ObserveTokens(num_tokens, absl::FromChrono(now - *last));
  last = now;
}

void RequestObservation::OnFinished(const FinishInfo& info, Clock::time_point now) {
  if (metrics_ == nullptr) return;
  const bool ended_well =
      info.reason == FinishReason::kStop || info.reason == FinishReason::kLength;
  // The choices share the prompt: the one that began first tells when it was computed.
  const bool is_first = !reason_.has_value();
  if (is_first || ended_well) reason_ = info.reason;
  if (is_first || info.receipt.queue_time < end_.queue_time) {
    end_.queue_time = info.receipt.queue_time;
    end_.prefill_time = info.receipt.prefill_time;
  }
  end_.decode_time = std::max(end_.decode_time, info.receipt.decode_time);
  end_.prompt_tokens = info.usage.prompt_tokens;
  end_.output_tokens += info.usage.output_tokens;
  if (--num_open_ == 0) End(now);
}

void RequestObservation::OnEngineError(Clock::time_point now) {
  if (metrics_ == nullptr || num_open_ <= 0) return;
  num_open_ = 0;
  reason_ = FinishReason::kError;
  End(now);
}

void RequestObservation::End(Clock::time_point now) {
  end_.reason = *reason_;
  end_.latency = absl::FromChrono(now - arrival_);
  metrics_->ObserveEnd(end_);
}

}  // namespace fastgen
