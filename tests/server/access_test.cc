// API keys as clients meet them: a daemon with a file of keys, and calls with the right key, another one, or none.
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "fastgen/v1/admin.grpc.pb.h"
#include "server/api_keys.h"
#include "tests/server/temp_key_file.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder
using grpc::StatusCode;

// A key a scope, and two more that may infer.
struct Secrets {
  Secrets() {
    for (const char* scope : {"infer", "tokenize", "metrics", "admin"}) Add(scope, scope);
    Add("other", "infer");
  }
  void Add(const std::string& name, const std::string& scopes, const std::string& limits = "") {
    const auto made = MakeApiKey(name, scopes);
    REQUIRE(made.ok());
    secrets[name] = made->secret;
    absl::StrAppend(&text, made->line, " ", limits, "\n");
  }
  std::map<std::string, std::string> secrets;
  std::string text;
};

DaemonOptions OptionsWith(const TempKeyFile& file) {
  DaemonOptions options;
  options.api_keys_path = file.path();
  return options;
}

struct KeyedDaemon {
  explicit KeyedDaemon(Secrets with = {})
      : keys(std::move(with)), file(keys.text), daemon(OptionsWith(file)) {
    admin = v1::Admin::NewStub(daemon.daemon->channel());
  }
  // As the key's owner; "": without a key.
  void Show(const std::string& name, grpc::ClientContext* context) const {
    if (!name.empty()) context->AddMetadata("authorization", "Bearer " + keys.secrets.at(name));
  }
  v1::Inference::Stub* stub() { return daemon.stub.get(); }
  FakeEngine* engine() { return daemon.engine; }

  Stream Generate(const std::string& name, const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    Show(name, &context);
    return testing::Generate(stub(), request, &context);
  }
  v1::CancelResponse Cancel(const std::string& name, const std::string& id) {
    grpc::ClientContext context;
    Show(name, &context);
    v1::CancelRequest request;
    request.add_request_ids(id);
    v1::CancelResponse response;
    REQUIRE(stub()->Cancel(&context, request, &response).ok());
    return response;
  }

  Secrets keys;
  TempKeyFile file;
  TestDaemon daemon;
  std::unique_ptr<v1::Admin::Stub> admin;
};

v1::GenerateRequest Named(const std::string& id, int max_tokens = 3) {
  v1::GenerateRequest request = TextRequest("hi", max_tokens);
  request.set_request_id(id);
  return request;
}

// What a call with these metadata answers; the request is the empty one.
using Call = std::function<grpc::Status(grpc::ClientContext*)>;

template <typename Stub, typename Request, typename Response>
Call Unary(Stub* stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
  return [=](grpc::ClientContext* context) {
    Response response;
    return (stub->*method)(context, Request(), &response);
  };
}

