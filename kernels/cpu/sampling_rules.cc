#include "kernels/cpu/sampling_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen::cpu {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

bool HasPenalties(const SampleRow& row) {
  return !row.history.empty() &&
         (row.presence_penalty != 0 || row.frequency_penalty != 0 || row.repetition_penalty != 1);
}

bool IsAllowed(const SampleRow& row, int64_t id) {
  if (row.allowed_mask.empty()) return true;
  return (row.allowed_mask[static_cast<size_t>(id / 32)] >> (id % 32) & 1) != 0;
}

}  // namespace

bool HasRules(const SampleRow& row) {
  return !row.banned_tokens.empty() || !row.allowed_mask.empty() || !row.logit_bias.empty() ||
         HasPenalties(row);
}

void RuledLogits::Reserve(int64_t vocab) {
  const int64_t num_chunks = CeilDiv<int64_t>(vocab, kSampleChunk);
  logits_.resize(static_cast<size_t>(vocab));
  is_stale_.resize(static_cast<size_t>(num_chunks));
  stale_chunks_.reserve(static_cast<size_t>(num_chunks));
}

const float* RuledLogits::Apply(const RowKernels& kernels, const float* logits, int64_t vocab,
                                const SampleRow& row, float* maxima) {
  if (row.allowed_mask.empty()) {
    std::copy(logits, logits + vocab, logits_.begin());
  } else {
    CHECK_EQ(static_cast<int64_t>(row.allowed_mask.size()), CeilDiv<int64_t>(vocab, 32));
    kernels.mask(logits, row.allowed_mask.data(), vocab, logits_.data(), maxima);
  }
  // The mask may come first, because what is impossible stays so.
  if (HasPenalties(row)) Penalise(vocab, row, maxima);
  for (const LogitBias& entry : row.logit_bias) {
    if (entry.token < 0 || entry.token >= vocab) continue;
    Edit(entry.token, logits_[static_cast<size_t>(entry.token)] + entry.bias, maxima);
  }
  for (int32_t token : row.banned_tokens) {
    if (token >= 0 && token < vocab) Edit(token, kImpossible, maxima);
  }
  for (int32_t chunk : stale_chunks_) {
    const int64_t begin = int64_t{chunk} * kSampleChunk;
    kernels.chunk_maxima(logits_.data() + begin, std::min<int64_t>(kSampleChunk, vocab - begin),
                         maxima + chunk);
    is_stale_[static_cast<size_t>(chunk)] = 0;
  }
  stale_chunks_.clear();
  return logits_.data();
}

void RuledLogits::Penalise(int64_t vocab, const SampleRow& row, float* maxima) {
  for (const TokenCount& seen : row.history) {
    if (seen.token < 0 || seen.token >= vocab) continue;
    float logit = logits_[static_cast<size_t>(seen.token)];
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    if (seen.count > 0) {
      logit -= row.frequency_penalty * static_cast<float>(seen.count) + row.presence_penalty;
    }
    Edit(seen.token, logit, maxima);
  }
}

void RuledLogits::Edit(int32_t token, float logit, float* maxima) {
  float& now = logits_[static_cast<size_t>(token)];
  if (now == kImpossible) return;
  if (std::isnan(logit)) logit = kImpossible;
  const int32_t chunk = token / kSampleChunk;
  if (logit >= maxima[chunk]) {
    maxima[chunk] = logit;
  } else if (now == maxima[chunk] && is_stale_[static_cast<size_t>(chunk)] == 0) {
    is_stale_[static_cast<size_t>(chunk)] = 1;
    stale_chunks_.push_back(chunk);
  }
  now = logit;
}

int32_t LowestAllowed(const SampleRow& row, int64_t vocab, float* marks) {
  std::fill(marks, marks + vocab, 0.0f);
  for (int32_t token : row.banned_tokens) {
    if (token >= 0 && token < vocab) marks[token] = 1;
  }
  int32_t lowest_of_mask = 0;
  for (int64_t id = vocab - 1; id >= 0; --id) {
    if (IsAllowed(row, id)) lowest_of_mask = static_cast<int32_t>(id);
  }
  for (int64_t id = lowest_of_mask; id < vocab; ++id) {
    if (marks[id] == 0 && IsAllowed(row, id)) return static_cast<int32_t>(id);
  }
  return lowest_of_mask;
}

}  // namespace fastgen::cpu
