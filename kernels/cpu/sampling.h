// RowSampler: one token per row of logits, without sorting the vocabulary.
//
// Penalties, bias and masks come first, in a copy of the row (sampling_rules.h). Tokens are ordered
// by (logit descending, id ascending). Top-k and top-p each keep a prefix of that order, min-p too,
// so a filter is a cutoff (logit, id), and the draw is made by inverting the cumulative weight of
// the kept tokens in id order.
//   top-k  The maxima of 64-token chunks are cheap; the k-th largest of them bounds the k-th
//          largest logit from below, so only tokens above it are candidates, and nth_element finds
//          the cutoff.
//   top-p  Tokens with p < (1 - top_p) / vocab cannot matter together; the rest are added up in
//          buckets of equal ratio, and halving by nth_element finds the end of the shortest prefix
//          of mass top_p in the bucket where it falls.
//   min-p  p >= min_p * max p.
// All three: with weights exp((logit - max) / temperature), of tokens that survived the filter
// before. Impossible tokens (-infinity) are no candidates.
//
// Thread rule: one thread calls Run; rows are spread over the pool.
// Tested by tests/kernels/sampling_test.cc and sampling_rules_test.cc.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/sampling_rules.h"
#include "kernels/cpu/thread_pool.h"

namespace fastgen::cpu {

class RowSampler {
 public:
  RowSampler(const RowKernels& kernels, ThreadPool* pool) : kernels_(kernels), pool_(pool) {}

  void Reserve(int64_t vocab);

  // As Backend::SampleRows. Allocates only top-logprob arrays that the results do not bring along.
  void Run(const Tensor& logits, absl::Span<const SampleRow> rows,
           absl::Span<SampleResult> results);

 private:
  struct Candidate {
    float logit;
    int32_t id;
    float weight;
    // The order of tokens: the better first.
    bool operator<(const Candidate& other) const {
      return logit != other.logit ? logit > other.logit : id < other.id;
    }
  };

  // What one thread works with; sized by Reserve().
  struct Scratch {
    RuledLogits ruled;
    std::vector<float> weights;        // [vocab]
    std::vector<float> sums;           // [chunks]
    std::vector<float> maxima;         // [chunks]
    std::vector<float> sorted_maxima;  // [chunks]
    std::vector<Candidate>
        candidates;  // [vocab + 1]: one more, because Collect writes before it decides
    std::vector<double> bucket_mass;  // [kNumBuckets]
  };

  // Which tokens a draw may yield.
  struct Kept {
    bool all = true;   // the weights' chunk sums hold as they are
    Candidate worst;   // by (logit, id)
    float min_weight;  // the best token weighs 1

    bool Has(float logit, int32_t id, float weight) const {
      return weight >= min_weight &&
             (logit > worst.logit || (logit == worst.logit && id <= worst.id));
    }
  };

  void RunRow(const float* logits, int64_t vocab, const SampleRow& row, Scratch* scratch,
              SampleResult* result) const;
  int32_t Choose(const float* logits, int64_t vocab, const SampleRow& row, Scratch* scratch) const;
  Kept Filter(const float* logits, int64_t vocab, float max, double total, const SampleRow& row,
              Scratch* scratch) const;
  // The last token of the shortest best-first prefix of all tokens with mass `wanted`. No token
  // below `threshold` can be part of it.
  Candidate EndOfNucleus(const float* logits, int64_t vocab, float threshold, double wanted,
                         Scratch* scratch) const;
  // Orders the candidates so that the shortest best-first prefix of mass `wanted` comes first;
  // returns its last one.
  Candidate EndOfMass(int64_t count, double wanted, Scratch* scratch) const;
  int32_t DrawFromAll(int64_t vocab, double draw, const Scratch& scratch) const;
  int32_t DrawFromKept(const float* logits, int64_t vocab, const Kept& kept, double draw,
                       Scratch* scratch) const;
  void ReportLogprobs(const float* logits, int64_t vocab, const SampleRow& row, Scratch* scratch,
                      SampleResult* result) const;
  // Fills candidates with the tokens whose logit reaches `threshold`, ids ascending; returns their
  // number.
  int64_t Collect(const float* logits, int64_t vocab, float threshold, Scratch* scratch) const;
  // A logit that at least `count` tokens reach. REQUIRES: maxima are those of `logits`.
  float LowerBoundOfTop(int64_t vocab, int64_t count, Scratch* scratch) const;

  const RowKernels& kernels_;
  ThreadPool* const pool_;
  std::vector<Scratch> scratch_;  // [threads]
};

}  // namespace fastgen::cpu
