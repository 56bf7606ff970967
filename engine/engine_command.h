// What the outside tells or asks the engine thread, as RequestQueue carries it.
//
// Commands are applied between steps, in the order in which they were given. A query (a command
// with a `done`) is answered exactly once, on the engine thread, or at once by the one who asks
// when the engine is ending. Thread rule: values that move from the caller to the engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/request_stream.h"
#include "engine/schedule/sequence.h"

namespace fastgen {

// A request: its choices, leader first, and where their tokens go.
struct AddCommand {
  std::vector<NewSequence> sequences;
  std::unique_ptr<RequestStream> stream;
};
// All choices of a request.
struct CancelCommand {
  SequenceId leader = 0;
};
struct FinishAtCommand {
  SequenceId id = 0;
  int32_t num_output_tokens = 0;
};
struct ResumeCommand {};

struct PlanQuery {
  std::string request_id;  // "": any
  std::vector<int32_t> prompt;
  std::string cache_salt;
  int32_t priority = 0;
  int64_t deadline_us = kNoDeadline;
  bool scores_prompt = false;
  std::function<void(absl::StatusOr<PlanInfo>)> done;
};
struct ListQuery {
  std::function<void(std::vector<RequestInfo>)> done;
};
struct PauseQuery {
  std::function<void()> done;
};
struct FlushQuery {
  std::function<void(int32_t)> done;
};

using EngineCommand = std::variant<AddCommand, CancelCommand, FinishAtCommand, ResumeCommand,
                                   PlanQuery, ListQuery, PauseQuery, FlushQuery>;

}  // namespace fastgen
