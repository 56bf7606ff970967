#include "engine/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fastgen {

StopStrings::StopStrings(const std::vector<std::string>& stop) {
  for (const std::string& text : stop) {
    CHECK(!text.empty()) << "an empty stop string";
    // Never part of a text, and must not hold back half a character.
    if (!IsValidUtf8(text)) continue;
    Pattern& pattern = patterns_.emplace_back();
    pattern.text = text;
    pattern.fallback.assign(text.size() + 1, 0);
    for (size_t i = 1; i < text.size(); ++i) {
      uint32_t length = pattern.fallback[i];
      while (length > 0 && text[length] != text[i]) length = pattern.fallback[length];
      pattern.fallback[i + 1] = text[length] == text[i] ? length + 1 : 0;
    }
  }
}

uint32_t StopStrings::Next(size_t i, uint32_t state, char byte) const {
  const Pattern& pattern = patterns_[i];
  while (state > 0 && pattern.text[state] != byte) state = pattern.fallback[state];
  return pattern.text[state] == byte ? state + 1 : state;
}

Detokenizer::Detokenizer(const Tokenizer* tokenizer, DetokenizerOptions options)
    : tokenizer_(tokenizer),
      skip_special_tokens_(options.skip_special_tokens),
      shown_special_(std::move(options.shown_special)),
      include_stop_(options.include_stop),
      stop_(std::move(options.compiled_stop)),
      repairer_(tokenizer->has_byte_fallback() ? Utf8Repair::kPerByte
                                               : Utf8Repair::kPerSubsequence),
      drop_space_(tokenizer->drops_first_space()) {
  if (stop_ == nullptr) stop_ = std::make_shared<StopStrings>(options.stop);
  states_.assign(stop_->size(), 0);
}

std::string Detokenizer::Push(int32_t id) {
  if (stopped()) return "";
  ++num_tokens_;
  if (IsSkipped(id)) return "";
  std::string text;
  const std::string_view bytes = tokenizer_->TokenBytes(id);
  repairer_.Push(at_first_token_ ? tokenizer_->FirstTokenBytes(id) : bytes, &text);
  at_first_token_ = at_first_token_ && bytes.empty();  // a hole in the vocabulary is no token
  return Advance(text);
}

bool Detokenizer::IsSkipped(int32_t id) const {
  return skip_special_tokens_ && tokenizer_->IsSpecial(id) &&
         !std::binary_search(shown_special_.begin(), shown_special_.end(), id);
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
  if (states_.empty()) return std::string(text);
  const size_t num_held = held_.size();
  held_ += text;
  size_t num_undecided = 0;  // bytes at the end that may become a stop string
  for (size_t i = num_held; i < held_.size(); ++i) {
    const std::string* longest = nullptr;
    num_undecided = 0;
    for (size_t j = 0; j < states_.size(); ++j) {
      const std::string& stop = stop_->text(j);
      states_[j] = stop_->Next(j, states_[j], held_[i]);
      const bool ends = states_[j] == stop.size();
      if (ends && (longest == nullptr || stop.size() > longest->size())) longest = &stop;
      num_undecided = std::max<size_t>(num_undecided, states_[j]);
    }
    if (longest != nullptr) {
      matched_stop_ = *longest;
      held_.resize(i + 1 - (include_stop_ ? 0 : longest->size()));
      return std::exchange(held_, "");
    }
  }
  if (text.empty()) return "";
  std::string out = held_.substr(0, held_.size() - num_undecided);
  held_.erase(0, out.size());
  return out;
}

}  // namespace fastgen
