#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/int_math.h"
#include "kernels/cpu/philox.h"

namespace fastgen::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Scanning 16 k logits takes about 5 us, less than waking a sleeping thread.
constexpr int64_t kMinParallelLogits = 32 << 10;

// Buckets of top-p: 16 to a factor of 2, by the leading bits of a weight in (0, 1]. The last holds
// all below 2^-63.
constexpr int kNumBuckets = 1024;

int BucketOf(float weight) {
  const uint32_t below_one =
      0x3f800000 - std::min(uint32_t{0x3f800000}, std::bit_cast<uint32_t>(weight));
  return static_cast<int>(std::min<uint32_t>(below_one >> 19, kNumBuckets - 1));
}

// The lowest id whose logit is `max`, which is the largest of `logits`.
int32_t FirstAtMax(const float* logits, int64_t vocab, float max,
                   const std::vector<float>& maxima) {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    if (maxima[chunk] != max) continue;
    const int64_t end = std::min<int64_t>(vocab, (chunk + 1) * kSampleChunk);
    for (int64_t id = chunk * kSampleChunk; id < end; ++id) {
      if (logits[id] == max) return static_cast<int32_t>(id);
    }
  }
  return 0;
}

// Leaves an array long enough for what the row asks, with no token in it, or none where it asks for
// none and there is none.
void ClearTop(const SampleRow& row, SampleResult* result) {
  if (row.num_top_logprobs <= 0) return;
  // A result that was moved from keeps its capacity.
  const int32_t capacity = result->top == nullptr ? 0 : result->top_capacity;
  if (capacity < row.num_top_logprobs) {
    result->top_capacity =
        std::max(row.num_top_logprobs, static_cast<int32_t>(Backend::kMaxTopLogprobs));
    result->top = std::make_unique<TopLogprob[]>(static_cast<size_t>(result->top_capacity));
  }
  std::fill(result->top.get(), result->top.get() + row.num_top_logprobs, TopLogprob());
}

}  // namespace

void RowSampler::Reserve(int64_t vocab) {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  scratch_.resize(pool_->num_threads());
  for (Scratch& scratch : scratch_) {
    scratch.ruled.Reserve(vocab);
    scratch.weights.resize(vocab);
    scratch.sums.resize(num_chunks);
    scratch.maxima.resize(num_chunks);
    scratch.sorted_maxima.resize(num_chunks);
    scratch.candidates.resize(vocab + 1);
    scratch.bucket_mass.resize(kNumBuckets);
  }
}

void RowSampler::Run(const Tensor& logits, absl::Span<const SampleRow> rows,
                     absl::Span<SampleResult> results) {
  const int64_t vocab = logits.cols();
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  CHECK(!scratch_.empty() && vocab <= static_cast<int64_t>(scratch_[0].weights.size()))
      << "Reserve() was given less than vocab " << vocab;
  const int64_t grain = num_rows * vocab < kMinParallelLogits ? num_rows : 1;
  pool_->ParallelFor(num_rows, std::max<int64_t>(1, grain),
                     [&](int64_t begin, int64_t end, int thread) {
                       for (int64_t i = begin; i < end; ++i) {
                         RunRow(logits.as<float>() + i * logits.row_stride, vocab, rows[i],
                                &scratch_[thread], &results[i]);
                       }
                     });
}

void RowSampler::RunRow(const float* logits, int64_t vocab, const SampleRow& row, Scratch* scratch,
                        SampleResult* result) const {
  result->token = row.target_token;
  result->logprob = 0;
  result->rank = 0;
  ClearTop(row, result);
  result->is_nan = kernels_.chunk_maxima(logits, vocab, scratch->maxima.data());
  if (result->is_nan) {
    if (row.target_token < 0) result->token = 0;
    return;
  }
  if (row.target_token < 0) {
    const bool has_rules = HasRules(row);
    const float* choices = logits;
    if (has_rules) {
      choices = scratch->ruled.Apply(kernels_, logits, vocab, row, scratch->maxima.data());
    }
    result->token = Choose(choices, vocab, row, scratch);
    // Logprobs are those of the row as it came.
    if (has_rules && row.num_top_logprobs >= 0) {
      kernels_.chunk_maxima(logits, vocab, scratch->maxima.data());
    }
  }
  if (row.num_top_logprobs >= 0) ReportLogprobs(logits, vocab, row, scratch, result);
}

