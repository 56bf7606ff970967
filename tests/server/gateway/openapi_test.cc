#include "server/gateway/openapi.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/gateway/errors.h"
#include "server/gateway/router.h"
#include "tests/server/gateway/gateway_fixture.h"
#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen::gateway {
namespace {

namespace json = boost::json;
using testing::At;
using testing::Gateway;
using testing::HttpReply;
using testing::Json;
using Names = std::set<std::string>;

const json::value& Document() {
  static const json::value document = Json(std::string(OpenApiJson()));
  return document;
}

const json::value& Follow(const json::value& schema) {
  const json::value* reference = schema.as_object().if_contains("$ref");
  return reference == nullptr ? schema : Document().at_pointer(reference->as_string().subview(1));
}

// The members that an object may have, whichever of the alternatives it is.
void AddProperties(const json::value& schema, Names* names) {
  const json::object& object = Follow(schema).as_object();
  for (const char* list : {"allOf", "anyOf"}) {
    const json::value* schemas = object.if_contains(list);
    if (schemas == nullptr) continue;
    for (const json::value& part : schemas->as_array()) AddProperties(part, names);
  }
  const json::value* properties = object.if_contains("properties");
  if (properties == nullptr) return;
  for (const auto& item : properties->as_object()) names->emplace(item.key());
}

struct DescribedRoute {
  std::string path;
  Names fields;
  std::vector<json::object> examples;
};

std::vector<DescribedRoute> RoutesWithBodies() {
  std::vector<DescribedRoute> routes;
  for (const auto& [path, methods] : Document().at("paths").as_object()) {
    const json::value* post = methods.as_object().if_contains("post");
    if (post == nullptr || !post->as_object().contains("requestBody")) continue;
    const json::object& body =
        post->at("requestBody").at("content").at("application/json").as_object();
    DescribedRoute route{std::string(path), {}, {}};
    AddProperties(body.at("schema"), &route.fields);
    if (const json::value* example = body.if_contains("example")) {
      route.examples.push_back(example->as_object());
    } else {
      for (const auto& example : body.at("examples").as_object()) {
        route.examples.push_back(example.value().at("value").as_object());
      }
    }
    routes.push_back(std::move(route));
  }
  return routes;
}

HttpReply Post(Gateway* gateway, const std::string& path, const json::object& body) {
  return gateway->Post("/v1" + path, json::serialize(body));
}

// Those of the names that the route did not ask for when they were null beside its example.
Names Unread(Gateway* gateway, const DescribedRoute& route, const json::object& example,
             const std::vector<std::string>& names) {
  json::object body = example;
  for (const std::string& name : names) body.emplace(name, nullptr);
  const HttpReply reply = Post(gateway, route.path, body);
  INFO(route.path << " " << reply.body);
  CHECK(reply.status == 200);
  const std::string ignored = reply.header("x-fastgen-ignored");
  if (ignored.empty()) return {};
  const std::vector<std::string> list = absl::StrSplit(ignored, ", ");
  return {list.begin(), list.end()};
}

std::vector<std::string> Sources() {
  std::vector<std::string> sources;
  for (const auto& entry :
       std::filesystem::directory_iterator(FASTGEN_SOURCE_DIR "/server/gateway")) {
    if (entry.path().extension() != ".cc") continue;
    std::stringstream source;
    source << std::ifstream(entry.path()).rdbuf();
    sources.push_back(source.str());
  }
  return sources;
}

// Every word in quotes in the gateway's sources: what a parser asks for is among them.
std::vector<std::string> WordsOfSources() {
  Names words;
  for (const std::string& source : Sources()) {
    for (const auto& part : absl::StrSplit(source, '"')) {
      const bool is_name =
          !part.empty() && part.size() <= 64 && std::all_of(part.begin(), part.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
          });
      if (is_name) words.emplace(part);
    }
  }
  return {words.begin(), words.end()};
}

TEST_CASE("the OpenAPI document has the router's routes, and the router the document's",
          "[gateway]") {
  Names described, routed;
  for (const auto& [path, methods] : Document().at("paths").as_object()) {
    const std::string whole(path);
    for (const auto& method : methods.as_object()) {
      if (method.key() == "parameters") continue;
      // "/models/{model}" is "/models/" with a tail.
      described.insert(
          absl::StrCat(std::string(method.key()), " ", whole.substr(0, whole.find('{'))));
    }
  }
  for (const auto& [method, path] : Routes()) {
    routed.insert(absl::StrCat(method == "GET" ? "get" : "post", " ", std::string(path)));
  }
  CHECK(described == routed);
}

