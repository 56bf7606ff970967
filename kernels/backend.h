// Backend: every operation that a model needs from a device, and nothing else.
//
// One virtual interface, chosen once at start-up by MakeBackend (make_backend.h). Each op's contract - shapes, dtypes,
// formula, accumulation type, aliasing - is written here and only here; kernels/cpu and kernels/cuda implement it under
// the same names, tests/kernels holds both to it.
//
// Conventions
//  1. Named dimensions: rows = tokens in the step, hidden, q_heads, kv_heads, head_dim, vocab, blocks, block_size.
//     qkv_width = (q_heads + 2 * kv_heads) * head_dim.
//  2. Activations have dtype activation_dtype(), KV pages kv_dtype(); all sums are fp32; logits are fp32.
//  3. The value of an output row depends only on that row's inputs: never on the number of rows in the call, on their
//     order, on how a sequence was cut into chunks, or on the number of threads. (Fixed reduction orders.)
//  4. Ops are asynchronous in stream order; Synchronize() waits for all of them. Host arrays passed as spans must
//     stay valid until then. Contents of an output before Synchronize() are undefined to the host.
//  5. Shapes are the caller's duty: a mismatch is a CHECK. Device failures are returned by Synchronize().
//  6. No op allocates: scratch memory is reserved by Reserve() at start-up.
// Thread rule: one thread (the engine or rank thread that owns the backend) calls everything but Describe().
// Tested by tests/kernels/*_test.cc against tests/testing/reference_ops.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace fastgen {

// Memory of the device, or of its host, taken through a backend; freed with the object. Aligned to
// 64 bytes at least, zero-filled.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;
  virtual size_t bytes() const = 0;
};

// A weight matrix in whatever arrangement the backend's kernels want. Immutable.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t rows() const = 0;   // outputs
  virtual int64_t cols() const = 0;   // inputs
  virtual size_t bytes() const = 0;   // device memory it holds
};

// Rows of a weight matrix as they stand in a file, read only while PackMatrix runs.
struct MatrixSource {
  const void* data = nullptr;  // [rows, cols] row-major in `dtype`, any alignment
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of the dtype's block_elements
  // Empty, or [rows]: output row i is source row row_order[i]. Undoes GGUF's q/k permutation without touching blocks.
  absl::Span<const int32_t> row_order;
  WeightForm form = WeightForm::kAsStored;
  // Each may be empty. PackMatrix calls them from its caller's thread, for runs of rows of about 64 MiB that follow
  // one another: the run that it is about to read next, and one that it has read.
  std::function<void(int64_t begin, int64_t end)> will_read = nullptr;
  std::function<void(int64_t begin, int64_t end)> rows_read = nullptr;
};

// The sequences of one step, ragged. Rows of sequence s are [query_start[s], query_start[s + 1]).
// They are the LAST rows of its context: row query_start[s] + i has position context_len[s] - num_query + i.
struct AttentionBatch {
  absl::Span<const int32_t> query_start;   // [num_sequences + 1]
  absl::Span<const int32_t> context_len;   // [num_sequences] keys in the cache, this step's rows included
  absl::Span<const int32_t> block_tables;  // [num_sequences, max_blocks] block ids; entries past the context: any
  int64_t max_blocks = 0;
  int64_t num_sequences() const { return static_cast<int64_t>(context_len.size()); }
};

struct AttentionShape {
  int64_t q_heads = 0;
  int64_t kv_heads = 0;  // divides q_heads; q head h reads kv head h / (q_heads / kv_heads)
  int64_t head_dim = 0;
  float scale = 0;         // multiplies q . k
  int64_t window = 0;      // 0: all; W: position i sees j with i - j < W
};

// One whole block of a cache to copy (CopyBlocks).
struct BlockCopy {
  int32_t from = 0;
  int32_t to = 0;
};

// A token that was seen in the prompt or in the output.
struct TokenCount {
  int32_t token = 0;
  int32_t count = 0;  // times in the output; 0: only in the prompt
};

struct LogitBias {
  int32_t token = 0;
  float bias = 0;
};

// What to do with one row of logits.
//
// What is chosen from, in this order (the rules):
//   1. of each token of `history`: l = l > 0 ? l / repetition : l * repetition;
//      then, where count > 0, l -= presence + frequency * count
//   2. of each token of `logit_bias`: l += bias
//   3. tokens outside `allowed_mask` and those of `banned_tokens`: l = -infinity
//   4. temperature, top-k, top-p, min-p
// Arithmetic is fp32. A logit that is -infinity stays so, and one that 1 or 2 make NaN becomes
// -infinity. Tokens outside [0, vocab) are ignored. Where no token is left, or only impossible
// ones (-infinity), the choice is the lowest id that 3 leaves, else the lowest of the mask, else
// 0. Rules change neither logprobs, ranks nor `top`, nor rows with a target.
struct SampleRow {
  // target_token >= 0: report this token's logprob and rank instead of sampling (prompt scoring).
  int32_t target_token = -1;
  float temperature = 0;  // 0: greedy (the lowest id among equal maxima)
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  // Philox4x32-10 keyed by (seed, choice_index, output_position); the same key gives the same draw on every backend.
  uint64_t seed = 0;
  uint32_t choice_index = 0;
  uint32_t output_position = 0;
  absl::Span<const TokenCount> history;  // ascending by token, each token once
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;             // above 0
  absl::Span<const LogitBias> logit_bias;   // each token once, finite
  // Empty: all. Else [ceil(vocab / 32)]: bit t % 32 of word t / 32 is set where token t may be
  // chosen; bits past the vocabulary mean nothing. Lists of allowed ids and grammars alike.
  absl::Span<const uint32_t> allowed_mask;
  // Ids that may not be chosen in this row (eos while under min_tokens, bad words).
  absl::Span<const int32_t> banned_tokens;
  int32_t num_top_logprobs = -1;  // -1: no logprobs at all; 0: the chosen token's; N: and the N best
};

