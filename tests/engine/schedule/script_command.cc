#include "tests/engine/schedule/script_command.h"

#include <sstream>

namespace fastgen::testing {
namespace {

std::vector<int32_t> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream in(text);
  for (std::string id; std::getline(in, id, ',');) ids.push_back(std::stoi(id));
  return ids;
}

}  // namespace

ScriptCommand::ScriptCommand(const std::string& line) {
  std::istringstream in(line);
  in >> verb_;
  for (std::string word; in >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      throw std::invalid_argument("not key=value: " + word + " in: " + line);
    }
    words_[word.substr(0, equals)] = word.substr(equals + 1);
  }
}

std::string ScriptCommand::Text(const std::string& key, const std::string& otherwise) const {
  used_.insert(key);
  const auto it = words_.find(key);
  return it == words_.end() ? otherwise : it->second;
}

int64_t ScriptCommand::Number(const std::string& key, int64_t otherwise) const {
  return std::stoll(Text(key, std::to_string(otherwise)));
}

double ScriptCommand::Real(const std::string& key, double otherwise) const {
  return std::stod(Text(key, std::to_string(otherwise)));
}

std::vector<int32_t> ScriptCommand::Ids(const std::string& key) const {
  return ParseIds(Text(key, ""));
}

std::vector<int32_t> ScriptCommand::Prompt(const std::string& key, int64_t own_text) const {
  const std::string text = Text(key, "1");
  if (text.find(',') != std::string::npos) return ParseIds(text);
  std::vector<int32_t> tokens;
  std::istringstream in(text);
  for (std::string piece; std::getline(in, piece, '+');) {
    const size_t at = piece.find('@');
    const int64_t text_number =
        at == std::string::npos ? own_text : std::stoll(piece.substr(at + 1));
    for (int32_t i = std::stoi(piece); i > 0; --i) {
      tokens.push_back(static_cast<int32_t>(text_number * 100 + int64_t(tokens.size())));
    }
  }
  return tokens;
}

std::vector<std::string> ScriptCommand::UnusedKeys() const {
  std::vector<std::string> unused;
  for (const auto& [key, value] : words_) {
    if (used_.count(key) == 0) unused.push_back(key);
  }
  return unused;
}

}  // namespace fastgen::testing
