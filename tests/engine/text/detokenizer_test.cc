#include "engine/text/detokenizer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/unicode.h"
#include "tests/engine/text/fake_tokenizer.h"

namespace fastgen {
namespace {

using testing::FakeTokenizer;

// What a stream must come to, found the slow way.
struct Expected {
  std::string text;
  std::string stop;
  size_t num_bytes;  // of the stream up to the end of the stop string
};

Expected FindStop(const std::string& text, const std::vector<std::string>& stops,
                  bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          stop.size() > longest.size()) {
        longest = stop;
      }
    }
    if (!longest.empty())
      return {text.substr(0, end - (include_stop ? 0 : longest.size())), longest, end};
  }
  return {text, "", text.size()};
}

// The longest end of `text` that begins a stop string.
size_t NumUndecided(const std::string& text, const std::vector<std::string>& stops) {
  size_t undecided = 0;
  for (const std::string& stop : stops) {
    for (size_t length = 1; length < stop.size() && length <= text.size(); ++length) {
      if (text.compare(text.size() - length, length, stop, 0, length) == 0)
        undecided = std::max(undecided, length);
    }
  }
  return undecided;
}

// Runs `pieces` as tokens through a detokenizer; "" or what went wrong.
std::string RunStream(const std::vector<std::string>& pieces, const std::vector<std::string>& stops,
                      bool include_stop) {
  std::vector<FakeTokenizer::Token> tokens;
  std::string all;
  for (const std::string& piece : pieces) {
    tokens.push_back({piece});
    all += piece;
  }
  const FakeTokenizer tokenizer(tokens);
  const Expected expected = FindStop(all, stops, include_stop);
  Detokenizer detokenizer(&tokenizer, {.stop = stops, .include_stop = include_stop});
  std::string text;
  std::string fed;
  int32_t expected_tokens = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (expected.stop.empty() || fed.size() < expected.num_bytes) ++expected_tokens;
    fed += pieces[i];
    const std::string delta = detokenizer.Push(static_cast<int32_t>(i));
    if (!IsValidUtf8(delta)) return "a delta is not UTF-8";
    text += delta;
    if (expected.text.compare(0, text.size(), text) != 0) return "gave out '" + text + "'";
    if (detokenizer.num_tokens() != expected_tokens) return "wrong number of tokens";
    if (detokenizer.stopped() != (!expected.stop.empty() && fed.size() >= expected.num_bytes))
      return "stopped wrongly";
    if (!detokenizer.stopped() && IsValidUtf8(fed) &&
        text.size() != fed.size() - NumUndecided(fed, stops)) {
      return "held back too much of '" + fed + "'";
    }
  }
  text += detokenizer.Flush();
  if (text != expected.text) return "came to '" + text + "', expected '" + expected.text + "'";
  if (detokenizer.matched_stop() != expected.stop)
    return "matched '" + std::string(detokenizer.matched_stop()) + "'";
  if (detokenizer.num_tokens() != expected_tokens) return "wrong number of tokens after Flush";
  if (!detokenizer.Flush().empty()) return "a second Flush gave text";
  return "";
}

}  // namespace

TEST_CASE("a stop string is found at every way to cut a text into tokens", "[text]") {
  const std::string text = "a\u00e9 <\u20ac> zz";  // 12 bytes
  const std::vector<std::vector<std::string>> stop_sets = {
      {},     {"<\u20ac>"},    {"\u20ac"},          {"\u00e9"},
      {"zz"}, {"zzz", "> zq"}, {"> z", "<\u20ac>"}, {" <\u20ac> ", "\u20ac> "},
      {"a"}};
  for (const std::vector<std::string>& stops : stop_sets) {
    for (const bool include_stop : {false, true}) {
      for (uint32_t cuts = 0; cuts < 1u << (text.size() - 1); ++cuts) {
        std::vector<std::string> pieces(1);
        for (size_t i = 0; i < text.size(); ++i) {
          if (i > 0 && (cuts >> (i - 1) & 1) != 0) pieces.emplace_back();
          pieces.back() += text[i];
        }
        const std::string fault = RunStream(pieces, stops, include_stop);
        CAPTURE(pieces, stops, include_stop);
        if (!fault.empty()) FAIL(fault);
      }
    }
  }
}

TEST_CASE("random streams with overlapping stop strings agree with a plain search", "[text]") {
  const uint32_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const auto pick = [&](size_t below) { return static_cast<size_t>(random() % below); };
  const auto word = [&](size_t min, size_t max) {
    std::string text;
    for (size_t length = min + pick(max - min + 1); length > 0; --length)
      text += pick(8) == 0 ? "\u00e9" : pick(2) == 0 ? "a" : "b";
    return text;
  };
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = pick(4); n > 0; --n) stops.push_back(word(1, 7));
    std::vector<std::string> pieces;
    for (size_t n = pick(16); n > 0; --n) pieces.push_back(word(0, 3));
    CAPTURE(pieces, stops);
    const std::string fault = RunStream(pieces, stops, /*include_stop=*/pick(2) == 0);
    if (!fault.empty()) FAIL(fault);
  }
}

