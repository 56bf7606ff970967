// What may be tried again on another daemon, and how often.
//
// A call is tried again only when it ended before any token and nothing of its answer has been
// sent. kRefused: the daemon says that it takes no work, or was never reached; kOverloaded: its
// queue is full (google.rpc.ErrorInfo OVERLOADED; the limits of a key carry none and are final);
// kLost: the connection broke, so that the daemon may have begun. What it began is lost with it and
// harmless to repeat, but it may have been the request that broke it: such a one, like an
// overloaded one, is tried once more and not again.
// RetryBudget: all requests together may be tried again `ratio` times as often as they come, beside
// a store for the moment when a busy daemon ends, so that a dying fleet is not hammered.
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/retry_policy_test.cc.
#pragma once

#include <grpcpp/support/status.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace fastgen::gateway {

enum class RetryKind { kNever, kRefused, kOverloaded, kLost };

// Of a call that ended before any token.
RetryKind RetryKindOf(const grpc::Status& status);

// Where one call has been tried, and what became of it.
class Attempts {
 public:
  static constexpr size_t kMaxAttempts = 3;

  void Begin(size_t daemon) { tried_.push_back(daemon); }
  bool HasTried(size_t daemon) const {
    return std::find(tried_.begin(), tried_.end(), daemon) != tried_.end();
  }
  // Whether a call that failed so may go on elsewhere.
  bool Allow(RetryKind kind);

 private:
  std::vector<size_t> tried_;
  bool was_lost_ = false;
  bool was_overloaded_ = false;
};

class RetryBudget {
 public:
  // `store`: retries that are always there after a quiet time.
  explicit RetryBudget(double ratio = 0.2, double store = 100)
      : ratio_(ratio), store_(store), left_(store) {}

  void AddRequest() { left_ = std::min(store_, left_ + ratio_); }
  bool has_one() const { return left_ >= 1; }
  // REQUIRES: has_one()
  void Take() { left_ -= 1; }

 private:
  const double ratio_;
  const double store_;
  double left_;
};

}  // namespace fastgen::gateway
