// Loads tokenizers and their golden rows for the text tests.
// Thread rule: any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen::testing {

// The whole file; fails the process where it cannot be read.
std::string ReadFile(const std::filesystem::path& path);

// From tokenizer.json, and tokenizer_config.json where there is one, in `directory`.
std::unique_ptr<Tokenizer> LoadTokenizer(const std::filesystem::path& directory);

std::unique_ptr<Tokenizer> LoadTekken(const std::filesystem::path& file);

enum class SentencePieceBy {
  kChoice,   // our own BPE where it can
  kLibrary,  // the library whatever the model is
};
std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file, SentencePieceBy by);

struct GoldenRow {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<int32_t> ids_special;
  std::string decoded;
  std::string decoded_skip;
};
std::vector<GoldenRow> ReadGolden(const std::filesystem::path& jsonl);

struct StreamRow {
  std::vector<int32_t> ids;
  bool skip_special_tokens;
  std::vector<std::string> pieces;
  std::string decoded;
};
std::vector<StreamRow> ReadStream(const std::filesystem::path& jsonl);

}  // namespace fastgen::testing
