// GrammarCache: compiles constraints on threads of its own and keeps what it has compiled.
//
// A compilation takes from a millisecond to the limit of ten seconds, and cannot be interrupted but
// by its budget (grammar_budget.h). So callers are never kept: `done` is called from a compiling
// thread, or at once for what is cached. Equal tags are compiled once. At most kNumThreads
// compilations run, kMaxQueued wait and kMaxCallers wait for all of them; beyond, and for what has
// waited longer than kMaxWait, the answer is RESOURCE_EXHAUSTED. Least recently used grammars leave
// first when all together exceed kMaxBytes. The model's vocabulary is prepared for the library at
// the first use: twice where tool calls have special tokens, as those may stand in calls only.
// Thread rule: any thread. `done` must not block for long. Tested by
// tests/engine/grammar_cache_test.cc.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "engine/text/grammar.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

class GrammarCache {
 public:
  static constexpr int kNumThreads = 2;
  static constexpr size_t kMaxQueued = 64;
  static constexpr size_t kMaxCallers = 4096;
  static constexpr std::chrono::seconds kMaxWait = std::chrono::seconds(10);
  static constexpr int64_t kMaxBytes = 256 << 20;
  static constexpr int64_t kMaxGrammarBytes = 64 << 20;

  using Done = std::function<void(absl::StatusOr<std::shared_ptr<const Grammar>>)>;

  // `tokenizer` must outlive the object. `call_markers`: special tokens that calls of tools are
  // written with.
  GrammarCache(const Tokenizer* tokenizer, int32_t num_tokens, std::vector<int32_t> end_ids,
               std::vector<int32_t> call_markers);
  ~GrammarCache();
  // From now on, and for what waits, the answer is UNAVAILABLE; returns when no `done` is still to
  // be called.
  void Stop();

  enum class Markers { kHidden, kShown };
  // Errors: as GrammarCompiler::Compile, and the two above.
  void Compile(const std::string& structural_tag, Markers markers, Done done);
  // The same, for a caller that can wait.
  absl::StatusOr<std::shared_ptr<const Grammar>> CompileNow(const std::string& structural_tag,
                                                            Markers markers);

 private:
  struct Job {
    std::string key;
    std::string structural_tag;
    Markers markers = Markers::kHidden;
    std::chrono::steady_clock::time_point queued;
  };
  struct Cached {
    std::shared_ptr<const Grammar> grammar;
    std::list<std::string>::iterator use;
  };

  void Run();
  absl::StatusOr<std::shared_ptr<const Grammar>> CompileJob(const Job& job);
  absl::StatusOr<std::shared_ptr<const GrammarCompiler>> CompilerFor(Markers markers);
  void Keep(const std::string& key, std::shared_ptr<const Grammar> grammar)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Tokenizer* const tokenizer_;
  const int32_t num_tokens_;
  const std::vector<int32_t> end_ids_;
  const std::vector<int32_t> call_markers_;

  Mutex compilers_mutex_;
  std::array<std::shared_ptr<const GrammarCompiler>, 2> compilers_
      ABSL_GUARDED_BY(compilers_mutex_);

  Mutex mutex_;
  CondVar has_work_;
  std::list<Job> queue_ ABSL_GUARDED_BY(mutex_);
  // By key: who waits for a queued or running job.
  absl::flat_hash_map<std::string, std::vector<Done>> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t num_callers_ ABSL_GUARDED_BY(mutex_) = 0;  // in waiting_
  absl::flat_hash_map<std::string, Cached> cached_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> uses_ ABSL_GUARDED_BY(mutex_);  // keys of cached_, the latest first
  int64_t num_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);  // started by the first job
};

}  // namespace fastgen
