// LineReader: lines from a terminal with editing and history (libedit), or plainly from a pipe.
// Thread rule: one thread.
#pragma once

#include <optional>
#include <string>

namespace fastgen {

class LineReader {
 public:
  LineReader();

  // Shows `prompt` and reads one line without its end; nullopt at the end of input (Ctrl-D).
  std::optional<std::string> Read(const std::string& prompt);

 private:
  const bool is_terminal_;
};

}  // namespace fastgen
