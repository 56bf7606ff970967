#include "engine/model/safetensors.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

namespace json = boost::json;

constexpr uint64_t kMaxHeaderBytes = 32 << 20;
constexpr size_t kMaxTensors = 200'000;
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxFiles = 4096;

std::string Quoted(std::string_view name) {
  return absl::StrCat("'", absl::CHexEscape(ToAbsl(name.substr(0, 200))), "'");
}

std::string_view View(json::string_view text) { return {text.data(), text.size()}; }

absl::StatusOr<json::object> ParseObject(std::string_view text, const std::string& what) {
  json::parse_options options;
  options.max_depth = 4;
  json::error_code error;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error, {}, options);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not valid JSON: ", error.message()));
  }
  if (!value.is_object()) return absl::InvalidArgumentError(absl::StrCat(what, " is no object"));
  return std::move(value.get_object());
}

std::optional<uint64_t> Unsigned(const json::value& value) {
  if (value.is_int64() && value.get_int64() >= 0) return static_cast<uint64_t>(value.get_int64());
  return std::nullopt;
}

std::optional<DType> DTypeOf(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

// One entry of the header. `data` is all of the file after the header.
absl::StatusOr<StoredTensor> ParseTensor(std::string_view name, const json::value& value,
                                         absl::Span<const char> data) {
  const std::string what = absl::StrCat("tensor ", Quoted(name));
  const json::object* entry = value.if_object();
  const json::value* dtype = entry == nullptr ? nullptr : entry->if_contains("dtype");
  const json::value* shape = entry == nullptr ? nullptr : entry->if_contains("shape");
  const json::value* offsets = entry == nullptr ? nullptr : entry->if_contains("data_offsets");
  if (dtype == nullptr || !dtype->is_string() || shape == nullptr || !shape->is_array() ||
      offsets == nullptr || !offsets->is_array() || offsets->get_array().size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " lacks a dtype, a shape or a pair of data_offsets"));
  }
  StoredTensor tensor;
  tensor.name = std::string(name);
  const std::optional<DType> known = DTypeOf(View(dtype->get_string()));
  if (!known.has_value()) {
    return absl::UnimplementedError(absl::StrCat(what, " has dtype ",
                                                 Quoted(View(dtype->get_string())),
                                                 ", which is not supported (F32, F16, BF16 are)"));
  }
  tensor.dtype = *known;
  uint64_t elements = 1;
  if (shape->get_array().size() > kMaxDims) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has ", shape->get_array().size(), " dimensions, at most ", kMaxDims));
  }
  for (const json::value& dimension : shape->get_array()) {
    const std::optional<uint64_t> dim = Unsigned(dimension);
    if (!dim.has_value() || *dim == 0 || *dim > (uint64_t{1} << 48) / elements) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " has shape ", json::serialize(*shape).substr(0, 200)));
    }
    elements *= *dim;
    tensor.shape.push_back(static_cast<int64_t>(*dim));
  }
  tensor.bytes = BytesOf(tensor.dtype, static_cast<int64_t>(elements));
  const std::optional<uint64_t> begin = Unsigned(offsets->get_array()[0]);
  const std::optional<uint64_t> end = Unsigned(offsets->get_array()[1]);
  if (!begin.has_value() || !end.has_value() || *begin > *end || *end > data.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has data_offsets ", json::serialize(*offsets).substr(0, 200),
                     ", the file has ", data.size(), " bytes of data"));
  }
  if (*end - *begin != static_cast<uint64_t>(tensor.bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has ", *end - *begin,
                                                   " bytes, its shape ", ShapeString(tensor.shape),
                                                   " needs ", tensor.bytes));
  }
  tensor.data = data.data() + *begin;
  return tensor;
}

