// StoredTensor: one tensor as it lies in a weight file.
// Thread rule: value; the bytes belong to the file's mapping.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace fastgen {

struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // outermost dimension first
  const char* data = nullptr;  // row-major, any alignment
  int64_t bytes = 0;

  absl::Span<const char> span() const {
    return absl::MakeConstSpan(data, static_cast<size_t>(bytes));
  }
};

// "[576, 1536]".
std::string ShapeString(absl::Span<const int64_t> shape);

}  // namespace fastgen
