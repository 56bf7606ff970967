// What answers say of single tokens: logprobs, prompt_logprobs, ids, and which one ended the text.
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::Json;

std::string Body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}])" + more + "}";
}

TEST_CASE("chat token ids come when asked for", "[gateway]") {
  Gateway gateway;
  const auto json =
      Json(gateway.Post("/chat/completions", Body(R"(,"return_token_ids":true)")).body);
  CHECK(At(json, "/choices/0/token_ids") == "[100,101]");
  CHECK(At(json, "/prompt_token_ids") == "[1,2,3,4,5]");
  CHECK(gateway.daemon.requests()[0].output().token_ids());
  const auto events =
      gateway.Post("/chat/completions", Body(R"(,"return_token_ids":true,"stream":true)")).events();
  CHECK(At(Json(events[0]), "/prompt_token_ids") == "[1,2,3,4,5]");
  CHECK(At(Json(events[1]), "/choices/0/token_ids") == "[100]");
}

TEST_CASE("chat logprobs carry bytes, also of half a character", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"\xE2\x82\xAC\""});
    *script.events[1].mutable_delta()->add_logprobs() = testing::LogprobOf("\xE2\x82", -0.5f);
    *script.events[1].mutable_delta()->add_logprobs() = testing::LogprobOf("\xAC\"", -INFINITY);
    return script;
  };
  const std::string more = R"(,"logprobs":true,"top_logprobs":1)";
  auto json = Json(gateway.Post("/v1/chat/completions", Body(more)).body);
  CHECK(At(json, "/choices/0/message/content") == "\xE2\x82\xAC\"");
  CHECK(At(json, "/choices/0/logprobs/content/0/bytes") == "[226,130]");
  CHECK(At(json, "/choices/0/logprobs/content/0/token") == "\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(At(json, "/choices/0/logprobs/content/0/logprob") == "-5E-1");
  CHECK(At(json, "/choices/0/logprobs/content/0/top_logprobs/0/token") == "best");
  CHECK(At(json, "/choices/0/logprobs/content/1/logprob") == "-9.999E3");
  const auto events =
      gateway.Post("/v1/chat/completions", Body(more + R"(,"stream":true)")).events();
  REQUIRE(events.size() == 4);
  CHECK(At(Json(events[1]), "/choices/0/logprobs/content/1/bytes") == "[172,34]");
}

TEST_CASE("stop_reason is the matched string, or the id that the request named", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script = testing::AnswerScript({"x"});
    v1::Finished* finished = script.events.back().mutable_finished();
    if (request.stopping().stop_size() > 0) {
      finished->set_matched_stop(request.stopping().stop(0));
    } else {
      finished->set_matched_token_id(9);
    }
    return script;
  };
  CHECK(At(Json(gateway.Post("/chat/completions", Body(R"(,"stop":"\n\"")")).body),
           "/choices/0/stop_reason") == "\n\"");
  CHECK(At(Json(gateway.Post("/chat/completions", Body(R"(,"stop_token_ids":[8,9])")).body),
           "/choices/0/stop_reason") == "9");
  CHECK(At(Json(gateway.Post("/chat/completions", Body("")).body), "/choices/0/stop_reason") ==
        "(null)");
}

TEST_CASE("prompt logprobs have vLLM's shape", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    CHECK(request.output().prompt_logprobs() == 1);
    GenerateScript script = testing::AnswerScript({"x"});
    v1::GenerateEvent scores = testing::DeltaEvent("");
    v1::TokenLogprob first;
    first.set_token(3);
    *scores.mutable_delta()->add_prompt_logprobs() = first;
    v1::TokenLogprob second = testing::LogprobOf("b", -2);
    second.set_token(4);
    second.set_rank(7);
    second.mutable_top(0)->set_token(9);
    *scores.mutable_delta()->add_prompt_logprobs() = second;
    script.events.insert(script.events.begin() + 1, scores);
    return script;
  };
  const auto chat =
      Json(gateway.Post("/v1/chat/completions", Body(R"(,"prompt_logprobs":1)")).body);
  const std::string want = R"([null,{"4":{"logprob":-2,"rank":7,"decoded_token":"b"},)"
                           R"("9":{"logprob":-1,"rank":1,"decoded_token":"best"}}])";
  CHECK(At(chat, "/prompt_logprobs") == want);
  const auto completion =
      Json(gateway.Post("/v1/completions", R"({"prompt":"ab","prompt_logprobs":1,"max_tokens":0})")
               .body);
  CHECK(At(completion, "/choices/0/prompt_logprobs") == want);
  CHECK(At(completion, "/choices/0/logprobs") == "(null)");
}

TEST_CASE("tokens are shown as ids when asked for", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script = testing::AnswerScript({"x"});
    v1::TokenLogprob token = testing::LogprobOf("x", -0.5f);
    token.set_token(12);
    token.mutable_top(0)->set_token(13);
    *script.events[1].mutable_delta()->add_logprobs() = token;
    return script;
  };
  const auto chat = Json(gateway
                             .Post("/v1/chat/completions",
                                   Body(R"(,"logprobs":true,"return_tokens_as_token_ids":true)"))
                             .body);
  CHECK(At(chat, "/choices/0/logprobs/content/0/token") == "token_id:12");
  CHECK(At(chat, "/choices/0/logprobs/content/0/bytes") == "[120]");
  CHECK(At(chat, "/choices/0/logprobs/content/0/top_logprobs/0/token") == "token_id:13");
  const auto completion =
      Json(gateway
               .Post("/v1/completions",
                     R"({"prompt":"a","logprobs":1,"return_tokens_as_token_ids":true})")
               .body);
  CHECK(At(completion, "/choices/0/logprobs/tokens/0") == "token_id:12");
  CHECK(At(completion, "/choices/0/logprobs/top_logprobs/0/token_id:13") != "(none)");
  CHECK(At(completion, "/choices/0/logprobs/text_offset") == "[0]");
}

}  // namespace
}  // namespace fastgen::gateway
