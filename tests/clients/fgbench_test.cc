#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "clients/fgbench/closed_loop.h"
#include "clients/fgbench/completion_events.h"
#include "clients/fgbench/progress_bar.h"
#include "clients/fgbench/report.h"
#include "clients/fgbench/sse_reader.h"
#include "clients/fgbench/statistics.h"
#include "clients/fgbench/workload.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using std::chrono::milliseconds;

TEST_CASE("percentiles lie between values in proportion", "[clients]") {
  const Summary one = Summarize({7});
  CHECK(one.count == 1);
  CHECK(one.mean == 7);
  CHECK(one.p50 == 7);
  CHECK(one.p99 == 7);
  const Summary summary = Summarize({4, 1, 3, 2});
  CHECK(summary.mean == 2.5);
  CHECK(summary.p50 == 2.5);
  CHECK(summary.p90 == Approx(3.7));
  CHECK(summary.p99 == Approx(3.97));
  CHECK(summary.max == 4);
  CHECK(Summarize({}).count == 0);
  CHECK(Median({5, 1, 9}) == 5);
  CHECK(Median({}) == 0);
  CHECK(Percentile({1, 2, 3}, 1) == 3);
  CHECK(Percentile({1, 2, 3}, 0) == 1);
}

// The events of a stream that comes in pieces of that size.
std::vector<std::string> Events(const std::string& stream, size_t piece) {
  SseReader reader;
  std::vector<std::string> events;
  for (size_t i = 0; i < stream.size(); i += piece) {
    REQUIRE(reader.Feed(stream.substr(i, piece),
                        [&](std::string_view data) { events.emplace_back(data); }));
  }
  return events;
}

TEST_CASE("events are the same however the bytes are cut", "[clients]") {
  const std::string stream =
      ": comment\n\ndata: one\n\nevent: x\ndata:two\nid: 4\ndata:  three\n\n\n\ndata\n\n"
      "data: cr\r\rdata: crlf\r\n\r\ndatabase: no\ndata: last\n\ndata: unfinished\n";
  const std::vector<std::string> expected = {"one", "two\n three", "", "cr", "crlf", "last"};
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    CAPTURE(piece);
    CHECK(Events(stream, piece) == expected);
  }
}

TEST_CASE("an endless line or event is an error, for good", "[clients]") {
  const auto ignore = [](std::string_view) {};
  SseReader line;
  const std::string chunk(1 << 20, 'x');
  bool ok = true;
  for (int i = 0; i < 6; ++i) ok = line.Feed(chunk, ignore);
  CHECK_FALSE(ok);
  CHECK_FALSE(line.Feed("\n\n", ignore));
  SseReader event;
  for (int i = 0; i < 6; ++i) ok = event.Feed("data: " + chunk + "\n", ignore);
  CHECK_FALSE(ok);
}

TEST_CASE("a completion's events tell text, usage, errors and the end", "[clients]") {
  CHECK(ReadCompletionEvent(R"({"choices":[{"index":0,"text":"a"}]})").has_text);
  CHECK_FALSE(ReadCompletionEvent(R"({"choices":[{"index":0,"text":""}],"usage":null})").has_text);
  const CompletionEvent usage = ReadCompletionEvent(
      R"({"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}})");
  CHECK(usage.prompt_tokens == 5);
  CHECK(usage.output_tokens == 7);
  CHECK_FALSE(usage.has_text);
  CHECK(ReadCompletionEvent("[DONE]").done);
  CHECK(ReadCompletionEvent(R"({"error":{"message":"broken"}})").error == "broken");
  CHECK_FALSE(ReadCompletionEvent(R"({"error":{}})").error.empty());
  for (const char* bad : {"", "{", "[1]", "null", "{\"choices\":7}x"}) {
    CAPTURE(bad);
    CHECK_FALSE(ReadCompletionEvent(bad).error.empty());
  }
  for (const char* odd : {"{}", R"({"choices":7})", R"({"choices":[7,{"text":1}],"usage":[]})",
                          R"({"usage":{"prompt_tokens":"5","completion_tokens":1.5}})"}) {
    CAPTURE(odd);
    const CompletionEvent event = ReadCompletionEvent(odd);
    CHECK(event.error.empty());
    CHECK_FALSE(event.has_text);
    CHECK_FALSE(event.output_tokens.has_value());
  }
  CHECK(ErrorMessageOf(R"({"error":{"message":"no"}})") == "no");
  CHECK(ErrorMessageOf(R"({"error":"Unauthorized"})") == "Unauthorized");
  CHECK(ErrorMessageOf("<html>") == "<html>");
  CHECK(FirstModelOf(R"({"data":[{"id":"m"},{"id":"n"}]})") == "m");
  CHECK(FirstModelOf(R"({"data":[]})").empty());
}

