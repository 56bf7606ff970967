// Every tokenizer of the shared goldens that loads without a model, and those of the tree.
// Thread rule: the test's main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace fastgen::testing {

// The names; those of the shared folder only where it is.
std::vector<std::string> TokenizerNames();

// Loads one; fails the process where it cannot.
std::unique_ptr<Tokenizer> LoadByName(const std::string& name);

// The plain data that it is made of.
TokenizerSource SourceByName(const std::string& name);

}  // namespace fastgen::testing
