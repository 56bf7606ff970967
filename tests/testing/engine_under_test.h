// An engine on a FakeExecutor and a FakeTokenizer, with the executor still in the test's hands.
// Thread rule: the test's main thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/running_engine.h"
#include "tests/testing/fake_executor.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/recording_sink.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen::testing {

struct EngineUnderTestOptions {
  int32_t max_num_seqs = 8;
  int32_t max_num_batched_tokens = 64;
  int32_t max_model_len = 256;
  int32_t block_size = 16;
  int32_t num_blocks = 64;
  int32_t num_host_blocks = 0;
  double page_us_per_token = 0;
  bool prefix_cache = true;
  int32_t max_steps_in_flight = 2;
  int32_t max_queued_requests = 16;
  int64_t max_queued_tokens = 4 << 20;
  absl::Duration deadline_margin = absl::Milliseconds(2);
  std::vector<std::string> pieces;  // ids from FakeTokenizer::kFirstPiece on
  ParserChoice parsers;
};

// Members in this order: the engine ends before anything that it uses is let go by the test.
struct EngineUnderTest {
  FakeExecutor* executor = nullptr;  // owned by the engine
  std::unique_ptr<Engine> engine;

  Engine* operator->() const { return engine.get(); }
  bool AllBlocksFree() const {
    const EngineStats stats = engine->stats();
    return stats.num_free_blocks == stats.num_blocks && stats.num_running == 0 &&
           stats.num_waiting == 0;
  }
};

inline EngineUnderTest MakeEngineUnderTest(const EngineUnderTestOptions& options = {},
                                           FakeExecutor::NextToken next_token = nullptr) {
  auto tokenizer = std::make_unique<FakeTokenizer>(options.pieces);
  EngineParts parts;
  parts.info.name = "fake";
  parts.info.vocab_size = tokenizer->vocab_size();
  parts.info.context_length = options.max_model_len;
  parts.info.eos_ids = {FakeTokenizer::kEos};
  parts.scheduler.max_num_seqs = options.max_num_seqs;
  parts.scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
  parts.scheduler.max_model_len = options.max_model_len;
  parts.scheduler.block_size = options.block_size;
  parts.scheduler.num_blocks = options.num_blocks;
  parts.scheduler.num_host_blocks = options.num_host_blocks;
  parts.scheduler.host_chunk_tokens = 2 * options.block_size;
  parts.scheduler.page_us_per_token = options.page_us_per_token;
  parts.scheduler.prefix_cache = options.prefix_cache;
  parts.scheduler.poison_freed_blocks = true;  // the fake finds every stale read
  parts.scheduler.max_steps_in_flight = options.max_steps_in_flight;
  parts.scheduler.deadline_margin_us = absl::ToInt64Microseconds(options.deadline_margin);
  parts.queue.max_requests = options.max_queued_requests;
  parts.queue.max_tokens = options.max_queued_tokens;
  FakeExecutor::Options executor_options;
  executor_options.vocab_size = tokenizer->vocab_size();
  executor_options.block_size = options.block_size;
  executor_options.num_blocks = options.num_blocks;
  executor_options.num_host_blocks = options.num_host_blocks;
  executor_options.page_us_per_token = options.page_us_per_token;
  auto executor = std::make_unique<FakeExecutor>(executor_options);
  executor->SetNextToken(std::move(next_token));
  EngineUnderTest fake;
  fake.executor = executor.get();
  parts.executor = std::move(executor);
  parts.tokenizer = std::move(tokenizer);
  parts.parsers = options.parsers;
  fake.engine = MakeEngine(std::move(parts));
  return fake;
}

// A script that writes `tokens`, one after another, and <eos> after the last.
inline FakeExecutor::NextToken Says(std::vector<int32_t> tokens) {
  return [tokens = std::move(tokens)](const std::vector<int32_t>&,
                                      const ScheduledSequence& sequence) -> std::optional<int32_t> {
    const size_t position = static_cast<size_t>(sequence.output_position);
    return position < tokens.size() ? tokens[position] : FakeTokenizer::kEos;
  };
}

// The bytes of `text` as FakeTokenizer's ids.
inline std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

// Greedy, on ids, with at most `max_tokens` tokens of output.
inline GenerateRequest MakeRequest(std::string request_id, std::vector<int32_t> prompt,
                                   std::optional<int32_t> max_tokens = std::nullopt) {
  GenerateRequest request;
  request.request_id = std::move(request_id);
  request.prompt = TokenPrompt{std::move(prompt)};
  request.sampling.temperature = 0;
  request.stopping.max_tokens = max_tokens;
  return request;
}

}  // namespace fastgen::testing
