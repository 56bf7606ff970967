#include "engine/text/tokenizer_json.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "engine/text/token_table.h"
#include "engine/text/tokenizer_config.h"
#include "tests/engine/text/tokenizer_files.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

const char* const kSmall = R"json({
  "added_tokens": [{"id": 4, "content": "<s>", "special": true}, {"id": 5, "content": "</s>", "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
    "special_tokens": {"<s>": {"ids": [4]}, "</s>": {"ids": [5]}}},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 3}, "merges": ["a b"]}
})json";

// kSmall with one part of it replaced.
std::string With(const std::string& part, const std::string& replacement) {
  const std::string json = absl::StrReplaceAll(kSmall, {{part, replacement}});
  REQUIRE(json != kSmall);
  return json;
}

std::string Refusal(const std::string& json, const std::string& config = "") {
  const auto source = ParseTokenizerJson(json, config);
  REQUIRE(source.status().code() == absl::StatusCode::kInvalidArgument);
  return std::string(source.status().message());
}

const std::string kPre = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";

}  // namespace

TEST_CASE("a tokenizer.json becomes plain data", "[text]") {
  const auto source = ParseTokenizerJson(kSmall, "");
  REQUIRE(source.ok());
  CHECK(source->pieces == std::vector<std::string>{"a", "b", "", "ab"});
  CHECK(source->merges == std::vector<std::pair<std::string, std::string>>{{"a", "b"}});
  CHECK(source->added_tokens.size() == 2);
  CHECK(source->added_tokens[1].special);
  CHECK_FALSE(source->added_tokens[1].normalized);
  CHECK(source->prefix_ids == std::vector<int32_t>{4});
  CHECK(source->suffix_ids == std::vector<int32_t>{5});
  CHECK(source->bos_id == 4);
  CHECK(source->splits.size() == 1);
  CHECK(source->normalizer.empty());
  CHECK_FALSE(source->ignore_merges);
}

TEST_CASE("merges may be pairs, and a model without a type is BPE", "[text]") {
  const auto source = ParseTokenizerJson(With(R"(["a b"])", R"([["a", "b"]])"), "");
  REQUIRE(source.ok());
  CHECK(source->merges == std::vector<std::pair<std::string, std::string>>{{"a", "b"}});
  CHECK(ParseTokenizerJson(With(R"("type": "BPE", )", ""), "").ok());
}

TEST_CASE("pre-tokenizers keep their order", "[text]") {
  const auto source = ParseTokenizerJson(With(kPre, R"({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": false},
        {"type": "Split", "pattern": {"String": "a.b"}, "behavior": "Isolated"},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"),
                                         "");
  REQUIRE(source.ok());
  std::vector<std::string> patterns;
  for (const SplitStep& split : source->splits) patterns.push_back(split.pattern);
  CHECK(patterns == std::vector<std::string>{R"(\p{N})", "x+", R"(\p{N}+)", R"(a\.b)"});
}

TEST_CASE("components that are not understood are refused by name", "[text]") {
  CHECK(Refusal(With(
            "\"normalizer\": null",
            R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})")) ==
        "tokenizer.json.normalizer.normalizers[0] type 'Lowercase' is not supported");
  CHECK(Refusal(With(kPre, R"({"type": "Metaspace"})")) ==
        "tokenizer.json.pre_tokenizer type 'Metaspace' is not supported");
  CHECK(Refusal(
            With(kPre, R"({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Doubled"})")) ==
        "tokenizer.json.pre_tokenizer.behavior 'Doubled' is not supported");
  CHECK(Refusal(With(kPre, R"({"type": "Digits"})")) ==
        "tokenizer.json.pre_tokenizer has no ByteLevel: without byte_fallback, only byte-level BPE "
        "is "
        "supported");
  CHECK(Refusal(With(kPre, "null")) ==
        "tokenizer.json.pre_tokenizer is missing: without byte_fallback, only byte-level BPE is "
        "supported");
  CHECK_THAT(
      Refusal(With(
          kPre,
          R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false}, {"type": "Digits"}]})")),
      Catch::Contains("'Digits' after ByteLevel is not supported"));
  CHECK_THAT(
      Refusal(With(
          kPre,
          R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]})")),
      Catch::Contains("add_prefix_space true after a split is not supported"));
  CHECK(Refusal(With("TemplateProcessing", "RobertaProcessing")) ==
        "tokenizer.json.post_processor type 'RobertaProcessing' is not supported");
  CHECK(
      Refusal(With(R"("decoder": {"type": "ByteLevel"})", R"("decoder": {"type": "WordPiece"})")) ==
      "tokenizer.json.decoder type 'WordPiece' is not supported");
  CHECK(Refusal(With("\"BPE\"", "\"WordPiece\"")) ==
        "tokenizer.json.model type 'WordPiece' is not supported");
  CHECK(Refusal(With("\"BPE\"", "\"BPE\", \"dropout\": 0.1")) ==
        "tokenizer.json.model.dropout is not supported");
  CHECK(Refusal(With("\"BPE\"", "\"BPE\", \"end_of_word_suffix\": \"</w>\"")) ==
        "tokenizer.json.model.end_of_word_suffix '</w>' is not supported");
}

