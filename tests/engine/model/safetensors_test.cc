// SafetensorsFile and SafetensorsSet on honest and dishonest files.
#include "engine/model/safetensors.h"

#include <catch2/catch.hpp>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::LittleEndian;
using ::fastgen::testing::SafetensorsBytes;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TinyModel;
using ::fastgen::testing::WriteFile;

absl::StatusOr<SafetensorsFile> Parse(const std::string& bytes) {
  return SafetensorsFile::Parse(absl::MakeConstSpan(bytes.data(), bytes.size()), "x.safetensors");
}

std::string Refusal(const std::string& bytes) {
  const absl::StatusOr<SafetensorsFile> file = Parse(bytes);
  return file.ok() ? "" : std::string(file.status().message());
}

std::string SmallFile() {
  return SafetensorsBytes({{"a", DType::kF32, {2, 3}, std::string(24, 'a')},
                           {"b", DType::kBF16, {4}, std::string(8, 'b')},
                           {"c", DType::kF16, {}, std::string(2, 'c')}});
}

TEST_CASE("safetensors tensors have their shape and bytes", "[model][safetensors]") {
  const std::string bytes = SmallFile();
  const absl::StatusOr<SafetensorsFile> file = Parse(bytes);
  REQUIRE(file.ok());
  REQUIRE(file->tensors().size() == 3);
  const StoredTensor& b = file->tensors()[1];
  CHECK(b.name == "b");
  CHECK(b.dtype == DType::kBF16);
  CHECK(b.shape == std::vector<int64_t>{4});
  CHECK(std::string(b.data, static_cast<size_t>(b.bytes)) == "bbbbbbbb");
}

TEST_CASE("safetensors metadata is no tensor", "[model][safetensors]") {
  const std::string bytes = SafetensorsBytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      "aaaa");
  REQUIRE(Parse(bytes).ok());
  CHECK(Parse(bytes)->tensors().size() == 1);
}

TEST_CASE("safetensors file cut at any byte is refused", "[model][safetensors]") {
  const std::string bytes = SmallFile();
  REQUIRE(Refusal(bytes).empty());
  for (size_t length = 0; length < bytes.size(); ++length) {
    INFO("cut to " << length);
    const std::string cut(bytes.data(), length);
    CHECK_FALSE(Refusal(cut).empty());
  }
  CHECK(absl::StrContains(Refusal(bytes + "more"), "no tensor covers byte 34"));
}

TEST_CASE("safetensors file with any byte changed is accepted or refused, never a crash",
          "[model][safetensors]") {
  const std::string bytes = SmallFile();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int change : {1, 2, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      const absl::StatusOr<SafetensorsFile> file = Parse(changed);
      if (!file.ok()) continue;
      for (const StoredTensor& tensor : file->tensors()) {
        CHECK(tensor.data + tensor.bytes <= changed.data() + changed.size());
      }
    }
  }
}

TEST_CASE("safetensors headers that lie are refused with what is wrong", "[model][safetensors]") {
  struct Case {
    std::string header;
    std::string data;
    std::string message;
  };
  const std::string nested(100, '[');
  const Case cases[] = {
      {"[]", "", "the header is no object"},
      {"{", "", "not valid JSON"},
      {absl::StrCat("{\"a\":", nested), "", "not valid JSON"},
      {R"({"a":1})", "", "tensor 'a' lacks a dtype"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", "aaaa", "tensor 'a' lacks a dtype"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "aaaa", "tensor 'a' lacks"},
      {R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}})", "aaaa",
       "tensor 'a' has dtype 'I8', which is not supported"},
      {R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", "aaaa",
       "tensor 'a' has dtype 'F8_E4M3', which is not supported (F32, F16, BF16 are)"},
      {R"({"a":{"dtype":"F32","shape":[1e3],"data_offsets":[0,4]}})", "aaaa", "has shape [1E3]"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", "aaaa",
       "tensor 'a' has shape [9223372036854775808]"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775807]}})", "aaaa",
       "the file has 4 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
       "aaaabbbbcccc", "no tensor covers byte 4 of the 12 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "aaaa", "has shape [-1]"},
      {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "aaaa", "has shape"},
      {R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", "", "has shape [0]"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "aaaa",
       "has shape"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "aaaa",
       "has 9 dimensions"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "aaaa",
       "tensor 'a' has 4 bytes, its shape [2] needs 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "aaaa", "has data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", "aaaa", "has data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "aaaa",
       "data_offsets [4,8], the file has 4 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "aaaaaaaa",
       "no tensor covers byte 0"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       "aaaaaaaaaaaa", "tensors 'a' and 'b' overlap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "aaaaaaaa", "no tensor covers byte 0"},
  };
  for (const Case& c : cases) {
    INFO(c.header);
    const std::string refusal = Refusal(SafetensorsBytes(c.header, c.data));
    CHECK(absl::StartsWith(refusal, "x.safetensors: "));
    CHECK(absl::StrContains(refusal, c.message));
  }
  CHECK(absl::StrContains(Refusal(LittleEndian(uint64_t{1} << 62) + "{}"),
                          "the header claims 4611686018427387904 bytes"));
}

