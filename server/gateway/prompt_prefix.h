// What a prompt begins with, as hashes: prompts with a long common beginning share their first
// hashes.
//
// hashes[i] stands for the first 256 << i bytes of the prompt; a prompt shorter than 256 bytes has
// none, and no cached block to gain. The doubling keeps the list at ten while the longest hash that
// two prompts share still stands for more than half of their common beginning. The cache_salt and
// the caller's key go into every hash: what they keep apart is not brought together. A chat is
// hashed as its messages stand in the request, before any template.
// The hash is FNV-1a with a finishing mix, the same in every process: gateways that stand side by
// side choose alike.
// Thread rule: values.
// Tested by tests/server/gateway/daemon_picker_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "fastgen/v1/inference.pb.h"
#include "server/gateway/exchange.h"

namespace fastgen::gateway {

using PrefixHashes = std::vector<uint64_t>;

inline constexpr size_t kFirstPrefixBytes = 256;
inline constexpr size_t kMaxPrefixes = 10;

uint64_t HashOf(std::string_view bytes);
// Spreads every bit of `value` over all bits.
uint64_t Mix(uint64_t value);

// `metadata`: where the caller's key stands.
PrefixHashes HashesOfPrompt(const v1::GenerateRequest& request, const Headers& metadata);

}  // namespace fastgen::gateway
