// The default model against recorded results: logprobs, perplexity and greedy tokens.
#include "tests/engine/model/batch_under_test.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <algorithm>
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

namespace json = boost::json;
using ::fastgen::testing::AreSame;
using ::fastgen::testing::BatchUnderTest;
using ::fastgen::testing::DrivenSequence;
using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::TestModelOptions;

struct Text {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;  // of ids[i + 1]
};

struct Greedy {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> greedy_ids;
  std::vector<double> margins;
};

template <typename T>
std::vector<T> Numbers(const json::value& list) {
  std::vector<T> numbers;
  for (const json::value& value : list.as_array()) {
    if (!value.is_null()) numbers.push_back(value.to_number<T>());
  }
  return numbers;
}

std::vector<json::value> Lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file.good());
  std::vector<json::value> values;
  for (std::string line; std::getline(file, line);) values.push_back(json::parse(line));
  return values;
}

struct Data {
  std::string model;
  std::filesystem::path directory;
};

std::optional<Data> Find() {
  const auto model = testing::DefaultModel();
  const auto shared = testing::SharedTestdata();
  if (!model.has_value() || !shared.has_value()) {
    testing::SkipCase("the default model or its recorded results are not here");
    return std::nullopt;
  }
  return Data{*model, *shared / "smollm2"};
}

Text Perplexity(const Data& data) {
  const json::value root = Lines(data.directory / "perplexity.json").front();
  return {Numbers<int32_t>(root.at("ids")), Numbers<double>(root.at("logprobs"))};
}

// Logprobs of ids[i + 1] and the best token after ids[i].
struct Scored {
  std::vector<double> logprobs;
  std::vector<int32_t> best;
};

Scored Score(ModelUnderTest* tested, const std::vector<int32_t>& ids) {
  const std::vector<float> logits = tested->Logits(ids);
  const size_t vocab = static_cast<size_t>(tested->config().vocab);
  Scored scored;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = absl::MakeConstSpan(logits).subspan(i * vocab, vocab);
    if (i + 1 < ids.size()) scored.logprobs.push_back(testing::Logprob(row, ids[i + 1]));
    scored.best.push_back(testing::ArgMax(row));
  }
  return scored;
}

struct Differences {
  double max = 0;
  double mean = 0;
  double perplexity_ratio = 0;
};

Differences Compare(const std::vector<double>& got, const std::vector<double>& wanted) {
  REQUIRE(got.size() == wanted.size());
  Differences differences;
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - wanted[i]);
    differences.max = difference <= differences.max ? differences.max : difference;
    differences.mean += difference / static_cast<double>(got.size());
    sum += wanted[i] - got[i];
  }
  differences.perplexity_ratio = std::exp(sum / static_cast<double>(got.size()));
  return differences;
}

// Steps at which the best token is another although the margin is above `bound`.
int CountWrongTokens(ModelUnderTest* tested, const Data& data, double bound, size_t num_lines) {
  int num_wrong = 0;
  std::vector<json::value> lines = Lines(data.directory / "greedy.jsonl");
  lines.resize(std::min(lines.size(), num_lines));
  for (const json::value& line : lines) {
    std::vector<int32_t> ids = Numbers<int32_t>(line.at("prompt_ids"));
    const std::vector<int32_t> greedy = Numbers<int32_t>(line.at("greedy_ids"));
    const std::vector<double> margins = Numbers<double>(line.at("margins"));
    const size_t first = ids.size() - 1;
    ids.insert(ids.end(), greedy.begin(), greedy.end() - 1);
    const Scored scored = Score(tested, ids);
    for (size_t i = 0; i < greedy.size(); ++i) {
      num_wrong += margins[i] > bound && scored.best[first + i] != greedy[i] ? 1 : 0;
    }
  }
  return num_wrong;
}

TEST_CASE("default model in fp32 gives the recorded logprobs", "[model][smollm2]") {
  const auto data = Find();
  if (!data.has_value()) return;
  ModelUnderTest tested(data->model, {});
  for (const json::value& line : Lines(data->directory / "prompt_logprobs.jsonl")) {
    const Scored scored = Score(&tested, Numbers<int32_t>(line.at("ids")));
    CHECK(Compare(scored.logprobs, Numbers<double>(line.at("logprobs"))).max < 2e-3);
  }
}

