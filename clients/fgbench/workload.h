// Workload: what each request asks for: a prompt and a number of output tokens.
//
// Prompts are random common words, of which nearly every tokenizer makes one token each, or the
// lines of a file. No two requests of a run share a prompt (of more than a few words), over all
// targets and rounds, as a server's prefix cache would otherwise serve the later one for nothing; a
// file that has been used up begins again with "(2) " before each line. With a shared prefix, all
// prompts open with the same words on purpose. The same seed gives the same prompts. Thread rule:
// Next from one thread at a time. Tested by tests/clients/fgbench_test.cc.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

struct WorkloadOptions {
  int32_t prompt_tokens = 128;
  int32_t shared_prefix_tokens = 0;  // before each prompt, in addition
  std::string prompt_file;           // instead of random words
  uint64_t seed = 1;
};

class Workload {
 public:
  // INVALID_ARGUMENT or NOT_FOUND naming the file.
  static absl::StatusOr<Workload> Make(const WorkloadOptions& options);

  // The next request's prompt.
  std::string Next();

 private:
  explicit Workload(const WorkloadOptions& options);
  std::string Words(int32_t count);

  const int32_t prompt_tokens_;
  std::mt19937_64 random_;
  std::string shared_prefix_;
  std::vector<std::string> lines_;
  uint64_t num_made_ = 0;
};

}  // namespace fastgen
