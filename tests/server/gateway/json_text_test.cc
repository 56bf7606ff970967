#include "server/gateway/json_text.h"

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <cmath>

#include "server/gateway/sse.h"

namespace fastgen::gateway {
namespace {

std::string Quoted(const std::string& text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

TEST_CASE("strings are escaped and survive a JSON parser", "[gateway]") {
  CHECK(Quoted("") == "\"\"");
  CHECK(Quoted("a\"\\\n\r\t\x01") == "\"a\\\"\\\\\\n\\r\\t\\u0001\"");
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "\xC2\xA0\xE2\x82\xAC\xF0\x9F\x98\x80";
  const auto parsed = boost::json::parse(Quoted(all));
  CHECK(std::string(parsed.get_string().data(), parsed.get_string().size()) == all);
}

TEST_CASE("bytes that are not UTF-8 become U+FFFD, one by one", "[gateway]") {
  const std::string r = "\xEF\xBF\xBD";
  CHECK(ToValidUtf8("a\xffz") == "a" + r + "z");
  CHECK(ToValidUtf8("\xE2\x82") == r + r);
  CHECK(ToValidUtf8("\xC0\x80") == r + r);          // overlong
  CHECK(ToValidUtf8("\xED\xA0\x80") == r + r + r);  // a surrogate
  CHECK(ToValidUtf8("\xF4\x90\x80\x80") == r + r + r + r);
  CHECK(ToValidUtf8("\xF0\x9F\x98\x80") == "\xF0\x9F\x98\x80");
  CHECK(Quoted("\x80") == "\"" + r + "\"");
  CHECK(NumCodePoints(ToValidUtf8("\xE2\x82\xAC\xE2")) == 2);
}

TEST_CASE("numbers are JSON numbers, also when they are not finite", "[gateway]") {
  for (float value : {0.0f, -1.5f, 1e-30f, 3e38f, -INFINITY, NAN}) {
    std::string out;
    AppendJsonFloat(value, &out);
    boost::json::error_code error;
    const auto parsed = boost::json::parse(out, error);
    INFO(out);
    REQUIRE_FALSE(error);
    CHECK(parsed.to_number<double>() == Approx(std::isfinite(value) ? value : -9999));
  }
  std::string out;
  AppendJsonBytes("\xff\x01", &out);
  CHECK(out == "[255,1]");
}

TEST_CASE("events and chunks are framed", "[gateway]") {
  std::string out;
  AppendSseData("{}", &out);
  CHECK(out == "data: {}\n\n");
  out.clear();
  AppendChunkHead(4096, &out);
  CHECK(out == "1000\r\n");
}

}  // namespace
}  // namespace fastgen::gateway
