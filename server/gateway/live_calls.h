// LiveCalls: counts gRPC calls whose callbacks may still run, so that the server waits for the last
// one before the I/O context that they post to goes away.
//
// Idea: a callback's last act is Leave() on a shared_ptr of its own; nothing of the server is
// touched after it.
// Thread rule: any thread.
// Tested by tests/server/gateway/http_server_test.cc ("Stop ...").
#pragma once

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"

namespace fastgen::gateway {

class LiveCalls {
 public:
  void Enter() {
    MutexLock lock(&mutex_);
    ++count_;
  }
  void Leave() {
    MutexLock lock(&mutex_);
    if (--count_ == 0) none_.SignalAll();
  }
  void WaitForNone() {
    MutexLock lock(&mutex_);
    while (count_ > 0) none_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace fastgen::gateway
