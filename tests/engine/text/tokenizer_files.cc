#include "tests/engine/text/tokenizer_files.h"

#include <boost/json.hpp>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/check.h"
#include "engine/text/sentencepiece_source.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer_json.h"

namespace fastgen::testing {
namespace {

namespace json = boost::json;

std::string Text(const json::value& value) {
  return std::string(value.as_string().c_str(), value.as_string().size());
}

std::vector<json::value> ReadLines(const std::filesystem::path& path) {
  std::istringstream lines(ReadFile(path));
  std::vector<json::value> rows;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) rows.push_back(json::parse(line));
  }
  return rows;
}

}  // namespace

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::unique_ptr<Tokenizer> LoadTokenizer(const std::filesystem::path& directory) {
  const std::filesystem::path config = directory / "tokenizer_config.json";
  auto source =
      ParseTokenizerJson(ReadFile(directory / "tokenizer.json"),
                         std::filesystem::exists(config) ? ReadFile(config) : std::string());
  CHECK(source.ok()) << directory << ": " << source.status();
  auto tokenizer = MakeTokenizer(*std::move(source));
  CHECK(tokenizer.ok()) << directory << ": " << tokenizer.status();
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> LoadTekken(const std::filesystem::path& file) {
  auto source = ParseTekken(ReadFile(file));
  CHECK(source.ok()) << file << ": " << source.status();
  auto tokenizer = MakeTokenizer(*std::move(source));
  CHECK(tokenizer.ok()) << file << ": " << tokenizer.status();
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file,
                                             SentencePieceBy by) {
  std::string model = ReadFile(file);
  auto source = SourceFromSentencePieceModel(model);
  CHECK(source.ok()) << file << ": " << source.status();
  if (by == SentencePieceBy::kLibrary) {
    source->model = TokenizerSource::Model::kSentencePiece;
    source->sentencepiece_model = std::move(model);
    source->added_tokens.clear();  // the library knows them
  }
  auto tokenizer = MakeTokenizer(*std::move(source));
  CHECK(tokenizer.ok()) << file << ": " << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<GoldenRow> ReadGolden(const std::filesystem::path& jsonl) {
  std::vector<GoldenRow> rows;
  for (const json::value& row : ReadLines(jsonl)) {
    rows.push_back({Text(row.at("text")), json::value_to<std::vector<int32_t>>(row.at("ids")),
                    json::value_to<std::vector<int32_t>>(row.at("ids_special")),
                    Text(row.at("decoded")), Text(row.at("decoded_skip"))});
  }
  return rows;
}

std::vector<StreamRow> ReadStream(const std::filesystem::path& jsonl) {
  std::vector<StreamRow> rows;
  for (const json::value& row : ReadLines(jsonl)) {
    StreamRow& out = rows.emplace_back();
    out.ids = json::value_to<std::vector<int32_t>>(row.at("ids"));
    out.skip_special_tokens = row.at("skip_special_tokens").as_bool();
    for (const json::value& piece : row.at("pieces").as_array()) out.pieces.push_back(Text(piece));
    out.decoded = Text(row.at("decoded"));
  }
  return rows;
}

}  // namespace fastgen::testing
