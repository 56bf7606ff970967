#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/load_text.h"

namespace fastgen {
namespace {

// The patterns that the families' own tokenizer.json files carry.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2Pattern[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
                                 R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kTekkenPattern[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What one value of tokenizer.ggml.pre stands for.
struct PreTokenizer {
  std::string_view name;
  const char* pattern;
  bool split_digits = false;
  bool normalize_nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // when tokenizer.ggml.add_bos_token is absent
};

constexpr PreTokenizer kPreTokenizers[] = {
    {.name = "gpt-2", .pattern = kGpt2Pattern},
    {.name = "smollm", .pattern = kGpt2Pattern, .split_digits = true},
    {.name = "llama3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-bpe", .pattern = kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "qwen2", .pattern = kQwen2Pattern, .normalize_nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = kQwen2Pattern, .normalize_nfc = true},
    {.name = "tekken", .pattern = kTekkenPattern, .ignore_merges = true, .adds_bos = true},
};

absl::Status ApplyPreTokenizer(const GgufFile& file, TokenizerSource* source, bool* adds_bos) {
  const auto name = file.FindString("tokenizer.ggml.pre");
  if (!name.has_value()) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.pre is missing: the file does not say how text is split into words");
  }
  for (const PreTokenizer& pre : kPreTokenizers) {
    if (pre.name != *name) continue;
    source->split_patterns = {pre.pattern};
    source->split_digits = pre.split_digits;
    source->normalize_nfc = pre.normalize_nfc;
    source->ignore_merges = pre.ignore_merges;
    *adds_bos = pre.adds_bos;
    return absl::OkStatus();
  }
  std::string known;
  for (const PreTokenizer& pre : kPreTokenizers) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", ToAbsl(pre.name));
  }
  return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.pre \"", ToAbsl(*name),
                                               "\" is not supported (supported: ", known, ")"));
}

absl::Status ReadPieces(const GgufFile& file, TokenizerSource* source) {
  // Values of tokenizer.ggml.token_type.
  constexpr int64_t kUnknown = 2;
  constexpr int64_t kControl = 3;
  constexpr int64_t kUserDefined = 4;
  const auto pieces = file.FindStringArray("tokenizer.ggml.tokens");
  if (!pieces.has_value()) {
    return absl::InvalidArgumentError("tokenizer.ggml.tokens is not an array of strings");
  }
  const auto types = file.FindIntArray("tokenizer.ggml.token_type");
  if (types.has_value() && types->size() != pieces->size()) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.token_type has ", types->size(),
                                                   " entries for ", pieces->size(), " tokens"));
  }
  source->pieces.reserve(pieces->size());
  for (size_t i = 0; i < pieces->size(); ++i) {
    source->pieces.emplace_back((*pieces)[i]);
    const int64_t type = types.has_value() ? (*types)[i] : 0;
    if (type != kUnknown && type != kControl && type != kUserDefined) continue;
    AddedToken added;
    added.content = source->pieces.back();
    added.id = static_cast<int32_t>(i);
    added.special = type != kUserDefined;
    source->added_tokens.push_back(std::move(added));
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& file, TokenizerSource* source) {
  const auto merges = file.FindStringArray("tokenizer.ggml.merges");
  if (!merges.has_value()) {
    return absl::InvalidArgumentError("tokenizer.ggml.merges is not an array of strings");
  }
  source->merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.merges[", i, "] is not two pieces with a space between"));
    }
    source->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

// The id under `key`, checked against the vocabulary; nullopt when absent.
absl::StatusOr<std::optional<int32_t>> ReadId(const GgufFile& file, std::string_view key,
                                              size_t vocab_size) {
  if (!file.Has(key)) return std::optional<int32_t>();
  const auto id = file.FindInt(key);
  if (!id.has_value() || *id < 0 || static_cast<uint64_t>(*id) >= vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(key), " is not an id of the vocabulary [0, ", vocab_size, ")"));
  }
  return std::optional<int32_t>(static_cast<int32_t>(*id));
}

absl::Status ReadSpecialIds(const GgufFile& file, bool adds_bos, TokenizerSource* source) {
  const size_t vocab_size = source->pieces.size();
  ASSIGN_OR_RETURN(source->bos_id, ReadId(file, "tokenizer.ggml.bos_token_id", vocab_size));
  // The eos token first: it is the one that a chat template means.
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> id, ReadId(file, key, vocab_size));
    if (id.has_value()) source->eos_ids.push_back(*id);
  }
  adds_bos = file.FindBool("tokenizer.ggml.add_bos_token").value_or(adds_bos);
  if (adds_bos && source->bos_id.has_value()) source->prefix_ids = {*source->bos_id};
  const bool adds_eos = file.FindBool("tokenizer.ggml.add_eos_token").value_or(false);
  if (adds_eos && !source->eos_ids.empty()) source->suffix_ids = {source->eos_ids.front()};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSource> TokenizerSourceFromGguf(const GgufFile& file) {
  const auto model = file.FindString("tokenizer.ggml.model");
  if (!model.has_value()) {
    return absl::InvalidArgumentError("tokenizer.ggml.model is missing: the file has no tokenizer");
  }
  if (*model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.ggml.model \"", ToAbsl(*model),
        "\" is not supported (supported: gpt2, which is byte-level BPE); the model's Hugging Face "
        "directory may serve"));
  }
  TokenizerSource source;
  bool adds_bos = false;
  RETURN_IF_ERROR(ApplyPreTokenizer(file, &source, &adds_bos));
  RETURN_IF_ERROR(ReadPieces(file, &source));
  RETURN_IF_ERROR(ReadMerges(file, &source));
  RETURN_IF_ERROR(ReadSpecialIds(file, adds_bos, &source));
  return source;
}

}  // namespace fastgen
