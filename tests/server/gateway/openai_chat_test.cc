#include "server/gateway/openai_chat.h"

#include <catch2/catch.hpp>

#include "absl/strings/str_cat.h"
#include "tests/server/gateway/gateway_fixture.h"
#include "tests/server/gateway/parsed_request.h"

namespace fastgen::gateway {
namespace {

using testing::At;
using testing::Gateway;
using testing::GenerateScript;
using testing::HttpReply;
using testing::Json;

constexpr char kHello[] = R"("messages":[{"role":"user","content":"hi"}])";

std::string Body(const std::string& more) { return std::string("{") + kHello + more + "}"; }

// What a refused body answers: "status param".
std::string Refusal(Gateway& gateway, const std::string& body) {
  const HttpReply reply = gateway.Post("/v1/chat/completions", body);
  return std::to_string(reply.status) + " " + At(Json(reply.body), "/error/param");
}

v1::GenerateRequest Parsed(const std::string& body, GenerationRequest* request) {
  return testing::ParseOne(ParseChatRequest, body, request);
}

TEST_CASE("every chunk and answer names build and weights", "[gateway]") {
  Gateway gateway;
  const std::string expected = "build-fastgen-1.2-ab-0123456789abcdef";
  CHECK(At(Json(gateway.Post("/chat/completions", Body("")).body), "/system_fingerprint") ==
        expected);
  const auto events =
      gateway.Post("/chat/completions", Body(R"(,"model":"m","stream":true)")).events();
  REQUIRE(events.size() > 2);
  CHECK(events.back() == "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    CHECK(At(Json(events[i]), "/system_fingerprint") == expected);
  }
}

TEST_CASE("chat request travels as fastgen.v1", "[gateway]") {
  GenerationRequest request;
  const v1::GenerateRequest call = Parsed(R"({"model":"m","messages":[
      {"role":"developer","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"ann"},
      {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
          {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"42"}],
      "temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.25,"seed":18446744073709551615,"max_completion_tokens":7,
      "min_tokens":2,"stop":["x","y"],"stop_token_ids":[3],"include_stop_str_in_output":true,"ignore_eos":true,
      "skip_special_tokens":false,"logprobs":true,"top_logprobs":3,"stream":true,
      "stream_options":{"include_usage":true,"continuous_usage_stats":true},"return_token_ids":true,
      "add_generation_prompt":false,"continue_final_message":true,"chat_template_kwargs":{"k":[1]},
      "frequency_penalty":0,"presence_penalty":0.5,"n":1,"logit_bias":{"5":-100},"priority":4,"cache_salt":"s",
      "repetition_penalty":1.25,"allowed_token_ids":[4,5],"bad_words":["no"],
      "user":"u","metadata":{"a":"b"}})",
                                          &request);
  REQUIRE(call.model() == "m");
  REQUIRE(call.chat().messages_size() == 4);
  CHECK(call.chat().messages(0).role() == "system");
  CHECK(call.chat().messages(1).content() == "a\nb");
  CHECK(call.chat().messages(1).name() == "ann");
  CHECK_FALSE(call.chat().messages(2).has_content());
  CHECK(call.chat().messages(2).reasoning_content() == "hm");
  CHECK(call.chat().messages(2).tool_calls(0).arguments_json() == "{\"x\":1}");
  CHECK(call.chat().messages(3).tool_call_id() == "c1");
  CHECK((call.sampling().has_temperature() && call.sampling().temperature() == 0));
  CHECK((call.sampling().has_top_k() && call.sampling().top_k() == 0));
  CHECK(call.sampling().min_p() == 0.25f);
  CHECK(call.sampling().seed() == 18446744073709551615ull);
  CHECK(call.stopping().max_tokens() == 7);
  CHECK(call.stopping().min_tokens() == 2);
  CHECK(call.stopping().stop_size() == 2);
  CHECK(call.stopping().stop_token_ids(0) == 3);
  CHECK((call.stopping().include_stop() && call.stopping().ignore_eos()));
  CHECK((call.stopping().has_skip_special_tokens() && !call.stopping().skip_special_tokens()));
  CHECK(call.output().logprobs() == 3);
  CHECK(call.output().token_ids());
  CHECK_FALSE(call.chat().add_generation_prompt());
  CHECK(call.chat().continue_final_message());
  CHECK(call.chat().chat_template_kwargs_json() == R"({"k":[1]})");
  CHECK((call.sampling().has_frequency_penalty() && call.sampling().frequency_penalty() == 0));
  CHECK(call.sampling().repetition_penalty() == 1.25f);
  CHECK(call.sampling().allowed_token_ids_size() == 2);
  CHECK(call.sampling().bad_words(0) == "no");
  CHECK(call.sampling().presence_penalty() == 0.5f);
  CHECK_FALSE(call.has_n());
  CHECK(call.sampling().logit_bias().at(5) == -100);
  CHECK(call.priority() == 4);
  CHECK(call.cache_salt() == "s");
  CHECK(request.ignored.empty());
  CHECK((request.options.stream && request.options.include_usage &&
         request.options.continuous_usage));
}

TEST_CASE("n and best_of travel, and best_of needs a whole answer", "[gateway]") {
  GenerationRequest request;
  v1::GenerateRequest call = Parsed(Body(R"(,"n":3,"best_of":5,"stream":false)"), &request);
  CHECK(call.n() == 3);
  CHECK(call.best_of() == 5);
  CHECK(request.num_answers == 3);
  request = {};
  // As many as are delivered: there is nothing to choose, so a stream may begin at once.
  call = Parsed(Body(R"(,"n":3,"best_of":3,"stream":true)"), &request);
  CHECK_FALSE(call.has_best_of());
  for (const char* fields : {R"(,"n":2,"best_of":3,"stream":true)", R"(,"best_of":2,"stream":true)",
                             R"(,"n":3,"best_of":2)"}) {
    INFO(fields);
    request = {};
    const auto error = ParseChatRequest(Body(fields), &request);
    REQUIRE(error.has_value());
    CHECK(error->status == 400);
    CHECK(error->param == "best_of");
  }
}

TEST_CASE("lists of sampling fields are bounded before they cost anything", "[gateway]") {
  std::string bias, words, ids;
  for (int i = 0; i < 1025; ++i) absl::StrAppend(&bias, i ? "," : "", "\"", i, "\":1");
  for (int i = 0; i < 257; ++i) words += i ? ",\"w\"" : "\"w\"";
  for (int i = 0; i <= (256 << 10); ++i) ids += i ? ",1" : "1";
  struct Row {
    std::string fields;
    std::string param;
  };
  for (const Row& row : {Row{",\"logit_bias\":{" + bias + "}", "logit_bias"},
                         Row{",\"bad_words\":[" + words + "]", "bad_words"},
                         Row{",\"allowed_token_ids\":[" + ids + "]", "allowed_token_ids"},
                         Row{",\"logit_bias\":{\"5\":101}", "logit_bias"},
                         Row{",\"logit_bias\":{\"5\":1e999}", "logit_bias"},
                         Row{",\"logit_bias\":{\"-5\":1}", "logit_bias"},
                         Row{",\"cache_salt\":\"" + std::string(257, 's') + "\"", "cache_salt"}}) {
    INFO(row.param);
    GenerationRequest request;
    const auto error = ParseChatRequest(Body(row.fields), &request);
    REQUIRE(error.has_value());
    CHECK((error->param == row.param || error->code == "invalid_json"));
  }
}

TEST_CASE("absent and null fields stay unset", "[gateway]") {
  GenerationRequest request;
  const v1::GenerateRequest call = Parsed(
      Body(
          R"(,"temperature":null,"max_tokens":null,"stop":null,"seed":null,"tools":null,"logprobs":null)"),
      &request);
  CHECK_FALSE(call.sampling().has_temperature());
  CHECK_FALSE(call.stopping().has_max_tokens());
  CHECK_FALSE(call.sampling().has_seed());
  CHECK_FALSE(call.output().has_logprobs());
  CHECK_FALSE(call.output().token_ids());
}

TEST_CASE("the last of two equal keys wins", "[gateway]") {
  GenerationRequest request;
  CHECK(Parsed(Body(R"(,"max_tokens":1,"max_tokens":2)"), &request).stopping().max_tokens() == 2);
}

TEST_CASE("escapes in JSON text reach the daemon as characters", "[gateway]") {
  GenerationRequest request;
  const auto call = Parsed(
      R"({"messages":[{"role":"user","content":"\u0041\n\u0000\ud83d\ude00\u001f"}]})", &request);
  CHECK(call.chat().messages(0).content() == std::string("A\n\0\xF0\x9F\x98\x80\x1f", 8));
}

TEST_CASE("wrong chat fields are refused by name", "[gateway]") {
  Gateway gateway;
  struct Row {
    std::string more;
    std::string want;
  };
  const Row row = GENERATE(values<Row>({
      {R"(,"temperature":"hot")", "400 temperature"},
      {R"(,"temperature":1e999)", "400 temperature"},
      {R"(,"top_p":[1])", "400 top_p"},
      {R"(,"top_k":1.5)", "400 top_k"},
      {R"(,"top_k":-2)", "400 top_k"},
      {R"(,"max_tokens":2147483648)", "400 max_tokens"},
      {R"(,"max_tokens":18446744073709551615)", "400 max_tokens"},
      {R"(,"max_tokens":-1)", "400 max_tokens"},
      {R"(,"max_tokens":true)", "400 max_tokens"},
      {R"(,"max_tokens":1,"max_completion_tokens":2)", "400 max_tokens"},
      {R"(,"seed":"x")", "400 seed"},
      {R"(,"stop":5)", "400 stop"},
      {R"(,"stop":["a",5])", "400 stop"},
      {R"(,"stop_token_ids":[-1])", "400 stop_token_ids"},
      {R"(,"stop_token_ids":["1"])", "400 stop_token_ids"},
      {R"(,"logprobs":1)", "400 logprobs"},
      {R"(,"top_logprobs":2)", "400 top_logprobs"},
      {R"(,"logprobs":true,"top_logprobs":-1)", "400 top_logprobs"},
      {R"(,"stream":"yes")", "400 stream"},
      {R"(,"stream_options":{"include_usage":true})", "400 stream_options"},
      {R"(,"stream":true,"stream_options":{"include_usage":1})",
       "400 stream_options.include_usage"},
      {R"(,"n":0)", "400 n"},
      {R"(,"n":129)", "400 n"},
      {R"(,"response_format":{})", "400 response_format.type"},
      {R"(,"response_format":{"type":"yaml"})", "400 response_format.type"},
      {R"(,"response_format":{"type":"json_schema","json_schema":{}})",
       "400 response_format.json_schema.schema"},
      {R"(,"response_format":"text")", "400 response_format"},
      {R"(,"tools":[])", "400 tools"},
      {R"(,"tools":["f"])", "400 tools"},
      {R"(,"tools":[{"type":"function"}])", "400 tools[0].function"},
      {R"(,"tools":[{"type":"custom","custom":{"name":"f"}}])", "400 tools[0].type"},
      {R"(,"tools":[{"type":"function","function":{}}])", "400 tools[0].function.name"},
      {R"(,"tools":[{"type":"function","function":{"name":"f","parameters":5}}])",
       "400 tools[0].function.parameters"},
      {R"(,"tools":[{"type":"function","function":{"name":"f","strict":1}}])",
       "400 tools[0].function.strict"},
      {R"(,"tools":[{"type":"function"}],"tool_choice":"any")", "400 tool_choice"},
      {R"(,"tools":[{"type":"function"}],"tool_choice":7)", "400 tool_choice"},
      {R"(,"tools":[{}],"tool_choice":{"type":"function","function":{}})",
       "400 tool_choice.function.name"},
      {R"(,"tools":[{}],"tool_choice":{"type":"function"})", "400 tool_choice.function"},
      {R"(,"tools":[{}],"tool_choice":{"type":"allowed_tools"})", "400 tool_choice.type"},
      {R"(,"tools":[{"type":"function","function":{"name":"g"}}],)"
       R"("tool_choice":{"type":"function","function":{"name":"f"}})",
       "400 tool_choice"},
      {R"(,"tools":[{"type":"function"}],"parallel_tool_calls":1)", "400 parallel_tool_calls"},
      {R"(,"include_reasoning":"no")", "400 include_reasoning"},
      {R"(,"separate_reasoning":0)", "400 separate_reasoning"},
      {R"(,"tool_choice":"auto")", "400 tool_choice"},
      {R"(,"functions":[{}])", "400 functions"},
      {R"(,"function_call":"auto")", "400 function_call"},
      {R"(,"chat_template":"x")", "400 chat_template"},
      {R"(,"documents":[{}])", "400 documents"},
      {R"(,"n_predict":5)", "400 n_predict"},
      {R"(,"xtc_probability":0.5)", "400 xtc_probability"},
      {R"(,"reasoning_format":"none")", "400 reasoning_format"},
      {R"(,"prompt_logprobs":21)", "400 prompt_logprobs"},
      {R"(,"prompt_logprobs":-1)", "400 prompt_logprobs"},
      {R"(,"prompt_logprobs":1,"stream":true)", "400 prompt_logprobs"},
      {R"(,"return_tokens_as_token_ids":1)", "400 return_tokens_as_token_ids"},
      {R"(,"echo":true)", "400 echo"},
      {R"(,"add_special_tokens":true)", "400 add_special_tokens"},
      {R"(,"parse_special":false)", "400 parse_special"},
      {R"(,"truncate_prompt_tokens":5)", "400 truncate_prompt_tokens"},
      {R"(,"guided_new":false)", "400 guided_new"},
      {R"(,"logprobs":true,"top_logprobs":21)", "400 top_logprobs"},
      {R"(,"max_tokens":0)", "400 max_tokens"},
      {R"(,"use_beam_search":true)", "400 use_beam_search"},
      {R"(,"reasoning_effort":"low")", "400 reasoning_effort"},
      {R"(,"modalities":["audio"])", "400 modalities"},
      {R"(,"logit_bias":{"x":1})", "400 logit_bias"},
      {R"(,"logit_bias":{"1":"x"})", "400 logit_bias"},
      {R"(,"request_id":"a b")", "400 request_id"},
      {R"(,"model":5)", "400 model"},
      {R"(,"chat_template_kwargs":[])", "400 chat_template_kwargs"},
  }));
  INFO(row.more);
  CHECK(Refusal(gateway, Body(row.more)) == row.want);
  CHECK(gateway.daemon.requests().empty());
}

TEST_CASE("wrong messages are refused with their index", "[gateway]") {
  Gateway gateway;
  struct Row {
    std::string messages;
    std::string want;
  };
  const Row row = GENERATE(values<Row>({
      {"null", "400 messages"},
      {"[]", "400 messages"},
      {"{}", "400 messages"},
      {"[5]", "400 messages[0]"},
      {R"([{"content":"x"}])", "400 messages[0].role"},
      {R"([{"role":"robot","content":"x"}])", "400 messages[0].role"},
      {R"([{"role":5,"content":"x"}])", "400 messages[0].role"},
      {R"([{"role":"user"}])", "400 messages[0].content"},
      {R"([{"role":"user","content":5}])", "400 messages[0].content"},
      {R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"image_url"}]}])",
       "400 messages[1].content"},
      {R"([{"role":"user","content":[{"type":"text","text":5}]}])", "400 messages[0].content"},
      {R"([{"role":"user","content":["x"]}])", "400 messages[0].content"},
      {R"([{"role":"assistant","tool_calls":[5]}])", "400 messages[0].tool_calls[0]"},
      {R"([{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}])",
       "400 messages[0].tool_calls[0].type"},
      {R"([{"role":"assistant","tool_calls":[{"type":"custom","function":{"name":"f"}}]}])",
       "400 messages[0].tool_calls[0].type"},
      {R"([{"role":"assistant","function_call":{"name":"f"}}])", "400 messages[0].function_call"},
      {R"([{"role":"assistant","content":"x","audio":{"id":"a"}}])", "400 messages[0].audio"},
      {R"([{"role":"assistant","tool_calls":[{"type":"function","function":{}}]}])",
       "400 messages[0].tool_calls[0].function.name"},
      {R"([{"role":"user","content":"x","name":5}])", "400 messages[0].name"},
  }));
  INFO(row.messages);
  CHECK(Refusal(gateway, "{\"messages\":" + row.messages + "}") == row.want);
}

