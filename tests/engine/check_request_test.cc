#include "engine/check_request.h"

#include <cmath>
#include <functional>
#include <limits>

#include "tests/testing/fake_tokenizer.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#undef CHECK
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

RequestLimits Limits() {
  RequestLimits limits;
  limits.scheduler.max_model_len = 100;
  limits.scheduler.num_blocks = 100;
  limits.vocab_size = 50;
  return limits;
}

std::string Refusal(const std::function<void(GenerateRequest*)>& change) {
  GenerateRequest request;
  request.request_id = "a";
  change(&request);
  return std::string(CheckRequest(request, Limits()).message());
}

TEST_CASE("each bad parameter is refused by its name, value and limit", "[engine]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  using R = GenerateRequest*;
  CHECK(Refusal([](R r) { r->request_id.clear(); }) == "request_id: is empty");
  CHECK(Refusal([](R r) { r->request_id.assign(300, 'x'); }) ==
        "request_id: 300 bytes exceed the limit of 256");
  CHECK(Refusal([](R r) { r->sampling.temperature = -1; }) ==
        "sampling.temperature: -1 is not a finite number >= 0");
  CHECK(Refusal([&](R r) { r->sampling.temperature = nan; }).rfind("sampling.temperature: ", 0) ==
        0);
  CHECK(Refusal([&](R r) {
          r->sampling.temperature = infinity;
        }).rfind("sampling.temperature: ", 0) == 0);
  CHECK(Refusal([](R r) { r->sampling.top_k = -1; }) ==
        "sampling.top_k: -1 is negative; 0 turns it off");
  CHECK(Refusal([](R r) { r->sampling.top_p = 0; }) == "sampling.top_p: 0 is outside (0, 1]");
  CHECK(Refusal([&](R r) { r->sampling.top_p = nan; }).rfind("sampling.top_p: ", 0) == 0);
  CHECK(Refusal([](R r) { r->sampling.min_p = 1.5; }) == "sampling.min_p: 1.5 is outside [0, 1]");
  CHECK(Refusal([&](R r) { r->sampling.min_p = nan; }).rfind("sampling.min_p: ", 0) == 0);
  CHECK(Refusal([](R r) { r->output.logprobs = 21; }) == "output.logprobs: 21 is outside [0, 20]");
  CHECK(Refusal([](R r) { r->output.prompt_logprobs = -1; }) ==
        "output.prompt_logprobs: -1 is outside [0, 20]");
  CHECK(Refusal([](R r) { r->stopping.max_tokens = -1; }) == "stopping.max_tokens: -1 is negative");
  CHECK(Refusal([](R r) { r->stopping.max_tokens = 0; }) ==
        "stopping.max_tokens: 0 asks for no output; it needs output.prompt_logprobs or "
        "output.echo");
  CHECK(Refusal([](R r) {
          r->stopping.max_tokens = 5;
          r->stopping.min_tokens = 6;
        }) == "stopping.min_tokens: 6 exceeds stopping.max_tokens (5)");
  CHECK(Refusal([](R r) { r->stopping.min_tokens = -6; }) == "stopping.min_tokens: -6 is negative");
  CHECK(Refusal([](R r) { r->stopping.min_tokens = 101; }) ==
        "stopping.min_tokens: 101 exceeds the context length 100");
  CHECK(Refusal([](R r) {
          r->stopping.stop = {"a", ""};
        }) == "stopping.stop: an empty string would stop every output");
  CHECK(Refusal([](R r) { r->stopping.stop.assign(65, "x"); }) ==
        "stopping.stop: 65 strings exceed the limit of 64");
  CHECK(Refusal([](R r) { r->stopping.stop = {std::string(5000, 'x')}; }) ==
        "stopping.stop: a string of 5000 bytes exceeds the limit of 4096");
  CHECK(Refusal([](R r) { r->stopping.stop.assign(9, std::string(4096, 'x')); }) ==
        "stopping.stop: its strings exceed the limit of 32768 bytes together");
  CHECK(Refusal([](R r) {
          r->stopping.stop_token_ids = {3, 50};
        }) == "stopping.stop_token_ids: 50 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) { r->stopping.stop_token_ids = {-1}; }) ==
        "stopping.stop_token_ids: -1 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) { r->stopping.stop_token_ids.assign(1025, 1); }) ==
        "stopping.stop_token_ids: 1025 ids exceed the limit of 1024");
}

