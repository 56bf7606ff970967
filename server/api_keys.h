// ApiKeys: who may call the daemon, as one file says it: a key's name, its hash, its scopes, its limits.
//
//   # name   hash              scopes            limits, where there are any
//   alice    sha256:9f86d0...  infer,tokenize    max-concurrent=4 tokens-per-minute=60000
//   grafana  sha256:60303a...  metrics
//
// The file holds hashes only, so that whoever reads it cannot call. One round of SHA-256 without salt is enough because
// a key made by MakeApiKey is 256 random bits: nobody can try them all, however fast a hash is, and no two are alike. A
// slow hash protects what people choose and remember, and would cost milliseconds in every call. A key is found by the
// first bytes of its digest, and the rest is compared in constant time: what the time of a lookup could tell is of the
// digest, which nobody can steer without already having a preimage of it.
// The text is untrusted: size, line length and number of keys are bounded, and no message repeats a word that could be
// a key.
// Thread rule: immutable after Parse; any thread.
// Tested by tests/server/api_keys_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace fastgen {

enum class Scope : uint8_t { kInfer = 1, kTokenize = 2, kMetrics = 4, kAdmin = 8 };

class ScopeSet {
 public:
  constexpr ScopeSet(std::initializer_list<Scope> scopes) {
    for (const Scope scope : scopes) bits_ |= static_cast<uint8_t>(scope);
  }
  constexpr void Add(Scope scope) { bits_ |= static_cast<uint8_t>(scope); }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool Overlaps(ScopeSet other) const { return (bits_ & other.bits_) != 0; }
  constexpr bool operator==(ScopeSet other) const { return bits_ == other.bits_; }
  // "infer or tokenize".
  std::string ToString() const;

 private:
  uint8_t bits_ = 0;
};

struct KeyLimits {
  std::optional<int32_t> max_concurrent;     // requests that are live at once
  std::optional<int64_t> tokens_per_minute;  // of prompts and outputs together
};

using KeyDigest = std::array<unsigned char, 32>;

struct ApiKey {
  std::string name;  // letters, digits, '.', '_' and '-'
  KeyDigest digest{};
  ScopeSet scopes{};
  KeyLimits limits;
};

class ApiKeys {
 public:
  static constexpr size_t kMaxFileBytes = 4 << 20;
  static constexpr size_t kMaxLineBytes = 1000;
  static constexpr size_t kMaxKeys = 10'000;
  static constexpr size_t kMaxNameBytes = 64;

  // INVALID_ARGUMENT with the line, "keys.txt:3: ...", also when there is no key at all: a file that an editor has just
  // emptied is no reason to turn everybody away.
  static absl::StatusOr<ApiKeys> Parse(std::string_view text, const std::string& path);
  // Reads a regular file; warns of one that others may read or write.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  // nullptr when nobody has this key.
  const ApiKey* Find(std::string_view secret) const;
  const std::vector<ApiKey>& keys() const { return keys_; }

 private:
  std::vector<ApiKey> keys_;
  std::unordered_multimap<uint64_t, size_t> index_;  // the digest's first bytes -> position in keys_
};

// A new key: the secret, for its owner, and the line that lets it in.
struct NewApiKey {
  std::string secret;
  std::string line;
};
// `scopes` as in the file. INVALID_ARGUMENT for a bad name or scope.
absl::StatusOr<NewApiKey> MakeApiKey(const std::string& name, const std::string& scopes);

}  // namespace fastgen
