#include "hub/hub_listing.h"

#include <string>

#undef CHECK
#include <catch2/catch.hpp>

#include "absl/strings/match.h"

namespace fastgen {
namespace {

using Names = std::vector<std::string>;

const char kHead[] = R"({"sha":"0123456789abcdef0123456789abcdef01234567","siblings":)";

TEST_CASE("a listing tells commit, sizes and checksums", "[hub]") {
  const std::string sha256(64, 'a');
  const auto listing = ParseHubListing(
      std::string(kHead) +
      R"([{"rfilename":"config.json","size":7,"blobId":"x"},{"rfilename":"a/m.gguf","size":1,"lfs":{"sha256":")" +
      sha256 + R"(","size":99}},{"rfilename":"x"}]})");
  REQUIRE(listing.ok());
  CHECK(listing->commit == "0123456789abcdef0123456789abcdef01234567");
  REQUIRE(listing->files.size() == 3);
  CHECK((listing->files[0].name == "config.json" && listing->files[0].size_bytes == 7));
  CHECK((listing->files[1].size_bytes == 99 && listing->files[1].sha256 == sha256));
  CHECK((listing->files[2].size_bytes == -1 && listing->files[2].sha256.empty()));
}

TEST_CASE("a listing with hostile names or of another form is refused", "[hub]") {
  const std::string deep = std::string(kHead) + std::string(100'000, '[');
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("<html>"),
        std::string(R"({"sha":"../../x","siblings":[]})"), std::string(R"({"siblings":[]})"),
        kHead + std::string("{}}"), kHead + std::string("[1]}"),
        kHead + std::string(R"([{"rfilename":"../../.bashrc"}]})"),
        kHead + std::string(R"([{"rfilename":"/etc/passwd"}]})"),
        kHead + std::string(R"([{"rfilename":"a\u0000b"}]})"),
        kHead + std::string(R"([{"rfilename":"a\\b"}]})"),
        kHead + std::string(R"([{"rfilename":7}]})"), deep}) {
    INFO(text.substr(0, 100));
    CHECK(ParseHubListing(text).status().code() == absl::StatusCode::kDataLoss);
  }
}

TEST_CASE("a shard index names its files once and no other place", "[hub]") {
  CHECK(*ParseShardIndex(R"({"weight_map":{"a":"m-2","b":"m-1","c":"m-2"}})") ==
        Names{"m-1", "m-2"});
  CHECK_FALSE(ParseShardIndex(R"({"weight_map":{"a":"../m"}})").ok());
  CHECK_FALSE(ParseShardIndex(R"({})").ok());
}

TEST_CASE("of a repository one copy of the weights is chosen and no pickles", "[hub]") {
  const Names text = {"config.json",           "generation_config.json", "tokenizer.json",
                      "tokenizer_config.json", "tokenizer.model.v3",     "chat_template.jinja"};
  Names all = text;
  for (const char* other :
       {"README.md", "pytorch_model.bin", "original/consolidated.00.pth", "original/params.json",
        "consolidated.safetensors", "onnx/model.onnx", "model.fp16.safetensors", "m.gguf"}) {
    all.push_back(other);
  }
  const auto chosen_with = [&](const Names& weights) {
    Names names = all;
    names.insert(names.end(), weights.begin(), weights.end());
    Names chosen = *ChooseFiles("org/model", "", names);
    CHECK(Names(chosen.begin(), chosen.begin() + text.size()) == text);
    return Names(chosen.begin() + text.size(), chosen.end());
  };
  const std::string index = "model.safetensors.index.json",
                    one = "model-00001-of-00002.safetensors",
                    two = "model-00002-of-00002.safetensors";
  CHECK(chosen_with({one, two, index}) == Names{index, one, two});
  CHECK(chosen_with({one, two, index, "model.safetensors"}) == Names{"model.safetensors"});
  CHECK(chosen_with({}) == Names{"model.fp16.safetensors"});
  CHECK(*ChooseFiles("o/m", "", {"config.json", "consolidated.safetensors"}) ==
        Names{"config.json", "consolidated.safetensors"});
  CHECK(ChooseFiles("o/m", "", {"model.safetensors"}).status().code() ==
        absl::StatusCode::kNotFound);
}

TEST_CASE("of GGUF files the only one is chosen, else they are listed", "[hub]") {
  CHECK(*ChooseFiles("o/m", "", {"README.md", "a.gguf"}) == Names{"a.gguf"});
  CHECK(*ChooseFiles("o/m", "b.gguf", {"a.gguf", "b.gguf"}) == Names{"b.gguf"});
  const absl::Status several = ChooseFiles("o/m", "", {"a.gguf", "b.gguf"}).status();
  CHECK(several.code() == absl::StatusCode::kInvalidArgument);
  CHECK(absl::StrContains(several.message(), "a.gguf, b.gguf"));
  const absl::Status absent = ChooseFiles("o/m", "c.gguf", {"a.gguf", "b.gguf"}).status();
  CHECK(absent.code() == absl::StatusCode::kNotFound);
  CHECK(absl::StrContains(absent.message(), "a.gguf, b.gguf"));
  for (const char* file : {"", "a-00001-of-00002.gguf"}) {
    const absl::Status split =
        ChooseFiles("o/m", file, {"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"}).status();
    CHECK(split.code() == absl::StatusCode::kInvalidArgument);
    CHECK(absl::StrContains(split.message(), "a-00001-of-00002.gguf is one piece of a split GGUF"));
  }
  CHECK(ChooseFiles("o/m", "", {"README.md"}).status().code() == absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace fastgen
