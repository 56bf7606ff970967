#include "server/gateway/generation.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/gateway/json_text.h"

namespace fastgen::gateway {
namespace {

// With more than this waiting for the client, no further event is read.
constexpr size_t kMaxUnsentBytes = 64 << 10;

std::string StopReasonJson(const v1::Finished& finished,
                           const std::vector<int32_t>& stop_token_ids) {
  std::string json;
  if (finished.matched_case() == v1::Finished::kMatchedStop && !finished.matched_stop().empty()) {
    AppendJsonString(finished.matched_stop(), &json);
    return json;
  }
  // The end-of-text token is not a reason of the request's own.
  for (int32_t id : stop_token_ids) {
    if (finished.matched_case() != v1::Finished::kMatchedTokenId ||
        id != finished.matched_token_id())
      continue;
    AppendJsonInt(id, &json);
    return json;
  }
  return "null";
}

// By its deadline or alone: whether that is an error of the whole call is told by the status.
bool HasFailed(const ChoiceState& choice) {
  return choice.finished && choice.reason != v1::STOP && choice.reason != v1::LENGTH &&
         choice.reason != v1::CANCELLED;
}

}  // namespace

// ---- GenerateCall

void GenerateCall::Begin(v1::GenerateRequest request, const Headers& metadata) {
  request_ = std::move(request);
  AddMetadata(metadata, &context_);
  const absl::Time deadline = owner_->request_.deadline;
  if (deadline != absl::InfiniteFuture()) context_.set_deadline(absl::ToChronoTime(deadline));
  lease_.stubs().inference->async()->Generate(&context_, &request_, this);
  Launch();
}

void GenerateCall::BeginAttach(v1::AttachRequest request, const Headers& metadata) {
  attach_request_ = std::move(request);
  AddMetadata(metadata, &context_);
  lease_.stubs().inference->async()->Attach(&context_, &attach_request_, this);
  Launch();
}

void GenerateCall::Launch() {
  keep_alive_ = owner_->shared_from_this();
  lease_.stubs().live_calls->Enter();
  AddHold();
  held_ = true;
  reading_ = true;
  StartRead(&event_);
  StartCall();
}

void GenerateCall::ReadNext() {
  if (reading_ || cancelled_ || !held_) return;
  reading_ = true;
  StartRead(&event_);
}

void GenerateCall::Cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  context_.TryCancel();
  if (!reading_) ReleaseHold();
}

void GenerateCall::EndRead(bool ok) {
  reading_ = false;
  if (ok && !has_begun_) {
    lease_.NoteAnswer();
    has_begun_ = event_.has_delta() || event_.has_finished();
  }
  if (!ok || cancelled_) ReleaseHold();
}

void GenerateCall::ReleaseHold() {
  if (std::exchange(held_, false)) RemoveHold();
}

void GenerateCall::OnReadDone(bool ok) {
  owner_->writer_->Post([this, ok] { owner_->OnRead(this, ok); });
}

void GenerateCall::OnDone(const grpc::Status& status) {
  status_ = status;
  // Once the task is posted, this object may be gone at any moment.
  const std::shared_ptr<LiveCalls> live_calls = lease_.stubs().live_calls;
  {
    const std::shared_ptr<ResponseWriter> writer = owner_->writer_;
    writer->Post([this] {
      const std::shared_ptr<Generation> generation = std::move(keep_alive_);
      generation->OnCallDone(this);
    });
  }
  live_calls->Leave();
}

// ---- Generation

Generation::Generation(std::shared_ptr<ResponseWriter> writer, DaemonPool& daemons,
                       GenerationRequest request, std::unique_ptr<AnswerFormat> format,
                       Headers response_headers)
    : writer_(std::move(writer)),
      daemons_(daemons),
      request_(std::move(request)),
      format_(std::move(format)),
      response_headers_(std::move(response_headers)),
      prompts_(request_.resume.has_value() ? 1 : request_.calls.size()),
      choices_(prompts_.size() * static_cast<size_t>(request_.num_answers)) {
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].index = static_cast<int>(i);
    choices_[i].prompt = static_cast<int>(i) / request_.num_answers;
  }
  if (!request_.has_window || !request_.options.stream) return;
  const StreamPosition start = request_.resume.value_or(StreamPosition());
  ids_ = std::make_unique<StreamIds>(start,
                                     /*moves=*/choices_.size() == 1 && format_->resumes_anywhere());
  if (start.at_start()) return;
  choices_[0].opened = true;
  choices_[0].output_tokens = start.tokens;
  choices_[0].text_offset = static_cast<size_t>(start.offset);
}