TEST_CASE("every call needs a key, and one that has its scope", "[server]") {
  KeyedDaemon daemon;
  v1::Inference::Stub* const inference = daemon.stub();
  v1::Admin::Stub* const admin = daemon.admin.get();
  using I = v1::Inference::Stub;
  using A = v1::Admin::Stub;
  struct Row {
    const char* method;
    Call call;
    std::string scopes;
  };
  const std::string any = "infer tokenize metrics admin";
  const Row rows[] = {
      {"Generate", [&](grpc::ClientContext* context) { return testing::Generate(inference, TextRequest("x", 1), context).status; }, "infer"},
      {"Attach",
       [&](grpc::ClientContext* context) {
         auto reader = inference->Attach(context, v1::AttachRequest());
         v1::GenerateEvent event;
         while (reader->Read(&event)) {
         }
         return reader->Finish();
       },
       "infer"},
      {"Cancel", Unary(inference, &I::Cancel), "infer admin"},
      {"Plan", Unary(inference, &I::Plan), "infer tokenize"},
      {"Tokenize", Unary(inference, &I::Tokenize), "infer tokenize"},
      {"Detokenize", Unary(inference, &I::Detokenize), "infer tokenize"},
      {"RenderChat", Unary(inference, &I::RenderChat), "infer tokenize"},
      {"GetModelInfo", Unary(inference, &I::GetModelInfo), any},
      {"GetStats", Unary(admin, &A::GetStats), "metrics admin"},
      {"GetMetrics", Unary(admin, &A::GetMetrics), "metrics admin"},
      {"ListRequests", Unary(admin, &A::ListRequests), "admin"},
      {"StartProfile", Unary(admin, &A::StartProfile), "admin"},
      {"StopProfile", Unary(admin, &A::StopProfile), "admin"},
      {"FlushPrefixCache", Unary(admin, &A::FlushPrefixCache), "admin"},
      {"Pause", Unary(admin, &A::Pause), "admin"},
      {"Resume", Unary(admin, &A::Resume), "admin"},
      {"Sleep", Unary(admin, &A::Sleep), "admin"},
      {"WakeUp", Unary(admin, &A::WakeUp), "admin"},
      {"UpdateWeights", Unary(admin, &A::UpdateWeights), "admin"},
      {"Drain", Unary(admin, &A::Drain), "admin"},  // last: it ends the service
  };
  for (const Row& row : rows) {
    const auto code_with = [&](const std::string& name, const std::string& value) {
      grpc::ClientContext context;
      if (!name.empty()) context.AddMetadata(name, value);
      return row.call(&context);
    };
    INFO(row.method);
    CHECK(code_with("", "").error_code() == StatusCode::UNAUTHENTICATED);
    CHECK(code_with("authorization", "Bearer fgk_wrong").error_code() == StatusCode::UNAUTHENTICATED);
    CHECK(code_with("x-api-key", "fgk_wrong").error_code() == StatusCode::UNAUTHENTICATED);
    for (const std::string scope : {"infer", "tokenize", "metrics", "admin"}) {
      const std::string& secret = daemon.keys.secrets.at(scope);
      const bool allowed = row.scopes.find(scope) != std::string::npos;
      if (std::string(row.method) == "Drain" && allowed) continue;
      INFO(scope);
      const grpc::Status bearer = code_with("authorization", "Bearer " + secret);
      CHECK((bearer.error_code() != StatusCode::PERMISSION_DENIED) == allowed);
      CHECK(bearer.error_code() != StatusCode::UNAUTHENTICATED);
      CHECK(code_with("x-api-key", secret).error_code() == bearer.error_code());
      if (allowed) continue;
      // The refusal names the key and what it lacks.
      CHECK(bearer.error_message().find("the API key " + scope + " lacks the scope ") == 0);
    }
  }
  // The right key drains; a call that was refused has not.
  CHECK(daemon.Generate("infer", TextRequest("x", 1)).status.ok());
  grpc::ClientContext context;
  daemon.Show("admin", &context);
  v1::DrainResponse drained;
  CHECK(daemon.admin->Drain(&context, {}, &drained).ok());
  CHECK(daemon.Generate("infer", TextRequest("x", 1)).status.error_code() == StatusCode::UNAVAILABLE);
}

TEST_CASE("a key is shown in one way only", "[server]") {
  KeyedDaemon daemon;
  const std::string infer = daemon.keys.secrets.at("infer");
  using Metadata = std::vector<std::pair<std::string, std::string>>;
  const auto code_of = [&](const Metadata& metadata) {
    grpc::ClientContext context;
    for (const auto& [name, value] : metadata) context.AddMetadata(name, value);
    return testing::Generate(daemon.stub(), TextRequest("x", 1), &context).status.error_code();
  };
  CHECK(code_of({{"authorization", "Bearer " + infer}}) == StatusCode::OK);
  CHECK(code_of({{"authorization", "bearer  " + infer + " "}}) == StatusCode::OK);
  CHECK(code_of({{"authorization", "BEARER " + infer}}) == StatusCode::OK);
  CHECK(code_of({{"x-api-key", infer}}) == StatusCode::OK);
  // What another scheme says is not for us.
  CHECK(code_of({{"authorization", "Basic abc"}, {"x-api-key", infer}}) == StatusCode::OK);
  CHECK(code_of({{"authorization", "Bearer " + infer}, {"x-api-key", "wrong"}}) == StatusCode::OK);
  for (const Metadata& refused : std::vector<Metadata>{
           {{"authorization", infer}},
           {{"authorization", "Bearer"}},
           {{"authorization", "Bearer "}},
           {{"authorization", ""}},
           {{"authorization", "Basic " + infer}},
           {{"authorization", "Bearer wrong"}, {"x-api-key", infer}},
           {{"authorization", "Bearer wrong"}, {"authorization", "Bearer " + infer}},
           {{"x-api-key", infer}, {"x-api-key", infer}},
           {{"x-api-key", ""}},
           {{"x-api-key", "Bearer " + infer}},
           {{"x-api-key", infer.substr(0, infer.size() - 1)}},
           {{"x-api-key", infer + "a"}},
           {{"x-api-key", std::string(4000, 'k')}},
           {{"api-key", infer}}}) {
    CHECK(code_of(refused) == StatusCode::UNAUTHENTICATED);
  }
  CHECK(daemon.engine()->submitted().size() == 6);
}

