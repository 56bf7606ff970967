// Constrained answers of a real, tiny model: always a beginning of what is allowed, whole when they
// end by STOP, the same alone and in a crowd that preempts; and what is refused, or ends, with
// which words.
#include <algorithm>
#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/text/structural_tag.h"
#include "tests/engine/tiny_text.h"
#include "tests/testing/recording_sink.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"
// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
#undef CHECK
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::RecordingSink;
using testing::TinyText;
using Kind = Constraint::Kind;

std::unique_ptr<Engine> MakeTiny(const std::filesystem::path& directory, int64_t kv_cache_bytes) {
  testing::TinyModel model;
  model.config.vocab = TinyText::kVocab;
  testing::GgufWriter writer = model.Gguf();
  TinyText text;
  text.bos_id = text.eos_id = std::nullopt;
  text.AddTo(&writer);
  const std::string path = (directory / "tiny.gguf").string();
  testing::WriteFile(path, writer.Bytes());
  EngineOptions options;
  options.model_path = path;
  options.backend.compute_dtype = ComputeDType::kF32;
  options.backend.num_threads = 1;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.block_size = 16;
  options.kv_cache_bytes = kv_cache_bytes;
  auto engine = Engine::Create(options, nullptr);
  INFO(engine.status().ToString());
  REQUIRE(engine.ok());
  return *std::move(engine);
}

GenerateRequest Ask(std::string id, Constraint constraint, uint64_t seed,
                    int32_t max_tokens = 100) {
  GenerateRequest request;
  request.request_id = std::move(id);
  request.prompt = TextPrompt{"hi there " + std::to_string(seed)};
  request.constraint = std::move(constraint);
  request.sampling.temperature = 1;
  request.sampling.seed = seed;
  request.stopping.max_tokens = max_tokens;
  request.output.token_ids = true;
  return request;
}

std::shared_ptr<RecordingSink> Start(Engine* engine, GenerateRequest request) {
  auto sink = std::make_shared<RecordingSink>(request.n);
  const absl::Status status = engine->Submit(std::move(request), sink);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return sink;
}

Constraint Make(Kind kind, std::string text) {
  Constraint constraint;
  constraint.kind = kind;
  constraint.text = std::move(text);
  return constraint;
}

// std::regex would say it shorter, but does not compile without warnings under the sanitizers.
bool IsOf(const std::string& text, char first, char last) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c >= first && c <= last; });
}

bool IsJson(const std::string& text) {
  boost::json::error_code error;
  boost::json::parse(text, error);
  return !error;
}

struct Property {
  Constraint constraint;
  std::function<bool(const std::string&)> holds;  // of a whole answer
};

std::vector<Property> Properties() {
  std::vector<Property> properties;
  properties.push_back(
      {Make(Kind::kRegex, "[a-f]{2,6}(-[0-9]+)?"), [](const std::string& text) {
         const size_t dash = text.find('-');
         const std::string number = dash == std::string::npos ? "" : text.substr(dash + 1);
         const std::string word = text.substr(0, dash);
         return word.size() >= 2 && word.size() <= 6 && IsOf(word, 'a', 'f') &&
                (dash == std::string::npos || (!number.empty() && IsOf(number, '0', '9')));
       }});
  properties.push_back(
      {Make(Kind::kGrammar, "root ::= \"(\" root? \")\" | [xyz]"), [](const std::string& text) {
         int depth = 0;
         for (char c : text) {
           depth += c == '(' ? 1 : c == ')' ? -1 : 0;
           if (depth < 0) return false;
         }
         return depth == 0;
       }});
  properties.push_back({Make(Kind::kJsonObject, ""), IsJson});
  properties.push_back(
      {Make(Kind::kJsonSchema,
            R"({"type":"array","items":{"type":"integer","minimum":-3,"maximum":250},
      "minItems":1,"maxItems":4})"),
       [](const std::string& text) {
         boost::json::error_code error;
         const boost::json::value value = boost::json::parse(text, error);
         if (error || !value.is_array() || value.get_array().empty() ||
             value.get_array().size() > 4) {
           return false;
         }
         for (const auto& item : value.get_array()) {
           if (!item.is_int64() || item.get_int64() < -3 || item.get_int64() > 250) return false;
         }
         return true;
       }});
  properties.push_back({Make(Kind::kJsonSchema,
                             R"({"type":"object","properties":{"k":{"type":"string","maxLength":6},
      "on":{"type":"boolean"}},"required":["k","on"]})"),
                        [](const std::string& text) {
                          boost::json::error_code error;
                          const boost::json::value value = boost::json::parse(text, error);
                          return !error && value.is_object() && value.get_object().size() == 2 &&
                                 value.at("k").is_string() && value.at("on").is_bool();
                        }});
  Property choice;
  choice.constraint.kind = Kind::kChoice;
  choice.constraint.choices = {"left", "right", "le"};
  choice.holds = [](const std::string& text) {
    return text == "left" || text == "right" || text == "le";
  };
  properties.push_back(std::move(choice));
  return properties;
}

