#include "server/gateway/openai_completions.h"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "tests/server/gateway/gateway_fixture.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::DeltaEvent;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpReply;
using testing::Json;

std::string Refusal(Gateway& gateway, const std::string& body) {
  const HttpReply reply = gateway.Post("/v1/completions", body);
  return std::to_string(reply.status) + " " + At(Json(reply.body), "/error/param");
}

// Echoes its prompt, so that answers can be told apart.
GenerateScript EchoPrompt(const v1::GenerateRequest& request) {
  std::string text = request.text();
  for (int32_t id : request.token_ids().ids()) text += "<" + std::to_string(id) + ">";
  GenerateScript script = testing::AnswerScript({text, "."});
  return script;
}

TEST_CASE("every kind of prompt becomes calls", "[gateway]") {
  struct Row {
    std::string prompt;
    std::vector<std::string> want;  // text, or ids
  };
  const Row row = GENERATE(values<Row>({
      {R"("a")", {"a"}},
      {R"("")", {""}},
      {R"(["a","b"])", {"a", "b"}},
      {"[1,2]", {"<1><2>"}},
      {"[[1,2],[3]]", {"<1><2>", "<3>"}},
  }));
  GenerationRequest request;
  const auto error = ParseCompletionsRequest("{\"prompt\":" + row.prompt + "}", &request);
  REQUIRE_FALSE(error.has_value());
  REQUIRE(request.calls.size() == row.want.size());
  for (size_t i = 0; i < row.want.size(); ++i) {
    CHECK(EchoPrompt(request.calls[i]).events[1].delta().text() == row.want[i]);
    CHECK(request.calls[i].stopping().max_tokens() == 16);
  }
}

TEST_CASE("wrong completion fields are refused by name", "[gateway]") {
  Gateway gateway;
  struct Row {
    std::string body;
    std::string want;
  };
  const Row row = GENERATE(values<Row>({
      {R"({})", "400 prompt"},
      {R"({"prompt":null})", "400 prompt"},
      {R"({"prompt":5})", "400 prompt"},
      {R"({"prompt":[]})", "400 prompt"},
      {R"({"prompt":[[]]})", "400 prompt"},
      {R"({"prompt":[1,"a"]})", "400 prompt"},
      {R"({"prompt":["a",1]})", "400 prompt"},
      {R"({"prompt":["a",[1]]})", "400 prompt"},
      {R"({"prompt":[[1],"a"]})", "400 prompt"},
      {R"({"prompt":[1.5]})", "400 prompt"},
      {R"({"prompt":[-1]})", "400 prompt"},
      {R"({"prompt":[2147483648]})", "400 prompt"},
      {R"({"prompt":[[[1]]]})", "400 prompt"},
      {R"({"prompt":"a","suffix":"b"})", "400 suffix"},
      {R"({"prompt":"a","logprobs":true})", "400 logprobs"},
      {R"({"prompt":"a","logprobs":-1})", "400 logprobs"},
      {R"({"prompt":"a","logprobs":21})", "400 logprobs"},
      {R"({"prompt":"a","parse_special":1})", "400 parse_special"},
      {R"({"prompt":"a","guided_whitespace_pattern":"x"})", "400 guided_whitespace_pattern"},
      {R"({"prompt":"a","echo":1})", "400 echo"},
      {R"({"prompt":"a","messages":[]})", "400 messages"},
      {R"({"prompt":"a","best_of":0})", "400 best_of"},
      {R"({"prompt":"a","prompt_logprobs":true})", "400 prompt_logprobs"},
      {R"({"prompt":"a","tool_choice":"auto"})", "400 tool_choice"},
      {R"({"prompt":"a","chat_template":"x"})", "400 chat_template"},
      {R"({"prompt":"a","regex":"x","grammar":"root ::= x"})", "400 regex"},
  }));
  INFO(row.body);
  CHECK(Refusal(gateway, row.body) == row.want);
}

TEST_CASE("too many prompts or choices are refused", "[gateway]") {
  std::string prompts;
  for (int i = 0; i < 1025; ++i) prompts += i == 0 ? "\"a\"" : ",\"a\"";
  GenerationRequest request;
  auto error = ParseCompletionsRequest("{\"prompt\":[" + prompts + "]}", &request);
  REQUIRE(error.has_value());
  CHECK(error->param == "prompt");
  request = {};
  error = ParseCompletionsRequest("{\"n\":100,\"prompt\":[" + prompts.substr(0, 4 * 20 - 1) + "]}",
                                  &request);
  REQUIRE(error.has_value());
  CHECK(error->param == "n");
}

