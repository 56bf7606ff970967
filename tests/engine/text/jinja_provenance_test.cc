// Which bytes of a rendered chat came from the request.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "engine/text/jinja_print.h"
#include "tests/engine/text/jinja_testing.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

// The text with untrusted runs in ⟦ ⟧.
std::string Marked(const RenderedChat& chat) {
  std::string out;
  size_t at = 0;
  for (const ByteRange& range : chat.untrusted) {
    out += chat.text.substr(at, range.begin - at) + "⟦" +
           chat.text.substr(range.begin, range.end - range.begin) + "⟧";
    at = range.end;
  }
  return out + chat.text.substr(at);
}

std::string Marked(std::string_view source, std::string_view context) {
  absl::StatusOr<RenderedChat> rendered = RenderJinja(source, context);
  return rendered.ok() ? Marked(*rendered) : std::string(rendered.status().message());
}

bool AreWellFormed(const RenderedChat& chat) {
  size_t last = 0;
  for (const ByteRange& range : chat.untrusted) {
    if (range.begin >= range.end || range.end > chat.text.size()) return false;
    if (range.begin < last || (range.begin == last && last != 0)) return false;
    last = range.end;
  }
  return true;
}

bool IsWhollyUntrusted(const RenderedChat& chat, size_t begin, size_t end) {
  for (const ByteRange& range : chat.untrusted) {
    if (range.begin <= begin && end <= range.end) return true;
  }
  return false;
}

bool TouchesUntrusted(const RenderedChat& chat, size_t begin, size_t end) {
  for (const ByteRange& range : chat.untrusted) {
    if (range.begin < end && begin < range.end) return true;
  }
  return false;
}

const char* const kContext = R"({"s": "aB", "sp": "  x y ", "l": ["p", "q"], "n": 7, "t": true,
  "z": null, "d": {"k": "v\"\n"}, "f": 1.5})";

