// Feeds arbitrary bytes to the reader of tekken.json. A file has at least 256 ranks, which no
// fuzzer finds: so the input is also taken as what stands around them.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer.h"

namespace {

void Try(std::string_view json) {
  auto source = fastgen::ParseTekken(json);
  if (!source.ok()) return;
  const auto tokenizer = fastgen::MakeTokenizer(*std::move(source));
  if (!tokenizer.ok()) return;
  const auto ids = (*tokenizer)->Encode("It's 12 a  b\n<s> e\u0301\u6f22 aaaaaaaaaaaaaaaaaaaa", {});
  if (ids.ok()) fastgen::DecodeAll(**tokenizer, *ids, /*skip_special_tokens=*/false);
}

// The 256 single bytes, then the lines of `rest` as further ranks.
std::string Ranks(std::string_view rest, size_t* num_ranks) {
  std::string vocab;
  *num_ranks = 0;
  const auto add = [&](std::string_view bytes) {
    std::string base64;
    absl::Base64Escape(fastgen::ToAbsl(bytes), &base64);
    absl::StrAppend(&vocab, *num_ranks == 0 ? "" : ",", "{\"rank\":", *num_ranks,
                    ",\"token_bytes\":\"", base64, "\"}");
    ++*num_ranks;
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0) add(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return vocab;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  Try(input);
  size_t num_ranks = 0;
  const std::string vocab = Ranks(input, &num_ranks);
  Try(absl::StrCat(R"({"config":{"pattern":"\\S+|\\s+","default_vocab_size":)", num_ranks + 3,
                   R"(,"default_num_special_tokens":3},"vocab":[)", vocab, "]}"));
  return 0;
}
