// The lexer: template source to tokens, white space control applied.
//
// Works as Jinja does with trim_blocks and lstrip_blocks on and keep_trailing_newline off: the
// newline after a block or comment goes, blanks before a block on its own line go, `-` strips all
// white space on its side, `+` keeps it. Comments vanish, raw blocks become data. `}}` and `%}` end
// a tag only outside of brackets.
// Thread rule: any thread.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_sandbox_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fastgen::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{256} << 10;

// Where in the template, both counted from 1; columns are bytes.
struct Position {
  uint32_t line = 1;
  uint32_t column = 1;
};

// "chat template 3:14: message" with the code given.
absl::Status ErrorAt(Position at, std::string_view message,
                     absl::StatusCode code = absl::StatusCode::kInvalidArgument);
// The same for an error that was found without knowing where.
absl::Status ErrorAt(Position at, const absl::Status& status);

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  Position at;
  std::string_view text;  // data, name, operator: into the source
  std::string string;     // the value of a string
  int64_t integer = 0;
  double number = 0;
};

// `source` with \r\n and \r as \n, and without its last newline.
std::string NormalizeNewlines(std::string_view source);

// The tokens view `source`, which must outlive them. The last token is kEnd.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace fastgen::jinja
