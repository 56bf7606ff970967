// TinyText: the text side of a tiny model: a byte-level BPE of the 256 bytes, one merge and four
// added tokens, as GGUF metadata or as tokenizer.json.
// Thread rule: value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/testing/weight_file_writer.h"

namespace fastgen::testing {

struct TinyText {
  static constexpr int32_t kVocab = 262;
  static constexpr int32_t kHi = 256;     // "hi"
  static constexpr int32_t kStart = 257;  // "<|start|>", control
  static constexpr int32_t kEnd = 258;    // "<|end|>", control
  static constexpr int32_t kTurn = 259;   // "<|turn|>", control

  std::string model = "gpt2";
  std::string pre = "smollm";
  std::vector<std::string> pieces;
  std::vector<int32_t> types;
  std::vector<std::string> merges = {"h i"};
  uint32_t eos_id = kEnd;
  std::optional<bool> add_bos;
  std::string chat_template =
      "{{ bos_token }}{% for message in messages %}{{ message.role }}:{{ message.content }}"
      "<|end|>{% endfor %}";

  TinyText();
  // The tokenizer.* keys.
  void AddTo(GgufWriter* writer) const;
  std::string TokenizerJson() const;
};

}  // namespace fastgen::testing
