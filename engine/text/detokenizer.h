// Detokenizer: one stream's ids to text, incrementally.
//
// Gives out only whole UTF-8, holds back what may still become a stop string, and cuts text and tokens together.
// The concatenation of all deltas and Flush() equals DecodeAll of the same ids (up to the stop).
// Thread rule: one thread at a time (the completion thread). Holds a reference to the tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen {

struct DetokenizerOptions {
  bool skip_special_tokens = true;
  std::vector<std::string> stop;  // stop strings, none empty
  bool include_stop = false;
};

class Detokenizer {
 public:
  Detokenizer(const Tokenizer* tokenizer, DetokenizerOptions options);

  // Feeds one id; returns the text that can be given out now. After a stop string has matched: "".
  std::string Push(int32_t id);

  // The end of the stream: what was held back, an unfinished character as U+FFFD. After a stop has matched: "".
  std::string Flush();

  // The stop string that matched, or "".
  std::string_view matched_stop() const { return matched_stop_; }
  bool stopped() const { return !matched_stop_.empty(); }
  // Ids pushed up to and including the one that completed the stop string (all, while none matched).
  int32_t num_tokens() const { return num_tokens_; }

 private:
  // To be completed by the detokenizer's author.
  const Tokenizer* tokenizer_;
  DetokenizerOptions options_;
  std::string matched_stop_;
  int32_t num_tokens_ = 0;
};

}  // namespace fastgen
