#include "server/api_keys.h"

#include <sys/stat.h>

#include <random>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/server/temp_key_file.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

using testing::TempKeyFile;

// printf %s secret-of-alice | sha256sum
constexpr char kAliceHash[] =
    "sha256:2e63581f3ad310ec6d04ce0f6adb96d3a7808722dab1612486486190086013f6";

std::string Hash(int number) {
  std::string digits = absl::StrCat(number);
  return absl::StrCat("sha256:", std::string(64 - digits.size(), '0'), digits);
}

std::string MistakeOf(const std::string& text) {
  const auto keys = ApiKeys::Parse(text, "keys.txt");
  return keys.ok() ? "(none)" : std::string(keys.status().message());
}

TEST_CASE("a file of keys has names, scopes and limits, comments and empty lines", "[server]") {
  const auto keys = ApiKeys::Parse(absl::StrCat("# who may call\n\n  alice\t", Hash(1),
                                                " infer,tokenize max-concurrent=4 tokens-per-minute=60000 # team a\r\n",
                                                "grafana ", Hash(2), " metrics\n",
                                                "ops.1-x_Y ", Hash(3), " admin,metrics tokens-per-minute=1"),
                                   "keys.txt");
  INFO(keys.status().ToString());
  REQUIRE(keys.ok());
  REQUIRE(keys->keys().size() == 3);
  const ApiKey& alice = keys->keys()[0];
  CHECK(alice.name == "alice");
  CHECK(alice.scopes == ScopeSet{Scope::kInfer, Scope::kTokenize});
  CHECK(alice.limits.max_concurrent == 4);
  CHECK(alice.limits.tokens_per_minute == 60000);
  CHECK(keys->keys()[1].scopes == ScopeSet{Scope::kMetrics});
  CHECK_FALSE(keys->keys()[1].limits.max_concurrent.has_value());
  CHECK_FALSE(keys->keys()[1].limits.tokens_per_minute.has_value());
  CHECK(keys->keys()[2].name == "ops.1-x_Y");
  CHECK(keys->keys()[2].limits.tokens_per_minute == 1);
}

TEST_CASE("a key is found by its secret alone, whatever the case of its hash", "[server]") {
  const auto made = MakeApiKey("alice", "infer");
  REQUIRE(made.ok());
  const auto other = MakeApiKey("bob", "admin");
  REQUIRE(other.ok());
  CHECK(made->secret != other->secret);
  CHECK(made->secret.rfind("fgk_", 0) == 0);
  CHECK(made->secret.size() == 4 + 43);  // 256 bits, six to a character
  CHECK_FALSE(absl::StrContains(made->line, made->secret));
  std::string upper = other->line;
  for (size_t i = upper.find(':') + 1; upper[i] != ' '; ++i) upper[i] = static_cast<char>(toupper(upper[i]));
  const auto keys = ApiKeys::Parse(absl::StrCat(made->line, "\n", upper, "\n"), "keys.txt");
  REQUIRE(keys.ok());
  REQUIRE(keys->Find(made->secret) != nullptr);
  CHECK(keys->Find(made->secret)->name == "alice");
  REQUIRE(keys->Find(other->secret) != nullptr);
  CHECK(keys->Find(other->secret)->name == "bob");
  for (const std::string& wrong :
       {std::string(), std::string("alice"), made->secret.substr(1), made->secret + "x",
        made->line, made->line.substr(made->line.find("sha256:"), 71)}) {
    CHECK(keys->Find(wrong) == nullptr);
  }
}

TEST_CASE("the hash is the one that sha256sum prints", "[server]") {
  const auto keys = ApiKeys::Parse(absl::StrCat("alice ", kAliceHash, " infer"), "keys.txt");
  REQUIRE(keys.ok());
  CHECK(keys->Find("secret-of-alice") != nullptr);
}

TEST_CASE("keys whose digests begin alike are told apart", "[server]") {
  const std::string same(16, 'a');
  const auto keys = ApiKeys::Parse(
      absl::StrCat("a sha256:", same, std::string(48, '1'), " infer\nb sha256:", same,
                   std::string(48, '2'), " infer\n"),
      "keys.txt");
  CHECK(keys.ok());
}