struct TopLogprob {
  int32_t token = -1;
  float logprob = 0;
};

struct SampleResult {
  int32_t token = -1;      // the chosen token, or target_token
  bool is_nan = false;     // the row held a NaN: token is meaningless, the request must end with an error
  float logprob = 0;       // natural log of softmax(unscaled logits)[token], when logprobs were asked for
  int32_t rank = 0;        // 1 = the best of the row, likewise
  // [num_top_logprobs] best first; token is -1 past the end of the vocabulary, and in all of them
  // for a NaN row. Meaningless where num_top_logprobs <= 0. An array that the caller leaves here is
  // written again when `top_capacity` says that it is long enough; otherwise the call replaces it
  // by one that is, so that a caller who keeps its results allocates nothing after a while.
  std::unique_ptr<TopLogprob[]> top;
  int32_t top_capacity = 0;  // elements of `top`
};

// What a product multiplies: rows as they are, or what an op makes of them on their way into it (the GEMM's
// prologue). Nothing stores such a row: a backend quantises it where it computes it.
struct MatMulInput {
  enum class Op : uint8_t { kNone, kRmsNorm, kSiluMul };

  // Rows as they are.
  MatMulInput(Tensor x) : x(x) {}  // NOLINT(google-explicit-constructor)

  // x / sqrt(mean(x^2) + eps) * weight, statistics in fp32.
  static MatMulInput RmsNorm(Tensor x,       // [rows, k] activations
                             Tensor weight,  // [k] f32
                             float eps) {
    MatMulInput input(x);
    input.op = Op::kRmsNorm;
    input.weight = weight;
    input.eps = eps;
    return input;
  }

  // [i, j] = silu(gate_up[i, j]) * gate_up[i, k + j], silu(x) = x / (1 + exp(-x)).
  static MatMulInput SiluMul(Tensor gate_up) {  // [rows, 2 * k] activations
    MatMulInput input(gate_up);
    input.op = Op::kSiluMul;
    return input;
  }

  int64_t rows() const { return x.rows(); }
  int64_t cols() const { return op == Op::kSiluMul ? x.cols() / 2 : x.cols(); }  // k

  Tensor x;
  Op op = Op::kNone;
  Tensor weight;
  float eps = 0;
};

class Backend {
 public:
  static constexpr int64_t kMaxTopLogprobs = 20;

  virtual ~Backend() = default;

  // One phrase for people: "cpu: avx512-vnni-bf16, 2 threads". Any thread.
  virtual std::string Describe() const = 0;
  virtual DType activation_dtype() const = 0;
  virtual DType kv_dtype() const = 0;
  // Memory that weights, KV and workspace may still take.
  virtual int64_t FreeMemoryBytes() const = 0;
  // What AllocateHost may still take.
  virtual int64_t FreeHostMemoryBytes() const = 0;
  // True where the two are one memory: what one takes the other does not have.
  virtual bool host_is_device() const = 0;

  // ---- start-up only ----

