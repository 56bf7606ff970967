#include "clients/fgbench/workload.h"

#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fastgen {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;

// Short and common: one token each, with the space before it, in the vocabularies of today's
// models.
constexpr std::string_view kWords[] = {
    "the",   "and",   "for",   "that",  "with",   "this",   "from",   "have",  "are",   "was",
    "not",   "but",   "they",  "his",   "her",    "she",    "one",    "all",   "would", "there",
    "their", "what",  "out",   "about", "who",    "get",    "which",  "when",  "make",  "can",
    "like",  "time",  "just",  "him",   "know",   "take",   "people", "into",  "year",  "your",
    "good",  "some",  "could", "them",  "see",    "other",  "than",   "then",  "now",   "look",
    "only",  "come",  "its",   "over",  "think",  "also",   "back",   "after", "use",   "two",
    "how",   "our",   "work",  "first", "well",   "way",    "even",   "new",   "want",  "because",
    "any",   "these", "give",  "day",   "most",   "more",   "under",  "water", "long",  "little",
    "house", "world", "still", "own",   "might",  "great",  "place",  "where", "three", "name",
    "hand",  "part",  "high",  "right", "number", "school", "night",  "every", "found", "light",
};

}  // namespace

Workload::Workload(const WorkloadOptions& options)
    : prompt_tokens_(options.prompt_tokens), random_(options.seed) {
  shared_prefix_ = Words(options.shared_prefix_tokens);
  if (!shared_prefix_.empty()) shared_prefix_ += ' ';
}

absl::StatusOr<Workload> Workload::Make(const WorkloadOptions& options) {
  Workload workload(options);
  if (options.prompt_file.empty()) return workload;
  std::ifstream file(options.prompt_file);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("--prompt-file ", options.prompt_file, ": cannot be read"));
  }
  size_t num_bytes = 0;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    num_bytes += line.size();
    if (num_bytes > kMaxFileBytes) {
      return absl::InvalidArgumentError(absl::StrCat("--prompt-file ", options.prompt_file,
                                                     ": more than ", kMaxFileBytes >> 20, " MiB"));
    }
    workload.lines_.push_back(std::move(line));
  }
  if (workload.lines_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prompt-file ", options.prompt_file, ": holds no prompt"));
  }
  return workload;
}

std::string Workload::Words(int32_t count) {
  std::string text;
  for (int32_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    // The modulo's bias is of no matter here, and every library gives the same words.
    text += kWords[random_() % std::size(kWords)];
  }
  return text;
}

std::string Workload::Next() {
  const uint64_t number = num_made_++;
  std::string prompt = shared_prefix_;
  if (lines_.empty()) {
    prompt += Words(prompt_tokens_);
    return prompt;
  }
  const uint64_t lap = number / lines_.size() + 1;
  if (lap > 1) absl::StrAppend(&prompt, "(", lap, ") ");
  prompt += lines_[number % lines_.size()];
  return prompt;
}

}  // namespace fastgen
