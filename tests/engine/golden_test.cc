// Real models through the whole engine: the reference's prompts, tokens and logprobs, and that what
// else is in the batch changes nothing.
//
// Greedy tokens are compared while the reference's margin (best minus second logit) exceeds what
// its README allows for the arithmetic: after a legitimate flip everything differs.
#include <cmath>
#include <fstream>
#include <sstream>

#include "engine/engine.h"
#include "tests/engine/chat_message.h"
#include "tests/testing/recording_sink.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <boost/json.hpp>
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

namespace json = boost::json;
using testing::RecordingSink;

std::vector<int32_t> Ids(const json::value& array) {
  return json::value_to<std::vector<int32_t>>(array);
}

std::vector<json::value> ReadLines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<json::value> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

json::value ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return json::parse(text.str());
}

std::unique_ptr<Engine> Load(const std::filesystem::path& path, ComputeDType compute_dtype) {
  EngineOptions options;
  options.model_path = path.string();
  options.backend.compute_dtype = compute_dtype;
  options.max_num_seqs = 32;
  options.max_num_batched_tokens = 256;
  auto engine = Engine::Create(options, nullptr);
  INFO(engine.status().ToString());
  REQUIRE(engine.ok());
  return *std::move(engine);
}

std::shared_ptr<RecordingSink> Start(Engine* engine, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>();
  const absl::Status status = engine->Submit(std::move(request), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return sink;
}

GenerateRequest Greedy(std::string request_id, Prompt prompt, int32_t max_tokens) {
  GenerateRequest request;
  request.request_id = std::move(request_id);
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.stopping.max_tokens = max_tokens;
  return request;
}

ChatPrompt ChatOf(const json::value& line) {
  ChatPrompt chat;
  for (const json::value& message : line.at("messages").as_array()) {
    chat.messages.push_back(testing::Message(json::value_to<std::string>(message.at("role")),
                                             json::value_to<std::string>(message.at("content"))));
  }
  return chat;
}

// Compares up to the first margin within `bound`; returns the number of tokens compared.
size_t CompareGreedy(const std::vector<int32_t>& ids, const json::value& reference, double bound) {
  const std::vector<int32_t> expected = Ids(reference.at("greedy_ids"));
  const auto margins = json::value_to<std::vector<double>>(reference.at("margins"));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (margins[i] <= bound) return i;
    CAPTURE(i, margins[i]);
    REQUIRE(i < ids.size());
    REQUIRE(ids[i] == expected[i]);
  }
  return expected.size();
}

TEST_CASE("SmolLM2 in fp32 gives the reference's prompts, tokens and text", "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  const auto model = testing::DefaultModel();
  if (!shared.has_value() || !model.has_value()) {
    testing::SkipCase("the default model or its references are not here");
    return;
  }
  constexpr size_t kMaxTokens = 48;
  constexpr double kMarginBound = 0.01;
  const std::unique_ptr<Engine> engine = Load(*model, ComputeDType::kF32);
  const std::vector<json::value> lines = ReadLines(*shared / "smollm2" / "greedy.jsonl");
  REQUIRE(lines.size() == 30);
  for (const json::value& line : lines) {
    const auto rendered = engine->RenderChat(ChatOf(line));
    REQUIRE(rendered.ok());
    REQUIRE(rendered->text == json::value_to<std::string>(line.at("prompt_text")));
    REQUIRE(rendered->ids == Ids(line.at("prompt_ids")));
  }
  std::vector<std::shared_ptr<RecordingSink>> sinks(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    sinks[i] = Start(engine.get(), Greedy(std::to_string(i), ChatOf(lines[i]), kMaxTokens));
  }
  size_t num_compared = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(i);
    const RecordingSink::Record record = sinks[i]->WaitForEnd();
    const json::value& reference = lines[i];
    const size_t num_expected = reference.at("greedy_ids").as_array().size();
    const size_t compared = CompareGreedy(record.ids(), reference, kMarginBound);
    num_compared += compared;
    if (compared < num_expected) continue;
    CHECK(record.text() == json::value_to<std::string>(reference.at("text")));
    const bool ends = num_expected < kMaxTokens;
    CHECK(record.finished->reason == (ends ? FinishReason::kStop : FinishReason::kLength));
  }
  CHECK(num_compared > 900);
}

