// fastgen-gateway: the HTTP gateway as a process of its own, before one daemon or several.
//
//   fastgen-gateway --listen 127.0.0.1:5678 --connect 10.0.0.2:5679
//   fastgen-gateway --listen 127.0.0.1:5678 --connect 10.0.0.2:5679,10.0.0.3:5679 --model smol
//   fastgen-gateway --listen 0.0.0.0:443 --tls-cert site.pem --tls-key site.key
//       --tls-client-ca clients.pem --connect 10.0.0.2:5679 --connect-ca daemon-ca.pem
// SIGTERM and SIGINT stop accepting and wait for the answers under way; a second one ends at once,
// with exit code 1.
// Thread rule: main only waits for signals.
// Tested by tests/e2e.
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "server/gateway/http_server.h"
#include "server/transport/channel_tls.h"
#include "server/transport/listen_address.h"
#include "server/transport/tls_source.h"

namespace {

struct Flags {
  fastgen::GatewayOptions gateway;
  std::vector<std::string> connect = {"127.0.0.1:5679"};
  fastgen::FleetOptions fleet;
  std::string daemon_key_file;
  double check_interval_s = absl::ToDoubleSeconds(fleet.check_interval);
  double check_timeout_s = absl::ToDoubleSeconds(fleet.check_timeout);
  // Of the connections to the daemons; PEM files.
  fastgen::ChannelTls connect_tls;
  bool allow_public_without_keys = false;
  double transfer_timeout_s = absl::ToDoubleSeconds(gateway.transfer_timeout);
  double idle_timeout_s = absl::ToDoubleSeconds(gateway.idle_timeout);
  double drain_timeout_s = 30;
};

void AddTlsFlags(CLI::App* app, Flags* flags) {
  const auto file = [&](const char* name, std::string* path, const char* help) {
    return app->add_option(name, *path, help)->check(CLI::ExistingFile);
  };
  auto* const certificate = file("--tls-cert", &flags->gateway.tls.certificate,
                                 "PEM certificate: serve HTTPS; reread when it changes");
  auto* const key = file("--tls-key", &flags->gateway.tls.key, "PEM key of --tls-cert");
  certificate->needs(key);
  key->needs(certificate);
  file("--tls-client-ca", &flags->gateway.tls.client_ca,
       "PEM certificates: clients must show a certificate that one of them signed")
      ->needs(certificate);
  app->add_flag(
      "--allow-public-without-keys", flags->allow_public_without_keys,
      "listen where other machines reach it: keys travel on, and the daemon checks its own");
  auto* const ca = file("--connect-ca", &flags->connect_tls.ca,
                        "PEM certificates that the daemons' are signed by: connect by TLS");
  auto* const own = file("--connect-cert", &flags->connect_tls.certificate,
                         "PEM certificate to show the daemons");
  auto* const own_key = file("--connect-key", &flags->connect_tls.key, "PEM key of --connect-cert");
  own->needs(ca);
  own->needs(own_key);
  own_key->needs(own);
}

void AddFleetFlags(CLI::App* app, Flags* flags) {
  app->add_option("--connect", flags->connect,
                  "a daemon's gRPC address, host:port or unix:/path; several times, or with commas "
                  "between: a fleet of daemons that serve the same model. A request goes to the "
                  "daemon that has its prompt's beginning cached, unless that one is busier than "
                  "the others; one that is down, draining or still loading gets none")
      ->delimiter(',')
      ->capture_default_str();
  constexpr char kGroup[] = "Several daemons";
  app->add_option("--model", flags->fleet.model,
                  "what all daemons must serve; one with another model is not used. Default: what "
                  "the first of them serves at the start")
      ->group(kGroup);
  app->add_option("--daemon-key-file", flags->daemon_key_file,
                  "a file that holds an API key of scope metrics, for daemons with --api-keys: to "
                  "ask them for their model and load. Requests bring their own keys")
      ->check(CLI::ExistingFile)
      ->group(kGroup);
  app->add_option("--load-bound", flags->fleet.load_bound,
                  "a daemon with more requests than this times the mean, and two, is passed over; "
                  "1 spreads evenly, more keeps cached prompts together")
      ->check(CLI::Range(1.0, 100.0))
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--check-interval", flags->check_interval_s,
                  "seconds between two questions to a daemon whether it is well")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str()
      ->group(kGroup);
  app->add_option("--check-timeout", flags->check_timeout_s,
                  "seconds that it has to answer, before it counts as unreachable")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str()
      ->group(kGroup);
}

void AddLimitFlags(CLI::App* app, Flags* flags) {
  app->add_option("--max-body-bytes", flags->gateway.max_body_bytes, "largest request body")
      ->check(CLI::Range(int64_t{1} << 10, int64_t{1} << 30))
      ->capture_default_str();
  app->add_option("--max-head-bytes", flags->gateway.max_head_bytes,
                  "largest request line with its headers")
      ->check(CLI::Range(int64_t{1} << 10, int64_t{1} << 20))
      ->capture_default_str();
  app->add_option("--max-connections", flags->gateway.max_connections, "connections open at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--transfer-timeout", flags->transfer_timeout_s,
                  "seconds that a request may take to arrive, and a part of its answer to leave")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app->add_option("--idle-timeout", flags->idle_timeout_s,
                  "seconds that a connection may wait for its next request")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
}