// The tensors must follow one another from the first byte of data to the last.
absl::Status CheckCover(std::vector<StoredTensor>& tensors, absl::Span<const char> data) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.data != b.data ? a.data < b.data : a.name < b.name;
  });
  const char* position = data.data();
  const StoredTensor* before = nullptr;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.data < position) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensors ", Quoted(before->name), " and ", Quoted(tensor.name), " overlap"));
    }
    if (tensor.data > position) break;
    position = tensor.data + tensor.bytes;
    before = &tensor;
  }
  if (position != data.data() + data.size()) {
    return absl::InvalidArgumentError(absl::StrCat("no tensor covers byte ", position - data.data(),
                                                   " of the ", data.size(), " bytes of data"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredTensor>> ParseTensors(absl::Span<const char> bytes) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a safetensors file: it has ", bytes.size(), " bytes"));
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const uint64_t left = bytes.size() - sizeof(header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > left) {
    return absl::InvalidArgumentError(absl::StrCat("the header claims ", header_bytes,
                                                   " bytes, at most ",
                                                   std::min(kMaxHeaderBytes, left), " can be"));
  }
  const std::string_view header(bytes.data() + sizeof(header_bytes), header_bytes);
  const absl::Span<const char> data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  ASSIGN_OR_RETURN(const json::object object, ParseObject(header, "the header"));
  if (object.size() > kMaxTensors) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header has ", object.size(), " tensors, at most ", kMaxTensors));
  }
  std::vector<StoredTensor> tensors;
  tensors.reserve(object.size());
  for (const auto& entry : object) {
    if (entry.key() == "__metadata__") continue;
    ASSIGN_OR_RETURN(StoredTensor tensor, ParseTensor(View(entry.key()), entry.value(), data));
    tensors.push_back(std::move(tensor));
  }
  RETURN_IF_ERROR(CheckCover(tensors, data));
  return tensors;
}

// File name by tensor name.
absl::StatusOr<std::map<std::string, std::string>> ParseIndex(std::string_view text) {
  ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "the index"));
  const json::value* map = object.if_contains("weight_map");
  if (map == nullptr || !map->is_object()) {
    return absl::InvalidArgumentError("the index has no weight_map");
  }
  std::map<std::string, std::string> files;
  for (const auto& entry : map->get_object()) {
    const std::string_view file =
        entry.value().is_string() ? View(entry.value().get_string()) : std::string_view();
    // The index names files beside itself, nothing else on the machine.
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the index gives tensor ", Quoted(View(entry.key())), " the file ",
                       json::serialize(entry.value()).substr(0, 200)));
    }
    files.emplace(View(entry.key()), file);
  }
  return files;
}

absl::Status WithPrefix(std::string_view prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(ToAbsl(prefix), ": ", status.message()));
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  ASSIGN_OR_RETURN(SafetensorsFile file, Parse(mapped.bytes(), path));
  file.file_ = std::move(mapped);
  return file;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(absl::Span<const char> bytes,
                                                       std::string_view name) {
  absl::StatusOr<std::vector<StoredTensor>> tensors = ParseTensors(bytes);
  if (!tensors.ok()) return WithPrefix(name, tensors.status());
  SafetensorsFile file;
  file.path_ = std::string(name);
  file.tensors_ = *std::move(tensors);
  return file;
}

absl::StatusOr<SafetensorsSet> SafetensorsSet::Open(const std::string& directory) {
  const std::filesystem::path root(directory);
  const std::string single = root / "model.safetensors";
  const std::string index_path = root / "model.safetensors.index.json";
  std::error_code error;
  SafetensorsSet set;
  if (std::filesystem::exists(single, error)) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(single));
    set.files_.push_back(std::move(file));
    return set;
  }
  if (!std::filesystem::exists(index_path, error)) {
    return absl::NotFoundError(absl::StrCat(
        directory, ": has neither model.safetensors nor model.safetensors.index.json"));
  }
  ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::Open(index_path));
  if (mapped.bytes().size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": has ", mapped.bytes().size(),
                                                   " bytes, at most ", kMaxHeaderBytes));
  }
  const auto parsed = ParseIndex({mapped.bytes().data(), mapped.bytes().size()});
  if (!parsed.ok()) return WithPrefix(index_path, parsed.status());
  std::map<std::string, std::map<std::string, bool>> wanted;  // by file: tensor, found
  for (const auto& [tensor, file] : *parsed) wanted[file][tensor] = false;
  if (wanted.size() > kMaxFiles) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": names ", wanted.size(), " files, at most ", kMaxFiles));
  }
  for (auto& [name, tensors] : wanted) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(root / name));
    for (const StoredTensor& tensor : file.tensors()) {
      const auto it = tensors.find(tensor.name);
      if (it == tensors.end()) {
        return absl::InvalidArgumentError(absl::StrCat((root / name).string(), ": holds tensor ",
                                                       Quoted(tensor.name),
                                                       ", which the index does not place there"));
      }
      it->second = true;
    }
    for (const auto& [tensor, found] : tensors) {
      if (!found) {
        return absl::InvalidArgumentError(absl::StrCat((root / name).string(), ": lacks tensor ",
                                                       Quoted(tensor),
                                                       ", which the index places there"));
      }
    }
    set.files_.push_back(std::move(file));
  }
  return set;
}

}  // namespace fastgen
