// fgchat [MODEL]: a chat in the terminal. Loads MODEL inside this process, or talks to a running daemon with
// --connect; both are the same gRPC service to the code below.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>
#include <thread>

#include <grpcpp/create_channel.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "clients/fgchat/answer.h"
#include "clients/fgchat/conversation.h"
#include "clients/fgchat/line_reader.h"
#include "fastgen/v1/inference.grpc.pb.h"
#include "server/in_process.h"
#include "server/loading_bar.h"
#include "server/options.h"
#include "server/transport/channel_tls.h"

namespace fastgen {
namespace {

constexpr char kCommands[] =
    "  /r N   forget round N and all after it\n"
    "  /m     a message of several lines, ended by a line with a single .\n"
    "  /q     quit (so does Ctrl-D); Ctrl-C stops an answer\n";

// What a shell reports of a program that Ctrl-C ended: 128 + SIGINT.
constexpr int kInterruptedExit = 130;

// The daemon takes any temperature; what is above this is noise. It refuses a top-p of 0.
constexpr double kMaxTemperature = 100;
constexpr double kMinTopP = 1e-6;

struct ChatOptions {
  std::string connect;
  ChannelTls connect_tls;
  std::string api_key;
  std::string system;
  float temperature = 0.7f;
  float top_p = 0.95f;
  int max_tokens = 0;
  std::optional<uint64_t> seed;
};

// Ctrl-C: the signal is blocked in every thread and taken by this one. It stops the answer under way; before there is
// a chat, while the model is fetched or loaded, it ends the program, as neither can be interrupted from within.
class InterruptThread {
 public:
  InterruptThread() : thread_([this] { Run(); }) {}
  ~InterruptThread() {
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

  // Before any thread is started, so that all inherit it.
  static void BlockSignals() {
    const sigset_t signals = Signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  }

  // The chat's answers from now on; nullptr when it is over.
  void SetStream(AnswerStream* stream) {
    MutexLock lock(&mutex_);
    stream_ = stream;
  }

 private:
  static sigset_t Signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);  // ends the thread
    return signals;
  }

  void Run() {
    const sigset_t signals = Signals();
    int number = 0;
    while (sigwait(&signals, &number) == 0 && number == SIGINT) {
      MutexLock lock(&mutex_);
      if (stream_ == nullptr) {
        std::fputc('\n', stderr);  // below the loading bar
        _exit(kInterruptedExit);
      }
      stream_->Interrupt();
    }
  }

  Mutex mutex_;
  AnswerStream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;  // last: it uses the others
};

fastgen::v1::GenerateRequest MakeRequest(const ChatOptions& options, fastgen::v1::Chat chat) {
  fastgen::v1::GenerateRequest request;
  *request.mutable_chat() = std::move(chat);
  request.mutable_sampling()->set_temperature(options.temperature);
  request.mutable_sampling()->set_top_p(options.top_p);
  if (options.seed.has_value()) request.mutable_sampling()->set_seed(*options.seed);
  if (options.max_tokens > 0) request.mutable_stopping()->set_max_tokens(options.max_tokens);
  return request;
}

// A message of several lines; nullopt at the end of input.
std::optional<std::string> ReadMultiLine(LineReader* reader) {
  std::string message;
  while (true) {
    const std::optional<std::string> line = reader->Read("");
    if (!line.has_value()) return std::nullopt;
    if (*line == ".") return message;
    absl::StrAppend(&message, message.empty() ? "" : "\n", *line);
  }
}

void Ask(const ChatOptions& options, AnswerStream* stream, Conversation* conversation, std::string message) {
  absl::StatusOr<Answer> answer =
      stream->Run(MakeRequest(options, conversation->With(message)),
                  [](std::string_view text) { std::cout << text << std::flush; });
  if (!answer.ok()) {
    std::cout << std::endl;
    std::cerr << "fgchat: " << answer.status().message() << std::endl;
    if (absl::IsInvalidArgument(answer.status()) && conversation->round() > 1) {
      std::cerr << "fgchat: '/r 1' starts over; the message was not kept" << std::endl;
    }
    return;
  }
  std::cout << "\n" << DescribeSpeed(*answer) << std::endl;
  conversation->Add(std::move(message), std::move(answer->text));
}

// Rounds until the user quits.
void Chat(const ChatOptions& options, AnswerStream* stream) {
  LineReader reader;
  Conversation conversation(options.system);
  while (true) {
    const std::optional<std::string> line = reader.Read(absl::StrCat(conversation.round(), "> "));
    if (!line.has_value()) {
      std::cout << std::endl;
      return;
    }
    ChatInput input = ParseChatInput(*line, conversation.round());
    switch (input.kind) {
      case ChatInput::Kind::kQuit: return;
      case ChatInput::Kind::kEmpty: break;
      case ChatInput::Kind::kHelp: std::cout << kCommands << std::flush; break;
      case ChatInput::Kind::kMistake: std::cerr << "fgchat: " << input.text << std::endl; break;
      case ChatInput::Kind::kReset: conversation.ResetTo(input.round); break;
      case ChatInput::Kind::kMultiLine: {
        std::optional<std::string> message = ReadMultiLine(&reader);
        if (!message.has_value()) return;
        if (!message->empty()) Ask(options, stream, &conversation, std::move(*message));
        break;
      }
      case ChatInput::Kind::kMessage:
        Ask(options, stream, &conversation, std::move(input.text));
        break;
    }
  }
}

// "" for a seed, else what is wrong: CLI11 would take -1 for the largest one.
std::string CheckSeed(const std::string& text) {
  uint64_t seed = 0;
  if (absl::SimpleAtoi(text, &seed)) return "";
  return absl::StrCat("Value ", text, " not in range 0 to ", std::numeric_limits<uint64_t>::max());
}

// "" for a key that metadata can carry, else what is wrong, without the key.
std::string CheckApiKey(const std::string& key) {
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c >= '!' && c <= '~'; });
  return printable ? "" : "a key is printable ASCII without spaces";
}

