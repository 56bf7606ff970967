// A gateway before several daemons: whom it asks, what it tries again, and what it says of them.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::FakeDaemon;
using testing::GenerateScript;
using testing::HttpClient;
using testing::HttpReply;
using testing::Json;

constexpr char kPrompt[] = R"({"prompt":"x"})";
constexpr char kStream[] = R"({"prompt":"x","stream":true})";

// Daemons "a", "b", ... and a gateway before them. Start after the daemons' hooks are set.
struct Fleet {
  explicit Fleet(size_t num_daemons) {
    for (size_t i = 0; i < num_daemons; ++i) {
      daemons.push_back(std::make_unique<FakeDaemon>());
      daemons[i]->model_name = "tiny/model";
    }
    options.listen = {"127.0.0.1:0"};
    fleet.check_interval = absl::Milliseconds(20);
  }

  void Start() {
    for (size_t i = 0; i < daemons.size(); ++i) {
      fleet.daemons.push_back({std::string(1, static_cast<char>('a' + i)), daemons[i]->channel()});
    }
    auto started = HttpServer::StartFleet(options, fleet);
    REQUIRE(started.ok());
    server = *std::move(started);
  }
  // One question at the start and none later, unless a call fails.
  void StartWithoutWatch() {
    fleet.check_interval = absl::Hours(1);
    Start();
  }

