#include "engine/text/json_scanner.h"

#include "base/check.h"

namespace fastgen {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool IsJsonBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

JsonScanner::Step JsonScanner::Push(char c) {
  if (in_string()) return InString(c);
  if (state_ == State::kLiteral) {
    if (*literal_ != c) return Step::kBad;
    ++literal_;
    return *literal_ == '\0' ? Go(State::kAfterValue) : Step::kMore;
  }
  if (state_ >= State::kMinus) return InNumber(c);
  if (IsJsonBlank(c) && state_ != State::kObject) return Step::kMore;
  switch (state_) {
    case State::kObject:
      return c == '{' ? Open(/*is_object=*/true) : Step::kBad;
    case State::kFirstName:
      if (c == '}') return Close(/*is_object=*/true);
      return c == '"' ? BeginString(/*is_name=*/true) : Step::kBad;
    case State::kName:
      return c == '"' ? BeginString(/*is_name=*/true) : Step::kBad;
    case State::kColon:
      return c == ':' ? Go(State::kValue) : Step::kBad;
    case State::kFirstItem:
      if (c == ']') return Close(/*is_object=*/false);
      return BeginValue(c);
    case State::kValue:
      return BeginValue(c);
    default:
      return AfterValue(c);
  }
}

JsonScanner::Step JsonScanner::BeginValue(char c) {
  switch (c) {
    case '{':
      return Open(/*is_object=*/true);
    case '[':
      return Open(/*is_object=*/false);
    case '"':
      return BeginString(/*is_name=*/false);
    case 't':
      literal_ = "rue";
      return Go(State::kLiteral);
    case 'f':
      literal_ = "alse";
      return Go(State::kLiteral);
    case 'n':
      literal_ = "ull";
      return Go(State::kLiteral);
    case '-':
      return Go(State::kMinus);
    case '0':
      return Go(State::kZero);
    default:
      return IsDigit(c) ? Go(State::kDigits) : Step::kBad;
  }
}

JsonScanner::Step JsonScanner::Open(bool is_object) {
  if (depth_ == kMaxDepth) return Step::kBad;
  is_object_[depth_++] = is_object;
  return Go(is_object ? State::kFirstName : State::kFirstItem);
}

JsonScanner::Step JsonScanner::Close(bool is_object) {
  CHECK_GT(depth_, 0);
  if (is_object_[depth_ - 1] != is_object) return Step::kBad;
  --depth_;
  Go(State::kAfterValue);
  return depth_ == 0 ? Step::kDone : Step::kMore;
}

JsonScanner::Step JsonScanner::BeginString(bool is_name) {
  is_name_ = is_name;
  return Go(State::kString);
}

JsonScanner::Step JsonScanner::InString(char c) {
  if (state_ == State::kHex) {
    if (!IsHexDigit(c)) return Step::kBad;
    return ++num_hex_ == 4 ? Go(State::kString) : Step::kMore;
  }
  if (state_ == State::kEscape) {
    num_hex_ = 0;
    if (c == 'u') return Go(State::kHex);
    constexpr char kEscaped[] = {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'};
    for (char escaped : kEscaped) {
      if (c == escaped) return Go(State::kString);
    }
    return Step::kBad;
  }
  if (c == '\\') return Go(State::kEscape);
  if (c == '"') return Go(is_name_ ? State::kColon : State::kAfterValue);
  return static_cast<unsigned char>(c) < 0x20 ? Step::kBad : Step::kMore;
}

JsonScanner::Step JsonScanner::InNumber(char c) {
  const bool is_exponent = c == 'e' || c == 'E';
  switch (state_) {
    case State::kMinus:
      if (c == '0') return Go(State::kZero);
      return IsDigit(c) ? Go(State::kDigits) : Step::kBad;
    case State::kPoint:
      return IsDigit(c) ? Go(State::kFraction) : Step::kBad;
    case State::kExponent:
      if (c == '+' || c == '-') return Go(State::kExponentSign);
      return IsDigit(c) ? Go(State::kExponentDigits) : Step::kBad;
    case State::kExponentSign:
      return IsDigit(c) ? Go(State::kExponentDigits) : Step::kBad;
    case State::kZero:
      if (c == '.') return Go(State::kPoint);
      break;
    case State::kDigits:
      if (c == '.') return Go(State::kPoint);
      if (IsDigit(c)) return Step::kMore;
      break;
    default:
      if (IsDigit(c)) return Step::kMore;
      break;
  }
  if (is_exponent && state_ != State::kExponentDigits) return Go(State::kExponent);
  // The number has ended with the byte before.
  Go(State::kAfterValue);
  return IsJsonBlank(c) ? Step::kMore : AfterValue(c);
}

JsonScanner::Step JsonScanner::AfterValue(char c) {
  const bool is_object = is_object_[depth_ - 1];
  if (c == ',') return Go(is_object ? State::kName : State::kValue);
  if (c == '}') return Close(/*is_object=*/true);
  return c == ']' ? Close(/*is_object=*/false) : Step::kBad;
}

}  // namespace fastgen
