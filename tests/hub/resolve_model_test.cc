#include "hub/resolve_model.h"

#include <fstream>

#include "tests/hub/fake_hub.h"
#include "tests/hub/scoped_env.h"
#include "tests/testing/temporary_directory.h"
#undef CHECK
#include <catch2/catch.hpp>

#include "absl/strings/match.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;
using testing::FakeHub;
using testing::ScopedEnv;
using testing::TemporaryDirectory;

TEST_CASE("a path must be a directory with a config or a .gguf file", "[hub]") {
  TemporaryDirectory directory;
  const fs::path& base = directory.path();
  CHECK(absl::StrContains(ResolveModel(base.string()).status().message(), "config.json"));
  std::ofstream(base / "config.json") << "{}";
  CHECK(*ResolveModel(base.string()) == base.string());
  std::ofstream(base / "m.gguf") << "x";
  CHECK(*ResolveModel((base / "m.gguf").string()) == (base / "m.gguf").string());
  std::ofstream(base / "m.bin") << "x";
  CHECK(ResolveModel((base / "m.bin").string()).status().code() ==
        absl::StatusCode::kInvalidArgument);
}

TEST_CASE("a model of a hub is called what its users call it", "[hub]") {
  CHECK(HubNameOf("org/name") == "org/name");
  CHECK(HubNameOf("org/name@v1.0") == "org/name");
  CHECK(HubNameOf("org/name:m.Q4_K_M.gguf") == "");
  CHECK(HubNameOf("") == "");
  CHECK(HubNameOf("models/m.gguf") == "");
  TemporaryDirectory directory;
  CHECK(HubNameOf(directory.path().string()) == "");
}

TEST_CASE("what looks like a path and is none is not asked of a hub", "[hub]") {
  FakeHub hub;
  ScopedEnv endpoint("HF_ENDPOINT", hub.endpoint());
  for (const char* text : {"./no/model", "/no/model", "../no-such-model", "~/model", "model",
                           "a/b/c", "models/m.gguf"}) {
    INFO(text);
    const absl::Status status = ResolveModel(text).status();
    CHECK(status.code() == absl::StatusCode::kNotFound);
    CHECK(absl::StrContains(status.message(), text));
    CHECK(absl::StrContains(status.message(), "org/name"));
  }
  CHECK(hub.requests().empty());
}

TEST_CASE("an id is fetched into the cache of the environment", "[hub]") {
  FakeHub hub;
  hub.SetFiles({{"config.json", "{}"},
                {"tokenizer.json", "{}"},
                {"model.safetensors", testing::SomeBytes(9000)}});
  TemporaryDirectory directory;
  ScopedEnv endpoint("HF_ENDPOINT", hub.endpoint());
  ScopedEnv cache("HF_HUB_CACHE", directory.path().string());
  ScopedEnv offline("HF_HUB_OFFLINE", std::nullopt);
  int64_t done = 0, total = 0;
  const auto path = ResolveModel("org/model", [&](int64_t done_bytes, int64_t total_bytes) {
    done = done_bytes;
    total = total_bytes;
  });
  REQUIRE(path.ok());
  CHECK(*path ==
        (directory.path() / "models--org--model" / "snapshots" / testing::kCommit).string());
  CHECK((done == 9004 && total == 9004));
  ScopedEnv now_offline("HF_HUB_OFFLINE", "1");
  CHECK(*ResolveModel("org/model") == *path);
  const absl::Status absent = ResolveModel("org/other").status();
  CHECK(absent.code() == absl::StatusCode::kNotFound);
  CHECK(absl::StrContains(absent.message(), "HF_HUB_OFFLINE"));
}

}  // namespace
}  // namespace fastgen
