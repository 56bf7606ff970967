#include "engine/check_request.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

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
  CHECK(Refusal([](R r) {
          r->stopping.stop_token_ids = {3, 50};
        }) == "stopping.stop_token_ids: 50 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) { r->stopping.stop_token_ids = {-1}; }) ==
        "stopping.stop_token_ids: -1 is outside the vocabulary [0, 50)");
  CHECK(Refusal([](R r) { r->stopping.stop_token_ids.assign(1025, 1); }) ==
        "stopping.stop_token_ids: 1025 ids exceed the limit of 1024");
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

}  // namespace
}  // namespace fastgen
