#include "engine/text/grammar.h"

#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace fastgen {
namespace {

// What the library has warned of, on this thread, during a compilation; null: nobody listens.
thread_local std::string* warnings = nullptr;

constexpr size_t kMaxMessageBytes = 400;
std::atomic<int64_t> bytes_of_all = 0;  // that matchers take
constexpr std::chrono::milliseconds kMaxMatchTime = std::chrono::seconds(1);

// The library's messages quote its input: one line, no control characters, not long, and without
// the condition in its own words ("Check failed: (a.ok()) is false: ") where they say more.
std::string Clean(std::string_view text) {
  constexpr std::string_view kCheck = "Check failed: ", kFalse = " is false: ";
  const size_t reason = text.find(kFalse);
  if (text.substr(0, kCheck.size()) == kCheck && reason != std::string_view::npos &&
      reason + kFalse.size() < text.size()) {
    text.remove_prefix(reason + kFalse.size());
  }
  std::string clean;
  for (const char c : text.substr(0, kMaxMessageBytes)) {
    clean += c >= ' ' && c <= '~' ? c : ' ';
  }
  while (!clean.empty() && (clean.back() == ' ' || clean.back() == '.')) clean.pop_back();
  return clean;
}

absl::Status TooExpensive(GrammarBudget::Spent spent, const GrammarBudget::Limits& limits) {
  if (spent == GrammarBudget::Spent::kTime) {
    return absl::ResourceExhaustedError(
        absl::StrCat("it takes more than the limit of ", limits.time.count(), " ms of computing"));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("it takes more memory than the limit of ", limits.memory_bytes >> 20, " MiB"));
}

// Calls `work`; what it throws becomes a status.
template <typename Work>
absl::Status RunWithin(GrammarBudget* budget, const GrammarBudget::Limits& limits, Work work) {
  std::string message;
  try {
    work();
    if (budget->spent() == GrammarBudget::Spent::kNothing) return absl::OkStatus();
  } catch (const std::bad_alloc&) {
  } catch (const std::exception& error) {
    message = Clean(error.what());
  } catch (...) {
    message = "the grammar library failed";
  }
  if (budget->spent() != GrammarBudget::Spent::kNothing) {
    return TooExpensive(budget->spent(), limits);
  }
  if (message.empty()) return absl::ResourceExhaustedError("there is no memory for it");
  return absl::InvalidArgumentError(message);
}

DLTensor MaskTensor(absl::Span<uint32_t> mask, int64_t* shape) {
  *shape = static_cast<int64_t>(mask.size());
  DLTensor tensor = {};
  tensor.data = mask.data();
  tensor.device = {kDLCPU, 0};
  tensor.ndim = 1;
  tensor.dtype = {kDLInt, 32, 1};
  tensor.shape = shape;
  return tensor;
}

}  // namespace
}  // namespace fastgen

// The library is built to hand its messages over instead of printing them.
namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line, const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level, const std::string& message);

void LogFatalImpl(const std::string& file, int line, const std::string& message) {
  throw std::runtime_error(message);
}

void LogMessageImpl(const std::string& file, int line, int level, const std::string& message) {
  if (fastgen::warnings == nullptr || !fastgen::warnings->empty()) return;
  *fastgen::warnings = message;
}

}  // namespace xgrammar

