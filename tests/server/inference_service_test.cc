#include "server/inference_service.h"

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
  grpc::ClientContext attach_context;
  auto reader = daemon.stub->Attach(&attach_context, {});
  v1::GenerateEvent event;
  CHECK_FALSE(reader->Read(&event));
  const grpc::Status attach = reader->Finish();
  CHECK(attach.error_code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(attach.error_message().find("Attach") == 0);
  grpc::ClientContext plan_context;
  v1::PlanResponse plan;
  const grpc::Status planned = daemon.stub->Plan(&plan_context, {}, &plan);
  CHECK(planned.error_code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(planned.error_message().find("Plan") == 0);

  auto admin = v1::Admin::NewStub(daemon.daemon->channel());
  const auto check = [](const grpc::Status& status, const std::string& method) {
    CHECK(status.error_code() == grpc::StatusCode::UNIMPLEMENTED);
    CHECK(status.error_message().find("Admin/" + method) == 0);
  };
  grpc::ClientContext contexts[3];
  v1::DrainResponse drain;
  check(admin->Drain(&contexts[0], {}, &drain), "Drain");
  v1::SleepResponse sleep;
  check(admin->Sleep(&contexts[1], {}, &sleep), "Sleep");
  v1::UpdateWeightsResponse update;
  check(admin->UpdateWeights(&contexts[2], {}, &update), "UpdateWeights");
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
  request.set_n(3);
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
