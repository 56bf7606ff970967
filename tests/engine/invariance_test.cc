// A real model's tokens do not depend on what happens around a request: who else is in the batch,
// whether its prefix was computed, cached, swapped out or computed again, and how far steps run
// ahead.
#include "engine/engine.h"
#include "tests/engine/chat_message.h"
#include "tests/testing/recording_sink.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::RecordingSink;

constexpr int32_t kMaxTokens = 40;
constexpr int kNumWatched = 3;

EngineOptions Options(const std::string& model_path) {
  EngineOptions options;
  options.model_path = model_path;
  options.max_num_seqs = 12;
  options.max_num_batched_tokens = 96;
  options.max_model_len = 512;
  options.block_size = 16;
  options.kv_cache_bytes = int64_t{256} << 20;
  return options;
}

std::unique_ptr<Engine> Load(const EngineOptions& options) {
  auto engine = Engine::Create(options, nullptr);
  INFO(engine.status().ToString());
  REQUIRE(engine.ok());
  return *std::move(engine);
}

// Greedy, seeded, and seeded under penalties.
GenerateRequest Watched(int which, std::string request_id) {
  GenerateRequest request;
  request.request_id = std::move(request_id);
  ChatPrompt chat;
  std::string text = "Tell a story in which these words occur:";
  for (int i = 0; i < 40; ++i) text += " word" + std::to_string(i * (which + 3));
  chat.messages.push_back(testing::Message("user", text));
  request.prompt = chat;
  request.sampling.temperature = which == 0 ? 0 : 0.9f;
  request.sampling.seed = 42;
  if (which == 2) {
    request.sampling.presence_penalty = 0.5f;
    request.sampling.frequency_penalty = 0.5f;
    request.sampling.repetition_penalty = 1.2f;
    request.sampling.bad_words = {"the"};
  }
  request.stopping.max_tokens = kMaxTokens;
  request.stopping.ignore_eos = true;
  request.output.logprobs = 0;
  return request;
}

GenerateRequest Other(int i) {
  GenerateRequest request = Watched(i % kNumWatched, "other" + std::to_string(i));
  std::get<ChatPrompt>(request.prompt).messages[0].content =
      "Count down from " + std::to_string(500 + i) + " in words, and explain each of the numbers" +
      " as you would to a child who has never heard of numbers before.";
  request.sampling.temperature = 1;
  request.sampling.seed = std::nullopt;
  return request;
}

std::shared_ptr<RecordingSink> Start(Engine* engine, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = engine->Submit(std::move(request), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return sink;
}

struct Stream {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  int32_t cached_tokens = 0;
  bool operator==(const Stream& other) const {
    return ids == other.ids && logprobs == other.logprobs;
  }
};

Stream End(RecordingSink* sink) {
  const RecordingSink::Record record = sink->WaitForEnd();
  Stream stream;
  stream.ids = record.ids();
  for (const TokenLogprob& logprob : record.logprobs()) stream.logprobs.push_back(logprob.logprob);
  REQUIRE(record.finished.has_value());
  stream.cached_tokens = record.finished->usage.cached_tokens;
  return stream;
}

// The watched requests at once, among `num_others`.
std::vector<Stream> Crowd(Engine* engine, int num_others) {
  std::vector<std::shared_ptr<RecordingSink>> others;
  std::vector<std::shared_ptr<RecordingSink>> watched;
  for (int i = 0; i < num_others / 2; ++i) others.push_back(Start(engine, Other(i)));
  for (int i = 0; i < kNumWatched; ++i) {
    watched.push_back(Start(engine, Watched(i, "watched" + std::to_string(i))));
  }
  for (int i = num_others / 2; i < num_others; ++i) others.push_back(Start(engine, Other(i)));
  std::vector<Stream> streams;
  for (const auto& sink : watched) streams.push_back(End(sink.get()));
  for (const auto& sink : others) sink->WaitForEnd();
  return streams;
}

TEST_CASE("a real model's streams are the same alone, in a crowd, cached, preempted and swapped",
          "[engine][golden]") {
  const auto model = testing::DefaultModel();
  if (!model.has_value()) {
    testing::SkipCase("the default model is not here");
    return;
  }
  EngineOptions options = Options(model->string());
  std::vector<Stream> alone;
  {
    options.prefix_cache = false;
    options.max_steps_in_flight = 1;
    const std::unique_ptr<Engine> engine = Load(options);
    for (int i = 0; i < kNumWatched; ++i) {
      alone.push_back(End(Start(engine.get(), Watched(i, "alone")).get()));
      CHECK(alone.back().ids.size() == kMaxTokens);
      CHECK(alone.back().cached_tokens == 0);
    }
    CHECK_FALSE(alone[1] == alone[2]);
  }
  options.prefix_cache = true;
  options.max_steps_in_flight = 2;
  {
    const std::unique_ptr<Engine> engine = Load(options);
    CHECK(Crowd(engine.get(), 8) == alone);
    const std::vector<Stream> cached = Crowd(engine.get(), 0);
    CHECK(cached == alone);
    for (const Stream& stream : cached) CHECK(stream.cached_tokens >= 64);
    CHECK(engine->stats().num_preemptions == 0);
  }
  // Blocks for about three of the eleven.
  const int64_t block_bytes = 2 * 30 * 3 * 64 * 16 * 2;
  options.kv_cache_bytes = 44 * block_bytes;
  {
    const std::unique_ptr<Engine> engine = Load(options);
    CHECK(Crowd(engine.get(), 8) == alone);
    CHECK(engine->stats().num_preemptions > 0);
    CHECK(engine->stats().num_swaps == 0);
  }
  options.host_kv_bytes = 256 * block_bytes;
  {
    const std::unique_ptr<Engine> engine = Load(options);
    CHECK(Crowd(engine.get(), 8) == alone);
    CHECK(engine->stats().num_preemptions > 0);
    const std::vector<Stream> again = Crowd(engine.get(), 0);
    CHECK(again == alone);
    const EngineStats stats = engine->stats();
    CHECK(stats.num_swaps + stats.prefix_host_hit_tokens > 0);
    CHECK(stats.num_free_blocks == stats.num_blocks);
  }
}

}  // namespace
}  // namespace fastgen