TEST_CASE("penalties, rules, choices, priority and salt have their ranges", "[engine]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  using R = GenerateRequest*;
  CHECK(Refusal([](R r) { r->sampling.presence_penalty = 2.5; }) ==
        "sampling.presence_penalty: 2.5 is outside [-2, 2]");
  CHECK(Refusal([&](R r) { r->sampling.presence_penalty = nan; }).rfind("sampling.pres", 0) == 0);
  CHECK(Refusal([](R r) { r->sampling.frequency_penalty = -3; }) ==
        "sampling.frequency_penalty: -3 is outside [-2, 2]");
  CHECK(Refusal([&](R r) { r->sampling.frequency_penalty = nan; }).rfind("sampling.freq", 0) == 0);
  CHECK(Refusal([](R r) { r->sampling.repetition_penalty = 0; }) ==
        "sampling.repetition_penalty: 0 is outside (0, 10]");
  CHECK(Refusal([](R r) { r->sampling.repetition_penalty = 11; }) ==
        "sampling.repetition_penalty: 11 is outside (0, 10]");
  CHECK(Refusal([&](R r) { r->sampling.repetition_penalty = nan; }).rfind("sampling.rep", 0) == 0);
  CHECK(Refusal([](R r) {
          r->sampling.logit_bias = {{50, 1.0f}};
        }) == "sampling.logit_bias: 50 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) {
          r->sampling.logit_bias = {{4, 1.0f}, {4, 2.0f}};
        }) == "sampling.logit_bias: token 4 is named twice");
  CHECK(Refusal([](R r) {
          r->sampling.logit_bias = {{4, -101.0f}};
        }) == "sampling.logit_bias: -101 for token 4 is outside [-100, 100]");
  CHECK(Refusal([&](R r) {
          r->sampling.logit_bias = {{4, nan}};
        }).rfind("sampling.logit_bias: ", 0) == 0);
  CHECK(Refusal([](R r) {
          r->sampling.allowed_token_ids = {1, -1};
        }) == "sampling.allowed_token_ids: -1 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) { r->sampling.allowed_token_ids.assign(262145, 1); }) ==
        "sampling.allowed_token_ids: 262145 ids exceed the limit of 262144");
  CHECK(Refusal([](R r) { r->sampling.bad_words = {""}; }) ==
        "sampling.bad_words: an empty word is in every output");
  CHECK(Refusal([](R r) { r->sampling.bad_words.assign(257, "x"); }) ==
        "sampling.bad_words: 257 words exceed the limit of 256");
  CHECK(Refusal([](R r) { r->sampling.bad_words = {std::string(257, 'x')}; }) ==
        "sampling.bad_words: a word of 257 bytes exceeds the limit of 256");
  CHECK(Refusal([](R r) { r->n = 0; }) == "n: 0 is outside [1, 128]");
  CHECK(Refusal([](R r) { r->n = r->best_of = 129; }) == "n: 129 is outside [1, 128]");
  CHECK(Refusal([](R r) { r->best_of = 129; }) == "best_of: 129 is outside [n, 128]; n is 1");
  CHECK(Refusal([](R r) { r->n = 3; }) == "best_of: 1 is outside [n, 128]; n is 3");
  CHECK(Refusal([](R r) { r->priority = 101; }) == "priority: 101 is outside [-100, 100]");
  CHECK(Refusal([](R r) { r->cache_salt.assign(257, 'x'); }) ==
        "cache_salt: 257 bytes exceed the limit of 256");
  CHECK(Refusal([](R r) {
          r->sampling.presence_penalty = -2;
          r->sampling.frequency_penalty = 2;
          r->sampling.repetition_penalty = 10;
          r->sampling.logit_bias = {{0, 100.0f}, {49, -100.0f}};
          r->sampling.allowed_token_ids = {0, 49, 0};
          r->sampling.bad_words = {"word"};
          r->n = r->best_of = 128;
          r->priority = -100;
          r->cache_salt.assign(256, 'x');
        }).empty());
}

TEST_CASE("bad words become tokens, as they stand and after a space, each once", "[engine]") {
  const testing::FakeTokenizer tokenizer;
  SamplingParams sampling;
  StopCondition stop;
  CHECK(*MakeTokenRules(sampling, stop, tokenizer) == nullptr);
  sampling.bad_words = {"b", "a", "b"};
  sampling.allowed_token_ids = {9, 3, 9};
  sampling.logit_bias = {{5, 1.5f}};
  const auto rules = MakeTokenRules(sampling, stop, tokenizer);
  REQUIRE(rules.ok());
  CHECK((*rules)->bad_words ==
        std::vector<std::vector<int32_t>>{{' ', 'a'}, {' ', 'b'}, {'a'}, {'b'}});
  CHECK((*rules)->allowed_token_ids == std::vector<int32_t>{3, 9});
  CHECK((*rules)->logit_bias == sampling.logit_bias);
}

