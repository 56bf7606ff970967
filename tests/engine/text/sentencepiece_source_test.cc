// Models written field by field, as a protobuf writer would, and damaged ones.
#include "engine/text/sentencepiece_source.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "tests/engine/text/random_text.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

using Type = SentencePieceSpec::Type;

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string Number(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}
std::string Bytes(int field, const std::string& value) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(value.size()) + value;
}
std::string Float(int field, float value) {
  char bits[4];
  std::memcpy(bits, &value, 4);
  return Varint(static_cast<uint64_t>(field) << 3 | 5) + std::string(bits, 4);
}
std::string Piece(const std::string& text, float score, Type type) {
  return Bytes(1, Bytes(1, text) + Float(2, score) + Number(3, static_cast<uint64_t>(type)));
}

std::string Pieces() {
  return Piece("<unk>", 0, Type::kUnknown) + Piece("<s>", 0, Type::kControl) +
         Piece("a", -1, Type::kNormal) + Piece("b", -2, Type::kNormal) +
         Piece("ab", -3, Type::kNormal);
}
const std::string kBpe = Bytes(2, Number(3, 2));
const std::string kIdentity = Bytes(3, Number(4, 0));

std::string Refusal(const std::string& model) {
  const auto source = SourceFromSentencePieceModel(model);
  REQUIRE(source.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(source.status().message());
}

}  // namespace

TEST_CASE("a plain BPE model becomes pieces and scores", "[text]") {
  const auto source = SourceFromSentencePieceModel(Pieces() + kBpe + kIdentity);
  REQUIRE(source.ok());
  CHECK(source->model == TokenizerSource::Model::kPieceBpe);
  CHECK(source->pieces == std::vector<std::string>{"<unk>", "<s>", "a", "b", "ab"});
  CHECK(source->scores[4] == -3);
  CHECK(source->bos_id == 1);
  CHECK(source->prefix_ids == std::vector<int32_t>{1});
  CHECK(source->unknown_id == 0);
  CHECK(source->eos_ids.empty());
  CHECK(source->normalizer.size() == 2);
  CHECK(source->drop_first_space);
  const auto bare =
      SourceFromSentencePieceModel(Pieces() + kBpe + Bytes(3, Number(4, 0) + Number(3, 0)));
  REQUIRE(bare.ok());
  CHECK(bare->normalizer.size() == 1);
  CHECK_FALSE(bare->drop_first_space);
}

TEST_CASE("models that are not plain BPE are left to the library", "[text]") {
  for (const std::string& model : {Pieces() + kIdentity,  // unigram
                                   Pieces() + kBpe,       // removes spaces
                                   Pieces() + Piece("ba", 0, Type::kUnused) + kBpe + kIdentity,
                                   Pieces() + kBpe + Bytes(3, Number(4, 0) + Number(5, 0))}) {
    const auto source = SourceFromSentencePieceModel(model);
    REQUIRE(source.ok());
    CHECK(source->model == TokenizerSource::Model::kSentencePiece);
    const auto tokenizer = MakeTokenizer(*source);
    INFO(tokenizer.status().ToString());
    REQUIRE(tokenizer.ok());
    CHECK((*tokenizer)->Encode("ab a", {}).ok());
  }
}

TEST_CASE("unused pieces that no merge leads to do not matter", "[text]") {
  const auto source =
      SourceFromSentencePieceModel(Pieces() + Piece("[PAD]", 0, Type::kUnused) + kBpe + kIdentity);
  REQUIRE(source.ok());
  CHECK(source->model == TokenizerSource::Model::kPieceBpe);
}

TEST_CASE("user-defined pieces are found before anything merges, and are not special", "[text]") {
  const auto source = SourceFromSentencePieceModel(Pieces() + Piece("b a", 0, Type::kUserDefined) +
                                                   kBpe + kIdentity);
  REQUIRE(source.ok());
  const auto tokenizer = MakeTokenizer(*source);
  REQUIRE(tokenizer.ok());
  const auto ids = (*tokenizer)->Encode("ab ab", {.add_special_tokens = false});
  REQUIRE(ids.ok());
  // The space before, which has no piece here, then a, [b a], b.
  CHECK(*ids == std::vector<int32_t>{0, 2, 5, 3});
  CHECK_FALSE((*tokenizer)->IsSpecial(5));
}

