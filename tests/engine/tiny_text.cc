#include "tests/engine/tiny_text.h"

#include <boost/json.hpp>
#include <utility>

#include "engine/text/byte_alphabet.h"

namespace fastgen::testing {
namespace {

constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;

}  // namespace

TinyText::TinyText() {
  const auto add = [this](std::string piece, int32_t type) {
    pieces.push_back(std::move(piece));
    types.push_back(type);
  };
  add("<|start|>", kControl);
  add("<|end|>", kControl);
  add("<|turn|>", kControl);
  add("<tool>", kUserDefined);
  for (int byte = 0; byte < 256; ++byte) {
    add(AlphabetCharacter(static_cast<uint8_t>(byte)), kNormal);
  }
  add("hi", kNormal);
  add("[unused]", kUnused);
}

void TinyText::AddTo(GgufWriter* writer) const {
  writer->String("tokenizer.ggml.model", model);
  writer->String("tokenizer.ggml.pre", pre);
  writer->StringArray("tokenizer.ggml.tokens", pieces);
  writer->I32Array("tokenizer.ggml.token_type", types);
  writer->StringArray("tokenizer.ggml.merges", merges);
  if (bos_id.has_value()) writer->U32("tokenizer.ggml.bos_token_id", *bos_id);
  if (eos_id.has_value()) writer->U32("tokenizer.ggml.eos_token_id", *eos_id);
  writer->U32("tokenizer.ggml.eot_token_id", kTurn);
  if (add_bos.has_value()) writer->Bool("tokenizer.ggml.add_bos_token", *add_bos);
  writer->String("tokenizer.chat_template", chat_template);
}

std::string TinyText::TokenizerJson() const {
  boost::json::object vocab;
  boost::json::array added;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (types[i] == kNormal) {
      vocab[pieces[i]] = i;
    } else {
      added.push_back({{"id", i},
                       {"content", pieces[i]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types[i] == kControl}});
    }
  }
  boost::json::array merge_list;
  for (const std::string& merge : merges) merge_list.emplace_back(merge);
  boost::json::object byte_level = {{"type", "ByteLevel"},
                                    {"add_prefix_space", false},
                                    {"trim_offsets", true},
                                    {"use_regex", true}};
  const boost::json::object root = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merge_list}}}};
  return boost::json::serialize(root);
}

}  // namespace fastgen::testing
