// Attention on pages that no cache holds: each call takes the next blocks of a pool larger than the
// caches, as each layer of a step does. Blocks of sequences that grow side by side alternate.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/int_math.h"
#include "tests/bench/bench_run.h"

namespace fastgen::bench {
namespace {

constexpr int64_t kBlockSize = 64;
constexpr int kPageByte = 0x3c;  // 0.0115 as bf16 and as f32

struct Load {
  const char* name;
  int64_t num_sequences;
  int64_t queries;  // of each
  int64_t context;  // the queries included
};

constexpr Load kLoads[] = {
    {"decode", 1, 1, 192},     {"decode", 1, 1, 1024},   {"decode", 1, 1, 4096},
    {"decode", 8, 1, 192},     {"decode", 32, 1, 192},   {"decode", 32, 1, 1024},
    {"prefill", 1, 128, 128},  {"prefill", 1, 512, 512}, {"prefill", 1, 512, 1024},
    {"prefill", 1, 512, 4096}, {"prefill", 4, 128, 128},
};

// The pages, and the batch of the next call.
class PagePool {
 public:
  PagePool(Backend* backend, const AttentionShape& shape, const Load& load, int64_t set_bytes)
      : load_(load), blocks_per_sequence_(CeilDiv(load.context, kBlockSize)) {
    const int64_t element = Info(backend->kv_dtype()).block_bytes;
    const int64_t block_bytes = shape.kv_heads * kBlockSize * shape.head_dim * element;
    const int64_t blocks_per_call = load.num_sequences * blocks_per_sequence_;
    num_calls_ = std::max<int64_t>(1, CeilDiv(set_bytes, 2 * block_bytes * blocks_per_call));
    const int64_t num_blocks = num_calls_ * blocks_per_call;
    k_ = Pages(backend, num_blocks * block_bytes);
    v_ = Pages(backend, num_blocks * block_bytes);
    k_cache = Tensor(k_->data(), backend->kv_dtype(),
                     {num_blocks, shape.kv_heads, kBlockSize, shape.head_dim});
    v_cache = Tensor(v_->data(), backend->kv_dtype(),
                     {num_blocks, shape.kv_heads, kBlockSize, shape.head_dim});
    for (int64_t s = 0; s <= load.num_sequences; ++s) {
      starts_.push_back(static_cast<int32_t>(s * load.queries));
    }
    contexts_.assign(load.num_sequences, static_cast<int32_t>(load.context));
    table_.resize(blocks_per_call);
  }

  AttentionBatch Next() {
    const int64_t first = next_++ % num_calls_ * static_cast<int64_t>(table_.size());
    for (int64_t s = 0; s < load_.num_sequences; ++s) {
      for (int64_t b = 0; b < blocks_per_sequence_; ++b) {
        table_[s * blocks_per_sequence_ + b] =
            static_cast<int32_t>(first + b * load_.num_sequences + s);
      }
    }
    return {absl::MakeSpan(starts_), absl::MakeSpan(contexts_), absl::MakeSpan(table_),
            blocks_per_sequence_};
  }

  Tensor k_cache, v_cache;

 private:
  static std::unique_ptr<Buffer> Pages(Backend* backend, int64_t bytes) {
    auto buffer = backend->Allocate(bytes);
    CHECK(buffer.ok()) << buffer.status().ToString();
    std::memset((*buffer)->data(), kPageByte, bytes);
    return *std::move(buffer);
  }

  const Load& load_;
  const int64_t blocks_per_sequence_;
  int64_t num_calls_ = 0;
  int64_t next_ = 0;
  std::unique_ptr<Buffer> k_, v_;
  std::vector<int32_t> starts_, contexts_, table_;
};

void BenchLoad(const BenchRun& run, Backend* backend, const ModelShape& model, const Load& load) {
  const AttentionShape& shape = model.attention;
  const int64_t width = shape.q_heads * shape.head_dim;
  const int64_t rows = load.num_sequences * load.queries;
  const Subject subject = {"attention",
                           model.name,
                           absl::StrCat(load.name, " ", load.num_sequences, " seq"),
                           std::string(Info(backend->kv_dtype()).name),
                           load.context,
                           shape.head_dim,
                           load.queries};
  if (!run.table->Wants(subject)) return;
  PagePool pool(backend, shape, load, run.set_bytes);
  std::vector<float> q(rows * width, 0.01f), out(rows * width);
  Work work;
  work.call = [&] {
    backend->PagedAttention(Tensor(q.data(), DType::kF32, {rows, width}), shape, pool.Next(),
                            pool.k_cache, pool.v_cache,
                            Tensor(out.data(), DType::kF32, {rows, width}));
  };
  work.bytes = static_cast<double>(load.num_sequences * load.context * shape.kv_heads *
                                   shape.head_dim * 2 * Info(backend->kv_dtype()).block_bytes);
  // Query i of n sees context - n + 1 + i keys, each once for its score and once for its value.
  const double keys = static_cast<double>(load.context) - static_cast<double>(load.queries - 1) / 2;
  work.ops = 4.0 * static_cast<double>(width * rows) * keys;
  work.instruction = run.backend.compute_dtype == ComputeDType::kF32 ? run.instructions.f32
                                                                     : run.instructions.attention;
  run.table->Add(subject, work, run.ceilings->Measure(work));
}

}  // namespace

void BenchAttention(const BenchRun& run, const ModelShape& model) {
  if (model.attention.q_heads == 0) return;
  const std::unique_ptr<Backend> backend = BackendFor(run, model, 512, 8192);
  for (const Load& load : kLoads) BenchLoad(run, backend.get(), model, load);
}

}  // namespace fastgen::bench
