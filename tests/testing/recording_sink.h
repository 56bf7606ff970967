// RecordingSink: a TokenSink that keeps what it is given, checks the order of calls, and lets a
// test wait for the end.
// Thread rule: any thread.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "engine/token_sink.h"

namespace fastgen::testing {

class RecordingSink : public TokenSink {
 public:
  struct Record {
    std::optional<AcceptedInfo> accepted;
    std::vector<TokenDelta> deltas;
    std::optional<FinishInfo> finished;
    std::optional<std::string> engine_error;
    int num_calls_out_of_order = 0;

    bool ended() const { return finished.has_value() || engine_error.has_value(); }
    std::string text() const {
      std::string text;
      for (const TokenDelta& delta : deltas) text += delta.text;
      return text;
    }
    std::vector<int32_t> ids() const {
      std::vector<int32_t> ids;
      for (const TokenDelta& delta : deltas) {
        ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
      }
      return ids;
    }
    std::vector<TokenLogprob> logprobs() const {
      std::vector<TokenLogprob> all;
      for (const TokenDelta& delta : deltas) {
        all.insert(all.end(), delta.logprobs.begin(), delta.logprobs.end());
      }
      return all;
    }
  };

  void OnAccepted(const AcceptedInfo& info) override {
    MutexLock lock(&mutex_);
    if (record_.accepted.has_value() || record_.ended()) ++record_.num_calls_out_of_order;
    record_.accepted = info;
    changed_.SignalAll();
  }
  void OnDelta(TokenDelta delta) override {
    MutexLock lock(&mutex_);
    CheckLive();
    record_.deltas.push_back(std::move(delta));
    changed_.SignalAll();
  }
  void OnFinished(FinishInfo info) override {
    MutexLock lock(&mutex_);
    CheckLive();
    record_.finished = std::move(info);
    changed_.SignalAll();
  }
  void OnEngineError(const std::string& message) override {
    MutexLock lock(&mutex_);
    CheckLive();
    record_.engine_error = message;
    changed_.SignalAll();
  }

  // Waits for the last call; a stream that does not end within a minute aborts the test.
  Record WaitForEnd() {
    return WaitUntil([](const Record& record) { return record.ended(); });
  }
  Record WaitForAccepted() {
    return WaitUntil([](const Record& record) { return record.accepted.has_value(); });
  }
  Record WaitForDeltas(size_t num_deltas) {
    return WaitUntil([num_deltas](const Record& record) {
      return record.deltas.size() >= num_deltas || record.ended();
    });
  }
  Record record() const {
    MutexLock lock(&mutex_);
    return record_;
  }

 private:
  void CheckLive() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!record_.accepted.has_value() || record_.ended()) ++record_.num_calls_out_of_order;
  }
  template <typename Condition>
  Record WaitUntil(Condition condition) {
    MutexLock lock(&mutex_);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition(record_)) {
      const auto left = deadline - std::chrono::steady_clock::now();
      CHECK(left.count() > 0) << "the stream did not come so far within a minute";
      changed_.WaitFor(&mutex_, left);
    }
    return record_;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  Record record_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace fastgen::testing