void AddFlags(CLI::App* app, Flags* flags) {
  app->set_version_flag("--version", "fastgen-gateway " FASTGEN_VERSION,
                        "Print the version and exit");
  flags->gateway.listen = {"127.0.0.1:5678"};
  app->add_option("--listen", flags->gateway.listen,
                  "host:port or unix:/path to serve HTTP on; may be given several times")
      ->capture_default_str();
  AddFleetFlags(app, flags);
  app->add_option("--threads", flags->gateway.num_threads, "I/O threads")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  AddTlsFlags(app, flags);
  AddLimitFlags(app, flags);
  app->add_option("--cors-origin", flags->gateway.cors_origins,
                  "web pages of this origin, or of all (*), may call; may be given several times");
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

// No keys are checked here. A wrong address is not refused here: binding it says why.
absl::Status CheckExposure(const Flags& flags) {
  if (flags.allow_public_without_keys || !flags.gateway.tls.client_ca.empty()) {
    return absl::OkStatus();
  }
  for (const std::string& address : flags.gateway.listen) {
    if (!fastgen::IsPublicAddress(address)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "other machines reach ", address,
        " and this program checks no keys: give --tls-client-ca, "
        "listen on 127.0.0.1, or say --allow-public-without-keys where the daemon has --api-keys"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<fastgen::FleetOptions::Daemon>> Connect(const Flags& flags) {
  ASSIGN_OR_RETURN(const auto credentials, fastgen::MakeChannelCredentials(flags.connect_tls));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A daemon that comes back is found within a second, one that swallows packets given up soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  // Calls on a daemon that hangs, or whose machine is gone, end by this (the daemon allows a ping
  // every 10 seconds).
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 15'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  std::vector<fastgen::FleetOptions::Daemon> daemons;
  for (const std::string& address : flags.connect) {
    for (const auto& other : daemons) {
      if (other.address != address) continue;
      return absl::InvalidArgumentError(absl::StrCat("--connect ", address, " is given twice"));
    }
    if (address.empty()) return absl::InvalidArgumentError("--connect has an empty address");
    daemons.push_back({address, grpc::CreateCustomChannel(address, credentials, arguments)});
  }
  return daemons;
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path) {
  std::ifstream file(path);
  std::string key, more;
  file >> key;
  if (key.empty() || (file >> more)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--daemon-key-file ", path, " must hold one API key and nothing else"));
  }
  for (char c : key) {
    if (absl::ascii_isprint(static_cast<unsigned char>(c))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--daemon-key-file ", path, " holds bytes that no API key has"));
  }
  return key;
}

// One address with nothing of a fleet's is one daemon, without any watch.
bool IsFleet(const CLI::App& app, const Flags& flags) {
  if (flags.connect.size() > 1) return true;
  for (const char* flag :
       {"--model", "--daemon-key-file", "--load-bound", "--check-interval", "--check-timeout"}) {
    if (app.count(flag) > 0) return true;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<fastgen::HttpServer>> Start(const CLI::App& app, Flags* flags) {
  flags->gateway.transfer_timeout = absl::Seconds(flags->transfer_timeout_s);
  flags->gateway.idle_timeout = absl::Seconds(flags->idle_timeout_s);
  RETURN_IF_ERROR(CheckExposure(*flags));
  ASSIGN_OR_RETURN(flags->fleet.daemons, Connect(*flags));
  if (!IsFleet(app, *flags)) {
    return fastgen::HttpServer::Start(flags->gateway, flags->fleet.daemons[0].channel);
  }
  flags->fleet.check_interval = absl::Seconds(flags->check_interval_s);
  flags->fleet.check_timeout = absl::Seconds(flags->check_timeout_s);
  if (!flags->daemon_key_file.empty()) {
    ASSIGN_OR_RETURN(flags->fleet.api_key, ReadKeyFile(flags->daemon_key_file));
  }
  return fastgen::HttpServer::StartFleet(flags->gateway, flags->fleet);
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
  CLI::App app("fastgen-gateway: OpenAI's HTTP dialect before one Fastgen daemon, or several");
  Flags flags;
  AddFlags(&app, &flags);
  if (const auto code = ParseCommandLine(&app, argc, argv)) return *code;

  // Blocked before any thread starts, so that only sigwait sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  auto server = Start(app, &flags);
  if (!server.ok()) {
    std::fprintf(stderr, "fastgen-gateway: %s\n", std::string(server.status().message()).c_str());
    return 1;
  }
  fastgen::LogInfo(
      absl::StrCat("serving HTTP on ", absl::StrJoin((*server)->addresses(), ", "),
                   flags.connect.size() > 1 ? " for the daemons at " : " for the daemon at ",
                   absl::StrJoin(flags.connect, ", ")));
  int signal = 0;
  sigwait(&signals, &signal);
  fastgen::LogInfo("draining");
  const bool drained = Drain(server->get(), flags.drain_timeout_s, signals);
  (*server)->Stop();
  return drained ? 0 : 1;
}