  std::string address() const { return server->addresses()[0]; }
  HttpReply Get(const std::string& path) { return HttpClient(address()).Get(path); }
  HttpReply Post(const std::string& path, const std::string& body,
                 const std::string& headers = "") {
    return HttpClient(address()).Post(path, body, headers);
  }
  std::vector<size_t> NumRequests() const {
    std::vector<size_t> numbers;
    for (const auto& daemon : daemons) numbers.push_back(daemon->requests().size());
    return numbers;
  }
  size_t NumRequestsInAll() const {
    size_t sum = 0;
    for (size_t n : NumRequests()) sum += n;
    return sum;
  }
  // Waits until /health says so of the daemon.
  bool WaitForState(int daemon, const std::string& state) {
    for (int i = 0; i < 500; ++i) {
      const std::string path = absl::StrCat("/daemons/", daemon, "/state");
      if (At(Json(Get("/health").body), path) == state) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }
  // Every daemon answers Generate so, without any event.
  void RefuseEverywhere(const grpc::Status& status) {
    for (const auto& daemon : daemons) daemon->on_generate = Refusal(status);
  }
  static std::function<GenerateScript(const v1::GenerateRequest&)> Refusal(
      const grpc::Status& status) {
    return [status](const v1::GenerateRequest&) {
      GenerateScript script;
      script.status = status;
      return script;
    };
  }
  int64_t Metric(const std::string& sample) {
    const std::string text = "\n" + Get("/metrics").body;
    const size_t found = text.find("\nfastgen_gateway_" + sample + " ");
    if (found == std::string::npos) return -1;
    return std::stoll(text.substr(text.find(' ', found + 1)));
  }

  std::vector<std::unique_ptr<FakeDaemon>> daemons;
  GatewayOptions options;
  FleetOptions fleet;
  std::unique_ptr<HttpServer> server;
};

const grpc::Status kDraining =
    testing::RetryLater(grpc::StatusCode::UNAVAILABLE, "draining: no new requests", 1);
const grpc::Status kLost(grpc::StatusCode::UNAVAILABLE, "Socket closed");

std::string LongPrompt(char c, size_t num_bytes = 600) {
  return absl::StrCat(R"({"prompt":")", std::string(num_bytes, c), R"("})");
}

TEST_CASE("short requests are spread over a fleet", "[gateway]") {
  Fleet fleet(3);
  fleet.Start();
  for (int i = 0; i < 9; ++i) CHECK(fleet.Post("/v1/completions", kPrompt).status == 200);
  CHECK(fleet.NumRequests() == std::vector<size_t>{3, 3, 3});
  CHECK(At(Json(fleet.Get("/v1/models").body), "/data/0/id") == "tiny/model");
  CHECK(fleet.Post("/tokenize", R"({"prompt":"ab"})").status == 200);
}

TEST_CASE("requests with the same long beginning go to one daemon of a fleet", "[gateway]") {
  Fleet fleet(3);
  fleet.Start();
  for (int i = 0; i < 5; ++i) CHECK(fleet.Post("/v1/completions", LongPrompt('a')).status == 200);
  std::vector<size_t> numbers = fleet.NumRequests();
  std::sort(numbers.begin(), numbers.end());
  CHECK(numbers == std::vector<size_t>{0, 0, 5});
}

TEST_CASE("a daemon that is busy with others' requests is passed over", "[gateway]") {
  Fleet fleet(2);
  fleet.daemons[0]->num_running = 40;
  fleet.Start();
  for (char c = 'a'; c < 'i'; ++c) {
    CHECK(fleet.Post("/v1/completions", LongPrompt(c)).status == 200);
    CHECK(fleet.Post("/v1/completions", kPrompt).status == 200);
  }
  CHECK(fleet.NumRequests() == std::vector<size_t>{0, 16});
  CHECK(fleet.Metric("affinity_spills_total") > 0);
}

TEST_CASE("a request that a daemon refuses before any event is answered by another", "[gateway]") {
  const grpc::Status why = GENERATE(values({kDraining, kLost, testing::Overloaded("full")}));
  const std::string body = GENERATE(as<std::string>(), kPrompt, kStream);
  Fleet fleet(2);
  fleet.daemons[0]->on_generate = Fleet::Refusal(why);
  fleet.StartWithoutWatch();
  for (int i = 0; i < 2; ++i) {
    const HttpReply reply = fleet.Post("/v1/completions", body, "X-Request-Id: mine\r\n");
    CHECK(reply.status == 200);
    CHECK_THAT(reply.body, Catch::Matchers::Contains("Hello"));
    CHECK(reply.header("x-request-id") == "mine");
  }
  CHECK(fleet.daemons[0]->requests().size() >= 1);
  REQUIRE(fleet.daemons[1]->requests().size() == 2);
  CHECK(fleet.daemons[1]->requests()[0].request_id() == "mine");
  CHECK(fleet.daemons[1]->requests()[0].text() == "x");
}

TEST_CASE("a daemon that was full is not asked twice, though it has the prompt's beginning",
          "[gateway]") {
  Fleet fleet(2);
  fleet.daemons[0]->on_generate = Fleet::Refusal(testing::Overloaded("the queue is full"));
  fleet.StartWithoutWatch();
  for (char c = 'a'; c < 'm'; ++c) {
    CHECK(fleet.Post("/v1/completions", LongPrompt(c)).status == 200);
  }
  CHECK(fleet.daemons[0]->requests().size() >= 1);
  CHECK(fleet.daemons[0]->requests().size() < 12);
  CHECK(fleet.daemons[1]->requests().size() == 12);
}

TEST_CASE("every prompt of a list finds its own way", "[gateway]") {
  Fleet fleet(3);
  fleet.daemons[1]->on_generate = Fleet::Refusal(kDraining);
  fleet.StartWithoutWatch();
  const HttpReply reply = fleet.Post("/v1/completions", R"({"prompt":["a","b","c","d","e","f"]})");
  CHECK(reply.status == 200);
  for (int i = 0; i < 6; ++i) {
    CHECK(At(Json(reply.body), absl::StrCat("/choices/", i, "/text")) == "Hello world");
  }
  CHECK(fleet.daemons[0]->requests().size() + fleet.daemons[2]->requests().size() == 6);
}

TEST_CASE("what the request caused is not tried again", "[gateway]") {
  using grpc::StatusCode;
  Fleet fleet(3);
  const auto code = GENERATE(values<StatusCode>(
      {StatusCode::INVALID_ARGUMENT, StatusCode::NOT_FOUND, StatusCode::ALREADY_EXISTS,
       StatusCode::PERMISSION_DENIED, StatusCode::UNAUTHENTICATED, StatusCode::INTERNAL,
       StatusCode::RESOURCE_EXHAUSTED, StatusCode::DEADLINE_EXCEEDED, StatusCode::ABORTED}));
  fleet.RefuseEverywhere(testing::RetryLater(code, "the API key bob has 4 requests live", 1));
  fleet.StartWithoutWatch();
  const HttpReply reply = fleet.Post("/v1/completions", kPrompt);
  CHECK(reply.status != 200);
  CHECK(At(Json(reply.body), "/error/message") == "the API key bob has 4 requests live");
  CHECK(fleet.NumRequestsInAll() == 1);
}

TEST_CASE("tries are bounded, and the last refusal is the answer", "[gateway]") {
  Fleet fleet(5);
  struct Row {
    grpc::Status status;
    int http;
    size_t num_tries;
  };
  const Row row = GENERATE(values<Row>(
      {{kDraining, 503, 3}, {kLost, 503, 2}, {testing::Overloaded("the queue is full"), 429, 2}}));
  fleet.RefuseEverywhere(row.status);
  fleet.StartWithoutWatch();
  const HttpReply reply = fleet.Post("/v1/completions", kPrompt);
  CHECK(reply.status == row.http);
  CHECK(reply.header("retry-after") == "1");
  CHECK(At(Json(reply.body), "/error/message") == row.status.error_message());
  CHECK(fleet.NumRequestsInAll() == row.num_tries);
}

TEST_CASE("an answer that has begun is not tried again: its stream ends with an error",
          "[gateway]") {
  Fleet fleet(2);
  for (const auto& daemon : fleet.daemons) {
    daemon->on_generate = [](const v1::GenerateRequest&) {
      GenerateScript script;
      script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("half")};
      script.status = kLost;
      return script;
    };
  }
  fleet.StartWithoutWatch();
  const HttpReply stream = fleet.Post("/v1/completions", kStream);
  CHECK(stream.status == 200);
  const auto events = stream.events();
  REQUIRE(events.size() == 3);
  CHECK(At(Json(events[0]), "/choices/0/text") == "half");
  CHECK(At(Json(events[1]), "/error/code") == "unavailable");
  CHECK(events[2] == "[DONE]");
  CHECK(fleet.NumRequestsInAll() == 1);
}