TEST_CASE("pieces that do not hold together are refused by id", "[text]") {
  const auto with = [](const std::string& piece) { return Refusal(Pieces() + piece + kBpe); };
  CHECK(with(Piece("", 0, Type::kNormal)) == "piece 5 ('') is empty");
  CHECK(with(Piece("a", 0, Type::kNormal)) == "piece 5 ('a') stands there twice");
  CHECK(with(Piece("\xFF", 0, Type::kNormal)) == "piece 5 ('\\xff') is not UTF-8");
  CHECK(with(Piece(std::string("x\0y", 3), 0, Type::kNormal)) ==
        "piece 5 ('x\\x00y') has a zero byte");
  CHECK(with(Piece("x", std::numeric_limits<float>::infinity(), Type::kNormal)) ==
        "piece 5 ('x') has a score that is not a number");
  CHECK(with(Piece("<0x0g>", 0, Type::kByte)) ==
        "piece 5 ('<0x0g>') is a byte piece, but not <0xXX>");
  CHECK(with(Piece("x", 0, Type::kUnknown)) == "piece 5 ('x') is a second unknown piece");
  CHECK(Refusal(Piece("a", 0, Type::kNormal) + kBpe) == "there is no unknown piece");
  CHECK_THAT(with(Piece(std::string(1025, 'x'), 0, Type::kNormal)),
             Catch::Contains("has 1025 bytes, more than 1024"));
  CHECK(with(Piece("x", 0, static_cast<Type>(7))) ==
        "not a sentencepiece model: pieces[5].type 7 is unknown");
}

TEST_CASE("bytes that are not a model are refused", "[text]") {
  CHECK(Refusal("") == "the sentencepiece model is empty");
  CHECK_THAT(Refusal("garbage"), Catch::StartsWith("not a sentencepiece model: "));
  CHECK(Refusal(kBpe) == "not a sentencepiece model: it has no pieces");
  CHECK(Refusal(Pieces() + Bytes(2, Number(3, 3))) ==
        "not a sentencepiece model: trainer_spec.model_type 3 is not supported (1, unigram, and 2, "
        "BPE, are)");
  CHECK(Refusal(Pieces() + Number(2, 1)) == "not a sentencepiece model: field 2 is not a message");
  CHECK(Refusal(Pieces() + Bytes(2, Bytes(3, "x"))) ==
        "not a sentencepiece model: trainer_spec.model_type is not a number");
  CHECK(Refusal(Pieces() + Bytes(5, Bytes(2, "x"))) ==
        "not a sentencepiece model: denormalizer_spec.precompiled_charsmap is not supported");
  CHECK(Refusal("\x0a\x7f") ==
        "not a sentencepiece model: ModelProto: a field is longer than the rest of the file");
  CHECK(Refusal(std::string(11, '\xFF')) ==
        "not a sentencepiece model: ModelProto: a number has more than ten bytes");
}

TEST_CASE("a normalizer table that points outside itself is refused", "[text]") {
  const auto refusal = [](const std::string& map) {
    return Refusal(Pieces() + Bytes(3, Bytes(2, map)));
  };
  const std::string size("\x00\x04\x00\x00", 4);  // 1024 bytes: 256 units
  const std::string empty(1024, '\0');
  const std::string name = "normalizer_spec.precompiled_charsmap";
  CHECK(
      SourceFromSentencePieceModel(Pieces() + Bytes(3, Bytes(2, size + empty + "x" + '\0'))).ok());
  CHECK(refusal("abc") == name + " has 3 bytes");
  CHECK(refusal(size + empty) == name + ": an array of 1024 bytes does not fit in 1024");
  CHECK(refusal(size + empty + "x") == name + ": its texts do not end with a zero");
  CHECK(refusal(size + empty + "\xFF" + '\0') == name + ": its texts are not UTF-8");
  std::string far = empty;
  far[4 * 3 + 2] = 0x04;  // unit 3: offset 256
  CHECK(refusal(size + far + "x" + '\0') == name + ": unit 3 points outside");
  std::string leaf = empty;
  leaf[4 * 3 + 1] = 0x05;  // unit 3: a value at 3 ^ 1
  CHECK(SourceFromSentencePieceModel(Pieces() + Bytes(3, Bytes(2, size + leaf + "x" + '\0'))).ok());
  leaf[4 * 2] = 9;
  CHECK(refusal(size + leaf + "x" + '\0') == name + ": unit 2 points outside its texts");
}

TEST_CASE("a damaged model is refused or still works", "[text][property]") {
  const std::string model =
      testing::ReadFile(testing::SourceTestdata() / "tokenizer" / "sentencepiece.model");
  testing::RandomText random(31);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = model;
    if (i % 4 == 0) damaged.resize(random.Below(model.size()));
    for (size_t n = random.Below(4); n > 0 && !damaged.empty(); --n) {
      damaged[random.Below(damaged.size())] = random.Bytes(1)[0];
    }
    CAPTURE(i);
    auto source = SourceFromSentencePieceModel(damaged);
    if (!source.ok()) {
      CHECK(source.status().code() == absl::StatusCode::kInvalidArgument);
      continue;
    }
    const auto tokenizer = MakeTokenizer(*std::move(source));
    if (!tokenizer.ok()) continue;
    const auto ids = (*tokenizer)->Encode("the baker waits \u6771\u4eac [INST]", {});
    REQUIRE(ids.ok());
    DecodeAll(**tokenizer, *ids, false);
  }
}

}  // namespace fastgen
