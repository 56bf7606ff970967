// fgbench: how fast a server answers under load, and how that compares with another one in the same
// run.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "clients/fgbench/closed_loop.h"
#include "clients/fgbench/grpc_target.h"
#include "clients/fgbench/http_target.h"
#include "clients/fgbench/progress_bar.h"
#include "clients/fgbench/report.h"
#include "clients/fgbench/workload.h"

namespace fastgen {
namespace {

constexpr char kAbout[] =
    "Loads servers with streamed completions and tells how fast they answer.\n\n"
    "  fgbench --grpc 127.0.0.1:5679\n"
    "      32 streams, prompts of about 128 tokens, 64 output tokens, 3 rounds of 128 requests\n"
    "  fgbench --grpc 127.0.0.1:5679 --http http://127.0.0.1:5678 --rounds 5\n"
    "      what the HTTP gateway costs: both in turn, round by round, and the ratio of their "
    "rates\n"
    "  fgbench --http http://a:8000 --http http://b:8000 --seconds 60 --json ab.json\n"
    "      two OpenAI-compatible servers (vLLM, SGLang, llama-server, ...), a minute each a "
    "round\n\n"
    "A stream sends a request, reads its answer to the end and sends the next one at once. Every "
    "request has\n"
    "a prompt of its own, so that no answer comes out of a prefix cache (--shared-prefix asks for "
    "hits), and\n"
    "generates exactly --output-tokens (ignore_eos). TTFT: from sending a request to its first "
    "text. ITL: from\n"
    "one piece of text to the next. E2E: to the end of the answer. Rates count the tokens of whole "
    "requests,\n"
    "from a round's first request to the end of its last. Targets take turns (A B, B A, ...), and "
    "ratios are\n"
    "medians over rounds, so that a machine which slows down slows all of them.\n"
    "Ctrl-C ends the run and prints what was measured.";

constexpr int kInterruptedExit = 130;

volatile std::sig_atomic_t interrupted = 0;

void OnInterrupt(int) { interrupted = 1; }

struct BenchOptions {
  std::vector<std::string> grpc;
  std::vector<std::string> http;
  std::string model;
  std::string api_key_file;
  std::string json_file;
  double seconds = 0;
  int64_t timeout_s = 600;
  RunOptions run;
};

void AddOptions(CLI::App& app, BenchOptions* options) {
  RunOptions& run = options->run;
  app.option_defaults()->always_capture_default();
  app.add_option("--grpc", options->grpc, "A Fastgen daemon's gRPC address; may be given again")
      ->type_name("HOST:PORT")
      ->allow_extra_args(false);
  app.add_option("--http", options->http, "An OpenAI-compatible server; may be given again")
      ->type_name("URL")
      ->allow_extra_args(false);
  app.add_option("-c,--streams", run.loop.num_streams, "Requests at the same time")
      ->check(CLI::Range(1, 4096));
  auto* requests =
      app.add_option(
             "-n,--requests", run.loop.max_requests,
             "Requests of a round; 4 for each stream when neither this nor --seconds is given")
          ->check(CLI::Range(int64_t{1}, int64_t{1} << 32));
  app.add_option("-s,--seconds", options->seconds,
                 "Begin requests for so long in each round, instead of a number of them")
      ->check(CLI::Range(0.1, 86400.0))
      ->excludes(requests);
  app.add_option("-r,--rounds", run.num_rounds, "Rounds on each target")
      ->check(CLI::Range(1, 1000));
  app.add_option("-w,--warmup", run.num_warmup,
                 "Requests to each target before the first round, not counted; one for each stream "
                 "unless given")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  app.add_option("-p,--prompt-tokens", run.workload.prompt_tokens,
                 "Random words of a prompt; nearly every tokenizer makes one token of each")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--prompt-file", run.workload.prompt_file,
                 "Prompts, one a line, instead of random words");
  app.add_option("--shared-prefix", run.workload.shared_prefix_tokens,
                 "Words that open every prompt, in addition: what a prefix cache may keep")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("-o,--output-tokens", run.shape.output_tokens, "Tokens of each answer")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--temperature", run.shape.temperature)->check(CLI::Range(0.0, 100.0));
  app.add_option("--seed", run.workload.seed, "Of the random words");
  app.add_option("--model", options->model,
                 "What HTTP requests ask for; the first model listed unless given");
  app.add_option("--api-key-file", options->api_key_file,
                 "A file whose first line is sent as the bearer token");
  app.add_option("--timeout", options->timeout_s, "Seconds until a request counts as failed")
      ->check(CLI::Range(int64_t{1}, int64_t{86400}));
  app.add_option("--json", options->json_file,
                 "Write the figures there too; - is stdout, without the table");
}

absl::Status Complete(BenchOptions* options, bool has_warmup) {
  RunOptions& run = options->run;
  if (options->grpc.empty() && options->http.empty()) {
    return absl::InvalidArgumentError("name a server with --grpc HOST:PORT or --http URL");
  }
  run.loop.max_time = std::chrono::duration<double>(options->seconds);
  if (options->seconds == 0 && run.loop.max_requests == 0) {
    run.loop.max_requests = 4 * int64_t{run.loop.num_streams};
  }
  if (!has_warmup) run.num_warmup = run.loop.num_streams;
  run.shape.timeout = std::chrono::seconds(options->timeout_s);
  if (!options->api_key_file.empty()) {
    std::ifstream file(options->api_key_file);
    if (!std::getline(file, run.shape.api_key) || run.shape.api_key.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--api-key-file ", options->api_key_file, ": has no first line"));
    }
  }
  return absl::OkStatus();
}

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The targets of a run and what has been measured of them.
class Run {
 public:
  static absl::StatusOr<std::unique_ptr<Run>> Make(const BenchOptions& options);

