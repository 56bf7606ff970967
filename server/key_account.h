// KeyAccount: what the requests of one API key's name have running and have used; Permit: the part of one request.
//
// A request takes a place when it starts, if the key's max-concurrent leaves one and its bucket of tokens is not empty.
// What it uses is taken from the bucket as it becomes known: the prompt when the request is accepted, the output as it
// is made. So a request that has started is never cut short by its key's allowance; the debt is the next one's wait.
// Thread rule: KeyAccount: any thread, its lock is taken under others and nothing is called under it but the clock.
// Permit: its owner locks.
// Tested by tests/server/access_control_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/api_keys.h"
#include "server/token_bucket.h"

namespace fastgen {

class KeyAccount {
 public:
  KeyAccount(std::string name, const Clock* clock) : name_(std::move(name)), clock_(clock) {}

  const std::string& name() const { return name_; }
  void SetLimits(const KeyLimits& limits);
  // Takes one place among the live requests. RESOURCE_EXHAUSTED naming the key and the limit, with RetryInfo.
  absl::Status Enter();
  void Leave();
  void Use(int64_t num_tokens);
  int32_t num_live() const;

 private:
  const std::string name_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  KeyLimits limits_ ABSL_GUARDED_BY(mutex_);
  std::optional<TokenBucket> bucket_ ABSL_GUARDED_BY(mutex_);
  int32_t num_live_ ABSL_GUARDED_BY(mutex_) = 0;
};

// One live request of a key: its place, and what it uses. Its owner locks. End gives the place back, the destructor at
// the latest, which also writes the log's line about the request.
class Permit {
 public:
  Permit(std::shared_ptr<KeyAccount> account, std::string request_id, const Clock* clock);
  ~Permit();
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  // As the client knows it.
  const std::string& request_id() const { return request_id_; }
  void UsePrompt(int64_t num_tokens);
  void UseOutput(int64_t num_tokens);
  void End(absl::StatusCode status);

 private:
  const std::shared_ptr<KeyAccount> account_;
  const std::string request_id_;
  const Clock* const clock_;
  const absl::Time start_;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_output_tokens_ = 0;
  std::optional<absl::StatusCode> end_;
};

}  // namespace fastgen
