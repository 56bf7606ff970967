#include "clients/fgchat/answer.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace fastgen {

std::string DescribeSpeed(const Answer& answer) {
  const double seconds = absl::ToDoubleSeconds(answer.duration);
  // The first token ends the prompt's work; the rate is that of the tokens after it.
  const int counted = answer.num_tokens > 1 ? answer.num_tokens - 1 : answer.num_tokens;
  return absl::StrFormat("--- [%d tokens, %.3ftoks/s]", answer.num_tokens,
                         seconds > 0 ? counted / seconds : 0.0);
}

void AddApiKey(const std::string& api_key, grpc::ClientContext* context) {
  if (!api_key.empty()) context->AddMetadata("authorization", absl::StrCat("Bearer ", api_key));
}

absl::StatusOr<Answer> AnswerStream::Run(const fastgen::v1::GenerateRequest& request,
                                         const std::function<void(std::string_view)>& show) {
  grpc::ClientContext context;
  AddApiKey(api_key_, &context);
  {
    MutexLock lock(&mutex_);
    context_ = &context;
    interrupted_ = false;
  }
  Answer answer;
  const absl::Time start = absl::Now();
  absl::Time first = start, last = start;
  fastgen::v1::GenerateEvent event;
  auto reader = stub_->Generate(&context, request);
  while (reader->Read(&event)) {
    if (event.has_delta()) {
      last = absl::Now();
      if (answer.num_tokens == 0) first = last;
      answer.num_tokens += event.delta().num_tokens();
      answer.text += event.delta().text();
      if (!event.delta().text().empty()) show(event.delta().text());
    } else if (event.has_finished()) {
      answer.num_tokens = event.finished().usage().output_tokens();
    }
  }
  const grpc::Status status = reader->Finish();
  MutexLock lock(&mutex_);
  context_ = nullptr;
  answer.interrupted = interrupted_;
  answer.duration = answer.num_tokens > 1 ? last - first : absl::Now() - start;
  if (status.ok() || answer.interrupted) return answer;
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

void AnswerStream::Interrupt() {
  MutexLock lock(&mutex_);
  if (context_ == nullptr) return;
  interrupted_ = true;
  context_->TryCancel();
}

}  // namespace fastgen
