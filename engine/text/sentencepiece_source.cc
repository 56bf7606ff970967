#include "engine/text/sentencepiece_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "base/unicode.h"
#include "engine/text/character_map.h"
#include "engine/text/piece_word_encoder.h"
#include "engine/text/token_table.h"

namespace fastgen {
namespace {

using Piece = SentencePieceSpec::Piece;
using Type = SentencePieceSpec::Type;

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";
// The longest piece that the library is given. It is trained with 16 characters by default.
constexpr size_t kMaxPieceBytes = 1024;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// One field of a protobuf message: a number or bytes.
struct Field {
  uint32_t number = 0;
  bool is_bytes = false;
  uint64_t value = 0;  // also the bits of a fixed-size field
  std::string_view bytes;
};

// Reads the fields of one message, in order.
class FieldReader {
 public:
  FieldReader(std::string_view message, std::string_view name) : rest_(message), name_(name) {}

  bool done() const { return rest_.empty(); }

  absl::StatusOr<Field> Next() {
    Field field;
    ASSIGN_OR_RETURN(const uint64_t tag, Varint());
    if (tag >> 3 == 0 || tag >> 35 != 0) return Malformed("a field has no number");
    field.number = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0: {
        ASSIGN_OR_RETURN(field.value, Varint());
        return field;
      }
      case 1:
        return Fixed(field, 8);
      case 5:
        return Fixed(field, 4);
      case 2: {
        ASSIGN_OR_RETURN(const uint64_t size, Varint());
        if (size > rest_.size()) return Malformed("a field is longer than the rest of the file");
        field.is_bytes = true;
        field.bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return field;
      }
      default:
        return Malformed("a field has an unknown wire type");
    }
  }

 private:
  absl::Status Malformed(std::string_view what) const {
    return Invalid(ToAbsl(name_), ": ", ToAbsl(what));
  }

  absl::StatusOr<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (rest_.empty()) return Malformed("it ends inside a number");
      const uint64_t byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      if (shift < 64) value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return Malformed("a number has more than ten bytes");
  }

  absl::StatusOr<Field> Fixed(Field field, size_t num_bytes) {
    if (rest_.size() < num_bytes) return Malformed("it ends inside a number");
    for (size_t i = 0; i < num_bytes; ++i) {
      field.value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
    }
    rest_.remove_prefix(num_bytes);
    return field;
  }

  std::string_view rest_;
  std::string_view name_;
};

// Calls `take` with every field of `message`.
template <typename Take>
absl::Status ForEachField(std::string_view message, std::string_view name, Take take) {
  FieldReader reader(message, name);
  while (!reader.done()) {
    ASSIGN_OR_RETURN(const Field field, reader.Next());
    RETURN_IF_ERROR(take(field));
  }
  return absl::OkStatus();
}

absl::Status TakeBytes(const Field& field, std::string_view name, std::string* out) {
  if (!field.is_bytes) return Invalid(ToAbsl(name), " is not text");
  *out = std::string(field.bytes);
  return absl::OkStatus();
}

absl::Status TakeNumber(const Field& field, std::string_view name, uint64_t* out) {
  if (field.is_bytes) return Invalid(ToAbsl(name), " is not a number");
  *out = field.value;
  return absl::OkStatus();
}

absl::Status TakeBool(const Field& field, std::string_view name, bool* out) {
  uint64_t value = 0;
  RETURN_IF_ERROR(TakeNumber(field, name, &value));
  *out = value != 0;
  return absl::OkStatus();
}

absl::StatusOr<Piece> ReadPiece(std::string_view message, size_t id) {
  Piece piece;
  const std::string name = absl::StrCat("pieces[", id, "]");
  RETURN_IF_ERROR(ForEachField(message, name, [&](const Field& field) -> absl::Status {
    uint64_t value = 0;
    switch (field.number) {
      case 1:
        return TakeBytes(field, name + ".piece", &piece.text);
      case 2: {
        RETURN_IF_ERROR(TakeNumber(field, name + ".score", &value));
        const uint32_t bits = static_cast<uint32_t>(value);
        std::memcpy(&piece.score, &bits, sizeof(bits));
        return absl::OkStatus();
      }
      case 3:
        RETURN_IF_ERROR(TakeNumber(field, name + ".type", &value));
        if (value < 1 || value > 6) return Invalid(name, ".type ", value, " is unknown");
        piece.type = static_cast<Type>(value);
        return absl::OkStatus();
      default:
        return absl::OkStatus();
    }
  }));
  return piece;
}

