#include "server/live_streams.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace fastgen {

using StreamClock = EventStream::Clock;

LiveStreams::LiveStreams() : thread_([this] { Run(); }) {}

LiveStreams::~LiveStreams() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
  // The streams tell AddBytes of their end: while this object is whole.
  Map streams;
  MutexLock lock(&mutex_);
  streams.swap(streams_);
}

void LiveStreams::Run() {
  pthread_setname_np(pthread_self(), "resume");
  while (true) {
    std::shared_ptr<EventStream> closed;
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
      if (expiries_.empty()) {
        changed_.Wait(&mutex_);
        continue;
      }
      const auto [expiry, request_id] = *expiries_.begin();
      const StreamClock::duration left = expiry - StreamClock::now();
      if (left > StreamClock::duration::zero()) {
        changed_.WaitFor(&mutex_, left);
        continue;
      }
      closed = Take(streams_.find(request_id));
    }
    closed->CloseWindow();
  }
}

std::shared_ptr<EventStream> LiveStreams::Take(Map::iterator entry) {
  expiries_.erase({entry->second.expiry, entry->first});
  std::shared_ptr<EventStream> stream = std::move(entry->second.stream);
  streams_.erase(entry);
  return stream;
}

void LiveStreams::Schedule(Map::iterator entry) {
  const StreamClock::time_point expiry = entry->second.stream->expiry();
  if (expiry == entry->second.expiry) return;
  expiries_.erase({entry->second.expiry, entry->first});
  entry->second.expiry = expiry;
  if (expiry == StreamClock::time_point::max()) return;
  const auto inserted = expiries_.insert({expiry, entry->first}).first;
  if (inserted == expiries_.begin()) changed_.SignalAll();
}

absl::Status LiveStreams::Add(std::shared_ptr<EventStream> stream) {
  std::shared_ptr<EventStream> before;
  MutexLock lock(&mutex_);
  const auto found = streams_.find(stream->request_id());
  if (found != streams_.end()) {
    if (!found->second.stream->ended()) {
      return absl::AlreadyExistsError(
          absl::StrCat("request_id: ", stream->request_id(), " is the id of a live request"));
    }
    before = Take(found);
  }
  streams_[stream->request_id()].stream = std::move(stream);
  return absl::OkStatus();
}

void LiveStreams::Remove(const EventStream* stream) {
  std::shared_ptr<EventStream> removed;
  MutexLock lock(&mutex_);
  const auto found = streams_.find(stream->request_id());
  if (found != streams_.end() && found->second.stream.get() == stream) removed = Take(found);
}

void LiveStreams::RemoveEnded(const std::string& request_id) {
  std::shared_ptr<EventStream> removed;
  MutexLock lock(&mutex_);
  const auto found = streams_.find(request_id);
  if (found != streams_.end() && found->second.stream->ended()) removed = Take(found);
}

std::shared_ptr<EventStream> LiveStreams::Find(const std::string& request_id) {
  MutexLock lock(&mutex_);
  const auto found = streams_.find(request_id);
  return found == streams_.end() ? nullptr : found->second.stream;
}

void LiveStreams::Refresh(EventStream* stream) {
  std::shared_ptr<EventStream> closed;
  {
    MutexLock lock(&mutex_);
    const auto found = streams_.find(stream->request_id());
    if (found == streams_.end() || found->second.stream.get() != stream) return;
    Schedule(found);
    // It lost its reader just before the drain began, which has not seen it.
    const bool waits = found->second.expiry != StreamClock::time_point::max();
    if (draining() && waits) closed = Take(found);
  }
  if (closed != nullptr) closed->CloseWindow();
}

bool LiveStreams::MakeRoom() {
  const auto fits = [this] { return num_bytes_.load(std::memory_order_relaxed) <= kMaxRingBytes; };
  if (fits()) return true;
  std::vector<std::shared_ptr<EventStream>> dropped;
  {
    MutexLock lock(&mutex_);
    for (auto next = expiries_.begin(); next != expiries_.end() && !fits();) {
      const auto entry = streams_.find((next++)->second);
      if (!entry->second.stream->ended()) continue;
      dropped.push_back(Take(entry));
      dropped.back()->CloseWindow();
    }
  }
  return fits();
}

void LiveStreams::StartDrain() {
  draining_ = true;
  std::vector<std::shared_ptr<EventStream>> waiting;
  {
    MutexLock lock(&mutex_);
    while (!expiries_.empty()) waiting.push_back(Take(streams_.find(expiries_.begin()->second)));
  }
  for (const auto& stream : waiting) stream->CloseWindow();
}

size_t LiveStreams::num_streams() const {
  MutexLock lock(&mutex_);
  return streams_.size();
}

}  // namespace fastgen
