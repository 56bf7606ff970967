#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "kernels/cpu/convert_rows.h"
#include "kernels/cpu/float_bits.h"
#include "kernels/cpu/stored_rows.h"

namespace fastgen::cpu {
namespace {

constexpr int kN = kPanelOutputs;

template <typename T>
T Read(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// Integers of one group to output n, step by step: unit s is k = 4 s .. 4 s + 3 (panel.h).
void PackGroup(const PanelTraits& traits, const uint8_t* q, int n, uint8_t* group) {
  uint32_t units[8];
  std::memcpy(units, q, sizeof(units));
  const auto store = [&](int vector_offset, uint32_t unit) {
    std::memcpy(group + vector_offset + 4 * n, &unit, 4);
  };
  if (traits.bits == 8) {
    for (int s = 0; s < 8; ++s) store(64 * s, units[s]);
  }
  for (int j = 0; traits.has_nibbles() && j < 4; ++j) {
    store(64 * j, (units[j] & 0x0f0f0f0f) | (units[j + 4] & 0x0f0f0f0f) << 4);
  }
  for (int h = 0; traits.has_pairs() && h < 2; ++h) {
    uint32_t pairs = 0;
    for (int j = 0; j < 4; ++j) {
      pairs |= (units[4 * h + j] >> traits.pairs_shift() & 0x03030303) << (2 * j);
    }
    store(traits.pairs_offset() + 64 * h, pairs);
  }
  if (traits.has_bits()) {
    uint32_t bits = 0;
    for (int s = 0; s < 8; ++s) bits |= (units[s] >> traits.bits_shift() & 0x01010101) << s;
    store(traits.bits_offset(), bits);
  }
}

// The inverse.
void UnpackGroup(const PanelTraits& traits, const uint8_t* group, int n, uint8_t* q) {
  uint32_t units[8];
  const uint8_t* in = group + 4 * n;
  for (int s = 0; s < 8; ++s) {
    const int h = s / 4, j = s % 4;
    units[s] = traits.bits == 8 ? Read<uint32_t>(in + 64 * s) : 0;
    if (traits.has_nibbles()) units[s] = Read<uint32_t>(in + 64 * j) >> (4 * h) & 0x0f0f0f0f;
    if (traits.has_pairs()) {
      const uint32_t pairs = Read<uint32_t>(in + traits.pairs_offset() + 64 * h);
      units[s] |= (pairs >> (2 * j) & 0x03030303) << traits.pairs_shift();
    }
    if (traits.has_bits()) {
      units[s] |= (Read<uint32_t>(in + traits.bits_offset()) >> s & 0x01010101)
                  << traits.bits_shift();
    }
  }
  std::memcpy(q, units, sizeof(units));
}

void PackBlock(const PanelTraits& traits, const StoredBlock& block, int64_t num_groups, int n,
               uint8_t* panel) {
  std::memcpy(panel + 2 * n, &block.d, 2);
  if (traits.has_minimum) std::memcpy(panel + kMinimumOffset + 2 * n, &block.m, 2);
  uint8_t* group = panel + traits.header_bytes();
  for (int64_t g = 0; g < num_groups; ++g, group += traits.group_bytes()) {
    PackGroup(traits, block.q + kGroup * g, n, group);
    for (int h = 0; h < traits.halves; ++h) {
      const int64_t s = g * traits.halves + h;
      group[traits.scales_offset() + kN * h + n] = block.scales[s];
      if (traits.has_minimum) group[traits.minimums_offset() + kN * h + n] = block.minimums[s];
    }
  }
}

// Groups of the block that begins at group `first` of a row.
int64_t GroupsOfBlock(const PanelTraits& traits, int64_t first, int64_t cols) {
  return std::min<int64_t>(traits.groups_per_block, cols / kGroup - first);
}

void PackStoredBlocks(DType dtype, PanelFormat format, const uint8_t* row, int64_t cols, int n,
                      uint8_t* panel) {
  const PanelTraits traits = TraitsOf(format);
  const DTypeInfo info = Info(dtype);
  const int64_t groups = info.block_elements / kGroup;
  const int64_t block_bytes = PanelBytes(format, info.block_elements);
  StoredBlock block;
  for (int64_t k = 0; k < cols; k += info.block_elements, row += info.block_bytes) {
    DecodeBlock(dtype, row, &block);
    PackBlock(traits, block, groups, n, panel);
    panel += block_bytes;
  }
}

void PackElements(const uint8_t* row, int64_t cols, int element_bytes, int n, uint8_t* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    std::memcpy(panel + (k * kN + n) * element_bytes, row + k * element_bytes, element_bytes);
  }
}

uint8_t* Bf16At(uint8_t* panel, int64_t k, int n) {
  return panel + k / 2 * 64 + 4 * n + k % 2 * 2;
}

void PackFloatsAsBf16(const float* values, int64_t cols, int n, uint8_t* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    const uint16_t bits = FloatToBf16(values[k]);
    std::memcpy(Bf16At(panel, k, n), &bits, 2);
  }
}

// Packs one source row as output n of a zero-filled panel, as it is.
void PackRow(DType dtype, PanelFormat format, const uint8_t* row, int64_t cols, int n,
             uint8_t* panel) {
  switch (format) {
    case PanelFormat::kF32: return PackElements(row, cols, 4, n, panel);
    case PanelFormat::kF16: return PackElements(row, cols, 2, n, panel);
    case PanelFormat::kBF16:
      for (int64_t k = 0; k < cols; ++k) std::memcpy(Bf16At(panel, k, n), row + 2 * k, 2);
      return;
    default: return PackStoredBlocks(dtype, format, row, cols, n, panel);
  }
}

// Packs a row of floats, which it overwrites, rounded to the format.
void PackConverted(PanelFormat format, float* values, int64_t cols, int n, uint8_t* panel) {
  if (format == PanelFormat::kFp8) {
    const float scale = QuantizeRowToE4m3(values, cols);
    std::memcpy(panel + PanelBytes(PanelFormat::kBF16, cols) + 4 * n, &scale, 4);
  }
  if (!IsIntegerFormat(format)) return PackFloatsAsBf16(values, cols, n, panel);
  const PanelTraits traits = TraitsOf(format);
  StoredBlock block;
  for (int64_t first = 0; first < cols / kGroup; first += traits.groups_per_block) {
    const int64_t groups = GroupsOfBlock(traits, first, cols);
    QuantizeBlock(format, values + first * kGroup, static_cast<int>(groups * kGroup), &block);
    PackBlock(traits, block, groups, n, panel);
    panel += PanelBytes(format, groups * kGroup);
  }
}

void DequantizeIntegers(PanelFormat format, const uint8_t* panel, int64_t cols, int n, float* out) {
  const PanelTraits traits = TraitsOf(format);
  uint8_t q[kGroup];
  for (int64_t first = 0; first < cols / kGroup; first += traits.groups_per_block) {
    const float d = F16ToFloat(Read<uint16_t>(panel + 2 * n));
    const float m =
        traits.has_minimum ? F16ToFloat(Read<uint16_t>(panel + kMinimumOffset + 2 * n)) : 0;
    panel += traits.header_bytes();
    const int64_t groups = GroupsOfBlock(traits, first, cols);
    for (int64_t g = 0; g < groups; ++g, panel += traits.group_bytes()) {
      UnpackGroup(traits, panel, n, q);
      for (int e = 0; e < kGroup; e += kHalfGroup) {
        const int half = traits.halves == 2 ? e / kHalfGroup : 0;
        // One of no scales would lie past the group.
        const int at = traits.halves > 0 ? kN * half + n : -1;
        const uint8_t scale = at < 0 ? 0 : panel[traits.scales_offset() + at];
        const uint8_t minimum =
            at < 0 || !traits.has_minimum ? 0 : panel[traits.minimums_offset() + at];
        const float factor = FactorOf(traits, d, static_cast<int8_t>(scale));
        const float addend = AddendOf(traits, m, minimum);
        for (int i = e; i < e + kHalfGroup; ++i) *out++ = ValueOf(traits, q[i], factor, addend);
      }
    }
  }
}

// Panels whose rows are packed between two calls of MatrixSource::rows_read. A row order may reach
// beyond a run's rows: one run for all then.
int64_t RunPanels(const MatrixSource& part, int64_t row_bytes) {
  constexpr int64_t kRunBytes = 64 << 20;
  const int64_t all = std::max<int64_t>(1, CeilDiv<int64_t>(part.rows, kN));
  return part.row_order.empty() ? std::clamp<int64_t>(kRunBytes / (kN * row_bytes), 1, all) : all;
}

// Tells that the rows of panels [begin, end) are next, as far as there are any.
void WillRead(const MatrixSource& part, int64_t begin, int64_t end) {
  const int64_t rows = std::min(end * kN, part.rows);
  if (part.will_read && begin * kN < rows) part.will_read(begin * kN, rows);
}

absl::StatusOr<PanelFormat> FormatFor(const MatrixSource& part) {
  ASSIGN_OR_RETURN(const PanelFormat stored, PanelFormatOf(part.dtype));
  if (part.form == WeightForm::kAsStored) return stored;
  const PanelFormat format = PanelFormatOf(part.form);
  if (IsIntegerFormat(format) && part.cols % kGroup != 0) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", part.cols,
                                                   " weights cannot become ",
                                                   ToAbsl(FormName(part.form)),
                                                   ", which takes a multiple of ", kGroup));
  }
  return format;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> CpuPackedMatrix::Pack(
    absl::Span<const MatrixSource> parts, HostArena* arena, ThreadPool* pool) {
  CHECK(!parts.empty());
  std::unique_ptr<CpuPackedMatrix> matrix(new CpuPackedMatrix);
  matrix->cols_ = parts[0].cols;
  int64_t bytes = 0;
  for (const MatrixSource& part : parts) {
    CHECK_EQ(part.cols, matrix->cols_);
    CHECK_EQ(part.cols % Info(part.dtype).block_elements, 0);
    CHECK(part.row_order.empty() || static_cast<int64_t>(part.row_order.size()) == part.rows);
    PanelSegment segment;
    ASSIGN_OR_RETURN(segment.format, FormatFor(part));
    segment.first_row = matrix->rows_;
    segment.rows = part.rows;
    segment.num_panels = CeilDiv<int64_t>(part.rows, kN);
    segment.panel_bytes = PanelBytes(segment.format, part.cols);
    matrix->rows_ += part.rows;
    bytes += segment.num_panels * segment.panel_bytes;
    matrix->segments_.push_back(segment);
  }
  matrix->bytes_ = bytes;
  ASSIGN_OR_RETURN(matrix->memory_, arena->Take(bytes));
  uint8_t* next = matrix->memory_.get();
  for (size_t i = 0; i < parts.size(); ++i) {
    const MatrixSource& part = parts[i];
    PanelSegment& segment = matrix->segments_[i];
    segment.panels = next;
    const int64_t row_bytes = BytesOf(part.dtype, part.cols);
    const bool is_kept = segment.format == *PanelFormatOf(part.dtype);
    const auto pack_panels = [&](int64_t begin, int64_t end) {
      std::vector<float> values(is_kept ? 0 : part.cols);
      for (int64_t row = begin * kN; row < std::min(end * kN, part.rows); ++row) {
        const int64_t from = part.row_order.empty() ? row : part.row_order[row];
        const uint8_t* stored = static_cast<const uint8_t*>(part.data) + from * row_bytes;
        uint8_t* panel = next + row / kN * segment.panel_bytes;
        const int n = static_cast<int>(row % kN);
        if (is_kept) {
          PackRow(part.dtype, segment.format, stored, part.cols, n, panel);
        } else {
          DequantizeStoredRow(part.dtype, stored, part.cols, values.data());
          PackConverted(segment.format, values.data(), part.cols, n, panel);
        }
      }
    };
    const int64_t run = RunPanels(part, row_bytes);
    WillRead(part, 0, run);
    for (int64_t first = 0; first < segment.num_panels; first += run) {
      const int64_t last = std::min(first + run, segment.num_panels);
      WillRead(part, last, last + run);
      pool->ParallelFor(last - first, 4, [&](int64_t begin, int64_t end, int) {
        pack_panels(first + begin, first + end);
      });
      if (part.rows_read) part.rows_read(first * kN, std::min(last * kN, part.rows));
    }
    next += segment.num_panels * segment.panel_bytes;
  }
  return matrix;
}

