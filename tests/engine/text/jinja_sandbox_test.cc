// Hostile templates and hostile messages: every one ends soon, with a text or with an error that
// says where.
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>

#include "engine/text/jinja_text.h"
#include "tests/engine/text/jinja_testing.h"

namespace fastgen::testing {
namespace {

std::string Times(int count, std::string_view text) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// Fails unless rendering ends in error, with a position and these words.
void CheckFails(const std::string& source, std::string_view words,
                std::string_view context = "{}") {
  INFO(source.substr(0, 120));
  absl::StatusOr<RenderedChat> rendered = RenderJinja(source, context);
  REQUIRE(!rendered.ok());
  std::string message(rendered.status().message());
  INFO(message);
  int line = 0, column = 0, end = 0;
  CHECK(std::sscanf(message.c_str(), "chat template %d:%d: %n", &line, &column, &end) == 2);
  CHECK(end > 0);
  CHECK(message.find(words) != std::string::npos);
}

TEST_CASE("what is never closed is refused where it opens", "[text]") {
  CheckFails("a\n {% if x %}", "'if' block is never closed");
  CheckFails("{% for x in y %}{% if x %}{% endfor %}",
             "expected a known block tag, found 'endfor'");
  CheckFails("{% macro m() %}", "'macro' block is never closed");
  CheckFails("{{ 'abc }}", "this string is never closed");
  CheckFails("{{ 'a\\", "this string is never closed");
  CheckFails("{{ x", "never closed with }}");
  CheckFails("{% if x", "never closed with %}");
  CheckFails("{# x", "comment is never closed");
  CheckFails("{% raw %} {% endra %}", "raw block is never closed");
  CheckFails("{{ (1 }}", "unexpected '}', expected ')'");
  CheckFails("{{ 1) }}", "unexpected ')'");
  CheckFails("{% else %}", "expected a known block tag");
  CheckFails("{% set x = %}", "expected an expression");
  CheckFails("x\ny {{ a b }}", "expected '}}', found 'b'");
}

TEST_CASE("what the language does not have is refused by name", "[text]") {
  CheckFails("{{ x | nope }}", "there is no filter 'nope'");
  CheckFails("{{ x is nope }}", "there is no test 'nope'");
  CheckFails("{% include 'x' %}", "expected a known block tag, found 'include'");
  CheckFails("{{ a $ b }}", "unexpected character '$'");
  CheckFails("{{ 99999999999999999999 }}", "is not a 64-bit integer");
  CheckFails("{{ '\\ud800' }}", "no Unicode character");
  CheckFails("{% break %}", "'break' outside of a loop");
  CheckFails("{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
             "'continue' outside of a loop");
  CheckFails("{% set true = 1 %}", "cannot assign to 'true'");
  CheckFails("{{ f(a=1, 2) }}", "this argument cannot stand here");
  CheckFails("{% macro m(a=1, b) %}{% endmacro %}", "without default follows");
}

TEST_CASE("nesting is bounded in the syntax", "[text]") {
  CheckFails(Times(100000, "{% if x %}").substr(0, 200000), "nested deeper than");
  CheckFails("{{ " + Times(50000, "(") + Times(50000, ")") + "}}", "nested deeper than");
  CheckFails("{{ " + Times(50000, "[") + Times(50000, "]") + "}}", "nested deeper than");
  CheckFails("{{ " + Times(20000, "{1:") + Times(20000, "}") + "}}", "nested deeper than");
  CheckFails("{{ " + Times(50000, "-") + "1 }}", "nested deeper than");
  CheckFails("{{ " + Times(50000, "not ") + "1 }}", "nested deeper than");
  CheckFails("{% set " + Times(50000, "(") + Times(50000, ")") + "%}", "nested deeper than");
  CheckFails("{{ 1" + Times(50000, "+1") + " }}", "deeper than");
  CheckFails("{{ x" + Times(50000, ".a") + " }}", "deeper than");
  CheckFails("{{ x" + Times(50000, "|e") + " }}", "deeper than");
  CheckFails("{{ x" + Times(5000, " if 1 else 2") + " }}", "deeper than");
  CheckFails("{{ x" + Times(5000, " is string") + " }}", "chat template");
  CHECK(!RenderJinja(std::string(300000, 'x'), "{}").ok());
}

TEST_CASE("a part is found wherever it stands in a long text", "[text]") {
  for (const size_t part_bytes : {1u, 2u, 63u, 64u, 200u}) {
    const std::string part = std::string(part_bytes - 1, 'a') + "b";
    for (size_t at = 0; at < 700; ++at) {
      const std::string text = std::string(at, 'a') + part + std::string(at % 3, 'c');
      CAPTURE(part_bytes, at);
      REQUIRE(jinja::FindPart(text, part, at / 2) == text.find(part, at / 2));
      REQUIRE(jinja::FindPart(text, part + "d") == std::string::npos);
    }
  }
  CHECK(jinja::FindPart("ab", "b", 2) == std::string::npos);
  CHECK(jinja::FindPart("ab", "", 2) == 2);
  CHECK(jinja::FindPart("ab", "", 3) == std::string::npos);
}

TEST_CASE("running is bounded in steps, bytes, depth and length", "[text]") {
  const std::string loops = Times(8, "{% for i in range(1000) %}");
  CheckFails(loops + "x" + Times(8, "{% endfor %}"), "");
  CheckFails(loops + Times(8, "{% endfor %}"), "steps");
  CheckFails("{% for i in range(100000) %}" + std::string(1000, 'x') + "{% endfor %}",
             "the output is longer than");
  CheckFails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion deeper than");
  CheckFails(
      "{% macro m() %}{{ caller() }}{% endmacro %}"
      "{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}",
      "recursion deeper than");
  CheckFails("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion deeper than");
  CheckFails(
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "grew beyond");
  CheckFails(
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
      "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "more than");
  CheckFails(
      "{% set ns = namespace(l=[1]) %}{% for i in range(1000) %}"
      "{% set ns.l = [ns.l] %}{% endfor %}",
      "nest deeper than");
  CheckFails(
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "");
  CheckFails(
      "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(100) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}"
      "{{ ns.l == ns.m }}",
      "steps");
  CheckFails(
      "{% set s = 'x' * 4000000 %}{% for i in range(100000) %}{% set t = s | upper %}"
      "{% endfor %}",
      "more than");
  CheckFails(
      "{% set s = 'x' * 4000000 %}{% for i in range(100000) %}{% set t = 'y' in s %}"
      "{% endfor %}",
      "steps");
  CheckFails("{{ ('x,' * 2000000).split(',') | length }}", "more than");
  CheckFails("{{ 'x' * 5000000 }}", "longer than");
  CheckFails("{{ 'xy' * 9223372036854775807 }}", "longer than");
  CheckFails("{{ [1] * 9223372036854775807 }}", "too long");
  CheckFails("{{ ('x' * 3000) | replace('', 'y' * 3000) }}", "grew beyond");
  CheckFails("{{ ('\n' * 3000) | indent('y' * 3000, blank=true) }}", "grew beyond");
  CheckFails("{{ '%9999999s' | format(1) }}", "too large");
}

// Evaluates `work` with 30'000 steps left and texts of 3 MB: s and t are equal, u is their
// upper case, b is blank, w is of lines, d has s for a key.
absl::Status DoOnLongTexts(const std::string& work) {
  const std::string a(3'000'000, 'a');
  std::string lines;
  for (int i = 0; i < 300'000; ++i) lines += "a\n";
  jinja::Heap heap;
  const jinja::Value s = heap.Copy(a, /*untrusted=*/true);
  ASSIGN_OR_RETURN(jinja::Value d, heap.MakeDict({{s, jinja::Value::Int(1)}}));
  ASSIGN_OR_RETURN(auto tree, jinja::Parse("{% set x = " + work + " %}"));
  jinja::Interpreter interpreter(*tree, &heap, GoldenTime());
  interpreter.SetGlobal("s", s);
  interpreter.SetGlobal("t", heap.Copy(a, /*untrusted=*/true));
  interpreter.SetGlobal("u", heap.Copy(std::string(3'000'000, 'A'), /*untrusted=*/true));
  interpreter.SetGlobal("b", heap.Copy(std::string(3'000'000, ' '), /*untrusted=*/true));
  interpreter.SetGlobal("w", heap.Copy(lines, /*untrusted=*/true));
  interpreter.SetGlobal("d", d);
  RETURN_IF_ERROR(heap.Charge(jinja::kMaxSteps - (3'000'000 / 16 + 30'000)));
  return interpreter.Run().status();
}

TEST_CASE("work on long texts uses the steps up by the bytes that it looks at", "[text]") {
  for (const char* work : {"s is lower",
                           "u is upper",
                           "s.isalpha()",
                           "s.isspace() or b.isspace()",
                           "s.islower()",
                           "s.lstrip('a')",
                           "s.rstrip('a')",
                           "s.strip('a')",
                           "s.strip('xyza')",
                           "s | trim('a')",
                           "b.strip()",
                           "b.lstrip()",
                           "b.rstrip()",
                           "b | trim",
                           "s == t",
                           "s != t",
                           "s < t",
                           "s in [t]",
                           "s is eq t",
                           "s is sameas t",
                           "d[t]",
                           "t in d",
                           "d.get(t)",
                           "{s: 1}",
                           "s.startswith(t)",
                           "s.endswith((t, t))",
                           "s.removeprefix(t)",
                           "s.removesuffix(t)",
                           "s | length",
                           "s | last",
                           "s[-1]",
                           "s[2900000]",
                           "s[1:2]",
                           "s | capitalize",
                           "s | title",
                           "s.title()",
                           "s | upper",
                           "[s, t] | sort",
                           "[s, t] | unique | list",
                           "[s, t] | max",
                           "s | int",
                           "s | float",
                           "b | int",
                           "'x' in s",
                           "s.find('x')",
                           "s.rfind('x')",
                           "s.count('x')",
                           "s.split('x')",
                           "s.split()",
                           "s.splitlines()",
                           "s.partition('x')",
                           "s.rpartition('x')",
                           "s.replace('x', '')",
                           "w | indent",
                           "s | wordcount",
                           "s | truncate(3000000)",
                           "s.center(2)",
                           "s | center(2)",
                           "s.zfill(2)",
                           "s | tojson | last",
                           "s.format()"}) {
    INFO(work);
    const absl::Status status = DoOnLongTexts(work);
    CHECK(status.message().find("more than 4000000 steps") != std::string::npos);
  }
}

TEST_CASE("one search for a long text in another is bounded", "[text]") {
  const std::string texts =
      "{% set s = 'a' * 3000000 %}{% set t = 'a' * 1500000 ~ 'b' %}{% set r = 'b' ~ 'a' * 1500000 "
      "%}";
  CHECK(Rendered(texts + "{{ t in s }}{{ s.find(t) }}{{ s.count(t) }}{{ s.split(t) | length }}"
                         "{{ s.replace(t, '') == s }}{{ s.partition(t)[1] }}") == "False-101True");
  CheckFails(texts + "{{ s.rfind(r) }}", "steps");
  CheckFails(texts + "{{ s.rsplit(r) }}", "steps");
  CheckFails(texts + "{{ s.rpartition(r) }}", "steps");
  CheckFails(texts + "{{ s.strip(t) }}", "steps");
}

TEST_CASE("what stops at the first character costs little on a long text", "[text]") {
  for (const char* work : {"s is upper", "s.isdigit()", "s.lstrip('x')", "s | trim", "s | first",
                           "s[0]", "s.startswith('b')", "s == 'a'"}) {
    INFO(work);
    CHECK(DoOnLongTexts(work).ok());
  }
}

TEST_CASE("numbers that do not fit are errors", "[text]") {
  CheckFails("{{ range(100001) }}", "range() of more than");
  CheckFails("{{ range(-9223372036854775807, 9223372036854775807) }}", "range() of more than");
  CheckFails("{{ range(0, 10, 0) }}", "step must not be zero");
  CheckFails("{{ 9223372036854775807 + 1 }}", "does not fit into 64 bits");
  CheckFails("{{ -9223372036854775807 - 2 }}", "does not fit into 64 bits");
  CheckFails("{{ 9223372036854775807 * 2 }}", "does not fit into 64 bits");
  CheckFails("{{ (-9223372036854775807 - 1) // -1 }}", "does not fit into 64 bits");
  CheckFails("{{ -(-9223372036854775807 - 1) }}", "does not fit into 64 bits");
  CheckFails("{{ (-9223372036854775807 - 1) | abs }}", "does not fit into 64 bits");
  CheckFails("{{ 10 ** 30 }}", "does not fit into 64 bits");
  CheckFails("{{ 2.0 ** 5000 }}", "not a finite real number");
  CheckFails("{{ 1 / 0 }}", "division by zero");
  CheckFails("{{ 1 % 0 }}", "division by zero");
  CheckFails("{{ 1.0 // 0 }}", "division by zero");
  CheckFails("{{ 0 ** -1 }}", "division by zero");
  CheckFails("{{ 'x'[::0] }}", "slice step cannot be zero");
  CheckFails("{{ 'x'['a':] }}", "slice indices must be integers");
  CHECK(Rendered("{{ (-9223372036854775807 - 1) % -1 }}") == "0");
  CHECK(Rendered("{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}") ==
        "a");
  CHECK(Rendered("{{ [1,2][9223372036854775807:-9223372036854775807:-9223372036854775807] }}") ==
        "[2]");
}

TEST_CASE("wrong calls are errors that name the callee", "[text]") {
  CheckFails("{{ 'a'.split('b', 'c') }}", "split(): needs an integer as 'maxsplit', not 'str'");
  CheckFails("{{ 'a'.strip(1) }}", "strip(): needs a string as 'chars', not 'int'");
  CheckFails("{{ 'a' | trim('x', 'y') }}", "filter 'trim': takes at most 1 arguments, got 2");
  CheckFails("{{ 'a' | trim(sides='x') }}", "filter 'trim': has no argument named 'sides'");
  CheckFails("{{ 'a' | replace('x', 'y', old='z') }}", "got its argument 'old' twice");
  CheckFails("{{ 4 is divisibleby }}", "test 'divisibleby' takes 1 arguments, got 0");
  CheckFails("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "macro 'm' takes not more than 1");
  CheckFails("{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "no argument named 'b'");
  CheckFails("{{ range() }}", "range() takes one to three integers");
  CheckFails("{% for a, b in [[1]] %}{% endfor %}", "cannot unpack 1 values into 2 names");
  CheckFails("{{ {[1]: 2} }}", "cannot be a dict's key");
  CheckFails("{{ strftime_now('%1000000d') }}", "does not know this conversion");
  CheckFails("{{ strftime_now('%') }}", "does not know this conversion");
  CheckFails("{{ [1] | map('map', 'map') | list }}", "other than map");
  CheckFails("{{ [1, 'a'] | sort }}", "'<' not supported between instances");
  CheckFails("{% for x in [1] %}{{ loop(1) }}{% endfor %}", "marked 'recursive'");
}

TEST_CASE("the position is that of the innermost expression", "[text]") {
  CHECK(Rendered("\n\n  {{ 1 + (2 * missing.x) }}") ==
        "chat template 3:23: 'missing' is undefined");
  CHECK(Rendered("{% for i in [1] %}\n{{ i.x.y }}{% endfor %}") ==
        "chat template 2:8: 'int object' has no attribute 'x'");
}

TEST_CASE("a namespace that holds itself neither leaks nor loops", "[text]") {
  CHECK(Rendered("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}"
                 "{{ ns.me == ns }}{{ ns.l == [ns] }}{{ ns.l }}") == "TrueTrue[<Namespace>]");
}

TEST_CASE("a loop or macro that outlives its block stays harmless", "[text]") {
  CHECK(Rendered("{% set ns = namespace() %}{% for i in [1, 2] %}{% set ns.l = loop %}"
                 "{% macro m() %}{{ i }}{% endmacro %}{% set ns.m = m %}{% endfor %}"
                 "{{ ns.l.index }}{{ ns.l.nextitem }}{{ ns.m() }}") == "32");
}

TEST_CASE("strings that are not UTF-8 pass through byte by byte", "[text]") {
  jinja::Heap heap;
  jinja::Value bad = heap.Copy("a\xFF\xC3(\xE2\x82", /*untrusted=*/true);
  absl::StatusOr<jinja::Value> context = heap.MakeDict({{heap.Constant("s"), bad}});
  REQUIRE(context.ok());
  for (const char* source :
       {"{{ s }}", "{{ s | upper | lower }}", "{{ s[::-1][::-1] }}", "{{ s.strip('x') }}",
        "{% for c in s %}{{ c }}{% endfor %}", "{{ s | list | join }}", "{{ s | trim }}"}) {
    INFO(source);
    absl::StatusOr<RenderedChat> rendered = RenderJinja(source, *context);
    REQUIRE(rendered.ok());
    CHECK(rendered->text == "a\xFF\xC3(\xE2\x82");
  }
  CHECK(RenderJinja("{{ s | tojson }}{{ [s] }}{{ s | title }}{{ s.split() }}", *context).ok());
}

TEST_CASE("hostile JSON is refused", "[text]") {
  jinja::Heap heap;
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("[1,]"), std::string("{\"a\" 1}"),
        std::string("1 2"), std::string("'a'"), std::string("[\"\\ud800\"]"), std::string("nan"),
        std::string("\"\xFF\""), Times(100000, "["), Times(100000, "{\"a\":")}) {
    INFO(json.substr(0, 20));
    CHECK(!jinja::ParseJson(heap, json).ok());
  }
}

TEST_CASE("JSON keeps order, doubles and the last of equal keys", "[text]") {
  CHECK(Rendered("{{ x }}", R"({"x": {"b": 1, "a": 2, "b": 3}})") == "{'b': 3, 'a': 2}");
  CHECK(Rendered("{{ x | tojson }}",
                 R"({"x": [0.1, 1e22, 123456789.123456789, 5e-324, 1.7976931348623157e308, -0.0,
                     1, -9223372036854775808, 18446744073709551615]})") ==
        "[0.1, 1e+22, 123456789.12345679, 5e-324, 1.7976931348623157e+308, -0.0, 1, "
        "-9223372036854775808, 1.8446744073709552e+19]");
  CHECK(Rendered("{{ x }}", R"({"x": "\u00e9\ud83d\ude00\n\u0000"})") == std::string("é😀\n\0", 8));
}

}  // namespace
}  // namespace fastgen::testing
