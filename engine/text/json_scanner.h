// JsonScanner: checks the JSON text of one object byte by byte, and says where in it a byte stands.
//
// A pushdown automaton over RFC 8259: no byte is looked at twice and nothing is kept, so any
// division of the text gives the same answer. Strings may hold any bytes from 0x20 on; whether they
// are UTF-8 is the source's business. Depth is bounded by kMaxDepth.
// Thread rule: one thread at a time.
// Tested by tests/engine/text/json_scanner_test.cc; fuzzed by tests/fuzz/answer_parser_fuzzer.cc.
#pragma once

#include <bitset>

namespace fastgen {

class JsonScanner {
 public:
  static constexpr int kMaxDepth = 64;

  enum class Step {
    kMore,  // so far so good
    kDone,  // this byte closed the object
    kBad,   // no object begins like this
  };
  // REQUIRES: no byte before was kDone or kBad.
  Step Push(char c);

  // Objects and arrays that are open after the last byte.
  int depth() const { return depth_; }
  // Between the quotes of a name, or of a text.
  bool in_name() const { return in_string() && is_name_; }
  bool in_text() const { return in_string() && !is_name_; }
  // A value may begin with the next byte.
  bool expects_value() const { return state_ == State::kValue || state_ == State::kFirstItem; }

 private:
  enum class State {
    kObject,     // the outermost '{'
    kFirstName,  // after '{': a name or '}'
    kName,       // after ',' in an object
    kColon,
    kValue,
    kFirstItem,  // after '[': a value or ']'
    kAfterValue,
    kString,
    kEscape,
    kHex,
    kLiteral,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
  };

  bool in_string() const {
    return state_ == State::kString || state_ == State::kEscape || state_ == State::kHex;
  }
  Step BeginValue(char c);
  Step Open(bool is_object);
  Step Close(bool is_object);
  Step BeginString(bool is_name);
  Step InString(char c);
  Step InNumber(char c);
  Step AfterValue(char c);
  Step Go(State state) {
    state_ = state;
    return Step::kMore;
  }

  State state_ = State::kObject;
  int depth_ = 0;
  std::bitset<kMaxDepth> is_object_;  // of the open ones, the outermost first
  bool is_name_ = false;
  int num_hex_ = 0;
  const char* literal_ = "";  // what is still to come of true, false or null
};

}  // namespace fastgen