TEST_CASE("a mistake in the file of keys names its line and the rule", "[server]") {
  const std::string good = absl::StrCat("alice ", Hash(1), " infer\n");
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"bob", "keys.txt:2: a key is a name, sha256:HASH and its scopes"},
      {"bob " + Hash(2), "keys.txt:2: a key is a name"},
      {"b/b " + Hash(2) + " infer", "keys.txt:2: a name is 1 to 64 letters"},
      {std::string(65, 'b') + " " + Hash(2) + " infer", "keys.txt:2: a name is 1 to 64 letters"},
      {"fgk_bob " + Hash(2) + " infer", "keys.txt:2: a name may not begin with fgk_"},
      {"bob md5:1234 infer", "keys.txt:2: the second word must be sha256:"},
      {"bob sha256:12 infer", "keys.txt:2: the second word must be sha256:"},
      {"bob " + Hash(2).substr(0, 70) + "g infer", "keys.txt:2: the second word must be sha256:"},
      {"bob " + Hash(2) + "0 infer", "keys.txt:2: the second word must be sha256:"},
      {"bob " + Hash(2) + " chat", "keys.txt:2: scope \"chat\" is none of infer, tokenize, metrics, admin"},
      {"bob " + Hash(2) + " infer,", "keys.txt:2: scope \"\" is none of"},
      {"bob " + Hash(2) + " Infer", "keys.txt:2: scope \"Infer\" is none of"},
      {"bob " + Hash(2) + " infer, tokenize", "keys.txt:2: scope \"\" is none of"},
      {"bob " + Hash(2) + " infer max-concurrent", "keys.txt:2: max-concurrent=\"\": must be between 1 and 1000000"},
      {"bob " + Hash(2) + " infer max-concurrent=0", "keys.txt:2: max-concurrent=\"0\": must be between 1 and"},
      {"bob " + Hash(2) + " infer max-concurrent=1e3", "keys.txt:2: max-concurrent=\"1e3\": must be between"},
      {"bob " + Hash(2) + " infer tokens-per-minute=-5", "keys.txt:2: tokens-per-minute=\"-5\": must be between 1 and 1000000000"},
      {"bob " + Hash(2) + " infer tokens-per-minute=99999999999999999999", "keys.txt:2: tokens-per-minute=a word of 20 bytes"},
      {"bob " + Hash(2) + " infer max-concurrent=1 max-concurrent=2", "keys.txt:2: max-concurrent is given twice"},
      {"bob " + Hash(2) + " infer speed=3", "keys.txt:2: \"speed=3\" is not a limit"},
      {"alice " + Hash(2) + " infer", "keys.txt:2: the name alice is on line 1 too"},
      {"bob " + Hash(1) + " infer", "keys.txt:2: the same key is on line 1 too"},
      {std::string(1001, '#'), "keys.txt:2: 1001 bytes; a line has at most 1000"},
      {std::string("b\0b ", 4) + Hash(2) + " infer", "keys.txt:2: a name is"},
      {"\xEF\xBB\xBF" "bob " + Hash(2) + " infer", "keys.txt:2: a name is"},
  };
  for (const auto& [line, expected] : rows) {
    const std::string mistake = MistakeOf(good + line + "\n");
    INFO(mistake);
    CHECK(mistake.rfind(expected, 0) == 0);
  }
  CHECK(MistakeOf("") == "keys.txt: holds no key");
  CHECK(MistakeOf("# nobody\n\n") == "keys.txt: holds no key");
}