TEST_CASE("BPE with byte fallback is read with what stands around it", "[text]") {
  const std::string json = R"json({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]},
    "pre_tokenizer": null,
    "post_processor": null,
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"},
      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "_": 2, "a": 3, "_a": 4, "<0x41>": 5}, "merges": ["_ a"]}
  })json";
  const auto source = ParseTokenizerJson(json, "");
  INFO(source.status().ToString());
  REQUIRE(source.ok());
  CHECK(source->model == TokenizerSource::Model::kPieceBpe);
  CHECK(source->unknown_id == 0);
  CHECK(source->fuse_unknown);
  CHECK(source->drop_first_space);
  REQUIRE(source->normalizer.size() == 2);
  CHECK(source->normalizer[0].content == "_");
  CHECK(source->normalizer[1].pattern == " ");
  CHECK(source->byte_fallback == std::vector<uint8_t>{0, 0, 0, 0, 0, 1});
  CHECK(source->decoder_replacements.size() == 1);

  const auto with = [&](const std::string& part, const std::string& instead) {
    const std::string changed = absl::StrReplaceAll(json, {{part, instead}});
    REQUIRE(changed != json);
    return changed;
  };
  const std::string null_pre = "\"pre_tokenizer\": null";
  const auto metaspace = ParseTokenizerJson(
      with(null_pre, R"("pre_tokenizer": {"type": "Metaspace", "replacement": "_",
                        "prepend_scheme": "first", "split": true})"),
      "");
  REQUIRE(metaspace.ok());
  REQUIRE(metaspace->metaspace.has_value());
  CHECK(metaspace->metaspace->prepend == Metaspace::Prepend::kFirst);
  REQUIRE(metaspace->splits.size() == 1);
  CHECK(metaspace->splits[0].behavior == SplitStep::Behavior::kMergedWithNext);

  CHECK(Refusal(with(null_pre, R"("pre_tokenizer": {"type": "ByteLevel"})")) ==
        "tokenizer.json.pre_tokenizer type 'ByteLevel' is not supported");
  CHECK_THAT(Refusal(with(null_pre, R"("pre_tokenizer": {"type": "Metaspace", "replacement": "_",
                                       "prepend_scheme": "last"})")),
             Catch::Contains("prepend_scheme 'last' is not supported"));
  CHECK(Refusal(with("{\"String\": \" \"}, \"content\": \"_\"",
                     "{\"Regex\": \" \"}, \"content\": \"_\"")) ==
        "tokenizer.json.normalizer.normalizers[1].pattern.Regex is not supported here");
  CHECK_THAT(Refusal(with("\"start\": 1", "\"start\": 2")),
             Catch::Contains("decoders[3]: Strip is supported as one space at the start"));
  CHECK(Refusal(with("{\"type\": \"ByteFallback\"},", "")) ==
        "tokenizer.json.decoder lacks ByteFallback or Fuse, which byte_fallback needs");
  CHECK(Refusal(with("\"unk_token\": \"<unk>\"", "\"unk_token\": \"<none>\"")) ==
        "tokenizer.json.model.unk_token '<none>' is not in the vocabulary");
  CHECK(Refusal(
            with("\"byte_fallback\": true", "\"byte_fallback\": true, \"ignore_merges\": true")) ==
        "tokenizer.json.model.ignore_merges true with byte_fallback is not supported");
  CHECK(Refusal(with("\"Prepend\"", "\"NFKC\"")) ==
        "tokenizer.json.normalizer.normalizers[0] type 'NFKC' is not supported");
}

