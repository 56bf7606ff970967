// Feeds arbitrary tokens and stop strings to a Detokenizer: every piece must be UTF-8, and the
// pieces must make up what decoding the whole gives, up to the first stop string.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/unicode.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace {

// Tokens that are slices of the input.
class SliceTokenizer final : public fastgen::Tokenizer {
 public:
  std::vector<std::string> tokens;
  bool byte_fallback = false;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const fastgen::EncodeOptions&) const override {
    return std::vector<int32_t>();
  }
  std::string_view TokenBytes(int32_t id) const override { return tokens[static_cast<size_t>(id)]; }
  bool IsSpecial(int32_t id) const override { return id % 7 == 3; }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens.size()); }
  bool has_byte_fallback() const override { return byte_fallback; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
};

}  // namespace

// The first byte holds flags; then come slices, each after a byte that gives its length and whether
// it is a token or a stop string.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  SliceTokenizer tokenizer;
  tokenizer.byte_fallback = (data[0] & 1) != 0;
  fastgen::DetokenizerOptions options;
  options.skip_special_tokens = (data[0] & 2) != 0;
  options.include_stop = true;  // so that the text up to the stop can be compared
  for (size_t pos = 1; pos < size;) {
    const size_t length = std::min<size_t>(data[pos] & 15, size - pos - 1);
    const bool is_stop = (data[pos] & 0xF0) == 0xF0;
    std::string slice(reinterpret_cast<const char*>(data) + pos + 1, length);
    pos += length + 1;
    if (!is_stop) {
      tokenizer.tokens.push_back(std::move(slice));
    } else if (!slice.empty()) {
      options.stop.push_back(std::move(slice));
    }
  }
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) ids.push_back(id);
  const std::string whole = fastgen::DecodeAll(tokenizer, ids, options.skip_special_tokens);

  fastgen::Detokenizer detokenizer(&tokenizer, options);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.Push(id);
    CHECK(fastgen::IsValidUtf8(piece));
    text += piece;
  }
  text += detokenizer.Flush();
  size_t end = whole.size();
  for (const std::string& stop : options.stop) {
    if (!fastgen::IsValidUtf8(stop)) continue;
    const size_t found = whole.find(stop);
    if (found != std::string::npos) end = std::min(end, found + stop.size());
  }
  CHECK(text == whole.substr(0, end));
  return 0;
}
