#include "kernels/cpu/packed_matrix.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "kernels/cpu/float_bits.h"

namespace fastgen::cpu {
namespace {

constexpr int kN = kPanelOutputs;

absl::StatusOr<PanelFormat> FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PanelFormat::kF32;
    case DType::kF16:
      return PanelFormat::kF16;
    case DType::kBF16:
      return PanelFormat::kBF16;
    case DType::kQ4_0:
      return PanelFormat::kQ4_0;
    case DType::kQ4_1:
      return PanelFormat::kQ4_1;
    case DType::kQ8_0:
      return PanelFormat::kQ8_0;
    case DType::kQ6_K:
      return PanelFormat::kQ6_K;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "the cpu backend has no matrix kernel for weights of type ", ToAbsl(Info(dtype).name)));
  }
}

// Copies 4-byte units of a group's quantised bytes to output n of a panel block: source unit j
// becomes bytes 4 n .. 4 n + 3 of vector j.
void SpreadUnits(const uint8_t* source, int num_units, uint32_t flip, int n, uint8_t* block) {
  for (int j = 0; j < num_units; ++j) {
    uint32_t unit;
    std::memcpy(&unit, source + 4 * j, 4);
    unit ^= flip;
    std::memcpy(block + 64 * j + 4 * n, &unit, 4);
  }
}

void PackQ4Row(const uint8_t* row, int64_t num_groups, int64_t num_scale_bytes, int n,
               uint8_t* panel) {
  const int64_t block_bytes = kNibbleBytes + kN * num_scale_bytes;
  for (int64_t g = 0; g < num_groups; ++g, row += num_scale_bytes + 16, panel += block_bytes) {
    for (int64_t s = 0; s < num_scale_bytes; s += 2) {
      std::memcpy(panel + kNibbleBytes + kN * s + 2 * n, row + s, 2);
    }
    SpreadUnits(row + num_scale_bytes, 4, 0, n, panel);
  }
}

void PackQ8Row(const uint8_t* row, int64_t num_groups, int n, uint8_t* panel) {
  for (int64_t g = 0; g < num_groups; ++g, row += 34, panel += GroupBytes(PanelFormat::kQ8_0)) {
    std::memcpy(panel + kQ8Bytes + 2 * n, row, 2);
    SpreadUnits(row + 2, 8, 0x80808080, n, panel);
  }
}

// GGUF: byte l of each half (128 elements) holds the low nibbles of elements l and l + 64 of the
// half (l < 64); byte l of its 32 high bytes holds bits 4 and 5 of elements l, l + 32, l + 64, l
// + 96.
int Q6At(const uint8_t* block, int element) {
  const int half = element / 128, e = element % 128;
  const int low = block[64 * half + e % 64] >> (e < 64 ? 0 : 4) & 15;
  const int high = block[128 + 32 * half + e % 32] >> (e / 32 * 2) & 3;
  return low | high << 4;
}

void PackQ6Row(const uint8_t* row, int64_t num_groups, int n, uint8_t* panel) {
  for (int64_t g = 0; g < num_groups; ++g, panel += GroupBytes(PanelFormat::kQ6_K)) {
    const uint8_t* block = row + g / 8 * 210;
    const int first = static_cast<int>(g % 8) * kGroup;
    std::memcpy(panel + kQ6DeltaOffset + 2 * n, block + 208, 2);
    for (int h = 0; h < 2; ++h) panel[kQ6ScaleOffset + kN * h + n] = block[192 + first / 16 + h];
    for (int j = 0; j < 4; ++j) {
      for (int b = 0; b < 4; ++b) {
        const int q0 = Q6At(block, first + 4 * j + b);
        const int q1 = Q6At(block, first + 16 + 4 * j + b);
        panel[64 * j + 4 * n + b] = static_cast<uint8_t>((q0 & 15) | (q1 & 15) << 4);
        panel[kQ6HighOffset + 4 * n + b] |= static_cast<uint8_t>(q0 >> 4 << (2 * j));
        panel[kQ6HighOffset + 64 + 4 * n + b] |= static_cast<uint8_t>(q1 >> 4 << (2 * j));
      }
    }
  }
}

