// Any template, rendered with any messages: it must end in a text or an error, and the untrusted
// ranges must be sorted, disjoint and inside the text. What renders once renders the same again.
//
// The input is split at zero bytes: template, content, role, tool as JSON, arguments of a call as
// JSON.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "base/check.h"
#include "engine/text/chat_template.h"

namespace {

// The bytes up to the next zero byte, which is dropped.
std::string NextField(std::string_view& rest) {
  size_t end = rest.find('\0');
  std::string field(rest.substr(0, end));
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return field;
}

fastgen::ChatPrompt MakeChat(std::string_view rest) {
  fastgen::ChatPrompt chat;
  fastgen::ChatMessage message;
  message.content = NextField(rest);
  message.role = NextField(rest);
  if (std::string tool = NextField(rest); !tool.empty()) {
    chat.template_kwargs_json = tool;
    chat.tools_json.push_back(std::move(tool));
  }
  if (std::string arguments = NextField(rest); !arguments.empty()) {
    message.tool_calls.push_back({"id", "name", std::move(arguments)});
  }
  chat.continue_final_message = !rest.empty();
  chat.messages = {message, message};
  return chat;
}

void CheckRanges(const fastgen::RenderedChat& rendered) {
  size_t last = 0;
  for (const fastgen::ByteRange& range : rendered.untrusted) {
    CHECK(range.begin < range.end && range.end <= rendered.text.size());
    CHECK(range.begin > last || (range.begin == 0 && last == 0));
    last = range.end;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::string source = NextField(rest);
  auto compiled = fastgen::ChatTemplate::Compile(source, "<s>", "</s>");
  if (!compiled.ok()) return 0;
  fastgen::ChatPrompt chat = MakeChat(rest);
  auto rendered = compiled->Render(chat, absl::UnixEpoch());
  if (!rendered.ok()) return 0;
  CheckRanges(*rendered);
  auto again = compiled->Render(chat, absl::UnixEpoch());
  CHECK(again.ok() && again->text == rendered->text);
  return 0;
}
