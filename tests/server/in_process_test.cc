#include "server/in_process.h"

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/impl/codegen/sync_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder
using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Parts whose load waits for `go`, and then gives `result`.
DaemonParts SlowParts(Latch* go, absl::StatusOr<std::unique_ptr<Engine>> result) {
  DaemonParts parts;
  auto held = std::make_shared<absl::StatusOr<std::unique_ptr<Engine>>>(std::move(result));
  parts.load_engine = [go, held](const LoadProgress& progress) {
    progress(30 << 20, 100 << 20);
    go->Wait();
    return std::move(*held);
  };
  return parts;
}

HealthCheckResponse::ServingStatus CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                               const std::string& service) {
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const grpc::Status status = Health::NewStub(channel)->Check(&context, request, &response);
  return status.ok() ? response.status() : HealthCheckResponse::UNKNOWN;
}

TEST_CASE("calls while loading answer UNAVAILABLE with the progress", "[server]") {
  Latch go;
  auto engine = std::make_unique<FakeEngine>();
  std::atomic<int64_t> seen_bytes = 0;
  auto daemon = Daemon::StartWith(
      {}, [&](int64_t done_bytes, int64_t) { seen_bytes = done_bytes; },
      SlowParts(&go, std::move(engine)));
  REQUIRE(daemon.ok());
  auto stub = v1::Inference::NewStub((*daemon)->channel());
  while (seen_bytes == 0) std::this_thread::yield();
  const grpc::Status early = Generate(stub.get(), TextRequest("a", 1)).status;
  CHECK(early.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(early.error_message() == "loading the model: 30 % of 100 MiB read");
  CHECK(HasRetryInfo(early));
  v1::ModelInfo info;
  grpc::ClientContext info_context;
  const grpc::Status unknown = stub->GetModelInfo(&info_context, {}, &info);
  CHECK(unknown.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(unknown.error_message() == "loading the model: 30 % of 100 MiB read");
  v1::CancelResponse cancelled;
  grpc::ClientContext cancel_context;
  CHECK(stub->Cancel(&cancel_context, {}, &cancelled).error_code() ==
        grpc::StatusCode::UNAVAILABLE);
  CHECK(CheckHealth((*daemon)->channel(), "") == HealthCheckResponse::NOT_SERVING);
  go.Open();
  REQUIRE((*daemon)->WaitLoaded().ok());
  CHECK(Generate(stub.get(), TextRequest("a", 1)).status.ok());
  CHECK(CheckHealth((*daemon)->channel(), "") == HealthCheckResponse::SERVING);
}

TEST_CASE("a load that fails is told to WaitLoaded and to calls", "[server]") {
  Latch go;
  std::atomic<int> num_changes = 0;
  DaemonOptions options;
  options.on_change = [&] { ++num_changes; };
  auto daemon =
      Daemon::StartWith(options, nullptr, SlowParts(&go, absl::NotFoundError("no such model")));
  REQUIRE(daemon.ok());
  go.Open();
  CHECK((*daemon)->WaitLoaded() == absl::NotFoundError("no such model"));
  auto stub = v1::Inference::NewStub((*daemon)->channel());
  const grpc::Status status = Generate(stub.get(), TextRequest("a", 1)).status;
  CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(status.error_message().find("no such model") != std::string::npos);
  CHECK_FALSE((*daemon)->health().ok());
  CHECK((*daemon)->WaitDrained(absl::Seconds(1)));
  (*daemon)->Stop();  // joins the thread that calls on_change
  CHECK(num_changes == 1);
}

TEST_CASE("a drain refuses new requests and lets streams finish", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("a", 4));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  daemon.daemon->StartDrain();
  CHECK_FALSE(daemon.daemon->WaitDrained(absl::Milliseconds(20)));
  const grpc::Status refused = Generate(daemon.stub.get(), TextRequest("b", 1)).status;
  CHECK(refused.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(refused.error_message().find("draining") == 0);
  CHECK(HasRetryInfo(refused));
  v1::ModelInfo info;
  grpc::ClientContext info_context;
  CHECK(daemon.stub->GetModelInfo(&info_context, {}, &info).ok());
  daemon.engine->ReleaseRounds();
  // The engine is done; the stream is not, as long as its last events wait for the reader.
  REQUIRE(daemon.engine->WaitIdle(absl::Seconds(5)));
  CHECK_FALSE(daemon.daemon->WaitDrained(absl::Milliseconds(20)));
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.num_tokens == 4);
  CHECK(daemon.daemon->WaitDrained(absl::Seconds(5)));
}

TEST_CASE("a drain of a paused engine ends", "[server]") {
  TestDaemon daemon;
  daemon.engine->Pause([] {});
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("a", 4));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  daemon.daemon->StartDrain();
  Stream stream;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.num_tokens == 4);
  CHECK(daemon.daemon->WaitDrained(absl::Seconds(5)));
}

