#include "engine/text/tokenizer_json_steps.h"

#include <boost/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/character_map.h"

namespace fastgen {
namespace {

namespace json = boost::json;

// As for normalizers: each one runs over every piece.
constexpr size_t kMaxDecoderReplacements = 16;
constexpr char kNeedsByteLevel[] = ": without byte_fallback, only byte-level BPE is supported";

bool IsByteLevel(const TokenizerSource& source) {
  return source.model == TokenizerSource::Model::kByteLevelBpe;
}

bool IsUnigram(const TokenizerSource& source) {
  return source.model == TokenizerSource::Model::kUnigram;
}

// A regex that matches `text` and nothing else.
std::string LiteralPattern(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !absl::ascii_isalnum(static_cast<unsigned char>(c)))
      pattern += '\\';
    pattern += c;
  }
  return pattern;
}

absl::StatusOr<JsonNode> FindPattern(const JsonNode& node) {
  const json::value* value = node.Find("pattern");
  if (value == nullptr) return InvalidJson(node.PathOf("pattern"), " is missing");
  return JsonNode::From(*value, node.PathOf("pattern"));
}

// {"String": ...}
absl::StatusOr<std::string> ReadStringPattern(const JsonNode& node) {
  ASSIGN_OR_RETURN(const JsonNode pattern, FindPattern(node));
  if (pattern.Find("Regex") != nullptr) {
    return InvalidJson(pattern.PathOf("Regex"), " is not supported here");
  }
  ASSIGN_OR_RETURN(std::string text, pattern.String("String"));
  if (text.empty()) return InvalidJson(pattern.PathOf("String"), " is empty");
  return text;
}

// The character of a regex that matches two or more of it in a row; nullopt for any other regex.
std::optional<std::string> RepeatedCharacter(std::string_view regex) {
  constexpr std::string_view kTwoOrMore = "{2,}";
  constexpr std::string_view kSpecial = R"(\^$.[]|()?*+{})";
  if (!absl::EndsWith(ToAbsl(regex), ToAbsl(kTwoOrMore))) return std::nullopt;
  const std::string_view text = regex.substr(0, regex.size() - kTwoOrMore.size());
  if (text.empty() || DecodeUtf8(text, 0).num_bytes != text.size()) return std::nullopt;
  if (kSpecial.find(text) != std::string_view::npos) return std::nullopt;
  return std::string(text);
}

absl::Status ReadReplace(const JsonNode& node, NormalizerStep* step) {
  ASSIGN_OR_RETURN(step->content, node.String("content"));
  ASSIGN_OR_RETURN(const JsonNode pattern, FindPattern(node));
  if (pattern.Find("Regex") != nullptr) {
    ASSIGN_OR_RETURN(const std::string regex, pattern.String("Regex"));
    if (const auto repeated = RepeatedCharacter(regex); repeated.has_value()) {
      step->kind = NormalizerStep::Kind::kReplaceRun;
      step->pattern = *repeated;
      return absl::OkStatus();
    }
  }
  step->kind = NormalizerStep::Kind::kReplace;
  ASSIGN_OR_RETURN(step->pattern, ReadStringPattern(node));
  return absl::OkStatus();
}

absl::Status ReadPrecompiled(const JsonNode& node, NormalizerStep* step) {
  step->kind = NormalizerStep::Kind::kCharacterMap;
  ASSIGN_OR_RETURN(const std::string base64, node.String("precompiled_charsmap"));
  const std::string path = node.PathOf("precompiled_charsmap");
  if (!absl::Base64Unescape(base64, &step->content)) return InvalidJson(path, " is not base64");
  return CharacterMap::Parse(step->content, path).status();
}

absl::StatusOr<SplitStep::Behavior> ReadBehavior(const JsonNode& node) {
  using Behavior = SplitStep::Behavior;
  constexpr std::pair<const char*, Behavior> kBehaviors[] = {
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous},
  };
  ASSIGN_OR_RETURN(const std::string name, node.String("behavior"));
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  return InvalidJson(node.PathOf("behavior"), " ", Quote(name), " is not supported");
}

absl::Status ReadSplit(const JsonNode& node, TokenizerSource* source) {
  SplitStep step;
  ASSIGN_OR_RETURN(step.behavior, ReadBehavior(node));
  ASSIGN_OR_RETURN(step.invert, node.Bool("invert", false));
  ASSIGN_OR_RETURN(const JsonNode pattern, FindPattern(node));
  if (pattern.Find("Regex") != nullptr) {
    ASSIGN_OR_RETURN(step.pattern, pattern.String("Regex"));
  } else {
    ASSIGN_OR_RETURN(const std::string text, pattern.String("String"));
    step.pattern = LiteralPattern(text);
  }
  source->splits.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status ReadDigits(const JsonNode& node, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const bool individual, node.Bool("individual_digits", false));
  source->splits.push_back({individual ? R"(\p{N})" : R"(\p{N}+)"});
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const JsonNode& node, TokenizerSource* source) {
  ASSIGN_OR_RETURN(source->add_prefix_space, node.Bool("add_prefix_space", true));
  if (source->add_prefix_space && !source->splits.empty()) {
    return InvalidJson(node.PathOf("add_prefix_space"), " true after a split is not supported");
  }
  ASSIGN_OR_RETURN(const bool use_regex, node.Bool("use_regex", true));
  if (use_regex) source->splits.push_back({std::string(kGpt2SplitPattern)});
  return absl::OkStatus();
}