TEST_CASE("sharded checkpoint is all of its files", "[model][safetensors]") {
  const TemporaryDirectory directory;
  TinyModel().WriteSharded(directory.path(), 3);
  const absl::StatusOr<SafetensorsSet> set = SafetensorsSet::Open(directory.path());
  REQUIRE(set.ok());
  REQUIRE(set->files().size() == 3);
  size_t num_tensors = 0;
  for (const SafetensorsFile& file : set->files()) num_tensors += file.tensors().size();
  CHECK(num_tensors == TinyModel().Tensors().size());
}

std::string SetRefusal(const TemporaryDirectory& directory) {
  const absl::StatusOr<SafetensorsSet> set = SafetensorsSet::Open(directory.path());
  return set.ok() ? "" : std::string(set.status().message());
}

TEST_CASE("sharded checkpoint whose index and files disagree is refused", "[model][safetensors]") {
  const TemporaryDirectory directory;
  const auto index = directory.path() / "model.safetensors.index.json";
  CHECK(absl::StrContains(SetRefusal(directory), "has neither model.safetensors nor"));
  WriteFile(directory.path() / "one.safetensors", SmallFile());
  WriteFile(directory.path() / "two.safetensors",
            SafetensorsBytes({{"d", DType::kF32, {1}, "dddd"}}));

  WriteFile(index, R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  CHECK(absl::StrContains(SetRefusal(directory), "one.safetensors: holds tensor 'c'"));
  WriteFile(index, R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors",)"
                   R"("c":"one.safetensors","d":"one.safetensors"}})");
  CHECK(absl::StrContains(SetRefusal(directory), "one.safetensors: lacks tensor 'd'"));
  WriteFile(index, R"({"weight_map":{"a":"none.safetensors"}})");
  CHECK(absl::StrContains(SetRefusal(directory), "none.safetensors: cannot open"));
  for (const char* name : {"../one.safetensors", "/etc/passwd", "", "..", "a\\u0000b"}) {
    WriteFile(index, absl::StrCat(R"({"weight_map":{"a":")", name, R"("}})"));
    CHECK(absl::StrContains(SetRefusal(directory), "the index gives tensor 'a' the file"));
  }
  // A name given twice: the last place counts, and the file that the first named holds it unasked.
  WriteFile(index, R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors",)"
                   R"("c":"one.safetensors","d":"two.safetensors","a":"one.safetensors",)"
                   R"("d":"one.safetensors"}})");
  CHECK(absl::StrContains(SetRefusal(directory), "one.safetensors: lacks tensor 'd'"));
  WriteFile(directory.path() / "cut.safetensors", SmallFile().substr(0, SmallFile().size() - 1));
  WriteFile(index, R"({"weight_map":{"a":"cut.safetensors"}})");
  CHECK(absl::StrContains(SetRefusal(directory), "cut.safetensors: tensor "));
  WriteFile(index, R"({"weight_map":{"a":1}})");
  CHECK(absl::StrContains(SetRefusal(directory), "the index gives tensor 'a' the file 1"));
  WriteFile(index, R"({})");
  CHECK(absl::StrContains(SetRefusal(directory), "the index has no weight_map"));
  WriteFile(index, "{");
  CHECK(absl::StrContains(SetRefusal(directory), "index.json: the index is not valid JSON"));
}

}  // namespace
}  // namespace fastgen
