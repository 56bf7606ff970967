// ScriptCommand: one line of a scheduler script, a verb and key=value words.
//
// A key that no command asked for is a mistake of the script, so that a misspelt option does not silently mean its
// default: UnusedKeys() names those.
// Thread rule: a value. Tested by every script (script_test.cc).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastgen::testing {

class ScriptCommand {
 public:
  // Throws std::invalid_argument when a word is not key=value.
  explicit ScriptCommand(const std::string& line);

  const std::string& verb() const { return verb_; }
  std::string Text(const std::string& key, const std::string& otherwise) const;
  int64_t Number(const std::string& key, int64_t otherwise) const;
  int32_t Int(const std::string& key, int32_t otherwise) const {
    return static_cast<int32_t>(Number(key, otherwise));
  }
  double Real(const std::string& key, double otherwise) const;
  // Numbers with commas; none when the key is absent.
  std::vector<int32_t> Ids(const std::string& key) const;
  // A prompt: ids with commas ("5,6,7"; one id is "5,"), or lengths joined by "+": "6" is 6 tokens of the text
  // `own_text`, "4@1+2" is 4 tokens of text 1 and 2 of its own. Token i of the prompt, of text t, is t * 100 + i.
  std::vector<int32_t> Prompt(const std::string& key, int64_t own_text) const;

  std::vector<std::string> UnusedKeys() const;

 private:
  std::string verb_;
  std::map<std::string, std::string> words_;
  mutable std::set<std::string> used_;
};

}  // namespace fastgen::testing
