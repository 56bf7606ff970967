// RuledLogits: a row of logits as SampleRow's rules leave it, with the maxima of its chunks.
//
// A row is copied once - through the mask, where there is one, which skips chunks that it forbids -
// and then edited token by token. An edit that raises a logit raises its chunk's maximum; only a
// chunk whose maximum was lowered is scanned again. So rules cost a copy and what they name, and a
// row without rules costs nothing.
// Thread rule: one thread at a time uses an object.
// Tested by tests/kernels/sampling_rules_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

namespace fastgen::cpu {

// True where a row's choice is not simply from its logits.
bool HasRules(const SampleRow& row);

class RuledLogits {
 public:
  void Reserve(int64_t vocab);

  // Returns the edited copy of logits [vocab], valid until the next call. `maxima` [chunks] are
  // those of `logits` and become those of the copy. REQUIRES: no logit is NaN.
  const float* Apply(const RowKernels& kernels, const float* logits, int64_t vocab,
                     const SampleRow& row, float* maxima);

 private:
  void Edit(int32_t token, float logit, float* maxima);
  void Penalise(int64_t vocab, const SampleRow& row, float* maxima);

  std::vector<float> logits_;          // [vocab]
  std::vector<uint8_t> is_stale_;      // [chunks] 1: the chunk is in stale_chunks_
  std::vector<int32_t> stale_chunks_;  // chunks whose maximum may have become smaller
};

// The lowest id that mask and banned tokens leave, the lowest of the mask where they leave none, or
// 0. `marks` [vocab] is scratch memory.
int32_t LowestAllowed(const SampleRow& row, int64_t vocab, float* marks);

}  // namespace fastgen::cpu