void Generation::Start(const Headers& metadata) {
  metadata_ = metadata;
  calls_.resize(prompts_.size());
  tries_.resize(prompts_.size());
  if (request_.resume.has_value()) {
    v1::AttachRequest attach;
    attach.set_request_id(request_.request_id);
    attach.set_from_token(request_.resume->tokens);
    calls_[0] = std::make_unique<GenerateCall>(this, 0);
    calls_[0]->Seat(daemons_.Take(request_.daemon));
    calls_[0]->BeginAttach(std::move(attach), metadata_);
  } else {
    for (size_t i = 0; i < calls_.size(); ++i) {
      if (daemons_.is_fleet()) tries_[i].prefix = HashesOfPrompt(request_.calls[i], metadata_);
      DaemonLease lease = daemons_.Pick(tries_[i].prefix, &tries_[i].attempts);
      if (lease.has_daemon()) {
        StartCall(static_cast<int>(i), std::move(lease), std::move(request_.calls[i]));
        continue;
      }
      // Not from within the handler, which has yet to hand this exchange to the connection.
      writer_->Post([self = shared_from_this()] {
        self->Fail(ErrorFromGrpc(self->daemons_.NoDaemon(), self->request_.names));
      });
      break;
    }
    request_.calls.clear();
  }
  if (request_.options.stream) writer_->WatchForSilence();
}

void Generation::StartCall(int prompt, DaemonLease lease, v1::GenerateRequest request) {
  auto call = std::make_unique<GenerateCall>(this, prompt);
  call->Seat(std::move(lease));
  if (request_.on_sent) request_.on_sent(call->daemon());
  call->Begin(std::move(request), metadata_);
  // Of another try: the call that has ended goes here.
  calls_[static_cast<size_t>(prompt)] = std::move(call);
}

bool Generation::Retry(GenerateCall* call) {
  if (ended_ || stream_open_ || request_.resume.has_value() || call->has_begun() ||
      call->cancelled() || call->status().ok()) {
    return false;
  }
  Tries& tries = tries_[static_cast<size_t>(call->prompt())];
  DaemonLease next = daemons_.PickAgain(RetryKindOf(call->status()), tries.prefix, &tries.attempts);
  if (!next.has_daemon()) return false;
  StartCall(call->prompt(), std::move(next), call->TakeRequest());
  return true;
}

void Generation::OnRead(GenerateCall* call, bool ok) {
  call->EndRead(ok);
  if (!ok || ended_) return;
  if (ids_ != nullptr) {
    HandleWithIds(*call);
  } else {
    HandleEvent(*call);
  }
  if (ended_) return;
  if (stream_open_) writer_->FlushEvents();
  if (writer_->num_unsent_bytes() <= kMaxUnsentBytes) call->ReadNext();
}

void Generation::HandleWithIds(const GenerateCall& call) {
  events_begin_ = writer_->events().size();
  if (ids_->IsPassed(call.event())) {
    // Handled for what it says of the choice; the client has its text.
    const size_t offset = choices_[0].text_offset;
    HandleEvent(call);
    choices_[0].text_offset = offset;
    if (!ended_) writer_->events().resize(events_begin_);
    return;
  }
  HandleEvent(call);
  if (ended_) return;
  StampEvents();
  ids_->Move(call.event(), choices_[0].text_offset);
}

void Generation::StampEvents() {
  if (ids_ == nullptr) return;
  ids_->Stamp(events_begin_, &writer_->events());
  events_begin_ = writer_->events().size();
}

