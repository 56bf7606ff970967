#include "tests/testing/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/model/weight_names.h"

namespace fastgen::testing {
namespace {

double HalfAt(const char* data) {
  uint16_t bits;
  std::memcpy(&bits, data, 2);
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

int UnsignedAt(const char* data, int64_t index) { return static_cast<uint8_t>(data[index]); }
int SignedAt(const char* data, int64_t index) { return static_cast<int8_t>(data[index]); }

// Element i of one block, straight from the format's definition.
double BlockElement(DType dtype, const char* block, int i) {
  switch (dtype) {
    case DType::kQ4_0: {
      const int byte = UnsignedAt(block, 2 + i % 16);
      return HalfAt(block) * ((i < 16 ? byte & 15 : byte >> 4) - 8);
    }
    case DType::kQ4_1: {
      const int byte = UnsignedAt(block, 4 + i % 16);
      return HalfAt(block) * (i < 16 ? byte & 15 : byte >> 4) + HalfAt(block + 2);
    }
    case DType::kQ8_0:
      return HalfAt(block) * SignedAt(block, 2 + i);
    case DType::kQ6_K: {
      // Two halves of 128 elements; in each, four groups of 32 share 64 bytes of low bits and 32
      // of high bits.
      const int half = i / 128;
      const int group = i % 128 / 32;
      const int lane = i % 32;
      const int low_byte = UnsignedAt(block, half * 64 + group % 2 * 32 + lane);
      const int low = group < 2 ? low_byte & 15 : low_byte >> 4;
      const int high = UnsignedAt(block, 128 + half * 32 + lane) >> (2 * group) & 3;
      const int scale = SignedAt(block, 192 + i / 16);
      return HalfAt(block + 208) * scale * ((low | high << 4) - 32);
    }
    default:
      CHECK(false) << Info(dtype).name;
  }
  return 0;
}

double ElementOf(const StoredTensor& tensor, int64_t index) {
  const DTypeInfo info = Info(tensor.dtype);
  const char* data = tensor.data + index / info.block_elements * info.block_bytes;
  switch (tensor.dtype) {
    case DType::kF32: {
      float value;
      std::memcpy(&value, data, 4);
      return value;
    }
    case DType::kF16:
      return HalfAt(data);
    case DType::kBF16: {
      char bytes[4] = {0, 0, data[0], data[1]};
      float value;
      std::memcpy(&value, bytes, 4);
      return value;
    }
    default:
      return BlockElement(tensor.dtype, data, static_cast<int>(index % info.block_elements));
  }
}

}  // namespace

ReferenceModel ReferenceModel::Load(const Checkpoint& checkpoint) {
  ReferenceModel model;
  model.config_ = checkpoint.config();
  for (const TensorSpec& spec : RequiredTensors(model.config_)) {
    const StoredTensor& tensor = checkpoint.Tensor(spec.name);
    Matrix matrix;
    matrix.rows = spec.shape[0];
    matrix.cols = spec.shape.size() == 2 ? spec.shape[1] : 1;
    absl::Span<const int32_t> order;
    if (spec.shape.size() == 2) order = checkpoint.Matrix(spec.name).row_order;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      const int64_t source = order.empty() ? row : order[static_cast<size_t>(row)];
      for (int64_t col = 0; col < matrix.cols; ++col) {
        matrix.values.push_back(ElementOf(tensor, source * matrix.cols + col));
      }
    }
    model.tensors_[spec.name] = std::move(matrix);
  }
  return model;
}

const std::vector<double>& ReferenceModel::Values(const std::string& name) const {
  const auto it = tensors_.find(name);
  CHECK(it != tensors_.end()) << name;
  return it->second.values;
}

std::vector<double> ReferenceModel::Multiply(const std::string& name,
                                             const std::vector<double>& x) const {
  const Matrix& matrix = tensors_.at(name);
  CHECK_EQ(static_cast<int64_t>(x.size()), matrix.cols);
  std::vector<double> out;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    double sum = 0;
    for (int64_t col = 0; col < matrix.cols; ++col) {
      sum +=
          matrix.values[static_cast<size_t>(row * matrix.cols + col)] * x[static_cast<size_t>(col)];
    }
    out.push_back(sum);
  }
  return out;
}

std::vector<double> ReferenceModel::Norm(const std::string& name,
                                         const std::vector<double>& x) const {
  double squares = 0;
  for (double value : x) squares += value * value;
  const double scale =
      1 / std::sqrt(squares / static_cast<double>(x.size()) + double{config_.rms_eps});
  std::vector<double> out;
  for (size_t i = 0; i < x.size(); ++i) out.push_back(x[i] * scale * Values(name)[i]);
  return out;
}

