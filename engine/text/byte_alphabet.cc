#include "engine/text/byte_alphabet.h"

#include <array>

#include "base/unicode.h"

namespace fastgen {
namespace {

constexpr int kNumCharacters = 0x144;  // the highest is U+0143

struct Alphabet {
  std::array<int16_t, kNumCharacters> byte_of;  // -1: not in the alphabet
  std::array<char32_t, 256> character_of;
};

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet{};
  for (int16_t& byte : alphabet.byte_of) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = StandsForItself(byte) ? byte : next++;
    alphabet.byte_of[static_cast<size_t>(character)] = static_cast<int16_t>(byte);
    alphabet.character_of[static_cast<size_t>(byte)] = static_cast<char32_t>(character);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::optional<std::string> BytesFromAlphabet(std::string_view piece) {
  if (!IsValidUtf8(piece)) return std::nullopt;
  std::string bytes;
  for (size_t pos = 0; pos < piece.size();) {
    const Utf8Char c = DecodeUtf8(piece, pos);
    pos += c.num_bytes;
    if (c.code_point >= kNumCharacters || kAlphabet.byte_of[c.code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte_of[c.code_point]));
  }
  return bytes;
}

std::string AlphabetCharacter(uint8_t byte) {
  std::string character;
  AppendUtf8(kAlphabet.character_of[byte], &character);
  return character;
}

}  // namespace fastgen
