#include "server/run_daemon.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/strings.h"
#include "server/transport/listen_address.h"
#include "server/loading_bar.h"

namespace fastgen {
namespace {

// How often a drain looks whether a second signal has come.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(50);

// Whether SIGHUP reads files again.
enum class Reload { kYes, kNo };

// What main waits for: signals, and the daemon's on_change.
class Events {
 public:
  // Without `reload`, SIGHUP means what it means to any program: its terminal is gone.
  explicit Events(Reload reload) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (reload == Reload::kYes) sigaddset(&signals, SIGHUP);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
    std::signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error of its own call
    signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    change_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(signal_fd_ >= 0 && change_fd_ >= 0) << "errno " << errno;
  }

  ~Events() {
    close(signal_fd_);
    close(change_fd_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Any thread.
  void NotifyChange() {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then main is being woken anyway.
    [[maybe_unused]] const ssize_t written = write(change_fd_, &one, sizeof(one));
  }

  // Blocks until a signal or a change has come; whether it was a change.
  bool Wait() {
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {change_fd_, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR) {
    }
    uint64_t count = 0;
    return read(change_fd_, &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count));
  }

  // Whether a signal to end has come since the last time. One to reload is kept for TakeReload.
  bool TakeSignal() {
    signalfd_siginfo info;
    while (read(signal_fd_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      if (info.ssi_signo != SIGHUP) return true;
      reload_ = true;
    }
    return false;
  }

  // After TakeSignal: whether SIGHUP has come since the last time.
  bool TakeReload() { return std::exchange(reload_, false); }

 private:
  int signal_fd_ = -1;
  int change_fd_ = -1;
  bool reload_ = false;
};

void Say(const std::string& program, const std::string& line) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), line.c_str());
}

void SayStatus(const std::string& program, const absl::Status& status) {
  Say(program, absl::StrReplaceAll(std::string(status.message()), {{"\n", " "}}));
}

// `word` as a shell reads it back: in single quotes when it holds anything that a shell could take for its own.
std::string ShellQuoted(const std::string& word) {
  const bool is_plain = std::all_of(word.begin(), word.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("/._-+,:@%=", c);
  });
  if (is_plain) return word;
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

// What to type for the fgchat that lies beside this program: a path that works from here when the folder is not in
// PATH, as in a build tree.
std::string FgchatCommand() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  const fs::path fgchat = folder / "fgchat";
  if (error || !fs::exists(fgchat, error)) return "fgchat";
  const char* path = std::getenv("PATH");
  for (absl::string_view entry : absl::StrSplit(path != nullptr ? path : "", ':')) {
    if (fs::equivalent(fs::path(FromAbsl(entry)), folder, error)) return "fgchat";
  }
  const std::string relative = fs::proximate(fgchat, error).string();
  if (error || absl::StartsWith(relative, "..")) return ShellQuoted(fgchat.string());
  // Without a slash the shell would look for it in PATH.
  return ShellQuoted(absl::StrContains(relative, "/") ? relative : "./" + relative);
}

std::string HostTier(const MemoryReport& memory) {
  if (memory.num_host_blocks == 0) return "no host KV cache";
  return absl::StrCat("host KV cache ", FormatBytes(memory.host_kv_bytes), " (",
                      memory.num_host_blocks, " blocks)");
}

// What curl is told before the path.
std::string CurlTarget(const std::string& address, const TlsFiles& tls) {
  if (const auto path = UnixPath(address)) {
    return absl::StrCat("--unix-socket ", ShellQuoted(*path), " http://localhost");
  }
  return absl::StrCat(tls.given() ? "https://" : "http://", ToConnect(address));
}