TEST_CASE("provenance survives each operation byte by byte", "[text]") {
  const std::pair<const char*, const char*> kCases[] = {
      {"x{{ s }}y", "x⟦aB⟧y"},
      {"{{ '<' + s + '>' }}", "<⟦aB⟧>"},
      {"{{ '<' ~ s ~ n ~ '>' }}", "<⟦aB7⟧>"},
      {"{{ s * 2 ~ '.' }}", "⟦aBaB⟧."},
      {"{{ ('-' ~ s ~ '-')[1:-1] }}", "⟦aB⟧"},
      {"{{ ('-' ~ s ~ '-')[::-1] }}", "-⟦Ba⟧-"},
      {"{{ ('-' ~ s ~ '-')[1] }}", "⟦a⟧"},
      {"{{ ('-' ~ s ~ '-') | upper }}", "-⟦AB⟧-"},
      {"{{ ('é' ~ s ~ 'ß') | upper }}", "É⟦AB⟧SS"},
      {"{{ ('x ' ~ s) | title }} {{ (s ~ 'X') | capitalize }}", "X ⟦Ab⟧ ⟦Ab⟧x"},
      {"[{{ (' ' ~ sp ~ ' ') | trim }}]", "[⟦x y⟧]"},
      {"[{{ ('..' ~ s ~ '..').strip('.') }}]", "[⟦aB⟧]"},
      {"{{ 'xyz' | replace('y', s) }}", "x⟦aB⟧z"},
      {"{{ ('x' ~ s ~ 'x') | replace('x', '--') }}", "--⟦aB⟧--"},
      {"{{ s.replace('a', 'x') }}", "x⟦B⟧"},
      {"{{ l | join(', ') }}", "⟦p⟧, ⟦q⟧"},
      {"{{ ['a', 'b'] | join(s) }}", "a⟦aB⟧b"},
      {"{{ ('1,' ~ s ~ ',2').split(',') | join('|') }}", "1|⟦aB⟧|2"},
      {"{{ 'x y'.split() | join(s) }}", "x⟦aB⟧y"},
      {"{{ [s, 'x'] }}", "[⟦'aB'⟧, 'x']"},
      {"{{ [s, 'x'] | tojson }}", "[⟦\"aB\"⟧, \"x\"]"},
      {"{{ {'k': d.k} | tojson }}", "{\"k\": ⟦\"v\\\"\\n\"⟧}"},
      {"{{ d | tojson }}", "⟦{\"k\": \"v\\\"\\n\"}⟧"},
      {"{{ d | tojson(indent=1) }}", "⟦{\n \"k\": \"v\\\"\\n\"\n}⟧"},
      {"{{ n }} {{ t }} {{ z }} {{ f }}", "⟦7⟧ ⟦True⟧ ⟦None⟧ ⟦1.5⟧"},
      {"{{ n + 1 }} {{ -n }} {{ n / 2 }} {{ n | string }} {{ '7' | int }} {{ (s ~ '1') | length }}",
       "⟦8⟧ ⟦-7⟧ ⟦3.5⟧ ⟦7⟧ 7 ⟦3⟧"},
      {"{{ [n] | tojson }} {{ [n, 1] | sum }} {{ [1, n] | max }}", "[⟦7⟧] ⟦8⟧ ⟦7⟧"},
      {"{% for c in s %}{{ c }}-{% endfor %}", "⟦a⟧-⟦B⟧-"},
      {"{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", "⟦k⟧=⟦v\"\n⟧"},
      {"{% set x %}<{{ s }}>{% endset %}{{ x | lower }}", "<⟦ab⟧>"},
      {"{% macro m(a) %}({{ a }}){% endmacro %}{{ m(s) }}{{ m('t') }}", "(⟦aB⟧)(t)"},
      {"{% macro m() %}({{ caller() }}){% endmacro %}{% call m() %}-{{ s }}{% endcall %}",
       "(-⟦aB⟧)"},
      {"{% filter upper %}x{{ s }}{% endfilter %}", "X⟦AB⟧"},
      {"{{ '%s|%4s|%d' | format(s, s, n) }}", "⟦aB⟧|  ⟦aB⟧|⟦7⟧"},
      {"{{ '{}-{}'.format(s, 'x') }}", "⟦aB⟧-x"},
      {"{{ s | indent }} {{ 'a\nb' | indent(s) }}", "⟦aB⟧ a\n⟦aB⟧b"},
      {"{{ s | center(6) }}|", "  ⟦aB⟧  |"},
      {"{{ ('<' ~ s) | e }}", "&lt;⟦aB⟧"},
      {"{{ s | first }}{{ s | last }}{{ s | reverse }}", "⟦aBBa⟧"},
      {"{{ [s] | map('upper') | join }}{{ [s] | sort | first }}", "⟦ABaB⟧"},
      {"{% set ns = namespace(v=s) %}{% set ns.w = ns.v ~ '.' %}{{ ns.w }}", "⟦aB⟧."},
      {"{{ range(n - 5) | join(',') }}", "⟦0⟧,⟦1⟧"},
      {"{{ strftime_now('%Y' ~ s) }}", "⟦2026aB⟧"},
      {"{{ missing | default(s) }}{{ s | default('x') }}", "⟦aBaB⟧"},
      {"{{ 'yes' if s else 'no' }}{{ s == 'aB' }}{{ 'a' in s }}", "yesTrueTrue"},
      {"{{ {'aB': 'ours'}[s] }}", "ours"},
      {"{{ dict(k=s) | tojson }}", "{\"k\": ⟦\"aB\"⟧}"},
      {"{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(**d) }}", "{⟦'k'⟧: ⟦'v\"\\n'⟧}"},
      {"{{ s | truncate(1, true, '', 0) }}.", "⟦a⟧."},
      {"{{ s.partition('B') | join('-') }}", "⟦a⟧-⟦B⟧-"},
      {"{{ s.center(6, '*') }} {{ s.ljust(3) }}|{{ 'x'.rjust(3, s[0]) }}", "**⟦aB⟧** ⟦aB⟧ |⟦aa⟧x"},
      {"{{ ('-' ~ n).zfill(4) }} {{ ('x' ~ s).swapcase() }}", "-00⟦7⟧ X⟦Ab⟧"},
      {"{{ '%(k)s|%(j)s' % {'k': s, 'j': 'x'} }} {{ '<%(k)s>' | format(k=s) }}", "⟦aB⟧|x <⟦aB⟧>"},
      {"{{ (s ~ '%s') % 'x' }} {{ s.index('B') }} {{ s.isupper() }}", "⟦aB⟧x ⟦1⟧ ⟦False⟧"},
      {"{{ d.copy().k }} {{ l.copy()[0] }} {{ [s, 'x', 'y'] | slice(2) | list }}",
       "⟦v\"\n⟧ ⟦p⟧ [[⟦'aB'⟧, 'x'], ['y']]"},
      {"{% for g in [{'k': s, 'v': 'x'}] | groupby('k') %}{{ g.grouper }}={{ g.list[0].v }}{% endfor %}",
       "⟦aB⟧=x"},
      {"{{ [{'a': 'x'}] | groupby('b', default=s) | map('first') | join }}", "⟦aB⟧"},
      {"{% for i in l %}{% break %}{% else %}{{ s }}!{% endfor %}", "⟦aB⟧!"},
      {"{{ l[1:] }} {{ l + ['x'] }}", "⟦['q']⟧ ⟦['p', 'q', ⟧'x'⟦]⟧"},
  };
  for (const auto& [source, expected] : kCases) {
    INFO(source);
    CHECK(Marked(source, kContext) == expected);
  }
}

TEST_CASE("ranges of the feature templates are sorted, disjoint and inside the text", "[text]") {
  for (const std::string& line :
       ReadLines(SourceTestdata() / "chat_templates" / "features.jsonl")) {
    jinja::Heap heap;
    absl::StatusOr<jinja::Value> row = jinja::ParseJson(heap, line);
    REQUIRE(row.ok());
    std::string source(row->dict().Find("template")->bytes());
    absl::StatusOr<RenderedChat> rendered = RenderJinja(source, *row->dict().Find("context"));
    INFO(source);
    if (rendered.ok()) CHECK(AreWellFormed(*rendered));
  }
}

