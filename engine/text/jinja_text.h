// Text: a template's string value that knows which of its bytes came from the request.
//
// Bytes are a view (into the program, the request or the render's Heap), so slices cost nothing.
// The untrusted ranges are kept through slicing, appending and per-character mapping; an operation
// that cannot map its bytes exactly marks its whole result as untrusted as soon as any input byte
// was.
// Invariants: 1. ranges are sorted, disjoint, not adjacent and none is empty; 2. a TextBuilder
// never grows beyond its limit: it drops what does not fit and remembers that it overflowed.
// Strings are UTF-8; an invalid byte counts as one character.
// Thread rule: values; one thread at a time.
// Tested by tests/engine/text/jinja_provenance_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen::jinja {

struct Text {
  std::string_view bytes;
  std::vector<ByteRange> untrusted;

  bool any_untrusted() const { return !untrusted.empty(); }
};

// Wholly trusted or wholly untrusted text.
Text MakeText(std::string_view bytes, bool untrusted);

// Bytes [begin, end) of `text` with their ranges. REQUIRES: begin <= end <= size.
Text Slice(const Text& text, size_t begin, size_t end);

// Collects bytes and their ranges up to a limit.
class TextBuilder {
 public:
  explicit TextBuilder(size_t max_bytes) : max_bytes_(max_bytes) {}

  void Append(std::string_view bytes, bool untrusted);
  void Append(const Text& text) { AppendSlice(text, 0, text.bytes.size()); }
  void AppendSlice(const Text& text, size_t begin, size_t end);

  size_t size() const { return bytes_.size(); }
  bool overflowed() const { return overflowed_; }
  std::string_view bytes() const { return bytes_; }
  const std::vector<ByteRange>& untrusted() const { return untrusted_; }
  // Gives the contents away and leaves the builder empty.
  std::pair<std::string, std::vector<ByteRange>> Take();

 private:
  void Mark(size_t begin, size_t end);

  size_t max_bytes_;
  bool overflowed_ = false;
  std::string bytes_;
  std::vector<ByteRange> untrusted_;
};

// One decoded character: its code point (U+FFFD for an invalid byte) and how many bytes it takes.
struct Character {
  char32_t code = 0;
  size_t size = 0;
  bool valid = true;
};

// REQUIRES: at < bytes.size().
Character DecodeAt(std::string_view bytes, size_t at);
std::string EncodeUtf8(char32_t code);

// Number of characters, and the byte offset of the character with that index (size of `bytes` when
// beyond).
size_t CountCharacters(std::string_view bytes);
// Where `part` first stands in `bytes` from `at` on, or npos; in time linear in both.
size_t FindPart(std::string_view bytes, std::string_view part, size_t at = 0);
size_t OffsetOfCharacter(std::string_view bytes, size_t index);

// White space as Python's str.strip() and str.split() see it.
bool IsSpace(char32_t code);
// The bounds of `bytes` without white space at its sides.
size_t SkipSpaceForward(std::string_view bytes, size_t begin);
size_t SkipSpaceBackward(std::string_view bytes, size_t end);

// Case of single characters: ASCII, Latin, Greek and Cyrillic letters; all others map to
// themselves.
char32_t UpperOf(char32_t code);
char32_t LowerOf(char32_t code);
bool IsLetter(char32_t code);

}  // namespace fastgen::jinja
