// Catch2's main, compiled once for all test executables.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <iostream>

#include "tests/testing/skip.h"

namespace fastgen::testing {
namespace {

bool any_skipped = false;

}  // namespace

void SkipCase(const std::string& why) {
  any_skipped = true;
  std::cerr << "skipped: " << why << "\n";
}

}  // namespace fastgen::testing

int main(int argc, char* argv[]) {
  const int result = Catch::Session().run(argc, argv);
  if (result != 0 || !fastgen::testing::any_skipped) return result;
  return fastgen::testing::kSkippedExitCode;
}
