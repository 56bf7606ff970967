#include "kernels/cpu/convert_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/cpu/float_bits.h"

namespace fastgen::cpu {
namespace {

constexpr uint16_t kNanF16 = 0x7e00;
constexpr float kMaxF16 = 65504;

struct Range {
  float min = 0;
  float max = 0;
  bool is_finite = true;
};

Range RangeOf(const float* values, int64_t count) {
  Range range = {values[0], values[0], true};
  float taint = 0;
  for (int64_t i = 0; i < count; ++i) {
    range.min = std::min(range.min, values[i]);
    range.max = std::max(range.max, values[i]);
    taint += values[i] * 0.0f;
  }
  range.is_finite = taint == 0;
  return range;
}

// The f16 nearest to a finite value, and not infinity.
uint16_t FiniteF16(float value) { return FloatToF16(std::clamp(value, -kMaxF16, kMaxF16)); }

float Inverse(float d) { return d == 0 ? 0 : 1 / d; }

uint8_t Rounded(float value, float min, float max, int zero_point) {
  return static_cast<uint8_t>(static_cast<int>(std::nearbyint(std::clamp(value, min, max))) +
                              zero_point);
}

}  // namespace

PanelFormat PanelFormatOf(WeightForm form) {
  switch (form) {
    case WeightForm::kBf16: return PanelFormat::kBF16;
    case WeightForm::kInt8Group32: return PanelFormat::kQ8_0;
    case WeightForm::kInt8Group128: return PanelFormat::kQ8_G128;
    case WeightForm::kInt4Group32: return PanelFormat::kQ4_1;
    case WeightForm::kInt4Group128: return PanelFormat::kQ4_G128;
    case WeightForm::kFp8Rows: return PanelFormat::kFp8;
    case WeightForm::kAsStored: break;
  }
  CHECK(false) << "as stored is no conversion";
}

void QuantizeBlock(PanelFormat format, const float* values, int count, StoredBlock* block) {
  const PanelTraits traits = TraitsOf(format);
  const Range range = RangeOf(values, count);
  if (!range.is_finite) {
    block->d = block->m = kNanF16;
    std::fill_n(block->q, count, uint8_t{0});
    return;
  }
  if (traits.has_minimum) {
    block->m = FiniteF16(range.min);
    const float m = F16ToFloat(block->m);
    block->d = FiniteF16((range.max - m) / 15);
    const float inverse = Inverse(F16ToFloat(block->d));
    for (int i = 0; i < count; ++i) block->q[i] = Rounded((values[i] - m) * inverse, 0, 15, 0);
    return;
  }
  block->d = FiniteF16(std::max(-range.min, range.max) / 127);
  const float inverse = Inverse(F16ToFloat(block->d));
  for (int i = 0; i < count; ++i) {
    block->q[i] = Rounded(values[i] * inverse, -127, 127, traits.zero_point);
  }
}

float QuantizeRowToE4m3(float* values, int64_t count) {
  const Range range = RangeOf(values, count);
  const float scale = range.is_finite ? std::max(-range.min, range.max) / 448
                                      : std::numeric_limits<float>::quiet_NaN();
  for (int64_t k = 0; k < count; ++k) {
    values[k] = scale > 0 ? RoundToE4m3(values[k] / scale) : 0;
  }
  return scale;
}

}  // namespace fastgen::cpu