TEST_CASE("of stop strings that end together the longest is cut", "[text]") {
  const FakeTokenizer tokenizer({{"say "}, {"END"}, {" now"}});
  Detokenizer detokenizer(&tokenizer, {.stop = {"D", "END", "ND"}});
  CHECK(detokenizer.Push(0) == "say ");
  CHECK(detokenizer.Push(1) == "");
  CHECK(detokenizer.matched_stop() == "END");
  CHECK(detokenizer.Push(2) == "");
  CHECK(detokenizer.num_tokens() == 2);
}

TEST_CASE("special tokens are left out when asked, and their text can stop when not", "[text]") {
  const FakeTokenizer tokenizer({{"a"}, {"<eot>", true}, {"b"}, {"\xC3"}, {"\xA9"}});
  const std::vector<int32_t> ids = {0, 1, 2, 3, 1, 4};
  CHECK(DecodeAll(tokenizer, ids, /*skip_special_tokens=*/true) == "ab\u00e9");
  CHECK(DecodeAll(tokenizer, ids, /*skip_special_tokens=*/false) == "a<eot>b\uFFFD<eot>\uFFFD");

  Detokenizer across(&tokenizer, {.skip_special_tokens = true, .stop = {"ab"}});
  for (const int32_t id : ids) CHECK(across.Push(id) == "");
  CHECK(across.matched_stop() == "ab");
  CHECK(across.num_tokens() == 3);

  Detokenizer inside(&tokenizer,
                     {.skip_special_tokens = false, .stop = {"a<eo"}, .include_stop = true});
  CHECK(inside.Push(0) == "");
  CHECK(inside.Push(1) == "a<eo");
  CHECK(inside.num_tokens() == 2);
}

TEST_CASE("an unfinished character becomes U+FFFD only when nothing can finish it", "[text]") {
  const FakeTokenizer tokenizer({{"\xE2\x82"}, {"\xAC"}, {"x"}});
  Detokenizer finished(&tokenizer, {});
  CHECK(finished.Push(0) == "");
  CHECK(finished.Push(1) == "\u20ac");
  CHECK(finished.Flush() == "");

  Detokenizer wrong(&tokenizer, {});
  CHECK(wrong.Push(0) == "");
  CHECK(wrong.Push(2) == "\uFFFDx");

  Detokenizer cut(&tokenizer, {});
  CHECK(cut.Push(0) == "");
  CHECK(cut.Flush() == "\uFFFD");
  CHECK(cut.num_tokens() == 1);
}

TEST_CASE("a stop string may be what a wrong byte turned into", "[text]") {
  const FakeTokenizer tokenizer({{"\xE2\x82"}, {"x"}});
  Detokenizer pushed(&tokenizer, {.stop = {"\uFFFD"}});
  CHECK(pushed.Push(0) == "");
  CHECK(pushed.Push(1) == "");
  CHECK(pushed.matched_stop() == "\uFFFD");
  CHECK(pushed.num_tokens() == 2);

  Detokenizer flushed(&tokenizer, {.stop = {"\uFFFD"}});
  CHECK(flushed.Push(0) == "");
  CHECK(flushed.Flush() == "");
  CHECK(flushed.stopped());
  CHECK(flushed.num_tokens() == 1);
}

TEST_CASE("with byte fallback each wrong byte counts, and the first space goes", "[text]") {
  const FakeTokenizer tokenizer({{" a"}, {" "}, {"\xE2"}, {"\x82"}, {"<s>", true}},
                                /*byte_fallback=*/true);
  CHECK(DecodeAll(tokenizer, {{0, 0}}, true) == "a a");
  CHECK(DecodeAll(tokenizer, {{1, 0}}, true) == " a");
  CHECK(DecodeAll(tokenizer, {{4, 0}}, true) == "a");
  CHECK(DecodeAll(tokenizer, {{4, 0}}, false) == "<s> a");
  CHECK(DecodeAll(tokenizer, {{2, 3}}, true) == "\uFFFD\uFFFD");
  CHECK(DecodeAll(tokenizer, {{2, 3, 0}}, true) == "\uFFFD\uFFFD a");
}

TEST_CASE("ids outside the vocabulary give no text", "[text]") {
  const FakeTokenizer tokenizer({{"a"}});
  CHECK(DecodeAll(tokenizer, {{-1, 0, 1, 1 << 30}}, false) == "a");
}

TEST_CASE("a stop string that is not UTF-8 never matches and holds nothing back", "[text]") {
  const FakeTokenizer tokenizer({{"\xC3"}, {"\xA9"}});
  Detokenizer detokenizer(&tokenizer, {.stop = {"\xC3", "\xA9"}});
  CHECK(detokenizer.Push(0) == "");
  CHECK(detokenizer.Push(1) == "\u00e9");
  CHECK_FALSE(detokenizer.stopped());
}

TEST_CASE("a near miss of a long stop string in a long text is searched in linear time", "[text]") {
  const FakeTokenizer tokenizer({{std::string(1000, 'a')}, {"b"}});
  const std::string stop = std::string(2000, 'a') + "c";
  Detokenizer detokenizer(&tokenizer, {.stop = {stop, std::string(1999, 'a') + "d"}});
  size_t num_bytes = 0;
  for (int i = 0; i < 2000; ++i) num_bytes += detokenizer.Push(0).size();
  CHECK(num_bytes == 2'000'000 - 2000);
  num_bytes += detokenizer.Push(1).size();
  CHECK(num_bytes == 2'000'001);
}

}  // namespace fastgen