TEST_CASE("what nothing reads inside a chat request is named with its path", "[gateway]") {
  GenerationRequest request;
  Parsed(R"({"messages":[
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b","cache":1}]},
      {"role":"assistant","content":null,"function_call":null,"audio":null,"refusal":null,
       "tool_calls":[{"type":"function","index":0,"function":{"name":"f","strict":true}}]}],
      "response_format":{"type":"text","schema":{}},"guided_json":null,"guided_json_object":false})",
         &request);
  CHECK((request.ignored == std::vector<std::string>{"messages[0].content[1].cache",
                                                     "messages[1].tool_calls[0].function.strict",
                                                     "messages[1].tool_calls[0].index",
                                                     "response_format.schema"}));
}

TEST_CASE("strict fields refuse what would be ignored", "[gateway]") {
  GatewayOptions options;
  options.strict_fields = true;
  Gateway gateway(options);
  CHECK(Refusal(gateway, Body(R"(,"vim":1,"emacs":2)")) == "400 vim");
  CHECK(gateway.daemon.requests().empty());
  CHECK(gateway.Post("/v1/chat/completions", Body(R"(,"user":"u")")).status == 200);
  CHECK(gateway.Post("/v1/completions", R"({"prompt":"a","vim":1})").status == 400);
  CHECK(gateway.Post("/tokenize", R"({"prompt":"a","vim":1})").status == 400);
}

