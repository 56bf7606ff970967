#include "engine/text/grammar.h"

#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace fastgen {
namespace {

// What the library has warned of, on this thread, during a compilation; null: nobody listens.
thread_local std::string* warnings = nullptr;

constexpr size_t kMaxMessageBytes = 400;
// Of one matcher: what an output of some ten thousand tokens takes under a grammar that is not
// ambiguous, many times.
constexpr int64_t kMaxMatcherBytes = 256 << 20;
constexpr std::chrono::milliseconds kMaxMatchTime = std::chrono::seconds(1);

// The library's messages quote its input: one line, no control characters, not long.
std::string Clean(std::string_view text) {
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

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::unique_ptr<Parts> parts)
    : grammar_(std::move(grammar)), parts_(std::move(parts)) {}
GrammarMatcher::~GrammarMatcher() = default;

absl::StatusOr<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Create(
    std::shared_ptr<const Grammar> grammar) {
  std::unique_ptr<Parts> parts;
  const GrammarBudget::Limits limits{kMaxMatchTime, kMaxMatcherBytes};
  GrammarBudget budget(limits);
  const absl::Status status = RunWithin(
      &budget, limits, [&] { parts = std::make_unique<Parts>(grammar->parts_->compiled); });
  if (!status.ok()) return status;
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(std::move(grammar), std::move(parts)));
}

template <typename Work>
absl::Status GrammarMatcher::Run(Work work) {
  const GrammarBudget::Limits limits{kMaxMatchTime, kMaxMatcherBytes - num_bytes_};
  GrammarBudget budget(limits);
  const absl::Status status = RunWithin(&budget, limits, work);
  num_bytes_ += budget.num_bytes();
  if (status.ok()) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("following the constraint failed: ", status.message()));
}

absl::StatusOr<bool> GrammarMatcher::Accept(int32_t token) {
  bool is_accepted = false;
  const absl::Status status = Run([&] { is_accepted = parts_->matcher.AcceptToken(token); });
  if (!status.ok()) return status;
  return is_accepted;
}

absl::Status GrammarMatcher::FillMask(absl::Span<uint32_t> mask) {
  if (has_ended()) {
    std::fill(mask.begin(), mask.end(), 0);
    return absl::OkStatus();
  }
  int64_t shape = 0;
  DLTensor tensor = MaskTensor(mask, &shape);
  return Run([&] { parts_->matcher.FillNextTokenBitmask(&tensor); });
}

bool GrammarMatcher::is_whole() const { return parts_->matcher.IsCompleted(); }
bool GrammarMatcher::has_ended() const { return parts_->matcher.IsTerminated(); }

}  // namespace fastgen