absl::StatusOr<Metaspace::Prepend> ReadPrepend(const JsonNode& node) {
  if (node.Find("prepend_scheme") == nullptr) {
    ASSIGN_OR_RETURN(const bool adds, node.Bool("add_prefix_space", true));
    return adds ? Metaspace::Prepend::kAlways : Metaspace::Prepend::kNever;
  }
  ASSIGN_OR_RETURN(const std::string scheme, node.String("prepend_scheme"));
  if (scheme == "always") return Metaspace::Prepend::kAlways;
  if (scheme == "first") return Metaspace::Prepend::kFirst;
  if (scheme == "never") return Metaspace::Prepend::kNever;
  return InvalidJson(node.PathOf("prepend_scheme"), " ", Quote(scheme), " is not supported");
}

absl::StatusOr<std::string> ReadMark(const JsonNode& node) {
  ASSIGN_OR_RETURN(std::string mark, node.String("replacement"));
  if (mark.empty() || DecodeUtf8(mark, 0).num_bytes != mark.size()) {
    return InvalidJson(node.PathOf("replacement"), " is not one character");
  }
  return mark;
}

absl::Status ReadMetaspace(const JsonNode& node, TokenizerSource* source) {
  if (source->metaspace.has_value()) {
    return InvalidJson(node.path(), ": a second Metaspace is not supported");
  }
  Metaspace metaspace;
  metaspace.num_splits_before = source->splits.size();
  ASSIGN_OR_RETURN(metaspace.mark, ReadMark(node));
  ASSIGN_OR_RETURN(metaspace.prepend, ReadPrepend(node));
  ASSIGN_OR_RETURN(const bool splits, node.Bool("split", true));
  if (splits) {
    source->splits.push_back(
        {LiteralPattern(metaspace.mark), SplitStep::Behavior::kMergedWithNext});
  }
  source->metaspace = std::move(metaspace);
  return absl::OkStatus();
}

absl::Status ReadNormalizerStep(const JsonNode& node, const std::string& type,
                                TokenizerSource* source) {
  NormalizerStep step;
  if (type == "Prepend") {
    step.kind = NormalizerStep::Kind::kPrepend;
    ASSIGN_OR_RETURN(step.content, node.String("prepend"));
  } else if (type == "Replace") {
    RETURN_IF_ERROR(ReadReplace(node, &step));
  } else if (type == "Precompiled") {
    RETURN_IF_ERROR(ReadPrecompiled(node, &step));
  } else if (type == "Strip") {
    step.kind = NormalizerStep::Kind::kStrip;
    ASSIGN_OR_RETURN(step.strip_left, node.Bool("strip_left", true));
    ASSIGN_OR_RETURN(step.strip_right, node.Bool("strip_right", true));
  } else if (type != "NFC") {
    return Unsupported(node, type);
  }
  source->normalizer.push_back(std::move(step));
  return absl::OkStatus();
}

// Which decoders have been seen, in order.
struct DecoderState {
  bool byte_level = false;
  bool byte_fallback = false;
  bool fused = false;
  bool stripped = false;
};

absl::Status ReadStrip(const JsonNode& node, const DecoderState& seen, TokenizerSource* source) {
  ASSIGN_OR_RETURN(const std::string content, node.String("content"));
  int64_t counts[2];
  const char* const keys[2] = {"start", "stop"};
  for (int i = 0; i < 2; ++i) {
    const json::value* value = node.Find(keys[i]);
    json::error_code error;
    counts[i] = value == nullptr ? 0 : value->to_number<int64_t>(error);
    if (error) return InvalidJson(node.PathOf(keys[i]), " is not a number");
  }
  if (content != " " || counts[0] != 1 || counts[1] != 0 || !seen.fused || seen.stripped) {
    return InvalidJson(node.path(), ": Strip is supported as one space at the start, after Fuse");
  }
  source->drop_first_space = true;
  return absl::OkStatus();
}

