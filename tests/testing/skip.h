// SkipCase: a test case that cannot run here says so, and is counted as skipped instead of passed.
//
// ctest runs each case in a process of its own, which then ends with kSkippedExitCode
// (SKIP_RETURN_CODE in cmake/Targets.cmake); failures win over it. A case that leaves out a part
// only (an instruction set that this CPU lacks) uses WARN.
// Thread rule: the test's main thread.
#pragma once

#include <string>

namespace fastgen::testing {

inline constexpr int kSkippedExitCode = 77;

// Prints why; the caller returns from the case.
void SkipCase(const std::string& why);

}  // namespace fastgen::testing
