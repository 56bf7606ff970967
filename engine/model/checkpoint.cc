#include "engine/model/checkpoint.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/model/weight_names.h"

namespace fastgen {
namespace {

// See checkpoint.h: where each of our rows lies in a GGUF file.
std::vector<int32_t> NeighbourPairRowOrder(int64_t heads, int64_t head_dim) {
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(heads * head_dim));
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        order.push_back(static_cast<int32_t>(h * head_dim + 2 * i + half));
      }
    }
  }
  return order;
}

// Two 64-bit multiply-and-mix lanes over 8-byte words.
class Fingerprint {
 public:
  void Add(absl::Span<const char> bytes) {
    AddWord(bytes.size());
    size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
      uint64_t word;
      std::memcpy(&word, bytes.data() + i, 8);
      AddWord(word);
    }
    uint64_t rest = 0;
    if (i < bytes.size()) std::memcpy(&rest, bytes.data() + i, bytes.size() - i);
    AddWord(rest);
  }
  void AddText(std::string_view text) { Add(absl::MakeConstSpan(text.data(), text.size())); }

  void AddWord(uint64_t word) {
    lanes_[0] = Mix(lanes_[0] ^ word);
    lanes_[1] = Mix(lanes_[1] + word * 0x9e3779b97f4a7c15u);
  }

  std::string Hex() const { return absl::StrFormat("%016x%016x", lanes_[0], lanes_[1]); }

 private:
  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 29)) * 0xa0761d6478bd642fu;
    return x ^ (x >> 32);
  }
  std::array<uint64_t, 2> lanes_ = {0x243f6a8885a308d3u, 0x13198a2e03707344u};
};