TEST_CASE("allowed ids of which none may be sampled are refused", "[engine]") {
  const testing::FakeTokenizer tokenizer;
  SamplingParams sampling;
  sampling.allowed_token_ids = {'a', 256};
  StopCondition stop;
  stop.stop_token_ids = {256};
  CHECK(MakeTokenRules(sampling, stop, tokenizer).ok());
  sampling.bad_words = {"a"};
  CHECK(MakeTokenRules(sampling, stop, tokenizer).ok());
  stop.min_output_tokens = 1;
  CHECK(MakeTokenRules(sampling, stop, tokenizer).status().message() ==
        "sampling.allowed_token_ids: none of the 2 ids may be sampled: each is a bad word, or a "
        "stop id while under stopping.min_tokens (1)");
}

TEST_CASE("the ends of each range are taken", "[engine]") {
  using R = GenerateRequest*;
  CHECK(Refusal([](R) {}).empty());
  CHECK(Refusal([](R r) {
          r->sampling.temperature = 0;
          r->sampling.top_p = 1;
          r->sampling.min_p = 1;
          r->output.logprobs = 20;
          r->output.prompt_logprobs = 0;
          r->stopping.max_tokens = 0;
          r->stopping.stop_token_ids = {0, 49};
        }).empty());
  CHECK(Refusal([](R r) {
          r->output.echo = true;
          r->stopping.max_tokens = 0;
        }).empty());
}

TEST_CASE("a prompt fits the context or is refused with both numbers", "[engine]") {
  GenerateRequest request;
  const auto check = [&](size_t num_ids) {
    return CheckPrompt(request, std::vector<int32_t>(num_ids, 1), Limits());
  };
  CHECK(*check(1) == 99);
  CHECK(*check(99) == 1);
  CHECK_FALSE(check(100).ok());
  CHECK_FALSE(check(0).ok());
  request.stopping.max_tokens = 1;
  CHECK(*check(99) == 1);
  CHECK_FALSE(check(100).ok());
  request.stopping.max_tokens = 0;
  CHECK(*check(100) == 0);
  const std::string message(check(101).status().message());
  CHECK(message.rfind("prompt: ", 0) == 0);
  CHECK(message.find("101") != std::string::npos);
  CHECK(message.find("100") != std::string::npos);
}

TEST_CASE("eos ends the output unless ignored", "[engine]") {
  StoppingParams stopping;
  stopping.stop_token_ids = {7};
  stopping.min_tokens = 3;
  const StopCondition stop = MakeStopCondition(stopping, 10, {2, 5});
  CHECK(stop.max_output_tokens == 10);
  CHECK(stop.min_output_tokens == 3);
  CHECK(stop.stop_token_ids == std::vector<int32_t>{7, 2, 5});
  stopping.ignore_eos = true;
  CHECK(MakeStopCondition(stopping, 10, {2, 5}).stop_token_ids == std::vector<int32_t>{7});
}

TEST_CASE("an echoed prompt is scored as the output is", "[engine]") {
  GenerateRequest request;
  CHECK(MakeSampling(request, 1).num_prompt_top_logprobs == -1);
  request.output.logprobs = 4;
  CHECK(MakeSampling(request, 1).num_prompt_top_logprobs == -1);
  request.output.echo = true;
  CHECK(MakeSampling(request, 1).num_prompt_top_logprobs == 4);
  request.output.prompt_logprobs = 2;
  CHECK(MakeSampling(request, 1).num_prompt_top_logprobs == 2);
  request.sampling.temperature = 1e-7f;
  CHECK(MakeSampling(request, 1).temperature == 0);
}

TEST_CASE("choices are scored where the best are to be found", "[engine]") {
  GenerateRequest request;
  request.n = request.best_of = 2;
  CHECK(MakeSampling(request, 1).num_top_logprobs == -1);
  request.best_of = 3;
  CHECK(MakeSampling(request, 1).num_top_logprobs == 0);
  request.output.logprobs = 5;
  CHECK(MakeSampling(request, 1).num_top_logprobs == 5);
  request.sampling.presence_penalty = 1;
  CHECK(MakeSampling(request, 1).presence_penalty == 1);
  CHECK(MakeSampling(request, 1).has_penalties());
}

}  // namespace
}  // namespace fastgen
