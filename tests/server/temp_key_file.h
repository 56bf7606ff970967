// TempKeyFile: a file of API keys in the temporary directory for the life of the object.
// Thread rule: the test's main thread.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

namespace fastgen::testing {

class TempKeyFile {
 public:
  explicit TempKeyFile(const std::string& text) {
    static std::atomic<int> num_files = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("fastgen-keys-" + std::to_string(getpid()) + "-" + std::to_string(num_files++)))
                .string();
    Write(text);
  }
  ~TempKeyFile() { std::filesystem::remove(path_); }
  TempKeyFile(const TempKeyFile&) = delete;
  TempKeyFile& operator=(const TempKeyFile&) = delete;

  void Write(const std::string& text) {
    std::ofstream(path_, std::ios::trunc | std::ios::binary) << text;
    chmod(path_.c_str(), 0600);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace fastgen::testing
