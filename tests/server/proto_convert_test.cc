#include "server/proto_convert.h"

#include <cmath>
#include <functional>
#include <limits>

#include "tests/server/test_daemon.h"

namespace fastgen {
namespace {

using testing::HasRetryInfo;
using testing::ViolatedFields;

v1::GenerateRequest ValidRequest() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

std::vector<std::string> FieldsRefused(const std::function<void(v1::GenerateRequest*)>& change) {
  v1::GenerateRequest request = ValidRequest();
  change(&request);
  const auto converted = FromProto(request);
  if (converted.ok()) return {};
  CHECK(converted.status().code() == absl::StatusCode::kInvalidArgument);
  return ViolatedFields(ToGrpcStatus(converted.status()));
}

TEST_CASE("every field that is not served is refused by its name", "[server]") {
  struct Case {
    std::string field;
    std::function<void(v1::GenerateRequest*)> change;
  };
  const std::vector<Case> cases = {
      {"n", [](auto* r) { r->set_n(0); }},
      {"n", [](auto* r) { r->set_n(129); }},
      {"n", [](auto* r) { r->set_n(INT32_MIN); }},
      {"best_of", [](auto* r) { r->set_best_of(129); }},
      {"best_of", [](auto* r) { r->set_best_of(0); }},
      {"best_of",
       [](auto* r) {
         r->set_n(3);
         r->set_best_of(2);
       }},
      {"cache_salt", [](auto* r) { r->set_cache_salt(std::string(257, 's')); }},
      {"sampling.logit_bias",
       [](auto* r) {
         for (int i = 0; i < 1025; ++i) (*r->mutable_sampling()->mutable_logit_bias())[i] = 1;
       }},
      {"sampling.logit_bias",
       [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[5] = std::nanf(""); }},
      {"sampling.logit_bias",
       [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[5] = -INFINITY; }},
      {"sampling.allowed_token_ids",
       [](auto* r) {
         r->mutable_sampling()->mutable_allowed_token_ids()->Resize((256 << 10) + 1, 3);
       }},
      {"sampling.bad_words",
       [](auto* r) {
         for (int i = 0; i < 257; ++i) r->mutable_sampling()->add_bad_words("x");
       }},
      {"sampling.bad_words",
       [](auto* r) { r->mutable_sampling()->add_bad_words(std::string(257, 'x')); }},
      {"sampling.bad_words", [](auto* r) { r->mutable_sampling()->add_bad_words(""); }},
      {"resume_window", [](auto* r) { r->mutable_resume_window()->set_seconds(-1); }},
      {"resume_window", [](auto* r) { r->mutable_resume_window()->set_nanos(-1); }},
      {"resume_window", [](auto* r) { r->mutable_resume_window()->set_nanos(1'000'000'000); }},
      {"resume_window", [](auto* r) { r->mutable_resume_window()->set_seconds(3601); }},
      {"resume_window", [](auto* r) { r->mutable_resume_window()->set_seconds(INT64_MAX); }},
      {"constraint.json_object",
       [](auto* r) { r->mutable_constraint()->set_json_object(false); }},
      {"constraint", [](auto* r) { r->mutable_constraint(); }},
      {"request_id", [](auto* r) { r->set_request_id("with space"); }},
      {"request_id", [](auto* r) { r->set_request_id("line\nbreak"); }},
      {"prompt", [](auto* r) { r->clear_text(); }},
      {"chat.messages", [](auto* r) { r->mutable_chat(); }},
      {"chat.messages[0].role", [](auto* r) { r->mutable_chat()->add_messages(); }},
      {"add_special_tokens",
       [](auto* r) {
         r->mutable_token_ids()->add_ids(1);
         r->set_add_special_tokens(false);
       }},
      {"parse_special",
       [](auto* r) {
         r->mutable_chat()->add_messages()->set_role("user");
         r->set_parse_special(true);
       }},
      {"chat.continue_final_message",
       [](auto* r) {
         r->mutable_chat()->add_messages()->set_role("user");
         r->mutable_chat()->set_continue_final_message(true);
         r->mutable_chat()->set_add_generation_prompt(true);
       }},
  };
  for (const Case& c : cases) {
    INFO(c.field);
    CHECK(FieldsRefused(c.change) == std::vector<std::string>{c.field});
  }
}

TEST_CASE("the largest counts and sizes are taken", "[server]") {
  CHECK(FieldsRefused([](v1::GenerateRequest* r) {
          r->set_n(128);
          r->set_best_of(128);
          r->set_cache_salt(std::string(256, 's'));
          r->mutable_resume_window()->set_seconds(3600);
          for (int i = 0; i < 1024; ++i) (*r->mutable_sampling()->mutable_logit_bias())[i] = 1;
          for (int i = 0; i < 256; ++i) r->mutable_sampling()->add_bad_words(std::string(256, 'x'));
          r->mutable_sampling()->mutable_allowed_token_ids()->Resize(256 << 10, 3);
        }).empty());
}

TEST_CASE("all violations of a request come together", "[server]") {
  CHECK(FieldsRefused([](v1::GenerateRequest* r) {
          r->set_n(200);
          r->set_cache_salt(std::string(300, 's'));
          r->mutable_sampling()->add_bad_words("");
        }) == std::vector<std::string>{"sampling.bad_words", "n", "cache_salt"});
}

TEST_CASE("a constraint arrives, whatever its kind", "[server]") {
  const auto arrives = [](auto change) {
    v1::GenerateRequest proto = ValidRequest();
    change(proto.mutable_constraint());
    return FromProto(proto)->request.constraint;
  };
  CHECK(arrives([](auto* c) { c->set_json_schema("{}"); }).kind == Constraint::Kind::kJsonSchema);
  CHECK(arrives([](auto* c) { c->set_json_object(true); }).kind == Constraint::Kind::kJsonObject);
  CHECK(arrives([](auto* c) { c->set_regex("a"); }).text == "a");
  CHECK(arrives([](auto* c) { c->set_grammar("g"); }).kind == Constraint::Kind::kGrammar);
  CHECK(arrives([](auto* c) { c->set_structural_tag("s"); }).kind ==
        Constraint::Kind::kStructuralTag);
  CHECK(arrives([](auto* c) { c->mutable_choice()->add_choices("x"); }).choices ==
        std::vector<std::string>{"x"});
  const Constraint calls = arrives([](auto* c) {
    c->mutable_tool_calls()->set_name("f");
    c->mutable_tool_calls()->set_single(true);
    c->mutable_tool_calls()->set_optional(true);
  });
  CHECK((calls.kind == Constraint::Kind::kToolCalls && calls.tool == "f"));
  CHECK((calls.single && calls.optional && !calls.or_tool_calls));
  CHECK(arrives([](auto* c) {
          c->set_regex("a");
          c->set_or_tool_calls(true);
        }).or_tool_calls);
}

TEST_CASE("what steers scheduling and sampling arrives", "[server]") {
  v1::GenerateRequest proto = ValidRequest();
  proto.set_n(2);
  proto.set_best_of(5);
  proto.set_priority(-7);
  proto.set_cache_salt("pepper");
  proto.mutable_resume_window()->set_seconds(1);
  proto.mutable_resume_window()->set_nanos(500'000'000);
  v1::Sampling* sampling = proto.mutable_sampling();
  sampling->set_presence_penalty(0.5f);
  sampling->set_frequency_penalty(-1);
  sampling->set_repetition_penalty(1.5f);
  (*sampling->mutable_logit_bias())[9] = -100;
  (*sampling->mutable_logit_bias())[2] = 3;
  sampling->add_allowed_token_ids(4);
  sampling->add_bad_words("no");
  proto.mutable_output()->set_progress(true);
  proto.mutable_output()->set_bytes(true);
  const auto converted = FromProto(proto);
  REQUIRE(converted.ok());
  const GenerateRequest& request = converted->request;
  CHECK(request.n == 2);
  CHECK(request.best_of == 5);
  CHECK(request.priority == -7);
  CHECK(request.cache_salt == "pepper");
  CHECK(converted->resume_window == absl::Milliseconds(1500));
  CHECK(request.sampling.presence_penalty == 0.5f);
  CHECK(request.sampling.frequency_penalty == -1);
  CHECK(request.sampling.repetition_penalty == 1.5f);
  CHECK(request.sampling.logit_bias ==
        std::vector<std::pair<int32_t, float>>{{2, 3.0f}, {9, -100.0f}});
  CHECK(request.sampling.allowed_token_ids == std::vector<int32_t>{4});
  CHECK(request.sampling.bad_words == std::vector<std::string>{"no"});
  CHECK(request.output.progress);
  CHECK_FALSE(request.output.logprobs.has_value());
  CHECK(converted->fields.raw_bytes);
  // Absent: one choice, and as many computed as are asked for.
  proto.clear_best_of();
  CHECK(FromProto(proto)->request.best_of == 2);
  proto.clear_n();
  CHECK(FromProto(proto)->request.best_of == 1);
}

TEST_CASE("a model's recommendations stand where a request says nothing", "[server]") {
  SamplingDefaults defaults;
  defaults.temperature = 0.7f;
  defaults.top_k = 20;
  defaults.repetition_penalty = 1.05f;
  v1::GenerateRequest proto = ValidRequest();
  proto.mutable_sampling()->set_top_k(0);
  const auto converted = FromProto(proto, defaults);
  REQUIRE(converted.ok());
  CHECK(converted->request.sampling.temperature == 0.7f);
  CHECK(converted->request.sampling.top_k == 0);
  CHECK(converted->request.sampling.top_p == 1);
  CHECK(converted->request.sampling.repetition_penalty == 1.05f);
  ModelInfo info;
  info.sampling_defaults = defaults;
  v1::ModelInfo told;
  ToProto(info, MemoryReport(), &told);
  CHECK(told.sampling_defaults().temperature() == 0.7f);
  CHECK(told.sampling_defaults().top_k() == 20);
  CHECK_FALSE(told.sampling_defaults().has_top_p());
}

TEST_CASE("absent scalars keep the engine's defaults and zeros are values", "[server]") {
  v1::GenerateRequest proto = ValidRequest();
  auto converted = FromProto(proto);
  REQUIRE(converted.ok());
  CHECK(converted->request.sampling.temperature == 1);
  CHECK(converted->request.sampling.top_p == 1);
  CHECK_FALSE(converted->request.sampling.seed.has_value());
  CHECK_FALSE(converted->request.stopping.max_tokens.has_value());
  CHECK(converted->request.stopping.skip_special_tokens);
  CHECK(converted->request.add_special_tokens);
  CHECK(converted->request.parse_special);
  CHECK_FALSE(converted->request.output.logprobs.has_value());
  CHECK(converted->fields.text);

  proto.mutable_sampling()->set_temperature(0);
  proto.mutable_sampling()->set_top_p(0);
  proto.mutable_sampling()->set_seed(0);
  proto.mutable_stopping()->set_max_tokens(0);
  proto.mutable_stopping()->set_skip_special_tokens(false);
  proto.set_add_special_tokens(false);
  proto.set_parse_special(false);
  proto.mutable_output()->set_logprobs(0);
  proto.mutable_output()->set_text(false);
  converted = FromProto(proto);
  REQUIRE(converted.ok());
  CHECK(converted->request.sampling.temperature == 0);
  CHECK(converted->request.sampling.top_p == 0);
  CHECK(converted->request.sampling.seed == 0);
  CHECK(converted->request.stopping.max_tokens == 0);
  CHECK_FALSE(converted->request.stopping.skip_special_tokens);
  CHECK_FALSE(converted->request.add_special_tokens);
  CHECK_FALSE(converted->request.parse_special);
  CHECK(converted->request.output.logprobs == 0);
  CHECK(converted->fields.logprobs);
  CHECK_FALSE(converted->fields.text);
}

TEST_CASE("chat prompts arrive whole", "[server]") {
  v1::GenerateRequest proto;
  v1::Chat* chat = proto.mutable_chat();
  v1::ChatMessage* message = chat->add_messages();
  message->set_role("assistant");
  message->set_reasoning_content("hm");
  v1::ToolCall* call = message->add_tool_calls();
  call->set_id("c1");
  call->set_name("f");
  call->set_arguments_json("{\"a\":1}");
  chat->add_tools_json("{\"b\":2,\"a\":1}");
  chat->set_chat_template_kwargs_json("{\"enable_thinking\":false}");
  chat->set_continue_final_message(true);
  const auto converted = FromProto(proto);
  REQUIRE(converted.ok());
  const auto& prompt = std::get<ChatPrompt>(converted->request.prompt);
  REQUIRE(prompt.messages.size() == 1);
  CHECK(prompt.messages[0].role == "assistant");
  CHECK_FALSE(prompt.messages[0].content.has_value());
  CHECK(prompt.messages[0].reasoning_content == "hm");
  REQUIRE(prompt.messages[0].tool_calls.size() == 1);
  CHECK(prompt.messages[0].tool_calls[0].arguments_json == "{\"a\":1}");
  CHECK(prompt.tools_json == std::vector<std::string>{"{\"b\":2,\"a\":1}"});
  CHECK(prompt.template_kwargs_json == "{\"enable_thinking\":false}");
  CHECK(prompt.continue_final_message);
  CHECK_FALSE(prompt.add_generation_prompt);
}

TEST_CASE("deltas that wait together become one message", "[server]") {
  DeltaFields fields;
  fields.token_ids = true;
  v1::Delta proto;
  TokenDelta first;
  first.text = "a";
  first.token_ids = {1};
  TokenDelta second;
  second.text = "bc";
  second.token_ids = {2, 3};
  AppendToProto(first, fields, &proto);
  AppendToProto(second, fields, &proto);
  CHECK(proto.text() == "abc");
  CHECK(std::vector<int32_t>(proto.token_ids().begin(), proto.token_ids().end()) ==
        std::vector<int32_t>{1, 2, 3});
  CHECK(proto.num_tokens() == 3);
}

TEST_CASE("a delta holds only what was asked for", "[server]") {
  TokenDelta delta;
  delta.text = "x";
  delta.token_ids = {1};
  delta.logprobs.resize(1);
  delta.logprobs[0].bytes = "\xff";
  v1::Delta proto;
  DeltaFields nothing;
  nothing.text = false;
  AppendToProto(delta, nothing, &proto);
  CHECK(proto.text().empty());
  CHECK(proto.token_ids().empty());
  CHECK(proto.logprobs().empty());
  CHECK(proto.raw().empty());
  CHECK(proto.num_tokens() == 1);
}

TEST_CASE("reasoning and tool calls travel, pieces of one call joined", "[server]") {
  v1::GenerateRequest proto;
  proto.set_text("p");
  proto.mutable_output()->set_reasoning(true);
  proto.mutable_output()->set_tool_calls(true);
  const auto converted = FromProto(proto);
  REQUIRE(converted.ok());
  CHECK((converted->request.output.reasoning && converted->request.output.tool_calls));

  v1::Delta joined;
  for (const ToolCallDelta& call :
       {ToolCallDelta{0, "a", "f", "{"}, ToolCallDelta{0, "", "", "}"},
        ToolCallDelta{1, "b", "g", "{}"}}) {
    TokenDelta delta;
    delta.reasoning = "r";
    delta.tool_calls = {call};
    AppendToProto(delta, converted->fields, &joined);
  }
  CHECK(joined.reasoning() == "rrr");
  REQUIRE(joined.tool_calls_size() == 2);
  CHECK(joined.tool_calls(0).id() == "a");
  CHECK(joined.tool_calls(0).name() == "f");
  CHECK(joined.tool_calls(0).arguments() == "{}");
  CHECK(joined.tool_calls(1).index() == 1);
  CHECK(joined.tool_calls(1).arguments() == "{}");

  FinishInfo info;
  info.usage.reasoning_tokens = 3;
  info.num_tool_calls = 2;
  v1::Finished finished;
  ToProto(info, ModelInfo(), &finished);
  CHECK(finished.usage().reasoning_tokens() == 3);
  CHECK(finished.num_tool_calls() == 2);
  ModelInfo model;
  model.tool_call_parser = "hermes";
  model.reasoning_parser = "think";
  v1::ModelInfo model_proto;
  ToProto(model, MemoryReport(), &model_proto);
  CHECK(model_proto.tool_call_parser() == "hermes");
  CHECK(model_proto.reasoning_parser() == "think");
}

TEST_CASE("an echoed prompt does not count as output", "[server]") {
  TokenDelta delta;
  delta.text = "ab";
  delta.token_ids = {1, 2};
  delta.num_prompt_tokens = 2;
  delta.prompt_logprobs.resize(2);
  delta.prompt_logprobs[1].bytes = "b";
  DeltaFields fields;
  v1::Delta proto;
  AppendToProto(delta, fields, &proto);
  CHECK(proto.num_tokens() == 0);
  CHECK(proto.prompt_logprobs().empty());
  fields.prompt_logprobs = true;
  AppendToProto(delta, fields, &proto);
  CHECK(proto.prompt_logprobs_size() == 2);
}

TEST_CASE("a finish carries its reason, match, usage and receipt", "[server]") {
  FinishInfo info;
  info.reason = FinishReason::kStop;
  info.matched_token_id = 2;
  info.usage = {10, 4, 7};
  info.receipt.queue_time = absl::Milliseconds(1500);
  info.receipt.seed = 99;
  info.receipt.num_page_ins = 6;
  info.index = 3;
  ModelInfo model;
  model.weights_hash = "beef";
  v1::Finished proto;
  ToProto(info, model, &proto);
  CHECK(proto.reason() == v1::STOP);
  CHECK(proto.matched_token_id() == 2);
  CHECK(proto.usage().prompt_tokens() == 10);
  CHECK(proto.usage().cached_tokens() == 4);
  CHECK(proto.usage().output_tokens() == 7);
  CHECK(proto.receipt().queue_time().seconds() == 1);
  CHECK(proto.receipt().queue_time().nanos() == 500'000'000);
  CHECK(proto.receipt().seed() == 99);
  CHECK(proto.receipt().num_page_ins() == 6);
  CHECK(proto.index() == 3);
  CHECK(proto.receipt().weights_hash() == "beef");
  CHECK(proto.receipt().build().rfind("fastgen ", 0) == 0);
  info.matched_stop = "END";
  ToProto(info, model, &proto);
  CHECK(proto.matched_stop() == "END");
  CHECK(StatusOfFinish(info).ok());
}

TEST_CASE("reasons that are not a success end with their status", "[server]") {
  FinishInfo info;
  info.reason = FinishReason::kCancelled;
  CHECK(StatusOfFinish(info).code() == absl::StatusCode::kCancelled);
  info.reason = FinishReason::kDeadline;
  CHECK(StatusOfFinish(info).code() == absl::StatusCode::kDeadlineExceeded);
  info.reason = FinishReason::kError;
  info.error = "a NaN logit";
  CHECK(StatusOfFinish(info) == absl::InternalError("a NaN logit"));
}

TEST_CASE("an engine's message that opens with a field becomes a violation", "[server]") {
  const grpc::Status status =
      ToGrpcStatus(absl::InvalidArgumentError("sampling.top_p: 2 is outside (0, 1]"));
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message() == "sampling.top_p: 2 is outside (0, 1]");
  CHECK(ViolatedFields(status) == std::vector<std::string>{"sampling.top_p"});
  CHECK(ViolatedFields(ToGrpcStatus(absl::InvalidArgumentError("It is Bad: really"))).empty());
  CHECK(ViolatedFields(ToGrpcStatus(absl::InvalidArgumentError("no field"))).empty());
}

TEST_CASE("statuses keep code and message, and say when to come back", "[server]") {
  for (const absl::Status& status :
       {absl::ResourceExhaustedError("queue full"), absl::UnavailableError("loading")}) {
    const grpc::Status converted = ToGrpcStatus(status);
    CHECK(static_cast<int>(converted.error_code()) == static_cast<int>(status.code()));
    CHECK(converted.error_message() == std::string(status.message()));
    CHECK(HasRetryInfo(converted));
  }
  const grpc::Status not_found = ToGrpcStatus(absl::NotFoundError("model"));
  CHECK(not_found.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK_FALSE(HasRetryInfo(not_found));
  CHECK(ToGrpcStatus(absl::OkStatus()).ok());
}

google::rpc::RetryInfo RetryOf(const absl::Status& status) {
  google::rpc::Status rich;
  REQUIRE(rich.ParseFromString(ToGrpcStatus(status).error_details()));
  google::rpc::RetryInfo retry;
  REQUIRE(rich.details_size() == 1);
  REQUIRE(rich.details(0).UnpackTo(&retry));
  return retry;
}

TEST_CASE("a hint when to come again is sent as it is, within reason", "[server]") {
  const absl::Status full = absl::ResourceExhaustedError("queue full");
  CHECK(RetryOf(full).retry_delay().seconds() == 1);
  const auto hint = RetryOf(WithRetryAfter(full, absl::Milliseconds(2300))).retry_delay();
  CHECK(hint.seconds() == 2);
  CHECK(hint.nanos() == 300'000'000);
  CHECK(RetryOf(WithRetryAfter(full, absl::ZeroDuration())).retry_delay().nanos() == 100'000'000);
  CHECK(RetryOf(WithRetryAfter(full, absl::InfiniteDuration())).retry_delay().seconds() == 3600);
}

TEST_CASE("a request that can never fit the context says so to programs", "[server]") {
  const auto reason = [](const std::string& message) {
    google::rpc::Status rich;
    REQUIRE(rich.ParseFromString(
        ToGrpcStatus(absl::InvalidArgumentError(message)).error_details()));
    google::rpc::ErrorInfo info;
    for (const auto& detail : rich.details()) detail.UnpackTo(&info);
    return info.reason();
  };
  CHECK(reason("prompt: its 9000 tokens are more than the 8192 of the context (max_model_len)") ==
        "CONTEXT_LENGTH_EXCEEDED");
  CHECK(reason("stopping.max_tokens: 70 after a prompt of 10 tokens is more than the 65 that the KV "
               "cache can hold (4 blocks of 16)") == "CONTEXT_LENGTH_EXCEEDED");
  CHECK(reason("prompt: it has no tokens, at least 1 is needed").empty());
}

TEST_CASE("a refusal says to programs whether another daemon may take the request", "[server]") {
  const auto reason = [](const absl::Status& status) {
    google::rpc::Status rich;
    REQUIRE(rich.ParseFromString(ToGrpcStatus(status).error_details()));
    google::rpc::ErrorInfo info;
    for (const auto& detail : rich.details()) detail.UnpackTo(&info);
    return info.reason();
  };
  CHECK(reason(absl::ResourceExhaustedError("the queue is full: 4 requests with 90 prompt tokens "
                                            "wait; the limits are 4 requests and 100 tokens")) ==
        "OVERLOADED");
  CHECK(reason(absl::ResourceExhaustedError("the engine is full: 9 choices are live, 1 more were "
                                            "asked for; the limit is 9")) == "OVERLOADED");
  CHECK(reason(absl::ResourceExhaustedError(
            "the API key bob has 4 requests live; its max-concurrent is 4")) == "");
  CHECK(reason(absl::ResourceExhaustedError(
            "the API key the queue is full:  has 4 requests live; its max-concurrent is 4")) == "");
  CHECK(reason(absl::UnavailableError("the queue is full: not that either")) == "");
}

TEST_CASE("unknown fields are found at every depth, once each", "[server]") {
  v1::GenerateRequest request = ValidRequest();
  CHECK(UnknownFields(request).empty());
  request.mutable_chat()->add_messages();
  request.mutable_chat()->add_messages();
  const auto add = [](google::protobuf::Message* message, int number) {
    message->GetReflection()->MutableUnknownFields(message)->AddVarint(number, 7);
  };
  add(&request, 500);
  add(&request, 500);
  add(request.mutable_sampling(), 99);
  add(request.mutable_chat()->mutable_messages(0), 77);
  add(request.mutable_chat()->mutable_messages(1), 77);
  CHECK(UnknownFields(request) ==
        std::vector<std::string>{"500", "chat.messages.77", "sampling.99"});
}

TEST_CASE("a flood of unknown fields yields a bounded list", "[server]") {
  v1::GenerateRequest request = ValidRequest();
  auto* unknown = request.GetReflection()->MutableUnknownFields(&request);
  for (int i = 0; i < 300'000; ++i) unknown->AddVarint(100 + i % 1000, 1);
  CHECK(UnknownFields(request).size() == kMaxIgnoredFields);
}

}  // namespace
}  // namespace fastgen