TEST_CASE("bodies that are not a JSON object are refused", "[gateway]") {
  Gateway gateway;
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "[";
  const std::string body = GENERATE_COPY(
      values<std::string>({"", "{", "[]", "5", "null", "{\"messages\":NaN}", "{\"a\":Infinity}",
                           "{\"a\":\"\\ud800\"}", "{'a':1}", "{\"a\":\"\xff\"}", "{\"a\":1} x",
                           "{\"a\":\"\n\"}", "{\"x\":" + deep, "{\"messages\":" + deep}));
  INFO(body);
  CHECK(Refusal(gateway, body) == "400 (null)");
}

TEST_CASE("whole chat answer has OpenAI's shape", "[gateway]") {
  Gateway gateway;
  const HttpReply reply =
      gateway.Post("/v1/chat/completions",
                   Body(R"(,"model":"gpt-4o-mini","request_id":"abc","vim":1,"b\r\nc":2)"));
  REQUIRE(reply.status == 200);
  const auto json = Json(reply.body);
  CHECK(At(json, "/id") == "chatcmpl-abc");
  CHECK(At(json, "/object") == "chat.completion");
  CHECK(At(json, "/model") == "gpt-4o-mini");
  CHECK(std::stoll(At(json, "/created")) > 1'700'000'000);
  CHECK(At(json, "/choices/0/index") == "0");
  CHECK(At(json, "/choices/0/message/role") == "assistant");
  CHECK(At(json, "/choices/0/message/content") == "Hello world");
  CHECK(At(json, "/choices/0/finish_reason") == "stop");
  CHECK(At(json, "/choices/0/stop_reason") == "(null)");
  CHECK(At(json, "/choices/0/logprobs") == "(null)");
  CHECK(At(json, "/choices/0/token_ids") == "(none)");
  CHECK(
      At(json, "/usage") ==
      R"({"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}})");
  CHECK(reply.header("x-request-id") == "abc");
  CHECK(reply.header("x-fastgen-ignored") == "vim, b??c");
  CHECK(reply.header("content-type") == "application/json");
  CHECK(gateway.daemon.requests()[0].request_id() == "abc");
}