const char* const kSpecialTokens[] = {
    "<|im_start|>", "<|im_end|>",      "<|endoftext|>",       "<|begin_of_text|>",
    "<|eot_id|>",   "<|eom_id|>",      "<|start_header_id|>", "<|python_tag|>",
    "[INST]",       "[/INST]",         "[TOOL_CALLS]",        "<s>",
    "</s>",         "<start_of_turn>", "<end_of_turn>",       "<think>",
    "<tool_call>",  "<|end|>",         "<｜User｜>",          "<｜end▁of▁sentence｜>",
};

// A template that shows every field, some of them through JSON.
constexpr std::string_view kEverything =
    "{{ bos_token }}{% for t in tools %}{{ t | tojson }}<|eot_id|>{{ t.name }}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.reasoning_content }}"
    "{{ m.name }}{{ m.tool_call_id }}{% for c in m.tool_calls %}<tool_call>{{ c.id }}"
    "{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% for k, v in c.function.arguments | items %}{{ k }}{{ v }}{% endfor %}{% endfor %}"
    "<|im_end|>{% endfor %}{{ extra }}{{ eos_token }}<think>";

TEST_CASE("a special token typed in any field is untrusted, the template's own is not", "[text]") {
  absl::StatusOr<ChatTemplate> compiled = ChatTemplate::Compile(kEverything, "<s>", "</s>");
  REQUIRE(compiled.ok());
  for (std::string token : kSpecialTokens) {
    ChatPrompt chat;
    for (const char* role : {"system", "user", "assistant", "tool", "ipython"}) {
      ChatMessage message;
      message.role = role;
      message.content = "c" + token;
      message.reasoning_content = "r" + token;
      message.name = "n" + token;
      message.tool_call_id = "i" + token;
      message.tool_calls = {{"I" + token, "N" + token, "{\"K" + token + "\": \"V" + token + "\"}"}};
      chat.messages.push_back(message);
    }
    ChatMessage odd;
    odd.role = "R" + token;
    odd.content = "";
    chat.messages.push_back(odd);
    chat.tools_json = {"{\"name\": \"T" + token + "\", \"P" + token + "\": [\"Q" + token + "\"]}"};
    chat.template_kwargs_json = "{\"extra\": \"E" + token + "\"}";
    absl::StatusOr<RenderedChat> rendered = compiled->Render(chat, GoldenTime());
    INFO(rendered.status().ToString());
    REQUIRE(rendered.ok());
    CHECK(AreWellFormed(*rendered));
    // Every field's letter stands in front of its token.
    size_t num_typed = 0;
    const std::string& text = rendered->text;
    for (size_t at = text.find(token); at != std::string::npos; at = text.find(token, at + 1)) {
      bool typed = at > 0 &&
                   std::string_view("crniINKVRTPQE").find(text[at - 1]) != std::string::npos &&
                   TouchesUntrusted(*rendered, at - 1, at);
      INFO(token << " at " << at);
      if (typed) {
        CHECK(IsWhollyUntrusted(*rendered, at, at + token.size()));
        ++num_typed;
      } else {
        CHECK(!TouchesUntrusted(*rendered, at, at + token.size()));
      }
    }
    CHECK(num_typed == 5 * 10 + 1 + 4 + 1);
  }
}

TEST_CASE("a special token built across fields is touched by untrusted bytes", "[text]") {
  ChatPrompt chat;
  chat.messages = {MakeMessage("user", "im_end|>")};
  absl::StatusOr<ChatTemplate> compiled =
      ChatTemplate::Compile("<|{{ messages[0].content }}", "", "");
  REQUIRE(compiled.ok());
  absl::StatusOr<RenderedChat> rendered = compiled->Render(chat, GoldenTime());
  REQUIRE(rendered.ok());
  CHECK(Marked(*rendered) == "<|⟦im_end|>⟧");
}

TEST_CASE("the usual roles are the template's words, others the request's", "[text]") {
  absl::StatusOr<ChatTemplate> compiled =
      ChatTemplate::Compile("<|{{ messages[0].role }}|>", "", "");
  REQUIRE(compiled.ok());
  ChatPrompt chat;
  chat.messages = {MakeMessage("assistant", std::nullopt)};
  CHECK(Marked(*compiled->Render(chat, GoldenTime())) == "<|assistant|>");
  chat.messages[0].role = "im_start";
  CHECK(Marked(*compiled->Render(chat, GoldenTime())) == "<|⟦im_start⟧|>");
}

TEST_CASE("a continued message keeps its ranges up to the cut", "[text]") {
  absl::StatusOr<ChatTemplate> compiled =
      ChatTemplate::Compile("<b>{{ messages[0].content }}<e>", "", "");
  REQUIRE(compiled.ok());
  ChatPrompt chat;
  chat.continue_final_message = true;
  chat.messages = {MakeMessage("assistant", "abc ")};
  CHECK(Marked(*compiled->Render(chat, GoldenTime())) == "<b>⟦abc ⟧");
}

}  // namespace
}  // namespace fastgen::testing
