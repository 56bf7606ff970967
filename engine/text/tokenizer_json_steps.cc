#include "engine/text/tokenizer_json_steps.h"

#include <boost/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/bpe_tokenizer.h"

namespace fastgen {
namespace {

namespace json = boost::json;

// As for normalizers: each one runs over every piece.
constexpr size_t kMaxDecoderReplacements = 16;
constexpr char kNeedsByteLevel[] = ": without byte_fallback, only byte-level BPE is supported";

bool IsByteLevel(const TokenizerSource& source) {
  return source.model == TokenizerSource::Model::kByteLevelBpe;
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

// {"String": ...}
absl::StatusOr<std::string> ReadStringPattern(const JsonNode& node) {
  const json::value* value = node.Find("pattern");
  if (value == nullptr) return InvalidJson(node.PathOf("pattern"), " is missing");
  ASSIGN_OR_RETURN(const JsonNode pattern, JsonNode::From(*value, node.PathOf("pattern")));
  if (pattern.Find("Regex") != nullptr) {
    return InvalidJson(pattern.PathOf("Regex"), " is not supported here");
  }
  ASSIGN_OR_RETURN(std::string text, pattern.String("String"));
  if (text.empty()) return InvalidJson(pattern.PathOf("String"), " is empty");
  return text;
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
  const json::value* value = node.Find("pattern");
  if (value == nullptr) return InvalidJson(node.PathOf("pattern"), " is missing");
  ASSIGN_OR_RETURN(const JsonNode pattern, JsonNode::From(*value, node.PathOf("pattern")));
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

absl::Status ReadMetaspace(const JsonNode& node, TokenizerSource* source) {
  if (source->metaspace.has_value() || !source->splits.empty()) {
    return InvalidJson(node.path(), ": Metaspace after another pre-tokenizer is not supported");
  }
  Metaspace metaspace;
  ASSIGN_OR_RETURN(metaspace.mark, node.String("replacement"));
  if (metaspace.mark.empty() || metaspace.mark.size() > 4) {
    return InvalidJson(node.PathOf("replacement"), " is not one character");
  }
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
    step.kind = NormalizerStep::Kind::kReplace;
    ASSIGN_OR_RETURN(step.pattern, ReadStringPattern(node));
    ASSIGN_OR_RETURN(step.content, node.String("content"));
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
  if (type == "Replace") {
    if (seen->byte_fallback || seen->fused) {
      return InvalidJson(node.path(), ": Replace after ByteFallback or Fuse is not supported");
    }
    if (source->decoder_replacements.size() == kMaxDecoderReplacements) {
      return InvalidJson(node.path(), ": more than ", kMaxDecoderReplacements,
                         " Replace decoders are not supported");
    }
    ASSIGN_OR_RETURN(std::string pattern, ReadStringPattern(node));
    ASSIGN_OR_RETURN(std::string content, node.String("content"));
    if (content.size() > pattern.size()) {
      return InvalidJson(node.PathOf("content"), " is longer than what it replaces");
    }
    source->decoder_replacements.emplace_back(std::move(pattern), std::move(content));
    return absl::OkStatus();
  }
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

absl::Status ReadDecoder(const JsonNode& root, TokenizerSource* source) {
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
    if (seen.byte_level) return absl::OkStatus();
    return InvalidJson(path, " is missing", kNeedsByteLevel);
  }
  if (!seen.byte_fallback || !seen.fused) {
    return InvalidJson(path, " lacks ByteFallback or Fuse, which byte_fallback needs");
  }
  return absl::OkStatus();
}

}  // namespace fastgen
