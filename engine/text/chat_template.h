// ChatTemplate: a model's Jinja chat template, compiled once and rendered per request in a sandbox.
//
// The language is Jinja as chat templates use it. Bounded: output bytes, evaluation steps, recursion depth. Every
// string carries which of its bytes came from the request through all filters, methods and concatenations; those
// ranges are given with the text, so that the tokenizer never reads a special token in them.
// Thread rule: immutable after Compile; Render from any thread.
// Tested by tests/engine/text/chat_template_test.cc.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

struct RenderedChat {
  std::string text;
  std::vector<ByteRange> untrusted;  // sorted, disjoint: bytes that came from the request
};

class ChatTemplate {
 public:
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // INVALID_ARGUMENT with line and column for what is not understood.
  static absl::StatusOr<ChatTemplate> Compile(std::string_view source, std::string_view bos_token,
                                              std::string_view eos_token);

  // What was compiled.
  std::string_view source() const;

  // INVALID_ARGUMENT: the template called raise_exception, or the messages do not fit it; RESOURCE_EXHAUSTED: a bound
  // was reached. `now` serves strftime_now. A message that makes calls often has no content: templates that cannot
  // take that are given "" in its place.
  absl::StatusOr<RenderedChat> Render(const ChatPrompt& chat, absl::Time now) const;

 private:
  struct Program;
  absl::StatusOr<RenderedChat> RenderAsGiven(const ChatPrompt& chat, absl::Time now) const;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace fastgen