TEST_CASE("ids that cannot be are refused with their value", "[text]") {
  CHECK(Refusal(With("\"ab\": 3", "\"ab\": -1")) ==
        "tokenizer.json.model.vocab['ab']: '-1' is not an id in [0, 2097152)");
  CHECK_THAT(Refusal(With("\"ab\": 3", "\"ab\": 99999999999999999999")),
             Catch::Contains("is not an id"));
  CHECK_THAT(Refusal(With("\"ab\": 3", "\"ab\": 4000000000")),
             Catch::Contains("'4000000000' is not an id"));
  CHECK_THAT(Refusal(With("\"ab\": 3", "\"ab\": \"3\"")), Catch::Contains("is not an id"));
  CHECK_THAT(Refusal(With("\"ab\": 3", "\"ab\": 1.5")), Catch::Contains("is not an id"));
  CHECK_THAT(Refusal(With("\"ab\": 3", "\"ab\": 1")), Catch::Contains("have the same id 1"));
  CHECK(Refusal(With(R"("id": 4, "content")", R"("id": 0, "content")")) ==
        "tokenizer.json.added_tokens[0]: '<s>' has the id 0 of the piece 'a'");
  CHECK_THAT(Refusal(With(R"("id": 4, )", "")), Catch::Contains("added_tokens[0].id is missing"));
  CHECK_THAT(Refusal(With(R"("ids": [4])", R"("ids": [-4])")),
             Catch::Contains("'-4' is not an id"));
  CHECK_THAT(Refusal(With(R"({"ids": [4]})", "{}")), Catch::Contains("ids is missing"));
  CHECK_THAT(Refusal(With(R"("<s>": {"ids": [4]}, )", "")),
             Catch::Contains("special_tokens lacks '<s>'"));
}

TEST_CASE("members of the wrong type or missing are refused by path", "[text]") {
  CHECK(Refusal("[]") == "tokenizer.json is not an object");
  CHECK(Refusal(With("\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 3}, ", "")) ==
        "tokenizer.json.model.vocab is missing");
  CHECK(Refusal(With(", \"merges\": [\"a b\"]", "")) == "tokenizer.json.model.merges is missing");
  CHECK(Refusal(With("\"a b\"", "\"ab\"")) ==
        "tokenizer.json.model.merges[0] is not a pair of pieces");
  CHECK(Refusal(With("\"a b\"", "\"a b c\"")) ==
        "tokenizer.json.model.merges[0] is not a pair of pieces");
  CHECK(Refusal(With("\"a b\"", "[\"a\"]")) ==
        "tokenizer.json.model.merges[0] is not a pair of pieces");
  CHECK(Refusal(With("\"a b\"", "7")) == "tokenizer.json.model.merges[0] is not a pair of pieces");
  CHECK(Refusal(With("\"special\": true", "\"special\": 1")) ==
        "tokenizer.json.added_tokens[0].special is not true or false");
  CHECK(Refusal(With("\"single\": [", "\"single\": [7, ")) ==
        "tokenizer.json.post_processor.single[0] is not an object");
  CHECK(Refusal(With(R"({"Sequence": {"id": "A"}}, )", "")) ==
        "tokenizer.json.post_processor.single lacks the text");
  CHECK(Refusal(With("{\"a\": 0", "{\"\": 2, \"a\": 0")) ==
        "tokenizer.json.model.vocab has an empty piece");
}

TEST_CASE("what a template puts around a text is bounded", "[text]") {
  const auto with_ids = [](int num_ids) {
    std::string ids = "4";
    for (int i = 1; i < num_ids; ++i) ids += ",4";
    return With("\"ids\": [4]", "\"ids\": [" + ids + "]");
  };
  const auto source = ParseTokenizerJson(with_ids(63), "");
  REQUIRE(source.ok());
  CHECK(source->prefix_ids.size() + source->suffix_ids.size() == 64);
  CHECK(Refusal(with_ids(64)) ==
        "tokenizer.json.post_processor.single[2]: the template puts 65 ids around a text, "
        "more than 64");
}

TEST_CASE("an added token has at most 256 bytes", "[text]") {
  const auto status = [](size_t num_bytes) {
    TokenizerSource source;
    source.added_tokens.resize(1);
    source.added_tokens[0].id = 0;
    source.added_tokens[0].content = std::string(num_bytes, 'a');
    return TokenTable::Create({}, source.added_tokens).status();
  };
  CHECK(status(256).ok());
  CHECK_THAT(std::string(status(257).message()), Catch::Contains("has 257 bytes, more than 256"));
}

TEST_CASE("decoder replacements are bounded", "[text]") {
  const auto with_replacements = [](int num_replacements) {
    std::string decoders;
    for (int i = 0; i < num_replacements; ++i) {
      decoders += R"({"type": "Replace", "pattern": {"String": "_"}, "content": " "},)";
    }
    return R"({"decoder": {"type": "Sequence", "decoders": [)" + decoders +
           R"({"type": "ByteFallback"}, {"type": "Fuse"}]},
             "model": {"type": "BPE", "byte_fallback": true, "vocab": {"a": 0}, "merges": []}})";
  };
  CHECK(ParseTokenizerJson(with_replacements(16), "").ok());
  CHECK(Refusal(with_replacements(17)) ==
        "tokenizer.json.decoder.decoders[16]: more than 16 Replace decoders are not supported");
}

