// Runs one program and waits for it; no shell is involved.
// Thread rule: any thread; blocks until the program ends.
// Tested by tests/hub/default_model_test.cc.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace fastgen {

// Runs argv[0], looked up in PATH; its standard output joins our stderr, so that it cannot mix with
// what we print. It starts with no signal blocked, and SIGINT, SIGTERM and SIGPIPE end it whatever
// they do to us. NOT_FOUND when there is no such program, UNAVAILABLE with the exit code when it
// fails.
absl::Status RunProgram(const std::vector<std::string>& argv);

}  // namespace fastgen
