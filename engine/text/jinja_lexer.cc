#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_text.h"

namespace fastgen::jinja {

absl::Status ErrorAt(Position at, std::string_view message, absl::StatusCode code) {
  return absl::Status(
      code, absl::StrCat("chat template ", at.line, ":", at.column, ": ", ToAbsl(message)));
}

absl::Status ErrorAt(Position at, const absl::Status& status) {
  return ErrorAt(at, FromAbsl(status.message()), status.code());
}

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      out += '\n';
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {
    line_starts_.push_back(0);
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\n') line_starts_.push_back(i + 1);
    }
  }

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(LexData());
    Add(TokenKind::kEnd, at_, 0);
    return std::move(tokens_);
  }

 private:
  Position PositionOf(size_t offset) const {
    auto line = std::upper_bound(line_starts_.begin(), line_starts_.end(), offset) - 1;
    return {static_cast<uint32_t>(line - line_starts_.begin() + 1),
            static_cast<uint32_t>(offset - *line + 1)};
  }
  absl::Status Error(size_t offset, std::string_view message) const {
    return ErrorAt(PositionOf(offset), message);
  }
  bool LooksAt(std::string_view word) const { return source_.substr(at_, word.size()) == word; }
  Token& Add(TokenKind kind, size_t begin, size_t size) {
    Token token;
    token.kind = kind;
    token.at = PositionOf(begin);
    token.text = source_.substr(begin, size);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  // Where the data [begin, end) ends once the tag behind it, with that sign, has taken its white
  // space.
  size_t DataEnd(size_t begin, size_t end, char sign, bool is_variable) const {
    std::string_view data = source_.substr(0, end);
    if (sign == '-') return std::max(begin, SkipSpaceBackward(data, end));
    if (sign == '+' || is_variable) return end;
    size_t newline = data.substr(begin).rfind('\n');
    bool starts_line =
        newline != std::string_view::npos || begin == 0 || source_[begin - 1] == '\n';
    if (!starts_line) return end;
    size_t line = newline == std::string_view::npos ? begin : begin + newline + 1;
    return SkipSpaceForward(data, line) == end ? line : end;
  }

  void AddData(size_t begin, size_t end) {
    if (begin < end) Add(TokenKind::kData, begin, end - begin);
  }

  absl::Status LexData() {
    size_t begin = at_;
    size_t tag = begin;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        AddData(begin, source_.size());
        at_ = source_.size();
        return absl::OkStatus();
      }
      char kind = source_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
      ++tag;
    }
    at_ = tag + 2;
    char sign =
        at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_] : 0;
    if (sign != 0) ++at_;
    char kind = source_[tag + 1];
    AddData(begin, DataEnd(begin, tag, sign, kind == '{'));
    if (kind == '#') return SkipComment(tag);
    if (kind == '%' && EnterRaw()) return LexRaw(tag);
    Add(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, tag, 2);
    return LexTag(tag, kind == '{' ? "}}" : "%}");
  }

  // After the end of a block or comment whose sign is `sign`.
  void TrimAfter(char sign, bool trims_newline) {
    if (sign == '-') {
      at_ = SkipSpaceForward(source_, at_);
    } else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
  }

  absl::Status SkipComment(size_t tag) {
    size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) return Error(tag, "this comment is never closed");
    char sign = end > at_ ? source_[end - 1] : 0;
    at_ = end + 2;
    TrimAfter(sign, /*trims_newline=*/true);
    return absl::OkStatus();
  }

  // Whether a raw block begins here; if so, steps behind its tag.
  bool EnterRaw() {
    size_t at = SkipSpaceForward(source_, at_);
    if (source_.substr(at, 3) != "raw") return false;
    at = SkipSpaceForward(source_, at + 3);
    bool strips = source_.substr(at, 3) == "-%}";
    if (!strips && source_.substr(at, 2) != "%}") return false;
    at_ = at + (strips ? 3 : 2);
    if (strips) at_ = SkipSpaceForward(source_, at_);
    return true;
  }

  absl::Status LexRaw(size_t tag) {
    size_t begin = at_;
    for (size_t end = source_.find("{%", at_); end != std::string_view::npos;
         end = source_.find("{%", end + 2)) {
      size_t at = end + 2;
      char sign =
          at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : 0;
      at = SkipSpaceForward(source_, at + (sign != 0 ? 1 : 0));
      if (source_.substr(at, 6) != "endraw") continue;
      at = SkipSpaceForward(source_, at + 6);
      char close = at < source_.size() ? source_[at] : 0;
      if (close == '-' || close == '+') ++at;
      if (source_.substr(at, 2) != "%}") continue;
      AddData(begin, DataEnd(begin, end, sign, /*is_variable=*/false));
      at_ = at + 2;
      TrimAfter(close, /*trims_newline=*/true);
      return absl::OkStatus();
    }
    return Error(tag, "this raw block is never closed");
  }

  // The inside of a tag, up to and including its end.
  absl::Status LexTag(size_t tag, std::string_view end) {
    const bool is_block = end == "%}";
    brackets_.clear();
    while (at_ < source_.size()) {
      at_ = SkipSpaceForward(source_, at_);
      if (at_ >= source_.size()) break;
      if (brackets_.empty()) {
        char sign = source_[at_] == '-' || (is_block && source_[at_] == '+') ? source_[at_] : 0;
        if (source_.substr(at_ + (sign != 0 ? 1 : 0), 2) == end) {
          Add(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, at_, 2);
          at_ += sign != 0 ? 3 : 2;
          TrimAfter(sign, is_block);
          return absl::OkStatus();
        }
      }
      RETURN_IF_ERROR(LexToken());
    }
    return Error(tag, is_block ? "this block tag is never closed with %}"
                               : "this expression is never closed with }}");
  }

  absl::Status LexToken() {
    char c = source_[at_];
    if (IsDigit(c)) return LexNumber();
    if (c == '"' || c == '\'') return LexString();
    if (IsNameStart(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNamePart(source_[end])) ++end;
      Add(TokenKind::kName, at_, end - at_);
      at_ = end;
      return absl::OkStatus();
    }
    for (std::string_view op : kOperators) {
      if (!LooksAt(op)) continue;
      RETURN_IF_ERROR(Balance(op[0]));
      Add(TokenKind::kOperator, at_, op.size());
      at_ += op.size();
      return absl::OkStatus();
    }
    return Error(at_, absl::StrCat("unexpected character '", std::string(1, c), "'"));
  }

  absl::Status Balance(char c) {
    if (c == '(' || c == '[' || c == '{') {
      brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty())
        return Error(at_, absl::StrCat("unexpected '", std::string(1, c), "'"));
      char expected = brackets_.back();
      brackets_.pop_back();
      if (expected != c) {
        return Error(at_, absl::StrCat("unexpected '", std::string(1, c), "', expected '",
                                       std::string(1, expected), "'"));
      }
    }
    return absl::OkStatus();
  }

  // The digits from `at` on, underscores between digits dropped.
  std::string Digits(size_t& at, bool (*is_digit)(char)) const {
    std::string digits;
    while (at < source_.size()) {
      if (is_digit(source_[at])) {
        digits += source_[at++];
      } else if (source_[at] == '_' && !digits.empty() && at + 1 < source_.size() &&
                 is_digit(source_[at + 1])) {
        ++at;
      } else {
        break;
      }
    }
    return digits;
  }

  absl::Status LexNumber() {
    size_t at = at_;
    int base = 10;
    std::string digits;
    if (source_[at] == '0' && at + 1 < source_.size()) {
      char prefix = source_[at + 1] | 0x20;
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    }
    if (base != 10) {
      at += 2;
      digits =
          Digits(at, [](char c) { return IsDigit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
      return AddInteger(digits, base, at);
    }
    digits = Digits(at, IsDigit);
    // After a dot, as in x.0.1, digits are an index and never a fraction.
    bool is_index = !tokens_.empty() && tokens_.back().kind == TokenKind::kOperator &&
                    tokens_.back().text == "." && at_ > 0 && source_[at_ - 1] == '.';
    bool is_float = false;
    if (!is_index) {
      if (at + 1 < source_.size() && source_[at] == '.' && IsDigit(source_[at + 1])) {
        is_float = true;
        digits += source_[at++];
        digits += Digits(at, IsDigit);
      }
      size_t exponent = at + 1;
      if (at < source_.size() && (source_[at] | 0x20) == 'e') {
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
          ++exponent;
        if (exponent < source_.size() && IsDigit(source_[exponent])) {
          is_float = true;
          digits.append(source_.substr(at, exponent - at));
          at = exponent;
          digits += Digits(at, IsDigit);
        }
      }
    }
    if (!is_float) return AddInteger(digits, base, at);
    Token& token = Add(TokenKind::kFloat, at_, at - at_);
    token.number = std::strtod(digits.c_str(), nullptr);
    at_ = at;
    return absl::OkStatus();
  }

  absl::Status AddInteger(const std::string& digits, int base, size_t end) {
    int64_t value = 0;
    auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || last != digits.data() + digits.size()) {
      return Error(at_,
                   absl::StrCat("'", ToAbsl(source_.substr(at_, std::min<size_t>(end - at_, 40))),
                                "' is not a 64-bit integer"));
    }
    Add(TokenKind::kInteger, at_, end - at_).integer = value;
    at_ = end;
    return absl::OkStatus();
  }

  absl::Status LexString() {
    size_t begin = at_;
    char quote = source_[at_];
    std::string value;
    size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\') {
        value += source_[at++];
        continue;
      }
      if (at + 1 >= source_.size()) break;
      RETURN_IF_ERROR(LexEscape(at, value));
    }
    if (at >= source_.size() || source_[at] != quote) {
      return Error(begin, "this string is never closed");
    }
    at_ = at + 1;
    Add(TokenKind::kString, begin, at_ - begin).string = std::move(value);
    return absl::OkStatus();
  }

  // One escape sequence at `at`, as in Python; an unknown one stays as it is.
  absl::Status LexEscape(size_t& at, std::string& value) const {
    char c = source_[at + 1];
    constexpr std::string_view kFrom = "\\'\"abfnrtv";
    constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    if (size_t simple = kFrom.find(c); simple != std::string_view::npos) {
      value += kTo[simple];
      at += 2;
      return absl::OkStatus();
    }
    if (c == '\n') {
      at += 2;
      return absl::OkStatus();
    }
    size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    size_t begin = at + 2;
    int base = 16;
    if (c >= '0' && c <= '7') {
      base = 8;
      begin = at + 1;
      while (num_digits < 3 && begin + num_digits < source_.size() &&
             source_[begin + num_digits] >= '0' && source_[begin + num_digits] <= '7') {
        ++num_digits;
      }
    }
    if (num_digits == 0) {
      value += source_[at++];
      return absl::OkStatus();
    }
    std::string_view digits = source_.substr(begin, num_digits);
    uint32_t code = 0;
    auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
    if (error != std::errc() || digits.size() != num_digits || last != digits.data() + num_digits ||
        code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      return Error(at, "this escape sequence is no Unicode character");
    }
    value += EncodeUtf8(code);
    at = begin + num_digits;
    return absl::OkStatus();
  }

  std::string_view source_;
  std::vector<size_t> line_starts_;
  size_t at_ = 0;
  std::string brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template has ", source.size(),
                                                   " bytes, more than ", kMaxSourceBytes));
  }
  return Lexer(source).Run();
}

}  // namespace fastgen::jinja
