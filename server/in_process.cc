#include "server/in_process.h"

#include <utility>

#include "base/status_macros.h"
#include "hub/resolve_model.h"
#include "server/daemon_parts.h"

namespace fastgen {

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options,
                                                      const LoadProgress& progress) {
  // Checked before a port is opened, so that a wrong flag is the first thing one hears of.
  EngineOptions engine_options = options.engine;
  engine_options.model_path = options.model.empty() ? "the default model" : options.model;
  RETURN_IF_ERROR(Validate(engine_options));
  DaemonParts parts;
  parts.load_engine =
      [model = options.model, on_phase = options.on_phase, engine_options](
          const LoadProgress& load_progress) -> absl::StatusOr<std::unique_ptr<Engine>> {
    EngineOptions resolved = engine_options;
    bool downloads = false;
    const auto on_bytes = [&](int64_t done_bytes, int64_t total_bytes) {
      if (!std::exchange(downloads, true) && on_phase) on_phase(LoadPhase::kDownload);
      if (load_progress) load_progress(done_bytes, total_bytes);
    };
    ASSIGN_OR_RETURN(resolved.model_path, ResolveModel(model, on_bytes));
    resolved.model_name = HubNameOf(model);
    if (downloads && on_phase) on_phase(LoadPhase::kLoad);
    return Engine::Create(resolved, load_progress);
  };
  parts.start_gateway = HttpServer::Start;
  return StartWith(options, progress, std::move(parts));
}

}  // namespace fastgen
