// A whole model whose weights were rounded to another form while they were loaded, against the
// double-precision oracle over the weights as stored.
#include "tests/engine/model/batch_under_test.h"

// Catch2 follows what includes base/check.h: in a test, CHECK is Catch2's.
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "tests/testing/reference_forward.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/tiny_model.h"

namespace fastgen {
namespace {

using ::fastgen::testing::ModelUnderTest;
using ::fastgen::testing::RandomIds;
using ::fastgen::testing::ReferenceModel;
using ::fastgen::testing::TemporaryDirectory;
using ::fastgen::testing::TestModelOptions;
using ::fastgen::testing::TinyModel;

// bf16 weights, five layers, so that three are inside; rows of 128, a whole group of each form.
struct OnDisk {
  explicit OnDisk(int64_t num_layers) {
    TinyModel tiny;
    tiny.matrix_dtype = tiny.embedding_dtype = DType::kBF16;
    tiny.config.num_layers = num_layers;
    tiny.config.hidden = 128;
    tiny.config.ffn = 256;
    tiny.config.q_heads = 8;
    tiny.config.kv_heads = 4;
    tiny.WriteDirectory(directory.path());
  }
  std::vector<float> Logits(ComputeDType compute_dtype, WeightForm form,
                            const std::vector<int32_t>& ids) const {
    TestModelOptions options;
    options.compute_dtype = compute_dtype;
    options.weights_form = form;
    return ModelUnderTest(directory.path(), options).Logits(ids);
  }
  TemporaryDirectory directory;
};

// Root of the mean squared difference, in deviations of the reference.
template <typename T>
double RmsError(const std::vector<float>& logits, const std::vector<T>& reference) {
  double squares = 0, sum = 0, sum_squares = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = static_cast<double>(reference[i]);
    squares += (logits[i] - expected) * (logits[i] - expected);
    sum += expected;
    sum_squares += expected * expected;
  }
  const double count = static_cast<double>(logits.size());
  return std::sqrt(squares / (sum_squares - sum * sum / count));
}

// What rounding one weight costs, relative to the weights' deviation s: bf16 2^-9 / sqrt(3) of the
// weight. A group of uniform weights spans 3.46 s, so a step is 3.46 s / 254 (8 bits) or / 15 (4
// bits) and the error 0.29 steps: 0.004 and 0.067. e4m3 costs up to 2^-4 of the weight, 0.025 on the
// mean, and as much again for its activation. A product has its weights' relative error; sixteen to
// twenty of them on the way, and attention, make ten times as much of it in this model (six
// products for fp8). Measured on 2026-11-22, fp32 and serving: bf16 2e-6 and 0.019, int8 0.040 and
// 0.060, int8-g128 0.043 and 0.064, int4 0.43 and 0.43, int4-g128 0.48 and 0.48, fp8 0.061 and
// 0.086. The bounds leave one and a half times that; a wrong scale or sign gives 1.4.
TEST_CASE("a model with converted weights stays within its form's error of the oracle",
          "[model][forward]") {
  const OnDisk model(5);
  const std::vector<int32_t> ids = RandomIds(60, 3, 80);
  const std::vector<double> oracle =
      ReferenceModel::Load(**Checkpoint::Open(model.directory.path())).Logits(ids);
  struct Case {
    WeightForm form;
    double fp32_bound;
    double serving_bound;
  };
  for (const Case& c : {Case{WeightForm::kBf16, 1e-4, 0.05},
                        Case{WeightForm::kInt8Group32, 0.06, 0.09},
                        Case{WeightForm::kInt8Group128, 0.065, 0.095},
                        Case{WeightForm::kInt4Group32, 0.65, 0.65},
                        Case{WeightForm::kInt4Group128, 0.72, 0.72},
                        Case{WeightForm::kFp8Rows, 0.09, 0.13}}) {
    const double fp32 = RmsError(model.Logits(ComputeDType::kF32, c.form, ids), oracle);
    const double serving = RmsError(model.Logits(ComputeDType::kAuto, c.form, ids), oracle);
    INFO(FormName(c.form) << ": fp32 " << fp32 << ", serving " << serving);
    CHECK(fp32 <= c.fp32_bound);
    CHECK(serving <= c.serving_bound);
    // It is the form that was asked for: bf16 weights stay as they were, no other form does.
    CHECK((fp32 > 1e-3) == (c.form != WeightForm::kBf16));
  }
}

TEST_CASE("fp8 logits stay near those of bf16, and equal them where no layer is inside",
          "[model][forward]") {
  const std::vector<int32_t> ids = RandomIds(60, 4, 80);
  const auto logits = [&](const OnDisk& model, WeightForm form) {
    return model.Logits(ComputeDType::kAuto, form, ids);
  };
  const OnDisk inner(5), outer(2);
  CHECK(RmsError(logits(inner, WeightForm::kFp8Rows), logits(inner, WeightForm::kBf16)) < 0.13);
  CHECK(logits(inner, WeightForm::kFp8Rows) != logits(inner, WeightForm::kBf16));
  CHECK(logits(outer, WeightForm::kFp8Rows) == logits(outer, WeightForm::kBf16));
}

}  // namespace
}  // namespace fastgen
