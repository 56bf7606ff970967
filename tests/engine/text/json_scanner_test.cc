#include "engine/text/json_scanner.h"

#include <string>
#include <string_view>

#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

// How many bytes it takes: all and done, or all and not done, or the place of the bad one.
std::string Scan(std::string_view text) {
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (scanner.Push(text[i])) {
      case JsonScanner::Step::kMore:
        break;
      case JsonScanner::Step::kDone:
        return "done after " + std::to_string(i + 1);
      case JsonScanner::Step::kBad:
        return "bad at " + std::to_string(i);
    }
  }
  return "open";
}

TEST_CASE("objects end at their last byte", "[text]") {
  for (std::string_view text :
       {"{}", "{ \n\t\r}", "{\"\":0}", "{\"a\":[],\"b\":{}}", "{\"a\":[1,-2.5,1e5,0.1E-7,0]}",
        "{\"a\" : [ true , false , null ] }", R"({"a":"\"\\\/\b\f\n\r\tÿ"})",
        "{\"a\":\"\xc3\xa9 \xff\"}", "{\"a\":[[[{\"b\":[{}]}]]]}", "{\"a\":0}", "{\"a\":12}"}) {
    INFO(text);
    CHECK(Scan(text) == "done after " + std::to_string(text.size()));
    CHECK(Scan(std::string(text.substr(0, text.size() - 1))) == "open");
  }
}

TEST_CASE("the first byte that no object has is found", "[text]") {
  const auto [text, place] = GENERATE(table<std::string, int>({
      {"[", 0},          {" {", 0},          {"{a", 1},          {"{,", 1},
      {"{\"a\"}", 4},    {"{\"a\":}", 5},    {"{\"a\":1,}", 7},  {"{\"a\":[1,]}", 8},
      {"{\"a\":[}", 6},  {"{\"a\":{]", 6},   {"{\"a\":01}", 6},  {"{\"a\":-}", 6},
      {"{\"a\":1.}", 7}, {"{\"a\":1e}", 7},  {"{\"a\":1e+}", 8}, {"{\"a\":.5}", 5},
      {"{\"a\":+1}", 5}, {"{\"a\":tru}", 8}, {"{\"a\":True}", 5}, {"{\"a\":'x'}", 5},
      {"{\"a\":\"\n", 6}, {"{\"a\":\"\\x", 7}, {"{\"a\":\"\\u00g", 10}, {"{\"a\":1 2}", 7},
      {"{\"a\":1e5e", 8}, {"{\"a\":1.5.", 8}, {"{\"a\" \"", 5},  {"{\"a\":1]", 6},
  }));
  INFO(text);
  CHECK(Scan(text) == "bad at " + std::to_string(place));
}

TEST_CASE("depth is bounded", "[text]") {
  const std::string open = "{\"a\":" + std::string(JsonScanner::kMaxDepth - 1, '[');
  CHECK(Scan(open) == "open");
  CHECK(Scan(open + "[") == "bad at " + std::to_string(open.size()));
  CHECK(Scan(open + std::string(JsonScanner::kMaxDepth - 1, ']') + "}") ==
        "done after " + std::to_string(open.size() + JsonScanner::kMaxDepth));
}

TEST_CASE("a scanner knows names from texts and how deep it is", "[text]") {
  JsonScanner scanner;
  std::string marks;
  for (char c : std::string_view("{\"n\":\"t\",\"o\":{\"p\":1}}")) {
    scanner.Push(c);
    marks += scanner.in_name() ? 'n' : scanner.in_text() ? 't' : scanner.expects_value() ? 'v'
             : static_cast<char>('0' + scanner.depth());
  }
  CHECK(marks == "1nn1vtt11nn1v2nn2v210");
}

}  // namespace
}  // namespace fastgen
