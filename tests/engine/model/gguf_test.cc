// GgufFile on honest files, and on every kind of dishonest one that the format allows to write.
#include "engine/model/gguf.h"

#include <catch2/catch.hpp>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::FileTensor;
using ::fastgen::testing::GgufWriter;
using ::fastgen::testing::LittleEndian;
using ::fastgen::testing::TinyModel;

absl::StatusOr<GgufFile> Parse(const std::string& bytes) {
  return GgufFile::Parse(absl::MakeConstSpan(bytes.data(), bytes.size()), "x.gguf");
}

// The message of a refusal, "" when the file was accepted.
std::string Refusal(const std::string& bytes) {
  const absl::StatusOr<GgufFile> file = Parse(bytes);
  return file.ok() ? "" : std::string(file.status().message());
}

GgufWriter SmallFile() {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  writer.Tensor({"a", DType::kF32, {2, 3}, std::string(24, 'a')});
  writer.Tensor({"b", DType::kQ8_0, {1, 32}, std::string(34, 'b')});
  return writer;
}

TEST_CASE("GGUF metadata is found by key and type", "[model][gguf]") {
  GgufWriter writer;
  writer.String("s", "text");
  writer.U32("u", 7);
  writer.F32("f", 0.5f);
  writer.Bool("t", true);
  writer.StringArray("strings", {"", "one", "two"});
  writer.I32Array("ints", {-1, 2});
  writer.F32Array("floats", {0.25f});
  writer.Raw("i8", 1, LittleEndian(int8_t{-3}));
  writer.Raw("u64", 10, LittleEndian(std::numeric_limits<uint64_t>::max()));
  const std::string bytes = writer.Bytes();
  const absl::StatusOr<GgufFile> file = Parse(bytes);
  REQUIRE(file.ok());
  CHECK(file->FindString("s") == "text");
  CHECK(file->FindInt("u") == 7);
  CHECK(file->FindFloat("u") == 7.0);
  CHECK(file->FindFloat("f") == 0.5);
  CHECK(file->FindBool("t") == true);
  CHECK(file->FindInt("i8") == -3);
  CHECK(file->FindStringArray("strings") == std::vector<std::string_view>{"", "one", "two"});
  CHECK(file->FindIntArray("ints") == std::vector<int64_t>{-1, 2});
  CHECK(file->FindFloatArray("floats") == std::vector<double>{0.25});
  CHECK(file->TypeName("strings") == "array of string");
  CHECK(file->TypeName("none") == "absent");
  // Another type is not the value.
  CHECK_FALSE(file->FindInt("s").has_value());
  CHECK_FALSE(file->FindInt("f").has_value());
  CHECK_FALSE(file->FindInt("t").has_value());
  CHECK_FALSE(file->FindString("strings").has_value());
  CHECK_FALSE(file->FindIntArray("u").has_value());
  CHECK_FALSE(file->FindStringArray("ints").has_value());
  CHECK_FALSE(file->FindFloatArray("strings").has_value());
  CHECK_FALSE(file->FindInt("u64").has_value());
  CHECK_FALSE(file->FindString("none").has_value());
}

TEST_CASE("GGUF tensors have the outermost dimension first and their own bytes", "[model][gguf]") {
  for (const uint32_t version : {2u, 3u}) {
    for (const uint64_t alignment : {32u, 64u, 8u}) {
      GgufWriter writer;
      writer.version = version;
      writer.alignment = alignment;
      writer.Tensor({"a", DType::kF32, {2, 3}, std::string(24, 'a')});
      writer.Tensor({"b", DType::kQ8_0, {4, 32}, std::string(136, 'b')});
      const std::string bytes = writer.Bytes();
      const absl::StatusOr<GgufFile> file = Parse(bytes);
      REQUIRE(file.ok());
      REQUIRE(file->tensors().size() == 2);
      CHECK(file->tensors()[0].shape == std::vector<int64_t>{2, 3});
      const StoredTensor& b = file->tensors()[1];
      CHECK(b.dtype == DType::kQ8_0);
      CHECK(std::string(b.data, static_cast<size_t>(b.bytes)) == std::string(136, 'b'));
    }
  }
}

