// Generation: the Generate calls behind one HTTP request, from start to the last byte of its
// answer.
//
// Each prompt is one server-streaming call, Generate or, for a stream that is taken up again,
// Attach. A stream's events are formatted and flushed as they come; a whole answer is kept as text
// until every call has ended. The next event of a call is read only when few bytes wait for the
// client: a slow reader slows its own calls, and nothing is queued beyond that. Invariants: 1.
// exactly one answer, whatever the calls do; 2. an error before the first event is an HTTP status,
// one after it an SSE event; 3. when the client leaves or one call fails, all calls are cancelled
// at once; 4. a call that failed before any token is made again on another daemon, as
// retry_policy.h allows, unless something has been sent to the client. Thread rule: the
// connection's strand; gRPC's threads only post to it. Ownership: each running GenerateCall keeps
// its Generation alive; the connection keeps it until the answer is complete. Tested by
// tests/server/gateway/openai_{chat,completions}_test.cc, generation_test.cc and fleet_test.cc.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/answer_format.h"
#include "server/gateway/daemon_pool.h"
#include "server/gateway/errors.h"
#include "server/gateway/exchange.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

class Generation;

// One Generate call on one daemon. Reads one event at a time; Generation says when to read the
// next.
class GenerateCall final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  GenerateCall(Generation* owner, int prompt) : owner_(owner), prompt_(prompt) {}

  // On the strand, after Seat has given it a daemon:
  void Seat(DaemonLease lease) { lease_ = std::move(lease); }
  void Begin(v1::GenerateRequest request, const Headers& metadata);
  void BeginAttach(v1::AttachRequest request, const Headers& metadata);
  void ReadNext();
  // Ends the call early. Idempotent.
  void Cancel();
  // The event's handler ran (ok) or there will be none (not ok).
  void EndRead(bool ok);
  // The call has ended.
  void EndLease() { lease_.End(status_); }
  v1::GenerateRequest TakeRequest() { return std::move(request_); }

  bool reading() const { return reading_; }
  bool cancelled() const { return cancelled_; }
  int prompt() const { return prompt_; }
  size_t daemon() const { return lease_.daemon(); }
  // There has been more than word that the request waits.
  bool has_begun() const { return has_begun_; }
  const v1::GenerateEvent& event() const { return event_; }
  const grpc::Status& status() const { return status_; }

  // On gRPC's threads:
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void Launch();
  void ReleaseHold();

  Generation* const owner_;
  const int prompt_;
  v1::GenerateRequest request_;
  v1::AttachRequest attach_request_;
  v1::GenerateEvent event_;
  grpc::ClientContext context_;
  grpc::Status status_;
  DaemonLease lease_;
  bool has_begun_ = false;
  bool reading_ = false;
  bool cancelled_ = false;
  // Reads start outside gRPC's callbacks, so a hold keeps OnDone from coming before the last read
  // was asked for.
  bool held_ = false;
  std::shared_ptr<Generation> keep_alive_;  // until OnDone
};

class Generation final : public Exchange, public std::enable_shared_from_this<Generation> {
 public:
  Generation(std::shared_ptr<ResponseWriter> writer, DaemonPool& daemons, GenerationRequest request,
             std::unique_ptr<AnswerFormat> format, Headers response_headers);

  void Start(const Headers& metadata);

  void OnDisconnect() override;
  void OnDrained() override;
  void OnSilence() override;

 private:
  friend class GenerateCall;
  // What another try of a prompt's call needs; only kept before a fleet.
  struct Tries {
    PrefixHashes prefix;
    Attempts attempts;
  };

  void StartCall(int prompt, DaemonLease lease, v1::GenerateRequest request);
  // Whether it goes on as another call.
  bool Retry(GenerateCall* call);
  void OnRead(GenerateCall* call, bool ok);
  void OnCallDone(GenerateCall* call);
  void HandleEvent(const GenerateCall& call);
  // A stream that can be taken up again: its events get ids.
  void HandleWithIds(const GenerateCall& call);
  void StampEvents();
  void HandleAccepted(const GenerateCall& call);
  void HandleDelta(const GenerateCall& call, const v1::Delta& delta);
  void HandleFinished(const GenerateCall& call, const v1::Finished& finished);
  ChoiceState* ChoiceOf(const GenerateCall& call, int index);
  bool AnyOf(const GenerateCall& call, bool (*is)(const ChoiceState&)) const;
  void OpenStream();
  void OpenChoice(ChoiceState* choice);
  // What ends a choice in a stream.
  void StreamFinish(ChoiceState* choice);
  void FinishFailedChoices(const GenerateCall& call);
  void EndAsCancelled();
  void Complete();
  void Fail(const ApiError& error);
  void CancelAll();
  AnswerUsage Usage() const;

  const std::shared_ptr<ResponseWriter> writer_;
  DaemonPool& daemons_;
  GenerationRequest request_;
  const std::unique_ptr<AnswerFormat> format_;
  const Headers response_headers_;

  Headers metadata_;                                  // of the request, for its calls
  std::vector<std::unique_ptr<GenerateCall>> calls_;  // by prompt
  std::vector<Tries> tries_;                          // by prompt
  std::vector<PromptState> prompts_;
  std::vector<ChoiceState> choices_;
  std::unique_ptr<StreamIds> ids_;  // of a stream with a resume window
  size_t events_begin_ = 0;         // where the events begin that have no ids yet
  size_t num_accepted_ = 0;
  size_t num_done_ = 0;
  bool stream_open_ = false;
  bool ended_ = false;  // answered, or nobody is there to answer
};

}  // namespace fastgen::gateway
