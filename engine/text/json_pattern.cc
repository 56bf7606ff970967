#include "engine/text/json_pattern.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr int kMaxGroupDepth = 32;
constexpr int32_t kMaxRepeat = 4096;
// In a negated class: what stands in a JSON string as an escape only.
constexpr std::string_view kEscaped = R"("\\\x00-\x1f)";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsQuantifier(char c) { return c == '*' || c == '+' || c == '?' || c == '{'; }

class PatternRewriter {
 public:
  explicit PatternRewriter(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Rewrite() {
    if (Peek() == '^') rest_.remove_prefix(1);
    while (!rest_.empty()) RETURN_IF_ERROR(Step());
    if (depth_ > 0) return Bad("a '(' is not closed");
    return std::move(out_);
  }

 private:
  template <typename... Parts>
  static absl::Status Bad(const Parts&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  }
  char Peek() const { return rest_.empty() ? '\0' : rest_.front(); }
  char Take() {
    const char c = Peek();
    if (!rest_.empty()) rest_.remove_prefix(1);
    return c;
  }

  absl::Status Step();
  absl::Status Open();
  absl::Status Class();
  absl::Status ClassEscape(bool is_negated);
  absl::Status Escape();
  absl::Status Quantifier();
  absl::Status Literal(char c);
  // The character that an escape of one character stands for.
  absl::StatusOr<char> EscapedCharacter(char c);

  std::string_view rest_;
  std::string out_;
  int depth_ = 0;
  bool has_atom_ = false;
};

absl::Status PatternRewriter::Step() {
  const char c = Peek();
  if (IsQuantifier(c)) return Quantifier();
  Take();
  has_atom_ = true;
  switch (c) {
    case '(':
      return Open();
    case ')':
      if (depth_-- == 0) return Bad("a ')' closes nothing");
      out_ += c;
      return absl::OkStatus();
    case '|':
      has_atom_ = false;
      out_ += c;
      return absl::OkStatus();
    case '[':
      return Class();
    case '\\':
      return Escape();
    case '.':
      absl::StrAppend(&out_, "[^", ToAbsl(kEscaped), "]");
      return absl::OkStatus();
    case '^':
      return Bad("'^' is supported at the beginning only");
    case '$':
      if (rest_.empty()) return absl::OkStatus();
      return Bad("'$' is supported at the end only");
    case ']':
    case '}':
      return Bad("a '", std::string(1, c), "' closes nothing");
    default:
      break;
  }
  return Literal(c);
}

absl::Status PatternRewriter::Open() {
  if (++depth_ > kMaxGroupDepth) return Bad("groups nest deeper than ", kMaxGroupDepth);
  has_atom_ = false;
  out_ += '(';
  if (Peek() != '?') return absl::OkStatus();
  Take();
  if (Take() != ':') return Bad("look-around, names and flags of groups are not supported");
  return absl::OkStatus();
}

absl::Status PatternRewriter::Literal(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (c == '"' || byte < 0x20) return Bad("it asks for a character that JSON escapes");
  // Names of the grammar library's own syntax cannot come about inside quotes; what means something
  // in a regex is escaped again.
  constexpr std::string_view kSpecial = "^$.*+?()[]{}|/\\-";
  if (kSpecial.find(c) != std::string_view::npos) out_ += '\\';
  out_ += c;
  return absl::OkStatus();
}

absl::StatusOr<char> PatternRewriter::EscapedCharacter(char c) {
  if (c == 'x' || c == 'u') {
    const size_t num_digits = c == 'x' ? 2 : 4;
    uint32_t value = 0;
    for (size_t i = 0; i < num_digits; ++i) {
      const char digit = Take();
      const bool is_letter = (digit >= 'a' && digit <= 'f') || (digit >= 'A' && digit <= 'F');
      if (!IsDigit(digit) && !is_letter) return Bad("an escape of a character is not finished");
      value = value * 16 +
              static_cast<uint32_t>(IsDigit(digit) ? digit - '0' : (digit | 32) - 'a' + 10);
    }
    if (value < 0x20 || value > 0x7e)
      return Bad("escapes of characters other than ASCII are not supported");
    return static_cast<char>(value);
  }
  constexpr std::string_view kPunctuation = "^$.*+?()[]{}|/-_ ,:;!@#%&=~<>'`";
  if (kPunctuation.find(c) != std::string_view::npos && c != '\0') return c;
  if (c == '"' || c == '\\' || c == 'n' || c == 't' || c == 'r' || c == 'f' || c == 'v') {
    return Bad("it asks for a character that JSON escapes");
  }
  return Bad("the escape \\", std::string(c >= ' ' && c <= '~' ? 1 : 0, c), " is not supported");
}

absl::Status PatternRewriter::Escape() {
  const char c = Take();
  switch (c) {
    case 'd':
      out_ += "[0-9]";
      return absl::OkStatus();
    case 'w':
      out_ += "[a-zA-Z0-9_]";
      return absl::OkStatus();
    case 's':
      out_ += "[ ]";
      return absl::OkStatus();
    case 'D':
      absl::StrAppend(&out_, "[^0-9", ToAbsl(kEscaped), "]");
      return absl::OkStatus();
    case 'W':
      absl::StrAppend(&out_, "[^a-zA-Z0-9_", ToAbsl(kEscaped), "]");
      return absl::OkStatus();
    case 'S':
      absl::StrAppend(&out_, "[^ ", ToAbsl(kEscaped), "]");
      return absl::OkStatus();
    default:
      break;
  }
  ASSIGN_OR_RETURN(const char character, EscapedCharacter(c));
  return Literal(character);
}

absl::Status PatternRewriter::ClassEscape(bool is_negated) {
  const char c = Take();
  if (c == 'd') {
    out_ += "0-9";
  } else if (c == 'w') {
    out_ += "a-zA-Z0-9_";
  } else if (c == 's') {
    out_ += ' ';
  } else if (is_negated && (c == '"' || c == '\\' || c == 'n' || c == 't' || c == 'r')) {
    // It is left out anyway.
  } else {
    ASSIGN_OR_RETURN(const char character, EscapedCharacter(c));
    if (character == '"' || character == '\\')
      return Bad("it asks for a character that JSON escapes");
    if (character == ']' || character == '-' || character == '^' || character == '[') out_ += '\\';
    out_ += character;
  }
  return absl::OkStatus();
}

absl::Status PatternRewriter::Class() {
  out_ += '[';
  const bool is_negated = Peek() == '^';
  if (is_negated) out_ += Take();
  if (Peek() == ']') return Bad("an empty class of characters is not supported");
  char previous = '\0';
  while (!rest_.empty() && Peek() != ']') {
    const char c = Take();
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\') {
      RETURN_IF_ERROR(ClassEscape(is_negated));
    } else if (c == '[') {
      out_ += "\\[";
    } else if (c == '"' && is_negated) {
      // Left out anyway.
    } else if (c == '"' || byte < 0x20) {
      return Bad("it asks for a character that JSON escapes");
    } else if (c == '-' && previous != '\0' && previous < '\\' && Peek() > '\\' && Peek() != ']' &&
               !is_negated) {
      return Bad("a range of characters holds '\\'");
    } else if (c == '-' && (previous == ' ' || previous == '!') && Peek() > '"' && Peek() != ']' &&
               !is_negated) {
      return Bad("a range of characters holds '\"'");
    } else if (c == '-' && (previous == '\0' || Peek() == ']')) {
      out_ += "\\-";
    } else {
      out_ += c;
    }
    previous = c;
  }
  if (Take() != ']') return Bad("a '[' is not closed");
  if (is_negated) absl::StrAppend(&out_, ToAbsl(kEscaped));
  out_ += ']';
  return absl::OkStatus();
}

absl::Status PatternRewriter::Quantifier() {
  if (!has_atom_) return Bad("a repetition repeats nothing");
  has_atom_ = false;
  const char c = Take();
  out_ += c;
  if (c == '{') {
    int32_t value = 0;
    bool has_digits = false;
    while (!rest_.empty() && Peek() != '}') {
      const char digit = Take();
      if (digit == ',') {
        value = 0;
      } else if (IsDigit(digit)) {
        value = value * 10 + (digit - '0');
        has_digits = true;
      } else {
        return Bad("the count of a repetition is not a number");
      }
      if (value > kMaxRepeat) return Bad("a repetition exceeds the limit of ", kMaxRepeat);
      out_ += digit;
    }
    if (Take() != '}' || !has_digits) return Bad("the count of a repetition is not finished");
    out_ += '}';
  }
  if (Peek() == '?') Take();  // the set of matches is the same
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PatternInJsonString(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(pattern.size(), " bytes exceed the limit of ", kMaxPatternBytes));
  }
  return PatternRewriter(pattern).Rewrite();
}

}  // namespace fastgen