void ReferenceModel::Rotate(double* head, int64_t position) const {
  const RopeScaling& scaling = config_.rope_scaling;
  const int64_t half = config_.head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    double frequency =
        1 / std::pow(config_.rope_theta, static_cast<double>(i) / static_cast<double>(half));
    if (scaling.kind == RopeScaling::Kind::kLinear) frequency /= scaling.factor;
    if (scaling.kind == RopeScaling::Kind::kDivisors) {
      frequency /= double{scaling.divisors[static_cast<size_t>(i)]};
    }
    if (scaling.kind == RopeScaling::Kind::kLlama3) {
      // How many turns the frequency makes within the original context decides its share.
      const double turns = scaling.original_max_position * frequency / (2 * M_PI);
      const double share = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
          0.0, 1.0);
      frequency *= share + (1 - share) / scaling.factor;
    }
    const double angle = static_cast<double>(position) * frequency;
    const double a = head[i];
    const double b = head[half + i];
    head[i] = a * std::cos(angle) - b * std::sin(angle);
    head[half + i] = b * std::cos(angle) + a * std::sin(angle);
  }
}

std::vector<double> ReferenceModel::Attend(const std::vector<double>& q,
                                           const std::vector<std::vector<double>>& keys,
                                           const std::vector<std::vector<double>>& values) const {
  const int64_t dim = config_.head_dim;
  std::vector<double> out;
  for (int64_t h = 0; h < config_.q_heads; ++h) {
    const int64_t kv = h / (config_.q_heads / config_.kv_heads);
    std::vector<double> scores;
    for (const std::vector<double>& key : keys) {
      double dot = 0;
      for (int64_t d = 0; d < dim; ++d) {
        dot += q[static_cast<size_t>(h * dim + d)] * key[static_cast<size_t>(kv * dim + d)];
      }
      scores.push_back(dot / std::sqrt(static_cast<double>(dim)));
    }
    const std::vector<double> weights = LogSoftmax(scores);
    for (int64_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (size_t j = 0; j < values.size(); ++j) {
        sum += std::exp(weights[j]) * values[j][static_cast<size_t>(kv * dim + d)];
      }
      out.push_back(sum);
    }
  }
  return out;
}

std::vector<double> ReferenceModel::Logits(absl::Span<const int32_t> ids) const {
  std::vector<std::vector<double>> x;
  for (int32_t id : ids) {
    const double* row = Values(std::string(kEmbeddingName)).data() + id * config_.hidden;
    x.emplace_back(row, row + config_.hidden);
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const auto name = [layer](const char* part) { return LayerTensorName(layer, part); };
    std::vector<std::vector<double>> keys;
    std::vector<std::vector<double>> values;
    for (size_t i = 0; i < x.size(); ++i) {
      const int64_t position = static_cast<int64_t>(i);
      const std::vector<double> normed = Norm(name("input_layernorm.weight"), x[i]);
      std::vector<double> q = Multiply(name("self_attn.q_proj.weight"), normed);
      std::vector<double> k = Multiply(name("self_attn.k_proj.weight"), normed);
      for (int64_t h = 0; h < config_.q_heads; ++h) {
        Rotate(q.data() + h * config_.head_dim, position);
      }
      for (int64_t h = 0; h < config_.kv_heads; ++h) {
        Rotate(k.data() + h * config_.head_dim, position);
      }
      keys.push_back(std::move(k));
      values.push_back(Multiply(name("self_attn.v_proj.weight"), normed));
      const std::vector<double> attended =
          Multiply(name("self_attn.o_proj.weight"), Attend(q, keys, values));
      for (size_t d = 0; d < attended.size(); ++d) x[i][d] += attended[d];
      const std::vector<double> inner = Norm(name("post_attention_layernorm.weight"), x[i]);
      std::vector<double> gate = Multiply(name("mlp.gate_proj.weight"), inner);
      const std::vector<double> up = Multiply(name("mlp.up_proj.weight"), inner);
      for (size_t d = 0; d < gate.size(); ++d) gate[d] *= up[d] / (1 + std::exp(-gate[d]));
      const std::vector<double> down = Multiply(name("mlp.down_proj.weight"), gate);
      for (size_t d = 0; d < down.size(); ++d) x[i][d] += down[d];
    }
  }
  std::vector<double> logits;
  for (const std::vector<double>& state : x) {
    const std::vector<double> normed = Norm(std::string(kFinalNormName), state);
    const std::vector<double> row =
        Multiply(std::string(config_.tied_head ? kEmbeddingName : kHeadName), normed);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

std::vector<double> LogSoftmax(absl::Span<const double> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - max);
  std::vector<double> out;
  for (double logit : logits) out.push_back(logit - max - std::log(sum));
  return out;
}

}  // namespace fastgen::testing
