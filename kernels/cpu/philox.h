// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a block cipher used as a random number generator. A draw depends on its key and counter
// alone, never on draws before it. Thread rule: pure functions. Tested by
// tests/kernels/sampling_test.cc against the paper's known answers.
#pragma once

#include <array>
#include <cstdint>

namespace fastgen::cpu {

inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter,
                                          std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The draw of one output token, in (0, 1): 53 bits at the middle of their interval.
inline double UniformDraw(uint64_t seed, uint32_t choice_index, uint32_t output_position) {
  const std::array<uint32_t, 4> words =
      Philox4x32({output_position, choice_index, 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 32 | words[1]) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

}  // namespace fastgen::cpu