  // Until the last round, an interrupt, or the end of a target.
  absl::Status Measure();
  const std::vector<TargetReport>& reports() const { return reports_; }

 private:
  Run(const RunOptions& options, Workload workload)
      : options_(options), workload_(std::move(workload)) {}

  absl::Status Add(const char* kind, const std::string& address, std::unique_ptr<Target> target);
  LoopResult RunLoop(size_t target, const LoopOptions& options, const std::string& what);
  absl::Status WarmUp(size_t target);

  const RunOptions options_;
  Workload workload_;
  ProgressBar progress_;
  std::vector<std::unique_ptr<Target>> targets_;
  std::vector<TargetReport> reports_;
};

absl::StatusOr<std::unique_ptr<Run>> Run::Make(const BenchOptions& options) {
  ASSIGN_OR_RETURN(Workload workload, Workload::Make(options.run.workload));
  std::unique_ptr<Run> run(new Run(options.run, std::move(workload)));
  for (const std::string& address : options.grpc) {
    RETURN_IF_ERROR(
        run->Add("grpc", address, std::make_unique<GrpcTarget>(address, options.run.shape)));
  }
  for (const std::string& url : options.http) {
    RETURN_IF_ERROR(
        run->Add("http", url, std::make_unique<HttpTarget>(url, options.model, options.run.shape)));
  }
  return run;
}

absl::Status Run::Add(const char* kind, const std::string& address,
                      std::unique_ptr<Target> target) {
  ASSIGN_OR_RETURN(const std::string model, target->Probe());
  targets_.push_back(std::move(target));
  reports_.emplace_back(kind, address, model);
  return absl::OkStatus();
}

LoopResult Run::RunLoop(size_t target, const LoopOptions& options, const std::string& what) {
  ClosedLoop loop(targets_[target].get(), &workload_, options);
  loop.Start();
  bool stopped = false;
  while (!loop.Wait(std::chrono::milliseconds(100))) {
    progress_.Show(absl::StrCat(what, " ", reports_[target].kind()), loop.progress(),
                   loop.num_ended());
    if (interrupted && !std::exchange(stopped, true)) loop.Stop();
  }
  return loop.Take();
}

absl::Status Run::WarmUp(size_t target) {
  if (options_.num_warmup == 0) return absl::OkStatus();
  LoopOptions options = options_.loop;
  options.max_requests = options_.num_warmup;
  options.max_time = {};
  const LoopResult warmup = RunLoop(target, options, "warm-up");
  for (const RequestResult& request : warmup.requests) {
    if (request.error.empty()) return absl::OkStatus();
  }
  if (warmup.requests.empty()) return absl::OkStatus();  // interrupted
  return absl::UnavailableError(
      absl::StrCat(reports_[target].kind(), " ", reports_[target].address(),
                   ": every warm-up request failed: ", warmup.requests.front().error));
}

absl::Status Run::Measure() {
  for (size_t i = 0; i < targets_.size() && !interrupted; ++i) RETURN_IF_ERROR(WarmUp(i));
  for (int32_t round = 0; round < options_.num_rounds && !interrupted; ++round) {
    const std::string what = absl::StrCat("round ", round + 1, "/", options_.num_rounds);
    for (size_t turn = 0; turn < targets_.size() && !interrupted; ++turn) {
      const size_t target = round % 2 == 0 ? turn : targets_.size() - 1 - turn;
      const double cpu_before = CpuSeconds();
      LoopResult result = RunLoop(target, options_.loop, what);
      const bool gave_up = result.gave_up;
      reports_[target].Add(std::move(result), CpuSeconds() - cpu_before);
      if (gave_up) {
        return absl::UnavailableError(
            absl::StrCat(reports_[target].kind(), " ", reports_[target].address(),
                         ": gave up after ", 2 * options_.loop.num_streams, " failures in a row"));
      }
    }
  }
  progress_.Clear();
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::cerr << "fgbench: " << status.message() << "\n";
  return 1;
}

absl::Status Print(const BenchOptions& options, const std::vector<TargetReport>& reports) {
  if (options.json_file != "-") std::cout << Table(reports) << std::flush;
  if (options.json_file.empty()) return absl::OkStatus();
  const std::string text = Json(options.run, reports, interrupted != 0);
  if (options.json_file == "-") {
    std::cout << text << std::flush;
    return absl::OkStatus();
  }
  std::ofstream file(options.json_file);
  file << text << std::flush;
  if (file.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--json ", options.json_file, ": cannot be written"));
}

int Main(int argc, char** argv) {
  BenchOptions options;
  CLI::App app(kAbout, "fgbench");
  AddOptions(app, &options);
  app.set_version_flag("--version", "fgbench " FASTGEN_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  }
  const absl::Status complete = Complete(&options, app.count("--warmup") > 0);
  if (!complete.ok()) return Fail(complete);
  struct sigaction action = {};
  action.sa_handler = &OnInterrupt;
  action.sa_flags = SA_RESETHAND;  // a second one ends the program
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  auto run = Run::Make(options);
  if (!run.ok()) return Fail(run.status());
  const absl::Status measured = (*run)->Measure();
  const bool has_figures =
      !(*run)->reports().empty() && !(*run)->reports().front().rounds().empty();
  const absl::Status printed = has_figures ? Print(options, (*run)->reports()) : absl::OkStatus();
  if (!measured.ok()) return Fail(measured);
  if (!printed.ok()) return Fail(printed);
  return interrupted ? kInterruptedExit : 0;
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) { return fastgen::Main(argc, argv); }
