#include "tests/testing/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/model/weight_names.h"
#include "tests/testing/reference_blocks.h"

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
      return BlockElement(tensor.dtype, reinterpret_cast<const uint8_t*>(data),
                          static_cast<int>(index % info.block_elements));
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
    const absl::Span<const int32_t> order = checkpoint.RowOrder(spec.name);
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
  const Matrix& matrix = tensors_.at(name + ".weight");
  const auto bias = tensors_.find(name + ".bias");
  CHECK_EQ(static_cast<int64_t>(x.size()), matrix.cols);
  std::vector<double> out;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    double sum = bias == tensors_.end() ? 0 : bias->second.values[static_cast<size_t>(row)];
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

double ReferenceModel::FrequencyDivisor(int64_t i, double frequency) const {
  const RopeScaling& scaling = config_.rope_scaling;
  // How many turns the frequency makes within the original context.
  const double turns = scaling.original_max_position * frequency / (2 * M_PI);
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      return 1;
    case RopeScaling::Kind::kLinear:
      return scaling.factor;
    case RopeScaling::Kind::kDivisors:
      return double{scaling.divisors[static_cast<size_t>(i)]};
    case RopeScaling::Kind::kLlama3: {
      const double share = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
          0.0, 1.0);
      return 1 / (share + (1 - share) / scaling.factor);
    }
    case RopeScaling::Kind::kYarn: {
      // Frequency and index are one to one: the pair that turns t times in c positions has
      // theta^(-2 pair / d) c / 2 pi = t.
      const auto pair = [&](double t) {
        return std::log(scaling.original_max_position / (2 * M_PI * t)) /
               std::log(std::pow(config_.rope_theta, 2.0 / static_cast<double>(config_.head_dim)));
      };
      const double fast = pair(scaling.beta_fast);
      const double slow = pair(scaling.beta_slow);
      const double first = std::max(0.0, scaling.truncate ? std::floor(fast) : fast);
      const double last = std::min(static_cast<double>(config_.head_dim - 1),
                                   scaling.truncate ? std::ceil(slow) : slow);
      const double slowed = std::clamp(
          (static_cast<double>(i) - first) / (first == last ? 0.001 : last - first), 0.0, 1.0);
      return 1 / (slowed / scaling.factor + 1 - slowed);
    }
  }
  return 1;
}

void ReferenceModel::NormAndRotate(const std::string& norm, int64_t position,
                                   std::vector<double>* heads) const {
  const int64_t dim = config_.head_dim;
  const int64_t half = dim / 2;
  const double scale = config_.rope_scaling.attention_factor;
  for (auto head = heads->begin(); head != heads->end(); head += dim) {
    if (tensors_.count(norm) > 0) {
      const std::vector<double> normed = Norm(norm, std::vector<double>(head, head + dim));
      std::copy(normed.begin(), normed.end(), head);
    }
    for (int64_t i = 0; i < half; ++i) {
      const double frequency =
          1 / std::pow(config_.rope_theta, static_cast<double>(i) / static_cast<double>(half));
      const double angle =
          static_cast<double>(position) * frequency / FrequencyDivisor(i, frequency);
      const double a = head[i];
      const double b = head[half + i];
      head[i] = scale * (a * std::cos(angle) - b * std::sin(angle));
      head[half + i] = scale * (b * std::cos(angle) + a * std::sin(angle));
    }
  }
}

std::vector<double> ReferenceModel::Attend(int64_t layer, const std::vector<double>& q,
                                           const std::vector<std::vector<double>>& keys,
                                           const std::vector<std::vector<double>>& values) const {
  const int64_t dim = config_.head_dim;
  const size_t window = static_cast<size_t>(config_.window(layer));
  const size_t first = window == 0 || keys.size() <= window ? 0 : keys.size() - window;
  std::vector<double> out;
  for (int64_t h = 0; h < config_.q_heads; ++h) {
    const int64_t kv = h / (config_.q_heads / config_.kv_heads);
    std::vector<double> scores;
    for (size_t j = first; j < keys.size(); ++j) {
      double dot = 0;
      for (int64_t d = 0; d < dim; ++d) {
        dot += q[static_cast<size_t>(h * dim + d)] * keys[j][static_cast<size_t>(kv * dim + d)];
      }
      scores.push_back(dot / std::sqrt(static_cast<double>(dim)));
    }
    const std::vector<double> weights = LogSoftmax(scores);
    for (int64_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (size_t j = first; j < values.size(); ++j) {
        sum += std::exp(weights[j - first]) * values[j][static_cast<size_t>(kv * dim + d)];
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
      std::vector<double> q = Multiply(name("self_attn.q_proj"), normed);
      std::vector<double> k = Multiply(name("self_attn.k_proj"), normed);
      NormAndRotate(name("self_attn.q_norm.weight"), position, &q);
      NormAndRotate(name("self_attn.k_norm.weight"), position, &k);
      keys.push_back(std::move(k));
      values.push_back(Multiply(name("self_attn.v_proj"), normed));
      const std::vector<double> attended =
          Multiply(name("self_attn.o_proj"), Attend(layer, q, keys, values));
      for (size_t d = 0; d < attended.size(); ++d) x[i][d] += attended[d];
      const std::vector<double> inner = Norm(name("post_attention_layernorm.weight"), x[i]);
      std::vector<double> gate = Multiply(name("mlp.gate_proj"), inner);
      const std::vector<double> up = Multiply(name("mlp.up_proj"), inner);
      for (size_t d = 0; d < gate.size(); ++d) gate[d] *= up[d] / (1 + std::exp(-gate[d]));
      const std::vector<double> down = Multiply(name("mlp.down_proj"), gate);
      for (size_t d = 0; d < down.size(); ++d) x[i][d] += down[d];
    }
  }
  std::vector<double> logits;
  for (const std::vector<double>& state : x) {
    const std::vector<double> normed = Norm(std::string(kFinalNormName), state);
    const std::vector<double> row =
        Multiply(config_.tied_head ? "model.embed_tokens" : "lm_head", normed);
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