TEST_CASE("an answer without a model name names the served one", "[gateway]") {
  Gateway gateway;
  CHECK(At(Json(gateway.Post("/v1/chat/completions", Body("")).body), "/model") == "tiny/model");
}

TEST_CASE("chat stream has role, deltas, finish, usage and the end", "[gateway]") {
  Gateway gateway;
  const HttpReply reply =
      gateway.Post("/v1/chat/completions",
                   Body(R"(,"model":"m","stream":true,"stream_options":{"include_usage":true})"));
  REQUIRE(reply.status == 200);
  CHECK(reply.header("content-type").rfind("text/event-stream", 0) == 0);
  CHECK(reply.header("transfer-encoding") == "chunked");
  const auto events = reply.events();
  REQUIRE(events.size() == 6);
  const std::string id = At(Json(events[0]), "/id");
  CHECK(id == "chatcmpl-" + reply.header("x-request-id"));
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    CHECK(At(Json(events[i]), "/id") == id);
    CHECK(At(Json(events[i]), "/object") == "chat.completion.chunk");
    CHECK(At(Json(events[i]), "/model") == "m");
  }
  CHECK(At(Json(events[0]), "/choices/0/delta") == R"({"role":"assistant","content":null})");
  CHECK(At(Json(events[0]), "/usage") == "(null)");
  CHECK(At(Json(events[1]), "/choices/0/delta") == R"({"content":"Hello"})");
  CHECK(At(Json(events[1]), "/choices/0/finish_reason") == "(null)");
  CHECK(At(Json(events[1]), "/choices/0/token_ids") == "(none)");
  CHECK(At(Json(events[2]), "/choices/0/delta") == R"({"content":" world"})");
  CHECK(At(Json(events[3]), "/choices/0/delta") == "{}");
  CHECK(At(Json(events[3]), "/choices/0/finish_reason") == "stop");
  CHECK(At(Json(events[4]), "/choices") == "[]");
  CHECK(At(Json(events[4]), "/usage/total_tokens") == "7");
  CHECK(events[5] == "[DONE]");
}

