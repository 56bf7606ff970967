#include "engine/text/tekken.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/strings.h"

namespace fastgen {
namespace {

using Ids = std::vector<int32_t>;

// 256 bytes, then the given tokens; four special tokens.
std::string Tekken(const std::vector<std::string>& tokens, const std::string& special = "") {
  std::vector<std::string> all;
  for (int byte = 0; byte < 256; ++byte) all.emplace_back(1, static_cast<char>(byte));
  all.insert(all.end(), tokens.begin(), tokens.end());
  std::string vocab;
  for (size_t i = 0; i < all.size(); ++i) {
    std::string base64;
    absl::Base64Escape(all[i], &base64);
    absl::StrAppend(&vocab, i == 0 ? "" : ",", "{\"rank\":", i, ",\"token_bytes\":\"", base64,
                    "\",\"token_str\":null}");
  }
  return absl::StrCat(R"({"config":{"pattern":"\\s+|\\S+","num_vocab_tokens":)", all.size(),
                      R"(,"default_vocab_size":)", all.size() + 4,
                      R"(,"default_num_special_tokens":4,"version":"v3"},)",
                      special.empty() ? "" : absl::StrCat("\"special_tokens\":", special, ","),
                      "\"vocab\":[", vocab, "]}");
}

std::string With(const std::string& json, const std::string& part, const std::string& instead) {
  const std::string changed = absl::StrReplaceAll(json, {{part, instead}});
  REQUIRE(changed != json);
  return changed;
}

std::string Refusal(const std::string& json) {
  const auto source = ParseTekken(json);
  REQUIRE(source.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(source.status().message());
}

std::unique_ptr<Tokenizer> Make(const std::string& json) {
  auto source = ParseTekken(json);
  INFO(source.status().ToString());
  REQUIRE(source.ok());
  auto tokenizer = MakeTokenizer(*std::move(source));
  REQUIRE(tokenizer.ok());
  return *std::move(tokenizer);
}

Ids Encode(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.Encode(text, {.add_special_tokens = false});
  REQUIRE(ids.ok());
  return *ids;
}

}  // namespace

TEST_CASE("tekken ranks say which bytes merge first", "[text]") {
  // "bc" goes before "ab"; "abc" is a word of its own although no merge of two ranks leads there.
  const auto tokenizer = Make(Tekken({"bc", "ab", "abcd", "\xE2\x82"}));
  const auto rank = [](int i) { return 4 + i; };
  CHECK(tokenizer->vocab_size() == 264);
  CHECK(Encode(*tokenizer, "xabc") == Ids{rank('x'), rank('a'), rank(256)});
  CHECK(Encode(*tokenizer, "abx") == Ids{rank(257), rank('x')});
  CHECK(Encode(*tokenizer, "abcd") == Ids{rank(258)});
  CHECK(Encode(*tokenizer, "abcdx") == Ids{rank('a'), rank(256), rank('d'), rank('x')});
  CHECK(Encode(*tokenizer, "\u20ac") == Ids{rank(259), rank(0xAC)});
  CHECK(tokenizer->TokenBytes(rank(259)) == "\xE2\x82");
  CHECK(DecodeAll(*tokenizer, Encode(*tokenizer, "\u20ac abcd"), true) == "\u20ac abcd");
}

TEST_CASE("tekken's special tokens come first, with the names that old files leave out", "[text]") {
  const auto tokenizer = Make(Tekken({}));
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->TokenBytes(3) == "[INST]");
  CHECK(tokenizer->IsSpecial(3));
  CHECK(tokenizer->Encode("a", {}).value() == Ids{1, 4 + 'a'});
  CHECK(Encode(*tokenizer, "[INST]a") == Ids{3, 4 + 'a'});
  const auto named = Make(Tekken({}, R"([{"rank":0,"token_str":"<s>","is_control":true},
                                         {"rank":2,"token_str":"[X]","is_control":true}])"));
  CHECK(named->bos_id() == 0);
  CHECK(named->TokenBytes(1) == "<SPECIAL_1>");
  CHECK(Encode(*named, "[X]") == Ids{2});
}

TEST_CASE("a file may list more ranks than its vocabulary takes", "[text]") {
  const std::string json = Tekken({"ab", "cd"});
  const auto tokenizer =
      Make(With(json, "\"default_vocab_size\":262", "\"default_vocab_size\":261"));
  CHECK(tokenizer->vocab_size() == 261);
  CHECK(Encode(*tokenizer, "abcd") == Ids{260, 4 + 'c', 4 + 'd'});
}

TEST_CASE("a tekken file that does not hold together is refused by field", "[text]") {
  const std::string json = Tekken({"ab"});
  CHECK(Refusal("{}") == "tekken.json.config is missing");
  CHECK_THAT(Refusal("{"), Catch::StartsWith("tekken.json is not JSON"));
  CHECK(Refusal(With(json, "\"pattern\"", "\"regex\"")) == "tekken.json.config.pattern is missing");
  CHECK(Refusal(With(json, "\"rank\":7,", "\"rank\":8,")) ==
        "tekken.json.vocab[7].rank is 8 and not 7");
  CHECK(Refusal(With(json, "\"YWI=\"", "\"YW!=\"")) ==
        "tekken.json.vocab[256].token_bytes 'YW!=' is not base64");
  CHECK(Refusal(With(json, "\"YWI=\"", "\"\"")) ==
        "tekken.json.vocab[256].token_bytes '' is not base64");
  CHECK(Refusal(With(json, "\"AA==\"", "\"YWI=\"")) ==
        "tekken.json.vocab[0].token_bytes has 2 bytes: the first 256 ranks are the single bytes");
  CHECK(Refusal(With(json, "\"default_vocab_size\":261", "\"default_vocab_size\":262")) ==
        "tekken.json.vocab has 257 entries for 258 ranks");
  CHECK(Refusal(With(json, "\"default_vocab_size\":261", "\"default_vocab_size\":200")) ==
        "tekken.json.config.default_vocab_size 200 leaves no room for 4 special tokens and 256 "
        "bytes");
  CHECK(Refusal(Tekken({}, R"([{"rank":4,"token_str":"a"}])")) ==
        "tekken.json.special_tokens[0].rank 4 is taken or not below the 4 special tokens");
  CHECK(Refusal(Tekken({}, R"([{"rank":1,"token_str":""}])")) ==
        "tekken.json.special_tokens[0].token_str is empty");
  for (size_t size = 0; size < json.size(); size += 97) {
    CHECK_THAT(Refusal(json.substr(0, size)), Catch::StartsWith("tekken.json is not JSON"));
  }
}

TEST_CASE("tekken tokens may be long one by one, but not all together", "[text]") {
  const auto status = [](size_t length) {
    auto source = ParseTekken(Tekken({std::string(length, 'a')}));
    REQUIRE(source.ok());
    return MakeTokenizer(*std::move(source)).status();
  };
  CHECK(status(4096).ok());
  CHECK_THAT(std::string(status(20'000).message()),
             Catch::Contains("are too long: the squares of their lengths exceed"));
}

}  // namespace fastgen
