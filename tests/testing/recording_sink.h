// RecordingSink: a TokenSink that keeps what it is given, checks the order of calls, and lets a
// test wait for the end, which is the last choice's OnFinished.
// Thread rule: any thread.
#pragma once

#include <chrono>
#include <map>
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
    int num_choices = 1;
    std::optional<AcceptedInfo> accepted;
    std::vector<std::pair<int32_t, int32_t>> progress;  // processed, total
    std::vector<TokenDelta> deltas;
    std::optional<FinishInfo> finished;  // the latest
    std::map<int32_t, FinishInfo> finishes;  // by choice
    std::optional<std::string> engine_error;
    int num_calls_out_of_order = 0;

    bool ended() const {
      return static_cast<int>(finishes.size()) == num_choices || engine_error.has_value();
    }
    // Of one choice.
    std::string text(int32_t index = 0) const {
      std::string text;
      for (const TokenDelta& delta : deltas) {
        if (delta.index == index) text += delta.text;
      }
      return text;
    }
    std::vector<int32_t> ids(int32_t index = 0) const {
      std::vector<int32_t> ids;
      for (const TokenDelta& delta : deltas) {
        if (delta.index != index) continue;
        ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
      }
      return ids;
    }
    std::vector<TokenLogprob> logprobs(int32_t index = 0) const {
      std::vector<TokenLogprob> all;
      for (const TokenDelta& delta : deltas) {
        if (delta.index != index) continue;
        all.insert(all.end(), delta.logprobs.begin(), delta.logprobs.end());
      }
      return all;
    }
  };

  // `num_choices`: the request's n.
  explicit RecordingSink(int num_choices = 1) { record_.num_choices = num_choices; }

  void OnAccepted(const AcceptedInfo& info) override {
    MutexLock lock(&mutex_);
    if (record_.accepted.has_value() || record_.ended()) ++record_.num_calls_out_of_order;
    record_.accepted = info;
    changed_.SignalAll();
  }
  void OnProgress(int32_t processed, int32_t total) override {
    MutexLock lock(&mutex_);
    CheckLive(0);
    for (const TokenDelta& delta : record_.deltas) {
      const size_t num_prompt_tokens = static_cast<size_t>(delta.num_prompt_tokens);
      if (delta.token_ids.size() > num_prompt_tokens) {
        ++record_.num_calls_out_of_order;
        break;
      }
    }
    record_.progress.emplace_back(processed, total);
    changed_.SignalAll();
  }
  void OnDelta(TokenDelta delta) override {
    MutexLock lock(&mutex_);
    CheckLive(delta.index);
    record_.deltas.push_back(std::move(delta));
    changed_.SignalAll();
  }
  void OnFinished(FinishInfo info) override {
    MutexLock lock(&mutex_);
    CheckLive(info.index);
    record_.finishes[info.index] = info;
    record_.finished = std::move(info);
    changed_.SignalAll();
  }
  void OnEngineError(const std::string& message) override {
    MutexLock lock(&mutex_);
    if (!record_.accepted.has_value() || record_.ended()) ++record_.num_calls_out_of_order;
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
  // The choice exists and has not ended.
  void CheckLive(int32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!record_.accepted.has_value() || record_.ended() || index < 0 ||
        index >= record_.num_choices || record_.finishes.count(index) > 0) {
      ++record_.num_calls_out_of_order;
    }
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
