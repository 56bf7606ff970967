#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMaxTensors = 100'000;
constexpr uint64_t kMaxKeys = 100'000;
constexpr uint64_t kMaxNameBytes = 1024;  // of a key or tensor
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;

// Tensor types by their number in the file. Those without a DType are known by name only.
struct TensorType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", DType::kF32},      {1, "F16", DType::kF16},       {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},    {6, "Q5_0", DType::kQ5_0},     {7, "Q5_1", DType::kQ5_1},
    {8, "Q8_0", DType::kQ8_0},    {9, "Q8_1", std::nullopt},     {10, "Q2_K", DType::kQ2_K},
    {11, "Q3_K", DType::kQ3_K},   {12, "Q4_K", DType::kQ4_K},    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},   {15, "Q8_K", std::nullopt},    {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt}, {18, "IQ3_XXS", std::nullopt}, {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", DType::kIQ4_NL}, {21, "IQ3_S", std::nullopt},   {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", DType::kIQ4_XS}, {24, "I8", std::nullopt},      {25, "I16", std::nullopt},
    {26, "I32", std::nullopt},    {27, "I64", std::nullopt},     {28, "F64", std::nullopt},
    {29, "IQ1_M", std::nullopt},  {30, "BF16", DType::kBF16},    {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},  {39, "MXFP4", std::nullopt},
};

// "F32, F16, ...".
std::string SupportedTypes() {
  std::string names;
  for (const TensorType& type : kTensorTypes) {
    if (!type.dtype.has_value()) continue;
    absl::StrAppend(&names, names.empty() ? "" : ", ", ToAbsl(type.name));
  }
  return names;
}

template <typename T>
T Load(const char* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// A name from the file, fit for a message.
std::string Quoted(std::string_view name) {
  return absl::StrCat("'", absl::CHexEscape(ToAbsl(name.substr(0, 200))), "'");
}

}  // namespace

int GgufFile::ScalarBytes(Type type) {
  switch (type) {
    case Type::kU8:
    case Type::kI8:
    case Type::kBool:
      return 1;
    case Type::kU16:
    case Type::kI16:
      return 2;
    case Type::kU32:
    case Type::kI32:
    case Type::kF32:
      return 4;
    case Type::kU64:
    case Type::kI64:
    case Type::kF64:
      return 8;
    case Type::kString:
    case Type::kArray:
      return 0;
  }
  return 0;
}

std::string_view GgufFile::NameOf(Type type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<uint32_t>(type)];
}

bool GgufFile::IsInteger(Type type) {
  return type != Type::kF32 && type != Type::kF64 && type != Type::kBool && type != Type::kString &&
         type != Type::kArray;
}

// Reads forward through the header; every read checks what is left.
class GgufFile::Parser {
 public:
  Parser(absl::Span<const char> bytes, std::string_view name, GgufFile* file)
      : bytes_(bytes), name_(name), file_(file) {}

  absl::Status Run() {
    uint64_t num_tensors = 0;
    uint64_t num_keys = 0;
    RETURN_IF_ERROR(ReadPreamble(&num_tensors, &num_keys));
    for (uint64_t i = 0; i < num_keys; ++i) RETURN_IF_ERROR(ReadKeyValue());
    RETURN_IF_ERROR(CheckMetadata());
    file_->tensors_.reserve(num_tensors);
    for (uint64_t i = 0; i < num_tensors; ++i) RETURN_IF_ERROR(ReadTensorInfo());
    return PlaceTensors();
  }

