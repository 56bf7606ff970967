#include "server/inference_service.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "fastgen/v1/admin.grpc.pb.h"
#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using namespace fastgen::testing;  // NOLINT: the harness of this folder

TEST_CASE("Tokenize, Detokenize and RenderChat go through the engine", "[server]") {
  TestDaemon daemon;
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  v1::TokenizeResponse tokens;
  grpc::ClientContext tokenize_context;
  REQUIRE(daemon.stub->Tokenize(&tokenize_context, tokenize, &tokens).ok());
  CHECK(std::vector<int32_t>(tokens.ids().begin(), tokens.ids().end()) ==
        std::vector<int32_t>{1, 'a', 'b'});
  CHECK(tokens.max_model_len() == 4096);
  CHECK(tokens.token_bytes().empty());

  tokenize.set_add_special_tokens(false);
  tokenize.set_with_bytes(true);
  grpc::ClientContext plain_context;
  REQUIRE(daemon.stub->Tokenize(&plain_context, tokenize, &tokens).ok());
  CHECK(tokens.ids_size() == 2);
  CHECK(std::vector<std::string>(tokens.token_bytes().begin(), tokens.token_bytes().end()) ==
        std::vector<std::string>{"a", "b"});

  v1::DetokenizeRequest detokenize;
  detokenize.add_ids(2);
  detokenize.add_ids('x');
  v1::DetokenizeResponse text;
  grpc::ClientContext detokenize_context;
  REQUIRE(daemon.stub->Detokenize(&detokenize_context, detokenize, &text).ok());
  CHECK(text.text() == "\x02x");
  detokenize.set_skip_special_tokens(true);
  grpc::ClientContext skip_context;
  REQUIRE(daemon.stub->Detokenize(&skip_context, detokenize, &text).ok());
  CHECK(text.text() == "x");

  v1::RenderChatRequest render;
  auto* message = render.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  v1::RenderChatResponse rendered;
  grpc::ClientContext render_context;
  REQUIRE(daemon.stub->RenderChat(&render_context, render, &rendered).ok());
  CHECK(rendered.text() == "[user]hi");
  CHECK(rendered.ids_size() == 8);
}

TEST_CASE("bad unary requests name the field", "[server]") {
  TestDaemon daemon;
  v1::DetokenizeRequest detokenize;
  detokenize.add_ids(-5);
  v1::DetokenizeResponse text;
  grpc::ClientContext context;
  const grpc::Status status = daemon.stub->Detokenize(&context, detokenize, &text);
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(ViolatedFields(status) == std::vector<std::string>{"ids"});
  v1::RenderChatResponse rendered;
  grpc::ClientContext render_context;
  const grpc::Status no_chat = daemon.stub->RenderChat(&render_context, {}, &rendered);
  CHECK(ViolatedFields(no_chat) == std::vector<std::string>{"chat.messages"});
}

TEST_CASE("GetModelInfo tells the model, its memory and the build", "[server]") {
  TestDaemon daemon;
  v1::ModelInfo info;
  grpc::ClientContext context;
  REQUIRE(daemon.stub->GetModelInfo(&context, {}, &info).ok());
  CHECK(info.name() == "fake-model");
  CHECK(info.context_length() == 4096);
  CHECK(info.bos_id() == 1);
  CHECK(info.eos_ids_size() == 1);
  CHECK(info.num_blocks() == 40);
  CHECK(info.kv_bytes() == 2000);
  CHECK(info.build().rfind("fastgen ", 0) == 0);
}

TEST_CASE("methods that are not served say so by name", "[server]") {
  TestDaemon daemon;
  auto admin = v1::Admin::NewStub(daemon.daemon->channel());
  const auto check = [](const grpc::Status& status, const std::string& method) {
    CHECK(status.error_code() == grpc::StatusCode::UNIMPLEMENTED);
    CHECK(status.error_message().find("Admin/" + method) == 0);
  };
  grpc::ClientContext contexts[2];
  v1::SleepResponse sleep;
  check(admin->Sleep(&contexts[0], {}, &sleep), "Sleep");
  v1::UpdateWeightsResponse update;
  check(admin->UpdateWeights(&contexts[1], {}, &update), "UpdateWeights");
}