TEST_CASE("GGUF tensors of every type that a model may have are taken, and have its bytes",
          "[model][gguf]") {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                      DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,
                      DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS}) {
    INFO(Info(dtype).name);
    GgufWriter writer;
    const std::string stored(static_cast<size_t>(BytesOf(dtype, 512)), 'w');
    writer.Tensor({"w", dtype, {2, 256}, stored});
    const std::string bytes = writer.Bytes();
    const absl::StatusOr<GgufFile> file = Parse(bytes);
    REQUIRE(file.ok());
    const StoredTensor& tensor = file->tensors().at(0);
    CHECK(tensor.dtype == dtype);
    CHECK(std::string(tensor.data, static_cast<size_t>(tensor.bytes)) == stored);
  }
}

TEST_CASE("GGUF file cut at any byte is refused", "[model][gguf]") {
  const std::string bytes = SmallFile().Bytes();
  REQUIRE(Refusal(bytes).empty());
  for (size_t length = 0; length < bytes.size(); ++length) {
    INFO("cut to " << length);
    // A copy of exactly that length, so that a sanitizer sees a read past the end.
    const std::string cut(bytes.data(), length);
    CHECK_FALSE(Refusal(cut).empty());
  }
}

TEST_CASE("GGUF file with any byte changed is accepted or refused, never a crash",
          "[model][gguf]") {
  const std::string bytes = SmallFile().Bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int change : {1, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      const absl::StatusOr<GgufFile> file = Parse(changed);
      if (!file.ok()) continue;
      for (const std::string& key : file->keys()) file->FindString(key);
      for (const StoredTensor& tensor : file->tensors()) {
        CHECK(tensor.data + tensor.bytes <= changed.data() + changed.size());
      }
    }
  }
}

TEST_CASE("GGUF counts that the file cannot hold are refused", "[model][gguf]") {
  const std::string bytes = SmallFile().Bytes();
  const std::string huge = LittleEndian(std::numeric_limits<uint64_t>::max());
  std::string tensors = bytes;
  tensors.replace(8, 8, huge);
  CHECK(absl::StrContains(Refusal(tensors), "18446744073709551615 tensors are claimed"));
  std::string keys = bytes;
  keys.replace(16, 8, huge);
  CHECK(absl::StrContains(Refusal(keys), "18446744073709551615 metadata keys are claimed"));

  for (const uint32_t type : {0u, 4u, 8u, 12u}) {
    GgufWriter writer;
    writer.Raw("k", 9, LittleEndian(type) + huge);
    CHECK(absl::StrContains(Refusal(writer.Bytes()), "metadata key 'k' claims"));
  }
  GgufWriter text;
  text.Raw("k", 8, huge);
  CHECK(
      absl::StrContains(Refusal(text.Bytes()), "metadata key 'k' has 18446744073709551615 bytes"));
}

TEST_CASE("GGUF files that are something else are refused", "[model][gguf]") {
  CHECK(absl::StrContains(Refusal("GGML"), "not a GGUF file"));
  CHECK(absl::StrContains(Refusal(""), "not a GGUF file"));
  GgufWriter version;
  version.version = 1;
  CHECK(absl::StrContains(Refusal(version.Bytes()), "GGUF version 1"));
  GgufWriter big_endian;
  big_endian.version = 0x03000000;
  CHECK(absl::StrContains(Refusal(big_endian.Bytes()), "GGUF version 50331648"));
  GgufWriter split;
  split.Raw("split.count", 2, LittleEndian(uint16_t{3}));
  CHECK(absl::StrContains(Refusal(split.Bytes()),
                          "x.gguf: split.count is 3: split files are not read; merge the parts"));
  GgufWriter whole;  // what tools leave in a file that was merged or never split
  whole.Raw("split.count", 2, LittleEndian(uint16_t{0}));
  CHECK(Refusal(whole.Bytes()).empty());
}

TEST_CASE("GGUF metadata that is malformed is refused by key", "[model][gguf]") {
  GgufWriter nested;
  nested.Raw("k", 9, LittleEndian(uint32_t{9}) + LittleEndian(uint64_t{1}));
  CHECK(absl::StrContains(Refusal(nested.Bytes()), "'k' is an array of arrays"));
  GgufWriter unknown;
  unknown.Raw("k", 13, "");
  CHECK(absl::StrContains(Refusal(unknown.Bytes()), "'k' has the unknown value type 13"));
  GgufWriter twice;
  twice.U32("k", 1);
  twice.U32("k", 1);
  CHECK(absl::StrContains(Refusal(twice.Bytes()), "'k' occurs twice"));
  GgufWriter control;
  control.Raw(std::string("k\n\x01", 3), 99, "");
  CHECK(absl::StrContains(Refusal(control.Bytes()), "'k\\n\\x01'"));
  for (const uint32_t alignment : {0u, 3u, 1u << 30}) {
    GgufWriter writer;
    writer.U32("general.alignment", alignment);
    CHECK(absl::StrContains(Refusal(writer.Bytes()), "general.alignment is"));
  }
  GgufWriter text;
  text.String("general.alignment", "32");
  CHECK(absl::StrContains(Refusal(text.Bytes()), "general.alignment"));
}