  // RESOURCE_EXHAUSTED when the device does not have it.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) = 0;
  // Host memory that CopyBlocks reaches at full speed (pinned, where there is a device). Errors as
  // Allocate. Counts against host memory.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) = 0;
  // Stacks `parts` by rows into one matrix of sum(rows) x cols; each part keeps its precision unless its form
  // says otherwise. The parts may be freed
  // afterwards. INVALID_ARGUMENT for a dtype that has no kernel or rows that a form cannot hold. All parts: equal cols.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> PackMatrix(
      absl::Span<const MatrixSource> parts) = 0;
  // Takes scratch memory for calls of up to these sizes, so that no op allocates. Called once, after the weights.
  struct Limits {
    int64_t max_rows = 0;          // tokens in a step
    int64_t max_cols = 0;          // widest activation (largest cols() of a matrix)
    int64_t max_context = 0;       // longest sequence
    int64_t max_sequences = 0;     // in a step
    int64_t max_logit_rows = 0;    // rows of one SampleRows call
    int64_t vocab = 0;
    AttentionShape attention;
    int64_t block_size = 0;
  };
  virtual absl::Status Reserve(const Limits& limits) = 0;

  // ---- step path, in stream order ----

  // out[i] = row ids[i] of `table`, dequantised. ids in [0, table.rows()).
  virtual void EmbedRows(const PackedMatrix& table,       // [vocab, hidden]
                         absl::Span<const int32_t> ids,   // [rows]
                         Tensor out) = 0;                 // [rows, hidden] activations

  // RMSNorm, as MatMulInput has it, of every head of q and of k on its own, in place, before RoPE: k is head_dim, one
  // weight serves all q heads, another all k heads. v is not touched.
  virtual void RmsNormQueriesAndKeys(Tensor qkv,          // [rows, qkv_width] activations: q | k | v
                                     const AttentionShape& shape,
                                     Tensor q_weight,     // [head_dim] f32
                                     Tensor k_weight,     // [head_dim] f32
                                     float eps) = 0;

  // out[i, n] = sum_k x[i, k] * w[n, k] (+ bias[n]) (+ residual[i, n]), with what `input` says for x.
  // Where w holds integers, a serving backend may quantise x per row and group to int8; where it holds fp8, it
  // quantises x per row to e4m3, the scale being the row's largest magnitude, clamped to [1e-12, 1200], / 448.
  // Neither in fp32 compute mode.
  // `bias` and `residual` may be null views; residual may be out, input.x may not overlap it. out.dtype: activations, or
  // f32 (logits).
  virtual void MatMul(const MatMulInput& input,           // [rows, k]
                      const PackedMatrix& w,              // [n, k]
                      Tensor bias,                        // [n] f32, or data == nullptr
                      Tensor residual,                    // [rows, n], or data == nullptr
                      Tensor out) = 0;                    // [rows, n]

  // Rotates q and k in place in `qkv` and writes k and v to their slots.
  // Half-split RoPE: (a, b) = (x[d], x[d + head_dim/2]) -> (a cos - b sin, b cos + a sin), cos/sin from
  // cos_sin[positions[i], d] and [.., head_dim/2 + d].
  // slots[i] = block_id * block_size + offset; -1 writes nothing (padding).
  virtual void RopeAndWriteKv(Tensor qkv,                        // [rows, qkv_width] activations: q | k | v
                              const AttentionShape& shape,
                              Tensor cos_sin,                    // [max_positions, head_dim] f32: cos half | sin half
                              absl::Span<const int32_t> positions,  // [rows]
                              absl::Span<const int64_t> slots,      // [rows]
                              // How a kv head's [block_size, head_dim] lie in a block is the backend's affair;
                              // block_size is even.
                              Tensor k_cache,                    // [blocks, kv_heads, block_size, head_dim] kv_dtype
                              Tensor v_cache) = 0;               // as k_cache

  // out[row, h] = softmax(scale * q[row, h] . K) V over the keys of the row's sequence that are not after it and not
  // outside the window; softmax in fp32. Keys are visited in order of position in tiles that start at block borders.
  virtual void PagedAttention(Tensor q,                          // [rows, q_heads * head_dim] activations (strided)
                              const AttentionShape& shape,
                              const AttentionBatch& batch,
                              Tensor k_cache,                    // as RopeAndWriteKv
                              Tensor v_cache,
                              Tensor out) = 0;                   // [rows, q_heads * head_dim] activations

  // out[i] = x[indices[i]].
  virtual void GatherRows(Tensor x,                              // [rows, hidden] activations
                          absl::Span<const int32_t> indices,     // [n]
                          Tensor out) = 0;                       // [n, hidden] activations

  // One result per row of logits; written to host memory, valid after Synchronize(). Logits are
  // unchanged, and logprobs and ranks come from them as they are; SampleRow says how tokens are
  // chosen.
  virtual void SampleRows(Tensor logits,                         // [n, vocab] f32
                          absl::Span<const SampleRow> rows,      // [n]
                          absl::Span<SampleResult> results) = 0; // [n]

  // destination[copies[i].to] = source[copies[i].from], whole blocks. The two may be one tensor
  // (copy on write), or a device cache and memory of AllocateHost in either direction. In one call
  // no block is both read and written, and none is written twice.
  virtual void CopyBlocks(absl::Span<const BlockCopy> copies,
                          Tensor source,            // [*, kv_heads, block_size, head_dim] kv_dtype
                          Tensor destination) = 0;  // [*, kv_heads, block_size, head_dim] kv_dtype

  // Fills whole blocks with 0xff bytes, which is NaN in every float dtype: a debug build makes
  // reads of stale blocks visible.
  virtual void PoisonBlocks(absl::Span<const int32_t> blocks,
                            Tensor cache) = 0;      // [*, kv_heads, block_size, head_dim] kv_dtype

  // Copies device memory to host memory (tests, goldens). Synchronous.
  virtual void CopyToHost(Tensor source, void* destination) = 0;

  // Waits for all ops issued. A device error is returned here and is final.
  virtual absl::Status Synchronize() = 0;
};

}  // namespace fastgen
