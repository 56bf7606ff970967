// KV pages on a backend, filled through RopeAndWriteKv and read through PagedAttention, for tests
// that know nothing of how a page is arranged.
//
// Every slot starts as NaN: what was not written must not be read.
// Thread rule: the test's main thread.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "tests/kernels/backends_under_test.h"

namespace fastgen::testing {

inline double ToBf16(double x) {
  float value = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&value, &bits, 4);
  return value;
}

class Pages {
 public:
  Pages(Backend* backend, const AttentionShape& shape, int64_t num_blocks, int64_t block_size)
      : backend_(backend), shape_(shape), block_size_(block_size) {
    const std::initializer_list<int64_t> dims = {num_blocks, shape.kv_heads, block_size,
                                                 shape.head_dim};
    const int64_t count = num_blocks * shape.kv_heads * block_size * shape.head_dim;
    k_memory_ = *backend->Allocate(BytesOf(backend->kv_dtype(), count));
    v_memory_ = *backend->Allocate(BytesOf(backend->kv_dtype(), count));
    std::memset(k_memory_->data(), 0xff, k_memory_->bytes());
    std::memset(v_memory_->data(), 0xff, v_memory_->bytes());
    k = Tensor(k_memory_->data(), backend->kv_dtype(), dims);
    v = Tensor(v_memory_->data(), backend->kv_dtype(), dims);
  }

  int64_t width() const { return (shape_.q_heads + 2 * shape_.kv_heads) * shape_.head_dim; }

  // Positions [begin, end) of a sequence: writes k and v, then attends. Angles are zero: RoPE is
  // the identity.
  std::vector<float> Step(const std::vector<float>& qkv, const std::vector<int32_t>& table,
                          int64_t begin, int64_t end) {
    std::vector<float> rows(qkv.begin() + begin * width(), qkv.begin() + end * width());
    const int64_t count = end - begin;
    std::vector<float> cos_sin(end * shape_.head_dim);
    for (int64_t p = 0; p < end; ++p) {
      std::fill_n(cos_sin.begin() + p * shape_.head_dim, shape_.head_dim / 2, 1.0f);
    }
    std::vector<int32_t> positions(count);
    std::vector<int64_t> slots(count);
    for (int64_t i = 0; i < count; ++i) {
      positions[i] = static_cast<int32_t>(begin + i);
      slots[i] = table[(begin + i) / block_size_] * block_size_ + (begin + i) % block_size_;
    }
    backend_->RopeAndWriteKv(View(rows, count, width()), shape_,
                             View(cos_sin, end, shape_.head_dim), absl::MakeSpan(positions),
                             absl::MakeSpan(slots), k, v);
    return Attend(std::move(rows), table, {{begin, end}});
  }

  // What the rows [begin, end) of each part get, each part a sequence of its own in one step: all
  // on the same pages, which hold the keys and values of every row.
  struct Part {
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<float> Attend(std::vector<float> rows, const std::vector<int32_t>& table,
                            const std::vector<Part>& parts) {
    const int64_t count = static_cast<int64_t>(rows.size()) / width();
    const int64_t out_width = shape_.q_heads * shape_.head_dim;
    const int64_t num_blocks = static_cast<int64_t>(table.size());
    std::vector<int32_t> starts = {0}, contexts, tables;
    for (const Part& part : parts) {
      starts.push_back(starts.back() + static_cast<int32_t>(part.end - part.begin));
      contexts.push_back(static_cast<int32_t>(part.end));
      tables.insert(tables.end(), table.begin(), table.end());
    }
    std::vector<float> out(count * out_width);
    backend_->PagedAttention(
        View(rows, count, width()).Cols(0, out_width), shape_,
        {absl::MakeSpan(starts), absl::MakeSpan(contexts), absl::MakeSpan(tables), num_blocks}, k,
        v, View(out, count, out_width));
    return out;
  }

  Tensor k, v;

 private:
  Backend* backend_;
  AttentionShape shape_;
  int64_t block_size_;
  std::unique_ptr<Buffer> k_memory_, v_memory_;
};

// Block ids of a sequence of `count` blocks: every second one below 2 count, backwards.
inline std::vector<int32_t> Table(int64_t count) {
  std::vector<int32_t> table(count);
  for (int64_t i = 0; i < count; ++i) table[i] = static_cast<int32_t>(2 * (count - i) - 1);
  return table;
}

}  // namespace fastgen::testing