TEST_CASE("a whole answer that a daemon had only accepted is given by another", "[gateway]") {
  Fleet fleet(2);
  const bool has_token = GENERATE(false, true);
  fleet.daemons[0]->on_generate = [has_token](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(77)};
    if (has_token) script.events.push_back(testing::DeltaEvent("half"));
    script.status = kLost;
    return script;
  };
  fleet.StartWithoutWatch();
  // In turn: at least one of two begins on the first daemon.
  int num_answered = 0;
  for (int i = 0; i < 2; ++i) {
    const HttpReply reply = fleet.Post("/v1/completions", kPrompt);
    if (reply.status != 200) continue;
    ++num_answered;
    CHECK(At(Json(reply.body), "/choices/0/text") == "Hello world");
    CHECK(At(Json(reply.body), "/usage/prompt_tokens") == "5");
  }
  CHECK(num_answered == (has_token ? 1 : 2));
  CHECK(fleet.daemons[0]->requests().size() >= 1);
}

TEST_CASE("nothing is tried again once a keep-alive has gone out", "[gateway]") {
  Fleet fleet(2);
  fleet.options.keep_alive_interval = absl::Milliseconds(30);
  for (const auto& daemon : fleet.daemons) {
    daemon->on_generate = [](const v1::GenerateRequest&) {
      absl::SleepFor(absl::Milliseconds(300));
      GenerateScript script;
      script.status = kDraining;
      return script;
    };
  }
  fleet.StartWithoutWatch();
  const HttpReply stream = fleet.Post("/v1/completions", kStream);
  CHECK(stream.status == 200);
  CHECK_THAT(stream.body, Catch::Matchers::Contains("\"unavailable\""));
  CHECK(fleet.NumRequestsInAll() == 1);
}

