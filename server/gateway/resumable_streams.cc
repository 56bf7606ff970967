#include "server/gateway/resumable_streams.h"

namespace fastgen::gateway {

void ResumableStreams::Add(const std::string& request_id, const ResumableStream& stream) {
  MutexLock lock(&mutex_);
  if (streams_.count(request_id) == 0) Insert(request_id, stream);
}

void ResumableStreams::Set(const std::string& request_id, const ResumableStream& stream) {
  MutexLock lock(&mutex_);
  const auto found = streams_.find(request_id);
  if (found == streams_.end()) {
    Insert(request_id, stream);
  } else {
    found->second = stream;
  }
}

void ResumableStreams::Insert(const std::string& request_id, const ResumableStream& stream) {
  if (order_.size() >= kMaxStreams) {
    streams_.erase(order_.front());
    order_.pop_front();
  }
  streams_.emplace(request_id, stream);
  order_.push_back(request_id);
}

std::optional<ResumableStream> ResumableStreams::Find(const std::string& request_id) const {
  MutexLock lock(&mutex_);
  const auto found = streams_.find(request_id);
  if (found == streams_.end()) return std::nullopt;
  return found->second;
}

}  // namespace fastgen::gateway
