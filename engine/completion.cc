#include "engine/completion.h"

#include <utility>

#include "base/check.h"
#include "engine/choice_id.h"

namespace fastgen {

Completion::Completion(RequestQueue* queue, int32_t max_num_seqs) : queue_(queue) {
  {
    MutexLock lock(&mutex_);
    events_.reserve(2 * kMaxPendingSteps);
    for (int i = 0; i < kMaxPendingSteps; ++i) {
      auto event = std::make_unique<StepEvent>();
      event->result.outputs.reserve(max_num_seqs);
      event->result.finished.reserve(max_num_seqs);
      spare_events_.push_back(std::move(event));
    }
  }
  thread_ = std::thread([this] { Run(); });
}

Completion::~Completion() {
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    has_events_.Signal();
  }
  thread_.join();
  CHECK(choices_.empty()) << choices_.size() << " streams were never finished";
}

void Completion::Open(std::unique_ptr<RequestStream> stream, int32_t cached_tokens) {
  Post(OpenEvent{std::move(stream), cached_tokens});
}

std::unique_ptr<Completion::StepEvent> Completion::TakeStepEvent() {
  MutexLock lock(&mutex_);
  while (spare_events_.empty()) has_spare_.Wait(&mutex_);
  // The last one given back: its storage is the warmest.
  std::unique_ptr<StepEvent> event = std::move(spare_events_.back());
  spare_events_.pop_back();
  return event;
}

void Completion::PostStep(std::unique_ptr<StepEvent> event) { Post(std::move(event)); }

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
  events.reserve(2 * kMaxPendingSteps);
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
  const std::shared_ptr<RequestStream> stream = std::move(event.stream);
  const SequenceId leader = stream->request().leader;
  for (int32_t i = 0; i < stream->request().best_of; ++i) {
    const bool is_new = choices_.emplace(leader + i, OpenChoice{stream}).second;
    CHECK(is_new) << "sequence " << leader + i << " was opened twice";
  }
  stream->Accept(event.cached_tokens);
}

void Completion::Handle(std::unique_ptr<StepEvent> event) {
  for (const FinishedSequence& finished : event->result.finished) {
    const auto it = choices_.find(finished.id);
    CHECK(it != choices_.end()) << "sequence " << finished.id << " has no stream";
    it->second.finished = &finished;
  }
  for (CommitResult::Output& output : event->result.outputs) {
    DeliverOutput(&output, event->begin, event->end);
  }
  for (const FinishedSequence& finished : event->result.finished) {
    FinishChoice(finished, event->end);
  }
  MutexLock lock(&mutex_);
  spare_events_.push_back(std::move(event));
  has_spare_.Signal();
}

void Completion::DeliverOutput(CommitResult::Output* output, absl::Time begin, absl::Time end) {
  const auto it = choices_.find(output->id);
  CHECK(it != choices_.end()) << "sequence " << output->id << " has no stream";
  RequestStream& stream = *it->second.stream;
  const int32_t choice = ChoiceOf(output->id);
  const RequestStream::Progress progress =
      stream.Deliver(choice, output, it->second.finished, begin, end);
  output_tokens_ += progress.num_new_tokens;
  if (progress.prefilled) prompt_tokens_ += static_cast<int64_t>(stream.request().prompt.size());
  if (progress.stopped && it->second.finished == nullptr) {
    queue_->FinishAt(output->id, stream.num_output(choice));
  }
}

void Completion::Handle(FinishedEvent event) { FinishChoice(event.finished, event.now); }

void Completion::FinishChoice(const FinishedSequence& finished, absl::Time now) {
  auto node = choices_.extract(finished.id);
  CHECK(!node.empty()) << "sequence " << finished.id << " has no stream";
  RequestStream& stream = *node.mapped().stream;
  const bool is_last = stream.num_open() == 1;
  if (is_last) {
    finished_requests_ += 1;
    queue_->Retire(stream.request().request_id);
  }
  stream.Finish(ChoiceOf(finished.id), finished, now);
  if (is_last) queue_->Delivered();
}

void Completion::Handle(FailureEvent event) {
  for (auto& [id, choice] : choices_) {
    RequestStream& stream = *choice.stream;
    if (stream.num_open() == 0) continue;  // its other choices were told
    queue_->Retire(stream.request().request_id);
    stream.Fail(event.message);
    queue_->Delivered();
  }
  choices_.clear();
}

Completion::Counters Completion::counters() const {
  Counters counters;
  counters.prompt_tokens = prompt_tokens_;
  counters.output_tokens = output_tokens_;
  counters.finished_requests = finished_requests_;
  return counters;
}

}  // namespace fastgen
