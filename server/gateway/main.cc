// fastgen-gateway: the HTTP gateway as a process of its own, before a daemon elsewhere.
//
//   fastgen-gateway --listen 0.0.0.0:5678 --connect 10.0.0.2:5679
// SIGTERM and SIGINT stop accepting and wait for the answers under way; a second one ends at once,
// with exit code 1.
// Thread rule: main only waits for signals.
// Tested by tests/e2e.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "server/gateway/http_server.h"

namespace {

struct Flags {
  fastgen::GatewayOptions gateway;
  std::string connect = "127.0.0.1:5679";
  double drain_timeout_s = 30;
};

void AddFlags(CLI::App* app, Flags* flags) {
  app->set_version_flag("--version", "fastgen-gateway " FASTGEN_VERSION,
                        "Print the version and exit");
  flags->gateway.listen = {"127.0.0.1:5678"};
  app->add_option("--listen", flags->gateway.listen,
                  "host:port to serve HTTP on; may be given several times")
      ->capture_default_str();
  app->add_option("--connect", flags->connect, "the daemon's gRPC address: host:port or unix:/path")
      ->capture_default_str();
  app->add_option("--threads", flags->gateway.num_threads, "I/O threads")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app->add_option("--max-body-bytes", flags->gateway.max_body_bytes, "largest request body")
      ->check(CLI::Range(int64_t{1} << 10, int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--max-connections", flags->gateway.max_connections, "connections open at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_flag("--strict-model", flags->gateway.strict_model,
                "refuse every model name but the served one");
  app->add_flag("--strict", flags->gateway.strict_fields,
                "refuse request fields that this version does not know");
  app->add_option("--drain-timeout", flags->drain_timeout_s,
                  "seconds that answers under way get after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
}

// Polls the signals between short waits. False when a second one cut the drain short.
bool Drain(fastgen::HttpServer* server, double timeout_s, const sigset_t& signals) {
  server->StopAccepting();
  const absl::Time deadline = absl::Now() + absl::Seconds(timeout_s);
  while (absl::Now() < deadline && !server->WaitIdle(absl::Milliseconds(100))) {
    const timespec no_wait = {};
    if (sigtimedwait(&signals, nullptr, &no_wait) > 0) return false;
  }
  return true;
}

// The exit code when the program ends here: after --help, --version or a mistake.
std::optional<int> ParseCommandLine(CLI::App* app, int argc, char** argv) {
  try {
    app->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app->exit(error);
    std::string reason = error.what();
    std::replace(reason.begin(), reason.end(), '\n', ' ');
    std::fprintf(stderr, "fastgen-gateway: %s (fastgen-gateway --help lists the flags)\n",
                 reason.c_str());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("fastgen-gateway: OpenAI's HTTP dialect before a Fastgen daemon");
  Flags flags;
  AddFlags(&app, &flags);
  if (const auto code = ParseCommandLine(&app, argc, argv)) return *code;

  // Blocked before any thread starts, so that only sigwait sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel =
      grpc::CreateCustomChannel(flags.connect, grpc::InsecureChannelCredentials(), arguments);
  auto server = fastgen::HttpServer::Start(flags.gateway, channel);
  if (!server.ok()) {
    std::fprintf(stderr, "fastgen-gateway: %s\n", std::string(server.status().message()).c_str());
    return 1;
  }
  fastgen::LogInfo(absl::StrCat("serving HTTP on ", absl::StrJoin((*server)->addresses(), ", "),
                                " for the daemon at ", flags.connect));
  int signal = 0;
  sigwait(&signals, &signal);
  fastgen::LogInfo("draining");
  const bool drained = Drain(server->get(), flags.drain_timeout_s, signals);
  (*server)->Stop();
  return drained ? 0 : 1;
}
