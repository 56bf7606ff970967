// MarkerScanner: finds a marker in a stream of bytes, together with the blanks before it.
//
// Blanks (space, tab, line feed, carriage return) directly before a marker belong to it, at most
// kMaxBlanks of them: models and their templates set markers on lines of their own. What is held is
// exactly the longest end of the text that may still become blanks and the marker, so text is given
// out as early as it can be, and any division of the text gives the same.
// Thread rule: one thread at a time.
// Tested by tests/engine/text/answer_parser_test.cc.
#pragma once

#include <string>
#include <string_view>

namespace fastgen {

inline bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

class MarkerScanner {
 public:
  static constexpr size_t kMaxBlanks = 64;

  // `marker` must outlive the object, and begin with no blank.
  explicit MarkerScanner(std::string_view marker) : marker_(marker) {}

  // Takes one byte; appends to `*text` what cannot be part of a marker any more. True when it
  // completed a marker: held() is the blanks and the marker, until Clear.
  bool Push(char c, std::string* text) {
    held_ += c;
    while (!MayBecomeMarker()) {
      *text += held_.front();
      held_.erase(0, 1);
    }
    return !held_.empty() && num_matched() == marker_.size();
  }

  const std::string& held() const { return held_; }
  void Clear() { held_.clear(); }

 private:
  size_t num_blanks() const {
    size_t count = 0;
    while (count < held_.size() && IsBlank(held_[count])) ++count;
    return count;
  }
  size_t num_matched() const { return held_.size() - num_blanks(); }
  bool MayBecomeMarker() const {
    const size_t blanks = num_blanks();
    const std::string_view rest = std::string_view(held_).substr(blanks);
    return blanks <= kMaxBlanks && rest.size() <= marker_.size() &&
           marker_.compare(0, rest.size(), rest) == 0;
  }

  std::string_view marker_;
  std::string held_;
};

}  // namespace fastgen
