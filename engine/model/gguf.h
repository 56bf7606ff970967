// GgufFile: a GGUF v2 or v3 file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md),
// little-endian, one file: its metadata by key and its tensors as views into the mapping.
//
// The bytes are not trusted. Every count, length and offset is checked against what is left of the
// file before it is used, so that parsing takes time and memory in proportion to the file; names
// are unique, tensors are aligned, inside the file and do not overlap. Arrays of arrays, split
// files, big-endian files and tensor types without a kernel are refused by name. Metadata values
// stay in the mapping and are decoded when asked for.
// Thread rule: immutable after Open, any thread.
// Tested by tests/engine/model/gguf_test.cc and tests/fuzz/gguf_fuzzer.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/mapped_file.h"
#include "engine/model/stored_tensor.h"

namespace fastgen {

class GgufFile {
 public:
  // Maps and parses. INVALID_ARGUMENT or UNIMPLEMENTED: "<path>: <what is wrong>".
  static absl::StatusOr<GgufFile> Open(const std::string& path);
  // As Open, over bytes that must outlive the object; `name` opens the messages.
  static absl::StatusOr<GgufFile> Parse(absl::Span<const char> bytes, std::string_view name);

  // A key's value; nullopt when the key is absent or its value has another type (see Has). The
  // views point into the mapping. Strings are bytes: valid UTF-8 is not checked.
  std::optional<std::string_view> FindString(std::string_view key) const;
  std::optional<int64_t> FindInt(
      std::string_view key) const;  // any integer type; not above the int64 range
  std::optional<double> FindFloat(std::string_view key) const;  // f32, f64 or an integer
  std::optional<bool> FindBool(std::string_view key) const;
  std::optional<std::vector<std::string_view>> FindStringArray(std::string_view key) const;
  std::optional<std::vector<int64_t>> FindIntArray(
      std::string_view key) const;  // also an array of bool
  std::optional<std::vector<double>> FindFloatArray(std::string_view key) const;

  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  // "u32", "string", "array of f32" ...; "absent" when there is no such key.
  std::string TypeName(std::string_view key) const;
  // All keys, in the order of the file.
  const std::vector<std::string>& keys() const { return keys_; }

  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Everything before the tensors' data.
  absl::Span<const char> header() const { return header_; }

 private:
  enum class Type : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64,
  };
  // One metadata value: where it lies. A scalar has count 1.
  struct Value {
    Type type = Type::kU8;  // the elements' type when is_array
    bool is_array = false;
    uint64_t count = 0;
    absl::Span<const char> bytes;
  };
  class Parser;

  const Value* Find(std::string_view key) const;
  static int ScalarBytes(Type type);  // 0 for strings and arrays
  static std::string_view NameOf(Type type);
  static bool IsInteger(Type type);
  static std::optional<int64_t> IntAt(const Value& value, uint64_t index);
  static std::optional<double> FloatAt(const Value& value, uint64_t index);

  MappedFile file_;
  std::vector<std::string> keys_;
  absl::flat_hash_map<std::string, Value> metadata_;
  std::vector<StoredTensor> tensors_;
  absl::Span<const char> header_;
};

}  // namespace fastgen