TEST_CASE("GGUF tensors that are malformed are refused by name", "[model][gguf]") {
  struct Case {
    std::vector<uint64_t> dims;
    uint32_t type;
    uint64_t offset;
    std::string message;
  };
  const uint64_t max = std::numeric_limits<uint64_t>::max();
  const Case cases[] = {
      {{}, 0, 0, "has 0 dimensions"},
      {{1, 1, 1, 1, 1}, 0, 0, "has 5 dimensions"},
      {{0}, 0, 0, "has dimension 0"},
      {{max}, 0, 0, "has dimension 18446744073709551615"},
      {{uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0, "has dimension 1099511627776 at index 1"},
      {{4}, 0, 1, "is not a multiple of 32"},
      {{4}, 0, max - 31, "reaches past the end"},
      {{uint64_t{1} << 40}, 0, 0, "reaches past the end"},
      {{33}, 8, 0, "not a multiple of 32"},
      {{128}, 14, 0, "not a multiple of 256"},
      {{128}, 12, 0, "of type Q4_K has rows of 128 elements, which is not a multiple of 256"},
      {{16}, 20, 0, "of type IQ4_NL has rows of 16 elements, which is not a multiple of 32"},
      {{256}, 16, 0, "has type IQ2_XXS, which is not supported (F32, F16, Q4_0, Q4_1, Q5_0, "},
      {{256}, 15, 0, "has type Q8_K, which is not supported"},
      {{32}, 4, 0, "unknown type number 4"},
      {{32}, 1000, 0, "unknown type number 1000"},
  };
  for (const Case& c : cases) {
    GgufWriter writer;
    writer.RawTensor("bad.weight", c.dims, c.type, c.offset);
    INFO(c.message);
    const std::string refusal = Refusal(writer.Bytes());
    CHECK(absl::StrContains(refusal, "x.gguf: tensor 'bad.weight'"));
    CHECK(absl::StrContains(refusal, c.message));
  }
}

TEST_CASE("GGUF offset that wraps around is refused", "[model][gguf]") {
  GgufWriter writer;
  writer.Tensor({"a", DType::kF32, {64}, std::string(256, 'a')});
  // Offset plus 64 bytes is 32 modulo 2^64, which would be inside the data.
  writer.RawTensor("b", {16}, 0, std::numeric_limits<uint64_t>::max() - 31);
  CHECK(absl::StrContains(Refusal(writer.Bytes()), "tensor 'b' of 64 bytes at offset"));
}

TEST_CASE("GGUF tensors that overlap or share a name are refused", "[model][gguf]") {
  GgufWriter overlap;
  overlap.Tensor({"a", DType::kF32, {16}, std::string(64, 'a')});
  overlap.RawTensor("b", {8}, 0, 32);
  CHECK(absl::StrContains(Refusal(overlap.Bytes()), "tensors 'a' and 'b' overlap"));
  GgufWriter twice;
  twice.Tensor({"a", DType::kF32, {8}, std::string(32, 'a')});
  twice.Tensor({"a", DType::kF32, {8}, std::string(32, 'a')});
  CHECK(absl::StrContains(Refusal(twice.Bytes()), "tensor 'a' occurs twice"));
}

TEST_CASE("GGUF path that cannot be read is named", "[model][gguf]") {
  const testing::TemporaryDirectory directory;
  const std::string missing = directory.path() / "none.gguf";
  CHECK(GgufFile::Open(missing).status().code() == absl::StatusCode::kNotFound);
  CHECK(absl::StrContains(GgufFile::Open(missing).status().message(), missing));
  const std::string empty = directory.path() / "empty.gguf";
  testing::WriteFile(empty, "");
  CHECK(absl::StrContains(GgufFile::Open(empty).status().message(), "empty"));
  CHECK_FALSE(GgufFile::Open(directory.path()).ok());
}

}  // namespace
}  // namespace fastgen
