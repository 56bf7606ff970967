// TinyText: the text side of a tiny model: a byte-level BPE of the 256 bytes, one merge and four
// added tokens, as GGUF metadata or as tokenizer.json. The ids of the first three are those that
// TinyModel's configuration names.
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
  static constexpr int32_t kStart = 0;  // "<|start|>", control
  static constexpr int32_t kEnd = 1;    // "<|end|>", control
  static constexpr int32_t kTurn = 2;   // "<|turn|>", control

  std::string model = "gpt2";
  std::string pre = "smollm";
  std::vector<std::string> pieces;
  std::vector<int32_t> types;
  std::vector<std::string> merges = {"h i"};
  // nullopt: the key is left out.
  std::optional<uint32_t> bos_id = kStart;
  std::optional<uint32_t> eos_id = kEnd;
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