void Generation::HandleEvent(const GenerateCall& call) {
  switch (call.event().event_case()) {
    case v1::GenerateEvent::kAccepted:
      HandleAccepted(call);
      return;
    case v1::GenerateEvent::kDelta:
      HandleDelta(call, call.event().delta());
      return;
    case v1::GenerateEvent::kFinished:
      HandleFinished(call, call.event().finished());
      return;
    default:
      return;  // progress, or an event of a newer daemon
  }
}

void Generation::HandleAccepted(const GenerateCall& call) {
  const v1::Accepted& accepted = call.event().accepted();
  if (request_.resume.has_value() && accepted.from_token() != request_.resume->tokens) {
    Fail({.message = "Last-Event-ID is not that of an event of this stream",
          .param = "Last-Event-ID",
          .code = "invalid_value"});
    return;
  }
  PromptState& prompt = prompts_[static_cast<size_t>(call.prompt())];
  if (!std::exchange(prompt.accepted, true)) ++num_accepted_;
  if (request_.on_accepted) request_.on_accepted(call.daemon());
  if (num_accepted_ == 1) {
    const std::string fingerprint = daemons_.system_fingerprint(call.daemon());
    if (!fingerprint.empty()) format_->SetSystemFingerprint(fingerprint);
  }
  prompt.prompt_tokens = accepted.prompt_tokens();
  prompt.cached_tokens = accepted.cached_tokens();
  if (request_.options.return_token_ids) {
    prompt.token_ids_json.assign(1, '[');
    AppendIds(accepted.prompt_token_ids(), &prompt.token_ids_json);
    prompt.token_ids_json += ']';
  }
  if (!request_.options.stream || num_accepted_ < prompts_.size()) return;
  OpenStream();
  for (ChoiceState& choice : choices_) OpenChoice(&choice);
}

void Generation::HandleDelta(const GenerateCall& call, const v1::Delta& delta) {
  ChoiceState* choice = ChoiceOf(call, delta.index());
  if (choice == nullptr) return;
  choice->output_tokens += delta.num_tokens();
  if (!request_.options.stream) {
    // Every choice has the prompt's; they are the same.
    if (delta.index() == 0) {
      KeepPromptLogprobs(request_.options, delta, &prompts_[static_cast<size_t>(choice->prompt)]);
    }
    format_->Keep(delta, choice);
    return;
  }
  OpenStream();
  OpenChoice(choice);
  format_->AppendDelta(delta, choice, prompts_[static_cast<size_t>(choice->prompt)],
                       &writer_->events());
}

void Generation::HandleFinished(const GenerateCall& call, const v1::Finished& finished) {
  ChoiceState* choice = ChoiceOf(call, finished.index());
  if (choice == nullptr || choice->finished) return;
  choice->reason = finished.reason();
  choice->num_tool_calls = finished.num_tool_calls();
  choice->finished = true;
  choice->stop_reason_json = StopReasonJson(finished, request_.options.stop_token_ids);
  PromptState& prompt = prompts_[static_cast<size_t>(choice->prompt)];
  if (finished.has_usage()) {
    choice->output_tokens = finished.usage().output_tokens();
    choice->reasoning_tokens = finished.usage().reasoning_tokens();
    prompt.prompt_tokens = finished.usage().prompt_tokens();
    prompt.cached_tokens = finished.usage().cached_tokens();
  }
  if (request_.options.stream && !HasFailed(*choice)) StreamFinish(choice);
}

ChoiceState* Generation::ChoiceOf(const GenerateCall& call, int index) {
  if (index >= 0 && index < request_.num_answers) {
    return &choices_[static_cast<size_t>(call.prompt() * request_.num_answers + index)];
  }
  Fail({.status = 500,
        .message = absl::StrCat("the daemon sent an answer ", index, " that was not asked for"),
        .code = "internal_error"});
  return nullptr;
}

void Generation::OpenStream() {
  if (std::exchange(stream_open_, true)) return;
  writer_->StartEvents(response_headers_);
}

void Generation::OpenChoice(ChoiceState* choice) {
  if (std::exchange(choice->opened, true)) return;
  format_->AppendOpening(*choice, prompts_[static_cast<size_t>(choice->prompt)],
                         &writer_->events());
}

