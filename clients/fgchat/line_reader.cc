#include "clients/fgchat/line_reader.h"

#include <editline/readline.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <iostream>

namespace fastgen {

LineReader::LineReader() : is_terminal_(isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0) {
  if (!is_terminal_) return;
  std::setlocale(LC_CTYPE, "");  // libedit needs it to edit anything but ASCII
  using_history();
}

std::optional<std::string> LineReader::Read(const std::string& prompt) {
  if (is_terminal_) {
    char* line = readline(prompt.c_str());
    if (line == nullptr) return std::nullopt;
    std::string text = line;
    if (!text.empty()) add_history(line);
    std::free(line);
    return text;
  }
  std::cout << prompt << std::flush;
  std::string text;
  if (!std::getline(std::cin, text)) return std::nullopt;
  return text;
}

}  // namespace fastgen