void CpuPackedMatrix::DequantizeRow(int64_t row, float* out) const {
  CHECK(row >= 0 && row < rows_) << "row " << row << " of " << rows_;
  size_t i = segments_.size() - 1;
  while (segments_[i].first_row > row) --i;
  const PanelSegment& segment = segments_[i];
  const int64_t local = row - segment.first_row;
  const uint8_t* panel = segment.panels + local / kN * segment.panel_bytes;
  const int n = static_cast<int>(local % kN);
  switch (segment.format) {
    case PanelFormat::kF32:
      for (int64_t k = 0; k < cols_; ++k) out[k] = Read<float>(panel + k * 64 + 4 * n);
      return;
    case PanelFormat::kF16:
      for (int64_t k = 0; k < cols_; ++k) {
        out[k] = F16ToFloat(Read<uint16_t>(panel + k * 32 + 2 * n));
      }
      return;
    case PanelFormat::kBF16:
    case PanelFormat::kFp8: {
      const float scale =
          segment.format == PanelFormat::kFp8 ? segment.RowScales(local / kN, cols_)[n] : 1;
      for (int64_t k = 0; k < cols_; ++k) {
        out[k] = scale * Bf16ToFloat(Read<uint16_t>(panel + k / 2 * 64 + 4 * n + k % 2 * 2));
      }
      return;
    }
    default: return DequantizeIntegers(segment.format, panel, cols_, n, out);
  }
}

}  // namespace fastgen::cpu
