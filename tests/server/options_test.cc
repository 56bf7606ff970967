#include "server/options.h"

#include <fstream>

#include <CLI/CLI.hpp>

#include "tests/testing/temporary_directory.h"

// Last, as base/check.h and Catch2 both name a CHECK and a test means Catch2's.
// clang-format off
#include <catch2/catch.hpp>
// clang-format on

namespace fastgen {
namespace {

struct Parsed {
  DaemonOptions options;
  std::optional<int> code;
  std::string effective;
};

Parsed Parse(std::vector<std::string> arguments, ModelArgument model = ModelArgument::kFlag) {
  Parsed parsed;
  parsed.options.grpc_listen = {"127.0.0.1:5679"};
  CLI::App app("test", "prog");
  AddDaemonOptions(app, &parsed.options, model);
  std::vector<const char*> argv = {"prog"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  parsed.code = ParseCommandLine(app, static_cast<int>(argv.size()), argv.data());
  parsed.effective = EffectiveOptions(app);
  return parsed;
}

// A file in the temporary directory for the life of the object.
class TempFile {
 public:
  explicit TempFile(const std::string& text) { std::ofstream(path_) << text; }
  const std::string& path() const { return path_; }

 private:
  testing::TemporaryDirectory directory_;
  const std::string path_ = (directory_.path() / "options.toml").string();
};

TEST_CASE("no flags leave the presets", "[server]") {
  const Parsed parsed = Parse({});
  CHECK_FALSE(parsed.code.has_value());
  CHECK(parsed.options.grpc_listen == std::vector<std::string>{"127.0.0.1:5679"});
  CHECK(parsed.options.http_listen.empty());
  CHECK(parsed.options.engine.max_num_seqs == 64);
  CHECK(parsed.options.engine.prefix_cache);
  CHECK(parsed.options.engine.host_kv_bytes == 0);
  CHECK(parsed.options.engine.backend.compute_dtype == ComputeDType::kAuto);
}

TEST_CASE("each flag reaches its option", "[server]") {
  const Parsed parsed = Parse({"--model", "m.gguf", "--grpc-listen", "0.0.0.0:1", "--grpc-listen",
                               "unix:/s", "--http-listen", "127.0.0.1:2", "--max-model-len", "512",
                               "--max-num-seqs", "8", "--max-num-batched-tokens", "256",
                               "--block-size", "16", "--kv-cache-gib", "1.5",
                               "--max-queued-requests", "9", "--max-request-bytes", "2048",
                               "--max-outbox-tokens", "10", "--threads", "2", "--cpu-isa", "avx2",
                               "--device", "cpu", "--compute-dtype", "fp32", "--strict-model",
                               "--weights-dtype", "int4-g128",
                               "--strict", "--max-queued-tokens", "12345", "--host-kv-gib", "0.25",
                               "--no-prefix-cache", "--resume-ring-tokens", "77",
                               "--deadline-margin", "35"});
  REQUIRE_FALSE(parsed.code.has_value());
  const DaemonOptions& options = parsed.options;
  CHECK(options.model == "m.gguf");
  CHECK(options.grpc_listen == std::vector<std::string>{"0.0.0.0:1", "unix:/s"});
  CHECK(options.http_listen == std::vector<std::string>{"127.0.0.1:2"});
  CHECK(options.engine.max_model_len == 512);
  CHECK(options.engine.max_num_seqs == 8);
  CHECK(options.engine.max_num_batched_tokens == 256);
  CHECK(options.engine.block_size == 16);
  CHECK(options.engine.kv_cache_bytes == (int64_t{3} << 29));
  CHECK(options.engine.max_queued_requests == 9);
  CHECK(options.max_request_bytes == 2048);
  CHECK(options.max_outbox_tokens == 10);
  CHECK(options.engine.backend.num_threads == 2);
  CHECK(options.engine.backend.cpu_isa == "avx2");
  CHECK(options.engine.backend.compute_dtype == ComputeDType::kF32);
  CHECK(options.engine.weights_dtype == WeightForm::kInt4Group128);
  CHECK(options.strict_model);
  CHECK(options.strict_fields);
  CHECK(options.engine.max_queued_tokens == 12345);
  CHECK(options.engine.host_kv_bytes == (int64_t{1} << 28));
  CHECK_FALSE(options.engine.prefix_cache);
  CHECK(options.resume_ring_tokens == 77);
  CHECK(options.engine.deadline_margin == absl::Milliseconds(35));
}

TEST_CASE("each flag of the listeners reaches its option", "[server]") {
  const TempFile pem("");
  const Parsed parsed = Parse({"--admin-listen", "127.0.0.1:3", "--admin-listen", "unix:/a",
                               "--tls-cert", pem.path().c_str(), "--tls-key", pem.path().c_str(),
                               "--tls-client-ca", pem.path().c_str(), "--allow-public-without-keys",
                               "--cors-origin", "https://a", "--cors-origin", "*",
                               "--max-connections", "7", "--max-head-bytes", "2048",
                               "--transfer-timeout", "1.5", "--idle-timeout", "2"});
  REQUIRE_FALSE(parsed.code.has_value());
  const DaemonOptions& options = parsed.options;
  CHECK(options.admin_listen == std::vector<std::string>{"127.0.0.1:3", "unix:/a"});
  CHECK(options.tls.certificate == pem.path());
  CHECK(options.tls.key == pem.path());
  CHECK(options.tls.client_ca == pem.path());
  CHECK(options.allow_public_without_keys);
  CHECK(options.cors_origins == std::vector<std::string>{"https://a", "*"});
  CHECK(options.max_connections == 7);
  CHECK(options.max_head_bytes == 2048);
  CHECK(options.transfer_timeout == absl::Milliseconds(1500));
  CHECK(options.idle_timeout == absl::Seconds(2));
}

TEST_CASE("half a TLS pair is a usage error", "[server]") {
  const TempFile pem("");
  CHECK(Parse({"--tls-cert", pem.path().c_str()}).code == 1);
  CHECK(Parse({"--tls-key", pem.path().c_str()}).code == 1);
  CHECK(Parse({"--tls-client-ca", pem.path().c_str()}).code == 1);
  CHECK(Parse({"--tls-cert", "/no/such/file", "--tls-key", pem.path().c_str()}).code == 1);
}

TEST_CASE("the model may be positional", "[server]") {
  CHECK(Parse({"m.gguf"}, ModelArgument::kPositional).options.model == "m.gguf");
  CHECK(Parse({"--model", "m.gguf"}, ModelArgument::kPositional).options.model == "m.gguf");
  CHECK(Parse({}, ModelArgument::kPositional).options.model.empty());
  const Parsed after =
      Parse({"--http-listen", "127.0.0.1:1", "m.gguf"}, ModelArgument::kPositional);
  CHECK(after.options.model == "m.gguf");
  CHECK(after.options.http_listen == std::vector<std::string>{"127.0.0.1:1"});
  CHECK(Parse({"m.gguf"}, ModelArgument::kFlag).code == 1);
}

TEST_CASE("usage errors exit with 1", "[server]") {
  const std::vector<std::vector<std::string>> cases = {
      {"--no-such-flag"},      {"--max-num-seqs", "0"},       {"--max-num-seqs", "many"},
      {"--max-num-seqs"},      {"--block-size", "17"},        {"--compute-dtype", "fp64"},
      {"--weights-dtype", "int3"},
      {"--device", "tpu"},     {"--config", "/no/such.toml"}, {"--chat-template", "/no/such"},
      {"--log-level", "loud"}, {"--max-model-len", "-1"},     {"--kv-cache-gib", "-1"},
      {"--threads", "-1"},     {"--max-outbox-tokens", "0"},  {"--host-kv-gib", "-0.5"},
      {"--max-queued-tokens", "0"}, {"--resume-ring-tokens", "0"}, {"--deadline-margin", "-1"},
      {"--deadline-margin", "10001"}, {"--host-kv-gib", "much"},
  };
  for (const auto& arguments : cases) {
    INFO(arguments[0]);
    CHECK(Parse(arguments).code == 1);
  }
}

TEST_CASE("help and version exit with 0", "[server]") {
  CHECK(Parse({"--help"}).code == 0);
  CHECK(Parse({"--version"}).code == 0);
}

TEST_CASE("a config file sets options and flags win", "[server]") {
  const TempFile config(
      "max-num-seqs = 4\nmax-model-len = 300\nstrict-model = true\n"
      "grpc-listen = [\"127.0.0.1:7\", \"127.0.0.1:8\"]\n");
  const Parsed parsed = Parse({"--config", config.path(), "--max-num-seqs", "6"});
  REQUIRE_FALSE(parsed.code.has_value());
  CHECK(parsed.options.engine.max_num_seqs == 6);
  CHECK(parsed.options.engine.max_model_len == 300);
  CHECK(parsed.options.strict_model);
  CHECK(parsed.options.grpc_listen == std::vector<std::string>{"127.0.0.1:7", "127.0.0.1:8"});
}

TEST_CASE("unknown keys and bad values of a config file are refused", "[server]") {
  for (const char* text : {"no-such-option = 1\n", "max-num-seqs = 0\n", "max-num-seqs = \"x\"\n",
                           "[section]\nmax-num-seqs = 3\n"}) {
    INFO(text);
    const TempFile config(text);
    CHECK(Parse({"--config", config.path()}).code == 1);
  }
}

TEST_CASE("effective options tell the presets of lists", "[server]") {
  const std::string effective = Parse({}).effective;
  INFO(effective);
  CHECK(effective.find("grpc-listen = [\"127.0.0.1:5679\"]\n") != std::string::npos);
  CHECK(effective.find("http-listen = []\n") != std::string::npos);
}

TEST_CASE("effective options are TOML of given values and defaults", "[server]") {
  const std::string effective =
      Parse({"--max-num-seqs", "8", "--strict", "--grpc-listen", "a:1", "--grpc-listen", "b:2",
             "--model", "a \"b\" \\c", "--kv-cache-gib", "1.5"})
          .effective;
  for (const char* line : {"max-num-seqs = 8\n", "block-size = 64\n", "compute-dtype = \"auto\"\n",
                           "strict = true\n", "strict-model = false\n",
                           "grpc-listen = [\"a:1\", \"b:2\"]\n",
                           "model = \"a \\\"b\\\" \\\\c\"\n", "kv-cache-gib = 1.5\n"}) {
    INFO(effective);
    INFO(line);
    CHECK(effective.find(line) != std::string::npos);
  }
}

TEST_CASE("effective options say what is chosen at start", "[server]") {
  const std::string effective = Parse({"--threads", "0"}).effective;
  for (const char* line :
       {"max-model-len = 0  # chosen at start\n", "kv-cache-gib = 0  # chosen at start\n",
        "threads = 0  # chosen at start\n", "cpu-isa = \"\"  # chosen at start\n",
        "model = \"\"  # the default model\n", "chat-template = \"\"  # the model's own\n"}) {
    INFO(effective);
    INFO(line);
    CHECK(effective.find(line) != std::string::npos);
  }
  const std::string presets = Parse({}).effective;
  for (const char* line : {"max-queued-tokens = 4194304\n", "host-kv-gib = 0\n",
                           "no-prefix-cache = false\n", "resume-ring-tokens = 16384\n",
                           "deadline-margin = 20\n"}) {
    INFO(presets);
    INFO(line);
    CHECK(presets.find(line) != std::string::npos);
  }
  CHECK(Parse({"--max-model-len", "512"}).effective.find("max-model-len = 512\n") !=
        std::string::npos);
}

}  // namespace
}  // namespace fastgen
