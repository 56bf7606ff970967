// Integer arithmetic that says what it means.
// Thread rule: any thread.
#pragma once

#include <concepts>

namespace fastgen {

// Smallest integer >= a / b. REQUIRES: a >= 0, b > 0.
template <std::integral T>
constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}

// Smallest multiple of `b` that is >= a. REQUIRES: a >= 0, b > 0.
template <std::integral T>
constexpr T RoundUp(T a, T b) {
  return CeilDiv(a, b) * b;
}

}  // namespace fastgen
