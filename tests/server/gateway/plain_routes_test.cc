#include <catch2/catch.hpp>

#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::FakeDaemon;
using testing::Gateway;
using testing::HttpReply;
using testing::Json;

TEST_CASE("models are listed and found, slashes and all", "[gateway]") {
  Gateway gateway;
  const auto list = Json(gateway.Get("/v1/models").body);
  CHECK(At(list, "/object") == "list");
  CHECK(At(list, "/data/0/id") == "tiny/model");
  CHECK(At(list, "/data/0/object") == "model");
  CHECK(At(list, "/data/0/max_model_len") == "2048");
  CHECK(At(Json(gateway.Get("/v1/models/tiny/model").body), "/id") == "tiny/model");
  CHECK(At(Json(gateway.Get("/v1/models/tiny%2Fmodel").body), "/id") == "tiny/model");
  const HttpReply reply = gateway.Get("/v1/models/gpt-4o-mini");
  CHECK(reply.status == 404);
  CHECK(At(Json(reply.body), "/error/code") == "model_not_found");
}

TEST_CASE("health follows the daemon's health service", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Get("/health").body == R"({"status":"ok"})");
  gateway.daemon.SetServing(false);
  HttpReply reply = gateway.Get("/health");
  CHECK(reply.status == 503);
  CHECK(reply.header("retry-after") == "1");
  CHECK_THAT(reply.body, Catch::Matchers::Contains("draining"));
  gateway.daemon.unary_status =
      testing::RetryLater(grpc::StatusCode::UNAVAILABLE, "loading: 12 of 90 MB", 3);
  reply = gateway.Get("/health");
  CHECK(reply.status == 503);
  CHECK(At(Json(reply.body), "/error/message") == "loading: 12 of 90 MB");
  CHECK(gateway.Get("/v1/models").status == 503);
  CHECK(gateway.Get("/v1/models").header("retry-after") == "3");
}

TEST_CASE("health of a daemon without a health service is whether it knows its model",
          "[gateway]") {
  Gateway gateway({}, FakeDaemon::Health::kOff);
  CHECK(gateway.Get("/health").status == 200);
  gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "loading");
  CHECK(gateway.Get("/health").status == 503);
}

TEST_CASE("version is the gateway's", "[gateway]") {
  Gateway gateway;
  CHECK(At(Json(gateway.Get("/version").body), "/version") != "(none)");
}

TEST_CASE("metrics are the daemon's text, as Prometheus wants it", "[gateway]") {
  Gateway gateway;
  gateway.daemon.prometheus_text = "fastgen:num_requests_running 1\n";
  const HttpReply reply = gateway.Get("/metrics");
  CHECK(reply.status == 200);
  CHECK(reply.body == "fastgen:num_requests_running 1\n");
  CHECK(reply.header("content-type") == "text/plain; version=0.0.4; charset=utf-8");
  gateway.daemon.unary_status = grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not here");
  CHECK(gateway.Get("/metrics").status == 501);
}

TEST_CASE("a text under two names is refused when they differ, and both are checked", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Post("/tokenize", R"({"prompt":"ab","content":"ab"})").status == 200);
  HttpReply reply = gateway.Post("/tokenize", R"({"prompt":"ab","content":"ba"})");
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "prompt");
  reply =
      gateway.Post("/tokenize", R"({"prompt":"ab","add_special_tokens":true,"add_special":{}})");
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "add_special");
}

TEST_CASE("tokenize takes vLLM's and llama-server's names", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Post("/tokenize", R"({"prompt":"ab"})").body ==
        R"({"count":3,"max_model_len":2048,"tokens":[1,97,98],"token_strs":null})");
  CHECK(At(Json(gateway
                    .Post("/tokenize", R"({"content":"ab","add_special":false,"with_pieces":true})")
                    .body),
           "/tokens") == R"([{"id":97,"piece":"a"},{"id":98,"piece":"b"}])");
  CHECK(At(Json(gateway
                    .Post("/tokenize",
                          R"({"prompt":"ab","add_special_tokens":false,"return_token_strs":true})")
                    .body),
           "/token_strs") == R"(["a","b"])");
  // A byte that is half a character is no text.
  CHECK(At(Json(gateway
                    .Post("/tokenize",
                          "{\"content\":\"\xC3\xA9\",\"add_special\":false,\"with_pieces\":true}")
                    .body),
           "/tokens") == R"([{"id":195,"piece":[195]},{"id":169,"piece":[169]}])");
  CHECK(At(Json(gateway.Post("/tokenize", R"({"prompt":"","add_special_tokens":false})").body),
           "/tokens") == "[]");
  CHECK(gateway.Post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").body ==
        R"({"count":1,"max_model_len":2048,"tokens":[10],"token_strs":null})");
  CHECK(gateway.Post("/tokenize", R"({})").status == 400);
  CHECK(gateway.Post("/tokenize", R"({"prompt":5})").status == 400);
  CHECK(gateway.Post("/tokenize", R"({"messages":[]})").status == 400);
}

