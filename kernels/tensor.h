// Tensor: a non-owning view of row-major memory.
//
// Rows (dimension 0) may be `row_stride` elements apart, so that q, k and v can be views into one projection; all
// inner dimensions are contiguous. Block dtypes appear only in weight sources, never here.
// Thread rule: a value; what it points at belongs to whoever allocated it.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "kernels/dtype.h"

namespace fastgen {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> dims = {1, 1, 1, 1};
  int64_t row_stride = 0;  // elements from one index of dimension 0 to the next

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape)
      : data(data), dtype(dtype), rank(static_cast<int>(shape.size())) {
    CHECK(rank >= 1 && rank <= 4);
    int i = 0;
    for (int64_t d : shape) dims[i++] = d;
    row_stride = dims[1] * dims[2] * dims[3];
  }

  int64_t rows() const { return dims[0]; }
  int64_t cols() const { return dims[1] * dims[2] * dims[3]; }
  int64_t num_elements() const { return rows() * cols(); }
  bool contiguous() const { return row_stride == cols(); }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }

  // Rows [begin, begin + count).
  Tensor Rows(int64_t begin, int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= rows());
    Tensor view = *this;
    view.data = static_cast<char*>(data) + BytesOf(dtype, begin * row_stride);
    view.dims[0] = count;
    return view;
  }

  // Columns [begin, begin + count) of a matrix.
  Tensor Cols(int64_t begin, int64_t count) const {
    CHECK(rank == 2 && begin >= 0 && count >= 0 && begin + count <= dims[1]);
    Tensor view = *this;
    view.data = static_cast<char*>(data) + BytesOf(dtype, begin);
    view.dims[1] = count;
    return view;
  }
};

}  // namespace fastgen
