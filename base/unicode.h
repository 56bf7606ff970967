// Unicode as tokenizers need it: is it UTF-8, what is a letter or a space, NFC, and repairing bytes
// that are not UTF-8.
//
// The repair follows the Unicode standard's rule for U+FFFD: the longest run of bytes that begins a
// character but cannot be completed (a maximal subpart) becomes one U+FFFD, and any other wrong
// byte becomes one by itself. NFC is done in linearithmic time for any input: marks are reordered
// by a stable sort and not by exchanging neighbours, which is quadratic in a run of marks.
// Thread rule: functions from any thread; a Utf8Repairer from one at a time.
// Tested by tests/base/unicode_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fastgen {

bool IsValidUtf8(std::string_view text);

struct Utf8Char {
  char32_t code_point;
  size_t num_bytes;
};

// The character that begins at `pos`. REQUIRES: `text` is UTF-8, pos is inside and at the start of
// a character.
Utf8Char DecodeUtf8(std::string_view text, size_t pos);

// Appends the character as UTF-8. REQUIRES: a scalar value.
void AppendUtf8(char32_t code_point, std::string* out);

bool IsWhitespace(char32_t code_point);
// Letters, digits, marks and connectors such as '_': what \w matches.
bool IsWordCharacter(char32_t code_point);

// The size of the extended grapheme cluster (what a reader takes for one character) that begins at
// `pos`. REQUIRES: as for DecodeUtf8, and a cluster begins there.
size_t GraphemeBytes(std::string_view text, size_t pos);

// True for characters that NFC leaves alone whatever stands before them, so that a text can be cut
// in front of them and its parts normalised apart. Not all such characters, but the most frequent
// ones.
bool IsNfcStable(char32_t code_point);

// REQUIRES: `text` is UTF-8.
std::string NormalizeNfc(std::string_view text);

// What wrong bytes turn into.
enum class Utf8Repair {
  kPerSubsequence,  // one U+FFFD for each maximal subpart
  kPerByte,         // one U+FFFD for each byte
};

// Turns a stream of bytes, in pieces of any size, into UTF-8.
class Utf8Repairer {
 public:
  explicit Utf8Repairer(Utf8Repair repair) : repair_(repair) {}

  // Appends to `out` the characters that `bytes` completes, and U+FFFD where it shows earlier bytes
  // to be wrong.
  void Push(std::string_view bytes, std::string* out);

  // The end of the stream: an unfinished character becomes U+FFFD. The repairer is then as new.
  void Finish(std::string* out);

 private:
  void PushByte(uint8_t byte, std::string* out);

  Utf8Repair repair_;
  char pending_[4] = {};     // the bytes of an unfinished character,
  size_t num_pending_ = 0;   // so many,
  size_t num_missing_ = 0;   // those that it still lacks,
  uint8_t next_min_ = 0x80;  // and the range of the next one
  uint8_t next_max_ = 0xBF;
};

}  // namespace fastgen
