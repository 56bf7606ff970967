#include "server/api_keys.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen {
namespace {

constexpr std::pair<Scope, const char*> kScopes[] = {{Scope::kInfer, "infer"},
                                                     {Scope::kTokenize, "tokenize"},
                                                     {Scope::kMetrics, "metrics"},
                                                     {Scope::kAdmin, "admin"}};
constexpr char kScopeNames[] = "infer, tokenize, metrics, admin";
constexpr char kHashPrefix[] = "sha256:";
// What a secret of ours begins with: a leaked one is found by searching for it, and is never taken for a name.
constexpr char kSecretPrefix[] = "fgk_";
constexpr int32_t kMaxConcurrent = 1'000'000;
constexpr int64_t kMaxTokensPerMinute = 1'000'000'000;
// A word of a mistake is repeated only when it is too short to be a key.
constexpr size_t kMaxQuotedBytes = 16;

std::string Quoted(absl::string_view word) {
  if (word.size() > kMaxQuotedBytes) return absl::StrCat("a word of ", word.size(), " bytes");
  return absl::StrCat("\"", absl::CHexEscape(word), "\"");
}

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

KeyDigest DigestOf(std::string_view secret) {
  KeyDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(secret.data()), secret.size(), digest.data());
  return digest;
}

uint64_t IndexOf(const KeyDigest& digest) {
  uint64_t index = 0;
  std::memcpy(&index, digest.data(), sizeof(index));
  return index;
}

absl::Status CheckName(absl::string_view name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (name.empty() || name.size() > ApiKeys::kMaxNameBytes || !plain) {
    return Bad(absl::StrCat("a name is 1 to ", ApiKeys::kMaxNameBytes,
                            " letters, digits, '.', '_' or '-'"));
  }
  if (absl::StartsWith(name, kSecretPrefix)) {
    return Bad(absl::StrCat("a name may not begin with ", kSecretPrefix, ", as keys do"));
  }
  return absl::OkStatus();
}

absl::StatusOr<KeyDigest> ParseHash(absl::string_view text) {
  KeyDigest digest;
  const bool hex = absl::ConsumePrefix(&text, kHashPrefix) && text.size() == 2 * digest.size() &&
                   std::all_of(text.begin(), text.end(), [](char c) {
                     return absl::ascii_isxdigit(static_cast<unsigned char>(c));
                   });
  if (!hex) return Bad("the second word must be sha256: and 64 hexadecimal digits");
  const std::string bytes = absl::HexStringToBytes(text);
  std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

absl::StatusOr<ScopeSet> ParseScopes(absl::string_view text) {
  ScopeSet scopes{};
  for (const absl::string_view word : absl::StrSplit(text, ',')) {
    const auto* const found = std::find_if(std::begin(kScopes), std::end(kScopes),
                                           [&](const auto& row) { return word == row.second; });
    if (found == std::end(kScopes)) {
      return Bad(absl::StrCat("scope ", Quoted(word), " is none of ", kScopeNames));
    }
    scopes.Add(found->first);
  }
  return scopes;
}

template <typename Number>
absl::Status ParseLimit(absl::string_view name, absl::string_view text, Number max,
                        std::optional<Number>* limit) {
  if (limit->has_value()) return Bad(absl::StrCat(name, " is given twice"));
  Number value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < 1 || value > max) {
    return Bad(absl::StrCat(name, "=", Quoted(text), ": must be between 1 and ", max));
  }
  *limit = value;
  return absl::OkStatus();
}

absl::Status ParseLimits(absl::string_view word, KeyLimits* limits) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(word, absl::MaxSplits('=', 1));
  if (parts.first == "max-concurrent") {
    return ParseLimit(parts.first, parts.second, kMaxConcurrent, &limits->max_concurrent);
  }
  if (parts.first == "tokens-per-minute") {
    return ParseLimit(parts.first, parts.second, kMaxTokensPerMinute, &limits->tokens_per_minute);
  }
  return Bad(absl::StrCat(Quoted(word),
                          " is not a limit: max-concurrent=N or tokens-per-minute=N"));
}

// Words up to a comment, which begins with a word that begins with '#'.
std::vector<absl::string_view> WordsOf(absl::string_view line) {
  std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  const auto comment = std::find_if(words.begin(), words.end(),
                                    [](absl::string_view word) { return word[0] == '#'; });
  words.erase(comment, words.end());
  return words;
}

