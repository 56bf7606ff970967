// Runs tests/testdata/schedule/*.txt: commands to a scheduler and what it must answer.
//
// A script is a list of blocks: a line with a command (script_runner.h lists them), a line "----", the expected answer,
// an empty line. Lines that begin with # before a command are comments. FASTGEN_REWRITE_SCRIPTS=1 writes what the
// scheduler answers now into the scripts; review that as a diff.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/engine/schedule/script_runner.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

// Runs one script; returns it with the answers that the scheduler gives. Checks them unless it
// rewrites.
enum class Answers { kCheck, kRewrite };

std::string RunScript(const std::string& text, Answers answers) {
  std::istringstream in(text);
  std::ostringstream out;
  ScriptRunner runner;
  for (std::string line; std::getline(in, line);) {
    out << line << "\n";
    if (line.empty() || line[0] == '#') continue;
    std::string separator;
    std::string expected;
    std::getline(in, separator);
    INFO("command: " << line);
    REQUIRE(separator == "----");
    for (std::string answer; std::getline(in, answer) && !answer.empty();) {
      expected += answer + "\n";
    }
    const std::string actual = runner.Run(ScriptCommand(line));
    if (answers == Answers::kCheck) CHECK(actual == expected);
    out << "----\n" << actual << "\n";
  }
  return out.str();
}

std::vector<std::filesystem::path> Scripts() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(SourceTestdata() / "schedule")) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST_CASE("the scheduler answers every script as written", "[schedule]") {
  const bool rewrites = std::getenv("FASTGEN_REWRITE_SCRIPTS") != nullptr;
  const std::vector<std::filesystem::path> scripts = Scripts();
  CHECK(scripts.size() >= 36);
  for (const std::filesystem::path& path : scripts) {
    INFO("script: " << path.filename());
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    const std::string answered =
        RunScript(text.str(), rewrites ? Answers::kRewrite : Answers::kCheck);
    if (rewrites) std::ofstream(path) << answered;
  }
}

TEST_CASE("a script that says something else than the scheduler is seen", "[schedule]") {
  const std::string script = "new\n----\nok\n\nadd id=1 prompt=2 max=1\n----\nok\n\nplan\n----\n";
  CHECK(RunScript(script + "wrong\n\n", Answers::kRewrite) ==
        script + "step 1, 2 tokens\n  1: chunk [0,2) 100 101 | blocks 0 | samples #0\n\n");
}

TEST_CASE("a script's mistakes are named, not passed over", "[schedule]") {
  ScriptRunner runner;
  CHECK_THROWS_WITH(runner.Run(ScriptCommand("plan")), "a script begins with new");
  runner.Run(ScriptCommand("new"));
  CHECK_THROWS_WITH(runner.Run(ScriptCommand("add id=1 promt=3")), "add has no promt");
  CHECK_THROWS_WITH(runner.Run(ScriptCommand("ad id=1")), "unknown command: ad");
  CHECK_THROWS_WITH(runner.Run(ScriptCommand("commit")), "commit: no plan is in flight");
  CHECK_THROWS_WITH(ScriptCommand("add id"), "not key=value: id in: add id");
}

}  // namespace
}  // namespace fastgen::testing