TEST_CASE("the same seed makes the same prompts, and no prompt twice", "[clients]") {
  WorkloadOptions options;
  options.prompt_tokens = 20;
  options.shared_prefix_tokens = 3;
  auto workload = Workload::Make(options);
  auto again = Workload::Make(options);
  REQUIRE(workload.ok());
  std::set<std::string> prompts;
  std::set<std::string> prefixes;
  for (int i = 0; i < 500; ++i) {
    const std::string prompt = workload->Next();
    CHECK(prompt == again->Next());
    CHECK(std::count(prompt.begin(), prompt.end(), ' ') == 22);
    prompts.insert(prompt);
    size_t end = 0;
    for (int k = 0; k < 3; ++k) end = prompt.find(' ', end) + 1;
    prefixes.insert(prompt.substr(0, end));
  }
  CHECK(prompts.size() == 500);
  CHECK(prefixes.size() == 1);
  options.seed = 2;
  CHECK(Workload::Make(options)->Next() != *prompts.begin());
}

TEST_CASE("a file's prompts are taken in turn and differ when they come again", "[clients]") {
  const std::string path =
      (std::filesystem::temp_directory_path() / absl::StrCat("fgbench_test-", getpid(), ".txt"))
          .string();
  std::FILE* file = std::fopen(path.c_str(), "w");
  REQUIRE(file != nullptr);
  std::fputs("first\r\n\nsecond", file);
  std::fclose(file);
  WorkloadOptions options;
  options.prompt_file = path;
  auto workload = Workload::Make(options);
  std::remove(path.c_str());
  REQUIRE(workload.ok());
  for (const char* expected : {"first", "second", "(2) first", "(2) second", "(3) first"}) {
    CHECK(workload->Next() == expected);
  }
  CHECK(absl::IsNotFound(Workload::Make(options).status()));
}

// Ends requests on a thread of its own, as its script says.
class FakeTarget final : public Target {
 public:
  using Script = std::function<std::string(int64_t number)>;  // the request's error

  explicit FakeTarget(Script script) : script_(std::move(script)), thread_([this] { Run(); }) {}
  ~FakeTarget() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  absl::StatusOr<std::string> Probe() override { return std::string("fake"); }
  void Start(const std::string& prompt, Done done) override {
    MutexLock lock(&mutex_);
    running_.push_back(std::move(done));
    most_running_ = std::max(most_running_, running_.size());
    changed_.SignalAll();
  }
  void CancelAll() override {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    held_ = false;
    changed_.SignalAll();
  }
  void Hold() {
    MutexLock lock(&mutex_);
    held_ = true;
  }
  size_t most_running() {
    MutexLock lock(&mutex_);
    return most_running_;
  }

 private:
  void Run() {
    for (int64_t number = 0;; ++number) {
      Done done;
      RequestResult result;
      {
        MutexLock lock(&mutex_);
        while ((running_.empty() || held_) && !stopping_) changed_.Wait(&mutex_);
        if (running_.empty()) return;
        done = std::move(running_.front());
        running_.pop_front();
        result.cancelled = cancelled_;
      }
      result.begin = BenchClock::now();
      result.arrivals = {result.begin + milliseconds(2), result.begin + milliseconds(5)};
      result.end = result.begin + milliseconds(6);
      result.prompt_tokens = 10;
      result.output_tokens = 2;
      result.error = result.cancelled ? "cancelled" : script_(number);
      done(std::move(result));
    }
  }

