// Ceilings: what this machine gives, probed in the process whose figures are held against it.
//
// The memory's is the rate at which linear streams, one a thread, read a set that no cache holds;
// an instruction's is its loop's (instruction_probes.h). Both are taken anew beside every figure,
// A B A B, because shared machines drift and because AMX has a fast and a slow state that its host
// chooses. A figure's fraction is the time that the ceilings allow - bytes over the read rate or
// operations over the instruction's, whichever is longer - over the time taken, median over pairs.
// Thread rule: one thread.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/dtype.h"
#include "tests/bench/bench_team.h"
#include "tests/bench/instruction_probes.h"

namespace fastgen::bench {

// The instructions that a path of kernels multiplies with.
struct PathInstructions {
  Instruction int8 = Instruction::kSse2Int8;
  Instruction bf16 = Instruction::kSse2Float;
  Instruction f32 = Instruction::kSse2Float;
  Instruction attention = Instruction::kSse2Float;  // on bf16 pages
};
// `isa` is a name that --cpu-isa takes.
PathInstructions InstructionsOf(const std::string& isa);

// A piece of work of known size that is called again and again.
struct Work {
  std::function<void()> call;
  double bytes = 0;  // that it reads from memory once
  double ops = 0;    // on `instruction`
  Instruction instruction = Instruction::kSse2Float;
};

struct Figure {
  double seconds = 0;  // of one call, median
  double fraction = 0;
  bool is_read = false;   // what bounds it: reading, or the instruction
  double ceiling = 0;     // GB/s or GOP/s, median of the probes taken beside it
  double core_share = 1;  // median, see Elapsed
};

class Ceilings {
 public:
  // `working_set_bytes`: more than the caches hold. `figure_seconds`: what a figure may take.
  Ceilings(const BenchTeam* team, int64_t working_set_bytes, double figure_seconds);
  ~Ceilings();
  Ceilings(const Ceilings&) = delete;
  Ceilings& operator=(const Ceilings&) = delete;

  // GB/s and GOP/s of one short probe.
  double ProbeRead();
  double Probe(Instruction instruction);
  // Medians of several, taken at the first call.
  double Read();
  double Peak(Instruction instruction);

  // The median time of a call and its fraction.
  Figure Measure(const Work& work);
  // The median time alone, of work without a ceiling.
  double MedianSeconds(const std::function<void()>& call) const;

 private:
  // Calls in one run, so that reading the clock does not count.
  int CallsPerRun(const std::function<void()>& call) const;

  const BenchTeam* const team_;
  const int64_t set_bytes_;
  const double figure_seconds_;
  uint8_t* set_ = nullptr;
  int64_t next_ = 0;  // in the set
  double read_ = 0;
  std::array<double, kNumInstructions> peaks_ = {};
  std::array<int64_t, kNumInstructions> steps_ = {};
};

}  // namespace fastgen::bench
