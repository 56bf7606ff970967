#include "server/metrics.h"

#include <chrono>
#include <map>
#include <sstream>
#include <string>
#include <thread>

#include "base/strings.h"
#include "fastgen/v1/admin.grpc.pb.h"
#include "server/process_stats.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using std::chrono::milliseconds;
using testing::Generate;
using testing::Latch;
using testing::TestDaemon;
using testing::TextRequest;
using Time = RequestObservation::Clock::time_point;

// A sample's value by its name with labels, as the text has them. Comments are left out.
std::map<std::string, double> Samples(const std::string& text) {
  std::map<std::string, double> samples;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    REQUIRE(space != std::string::npos);
    const bool is_new =
        samples.emplace(line.substr(0, space), std::stod(line.substr(space))).second;
    REQUIRE(is_new);
  }
  return samples;
}

std::string Ours(const std::string& name, const std::string& more_labels = "") {
  return "fastgen:" + name + "{model_name=\"fake-model\"" + more_labels + "}";
}

class Rendered {
 public:
  explicit Rendered(const Metrics& metrics) : samples_(Samples(metrics.Render(&engine_))) {}
  double operator[](const std::string& name) const { return samples_.at(Ours(name)); }
  double Of(const std::string& name, const std::string& more_labels) const {
    return samples_.at(Ours(name, more_labels));
  }
  bool Has(const std::string& name, const std::string& more_labels) const {
    return samples_.count(Ours(name, more_labels)) > 0;
  }

 private:
  testing::FakeEngine engine_;
  const std::map<std::string, double> samples_;
};

FinishInfo Finish(int32_t index, FinishReason reason, int32_t output_tokens) {
  FinishInfo info;
  info.index = index;
  info.reason = reason;
  info.usage.prompt_tokens = 7;
  info.usage.output_tokens = output_tokens;
  return info;
}

TEST_CASE("a request is observed from its arrival to the end of its answer", "[server]") {
  Metrics metrics;
  const Time start = Time() + milliseconds(1000);
  RequestObservation observation(&metrics, 1, start);
  observation.OnTokens(0, 1, start + milliseconds(30));
  observation.OnTokens(0, 1, start + milliseconds(50));
  observation.OnTokens(0, 3, start + milliseconds(110));  // 20 ms each
  FinishInfo info = Finish(0, FinishReason::kLength, 5);
  info.receipt.queue_time = absl::Milliseconds(4);
  info.receipt.prefill_time = absl::Milliseconds(26);
  info.receipt.decode_time = absl::Milliseconds(80);
  observation.OnFinished(info, start + milliseconds(120));
  const Rendered text(metrics);
  CHECK(text["time_to_first_token_seconds_count"] == 1);
  CHECK(text["time_to_first_token_seconds_sum"] == Approx(0.03));
  CHECK(text.Of("time_to_first_token_seconds_bucket", ",le=\"0.02\"") == 0);
  CHECK(text.Of("time_to_first_token_seconds_bucket", ",le=\"0.04\"") == 1);
  CHECK(text.Of("time_to_first_token_seconds_bucket", ",le=\"+Inf\"") == 1);
  CHECK(text["inter_token_latency_seconds_count"] == 4);
  CHECK(text["inter_token_latency_seconds_sum"] == Approx(0.08));
  CHECK(text.Of("inter_token_latency_seconds_bucket", ",le=\"0.01\"") == 0);
  CHECK(text.Of("inter_token_latency_seconds_bucket", ",le=\"0.025\"") == 4);
  CHECK(text["e2e_request_latency_seconds_sum"] == Approx(0.12));
  CHECK(text["request_queue_time_seconds_sum"] == Approx(0.004));
  CHECK(text["request_prefill_time_seconds_sum"] == Approx(0.026));
  CHECK(text["request_decode_time_seconds_sum"] == Approx(0.08));
  CHECK(text["request_prompt_tokens_sum"] == 7);
  CHECK(text["request_generation_tokens_sum"] == 5);
  CHECK(text.Of("request_generation_tokens_bucket", ",le=\"5\"") == 1);
  CHECK(text.Of("request_generation_tokens_bucket", ",le=\"2\"") == 0);
  CHECK(text.Of("request_success_total", ",finished_reason=\"length\"") == 1);
  CHECK(text.Of("request_success_total", ",finished_reason=\"stop\"") == 0);
}