TEST_CASE("whole answers keep their constraint, among free ones and under preemption", "[engine]") {
  const testing::TemporaryDirectory directory;
  // Blocks for about three of the eight sequences.
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 200 << 10);
  const std::vector<Property> properties = Properties();
  struct Running {
    std::shared_ptr<RecordingSink> sink;
    const Property* property;
  };
  std::vector<Running> running;
  std::vector<std::shared_ptr<RecordingSink>> free_sinks;
  for (int i = 0; i < 90; ++i) {
    const Property& property = properties[static_cast<size_t>(i) % properties.size()];
    running.push_back(
        {Start(engine.get(), Ask("c" + std::to_string(i), property.constraint, i)), &property});
    if (i % 3 == 0) {
      free_sinks.push_back(Start(engine.get(), Ask("f" + std::to_string(i), Constraint(), i)));
    }
  }
  int num_whole = 0;
  for (const Running& run : running) {
    const RecordingSink::Record record = run.sink->WaitForEnd();
    REQUIRE(record.finished.has_value());
    INFO(NameOf(run.property->constraint.kind)
         << ": " << record.text() << " " << record.finished->error);
    CHECK(record.finished->reason != FinishReason::kError);
    if (record.finished->reason != FinishReason::kStop) continue;
    ++num_whole;
    CHECK(run.property->holds(record.text()));
  }
  for (const auto& sink : free_sinks) CHECK_FALSE(sink->WaitForEnd().engine_error.has_value());
  CHECK(num_whole > 30);
  CHECK(engine->stats().num_preemptions > 0);
}

TEST_CASE("a constrained answer is the same alone and in a crowd that preempts it", "[engine]") {
  const testing::TemporaryDirectory directory;
  const Constraint words = Make(Kind::kRegex, "([a-z]{3} ){20,40}");
  std::vector<std::vector<int32_t>> alone;
  {
    const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 1 << 20);
    for (uint64_t seed = 0; seed < 6; ++seed) {
      alone.push_back(Start(engine.get(), Ask("alone", words, seed))->WaitForEnd().ids());
      CHECK(alone.back().size() > 60);
    }
  }
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 200 << 10);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    sinks.push_back(Start(engine.get(), Ask("crowd" + std::to_string(seed), words, seed)));
  }
  for (size_t i = 0; i < sinks.size(); ++i) CHECK(sinks[i]->WaitForEnd().ids() == alone[i]);
  CHECK(engine->stats().num_preemptions > 0);
}

TEST_CASE("each choice of a request follows the constraint on its own", "[engine]") {
  const testing::TemporaryDirectory directory;
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 1 << 20);
  GenerateRequest request = Ask("n", Make(Kind::kRegex, "[a-z]{5}"), 3);
  request.n = request.best_of = 4;
  const RecordingSink::Record record = Start(engine.get(), std::move(request))->WaitForEnd();
  for (int32_t i = 0; i < 4; ++i) {
    CHECK(record.text(i).size() == 5);
    CHECK(IsOf(record.text(i), 'a', 'z'));
    CHECK(record.finishes.at(i).reason == FinishReason::kStop);
  }
}

TEST_CASE("a cut answer ends by length, a whole one that must end ends by stop", "[engine]") {
  const testing::TemporaryDirectory directory;
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 1 << 20);
  const Constraint digits = Make(Kind::kRegex, "[0-9]{8}");
  auto record = Start(engine.get(), Ask("cut", digits, 1, 5))->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kLength);
  CHECK(record.text().size() == 5);
  CHECK(IsOf(record.text(), '0', '9'));
  GenerateRequest request = Ask("whole", digits, 1);
  request.stopping.ignore_eos = true;
  record = Start(engine.get(), std::move(request))->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kStop);
  CHECK(record.text().size() == 8);
}

TEST_CASE("where constraint and rules leave nothing the choice ends and says so", "[engine]") {
  const testing::TemporaryDirectory directory;
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 1 << 20);
  GenerateRequest request = Ask("rules", Make(Kind::kRegex, "[0-9]+"), 1);
  request.sampling.allowed_token_ids = {TinyText::kStart};
  auto record = Start(engine.get(), std::move(request))->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kError);
  CHECK(record.finished->error_code == absl::StatusCode::kFailedPrecondition);
  CHECK(record.finished->error.find("allowed_token_ids") != std::string::npos);
  request = Ask("min", Make(Kind::kRegex, "[0-9]{3}"), 1);
  request.stopping.min_tokens = 10;
  record = Start(engine.get(), std::move(request))->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kError);
  CHECK(record.text().size() == 3);
  // The engine goes on.
  record = Start(engine.get(), Ask("next", Make(Kind::kRegex, "[0-9]{3}"), 1))->WaitForEnd();
  CHECK(record.finished->reason == FinishReason::kStop);
}

TEST_CASE("what does not compile is refused before it is queued", "[engine]") {
  const testing::TemporaryDirectory directory;
  const std::unique_ptr<Engine> engine = MakeTiny(directory.path(), 1 << 20);
  auto sink = std::make_shared<RecordingSink>();
  CHECK(absl::IsInvalidArgument(engine->Submit(Ask("a", Make(Kind::kRegex, "("), 1), sink)));
  CHECK(absl::IsInvalidArgument(engine->Submit(Ask("a", Make(Kind::kJsonSchema, "{"), 1), sink)));
  Constraint calls;
  calls.kind = Kind::kToolCalls;
  CHECK(absl::IsFailedPrecondition(engine->Submit(Ask("a", calls, 1), sink)));
  CHECK(engine->stats().num_waiting == 0);
}

}  // namespace
}  // namespace fastgen
