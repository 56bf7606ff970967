// What the template tests share: rendering a template with a JSON context, and reading the golden
// rows.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "engine/text/chat_template.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_parser.h"

namespace fastgen::testing {

// The moment that the goldens were made at.
inline absl::Time GoldenTime() {
  return absl::FromCivil(absl::CivilSecond(2026, 11, 22, 12), absl::LocalTimeZone());
}

inline ChatMessage MakeMessage(std::string role, std::optional<std::string> content) {
  ChatMessage message;
  message.role = std::move(role);
  message.content = std::move(content);
  return message;
}

// Everything in the context counts as the request's.
inline absl::StatusOr<RenderedChat> RenderJinja(std::string_view source,
                                                const jinja::Value& context) {
  ASSIGN_OR_RETURN(auto tree, jinja::Parse(source));
  jinja::Heap heap;
  jinja::Interpreter interpreter(*tree, &heap, GoldenTime());
  for (const auto& [key, value] : context.dict().entries) {
    interpreter.SetGlobal(key.bytes(), value);
  }
  ASSIGN_OR_RETURN(auto output, interpreter.Run());
  return RenderedChat{std::move(output.first), std::move(output.second)};
}

inline absl::StatusOr<RenderedChat> RenderJinja(std::string_view source,
                                                std::string_view context_json) {
  jinja::Heap heap;
  ASSIGN_OR_RETURN(jinja::Value context, jinja::ParseJson(heap, context_json));
  return RenderJinja(source, context);
}

// The text, or the error's message.
inline std::string Rendered(std::string_view source, std::string_view context_json = "{}") {
  absl::StatusOr<RenderedChat> rendered = RenderJinja(source, context_json);
  return rendered.ok() ? rendered->text : std::string(rendered.status().message());
}

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline std::vector<std::string> ReadLines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// A golden's error without the exception's name in front.
inline std::string_view ErrorMessage(std::string_view error) {
  size_t colon = error.find("Error: ");
  return colon == std::string_view::npos ? error : error.substr(colon + 7);
}

}  // namespace fastgen::testing