int32_t RowSampler::Choose(const float* logits, int64_t vocab, const SampleRow& row,
                           Scratch* scratch) const {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  const float max =
      *std::max_element(scratch->maxima.begin(), scratch->maxima.begin() + num_chunks);
  if (max == -kInfinity) return LowestAllowed(row, vocab, scratch->weights.data());
  // An infinite logit takes all the mass.
  if (row.temperature <= 0 || max == kInfinity)
    return FirstAtMax(logits, vocab, max, scratch->maxima);
  const double total = kernels_.weigh(logits, vocab, max, row.temperature, scratch->weights.data(),
                                      scratch->sums.data());
  const Kept kept = Filter(logits, vocab, max, total, row, scratch);
  const double draw = UniformDraw(row.seed, row.choice_index, row.output_position);
  if (kept.all) return DrawFromAll(vocab, draw, *scratch);
  return DrawFromKept(logits, vocab, kept, draw, scratch);
}

float RowSampler::LowerBoundOfTop(int64_t vocab, int64_t count, Scratch* scratch) const {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  if (count > num_chunks) return -kInfinity;
  auto& sorted = scratch->sorted_maxima;
  std::copy(scratch->maxima.begin(), scratch->maxima.begin() + num_chunks, sorted.begin());
  std::nth_element(sorted.begin(), sorted.begin() + count - 1, sorted.begin() + num_chunks,
                   std::greater<float>());
  return sorted[count - 1];
}

int64_t RowSampler::Collect(const float* logits, int64_t vocab, float threshold,
                            Scratch* scratch) const {
  int64_t count = 0;
  const auto candidates = scratch->candidates.begin();
  for (int64_t begin = 0; begin < vocab; begin += kSampleChunk) {
    if (scratch->maxima[begin / kSampleChunk] < threshold) continue;
    const int64_t end = std::min<int64_t>(vocab, begin + kSampleChunk);
    for (int64_t id = begin; id < end; ++id) {
      // Written before it is decided on: which tokens pass is as good as random, and a branch would
      // be mispredicted.
      candidates[count] = {logits[id], static_cast<int32_t>(id), scratch->weights[id]};
      count += logits[id] >= threshold ? 1 : 0;
    }
  }
  return count;
}

RowSampler::Candidate RowSampler::EndOfNucleus(const float* logits, int64_t vocab, float threshold,
                                               double wanted, Scratch* scratch) const {
  const int64_t num_above = Collect(logits, vocab, threshold, scratch);
  const auto candidates = scratch->candidates.begin();
  auto& mass = scratch->bucket_mass;
  std::fill(mass.begin(), mass.end(), 0);
  int last = 0;  // the last bucket that holds a token
  for (int64_t i = 0; i < num_above; ++i) {
    const int bucket = BucketOf(candidates[i].weight);
    mass[bucket] += static_cast<double>(candidates[i].weight);
    last = std::max(last, bucket);
  }
  int bucket = 0;
  while (bucket < last && mass[bucket] < wanted) wanted -= mass[bucket++];
  const auto end = std::partition(candidates, candidates + num_above,
                                  [&](const Candidate& c) { return BucketOf(c.weight) == bucket; });
  return EndOfMass(end - candidates, wanted, scratch);
}

RowSampler::Candidate RowSampler::EndOfMass(int64_t count, double wanted, Scratch* scratch) const {
  const auto candidates = scratch->candidates.begin();
  int64_t begin = 0, end = count;
  // Invariant: the prefix ends in [begin, end), and what lies before `begin` has been taken off
  // `wanted`.
  while (end - begin > 1) {
    const int64_t middle = begin + (end - begin) / 2;
    std::nth_element(candidates + begin, candidates + middle, candidates + end);
    double mass = 0;
    for (int64_t i = begin; i < middle; ++i) mass += static_cast<double>(candidates[i].weight);
    if (mass >= wanted) {
      end = middle;
    } else {
      wanted -= mass;
      begin = middle;
    }
  }
  return candidates[begin];
}