absl::Status WithPrefix(const std::string& prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

absl::StatusOr<std::string> ReadText(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return std::string(file.bytes().data(), file.bytes().size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->path_ = path;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    RETURN_IF_ERROR(checkpoint->OpenDirectory());
  } else if (std::filesystem::is_regular_file(path, error)) {
    RETURN_IF_ERROR(checkpoint->OpenGguf());
  } else {
    return absl::NotFoundError(absl::StrCat(path, ": no such directory or .gguf file"));
  }
  RETURN_IF_ERROR(checkpoint->Preflight());
  return checkpoint;
}

absl::Status Checkpoint::OpenDirectory() {
  const std::filesystem::path root(path_);
  ASSIGN_OR_RETURN(const std::string config_json, ReadText(root / "config.json"));
  std::string generation_json;
  std::error_code error;
  if (std::filesystem::exists(root / "generation_config.json", error)) {
    ASSIGN_OR_RETURN(generation_json, ReadText(root / "generation_config.json"));
  }
  absl::StatusOr<ModelConfig> config = ParseHfConfig(config_json, generation_json);
  if (!config.ok()) return WithPrefix(path_, config.status());
  config_ = *std::move(config);
  const std::filesystem::path full = std::filesystem::absolute(root).lexically_normal();
  config_.name = full.has_filename() ? full.filename() : full.parent_path().filename();
  ASSIGN_OR_RETURN(safetensors_, SafetensorsSet::Open(path_));
  for (const SafetensorsFile& file : safetensors_->files()) {
    for (const StoredTensor& tensor : file.tensors()) {
      RETURN_IF_ERROR(Add(tensor.name, tensor));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenGguf() {
  ASSIGN_OR_RETURN(gguf_, GgufFile::Open(path_));
  absl::StatusOr<ModelConfig> config = ParseGgufConfig(*gguf_);
  if (!config.ok()) return WithPrefix(path_, config.status());
  config_ = *std::move(config);
  if (config_.name.empty()) config_.name = std::filesystem::path(path_).stem();
  for (const StoredTensor& tensor : gguf_->tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;  // Already in the configuration.
    const std::optional<std::string> name = HfNameOfGguf(tensor.name);
    RETURN_IF_ERROR(Add(name.value_or(tensor.name), tensor));
  }
  if (gguf_->FindString("general.architecture") == "llama") {
    q_row_order_ = NeighbourPairRowOrder(config_.q_heads, config_.head_dim);
    k_row_order_ = NeighbourPairRowOrder(config_.kv_heads, config_.head_dim);
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Add(const std::string& name, const StoredTensor& tensor) {
  if (!tensors_.emplace(name, &tensor).second) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor '", absl::CHexEscape(tensor.name), "' is there twice"));
  }
  return absl::OkStatus();
}

const std::string& Checkpoint::FileOf(const StoredTensor& tensor) const {
  if (!safetensors_.has_value()) return path_;
  for (const SafetensorsFile& file : safetensors_->files()) {
    for (const StoredTensor& held : file.tensors()) {
      if (&held == &tensor) return file.path();
    }
  }
  return path_;
}

absl::Status Checkpoint::Preflight() {
  std::set<std::string> required;
  for (const TensorSpec& spec : RequiredTensors(config_)) {
    const auto it = tensors_.find(spec.name);
    if (it == tensors_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": tensor ", spec.name, " is missing"));
    }
    const StoredTensor& tensor = *it->second;
    if (tensor.shape != spec.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat(FileOf(tensor), ": tensor ", tensor.name, " has shape ",
                       ShapeString(tensor.shape), ", the model needs ", ShapeString(spec.shape)));
    }
    // Norms and biases become fp32 vectors; block types have no use there.
    if (spec.shape.size() == 1 && IsBlockType(tensor.dtype)) {
      return absl::UnimplementedError(absl::StrCat(FileOf(tensor), ": tensor ", tensor.name,
                                                   " has type ", ToAbsl(Info(tensor.dtype).name),
                                                   ", a vector must be F32, F16 or BF16"));
    }
    total_bytes_ += tensor.bytes;
    required.insert(spec.name);
  }
  // The first by name, so that the message does not depend on a hash's order.
  const StoredTensor* extra = nullptr;
  for (const auto& [name, tensor] : tensors_) {
    if (required.count(name) > 0 || IsIgnoredTensor(config_, name)) continue;
    if (extra == nullptr || tensor->name < extra->name) extra = tensor;
  }
  if (extra != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(FileOf(*extra), ": tensor '",
                                                   absl::CHexEscape(extra->name),
                                                   "' is not part of a ", config_.architecture));
  }
  absl::erase_if(tensors_, [&](const auto& entry) { return required.count(entry.first) == 0; });
  return absl::OkStatus();
}

const StoredTensor& Checkpoint::Tensor(std::string_view name) const {
  const auto it = tensors_.find(ToAbsl(name));
  CHECK(it != tensors_.end()) << name;
  return *it->second;
}

MatrixSource Checkpoint::Matrix(std::string_view name) const {
  const StoredTensor& tensor = Tensor(name);
  CHECK_EQ(tensor.shape.size(), 2u) << name;
  MatrixSource source;
  source.data = tensor.data;
  source.dtype = tensor.dtype;
  source.rows = tensor.shape[0];
  source.cols = tensor.shape[1];
  source.row_order = RowOrder(name);
  return source;
}

absl::Span<const int32_t> Checkpoint::RowOrder(std::string_view name) const {
  if (absl::StrContains(ToAbsl(name), ".q_proj.")) return q_row_order_;
  if (absl::StrContains(ToAbsl(name), ".k_proj.")) return k_row_order_;
  return {};
}

std::string Checkpoint::dtype_name() const {
  std::map<DType, int64_t> bytes;
  for (const auto& [name, tensor] : tensors_) bytes[tensor->dtype] += tensor->bytes;
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string name(Info(most->first).name);
  return IsBlockType(most->first) ? name : absl::AsciiStrToLower(name);
}

std::string Checkpoint::Hash() const {
  constexpr int64_t kRunBytes = 4096;
  const std::map<std::string, const StoredTensor*> ordered(tensors_.begin(), tensors_.end());
  Fingerprint fingerprint;
  for (const auto& [name, tensor] : ordered) {
    fingerprint.AddText(name);
    fingerprint.AddText(Info(tensor->dtype).name);
    for (int64_t dim : tensor->shape) fingerprint.AddWord(static_cast<uint64_t>(dim));
    const int64_t run = std::min(kRunBytes, tensor->bytes);
    for (int64_t begin : {int64_t{0}, (tensor->bytes - run) / 2, tensor->bytes - run}) {
      fingerprint.Add(tensor->span().subspan(static_cast<size_t>(begin), static_cast<size_t>(run)));
    }
  }
  return fingerprint.Hex();
}

}  // namespace fastgen
