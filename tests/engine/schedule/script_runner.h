// ScriptRunner: gives the commands of a scheduler script to a scheduler and prints what it answers.
//
// Commands, each word optional (the values are the defaults):
//   new max_num_seqs=4 max_num_batched_tokens=16 max_model_len=64 block_size=4 num_blocks=32 max_steps_in_flight=1
//       prefix_cache=0 num_host_blocks=0 host_chunk_tokens=8 ageing_us=1000000 deadline_margin_us=0 page_us=0
//       show=slots,poison,computed     more to print: rows' slots, poisoned blocks, how far a row's KV reaches
//   add id=1 prompt=5 max=8 min=0 stop=7,9 score=0 priority=0 arrival=0 deadline=9000 salt=x leader=2 cut=1 choice=1
//       penalty=0.5                    prompt as in script_command.h; arrival defaults to 0, the order of adds decides
//   plan, commit 1=42 2=nan            up to max_steps_in_flight plans; commit answers the oldest one
//   step 1=42                          plan, then commit; rows not named sample id * 100 + 50 + position
//   cancel id=1 reason=deadline, finish_at id=1 output=2, expire now=5000, end_all reason=error
//   observe tokens=8 us=1000           a measured step
//   flush, lookup prompt=5 salt=x id=1, ahead priority=0 now=0, list, stats
// The scheduler's invariants are checked after each. A command that makes no sense throws std::invalid_argument.
// Thread rule: one thread. Tested by every script (script_test.cc).
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "engine/schedule/scheduler.h"
#include "tests/engine/schedule/script_command.h"

namespace fastgen::testing {

class ScriptRunner {
 public:
  // The answer, each line ended.
  std::string Run(const ScriptCommand& command);

 private:
  std::string Dispatch(const ScriptCommand& command);
  std::string New(const ScriptCommand& command);
  std::string Add(const ScriptCommand& command);
  std::string Plan();
  std::string Commit(const ScriptCommand& command);
  std::string End(const ScriptCommand& command);
  std::string Expire(const ScriptCommand& command);
  std::string EndAll(const ScriptCommand& command);
  std::string Ask(const ScriptCommand& command);
  std::string List() const;
  std::string Stats() const;

  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<StepPlan> in_flight_;
  CommitResult commit_;
  bool shows_slots_ = false;
  bool shows_computed_ = false;
};

}  // namespace fastgen::testing