TEST_CASE("the file of keys is bounded in bytes and keys", "[server]") {
  CHECK(MistakeOf(std::string(ApiKeys::kMaxFileBytes + 1, '\n')) ==
        "keys.txt: is larger than 4194304 bytes");
  CHECK(MistakeOf(std::string(ApiKeys::kMaxFileBytes, '\n')) == "keys.txt: holds no key");
  std::string text;
  for (size_t i = 0; i < ApiKeys::kMaxKeys; ++i) {
    absl::StrAppend(&text, "k", i, " ", Hash(static_cast<int>(i)), " infer\n");
  }
  CHECK(ApiKeys::Parse(text, "keys.txt").ok());
  text += absl::StrCat("more ", Hash(999'999), " infer\n");
  CHECK(MistakeOf(text) == "keys.txt:10001: more than 10000 keys");
}

TEST_CASE("a file that is none of keys is refused with one sentence", "[server]") {
  const auto mistake = [](const std::string& path) {
    return std::string(ApiKeys::Load(path).status().message());
  };
  CHECK(mistake("/nonexistent/keys") == "/nonexistent/keys: No such file or directory");
  CHECK(mistake("/dev/zero") == "/dev/zero: is not a regular file");
  CHECK(mistake("/") == "/: is not a regular file");
  const TempKeyFile fifo("");
  std::filesystem::remove(fifo.path());
  REQUIRE(mkfifo(fifo.path().c_str(), 0600) == 0);
  CHECK(mistake(fifo.path()) == fifo.path() + ": is not a regular file");  // and nobody waits for a writer
  const TempKeyFile large(std::string(ApiKeys::kMaxFileBytes + 10, '#'));
  CHECK(mistake(large.path()) == large.path() + ": is larger than 4194304 bytes");
  const TempKeyFile good(absl::StrCat("alice ", Hash(1), " infer"));
  CHECK(ApiKeys::Load(good.path()).ok());
}

TEST_CASE("what is written is what is read, for any keys", "[server]") {
  std::mt19937 random(7);
  const auto below = [&](uint32_t limit) { return random() % limit; };
  const std::string scopes[] = {"infer", "tokenize", "metrics", "admin"};
  for (int round = 0; round < 200; ++round) {
    std::string text;
    std::vector<std::string> secrets;
    const uint32_t num_keys = 1 + below(20);
    for (uint32_t i = 0; i < num_keys; ++i) {
      const auto made = MakeApiKey(absl::StrCat("key", i), absl::StrCat(scopes[below(4)], ",", scopes[below(4)]));
      REQUIRE(made.ok());
      secrets.push_back(made->secret);
      absl::StrAppend(&text, made->line, below(2) == 0 ? " max-concurrent=3" : "",
                      below(2) == 0 ? "\ttokens-per-minute=77 # c" : "", below(2) == 0 ? "\r\n" : "\n",
                      below(4) == 0 ? "#\n" : "");
    }
    const auto keys = ApiKeys::Parse(text, "keys.txt");
    INFO(text);
    REQUIRE(keys.ok());
    REQUIRE(keys->keys().size() == num_keys);
    for (uint32_t i = 0; i < num_keys; ++i) {
      REQUIRE(keys->Find(secrets[i]) == &keys->keys()[i]);
      REQUIRE(keys->keys()[i].name == absl::StrCat("key", i));
    }
  }
}

TEST_CASE("no mutation of the file crashes, and no message repeats a secret", "[server]") {
  std::mt19937 random(11);
  const std::string secret = MakeApiKey("x", "infer")->secret;
  const std::string seed = absl::StrCat("# c\nalice ", Hash(1), " infer,tokenize max-concurrent=4\nbob ", Hash(2),
                                        " admin tokens-per-minute=9\n");
  const std::string pieces[] = {" ", "\n", "=", ",", "#", "sha256:", "infer", std::string(1, '\0'), "\xFF",
                                "max-concurrent=", secret, " " + secret + " ", "alice", "\t", "\r"};
  int num_good = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = seed;
    const uint32_t num_changes = 1 + random() % 4;
    for (uint32_t i = 0; i < num_changes; ++i) {
      const size_t at = random() % (text.size() + 1);
      switch (random() % 3) {
        case 0: text.insert(at, pieces[random() % std::size(pieces)]); break;
        case 1: text.erase(at, random() % 12); break;
        default: text.replace(at, random() % 80, pieces[random() % std::size(pieces)]); break;
      }
    }
    const auto keys = ApiKeys::Parse(text, "keys.txt");
    if (keys.ok()) {
      ++num_good;
      continue;
    }
    const std::string message(keys.status().message());
    INFO(message);
    REQUIRE(message.rfind("keys.txt:", 0) == 0);
    REQUIRE(message.size() < 250);
    REQUIRE_FALSE(absl::StrContains(message, secret));
    for (const char c : message) REQUIRE((c >= ' ' && c <= '~'));
  }
  CHECK(num_good > 100);
}

TEST_CASE("a new key needs a name and scopes that a file may have", "[server]") {
  CHECK_FALSE(MakeApiKey("", "infer").ok());
  CHECK_FALSE(MakeApiKey("a b", "infer").ok());
  CHECK_FALSE(MakeApiKey("alice", "").ok());
  CHECK_FALSE(MakeApiKey("alice", "infer,chat").ok());
  CHECK_FALSE(MakeApiKey("alice\nbob", "infer").ok());
}

}  // namespace
}  // namespace fastgen
