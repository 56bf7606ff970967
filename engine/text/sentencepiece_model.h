// SentencePieceModel: a tokenizer.model, read and applied by the sentencepiece library.
//
// A wall around the library's header, which declares its own absl::string_view and so cannot share
// a source file with Abseil: nothing here or in the .cc knows of Abseil.
// Thread rule: immutable after Load; any thread.
// Tested by tests/engine/text/sentencepiece_tokenizer_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fastgen {

class SentencePieceModel {
 public:
  enum class Kind { kText, kByte, kControl, kUnknown, kUnused };

  // Reads a serialised ModelProto. nullptr, and `error` says why, when it is not one.
  static std::unique_ptr<SentencePieceModel> Load(std::string_view serialized, std::string* error);
  ~SentencePieceModel();

  // False, and `error` says why, when the library refuses the text.
  bool Encode(std::string_view text, std::vector<int>* ids, std::string* error) const;

  int32_t num_pieces() const;
  Kind KindOf(int32_t id) const;
  std::string Piece(int32_t id) const;
  int32_t bos_id() const;  // -1: none

 private:
  struct Library;
  SentencePieceModel();
  std::unique_ptr<Library> library_;
};

}  // namespace fastgen