TEST_CASE("a stream shows no usage unless asked, and a running one when asked", "[gateway]") {
  Gateway gateway;
  auto events = gateway.Post("/v1/chat/completions", Body(R"(,"stream":true)")).events();
  REQUIRE(events.size() == 5);
  CHECK(At(Json(events[1]), "/usage") == "(none)");
  events = gateway
               .Post("/v1/chat/completions",
                     Body(R"(,"stream":true,"stream_options":{"continuous_usage_stats":true})"))
               .events();
  REQUIRE(events.size() == 5);
  CHECK(At(Json(events[1]), "/usage/completion_tokens") == "1");
  CHECK(At(Json(events[2]), "/usage/total_tokens") == "7");
}

TEST_CASE("n chat answers stream under their index, each with one role and one finish",
          "[gateway]") {
  Gateway gateway;
  gateway.daemon.on_generate = [](const v1::GenerateRequest& request) {
    CHECK(request.n() == 2);
    GenerateScript script;
    script.events = {testing::AcceptedEvent(4, 3),
                     testing::DeltaEvent("b1", {}, 1),
                     testing::DeltaEvent("a1", {}, 0),
                     testing::DeltaEvent("b2", {}, 1),
                     testing::FinishedEvent(v1::STOP, 4, 2, 1),
                     testing::DeltaEvent("a2", {}, 0),
                     testing::FinishedEvent(v1::LENGTH, 4, 3, 0)};
    for (auto& event : script.events) {
      if (event.has_finished()) event.mutable_finished()->mutable_usage()->set_cached_tokens(3);
    }
    return script;
  };
  const auto events =
      gateway
          .Post("/v1/chat/completions",
                Body(R"(,"n":2,"stream":true,"stream_options":{"include_usage":true})"))
          .events();
  std::string texts[2], reasons[2];
  int roles[2] = {};
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const auto json = Json(events[i]);
    const size_t index = At(json, "/choices/0/index") == "1" ? 1 : 0;
    if (At(json, "/choices/0/delta/role") == "assistant") ++roles[index];
    const std::string text = At(json, "/choices/0/delta/content");
    if (text != "(none)" && text != "(null)") texts[index] += text;
    const std::string reason = At(json, "/choices/0/finish_reason");
    if (reason != "(null)") reasons[index] += reason;
  }
  CHECK(texts[0] == "a1a2");
  CHECK(texts[1] == "b1b2");
  CHECK((roles[0] == 1 && roles[1] == 1));
  CHECK(reasons[0] == "length");
  CHECK(reasons[1] == "stop");
  const auto usage = Json(events[events.size() - 2]);
  CHECK(At(usage, "/usage/prompt_tokens") == "4");
  CHECK(At(usage, "/usage/completion_tokens") == "5");
  CHECK(At(usage, "/usage/prompt_tokens_details/cached_tokens") == "3");
  CHECK(events.back() == "[DONE]");
  const auto whole = Json(gateway.Post("/v1/chat/completions", Body(R"(,"n":2)")).body);
  CHECK(At(whole, "/choices/0/message/content") == "a1a2");
  CHECK(At(whole, "/choices/1/message/content") == "b1b2");
  CHECK(At(whole, "/choices/1/finish_reason") == "stop");
  CHECK(At(whole, "/usage/completion_tokens") == "5");
  CHECK(At(whole, "/usage/prompt_tokens_details/cached_tokens") == "3");
}