void AddConnectOptions(CLI::App& app, ChatOptions* options) {
  auto* const connect =
      app.add_option("--connect", options->connect, "Talk to the daemon at HOST:PORT instead of loading a model")
          ->type_name("ADDR");
  const auto add_file = [&](const char* name, std::string* path, const char* help) {
    return app.add_option(name, *path, help)->check(CLI::ExistingFile)->type_name("FILE")->needs(connect);
  };
  auto* const ca = add_file("--connect-ca", &options->connect_tls.ca,
                            "PEM certificates that the daemon's is signed by: connect by TLS");
  auto* const certificate =
      add_file("--connect-cert", &options->connect_tls.certificate, "PEM certificate to show the daemon")->needs(ca);
  auto* const key = add_file("--connect-key", &options->connect_tls.key, "PEM key of --connect-cert");
  certificate->needs(key);
  key->needs(certificate);
  // By the environment rather than by the flag, which every user of the machine can read in the list of processes.
  app.add_option("--api-key", options->api_key, "The daemon's API key for you, where it asks for one")
      ->envname("FASTGEN_API_KEY")
      ->check(CheckApiKey)
      ->type_name("KEY")
      ->configurable(false);
}

void AddChatOptions(CLI::App& app, ChatOptions* options) {
  app.add_option("--system", options->system, "System message")->type_name("TEXT");
  app.add_option("--temperature", options->temperature, "0 always takes the most probable token")
      ->check(CLI::Range(0.0, kMaxTemperature))
      ->type_name("T")
      ->capture_default_str();
  app.add_option("--top-p", options->top_p, "Choose among the most probable tokens of this total probability")
      ->check(CLI::Range(kMinTopP, 1.0))
      ->type_name("P")
      ->capture_default_str();
  app.add_option("--max-tokens", options->max_tokens, "Longest answer; 0: what the context allows")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--seed", options->seed, "The same seed gives the same answers")
      ->check(CheckSeed)
      ->type_name("N");
}

// A daemon that answers, or one sentence why not.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ChatOptions& options) {
  const std::string& address = options.connect;
  ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(options.connect_tls));
  auto channel = grpc::CreateChannel(address, credentials);
  auto stub = fastgen::v1::Inference::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  AddApiKey(options.api_key, &context);
  fastgen::v1::ModelInfo info;
  const grpc::Status status = stub->GetModelInfo(&context, {}, &info);
  if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    return absl::UnauthenticatedError(
        absl::StrCat(address, ": ", status.error_message(), " (--api-key, or FASTGEN_API_KEY)"));
  }
  if (!status.ok()) {
    const char* const hint = options.connect_tls.ca.empty()
                                 ? " (is fastgend running there, and without TLS? else --connect-ca)"
                                 : " (is fastgend running there, with TLS?)";
    return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message(), hint));
  }
  std::cerr << info.name() << " at " << address << std::endl;
  return channel;
}

absl::Status RunChat(const ChatOptions& options, const DaemonOptions& daemon_options) {
  InterruptThread interrupts;
  std::unique_ptr<Daemon> daemon;
  std::shared_ptr<grpc::Channel> channel;
  if (!options.connect.empty()) {
    ASSIGN_OR_RETURN(channel, Connect(options));
  } else {
    LoadingBar bar;
    DaemonOptions with_bar = daemon_options;
    with_bar.on_phase = bar.Phases();
    ASSIGN_OR_RETURN(daemon, Daemon::Start(with_bar, bar.Progress()));
    RETURN_IF_ERROR(daemon->WaitLoaded());
    channel = daemon->channel();
  }
  auto stub = fastgen::v1::Inference::NewStub(channel);
  AnswerStream stream(stub.get(), options.api_key);
  interrupts.SetStream(&stream);
  Chat(options, &stream);
  interrupts.SetStream(nullptr);
  return absl::OkStatus();
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) {
  fastgen::DaemonOptions daemon_options;
  daemon_options.engine.max_num_seqs = 1;
  fastgen::ChatOptions options;
  CLI::App app(
      absl::StrCat("Chats with a model in the terminal.\n\n"
                   "  fgchat                              the small default model\n"
                   "  fgchat model.gguf                   a GGUF file or a Hugging Face directory\n"
                   "  fgchat org/name[:file.gguf]         a model of the Hugging Face hub, fetched into its cache\n"
                   "  fgchat --connect 127.0.0.1:5679     a running fastgend\n\n"
                   "Instead of a message:\n",
                   fastgen::kCommands),
      "fgchat");
  fastgen::AddConnectOptions(app, &options);
  fastgen::AddChatOptions(app, &options);
  AddDaemonOptions(app, &daemon_options, fastgen::ModelArgument::kPositional, fastgen::ListenArguments::kNo);
  app.get_option("--connect")->excludes(app.get_option("--model"));
  if (const auto code = fastgen::ParseCommandLine(app, argc, argv)) return *code;
  fastgen::InterruptThread::BlockSignals();
  const absl::Status status = fastgen::RunChat(options, daemon_options);
  if (status.ok()) return 0;
  std::cerr << "fgchat: " << status.message() << std::endl;
  return 1;
}
