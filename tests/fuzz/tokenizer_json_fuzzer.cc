// Feeds arbitrary bytes to the reader of tokenizer.json; a tokenizer that comes of it must encode
// and decode.
#include <cstddef>
#include <cstdint>
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
  const auto tokenizer = fastgen::MakeTokenizer(*std::move(source));
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode("It's 12 a  b\n<s> e\u0301\u6f22", {});
  if (ids.ok()) fastgen::DecodeAll(**tokenizer, *ids, /*skip_special_tokens=*/false);
  return 0;
}