// Metaspace replaces its mark by a space, and in the first token by nothing.
absl::Status ReadReplacement(const JsonNode& node, const std::string& type,
                             const DecoderState& seen, TokenizerSource* source) {
  if (seen.byte_fallback || seen.fused) {
    return InvalidJson(node.path(), ": ", type, " after ByteFallback or Fuse is not supported");
  }
  if (source->decoder_replacements.size() == kMaxDecoderReplacements) {
    return InvalidJson(node.path(), ": more than ", kMaxDecoderReplacements,
                       " Replace decoders are not supported");
  }
  if (type == "Metaspace") {
    ASSIGN_OR_RETURN(std::string mark, ReadMark(node));
    ASSIGN_OR_RETURN(const Metaspace::Prepend prepend, ReadPrepend(node));
    if (prepend != Metaspace::Prepend::kNever) {
      if (source->first_token_removal.has_value()) {
        return InvalidJson(node.path(), ": a second Metaspace is not supported");
      }
      source->first_token_removal = source->decoder_replacements.size();
    }
    source->decoder_replacements.emplace_back(std::move(mark), " ");
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::string pattern, ReadStringPattern(node));
  ASSIGN_OR_RETURN(std::string content, node.String("content"));
  if (content.size() > pattern.size()) {
    return InvalidJson(node.PathOf("content"), " is longer than what it replaces");
  }
  source->decoder_replacements.emplace_back(std::move(pattern), std::move(content));
  return absl::OkStatus();
}

absl::Status ReadDecoderStep(const JsonNode& node, const std::string& type, DecoderState* seen,
                             TokenizerSource* source) {
  if (type == "ByteLevel") {
    if (!IsByteLevel(*source)) {
      return InvalidJson(node.path(), ": ByteLevel with byte_fallback is not supported");
    }
    seen->byte_level = true;
    return absl::OkStatus();
  }
  if (IsByteLevel(*source)) return Unsupported(node, type);
  if (type == "Replace" || type == "Metaspace") return ReadReplacement(node, type, *seen, source);
  if (type == "ByteFallback") {
    seen->byte_fallback = true;
    return absl::OkStatus();
  }
  if (type == "Fuse") {
    seen->fused = true;
    return absl::OkStatus();
  }
  if (type != "Strip") return Unsupported(node, type);
  RETURN_IF_ERROR(ReadStrip(node, *seen, source));
  seen->stripped = true;
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadNormalizer(const JsonNode& root, TokenizerSource* source) {
  const json::value* value = root.Find("normalizer");
  if (value == nullptr) return absl::OkStatus();
  return ForEachComponent(*value, root.PathOf("normalizer"), "normalizers",
                          [&](const JsonNode& node, const std::string& type) {
                            return ReadNormalizerStep(node, type, source);
                          });
}

absl::Status ReadPreTokenizer(const JsonNode& root, TokenizerSource* source) {
  const json::value* value = root.Find("pre_tokenizer");
  const std::string path = root.PathOf("pre_tokenizer");
  bool byte_level = false;
  if (value != nullptr) {
    RETURN_IF_ERROR(ForEachComponent(
        *value, path, "pretokenizers",
        [&](const JsonNode& node, const std::string& type) -> absl::Status {
          if (byte_level) {
            return InvalidJson(node.path(), ": ", Quote(type), " after ByteLevel is not supported");
          }
          if (type == "Split") return ReadSplit(node, source);
          if (type == "Digits") return ReadDigits(node, source);
          if (type == "WhitespaceSplit") {
            source->splits.push_back({R"(\s)", SplitStep::Behavior::kRemoved});
            return absl::OkStatus();
          }
          if (type == "Metaspace" && !IsByteLevel(*source)) return ReadMetaspace(node, source);
          if (type != "ByteLevel" || !IsByteLevel(*source)) return Unsupported(node, type);
          byte_level = true;
          return ReadByteLevel(node, source);
        }));
  }
  if (IsByteLevel(*source) && !byte_level) {
    return InvalidJson(path, value == nullptr ? " is missing" : " has no ByteLevel",
                       kNeedsByteLevel);
  }
  return absl::OkStatus();
}

absl::StatusOr<DecodedBytes> ReadDecoder(const JsonNode& root, TokenizerSource* source) {
  const json::value* value = root.Find("decoder");
  const std::string path = root.PathOf("decoder");
  DecoderState seen;
  if (value != nullptr) {
    RETURN_IF_ERROR(ForEachComponent(*value, path, "decoders",
                                     [&](const JsonNode& node, const std::string& type) {
                                       return ReadDecoderStep(node, type, &seen, source);
                                     }));
  }
  if (IsByteLevel(*source)) {
    if (seen.byte_level) return DecodedBytes::kNone;
    return InvalidJson(path, " is missing", kNeedsByteLevel);
  }
  if (IsUnigram(*source)) {
    // Without a decoder, words would be joined by spaces.
    if (value == nullptr) return InvalidJson(path, " is missing");
    return seen.byte_fallback ? DecodedBytes::kFromPieces : DecodedBytes::kNone;
  }
  if (!seen.byte_fallback || !seen.fused) {
    return InvalidJson(path, " lacks ByteFallback or Fuse, which byte_fallback needs");
  }
  return DecodedBytes::kFromPieces;
}

}  // namespace fastgen