namespace fastgen {

struct Grammar::Parts {
  xgrammar::CompiledGrammar compiled;
  int64_t num_bytes = 0;
};

Grammar::Grammar(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Grammar::~Grammar() = default;
int64_t Grammar::num_bytes() const { return parts_->num_bytes; }

struct GrammarCompiler::Parts {
  explicit Parts(const xgrammar::TokenizerInfo& info)
      : compiler(info, /*max_threads=*/1, /*cache_enabled=*/false) {}
  xgrammar::GrammarCompiler compiler;
};

GrammarCompiler::GrammarCompiler(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
GrammarCompiler::~GrammarCompiler() = default;

absl::StatusOr<std::unique_ptr<GrammarCompiler>> GrammarCompiler::Create(
    GrammarVocabulary vocabulary) {
  CHECK_LE(vocabulary.texts.size(), static_cast<size_t>(vocabulary.num_tokens));
  // Its parsers recurse; sources that nest deeper are refused before they come here.
  static const bool is_bounded = [] {
    xgrammar::SetMaxRecursionDepth(500);
    return true;
  }();
  CHECK(is_bounded);
  std::unique_ptr<Parts> parts;
  const GrammarBudget::Limits limits{std::chrono::minutes(5), int64_t{8} << 30};
  GrammarBudget budget(limits);
  const absl::Status status = RunWithin(&budget, limits, [&] {
    const xgrammar::TokenizerInfo info(vocabulary.texts, xgrammar::VocabType::RAW,
                                       vocabulary.num_tokens, vocabulary.end_ids);
    parts = std::make_unique<Parts>(info);
  });
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("the vocabulary: ", status.message()));
  }
  return std::unique_ptr<GrammarCompiler>(new GrammarCompiler(std::move(parts)));
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarCompiler::Compile(
    const std::string& structural_tag, const GrammarBudget::Limits& limits) const {
  std::optional<xgrammar::CompiledGrammar> compiled;
  std::string warning;
  size_t num_bytes = 0;
  absl::Status status;
  {
    GrammarBudget budget(limits);
    warnings = &warning;
    status = RunWithin(&budget, limits, [&] {
      compiled = parts_->compiler.CompileStructuralTag(structural_tag);
      num_bytes = compiled->MemorySizeBytes();
    });
    warnings = nullptr;
  }
  if (!status.ok()) return status;
  if (!warning.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("it cannot be kept: ", Clean(warning)));
  }
  auto parts = std::make_unique<Grammar::Parts>(
      Grammar::Parts{*std::move(compiled), static_cast<int64_t>(num_bytes)});
  return std::make_shared<const Grammar>(std::move(parts));
}

struct GrammarMatcher::Parts {
  explicit Parts(const xgrammar::CompiledGrammar& grammar) : matcher(grammar) {}
  xgrammar::GrammarMatcher matcher;
};

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, const MatcherLimits& limits)
    : grammar_(std::move(grammar)), limits_(limits) {}

GrammarMatcher::~GrammarMatcher() { Release(); }

int64_t GrammarMatcher::num_bytes_of_all() { return bytes_of_all.load(); }

void GrammarMatcher::Release() {
  parts_ = nullptr;
  bytes_of_all.fetch_sub(std::exchange(num_bytes_, 0));
}

absl::StatusOr<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Create(
    std::shared_ptr<const Grammar> grammar, const MatcherLimits& limits) {
  std::unique_ptr<GrammarMatcher> matcher(new GrammarMatcher(std::move(grammar), limits));
  RETURN_IF_ERROR(matcher->Run(
      [&] { matcher->parts_ = std::make_unique<Parts>(matcher->grammar_->parts_->compiled); }));
  return matcher;
}

template <typename Work>
absl::Status GrammarMatcher::Run(Work work) {
  if (has_failed_) return absl::FailedPreconditionError("the constraint could not be followed");
  const int64_t left_of_all = limits_.num_bytes_of_all - bytes_of_all.load();
  const int64_t left = std::min(limits_.num_bytes - num_bytes_, left_of_all);
  const GrammarBudget::Limits limits{kMaxMatchTime, left};
  absl::Status status;
  {
    GrammarBudget budget(limits);
    status = RunWithin(&budget, limits, work);
    num_bytes_ += budget.num_bytes();
    bytes_of_all.fetch_add(budget.num_bytes());
    if (budget.spent() == GrammarBudget::Spent::kMemory) {
      status = absl::ResourceExhaustedError(
          absl::StrCat("it takes more memory than the limit of ", limits_.num_bytes >> 20,
                       " MiB, or all together ", limits_.num_bytes_of_all >> 20, " MiB"));
    }
  }
  if (status.ok()) return status;
  has_failed_ = true;
  Release();
  return absl::ResourceExhaustedError(
      absl::StrCat("following the constraint failed: ", status.message()));
}

absl::StatusOr<bool> GrammarMatcher::Accept(int32_t token) {
  if (has_ended_) return false;
  bool is_accepted = false;
  RETURN_IF_ERROR(Run([&] { is_accepted = parts_->matcher.AcceptToken(token); }));
  if (parts_->matcher.IsTerminated()) {
    has_ended_ = true;
    Release();
  }
  return is_accepted;
}

absl::Status GrammarMatcher::FillMask(absl::Span<uint32_t> mask) {
  if (has_ended_) {
    std::fill(mask.begin(), mask.end(), 0);
    return absl::OkStatus();
  }
  int64_t shape = 0;
  DLTensor tensor = MaskTensor(mask, &shape);
  return Run([&] { parts_->matcher.FillNextTokenBitmask(&tensor); });
}

bool GrammarMatcher::is_whole() const {
  return has_ended_ || (!has_failed_ && parts_->matcher.IsCompleted());
}

}  // namespace fastgen