TEST_CASE("without a file of keys everybody may call, also with a key", "[server]") {
  TestDaemon daemon;
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer foo");
  CHECK(testing::Generate(daemon.stub.get(), TextRequest("x", 1), &context).status.ok());
}

TEST_CASE("a daemon does not start with a bad file of keys", "[server]") {
  const TempKeyFile file("alice\n");
  auto started = Daemon::StartWith(OptionsWith(file), nullptr, PartsWith(std::make_unique<FakeEngine>()));
  REQUIRE_FALSE(started.ok());
  CHECK(started.status().message() ==
        absl::StrCat("--api-keys ", file.path(), ":1: a key is a name, sha256:HASH and its scopes"));
}

TEST_CASE("how far loading is may be known without a key, and nothing else", "[server]") {
  Latch latch;
  Secrets keys;
  const TempKeyFile file(keys.text);
  DaemonParts parts;
  parts.load_engine = [&](const LoadProgress&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    latch.Wait();
    return std::make_unique<FakeEngine>();
  };
  auto daemon = *Daemon::StartWith(OptionsWith(file), nullptr, std::move(parts));
  auto stub = v1::Inference::NewStub(daemon->channel());
  {
    grpc::ClientContext context;
    v1::ModelInfo info;
    CHECK(stub->GetModelInfo(&context, {}, &info).error_code() == StatusCode::UNAVAILABLE);
  }
  CHECK(testing::Generate(stub.get(), TextRequest("x", 1)).status.error_code() == StatusCode::UNAUTHENTICATED);
  latch.Open();
  REQUIRE(daemon->WaitLoaded().ok());
  grpc::ClientContext context;
  v1::ModelInfo info;
  CHECK(stub->GetModelInfo(&context, {}, &info).error_code() == StatusCode::UNAUTHENTICATED);
}

// ---- requests of others

TEST_CASE("two keys may use the same request id, and each sees its own", "[server]") {
  KeyedDaemon daemon;
  daemon.engine()->HoldRounds();
  grpc::ClientContext first_context, second_context;
  daemon.Show("infer", &first_context);
  daemon.Show("other", &second_context);
  auto first = daemon.stub()->Generate(&first_context, Named("same"));
  auto second = daemon.stub()->Generate(&second_context, Named("same"));
  REQUIRE(daemon.engine()->WaitSubmitted(2));
  for (auto* reader : {first.get(), second.get()}) {
    v1::GenerateEvent event;
    REQUIRE(reader->Read(&event));
    CHECK(event.accepted().request_id() == "same");
  }
  // The owner's second request of that id is a conflict, told in the owner's words.
  const Stream again = daemon.Generate("other", Named("same"));
  CHECK(again.status.error_code() == StatusCode::ALREADY_EXISTS);
  CHECK(again.status.error_message().find("other same") == std::string::npos);
  CHECK(again.status.error_message().find("same") != std::string::npos);
  // A cancel ends one's own only.
  CHECK(daemon.Cancel("other", "same").cancelled_size() == 1);
  v1::GenerateEvent event;
  while (second->Read(&event)) {
  }
  CHECK(second->Finish().error_code() == StatusCode::CANCELLED);
  daemon.engine()->ReleaseRounds();
  Stream rest;
  while (first->Read(&event)) Take(event, &rest);
  CHECK(first->Finish().ok());
  CHECK(rest.text == "ttt");
}