absl::Status ReadTrainer(std::string_view message, SentencePieceSpec* spec) {
  return ForEachField(message, "trainer_spec", [&](const Field& field) -> absl::Status {
    uint64_t value = 0;
    switch (field.number) {
      case 3:
        RETURN_IF_ERROR(TakeNumber(field, "trainer_spec.model_type", &value));
        if (value != 1 && value != 2) {
          return Invalid("trainer_spec.model_type ", value,
                         " is not supported (1, unigram, and 2, BPE, are)");
        }
        spec->model_type = static_cast<SentencePieceSpec::ModelType>(value);
        return absl::OkStatus();
      case 24:
        return TakeBool(field, "trainer_spec.treat_whitespace_as_suffix",
                        &spec->whitespace_is_suffix);
      case 44:
        return TakeBytes(field, "trainer_spec.unk_surface", &spec->unknown_surface);
      case 46:
        return TakeBytes(field, "trainer_spec.bos_piece", &spec->bos_piece);
      case 47:
        return TakeBytes(field, "trainer_spec.eos_piece", &spec->eos_piece);
      default:
        return absl::OkStatus();
    }
  });
}

absl::Status ReadNormalizer(std::string_view message, SentencePieceSpec* spec) {
  return ForEachField(message, "normalizer_spec", [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 2:
        return TakeBytes(field, "normalizer_spec.precompiled_charsmap", &spec->character_map);
      case 3:
        return TakeBool(field, "normalizer_spec.add_dummy_prefix", &spec->add_dummy_prefix);
      case 4:
        return TakeBool(field, "normalizer_spec.remove_extra_whitespaces",
                        &spec->remove_extra_spaces);
      case 5:
        return TakeBool(field, "normalizer_spec.escape_whitespaces", &spec->escape_spaces);
      default:
        return absl::OkStatus();
    }
  });
}

absl::Status CheckCharacterMap(std::string_view map) {
  if (map.empty()) return absl::OkStatus();
  return CharacterMap::Parse(map, "normalizer_spec.precompiled_charsmap").status();
}

std::optional<int32_t> FindControl(const SentencePieceSpec& spec, std::string_view text) {
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    if (spec.pieces[id].type == Type::kControl && spec.pieces[id].text == text) {
      return static_cast<int32_t>(id);
    }
  }
  return std::nullopt;
}

// Whether some unused piece can be made by merging: the library then takes it apart again. The fill
// of a vocabulary ("[PAD32000]") cannot.
bool MergesReachUnused(const SentencePieceSpec& spec) {
  constexpr size_t kMaxUnusedBytes = 64;
  absl::flat_hash_set<absl::string_view> texts;
  const auto is_symbol = [&](std::string_view text) {
    return DecodeUtf8(text, 0).num_bytes == text.size() || texts.contains(ToAbsl(text));
  };
  bool any = false;
  for (const Piece& piece : spec.pieces) any = any || piece.type == Type::kUnused;
  if (!any) return false;
  for (const Piece& piece : spec.pieces) texts.insert(piece.text);
  for (const Piece& piece : spec.pieces) {
    if (piece.type != Type::kUnused) continue;
    if (piece.text.size() > kMaxUnusedBytes) return true;  // not worth knowing
    const std::string_view text = piece.text;
    for (size_t i = DecodeUtf8(text, 0).num_bytes; i < text.size();) {
      if (is_symbol(text.substr(0, i)) && is_symbol(text.substr(i))) return true;
      i += DecodeUtf8(text, i).num_bytes;
    }
  }
  return false;
}

}  // namespace

absl::Status CheckPieces(const std::vector<Piece>& pieces) {
  if (pieces.size() > static_cast<size_t>(kMaxVocabularySize)) {
    return Invalid("there are ", pieces.size(), " pieces, more than ", kMaxVocabularySize);
  }
  absl::flat_hash_set<absl::string_view> texts;
  texts.reserve(pieces.size());
  int num_unknown = 0;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    const auto invalid = [&](absl::string_view what) {
      return Invalid("piece ", id, " ('", absl::CHexEscape(piece.text.substr(0, 64)), "') ", what);
    };
    if (piece.text.empty()) return invalid("is empty");
    if (piece.text.size() > kMaxPieceBytes) {
      return invalid(absl::StrCat("has ", piece.text.size(), " bytes, more than ", kMaxPieceBytes));
    }
    if (!IsValidUtf8(piece.text)) return invalid("is not UTF-8");
    if (piece.text.find('\0') != std::string::npos) return invalid("has a zero byte");
    if (!std::isfinite(piece.score)) return invalid("has a score that is not a number");
    if (piece.type == Type::kByte && !ByteOfPiece(piece.text).has_value()) {
      return invalid("is a byte piece, but not <0xXX>");
    }
    if (!texts.insert(piece.text).second) return invalid("stands there twice");
    if (piece.type == Type::kUnknown && ++num_unknown > 1)
      return invalid("is a second unknown piece");
  }
  if (num_unknown == 0) return Invalid("there is no unknown piece");
  return absl::OkStatus();
}

