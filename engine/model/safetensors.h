// SafetensorsFile: one .safetensors file (https://github.com/huggingface/safetensors#format), and
// SafetensorsSet: the file or files that make a checkpoint.
//
// A file is 8 bytes of header length, a JSON object of {dtype, shape, data_offsets} by tensor name,
// and data. The bytes are not trusted: length and depth of the header are bounded, every offset is
// checked against the file, a tensor's bytes must be its shape's, and tensors cover the data
// without overlap or hole (as the format demands), which also catches a name given twice. dtypes
// F32, F16 and BF16 are read, others refused by tensor name.
// Thread rule: immutable after Open, any thread.
// Tested by tests/engine/model/safetensors_test.cc and tests/fuzz/safetensors_fuzzer.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/mapped_file.h"
#include "engine/model/stored_tensor.h"

namespace fastgen {

class SafetensorsFile {
 public:
  // INVALID_ARGUMENT or UNIMPLEMENTED: "<path>: <what is wrong>".
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);
  // As Open, over bytes that must outlive the object; `name` opens the messages.
  static absl::StatusOr<SafetensorsFile> Parse(absl::Span<const char> bytes, std::string_view name);

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  std::string path_;  // or the name that Parse was given
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
};

// The weight files of a directory: model.safetensors, or the files that
// model.safetensors.index.json names.
class SafetensorsSet {
 public:
  // NOT_FOUND when the directory has neither. INVALID_ARGUMENT when the index and the files
  // disagree: a tensor that is in another file than the index says, in none, in two, or not in the
  // index.
  static absl::StatusOr<SafetensorsSet> Open(const std::string& directory);

  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  std::vector<SafetensorsFile> files_;
};

}  // namespace fastgen
