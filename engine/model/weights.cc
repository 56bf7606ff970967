#include "engine/model/weights.h"

#include <bit>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/model/weight_names.h"

namespace fastgen {
namespace {

float F16ToF32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

float ElementAsF32(const StoredTensor& tensor, int64_t index) {
  if (tensor.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, tensor.data + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, tensor.data + index * 2, 2);
  if (tensor.dtype == DType::kBF16) return std::bit_cast<float>(uint32_t{bits} << 16);
  CHECK(tensor.dtype == DType::kF16) << Info(tensor.dtype).name;
  return F16ToF32(bits);
}

enum class Role { kVocabulary, kAttention, kFeedForward };

// The form of a matrix when `form` was asked for. See LoadWeights.
WeightForm FormFor(WeightForm form, Role role, int64_t layer, int64_t num_layers) {
  switch (form) {
    case WeightForm::kInt4Group32:
      return role == Role::kVocabulary ? WeightForm::kInt8Group32 : form;
    case WeightForm::kInt4Group128:
      return role == Role::kVocabulary ? WeightForm::kInt8Group128 : form;
    case WeightForm::kFp8Rows: {
      const bool is_inner = layer > 0 && layer < num_layers - 1;
      return role == Role::kFeedForward && is_inner ? form : WeightForm::kBf16;
    }
    default: return form;
  }
}

// Bits that a weight takes, its share of scales included; fp8 is held as bf16 on the CPU.
double BitsOf(WeightForm form) {
  switch (form) {
    case WeightForm::kInt8Group32: return 8.5;
    case WeightForm::kInt8Group128: return 8.125;
    case WeightForm::kInt4Group32: return 5;
    case WeightForm::kInt4Group128: return 4.25;
    default: return 16;
  }
}

// Device memory that the weights will take, before any is packed.
int64_t ExpectedBytes(const Checkpoint& checkpoint, WeightForm form) {
  double bytes = 0;
  for (const TensorSpec& spec : RequiredTensors(checkpoint.config())) {
    if (form == WeightForm::kAsStored) {
      const StoredTensor& tensor = checkpoint.Tensor(spec.name);
      // Its two-level scales are held apart: 3.125 bits a weight instead of 2.625.
      const double growth = tensor.dtype == DType::kQ2_K ? 3.125 / 2.625 : 1;
      bytes += static_cast<double>(tensor.bytes) * growth;
      continue;
    }
    double elements = 1;
    for (int64_t dim : spec.shape) elements *= static_cast<double>(dim);
    const bool is_vocabulary = spec.name == kEmbeddingName || spec.name == kHeadName;
    const Role role = is_vocabulary ? Role::kVocabulary : Role::kAttention;
    bytes += elements * (spec.shape.size() == 1 ? 4 : BitsOf(FormFor(form, role, 0, 0)) / 8);
  }
  return static_cast<int64_t>(bytes);
}

// Packs tensor after tensor and counts what was read.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, Backend* backend,
         const std::function<void(int64_t, int64_t)>& progress, WeightForm form)
      : checkpoint_(checkpoint), backend_(backend), progress_(progress), form_(form) {}

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Matrix(Role role, int64_t layer,
                                                       std::initializer_list<std::string> names) {
    std::vector<MatrixSource> parts;
    const int64_t before = done_bytes_;
    for (const std::string& name : names) {
      MatrixSource part = checkpoint_.Matrix(name);
      part.form = FormFor(form_, role, layer, checkpoint_.config().num_layers);
      const StoredTensor& tensor = checkpoint_.Tensor(name);
      part.rows_read = [this, &tensor](int64_t begin, int64_t end) {
        const absl::Span<const char> rows = RowsOf(tensor, begin, end);
        MappedFile::DropPages(rows);
        Report(static_cast<int64_t>(rows.size()));
      };
      part.will_read = [&tensor](int64_t begin, int64_t end) {
        MappedFile::Prefetch(RowsOf(tensor, begin, end));
      };
      parts.push_back(std::move(part));
    }
    absl::StatusOr<std::unique_ptr<PackedMatrix>> matrix = backend_->PackMatrix(parts);
    if (!matrix.ok()) return Named(*names.begin(), matrix.status());
    int64_t bytes = 0;
    for (const std::string& name : names) bytes += checkpoint_.Tensor(name).bytes;
    // A backend may say nothing of rows.
    if (done_bytes_ - before < bytes) Report(before + bytes - done_bytes_);
    for (const std::string& name : names) checkpoint_.DropPages(checkpoint_.Tensor(name));
    return matrix;
  }

  // Vectors one after another, as fp32, in this engine's order.
  absl::StatusOr<std::unique_ptr<Buffer>> Vector(std::initializer_list<std::string> names) {
    int64_t elements = 0;
    for (const std::string& name : names) {
      CHECK_EQ(checkpoint_.Tensor(name).shape.size(), 1u) << name;
      elements += checkpoint_.Tensor(name).shape[0];
    }
    auto buffer = backend_->Allocate(static_cast<size_t>(elements) * sizeof(float));
    if (!buffer.ok()) return Named(*names.begin(), buffer.status());
    float* values = static_cast<float*>((*buffer)->data());
    for (const std::string& name : names) {
      const StoredTensor& tensor = checkpoint_.Tensor(name);
      const absl::Span<const int32_t> order = checkpoint_.RowOrder(name);
      for (int64_t i = 0; i < tensor.shape[0]; ++i) {
        *values++ =
            ElementAsF32(tensor, order.empty() ? i : int64_t{order[static_cast<size_t>(i)]});
      }
      checkpoint_.DropPages(tensor);
      Report(tensor.bytes);
    }
    return buffer;
  }

