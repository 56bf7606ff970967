#include "engine/grammar_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/text/answer_constraint.h"

namespace fastgen {

GrammarCache::GrammarCache(const Tokenizer* tokenizer, int32_t num_tokens,
                           std::vector<int32_t> end_ids, std::vector<int32_t> call_markers)
    : tokenizer_(tokenizer),
      num_tokens_(num_tokens),
      end_ids_(std::move(end_ids)),
      call_markers_(std::move(call_markers)) {}

GrammarCache::~GrammarCache() { Stop(); }

void GrammarCache::Stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    has_work_.SignalAll();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void GrammarCache::Compile(const std::string& structural_tag, Markers markers, Done done) {
  if (call_markers_.empty()) markers = Markers::kHidden;
  const std::string key = absl::StrCat(markers == Markers::kShown ? "+" : "-", structural_tag);
  absl::StatusOr<std::shared_ptr<const Grammar>> answer;
  {
    MutexLock lock(&mutex_);
    const auto cached = cached_.find(key);
    if (cached != cached_.end()) {
      uses_.splice(uses_.begin(), uses_, cached->second.use);
      answer = cached->second.grammar;
    } else if (stopping_) {
      answer = absl::UnavailableError("the engine is ending");
    } else if (num_callers_ >= kMaxCallers) {
      answer = absl::ResourceExhaustedError(absl::StrCat(
          "constraint: ", num_callers_, " others wait to be compiled; that is the limit"));
    } else if (const auto waiting = waiting_.find(key); waiting != waiting_.end()) {
      waiting->second.push_back(std::move(done));
      ++num_callers_;
      return;
    } else if (queue_.size() >= kMaxQueued) {
      answer = absl::ResourceExhaustedError(absl::StrCat(
          "constraint: ", queue_.size(), " others wait to be compiled; that is the limit"));
    } else {
      while (threads_.size() < kNumThreads) threads_.emplace_back([this] { Run(); });
      queue_.push_back({key, structural_tag, markers, std::chrono::steady_clock::now()});
      waiting_[key].push_back(std::move(done));
      ++num_callers_;
      has_work_.Signal();
      return;
    }
  }
  done(std::move(answer));
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarCache::CompileNow(
    const std::string& structural_tag, Markers markers) {
  struct Answer {
    Mutex mutex;
    CondVar changed;
    bool is_there ABSL_GUARDED_BY(mutex) = false;
    absl::StatusOr<std::shared_ptr<const Grammar>> grammar ABSL_GUARDED_BY(mutex);
  } answer;
  Compile(structural_tag, markers,
          [&answer](absl::StatusOr<std::shared_ptr<const Grammar>> grammar) {
            MutexLock lock(&answer.mutex);
            answer.grammar = std::move(grammar);
            answer.is_there = true;
            answer.changed.Signal();
          });
  MutexLock lock(&answer.mutex);
  while (!answer.is_there) answer.changed.Wait(&answer.mutex);
  return std::move(answer.grammar);
}

void GrammarCache::Run() {
  while (true) {
    Job job;
    bool is_ending = false;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) has_work_.Wait(&mutex_);
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      is_ending = stopping_;
    }
    absl::StatusOr<std::shared_ptr<const Grammar>> grammar =
        absl::UnavailableError("the engine is ending");
    if (!is_ending) grammar = CompileJob(job);
    std::vector<Done> waiting;
    {
      MutexLock lock(&mutex_);
      const auto it = waiting_.find(job.key);
      waiting = std::move(it->second);
      waiting_.erase(it);
      num_callers_ -= waiting.size();
      if (grammar.ok()) Keep(job.key, *grammar);
    }
    for (Done& done : waiting) done(grammar);
  }
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarCache::CompileJob(const Job& job) {
  if (std::chrono::steady_clock::now() - job.queued > kMaxWait) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "constraint: it waited longer than ", kMaxWait.count(), " s for others to be compiled"));
  }
  const auto about = [](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("constraint: ", status.message()));
  };
  const auto compiler = CompilerFor(job.markers);
  if (!compiler.ok()) return about(compiler.status());
  auto grammar = (*compiler)->Compile(job.structural_tag, GrammarBudget::Limits());
  if (!grammar.ok()) return about(grammar.status());
  if ((*grammar)->num_bytes() > kMaxGrammarBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("constraint: compiled it takes ", (*grammar)->num_bytes() >> 20,
                     " MiB; the limit is ", kMaxGrammarBytes >> 20));
  }
  return grammar;
}

absl::StatusOr<std::shared_ptr<const GrammarCompiler>> GrammarCache::CompilerFor(Markers markers) {
  MutexLock lock(&compilers_mutex_);
  auto& compiler = compilers_[markers == Markers::kShown ? 1 : 0];
  if (compiler != nullptr) return compiler;
  const std::vector<int32_t> shown =
      markers == Markers::kShown ? call_markers_ : std::vector<int32_t>();
  ASSIGN_OR_RETURN(
      std::unique_ptr<GrammarCompiler> made,
      GrammarCompiler::Create(MakeGrammarVocabulary(*tokenizer_, num_tokens_, end_ids_, shown)));
  compiler = std::move(made);
  return compiler;
}

void GrammarCache::Keep(const std::string& key, std::shared_ptr<const Grammar> grammar) {
  num_bytes_ += grammar->num_bytes();
  uses_.push_front(key);
  cached_[key] = {std::move(grammar), uses_.begin()};
  while (num_bytes_ > kMaxBytes && uses_.size() > 1) {
    const auto oldest = cached_.find(uses_.back());
    num_bytes_ -= oldest->second.grammar->num_bytes();
    cached_.erase(oldest);
    uses_.pop_back();
  }
}

}  // namespace fastgen
