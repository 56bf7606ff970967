// FakeHub: a hub on 127.0.0.1 that speaks the part of the HTTP API that hub/ uses, and misbehaves
// as told.
//
// Files of kLargeBytes and more are "large": the hub redirects to a second server on another port
// (the CDN), with X-Linked-Etag (sha256) and X-Linked-Size; smaller ones are sent at once with
// their git object id. Both servers honour Range. A filter sees every request first and may answer
// in its place.
// Thread rule: any thread; the filter is called from the threads of connections.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace fastgen::testing {

constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";
constexpr char kOtherCommit[] = "76543210fedcba9876543210fedcba9876543210";
constexpr size_t kLargeBytes = 4096;

struct HubRequest {
  bool to_cdn = false;
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  // names in lower case
};

struct HubReply {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  int64_t content_length = -1;  // -1: the body's
  int64_t send_bytes = -1;      // of the body, before `then`; -1: all
  enum class Then { kGoOn, kClose, kStall } then = Then::kGoOn;
};

class FakeHub {
 public:
  using Filter = std::function<std::optional<HubReply>(const HubRequest&)>;

  FakeHub();
  ~FakeHub();

  std::string endpoint() const { return Url(0); }
  std::string cdn() const { return Url(1); }
  // The files of every revision.
  void SetFiles(const std::map<std::string, std::string>& files,
                const std::string& commit = kCommit);
  void SetFilter(Filter filter);
  // What has come so far, in order.
  std::vector<HubRequest> requests() const;
  int Count(const std::string& method, const std::string& part_of_target) const;

  // What it answers by itself.
  HubReply Answer(const HubRequest& request) const;

 private:
  struct Listener {
    int socket = -1;
    int port = 0;
    std::thread thread;
  };
  std::string Url(int which) const;
  void Accept(int which);
  void Serve(int which, int connection);
  std::string List() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Listener listeners_[2];
  mutable Mutex mutex_;
  bool stops_ ABSL_GUARDED_BY(mutex_) = false;
  CondVar stopped_;
  std::map<std::string, std::string> files_ ABSL_GUARDED_BY(mutex_);
  std::string commit_ ABSL_GUARDED_BY(mutex_) = kCommit;
  Filter filter_ ABSL_GUARDED_BY(mutex_);
  std::vector<HubRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> connections_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

std::string Sha256Of(const std::string& bytes);
std::string GitIdOf(const std::string& bytes);
// `num_bytes` that no two places have alike.
std::string SomeBytes(size_t num_bytes);

}  // namespace fastgen::testing
