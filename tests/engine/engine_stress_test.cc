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

TEST_CASE("64 clients on a pool that holds 8 all get what they would get alone", "[engine]") {
  // 60 + 36 tokens are 6 blocks of 16.
  const auto request = [](int client) {
    std::vector<int32_t> prompt(60, 'a' + client % 16);
    prompt[0] = client;
    GenerateRequest r = MakeRequest(std::to_string(client), prompt, 36);
    r.sampling.temperature = client % 2;
    r.sampling.seed = 7;
    r.stopping.ignore_eos = true;
    if (client % 5 == 0) r.output.prompt_logprobs = 0;
    if (client % 7 == 0) {
      r.sampling.repetition_penalty = 1.5;  // the fake follows the history
      r.sampling.bad_words = {"ab"};
    }
    r.priority = client % 3;
    return r;
  };
  EngineUnderTestOptions alone_options;
  alone_options.prefix_cache = false;
  alone_options.max_steps_in_flight = 1;
  EngineUnderTest alone = MakeEngineUnderTest(alone_options);
  EngineUnderTestOptions options;
  options.max_num_seqs = 16;
  options.num_blocks = 48;
  options.max_queued_requests = 64;
  options.num_host_blocks = GENERATE(0, 96);
  options.page_us_per_token = 1e-6;
  options.max_steps_in_flight = GENERATE(1, 2);
  EngineUnderTest fake = MakeEngineUnderTest(options);
  // Tokens cost something, else nothing is worth a swap.
  fake.executor->SetStepTime({}, std::chrono::microseconds(10));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int client = 0; client < 64; ++client) {
    sinks.push_back(std::make_shared<RecordingSink>());
    REQUIRE(fake->Submit(request(client), sinks.back()).ok());
  }
  for (int client = 0; client < 64; ++client) {
    CAPTURE(client);
    auto expected = std::make_shared<RecordingSink>();
    REQUIRE(alone->Submit(request(client), expected).ok());
    const RecordingSink::Record record = sinks[client]->WaitForEnd();
    CHECK(record.ids().size() == 36);
    CHECK(record.ids() == expected->WaitForEnd().ids());
    CHECK(record.num_calls_out_of_order == 0);
  }
  REQUIRE(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
  CHECK(fake->stats().num_preemptions > 0);
  CHECK((fake->stats().num_swaps > 0) == (options.num_host_blocks > 0));
  CHECK(fake->stats().num_queued_tokens == 0);
}

TEST_CASE("200 streams cancelled at random times leave every gauge at zero", "[engine]") {
  EngineUnderTestOptions options;
  options.max_num_seqs = 16;
  options.num_blocks = 60;
  options.num_host_blocks = 64;
  options.page_us_per_token = 1e-6;
  options.max_queued_requests = 200;
  EngineUnderTest fake = MakeEngineUnderTest(options);
  std::mt19937 random(3);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 200; ++i) {
    GenerateRequest request = RandomRequest(&random, std::to_string(i));
    request.n = 1 + static_cast<int32_t>(random() % 3);
    request.best_of = request.n + static_cast<int32_t>(random() % 2);
    sinks.push_back(std::make_shared<RecordingSink>(request.n));
    REQUIRE(fake->Submit(std::move(request), sinks.back()).ok());
    for (int k = static_cast<int>(random() % 3); k > 0; --k) {
      const size_t victim = random() % sinks.size();
      fake->Cancel(std::to_string(victim), sinks[victim].get());
    }
    if (random() % 4 == 0) sinks[random() % sinks.size()]->WaitForAccepted();
  }
  for (int i = 0; i < 200; ++i) fake->Cancel(std::to_string(i));
  for (const auto& sink : sinks) CHECK(sink->WaitForEnd().num_calls_out_of_order == 0);
  REQUIRE(fake->WaitIdle(absl::Seconds(10)));
  CHECK(fake.AllBlocksFree());
  const EngineStats stats = fake->stats();
  CHECK(stats.num_queued_tokens == 0);
  CHECK(stats.finished_requests == 200);
}

TEST_CASE("run-ahead changes no stream", "[engine]") {
  const auto run = [](int32_t max_steps_in_flight) {
    EngineUnderTestOptions options;
    options.max_num_seqs = 6;
    options.num_blocks = 40;
    options.max_queued_requests = 60;
    options.max_steps_in_flight = max_steps_in_flight;
    EngineUnderTest fake = MakeEngineUnderTest(options);
    std::mt19937 random(11);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 60; ++i) {
      GenerateRequest request = RandomRequest(&random, std::to_string(i));
      request.stopping.ignore_eos = i % 2 == 0;
      request.stopping.stop_token_ids = {'1', '2', '3', '4', '5', '6', '7', '8'};
      request.stopping.min_tokens = std::min(i % 4, *request.stopping.max_tokens);
      request.sampling.temperature = 1;
      request.sampling.frequency_penalty = static_cast<float>(i % 3) / 2;
      sinks.push_back(std::make_shared<RecordingSink>());
      CHECK(fake->Submit(std::move(request), sinks.back()).ok());
    }
    std::vector<std::pair<std::vector<int32_t>, std::string>> streams;
    for (const auto& sink : sinks) {
      const RecordingSink::Record record = sink->WaitForEnd();
      streams.emplace_back(record.ids(), record.text());
    }
    return streams;
  };
  CHECK(run(1) == run(2));
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
