// The tiny models of the shared test data against what another program computed from them, by the
// tolerances that come with them; and the oracle against the same, so that it may judge the rest.
#include "tests/engine/model/model_under_test.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <algorithm>
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/safetensors.h"
#include "tests/testing/reference_forward.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

namespace json = boost::json;
using ::fastgen::testing::ExecutorUnderTest;
using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::TestModelOptions;

struct Case {
  std::string name;
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> greedy_ids;
  std::vector<double> greedy_logprobs;
  std::vector<double> margins;
  std::vector<double> prompt_logprobs;  // of prompt_ids[i + 1]
  std::vector<float> last_logits;
  std::vector<float> all_logits;  // may be empty

  // The prompt and all greedy tokens but the last, which nothing follows.
  std::vector<int32_t> FedBack() const {
    std::vector<int32_t> ids = prompt_ids;
    ids.insert(ids.end(), greedy_ids.begin(), greedy_ids.end() - 1);
    return ids;
  }
};

struct Golden {
  double std = 0;
  std::vector<Case> cases;
};

template <typename T>
std::vector<T> Numbers(const json::value& list) {
  std::vector<T> numbers;
  for (const json::value& value : list.as_array()) {
    if (!value.is_null()) numbers.push_back(value.to_number<T>());
  }
  return numbers;
}

std::vector<float> Floats(const SafetensorsFile& file, const std::string& name) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name != name) continue;
    std::vector<float> values(static_cast<size_t>(tensor.bytes) / 4);
    std::memcpy(values.data(), tensor.data, static_cast<size_t>(tensor.bytes));
    return values;
  }
  return {};
}

Golden LoadGolden(const std::filesystem::path& directory) {
  std::ifstream file(directory / "golden.json");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const json::value root = json::parse(text);
  const auto tensors = SafetensorsFile::Open(directory / "golden.safetensors");
  REQUIRE(tensors.ok());
  Golden golden;
  golden.std = root.at("measured").at("logits_std").to_number<double>();
  for (const json::value& entry : root.at("cases").as_array()) {
    Case c;
    c.name = entry.at("name").as_string().c_str();
    c.prompt_ids = Numbers<int32_t>(entry.at("prompt_ids"));
    c.greedy_ids = Numbers<int32_t>(entry.at("greedy_ids"));
    c.greedy_logprobs = Numbers<double>(entry.at("greedy_logprobs"));
    c.margins = Numbers<double>(entry.at("margins"));
    c.prompt_logprobs = Numbers<double>(entry.at("prompt_logprobs"));
    c.last_logits = Floats(*tensors, c.name + ".last_logits");
    c.all_logits = Floats(*tensors, c.name + ".all_logits");
    golden.cases.push_back(std::move(c));
  }
  REQUIRE(golden.cases.size() >= 8);
  return golden;
}

// Largest and root of mean square difference.
struct Difference {
  double max = 0;
  double squares = 0;
  size_t count = 0;
  double rms() const {
    return std::sqrt(squares / static_cast<double>(std::max<size_t>(count, 1)));
  }

  template <typename T>
  void Add(absl::Span<const T> got, absl::Span<const float> wanted) {
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - double{wanted[i]});
      max = difference <= max ? max : difference;  // a NaN must not pass
      squares += difference * difference;
    }
    count += got.size();
  }
};

// Compares one case's logits (of FedBack) with everything recorded about it.
struct Verdict {
  Difference logits;
  double logprob_max = 0;
  int num_wrong_tokens = 0;  // where the margin is above the bound
};

void Judge(const Case& c, const std::vector<float>& logits, size_t vocab, double margin_bound,
           Verdict* verdict) {
  const auto row = [&](size_t i) { return absl::MakeConstSpan(logits).subspan(i * vocab, vocab); };
  const size_t last = c.prompt_ids.size() - 1;
  verdict->logits.Add(row(last), absl::MakeConstSpan(c.last_logits));
  if (!c.all_logits.empty()) {
    verdict->logits.Add(absl::MakeConstSpan(logits).subspan(0, (last + 1) * vocab),
                        absl::MakeConstSpan(c.all_logits));
  }
  for (size_t i = 0; i < c.greedy_ids.size(); ++i) {
    const double logprob = testing::Logprob(row(last + i), c.greedy_ids[i]);
    verdict->logprob_max = std::max(verdict->logprob_max, std::abs(logprob - c.greedy_logprobs[i]));
    if (c.margins[i] > margin_bound && testing::ArgMax(row(last + i)) != c.greedy_ids[i]) {
      ++verdict->num_wrong_tokens;
    }
  }
  for (size_t i = 0; i < c.prompt_logprobs.size(); ++i) {
    const double logprob = testing::Logprob(row(i), c.prompt_ids[i + 1]);
    verdict->logprob_max = std::max(verdict->logprob_max, std::abs(logprob - c.prompt_logprobs[i]));
  }
}

const char* const kModels[] = {
    "llama-linear",    "llama-sharded", "llama-tied", "llama31",    "ministral", "mistral",
    "mistral-sliding", "qwen2",         "qwen2-tied", "qwen2-yarn", "qwen3"};

std::optional<std::filesystem::path> ModelPath(const std::string& name) {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return std::nullopt;
  }
  return *shared / "models" / name;
}

