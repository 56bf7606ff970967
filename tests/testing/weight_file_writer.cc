#include "tests/testing/weight_file_writer.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/strings.h"

namespace fastgen::testing {
namespace {

uint32_t GgufTypeNumber(DType dtype) {
  switch (dtype) {
    case DType::kF32: return 0;
    case DType::kF16: return 1;
    case DType::kQ4_0: return 2;
    case DType::kQ4_1: return 3;
    case DType::kQ5_0: return 6;
    case DType::kQ5_1: return 7;
    case DType::kQ8_0: return 8;
    case DType::kQ2_K: return 10;
    case DType::kQ3_K: return 11;
    case DType::kQ4_K: return 12;
    case DType::kQ5_K: return 13;
    case DType::kQ6_K: return 14;
    case DType::kIQ4_NL: return 20;
    case DType::kIQ4_XS: return 23;
    case DType::kI32: return 26;
    case DType::kI64: return 27;
    case DType::kBF16: return 30;
  }
  return 0;
}

std::string Text(std::string_view text) {
  return absl::StrCat(LittleEndian(uint64_t{text.size()}), ToAbsl(text));
}

}  // namespace

std::string SafetensorsBytes(const std::vector<FileTensor>& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const FileTensor& tensor : tensors) {
    entries.push_back(absl::StrCat("\"", tensor.name, "\":{\"dtype\":\"",
                                   ToAbsl(Info(tensor.dtype).name), "\",\"shape\":[",
                                   absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                                   data.size(), ",", data.size() + tensor.bytes.size(), "]}"));
    data += tensor.bytes;
  }
  return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries, ","), "}"), data);
}

std::string SafetensorsBytes(std::string_view header_json, std::string_view data) {
  return absl::StrCat(Text(header_json), ToAbsl(data));
}

void GgufWriter::Raw(std::string_view key, uint32_t type, std::string_view bytes) {
  absl::StrAppend(&metadata_, Text(key), LittleEndian(type), ToAbsl(bytes));
  ++num_keys_;
}

void GgufWriter::String(std::string_view key, std::string_view value) { Raw(key, 8, Text(value)); }
void GgufWriter::U32(std::string_view key, uint32_t value) { Raw(key, 4, LittleEndian(value)); }
void GgufWriter::F32(std::string_view key, float value) { Raw(key, 6, LittleEndian(value)); }
void GgufWriter::Bool(std::string_view key, bool value) {
  Raw(key, 7, std::string(1, value ? '\1' : '\0'));
}

void GgufWriter::StringArray(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = LittleEndian(uint32_t{8}) + LittleEndian(uint64_t{values.size()});
  for (const std::string& value : values) bytes += Text(value);
  Raw(key, 9, bytes);
}

void GgufWriter::I32Array(std::string_view key, const std::vector<int32_t>& values) {
  std::string bytes = LittleEndian(uint32_t{5}) + LittleEndian(uint64_t{values.size()});
  for (int32_t value : values) bytes += LittleEndian(value);
  Raw(key, 9, bytes);
}

void GgufWriter::F32Array(std::string_view key, const std::vector<float>& values) {
  std::string bytes = LittleEndian(uint32_t{6}) + LittleEndian(uint64_t{values.size()});
  for (float value : values) bytes += LittleEndian(value);
  Raw(key, 9, bytes);
}

void GgufWriter::RawTensor(std::string_view name, const std::vector<uint64_t>& dims_innermost_first,
                           uint32_t type, uint64_t offset) {
  absl::StrAppend(&tensor_infos_, Text(name),
                  LittleEndian(static_cast<uint32_t>(dims_innermost_first.size())));
  for (uint64_t dim : dims_innermost_first) tensor_infos_ += LittleEndian(dim);
  absl::StrAppend(&tensor_infos_, LittleEndian(type), LittleEndian(offset));
  ++num_tensors_;
}

void GgufWriter::Tensor(FileTensor tensor) {
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  RawTensor(tensor.name, {tensor.shape.rbegin(), tensor.shape.rend()}, GgufTypeNumber(tensor.dtype),
            data_.size());
  data_ += tensor.bytes;
}

std::string GgufWriter::Bytes() const {
  std::string metadata = metadata_;
  uint64_t num_keys = num_keys_;
  if (alignment != 32) {
    absl::StrAppend(&metadata, Text("general.alignment"), LittleEndian(uint32_t{4}),
                    LittleEndian(static_cast<uint32_t>(alignment)));
    ++num_keys;
  }
  std::string bytes = absl::StrCat("GGUF", LittleEndian(version), LittleEndian(num_tensors_),
                                   LittleEndian(num_keys), metadata, tensor_infos_);
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  return bytes + data_;
}

void WriteFile(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.good()) << path.string();
}

}  // namespace fastgen::testing
