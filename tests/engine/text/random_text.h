// Random texts for property tests, from a seed that a failing test prints.
// Thread rule: one thread at a time.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/unicode.h"

namespace fastgen::testing {

class RandomText {
 public:
  explicit RandomText(uint64_t seed) : random_(seed) {}

  size_t Below(size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(random_);
  }

  // Any Unicode scalar value, ASCII and the marks and letters of the first planes more often.
  char32_t Character() {
    switch (Below(8)) {
      case 0:
      case 1:
      case 2:
        return static_cast<char32_t>(Below(128));
      case 3:
        return static_cast<char32_t>(Below(0x800));
      case 4:
        return U' ';
      case 5:
        return static_cast<char32_t>(0x2000 + Below(0x70));  // spaces, joiners, dashes
      case 6:
        return static_cast<char32_t>(0x1F300 + Below(0x700));
      default: {
        char32_t c = static_cast<char32_t>(Below(0x110000));
        while (c >= 0xD800 && c <= 0xDFFF) c = static_cast<char32_t>(Below(0x110000));
        return c;
      }
    }
  }

  std::string Unicode(size_t num_characters) {
    std::string text;
    for (size_t i = 0; i < num_characters; ++i) AppendUtf8(Character(), &text);
    return text;
  }

  std::string Bytes(size_t num_bytes) {
    std::string bytes;
    for (size_t i = 0; i < num_bytes; ++i) bytes.push_back(static_cast<char>(Below(256)));
    return bytes;
  }

  // Pieces of the vocabulary one after another, with something else in between now and then: what
  // merges the most.
  std::string FromPieces(const std::vector<std::string>& pieces, size_t num_pieces) {
    std::string text;
    for (size_t i = 0; i < num_pieces; ++i) {
      if (Below(8) == 0) {
        AppendUtf8(Character(), &text);
        continue;
      }
      const std::string& piece = pieces[Below(pieces.size())];
      // A part of it as often as the whole.
      text += Below(2) == 0 ? piece : piece.substr(0, 1 + Below(piece.size()));
    }
    return text;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace fastgen::testing
