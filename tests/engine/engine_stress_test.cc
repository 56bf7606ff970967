// Many threads at once: submits, cancels at random, stop strings; every stream ends exactly once
// and nothing is left behind. Run under ThreadSanitizer as well.
#include <atomic>
#include <random>
#include <thread>

#include "engine/engine.h"
#include "tests/testing/engine_under_test.h"

namespace fastgen {
namespace {

using testing::EngineUnderTest;
using testing::EngineUnderTestOptions;
using testing::MakeEngineUnderTest;
using testing::MakeRequest;
using testing::RecordingSink;

struct Outcome {
  std::vector<int32_t> prompt;
  uint64_t seed = 0;
  RecordingSink::Record record;
};

GenerateRequest RandomRequest(std::mt19937* random, std::string request_id) {
  std::vector<int32_t> prompt(1 + (*random)() % 100);
  for (int32_t& id : prompt) id = static_cast<int32_t>((*random)() % 128);
  GenerateRequest request = MakeRequest(std::move(request_id), prompt, 1 + (*random)() % 60);
  request.sampling.seed = (*random)();
  request.stopping.ignore_eos = true;
  request.stopping.stop = {"#"};
  if ((*random)() % 4 == 0) request.output.prompt_logprobs = 2;
  if ((*random)() % 4 == 0) request.output.logprobs = 2;
  return request;
}

TEST_CASE("64 threads that submit and cancel at random leave nothing behind", "[engine]") {
  constexpr int kNumThreads = 64;
  constexpr int kRequestsPerThread = 12;
  EngineUnderTestOptions options;
  options.max_num_seqs = 16;
  options.num_blocks = 60;  // preemption happens
  options.max_queued_requests = 32;
  EngineUnderTest fake = MakeEngineUnderTest(options);
  std::atomic<int> num_ended = 0;
  std::atomic<int> num_refused = 0;
  std::atomic<int> num_bad = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kNumThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < kRequestsPerThread; ++i) {
        const std::string id = std::to_string(t) + "/" + std::to_string(i);
        auto sink = std::make_shared<RecordingSink>();
        const absl::Status status = fake->Submit(RandomRequest(&random, id), sink);
        if (absl::IsResourceExhausted(status)) {
          ++num_refused;
          if (sink->record().accepted.has_value()) ++num_bad;
          continue;
        }
        if (!status.ok()) ++num_bad;
        if (random() % 3 == 0) {
          if (random() % 2 == 0) sink->WaitForDeltas(random() % 10);
          fake->Cancel(id);
        }
        const RecordingSink::Record record = sink->WaitForEnd();
        ++num_ended;
        const bool is_good =
            record.num_calls_out_of_order == 0 && record.finished.has_value() &&
            record.ids().size() == static_cast<size_t>(record.finished->usage.output_tokens) &&
            (record.finished->matched_stop != "#" || record.ids().back() == '#');
        if (!is_good) ++num_bad;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(num_bad == 0);
  CHECK(num_ended + num_refused == kNumThreads * kRequestsPerThread);
  CHECK(num_ended > kNumThreads);
  REQUIRE(fake->WaitIdle(absl::Seconds(30)));
  CHECK(fake.AllBlocksFree());
  CHECK(fake->stats().finished_requests == num_ended);
}

TEST_CASE("a request's tokens do not depend on the load around it", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 16;
  options.num_blocks = 60;
  options.max_queued_requests = 100;
  EngineUnderTest fake = MakeEngineUnderTest(options);
  const auto request = [](std::string id) {
    GenerateRequest r = MakeRequest(std::move(id), std::vector<int32_t>(33, 'q'), 50);
    r.sampling.seed = 5;
    r.stopping.ignore_eos = true;
    return r;
  };
  auto alone = std::make_shared<RecordingSink>();
  REQUIRE(fake->Submit(request("alone"), alone).ok());
  const std::vector<int32_t> expected = alone->WaitForEnd().ids();
  std::mt19937 random(1);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::shared_ptr<RecordingSink>> same;
  for (int i = 0; i < 60; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(RandomRequest(&random, std::to_string(i)), sinks.back()).ok());
    if (i % 10 != 5) continue;
    same.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(request("same" + std::to_string(i)), same.back()).ok());
  }
  for (const auto& sink : same) CHECK(sink->WaitForEnd().ids() == expected);
  for (const auto& sink : sinks) sink->WaitForEnd();
}

}  // namespace
}  // namespace fastgen