TEST_CASE("a drain that begins while loading reaches the engine", "[server]") {
  Latch go;
  auto engine = std::make_unique<FakeEngine>();
  auto daemon = Daemon::StartWith({}, nullptr, SlowParts(&go, std::move(engine)));
  REQUIRE(daemon.ok());
  (*daemon)->StartDrain();
  go.Open();
  REQUIRE((*daemon)->WaitLoaded().ok());
  auto stub = v1::Inference::NewStub((*daemon)->channel());
  CHECK(Generate(stub.get(), TextRequest("a", 1)).status.error_message().find("draining") == 0);
  CHECK(CheckHealth((*daemon)->channel(), "") == HealthCheckResponse::NOT_SERVING);
}

TEST_CASE("Stop cancels what is live and delivers its end", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon daemon(options);
  daemon.engine->HoldRounds();
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(daemon.daemon->grpc_addresses()[0],
                                                         grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, TextRequest("a", 4));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  Stream stream;
  std::thread client([&] {
    v1::GenerateEvent next;
    while (reader->Read(&next)) Take(next, &stream);
    stream.status = reader->Finish();
  });
  daemon.daemon->Stop();
  client.join();
  CHECK(stream.status.error_code() == grpc::StatusCode::CANCELLED);
  REQUIRE(stream.finished.has_value());
  CHECK(stream.finished->reason() == v1::CANCELLED);
}

