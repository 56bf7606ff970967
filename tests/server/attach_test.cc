#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/live_streams.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

v1::GenerateRequest Resumable(const std::string& id, int max_tokens, absl::Duration window) {
  v1::GenerateRequest request = TextRequest("hi", max_tokens);
  request.set_request_id(id);
  request.mutable_output()->set_token_ids(true);
  request.mutable_resume_window()->set_seconds(absl::ToInt64Seconds(window));
  request.mutable_resume_window()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(window % absl::Seconds(1))));
  return request;
}

std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> StartAttach(TestDaemon* daemon,
                                                                   grpc::ClientContext* context,
                                                                   const std::string& id,
                                                                   int from_token) {
  v1::AttachRequest request;
  request.set_request_id(id);
  request.set_from_token(from_token);
  return daemon->stub->Attach(context, request);
}

Stream Attach(TestDaemon* daemon, const std::string& id, int from_token) {
  grpc::ClientContext context;
  auto reader = StartAttach(daemon, &context, id, from_token);
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  stream.status = reader->Finish();
  return stream;
}

std::vector<int32_t> Ids(const Stream& stream) {
  std::vector<int32_t> ids;
  for (const auto& event : stream.events) {
    for (const int32_t id : event.delta().token_ids()) ids.push_back(id);
  }
  return ids;
}

// Reads `num_tokens` tokens and leaves.
void ReadAndLeave(TestDaemon* daemon, const v1::GenerateRequest& request, int num_tokens) {
  grpc::ClientContext context;
  auto reader = daemon->stub->Generate(&context, request);
  v1::GenerateEvent event;
  int got = 0;
  while (got < num_tokens && reader->Read(&event)) got += event.delta().num_tokens();
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  reader->Finish();
}

