// Writers of weight files for tests: GGUF and safetensors, byte by byte, so that a test can also
// write what no honest tool would.
// Thread rule: values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/dtype.h"

namespace fastgen::testing {

struct FileTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // outermost first
  std::string bytes;
};

// A whole safetensors file. Tensors lie in the order given.
std::string SafetensorsBytes(const std::vector<FileTensor>& tensors);
// A safetensors file with any header and data.
std::string SafetensorsBytes(std::string_view header_json, std::string_view data);

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; written as a key when it is not 32

  void String(std::string_view key, std::string_view value);
  void U32(std::string_view key, uint32_t value);
  void F32(std::string_view key, float value);
  void Bool(std::string_view key, bool value);
  void StringArray(std::string_view key, const std::vector<std::string>& values);
  void I32Array(std::string_view key, const std::vector<int32_t>& values);
  void F32Array(std::string_view key, const std::vector<float>& values);
  // A value of any type number, its bytes as they stand.
  void Raw(std::string_view key, uint32_t type, std::string_view bytes);
  void Tensor(FileTensor tensor);
  // A tensor entry with a type number and an offset that need not make sense.
  void RawTensor(std::string_view name, const std::vector<uint64_t>& dims_innermost_first,
                 uint32_t type, uint64_t offset);

  std::string Bytes() const;

 private:
  uint64_t num_keys_ = 0;
  uint64_t num_tensors_ = 0;
  std::string metadata_;
  std::string tensor_infos_;
  std::string data_;
};

// The bytes of a little-endian value.
template <typename T>
std::string LittleEndian(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

void WriteFile(const std::filesystem::path& path, std::string_view bytes);

}  // namespace fastgen::testing
