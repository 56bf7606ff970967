// CharacterMap: the table by which a sentencepiece normalizer replaces characters (Precompiled in
// tokenizer.json, precompiled_charsmap in tokenizer.model).
//
// The table is a size, a double array of that many bytes, and texts that end with a zero. A unit of
// the array leads to the unit at (its place ^ its offset ^ the next byte), and where its leaf bit
// is set to a value at (place ^ offset): a place in the texts. All are checked before use, so that
// no text can lead outside. Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/character_map_test.cc and sentencepiece_source_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

class CharacterMap {
 public:
  // INVALID_ARGUMENT, beginning with `name`, for a table that points outside itself.
  static absl::StatusOr<CharacterMap> Parse(std::string_view bytes, std::string_view name);

  // What the shortest beginning of `text` that has an entry becomes; nullopt: none has one.
  std::optional<std::string_view> Find(std::string_view text) const;

  // How many times longer an entry may make the text that it replaces, rounded up.
  size_t MaxGrowth() const;

 private:
  CharacterMap() = default;

  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace fastgen
