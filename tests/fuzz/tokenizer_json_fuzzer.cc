// Feeds arbitrary bytes to the reader of tokenizer.json; a tokenizer that comes of it must encode
// and decode, and nothing that is typed may become special.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // The first line is the configuration, the rest the tokenizer.
  const size_t line = input.find('\n');
  const std::string_view config =
      line == std::string_view::npos ? std::string_view() : input.substr(0, line);
  const std::string_view json = line == std::string_view::npos ? input : input.substr(line + 1);
  auto source = fastgen::ParseTokenizerJson(json, config);
  if (!source.ok()) return 0;
  const auto unknown_id = source->unknown_id;
  const auto tokenizer = fastgen::MakeTokenizer(*std::move(source));
  if (!tokenizer.ok()) return 0;
  const std::string text =
      "It's 12 a  b\n<s> e\u0301\ufb01  \r\n\u6f22\u2581<unk> " + std::string(100, 'a');
  const auto ids = (*tokenizer)->Encode(text, {});
  if (ids.ok()) fastgen::DecodeAll(**tokenizer, *ids, /*skip_special_tokens=*/false);
  const fastgen::ByteRange all = {0, text.size()};
  const auto typed =
      (*tokenizer)->Encode(text, {.add_special_tokens = false, .untrusted = {&all, 1}});
  if (!typed.ok()) return 0;
  for (const int32_t id : *typed) {
    // The unknown token stands for what has no piece, and may be named as a special one.
    if ((*tokenizer)->IsSpecial(id) && id != unknown_id) std::abort();
  }
  return 0;
}