TEST_CASE("SmolLM2 in serving mode: 31 others in the batch change no token", "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  const auto model = testing::DefaultModel();
  if (!shared.has_value() || !model.has_value()) {
    testing::SkipCase("the default model or its references are not here");
    return;
  }
  constexpr int32_t kMaxTokens = 20;
  const std::unique_ptr<Engine> engine = Load(*model, ComputeDType::kAuto);
  const std::vector<json::value> lines = ReadLines(*shared / "smollm2" / "greedy.jsonl");
  const auto greedy = [&](const std::string& id, size_t line) {
    GenerateRequest request = Greedy(id, ChatOf(lines[line]), kMaxTokens);
    request.output.logprobs = 0;
    return request;
  };
  const std::vector<size_t> watched = {0, 7, 19};
  std::vector<RecordingSink::Record> alone;
  for (size_t line : watched) {
    alone.push_back(Start(engine.get(), greedy("alone", line))->WaitForEnd());
  }
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (size_t i = 0; i < 32; ++i) {
    GenerateRequest request = greedy(std::to_string(i), i % lines.size());
    // The others sample, so that their texts and lengths differ from run to run.
    const bool is_watched = std::find(watched.begin(), watched.end(), i) != watched.end();
    if (!is_watched) request.sampling.temperature = 1;
    sinks.push_back(Start(engine.get(), std::move(request)));
  }
  for (size_t i = 0; i < watched.size(); ++i) {
    const RecordingSink::Record record = sinks[watched[i]]->WaitForEnd();
    CAPTURE(watched[i]);
    CHECK(record.ids() == alone[i].ids());
    CHECK(record.text() == alone[i].text());
    const auto logprobs = record.logprobs();
    const auto expected = alone[i].logprobs();
    REQUIRE(logprobs.size() == expected.size());
    for (size_t t = 0; t < logprobs.size(); ++t) CHECK(logprobs[t].logprob == expected[t].logprob);
  }
  for (const auto& sink : sinks) sink->WaitForEnd();
}

void CheckTinyCase(const RecordingSink::Record& record, const json::value& reference, double std) {
  constexpr double kLogprobBound = 5e-3;
  const size_t num_compared = CompareGreedy(record.ids(), reference, 2e-3 * std);
  const json::array& expected = reference.at("greedy_logprobs").as_array();
  const std::vector<TokenLogprob> logprobs = record.logprobs();
  for (size_t i = 0; i < num_compared; ++i) {
    CHECK(std::abs(logprobs[i].logprob - expected[i].to_number<double>()) < kLogprobBound);
  }
  const json::array& prompt = reference.at("prompt_logprobs").as_array();
  REQUIRE_FALSE(record.deltas.empty());
  std::vector<TokenLogprob> scores;
  for (const TokenDelta& delta : record.deltas) {
    scores.insert(scores.end(), delta.prompt_logprobs.begin(), delta.prompt_logprobs.end());
  }
  REQUIRE(scores.size() == prompt.size());
  for (size_t i = 1; i < prompt.size(); ++i) {
    CHECK(std::abs(scores[i].logprob - prompt[i].to_number<double>()) < kLogprobBound);
  }
}

TEST_CASE("tiny models in fp32 give the reference's tokens and logprobs", "[engine][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the reference models are not here");
    return;
  }
  const std::string name = GENERATE("llama31", "llama-tied", "llama-linear", "llama-sharded");
  CAPTURE(name);
  const std::unique_ptr<Engine> engine = Load(*shared / "models" / name, ComputeDType::kF32);
  const json::value golden = ReadJson(*shared / "models" / name / "golden.json");
  const double std = golden.at("measured").at("logits_std").to_number<double>();
  const json::array& cases = golden.at("cases").as_array();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const json::value& reference : cases) {
    GenerateRequest request = Greedy(json::value_to<std::string>(reference.at("name")),
                                     TokenPrompt{Ids(reference.at("prompt_ids"))}, 32);
    request.stopping.ignore_eos = true;
    request.output.logprobs = 0;
    request.output.prompt_logprobs = 0;
    sinks.push_back(Start(engine.get(), std::move(request)));
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    CheckTinyCase(sinks[i]->WaitForEnd(), cases[i], std);
  }
}

}  // namespace
}  // namespace fastgen
