// Stop strings over every tokenizer: wherever tokens begin and end, the text ends exactly before
// the first match, no piece shows a byte of it, and the tokens end where the text does.
#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/unicode.h"
#include "engine/text/detokenizer.h"
#include "tests/engine/text/random_text.h"
#include "tests/engine/text/real_tokenizers.h"

namespace fastgen {
namespace {

using testing::RandomText;

// Emoji of several code points, CJK, combining marks, both ways to write an accent, blanks, and the
// marks of chat templates.
constexpr const char* kFragments[] = {
    "👩‍👩‍👧", "🏳️‍🌈", "👍🏽", "🇫🇷", "日本語", "你好", "한국어", "e\u0301", "é", "a\u0328\u0301", "ก็", "नमस्ते",
    " ", "  ", "\n", "\n\n", "\t", "▁", "the", " the", "ab", "aab", "aa", "</s>", "<|im_end|>", "stop", "STOP",
    "\u200b", "\u2028", "\ufffd", "0", "12345", ".", "...", "\"", "{\"a\":", "Ω", "ß", "\u00a0"};

std::string MakeText(RandomText* random) {
  std::string text;
  for (size_t n = 1 + random->Below(24); n > 0; --n) {
    text += random->Below(4) == 0 ? random->Unicode(1 + random->Below(3))
                                  : kFragments[random->Below(std::size(kFragments))];
  }
  return text;
}

// The ids of a text, or any ids at all: then tokens are cut where no encoder would cut them.
std::vector<int32_t> MakeIds(const Tokenizer& tokenizer, RandomText* random) {
  if (random->Below(2) == 0) {
    const auto ids = tokenizer.Encode(MakeText(random), {.add_special_tokens = false});
    if (ids.ok()) return *ids;
  }
  std::vector<int32_t> ids;
  for (size_t n = 1 + random->Below(30); n > 0; --n) {
    // The first ids are single bytes in most vocabularies.
    const size_t limit = random->Below(2) == 0 ? 300 : tokenizer.vocab_size();
    ids.push_back(static_cast<int32_t>(random->Below(limit)));
  }
  return ids;
}

// Characters [begin, end) of a text.
std::string SomeCharacters(const std::string& text, RandomText* random) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) starts.push_back(i);
  }
  const size_t begin = random->Below(starts.size());
  const size_t end = std::min(begin + 1 + random->Below(8), starts.size());
  return text.substr(starts[begin],
                     (end < starts.size() ? starts[end] : text.size()) - starts[begin]);
}

struct Streamed {
  std::vector<std::string> pieces;  // one a token, and the end's
  std::string text;
  std::string matched;
  int32_t num_tokens = 0;
};

Streamed Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                DetokenizerOptions options) {
  Detokenizer detokenizer(&tokenizer, std::move(options));
  Streamed streamed;
  for (int32_t id : ids) streamed.pieces.push_back(detokenizer.Push(id));
  streamed.pieces.push_back(detokenizer.Flush());
  for (const std::string& piece : streamed.pieces) streamed.text += piece;
  streamed.matched = std::string(detokenizer.matched_stop());
  streamed.num_tokens = detokenizer.num_tokens();
  return streamed;
}

bool AllUtf8(const std::vector<std::string>& pieces) {
  return std::all_of(pieces.begin(), pieces.end(),
                     [](const std::string& piece) { return IsValidUtf8(piece); });
}

TEST_CASE("pieces of any ids are characters, and make up the whole decode", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    RandomText random(11);
    for (int run = 0; run < 400; ++run) {
      const std::vector<int32_t> ids = MakeIds(*tokenizer, &random);
      const bool skips = random.Below(2) == 0;
      const Streamed streamed = Stream(*tokenizer, ids, {.skip_special_tokens = skips});
      CAPTURE(name, run, ids);
      REQUIRE(AllUtf8(streamed.pieces));
      REQUIRE(streamed.text == DecodeAll(*tokenizer, ids, skips));
    }
  }
}

TEST_CASE("the text ends before the first match, and the tokens with it", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    RandomText random(12);
    for (int run = 0; run < 600; ++run) {
      const std::vector<int32_t> ids = MakeIds(*tokenizer, &random);
      const Streamed whole = Stream(*tokenizer, ids, {.skip_special_tokens = false});
      if (whole.text.empty()) continue;
      const std::string stop = SomeCharacters(whole.text, &random);
      const bool includes = random.Below(2) == 0;
      const Streamed cut =
          Stream(*tokenizer, ids,
                 {.skip_special_tokens = false, .stop = {stop}, .include_stop = includes});
      const size_t found = whole.text.find(stop);
      CAPTURE(name, run, ids, stop, whole.text);
      REQUIRE(found != std::string::npos);
      REQUIRE(AllUtf8(cut.pieces));
      REQUIRE(cut.text == whole.text.substr(0, found + (includes ? stop.size() : 0)));
      REQUIRE(cut.matched == stop);
      // The token that brought the last byte of it, where no later one could still change the text.
      std::string before;
      size_t last = 0;
      while (last < ids.size() && before.size() < found + stop.size()) {
        before += whole.pieces[last++];
      }
      REQUIRE(cut.num_tokens == static_cast<int32_t>(last));
    }
  }
}

TEST_CASE("a stop string that never comes leaves the text whole", "[text][property]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    RandomText random(13);
    for (int run = 0; run < 200; ++run) {
      const std::vector<int32_t> ids = MakeIds(*tokenizer, &random);
      const Streamed whole = Stream(*tokenizer, ids, {.skip_special_tokens = false});
      if (whole.text.empty()) continue;
      // Nearly there.
      const std::string stop = SomeCharacters(whole.text, &random) + "\u2603never\u2603";
      const Streamed same =
          Stream(*tokenizer, ids, {.skip_special_tokens = false, .stop = {stop}});
      CAPTURE(name, run, ids, stop);
      REQUIRE(same.text == whole.text);
      REQUIRE(same.matched.empty());
    }
  }
}

TEST_CASE("a special token that is shown is shown among those that are skipped", "[text]") {
  for (const std::string& name : testing::TokenizerNames()) {
    const auto tokenizer = testing::LoadByName(name);
    std::vector<int32_t> special;
    for (int32_t id = 0; id < tokenizer->vocab_size() && special.size() < 3; ++id) {
      if (tokenizer->IsSpecial(id)) special.push_back(id);
    }
    if (special.size() < 3) continue;
    CAPTURE(name);
    DetokenizerOptions options;
    options.shown_special = {special[1]};
    CHECK(Stream(*tokenizer, special, options).text == tokenizer->TokenBytes(special[1]));
  }
}

}  // namespace
}  // namespace fastgen
