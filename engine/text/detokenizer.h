// Detokenizer: one stream's ids to text, incrementally.
//
// Gives out only whole UTF-8, holds back what may still become a stop string, and cuts text and
// tokens together. The concatenation of all deltas and Flush() equals DecodeAll of the same ids (up
// to the stop). Stop strings are searched in the text that is given out, so one may begin and end
// inside tokens. The one that ends first wins; of those that end at the same byte, the longest, so
// that no part of a stop string is left in the text. Each stop string is matched by its own
// Knuth-Morris-Pratt automaton: linear in the text, and the longest automaton state is exactly what
// must be held back.
// Thread rule: one thread at a time (the completion thread). Holds a reference to the tokenizer.
// Tested by tests/engine/text/detokenizer_test.cc and golden_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/unicode.h"
#include "engine/text/tokenizer.h"

namespace fastgen {

// Stop strings as automata, shared by the choices of a request. Immutable; any thread.
class StopStrings {
 public:
  // None may be empty. One that is not UTF-8 never matches.
  explicit StopStrings(const std::vector<std::string>& stop);

  size_t size() const { return patterns_.size(); }
  const std::string& text(size_t i) const { return patterns_[i].text; }
  // The state (bytes of text(i) that the text so far ends with) after one byte more; it is
  // text(i).size() where the string ends.
  uint32_t Next(size_t i, uint32_t state, char byte) const;

 private:
  struct Pattern {
    std::string text;
    // [length + 1] the longest proper prefix that is also a suffix of the prefix
    std::vector<uint32_t> fallback;
  };
  std::vector<Pattern> patterns_;
};

struct DetokenizerOptions {
  bool skip_special_tokens = true;
  std::vector<int32_t> shown_special = {};  // sorted: special tokens that are not skipped
  std::vector<std::string> stop = {};       // stop strings, none empty
  std::shared_ptr<const StopStrings> compiled_stop = nullptr;  // instead of `stop`, when set
  bool include_stop = false;
};

class Detokenizer {
 public:
  Detokenizer(const Tokenizer* tokenizer, DetokenizerOptions options);

  // Feeds one id; returns the text that can be given out now. After a stop string has matched: "".
  std::string Push(int32_t id);

  // The end of the stream: what was held back, an unfinished character as U+FFFD. After a stop has
  // matched: "".
  std::string Flush();

  // The stop string that matched, or "".
  std::string_view matched_stop() const { return matched_stop_; }
  bool stopped() const { return !matched_stop_.empty(); }
  // Ids pushed up to and including the one that completed the stop string (all, while none
  // matched).
  int32_t num_tokens() const { return num_tokens_; }

 private:
  // Takes new text, and returns what of the text held so far can be given out.
  std::string Advance(std::string_view text);

  bool IsSkipped(int32_t id) const;

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> shown_special_;
  bool include_stop_;
  std::shared_ptr<const StopStrings> stop_;
  std::vector<uint32_t> states_;  // [stop_->size()]
  Utf8Repairer repairer_;
  std::string held_;  // text that ends in a possible beginning of a stop string
  bool at_first_token_ = true;
  bool drop_space_;  // the next character is the text's first, and is dropped when a space
  std::string matched_stop_;
  int32_t num_tokens_ = 0;
};

}  // namespace fastgen
