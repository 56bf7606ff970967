// ResumableStreams: how the answers to requests with a resume window are written, by request id and
// the API key that was shown, so that GET /streams/{id} can go on with one whose connection broke.
//
// The tokens are the daemon's, which also knows when a window has closed and whose key may read;
// here is only what it never learns: the dialect and its options. Bounded: the oldest entry goes
// first. An entry whose request the daemon has forgotten does no harm.
// Invariant: once the daemon has accepted a request, its entry is that request's own.
// Thread rule: any thread.
// Tested by tests/server/gateway/resume_test.cc.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "server/gateway/generation_request.h"

namespace fastgen::gateway {

struct ResumableStream {
  GenerationRoute route = GenerationRoute::kChat;
  int32_t num_answers = 1;
  AnswerOptions options;
  ParamNames names;
  size_t daemon = 0;  // of the pool's, that has the tokens
};

class ResumableStreams {
 public:
  static constexpr size_t kMaxStreams = 4096;

  // Of a request that is about to be sent. The id may be that of another, live one, so what is
  // there stays.
  void Add(const std::string& request_id, const ResumableStream& stream);
  // Of a request that the daemon has accepted.
  void Set(const std::string& request_id, const ResumableStream& stream);
  std::optional<ResumableStream> Find(const std::string& request_id) const;

 private:
  void Insert(const std::string& request_id, const ResumableStream& stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  std::map<std::string, ResumableStream> streams_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> order_ ABSL_GUARDED_BY(mutex_);  // oldest first
};

}  // namespace fastgen::gateway
