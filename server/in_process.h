// Daemon: the whole of fastgend as an object: listeners, engine, gateway, drain. fastgend's main, fgserve and fgchat
// all start it through here, so there is one path.
//
// Start opens the listeners first (calls answer UNAVAILABLE "loading" meanwhile), then loads the model on a thread.
// Thread rule: the owner's thread calls everything; channel() may be used from any thread.
// Tested by tests/server/in_process_test.cc and tests/e2e.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "server/transport/tls_source.h"

namespace fastgen {

// The parts of loading a model. A model that is on this machine has the second one only.
enum class LoadPhase { kDownload, kLoad };

struct DaemonOptions {
  std::string model;  // directory, .gguf file, a hub's org/name, or "": the default model
  EngineOptions engine;
  std::vector<std::string> grpc_listen;  // host:port or unix:/path; may be empty (in-process only)
  std::vector<std::string> http_listen;  // host:port or unix:/path; empty: no gateway
  std::vector<std::string> admin_listen;  // gRPC as well; when given, Admin is served there and nowhere else
  TlsFiles tls;                           // of all TCP listeners; without them they are plain
  // A listener that other machines reach is refused unless callers are told apart, by keys or by certificates.
  bool allow_public_without_keys = false;
  std::vector<std::string> cors_origins;  // pages of these may call the gateway; "*": of all
  int32_t max_connections = 8192;         // of HTTP, open at once
  int32_t max_head_bytes = 64 << 10;      // of an HTTP request line with its headers
  // What an HTTP request, and each part of its answer, may take; large bodies one second more for each 64 KiB.
  absl::Duration transfer_timeout = absl::Seconds(30);
  absl::Duration idle_timeout = absl::Seconds(75);  // of an HTTP connection between two requests
  std::string api_keys_path;  // who may call; "": everybody (server/api_keys.h)
  bool strict_model = false;   // a request that names another model is refused with NOT_FOUND
  bool strict_fields = false;  // protobuf fields that nobody knows are refused, not only named in x-fastgen-ignored
  int32_t max_request_bytes = 16 << 20;      // of one gRPC message or HTTP body
  int32_t max_outbox_tokens = 4096;          // tokens a slow reader may be behind before its request is cancelled
  int32_t resume_ring_tokens = 16384;        // tokens of one request that Attach may replay
  // Called from any thread, and must not block, when a client has begun a drain (Admin.Drain): the owner then waits for
  // WaitDrained and stops.
  std::function<void()> on_drain;
  // Called from any thread, and must not block, when loading has ended, well or not, and when the engine has failed:
  // the owner then looks at WaitLoaded() and health().
  std::function<void()> on_change;
  // Called from the loading thread, which then reports progress of that part.
  std::function<void(LoadPhase)> on_phase;
};

// What a Daemon is made of besides gRPC; server/daemon_parts.h.
struct DaemonParts;

class Daemon {
 public:
  // Opens the listeners and starts loading. INVALID_ARGUMENT / UNAVAILABLE with one sentence (port in use, bad address).
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options,
                                                       const LoadProgress& progress);
  // The same with another engine or gateway, as tests need it.
  static absl::StatusOr<std::unique_ptr<Daemon>> StartWith(const DaemonOptions& options,
                                                           const LoadProgress& progress,
                                                           DaemonParts parts);
  // Stops at once if still running. Waits for a load under way: it cannot be interrupted.
  ~Daemon();

  // Blocks until the model is loaded or loading failed.
  absl::Status WaitLoaded();
  // A channel inside the process, the same services as on the listeners. Not to be used after Stop.
  std::shared_ptr<grpc::Channel> channel();
  // Only after WaitLoaded returned OK, until Stop.
  const Engine& engine() const;
  // Addresses actually bound (port 0 resolved), "host:port" or "unix:/path".
  const std::vector<std::string>& grpc_addresses() const;
  const std::vector<std::string>& http_addresses() const;
  const std::vector<std::string>& admin_addresses() const;
  // Not OK once the engine failed for good.
  absl::Status health() const;

  // Reads the file of API keys again. On an error the keys stay what they were.
  absl::Status ReloadKeys();
  // Refuses new requests, lets streams finish.
  void StartDrain();
  // True once nothing is live; false after `timeout`.
  bool WaitDrained(absl::Duration timeout);
  // Cancels what is live and closes the listeners.
  void Stop();

 private:
  struct State;
  explicit Daemon(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fastgen