TEST_CASE("Plan carries what the engine says of a converted request", "[server]") {
  TestDaemon daemon;
  PlanInfo info;
  info.fits = true;
  info.prompt_tokens = 12;
  info.cached_tokens_device = 8;
  info.cached_tokens_host = 2;
  info.queue_position = 3;
  info.estimated_ttft = absl::Milliseconds(1250);
  daemon.engine->set_plan(info);
  v1::PlanRequest request;
  *request.mutable_request() = TextRequest("hi", 5);
  request.mutable_request()->set_cache_salt("s");
  v1::PlanResponse plan;
  grpc::ClientContext context;
  REQUIRE(daemon.stub->Plan(&context, request, &plan).ok());
  CHECK(plan.fits());
  CHECK(plan.prompt_tokens() == 12);
  CHECK(plan.cached_tokens_device() == 8);
  CHECK(plan.cached_tokens_host() == 2);
  CHECK(plan.queue_position() == 3);
  CHECK(plan.estimated_ttft().seconds() == 1);
  CHECK(plan.estimated_ttft().nanos() == 250'000'000);
  REQUIRE(daemon.engine->submitted().size() == 1);
  CHECK(daemon.engine->submitted()[0].cache_salt == "s");
  CHECK_FALSE(daemon.engine->submitted()[0].request_id.empty());

  daemon.engine->set_plan(absl::InvalidArgumentError("sampling.top_p: 2 is outside (0, 1]"));
  grpc::ClientContext refused_context;
  const grpc::Status refused = daemon.stub->Plan(&refused_context, request, &plan);
  CHECK(ViolatedFields(refused) == std::vector<std::string>{"sampling.top_p"});
  grpc::ClientContext empty_context;
  const grpc::Status empty = daemon.stub->Plan(&empty_context, {}, &plan);
  CHECK(ViolatedFields(empty) == std::vector<std::string>{"prompt"});
}

TEST_CASE("ListRequests, Pause, Resume and FlushPrefixCache reach the engine", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldRounds();
  v1::GenerateRequest request = TextRequest("hi", 5);
  request.set_request_id("a");
  request.set_priority(-4);
  request.set_n(2);
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, request);
  daemon.engine->LetRounds(2);
  REQUIRE(daemon.engine->WaitProduced(4));
  auto admin = v1::Admin::NewStub(daemon.daemon->channel());
  v1::ListRequestsResponse list;
  grpc::ClientContext list_context;
  REQUIRE(admin->ListRequests(&list_context, {}, &list).ok());
  REQUIRE(list.requests_size() == 1);
  CHECK(list.requests(0).request_id() == "a");
  CHECK(list.requests(0).phase() == "decode");
  CHECK(list.requests(0).prompt_tokens() == 3);
  CHECK(list.requests(0).output_tokens() == 4);
  CHECK(list.requests(0).priority() == -4);
  CHECK(list.requests(0).age().seconds() == 2);

  v1::PauseResponse paused;
  grpc::ClientContext pause_context;
  REQUIRE(admin->Pause(&pause_context, {}, &paused).ok());
  v1::Stats stats;
  grpc::ClientContext stats_context;
  REQUIRE(admin->GetStats(&stats_context, {}, &stats).ok());
  CHECK(stats.paused());
  v1::FlushPrefixCacheResponse flushed;
  grpc::ClientContext flush_context;
  REQUIRE(admin->FlushPrefixCache(&flush_context, {}, &flushed).ok());
  CHECK(flushed.num_blocks() == 7);
  v1::ResumeResponse resumed;
  grpc::ClientContext resume_context;
  REQUIRE(admin->Resume(&resume_context, {}, &resumed).ok());
  daemon.engine->ReleaseRounds();
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  CHECK(reader->Finish().ok());
}

TEST_CASE("a question that the engine answers only at its end does not hold up Stop", "[server]") {
  TestDaemon daemon;
  daemon.engine->HoldAnswers();
  std::thread asker([&] {
    auto admin = v1::Admin::NewStub(daemon.daemon->channel());
    v1::PauseResponse paused;
    grpc::ClientContext context;
    admin->Pause(&context, {}, &paused);
  });
  REQUIRE(daemon.engine->WaitAsked(1));
  std::thread helper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    daemon.engine->ReleaseAnswers();
  });
  daemon.daemon->Stop();
  asker.join();
  helper.join();
}

TEST_CASE("Drain refuses new requests, tells the owner and lets live ones finish", "[server]") {
  std::atomic<int> num_drains = 0;
  DaemonOptions options;
  options.on_drain = [&] { ++num_drains; };
  TestDaemon daemon(options);
  daemon.engine->HoldRounds();
  grpc::ClientContext context;
  auto reader = daemon.stub->Generate(&context, TextRequest("a", 2));
  v1::GenerateEvent event;
  REQUIRE(reader->Read(&event));
  auto admin = v1::Admin::NewStub(daemon.daemon->channel());
  v1::DrainResponse drain;
  grpc::ClientContext drain_context;
  REQUIRE(admin->Drain(&drain_context, {}, &drain).ok());
  CHECK(num_drains == 1);
  CHECK(Generate(daemon.stub.get(), TextRequest("b", 1)).status.error_message().find("draining") == 0);
  daemon.engine->ReleaseRounds();
  while (reader->Read(&event)) {
  }
  CHECK(reader->Finish().ok());
  CHECK(daemon.daemon->WaitDrained(absl::Seconds(5)));
}

