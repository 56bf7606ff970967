#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "hub/backoff.h"
#include "hub/digest.h"
#include "hub/file_lock.h"
#include "hub/http_client.h"
#include "hub/hub_id.h"
#include "hub/hub_settings.h"
#include "tests/hub/scoped_env.h"
#include "tests/testing/temporary_directory.h"
#undef CHECK
#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using testing::ScopedEnv;
using testing::TemporaryDirectory;

TEST_CASE("digests are those that sha256sum and git give", "[hub]") {
  Digest sha256 = Digest::Sha256();
  sha256.Update("a");
  sha256.Update("bc");
  // FIPS 180-4, appendix B.1.
  CHECK(sha256.Finish() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Digest git = Digest::GitBlob(6);
  git.Update("hello\n");
  CHECK(git.Finish() ==
        "ce013625030ba8dba906f756967f9e9ca394464a");  // printf 'hello\n' | git hash-object --stdin
}

TEST_CASE("an id has org, name, revision and file", "[hub]") {
  const HubId plain = *ParseHubId("org/name");
  CHECK((plain.repo == "org/name" && plain.revision == "main" && plain.file.empty()));
  const HubId revision = *ParseHubId("org/name@refs/pr/1");
  CHECK((revision.repo == "org/name" && revision.revision == "refs/pr/1"));
  const HubId file = *ParseHubId("o-r_g/na.me:sub/a@b.gguf");
  CHECK((file.repo == "o-r_g/na.me" && file.revision == "main" && file.file == "sub/a@b.gguf"));
  const HubId all = *ParseHubId("org/name@v1.0:m.gguf");
  CHECK((all.repo == "org/name" && all.revision == "v1.0" && all.file == "m.gguf"));
}

TEST_CASE("an id that could leave its folder or that no hub has is refused", "[hub]") {
  for (const char* text : {"org",
                           "org/",
                           "/name",
                           "a/b/c",
                           "../name",
                           "org/..",
                           "org/na me",
                           "org/na--me",
                           "org/-name",
                           "org/name.",
                           "org/n\n",
                           "org/name.git",
                           "org/name@",
                           "org/name@../x",
                           "org/name@a//b",
                           "org/name@/a",
                           "org/name@.a",
                           "org/name@a b",
                           "org/name:",
                           "org/name:m.bin",
                           "org/name:../m.gguf",
                           "org/name:/m.gguf",
                           "org/name:a\\m.gguf",
                           "org/name:a//m.gguf"}) {
    INFO(text);
    const absl::Status status = ParseHubId(text).status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  }
  CHECK_FALSE(ParseHubId("org/" + std::string(93, 'a')).ok());
  CHECK(ParseHubId("org/" + std::string(92, 'a')).ok());
}

TEST_CASE("file names and etags of a server are plain", "[hub]") {
  for (const char* name : {"config.json", "sub/dir/x.gguf", "..x", "\xc3\xa9.json"})
    CHECK(IsSafeFileName(name));
  for (const char* name :
       {"", "/a", "a/", "..", "a/../b", "./a", "a//b", "a\\b", "a\nb", "a\x7f"}) {
    INFO(name);
    CHECK_FALSE(IsSafeFileName(name));
  }
  CHECK_FALSE(IsSafeFileName(std::string("a\0b", 3)));
  CHECK_FALSE(IsSafeFileName(std::string(256, 'a')));
  CHECK(IsSafeEtag("0123abcdef-1"));
  for (const char* etag : {"", "a/b", "..", "a\"", "a b"}) CHECK_FALSE(IsSafeEtag(etag));
  CHECK_FALSE(IsSafeEtag(std::string(129, 'a')));
}

TEST_CASE("settings come from the variables that huggingface_hub reads", "[hub]") {
  TemporaryDirectory home;
  const std::string base = home.path().string();
  ScopedEnv none[] = {{"HF_HUB_CACHE", {}},
                      {"HUGGINGFACE_HUB_CACHE", {}},
                      {"HF_ENDPOINT", {}},
                      {"HF_HUB_OFFLINE", {}},
                      {"HF_TOKEN", {}},
                      {"HF_TOKEN_PATH", {}},
                      {"HF_HOME", {}},
                      {"XDG_CACHE_HOME", {}},
                      {"HUGGING_FACE_HUB_TOKEN", {}},
                      {"HF_HUB_DISABLE_IMPLICIT_TOKEN", {}}};
  ScopedEnv home_env("HOME", base);
  HubSettings settings = *ReadHubSettings();
  CHECK(settings.endpoint == "https://huggingface.co");
  CHECK(settings.cache == base + "/.cache/huggingface/hub");
  CHECK((settings.token.empty() && !settings.is_offline));
  ScopedEnv xdg("XDG_CACHE_HOME", base + "/xdg");
  CHECK(ReadHubSettings()->cache == base + "/xdg/huggingface/hub");
  ScopedEnv hf("HF_HOME", base + "/hf");
  std::filesystem::create_directories(base + "/hf");
  std::ofstream(base + "/hf/token") << "from-file\n";
  ScopedEnv endpoint("HF_ENDPOINT", "http://mirror:8000//");
  ScopedEnv offline("HF_HUB_OFFLINE", "yes");
  settings = *ReadHubSettings();
  CHECK(settings.cache == base + "/hf/hub");
  CHECK(settings.token == "from-file");
  CHECK(settings.endpoint == "http://mirror:8000");
  CHECK(settings.is_offline);
  ScopedEnv token("HF_TOKEN", " from-env\n");
  ScopedEnv cache("HF_HUB_CACHE", "~/elsewhere");
  CHECK(ReadHubSettings()->token == "from-env");
  CHECK(ReadHubSettings()->cache == base + "/elsewhere");
}

TEST_CASE("no token is read where the environment says so", "[hub]") {
  ScopedEnv token("HF_TOKEN", "hf_secret");
  ScopedEnv disabled("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
  CHECK(ReadHubSettings()->token.empty());
  ScopedEnv enabled("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0");
  CHECK(ReadHubSettings()->token == "hf_secret");
}

TEST_CASE("an address is shown without its user and password", "[hub]") {
  CHECK(WithoutUserinfo("https://user:p@ss@host:1/a@b") == "https://host:1/a@b");
  CHECK(WithoutUserinfo("https://host/a@b") == "https://host/a@b");
  CHECK(WithoutUserinfo("http://user@host") == "http://host");
  CHECK(WithoutUserinfo("http://host") == "http://host");
}

TEST_CASE("a token that would begin another header line is refused and not shown", "[hub]") {
  ScopedEnv enabled("HF_HUB_DISABLE_IMPLICIT_TOKEN", {});
  ScopedEnv token("HF_TOKEN", "abc\r\nX-Evil: secret");
  const absl::Status status = ReadHubSettings().status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(status.message()).find("secret") == std::string::npos);
}

TEST_CASE("an endpoint that is no http address is refused", "[hub]") {
  for (const char* value : {"file:///etc", "huggingface.co", "https://a b"}) {
    ScopedEnv endpoint("HF_ENDPOINT", value);
    CHECK(ReadHubSettings().status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("waits double up to a limit, obey the server, and end", "[hub]") {
  RetryPolicy policy;
  policy.max_attempts = 5;
  policy.first_delay = absl::Seconds(1);
  policy.max_delay = absl::Seconds(3);
  Backoff backoff(policy);
  for (const int seconds : {1, 2, 3}) {
    const auto delay = backoff.Next();
    REQUIRE(delay.has_value());
    CHECK(*delay <= absl::Seconds(seconds));
    CHECK(*delay >= absl::Seconds(seconds) / 2);
  }
  CHECK(*backoff.Next(absl::Seconds(100)) == absl::Seconds(100));
  CHECK_FALSE(backoff.Next().has_value());
  backoff.Reset();
  CHECK(*backoff.Next() <= absl::Seconds(1));
  CHECK_FALSE(backoff.Next(absl::Hours(1)).has_value());
}

TEST_CASE("a file lock keeps a second holder out until it is released", "[hub]") {
  TemporaryDirectory directory;
  const auto path = directory.path() / "locks" / "a.lock";
  std::atomic<bool> second_has_it = false;
  std::thread second;
  {
    const auto first = FileLock::Take(path);
    REQUIRE(first.ok());
    second = std::thread([&] {
      const auto lock = FileLock::Take(path);
      second_has_it = lock.ok();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK_FALSE(second_has_it);
  }
  second.join();
  CHECK(second_has_it);
}

TEST_CASE("a lock whose holder was killed is free", "[hub]") {
  TemporaryDirectory directory;
  const auto path = directory.path() / "a.lock";
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FileLock::Take(path);
    raise(SIGKILL);
  }
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK(FileLock::Take(path).ok());
}

}  // namespace
}  // namespace fastgen
