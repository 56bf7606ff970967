#include "tests/engine/text/real_tokenizers.h"

#include <utility>

#include "base/check.h"
#include "engine/text/sentencepiece_source.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer_json.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

absl::StatusOr<TokenizerSource> ReadSource(const std::string& name) {
  const std::filesystem::path own =
      SourceTestdata() / (name == "small_unigram" ? "tokenizer_unigram" : "tokenizer");
  if (name == "small_sentencepiece") {
    return SourceFromSentencePieceModel(ReadFile(own / "sentencepiece.model"));
  }
  const std::filesystem::path shared =
      name == "small" || name == "small_unigram" ? own : *SharedTestdata() / "tokenizers" / name;
  if (name == "mistral_tekken") return ParseTekken(ReadFile(shared / "tekken_240718.json"));
  if (name == "mistral_v3") {
    return SourceFromSentencePieceModel(
        ReadFile(shared / "mistral_instruct_tokenizer_240323.model.v3"));
  }
  return ParseTokenizerJson(ReadFile(shared / "tokenizer.json"),
                            ReadFile(shared / "tokenizer_config.json"));
}

}  // namespace

std::vector<std::string> TokenizerNames() {
  std::vector<std::string> names = {"small", "small_sentencepiece", "small_unigram"};
  if (SharedTestdata().has_value()) {
    names.insert(names.end(), {"llama3_1", "qwen3", "deepseek_v3", "smollm2", "mistral_v1",
                               "mistral_v3", "mistral_tekken"});
  }
  return names;
}

TokenizerSource SourceByName(const std::string& name) {
  auto source = ReadSource(name);
  CHECK(source.ok()) << name << ": " << source.status();
  return *std::move(source);
}

std::unique_ptr<Tokenizer> LoadByName(const std::string& name) {
  auto tokenizer = MakeTokenizer(SourceByName(name));
  CHECK(tokenizer.ok()) << name << ": " << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace fastgen::testing
