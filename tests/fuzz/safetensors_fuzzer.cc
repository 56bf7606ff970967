// Fuzzes what a checkpoint directory holds: the bytes as a safetensors file, whose tensors must lie
// inside it, and as config.json and generation_config.json.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = absl::MakeConstSpan(reinterpret_cast<const char*>(data), size);
  const auto file = fastgen::SafetensorsFile::Parse(bytes, "fuzz");
  if (file.ok()) {
    for (const fastgen::StoredTensor& tensor : file->tensors()) {
      CHECK(tensor.data >= bytes.data() && tensor.bytes > 0);
      CHECK(tensor.data + tensor.bytes <= bytes.data() + bytes.size()) << tensor.name;
    }
  }
  const std::string_view text(bytes.data(), bytes.size());
  const auto config = fastgen::ParseHfConfig(text, text);
  if (config.ok()) CHECK(fastgen::CheckConfig(*config).ok());
  return 0;
}
