#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

std::chrono::system_clock::time_point In(std::chrono::milliseconds delay) {
  return std::chrono::system_clock::now() + delay;
}

// Reads until the first delta.
v1::GenerateEvent ReadDelta(grpc::ClientReader<v1::GenerateEvent>* reader) {
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (event.has_delta()) return event;
  }
  return {};
}

TEST_CASE("a stream is accepted, deltas, finished, OK", "[server]") {
  TestDaemon daemon;
  v1::GenerateRequest request = TextRequest("hi", 5);
  request.mutable_output()->set_token_ids(true);
  const Stream stream = Generate(daemon.stub.get(), request);
  REQUIRE(stream.status.ok());
  REQUIRE(stream.events.size() >= 3);
  REQUIRE(stream.events.front().has_accepted());
  CHECK_FALSE(stream.events.front().accepted().request_id().empty());
  CHECK(stream.events.front().accepted().prompt_tokens() == 3);
  CHECK(stream.events.front().accepted().prompt_token_ids_size() == 3);
  REQUIRE(stream.events.back().has_finished());
  CHECK(stream.finished->reason() == v1::LENGTH);
  CHECK(stream.finished->usage().output_tokens() == 5);
  CHECK(stream.text == "ttttt");
  std::vector<int32_t> ids;
  for (const auto& event : stream.events) {
    for (const int32_t id : event.delta().token_ids()) ids.push_back(id);
  }
  CHECK(ids == std::vector<int32_t>{1, 2, 3, 4, 5});
}

TEST_CASE("drawn request ids differ", "[server]") {
  TestDaemon daemon;
  Generate(daemon.stub.get(), TextRequest("a", 1));
  Generate(daemon.stub.get(), TextRequest("a", 1));
  const auto submitted = daemon.engine->submitted();
  REQUIRE(submitted.size() == 2);
  CHECK(submitted[0].request_id != submitted[1].request_id);
}

TEST_CASE("deltas that are ready are coalesced into one message", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("hi", 101));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  REQUIRE(event.has_accepted());
  // Nobody reads: the first delta's write is in flight, the other hundred wait together.
  daemon.engine->ReleaseRounds();
  REQUIRE(daemon.engine->WaitProduced(101));
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.num_tokens == 101);
  CHECK(stream.text == std::string(101, 't'));
  CHECK(stream.num_deltas <= 3);
}

TEST_CASE("a message holds at most 256 tokens", "[server]") {
  TestDaemon daemon;
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("hi", 2000));
  REQUIRE(daemon.engine->WaitProduced(2000));
  v1::GenerateEvent event;
  Stream stream;
  int largest = 0;
  while (reader->Read(&event)) {
    Take(event, &stream);
    largest = std::max(largest, event.delta().num_tokens());
  }
  CHECK(reader->Finish().ok());
  CHECK(stream.num_tokens == 2000);
  CHECK(largest == 256);
}