TEST_CASE("another's request cannot be cancelled, attached to or told from none", "[server]") {
  KeyedDaemon daemon;
  daemon.engine()->HoldRounds();
  v1::GenerateRequest request = Named("mine");
  request.mutable_resume_window()->set_seconds(60);
  grpc::ClientContext context;
  daemon.Show("infer", &context);
  auto reader = daemon.stub()->Generate(&context, request);
  REQUIRE(daemon.engine()->WaitSubmitted(1));
  const auto attach = [&](const std::string& name, const std::string& id) {
    grpc::ClientContext attach_context;
    daemon.Show(name, &attach_context);
    v1::AttachRequest attach_request;
    attach_request.set_request_id(id);
    auto attached = daemon.stub()->Attach(&attach_context, attach_request);
    v1::GenerateEvent event;
    while (attached->Read(&event)) {
    }
    return attached->Finish();
  };
  // Nor by the name that it has inside, nor by an admin's key that may not infer.
  for (const std::string id : {"mine", "infer mine", "none"}) {
    INFO(id);
    CHECK(daemon.Cancel("other", id).cancelled_size() == 0);
    CHECK(daemon.Cancel("other", id).not_found(0) == id);
    const grpc::Status status = attach("other", id);
    CHECK(status.error_code() == StatusCode::NOT_FOUND);
    CHECK(status.error_message() == "request_id: \"" + id + "\" is not that of a request whose resume window is open");
  }
  CHECK(attach("admin", "mine").error_code() == StatusCode::PERMISSION_DENIED);
  CHECK(daemon.engine()->num_live() == 1);
  daemon.engine()->ReleaseRounds();
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.text == "ttt");
  CHECK(attach("other", "mine").error_code() == StatusCode::NOT_FOUND);
  CHECK(attach("infer", "mine").ok());
}

TEST_CASE("a plan speaks of a request by its client's id", "[server]") {
  KeyedDaemon daemon;
  PlanInfo plan;
  plan.reason = "request_id: \"infer r1\" is in use by a live request";
  daemon.engine()->set_plan(plan);
  grpc::ClientContext context;
  daemon.Show("infer", &context);
  v1::PlanRequest request;
  *request.mutable_request() = Named("r1");
  v1::PlanResponse response;
  REQUIRE(daemon.stub()->Plan(&context, request, &response).ok());
  CHECK(response.reason() == "request_id: \"r1\" is in use by a live request");
}

TEST_CASE("an admin ends anybody's request, and sees whose they are", "[server]") {
  KeyedDaemon daemon;
  daemon.engine()->HoldRounds();
  grpc::ClientContext context;
  daemon.Show("infer", &context);
  auto reader = daemon.stub()->Generate(&context, Named("r1"));
  REQUIRE(daemon.engine()->WaitSubmitted(1));
  grpc::ClientContext list_context;
  daemon.Show("admin", &list_context);
  v1::ListRequestsResponse list;
  REQUIRE(daemon.admin->ListRequests(&list_context, {}, &list).ok());
  REQUIRE(list.requests_size() == 1);
  CHECK(list.requests(0).request_id() == "r1");
  CHECK(list.requests(0).key_name() == "infer");
  CHECK(daemon.Cancel("admin", "r1").cancelled_size() == 1);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  CHECK(reader->Finish().error_code() == StatusCode::CANCELLED);
  CHECK(daemon.Cancel("admin", "r1").cancelled_size() == 0);
}

// ---- limits

Secrets WithLimits(const std::string& limits) {
  Secrets keys;
  keys.Add("limited", "infer", limits);
  return keys;
}

// The key "limited", which may have one request live, has none: the next one is taken. It waits, as a place that a
// client gave up by leaving is free only when the engine has let go.
bool HasFreePlace(KeyedDaemon* daemon) {
  for (int i = 0; i < 2000; ++i) {
    const Stream stream = daemon->Generate("limited", TextRequest("hi", 1));
    if (stream.status.ok()) return true;
    if (stream.status.error_code() != StatusCode::RESOURCE_EXHAUSTED) return false;
    usleep(5000);
  }
  return false;
}

TEST_CASE("a request beyond max-concurrent is refused, whatever others have running", "[server]") {
  KeyedDaemon daemon(WithLimits("max-concurrent=2"));
  daemon.engine()->HoldRounds();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>>> readers;
  for (const char* name : {"limited", "limited", "other", "other", "other"}) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    daemon.Show(name, contexts.back().get());
    readers.push_back(daemon.stub()->Generate(contexts.back().get(), TextRequest("hi", 2)));
  }
  REQUIRE(daemon.engine()->WaitSubmitted(5));
  const Stream refused = daemon.Generate("limited", TextRequest("hi", 2));
  CHECK(refused.status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
  CHECK(refused.status.error_message() == "the API key limited has 2 requests live; its max-concurrent is 2");
  CHECK(HasRetryInfo(refused.status));
  CHECK(daemon.engine()->submitted().size() == 5);
  daemon.engine()->ReleaseRounds();
  for (auto& reader : readers) {
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    CHECK(reader->Finish().ok());
  }
  // Whoever has seen the end of a request finds its place free.
  CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
}

