#include "kernels/cpu/stored_rows.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/strings.h"
#include "kernels/cpu/float_bits.h"

namespace fastgen::cpu {
namespace {

template <typename T>
T Read(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// 16 bytes: the low nibbles are elements 0 .. 15, the high ones 16 .. 31.
void DecodeNibbles(const uint8_t* bytes, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = bytes[i] & 15;
    q[i + 16] = bytes[i] >> 4;
  }
}

// The 32 bits of `bits` are bit 4 of 32 elements.
void AddFifthBits(uint32_t bits, uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] |= static_cast<uint8_t>((bits >> i & 1) << 4);
}

// 128 bytes; each 32 hold the low nibbles of 32 elements and the high nibbles of the next 32.
void DecodeLongNibbles(const uint8_t* bytes, uint8_t* q) {
  for (int part = 0; part < 4; ++part, bytes += 32, q += 64) {
    for (int i = 0; i < 32; ++i) {
      q[i] = bytes[i] & 15;
      q[i + 32] = bytes[i] >> 4;
    }
  }
}

// 64 bytes; each 32 hold four times 32 elements, two bits each, the lowest first.
void DecodePairs(const uint8_t* bytes, uint8_t* q) {
  for (int part = 0; part < 8; ++part, q += 32) {
    for (int i = 0; i < 32; ++i) q[i] = bytes[part / 4 * 32 + i] >> (part % 4 * 2) & 3;
  }
}

// 12 bytes of 8 scales and 8 minimums, 6 bits each: the first four lie in the low bits of bytes
// 0 .. 3 and 4 .. 7, the others in the nibbles of bytes 8 .. 11 and the high bits of 0 .. 7.
void DecodeSixBitScales(const uint8_t* bytes, StoredBlock* block) {
  for (int i = 0; i < 4; ++i) {
    block->scales[i] = bytes[i] & 63;
    block->minimums[i] = bytes[i + 4] & 63;
    block->scales[i + 4] = static_cast<uint8_t>((bytes[i + 8] & 15) | bytes[i] >> 6 << 4);
    block->minimums[i + 4] = static_cast<uint8_t>(bytes[i + 8] >> 4 | bytes[i + 4] >> 6 << 4);
  }
}

void DecodeQ2K(const uint8_t* bytes, StoredBlock* block) {
  for (int i = 0; i < 16; ++i) {
    block->scales[i] = bytes[i] & 15;
    block->minimums[i] = bytes[i] >> 4;
  }
  DecodePairs(bytes + 16, block->q);
  block->d = Read<uint16_t>(bytes + 80);
  block->m = Read<uint16_t>(bytes + 82);
}

void DecodeQ3K(const uint8_t* bytes, StoredBlock* block) {
  DecodePairs(bytes + 32, block->q);
  for (int e = 0; e < 256; ++e) {
    block->q[e] |= static_cast<uint8_t>((bytes[e % 32] >> (e / 32) & 1) << 2);
  }
  // Scale i has its low nibble in byte i % 8 (the high nibble of it for i >= 8) and its two high
  // bits in byte 8 + i % 4.
  const uint8_t* scales = bytes + 96;
  for (int i = 0; i < 16; ++i) {
    const int low = scales[i % 8] >> (i / 8 * 4) & 15;
    const int high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    block->scales[i] = static_cast<uint8_t>((low | high << 4) - 32);
  }
  block->d = Read<uint16_t>(bytes + 108);
}

void DecodeQ5K(const uint8_t* bytes, StoredBlock* block) {
  block->d = Read<uint16_t>(bytes);
  block->m = Read<uint16_t>(bytes + 2);
  DecodeSixBitScales(bytes + 4, block);
  DecodeLongNibbles(bytes + 48, block->q);
  for (int e = 0; e < 256; ++e) {
    block->q[e] |= static_cast<uint8_t>((bytes[16 + e % 32] >> (e / 32) & 1) << 4);
  }
}

// Byte l of each half (128 elements) holds the low nibbles of elements l and l + 64 of the half
// (l < 64); byte l of its 32 high bytes holds bits 4 and 5 of elements l, l + 32, l + 64, l + 96.
void DecodeQ6K(const uint8_t* bytes, StoredBlock* block) {
  DecodePairs(bytes + 128, block->q);
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 64; ++i) {
      uint8_t* low = block->q + 128 * half + i;
      const uint8_t byte = bytes[64 * half + i];
      low[0] = static_cast<uint8_t>(low[0] << 4 | (byte & 15));
      low[64] = static_cast<uint8_t>(low[64] << 4 | byte >> 4);
    }
  }
  std::memcpy(block->scales, bytes + 192, 16);
  block->d = Read<uint16_t>(bytes + 208);
}

void DecodeIq4Xs(const uint8_t* bytes, StoredBlock* block) {
  block->d = Read<uint16_t>(bytes);
  const int high = Read<uint16_t>(bytes + 2);
  for (int i = 0; i < 8; ++i) {
    const int low = bytes[4 + i / 2] >> (i % 2 * 4) & 15;
    block->scales[i] = static_cast<uint8_t>((low | (high >> (2 * i) & 3) << 4) - 32);
    DecodeNibbles(bytes + 8 + 16 * i, block->q + 32 * i);
  }
}