TEST_CASE("a request of several choices is observed once, at the end of the last", "[server]") {
  Metrics metrics;
  const Time start;
  RequestObservation observation(&metrics, 3, start);
  for (int32_t choice : {0, 1, 2})
    observation.OnTokens(choice, 1, start + milliseconds(10 + choice));
  for (int32_t choice : {0, 1, 2})
    observation.OnTokens(choice, 1, start + milliseconds(20 + choice));
  FinishInfo late = Finish(1, FinishReason::kLength, 2);
  late.receipt.queue_time = absl::Seconds(5);
  late.receipt.prefill_time = absl::Seconds(9);
  late.receipt.decode_time = absl::Seconds(3);
  observation.OnFinished(late, start + milliseconds(30));
  FinishInfo early = Finish(0, FinishReason::kCancelled, 2);
  early.receipt.queue_time = absl::Seconds(1);
  early.receipt.prefill_time = absl::Seconds(2);
  observation.OnFinished(early, start + milliseconds(31));
  CHECK(Rendered(metrics)["e2e_request_latency_seconds_count"] == 0);
  observation.OnFinished(Finish(2, FinishReason::kCancelled, 2), start + milliseconds(40));
  const Rendered text(metrics);
  CHECK(text["time_to_first_token_seconds_count"] == 1);
  CHECK(text["inter_token_latency_seconds_count"] == 3);
  CHECK(text["inter_token_latency_seconds_sum"] == Approx(0.03));
  for (const char* name :
       {"e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
        "request_decode_time_seconds", "request_prompt_tokens", "request_generation_tokens"}) {
    CHECK(text[std::string(name) + "_count"] == 1);
  }
  CHECK(text["request_prompt_tokens_sum"] == 7);
  CHECK(text["request_generation_tokens_sum"] == 6);
  CHECK(text["request_queue_time_seconds_sum"] == 0);  // of the one that began first
  CHECK(text["request_decode_time_seconds_sum"] == 3);
  CHECK(text.Of("request_success_total", ",finished_reason=\"length\"") == 1);
  CHECK(text.Of("request_success_total", ",finished_reason=\"abort\"") == 0);
}

TEST_CASE("every way to end has its reason", "[server]") {
  Metrics metrics;
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
        FinishReason::kDeadline, FinishReason::kError}) {
    RequestObservation(&metrics, 1).OnFinished(Finish(0, reason, 0));
  }
  RequestObservation failed(&metrics, 2);
  failed.OnFinished(Finish(0, FinishReason::kStop, 1));
  failed.OnEngineError();
  failed.OnEngineError();
  const Rendered text(metrics);
  const std::map<std::string, double> expected = {
      {"stop", 1}, {"length", 1}, {"abort", 1}, {"deadline", 1}, {"error", 2}};
  for (const auto& [reason, count] : expected) {
    CHECK(text.Of("request_success_total", ",finished_reason=\"" + reason + "\"") == count);
  }
  CHECK(text["time_to_first_token_seconds_count"] == 0);
  CHECK(text["e2e_request_latency_seconds_count"] == 6);
}

TEST_CASE("token histograms end where the context does", "[server]") {
  Metrics metrics;
  RequestObservation(&metrics, 1).OnFinished(Finish(0, FinishReason::kStop, 3000000));
  const Rendered text(metrics);
  REQUIRE(testing::FakeEngine().model_info().context_length == 4096);
  CHECK(text.Has("request_prompt_tokens_bucket", ",le=\"1\""));
  CHECK(text.Has("request_prompt_tokens_bucket", ",le=\"2000\""));
  CHECK_FALSE(text.Has("request_prompt_tokens_bucket", ",le=\"5000\""));
  CHECK(text.Of("request_generation_tokens_bucket", ",le=\"+Inf\"") == 1);
  CHECK(text.Of("request_generation_tokens_bucket", ",le=\"100\"") == 0);
}

TEST_CASE("a model's name cannot break the text", "[server]") {
  Metrics metrics;
  testing::FakeEngine engine;
  engine.set_model_name("a\"b\\c\nd");
  const std::string text = metrics.Render(&engine);
  CHECK(text.find("fastgen:num_requests_running{model_name=\"a\\\"b\\\\c\\nd\"} 0\n") !=
        std::string::npos);
}

TEST_CASE("observations of many threads are all counted while others render", "[server]") {
  Metrics metrics;
  testing::FakeEngine engine;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics] {
      for (int i = 0; i < 500; ++i) {
        RequestObservation observation(&metrics, 1);
        for (int k = 0; k < 4; ++k) observation.OnTokens(0, 1);
        observation.OnFinished(Finish(0, FinishReason::kStop, 4));
        metrics.ObserveRefusal(absl::StatusCode::kResourceExhausted);
      }
    });
  }
  double last = 0;
  bool fell = false;
  for (int i = 0; i < 50; ++i) {
    const double now =
        Samples(metrics.Render(&engine)).at(Ours("inter_token_latency_seconds_count"));
    fell = fell || now < last;
    last = now;
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(fell);
  const Rendered text(metrics);
  CHECK(text["inter_token_latency_seconds_count"] == 6000);
  CHECK(text["request_generation_tokens_sum"] == 8000);
  CHECK(text.Of("request_success_total", ",finished_reason=\"stop\"") == 2000);
  CHECK(text.Of("request_refused_total", ",code=\"RESOURCE_EXHAUSTED\"") == 2000);
}