TEST_CASE("plain calls are tried on another daemon too", "[gateway]") {
  Fleet fleet(2);
  fleet.StartWithoutWatch();
  fleet.daemons[0]->unary_status = kDraining;
  for (int i = 0; i < 4; ++i) {
    CHECK(fleet.Post("/tokenize", R"({"prompt":"ab"})").status == 200);
    CHECK(fleet.Get("/v1/models").status == 200);
  }
  CHECK(fleet.Metric(R"(retries_total{reason="refused"})") >= 1);
  // A call that fails has its daemon asked at once, not in an hour.
  CHECK(fleet.WaitForState(0, "not serving"));
  fleet.daemons[1]->unary_status = testing::FieldViolation("text", "is bad");
  CHECK(fleet.Post("/tokenize", R"({"prompt":"ab"})").status == 400);
}

TEST_CASE("a daemon that does not serve gets nothing, and is used again when it does",
          "[gateway]") {
  Fleet fleet(2);
  fleet.Start();
  fleet.daemons[0]->SetServing(false);
  REQUIRE(fleet.WaitForState(0, "not serving"));
  const HttpReply health = fleet.Get("/health");
  CHECK(health.status == 200);
  CHECK(At(Json(health.body), "/status") == "ok");
  CHECK(At(Json(health.body), "/model") == "tiny/model");
  CHECK(At(Json(health.body), "/daemons/0/address") == "a");
  CHECK(At(Json(health.body), "/daemons/1/state") == "serving");
  CHECK(fleet.Metric(R"(daemon_up{daemon="a"})") == 0);
  CHECK(fleet.Metric(R"(daemon_up{daemon="b"})") == 1);
  for (int i = 0; i < 4; ++i) CHECK(fleet.Post("/v1/completions", kPrompt).status == 200);
  CHECK(fleet.NumRequests() == std::vector<size_t>{0, 4});
  fleet.daemons[0]->SetServing(true);
  REQUIRE(fleet.WaitForState(0, "serving"));
  for (int i = 0; i < 4; ++i) CHECK(fleet.Post("/v1/completions", kPrompt).status == 200);
  CHECK(fleet.NumRequests() == std::vector<size_t>{2, 6});
}

TEST_CASE("a fleet of which nothing serves says so at once, and why", "[gateway]") {
  Fleet fleet(2);
  for (const auto& daemon : fleet.daemons) daemon->SetServing(false);
  fleet.Start();
  const absl::Time start = absl::Now();
  for (const std::string path : {"/v1/completions", "/tokenize"}) {
    const HttpReply reply = fleet.Post(path, kPrompt);
    CHECK(reply.status == 503);
    CHECK(reply.header("retry-after") == "1");
    CHECK(At(Json(reply.body), "/error/code") == "unavailable");
    CHECK_THAT(reply.body, Catch::Matchers::Contains("none of the 2 daemons"));
  }
  CHECK(fleet.Get("/v1/models").status == 503);
  CHECK(fleet
            .Post("/v1/messages", R"({"model":"m","max_tokens":4,"messages":[
                                      {"role":"user","content":"x"}]})")
            .status == 503);
  CHECK(absl::Now() - start < absl::Seconds(10));
  const HttpReply health = fleet.Get("/health");
  CHECK(health.status == 503);
  CHECK(health.header("retry-after") == "1");
  CHECK_THAT(At(Json(health.body), "/error/message"),
             Catch::Matchers::Contains("a: it is loading"));
  CHECK(At(Json(health.body), "/daemons/1/state") == "not serving");
  CHECK(fleet.NumRequestsInAll() == 0);
  CHECK(fleet.Metric("without_daemon_total") >= 3);
  CHECK(fleet.Post("/cancel", R"({"request_id":"x"})").status == 200);  // they still answer that
}

