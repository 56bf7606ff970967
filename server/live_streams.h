// LiveStreams: the requests that asked for a resume window, by id, and the clock of their windows.
//
// A stream stays here from its submission until its window after the end has closed; Attach finds
// it here. One timer thread sleeps until the earliest window closes, and without an end when none
// is open. The memory of all rings together is bounded: beyond kMaxRingBytes the ended streams go
// first, the one whose window closes soonest before the others. Once a drain has begun no request
// waits for a reader, so that a shutdown never waits for a window. Lock order: mutex_ before a
// stream's own lock. Thread rule: any thread. Tested by tests/server/attach_test.cc.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/event_stream.h"

namespace fastgen {

class LiveStreams {
 public:
  static constexpr int64_t kMaxRingBytes = 256 << 20;

  LiveStreams();
  ~LiveStreams();

  // ALREADY_EXISTS when a live stream has that id; one that has ended makes way.
  absl::Status Add(std::shared_ptr<EventStream> stream);
  void Remove(const EventStream* stream);
  // Forgets what a request of that id has left behind when it ended.
  void RemoveEnded(const std::string& request_id);
  std::shared_ptr<EventStream> Find(const std::string& request_id);
  // The stream's reader or end has changed: its window is looked at again.
  void Refresh(EventStream* stream);

  // The rings' memory has changed by so much.
  void AddBytes(int64_t num_bytes) { num_bytes_.fetch_add(num_bytes, std::memory_order_relaxed); }
  // Drops ended streams until the rings fit their budget; false when they still do not.
  bool MakeRoom();

  // Cancels what has no reader. From now on no window opens.
  void StartDrain();
  bool draining() const { return draining_.load(); }
  size_t num_streams() const;

 private:
  using Expiry = std::pair<EventStream::Clock::time_point, std::string>;
  struct Entry {
    std::shared_ptr<EventStream> stream;
    EventStream::Clock::time_point expiry = EventStream::Clock::time_point::max();
  };
  using Map = std::map<std::string, Entry, std::less<>>;

  void Run();
  void Schedule(Map::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<EventStream> Take(Map::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::atomic<int64_t> num_bytes_ = 0;
  std::atomic<bool> draining_ = false;
  mutable Mutex mutex_;
  CondVar changed_;
  Map streams_ ABSL_GUARDED_BY(mutex_);
  std::set<Expiry> expiries_ ABSL_GUARDED_BY(mutex_);  // of those whose window is running
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fastgen