TEST_CASE("the process's own figures are there and plausible", "[server]") {
  const ProcessStats stats = ReadProcessStats();
  CHECK(stats.start_time_seconds > 1.6e9);
  CHECK(stats.start_time_seconds <= static_cast<double>(time(nullptr)) + 1);
  CHECK(stats.resident_bytes > 1e6);
  CHECK(stats.virtual_bytes >= stats.resident_bytes);
  CHECK(stats.num_open_files >= 3);
  CHECK(stats.max_open_files >= stats.num_open_files);
  CHECK(stats.cpu_seconds > 0);
}

std::map<std::string, double> GetMetrics(Daemon* daemon) {
  auto admin = v1::Admin::NewStub(daemon->channel());
  grpc::ClientContext context;
  v1::Metrics metrics;
  REQUIRE(admin->GetMetrics(&context, {}, &metrics).ok());
  return Samples(metrics.prometheus_text());
}

TEST_CASE("metrics are there while the model is loading, without those of the engine", "[server]") {
  Latch go;
  DaemonParts parts;
  parts.load_engine = [&go](const LoadProgress&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    go.Wait();
    return std::make_unique<testing::FakeEngine>();
  };
  auto daemon = Daemon::StartWith({}, nullptr, std::move(parts));
  REQUIRE(daemon.ok());
  auto samples = GetMetrics(daemon->get());
  CHECK(samples.count("process_resident_memory_bytes") == 1);
  CHECK(samples.count(Ours("num_requests_running")) == 0);
  go.Open();
  REQUIRE((*daemon)->WaitLoaded().ok());
  CHECK(GetMetrics(daemon->get()).count(Ours("num_requests_running")) == 1);
}

TEST_CASE("GetMetrics counts what was generated and what was refused", "[server]") {
  TestDaemon daemon;
  REQUIRE(Generate(daemon.stub.get(), TextRequest("a", 3)).status.ok());
  v1::GenerateRequest two = TextRequest("a", 2);
  two.set_n(2);
  REQUIRE(Generate(daemon.stub.get(), two).status.ok());
  two.set_n(1000);
  REQUIRE_FALSE(Generate(daemon.stub.get(), two).status.ok());
  daemon.engine->RefuseNext(absl::ResourceExhaustedError("full"));
  REQUIRE_FALSE(Generate(daemon.stub.get(), TextRequest("a", 3)).status.ok());
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(10)));  // its counters follow the answers
  const auto samples = GetMetrics(daemon.daemon.get());
  CHECK(samples.at(Ours("request_success_total", ",finished_reason=\"length\"")) == 2);
  CHECK(samples.at(Ours("request_generation_tokens_sum")) == 7);
  CHECK(samples.at(Ours("time_to_first_token_seconds_count")) == 2);
  CHECK(samples.at(Ours("inter_token_latency_seconds_count")) == 4);
  CHECK(samples.at(Ours("generation_tokens_total")) == 7);
  CHECK(samples.at(Ours("prefix_cache_hits_total")) == 70);
  CHECK(samples.at(Ours("request_refused_total", ",code=\"INVALID_ARGUMENT\"")) == 1);
  CHECK(samples.at(Ours("request_refused_total", ",code=\"RESOURCE_EXHAUSTED\"")) == 1);
  CHECK(samples.at("process_open_fds") > 0);
}

TEST_CASE("a client that goes away is counted as an abort", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  grpc::ClientContext context;
  v1::GenerateRequest request = TextRequest("a", 100);
  request.set_request_id("gone");
  auto reader = daemon.stub->Generate(&context, request);
  v1::GenerateEvent event;
  daemon.engine->LetRounds(2);
  REQUIRE(reader->Read(&event));
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
  REQUIRE(daemon.engine->WaitCancelCalled("gone"));
  daemon.engine->ReleaseRounds();
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(10)));
  const auto samples = GetMetrics(daemon.daemon.get());
  CHECK(samples.at(Ours("request_success_total", ",finished_reason=\"abort\"")) == 1);
  CHECK(samples.at(Ours("e2e_request_latency_seconds_count")) == 1);
}

}  // namespace
}  // namespace fastgen