TEST_CASE("whole completion has OpenAI's shape", "[gateway]") {
  Gateway gateway;
  const HttpReply reply =
      gateway.Post("/v1/completions", R"({"prompt":"x","model":"m"})", "X-Request-Id: r-1\r\n");
  REQUIRE(reply.status == 200);
  const auto json = Json(reply.body);
  CHECK(At(json, "/id") == "cmpl-r-1");
  CHECK(At(json, "/object") == "text_completion");
  CHECK(At(json, "/choices/0/text") == "Hello world");
  CHECK(At(json, "/choices/0/finish_reason") == "stop");
  CHECK(At(json, "/choices/0/logprobs") == "(null)");
  CHECK(At(json, "/usage/prompt_tokens_details/cached_tokens") == "2");
}

TEST_CASE("several prompts are answered in their order", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = EchoPrompt;
  const auto json =
      Json(gateway
               .Post("/v1/completions",
                     R"({"prompt":[[1],[2],[3]],"return_token_ids":true,"request_id":"q"})")
               .body);
  CHECK(At(json, "/choices/0/text") == "<1>.");
  CHECK(At(json, "/choices/1/text") == "<2>.");
  CHECK(At(json, "/choices/2/text") == "<3>.");
  CHECK(At(json, "/choices/2/index") == "2");
  CHECK(At(json, "/choices/2/token_ids") == "[100,101]");
  CHECK(At(json, "/choices/2/prompt_token_ids") == "[1,2,3,4,5]");
  CHECK(At(json, "/usage/total_tokens") == "21");
  std::set<std::string> ids;
  for (const auto& request : gateway.daemon.requests()) ids.insert(request.request_id());
  CHECK((ids == std::set<std::string>{"q", "q-1", "q-2"}));
}

TEST_CASE("several prompts interleave in a stream, each with its finish", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = EchoPrompt;
  const auto events =
      gateway
          .Post("/v1/completions",
                R"({"prompt":["a","b"],"stream":true,"stream_options":{"include_usage":true}})")
          .events();
  REQUIRE(events.size() == 2 * 3 + 2);
  std::map<std::string, std::string> text, finish;
  for (size_t i = 0; i < 6; ++i) {
    const std::string index = At(Json(events[i]), "/choices/0/index");
    text[index] += At(Json(events[i]), "/choices/0/text");
    finish[index] += At(Json(events[i]), "/choices/0/finish_reason");
  }
  CHECK((text == std::map<std::string, std::string>{{"0", "a."}, {"1", "b."}}));
  CHECK(finish["0"] == "(null)(null)stop");
  CHECK(At(Json(events[6]), "/usage/total_tokens") == "14");
  CHECK(events[7] == "[DONE]");
}

TEST_CASE("choices of n answers are numbered after their prompt", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script;
    script.events = {testing::AcceptedEvent(1), DeltaEvent(request.text() + "1", {}, 1),
                     DeltaEvent(request.text() + "0", {}, 0),
                     testing::FinishedEvent(v1::LENGTH, 1, 1, 0),
                     testing::FinishedEvent(v1::STOP, 1, 1, 1)};
    return script;
  };
  const auto json = Json(gateway.Post("/v1/completions", R"({"prompt":["a","b"],"n":2})").body);
  CHECK(At(json, "/choices/0/text") == "a0");
  CHECK(At(json, "/choices/1/text") == "a1");
  CHECK(At(json, "/choices/2/text") == "b0");
  CHECK(At(json, "/choices/3/text") == "b1");
  CHECK(At(json, "/choices/2/finish_reason") == "length");
  CHECK(At(json, "/usage/prompt_tokens") == "2");
  CHECK(At(json, "/usage/completion_tokens") == "4");
}

TEST_CASE("an answer index that was not asked for is the daemon's mistake", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    GenerateScript script;
    script.events = {DeltaEvent("x", {}, 1)};
    return script;
  };
  CHECK(gateway.Post("/v1/completions", R"({"prompt":"a"})").status == 500);
}

