// The byte alphabet of byte-level BPE: 256 printable characters that stand for the 256 bytes, so
// that a vocabulary of arbitrary bytes can be written as text.
//
// Printable Latin-1 characters ('!' to '~', U+00A1 to U+00AC, U+00AE to U+00FF) stand for the byte
// of their number; the other 68 bytes, in order, are U+0100 to U+0143. A space is U+0120, a line
// feed U+010A.
// Thread rule: any thread.
// Tested by tests/engine/text/bpe_tokenizer_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fastgen {

// The bytes that `piece` stands for; nullopt where it is not UTF-8 or has a character that is not
// in the alphabet.
std::optional<std::string> BytesFromAlphabet(std::string_view piece);

// The character that stands for `byte`.
std::string AlphabetCharacter(uint8_t byte);

}  // namespace fastgen