 private:
  template <typename... Args>
  absl::Status Error(const Args&... args) const {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(name_), ": ", args...));
  }

  uint64_t left() const { return bytes_.size() - position_; }

  template <typename T>
  absl::Status Read(std::string_view what, T* value) {
    if (left() < sizeof(T)) {
      return Error("the file ends at byte ", bytes_.size(), ", within ", ToAbsl(what));
    }
    *value = Load<T>(bytes_.data() + position_);
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  absl::Status ReadString(std::string_view what, uint64_t max_bytes, std::string_view* value) {
    uint64_t length = 0;
    RETURN_IF_ERROR(Read(what, &length));
    if (length > max_bytes) {
      return Error(ToAbsl(what), " has ", length, " bytes, at most ", max_bytes, " are allowed");
    }
    if (length > left()) {
      return Error(ToAbsl(what), " has ", length, " bytes, but only ", left(),
                   " are left in the file");
    }
    *value = std::string_view(bytes_.data() + position_, length);
    position_ += length;
    return absl::OkStatus();
  }

  absl::Status ReadPreamble(uint64_t* num_tensors, uint64_t* num_keys) {
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
      return Error("not a GGUF file: it does not begin with 'GGUF'");
    }
    position_ = 4;
    uint32_t version = 0;
    RETURN_IF_ERROR(Read("the version", &version));
    if (version != 2 && version != 3) {
      return Error("GGUF version ", version, " is not supported (2 and 3 are, little-endian)");
    }
    RETURN_IF_ERROR(Read("the number of tensors", num_tensors));
    RETURN_IF_ERROR(Read("the number of metadata keys", num_keys));
    // A tensor takes at least 24 bytes of header, a key 13: a count beyond that is a lie.
    if (*num_tensors > std::min(kMaxTensors, left() / 24)) {
      return Error(*num_tensors, " tensors are claimed, at most ",
                   std::min(kMaxTensors, left() / 24), " can be in this file");
    }
    if (*num_keys > std::min(kMaxKeys, left() / 13)) {
      return Error(*num_keys, " metadata keys are claimed, at most ",
                   std::min(kMaxKeys, left() / 13), " can be in this file");
    }
    return absl::OkStatus();
  }

  absl::Status ReadType(const std::string& what, Type* type) {
    uint32_t id = 0;
    RETURN_IF_ERROR(Read(what, &id));
    if (id > static_cast<uint32_t>(Type::kF64)) {
      return Error(what, " has the unknown value type ", id);
    }
    *type = static_cast<Type>(id);
    return absl::OkStatus();
  }

  absl::Status ReadKeyValue() {
    std::string_view key;
    RETURN_IF_ERROR(ReadString("a metadata key", kMaxNameBytes, &key));
    const std::string what = absl::StrCat("metadata key ", Quoted(key));
    Value value;
    RETURN_IF_ERROR(ReadType(what, &value.type));
    value.count = 1;
    if (value.type == Type::kArray) {
      value.is_array = true;
      RETURN_IF_ERROR(ReadType(what, &value.type));
      RETURN_IF_ERROR(Read(what, &value.count));
      if (value.type == Type::kArray) return Error(what, " is an array of arrays");
    }
    const uint64_t begin = position_;
    RETURN_IF_ERROR(SkipElements(what, value.type, value.count));
    value.bytes = bytes_.subspan(begin, position_ - begin);
    if (!file_->metadata_.emplace(std::string(key), value).second) {
      return Error(what, " occurs twice");
    }
    file_->keys_.emplace_back(key);
    return absl::OkStatus();
  }

  absl::Status SkipElements(const std::string& what, Type type, uint64_t count) {
    const uint64_t element_bytes = type == Type::kString ? 8 : ScalarBytes(type);
    if (count > left() / element_bytes) {
      return Error(what, " claims ", count, " values of type ", ToAbsl(NameOf(type)), ", but only ",
                   left(), " bytes are left in the file");
    }
    if (type != Type::kString) {
      position_ += count * element_bytes;
      return absl::OkStatus();
    }
    std::string_view ignored;
    for (uint64_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(ReadString(what, std::numeric_limits<uint64_t>::max(), &ignored));
    }
    return absl::OkStatus();
  }

  absl::Status CheckMetadata() {
    if (file_->Has("general.alignment")) {
      const std::optional<int64_t> alignment = file_->FindInt("general.alignment");
      if (!alignment.has_value() || *alignment < 1 ||
          *alignment > static_cast<int64_t>(kMaxAlignment) ||
          !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
        return Error("general.alignment is ", alignment.value_or(-1),
                     ", it must be a power of two up to ", kMaxAlignment);
      }
      alignment_ = static_cast<uint64_t>(*alignment);
    }
    const int64_t num_parts = file_->FindInt("split.count").value_or(1);
    if (num_parts > 1) {
      return absl::UnimplementedError(absl::StrCat(ToAbsl(name_), ": split.count is ", num_parts,
                                                   ": split files are not read; merge the "
                                                   "parts into one file first "
                                                   "(llama-gguf-split --merge)"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadTensorInfo() {
    std::string_view name;
    RETURN_IF_ERROR(ReadString("a tensor name", kMaxNameBytes, &name));
    const std::string what = absl::StrCat("tensor ", Quoted(name));
    StoredTensor tensor;
    tensor.name = std::string(name);
    uint32_t num_dims = 0;
    RETURN_IF_ERROR(Read(what, &num_dims));
    if (num_dims < 1 || num_dims > kMaxDims) {
      return Error(what, " has ", num_dims, " dimensions, 1 to ", kMaxDims, " are allowed");
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < num_dims; ++i) {
      uint64_t dim = 0;
      RETURN_IF_ERROR(Read(what, &dim));
      // 2^48 elements are beyond any file, and leave room for the multiplication by a block's
      // bytes.
      if (dim == 0 || dim > (uint64_t{1} << 48) / elements) {
        return Error(what, " has dimension ", dim, " at index ", i);
      }
      elements *= dim;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
    }
    RETURN_IF_ERROR(ReadTensorType(what, &tensor));
    uint64_t offset = 0;
    RETURN_IF_ERROR(Read(what, &offset));
    if (offset % alignment_ != 0) {
      return Error(what, " begins at offset ", offset, ", which is not a multiple of ", alignment_);
    }
    tensor.bytes = BytesOf(tensor.dtype, static_cast<int64_t>(elements));
    if (!tensor_names_.insert(tensor.name).second) return Error(what, " occurs twice");
    offsets_.push_back(offset);
    file_->tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status ReadTensorType(const std::string& what, StoredTensor* tensor) {
    uint32_t id = 0;
    RETURN_IF_ERROR(Read(what, &id));
    const auto* type = std::find_if(std::begin(kTensorTypes), std::end(kTensorTypes),
                                    [id](const TensorType& t) { return t.id == id; });
    if (type == std::end(kTensorTypes)) return Error(what, " has the unknown type number ", id);
    if (!type->dtype.has_value()) {
      return absl::UnimplementedError(
          absl::StrCat(ToAbsl(name_), ": ", what, " has type ", ToAbsl(type->name),
                       ", which is not supported (", SupportedTypes(), " are)"));
    }
    tensor->dtype = *type->dtype;
    const int64_t block = Info(tensor->dtype).block_elements;
    if (tensor->shape.back() % block != 0) {
      return Error(what, " of type ", ToAbsl(type->name), " has rows of ", tensor->shape.back(),
                   " elements, which is not a multiple of ", block);
    }
    return absl::OkStatus();
  }

  // Turns offsets into pointers once the header's length is known.
  absl::Status PlaceTensors() {
    file_->header_ = bytes_.subspan(0, position_);
    const uint64_t data_begin = (position_ + alignment_ - 1) / alignment_ * alignment_;
    const uint64_t data_bytes = bytes_.size() > data_begin ? bytes_.size() - data_begin : 0;
    std::vector<std::pair<uint64_t, size_t>> order;
    for (size_t i = 0; i < offsets_.size(); ++i) {
      StoredTensor& tensor = file_->tensors_[i];
      const uint64_t size = static_cast<uint64_t>(tensor.bytes);
      if (size > data_bytes || offsets_[i] > data_bytes - size) {
        return Error("tensor ", Quoted(tensor.name), " of ", size, " bytes at offset ", offsets_[i],
                     " reaches past the end of the file's ", data_bytes, " bytes of data");
      }
      tensor.data = bytes_.data() + data_begin + offsets_[i];
      order.emplace_back(offsets_[i], i);
    }
    std::sort(order.begin(), order.end());
    for (size_t i = 1; i < order.size(); ++i) {
      const StoredTensor& before = file_->tensors_[order[i - 1].second];
      const StoredTensor& tensor = file_->tensors_[order[i].second];
      if (before.data + before.bytes > tensor.data) {
        return Error("tensors ", Quoted(before.name), " and ", Quoted(tensor.name), " overlap");
      }
    }
    return absl::OkStatus();
  }

  const absl::Span<const char> bytes_;
  const std::string_view name_;
  GgufFile* const file_;
  uint64_t position_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<uint64_t> offsets_;  // parallel to tensors_, from the begin of the data
  absl::flat_hash_set<std::string> tensor_names_;
};

absl::StatusOr<GgufFile> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  ASSIGN_OR_RETURN(GgufFile file, Parse(mapped.bytes(), path));
  file.file_ = std::move(mapped);
  return file;
}

absl::StatusOr<GgufFile> GgufFile::Parse(absl::Span<const char> bytes, std::string_view name) {
  GgufFile file;
  RETURN_IF_ERROR(Parser(bytes, name, &file).Run());
  return file;
}

const GgufFile::Value* GgufFile::Find(std::string_view key) const {
  const auto it = metadata_.find(ToAbsl(key));
  return it == metadata_.end() ? nullptr : &it->second;
}

std::string GgufFile::TypeName(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr) return "absent";
  return absl::StrCat(value->is_array ? "array of " : "", ToAbsl(NameOf(value->type)));
}

std::optional<int64_t> GgufFile::IntAt(const Value& value, uint64_t index) {
  const char* data = value.bytes.data() + index * static_cast<uint64_t>(ScalarBytes(value.type));
  switch (value.type) {
    case Type::kU8:
      return Load<uint8_t>(data);
    case Type::kI8:
      return Load<int8_t>(data);
    case Type::kU16:
      return Load<uint16_t>(data);
    case Type::kI16:
      return Load<int16_t>(data);
    case Type::kU32:
      return Load<uint32_t>(data);
    case Type::kI32:
      return Load<int32_t>(data);
    case Type::kI64:
      return Load<int64_t>(data);
    case Type::kBool:
      return Load<uint8_t>(data) != 0;
    case Type::kU64: {
      const uint64_t number = Load<uint64_t>(data);
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(number);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufFile::FloatAt(const Value& value, uint64_t index) {
  const char* data = value.bytes.data() + index * static_cast<uint64_t>(ScalarBytes(value.type));
  if (value.type == Type::kF32) return Load<float>(data);
  if (value.type == Type::kF64) return Load<double>(data);
  if (!IsInteger(value.type)) return std::nullopt;
  const std::optional<int64_t> number = IntAt(value, index);
  if (!number.has_value()) return std::nullopt;
  return static_cast<double>(*number);
}

std::optional<std::string_view> GgufFile::FindString(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->is_array || value->type != Type::kString) return std::nullopt;
  return std::string_view(value->bytes.data() + 8, value->bytes.size() - 8);
}

std::optional<int64_t> GgufFile::FindInt(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->is_array || !IsInteger(value->type)) return std::nullopt;
  return IntAt(*value, 0);
}

std::optional<double> GgufFile::FindFloat(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->is_array) return std::nullopt;
  return FloatAt(*value, 0);
}

std::optional<bool> GgufFile::FindBool(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->is_array || value->type != Type::kBool) return std::nullopt;
  return value->bytes[0] != 0;
}

std::optional<std::vector<std::string_view>> GgufFile::FindStringArray(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || !value->is_array || value->type != Type::kString) return std::nullopt;
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  const char* data = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t length = Load<uint64_t>(data);
    strings.emplace_back(data + 8, length);
    data += 8 + length;
  }
  return strings;
}

std::optional<std::vector<int64_t>> GgufFile::FindIntArray(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || !value->is_array) return std::nullopt;
  if (!IsInteger(value->type) && value->type != Type::kBool) return std::nullopt;
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number = IntAt(*value, i);
    if (!number.has_value()) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

std::optional<std::vector<double>> GgufFile::FindFloatArray(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || !value->is_array) return std::nullopt;
  std::vector<double> numbers;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<double> number = FloatAt(*value, i);
    if (!number.has_value()) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace fastgen