float FloatElement(DType dtype, const uint8_t* bytes, int64_t k) {
  switch (dtype) {
    case DType::kF32: return Read<float>(bytes + 4 * k);
    case DType::kF16: return F16ToFloat(Read<uint16_t>(bytes + 2 * k));
    default: return Bf16ToFloat(Read<uint16_t>(bytes + 2 * k));
  }
}

}  // namespace

absl::StatusOr<PanelFormat> PanelFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32: return PanelFormat::kF32;
    case DType::kF16: return PanelFormat::kF16;
    case DType::kBF16: return PanelFormat::kBF16;
    case DType::kQ4_0: return PanelFormat::kQ4_0;
    case DType::kQ4_1: return PanelFormat::kQ4_1;
    case DType::kQ5_0: return PanelFormat::kQ5_0;
    case DType::kQ5_1: return PanelFormat::kQ5_1;
    case DType::kQ8_0: return PanelFormat::kQ8_0;
    case DType::kIQ4_NL: return PanelFormat::kIQ4_NL;
    case DType::kQ2_K: return PanelFormat::kQ2_K;
    case DType::kQ3_K: return PanelFormat::kQ3_K;
    case DType::kQ4_K: return PanelFormat::kQ4_K;
    case DType::kQ5_K: return PanelFormat::kQ5_K;
    case DType::kQ6_K: return PanelFormat::kQ6_K;
    case DType::kIQ4_XS: return PanelFormat::kIQ4_XS;
    case DType::kI32:
    case DType::kI64: break;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the cpu backend has no matrix kernel for weights of type ", ToAbsl(Info(dtype).name)));
}

void DecodeBlock(DType dtype, const uint8_t* bytes, StoredBlock* block) {
  block->d = Read<uint16_t>(bytes);
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kIQ4_NL: return DecodeNibbles(bytes + 2, block->q);
    case DType::kQ4_1:
      block->m = Read<uint16_t>(bytes + 2);
      return DecodeNibbles(bytes + 4, block->q);
    case DType::kQ5_0:
      DecodeNibbles(bytes + 6, block->q);
      return AddFifthBits(Read<uint32_t>(bytes + 2), block->q);
    case DType::kQ5_1:
      block->m = Read<uint16_t>(bytes + 2);
      DecodeNibbles(bytes + 8, block->q);
      return AddFifthBits(Read<uint32_t>(bytes + 4), block->q);
    case DType::kQ8_0:
      for (int i = 0; i < 32; ++i) block->q[i] = bytes[2 + i] ^ 0x80;
      return;
    case DType::kQ2_K: return DecodeQ2K(bytes, block);
    case DType::kQ3_K: return DecodeQ3K(bytes, block);
    case DType::kQ4_K:
      block->m = Read<uint16_t>(bytes + 2);
      DecodeSixBitScales(bytes + 4, block);
      return DecodeLongNibbles(bytes + 16, block->q);
    case DType::kQ5_K: return DecodeQ5K(bytes, block);
    case DType::kQ6_K: return DecodeQ6K(bytes, block);
    case DType::kIQ4_XS: return DecodeIq4Xs(bytes, block);
    default: CHECK(false) << Info(dtype).name;
  }
}

float FactorOf(const PanelTraits& traits, float d, int8_t scale) {
  return traits.halves > 0 ? d * static_cast<float>(scale) : d;
}

float AddendOf(const PanelTraits& traits, float m, uint8_t minimum) {
  if (!traits.has_minimum) return 0;
  return traits.halves > 0 ? -(m * static_cast<float>(minimum)) : m;
}

void DequantizeStoredRow(DType dtype, const uint8_t* bytes, int64_t cols, float* out) {
  if (!IsBlockType(dtype)) {
    for (int64_t k = 0; k < cols; ++k) out[k] = FloatElement(dtype, bytes, k);
    return;
  }
  const DTypeInfo info = Info(dtype);
  const PanelTraits traits = TraitsOf(*PanelFormatOf(dtype));
  const int run = traits.halves == 2 ? kHalfGroup : kGroup;  // elements of one scale
  StoredBlock block;
  for (int64_t k = 0; k < cols; k += info.block_elements, bytes += info.block_bytes) {
    DecodeBlock(dtype, bytes, &block);
    const float d = F16ToFloat(block.d), m = F16ToFloat(block.m);
    for (int e = 0; e < info.block_elements; e += run) {
      const int s = info.block_elements == kGroup ? 0 : e / run;
      const float factor = FactorOf(traits, d, static_cast<int8_t>(block.scales[s]));
      const float addend = AddendOf(traits, m, block.minimums[s]);
      for (int i = e; i < e + run; ++i) {
        out[k + i] = ValueOf(traits, block.q[i], factor, addend);
      }
    }
  }
}

}  // namespace fastgen::cpu
