#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/load_text.h"
#include "engine/text/sentencepiece_source.h"

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

constexpr char kDigitPattern[] = R"(\p{N})";
constexpr char kThreeDigitsPattern[] = R"(\p{N}{1,3})";
constexpr char kDeepSeekIdeographs[] = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr char kDeepSeekPattern[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
// What llama.cpp does where its converter did not know the model.
constexpr char kDefaultPunctuation[] = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr char kDefaultWords[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr char kDefaultNumbers[] = R"(\p{N}+)";
constexpr char kDefaultThreeDigits[] = "[0-9][0-9][0-9]";

constexpr size_t kMaxPatterns = 4;

// What one value of tokenizer.ggml.pre stands for.
struct PreTokenizer {
  std::string_view name;
  const char* patterns[kMaxPatterns] = {};  // applied one after another, each isolating its matches
  bool normalize_nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // when tokenizer.ggml.add_bos_token is absent
};

constexpr PreTokenizer kPreTokenizers[] = {
    {.name = "gpt-2", .patterns = {kGpt2Pattern}},
    {.name = "smollm", .patterns = {kDigitPattern, kGpt2Pattern}},
    {.name = "llama3", .patterns = {kLlama3Pattern}, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .patterns = {kLlama3Pattern}, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-bpe", .patterns = {kLlama3Pattern}, .ignore_merges = true, .adds_bos = true},
    {.name = "qwen2", .patterns = {kQwen2Pattern}, .normalize_nfc = true},
    {.name = "deepseek-r1-qwen", .patterns = {kQwen2Pattern}, .normalize_nfc = true},
    {.name = "deepseek-v3",
     .patterns = {kThreeDigitsPattern, kDeepSeekIdeographs, kDeepSeekPattern}},
    {.name = "tekken", .patterns = {kTekkenPattern}, .ignore_merges = true, .adds_bos = true},
    {.name = "default",
     .patterns = {kDefaultPunctuation, kDefaultWords, kDefaultNumbers, kDefaultThreeDigits}},
};

absl::Status ApplyPreTokenizer(const GgufFile& file, TokenizerSource* source, bool* adds_bos) {
  const auto name = file.FindString("tokenizer.ggml.pre");
  if (!name.has_value()) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.pre is missing: the file does not say how text is split into words");
  }
  for (const PreTokenizer& pre : kPreTokenizers) {
    if (pre.name != *name) continue;
    for (const char* pattern : pre.patterns) {
      if (pattern != nullptr) source->splits.push_back({pattern});
    }
    if (pre.normalize_nfc) source->normalizer.emplace_back();  // NFC
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

// [tokens] the numbers under `key`, which may be absent.
template <typename Number>
absl::Status CheckCount(std::string_view key, const std::optional<std::vector<Number>>& values,
                        size_t num_tokens) {
  if (!values.has_value() || values->size() == num_tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(key), " has ", values->size(), " entries for ", num_tokens, " tokens"));
}

absl::StatusOr<std::vector<std::string_view>> ReadTokens(const GgufFile& file) {
  auto pieces = file.FindStringArray("tokenizer.ggml.tokens");
  if (pieces.has_value()) return *std::move(pieces);
  return absl::InvalidArgumentError("tokenizer.ggml.tokens is not an array of strings");
}

absl::Status ReadPieces(const GgufFile& file, TokenizerSource* source) {
  using Type = SentencePieceSpec::Type;
  ASSIGN_OR_RETURN(const std::vector<std::string_view> pieces, ReadTokens(file));
  const auto types = file.FindIntArray("tokenizer.ggml.token_type");
  RETURN_IF_ERROR(CheckCount("tokenizer.ggml.token_type", types, pieces.size()));
  source->pieces.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    source->pieces.emplace_back(pieces[i]);
    const Type type = static_cast<Type>(types.has_value() ? (*types)[i] : 0);
    if (type != Type::kUnknown && type != Type::kControl && type != Type::kUserDefined) continue;
    AddedToken added;
    added.content = source->pieces.back();
    added.id = static_cast<int32_t>(i);
    added.special = type != Type::kUserDefined;
    source->added_tokens.push_back(std::move(added));
  }
  return absl::OkStatus();
}

// tokenizer.ggml.model "llama": a sentencepiece BPE, taken apart.
absl::StatusOr<TokenizerSource> ReadSentencePieces(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, ReadTokens(file));
  const auto scores = file.FindFloatArray("tokenizer.ggml.scores");
  const auto types = file.FindIntArray("tokenizer.ggml.token_type");
  if (!scores.has_value()) {
    return absl::InvalidArgumentError("tokenizer.ggml.scores is not an array of numbers");
  }
  if (!types.has_value()) {
    return absl::InvalidArgumentError("tokenizer.ggml.token_type is not an array of integers");
  }
  RETURN_IF_ERROR(CheckCount("tokenizer.ggml.scores", scores, tokens.size()));
  RETURN_IF_ERROR(CheckCount("tokenizer.ggml.token_type", types, tokens.size()));
  if (file.Has("tokenizer.ggml.precompiled_charsmap")) {
    return absl::UnimplementedError("tokenizer.ggml.precompiled_charsmap is not supported");
  }
  SentencePieceSpec spec;
  spec.model_type = SentencePieceSpec::ModelType::kBpe;
  spec.add_dummy_prefix = file.FindBool("tokenizer.ggml.add_space_prefix").value_or(true);
  spec.remove_extra_spaces =
      file.FindBool("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
  if (spec.remove_extra_spaces) {
    return absl::UnimplementedError(
        "tokenizer.ggml.remove_extra_whitespaces true is not supported");
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t type = (*types)[i];
    if (type < 1 || type > 6) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.token_type[", i, "] ", type, " is not in [1, 6]"));
    }
    spec.pieces.push_back({std::string(tokens[i]), static_cast<float>((*scores)[i]),
                           static_cast<SentencePieceSpec::Type>(type)});
  }
  const absl::Status pieces = CheckPieces(spec.pieces);
  if (!pieces.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.tokens: ", pieces.message()));
  }
  if (!IsPlainBpe(spec)) {
    return absl::UnimplementedError(
        "tokenizer.ggml.token_type: unused tokens (5) that merges lead to, or bytes (6) that are "
        "not all 256, are not supported");
  }
  TokenizerSource source = SourceFromPieces(spec);
  source.bos_id.reset();
  source.eos_ids.clear();
  return source;
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

// Control tokens that end a turn in the published families. Converters write one id, at most three,
// into the metadata, and not always the one that the chat template ends a turn with.
constexpr std::string_view kTurnEnds[] = {
    "<|eot_id|>", "<|eom_id|>",    "<|end_of_text|>",
    "<|im_end|>", "<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"};

void AddTurnEnds(TokenizerSource* source) {
  for (const AddedToken& token : source->added_tokens) {
    const bool ends_turn =
        std::find(std::begin(kTurnEnds), std::end(kTurnEnds), token.content) != std::end(kTurnEnds);
    const bool is_known = std::find(source->eos_ids.begin(), source->eos_ids.end(), token.id) !=
                          source->eos_ids.end();
    if (token.special && ends_turn && !is_known) source->eos_ids.push_back(token.id);
  }
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
  AddTurnEnds(source);
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
  if (*model == "llama") {
    ASSIGN_OR_RETURN(TokenizerSource source, ReadSentencePieces(file));
    RETURN_IF_ERROR(ReadSpecialIds(file, /*adds_bos=*/true, &source));
    return source;
  }
  if (*model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.ggml.model \"", ToAbsl(*model),
        "\" is not supported (supported: gpt2, which is byte-level BPE, and llama, which is "
        "sentencepiece BPE); the model's Hugging Face directory may serve"));
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