TEST_CASE("Detokenize takes 262144 ids and no more", "[server]") {
  TestDaemon daemon;
  v1::DetokenizeRequest request;
  request.mutable_ids()->Resize(256 << 10, 'x');
  v1::DetokenizeResponse response;
  grpc::ClientContext context;
  CHECK(daemon.stub->Detokenize(&context, request, &response).ok());
  request.add_ids('x');
  grpc::ClientContext refused_context;
  const grpc::Status refused = daemon.stub->Detokenize(&refused_context, request, &response);
  CHECK(ViolatedFields(refused) == std::vector<std::string>{"ids"});
}

TEST_CASE("GetStats carries the engine's counters and the Prometheus text", "[server]") {
  TestDaemon daemon;
  REQUIRE(Generate(daemon.stub.get(), TextRequest("a", 3)).status.ok());
  auto admin = v1::Admin::NewStub(daemon.daemon->channel());
  grpc::ClientContext context;
  v1::Stats stats;
  REQUIRE(admin->GetStats(&context, {}, &stats).ok());
  CHECK(stats.output_tokens() == 3);
  CHECK(stats.num_blocks() == 40);
  CHECK(stats.prefix_query_tokens() == 100);
  CHECK(stats.prefix_device_hit_tokens() == 60);
  CHECK(stats.prefix_host_hit_tokens() == 10);
  CHECK(stats.num_cached_blocks() == 5);
  CHECK(stats.num_host_blocks() == 80);
  CHECK(stats.num_free_host_blocks() == 79);
  CHECK(stats.num_swaps() == 3);
  CHECK(stats.num_wasted_rows() == 11);
  CHECK(stats.num_queued_tokens() == 17);
  CHECK_FALSE(stats.paused());
  CHECK(stats.prometheus_text().find(
            "fastgen:prefix_cache_hits_total{model_name=\"fake-model\"} 70\n") !=
        std::string::npos);
  CHECK(stats.prometheus_text().find(
            "fastgen:generation_tokens_total{model_name=\"fake-model\"} 3\n") != std::string::npos);
}

TEST_CASE("another model's name is refused under strict_model only", "[server]") {
  v1::GenerateRequest request = TextRequest("a", 1);
  request.set_model("gpt-4o-mini");
  TestDaemon lenient;
  CHECK(Generate(lenient.stub.get(), request).status.ok());
  DaemonOptions options;
  options.strict_model = true;
  TestDaemon strict(options);
  const grpc::Status refused = Generate(strict.stub.get(), request).status;
  CHECK(refused.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(refused.error_message().find("gpt-4o-mini") != std::string::npos);
  CHECK(refused.error_message().find("fake-model") != std::string::npos);
  request.set_model("fake-model");
  CHECK(Generate(strict.stub.get(), request).status.ok());
  request.clear_model();
  CHECK(Generate(strict.stub.get(), request).status.ok());
}

TEST_CASE("unknown fields are named in the initial metadata, or refused under strict_fields",
          "[server]") {
  v1::GenerateRequest request = TextRequest("a", 1);
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(500, 1);
  auto* stopping = request.mutable_stopping();
  stopping->GetReflection()->MutableUnknownFields(stopping)->AddLengthDelimited(90, "x");
  TestDaemon lenient;
  grpc::ClientContext context;
  CHECK(Generate(lenient.stub.get(), request, &context).status.ok());
  CHECK(Metadata(context.GetServerInitialMetadata(), "x-fastgen-ignored") == "500,stopping.90");
  DaemonOptions options;
  options.strict_fields = true;
  TestDaemon strict(options);
  const grpc::Status refused = Generate(strict.stub.get(), request).status;
  CHECK(refused.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(ViolatedFields(refused) == std::vector<std::string>{"500", "stopping.90"});

  v1::TokenizeRequest tokenize;
  tokenize.GetReflection()->MutableUnknownFields(&tokenize)->AddVarint(44, 1);
  v1::TokenizeResponse tokens;
  grpc::ClientContext unary_context;
  CHECK(lenient.stub->Tokenize(&unary_context, tokenize, &tokens).ok());
  CHECK(Metadata(unary_context.GetServerInitialMetadata(), "x-fastgen-ignored") == "44");
}

TEST_CASE("details travel in grpc-status-details-bin", "[server]") {
  TestDaemon daemon;
  v1::GenerateRequest request = TextRequest("a", 1);
  request.set_n(300);
  grpc::ClientContext context;
  const Stream stream = Generate(daemon.stub.get(), request, &context);
  const std::string trailer =
      Metadata(context.GetServerTrailingMetadata(), "grpc-status-details-bin");
  google::rpc::Status rich;
  REQUIRE(rich.ParseFromString(trailer));
  CHECK(rich.code() == static_cast<int>(grpc::StatusCode::INVALID_ARGUMENT));
  REQUIRE(rich.details_size() == 1);
  CHECK(rich.details(0).type_url() == "type.googleapis.com/google.rpc.BadRequest");
  CHECK(ViolatedFields(stream.status) == std::vector<std::string>{"n"});
}

}  // namespace
}  // namespace fastgen
