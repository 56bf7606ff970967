#include "server/gateway/json_fields.h"

#include <catch2/catch.hpp>

namespace fastgen::gateway {
namespace {

struct Fields {
  explicit Fields(const std::string& body)
      : object(ParseJsonObject(body, &error).value_or(boost::json::object())),
        fields(object, "", &error) {}
  std::optional<ApiError> error;
  boost::json::object object;
  JsonFields fields;
};

TEST_CASE("integers written as 16.0 are integers, fractions are not", "[gateway]") {
  CHECK(Fields(R"({"x":16.0})").fields.Int32("x") == 16);
  CHECK(Fields(R"({"x":1e3})").fields.Int32("x") == 1000);
  Fields fraction(R"({"x":16.5})");
  CHECK_FALSE(fraction.fields.Int32("x").has_value());
  CHECK(fraction.error->message == "x must be an integer, not a fraction or a number too large");
}

TEST_CASE("the first failure is the one reported", "[gateway]") {
  Fields f(R"({"a":"x","b":"y"})");
  f.fields.Int32("a");
  f.fields.Bool("b");
  CHECK(f.error->param == "a");
}

TEST_CASE("unknown fields are bounded and safe for a header", "[gateway]") {
  std::string body = "{\"known\":1";
  for (int i = 0; i < 100; ++i)
    body += ",\"\\r\\nSet-Cookie: x\\u0000" + std::to_string(i) + "\":1";
  Fields f(body + ",\"" + std::string(1000, 'a') + "\":1}");
  REQUIRE(f.fields.ok());
  f.fields.Accept({"known"});
  std::vector<std::string> unknown;
  f.fields.AppendUnknown(&unknown);
  CHECK(unknown.size() == 32);
  CHECK(unknown[0] == "??Set-Cookie??x?0");
  for (const std::string& name : unknown) CHECK(name.size() <= 64);
}

TEST_CASE("too many and too deep fields are refused", "[gateway]") {
  std::string wide = "{\"a0\":1";
  for (int i = 1; i < 600; ++i) wide += ",\"a" + std::to_string(i) + "\":1";
  CHECK(Fields(wide + "}").error.has_value());
  std::string deep = "{\"a\":";
  for (int i = 0; i < 62; ++i) deep += "[";
  std::string close(62, ']');
  CHECK_FALSE(Fields(deep + close + "}").error.has_value());
  CHECK(Fields(deep + "[[" + close + "]]}").error.has_value());
}

}  // namespace
}  // namespace fastgen::gateway
