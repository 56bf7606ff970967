// TempKeyFile: a file of API keys in the temporary directory for the life of the object.
// Thread rule: the test's main thread.
#pragma once

#include <sys/stat.h>

#include <fstream>
#include <string>

#include "tests/testing/temporary_directory.h"

namespace fastgen::testing {

class TempKeyFile {
 public:
  explicit TempKeyFile(const std::string& text) { Write(text); }

  void Write(const std::string& text) {
    std::ofstream(path_, std::ios::trunc | std::ios::binary) << text;
    chmod(path_.c_str(), 0600);
  }
  const std::string& path() const { return path_; }

 private:
  TemporaryDirectory directory_;
  const std::string path_ = (directory_.path() / "keys").string();
};

}  // namespace fastgen::testing
