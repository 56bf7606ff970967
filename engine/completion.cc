#include "engine/completion.h"

#include <utility>

#include "base/check.h"

namespace fastgen {

Completion::Completion(RequestQueue* queue) : queue_(queue), thread_([this] { Run(); }) {}

Completion::~Completion() {
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    has_events_.Signal();
  }
  thread_.join();
  CHECK(streams_.empty()) << streams_.size() << " streams were never finished";
}

void Completion::Open(SequenceId id, std::unique_ptr<OutputStream> stream) {
  Post(OpenEvent{id, std::move(stream)});
}

void Completion::PostStep(CommitResult result, absl::Time begin, absl::Time end) {
  {
    MutexLock lock(&mutex_);
    while (num_pending_steps_ >= kMaxPendingSteps) has_room_.Wait(&mutex_);
    ++num_pending_steps_;
  }
  Post(StepEvent{std::move(result), begin, end});
}

void Completion::PostFinished(FinishedSequence finished, absl::Time now) {
  Post(FinishedEvent{std::move(finished), now});
}

void Completion::PostFailure(std::string message) { Post(FailureEvent{std::move(message)}); }

void Completion::Post(Event event) {
  MutexLock lock(&mutex_);
  events_.push_back(std::move(event));
  if (events_.size() == 1) has_events_.Signal();
}

void Completion::Run() {
  std::vector<Event> events;
  while (true) {
    {
      MutexLock lock(&mutex_);
      while (events_.empty() && !closed_) has_events_.Wait(&mutex_);
      if (events_.empty()) return;
      events.swap(events_);
    }
    for (Event& event : events) {
      std::visit([this](auto&& e) { Handle(std::move(e)); }, std::move(event));
    }
    events.clear();
  }
}

void Completion::Handle(OpenEvent event) {
  event.stream->Accept();
  const bool is_new = streams_.emplace(event.id, OpenStream{std::move(event.stream)}).second;
  CHECK(is_new) << "sequence " << event.id << " was opened twice";
}

void Completion::Handle(StepEvent event) {
  {
    MutexLock lock(&mutex_);
    --num_pending_steps_;
    has_room_.Signal();
  }
  for (const FinishedSequence& finished : event.result.finished) {
    const auto it = streams_.find(finished.id);
    CHECK(it != streams_.end()) << "sequence " << finished.id << " has no stream";
    it->second.finished = &finished;
  }
  for (CommitResult::Output& output : event.result.outputs) {
    DeliverOutput(std::move(output), event.begin, event.end);
  }
  for (const FinishedSequence& finished : event.result.finished) {
    FinishStream(finished, event.end);
  }
}

void Completion::DeliverOutput(CommitResult::Output output, absl::Time begin, absl::Time end) {
  const auto it = streams_.find(output.id);
  CHECK(it != streams_.end()) << "sequence " << output.id << " has no stream";
  OutputStream& stream = *it->second.stream;
  const SequenceId id = output.id;
  const int32_t num_output_before = stream.num_output();
  const bool was_prefilled = stream.prefilled();
  const bool stopped = stream.Deliver(std::move(output), it->second.finished, begin, end);
  output_tokens_ += stream.num_output() - num_output_before;
  if (!was_prefilled && stream.prefilled()) prompt_tokens_ += stream.num_prompt();
  if (stopped && it->second.finished == nullptr) queue_->FinishAt(id, stream.num_output());
}

void Completion::Handle(FinishedEvent event) { FinishStream(event.finished, event.now); }

void Completion::FinishStream(const FinishedSequence& finished, absl::Time now) {
  auto node = streams_.extract(finished.id);
  CHECK(!node.empty()) << "sequence " << finished.id << " has no stream";
  OutputStream& stream = *node.mapped().stream;
  finished_requests_ += 1;
  queue_->Retire(stream.request_id());
  stream.Finish(finished, now);
  queue_->Delivered();
}

void Completion::Handle(FailureEvent event) {
  for (auto& [id, open] : streams_) {
    queue_->Retire(open.stream->request_id());
    open.stream->Fail(event.message);
    queue_->Delivered();
  }
  streams_.clear();
}

Completion::Counters Completion::counters() const {
  Counters counters;
  counters.prompt_tokens = prompt_tokens_;
  counters.output_tokens = output_tokens_;
  counters.finished_requests = finished_requests_;
  return counters;
}

}  // namespace fastgen
