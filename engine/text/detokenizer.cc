#include "engine/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fastgen {

Detokenizer::Detokenizer(const Tokenizer* tokenizer, DetokenizerOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      repairer_(tokenizer->has_byte_fallback() ? Utf8Repair::kPerByte
                                               : Utf8Repair::kPerSubsequence),
      drop_space_(tokenizer->has_byte_fallback()) {
  for (const std::string& stop : options_.stop) {
    CHECK(!stop.empty()) << "an empty stop string";
    if (!IsValidUtf8(stop))
      continue;  // never part of a text, and must not hold back half a character
    StopMatcher matcher{stop, std::vector<uint32_t>(stop.size() + 1, 0), 0};
    for (size_t i = 1; i < stop.size(); ++i) {
      uint32_t length = matcher.fallback[i];
      while (length > 0 && stop[length] != stop[i]) length = matcher.fallback[length];
      matcher.fallback[i + 1] = stop[length] == stop[i] ? length + 1 : 0;
    }
    matchers_.push_back(std::move(matcher));
  }
}

bool Detokenizer::StopMatcher::Push(char byte) {
  while (state > 0 && stop[state] != byte) state = fallback[state];
  if (stop[state] == byte) ++state;
  return state == stop.size();
}

std::string Detokenizer::Push(int32_t id) {
  if (stopped()) return "";
  ++num_tokens_;
  if (options_.skip_special_tokens && tokenizer_->IsSpecial(id)) return "";
  std::string text;
  repairer_.Push(tokenizer_->TokenBytes(id), &text);
  return Advance(text);
}

std::string Detokenizer::Flush() {
  if (stopped()) return "";
  std::string rest;
  repairer_.Finish(&rest);
  std::string text = Advance(rest);
  if (!stopped()) text += std::exchange(held_, "");
  return text;
}

std::string Detokenizer::Advance(std::string_view text) {
  if (drop_space_ && !text.empty()) {
    drop_space_ = false;
    if (text[0] == ' ') text.remove_prefix(1);
  }
  if (matchers_.empty()) return std::string(text);
  const size_t num_held = held_.size();
  held_ += text;
  size_t num_undecided = 0;  // bytes at the end that may become a stop string
  for (size_t i = num_held; i < held_.size(); ++i) {
    const StopMatcher* longest = nullptr;
    num_undecided = 0;
    for (StopMatcher& matcher : matchers_) {
      if (matcher.Push(held_[i]) &&
          (longest == nullptr || matcher.stop.size() > longest->stop.size())) {
        longest = &matcher;
      }
      num_undecided = std::max<size_t>(num_undecided, matcher.state);
    }
    if (longest != nullptr) {
      matched_stop_ = longest->stop;
      held_.resize(i + 1 - (options_.include_stop ? 0 : longest->stop.size()));
      return std::exchange(held_, "");
    }
  }
  if (text.empty()) return "";
  std::string out = held_.substr(0, held_.size() - num_undecided);
  held_.erase(0, out.size());
  return out;
}

}  // namespace fastgen
