// DaemonWatch: asks one daemon every second how it is, on a thread of its own.
//
// grpc.health first. One that serves is asked for its model and, as far as it lets us, how many
// requests it has: another gateway may send it some as well. One that does not is asked for its
// model too, because the refusal says why ("loading the model: 12 % of ..."). What is refused for
// want of a key is not asked again until the daemon has been away.
// Questions rather than the health service's Watch stream: one that hangs answers neither, and only
// a question has a deadline.
// Thread rule: any thread; the callback runs on the watch's own. The destructor ends a question
// under way and waits for the thread.
// Tested by tests/server/gateway/fleet_test.cc.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/gateway/daemon.h"

namespace fastgen::gateway {

// What one round of questions brought.
struct DaemonCheck {
  enum class Health { kServing, kNotServing, kUnreachable };
  Health health = Health::kUnreachable;
  std::string reason;                   // why it does not serve
  std::optional<v1::ModelInfo> model;   // unless it asks for a key that we do not have
  std::optional<int32_t> num_requests;  // running and waiting
};

struct WatchOptions {
  absl::Duration interval;
  absl::Duration timeout;
  std::string api_key;
};

class DaemonWatch {
 public:
  using OnCheck = std::function<void(const DaemonCheck&)>;

  // `stubs` outlives this object.
  DaemonWatch(const DaemonStubs* stubs, const WatchOptions& options, OnCheck on_check);
  ~DaemonWatch();
  DaemonWatch(const DaemonWatch&) = delete;
  DaemonWatch& operator=(const DaemonWatch&) = delete;

  // The next question is due at once.
  void CheckNow();
  // Ends the question under way; there will be no other. Does not wait: Join does, after Stop.
  void Stop();
  void Join();

 private:
  void Run();
  DaemonCheck Check();
  void AskForModel(DaemonCheck* check);
  void AskForLoad(DaemonCheck* check);
  // Calls `ask` with a context that Stop can cancel.
  grpc::Status Ask(const std::function<grpc::Status(grpc::ClientContext*)>& ask);

  const DaemonStubs* const stubs_;
  const WatchOptions options_;
  const OnCheck on_check_;
  bool model_is_locked_ = false;  // the thread's own
  bool load_is_locked_ = false;

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool due_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* asking_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

}  // namespace fastgen::gateway