void SayReady(const std::string& program, const Daemon& daemon, const DaemonOptions& options,
              absl::Duration took) {
  const ModelInfo& model = daemon.engine().model_info();
  const MemoryReport& memory = daemon.engine().memory_report();
  Say(program, absl::StrCat("model ", model.name, " (", model.architecture, ", ", model.dtype,
                            ", context ", model.context_length, ") on ", model.backend));
  Say(program, absl::StrCat("memory: weights ", FormatBytes(memory.weights_bytes), ", KV cache ",
                            FormatBytes(memory.kv_bytes), " (", memory.num_blocks, " blocks of ",
                            memory.block_size, " tokens), ", HostTier(memory), ", workspace ",
                            FormatBytes(memory.workspace_bytes)));
  std::string ready = absl::StrCat("ready after ", absl::FormatDuration(absl::Trunc(
                                                       took, absl::Milliseconds(1))));
  if (!daemon.grpc_addresses().empty()) {
    absl::StrAppend(&ready, "; gRPC on ", absl::StrJoin(daemon.grpc_addresses(), ", "));
  }
  if (!daemon.http_addresses().empty()) {
    absl::StrAppend(&ready, "; HTTP on ", absl::StrJoin(daemon.http_addresses(), ", "));
  }
  if (!daemon.admin_addresses().empty()) {
    absl::StrAppend(&ready, "; Admin on ", absl::StrJoin(daemon.admin_addresses(), ", "));
  }
  Say(program, ready);
  if (daemon.http_addresses().empty()) return;
  std::fprintf(stderr,
               "  curl %s/v1/chat/completions -H 'Content-Type: application/json' "
               "-d '{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],"
               "\"max_tokens\":64}'\n",
               CurlTarget(daemon.http_addresses()[0], options.tls).c_str());
  if (daemon.grpc_addresses().empty()) return;
  std::fprintf(stderr, "  %s --connect %s\n", FgchatCommand().c_str(),
               ToConnect(daemon.grpc_addresses()[0]).c_str());
}

// A load cannot be interrupted, and its result is not wanted any more: the process ends without waiting for it. Nothing
// was served, so this is not a drain and the exit code says so.
[[noreturn]] void LeaveWhileLoading(const std::string& program, const Daemon& daemon) {
  for (const auto* addresses :
       {&daemon.grpc_addresses(), &daemon.http_addresses(), &daemon.admin_addresses()}) {
    for (const std::string& address : *addresses) {
      if (const auto path = UnixPath(address)) unlink(path->c_str());
    }
  }
  Say(program, "stopped while loading");
  std::_Exit(1);
}

// From here on nobody looks at the signal descriptor: a further signal ends the process, whatever it waits for.
void LetSignalsKill() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

void ReloadKeys(const std::string& program, Daemon* daemon) {
  const absl::Status status = daemon->ReloadKeys();
  if (!status.ok()) Say(program, absl::StrCat(status.message(), "; the API keys stay as they were"));
}

int Drain(const std::string& program, Events* events, Daemon* daemon) {
  Say(program, "draining: streams finish, new requests are refused; a second signal stops at once");
  daemon->StartDrain();
  while (!daemon->WaitDrained(kDrainPoll)) {
    if (!events->TakeSignal()) continue;
    Say(program, "stopped by a second signal");
    LetSignalsKill();
    daemon->Stop();
    return 1;
  }
  LetSignalsKill();
  daemon->Stop();
  if (!daemon->health().ok()) return 1;
  Say(program, "drained");
  return 0;
}

}  // namespace

int RunDaemon(const std::string& program, const DaemonOptions& options,
              const std::string& effective_options) {
  Events events(options.api_keys_path.empty() ? Reload::kNo : Reload::kYes);
  std::fputs(effective_options.c_str(), stderr);
  const absl::Time start = absl::Now();
  LoadingBar bar(program);
  DaemonOptions with_events = options;
  bool load_ended = false;
  with_events.on_change = [&] { events.NotifyChange(); };
  std::atomic<bool> drain_ordered = false;
  with_events.on_drain = [&] {
    drain_ordered = true;
    events.NotifyChange();
  };
  with_events.on_phase = bar.Phases();
  auto started = Daemon::Start(with_events, bar.Progress());
  if (!started.ok()) {
    SayStatus(program, started.status());
    return 1;
  }
  Daemon& daemon = **started;
  while (true) {
    const bool changed = events.Wait();
    const bool leave = events.TakeSignal() || drain_ordered;
    if (events.TakeReload()) ReloadKeys(program, &daemon);
    if (!changed && !leave) continue;
    if (!load_ended) {
      if (leave) LeaveWhileLoading(program, daemon);
      bar.Finish();
      const absl::Status loaded = daemon.WaitLoaded();
      if (!loaded.ok()) {
        SayStatus(program, loaded);
        return 1;
      }
      load_ended = true;
      SayReady(program, daemon, options, absl::Now() - start);
    }
    if (!daemon.health().ok()) {
      SayStatus(program, daemon.health());
      return 1;
    }
    if (leave) return Drain(program, &events, &daemon);
  }
}

}  // namespace fastgen