absl::StatusOr<ApiKey> ParseKey(const std::vector<absl::string_view>& words) {
  if (words.size() < 3) return Bad("a key is a name, sha256:HASH and its scopes");
  ApiKey key;
  RETURN_IF_ERROR(CheckName(words[0]));
  key.name = std::string(words[0]);
  ASSIGN_OR_RETURN(key.digest, ParseHash(words[1]));
  ASSIGN_OR_RETURN(key.scopes, ParseScopes(words[2]));
  for (size_t i = 3; i < words.size(); ++i) RETURN_IF_ERROR(ParseLimits(words[i], &key.limits));
  return key;
}

absl::Status FileError(const std::string& path, int error) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(error)));
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path) {
  // Without waiting for the other end, should it be a pipe.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileError(path, errno);
  const auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) != 0) return FileError(path, errno);
  if (!S_ISREG(info.st_mode)) return Bad(absl::StrCat(path, ": is not a regular file"));
  if ((info.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    LogWarning(FromAbsl(absl::StrCat(path, " holds API keys and others may ",
                                     (info.st_mode & S_IWOTH) != 0 ? "write" : "read",
                                     " it: chmod 600 ", path)));
  }
  std::string text(ApiKeys::kMaxFileBytes + 1, '\0');
  size_t num_bytes = 0;
  while (num_bytes < text.size()) {
    const ssize_t got = read(fd, text.data() + num_bytes, text.size() - num_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(path, errno);
    if (got == 0) break;
    num_bytes += static_cast<size_t>(got);
  }
  text.resize(num_bytes);
  return text;
}

}  // namespace

std::string ScopeSet::ToString() const {
  std::vector<std::string> names;
  for (const auto& [scope, name] : kScopes) {
    if (Overlaps({scope})) names.emplace_back(name);
  }
  return absl::StrJoin(names, " or ");
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text, const std::string& path) {
  if (text.size() > kMaxFileBytes) {
    return Bad(absl::StrCat(path, ": is larger than ", kMaxFileBytes, " bytes"));
  }
  ApiKeys keys;
  std::unordered_map<std::string, size_t> name_lines;
  std::vector<size_t> key_lines;
  size_t line_number = 0;
  for (const absl::string_view line : absl::StrSplit(ToAbsl(text), '\n')) {
    ++line_number;
    const auto bad = [&](absl::string_view what) {
      return Bad(absl::StrCat(path, ":", line_number, ": ", what));
    };
    if (line.size() > kMaxLineBytes) {
      return bad(absl::StrCat(line.size(), " bytes; a line has at most ", kMaxLineBytes));
    }
    const std::vector<absl::string_view> words = WordsOf(line);
    if (words.empty()) continue;
    absl::StatusOr<ApiKey> key = ParseKey(words);
    if (!key.ok()) return bad(key.status().message());
    if (keys.keys_.size() == kMaxKeys) return bad(absl::StrCat("more than ", kMaxKeys, " keys"));
    const auto [same_name, is_new] = name_lines.emplace(key->name, line_number);
    if (!is_new) {
      return bad(absl::StrCat("the name ", key->name, " is on line ", same_name->second, " too"));
    }
    const uint64_t index = IndexOf(key->digest);
    const auto [begin, end] = keys.index_.equal_range(index);
    for (auto other = begin; other != end; ++other) {
      if (keys.keys_[other->second].digest != key->digest) continue;
      return bad(absl::StrCat("the same key is on line ", key_lines[other->second], " too"));
    }
    keys.index_.emplace(index, keys.keys_.size());
    keys.keys_.push_back(*std::move(key));
    key_lines.push_back(line_number);
  }
  if (keys.keys_.empty()) return Bad(absl::StrCat(path, ": holds no key"));
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadKeyFile(path));
  return Parse(text, path);
}

const ApiKey* ApiKeys::Find(std::string_view secret) const {
  const KeyDigest digest = DigestOf(secret);
  const auto [begin, end] = index_.equal_range(IndexOf(digest));
  for (auto entry = begin; entry != end; ++entry) {
    const ApiKey& key = keys_[entry->second];
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) return &key;
  }
  return nullptr;
}

absl::StatusOr<NewApiKey> MakeApiKey(const std::string& name, const std::string& scopes) {
  RETURN_IF_ERROR(CheckName(name));
  RETURN_IF_ERROR(ParseScopes(scopes).status());
  unsigned char random[32];
  CHECK_EQ(RAND_bytes(random, sizeof(random)), 1) << "no random numbers";
  NewApiKey made;
  made.secret = absl::StrCat(
      kSecretPrefix, absl::WebSafeBase64Escape({reinterpret_cast<char*>(random), sizeof(random)}));
  const KeyDigest digest = DigestOf(made.secret);
  const absl::string_view bytes(reinterpret_cast<const char*>(digest.data()), digest.size());
  made.line = absl::StrCat(name, " ", kHashPrefix, absl::BytesToHexString(bytes), " ", scopes);
  return made;
}

}  // namespace fastgen