TEST_CASE("default model in fp32 chooses the recorded tokens", "[model][smollm2]") {
  const auto data = Find();
  if (!data.has_value()) return;
  ModelUnderTest tested(data->model, {});
  CHECK(CountWrongTokens(&tested, *data, 2e-3, 6) == 0);
}

TEST_CASE("default model in fp32 has the recorded perplexity", "[model][smollm2]") {
  const auto data = Find();
  if (!data.has_value()) return;
  ModelUnderTest tested(data->model, {});
  const Text text = Perplexity(*data);
  const Differences differences = Compare(Score(&tested, text.ids).logprobs, text.logprobs);
  CHECK(differences.max < 2e-3);
  CHECK(std::abs(differences.perplexity_ratio - 1) < 1e-4);
}

TestModelOptions AsServed(WeightForm form) {
  TestModelOptions options;
  options.compute_dtype = ComputeDType::kAuto;
  options.weights_form = form;
  options.block_size = 64;
  return options;
}

TEST_CASE("default model as served stays near the recorded results", "[model][smollm2]") {
  const auto data = Find();
  if (!data.has_value()) return;
  const auto [form, max_distance, max_mean] = GENERATE(
      std::tuple(WeightForm::kAsStored, 0.006, 0.08), std::tuple(WeightForm::kBf16, 0.002, 0.03));
  ModelUnderTest tested(data->model, AsServed(form));
  const Text text = Perplexity(*data);
  const Differences differences = Compare(Score(&tested, text.ids).logprobs, text.logprobs);
  CAPTURE(FormName(form), differences.max, differences.mean, differences.perplexity_ratio);
  CHECK(differences.mean < max_mean);
  CHECK(std::abs(differences.perplexity_ratio - 1) < max_distance);
  if (form == WeightForm::kAsStored) CHECK(CountWrongTokens(&tested, *data, 0.6, 30) == 0);
}

// Greedy with the best tokens of each step, so that every comparison is of many logprobs.
SequenceSampling Greedy() {
  SequenceSampling sampling;
  sampling.num_top_logprobs = 20;
  return sampling;
}

TEST_CASE(
    "default model gives a sequence the same bits alone, in a crowd, in chunks and from the "
    "host tier",
    "[model][smollm2]") {
  const auto model = testing::DefaultModel();
  if (!model.has_value()) {
    testing::SkipCase("the default model is not here");
    return;
  }
  TestModelOptions options;
  options.compute_dtype = ComputeDType::kAuto;
  options.block_size = 64;
  options.host_kv_bytes = 64 << 20;
  ExecutorUnderTest tested(*model, options);
  const int64_t vocab = 49152;
  const size_t num_tokens = 32;
  const std::vector<int32_t> prompt = testing::RandomIds(275, 1, vocab);
  const auto alone = [&](const testing::BatchOptions& batch_options) {
    BatchUnderTest batch(&tested, batch_options);
    const DrivenSequence* sequence = batch.Add(prompt, Greedy(), 320);
    batch.Generate(num_tokens);
    return sequence->output;
  };
  const std::vector<TokenScore> expected = alone({});
  for (const int32_t chunk_size : {1, 17, 256}) {
    INFO("chunks of " << chunk_size);
    CHECK(AreSame(alone({.chunk_size = chunk_size, .runs_ahead = true}), expected));
  }

  BatchUnderTest batch(&tested, {.chunk_size = 40, .runs_ahead = true, .rotates_rows = true});
  for (int i = 0; i < 7; ++i) {
    SequenceSampling sampling = Greedy();
    sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    sampling.frequency_penalty = i % 3 == 0 ? 0.5f : 0.0f;
    batch.Add(testing::RandomIds(7 + 19 * i, static_cast<uint32_t>(2 + i), vocab), sampling, 256);
  }
  DrivenSequence* crowded = batch.Add(prompt, Greedy(), 320);
  batch.Generate(num_tokens / 2);
  batch.SwapOut(crowded, 3);
  batch.Step();
  batch.PageIn(crowded, 3, batch.TakeBlocks(crowded->blocks.size()), 5);
  batch.Generate(num_tokens);
  crowded->output.resize(num_tokens);
  CHECK(AreSame(crowded->output, expected));
}

}  // namespace
}  // namespace fastgen