TEST_CASE("fp32 results equal the recorded ones", "[model][golden]") {
  const std::string name = GENERATE(from_range(std::begin(kModels), std::end(kModels)));
  const std::string isa = GENERATE("", "generic");
  const auto path = ModelPath(name);
  if (!path.has_value()) return;
  INFO(name << " " << isa);
  const Golden golden = LoadGolden(*path);
  TestModelOptions options;
  options.cpu_isa = isa;
  ModelUnderTest tested(*path, options);
  Verdict verdict;
  for (const Case& c : golden.cases) {
    Judge(c, tested.Logits(c.FedBack()), static_cast<size_t>(tested.config().vocab),
          2e-3 * golden.std, &verdict);
  }
  CAPTURE(verdict.logits.max / golden.std, verdict.logprob_max);
  CHECK(verdict.logits.max < 1e-3 * golden.std);
  CHECK(verdict.logprob_max < 5e-3);
  CHECK(verdict.num_wrong_tokens == 0);
}

TEST_CASE("serving results are within the recorded 16-bit bounds", "[model][golden]") {
  const std::string name = GENERATE(from_range(std::begin(kModels), std::end(kModels)));
  const auto path = ModelPath(name);
  if (!path.has_value()) return;
  INFO(name);
  const Golden golden = LoadGolden(*path);
  TestModelOptions options;
  options.compute_dtype = ComputeDType::kAuto;
  ModelUnderTest tested(*path, options);
  Verdict verdict;
  for (const Case& c : golden.cases) {
    Judge(c, tested.Logits(c.FedBack()), static_cast<size_t>(tested.config().vocab),
          0.15 * golden.std, &verdict);
  }
  CAPTURE(verdict.logits.max / golden.std, verdict.logits.rms() / golden.std);
  CHECK(verdict.logits.rms() < 0.05 * golden.std);
  CHECK(verdict.logits.max < 0.35 * golden.std);
  CHECK(verdict.num_wrong_tokens == 0);
}

TEST_CASE("free-running fp32 decode writes the recorded tokens", "[model][golden]") {
  const std::string name = GENERATE(from_range(std::begin(kModels), std::end(kModels)));
  const auto path = ModelPath(name);
  if (!path.has_value()) return;
  INFO(name);
  const Golden golden = LoadGolden(*path);
  TestModelOptions options;
  options.max_num_batched_tokens = 1024;
  ExecutorUnderTest tested(*path, options);
  const int32_t blocks_a_case = 20;
  // All cases in one batch, each on scattered blocks of its own.
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<int32_t>> blocks;
  for (size_t i = 0; i < golden.cases.size(); ++i) {
    ids.push_back(golden.cases[i].prompt_ids);
    blocks.push_back(
        testing::ScatteredBlocks(static_cast<int32_t>(i) * blocks_a_case, blocks_a_case));
  }
  std::vector<bool> is_done(ids.size(), false);
  for (int32_t step = 0; step < 32; ++step) {
    StepPlan plan;
    for (size_t i = 0; i < ids.size(); ++i) {
      ScheduledSequence sequence;
      sequence.id = i;
      const int32_t length = static_cast<int32_t>(ids[i].size());
      sequence.tokens = step == 0 ? ids[i] : std::vector<int32_t>{ids[i].back()};
      sequence.context_begin = step == 0 ? 0 : length - 1;
      sequence.block_table.assign(blocks[i].begin(), blocks[i].begin() + (length + 15) / 16);
      sequence.samples = true;
      sequence.output_position = step;
      sequence.sampling.num_top_logprobs = 0;
      plan.num_tokens += static_cast<int32_t>(sequence.tokens.size());
      plan.sequences.push_back(std::move(sequence));
    }
    const auto result = tested.Run(plan);
    for (size_t i = 0; i < ids.size(); ++i) {
      const TokenScore& next = result.sequences[i].next;
      ids[i].push_back(next.token);
      const Case& c = golden.cases[i];
      const size_t at = static_cast<size_t>(step);
      // After a legitimate flip everything differs.
      is_done[i] = is_done[i] || c.margins[at] <= 2e-3 * golden.std;
      if (is_done[i]) continue;
      INFO(c.name << " step " << step);
      CHECK(next.token == c.greedy_ids[at]);
      CHECK(next.logprob == Approx(c.greedy_logprobs[at]).margin(5e-3));
    }
  }
}

TEST_CASE("the oracle equals the recorded results", "[model][golden]") {
  const std::string name = GENERATE(from_range(std::begin(kModels), std::end(kModels)));
  const auto path = ModelPath(name);
  if (!path.has_value()) return;
  INFO(name);
  const Golden golden = LoadGolden(*path);
  const auto oracle = testing::ReferenceModel::Load(**Checkpoint::Open(*path));
  Difference difference;
  for (const Case& c : golden.cases) {
    if (c.prompt_ids.size() > 64) continue;  // for time
    const std::vector<double> logits = oracle.Logits(c.prompt_ids);
    difference.Add(absl::MakeConstSpan(logits).subspan(logits.size() - c.last_logits.size()),
                   absl::MakeConstSpan(c.last_logits));
  }
  // The recorded results are fp32's.
  CHECK(difference.max < 1e-4 * golden.std);
}

}  // namespace
}  // namespace fastgen