TEST_CASE("echo with logprobs scores the prompt in the legacy shape", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    CHECK(request.output().echo());
    GenerateScript script = testing::AnswerScript({});
    v1::GenerateEvent delta = DeltaEvent("h\xC3\xA9llo");
    v1::TokenLogprob first;
    first.set_bytes("h\xC3\xA9");
    *delta.mutable_delta()->add_prompt_logprobs() = first;
    *delta.mutable_delta()->add_prompt_logprobs() = testing::LogprobOf("llo", -2);
    script.events.insert(script.events.begin() + 1, delta);
    v1::GenerateEvent output = DeltaEvent("!");
    *output.mutable_delta()->add_logprobs() = testing::LogprobOf("!", -4);
    script.events.insert(script.events.begin() + 2, output);
    return script;
  };
  const std::string body = R"({"prompt":"x","echo":true,"logprobs":1,"max_tokens":0)";
  const std::string want_tokens = "[\"h\xC3\xA9\",\"llo\",\"!\"]";
  const auto json = Json(gateway.Post("/v1/completions", body + "}").body);
  CHECK(At(json, "/choices/0/text") == "h\xC3\xA9llo!");
  CHECK(At(json, "/choices/0/logprobs/tokens") == want_tokens);
  CHECK(At(json, "/choices/0/logprobs/token_logprobs") == "[null,-2,-4]");
  CHECK(At(json, "/choices/0/logprobs/text_offset") == "[0,2,5]");
  CHECK(At(json, "/choices/0/logprobs/top_logprobs") ==
        R"([null,{"best":-1,"llo":-2},{"best":-2,"!":-4}])");
  const auto request = gateway.daemon.requests()[0];
  CHECK((request.stopping().has_max_tokens() && request.stopping().max_tokens() == 0));
  CHECK((request.output().logprobs() == 1 && request.output().prompt_logprobs() == 1));

  const auto events = gateway.Post("/v1/completions", body + R"(,"stream":true})").events();
  REQUIRE(events.size() == 4);
  CHECK(At(Json(events[0]), "/choices/0/logprobs/text_offset") == "[0,2]");
  CHECK(At(Json(events[1]), "/choices/0/logprobs/text_offset") == "[5]");
}

TEST_CASE("logprobs 0 is not the same as none", "[gateway]") {
  GenerationRequest request;
  REQUIRE_FALSE(ParseCompletionsRequest(R"({"prompt":"a","logprobs":0})", &request).has_value());
  CHECK(request.calls[0].output().has_logprobs());
  CHECK_FALSE(request.calls[0].output().has_prompt_logprobs());
}

TEST_CASE("what is said about special tokens travels with every prompt", "[gateway]") {
  GenerationRequest request;
  REQUIRE_FALSE(
      ParseCompletionsRequest(
          R"({"prompt":["a","b"],"parse_special":false,"add_special_tokens":false,"x":1})",
          &request)
          .has_value());
  for (const v1::GenerateRequest& call : request.calls) {
    CHECK((call.has_parse_special() && !call.parse_special()));
    CHECK((call.has_add_special_tokens() && !call.add_special_tokens()));
  }
  CHECK((request.ignored == std::vector<std::string>{"x"}));
}

TEST_CASE("max_tokens 0 without echo is refused in OpenAI's names", "[gateway]") {
  Gateway gateway;
  const auto refused =
      Json(gateway.Post("/v1/completions", R"({"prompt":"a","max_tokens":0})").body);
  CHECK(At(refused, "/error/param") == "max_tokens");
  CHECK(At(refused, "/error/message") == "max_tokens 0 asks for no output; it needs echo or prompt_logprobs");
  CHECK(gateway.daemon.requests().empty());
}

TEST_CASE("a delta that shows nothing is not sent, unless its ids were asked for", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest&) {
    return testing::AnswerScript({"", "a", ""});
  };
  CHECK(gateway.Post("/completions", R"({"prompt":"x","stream":true})").events().size() == 3);
  // The prompt's ids come in a chunk of their own.
  CHECK(gateway.Post("/completions", R"({"prompt":"x","stream":true,"return_token_ids":true})")
            .events()
            .size() == 6);
}

TEST_CASE("one failing prompt fails the request and cancels the others", "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    GenerateScript script;
    if (request.text() == "bad") {
      script.status = testing::FieldViolation("text", "bad prompt");
    } else {
      script.events = {testing::AcceptedEvent(1)};
      script.hold_open = true;
    }
    return script;
  };
  const HttpReply reply =
      gateway.Post("/v1/completions", R"({"prompt":["a","bad","b"],"stream":true})");
  CHECK(reply.status == 400);
  CHECK(At(Json(reply.body), "/error/param") == "prompt");
  CHECK(gateway.daemon.WaitForCancelled(2, absl::Seconds(10)));
}

}  // namespace
}  // namespace fastgen::gateway