 private:
  absl::Status Named(const std::string& name, const absl::Status& status) const {
    return absl::Status(
        status.code(), absl::StrCat(checkpoint_.path(), ": tensor ", name, ": ", status.message()));
  }

  static absl::Span<const char> RowsOf(const StoredTensor& tensor, int64_t begin, int64_t end) {
    const int64_t row_bytes = tensor.bytes / tensor.shape[0];
    return tensor.span().subspan(static_cast<size_t>(begin * row_bytes),
                                 static_cast<size_t>((end - begin) * row_bytes));
  }

  void Report(int64_t bytes) {
    done_bytes_ += bytes;
    if (progress_) progress_(done_bytes_, checkpoint_.total_bytes());
  }

  const Checkpoint& checkpoint_;
  Backend* const backend_;
  const std::function<void(int64_t, int64_t)>& progress_;
  const WeightForm form_;
  int64_t done_bytes_ = 0;
};

absl::StatusOr<LayerWeights> LoadLayer(const ModelConfig& config, Loader* loader, int64_t index) {
  const auto name = [index](std::string_view part) { return LayerTensorName(index, part); };
  LayerWeights layer;
  ASSIGN_OR_RETURN(layer.attention_norm, loader->Vector({name("input_layernorm.weight")}));
  ASSIGN_OR_RETURN(layer.qkv,
                   loader->Matrix(Role::kAttention, index,
                                  {name("self_attn.q_proj.weight"), name("self_attn.k_proj.weight"),
                                   name("self_attn.v_proj.weight")}));
  if (config.has_qkv_bias) {
    ASSIGN_OR_RETURN(layer.qkv_bias,
                     loader->Vector({name("self_attn.q_proj.bias"), name("self_attn.k_proj.bias"),
                                     name("self_attn.v_proj.bias")}));
  }
  if (config.has_qk_norm) {
    ASSIGN_OR_RETURN(layer.q_norm, loader->Vector({name("self_attn.q_norm.weight")}));
    ASSIGN_OR_RETURN(layer.k_norm, loader->Vector({name("self_attn.k_norm.weight")}));
  }
  ASSIGN_OR_RETURN(layer.attention_out,
                   loader->Matrix(Role::kAttention, index, {name("self_attn.o_proj.weight")}));
  if (config.has_out_bias) {
    ASSIGN_OR_RETURN(layer.attention_out_bias, loader->Vector({name("self_attn.o_proj.bias")}));
  }
  ASSIGN_OR_RETURN(layer.ffn_norm, loader->Vector({name("post_attention_layernorm.weight")}));
  ASSIGN_OR_RETURN(layer.gate_up,
                   loader->Matrix(Role::kFeedForward, index,
                                  {name("mlp.gate_proj.weight"), name("mlp.up_proj.weight")}));
  ASSIGN_OR_RETURN(layer.down,
                   loader->Matrix(Role::kFeedForward, index, {name("mlp.down_proj.weight")}));
  return layer;
}

}  // namespace

int64_t Weights::bytes() const {
  size_t sum = embedding->bytes() + final_norm->bytes();
  if (untied_head != nullptr) sum += untied_head->bytes();
  for (const LayerWeights& layer : layers) {
    sum += layer.attention_norm->bytes() + layer.qkv->bytes() + layer.attention_out->bytes() +
           layer.ffn_norm->bytes() + layer.gate_up->bytes() + layer.down->bytes();
    for (const Buffer* vector : {layer.qkv_bias.get(), layer.q_norm.get(), layer.k_norm.get(),
                                 layer.attention_out_bias.get()}) {
      if (vector != nullptr) sum += vector->bytes();
    }
  }
  return static_cast<int64_t>(sum);
}

absl::StatusOr<Weights> LoadWeights(
    const Checkpoint& checkpoint, Backend* backend,
    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& progress, WeightForm form) {
  const int64_t free_bytes = backend->FreeMemoryBytes();
  const int64_t expected_bytes = ExpectedBytes(checkpoint, form);
  if (expected_bytes > free_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(checkpoint.path(), ": the weights take ",
                                                     expected_bytes, " bytes, the device has ",
                                                     free_bytes, " free"));
  }
  Loader loader(checkpoint, backend, progress, form);
  Weights weights;
  ASSIGN_OR_RETURN(weights.embedding,
                   loader.Matrix(Role::kVocabulary, 0, {std::string(kEmbeddingName)}));
  for (int64_t i = 0; i < checkpoint.config().num_layers; ++i) {
    ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer(checkpoint.config(), &loader, i));
    weights.layers.push_back(std::move(layer));
  }
  ASSIGN_OR_RETURN(weights.final_norm, loader.Vector({std::string(kFinalNormName)}));
  if (!checkpoint.config().tied_head) {
    ASSIGN_OR_RETURN(weights.untied_head,
                     loader.Matrix(Role::kVocabulary, 0, {std::string(kHeadName)}));
  }
  return weights;
}

std::string DescribeWeights(const Checkpoint& checkpoint, WeightForm form) {
  const std::string stored = checkpoint.dtype_name();
  const std::string wanted(FormName(form));
  if (form == WeightForm::kAsStored || wanted == stored) return stored;
  return absl::StrCat(wanted, " (from ", stored, ")");
}

}  // namespace fastgen
