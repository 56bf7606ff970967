// The daemon's command line, shared by fastgend, fgserve and fgchat: each flag's name, help, range and default in one
// place. A config file (--config, TOML) takes the same names.
//
//   DaemonOptions options;                          // presets put in before are the defaults that --help shows
//   options.grpc_listen = {"127.0.0.1:5679"};
//   CLI::App app("...");
//   AddDaemonOptions(app, &options, ModelArgument::kFlag);
//   if (std::optional<int> code = ParseCommandLine(app, argc, argv)) return *code;
// Thread rule: main thread.
// Tested by tests/server/options_test.cc.
#pragma once

#include <optional>
#include <string>

#include "server/in_process.h"

namespace CLI {
class App;
}  // namespace CLI

namespace fastgen {

enum class ModelArgument {
  kFlag,        // --model M (fastgend)
  kPositional,  // M, or --model M (fgserve, fgchat)
};

// Which groups of flags a program has: fgchat loads a model but listens nowhere.
enum class ListenArguments { kYes, kNo };

// Adds the flags to `app`; parsing fills `*options`, which must outlive `app`. --log-level acts at once.
void AddDaemonOptions(CLI::App& app, DaemonOptions* options, ModelArgument model,
                      ListenArguments listen = ListenArguments::kYes);

// Parses; nullopt to go on. --help and --version print to stdout: 0. A usage error is one line on stderr: 1.
std::optional<int> ParseCommandLine(CLI::App& app, int argc, const char* const* argv);

// The value in force of every flag, as TOML; where it stands for a choice that is still to be made, a comment says so.
std::string EffectiveOptions(const CLI::App& app);

}  // namespace fastgen