TEST_CASE("the special tokens are told by name", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Get("/tokenizer_info").body ==
        R"({"bos_token":null,"eos_token":"</s>","pad_token":"</s>","vocab_size":0,)"
        R"("model_max_length":2048})");
}

TEST_CASE("a conversation's prompt is told as text and as a count", "[gateway]") {
  Gateway gateway;
  const std::string body = R"({"messages":[{"role":"user","content":"x"}],"model":"m"})";
  CHECK(gateway.Post("/apply-template", body).body == R"({"prompt":"rendered"})");
  CHECK(gateway.Post("/v1/chat/completions/input_tokens", body).body ==
        R"({"object":"response.input_tokens","input_tokens":1})");
  CHECK(gateway.Post("/apply-template", R"({"messages":[]})").status == 400);
  CHECK(gateway.Post("/apply-template", R"({})").status == 400);
  CHECK(gateway.Post("/apply-template", body.substr(0, body.size() - 1) + R"(,"vim":1})")
            .header("x-fastgen-ignored") == "vim");
}

TEST_CASE("fields that plain routes do not know are named", "[gateway]") {
  Gateway gateway;
  const auto ignored = [&gateway](const std::string& path, const std::string& body) {
    const HttpReply reply = gateway.Post(path, body);
    return std::to_string(reply.status) + " " + reply.header("x-fastgen-ignored");
  };
  CHECK(ignored("/tokenize", R"({"prompt":"a","vim":1})") == "200 vim");
  CHECK(ignored("/tokenize", R"({"prompt":"a","model":"m","with_pieces":true})") == "200 ");
  CHECK(ignored("/tokenize", R"({"messages":[{"role":"user","content":"x","vim":1}],"b":1})") ==
        "200 messages[0].vim, b");
  CHECK(ignored("/detokenize", R"({"tokens":[104],"vim":1})") == "200 vim");
  CHECK(ignored("/cancel", R"({"request_id":"live-1","vim":1})") == "200 vim");
}

TEST_CASE("tokenize of messages refuses what only a text prompt honours", "[gateway]") {
  Gateway gateway;
  for (const std::string name : {"add_special_tokens", "add_special", "parse_special"}) {
    const HttpReply reply = gateway.Post(
        "/tokenize", R"({"messages":[{"role":"user","content":"x"}],")" + name + R"(":true})");
    CHECK(reply.status == 400);
    CHECK(At(Json(reply.body), "/error/param") == name);
  }
}

TEST_CASE("detokenize gives the text under both names", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Post("/detokenize", R"({"tokens":[104,105]})").body ==
        R"({"prompt":"hi","content":"hi"})");
  CHECK(gateway.Post("/detokenize", R"({"tokens":["a"]})").status == 400);
  CHECK(gateway.Post("/detokenize", R"({})").status == 400);
  gateway.daemon.unary_status = testing::FieldViolation("ids", "no such token");
  const auto refused = Json(gateway.Post("/detokenize", R"({"tokens":[1]})").body);
  CHECK(At(refused, "/error/param") == "tokens");
  CHECK(At(refused, "/error/message") == "tokens: no such token");
}

TEST_CASE("cancel passes ids on and says which were live", "[gateway]") {
  Gateway gateway;
  CHECK(gateway.Post("/v1/cancel", R"({"request_ids":["live-1","gone"]})").body ==
        R"({"cancelled":["live-1"],"not_found":["gone"]})");
  CHECK(gateway.Post("/cancel", R"({"request_id":"live-2"})").status == 200);
  CHECK((gateway.daemon.cancelled_ids() == std::vector<std::string>{"live-1", "gone", "live-2"}));
  CHECK(gateway.Post("/cancel", R"({})").status == 400);
  CHECK(gateway.Post("/cancel", R"({"request_ids":[5]})").status == 400);
}

}  // namespace
}  // namespace fastgen::gateway
