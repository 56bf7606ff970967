// Fuzzes GgufFile and ParseGgufConfig: any bytes are a file whose values, tensors and shape can be
// read without leaving the bytes, or are refused with a message.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = absl::MakeConstSpan(reinterpret_cast<const char*>(data), size);
  const auto file = fastgen::GgufFile::Parse(bytes, "fuzz");
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  for (const std::string& key : file->keys()) {
    CHECK(file->Has(key));
    file->FindString(key);
    file->FindInt(key);
    file->FindFloat(key);
    file->FindBool(key);
    file->FindStringArray(key);
    file->FindIntArray(key);
    file->FindFloatArray(key);
  }
  uint64_t sum = 0;
  for (const fastgen::StoredTensor& tensor : file->tensors()) {
    CHECK(tensor.data >= bytes.data() && tensor.bytes > 0);
    CHECK(tensor.data + tensor.bytes <= bytes.data() + bytes.size()) << tensor.name;
    sum += static_cast<uint8_t>(tensor.data[0]);
    sum += static_cast<uint8_t>(tensor.data[tensor.bytes - 1]);
  }
  CHECK_LE(sum, 510 * file->tensors().size());
  const auto config = fastgen::ParseGgufConfig(*file);
  if (config.ok()) CHECK(fastgen::CheckConfig(*config).ok());
  return 0;
}
