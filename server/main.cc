// fastgend: the daemon. Everything it does is in server/run_daemon and server/options.
#include <CLI/CLI.hpp>

#include "server/options.h"
#include "server/run_daemon.h"

int main(int argc, char** argv) {
  fastgen::DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:5679"};
  CLI::App app(
      "fastgend: the Fastgen daemon. Loads one model and serves it over gRPC, and over OpenAI's HTTP\n"
      "dialect where --http-listen is given.",
      "fastgend");
  app.footer(
      "Examples:\n"
      "  fastgend                                       the default model, gRPC on 127.0.0.1:5679\n"
      "  fastgend --model ~/models/Mistral-7B --http-listen 127.0.0.1:5678\n"
      "  fastgend --model m.gguf --grpc-listen unix:/run/fastgen.sock --max-num-seqs 16\n"
      "  fastgend --config fastgend.toml\n"
      "\n"
      "SIGTERM or Ctrl-C drains: new requests are refused, streams finish, exit 0. A second one stops\n"
      "at once. `fgserve M` is this daemon with the gateway on 127.0.0.1:5678.");
  fastgen::AddDaemonOptions(app, &options, fastgen::ModelArgument::kFlag);
  if (const auto code = fastgen::ParseCommandLine(app, argc, argv)) return *code;
  return fastgen::RunDaemon("fastgend", options, fastgen::EffectiveOptions(app));
}