TEST_CASE("a place is free after every end", "[server]") {
  KeyedDaemon daemon(WithLimits("max-concurrent=1"));
  SECTION("stop, again and again") {
    for (int i = 0; i < 50; ++i) REQUIRE(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("a refusal by the engine") {
    daemon.engine()->RefuseNext(absl::ResourceExhaustedError("the queue is full"));
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.error_message() == "the queue is full");
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("a bad request") {
    CHECK(daemon.Generate("limited", Named("an id with spaces")).status.error_code() == StatusCode::INVALID_ARGUMENT);
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("an id that is in use, with a window and without") {
    daemon.engine()->HoldRounds();
    grpc::ClientContext context;
    daemon.Show("other", &context);
    auto reader = daemon.stub()->Generate(&context, Named("same"));
    REQUIRE(daemon.engine()->WaitSubmitted(1));
    daemon.engine()->RefuseNext(absl::AlreadyExistsError("request_id: \"limited same\" is in use"));
    v1::GenerateRequest request = Named("same");
    request.mutable_resume_window()->set_seconds(60);
    const Stream refused = daemon.Generate("limited", request);
    CHECK(refused.status.error_message() == "request_id: \"same\" is in use");
    daemon.engine()->ReleaseRounds();
    CHECK(daemon.Generate("limited", request).status.ok());
    CHECK(daemon.Generate("limited", request).status.ok());
  }
  SECTION("a cancel") {
    daemon.engine()->HoldRounds();
    grpc::ClientContext context;
    daemon.Show("limited", &context);
    auto reader = daemon.stub()->Generate(&context, Named("r1"));
    REQUIRE(daemon.engine()->WaitSubmitted(1));
    CHECK(daemon.Cancel("limited", "r1").cancelled_size() == 1);
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    CHECK(reader->Finish().error_code() == StatusCode::CANCELLED);
    daemon.engine()->ReleaseRounds();
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("a reader that left") {
    daemon.engine()->HoldRounds();
    {
      grpc::ClientContext context;
      daemon.Show("limited", &context);
      auto reader = daemon.stub()->Generate(&context, Named("r1"));
      REQUIRE(daemon.engine()->WaitSubmitted(1));
      context.TryCancel();
      reader->Finish();
    }
    daemon.engine()->ReleaseRounds();
    CHECK(HasFreePlace(&daemon));
  }
  SECTION("a deadline") {
    FinishInfo late;
    late.reason = FinishReason::kDeadline;
    daemon.engine()->HoldRounds();
    grpc::ClientContext context;
    daemon.Show("limited", &context);
    auto reader = daemon.stub()->Generate(&context, Named("r1"));
    REQUIRE(daemon.engine()->WaitSubmitted(1));
    daemon.engine()->FinishWith(daemon.engine()->submitted()[0].request_id, late);
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
    }
    CHECK(reader->Finish().error_code() == StatusCode::DEADLINE_EXCEEDED);
    daemon.engine()->ReleaseRounds();
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("an end in a resume window, whose ring is kept") {
    v1::GenerateRequest request = Named("r1");
    request.mutable_resume_window()->set_seconds(60);
    CHECK(daemon.Generate("limited", request).status.ok());
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
  SECTION("a resume window without a reader holds its place until the engine is done") {
    daemon.engine()->HoldRounds();
    v1::GenerateRequest request = Named("r1");
    request.mutable_resume_window()->set_seconds(60);
    {
      grpc::ClientContext context;
      daemon.Show("limited", &context);
      auto reader = daemon.stub()->Generate(&context, request);
      REQUIRE(daemon.engine()->WaitSubmitted(1));
      context.TryCancel();
      reader->Finish();
    }
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
    daemon.engine()->ReleaseRounds();
    CHECK(HasFreePlace(&daemon));
  }
  SECTION("a choice that is left of several holds the place") {
    daemon.engine()->HoldRounds();
    v1::GenerateRequest request = Named("r1");
    request.set_n(2);
    grpc::ClientContext context;
    daemon.Show("limited", &context);
    auto reader = daemon.stub()->Generate(&context, request);
    REQUIRE(daemon.engine()->WaitSubmitted(1));
    daemon.engine()->FinishChoice(daemon.engine()->submitted()[0].request_id, 0, FinishInfo());
    v1::GenerateEvent event;
    while (reader->Read(&event) && !event.has_finished()) {
    }
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
    daemon.engine()->ReleaseRounds();
    while (reader->Read(&event)) {
    }
    CHECK(reader->Finish().ok());
    CHECK(daemon.Generate("limited", TextRequest("hi", 2)).status.ok());
  }
}

TEST_CASE("prompt and output are taken from tokens-per-minute", "[server]") {
  // 3 prompt tokens and 7 output tokens: after the tenth request the 100 are used, but for what a few milliseconds gave.
  KeyedDaemon daemon(WithLimits("tokens-per-minute=100"));
  for (int i = 0; i < 9; ++i) REQUIRE(daemon.Generate("limited", TextRequest("hi", 7)).status.ok());
  // The last ten and a hundred more: what has begun is not cut short.
  REQUIRE(daemon.Generate("limited", TextRequest("hi", 107)).status.ok());
  const Stream refused = daemon.Generate("limited", TextRequest("hi", 7));
  CHECK(refused.status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
  CHECK(refused.status.error_message() ==
        "the API key limited has used its tokens; its tokens-per-minute is 100");
  // A hundred tokens are owed: about a minute.
  google::rpc::RetryInfo retry;
  const google::rpc::Status rich = RichStatus(refused.status);
  for (const auto& detail : rich.details()) detail.UnpackTo(&retry);
  CHECK(retry.retry_delay().seconds() >= 30);
  CHECK(retry.retry_delay().seconds() <= 60);
  // Others have theirs.
  CHECK(daemon.Generate("other", TextRequest("hi", 7)).status.ok());
}

TEST_CASE("the prompt of several choices is counted once, and every choice's output", "[server]") {
  KeyedDaemon daemon(WithLimits("tokens-per-minute=1000"));
  v1::GenerateRequest request = TextRequest("hi", 300);
  request.set_n(3);
  REQUIRE(daemon.Generate("limited", request).status.ok());  // 903
  request = TextRequest("hi", 80);
  REQUIRE(daemon.Generate("limited", request).status.ok());  // 986
  REQUIRE(daemon.Generate("limited", request).status.ok());  // 1069
  CHECK(daemon.Generate("limited", request).status.error_code() == StatusCode::RESOURCE_EXHAUSTED);
}

TEST_CASE("new keys hold from the reload on, and what runs goes on", "[server]") {
  KeyedDaemon daemon;
  daemon.engine()->HoldRounds();
  grpc::ClientContext context;
  daemon.Show("infer", &context);
  auto reader = daemon.stub()->Generate(&context, Named("r1"));
  REQUIRE(daemon.engine()->WaitSubmitted(1));
  Secrets next;
  daemon.file.Write(next.text);
  CHECK(daemon.Cancel("infer", "none").not_found_size() == 1);  // the old keys still hold
  REQUIRE(daemon.daemon.daemon->ReloadKeys().ok());
  CHECK(daemon.Generate("infer", TextRequest("x", 1)).status.error_code() == StatusCode::UNAUTHENTICATED);
  daemon.engine()->ReleaseRounds();
  Stream stream;
  v1::GenerateEvent event;
  while (reader->Read(&event)) Take(event, &stream);
  CHECK(reader->Finish().ok());
  CHECK(stream.text == "ttt");
  daemon.keys = next;
  CHECK(daemon.Generate("infer", TextRequest("x", 1)).status.ok());
  daemon.file.Write("");
  CHECK(daemon.daemon.daemon->ReloadKeys().message() ==
        absl::StrCat("--api-keys ", daemon.file.path(), ": holds no key"));
  CHECK(daemon.Generate("infer", TextRequest("x", 1)).status.ok());
}

TEST_CASE("keys that are read again while everybody calls let nobody in or out wrongly", "[server]") {
  KeyedDaemon daemon;
  std::atomic<bool> done = false;
  std::atomic<int> num_wrong = 0;
  std::vector<std::thread> threads;
  for (const bool known : {true, true, false}) {
    threads.emplace_back([&, known] {
      while (!done) {
        grpc::ClientContext context;
        context.AddMetadata("x-api-key", known ? daemon.keys.secrets.at("infer") : "fgk_wrong");
        const Stream stream = testing::Generate(daemon.stub(), TextRequest("x", 1), &context);
        if (stream.status.ok() != known) ++num_wrong;
      }
    });
  }
  int num_failed = 0;
  for (int i = 0; i < 300; ++i) num_failed += !daemon.daemon.daemon->ReloadKeys().ok();
  done = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(num_failed == 0);
  CHECK(num_wrong == 0);
}

}  // namespace
}  // namespace fastgen
