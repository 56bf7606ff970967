// transport_bench: what gRPC and the HTTP gateway cost, over calls of the engine without either.
//
// One daemon in this process; the same closed loop, one round after the other, calls its engine,
// its gRPC listener and its gateway.
#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <iostream>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "clients/fgbench/grpc_target.h"
#include "clients/fgbench/http_target.h"
#include "clients/fgbench/report.h"
#include "hub/resolve_model.h"
#include "server/daemon_parts.h"

namespace fastgen {
namespace {

constexpr char kAbout[] =
    "What gRPC and the HTTP gateway cost, over calls of the engine in the same process.\n\n"
    "  transport_bench                           32 streams on the default model, 7 rounds\n"
    "  transport_bench -m model.gguf -c 8 -r 3   another model, 8 streams\n\n"
    "The targets take turns on one engine; ratios are medians over rounds, of the first target's "
    "rate.";

struct BenchOptions {
  std::string model;
  RunOptions run;
};

// The engine itself, in GrpcTarget's place.
class EngineTarget final : public Target {
 public:
  EngineTarget(Engine* engine, const RequestShape& shape) : engine_(engine), shape_(shape) {}
  ~EngineTarget() override {
    CancelAll();
    MutexLock lock(&mutex_);
    while (!live_.empty()) request_ended_.Wait(&mutex_);
  }

  absl::StatusOr<std::string> Probe() override { return engine_->model_info().name; }

  void Start(const std::string& prompt, Done done) override {
    GenerateRequest request;
    request.request_id = absl::StrCat("bench-", next_id_.fetch_add(1));
    request.prompt = TextPrompt{prompt};
    request.sampling.temperature = static_cast<float>(shape_.temperature);
    request.stopping.max_tokens = shape_.output_tokens;
    request.stopping.ignore_eos = true;
    const std::string id = request.request_id;
    {
      MutexLock lock(&mutex_);
      live_.insert(id);
    }
    auto sink = std::make_shared<Sink>(this, id, shape_.output_tokens, std::move(done));
    const absl::Status status = engine_->Submit(std::move(request), sink);
    if (!status.ok()) sink->OnEngineError(std::string(status.message()));
  }

  void CancelAll() override {
    std::set<std::string> ids;
    {
      MutexLock lock(&mutex_);
      ids = live_;
    }
    for (const std::string& id : ids) engine_->Cancel(id);
  }

 private:
  class Sink final : public TokenSink {
   public:
    Sink(EngineTarget* target, std::string id, int32_t output_tokens, Done done)
        : target_(target), id_(std::move(id)), done_(std::move(done)) {
      result_.arrivals.reserve(static_cast<size_t>(output_tokens));
      result_.begin = BenchClock::now();
    }

    void OnAccepted(const AcceptedInfo&) override {}
    void OnProgress(int32_t, int32_t) override {}
    void OnDelta(TokenDelta delta) override {
      if (!delta.text.empty()) result_.arrivals.push_back(BenchClock::now());
    }
    void OnFinished(FinishInfo info) override {
      result_.prompt_tokens = info.usage.prompt_tokens;
      result_.output_tokens = info.usage.output_tokens;
      result_.cancelled = info.reason == FinishReason::kCancelled;
      End(info.error);
    }
    void OnEngineError(const std::string& message) override { End(message); }

   private:
    void End(const std::string& error) {
      result_.error = error;
      result_.end = BenchClock::now();
      done_(std::move(result_));
      target_->Remove(id_);
    }

    EngineTarget* const target_;
    const std::string id_;
    const Done done_;
    RequestResult result_;
  };

  void Remove(const std::string& id) {
    MutexLock lock(&mutex_);
    live_.erase(id);
    request_ended_.SignalAll();
  }

  Engine* const engine_;
  const RequestShape shape_;
  std::atomic<int64_t> next_id_ = 0;