void PackElements(const uint8_t* row, int64_t cols, int64_t element_bytes, int n, uint8_t* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    std::memcpy(panel + (k * kN + n) * element_bytes, row + k * element_bytes, element_bytes);
  }
}

void PackBf16Row(const uint8_t* row, int64_t cols, int n, uint8_t* panel) {
  for (int64_t k = 0; k < cols; ++k)
    std::memcpy(panel + k / 2 * 64 + 4 * n + k % 2 * 2, row + 2 * k, 2);
}

// Packs one source row as output n of a zero-filled panel.
void PackRow(PanelFormat format, const uint8_t* row, int64_t cols, int n, uint8_t* panel) {
  const int64_t num_groups = cols / kGroup;
  switch (format) {
    case PanelFormat::kF32:
      return PackElements(row, cols, 4, n, panel);
    case PanelFormat::kF16:
      return PackElements(row, cols, 2, n, panel);
    case PanelFormat::kBF16:
      return PackBf16Row(row, cols, n, panel);
    case PanelFormat::kQ4_0:
      return PackQ4Row(row, num_groups, 2, n, panel);
    case PanelFormat::kQ4_1:
      return PackQ4Row(row, num_groups, 4, n, panel);
    case PanelFormat::kQ8_0:
      return PackQ8Row(row, num_groups, n, panel);
    case PanelFormat::kQ6_K:
      return PackQ6Row(row, num_groups, n, panel);
  }
}

template <typename T>
T Read(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float ReadF16(const uint8_t* p) { return F16ToFloat(Read<uint16_t>(p)); }

// Element e (< 32) of output n in a block of an integer format.
float ElementAt(PanelFormat format, const uint8_t* block, int n, int e) {
  const int half = e / 16, j = e % 16 / 4, b = e % 4;
  const int at = 64 * j + 4 * n + b;
  const int nibble = block[at] >> (4 * half) & 15;
  switch (format) {
    case PanelFormat::kQ4_0:
      return ReadF16(block + kNibbleBytes + 2 * n) * static_cast<float>(nibble - 8);
    case PanelFormat::kQ4_1:
      return ReadF16(block + kNibbleBytes + 2 * n) * static_cast<float>(nibble) +
             ReadF16(block + kNibbleBytes + 32 + 2 * n);
    case PanelFormat::kQ8_0:
      return ReadF16(block + kQ8Bytes + 2 * n) *
             static_cast<float>(block[64 * (e / 4) + 4 * n + b] - 128);
    case PanelFormat::kQ6_K: {
      const int high = block[kQ6HighOffset + 64 * half + 4 * n + b] >> (2 * j) & 3;
      const int scale = static_cast<int8_t>(block[kQ6ScaleOffset + kN * half + n]);
      return ReadF16(block + kQ6DeltaOffset + 2 * n) *
             static_cast<float>(scale * ((nibble | high << 4) - 32));
    }
    default:
      return 0;
  }
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
    ASSIGN_OR_RETURN(segment.format, FormatOf(part.dtype));
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
    pool->ParallelFor(segment.num_panels, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin * kN; row < std::min(end * kN, part.rows); ++row) {
        const int64_t from = part.row_order.empty() ? row : part.row_order[row];
        PackRow(segment.format, static_cast<const uint8_t*>(part.data) + from * row_bytes,
                part.cols, static_cast<int>(row % kN), next + row / kN * segment.panel_bytes);
      }
    });
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
      for (int64_t k = 0; k < cols_; ++k) out[k] = ReadF16(panel + k * 32 + 2 * n);
      return;
    case PanelFormat::kBF16:
      for (int64_t k = 0; k < cols_; ++k) {
        out[k] = Bf16ToFloat(Read<uint16_t>(panel + k / 2 * 64 + 4 * n + k % 2 * 2));
      }
      return;
    default:
      break;
  }
  const int64_t block_bytes = GroupBytes(segment.format);
  for (int64_t k = 0; k < cols_; ++k) {
    out[k] = ElementAt(segment.format, panel + k / kGroup * block_bytes, n,
                       static_cast<int>(k % kGroup));
  }
}

}  // namespace fastgen::cpu