TEST_CASE("a whole config replaces tokens by id and adds the others", "[text]") {
  TokenizerSource source;
  source.pieces = {"a"};
  source.added_tokens.resize(2);
  source.added_tokens[0].content = "<s>";
  source.added_tokens[0].id = 1;
  source.added_tokens[1].content = "<t>";
  source.added_tokens[1].id = 2;
  const auto config = ParseTokenizerConfig(R"({"added_tokens_decoder": {
      "3": {"content": "<u>"}, "2": {"content": "<w>", "special": true}}})");
  REQUIRE(config.ok());
  REQUIRE(ApplyWholeConfig(*config, &source).ok());
  std::vector<std::pair<int32_t, std::string>> tokens;
  for (const AddedToken& token : source.added_tokens) tokens.emplace_back(token.id, token.content);
  CHECK(tokens == std::vector<std::pair<int32_t, std::string>>{{1, "<s>"}, {2, "<w>"}, {3, "<u>"}});
}

TEST_CASE("every truncation of a file is refused", "[text]") {
  const std::string json = kSmall;
  for (size_t size = 0; size < json.size(); ++size) {
    CAPTURE(size);
    CHECK_THAT(Refusal(json.substr(0, size)), Catch::StartsWith("tokenizer.json is not JSON"));
  }
}

TEST_CASE("depth and encoding are bounded", "[text]") {
  CHECK_THAT(Refusal(std::string(1'000'000, '[')), Catch::StartsWith("tokenizer.json is not JSON"));
  std::string nested = R"({"type": "ByteLevel"})";
  for (int i = 0; i < 100; ++i) nested = R"({"type": "Sequence", "decoders": [)" + nested + "]}";
  CHECK_THAT(Refusal(With(R"("decoder": {"type": "ByteLevel"})", "\"decoder\": " + nested)),
             Catch::StartsWith("tokenizer.json is not JSON"));
  CHECK_THAT(Refusal(With("\"ab\"", "\"\xFF\"")), Catch::StartsWith("tokenizer.json is not JSON"));
}

TEST_CASE("tokenizer_config.json names begin and end tokens", "[text]") {
  const std::string no_template = With("TemplateProcessing", "ByteLevel");
  const auto plain =
      ParseTokenizerJson(no_template, R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  REQUIRE(plain.ok());
  CHECK(plain->bos_id == 4);
  CHECK(plain->eos_ids == std::vector<int32_t>{5});
  CHECK(plain->prefix_ids.empty());
  const auto added = ParseTokenizerJson(
      no_template,
      R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})");
  REQUIRE(added.ok());
  CHECK(added->prefix_ids == std::vector<int32_t>{4});
  CHECK(added->suffix_ids == std::vector<int32_t>{5});
  const auto once = ParseTokenizerJson(kSmall, R"({"bos_token": "<s>", "add_bos_token": true})");
  REQUIRE(once.ok());
  CHECK(once->prefix_ids == std::vector<int32_t>{4});
  CHECK(Refusal(kSmall, R"({"bos_token": "<x>"})") ==
        "tokenizer_config.json: bos_token '<x>' is not in the vocabulary");
  CHECK(Refusal(kSmall, "{") == "tokenizer_config.json is not JSON: incomplete JSON");
  CHECK(Refusal(kSmall, R"({"add_bos_token": "yes"})") ==
        "tokenizer_config.json.add_bos_token is not true or false");
}

TEST_CASE("a chat template is a string or the one named default", "[text]") {
  CHECK(ParseTokenizerConfig("")->chat_template == "");
  CHECK(ParseTokenizerConfig(R"({"bos_token": null, "chat_template": null})")->chat_template == "");
  CHECK(ParseTokenizerConfig(R"({"chat_template": "x"})")->chat_template == "x");
  const auto config = ParseTokenizerConfig(
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "eos_token": "e"})");
  REQUIRE(config.ok());
  CHECK(config->chat_template == "d");
  CHECK(config->eos_token == "e");
  CHECK(ParseTokenizerConfig(R"({"chat_template": 7})").status().message() ==
        "tokenizer_config.json.chat_template is not a list");
}

TEST_CASE("the tiny models' tokenizer is understood", "[text][golden]") {
  const auto shared = testing::SharedTestdata();
  if (!shared.has_value()) {
    testing::SkipCase("the shared goldens are not here");
    return;
  }
  const auto tokenizer = testing::LoadTokenizer(*shared / "models" / "llama31");
  CHECK(tokenizer->vocab_size() == 512);
  const auto ids = tokenizer->Encode("<|turn|>user\nhello 123<|end|>", {});
  REQUIRE(ids.ok());
  CHECK(ids->front() == 0);
  CHECK((*ids)[1] == 2);
  CHECK(ids->back() == 1);
  CHECK(DecodeAll(*tokenizer, *ids, /*skip_special_tokens=*/true) == "user\nhello 123");
}

}  // namespace fastgen