  Mutex mutex_;
  CondVar request_ended_;
  std::set<std::string> live_ ABSL_GUARDED_BY(mutex_);
};

struct Contender {
  std::unique_ptr<Target> target;
  TargetReport report;
};

LoopResult RunLoop(Target* target, Workload* workload, const LoopOptions& options) {
  ClosedLoop loop(target, workload, options);
  loop.Start();
  while (!loop.Wait(std::chrono::milliseconds(100))) {
  }
  return loop.Take();
}

absl::Status Add(const char* kind, const std::string& address, std::unique_ptr<Target> target,
                 std::vector<Contender>* contenders) {
  ASSIGN_OR_RETURN(const std::string model, target->Probe());
  contenders->push_back({std::move(target), TargetReport(kind, address, model)});
  return absl::OkStatus();
}

absl::Status Measure(const BenchOptions& options) {
  Engine* engine = nullptr;
  DaemonParts parts;
  parts.load_engine = [&](const LoadProgress& progress) -> absl::StatusOr<std::unique_ptr<Engine>> {
    EngineOptions engine_options;
    ASSIGN_OR_RETURN(engine_options.model_path, ResolveModel(options.model, nullptr));
    ASSIGN_OR_RETURN(std::unique_ptr<Engine> loaded, Engine::Create(engine_options, progress));
    engine = loaded.get();
    return loaded;
  };
  parts.start_gateway = HttpServer::Start;
  DaemonOptions daemon_options;
  daemon_options.grpc_listen = {"127.0.0.1:0"};
  daemon_options.http_listen = {"127.0.0.1:0"};
  ASSIGN_OR_RETURN(const std::unique_ptr<Daemon> daemon,
                   Daemon::StartWith(daemon_options, nullptr, std::move(parts)));
  RETURN_IF_ERROR(daemon->WaitLoaded());

  const RunOptions& run = options.run;
  const std::string& grpc = daemon->grpc_addresses().front();
  const std::string http = absl::StrCat("http://", daemon->http_addresses().front());
  std::vector<Contender> contenders;  // end before the daemon
  RETURN_IF_ERROR(Add("engine", "in this process",
                      std::make_unique<EngineTarget>(engine, run.shape), &contenders));
  RETURN_IF_ERROR(Add("grpc", grpc, std::make_unique<GrpcTarget>(grpc, run.shape), &contenders));
  RETURN_IF_ERROR(
      Add("http", http, std::make_unique<HttpTarget>(http, "", run.shape), &contenders));

  ASSIGN_OR_RETURN(Workload workload, Workload::Make(run.workload));
  LoopOptions warmup = run.loop;
  warmup.max_requests = run.loop.num_streams;
  for (const Contender& contender : contenders) {
    RunLoop(contender.target.get(), &workload, warmup);
  }
  for (int32_t round = 0; round < run.num_rounds; ++round) {
    std::cerr << "round " << round + 1 << " of " << run.num_rounds << "\n";
    for (size_t turn = 0; turn < contenders.size(); ++turn) {
      Contender& contender = contenders[(static_cast<size_t>(round) + turn) % contenders.size()];
      LoopResult result = RunLoop(contender.target.get(), &workload, run.loop);
      if (result.gave_up) return absl::UnavailableError("gave up after failures in a row");
      contender.report.Add(std::move(result), 0);
    }
  }
  std::vector<TargetReport> reports;
  for (const Contender& contender : contenders) reports.push_back(contender.report);
  std::cout << Table(reports);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  BenchOptions options;
  RunOptions& run = options.run;
  run.num_rounds = 7;
  CLI::App app(kAbout, "transport_bench");
  app.option_defaults()->always_capture_default();
  app.add_option("-m,--model", options.model, "As fastgend's; the default model unless given");
  app.add_option("-c,--streams", run.loop.num_streams)->check(CLI::Range(1, 4096));
  app.add_option("-n,--requests", run.loop.max_requests, "Of a round; 3 a stream unless given")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("-r,--rounds", run.num_rounds)->check(CLI::Range(1, 1000));
  app.add_option("-p,--prompt-tokens", run.workload.prompt_tokens)->check(CLI::Range(1, 1 << 20));
  app.add_option("-o,--output-tokens", run.shape.output_tokens)->check(CLI::Range(1, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  if (run.loop.max_requests == 0) run.loop.max_requests = 3 * int64_t{run.loop.num_streams};
  const absl::Status status = Measure(options);
  if (status.ok()) return 0;
  std::cerr << "transport_bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) { return fastgen::Main(argc, argv); }