TEST_CASE("Stop does not wait for a reader that does not read", "[server]") {
  TestDaemon daemon;
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("a", 100'000));
  REQUIRE(daemon.engine->WaitProduced(10));
  const absl::Time start = absl::Now();
  daemon.daemon->Stop();
  CHECK(absl::Now() - start < absl::Seconds(5));
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  CHECK_FALSE(reader->Finish().ok());
}

TEST_CASE("an engine that fails while it is destroyed reaches nobody who is gone", "[server]") {
  std::atomic<int> num_changes = 0;
  DaemonOptions options;
  options.on_change = [&] { ++num_changes; };
  auto daemon = std::make_unique<TestDaemon>(options);
  daemon->engine->HoldRounds();
  grpc::ClientContext contexts[2];
  auto plain = daemon->stub->Generate(&contexts[0], TextRequest("a", 4));
  v1::GenerateRequest resumable = TextRequest("b", 4);
  resumable.mutable_resume_window()->set_seconds(60);
  auto kept = daemon->stub->Generate(&contexts[1], resumable);
  v1::GenerateEvent event;
  REQUIRE(plain->Read(&event));
  REQUIRE(kept->Read(&event));
  daemon->engine->FailAtEnd("the device is gone");
  daemon.reset();
  for (auto* reader : {plain.get(), kept.get()}) {
    while (reader->Read(&event)) {
    }
    CHECK_FALSE(reader->Finish().ok());
  }
  CHECK(num_changes == 1);  // the end of loading
}

TEST_CASE("health follows serving and draining, and Watch pushes the change", "[server]") {
  TestDaemon daemon;
  const auto channel = daemon.daemon->channel();
  for (const char* service : {"", "fastgen.v1.Inference"}) {
    CHECK(CheckHealth(channel, service) == HealthCheckResponse::SERVING);
  }
  grpc::ClientContext context;
  auto watch = Health::NewStub(channel)->Watch(&context, {});
  HealthCheckResponse response;
  REQUIRE(watch->Read(&response));
  CHECK(response.status() == HealthCheckResponse::SERVING);
  daemon.daemon->StartDrain();
  REQUIRE(watch->Read(&response));
  CHECK(response.status() == HealthCheckResponse::NOT_SERVING);
  for (const char* service : {"", "fastgen.v1.Inference"}) {
    CHECK(CheckHealth(channel, service) == HealthCheckResponse::NOT_SERVING);
  }
  context.TryCancel();
  watch->Finish();
}

TEST_CASE("an engine that failed while idle is noticed by the next request", "[server]") {
  TestDaemon daemon;
  daemon.engine->Fail("gone");
  CHECK(Generate(daemon.stub.get(), TextRequest("a", 1)).status.error_code() ==
        grpc::StatusCode::UNAVAILABLE);
  CHECK(CheckHealth(daemon.daemon->channel(), "") == HealthCheckResponse::NOT_SERVING);
  CHECK_FALSE(daemon.daemon->health().ok());
}

// The bytes of a reply to ServerReflectionRequest{list_services: "*"}.
std::string ListServices(const std::shared_ptr<grpc::Channel>& channel) {
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          channel.get(), method, &context));
  const grpc::Slice ask("\x3a\x01*");  // field 7, one byte
  REQUIRE(stream->Write(grpc::ByteBuffer(&ask, 1)));
  stream->WritesDone();
  grpc::ByteBuffer reply;
  REQUIRE(stream->Read(&reply));
  stream->Finish();
  std::vector<grpc::Slice> slices;
  REQUIRE(reply.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

TEST_CASE("reflection lists the services", "[server]") {
  TestDaemon daemon;
  const std::string services = ListServices(daemon.daemon->channel());
  for (const char* service :
       {"fastgen.v1.Inference", "fastgen.v1.Admin", "grpc.health.v1.Health"}) {
    INFO(service);
    CHECK(services.find(service) != std::string::npos);
  }
}

TEST_CASE("every listener serves, and ports are told as bound", "[server]") {
  const std::string path = absl::StrCat(std::filesystem::temp_directory_path().string(),
                                        "/fastgen-test-", getpid(), ".sock");
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0", "localhost:0", absl::StrCat("unix:", path)};
  TestDaemon daemon(options);
  REQUIRE(daemon.daemon->grpc_addresses().size() == 3);
  CHECK(daemon.daemon->grpc_addresses()[0] != "127.0.0.1:0");
  CHECK(daemon.daemon->grpc_addresses()[1].rfind("localhost:", 0) == 0);
  CHECK(daemon.daemon->grpc_addresses()[2] == options.grpc_listen[2]);
  for (const std::string& address : daemon.daemon->grpc_addresses()) {
    INFO(address);
    auto stub = v1::Inference::NewStub(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    CHECK(Generate(stub.get(), TextRequest("a", 2)).num_tokens == 2);
  }
  // The living daemon's socket is not taken away from it.
  DaemonOptions second;
  second.grpc_listen = {absl::StrCat("unix:", path)};
  const auto refused = Daemon::StartWith(second, nullptr, PartsWith(std::make_unique<FakeEngine>()));
  CHECK(refused.status().code() == absl::StatusCode::kUnavailable);
}

TEST_CASE("a taken port is refused with one sentence", "[server]") {
  DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:0"};
  TestDaemon first(options);
  options.grpc_listen = first.daemon->grpc_addresses();
  const auto second =
      Daemon::StartWith(options, nullptr, PartsWith(std::make_unique<FakeEngine>()));
  REQUIRE_FALSE(second.ok());
  CHECK(second.status() == absl::UnavailableError(absl::StrCat(
                               "--grpc-listen ", options.grpc_listen[0],
                               ": the port is taken by another process")));
}

TEST_CASE("a socket left behind by a dead process is taken over", "[server]") {
  const std::string path = absl::StrCat(std::filesystem::temp_directory_path().string(),
                                        "/fastgen-stale-", getpid(), ".sock");
  DaemonOptions options;
  options.grpc_listen = {absl::StrCat("unix:", path)};
  std::filesystem::remove(path);
  { std::ofstream(path) << "not a socket"; }
  CHECK_FALSE(
      Daemon::StartWith(options, nullptr, PartsWith(std::make_unique<FakeEngine>())).ok());
  std::filesystem::remove(path);
  { TestDaemon first(options); }
  TestDaemon second(options);
  CHECK(second.daemon->grpc_addresses() == options.grpc_listen);
}

TEST_CASE("a message above max_request_bytes is refused", "[server]") {
  DaemonOptions options;
  options.max_request_bytes = 4096;
  TestDaemon daemon(options);
  const Stream stream = Generate(daemon.stub.get(), TextRequest(std::string(5000, 'x'), 1));
  CHECK(stream.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(daemon.engine->submitted().empty());
  CHECK(Generate(daemon.stub.get(), TextRequest(std::string(3000, 'x'), 1)).status.ok());
}

TEST_CASE("options out of range are refused by name", "[server]") {
  DaemonOptions options;
  options.max_outbox_tokens = 0;
  const auto daemon = Daemon::StartWith(options, nullptr, PartsWith(std::make_unique<FakeEngine>()));
  CHECK(daemon.status() ==
        absl::InvalidArgumentError("--max-outbox-tokens 0: must be between 1 and 16777216"));
}

// A gateway that only remembers what was asked of it.
struct GatewayCalls {
  GatewayOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::vector<std::string> calls;
};

class RecordingGateway final : public HttpServer {
 public:
  explicit RecordingGateway(GatewayCalls* calls) : calls_(calls) {}
  const std::vector<std::string>& addresses() const override { return addresses_; }
  void StopAccepting() override { calls_->calls.push_back("StopAccepting"); }
  bool WaitIdle(absl::Duration) override {
    calls_->calls.push_back("WaitIdle");
    return true;
  }
  void Stop() override { calls_->calls.push_back("Stop"); }

 private:
  GatewayCalls* const calls_;
  const std::vector<std::string> addresses_ = {"127.0.0.1:4321"};
};

TEST_CASE("the gateway gets the in-process channel and is stopped with the daemon", "[server]") {
  GatewayCalls calls;
  DaemonOptions options;
  options.http_listen = {"127.0.0.1:0"};
  options.max_request_bytes = 5000;
  options.strict_model = true;
  DaemonParts parts = PartsWith(std::make_unique<FakeEngine>());
  parts.start_gateway =
      [&](const GatewayOptions& gateway_options,
          std::shared_ptr<grpc::Channel> channel) -> absl::StatusOr<std::unique_ptr<HttpServer>> {
    calls.options = gateway_options;
    calls.channel = channel;
    return std::make_unique<RecordingGateway>(&calls);
  };
  auto daemon = Daemon::StartWith(options, nullptr, std::move(parts));
  REQUIRE(daemon.ok());
  REQUIRE((*daemon)->WaitLoaded().ok());
  CHECK((*daemon)->http_addresses() == std::vector<std::string>{"127.0.0.1:4321"});
  CHECK(calls.options.listen == options.http_listen);
  CHECK(calls.options.max_body_bytes == 5000);
  CHECK(calls.options.strict_model);
  auto stub = v1::Inference::NewStub(calls.channel);
  CHECK(Generate(stub.get(), TextRequest("a", 1)).status.ok());
  (*daemon)->StartDrain();
  CHECK(calls.calls.empty());  // it goes on answering 503 while streams finish
  CHECK((*daemon)->WaitDrained(absl::Seconds(5)));
  CHECK(calls.calls == std::vector<std::string>{"StopAccepting", "WaitIdle"});
  (*daemon)->Stop();
  CHECK(calls.calls ==
        std::vector<std::string>{"StopAccepting", "WaitIdle", "WaitIdle", "Stop"});
}

TEST_CASE("a gateway that cannot start stops the daemon from starting", "[server]") {
  DaemonOptions options;
  options.http_listen = {"127.0.0.1:1"};
  DaemonParts parts = PartsWith(std::make_unique<FakeEngine>());
  parts.start_gateway = [](const GatewayOptions&, std::shared_ptr<grpc::Channel>) {
    return absl::StatusOr<std::unique_ptr<HttpServer>>(absl::UnavailableError("port taken"));
  };
  CHECK(Daemon::StartWith(options, nullptr, std::move(parts)).status() ==
        absl::UnavailableError("port taken"));
}

}  // namespace
}  // namespace fastgen