TEST_CASE("values that ask for nothing are accepted, whoever's field it is", "[gateway]") {
  GenerationRequest request;
  Parsed(Body(R"(,"use_beam_search":false,"length_penalty":1.0,"typical_p":1,"mirostat":0,)"
              R"("dry_multiplier":0.0,"top_n_sigma":-1,"functions":[],"documents":[],"grammar":"",)"
              R"("chat_template":"","reasoning_format":"auto","add_special_tokens":false,)"
              R"("echo":false,"stop_regex":[],"lora":[],"cache_prompt":true,"store":false,)"
              R"("guided_json_object":false,"structured_outputs":{},"prediction":null)"),
         &request);
  CHECK(request.ignored.empty());
  CHECK_FALSE(request.calls[0].has_constraint());
}

TEST_CASE("tools with tool_choice none reach the template", "[gateway]") {
  GenerationRequest request;
  const auto call = Parsed(
      Body(R"(,"tools":[{"type":"function","function":{"name":"z","a":1}}],"tool_choice":"none")"),
      &request);
  REQUIRE(call.chat().tools_json_size() == 1);
  CHECK(call.chat().tools_json(0) == R"({"type":"function","function":{"name":"z","a":1}})");
  CHECK_FALSE(call.output().tool_calls());
}

TEST_CASE("too many messages are refused before they cost anything", "[gateway]") {
  std::string body = "{\"messages\":[";
  for (int i = 0; i < 5000; ++i) body += R"({"role":"user","content":"x"},)";
  body.back() = ']';
  body += '}';
  GenerationRequest request;
  const auto error = ParseChatRequest(body, &request);
  REQUIRE(error.has_value());
  CHECK(error->param == "messages");
  CHECK(error->message == "messages has 5000 items; the limit is 4096");
}

}  // namespace
}  // namespace fastgen::gateway