bool Generation::AnyOf(const GenerateCall& call, bool (*is)(const ChoiceState&)) const {
  for (const ChoiceState& choice : choices_) {
    if (choice.prompt == call.prompt() && is(choice)) return true;
  }
  return false;
}

void Generation::OnCallDone(GenerateCall* call) {
  call->EndLease();
  if (Retry(call)) return;
  ++num_done_;
  if (ended_) return;
  events_begin_ = writer_->events().size();
  if (AnyOf(*call, [](const ChoiceState& choice) { return !choice.finished; })) {
    Fail(call->status().ok()
             ? ApiError{.status = 500,
                        .message = "the daemon ended the stream without finishing it",
                        .code = "internal_error"}
             : ErrorFromGrpc(call->status(), request_.names));
    return;
  }
  const bool cancelled =
      AnyOf(*call, [](const ChoiceState& choice) { return choice.reason == v1::CANCELLED; });
  // Choices that failed beside others which did not are part of the answer; else the status says
  // what went wrong.
  if (AnyOf(*call, &HasFailed) && !cancelled && !call->status().ok()) {
    Fail(ErrorFromGrpc(call->status(), request_.names));
    return;
  }
  FinishFailedChoices(*call);
  if (cancelled) {
    EndAsCancelled();
  } else if (num_done_ == calls_.size()) {
    Complete();
  }
}

void Generation::FinishFailedChoices(const GenerateCall& call) {
  if (!request_.options.stream) return;
  for (ChoiceState& choice : choices_) {
    if (choice.prompt == call.prompt() && HasFailed(choice)) StreamFinish(&choice);
  }
}

void Generation::StreamFinish(ChoiceState* choice) {
  OpenStream();
  OpenChoice(choice);
  format_->AppendFinish(*choice, prompts_[static_cast<size_t>(choice->prompt)], &writer_->events());
}

// The id that was cancelled stands for the whole request: its other prompts end with what they
// have.
void Generation::EndAsCancelled() {
  CancelAll();
  for (ChoiceState& choice : choices_) {
    if (std::exchange(choice.finished, true)) continue;
    choice.reason = v1::CANCELLED;
    if (request_.options.stream) StreamFinish(&choice);
  }
  Complete();
}

AnswerUsage Generation::Usage() const {
  AnswerUsage usage;
  for (const PromptState& prompt : prompts_) {
    usage.prompt_tokens += prompt.prompt_tokens;
    usage.cached_tokens += prompt.cached_tokens;
  }
  for (const ChoiceState& choice : choices_) {
    usage.output_tokens += choice.output_tokens;
    usage.reasoning_tokens += choice.reasoning_tokens;
  }
  return usage;
}

void Generation::Complete() {
  ended_ = true;
  if (!request_.options.stream) {
    HttpResponse response;
    response.headers = response_headers_;
    response.body = format_->Whole(choices_, prompts_, Usage());
    writer_->Respond(std::move(response));
    return;
  }
  if (request_.options.include_usage) format_->AppendUsage(Usage(), &writer_->events());
  format_->AppendEnd(&writer_->events());
  StampEvents();
  writer_->EndEvents();
}

void Generation::Fail(const ApiError& error) {
  if (std::exchange(ended_, true)) return;
  CancelAll();
  if (stream_open_) {
    format_->AppendError(error, &writer_->events());
    writer_->EndEvents();
    return;
  }
  HttpResponse response = format_->ErrorAnswer(error);
  response.headers.insert(response.headers.end(), response_headers_.begin(),
                          response_headers_.end());
  writer_->Respond(std::move(response));
}

void Generation::CancelAll() {
  for (const std::unique_ptr<GenerateCall>& call : calls_) {
    if (call != nullptr) call->Cancel();
  }
}

void Generation::OnDisconnect() {
  ended_ = true;
  CancelAll();
}

void Generation::OnDrained() {
  if (ended_) return;
  for (const std::unique_ptr<GenerateCall>& call : calls_) {
    if (call != nullptr) call->ReadNext();
  }
}

void Generation::OnSilence() {
  if (ended_) return;
  OpenStream();
  format_->AppendKeepAlive(&writer_->events());
  writer_->FlushEvents();
}

}  // namespace fastgen::gateway