  const Script script_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Done> running_ ABSL_GUARDED_BY(mutex_);
  size_t most_running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

LoopResult RunLoop(FakeTarget* target, const LoopOptions& options) {
  auto workload = Workload::Make({});
  ClosedLoop loop(target, &*workload, options);
  loop.Start();
  REQUIRE(loop.Wait(milliseconds(60000)));
  return loop.Take();
}

TEST_CASE("a loop keeps its streams busy and makes exactly the requests it was told", "[clients]") {
  FakeTarget target([](int64_t) { return ""; });
  LoopOptions options;
  options.num_streams = 5;
  options.max_requests = 203;
  const LoopResult result = RunLoop(&target, options);
  CHECK(result.requests.size() == 203);
  CHECK(result.seconds > 0);
  CHECK_FALSE(result.gave_up);
  CHECK(target.most_running() <= 5);
}

TEST_CASE("a loop by time ends, and all that it counts is whole", "[clients]") {
  FakeTarget target([](int64_t) { return ""; });
  LoopOptions options;
  options.num_streams = 2;
  options.max_time = std::chrono::duration<double>(0.05);
  const LoopResult result = RunLoop(&target, options);
  CHECK_FALSE(result.requests.empty());
}

TEST_CASE("a loop gives up on a server that fails again and again, not on single errors",
          "[clients]") {
  LoopOptions options;
  options.num_streams = 3;
  options.max_requests = 1000;
  FakeTarget dead([](int64_t number) { return number < 100 ? "" : "gone"; });
  const LoopResult result = RunLoop(&dead, options);
  CHECK(result.gave_up);
  CHECK(result.requests.size() >= 106);
  CHECK(result.requests.size() <= 108);
  FakeTarget shaky([](int64_t number) { return number % 3 == 0 ? "busy" : ""; });
  CHECK_FALSE(RunLoop(&shaky, options).gave_up);
}

TEST_CASE("a loop that is stopped forgets what it cancelled", "[clients]") {
  FakeTarget target([](int64_t) { return ""; });
  target.Hold();
  auto workload = Workload::Make({});
  LoopOptions options;
  options.num_streams = 4;
  options.max_requests = 100;
  ClosedLoop loop(&target, &*workload, options);
  loop.Start();
  CHECK_FALSE(loop.Wait(milliseconds(1)));
  CHECK(loop.progress() == 0);
  loop.Stop();
  REQUIRE(loop.Wait(milliseconds(60000)));
  CHECK(loop.Take().requests.empty());
}

LoopResult Requests(int count, int output_tokens, double seconds, const std::string& error = "") {
  LoopResult result;
  result.seconds = seconds;
  for (int i = 0; i < count; ++i) {
    RequestResult request;
    request.arrivals = {request.begin + milliseconds(10), request.begin + milliseconds(14)};
    request.end = request.begin + milliseconds(20);
    request.prompt_tokens = 100;
    request.output_tokens = output_tokens;
    request.error = error;
    result.requests.push_back(request);
  }
  return result;
}

TEST_CASE("a report sums rounds and compares them pair by pair", "[clients]") {
  std::vector<TargetReport> targets;
  targets.emplace_back("grpc", "a:1", "m");
  targets.emplace_back("http", "http://b:2", "m");
  for (const double seconds : {1.0, 2.0, 4.0}) {  // the machine slows down, for both
    targets[0].Add(Requests(4, 10, seconds), 0.25);
    targets[1].Add(Requests(4, 10, seconds * 1.25), 0.25);
  }
  targets[1].Add(Requests(2, 10, 1, "bad\nnews \xff"), 0);
  CHECK(targets[0].total().num_requests == 12);
  CHECK(targets[0].total().output_tokens == 120);
  CHECK(targets[0].total().output_rate() == Approx(120 / 7.0));
  CHECK(targets[0].total().total_rate() == Approx(1320 / 7.0));
  CHECK(targets[0].first_token().p50 == Approx(10));
  CHECK(targets[0].between_tokens().count == 12);
  CHECK(targets[0].between_tokens().max == Approx(4));
  CHECK(targets[0].whole().mean == Approx(20));
  CHECK(OutputRatio(targets[1], targets[0]) == Approx(0.8));
  CHECK(targets[1].total().num_errors == 2);
  CHECK(targets[1].total().num_requests == 12);
  CHECK(targets[1].errors() == std::map<std::string, int64_t>{{"bad?news ?", 2}});
  const std::string table = Table(targets);
  for (const char* part : {"[1] grpc a:1  m\n", "output ratio to [1]", "0.800", "TTFT ms p99",
                           "[2] 2 x error: bad?news ?\n"}) {
    CAPTURE(part, table);
    CHECK(table.find(part) != std::string::npos);
  }
  CHECK(Json({}, targets, false).find("\"output_ratio_to_first\":8E-1") != std::string::npos);
}

TEST_CASE("a bar shows the share", "[clients]") {
  CHECK(BarLine("round 1/2 grpc", 0.5, 16) ==
        "round 1/2 grpc [############............]  50 %  16 requests");
  CHECK(BarLine("x", 7, 0).find("[########################] 100 %") != std::string::npos);
}

}  // namespace
}  // namespace fastgen
