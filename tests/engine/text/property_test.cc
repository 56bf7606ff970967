// What must hold for every tokenizer and any text, over random ones; the seeds are fixed and are
// printed by a failure.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "base/unicode.h"
#include "engine/text/detokenizer.h"
#include "engine/text/text_normalizer.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/text/random_text.h"
#include "tests/engine/text/real_tokenizers.h"

namespace fastgen {
namespace {

using testing::RandomText;

constexpr uint64_t kSeeds[] = {1, 2, 3};
constexpr int kNumTexts = 200;  // for each seed

std::vector<int32_t> EncodeText(const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = false});
  REQUIRE(ids.ok());
  return *ids;
}

// Wrong bytes become U+FFFD: the rule of the Unicode standard, or one for each byte. Written apart
// from Utf8Repairer: looks at the whole text, character by character.
std::string Repaired(const std::string& bytes, bool per_byte) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    size_t length = 1;
    while (length <= 4 && i + length <= bytes.size() && !IsValidUtf8(bytes.substr(i, length))) {
      ++length;
    }
    if (length <= 4 && i + length <= bytes.size()) {
      out += bytes.substr(i, length);
      i += length;
      continue;
    }
    // The longest beginning of a character that stands here.
    size_t prefix = 1;
    for (size_t n = 2; n <= 3 && i + n <= bytes.size(); ++n) {
      bool begins = false;
      for (int last = 0x80; last <= 0xBF && !begins; ++last) {
        for (int second = 0x80; second <= 0xBF && !begins; ++second) {
          std::string text = bytes.substr(i, n) + static_cast<char>(last);
          begins = IsValidUtf8(text);
          if (n == 2 && !begins) {
            text += static_cast<char>(second);
            begins = IsValidUtf8(text);
          }
        }
      }
      if (begins) prefix = n;
    }
    for (size_t n = 0; n < (per_byte ? prefix : 1); ++n) out += "\xEF\xBF\xBD";
    i += prefix;
  }
  return out;
}

std::string WithoutSpaces(const std::string& text) {
  return absl::StrReplaceAll(text, {{" ", ""}});
}

// What decoding must give for `text`: normalised on purpose, the space mark of sentencepiece as a
// space, and without the bytes that the vocabulary lacks; of unigram, without spaces, which
// the first token loses and each part of the text between added tokens begins with.
std::string Expected(const TokenizerSource& source, const Tokenizer& tokenizer, std::string text) {
  if (source.model == TokenizerSource::Model::kUnigram) {
    const auto normalizer = TextNormalizer::Create(source.normalizer);
    REQUIRE(normalizer.ok());
    return absl::StrReplaceAll(normalizer->Apply(text, {}).text, {{"\u2581", ""}, {" ", ""}});
  }
  for (const NormalizerStep& step : source.normalizer) {
    if (step.kind == NormalizerStep::Kind::kNfc) text = NormalizeNfc(text);
  }
  if (source.model == TokenizerSource::Model::kPieceBpe) {
    return absl::StrReplaceAll(text, {{"\u2581", " "}});
  }
  std::array<bool, 256> has_byte = {};
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    if (bytes.size() == 1) has_byte[static_cast<uint8_t>(bytes[0])] = true;
  }
  const auto lacks = [&](char c) { return !has_byte[static_cast<uint8_t>(c)]; };
  text.erase(std::remove_if(text.begin(), text.end(), lacks), text.end());
  return Repaired(text, /*per_byte=*/false);
}

}  // namespace

TEST_CASE("any text decodes to itself", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const TokenizerSource source = testing::SourceByName(name);
    const auto made = MakeTokenizer(source);
    REQUIRE(made.ok());
    const Tokenizer& tokenizer = **made;
    std::vector<std::string> pieces;  // of text alone
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const std::string piece(tokenizer.TokenBytes(id));
      if (!piece.empty() && IsValidUtf8(piece) && !tokenizer.IsSpecial(id)) pieces.push_back(piece);
    }
    for (const uint64_t seed : kSeeds) {
      RandomText random(seed);
      for (int i = 0; i < kNumTexts; ++i) {
        std::string text = i % 2 == 0 ? random.Unicode(random.Below(60))
                                      : random.FromPieces(pieces, random.Below(30));
        if (!IsValidUtf8(text)) text = Repaired(text, /*per_byte=*/false);
        std::string decoded =
            DecodeAll(tokenizer, EncodeText(tokenizer, text), /*skip_special_tokens=*/false);
        if (source.model == TokenizerSource::Model::kUnigram) decoded = WithoutSpaces(decoded);
        if (decoded == Expected(source, tokenizer, text)) continue;
        CAPTURE(name, seed, i, text);
        CHECK(decoded == Expected(source, tokenizer, text));
      }
    }
  }
}

TEST_CASE("bytes that are not UTF-8 are refused by every tokenizer", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    RandomText random(kSeeds[0]);
    for (int i = 0; i < kNumTexts; ++i) {
      const std::string bytes = random.Bytes(1 + random.Below(12));
      const auto ids = tokenizer->Encode(bytes, {});
      if (ids.ok() == IsValidUtf8(bytes)) continue;
      CAPTURE(name, i, bytes);
      CHECK(ids.ok() == IsValidUtf8(bytes));
    }
  }
}

TEST_CASE("a stream of any ids gives the whole decode, in whole characters", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    // The ids of single bytes: the ones that cut characters.
    std::vector<int32_t> bytes;
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      if (tokenizer->TokenBytes(id).size() == 1) bytes.push_back(id);
    }
    for (const uint64_t seed : kSeeds) {
      RandomText random(seed);
      for (int i = 0; i < kNumTexts; ++i) {
        const bool skips_special = random.Below(2) == 0;
        std::string all;
        std::string text;
        bool every_piece_is_utf8 = true;
        std::vector<int32_t> ids;
        Detokenizer detokenizer(tokenizer.get(), {.skip_special_tokens = skips_special});
        for (size_t n = random.Below(40); n > 0; --n) {
          const size_t vocab = static_cast<size_t>(tokenizer->vocab_size());
          ids.push_back(random.Below(3) == 0 ? bytes[random.Below(bytes.size())]
                                             : static_cast<int32_t>(random.Below(vocab)));
          if (!skips_special || !tokenizer->IsSpecial(ids.back())) {
            all += all.empty() ? tokenizer->FirstTokenBytes(ids.back())
                               : tokenizer->TokenBytes(ids.back());
          }
          const std::string piece = detokenizer.Push(ids.back());
          every_piece_is_utf8 = every_piece_is_utf8 && IsValidUtf8(piece);
          text += piece;
        }
        text += detokenizer.Flush();
        std::string expected = Repaired(all, tokenizer->has_byte_fallback());
        if (tokenizer->drops_first_space() && expected.substr(0, 1) == " ") expected.erase(0, 1);
        if (text == expected && every_piece_is_utf8 &&
            text == DecodeAll(*tokenizer, ids, skips_special)) {
          continue;
        }
        CAPTURE(name, seed, i, ids);
        CHECK(text == expected);
        CHECK(every_piece_is_utf8);
        CHECK(text == DecodeAll(*tokenizer, ids, skips_special));
      }
    }
  }
}

}  // namespace fastgen