RowSampler::Kept RowSampler::Filter(const float* logits, int64_t vocab, float max, double total,
                                    const SampleRow& row, Scratch* scratch) const {
  Kept kept;
  kept.worst = {-kInfinity, std::numeric_limits<int32_t>::max(), 0};
  // The best token weighs 1 and always stays.
  kept.min_weight = std::clamp(row.min_p, 0.0f, 1.0f);
  kept.all = kept.min_weight == 0;
  const auto candidates = scratch->candidates.begin();
  int64_t count = -1;  // of candidates; -1: none collected
  if (row.top_k > 0 && row.top_k < vocab) {
    // What is impossible is no candidate: a mask may leave few of a large vocabulary.
    const float least = std::max(kLowest, LowerBoundOfTop(vocab, row.top_k, scratch));
    count = Collect(logits, vocab, least, scratch);
    if (count >= row.top_k) {
      std::nth_element(candidates, candidates + row.top_k - 1, candidates + count);
      count = row.top_k;
      kept.worst = candidates[count - 1];
      kept.all = false;
    }
    total = 0;
    for (int64_t i = 0; i < count; ++i) total += static_cast<double>(candidates[i].weight);
  }
  if (row.top_p < 1) {
    const double wanted = std::max(0.0f, row.top_p) * total;
    if (count >= 0) {
      kept.worst = EndOfMass(count, wanted, scratch);
    } else {
      // Tokens lighter than this weigh less than 1 - top_p all together. The margin covers exp's
      // rounding.
      const double lightest = (total - wanted) / static_cast<double>(vocab);
      const double threshold = max + (std::log(lightest) - 1e-3) * row.temperature;
      kept.worst = EndOfNucleus(logits, vocab,
                                std::max(kLowest, std::min(max, static_cast<float>(threshold))),
                                wanted, scratch);
    }
    kept.all = false;
  }
  return kept;
}

int32_t RowSampler::DrawFromAll(int64_t vocab, double draw, const Scratch& scratch) const {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  double total = 0;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk)
    total += static_cast<double>(scratch.sums[chunk]);
  double target = draw * total;
  // The last chunk with any mass takes what rounding leaves over, and in it the last token.
  int64_t chosen = 0;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    if (scratch.sums[chunk] <= 0) continue;
    chosen = chunk;
    if (target < static_cast<double>(scratch.sums[chunk])) break;
    target -= static_cast<double>(scratch.sums[chunk]);
  }
  int64_t token = 0;
  const int64_t end = std::min<int64_t>(vocab, (chosen + 1) * kSampleChunk);
  for (int64_t id = chosen * kSampleChunk; id < end; ++id) {
    if (scratch.weights[id] <= 0) continue;
    token = id;
    if (target < static_cast<double>(scratch.weights[id])) break;
    target -= static_cast<double>(scratch.weights[id]);
  }
  return static_cast<int32_t>(token);
}

int32_t RowSampler::DrawFromKept(const float* logits, int64_t vocab, const Kept& kept, double draw,
                                 Scratch* scratch) const {
  const int64_t count = Collect(logits, vocab, std::max(kLowest, kept.worst.logit), scratch);
  const auto candidates = scratch->candidates.begin();
  double total = 0;
  for (int64_t i = 0; i < count; ++i) {
    Candidate& candidate = candidates[i];
    if (!kept.Has(candidate.logit, candidate.id, candidate.weight)) candidate.weight = 0;
    total += static_cast<double>(candidate.weight);
  }
  double target = draw * total;
  int32_t token = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (candidates[i].weight <= 0) continue;
    token = candidates[i].id;
    if (target < static_cast<double>(candidates[i].weight)) break;
    target -= static_cast<double>(candidates[i].weight);
  }
  return token;
}

void RowSampler::ReportLogprobs(const float* logits, int64_t vocab, const SampleRow& row,
                                Scratch* scratch, SampleResult* result) const {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  const float max =
      *std::max_element(scratch->maxima.begin(), scratch->maxima.begin() + num_chunks);
  // Where the maximum is infinite, so is every difference: report it as it stands.
  const float base = std::isinf(max) ? 0 : max;
  const float log_sum = base + static_cast<float>(std::log(kernels_.sum_exp(logits, vocab, base)));
  CHECK(result->token >= 0 && result->token < vocab)
      << "token " << result->token << " of " << vocab;
  const float logit = logits[result->token];
  result->logprob = logit - log_sum;
  int64_t better = kernels_.count_above(logits, vocab, logit);
  for (int64_t id = 0; id < result->token; ++id) better += logits[id] == logit ? 1 : 0;
  result->rank = static_cast<int32_t>(better + 1);
  const int64_t num_top = std::min<int64_t>(row.num_top_logprobs, vocab);
  if (num_top <= 0) return;
  const int64_t count = Collect(logits, vocab, LowerBoundOfTop(vocab, num_top, scratch), scratch);
  const auto candidates = scratch->candidates.begin();
  std::partial_sort(candidates, candidates + num_top, candidates + count);
  for (int64_t i = 0; i < num_top; ++i) {
    result->top[i] = {candidates[i].id, candidates[i].logit - log_sum};
  }
}

}  // namespace fastgen::cpu
