// FakeTokenizer: ids 0..255 are bytes, 256 is "<eos>" and 257 "<bos>" (special), further ids are
// the pieces that the test names. For tests of what stands above a tokenizer.
// Thread rule: immutable after construction; any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen::testing {

class FakeTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEos = 256;
  static constexpr int32_t kBos = 257;
  static constexpr int32_t kFirstPiece = 258;

  explicit FakeTokenizer(std::vector<std::string> pieces = {}) {
    for (int byte = 0; byte < 256; ++byte) {
      bytes_.push_back(std::string(1, static_cast<char>(byte)));
    }
    bytes_.push_back("<eos>");
    bytes_.push_back("<bos>");
    for (std::string& piece : pieces) bytes_.push_back(std::move(piece));
  }

  // Bytes only; add_special_tokens puts <bos> in front.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids.push_back(kBos);
    for (char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string_view TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size()) return "";
    return bytes_[id];
  }
  bool IsSpecial(int32_t id) const override { return id == kEos || id == kBos; }
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  bool has_byte_fallback() const override { return false; }
  std::optional<int32_t> bos_id() const override { return kBos; }

 private:
  std::vector<std::string> bytes_;
};

}  // namespace fastgen::testing
