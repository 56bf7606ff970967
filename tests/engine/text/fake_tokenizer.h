// A tokenizer whose tokens are whatever a test says: TokenBytes and IsSpecial from a list, Encode
// refused. Thread rule: immutable after construction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen::testing {

class FakeTokenizer final : public Tokenizer {
 public:
  struct Token {
    std::string bytes;
    bool special = false;
  };
  explicit FakeTokenizer(std::vector<Token> tokens, bool byte_fallback = false)
      : tokens_(std::move(tokens)), byte_fallback_(byte_fallback) {}

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const EncodeOptions&) const override {
    return absl::UnimplementedError("a fake");
  }
  std::string_view TokenBytes(int32_t id) const override {
    return id >= 0 && id < vocab_size() ? std::string_view(tokens_[static_cast<size_t>(id)].bytes)
                                        : std::string_view();
  }
  bool IsSpecial(int32_t id) const override {
    return id >= 0 && id < vocab_size() && tokens_[static_cast<size_t>(id)].special;
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  bool has_byte_fallback() const override { return byte_fallback_; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }

 private:
  std::vector<Token> tokens_;
  bool byte_fallback_;
};

}  // namespace fastgen::testing