template <typename Condition>
bool Eventually(const Condition& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST_CASE("a stream that broke is taken up where it stopped", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(3);
  ReadAndLeave(&daemon, Resumable("r", 10, absl::Seconds(60)), 3);
  CHECK(daemon.engine->num_live() == 1);
  daemon.engine->ReleaseRounds();
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  const Stream rest = Attach(&daemon, "r", 3);
  REQUIRE(rest.status.ok());
  REQUIRE(rest.events.front().has_accepted());
  CHECK(rest.events.front().accepted().request_id() == "r");
  CHECK(rest.events.front().accepted().from_token() == 3);
  CHECK(Ids(rest) == std::vector<int32_t>{4, 5, 6, 7, 8, 9, 10});
  REQUIRE(rest.finished.has_value());
  CHECK(rest.finished->usage().output_tokens() == 10);
  // As often as one likes, and from the start.
  CHECK(Attach(&daemon, "r", 0).num_tokens == 10);
  const Stream end = Attach(&daemon, "r", 10);
  CHECK(end.num_tokens == 0);
  CHECK(end.finished.has_value());
}

TEST_CASE("an attached reader gets what comes live", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(2);
  ReadAndLeave(&daemon, Resumable("r", 6, absl::Seconds(60)), 2);
  grpc::ClientContext context;
  auto reader = StartAttach(&daemon, &context, "r", 2);
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  REQUIRE(event.has_accepted());
  Stream stream;
  daemon.engine->LetRounds(1);
  REQUIRE(reader->Read(&event));
  Take(event, &stream);
  CHECK(Ids(stream) == std::vector<int32_t>{3});
  daemon.engine->ReleaseRounds();
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(Ids(stream) == std::vector<int32_t>{3, 4, 5, 6});
}

TEST_CASE("choices of a resumed stream keep their order of delivery", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(2);
  v1::GenerateRequest request = Resumable("r", 4, absl::Seconds(60));
  request.set_n(3);
  ReadAndLeave(&daemon, request, 6);
  daemon.engine->ReleaseRounds();
  // Two rounds of three: the fifth token is the second of choice 1.
  const Stream rest = Attach(&daemon, "r", 4);
  REQUIRE(rest.status.ok());
  CHECK(rest.num_tokens == 8);
  CHECK(rest.texts.at(0) == "tt");
  CHECK(rest.texts.at(1) == "ttt");
  CHECK(rest.texts.at(2) == "ttt");
  CHECK(rest.finishes.size() == 3);
}

TEST_CASE("who may not attach is told why", "[server]") {
  TestDaemon daemon;
  const Stream unknown = Attach(&daemon, "nobody", 0);
  CHECK(unknown.status.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(unknown.status.error_message().find("nobody") != std::string::npos);
  CHECK(ViolatedFields(Attach(&daemon, "nobody", -1).status) ==
        std::vector<std::string>{"from_token"});
  CHECK(ViolatedFields(Attach(&daemon, "nobody", INT32_MIN).status) ==
        std::vector<std::string>{"from_token"});
  // A request without a window leaves nothing.
  v1::GenerateRequest plain = TextRequest("a", 1);
  plain.set_request_id("plain");
  CHECK(Generate(daemon.stub.get(), plain).status.ok());
  CHECK(Attach(&daemon, "plain", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);

  CHECK(Generate(daemon.stub.get(), Resumable("r", 5, absl::Seconds(60))).status.ok());
  const Stream beyond = Attach(&daemon, "r", INT32_MAX);
  CHECK(beyond.status.error_code() == grpc::StatusCode::OUT_OF_RANGE);
  CHECK(beyond.status.error_message().find("2147483647") != std::string::npos);
  CHECK(beyond.status.error_message().find("5") != std::string::npos);
  CHECK(beyond.events.empty());
}

TEST_CASE("past the start of the ring both numbers are named", "[server]") {
  DaemonOptions options;
  options.resume_ring_tokens = 10;
  TestDaemon daemon(options);
  grpc::ClientContext context;
  const Stream whole =
      Generate(daemon.stub.get(), Resumable("r", 1000, absl::Seconds(60)), &context);
  CHECK(whole.status.error_code() != grpc::StatusCode::UNKNOWN);
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  const Stream lost = Attach(&daemon, "r", 7);
  CHECK(lost.status.error_code() == grpc::StatusCode::OUT_OF_RANGE);
  CHECK(lost.status.error_message().find("from_token: 7") == 0);
  CHECK(Attach(&daemon, "r", 1000).status.ok());
}

TEST_CASE("a newer reader takes over and the older one ends ABORTED", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  grpc::ClientContext first_context;
  auto first = daemon.stub->Generate(&first_context, Resumable("r", 3, absl::Seconds(60)));
  v1::GenerateEvent event;
  REQUIRE(first->Read(&event));
  grpc::ClientContext second_context;
  auto second = StartAttach(&daemon, &second_context, "r", 0);
  REQUIRE(second->Read(&event));
  while (first->Read(&event)) {
  }
  CHECK(first->Finish().error_code() == grpc::StatusCode::ABORTED);
  daemon.engine->ReleaseRounds();
  Stream stream;
  while (second->Read(&event)) Take(event, &stream);
  CHECK(second->Finish().ok());
  CHECK(stream.num_tokens == 3);
}

TEST_CASE("a request without a reader is cancelled when its window closes", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("r", 10, absl::Milliseconds(200)), 1);
  CHECK(daemon.engine->num_live() == 1);
  CHECK(daemon.engine->WaitCancelCalled("r"));
  CHECK(daemon.engine->WaitIdle(absl::Seconds(5)));
  CHECK(Attach(&daemon, "r", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("a reader that comes back in time stops the window's clock", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("r", 3, absl::Milliseconds(300)), 1);
  grpc::ClientContext context;
  auto reader = StartAttach(&daemon, &context, "r", 0);
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK(daemon.engine->num_live() == 1);
  daemon.engine->ReleaseRounds();
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.num_tokens == 3);
}

TEST_CASE("the ring is kept for the window after the end, and then it is gone", "[server]") {
  TestDaemon daemon;
  CHECK(Generate(daemon.stub.get(), Resumable("r", 3, absl::Milliseconds(400))).status.ok());
  CHECK(Attach(&daemon, "r", 0).num_tokens == 3);
  CHECK(Eventually(
      [&] { return Attach(&daemon, "r", 0).status.error_code() == grpc::StatusCode::NOT_FOUND; }));
}

TEST_CASE("Cancel ends a request whatever its window", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("r", 10, absl::Seconds(3600)), 1);
  const auto cancel = [&](const std::string& id) {
    v1::CancelRequest request;
    request.add_request_ids(id);
    v1::CancelResponse response;
    grpc::ClientContext context;
    REQUIRE(daemon.stub->Cancel(&context, request, &response).ok());
    return response;
  };
  CHECK(cancel("r").cancelled_size() == 1);
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  // The end can still be read, until a Cancel clears that away as well.
  const Stream end = Attach(&daemon, "r", 1);
  CHECK(end.status.error_code() == grpc::StatusCode::CANCELLED);
  CHECK(end.finished->reason() == v1::CANCELLED);
  CHECK(cancel("r").not_found_size() == 1);
  CHECK(Attach(&daemon, "r", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("a slow reader of a request with a window is let go, the request is not", "[server]") {
  DaemonOptions options;
  options.max_outbox_tokens = 64;
  TestDaemon daemon(options);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, Resumable("r", 3000, absl::Seconds(60)));
  REQUIRE(daemon.engine->WaitProduced(3000));
  v1::GenerateEvent event;
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  const Stream rest = Attach(&daemon, "r", stream.num_tokens);
  CHECK(rest.status.ok());
  CHECK(stream.num_tokens + rest.num_tokens == 3000);
}

TEST_CASE("an id with a window can be used again after its end, not before", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("r", 3, absl::Seconds(60)), 1);
  CHECK(Generate(daemon.stub.get(), Resumable("r", 3, absl::Seconds(60))).status.error_code() ==
        grpc::StatusCode::ALREADY_EXISTS);
  CHECK(Attach(&daemon, "nobody", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
  daemon.engine->ReleaseRounds();
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  CHECK(Generate(daemon.stub.get(), Resumable("r", 2, absl::Seconds(60))).num_tokens == 2);
  CHECK(Attach(&daemon, "r", 0).num_tokens == 2);
  // A request without a window that takes the id leaves nothing under it.
  v1::GenerateRequest plain = TextRequest("a", 1);
  plain.set_request_id("r");
  CHECK(Generate(daemon.stub.get(), plain).status.ok());
  CHECK(Attach(&daemon, "r", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("a request that the engine refuses leaves nothing to attach to", "[server]") {
  TestDaemon daemon;
  daemon.engine->RefuseNext(absl::ResourceExhaustedError("full"));
  CHECK(Generate(daemon.stub.get(), Resumable("r", 3, absl::Seconds(60))).status.error_code() ==
        grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(Attach(&daemon, "r", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("a drain waits for readers and for no window", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("alone", 10, absl::Seconds(3600)), 1);
  // Nothing tells from outside when the server has seen that the reader left.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  daemon.engine->LetRounds(1);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, Resumable("read", 10, absl::Seconds(3600)));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  daemon.daemon->StartDrain();
  CHECK(daemon.engine->WaitCancelCalled("alone"));
  CHECK_FALSE(daemon.daemon->WaitDrained(absl::Milliseconds(20)));
  // From here on a reader that leaves takes its request with it.
  context.TryCancel();
  CHECK(daemon.engine->WaitCancelCalled("read"));
  while (reader->Read(&event)) {
  }
  reader->Finish();
  CHECK(daemon.daemon->WaitDrained(absl::Seconds(5)));
}

TEST_CASE("Stop does not wait for windows", "[server]") {
  const absl::Time start = absl::Now();
  {
    TestDaemon daemon;
    daemon.engine->HoldRounds();
    daemon.engine->LetRounds(1);
    ReadAndLeave(&daemon, Resumable("live", 10, absl::Seconds(3600)), 1);
    daemon.engine->ReleaseRounds();
    CHECK(Generate(daemon.stub.get(), Resumable("ended", 3, absl::Seconds(3600))).status.ok());
  }
  CHECK(absl::Now() - start < absl::Seconds(5));
}

TEST_CASE("an engine failure reaches a reader that attached", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  daemon.engine->LetRounds(1);
  ReadAndLeave(&daemon, Resumable("r", 10, absl::Seconds(60)), 1);
  grpc::ClientContext context;
  auto reader = StartAttach(&daemon, &context, "r", 0);
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  daemon.engine->Fail("the device is gone");
  while (reader->Read(&event)) {
  }
  CHECK(reader->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("a storm of attaches and cancels ends every call and leaves nothing", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  grpc::ClientContext owner_context;
  auto owner = daemon.stub->Generate(&owner_context, Resumable("r", 400, absl::Seconds(3600)));
  v1::GenerateEvent event;
  REQUIRE(owner->Read(&event));
  std::atomic<int> num_unexpected = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      for (int k = 0; k < 25; ++k) {
        grpc::ClientContext context;
        auto reader = StartAttach(&daemon, &context, "r", 0);
        v1::GenerateEvent mine;
        reader->Read(&mine);
        if ((i + k) % 3 == 0) context.TryCancel();
        daemon.engine->LetRounds(1);
        if ((i + k) % 5 == 0) {
          while (reader->Read(&mine)) {
          }
        } else {
          context.TryCancel();
        }
        const grpc::StatusCode code = reader->Finish().error_code();
        if (code != grpc::StatusCode::ABORTED && code != grpc::StatusCode::CANCELLED &&
            code != grpc::StatusCode::OK) {
          ++num_unexpected;
        }
        if (i == 0 && k == 20) {
          v1::CancelRequest cancel;
          cancel.add_request_ids(std::string("r"));
          v1::CancelResponse response;
          grpc::ClientContext cancel_context;
          daemon.stub->Cancel(&cancel_context, cancel, &response);
        }
      }
    });
  }
  while (owner->Read(&event)) {
  }
  CHECK(owner->Finish().error_code() == grpc::StatusCode::ABORTED);
  for (std::thread& client : clients) client.join();
  CHECK(num_unexpected == 0);
  CHECK(daemon.engine->WaitIdle(absl::Seconds(5)));
}

TEST_CASE("the rings' memory is bounded: ended requests go first", "[server]") {
  TestDaemon daemon;
  // Each ring holds about 8 MiB of text, so that 256 MiB are full after some thirty.
  daemon.engine->set_token_text(std::string(64 << 10, 'x'));
  for (int i = 0; i < 40; ++i) {
    grpc::ClientContext context;
    CHECK(Generate(daemon.stub.get(), Resumable(absl::StrCat("r", i), 128, absl::Seconds(3600)),
                   &context)
              .status.ok());
  }
  CHECK(Attach(&daemon, "r0", 0).status.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(Attach(&daemon, "r39", 0).num_tokens == 128);
}

}  // namespace
}  // namespace fastgen