TEST_CASE("a daemon with another model than the fleet's is not used", "[gateway]") {
  Fleet fleet(2);
  const bool named = GENERATE(false, true);
  if (named) fleet.fleet.model = "other/model";
  fleet.daemons[1]->model_name = "other/model";
  fleet.Start();
  const int wrong = named ? 0 : 1;
  const auto health = Json(fleet.Get("/health").body);
  CHECK(At(health, "/model") == (named ? "other/model" : "tiny/model"));
  CHECK(At(health, absl::StrCat("/daemons/", wrong, "/state")) == "wrong model");
  CHECK_THAT(At(health, absl::StrCat("/daemons/", wrong, "/reason")),
             Catch::Matchers::Contains(named ? "tiny/model" : "other/model"));
  for (int i = 0; i < 4; ++i) CHECK(fleet.Post("/v1/completions", kPrompt).status == 200);
  CHECK(fleet.daemons[static_cast<size_t>(wrong)]->requests().empty());
}

TEST_CASE("an answer has the fingerprint of the daemon that gave it", "[gateway]") {
  Fleet fleet(2);
  fleet.daemons[1]->weights_hash = "fedcba98";
  fleet.Start();
  for (const char* body : {kPrompt, kStream}) {
    std::set<std::string> seen;
    for (int i = 0; i < 4; ++i) {
      const HttpReply reply = fleet.Post("/v1/completions", body);
      const auto answer = Json(body == kPrompt ? reply.body : reply.events()[0]);
      seen.insert(At(answer, "/system_fingerprint"));
    }
    CHECK(seen == std::set<std::string>{"build-fastgen-1.2-ab-0123456789abcdef",
                                        "build-fastgen-1.2-ab-fedcba98"});
  }
}

TEST_CASE("a daemon whose calls keep failing rests", "[gateway]") {
  Fleet fleet(2);
  fleet.daemons[0]->on_generate =
      Fleet::Refusal(grpc::Status(grpc::StatusCode::INTERNAL, "it broke"));
  fleet.StartWithoutWatch();
  int num_failed = 0;
  for (int i = 0; i < 40; ++i) {
    num_failed += fleet.Post("/v1/completions", kPrompt).status == 500 ? 1 : 0;
  }
  CHECK(num_failed >= 5);
  CHECK(num_failed <= 8);  // five, and a trial or two if this takes seconds
  CHECK(fleet.Metric(R"(circuit_openings_total{daemon="a"})") >= 1);
  CHECK(fleet.Metric(R"(circuit_openings_total{daemon="b"})") == 0);
  CHECK(fleet.Metric(R"(failures_total{daemon="a"})") == num_failed);
}

TEST_CASE("a client that leaves ends its call on the daemon that has it", "[gateway]") {
  Fleet fleet(2);
  for (const auto& daemon : fleet.daemons) {
    daemon->on_generate = [](const v1::GenerateRequest&) {
      GenerateScript script;
      script.events = {testing::AcceptedEvent(1), testing::DeltaEvent("a")};
      script.hold_open = true;
      return script;
    };
  }
  fleet.Start();
  for (int i = 0; i < 2; ++i) {
    HttpClient client(fleet.address());
    client.Send(HttpClient::PostText("/v1/completions", kStream));
    REQUIRE(client.ReadUntil("data:"));
    const size_t busy = fleet.daemons[0]->num_live() == 1 ? 0 : 1;
    CHECK(fleet.Metric(absl::StrCat("in_flight_calls{daemon=\"", busy == 0 ? "a" : "b", "\"}")) ==
          1);
    const int before = fleet.daemons[busy]->num_cancelled();
    client.Close();
    CHECK(fleet.daemons[busy]->WaitForCancelled(before + 1, absl::Seconds(10)));
  }
  CHECK(fleet.daemons[0]->num_cancelled() == 1);
  CHECK(fleet.daemons[1]->num_cancelled() == 1);
}

