#include "server/gateway/prompt_prefix.h"

#include <algorithm>

namespace fastgen::gateway {
namespace {

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325u;
constexpr uint64_t kFnvPrime = 0x100000001b3u;

uint64_t Extend(uint64_t hash, std::string_view bytes) {
  for (char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * kFnvPrime;
  return hash;
}

class PrefixHasher {
 public:
  explicit PrefixHasher(uint64_t start) : hash_(start) {}

  bool full() const { return hashes_.size() == kMaxPrefixes; }

  void Add(std::string_view bytes) {
    while (!bytes.empty() && !full()) {
      const size_t next =
          std::min(bytes.size(), kFirstPrefixBytes * (size_t{1} << hashes_.size()) - num_bytes_);
      hash_ = Extend(hash_, bytes.substr(0, next));
      num_bytes_ += next;
      bytes.remove_prefix(next);
      if (num_bytes_ == kFirstPrefixBytes << hashes_.size()) hashes_.push_back(Mix(hash_));
    }
  }
  // A part that cannot run into the next one.
  void AddPart(std::string_view bytes) {
    Add(bytes);
    Add(std::string_view("\0", 1));
  }

  PrefixHashes Take() { return std::move(hashes_); }

 private:
  uint64_t hash_;
  size_t num_bytes_ = 0;
  PrefixHashes hashes_;
};

void AddChat(const v1::Chat& chat, PrefixHasher* hasher) {
  for (const std::string& tool : chat.tools_json()) hasher->AddPart(tool);
  hasher->AddPart(chat.chat_template_kwargs_json());
  for (const v1::ChatMessage& message : chat.messages()) {
    if (hasher->full()) return;
    hasher->AddPart(message.role());
    hasher->AddPart(message.content());
    for (const v1::ToolCall& call : message.tool_calls()) {
      hasher->AddPart(call.name());
      hasher->AddPart(call.arguments_json());
    }
  }
}

void AddIds(const google::protobuf::RepeatedField<int32_t>& ids, PrefixHasher* hasher) {
  for (int i = 0; i < ids.size() && !hasher->full(); ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    const char bytes[] = {static_cast<char>(id), static_cast<char>(id >> 8),
                          static_cast<char>(id >> 16), static_cast<char>(id >> 24)};
    hasher->Add(std::string_view(bytes, sizeof(bytes)));
  }
}

}  // namespace

uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

uint64_t HashOf(std::string_view bytes) { return Mix(Extend(kFnvOffset, bytes)); }

PrefixHashes HashesOfPrompt(const v1::GenerateRequest& request, const Headers& metadata) {
  uint64_t start = Extend(kFnvOffset, request.cache_salt());
  for (const auto& [name, value] : metadata) {
    if (name == "authorization" || name == "x-api-key") start = Extend(Mix(start), value);
  }
  PrefixHasher hasher(start);
  if (request.has_chat()) {
    AddChat(request.chat(), &hasher);
  } else if (request.has_token_ids()) {
    AddIds(request.token_ids().ids(), &hasher);
  } else {
    hasher.Add(request.text());
  }
  return hasher.Take();
}

}  // namespace fastgen::gateway