TEST_CASE("a reader that falls behind the bound loses its request", "[server]") {
  DaemonOptions options;
  options.max_outbox_tokens = 64;
  TestDaemon daemon(options);
  v1::GenerateRequest request = TextRequest("hi", 100'000);
  request.set_request_id("slow");
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitCancelCalled("slow"));
  v1::GenerateEvent event;
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  const grpc::Status status = reader->Finish();
  CHECK(status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(status.error_message().find("64") != std::string::npos);
  CHECK_FALSE(stream.finished.has_value());
  CHECK(Metadata(context.GetServerTrailingMetadata(), "x-fastgen-usage").rfind("prompt=3,output=",
                                                                                0) == 0);
}

TEST_CASE("a slow reader over TCP does not hold up the others", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  options.max_outbox_tokens = 200;
  TestDaemon daemon(options);
  daemon.engine->set_token_text(std::string(4096, 'x'));
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(daemon.daemon->grpc_addresses()[0],
                                                         grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request = TextRequest("hi", 1'000'000);
  request.set_request_id("slow");
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitCancelCalled("slow"));
  const Stream other = Generate(stub.get(), TextRequest("hi", 3));
  CHECK(other.status.ok());
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  CHECK(reader->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_CASE("a cancelled call reaches Engine::Cancel", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  v1::GenerateRequest request = TextRequest("hi", 100'000);
  request.set_request_id("gone");
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(ReadDelta(reader.get()).has_delta());
  context.TryCancel();
  CHECK(daemon.engine->WaitCancelCalled("gone"));
  CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  CHECK(daemon.engine->WaitIdle(absl::Seconds(5)));
}

TEST_CASE("a closed connection reaches Engine::Cancel", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  {
    auto stub = v1::Inference::NewStub(grpc::CreateChannel(daemon.daemon->grpc_addresses()[0],
                                                           grpc::InsecureChannelCredentials()));
    v1::GenerateRequest request = TextRequest("hi", 100'000);
    request.set_request_id("left");
    grpc::ClientContext context;
    auto reader = stub->Generate(&context, request);
    REQUIRE(ReadDelta(reader.get()).has_delta());
  }
  CHECK(daemon.engine->WaitCancelCalled("left"));
}

TEST_CASE("an expired deadline cancels the work", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 10);
  request.set_request_id("late");
  grpc::ClientContext context;
  context.set_deadline(In(std::chrono::milliseconds(100)));
  const Stream stream = Generate(daemon.stub.get(), request, &context);
  CHECK(stream.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(daemon.engine->WaitCancelCalled("late"));
}

TEST_CASE("the Cancel call ends a stream with its event, status and usage", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 10);
  request.set_request_id("a");
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  daemon.engine->LetRounds(2);
  REQUIRE(daemon.engine->WaitProduced(2));
  v1::CancelRequest cancel;
  cancel.add_request_ids("a");
  cancel.add_request_ids("b");
  v1::CancelResponse response;
  grpc::ClientContext cancel_context;
  REQUIRE(daemon.stub->Cancel(&cancel_context, cancel, &response).ok());
  CHECK(response.cancelled_size() == 1);
  CHECK(response.not_found_size() == 1);
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  REQUIRE(stream.finished.has_value());
  CHECK(stream.finished->reason() == v1::CANCELLED);
  CHECK(Metadata(context.GetServerTrailingMetadata(), "x-fastgen-usage") == "prompt=3,output=2");
}

TEST_CASE("a request that fails alone ends with ERROR and INTERNAL", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 10);
  request.set_request_id("nan");
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitSubmitted(1));
  FinishInfo info;
  info.reason = FinishReason::kError;
  info.error = "a NaN logit";
  daemon.engine->FinishWith("nan", info);
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  const grpc::Status status = reader->Finish();
  CHECK(status.error_code() == grpc::StatusCode::INTERNAL);
  CHECK(status.error_message() == "a NaN logit");
  REQUIRE(stream.finished.has_value());
  CHECK(stream.finished->reason() == v1::ERROR);
  CHECK(daemon.daemon->health().ok());
}

TEST_CASE("an engine failure ends all streams UNAVAILABLE and is told to the owner", "[server]") {
  std::atomic<int> num_changes = 0;
  DaemonOptions options;
  options.on_change = [&] { ++num_changes; };
  TestDaemon daemon(options);
  daemon.engine->HoldRounds();
  grpc::ClientContext contexts[2];
  auto first = daemon.stub->Generate(&contexts[0], TextRequest("a", 5));
  auto second = daemon.stub->Generate(&contexts[1], TextRequest("b", 5));
  REQUIRE(daemon.engine->WaitSubmitted(2));
  daemon.engine->Fail("the device is gone");
  for (auto* reader : {first.get(), second.get()}) {
    v1::GenerateEvent event;
    while (reader->Read(&event)) CHECK_FALSE(event.has_finished());
    const grpc::Status status = reader->Finish();
    CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(status.error_message() == "the device is gone");
  }
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  CHECK_FALSE(daemon.daemon->health().ok());
  // The end of loading, and the failure, which is reported once for all streams.
  CHECK(num_changes == 2);
  const Stream refused = Generate(daemon.stub.get(), TextRequest("c", 1));
  CHECK(refused.status.error_code() == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("what the engine refuses is the call's status", "[server]") {
  TestDaemon daemon;
  daemon.engine->RefuseNext(absl::ResourceExhaustedError("1024 requests are waiting"));
  const Stream full = Generate(daemon.stub.get(), TextRequest("a", 1));
  CHECK(full.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(HasRetryInfo(full.status));
  CHECK(full.events.empty());
  const Stream empty = Generate(daemon.stub.get(), TextRequest("", 1));
  CHECK(empty.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(ViolatedFields(empty.status) == std::vector<std::string>{"prompt"});

  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("a", 1);
  request.set_request_id("twin");
  grpc::ClientContext context;
  auto first = daemon.stub->Generate(&context, request);
  v1::GenerateEvent event;
  REQUIRE(first->Read(&event));
  CHECK(Generate(daemon.stub.get(), request).status.error_code() ==
        grpc::StatusCode::ALREADY_EXISTS);
  daemon.engine->ReleaseRounds();
  while (first->Read(&event)) {
  }
  CHECK(first->Finish().ok());
}

TEST_CASE("raw bytes come without logprobs that were not asked for", "[server]") {
  TestDaemon daemon;
  v1::GenerateRequest request = TextRequest("a", 2);
  request.mutable_output()->set_bytes(true);
  request.mutable_output()->set_text(false);
  const Stream stream = Generate(daemon.stub.get(), request);
  REQUIRE(stream.status.ok());
  std::string raw;
  for (const auto& event : stream.events) {
    raw += event.delta().raw();
    CHECK(event.delta().logprobs().empty());
  }
  CHECK(raw == "\x01\x02");  // a token of the fake engine is a byte
  CHECK(stream.text.empty());
}

TEST_CASE("n choices stream under their own index and end one by one", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 3);
  request.set_request_id("many");
  request.set_n(3);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitSubmitted(1));
  daemon.engine->LetRounds(1);
  REQUIRE(daemon.engine->WaitProduced(3));
  FinishInfo stopped;
  stopped.reason = FinishReason::kStop;
  daemon.engine->FinishChoice("many", 1, stopped);
  daemon.engine->ReleaseRounds();
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  REQUIRE(stream.finishes.size() == 3);
  CHECK(stream.texts[0] == "ttt");
  CHECK(stream.texts[1] == "t");
  CHECK(stream.texts[2] == "ttt");
  CHECK(stream.finishes[0].reason() == v1::LENGTH);
  CHECK(stream.finishes[1].reason() == v1::STOP);
  CHECK(stream.finishes[1].usage().output_tokens() == 1);
  CHECK(stream.finishes[2].usage().output_tokens() == 3);
  CHECK(daemon.engine->submitted()[0].n == 3);
}

TEST_CASE("deltas of different choices are never one message", "[server]") {
  TestDaemon daemon;
  v1::GenerateRequest request = TextRequest("hi", 300);
  request.set_n(4);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitProduced(1200));
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  for (int i = 0; i < 4; ++i) CHECK(stream.texts[i] == std::string(300, 't'));
  // And yet those of one choice that waited together are.
  CHECK(stream.num_deltas <= 4 * 4);
}

TEST_CASE("the status is that of the choices when none of them ended well", "[server]") {
  struct Case {
    std::vector<FinishReason> reasons;
    grpc::StatusCode status;
  };
  const std::vector<Case> cases = {
      {{FinishReason::kStop, FinishReason::kDeadline}, grpc::StatusCode::OK},
      {{FinishReason::kError, FinishReason::kLength}, grpc::StatusCode::OK},
      {{FinishReason::kDeadline, FinishReason::kDeadline}, grpc::StatusCode::DEADLINE_EXCEEDED},
      {{FinishReason::kError, FinishReason::kDeadline}, grpc::StatusCode::DEADLINE_EXCEEDED},
      {{FinishReason::kDeadline, FinishReason::kCancelled}, grpc::StatusCode::CANCELLED},
      {{FinishReason::kError, FinishReason::kError}, grpc::StatusCode::INTERNAL},
  };
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  for (size_t i = 0; i < cases.size(); ++i) {
    INFO(i);
    v1::GenerateRequest request = TextRequest("hi", 3);
    request.set_request_id(absl::StrCat("r", i));
    request.set_n(2);
    grpc::ClientContext context;
    auto reader = daemon.stub->Generate(&context, request);
    REQUIRE(daemon.engine->WaitSubmitted(i + 1));
    for (int k = 0; k < 2; ++k) {
      FinishInfo info;
      info.reason = cases[i].reasons[static_cast<size_t>(k)];
      info.error = "a NaN logit";
      daemon.engine->FinishChoice(request.request_id(), k, info);
    }
    Stream stream;
    v1::GenerateEvent event;
    while (reader->Read(&event)) Take(event, &stream);
    CHECK(reader->Finish().error_code() == cases[i].status);
    CHECK(stream.finishes.size() == 2);
  }
}

TEST_CASE("a deadline's finished event and partial usage come before its status", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 10);
  request.set_request_id("late");
  grpc::ClientContext context;
  context.set_deadline(In(std::chrono::seconds(30)));
  auto reader = daemon.stub->Generate(&context, request);
  daemon.engine->LetRounds(2);
  REQUIRE(daemon.engine->WaitProduced(2));
  FinishInfo info;
  info.reason = FinishReason::kDeadline;
  daemon.engine->FinishWith("late", info);
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  REQUIRE(stream.finished.has_value());
  CHECK(stream.finished->reason() == v1::DEADLINE);
  CHECK(stream.finished->usage().output_tokens() == 2);
  CHECK(Metadata(context.GetServerTrailingMetadata(), "x-fastgen-usage") == "prompt=3,output=2");
  // The engine was told when.
  const absl::Time deadline = daemon.engine->submitted()[0].deadline;
  CHECK(deadline < absl::Now() + absl::Seconds(31));
  CHECK(deadline > absl::Now() + absl::Seconds(10));
  CHECK(daemon.engine->submitted()[0].n == 1);
}

TEST_CASE("a call without a deadline has none in the engine", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  auto remote = v1::Inference::NewStub(grpc::CreateChannel(daemon.daemon->grpc_addresses()[0],
                                                           grpc::InsecureChannelCredentials()));
  CHECK(Generate(daemon.stub.get(), TextRequest("a", 1)).status.ok());
  CHECK(Generate(remote.get(), TextRequest("a", 1)).status.ok());
  for (const GenerateRequest& request : daemon.engine->submitted()) {
    CHECK(request.deadline == absl::InfiniteFuture());
  }
}

TEST_CASE("progress comes before the first delta, when asked for", "[server]") {
  TestDaemon daemon;
  v1::GenerateRequest request = TextRequest("a", 2);
  CHECK(Generate(daemon.stub.get(), request).events[1].has_delta());
  request.mutable_output()->set_progress(true);
  const Stream stream = Generate(daemon.stub.get(), request);
  REQUIRE(stream.status.ok());
  REQUIRE(stream.events.size() >= 3);
  CHECK(stream.events[0].has_accepted());
  size_t last = 0;
  for (size_t i = 1; i < stream.events.size() && stream.events[i].has_progress(); ++i) last = i;
  REQUIRE(last > 0);
  CHECK(stream.events[last].progress().processed() == 3);
  CHECK(stream.events[last].progress().total() == 3);
  CHECK(stream.events[last + 1].has_delta());
}

TEST_CASE("the scores of a long prompt arrive whole, in messages of 256", "[server]") {
  DaemonOptions options;
  options.max_outbox_tokens = 16;
  TestDaemon daemon(options);
  daemon.engine->set_num_prompt_tokens(3000);
  v1::GenerateRequest request = TextRequest("a", 1);
  request.mutable_output()->set_prompt_logprobs(0);
  const Stream stream = Generate(daemon.stub.get(), request);
  REQUIRE(stream.status.ok());
  int num_scores = 0;
  for (const auto& event : stream.events) {
    CHECK(event.delta().prompt_logprobs_size() <= 256);
    for (const auto& score : event.delta().prompt_logprobs()) {
      CHECK((score.rank() == 0) == (num_scores == 0));
      ++num_scores;
    }
  }
  CHECK(num_scores == 3000);
}

TEST_CASE("128 choices with a reader that does not read end at the bound", "[server]") {
  DaemonOptions options;
  options.max_outbox_tokens = 500;
  TestDaemon daemon(options);
  v1::GenerateRequest request = TextRequest("hi", 100'000);
  request.set_request_id("wide");
  request.set_n(128);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  REQUIRE(daemon.engine->WaitCancelCalled("wide"));
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(10)));
  v1::GenerateEvent event;
  int num_tokens = 0;
  while (reader->Read(&event)) num_tokens += event.delta().num_tokens();
  CHECK(reader->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(num_tokens <= 1000);
}

TEST_CASE("a full queue says when to come again", "[server]") {
  TestDaemon daemon;
  daemon.engine->set_retry_after(absl::Milliseconds(7500));
  daemon.engine->RefuseNext(absl::ResourceExhaustedError("1024 requests are waiting"));
  const Stream full = Generate(daemon.stub.get(), TextRequest("a", 1));
  google::rpc::RetryInfo retry;
  REQUIRE(RichStatus(full.status).details_size() == 1);
  REQUIRE(RichStatus(full.status).details(0).UnpackTo(&retry));
  CHECK(retry.retry_delay().seconds() == 7);
  CHECK(retry.retry_delay().nanos() == 500'000'000);
}

TEST_CASE("a deadline that cannot be met is refused before acceptance", "[server]") {
  TestDaemon daemon;
  daemon.engine->RefuseNext(absl::DeadlineExceededError("the first token would come too late"));
  const Stream refused = Generate(daemon.stub.get(), TextRequest("a", 1));
  CHECK(refused.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(refused.events.empty());
}

TEST_CASE("a client that leaves does not cancel the next request of the same id", "[server]") {
  TestDaemon daemon;
  for (int i = 0; i < 50; ++i) {
    v1::GenerateRequest request = TextRequest("hi", 2);
    request.set_request_id("again");
    grpc::ClientContext first_context;
    auto first = daemon.stub->Generate(&first_context, request);
    v1::GenerateEvent event;
    while (first->Read(&event) && !event.has_finished()) {
    }
    REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
    // The stream is still open on the server's side when the id is used again.
    grpc::ClientContext second_context;
    auto second = daemon.stub->Generate(&second_context, request);
    first_context.TryCancel();
    first->Finish();
    Stream stream;
    while (second->Read(&event)) Take(event, &stream);
    CHECK(second->Finish().ok());
    CHECK(stream.num_tokens == 2);
  }
}

// Stops reading after `num_tokens`, until told to go on. It has asked for the status from the beginning.
class LateReader final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  LateReader(v1::Inference::Stub* stub, const v1::GenerateRequest* request, int num_tokens)
      : num_tokens_(num_tokens) {
    stub->async()->Generate(&context_, request, this);
    AddHold();
    StartRead(&event_);
    StartCall();
  }

  void WaitPaused() { paused_.Wait(); }
  void GoOn() {
    StartRead(&event_);
    RemoveHold();
  }
  // Blocks until the call is done.
  const Stream& WaitDone() {
    done_.Wait();
    return stream_;
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    Take(event_, &stream_);
    if (event_.has_delta() && stream_.num_tokens == num_tokens_) {
      paused_.Open();
    } else {
      StartRead(&event_);
    }
  }
  void OnDone(const grpc::Status& status) override {
    stream_.status = status;
    done_.Open();
  }

  const int num_tokens_;
  grpc::ClientContext context_;
  v1::GenerateEvent event_;
  Stream stream_;
  Latch paused_;
  Latch done_;
};

TEST_CASE("an in-process reader that pauses still gets the finished event", "[server]") {
  TestDaemon daemon;
  const v1::GenerateRequest request = TextRequest("hi", 3);
  LateReader reader(daemon.stub.get(), &request, 3);
  reader.WaitPaused();
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  // Nothing tells from outside when the server has handed its last message to gRPC.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  reader.GoOn();
  const Stream& stream = reader.WaitDone();
  CHECK(stream.status.ok());
  CHECK(stream.num_tokens == 3);
  CHECK(stream.finished.has_value());
}

// One of fifty clients: reads its stream, and leaves it somewhere when `leave_after` is not negative.
grpc::Status RunClient(v1::Inference::Stub* stub, int leave_after, int* num_tokens) {
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, TextRequest("hi", 200));
  v1::GenerateEvent event;
  while (*num_tokens != leave_after && reader->Read(&event)) {
    *num_tokens += event.delta().num_tokens();
    if (leave_after >= 0 && *num_tokens >= leave_after) break;
  }
  if (leave_after >= 0) context.TryCancel();
  while (reader->Read(&event)) {
  }
  return reader->Finish();
}

TEST_CASE("fifty streams with random cancels leave nothing behind", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  auto remote = v1::Inference::NewStub(grpc::CreateChannel(daemon.daemon->grpc_addresses()[0],
                                                           grpc::InsecureChannelCredentials()));
  constexpr int kClients = 50;
  std::vector<grpc::Status> statuses(kClients);
  std::vector<int> tokens(kClients, 0);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] {
      // Every second client goes through TCP; two of three leave, each at another point, some before the first event.
      v1::Inference::Stub* stub = i % 2 == 0 ? remote.get() : daemon.stub.get();
      const int leave_after = i % 3 == 0 ? -1 : i * 7 % 200;
      statuses[i] = RunClient(stub, leave_after, &tokens[i]);
    });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kClients; ++i) {
    INFO(i);
    if (i % 3 == 0) {
      CHECK(statuses[i].ok());
      CHECK(tokens[i] == 200);
    }
  }
  CHECK(daemon.engine->WaitIdle(absl::Seconds(10)));
  daemon.daemon->StartDrain();
  CHECK(daemon.daemon->WaitDrained(absl::Seconds(10)));
}

}  // namespace
}  // namespace fastgen