TEST_CASE("the OpenAPI document names every code that an error may have", "[gateway]") {
  const auto names_of = [](const char* pointer) {
    Names names;
    for (const json::value& name : Document().at_pointer(pointer).as_array()) {
      names.emplace(name.as_string());
    }
    return names;
  };
  const Names codes = names_of("/components/schemas/Error/properties/error/properties/code/enum");
  const Names types = names_of("/components/schemas/Error/properties/error/properties/type/enum");
  const Names messages_types =
      names_of("/components/schemas/MessagesError/properties/error/properties/type/enum");
  for (int code = 1; code <= 16; ++code) {
    const ApiError error = ErrorFromGrpc(grpc::Status(static_cast<grpc::StatusCode>(code), "m"));
    CHECK(codes.count(error.code) == 1);
    CHECK(types.count(At(Json(ErrorJson(error)), "/error/type")) == 1);
    CHECK(messages_types.count(At(Json(AnthropicErrorJson(error, "")), "/error/type")) == 1);
  }
  int num_found = 0;
  for (const std::string& source : Sources()) {
    const std::vector<std::string> parts = absl::StrSplit(source, "code = \"");
    for (size_t i = 1; i < parts.size(); ++i, ++num_found) {
      INFO(parts[i].substr(0, parts[i].find('"')));
      CHECK(codes.count(parts[i].substr(0, parts[i].find('"'))) == 1);
    }
  }
  CHECK(num_found > 20);
}

TEST_CASE("the OpenAPI document is served with the version, with and without /v1", "[gateway]") {
  Gateway gateway;
  for (const char* path : {"/openapi.json", "/v1/openapi.json"}) {
    const HttpReply reply = gateway.Get(path);
    CHECK(reply.status == 200);
    CHECK(reply.header("content-type") == "application/json");
    const json::value document = Json(reply.body);
    CHECK(At(document, "/openapi") == "3.1.1");
    CHECK(At(document, "/info/version") == At(Json(gateway.Get("/version").body), "/version"));
  }
}

TEST_CASE("every field of the OpenAPI document is read by its route", "[gateway]") {
  Gateway gateway;
  REQUIRE(RoutesWithBodies().size() >= 10);
  for (const DescribedRoute& route : RoutesWithBodies()) {
    const std::vector<std::string> fields(route.fields.begin(), route.fields.end());
    Names unread(route.fields);
    for (const json::object& example : route.examples) {
      const Names now = Unread(&gateway, route, example, fields);
      Names still;
      std::set_intersection(unread.begin(), unread.end(), now.begin(), now.end(),
                            std::inserter(still, still.end()));
      unread = still;
    }
    INFO(route.path);
    CHECK(unread == Names());
  }
}

TEST_CASE("every field that a route reads is in the OpenAPI document, or refused by its name",
          "[gateway]") {
  constexpr size_t kNamesARequest = 30;  // the header names no more than 32
  Gateway gateway;
  const std::vector<std::string> words = WordsOfSources();
  REQUIRE(words.size() > 300);
  for (const DescribedRoute& route : RoutesWithBodies()) {
    const json::object& example = route.examples[0];
    std::vector<std::string> others;
    std::copy_if(words.begin(), words.end(), std::back_inserter(others),
                 [&](const std::string& word) { return route.fields.count(word) == 0; });
    for (size_t i = 0; i < others.size(); i += kNamesARequest) {
      const auto begin = others.begin() + i;
      const std::vector<std::string> asked(begin,
                                           begin + std::min(kNamesARequest, others.size() - i));
      const Names unread = Unread(&gateway, route, example, asked);
      for (const std::string& name : asked) {
        if (unread.count(name) > 0) continue;
        json::object body = example;
        body[name] = json::object{{"some", "thing"}};
        const HttpReply reply = Post(&gateway, route.path, body);
        INFO(route.path << " reads " << name << ": " << reply.body);
        CHECK(reply.status == 400);
        const bool by_name =
            reply.body.find(absl::StrCat(
                R"("param":")", name, R"(","code":"unsupported_parameter")")) != std::string::npos;
        const bool by_message =  // Anthropic's shape has neither
            route.path.find("/messages") == 0 &&
            (reply.body.find(absl::StrCat(name, " is not")) != std::string::npos);
        CHECK((by_name || by_message));
      }
    }
  }
}

}  // namespace
}  // namespace fastgen::gateway