TEST_CASE("a cancel goes to every daemon of a fleet", "[gateway]") {
  Fleet fleet(3);
  fleet.StartWithoutWatch();
  CHECK(fleet.Post("/v1/cancel", R"({"request_ids":["live-1","gone","live-1"],"vim":1})").body ==
        R"({"cancelled":["live-1"],"not_found":["gone"]})");
  for (const auto& daemon : fleet.daemons) {
    CHECK(daemon->cancelled_ids() == std::vector<std::string>{"live-1", "gone", "live-1"});
  }
  // One that refuses does not hide what the others did.
  fleet.daemons[1]->unary_status = grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  CHECK(fleet.Post("/v1/cancel", R"({"request_id":"live-2"})").body ==
        R"({"cancelled":["live-2"],"not_found":[]})");
  for (const auto& daemon : fleet.daemons) {
    daemon->unary_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "no such key");
  }
  CHECK(fleet.Post("/v1/cancel", R"({"request_id":"live-2"})").status == 401);
}

TEST_CASE("a stream is taken up again on the daemon that has it", "[gateway]") {
  Fleet fleet(2);
  std::atomic<int> attached[2] = {};
  for (size_t i = 0; i < 2; ++i) {
    fleet.daemons[i]->on_attach = [&attached, i](const v1::AttachRequest&) {
      ++attached[i];
      return testing::AnswerScript({"again"});
    };
  }
  fleet.Start();
  for (int i = 0; i < 4; ++i) {
    const std::vector<size_t> before = fleet.NumRequests();
    const std::string id = absl::StrCat("r", i);
    CHECK(fleet
              .Post("/v1/completions", kStream,
                    absl::StrCat("X-Fastgen-Resume-Window: 60\r\nX-Request-Id: ", id, "\r\n"))
              .status == 200);
    const size_t has_it = fleet.NumRequests()[0] > before[0] ? 0 : 1;
    const int attached_before = attached[has_it];
    CHECK_THAT(fleet.Get("/v1/streams/" + id).body, Catch::Matchers::Contains("again"));
    CHECK(attached[has_it] == attached_before + 1);
  }
  CHECK(attached[0] == 2);
  CHECK(attached[1] == 2);
}

TEST_CASE("a stream that was tried twice is taken up where it is", "[gateway]") {
  Fleet fleet(2);
  std::atomic<int> attached = 0;
  fleet.daemons[0]->on_generate = Fleet::Refusal(kDraining);
  fleet.daemons[1]->on_attach = [&attached](const v1::AttachRequest&) {
    ++attached;
    return testing::AnswerScript({"again"});
  };
  fleet.StartWithoutWatch();
  CHECK(
      fleet
          .Post("/v1/completions", kStream, "X-Fastgen-Resume-Window: 60\r\nX-Request-Id: mine\r\n")
          .status == 200);
  CHECK(fleet.Get("/v1/streams/mine").status == 200);
  CHECK(attached == 1);
}

TEST_CASE("a fleet's gateway ends with calls under way and daemons that hang", "[gateway]") {
  Fleet fleet(2);
  for (const auto& daemon : fleet.daemons) {
    daemon->on_generate = [](const v1::GenerateRequest&) {
      GenerateScript script;
      script.hold_open = true;
      return script;
    };
  }
  fleet.Start();
  HttpClient one(fleet.address()), other(fleet.address());
  one.Send(HttpClient::PostText("/v1/completions", kStream));
  other.Send(HttpClient::PostText("/v1/completions", kPrompt));
  while (fleet.NumRequestsInAll() < 2) absl::SleepFor(absl::Milliseconds(5));
  fleet.server->Stop();
  fleet.server.reset();
  for (const auto& daemon : fleet.daemons) {
    for (int i = 0; i < 1000 && daemon->num_live() > 0; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    CHECK(daemon->num_live() == 0);
  }
}

}  // namespace
}  // namespace fastgen::gateway
