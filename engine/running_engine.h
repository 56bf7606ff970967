// MakeEngine: an Engine from its parts. Engine::Create loads the parts from a model; tests bring a
// fake executor.
//
// Starts the engine, rank and completion threads. The destructor refuses new requests, cancels what
// is live, answers what was asked, lets every sink have its last call and joins the threads. Thread
// rule: Engine's own. Tested by tests/engine/engine_test.cc.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "engine/model/executor.h"
#include "engine/request_queue.h"
#include "engine/schedule/scheduler.h"
#include "engine/text/chat_template.h"
#include "engine/text/parser_choice.h"
#include "engine/text/tokenizer.h"
#include "kernels/backend.h"

namespace fastgen {

struct EngineParts {
  std::unique_ptr<Backend> backend;  // what the executor runs on; null for one without a device
  std::unique_ptr<Executor> executor;
  std::unique_ptr<Tokenizer> tokenizer;
  // Or why chat prompts are refused.
  absl::StatusOr<ChatTemplate> chat_template =
      absl::FailedPreconditionError("the model has no chat template");
  ParserChoice parsers;          // ModelInfo's names of them follow from it
  std::unique_ptr<Clock> clock;  // null: the machine's
  // vocab_size and eos_ids are in force; context_length says what scheduler.max_model_len does.
  ModelInfo info;
  MemoryReport memory;
  SchedulerOptions scheduler;
  QueueLimits queue;
};

std::unique_ptr<Engine> MakeEngine(EngineParts parts);

}  // namespace fastgen
