// fgserve MODEL: fastgend with the gateway on, in one argument.

#include <CLI/CLI.hpp>

#include "server/options.h"
#include "server/run_daemon.h"

int main(int argc, char** argv) {
  fastgen::DaemonOptions options;
  options.grpc_listen = {"127.0.0.1:5679"};
  options.http_listen = {"127.0.0.1:5678"};
  CLI::App app(
      "Serves a model to OpenAI clients on http://127.0.0.1:5678 and over gRPC on 127.0.0.1:5679.\n\n"
      "  fgserve                          the small default model\n"
      "  fgserve ~/models/Llama-3.1-8B    a Hugging Face directory\n"
      "  fgserve model.gguf               a GGUF file\n",
      "fgserve");
  AddDaemonOptions(app, &options, fastgen::ModelArgument::kPositional);
  if (const auto code = fastgen::ParseCommandLine(app, argc, argv)) return *code;
  return fastgen::RunDaemon("fgserve", options, fastgen::EffectiveOptions(app));
}