absl::StatusOr<SentencePieceSpec> ParseSentencePieceModel(std::string_view bytes) {
  if (bytes.empty()) return Invalid("the sentencepiece model is empty");
  if (bytes.size() > kMaxSentencePieceBytes) {
    return Invalid("the sentencepiece model has ", bytes.size(), " bytes, more than ",
                   kMaxSentencePieceBytes);
  }
  SentencePieceSpec spec;
  const absl::Status status =
      ForEachField(bytes, "ModelProto", [&](const Field& field) -> absl::Status {
        if (field.number < 1 || field.number > 5) return absl::OkStatus();
        if (!field.is_bytes) return Invalid("field ", field.number, " is not a message");
        if (field.number == 1) {
          ASSIGN_OR_RETURN(spec.pieces.emplace_back(), ReadPiece(field.bytes, spec.pieces.size()));
          return absl::OkStatus();
        }
        if (field.number == 2) return ReadTrainer(field.bytes, &spec);
        if (field.number == 3) return ReadNormalizer(field.bytes, &spec);
        if (field.number == 4) return absl::OkStatus();  // the trainer's own checks
        SentencePieceSpec denormalizer;
        RETURN_IF_ERROR(ReadNormalizer(field.bytes, &denormalizer));
        if (denormalizer.character_map.empty()) return absl::OkStatus();
        return Invalid("denormalizer_spec.precompiled_charsmap is not supported");
      });
  if (!status.ok()) return Invalid("not a sentencepiece model: ", status.message());
  if (spec.pieces.empty()) return Invalid("not a sentencepiece model: it has no pieces");
  RETURN_IF_ERROR(CheckPieces(spec.pieces));
  RETURN_IF_ERROR(CheckCharacterMap(spec.character_map));
  return spec;
}

bool IsPlainBpe(const SentencePieceSpec& spec) {
  if (spec.model_type != SentencePieceSpec::ModelType::kBpe) return false;
  if (!spec.character_map.empty() || spec.remove_extra_spaces || !spec.escape_spaces ||
      spec.whitespace_is_suffix) {
    return false;
  }
  bool has_byte[256] = {};
  int num_bytes = 0;
  for (const Piece& piece : spec.pieces) {
    if (piece.type != Type::kByte) continue;
    bool& has = has_byte[*ByteOfPiece(piece.text)];
    num_bytes += has ? 0 : 1;
    has = true;
  }
  return (num_bytes == 0 || num_bytes == 256) && !MergesReachUnused(spec);
}

TokenizerSource SourceFromPieces(const SentencePieceSpec& spec) {
  TokenizerSource source;
  source.model = TokenizerSource::Model::kPieceBpe;
  source.merge_order = TokenizerSource::MergeOrder::kByScore;
  source.fuse_unknown = true;
  source.normalize_added_tokens = false;
  source.unknown_text = spec.unknown_surface;
  source.drop_first_space = spec.add_dummy_prefix;
  source.decoder_replacements = {{std::string(kSpaceMark), " "}};
  if (spec.add_dummy_prefix) {
    source.normalizer.push_back({NormalizerStep::Kind::kPrepend, "", std::string(kSpaceMark)});
  }
  source.normalizer.push_back({NormalizerStep::Kind::kReplace, " ", std::string(kSpaceMark)});
  for (size_t i = 0; i < spec.pieces.size(); ++i) {
    const Piece& piece = spec.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    source.pieces.push_back(piece.text);
    source.scores.push_back(piece.score);
    source.byte_fallback.push_back(piece.type == Type::kByte ? 1 : 0);
    if (piece.type == Type::kUnknown) source.unknown_id = id;
    if (piece.type == Type::kControl) {
      source.added_tokens.push_back({.content = piece.text, .id = id, .special = true});
    }
    if (piece.type == Type::kUserDefined) {
      source.added_tokens.push_back(
          {.content = absl::StrReplaceAll(piece.text, {{" ", ToAbsl(kSpaceMark)}}),
           .id = id,
           .normalized = true});
    }
  }
  source.bos_id = FindControl(spec, spec.bos_piece);
  if (const auto eos_id = FindControl(spec, spec.eos_piece)) source.eos_ids = {*eos_id};
  return source;
}

absl::StatusOr<TokenizerSource> SourceFromSentencePieceModel(std::string bytes) {
  ASSIGN_OR_RETURN(const SentencePieceSpec spec, ParseSentencePieceModel(bytes));
  TokenizerSource source = SourceFromPieces(spec);
  if (source.bos_id.has_value()) source.prefix_ids = {*source.bos_id};
  if (IsPlainBpe(spec)) return source;
  // The library finds these itself.
  auto& tokens = source.added_tokens;
  tokens.erase(std::remove_if(tokens.begin(), tokens.end(),
                              [](const AddedToken& token) { return !token.special; }),
               tokens.end());
  source.model = TokenizerSource::Model::kSentencePiece;
  source.sentencepiece_model = std::move(bytes);
  return source;
}

}  // namespace fastgen
